//! `decorr describe`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use decorr::Result;
use decorr::data;
use decorr::files::write_atomically;
use decorr::nn::Mode;
use decorr::passes::{Passes, optimise};
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::{TrainConfig, TrainOptions, training_step};

use super::AdapterArgs;
use super::times::print_times;

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
    let begin = Instant::now();
    Program::plan(&graph, &gpu, CompileOptions::default())?;
    let planning = begin.elapsed();
    let mut store = Store::new(&gpu, config.seed);
    let mut program = Program::compile(&graph, &mut store, CompileOptions::default())?;
    print!("{}", program.describe());
    println!("planned in {:.0} ms", planning.as_secs_f64() * 1e3);
    if args.profile {
        let images: Vec<f32> = (0..shape.iter().product())
            .map(|i| (i * 37 % 256) as f32 / 255.0)
            .collect();
        let labels: Vec<f32> = (0..shape[0]).map(|i| (i % classes) as f32).collect();
        let inputs = [
            ("images", images.as_slice()),
            ("labels", labels.as_slice()),
            ("lr", &[1e-3]),
        ];
        print_times(program.fastest_profile(&inputs)?);
    }
    Ok(())
}
