//! `decorr describe`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use decorr::Result;
use decorr::files::{expect_ending, write_atomically};
use decorr::passes::{Passes, optimise};
use decorr::program::{CompileOptions, Program, Store};

use super::step::{Step, StepArgs};
use super::times::print_times;
use super::{AdapterArgs, print};

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    #[command(flatten)]
    step: StepArgs,
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
    if let Some(path) = &args.dot {
        expect_ending(path, &["dot", "gv", "txt"])?;
    }
    let gpu = args.adapter.open()?;
    let step = Step::new(args.step, &gpu)?;
    if let Some(path) = &args.dot {
        let optimised = optimise(&step.graph.list(), Passes::ALL)?;
        write_atomically(path, optimised.to_dot().as_bytes())?;
    }
    let begin = Instant::now();
    let mut store = Store::new(&gpu, step.config.seed);
    step.config.choose_kernels(&mut store)?;
    let planned = CompileOptions {
        variants: Some(store.variants()),
        ..CompileOptions::default()
    };
    Program::plan(&step.graph, &gpu, planned)?;
    let planning = begin.elapsed();
    let mut program = Program::compile(&step.graph, &mut store, CompileOptions::default())?;
    print(program.describe().trim_end());
    print(format_args!(
        "planned in {:.0} ms",
        planning.as_secs_f64() * 1e3
    ));
    if args.profile {
        print_times(program.fastest_profile(&step.inputs())?);
    }
    Ok(())
}
