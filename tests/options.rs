//! Every option of `train` reaches the run: a table with a row for each; an option without one fails.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use clap::{Args, Command, FromArgMatches};
use decorr::data::Augment;
use decorr::graph::op::Variants;
use decorr::models::Form;
use decorr::nn::{Loss, Mode};
use decorr::optim::Rule;
use decorr::train::{
    Event, Norm, Record, Split, Start, TrainConfig, TrainOptions, checkpoint, read_metrics, train,
    training_step,
};

/// A small run with every kind of layer in it.
const BASE: &[&str] = &[
    "--model",
    "cnn",
    "--width",
    "0.25",
    "--norm",
    "deconv",
    "--block",
    "8",
    "--batch-size",
    "16",
    "--train-images",
    "64",
    "--test-images",
    "7",
    "--steps",
    "4",
    "--log-every",
    "1",
    "--lr",
    "0.05",
];

/// What a run left.
struct Left {
    out: PathBuf,
    records: Vec<Record>,
    model: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Left {
    fn losses(&self) -> Vec<f64> {
        let train = self.records.iter().filter(|r| r.split == Split::Train);
        train.map(|r| r.loss.unwrap()).collect()
    }

    fn test(&self) -> &Record {
        self.records
            .iter()
            .rfind(|r| r.split == Split::Test)
            .unwrap()
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.out.join(name)).unwrap()
    }
}

/// Options as the command line has them.
fn parse(args: &[&str]) -> TrainOptions {
    let command = TrainOptions::augment_args(Command::new("train").args_override_self(true));
    let matches = command.try_get_matches_from([&["train"], args].concat());
    TrainOptions::from_arg_matches(&matches.unwrap_or_else(|e| panic!("{args:?}: {e}"))).unwrap()
}

fn config(args: &[&str]) -> TrainConfig {
    TrainConfig::resolve(parse(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// The base with `args` over it.
fn run(args: &[&str]) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = TrainOptions {
        out: Some(out.clone()),
        ..parse(&[BASE, args].concat())
    };
    let config = TrainConfig::resolve(options).unwrap();
    train(
        &support::gpu(),
        &config,
        Start::New,
        &AtomicBool::new(false),
        |_| (),
    )
    .unwrap_or_else(|e| panic!("{args:?}: {e}"));
    Left {
        records: read_metrics(&out.join("metrics.jsonl")).unwrap(),
        model: fs::read(out.join("model.safetensors")).unwrap(),
        out,
        _dir: dir,
    }
}

fn base() -> &'static Left {
    static BASE: OnceLock<Left> = OnceLock::new();
    BASE.get_or_init(|| run(&[]))
}

/// What an option must do.
enum Does {
    /// Losses of the run differ from those of the run with the second arguments (the first when there are none).
    Changes(&'static [&'static str]),
    /// The weights at the end differ, and the first loss does not.
    ChangesUpdates(&'static [&'static str]),
    /// Nothing differs but what the function looks at.
    Keeps(fn(&Left)),
    /// What the options are resolved to.
    Resolves(fn(&TrainConfig) -> bool),
}

use Does::{Changes, ChangesUpdates, Keeps, Resolves};

/// Option, its arguments, what it does.
fn table() -> Vec<(&'static str, &'static [&'static str], Does)> {
    vec![
        (
            "preset",
            &["--preset", "cifar10-vgg11-batch"],
            Resolves(|c| {
                c.data == "cifar10"
                    && c.model(10).network.name == "vgg11"
                    && c.options.norm == Some(Norm::Batch)
            }),
        ),
        (
            "preset",
            &[
                "--preset",
                "cifar10-vgg11-batch",
                "--norm",
                "none",
                "--lr",
                "0.75",
            ],
            // What is given wins over it.
            Resolves(|c| {
                (c.options.norm, c.lr) == (Some(Norm::None), 0.75)
                    && c.model(10).network.name == "vgg11"
            }),
        ),
        (
            "init",
            &["--init", "somewhere"],
            Resolves(|c| c.options.init.as_deref() == Some(Path::new("somewhere"))),
        ),
        (
            "data",
            &["--data", "cifar100"],
            Resolves(|c| c.data == "cifar100"),
        ),
        (
            "data-dir",
            &["--data-dir", "somewhere"],
            Resolves(|c| {
                c.open_data()
                    .is_err_and(|e| e.to_string().contains("somewhere"))
            }),
        ),
        (
            "augment",
            &["--augment", "none"],
            Resolves(|c| !c.data_options.augment),
        ),
        (
            "image-size",
            &["--image-size", "40"],
            Resolves(|c| c.data_options.image_size == 40),
        ),
        ("train-images", &["--train-images", "48"], Changes(&[])),
        (
            "test-images",
            &["--test-images", "5"],
            Keeps(|left| {
                assert_ne!(left.test().loss, base().test().loss);
            }),
        ),
        (
            "skip-bad",
            &["--skip-bad"],
            Resolves(|c| c.data_options.skip_bad),
        ),
        (
            "workers",
            &["--workers", "3"],
            Keeps(|left| {
                assert_eq!(left.test().loss, base().test().loss);
                assert!(left.file("config.toml").contains("workers = 3"));
            }),
        ),
        ("model", &["--model", "mlp"], Changes(&[])),
        (
            "form",
            &["--model", "vgg11", "--form", "imagenet"],
            Resolves(|c| c.model(10).form == Some(Form::Imagenet)),
        ),
        ("width", &["--width", "0.5"], Changes(&[])),
        (
            "dropout",
            &["--dropout", "0.25"],
            Resolves(|c| c.model(10).dropout == 0.25),
        ),
        ("norm", &["--norm", "batch"], Changes(&[])),
        ("loss", &["--loss", "l2"], Changes(&["--loss", "bce"])),
        ("epochs", &["--epochs", "3"], Resolves(|c| c.epochs == 3)),
        (
            "steps",
            &["--steps", "3"],
            Keeps(|left| {
                assert_eq!(left.losses(), base().losses()[..3]);
                assert_ne!(left.model, base().model);
            }),
        ),
        (
            "stop-after",
            &["--stop-after", "2", "--schedule", "cosine"],
            Keeps(|left| {
                let rates: Vec<f32> = left.records.iter().filter_map(|r| r.lr).collect();
                // The second of four steps.
                let second = 0.05 * (1.0 + std::f32::consts::FRAC_PI_4.cos()) / 2.0;
                assert_eq!(rates.len(), 2);
                assert!((rates[1] - second).abs() < 1e-7, "{rates:?}");
                assert_eq!(left.test().step, 2);
            }),
        ),
        (
            "warmup-steps",
            &["--warmup-steps", "4"],
            Keeps(|left| {
                let rates: Vec<f32> = left.records.iter().filter_map(|r| r.lr).collect();
                assert_eq!(rates, [0.0125, 0.025, 0.0375, 0.05]);
                assert_ne!(left.losses(), base().losses());
            }),
        ),
        (
            "clip-grad-norm",
            &["--clip-grad-norm", "0.01"],
            ChangesUpdates(&[]),
        ),
        (
            "eval-every",
            &["--eval-every", "3"],
            Keeps(|left| {
                let tests = left.records.iter().filter(|r| r.split == Split::Test);
                assert_eq!(tests.map(|r| r.step).collect::<Vec<_>>(), [3, 4]);
                assert_eq!(left.losses(), base().losses());
                assert!(
                    !left
                        .out
                        .join("checkpoints/step-00000003.safetensors")
                        .exists()
                );
            }),
        ),
        (
            "keep-best",
            &["--keep-best", "--eval-every", "1"],
            Keeps(|left| {
                let tests: Vec<_> = left
                    .records
                    .iter()
                    .filter(|r| r.split == Split::Test)
                    .collect();
                let best = tests
                    .iter()
                    .rev()
                    .max_by(|a, b| a.top1.unwrap().total_cmp(&b.top1.unwrap()));
                let (_, metadata) = checkpoint::load(&left.out.join("best.safetensors")).unwrap();
                assert_eq!(metadata["step"], best.unwrap().step.to_string());
                assert!(!base().out.join("best.safetensors").exists());
            }),
        ),
        (
            "tensorboard",
            &["--tensorboard"],
            Keeps(|left| {
                let tensors = |left: &Left| {
                    checkpoint::load(&left.out.join("model.safetensors"))
                        .unwrap()
                        .0
                };
                assert!(tensors(left) == tensors(base()));
                let has_events = |left: &Left| {
                    let mut entries = fs::read_dir(&left.out).unwrap();
                    entries.any(|entry| {
                        let name = entry.unwrap().file_name().into_string().unwrap();
                        name.starts_with("events.out.tfevents.")
                    })
                };
                assert!(has_events(left) && !has_events(base()));
            }),
        ),
        ("batch-size", &["--batch-size", "8"], Changes(&[])),
        ("accumulate", &["--accumulate", "2"], Changes(&[])),
        // Of several processes: tests/exchange.rs and tests/ranks.rs.
        (
            "sync-stats",
            &["--sync-stats"],
            Keeps(|left| assert!(left.model != base().model && left.losses() == base().losses())),
        ),
        (
            "rank-timeout",
            &["--rank-timeout", "7"],
            Keeps(|left| assert!(left.file("config.toml").contains("rank-timeout = 7"))),
        ),
        ("optimizer", &["--optimizer", "adam"], ChangesUpdates(&[])),
        ("lr", &["--lr", "0.02"], ChangesUpdates(&[])),
        ("momentum", &["--momentum", "0.5"], ChangesUpdates(&[])),
        ("nesterov", &["--nesterov"], ChangesUpdates(&[])),
        (
            "weight-decay",
            &["--weight-decay", "0.1"],
            ChangesUpdates(&[]),
        ),
        ("schedule", &["--schedule", "cosine"], ChangesUpdates(&[])),
        (
            "step-size",
            &["--schedule", "step", "--step-size", "2"],
            Resolves(|c| {
                // 58 steps an epoch.
                let at = |step| c.schedule(58).lr(1.0, step);
                (at(115), at(116)) == (1.0, 0.1)
            }),
        ),
        (
            "gamma",
            &["--schedule", "step", "--step-size", "1", "--gamma", "0.5"],
            Resolves(|c| {
                let at = |step| c.schedule(58).lr(c.lr, step) / c.lr;
                (at(57), at(58), at(116)) == (1.0, 0.5, 0.25)
            }),
        ),
        (
            "label-smoothing",
            &["--label-smoothing", "0.2"],
            Changes(&[]),
        ),
        ("block", &["--block", "4"], Changes(&[])),
        ("eps", &["--eps", "0.01"], Changes(&[])),
        ("n-iter", &["--n-iter", "4"], Changes(&[])),
        ("first-n-iter", &["--first-n-iter", "3"], Changes(&[])),
        ("sampling-stride", &["--sampling-stride", "2"], Changes(&[])),
        (
            "stat-momentum",
            &["--stat-momentum", "0.4"],
            Keeps(|left| {
                assert_ne!(left.test().loss, base().test().loss);
                assert_ne!(left.model, base().model);
            }),
        ),
        ("refresh", &["--refresh", "2"], Changes(&[])),
        (
            "refresh-after",
            &["--refresh", "2", "--refresh-after", "3"],
            Changes(&["--refresh", "2"]),
        ),
        ("freeze-iter", &["--freeze-iter", "1"], Changes(&[])),
        (
            "log-every",
            &["--log-every", "3"],
            Keeps(|left| {
                let steps: Vec<u64> = left
                    .records
                    .iter()
                    .filter(|r| r.split == Split::Train)
                    .map(|r| r.step)
                    .collect();
                assert_eq!(steps, [1, 3, 4]);
            }),
        ),
        (
            "save-every",
            &["--save-every", "3"],
            Keeps(|left| {
                assert!(
                    left.out
                        .join("checkpoints/step-00000003.safetensors")
                        .is_file()
                );
                assert!(
                    !base()
                        .out
                        .join("checkpoints/step-00000003.safetensors")
                        .exists()
                );
            }),
        ),
        (
            "kernels",
            &["--kernels", "direct"],
            Resolves(|c| c.kernels == Some(Variants::Direct)),
        ),
        ("seed", &["--seed", "2"], Changes(&[])),
        (
            "out",
            &["--out", "there"],
            Resolves(|c| c.out == Path::new("there")),
        ),
    ]
}

#[test]
fn every_option_does_what_it_says() {
    let command = TrainOptions::augment_args(Command::new("train"));
    let all: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(String::from))
        .collect();
    let table = table();
    let rows: BTreeSet<String> = table.iter().map(|(name, ..)| name.to_string()).collect();
    let without: Vec<&String> = all.difference(&rows).collect();
    assert!(without.is_empty(), "options without a row: {without:?}");
    let unknown: Vec<&String> = rows.difference(&all).collect();
    assert!(unknown.is_empty(), "rows of no option: {unknown:?}");
    // Two at a time: most of a run is compiling, on one core.
    let table = std::sync::Mutex::new(table.into_iter());
    let losses = |args: &[&str]| match args {
        [] => base().losses(),
        args => run(args).losses(),
    };
    let check = |name: &str, args: &[&str], does: Does| match does {
        Changes(other) => {
            assert_ne!(losses(args), losses(other), "--{name} changes no loss");
            1 + u32::from(!other.is_empty())
        }
        ChangesUpdates(other) => {
            let (one, two) = (losses(args), losses(other));
            assert_eq!(one[0], two[0], "--{name} changes the first loss");
            assert_ne!(one, two, "--{name} changes no update");
            1 + u32::from(!other.is_empty())
        }
        Keeps(look) => {
            let left = run(args);
            assert_eq!(
                left.losses()[..1],
                base().losses()[..1],
                "--{name} changes a loss"
            );
            look(&left);
            1
        }
        Resolves(is_right) => {
            assert!(is_right(&config(args)), "--{name}");
            assert!(!is_right(&config(&[])), "--{name} is right without it");
            0
        }
    };
    let work = || {
        let mut runs = 0;
        loop {
            let row = table.lock().unwrap().next();
            let Some((name, args, does)) = row else {
                return runs;
            };
            runs += check(name, args, does);
        }
    };
    let runs: u32 = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(work));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    support::report(&format!("{} options, {runs} runs of 4 steps", all.len()));
}

/// The numbers that options are resolved to, where a run could not tell a half from the whole.
#[test]
fn options_reach_losses_and_update_rules() {
    let smoothed = config(&["--label-smoothing", "0.25"]);
    assert_eq!(smoothed.loss, Loss::CrossEntropy { smoothing: 0.25 });
    let Rule::Sgd(sgd) = config(&["--nesterov", "--momentum", "0.75", "--weight-decay", "0.5"])
        .optimizer
        .rule
    else {
        panic!("not SGD");
    };
    assert_eq!(
        (sgd.nesterov, sgd.momentum, sgd.weight_decay),
        (true, 0.75, 0.5)
    );
    let Rule::Adam(adam) = config(&["--optimizer", "adam", "--weight-decay", "0.5"])
        .optimizer
        .rule
    else {
        panic!("not Adam");
    };
    assert_eq!(adam.weight_decay, 0.5);
    let model = config(&[
        "--dropout",
        "0.125",
        "--stat-momentum",
        "0.3",
        "--eps",
        "0.5",
        "--refresh",
        "7",
    ])
    .model(10);
    assert_eq!(
        (
            model.dropout,
            model.deconv.momentum,
            model.deconv.eps,
            model.deconv.refresh
        ),
        (0.125, 0.3, 0.5, 7)
    );
    let augment = |args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let images = vec![0; 3073];
        fs::write(dir.path().join("data_batch_1.bin"), &images).unwrap();
        fs::write(dir.path().join("test_batch.bin"), &images).unwrap();
        let dir = dir.path().to_str().unwrap();
        let options = parse(&[&["--data", "cifar10", "--data-dir", dir], args].concat());
        TrainConfig::resolve(options)
            .unwrap()
            .open_data()
            .unwrap()
            .augment
    };
    assert_eq!(augment(&[]), Augment::CropFlip);
    assert_eq!(augment(&["--augment", "none"]), Augment::None);
    // A cosine ends where the run does, whatever --epochs says.
    let cosine = config(&["--schedule", "cosine", "--steps", "6", "--epochs", "50"]);
    let at = |step| cosine.schedule(58).lr(1.0, step);
    assert!(
        (at(3) - 0.5).abs() < 1e-6 && at(6).abs() < 1e-6,
        "{} {}",
        at(3),
        at(6)
    );
    let whole = config(&["--schedule", "cosine", "--epochs", "2"]);
    assert!((whole.schedule(58).lr(1.0, 58) - 0.5).abs() < 1e-6);
}

/// Columns of metrics.jsonl.
#[test]
fn every_column_of_the_log_is_right() {
    let args = ["--schedule", "cosine", "--steps", "6", "--epochs", "9"];
    let left = run(&args);
    let schedule = config(&args).schedule(4);
    let train: Vec<&Record> = left
        .records
        .iter()
        .filter(|r| r.split == Split::Train)
        .collect();
    assert_eq!(train.len(), 6);
    let mut before = 0.0;
    for (i, record) in train.iter().enumerate() {
        let step = i as u64;
        assert_eq!((record.step, record.epoch), (step + 1, step / 4));
        assert_eq!(record.lr, Some(schedule.lr(0.05, step)), "step {step}");
        let top1 = record.top1.unwrap() * 16.0;
        assert!((top1 - top1.round()).abs() < 1e-5, "{top1} of 16 hits");
        assert!(record.seconds >= before);
        before = record.seconds;
    }
    assert_eq!(train[0].lr, Some(0.05));
    let tests: Vec<&Record> = left
        .records
        .iter()
        .filter(|r| r.split == Split::Test)
        .collect();
    let places: Vec<(u64, u64)> = tests.iter().map(|r| (r.step, r.epoch)).collect();
    assert_eq!(places, [(4, 0), (6, 1)]);
    assert!(tests.iter().all(|r| r.lr.is_none() && r.loss.is_some()));
    let names: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(left.file("metrics.jsonl").lines().next().unwrap()).unwrap();
    let names: Vec<&str> = names.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["epoch", "loss", "lr", "seconds", "split", "step", "top1"]
    );
}

/// What the progress line says, against the log of the same steps.
#[test]
fn progress_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let options = TrainOptions {
        out: Some(out.clone()),
        ..parse(&[BASE, &["--steps", "6"]].concat())
    };
    let config = TrainConfig::resolve(options).unwrap();
    let mut told = Vec::new();
    train(
        &support::gpu(),
        &config,
        Start::New,
        &AtomicBool::new(false),
        |event| {
            if let Event::Step(progress) = event {
                told.push((
                    [progress.step, progress.total_steps, progress.epoch],
                    [f64::from(progress.loss), f64::from(progress.top1)],
                    [progress.images_per_second, progress.seconds_left],
                ));
            }
        },
    )
    .unwrap();
    let records = read_metrics(&out.join("metrics.jsonl")).unwrap();
    let records: Vec<&Record> = records.iter().filter(|r| r.split == Split::Train).collect();
    assert_eq!((told.len(), records.len()), (6, 6));
    for ((numbers, values, rates), record) in told.into_iter().zip(records) {
        assert_eq!(numbers, [record.step, 6, record.epoch]);
        assert_eq!(values, [record.loss.unwrap(), record.top1.unwrap()]);
        let a_step = record.seconds / record.step as f64;
        let expected = [16.0 / a_step, (6 - record.step) as f64 * a_step];
        for (actual, expected) in rates.into_iter().zip(expected) {
            assert!(
                (actual - expected).abs() <= 1e-6 * expected,
                "{actual}, not {expected}"
            );
        }
    }
}

/// No number in any option ends in a panic or in a run without end, and what is refused names the option.
#[test]
fn extreme_numbers_are_refused_or_run() {
    let command = TrainOptions::augment_args(Command::new("train"));
    let names: Vec<String> = command
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(String::from))
        .collect();
    let mut refused = 0;
    for name in &names {
        for value in [
            "18446744073709551615",
            "4294967296",
            "0",
            "-1",
            "1e30",
            "nan",
            "inf",
        ] {
            let option = format!("--{name}={value}");
            let command = TrainOptions::augment_args(Command::new("train"));
            let resolved = command
                .try_get_matches_from(["train", &option])
                .map_err(|e| e.to_string())
                .and_then(|matches| {
                    let options = TrainOptions::from_arg_matches(&matches).unwrap();
                    TrainConfig::resolve(options).map_err(|e| e.to_string())
                });
            let config = match resolved {
                Ok(config) => config,
                Err(why) => {
                    // `n_iter` is no part of `first_n_iter`. The library's names have lower lines, clap's flags have dashes.
                    let words = why.split(|c: char| !c.is_alphanumeric() && !"-_".contains(c));
                    let mut words = words.map(|word| word.trim_matches('-').replace('_', "-"));
                    assert!(words.any(|word| word == *name), "{option}: {why}");
                    refused += 1;
                    continue;
                }
            };
            // What is left is small enough to describe.
            let shape = [config.batch_size.min(4), 1, 28, 28];
            let graph = training_step(
                &config.model(10),
                config.loss,
                &config.optimizer,
                shape,
                Mode::Train,
            );
            assert!(graph.is_ok() || graph.is_err());
        }
    }
    support::report(&format!(
        "{} options, {refused} values refused",
        names.len()
    ));
    assert!(refused > 150);
}
