//! Workloads compiled, warmed up and timed in turn.

use std::sync::Arc;
use std::time::Instant;

use super::workloads::PEAK;
use super::{Measurement, Report, Workload};
use crate::gpu::Gpu;
use crate::graph::Cost;
use crate::graph::op::Variants;
use crate::program::{CompileOptions, KernelTime, Program, Store};
use crate::{Error, Result};

/// Seconds of a round that each workload fills, if its cycle is not longer.
pub(super) const ROUND_SECONDS: f64 = 0.25;

/// What is measured together.
pub(super) struct Runner<'a> {
    gpu: &'a Arc<Gpu>,
    variants: Option<Variants>,
    progress: &'a dyn Fn(&str),
    items: Vec<Compiled>,
    /// See [`ROUND_SECONDS`].
    pub(super) round_seconds: f64,
}

struct Compiled {
    name: String,
    images: Option<usize>,
    compared_with: Option<String>,
    inputs: Vec<(String, Vec<f32>)>,
    /// What runs in turn, with the steps of each.
    programs: Vec<(Program, usize)>,
    /// Parameters live here.
    store: Store,
    /// Cycles in a round.
    cycles: usize,
    /// Seconds a step, of each round.
    rounds: Vec<f64>,
}

impl<'a> Runner<'a> {
    /// `progress` is told what is going on.
    pub(super) fn new(
        gpu: &'a Arc<Gpu>,
        variants: Option<Variants>,
        progress: &'a dyn Fn(&str),
    ) -> Self {
        Self {
            gpu,
            variants,
            progress,
            items: Vec::new(),
            round_seconds: ROUND_SECONDS,
        }
    }

    /// Compiles a workload and warms it up. One that the device cannot hold is left out, with a notice.
    ///
    /// # Errors
    /// What compiling and running report but for that.
    pub(super) fn add(&mut self, workload: Workload) -> Result<()> {
        let name = workload.name.clone();
        (self.progress)(&format!("compiling {name}"));
        let warm = match self.compile(workload) {
            Ok(()) => self.warm_up(),
            Err(error) => Err(error),
        };
        if let Err(error @ (Error::Limit(_) | Error::OutOfMemory(_))) = warm {
            self.items.retain(|item| item.name != name);
            (self.progress)(&format!("left out: {name}: {error}"));
            return Ok(());
        }
        warm
    }

    /// Compiles a workload.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub(super) fn compile(&mut self, workload: Workload) -> Result<()> {
        // Workloads run in turn, so they can do with one memory; several large networks would not fit.
        let mut store = match self.items.last() {
            Some(other) => Store::in_workspace(other.store.workspace(), 1),
            None => Store::new(self.gpu, 1),
        };
        let options = CompileOptions {
            variants: self.variants,
            ..CompileOptions::default()
        };
        let mut programs = Vec::new();
        for (graph, steps) in &workload.cycle {
            programs.push((Program::compile(graph, &mut store, options)?, *steps));
        }
        self.items.push(Compiled {
            name: workload.name,
            images: workload.images,
            compared_with: workload.compared_with,
            inputs: workload.inputs,
            programs,
            store,
            cycles: 1,
            rounds: Vec::new(),
        });
        Ok(())
    }

    /// The first cycle of what was added last compiles in the driver. The second one says how many
    /// make a round.
    fn warm_up(&mut self) -> Result<()> {
        if let Some(item) = self.items.last_mut() {
            item.measure(1)?;
            let once = item.measure(1)? * item.steps() as f64;
            item.cycles = ((self.round_seconds / once) as usize).clamp(1, 200);
        }
        Ok(())
    }

    /// Measures each workload once.
    ///
    /// # Errors
    /// What running reports.
    pub(super) fn round(&mut self, title: &str) -> Result<()> {
        for item in &mut self.items {
            (self.progress)(&format!("{title}: {}", item.name));
            let seconds = item.measure(item.cycles)?;
            item.rounds.push(seconds);
        }
        Ok(())
    }

    /// The least times of five steps of the kernels of everything, a list for each graph of a cycle.
    ///
    /// # Errors
    /// As [`Program::profile`].
    pub(super) fn profile(&mut self, each: &mut impl FnMut(&str, Vec<KernelTime>)) -> Result<()> {
        for item in &mut self.items {
            let (inputs, count) = (named(&item.inputs), item.programs.len());
            for (i, (program, steps)) in (1..).zip(&mut item.programs) {
                let name = match count {
                    1 => item.name.clone(),
                    _ => format!("{}, graph {i} of {count}, {steps} steps a cycle", item.name),
                };
                each(&name, program.fastest_profile(&inputs)?);
            }
        }
        Ok(())
    }

    /// The table of all rounds so far. Of what has had none yet the time is infinite.
    pub(super) fn report(&self) -> Report {
        let peak = self.items.iter().find(|item| item.name == PEAK);
        let peak = peak.map_or(f64::NAN, Compiled::flops_per_s);
        let measurements = self.items.iter().map(|item| {
            let compared = item.compared_with.as_deref();
            let base = self
                .items
                .iter()
                .find(|b| Some(b.name.as_str()) == compared);
            item.measurement(peak, base)
        });
        let rounds = self.items.iter().map(|item| item.rounds.len());
        let variants = self
            .variants
            .unwrap_or_else(|| crate::passes::select_variant(self.gpu));
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            adapter: self.gpu.describe(),
            variant: variants.to_string(),
            rounds: rounds.min().unwrap_or(0),
            measurements: measurements.collect(),
            summary: None,
            comparison: None,
        }
    }
}

impl Compiled {
    /// Seconds a step, over so many cycles.
    fn measure(&mut self, cycles: usize) -> Result<f64> {
        let inputs = named(&self.inputs);
        let start = Instant::now();
        for _ in 0..cycles {
            for (program, steps) in &mut self.programs {
                for _ in 0..*steps {
                    program.step(&inputs)?;
                }
            }
        }
        for (program, _) in &mut self.programs {
            program.finish()?;
        }
        Ok(start.elapsed().as_secs_f64() / (cycles * self.steps()) as f64)
    }

    /// Steps of a cycle.
    fn steps(&self) -> usize {
        self.programs.iter().map(|(_, steps)| steps).sum()
    }

    /// The mean of `of` over the steps of a cycle.
    fn mean(&self, of: impl Fn(&Program) -> f64) -> f64 {
        let programs = self.programs.iter();
        let sum: f64 = programs.map(|(p, steps)| of(p) * *steps as f64).sum();
        sum / self.steps() as f64
    }

    fn cost(&self, of: impl Fn(Cost) -> u64) -> f64 {
        self.mean(|program| of(program.cost()) as f64)
    }

    /// Seconds a step, of the best round.
    fn best(&self) -> f64 {
        shortest(&self.rounds)
    }

    fn flops_per_s(&self) -> f64 {
        self.cost(|c| c.flops) / self.best()
    }

    /// `peak`: operations a second.
    fn measurement(&self, peak: f64, base: Option<&Self>) -> Measurement {
        let best = self.best();
        let memory = self.programs.iter().map(|(p, _)| p.memory().peak());
        Measurement {
            name: self.name.clone(),
            ms: best * 1e3,
            rounds_ms: self.rounds.iter().map(|s| s * 1e3).collect(),
            images_per_s: self.images.map(|images| images as f64 / best),
            gflop: self.cost(|c| c.flops) / 1e9,
            gflops: self.flops_per_s() / 1e9,
            share_of_peak: self.flops_per_s() / peak,
            gb_per_s: self.cost(|c| c.bytes) / best / 1e9,
            dispatches: self.mean(|p| p.dispatch_count() as f64).round() as usize,
            // The programs of a cycle share their memory.
            peak_mib: memory.max().unwrap_or(0) as f64 / f64::from(1 << 20),
            ratio: base.map(|base| (base.name.clone(), best / base.best())),
        }
    }
}

/// Inputs as a program takes them.
fn named(inputs: &[(String, Vec<f32>)]) -> Vec<(&str, &[f32])> {
    let pairs = inputs.iter();
    pairs.map(|(n, v)| (n.as_str(), v.as_slice())).collect()
}

/// The best of several rounds: other work makes one longer, never shorter.
fn shortest(rounds: &[f64]) -> f64 {
    rounds.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::AdapterChoice;
    use crate::graph::{Graph, Init};

    /// x grows by `by` in every step.
    fn counting(by: f32) -> Graph {
        let g = Graph::new();
        let x = g.parameter("x", [4], Init::Constant(0.0));
        let mut next = x + by;
        if by > 1.0 {
            // A second dispatch, since its operand is read back.
            g.output("next", next);
            next = next.affine(1.0, 0.0);
        }
        x.assign(next);
        g
    }

    #[test]
    fn a_cycle_runs_its_programs_in_turn_and_reports_their_mean() {
        let gpu = Gpu::open(&AdapterChoice {
            adapter: std::env::var("DECORR_ADAPTER").ok(),
            backend: std::env::var("DECORR_BACKEND").ok(),
        })
        .unwrap();
        let workload = Workload {
            cycle: vec![(counting(100.0), 1), (counting(1.0), 3)],
            images: Some(8),
            ..Workload::new("cycle", Graph::new())
        };
        let mut runner = Runner::new(&gpu, None, &|_| {});
        runner.compile(workload).unwrap();
        let seconds = runner.items[0].measure(2).unwrap();
        // Two cycles of one step of 100 and three of 1, on one store.
        assert_eq!(runner.items[0].store.read("x").unwrap(), [206.0; 4]);
        runner.items[0].rounds = vec![2.0 * seconds, seconds];
        let programs = &runner.items[0].programs;
        let dispatches = programs.iter().map(|(p, n)| p.dispatch_count() * n);
        let wanted = (dispatches.sum::<usize>() as f64 / 4.0).round() as usize;
        let flops = programs.iter().map(|(p, n)| p.cost().flops * *n as u64);
        let gflop = flops.sum::<u64>() as f64 / 4.0 / 1e9;
        let measurement = &runner.report().measurements[0];
        assert_eq!(measurement.dispatches, wanted);
        assert!(
            (measurement.gflop - gflop).abs() <= 1e-12,
            "{measurement:?}"
        );
        assert_eq!(measurement.ms, seconds * 1e3);
        assert_eq!(measurement.rounds_ms.len(), 2);
        assert_eq!(measurement.images_per_s, Some(8.0 / seconds));
        // Where 1e9 operations a second are the peak, and twice the time is that of another.
        let bytes = programs.iter().map(|(p, n)| p.cost().bytes * *n as u64);
        let gb = bytes.sum::<u64>() as f64 / 4.0 / 1e9;
        let mib = programs
            .iter()
            .map(|(p, _)| p.memory().peak())
            .max()
            .unwrap() as f64
            / 1048576.0;
        let measurement = runner.items[0].measurement(1e9, None);
        for (found, wanted) in [
            (measurement.gflops, gflop / seconds),
            (measurement.share_of_peak, gflop / seconds),
            (measurement.gb_per_s, gb / seconds),
            (measurement.peak_mib, mib),
        ] {
            assert!((found / wanted - 1.0).abs() < 1e-9, "{measurement:?}");
        }

        let mut names = Vec::new();
        runner
            .profile(&mut |name, kernels| {
                names.push((name.to_string(), kernels.len()));
            })
            .unwrap();
        assert_eq!(names.len(), 2);
        assert!(names[1].0.contains("graph 2 of 2, 3 steps"), "{names:?}");
    }

    #[test]
    fn the_best_round_counts() {
        assert_eq!(shortest(&[3.0, 1.0, 2.0]), 1.0);
    }
}
