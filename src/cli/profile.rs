//! `decorr profile`.

use std::path::{Path, PathBuf};

use clap::Args;
use decorr::bench::{LayerTimes, StepTrace, times_by_op, trace_step};
use decorr::files::{expect_ending, prepare_out, write_atomically};
use decorr::models::Model;
use decorr::program::Store;
use decorr::{Error, Result};

use super::step::{Step, StepArgs};
use super::times::by_op;
use super::{AdapterArgs, note, print};

/// Layers that are printed, the longest first.
const LAYERS: usize = 15;

/// The end of `decorr profile --help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  decorr profile --model vgg11 --norm deconv --batch-size 32 --out trace.json
  decorr profile --model vgg11 --norm deconv --refresh 8 --between --out between.json

Each kernel is an event on the track of its phase (forward, backward, update) and layer. Its arguments
are op, tensor, kernel, shape, FLOPs, bytes, GFLOP/s, GB/s, and its share of the adapter's multiply-add
peak and of its memory stream, both measured in the same run. Timestamps need an adapter with the
feature timestamp-query: see `decorr devices`.";

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    step: StepArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(mut args: ProfileArgs) -> Result<()> {
    let out = args.step.options.out.take();
    let out = out.unwrap_or_else(|| PathBuf::from("trace.json"));
    expect_ending(&out, &["json"])?;
    prove_writable(&out)?;
    let gpu = args.adapter.open_to_run()?;
    let step = Step::new(args.step, &gpu)?;
    let mut store = Store::new(&gpu, step.config.seed);
    step.config.choose_kernels(&mut store)?;
    let trace = trace_step(&mut store, &step.graph, &step.inputs(), |what| {
        note(what);
    })?;
    let text = trace.to_json(&about(&step.model, step.config.batch_size));
    let text = text.to_string();
    write_atomically(&out, text.as_bytes())?;
    summary(&trace).iter().for_each(print);
    print(format_args!(
        "\nwrote {}: {} kernels on tracks by phase and layer. Open it at https://ui.perfetto.dev or in \
         chrome://tracing",
        out.display(),
        trace.kernels.len()
    ));
    Ok(())
}

/// What the trace says of its step.
fn about(model: &Model, batch_size: usize) -> [(&'static str, String); 4] {
    [
        ("model", model.network.name.to_string()),
        ("norm", model.norm.name().to_string()),
        ("block", model.deconv.block.to_string()),
        ("batch size", batch_size.to_string()),
    ]
}

/// Refuses a file that could not be written, before any work; makes its folder.
fn prove_writable(out: &Path) -> Result<()> {
    if out.is_dir() {
        let message = format!("--out {} is a folder, not a file", out.display());
        return Err(Error::Config(message));
    }
    match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => prepare_out(dir, true),
        _ => prepare_out(Path::new("."), true),
    }
}

fn summary(trace: &StepTrace) -> Vec<String> {
    let kernels: f64 = trace.kernels.iter().map(|k| k.seconds).sum();
    let mut lines = vec![format!(
        "{}\na step of {:.3} ms: {} kernels take {:.3} ms, the rest lies between them\n\
         multiply-add peak {:.1} GFLOP/s, memory stream {:.2} GB/s\n",
        trace.adapter,
        1e3 * trace.seconds(),
        trace.kernels.len(),
        1e3 * kernels,
        trace.peaks.flops_per_s / 1e9,
        trace.peaks.bytes_per_s / 1e9
    )];
    let ops = times_by_op(&trace.kernels);
    lines.extend(by_op(&ops, kernels, Some(trace.peaks)));
    let layers = trace.times_by_layer();
    lines.push(format!(
        "\n{:<36} {:>10} {:>10} {:>10} {:>7}",
        "time by layer, ms", "forward", "backward", "update", "share"
    ));
    for LayerTimes { layer, seconds } in layers.iter().take(LAYERS) {
        let [forward, backward, update] = seconds.map(|s| 1e3 * s);
        lines.push(format!(
            "{layer:<36} {forward:>10.3} {backward:>10.3} {update:>10.3} {:>6.1}%",
            100.0 * seconds.iter().sum::<f64>() / kernels
        ));
    }
    if layers.len() > LAYERS {
        let more = layers.len() - LAYERS;
        lines.push(format!("and {more} more layers"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use decorr::bench::Peaks;
    use decorr::program::KernelTime;

    use super::*;

    #[test]
    fn a_trace_says_which_step_it_is_of() {
        let mut model = Model::new("vgg11", decorr::models::Norm::Deconv, 10).unwrap();
        (model.deconv.block, model.deconv.n_iter) = (16, 7);
        let wanted = [
            ("model", "vgg11"),
            ("norm", "deconv"),
            ("block", "16"),
            ("batch size", "12"),
        ];
        assert_eq!(
            about(&model, 12),
            wanted.map(|(key, value)| (key, value.to_string()))
        );
    }

    /// Seventeen layers with a kernel a phase, of n, 2 n and 4 n ms, and a ms between one kernel and the next.
    #[test]
    fn a_step_is_summed_up_by_phase_and_layer() {
        let (mut kernels, mut start) = (Vec::new(), 0.0);
        for n in 1..=17 {
            for (of, share) in [("", 1), ("grad.", 2), ("update.", 4)] {
                let seconds = f64::from(share * n) / 1e3;
                kernels.push(KernelTime {
                    label: format!("{of}l{n}.weight (main)"),
                    op: "matmul",
                    entry: "main",
                    shape: "[2]".into(),
                    start,
                    seconds,
                    flops: 0,
                    bytes: 0,
                });
                start += seconds + 1e-3;
            }
        }
        let trace = StepTrace {
            adapter: "A".into(),
            kernels,
            layers: (1..=17).map(|n| format!("l{n}")).collect(),
            peaks: Peaks {
                flops_per_s: 64e9,
                bytes_per_s: 12e9,
            },
        };
        let lines = summary(&trace);
        let shown = StepTrace {
            layers: trace.layers[3..].to_vec(),
            ..trace.clone()
        };
        let of_shown = summary(&shown);
        assert!(!of_shown.iter().any(|line| line.contains("more layers")));
        assert_eq!(
            lines[0],
            "A\na step of 1121.000 ms: 51 kernels take 1071.000 ms, the rest lies between them\n\
             multiply-add peak 64.0 GFLOP/s, memory stream 12.00 GB/s\n"
        );
        let words = |line: &String| {
            line.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(&lines[2])[..4],
            ["matmul", "51", "1071.000", "100.0%"]
        );
        // 119 ms of 1071.
        assert_eq!(
            words(&lines[4]),
            ["l17", "17.000", "34.000", "68.000", "11.1%"]
        );
        assert_eq!((lines.len(), lines[19].as_str()), (20, "and 2 more layers"));
    }
}
