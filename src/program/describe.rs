//! A program as text: kernels, shapes, operations, bytes and planned memory.

use std::fmt::Write;

use super::Program;

impl Program {
    /// One line a dispatch, then the sums and the planned peak memory.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let widths = self.dispatches.iter().map(|d| d.label.len());
        let width = widths.fold("tensor (kernel)".len(), usize::max);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:>4}  {:<width$} {:<16} {:<20} {:>14} {:>10} {:>10}",
            "#", "tensor (kernel)", "entry", "shape", "workgroups", "MFLOP", "MB"
        );
        for (i, d) in self.dispatches.iter().enumerate() {
            let [x, y, z] = d.workgroups;
            let _ = writeln!(
                text,
                "{i:>4}  {:<width$} {:<16} {:<20} {:>14} {:>10.3} {:>10.3}",
                d.label,
                d.entry,
                d.shape,
                format!("{x}x{y}x{z}"),
                d.cost.flops as f64 / 1e6,
                d.cost.bytes as f64 / 1e6
            );
        }
        let cost = self.cost();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "{} dispatches of {} pipelines, {} behind a barrier; {:.3} GFLOP and {:.3} GB a step",
            self.dispatches.len(),
            self.pipelines,
            self.barrier_count(),
            cost.flops as f64 / 1e9,
            cost.bytes as f64 / 1e9
        );
        let memory = self.memory;
        let _ = writeln!(
            text,
            "planned peak memory {:.2} MiB: arenas {:.2} (alive at one time {:.2}, without reuse \
             {:.2}), states {:.2}, inputs, parameters and rings {:.2}",
            mib(memory.peak()),
            mib(memory.arenas),
            mib(memory.live),
            mib(memory.unshared),
            mib(memory.states),
            mib(memory.other)
        );
        text
    }
}
