//! `decorr bench` and `decorr profile`: kernels and whole steps as measurements with their bounds.
//!
//! Needs the features `draw` and `pictures`. Unstable: may change in any release.
//!
//! Workloads that are compared are run in turn, several rounds, and the best round counts: on a
//! shared machine the best is the least disturbed.

mod compare;
mod peak;
mod quick;
mod runner;
mod scaling;
mod trace;
mod workloads;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use compare::{Change, Comparison, Verdict, compare};
pub use quick::{Meaning, PaperRun, quick};
pub use scaling::{Scaling, scaling};
pub use trace::{LayerTimes, OpTimes, Peaks, StepTrace, times_by_op, trace_step};
pub use workloads::{Workload, network_steps, workloads};

use crate::gpu::Gpu;
use crate::graph::op::Variants;
use crate::program::KernelTime;
use crate::{Error, Result};
use runner::Runner;

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measurement {
    /// What was run.
    pub name: String,
    /// Milliseconds a step, of the best round.
    pub ms: f64,
    /// Milliseconds a step, of each round in order. What is known of the noise.
    #[serde(default)]
    pub rounds_ms: Vec<f64>,
    /// Images that are trained on in a second, for training steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_s: Option<f64>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<(String, f64)>,
}

/// The whole run, as `--json` prints it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Of decorr.
    #[serde(default)]
    pub version: String,
    /// Adapter, backend and driver.
    pub adapter: String,
    /// Kernel variant, see [`Variants`].
    pub variant: String,
    /// Rounds of which the best counts.
    pub rounds: usize,
    /// The table.
    #[serde(rename = "figures")]
    pub measurements: Vec<Measurement>,
    /// What the measurements mean, of [`quick`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Meaning>,
    /// What changed since an earlier report, where [`compare`] was asked.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
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

/// The workloads that `options` ask for.
fn chosen(options: &Options) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    if options.networks.is_empty() {
        all = workloads()?;
    } else {
        all.push(workloads::peak());
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

/// Compiles each workload and times its kernels; `each` is given its name and the least times of
/// five steps, for each graph of its cycle.
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
            let mut runner = Runner::new(gpu, options.variants, &|_| {});
            runner.compile(workload)?;
            runner.profile(&mut each)?;
        }
    }
    Ok(())
}

/// Compiles, warms up and measures. `progress` is told what is going on.
///
/// # Errors
/// [`Error::Config`] if no workload has such a name; what compiling and running report.
pub fn run(gpu: &Arc<Gpu>, options: &Options, progress: impl Fn(&str)) -> Result<Report> {
    let mut runner = Runner::new(gpu, options.variants, &progress);
    for workload in chosen(options)? {
        // The peak is always measured: shares are of it.
        if workload.name == workloads::PEAK || workload.name.contains(&options.filter) {
            runner.add(workload)?;
        }
    }
    for round in 1..=options.rounds {
        runner.round(&format!("round {round} of {}", options.rounds))?;
    }
    Ok(runner.report())
}

impl Report {
    /// The line called `name`.
    pub fn measurement(&self, name: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|f| f.name == name)
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let widths = self.measurements.iter().map(|f| f.name.len());
        let width = widths.fold(28, usize::max);
        let mut text = format!(
            "{}, {} kernels, best of {} rounds\n{:<width$} {:>10} {:>9} {:>9} {:>9} {:>7} {:>8} {:>10} {:>9}  {}\n",
            self.adapter,
            self.variant,
            self.rounds,
            "workload",
            "ms",
            "images/s",
            "GFLOP",
            "GFLOP/s",
            "of peak",
            "GB/s",
            "dispatches",
            "MiB",
            "ratio"
        );
        for f in &self.measurements {
            let ratio = match &f.ratio {
                Some((name, ratio)) => format!("{ratio:.2} x {name}"),
                None => String::new(),
            };
            let images = f.images_per_s.map_or(String::new(), |n| format!("{n:.1}"));
            let line = format!(
                "{:<width$} {:>10.3} {images:>9} {:>9.3} {:>9.2} {:>6.0}% {:>8.2} {:>10} {:>9.1}  {ratio}",
                f.name,
                f.ms,
                f.gflop,
                f.gflops,
                100.0 * f.share_of_peak,
                f.gb_per_s,
                f.dispatches,
                f.peak_mib
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_numbers_under_their_names() {
        let report = Report {
            adapter: "A".into(),
            variant: "tiled".into(),
            rounds: 5,
            measurements: vec![Measurement {
                name: "w".into(),
                ms: 1.5,
                images_per_s: Some(20.0),
                gflop: 3.25,
                gflops: 40.5,
                share_of_peak: 0.25,
                gb_per_s: 6.5,
                dispatches: 7,
                peak_mib: 8.5,
                ratio: Some(("b".into(), 9.0)),
                ..Measurement::default()
            }],
            ..Report::default()
        };
        let table = report.table();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = table.lines().map(words).collect();
        let wanted = [
            "A, tiled kernels, best of 5 rounds",
            "workload ms images/s GFLOP GFLOP/s of peak GB/s dispatches MiB ratio",
            "w 1.500 20.0 3.250 40.50 25% 6.50 7 8.5 9.00 x b",
        ];
        assert_eq!(lines, wanted);
    }
}
