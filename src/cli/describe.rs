//! `decorr describe`.

use std::path::PathBuf;

use clap::Args;
use decorr::Result;
use decorr::data;
use decorr::files::write_atomically;
use decorr::nn::Mode;
use decorr::passes::{Passes, optimise};
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::{TrainConfig, TrainOptions, training_step};

use super::{AdapterArgs, print};

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    #[command(flatten)]
    options: TrainOptions,
    /// Also write the graph, after the passes, for Graphviz
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
    /// Also run a step with timestamps and print the time by op
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: DescribeArgs) -> Result<()> {
    // Without a data set, the images that the network is usually for.
    let data_given = args.options.data.is_some();
    let config = TrainConfig::resolve(args.options)?;
    let gpu = args.adapter.open()?;
    let image_size = config.data_options.image_size;
    let ([c, h, w], classes) = if data_given {
        data::shape(&config.data, config.options.data_dir.as_deref(), image_size)?
    } else {
        let model = config.model(0);
        model.network.usual_images(model.form)
    };
    let model = config.model(classes);
    let shape = [config.batch_size, c, h, w];
    let graph = training_step(&model, config.loss, &config.optimizer, shape, Mode::Train)?;
    if let Some(path) = &args.dot {
        let optimised = optimise(&graph, Passes::ALL)?;
        write_atomically(path, optimised.to_dot().as_bytes())?;
    }
    let mut store = Store::new(&gpu, config.seed);
    let mut program = Program::compile(&graph, &mut store, CompileOptions::default())?;
    print!("{}", program.describe());
    if args.profile {
        profile(&mut program, shape, classes)?;
    }
    Ok(())
}

/// The fastest of five steps after one that warms up, summed by op.
fn profile(program: &mut Program, shape: [usize; 4], classes: usize) -> Result<()> {
    let images: Vec<f32> = (0..shape.iter().product())
        .map(|i| (i * 37 % 256) as f32 / 255.0)
        .collect();
    let labels: Vec<f32> = (0..shape[0]).map(|i| (i % classes) as f32).collect();
    let inputs = [
        ("images", images.as_slice()),
        ("labels", labels.as_slice()),
        ("lr", &[1e-3]),
    ];
    program.profile(&inputs)?;
    let mut best = program.profile(&inputs)?;
    for _ in 0..4 {
        for (best, new) in best.iter_mut().zip(program.profile(&inputs)?) {
            best.seconds = best.seconds.min(new.seconds);
        }
    }
    let total: f64 = best.iter().map(|k| k.seconds).sum();
    let mut by_op: Vec<(&str, f64, u64, u64, usize)> = Vec::new();
    for kernel in &best {
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
        best.len(),
        1e3 * total
    ));
    best.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    print(format_args!("\nslowest kernels"));
    for kernel in best.iter().take(15) {
        print(format_args!(
            "{:>10.3} ms  {}",
            1e3 * kernel.seconds,
            kernel.label
        ));
    }
    Ok(())
}
