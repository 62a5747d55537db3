//! `decorr bench --quick`: in about a minute, what an adapter is good for.
//!
//! Rates of a few kernels are measured first. They tell how long training steps will take, and with that
//! which of them, at which batch size, the minute has room for. What it has no room for is estimated.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::runner::{ROUND_SECONDS, Runner};
use super::workloads::{
    self, BATCH, NORMS, STREAM, convolutions, inverse_root, norm_name, product, step, step_graph,
    step_name, stream,
};
use super::{Measurement, Report, Workload};
use crate::data::find_set;
use crate::gpu::Gpu;
use crate::graph::op::Variants;
use crate::graph::{Graph, Kind};
use crate::models::{Form, Norm};
use crate::passes::{Passes, optimise};
use crate::shape::Shape;
use crate::train::preset;
use crate::{Error, Result};

/// Rounds that everything gets, and at most gets where there is time left.
const ROUNDS: [usize; 2] = [3, 7];

/// Steps that a workload takes at least: two that warm up, and those rounds.
const STEPS: f64 = 2.0 + ROUNDS[0] as f64;

/// Batch sizes of the small network, the first that there is time for.
const BATCH_SIZES: [usize; 4] = [BATCH, 32, 8, 2];

/// Training images of ImageNet.
const IMAGENET_IMAGES: u64 = 1_281_167;

/// Names of workloads that stand for others of their kind.
const SMALL_PRODUCT: &str = "matmul 512^3";
const LARGE_PRODUCT: &str = "matmul 1024^3";
const CONVOLUTIONS: [&str; 3] = [
    "conv 64-128 forward",
    "conv 64-128 input grad",
    "conv 64-128 weight grad",
];

/// What the measurements of [`quick`] mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meaning {
    /// In plain words, a line each; what is estimated says so.
    pub words: Vec<String>,
    /// How long experiments of the paper take.
    pub runs: Vec<PaperRun>,
}

/// An experiment of the paper on this adapter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PaperRun {
    /// Data and network, as presets begin: "cifar10-vgg11".
    pub experiment: String,
    /// Norm, with its block: "batch", "deconv 64".
    pub norm: String,
    /// Passes over the training images.
    pub epochs: u64,
    /// Images of a step.
    pub batch_size: usize,
    /// Milliseconds of a step.
    pub ms_per_step: f64,
    /// Of the whole run, without tests and without waiting for images.
    pub hours: f64,
    /// True if such a step was timed, false if it was estimated from the rates of kernels.
    pub measured: bool,
}

/// Measures, in about `time` seconds, what tells most about an adapter: a minute is enough for most.
/// `progress` is told what is going on.
///
/// # Errors
/// What compiling and running report.
pub fn quick(
    gpu: &Arc<Gpu>,
    variants: Option<Variants>,
    time: f64,
    progress: impl Fn(&str),
) -> Result<Report> {
    let start = Instant::now();
    let seconds = || start.elapsed().as_secs_f64();
    let left = || time - seconds();
    let progress = |what: &str| progress(&format!("[{:>2.0} s] {what}", seconds()));
    let mut runner = Runner::new(gpu, variants, &progress);
    runner.round_seconds = ROUND_SECONDS.min(time / 240.0);
    let left_out = |name: &str, seconds: f64| {
        progress(&format!(
            "left out for want of time: {name}, about {seconds:.1} s a step"
        ));
    };

    for workload in [workloads::peak(), stream(), product(512, 512, 512)] {
        runner.add(workload)?;
    }
    runner.round("first figures")?;
    let rates = Rates::of(&runner.report());
    let mut kernels = vec![
        product(1024, 1024, 1024),
        inverse_root(144),
        inverse_root(576),
    ];
    kernels.extend(convolutions(CONVOLUTIONS[0], 1));
    for workload in kernels {
        let estimate = rates.cycle(&workload)?;
        if STEPS * estimate < 0.15 * left() {
            runner.add(workload)?;
        } else {
            left_out(&workload.name, estimate);
        }
    }
    runner.round("rates of kernels")?;
    let rates = Rates::of(&runner.report());

    let before = seconds();
    let batch_size = small_network(&mut runner, &rates, &left, &left_out)?;
    let compiling = seconds() - before;
    if paper_network_fits(&rates, left() - 2.0 * compiling)? {
        for (norm, block) in compared_norms() {
            runner.add(step("vgg11", BATCH, norm, block)?)?;
        }
    }
    let mut last = 0.0;
    for round in 1..=ROUNDS[1] {
        if round > ROUNDS[0] && left() < 1.2 * last {
            break;
        }
        let before = seconds();
        runner.round(&format!("round {round}"))?;
        last = seconds() - before;
    }
    let mut report = runner.report();
    let runs = paper_runs(&report)?;
    report.summary = Some(Meaning {
        words: words(&report, batch_size, &runs),
        runs,
    });
    progress("done");
    Ok(report)
}

/// Adds steps of the small network with every norm at the largest batch size that there is time for, which it
/// returns.
fn small_network(
    runner: &mut Runner<'_>,
    rates: &Rates,
    left: &impl Fn() -> f64,
    left_out: &impl Fn(&str, f64),
) -> Result<usize> {
    let mut chosen = BATCH_SIZES[BATCH_SIZES.len() - 1];
    for batch_size in BATCH_SIZES {
        let mut all = 0.0;
        for (norm, block) in NORMS {
            all += rates.step(&step_graph("cnn", None, batch_size, norm, block)?)?;
        }
        if STEPS * all < 0.5 * left() {
            chosen = batch_size;
            break;
        }
    }
    for (norm, block) in NORMS {
        let workload = step("cnn", chosen, norm, block)?;
        let estimate = rates.cycle(&workload)?;
        if STEPS * estimate < 0.3 * left() {
            runner.add(workload)?;
        } else {
            left_out(&workload.name, estimate);
        }
    }
    Ok(chosen)
}

/// Norms that experiments of the paper are compared by here.
fn compared_norms() -> impl Iterator<Item = (Norm, Option<usize>)> {
    let compared = |norm: &Norm| matches!(norm, Norm::Batch | Norm::Deconv);
    NORMS.into_iter().filter(move |(norm, _)| compared(norm))
}

/// Whether VGG-11's steps can be timed in so many seconds.
fn paper_network_fits(rates: &Rates, seconds: f64) -> Result<bool> {
    let mut all = 0.0;
    for (norm, block) in compared_norms() {
        all += rates.step(&step_graph("vgg11", None, BATCH, norm, block)?)?;
    }
    Ok(1.3 * STEPS * all < seconds)
}

/// What an adapter reaches, a second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Operations of matrix products.
    product: f64,
    /// Operations of convolutions and their gradients.
    convolution: f64,
    /// Bytes.
    bytes: f64,
}

impl Rates {
    /// Those of the measurements, what is missing taken to be like what there is.
    fn of(report: &Report) -> Self {
        let measured = |name: &str| report.measurement(name).filter(|f| f.ms.is_finite());
        let rate = |name: &str| measured(name).map(|f| f.gflops * 1e9);
        let small = rate(SMALL_PRODUCT).unwrap_or(1e9);
        let product = rate("newton_schulz 576 f+b").or(rate(LARGE_PRODUCT));
        let product = product.unwrap_or(small);
        let convolutions: Vec<&Measurement> =
            CONVOLUTIONS.iter().filter_map(|n| measured(n)).collect();
        let convolution = match convolutions.as_slice() {
            [] => product,
            all => {
                let gflop: f64 = all.iter().map(|f| f.gflop).sum();
                let ms: f64 = all.iter().map(|f| f.ms).sum();
                gflop / ms * 1e12
            }
        };
        Self {
            product,
            convolution,
            bytes: measured(STREAM).map_or(1e9, |f| f.gb_per_s * 1e9),
        }
    }

    /// Seconds of a step: of every kernel its operations by the rate of its kind, or its bytes, whichever takes
    /// longer.
    fn step(&self, graph: &Graph) -> Result<f64> {
        let graph = optimise(&*graph.checked()?, Passes::ALL)?;
        let mut seconds = 0.0;
        for node in graph.nodes() {
            let Kind::Op(op) = &node.kind else { continue };
            if op.is_view() {
                continue;
            }
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&x| graph.shape(x)).collect();
            let cost = op.cost(&shapes, &node.shape);
            let rate = match op.name() {
                "conv2d" | "conv2d_weight_grad" => self.convolution,
                "matmul" | "covariance" => self.product,
                // Their operations are few beside their bytes.
                _ => f64::INFINITY,
            };
            seconds += (cost.flops as f64 / rate).max(cost.bytes as f64 / self.bytes);
        }
        Ok(seconds)
    }

    /// Seconds of all steps of a cycle.
    fn cycle(&self, workload: &Workload) -> Result<f64> {
        let steps = workload.cycle.iter();
        steps
            .map(|(graph, count)| Ok(self.step(graph)? * *count as f64))
            .sum()
    }
}

/// VGG-11 on CIFAR-10 and ResNet-18 on ImageNet with the paper's settings.
fn paper_runs(report: &Report) -> Result<Vec<PaperRun>> {
    let rates = Rates::of(report);
    let mut runs = Vec::new();
    for (data, model, form) in [
        ("cifar10", "vgg11", None),
        ("imagenet", "resnet18", Some(Form::Imagenet)),
    ] {
        let experiment = format!("{data}-{model}");
        let settings = preset(&format!("{experiment}-deconv"))?;
        let missing = || {
            Error::bug(format!(
                "the preset {experiment}-deconv has no epochs or no batch size"
            ))
        };
        let epochs = settings.epochs.ok_or_else(missing)?;
        let batch_size = settings.batch_size.ok_or_else(missing)?;
        let images = match find_set(data).ok().and_then(|set| set.counts) {
            Some([train, _]) => train as u64,
            None => IMAGENET_IMAGES,
        };
        let steps = epochs * (images / batch_size as u64);
        for (norm, block) in compared_norms() {
            let timed = match form {
                None => report.measurement(&step_name(model, batch_size, norm, block)),
                Some(_) => None,
            };
            let ms_per_step = match timed {
                Some(measurement) => measurement.ms,
                None => 1e3 * rates.step(&step_graph(model, form, batch_size, norm, block)?)?,
            };
            runs.push(PaperRun {
                experiment: experiment.clone(),
                norm: norm_name(norm, block),
                epochs,
                batch_size,
                ms_per_step,
                hours: steps as f64 * ms_per_step / 3.6e6,
                measured: timed.is_some(),
            });
        }
    }
    Ok(runs)
}

/// Hours of the norm that takes longest.
fn slowest(runs: &[PaperRun], experiment: &str) -> f64 {
    let runs = runs.iter().filter(|run| run.experiment == experiment);
    runs.map(|run| run.hours).fold(0.0, f64::max)
}

/// What the measurements mean.
fn words(report: &Report, batch_size: usize, runs: &[PaperRun]) -> Vec<String> {
    let mut words = vec![kernels_in_words(report)];
    let cnn = |norm, block| report.measurement(&step_name("cnn", batch_size, norm, block));
    let images = |f: &Measurement| f.images_per_s.unwrap_or(f64::NAN);
    let base = cnn(Norm::Batch, None);
    if let Some(base) = base {
        let mut line = format!(
            "Measured: the small CNN (28x28 images, {batch_size} a step) trains on {} images a second \
             with batch norm",
            rounded(images(base))
        );
        for block in [16, 64] {
            if let Some(deconv) = cnn(Norm::Deconv, Some(block)) {
                line += &format!(
                    ", on {} with deconvolution in blocks of {block} ({:.2} times batch norm's time)",
                    rounded(images(deconv)),
                    deconv.ms / base.ms
                );
            }
        }
        words.push(line + ".");
    }
    for (experiment, title) in [
        ("cifar10-vgg11", "VGG-11 on CIFAR-10"),
        ("imagenet-resnet18", "ResNet-18 on ImageNet"),
    ] {
        let of: Vec<&PaperRun> = runs.iter().filter(|r| r.experiment == experiment).collect();
        if let Some(first) = of.first() {
            let each = of.iter().map(|run| {
                let norm = match run.norm.split_once(' ') {
                    Some((_, block)) => format!("with deconvolution in blocks of {block}"),
                    None => "with batch norm".into(),
                };
                format!("{} {norm}", duration(run.hours))
            });
            words.push(format!(
                "{}: {title} for the paper's {} epochs ({} images a step) takes about {}.",
                if first.measured {
                    "Measured"
                } else {
                    "Estimated"
                },
                first.epochs,
                first.batch_size,
                each.collect::<Vec<_>>().join(", ")
            ));
        }
    }
    if runs.iter().any(|run| !run.measured) {
        words.push(
            "(Estimated times add up the operations or bytes of each kernel at the rates measured here, \
             whichever take longer. Loading images and tests are not counted.)"
                .into(),
        );
    }
    let per_s = base.map_or(f64::NAN, images);
    words.push(good_for(
        per_s,
        slowest(runs, "cifar10-vgg11"),
        slowest(runs, "imagenet-resnet18"),
    ));
    words
}

/// What kernels reach.
fn kernels_in_words(report: &Report) -> String {
    let peak = report.measurement(workloads::PEAK);
    let mut line = format!(
        "Measured: the adapter does {} GFLOP/s of multiply-adds in registers",
        rounded(peak.map_or(f64::NAN, |f| f.gflops))
    );
    let product = report
        .measurement(LARGE_PRODUCT)
        .or(report.measurement(SMALL_PRODUCT));
    let mut reached = Vec::new();
    if let Some(f) = product {
        reached.push(format!("products reach {:.0} %", 100.0 * f.share_of_peak));
    }
    let convolutions = CONVOLUTIONS
        .iter()
        .filter_map(|name| report.measurement(name));
    let shares: Vec<f64> = convolutions.map(|f| 100.0 * f.share_of_peak).collect();
    if let Some(least) = shares.iter().copied().reduce(f64::min) {
        let most = shares.iter().copied().fold(least, f64::max);
        reached.push(format!(
            "convolutions and their gradients {least:.0} to {most:.0} %"
        ));
    }
    if !reached.is_empty() {
        line += &format!("; {} of that", reached.join(", "));
    }
    let stream = report.measurement(STREAM).map_or(f64::NAN, |f| f.gb_per_s);
    line + &format!("; memory is read and written at {} GB/s.", rounded(stream))
}

/// A recommendation: images of 28x28 that the small network trains on in a second, and hours of the
/// paper's runs on CIFAR-10 and ImageNet.
fn good_for(images_per_s: f64, cifar_hours: f64, imagenet_hours: f64) -> String {
    let epoch = 60_000.0 / images_per_s / 3600.0;
    let mut line = String::from("So this adapter is good for ");
    line += &match epoch {
        _ if epoch.is_nan() => "trying layers out".into(),
        _ if epoch < 0.5 => format!(
            "small networks (an epoch of Fashion-MNIST's 60 000 images takes {})",
            duration(epoch)
        ),
        _ => format!(
            "small networks on the built-in images (an epoch of all 60 000 of Fashion-MNIST takes {})",
            duration(epoch)
        ),
    };
    line += match cifar_hours {
        ..1.0 => ", for the paper's experiments on CIFAR while you wait",
        ..16.0 => ", and for one of the paper's experiments on CIFAR in a night",
        ..100.0 => {
            "; the paper's experiments on CIFAR take days: begin with trials (`width` 0.25 `steps` 300)"
        }
        _ => {
            "; the paper's experiments on CIFAR are too much for it: make trials of them \
             (`width` 0.25 `steps` 300)"
        }
    };
    line += match imagenet_hours {
        ..48.0 => ", and for ImageNet.",
        ..720.0 => "; ImageNet takes weeks.",
        _ => "; ImageNet is out of its reach.",
    };
    line
}

/// Two digits that count, more where the number has them.
fn rounded(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.1}"),
        ..1000.0 => format!("{value:.0}"),
        _ if value.is_nan() => "?".into(),
        _ => format!("{:.0}", (value / 10.0).round() * 10.0),
    }
}

/// About so long.
fn duration(hours: f64) -> String {
    let (value, unit) = match hours {
        _ if hours < 1.0 / 60.0 => (hours * 3600.0, "seconds"),
        _ if hours < 1.5 => (hours * 60.0, "minutes"),
        _ if hours < 48.0 => (hours, "hours"),
        _ if hours < 24.0 * 700.0 => (hours / 24.0, "days"),
        _ => (hours / 24.0 / 365.0, "years"),
    };
    format!("{} {unit}", rounded(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_that_suits_them() {
        for (hours, text) in [
            (0.01, "36 seconds"),
            (0.5, "30 minutes"),
            (1.25, "75 minutes"),
            (6.72, "6.7 hours"),
            (30.0, "30 hours"),
            (72.0, "3.0 days"),
            (26280.0, "3.0 years"),
        ] {
            assert_eq!(duration(hours), text);
        }
        assert_eq!(rounded(1234.0), "1230");
        assert_eq!(rounded(f64::NAN), "?");
    }

    /// Every number of the sentence, by hand.
    #[test]
    fn the_words_say_what_was_measured() {
        let measurement = |norm, block, ms, images_per_s| Measurement {
            name: step_name("cnn", 32, norm, block),
            ms,
            images_per_s: Some(images_per_s),
            ..Measurement::default()
        };
        let report = Report {
            measurements: vec![
                measurement(Norm::Batch, None, 20.0, 1600.0),
                measurement(Norm::Deconv, Some(16), 25.0, 1280.0),
                measurement(Norm::Deconv, Some(64), 50.0, 640.0),
            ],
            ..Report::default()
        };
        let words = words(&report, 32, &[]).join(" ");
        for part in [
            "32 a step",
            "1600 images a second with batch norm",
            "1280 with deconvolution in blocks of 16 (1.25 times",
            "640 with deconvolution in blocks of 64 (2.50 times",
        ] {
            assert!(words.contains(part), "no {part:?} in {words}");
        }
    }

    #[test]
    fn an_adapter_is_judged_by_the_norm_that_takes_longest() {
        let run = |experiment: &str, hours| PaperRun {
            experiment: experiment.into(),
            norm: "batch".into(),
            epochs: 20,
            batch_size: 128,
            ms_per_step: 1.0,
            hours,
            measured: true,
        };
        let runs = [run("a", 2.0), run("b", 9.0), run("a", 5.0), run("a", 3.0)];
        assert_eq!((slowest(&runs, "a"), slowest(&runs, "b")), (5.0, 9.0));
    }

    #[test]
    fn what_an_adapter_is_good_for_goes_by_its_times() {
        let fast = good_for(1e5, 0.2, 20.0);
        assert!(
            fast.contains("while you wait") && fast.contains("for ImageNet."),
            "{fast}"
        );
        let slow = good_for(500.0, 10.0, 3000.0);
        assert!(
            slow.contains("2.0 minutes") && slow.contains("in a night"),
            "{slow}"
        );
        assert!(slow.contains("out of its reach"), "{slow}");
        let slowest = good_for(f64::NAN, 1e4, 1e6);
        assert!(
            slowest.contains("trying layers out") && slowest.contains("trials"),
            "{slowest}"
        );
    }

    /// A product of 100 x 100 x 100 and a sum of 1000 numbers each, by hand.
    #[test]
    fn estimates_take_the_longer_of_operations_and_bytes() {
        use crate::graph::Init;
        let graph = || {
            let g = Graph::new();
            let a = g.parameter("a", [100, 100], Init::Constant(1.0));
            let x = g.parameter("x", [1000], Init::Constant(1.0));
            let z = g.parameter("z", [1000], Init::Constant(1.0));
            g.output("b", a.matmul(a));
            g.output("y", x + z);
            g
        };
        let rates = Rates {
            product: 1e6,
            convolution: 1.0,
            bytes: 1e6,
        };
        // 2e6 operations take 2 s; 8000 bytes read and 4000 written take 12 ms.
        let seconds = rates.step(&graph()).unwrap();
        assert!((seconds - 2.012).abs() < 1e-6, "{seconds}");
        let slow = Rates {
            bytes: 1e3,
            ..rates
        };
        // Now the 120 000 bytes of the product take longer than its operations.
        let seconds = slow.step(&graph()).unwrap();
        assert!((seconds - 132.0).abs() < 1e-6, "{seconds}");
        let cycle = Workload {
            cycle: vec![(graph(), 1), (graph(), 3)],
            ..Workload::new("four", Graph::new())
        };
        assert!((rates.cycle(&cycle).unwrap() - 4.0 * 2.012).abs() < 1e-6);
    }

    /// Of kernels and of the paper's runs; what is long is in days, what was not timed is estimated.
    #[test]
    fn the_words_say_what_kernels_reach_and_how_long_runs_take() {
        let share = |name: &str, share_of_peak| Measurement {
            name: name.into(),
            share_of_peak,
            gflops: 1000.0 * share_of_peak,
            gb_per_s: 64.0 * share_of_peak,
            ..Measurement::default()
        };
        let report = Report {
            measurements: vec![
                share(workloads::PEAK, 1.0),
                share(STREAM, 0.5),
                share(SMALL_PRODUCT, 0.75),
                share(LARGE_PRODUCT, 0.5),
                share(CONVOLUTIONS[0], 0.3),
                share(CONVOLUTIONS[1], 0.2),
                share(CONVOLUTIONS[2], 0.4),
            ],
            ..Report::default()
        };
        let run = |(experiment, epochs, batch_size, measured): (&'static str, u64, usize, bool)| {
            move |(norm, hours): (&str, f64)| PaperRun {
                experiment: experiment.into(),
                norm: norm.into(),
                epochs,
                batch_size,
                ms_per_step: 1.0,
                hours,
                measured,
            }
        };
        let cifar = run(("cifar10-vgg11", 20, 128, true));
        let imagenet = run(("imagenet-resnet18", 90, 256, false));
        let runs = [
            cifar(("batch", 2.0)),
            cifar(("deconv 64", 3.0)),
            imagenet(("batch", 96.0)),
            imagenet(("deconv 16", 120.0)),
        ];
        let words = words(&report, 32, &runs);
        let wanted = [
            "Measured: the adapter does 1000 GFLOP/s of multiply-adds in registers; products reach 50 %, convolutions \
             and their gradients 20 to 40 % of that; memory is read and written at 32 GB/s.",
            "Measured: VGG-11 on CIFAR-10 for the paper's 20 epochs (128 images a step) takes about 2.0 hours with batch \
             norm, 3.0 hours with deconvolution in blocks of 64.",
            "Estimated: ResNet-18 on ImageNet for the paper's 90 epochs (256 images a step) takes about 4.0 days with \
             batch norm, 5.0 days with deconvolution in blocks of 16.",
        ];
        assert_eq!(words[..3], wanted);
        assert!(words[3].starts_with("(Estimated times"), "{}", words[3]);
        let judged = "So this adapter is good for trying layers out, and for one of the paper's experiments on CIFAR in a \
                      night; ImageNet takes weeks.";
        assert_eq!(words[4..], [judged]);
        // Without the large product the small one says it, without any of its kind nothing does.
        let mut less = report;
        for (without, wanted) in [
            (LARGE_PRODUCT, "; products reach 75 %, convolutions"),
            (SMALL_PRODUCT, "; convolutions and their gradients 20 to"),
        ] {
            less.measurements.retain(|f| f.name != without);
            let text = kernels_in_words(&less);
            assert!(text.contains(wanted), "{text}");
        }
    }

    /// A step that was timed counts as it was; all others are estimated, those of the same network too.
    #[test]
    fn runs_are_measured_where_their_step_was_timed() {
        let name = step_name("vgg11", 128, Norm::Batch, None);
        let report = Report {
            measurements: vec![Measurement {
                name,
                ms: 36.0,
                ..Measurement::default()
            }],
            ..Report::default()
        };
        let runs = paper_runs(&report).unwrap();
        let norms = compared_norms().count();
        assert_eq!(runs.len(), 2 * norms);
        for (i, run) in runs.iter().enumerate() {
            assert_eq!(run.measured, i == 0, "{run:?}");
            let (experiment, images) = match i < norms {
                true => ("cifar10-vgg11", 50_000),
                false => ("imagenet-resnet18", 1_281_167),
            };
            assert_eq!(run.experiment, experiment);
            // Images that do not fill a batch are left out of each epoch.
            let steps = run.epochs * (images / run.batch_size as u64);
            let hours = steps as f64 * run.ms_per_step / 1e3 / 3600.0;
            assert!((run.hours / hours - 1.0).abs() < 1e-9, "{run:?}");
        }
        let first = &runs[0];
        assert_eq!((first.norm.as_str(), first.ms_per_step), ("batch", 36.0));
        assert_eq!(first.batch_size, 128);
    }

    #[test]
    fn each_recommendation_ends_where_the_next_begins() {
        for (cifar, imagenet, parts) in [
            (0.9, 47.0, ["while you wait", "for ImageNet."]),
            (1.0, 48.0, ["in a night", "takes weeks"]),
            (15.9, 719.0, ["in a night", "takes weeks"]),
            (16.0, 720.0, ["take days", "out of its reach"]),
            (99.0, 1e9, ["take days", "out of its reach"]),
            (100.0, 1e9, ["too much", "out of its reach"]),
        ] {
            let text = good_for(1e5, cifar, imagenet);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    /// Those of the kind that is most like a network's; without it the next best.
    #[test]
    fn rates_are_of_the_kernels_most_like_a_networks() {
        let of = |name: &str, gflop, ms, gb_per_s| Measurement {
            name: name.into(),
            ms,
            gflop,
            gflops: gflop / ms * 1e3,
            gb_per_s,
            ..Measurement::default()
        };
        let mut report = Report {
            measurements: vec![
                of(SMALL_PRODUCT, 2.0, 1000.0, 90.0),
                of(LARGE_PRODUCT, 3.0, 1000.0, 91.0),
                of("newton_schulz 576 f+b", 5.0, 1000.0, 92.0),
                of(CONVOLUTIONS[0], 1.0, 1000.0, 93.0),
                of(CONVOLUTIONS[1], 2.0, 2000.0, 94.0),
                of(CONVOLUTIONS[2], 9.0, 1000.0, 95.0),
                of(STREAM, 0.1, 1000.0, 7.0),
            ],
            ..Report::default()
        };
        let mut rates = |without: usize| {
            report
                .measurements
                .drain(report.measurements.len() - without..);
            let rates = Rates::of(&report);
            [rates.product, rates.convolution, rates.bytes].map(|rate| rate / 1e9)
        };
        assert_eq!(rates(0), [5.0, 3.0, 7.0]);
        assert_eq!(rates(1), [5.0, 3.0, 1.0]);
        assert_eq!(rates(3), [5.0, 5.0, 1.0]);
        assert_eq!(rates(1), [3.0, 3.0, 1.0]);
        assert_eq!(rates(1), [2.0, 2.0, 1.0]);
        assert_eq!(rates(1), [1.0, 1.0, 1.0]);
    }
}
