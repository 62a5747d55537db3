//! A run that was interrupted goes on to the same bits; a step in parts is the step as a whole.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use decorr::Result;
use decorr::train::{
    Event, NormName, OptimizerName, Saved, ScheduleName, Split, Start, Summary, TrainConfig,
    TrainOptions, read_metrics, train,
};

/// A small network with everything that has a memory: momenta, running statistics, a first layer
/// that freezes, a schedule.
fn options(out: &Path) -> TrainOptions {
    TrainOptions {
        model: Some("cnn".into()),
        norm: Some(NormName::Deconv),
        block: Some(8),
        batch_size: Some(16),
        accumulate: Some(2),
        schedule: Some(ScheduleName::Cosine),
        freeze_iter: Some(2),
        lr: Some(0.02),
        steps: Some(9),
        save_every: Some(3),
        log_every: Some(1),
        out: Some(out.to_path_buf()),
        ..TrainOptions::default()
    }
}

fn go(options: TrainOptions, start: Start, stop_after: u64) -> Result<Summary> {
    let config = TrainConfig::resolve(options)?;
    let stop = AtomicBool::new(false);
    train(&support::gpu(), &config, start, &stop, |event| {
        if matches!(event, Event::Step(p) if p.step >= stop_after) {
            stop.store(true, Ordering::Relaxed);
        }
    })
}

fn resume(out: &Path) -> Result<Summary> {
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
        assert_eq!(losses(&cut), losses(&whole));
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
        losses(&out)
    };
    let (whole, parts) = (run("1", NormName::None, 1), run("3", NormName::None, 3));
    let mut worst: f64 = 0.0;
    for ((_, a), (_, b)) in whole.iter().zip(&parts) {
        worst = worst.max((a - b).abs() / a);
    }
    support::report(&format!(
        "accumulation: largest difference of a loss {worst:.1e}"
    ));
    assert!(worst < 1e-5, "{whole:?} {parts:?}");
    let (whole, parts) = (run("b1", NormName::Batch, 1), run("b3", NormName::Batch, 3));
    assert!(
        (whole[0].1 - parts[0].1).abs() > 1e-4,
        "statistics are of a part"
    );
}
