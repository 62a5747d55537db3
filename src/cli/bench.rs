//! `decorr bench`.

use std::path::{Path, PathBuf};

use clap::Args;
use decorr::bench::{Options, Report, Verdict, compare, profile, quick, run as bench};
use decorr::graph::op::Variants;
use decorr::models::Norm;
use decorr::passes::check_variant;
use decorr::{Error, Result};

use super::times::print_times;
use super::{AdapterArgs, TuneChoice, note, print, print_json, with_flags};

/// The end of `decorr bench --help`.
const EXAMPLES: &str = "\
Examples:
  decorr bench --quick                       what this adapter is good for, in about a minute
  decorr bench matmul                        all matrix products
  decorr bench --network vgg11 --batch-size 32
                                             a training step with every norm
  decorr bench --json > before.json          keep the figures, change something, and then:
  decorr bench --baseline before.json        what is faster or slower, beyond noise

Columns: images/s are those that training steps process; `of peak` is the share of the multiply-adds a
second that the adapter does in registers (the row `multiply-add peak`, which is always measured); GB/s
counts each tensor of each kernel once (compare it with the row `memory stream`); MiB is planned device
memory; ratio is the time over that of the row named there.

Noise: workloads run in turn, --rounds times, and the best round counts, since other work on the machine
makes rounds slower and never faster. Against a --baseline a row is faster or slower if its best round
changed by more than 3 % and the noise of both runs (how far the lower quartile of the rounds lies above
the best; 10 % for fewer than three rounds), and the median of the rounds agrees. The multiply-add peak
depends on nothing in decorr, so its change is that of the machine: no row counts as changed by less.
The exit status is 1 if --fail-if-slower is given and a row is slower, else 0.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct BenchArgs {
    /// Only workloads whose name contains this
    #[arg(default_value = "")]
    filter: String,
    /// Measure for about a minute, or this number of seconds, and say in words what the adapter can do;
    /// batch sizes and rounds depend on the time
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "60",
        conflicts_with_all = ["filter", "rounds", "network", "profile"]
    )]
    quick: Option<f64>,
    /// Rounds over all workloads, in turn; the best round of each counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Measure training steps of this network with every norm, in place of the usual workloads; may
    /// be given several times
    #[arg(long, value_name = "MODEL")]
    network: Vec<String>,
    /// Batch sizes for --network [default: 128]; may be given several times
    #[arg(long, requires = "network")]
    batch_size: Vec<usize>,
    /// Kernels in place of the adapter's own: direct (register blocks, for CPU adapters), subgroup (the same
    /// with loads shared in subgroups of 8), tiled (tiles in workgroup memory, for GPUs), or tiled:TILE for one
    /// tile everywhere, for example tiled:128x128x8
    #[arg(long)]
    variant: Option<Variants>,
    /// Time the kernels of each workload in place of the whole, and print the time by op
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// Mark what changed since an earlier run, beyond noise; FILE is the output of its --json
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    baseline: Option<PathBuf>,
    /// End with exit status 1 if a row is slower than in the --baseline
    #[arg(long, requires = "baseline")]
    fail_if_slower: bool,
    /// Print one JSON object in place of the table, with the times of every round; with --baseline, its
    /// `comparison` says what changed
    #[arg(long)]
    json: bool,
    /// Under mpirun: measure a training step of --network [default: cnn] on --batch-size images, divided over the processes, and
    /// what of it is their exchange
    #[arg(long, conflicts_with_all = ["filter", "quick", "profile", "baseline", "variant"])]
    scaling: bool,
    #[command(flatten)]
    tune: TuneChoice,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: &BenchArgs) -> Result<()> {
    if args.scaling {
        return scaling(args);
    }
    let baseline = args.baseline.as_deref().map(read_report).transpose()?;
    let gpu = args.adapter.open_to_run()?;
    let variants = match args.variant {
        None => args.tune.variants(&gpu)?,
        Some(given) => {
            check_variant(given, &gpu)?;
            Some(given)
        }
    };
    let options = options(args, variants)?;
    if args.profile {
        return profile(&gpu, &options, |name, kernels| {
            print(format_args!("\n{name}"));
            print_times(kernels);
        });
    }
    let progress = |what: &str| note(what);
    let mut report = match args.quick {
        Some(time) => quick(&gpu, options.variants, time, progress)?,
        None => bench(&gpu, &options, progress)?,
    };
    if let Some(summary) = &mut report.summary {
        summary.words = summary.words.iter().map(|line| with_flags(line)).collect();
    }
    report.comparison = baseline.map(|before| compare(&before, &report));
    if args.json {
        print_json(&report)?;
    } else {
        print_report(&report);
    }
    let slower = report.comparison.iter();
    let slower: Vec<&str> = slower.flat_map(|c| c.names(Verdict::Slower)).collect();
    if args.fail_if_slower && !slower.is_empty() {
        let message = format!("slower than the baseline: {}", slower.join(", "));
        return Err(Error::Config(message));
    }
    Ok(())
}

/// `--scaling`.
fn scaling(args: &BenchArgs) -> Result<()> {
    // Compiling a large network on a slow adapter takes long, and what is not measured may wait.
    let ranks = decorr::ranks::start(600)?;
    super::set_rank(ranks.rank());
    let measure = || -> Result<()> {
        let gpu = args.adapter.open_to_run()?;
        let network = args.network.first().map_or("cnn", String::as_str);
        let batch_size = args.batch_size.first().copied().unwrap_or(128);
        for norm in [Norm::Batch, Norm::Deconv] {
            let rounds = args.rounds as usize;
            let found = decorr::bench::scaling(&gpu, &ranks, network, norm, batch_size, rounds)?;
            match args.json {
                true => print_json(&found)?,
                false => print(found.table() + "\n"),
            }
        }
        Ok(())
    };
    let measured = measure();
    if let (Err(error), true) = (&measured, ranks.size() > 1) {
        super::fail(error);
        ranks.abort();
    }
    measured
}

/// What is measured, with these kernels.
fn options(args: &BenchArgs, variants: Option<Variants>) -> Result<Options> {
    let mut batch_sizes = args.batch_size.clone();
    if batch_sizes.is_empty() {
        batch_sizes.push(128);
    }
    if batch_sizes.contains(&0) {
        return Err(Error::Config("--batch-size must be at least 1".into()));
    }
    if args
        .quick
        .is_some_and(|time| !(time > 0.0 && time.is_finite()))
    {
        return Err(Error::Config("--quick takes seconds above 0".into()));
    }
    let at_sizes = |name: &String| batch_sizes.iter().map(|&n| (name.clone(), n)).collect();
    Ok(Options {
        networks: args
            .network
            .iter()
            .flat_map::<Vec<_>, _>(at_sizes)
            .collect(),
        filter: args.filter.clone(),
        rounds: args.rounds as usize,
        variants,
    })
}

/// An earlier report, as --json printed it.
fn read_report(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let report: Report = serde_json::from_str(&text).map_err(|e| {
        let path = path.display();
        Error::Config(format!(
            "{path} is not what `decorr bench --json` prints: {e}"
        ))
    })?;
    if report.measurements.is_empty() {
        let message = format!("{} has no figures", path.display());
        return Err(Error::Config(message));
    }
    Ok(report)
}

fn print_report(report: &Report) {
    print(report.table().trim_end_matches('\n'));
    if let Some(summary) = &report.summary {
        print("");
        for line in &summary.words {
            print(line);
        }
    }
    if let Some(comparison) = &report.comparison {
        print(format_args!("\nagainst the baseline"));
        print(comparison.table().trim_end_matches('\n'));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn of(line: &str) -> Result<Options> {
        let line = ["bench"].into_iter().chain(line.split_whitespace());
        options(&Line::parse_from(line).args, Some(Variants::Subgroup))
    }

    #[test]
    fn what_is_measured_is_what_the_line_says() {
        let all = of("--network vgg11 --network mlp --batch-size 7 --batch-size 9 --rounds 3 norm");
        let all = all.unwrap();
        let network = |name: &str, n| (name.to_string(), n);
        let wanted = [("vgg11", 7), ("vgg11", 9), ("mlp", 7), ("mlp", 9)];
        assert_eq!(all.networks, wanted.map(|(name, n)| network(name, n)));
        assert_eq!((all.filter.as_str(), all.rounds), ("norm", 3));
        assert_eq!(all.variants, Some(Variants::Subgroup));
        let plain = of("").unwrap();
        assert!(plain.networks.is_empty() && plain.filter.is_empty());
        assert_eq!(plain.rounds, 5);
        assert_eq!(of("--network mlp").unwrap().networks, [network("mlp", 128)]);
        assert!(of("--quick").is_ok() && of("--quick=0.5").is_ok());
        for (line, wanted) in [
            (
                "--network mlp --batch-size 8 --batch-size 0",
                "--batch-size must be at least 1",
            ),
            ("--quick=0", "--quick takes seconds above 0"),
            ("--quick=-1", "--quick takes seconds above 0"),
            ("--quick=inf", "--quick takes seconds above 0"),
            ("--quick=nan", "--quick takes seconds above 0"),
        ] {
            assert_eq!(of(line).err().unwrap().to_string(), wanted, "{line}");
        }
    }

    #[test]
    fn a_report_is_read_if_it_has_figures() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("before.json");
        for text in ["{", "[]", "{}"] {
            std::fs::write(&path, text).unwrap();
            let error = read_report(&path).unwrap_err().to_string();
            assert!(error.contains("before.json is not what"), "{error}");
        }
        let missing = read_report(&dir.path().join("none.json"));
        assert!(missing.unwrap_err().to_string().contains("none.json"));
    }
}
