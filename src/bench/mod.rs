//! `decorr bench`: kernels and whole steps as figures with their bounds.
//!
//! Workloads that are compared are run in turn, several rounds, and the best round counts: on a
//! shared machine the best is the least disturbed.

mod peak;
mod workloads;

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::gpu::Gpu;
use crate::graph::op::Variants;
use crate::program::{CompileOptions, KernelTime, Program, Store};
use crate::{Error, Result};
pub use workloads::{Workload, network_steps, workloads};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was run.
    pub name: String,
    /// Milliseconds of the best round, a step.
    pub ms: f64,
    /// Floating-point operations of a step.
    pub gflop: f64,
    /// `gflop` over time.
    pub gflops: f64,
    /// `gflops` over what the adapter reaches with multiply-adds alone, measured beside it.
    pub share_of_peak: f64,
    /// Bytes that must move (each tensor of each kernel once) over time, in GB/s.
    pub gb_per_s: f64,
    /// Dispatches a step.
    pub dispatches: usize,
    /// Planned device memory in MiB.
    pub peak_mib: f64,
    /// Time over that of the workload named here, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<(String, f64)>,
}

/// The whole run, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Adapter, backend and driver.
    pub adapter: String,
    /// Kernel variant, see [`Variants`].
    pub variant: String,
    /// Rounds of which the best counts.
    pub rounds: usize,
    /// The table.
    pub figures: Vec<Figure>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only workloads whose name contains this.
    pub filter: String,
    /// Training steps of these networks at these batch sizes in place of the usual workloads.
    pub networks: Vec<(String, usize)>,
    /// Rounds.
    pub rounds: usize,
    /// Kernel variant in place of the adapter's own.
    pub variants: Option<Variants>,
}

struct Compiled {
    workload: Workload,
    program: Program,
    /// Parameters live here.
    store: Store,
    /// Steps in a round.
    steps: usize,
    best: f64,
}

/// The workloads that `options` ask for.
fn chosen(options: &Options) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    if options.networks.is_empty() {
        all = workloads()?;
    } else {
        all.push(workloads::peak()?);
    }
    for (network, batch_size) in &options.networks {
        all.extend(network_steps(network, *batch_size)?);
    }
    if !all.iter().any(|w| w.name.contains(&options.filter)) {
        let names: Vec<&str> = all.iter().map(|w| w.name.as_str()).collect();
        return Err(Error::Config(format!(
            "no workload's name contains {:?}; there are {}",
            options.filter,
            names.join(", ")
        )));
    }
    Ok(all)
}

/// Compiles each workload and times its kernels; `each` is given its name and the least times of five steps.
///
/// # Errors
/// As [`run`]; [`Error::Adapter`] if the adapter has no timestamps.
pub fn profile(
    gpu: &Arc<Gpu>,
    options: &Options,
    mut each: impl FnMut(&str, Vec<KernelTime>),
) -> Result<()> {
    for workload in chosen(options)? {
        if workload.name.contains(&options.filter) {
            let mut item = warm_up(gpu, workload, options, None)?;
            let times = item.program.fastest_profile(&item.workload.inputs())?;
            each(&item.workload.name, times);
        }
    }
    Ok(())
}

/// Compiles, warms up and measures. `progress` is told what is going on.
///
/// # Errors
/// [`Error::Config`] if no workload has such a name; what compiling and running report.
pub fn run(gpu: &Arc<Gpu>, options: &Options, progress: impl Fn(&str)) -> Result<Report> {
    let mut compiled: Vec<Compiled> = Vec::new();
    for workload in chosen(options)? {
        // The peak is always measured: shares are of it.
        if workload.name != workloads::PEAK && !workload.name.contains(&options.filter) {
            continue;
        }
        progress(&format!("compiling {}", workload.name));
        let name = workload.name.clone();
        let beside = compiled.last().map(|c| &c.store);
        match warm_up(gpu, workload, options, beside) {
            Err(error @ (Error::Limit(_) | Error::OutOfMemory(_))) => {
                progress(&format!("left out: {name}: {error}"));
            }
            other => compiled.push(other?),
        }
    }
    for round in 0..options.rounds {
        for item in &mut compiled {
            progress(&format!(
                "round {} of {}: {}",
                round + 1,
                options.rounds,
                item.workload.name
            ));
            let seconds = item.measure(item.steps)?;
            item.best = item.best.min(seconds);
        }
    }
    Ok(report(gpu, options, &compiled))
}

fn warm_up(
    gpu: &Arc<Gpu>,
    workload: Workload,
    options: &Options,
    beside: Option<&Store>,
) -> Result<Compiled> {
    // Workloads run in turn, so they can do with one memory; several large networks would not fit.
    let mut store = match beside {
        Some(other) => Store::sharing_memory_of(other, 1),
        None => Store::new(gpu, 1),
    };
    let compile = CompileOptions {
        variants: options.variants,
        ..CompileOptions::default()
    };
    let program = Program::compile(&workload.graph, &mut store, compile)?;
    let mut item = Compiled {
        workload,
        program,
        store,
        steps: 1,
        best: f64::INFINITY,
    };
    // The first step compiles in the driver. Then as many steps as fill a quarter of a second.
    item.measure(1)?;
    let once = item.measure(1)?;
    item.steps = ((0.25 / once) as usize).clamp(1, 200);
    Ok(item)
}

impl Compiled {
    /// Seconds a step, over `steps` of them.
    fn measure(&mut self, steps: usize) -> Result<f64> {
        let inputs = self.workload.inputs();
        let start = Instant::now();
        for _ in 0..steps {
            self.program.step(&inputs)?;
        }
        self.program.finish()?;
        Ok(start.elapsed().as_secs_f64() / steps as f64)
    }
}

fn report(gpu: &Gpu, options: &Options, compiled: &[Compiled]) -> Report {
    let rate = |c: &Compiled| c.program.cost().flops as f64 / c.best / 1e9;
    let peak = compiled.iter().find(|c| c.workload.name == workloads::PEAK);
    let peak = peak.map_or(f64::NAN, rate);
    let figures = compiled
        .iter()
        .map(|c| {
            let compared = c.workload.compared_with.as_deref();
            let base = compiled
                .iter()
                .find(|b| Some(b.workload.name.as_str()) == compared);
            Figure {
                name: c.workload.name.clone(),
                ms: c.best * 1e3,
                gflop: c.program.cost().flops as f64 / 1e9,
                gflops: rate(c),
                share_of_peak: rate(c) / peak,
                gb_per_s: c.program.cost().bytes as f64 / c.best / 1e9,
                dispatches: c.program.dispatch_count(),
                peak_mib: c.program.memory().peak() as f64 / f64::from(1 << 20),
                ratio: base.map(|b| (b.workload.name.clone(), c.best / b.best)),
            }
        })
        .collect();
    let variants = options
        .variants
        .unwrap_or_else(|| crate::passes::select_variant(gpu));
    Report {
        adapter: gpu.describe(),
        variant: variants.to_string(),
        rounds: options.rounds,
        figures,
    }
}

impl Report {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}, {} kernels, best of {} rounds\n{:<28} {:>10} {:>9} {:>9} {:>7} {:>8} {:>10} {:>9}  {}\n",
            self.adapter,
            self.variant,
            self.rounds,
            "workload",
            "ms",
            "GFLOP",
            "GFLOP/s",
            "of peak",
            "GB/s",
            "dispatches",
            "MiB",
            "ratio"
        );
        for f in &self.figures {
            let ratio = match &f.ratio {
                Some((name, ratio)) => format!("{ratio:.2} x {name}"),
                None => String::new(),
            };
            text.push_str(&format!(
                "{:<28} {:>10.3} {:>9.3} {:>9.2} {:>6.0}% {:>8.2} {:>10} {:>9.1}  {ratio}\n",
                f.name,
                f.ms,
                f.gflop,
                f.gflops,
                100.0 * f.share_of_peak,
                f.gb_per_s,
                f.dispatches,
                f.peak_mib
            ));
        }
        text
    }
}
