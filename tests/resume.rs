//! A run that was interrupted goes on to the same bits; a step in parts is the step as a whole.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use decorr::Result;
use decorr::train::{
    Event, Norm, OptimizerName, Outcome, Record, RunInfo, Saved, ScheduleName, Split, Start,
    TrainConfig, TrainOptions, checkpoint, read_metrics, train,
};

/// A small network with everything that has a memory: momenta, running statistics, a first layer
/// that freezes, a schedule.
fn options(out: &Path) -> TrainOptions {
    TrainOptions {
        model: Some("cnn".into()),
        width: Some(0.5),
        norm: Some(Norm::Deconv),
        block: Some(8),
        batch_size: Some(16),
        accumulate: Some(2),
        schedule: Some(ScheduleName::Cosine),
        freeze_iter: Some(2),
        lr: Some(0.02),
        steps: Some(9),
        save_every: Some(3),
        log_every: Some(1),
        test_images: Some(60),
        out: Some(out.to_path_buf()),
        ..TrainOptions::default()
    }
}

fn go(options: TrainOptions, start: Start, stop_after: u64) -> Result<Outcome> {
    let config = TrainConfig::resolve(options)?;
    let stop = AtomicBool::new(false);
    train(&support::gpu(), &config, start, &stop, |event| {
        if matches!(event, Event::Step(p) if p.step >= stop_after) {
            stop.store(true, Ordering::Relaxed);
        }
    })
}

fn resume(out: &Path) -> Result<Outcome> {
    let saved = Saved::latest(out)?;
    let options = TrainOptions {
        out: Some(out.to_path_buf()),
        ..saved.options.clone()
    };
    go(options, Start::Resume(Box::new(saved)), u64::MAX)
}

fn files(out: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn model(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("model.safetensors")).unwrap()
}

/// The training records.
fn train_records(out: &Path) -> Vec<Record> {
    let records = read_metrics(&out.join("metrics.jsonl")).unwrap();
    records
        .into_iter()
        .filter(|r| r.split == Split::Train)
        .collect()
}

/// Steps and losses of the training records.
fn losses(out: &Path) -> Vec<(u64, f64)> {
    let records = read_metrics(&out.join("metrics.jsonl")).unwrap();
    let train = records.iter().filter(|r| r.split == Split::Train);
    train.map(|r| (r.step, r.loss.unwrap())).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let runs = [
        (OptimizerName::Sgd, 1),
        (OptimizerName::Adam, 1),
        (OptimizerName::Sgd, 4),
    ];
    for (optimizer, refresh) in runs {
        let dir = tempfile::tempdir().unwrap();
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        let with = |out: &Path| TrainOptions {
            optimizer: Some(optimizer),
            refresh: Some(refresh),
            ..options(out)
        };
        go(with(&whole), Start::New, u64::MAX).unwrap();
        let summary = go(with(&cut), Start::New, 2).unwrap();
        assert!(summary.interrupted && summary.steps < 9);
        assert_ne!(model(&cut), model(&whole));
        let summary = resume(&cut).unwrap();
        assert!(!summary.interrupted && summary.steps == 9);
        assert_eq!(model(&cut), model(&whole), "{optimizer:?} {refresh}");
        // But for the time that they took, the logs are equal to the last digit.
        // (The cut run was tested where it ended, too.)
        let without_time = |out: &Path| -> Vec<Record> {
            let records = read_metrics(&out.join("metrics.jsonl")).unwrap();
            records
                .into_iter()
                .filter(|r| r.split == Split::Train || r.step == 9)
                .map(|r| Record { seconds: 0.0, ..r })
                .collect()
        };
        assert_eq!(without_time(&cut), without_time(&whole));
        let seconds: Vec<f64> = train_records(&cut).iter().map(|r| r.seconds).collect();
        assert!(
            seconds.windows(2).all(|two| two[0] <= two[1]),
            "{seconds:?}"
        );
        let text = resume(&cut).unwrap_err().to_string();
        assert!(text.contains("all its 9 steps"), "{text}");
    }
}

/// A crash between two checkpoints costs the steps in between; one while writing costs no more.
#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    go(options(&whole), Start::New, u64::MAX).unwrap();
    go(options(&cut), Start::New, u64::MAX).unwrap();
    assert_eq!(
        files(&cut),
        ["step-00000006.safetensors", "step-00000009.safetensors"],
        "the last two are kept"
    );
    let last = cut.join("checkpoints/step-00000009.safetensors");
    let bytes = std::fs::read(&last).unwrap();
    // A number that is none, as a disk may leave it.
    let mut ruined = bytes.clone();
    let end = ruined.len();
    ruined[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&last, &ruined).unwrap();
    let saved = Saved::latest(&cut).unwrap();
    assert_eq!(saved.step, 6);
    assert!(
        saved.damaged[0].contains("not finite"),
        "{:?}",
        saved.damaged
    );
    // A time before the beginning, and the checkpoint of another step.
    let key = br#"\"seconds\":\""#;
    let at = bytes
        .windows(key.len())
        .position(|part| part == key)
        .unwrap()
        + key.len();
    ruined = bytes.clone();
    ruined[at] = b'-';
    let before = std::fs::read(last.with_file_name("step-00000006.safetensors")).unwrap();
    for (bytes, wanted) in [(&ruined, "`seconds` are"), (&before, "`step` is \"6\"")] {
        std::fs::write(&last, bytes).unwrap();
        let saved = Saved::latest(&cut).unwrap();
        assert_eq!(saved.step, 6);
        assert!(saved.damaged[0].contains(wanted), "{:?}", saved.damaged);
    }
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let saved = Saved::latest(&cut).unwrap();
    assert_eq!((saved.step, saved.damaged.len()), (6, 1));
    assert!(
        saved.damaged[0].contains("step-00000009"),
        "{:?}",
        saved.damaged
    );
    go(options(&cut), Start::Resume(Box::new(saved)), 7).unwrap();
    let kept = files(&cut);
    assert_eq!(kept.len(), 2);
    assert_eq!(
        kept[0], "step-00000006.safetensors",
        "the damaged one does not count"
    );
    resume(&cut).unwrap();
    assert_eq!(model(&cut), model(&whole));
    assert_eq!(losses(&cut), losses(&whole));
    for name in files(&cut) {
        std::fs::write(cut.join("checkpoints").join(name), b"").unwrap();
    }
    let text = Saved::latest(&cut).unwrap_err().to_string();
    assert!(text.contains("no checkpoint is whole"), "{text}");
    let text = Saved::latest(dir.path()).unwrap_err().to_string();
    assert!(text.contains("to resume from"), "{text}");
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    go(options(&out), Start::New, 1).unwrap();
    let saved = Saved::latest(&out).unwrap();
    let other = TrainOptions {
        block: Some(16),
        ..options(&out)
    };
    let error = go(other, Start::Resume(Box::new(saved)), u64::MAX).unwrap_err();
    assert!(
        error.to_string().contains("conv2.running_deconv"),
        "{error}"
    );
    // What there was is still there.
    assert!(!losses(&out).is_empty());
}

/// Without statistics of the batch, the gradient of a batch is the mean of those of its parts.
#[test]
fn a_step_in_parts_is_the_step_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, norm, parts| {
        let out = dir.path().join(name);
        let options = TrainOptions {
            norm: Some(norm),
            block: None,
            batch_size: Some(24),
            accumulate: Some(parts),
            weight_decay: Some(1e-3),
            ..options(&out)
        };
        go(options, Start::New, u64::MAX).unwrap();
        train_records(&out)
            .iter()
            .map(|r| (r.top1.unwrap(), r.loss.unwrap()))
            .collect::<Vec<_>>()
    };
    let (whole, parts) = (run("1", Norm::None, 1), run("3", Norm::None, 3));
    let mut worst: f64 = 0.0;
    for ((hits_a, a), (hits_b, b)) in whole.iter().zip(&parts) {
        assert!((hits_a - hits_b).abs() < 1e-6, "top1 {hits_a} {hits_b}");
        worst = worst.max((a - b).abs() / a);
    }
    support::report(&format!(
        "accumulation: largest difference of a loss {worst:.1e}"
    ));
    assert!(worst < 1e-5, "{whole:?} {parts:?}");
    let (whole, parts) = (run("b1", Norm::Batch, 1), run("b3", Norm::Batch, 3));
    assert!(
        (whole[0].1 - parts[0].1).abs() > 1e-4,
        "statistics are of a part"
    );
}

/// The log is a log: whatever has become of it, the run goes on from its checkpoint.
#[test]
fn a_damaged_log_never_keeps_a_run_from_going_on() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let short = |out: &Path| TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        block: None,
        accumulate: None,
        steps: Some(60),
        ..options(out)
    };
    go(short(&whole), Start::New, u64::MAX).unwrap();
    go(short(&cut), Start::New, 4).unwrap();
    let saved = Saved::latest(&cut).unwrap().step;
    let log = std::fs::read(cut.join("metrics.jsonl")).unwrap();
    let half = log.len() / 2;
    let damages: [(&str, Option<Vec<u8>>); 7] = [
        ("as it was", Some(log.clone())),
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("torn", Some(log[..log.len() - 9].to_vec())),
        (
            "no text",
            Some([&log[..half], &[0xff, 0xfe, 0x80], &log[half..]].concat()),
        ),
        ("somebody else's", Some(b"{\"name\": 1}\n".to_vec())),
        (
            "in the middle",
            Some([&log[..half], b"\nx\n", &log[half..]].concat()),
        ),
    ];
    for (what, bytes) in damages {
        let again = dir.path().join(what.replace(' ', "-"));
        std::fs::create_dir_all(again.join("checkpoints")).unwrap();
        let name = format!("checkpoints/step-{saved:08}.safetensors");
        for file in ["config.toml", "model.safetensors", &name] {
            std::fs::copy(cut.join(file), again.join(file)).unwrap();
        }
        if let Some(bytes) = &bytes {
            std::fs::write(again.join("metrics.jsonl"), bytes).unwrap();
        }
        let latest = Saved::latest(&again).unwrap();
        let options = TrainOptions {
            out: Some(again.clone()),
            ..latest.options.clone()
        };
        let config = TrainConfig::resolve(options).unwrap();
        let mut notices = Vec::new();
        let stop = AtomicBool::new(false);
        train(
            &support::gpu(),
            &config,
            Start::Resume(Box::new(latest)),
            &stop,
            |event| {
                if let Event::Notice(text) = event {
                    notices.push(text.to_string());
                }
            },
        )
        .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(model(&again), model(&whole), "{what}");
        let last = train_records(&again).last().map(|r| r.step);
        assert_eq!(last, Some(60), "{what}");
        let told = notices.iter().any(|text| text.contains("metrics.jsonl"));
        assert_eq!(told, what != "as it was", "{what}: {notices:?}");
    }
}

/// Killed after its last checkpoint and before its curves.
#[test]
fn a_run_that_lacks_its_curves_only_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let linear = TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        block: None,
        accumulate: None,
        ..options(&out)
    };
    go(linear, Start::New, u64::MAX).unwrap();
    let log = std::fs::read(out.join("metrics.jsonl")).unwrap();
    std::fs::remove_file(out.join("curves.png")).unwrap();
    let summary = resume(&out).unwrap();
    assert_eq!(summary.steps, 9);
    assert!(out.join("curves.png").is_file());
    assert_eq!(std::fs::read(out.join("metrics.jsonl")).unwrap(), log);
    let text = resume(&out).unwrap_err().to_string();
    assert!(text.contains("all its 9 steps"), "{text}");
}

/// `--refresh` may change when a run goes on, in the direction that needs nothing from before.
#[test]
fn a_run_between_refreshes_goes_on_with_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mlp = TrainOptions {
        model: Some("mlp".into()),
        refresh: Some(4),
        accumulate: None,
        ..options(&out)
    };
    go(mlp, Start::New, 2).unwrap();
    let saved = Saved::latest(&out).unwrap();
    assert!(saved.step < 9);
    let every = TrainOptions {
        refresh: Some(1),
        out: Some(out.clone()),
        ..saved.options.clone()
    };
    let summary = go(every, Start::Resume(Box::new(saved)), u64::MAX).unwrap();
    assert_eq!(summary.steps, 9);
}

/// `stop_after` ends a run before the schedule does; resumed it is the run that was never stopped.
#[test]
fn a_run_that_was_stopped_after_some_steps_goes_on_with_its_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, stop_after| TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        block: None,
        accumulate: None,
        schedule: Some(ScheduleName::Cosine),
        keep_best: Some(true),
        eval_every: Some(2),
        stop_after,
        ..options(&dir.path().join(name))
    };
    go(of("whole", None), Start::New, u64::MAX).unwrap();
    let out = dir.path().join("parts");
    let outcome = go(of("parts", Some(5)), Start::New, u64::MAX).unwrap();
    assert_eq!((outcome.steps, outcome.interrupted), (5, false));
    let error = resume(&out).unwrap_err().to_string();
    assert!(
        error.contains("all its 5 steps; a larger `stop_after`"),
        "{error}"
    );
    let first = RunInfo::read(&out).unwrap();
    let saved = Saved::latest(&out).unwrap();
    let options = TrainOptions {
        stop_after: Some(100),
        out: Some(out.clone()),
        ..saved.options.clone()
    };
    go(options, Start::Resume(Box::new(saved)), u64::MAX).unwrap();
    let info = RunInfo::read(&out).unwrap();
    assert_eq!(
        (info.steps, info.sessions, info.started),
        (9, 2, first.started)
    );
    for name in ["model.safetensors", "best.safetensors"] {
        let load = |run: &str| checkpoint::load(&dir.path().join(run).join(name)).unwrap();
        let ((whole, at), (parts, parts_at)) = (load("whole"), load("parts"));
        assert_eq!(at["step"], parts_at["step"], "{name}");
        for (key, tensor) in &whole {
            assert_eq!(tensor.data, parts[key].data, "{name}: {key}");
        }
    }
}
