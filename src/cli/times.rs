//! Kernel times as a table.

use decorr::bench::{OpTimes, Peaks, times_by_op};
use decorr::program::KernelTime;

use super::print;

/// Prints the times summed by op, and the slowest kernels.
pub(super) fn print_times(kernels: Vec<KernelTime>) {
    print("");
    lines(kernels).iter().for_each(print);
}

fn lines(mut kernels: Vec<KernelTime>) -> Vec<String> {
    let total: f64 = kernels.iter().map(|k| k.seconds).sum();
    let mut lines = by_op(&times_by_op(&kernels), total, None);
    lines.push(format!(
        "{:<28} {:>6} {:>10.3}",
        "all",
        kernels.len(),
        1e3 * total
    ));
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    lines.push("\nslowest kernels".into());
    for kernel in kernels.iter().take(15) {
        lines.push(format!(
            "{:>10.3} ms  {}",
            1e3 * kernel.seconds,
            kernel.label
        ));
    }
    lines
}

/// A heading, and a line an op: its share of the `total` seconds and, where it is known what the adapter reaches,
/// of that.
pub(super) fn by_op(ops: &[OpTimes], total: f64, peaks: Option<Peaks>) -> Vec<String> {
    let heading = peaks.map_or("", |_| "  of peak  of stream");
    let heading = format!(
        "{:<28} {:>6} {:>10} {:>6} {:>9} {:>8}{heading}",
        "time by op", "count", "ms", "share", "GFLOP/s", "GB/s"
    );
    let rows = ops.iter().map(|op| row(op, total, peaks));
    [heading].into_iter().chain(rows).collect()
}

fn row(op: &OpTimes, total: f64, peaks: Option<Peaks>) -> String {
    let (flops_per_s, bytes_per_s) = (op.flops as f64 / op.seconds, op.bytes as f64 / op.seconds);
    let shares = peaks.map_or(String::new(), |peaks| {
        let of_peak = 100.0 * flops_per_s / peaks.flops_per_s;
        let of_stream = 100.0 * bytes_per_s / peaks.bytes_per_s;
        format!(" {of_peak:>7.0}% {of_stream:>9.0}%")
    });
    format!(
        "{:<28} {:>6} {:>10.3} {:>5.1}% {:>9.2} {:>8.2}{shares}",
        op.op,
        op.count,
        1e3 * op.seconds,
        100.0 * op.seconds / total,
        flops_per_s / 1e9,
        bytes_per_s / 1e9
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a second of two: 8 GFLOP and 3 GB, where the adapter reaches 64 GFLOP/s and 12 GB/s.
    #[test]
    fn a_row_has_its_numbers_in_the_order_of_the_heading() {
        let op = OpTimes {
            op: "matmul".into(),
            count: 5,
            seconds: 0.5,
            flops: 8_000_000_000,
            bytes: 3_000_000_000,
        };
        let peaks = Peaks {
            flops_per_s: 64e9,
            bytes_per_s: 12e9,
        };
        let row = row(&op, 2.0, Some(peaks));
        let words: Vec<&str> = row.split_whitespace().collect();
        let wanted = [
            "matmul", "5", "500.000", "25.0%", "16.00", "6.00", "25%", "50%",
        ];
        assert_eq!(words, wanted);
    }

    #[test]
    fn all_kernels_are_summed_up_and_the_slowest_come_first() {
        // 17 kernels of 1 to 17 ms.
        let kernel = |n: usize| KernelTime {
            label: format!("k{n}"),
            op: "matmul",
            entry: "main",
            shape: "[2]".into(),
            start: 0.0,
            seconds: n as f64 / 1e3,
            flops: 1,
            bytes: 1,
        };
        let lines = lines((1..=17).map(kernel).collect());
        let words: Vec<Vec<&str>> = lines
            .iter()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[1][..4], ["matmul", "17", "153.000", "100.0%"]);
        assert_eq!(words[2], ["all", "17", "153.000"]);
        assert_eq!(
            (words.len(), &words[4][..]),
            (19, &["17.000", "ms", "k17"][..])
        );
        assert_eq!(words[18], ["3.000", "ms", "k3"]);
    }
}
