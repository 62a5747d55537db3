//! `decorr bench`.

use clap::Args;
use decorr::bench::{Options, profile, run as bench};
use decorr::graph::op::Variants;
use decorr::{Error, Result};

use super::times::print_times;
use super::{AdapterArgs, TuneChoice, print, print_json};

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Only workloads whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Rounds over all workloads, in turn; the best round of each counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure training steps of this network with every norm, in place of the usual workloads; may
    /// be given several times
    #[arg(long, value_name = "MODEL")]
    network: Vec<String>,
    /// Batch sizes for --network [default: 128]; may be given several times
    #[arg(long, requires = "network")]
    batch_size: Vec<usize>,
    /// Kernels in place of the adapter's own: direct (register blocks, for CPU adapters), subgroup (the same
    /// with loads shared in subgroups of 8), tiled (tiles in workgroup memory, for GPUs), or tiled:TILE, as
    /// tiled:128x128x8, for one tile everywhere
    #[arg(long)]
    variant: Option<Variants>,
    /// Time the kernels of each workload in place of the whole, and print the time by op
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// Print one JSON object in place of the table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tune: TuneChoice,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let gpu = args.adapter.open_to_run()?;
    if args.variant == Some(Variants::direct(true)) && !gpu.has_subgroups_of_8() {
        let message = format!("{} has no subgroups of 8 invocations", gpu.name());
        return Err(Error::Config(message));
    }
    let variants = match args.variant {
        None => args.tune.variants(&gpu)?,
        given => given,
    };
    let mut batch_sizes = args.batch_size.clone();
    if batch_sizes.is_empty() {
        batch_sizes.push(128);
    }
    if batch_sizes.contains(&0) {
        return Err(Error::Config("--batch-size must be at least 1".into()));
    }
    let at_sizes = |name: &String| batch_sizes.iter().map(|&n| (name.clone(), n)).collect();
    let options = Options {
        networks: args
            .network
            .iter()
            .flat_map::<Vec<_>, _>(at_sizes)
            .collect(),
        filter: args.filter.clone(),
        rounds: args.rounds.max(1),
        variants,
    };
    if args.profile {
        return profile(&gpu, &options, |name, kernels| {
            print(format_args!("\n{name}"));
            print_times(kernels);
        });
    }
    let report = bench(&gpu, &options, |what| eprintln!("{what}"))?;
    if args.json {
        print_json(&report)?;
    } else {
        print(report.table().trim_end_matches('\n'));
    }
    Ok(())
}
