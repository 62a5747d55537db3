//! Kernel times as a table.

use decorr::program::KernelTime;

use super::print;

/// Prints the times summed by op, and the slowest kernels.
pub(super) fn print_times(mut kernels: Vec<KernelTime>) {
    let total: f64 = kernels.iter().map(|k| k.seconds).sum();
    let mut by_op: Vec<(&str, f64, u64, u64, usize)> = Vec::new();
    for kernel in &kernels {
        let at = by_op.iter().position(|(op, ..)| *op == kernel.op);
        let at = at.unwrap_or_else(|| {
            by_op.push((kernel.op, 0.0, 0, 0, 0));
            by_op.len() - 1
        });
        by_op[at].1 += kernel.seconds;
        by_op[at].2 += kernel.flops;
        by_op[at].3 += kernel.bytes;
        by_op[at].4 += 1;
    }
    by_op.sort_by(|a, b| b.1.total_cmp(&a.1));
    print(format_args!(
        "\n{:<28} {:>6} {:>10} {:>6} {:>9} {:>8}",
        "time by op", "count", "ms", "share", "GFLOP/s", "GB/s"
    ));
    for (op, seconds, flops, bytes, count) in by_op {
        print(format_args!(
            "{op:<28} {count:>6} {:>10.3} {:>5.1}% {:>9.2} {:>8.2}",
            1e3 * seconds,
            100.0 * seconds / total,
            flops as f64 / seconds / 1e9,
            bytes as f64 / seconds / 1e9
        ));
    }
    print(format_args!(
        "{:<28} {:>6} {:>10.3}",
        "all",
        kernels.len(),
        1e3 * total
    ));
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    print(format_args!("\nslowest kernels"));
    for kernel in kernels.iter().take(15) {
        print(format_args!(
            "{:>10.3} ms  {}",
            1e3 * kernel.seconds,
            kernel.label
        ));
    }
}
