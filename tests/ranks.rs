//! One training of several processes: `mpirun` of the program, on the software adapter.
//!
//! `DECORR_FEATURES=mpi scripts/test --test ranks` runs it. The numbers of ranks are tested without MPI too, in tests/exchange.rs.

#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use decorr::train::{Record, Split, checkpoint, read_metrics};

/// Eight steps of a small network, with an evaluation in the middle.
const RUN: &[&str] = &[
    "train",
    "--model",
    "cnn",
    "--width",
    "0.25",
    "--norm",
    "deconv",
    "--block",
    "16",
    "--batch-size",
    "16",
    "--steps",
    "8",
    "--save-every",
    "4",
    "--log-every",
    "1",
    "--train-images",
    "64",
    "--test-images",
    "20",
    "--lr",
    "0.05",
];

/// With these, ranks are one process to rounding. Slowly, so that rounding does not grow.
const SYNC: &[&str] = &[
    "--sampling-stride",
    "1",
    "--eps",
    "0.01",
    "--lr",
    "0.005",
    "--sync-stats",
];

/// `decorr RUN args --out out`, or so many of them by mpirun.
fn decorr(ranks: usize, args: &[&str], out: &Path) -> Command {
    let mut command = match ranks {
        0 => Command::new(env!("CARGO_BIN_EXE_decorr")),
        _ => mpirun(ranks, &[]),
    };
    command.args(run(args)).arg("--out").arg(out);
    command
}

/// The options of the run with `args` in their place.
fn run<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let (train, options) = RUN.split_at(1);
    let others = options
        .chunks(2)
        .filter(|option| !args.contains(&option[0]));
    let others = others.flatten().copied();
    train
        .iter()
        .copied()
        .chain(others)
        .chain(args.iter().copied())
        .collect()
}

/// mpirun of the program, which more arguments follow.
fn mpirun(ranks: usize, before: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    let ranks = ranks.to_string();
    command
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .args(["--oversubscribe", "--bind-to", "none"])
        .args(before)
        .args(["-n", &ranks, env!("CARGO_BIN_EXE_decorr")]);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeed(command: &mut Command) -> String {
    let output = command
        .output()
        .expect("mpirun of Open MPI: scripts/setup --mpi");
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn fails(command: &mut Command) -> String {
    let output = command
        .output()
        .expect("mpirun of Open MPI: scripts/setup --mpi");
    assert!(!output.status.success(), "{}", text(&output));
    text(&output)
}

/// A folder in which each run is done once.
struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, name: &str, ranks: usize, args: &[&str]) -> Left {
        let out = self.0.path().join(name);
        succeed(&mut decorr(ranks, args, &out));
        left(&out)
    }
}

struct Left {
    losses: Vec<f64>,
    test: f64,
    weights: BTreeMap<String, Vec<f32>>,
    file: Vec<u8>,
}

fn left(out: &Path) -> Left {
    let records = read_metrics(&out.join("metrics.jsonl")).unwrap();
    let of = |split| records.iter().filter(move |r| r.split == split);
    let loss = |r: &Record| r.loss.unwrap();
    let model = out.join("model.safetensors");
    let tensors = checkpoint::load(&model).unwrap().0.into_iter();
    let is_running = |name: &str| name.contains("running");
    Left {
        losses: of(Split::Train).map(loss).collect(),
        test: of(Split::Test).map(loss).next_back().unwrap(),
        weights: tensors
            .filter(|(name, _)| !is_running(name))
            .map(|(name, tensor)| (name, tensor.data))
            .collect(),
        file: fs::read(model).unwrap(),
    }
}

/// Largest differences of losses and of weights.
fn difference(a: &Left, b: &Left) -> [f64; 2] {
    assert_eq!(a.losses.len(), b.losses.len());
    assert!(a.weights.keys().eq(b.weights.keys()));
    let losses = a.losses.iter().zip(&b.losses).map(|(x, y)| (x - y).abs());
    let weights = a.weights.iter().flat_map(|(name, values)| {
        let pairs = values.iter().zip(&b.weights[name]);
        pairs.map(|(x, y)| f64::from((x - y).abs()))
    });
    [losses.fold(0.0, f64::max), weights.fold(0.0, f64::max)]
}

/// Exact: the parts are those of `--accumulate`, in their order.
#[test]
fn ranks_are_accumulation_and_the_same_bits_each_time() {
    let runs = Runs::new();
    for size in [2, 4] {
        let parts = size.to_string();
        let one = runs.run(&format!("one {size}"), 0, &["--accumulate", &parts]);
        let ranks = runs.run(&format!("ranks {size}"), size, &[]);
        let found = difference(&one, &ranks);
        support::report(&format!("-n {size} and --accumulate {size}: {found:?}"));
        assert!(found[0] < 1e-5 && found[1] < 1e-5, "{found:?}");
        let again = runs.run(&format!("again {size}"), size, &[]);
        assert!(ranks.file == again.file, "-n {size} twice");
    }
    let both = runs.run("both", 2, &["--accumulate", "2"]);
    let found = difference(&both, &left(&runs.0.path().join("one 4")));
    assert!(found[0] < 1e-5 && found[1] < 1e-5, "{found:?}");
}

#[test]
fn ranks_with_statistics_of_all_are_one_process() {
    let runs = Runs::new();
    for norm in ["deconv", "batch"] {
        let args = [&["--norm", norm][..], SYNC].concat();
        let one = runs.run(&format!("one {norm}"), 0, &args);
        let ranks = runs.run(&format!("two {norm}"), 2, &args);
        let found = difference(&one, &ranks);
        support::report(&format!(
            "{norm}, -n 2 --sync-stats and one process: {found:?}"
        ));
        assert!(found[0] < 1e-4 && found[1] < 1e-4, "{found:?}");
        assert!((one.test - ranks.test).abs() < 1e-3 * one.test);
    }
}

/// The images are in the same order; results are those of a run that was not interrupted.
#[test]
fn a_run_goes_on_with_other_ranks() {
    let runs = Runs::new();
    let whole = runs.run("whole", 2, SYNC);
    let out = runs.0.path().join("parts");
    for (ranks, more) in [
        (4, ["--stop-after", "4"]),
        (2, ["--stop-after", "6"]),
        (0, ["--stop-after", "8"]),
    ] {
        let mut command = match ranks {
            4 => decorr(4, &[SYNC, &more].concat(), &out),
            0 => Command::new(env!("CARGO_BIN_EXE_decorr")),
            _ => mpirun(ranks, &[]),
        };
        if ranks != 4 {
            command
                .args(["train", "--resume"])
                .args(more)
                .arg("--out")
                .arg(&out);
        }
        succeed(&mut command);
    }
    let found = difference(&whole, &left(&out));
    support::report(&format!(
        "4 steps of 4 ranks, 2 of 2, 2 of one process: {found:?}"
    ));
    assert!(found[0] < 1e-4 && found[1] < 1e-4, "{found:?}");
}

/// The processes that this one started.
fn children(of: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, in brackets: state, parent.
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1));
        if parent == Some(&of.to_string()) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

/// Waits for the first evaluation of a long run of two, and gives it with its processes.
fn under_way(out: &Path, args: &[&str]) -> (Child, Vec<u32>) {
    let long = [
        "--steps",
        "100000",
        "--epochs",
        "10000",
        "--save-every",
        "4",
    ];
    let mut command = decorr(2, &[&long, args].concat(), out);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while !out.join("model.safetensors").is_file() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ranks = children(child.id());
    assert_eq!(ranks.len(), 2, "{ranks:?}");
    (child, ranks)
}

/// How it ended, within so many seconds.
fn ended(mut child: Child, seconds: u64) -> String {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(seconds) {
            child.kill().unwrap();
            panic!(
                "it goes on after {seconds} s: {}",
                text(&child.wait_with_output().unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    text(&output)
}

#[test]
fn a_killed_rank_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (child, ranks) = under_way(&out, &[]);
    support::signal("KILL", ranks[1]);
    let said = ended(child, 30);
    // mpirun's words.
    assert!(said.contains("rank 1") && said.contains("Killed"), "{said}");
    // mpirun does not wait for them.
    let begin = Instant::now();
    while ranks
        .iter()
        .any(|pid| Path::new(&format!("/proc/{pid}")).exists())
    {
        assert!(begin.elapsed() < Duration::from_secs(30), "a rank goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    // What was saved is whole.
    succeed(
        mpirun(2, &[])
            .args(["train", "--resume", "--steps", "40", "--stop-after", "40"])
            .arg("--out")
            .arg(&out),
    );
}

#[test]
fn a_rank_that_does_not_answer_ends_the_run_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (child, ranks) = under_way(&dir.path().join("out"), &["--rank-timeout", "2"]);
    support::signal("STOP", ranks[1]);
    let said = ended(child, 60);
    assert!(
        said.contains("does not answer") && said.contains("--rank-timeout"),
        "{said}"
    );
}

/// By options, by images, by a batch that cannot be divided.
#[test]
fn ranks_that_do_not_fit_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let two = |first: &[&str], second: &[&str]| {
        let mut command = mpirun(1, &[]);
        command.args(run(first)).arg("--out").arg(&out);
        command.args([":", "-n", "1", env!("CARGO_BIN_EXE_decorr")]);
        command.args(run(second)).arg("--out").arg(&out);
        fails(&mut command)
    };
    let said = two(&["--lr", "0.5"], &["--lr", "0.25"]);
    assert!(
        said.contains("--lr of rank 0 is 0.5, of rank 1 0.25"),
        "{said}"
    );
    assert!(!out.exists());

    let folders = [0_u8, 1].map(|first| {
        let folder = dir.path().join(format!("data {first}"));
        fs::create_dir(&folder).unwrap();
        let mut records = vec![7_u8; 3074 * 40];
        records
            .chunks_mut(3074)
            .for_each(|r| r[..2].copy_from_slice(&[1, 2]));
        fs::write(folder.join("test.bin"), &records).unwrap();
        records[2] = first;
        fs::write(folder.join("train.bin"), &records).unwrap();
        folder.to_str().unwrap().to_string()
    });
    let of =
        |folder: usize| -> [&str; 4] { ["--data", "cifar100", "--data-dir", &folders[folder]] };
    let few = ["--train-images", "40"];
    let said = two(&[&of(0)[..], &few].concat(), &[&of(1)[..], &few].concat());
    assert!(
        said.contains("the checksum of the data of rank 0 is"),
        "{said}"
    );

    let said = fails(&mut decorr(3, &[], &out));
    assert!(
        said.contains("--batch-size 16") && said.contains("3 processes"),
        "{said}"
    );
    assert!(!out.exists());
}

/// At the same step on all ranks, and said once.
#[test]
fn a_loss_that_is_no_number_stops_all() {
    let runs = Runs::new();
    let out = runs.0.path().join("out");
    let said = fails(&mut decorr(2, &["--lr", "1e30"], &out));
    assert_eq!(said.matches("the loss of step").count(), 1, "{said}");
    let info = fs::read_to_string(out.join("run.json")).unwrap();
    assert!(info.contains("diverged"), "{info}");
}

/// Of the images of each rank, of training and of the test; counted over all.
#[test]
fn images_that_are_left_out_are_told_by_every_rank() {
    let dir = tempfile::tempdir().unwrap();
    for (split, count) in [("train", 9_u8), ("val", 6)] {
        for class in ["cat", "dog"] {
            for i in 0..count {
                let path = dir.path().join(format!("{split}/{class}/{i}.png"));
                support::pictures::save_plain(&path, [20 * i, 50, 100]);
            }
        }
        let broken = dir.path().join(format!("{split}/dog/{}.png", count - 1));
        let bytes = fs::read(&broken).unwrap();
        fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    }
    let mut command = mpirun(2, &[]);
    command.args([
        "train",
        "--data",
        "folder",
        "--image-size",
        "8",
        "--skip-bad",
    ]);
    command.args([
        "--model",
        "linear",
        "--norm",
        "none",
        "--batch-size",
        "18",
        "--epochs",
        "4",
    ]);
    command.arg("--data-dir").arg(dir.path());
    command.arg("--out").arg(dir.path().join("out"));
    let said = succeed(&mut command);
    let lines = |begin: &str| said.lines().filter(|line| line.starts_with(begin)).count();
    let (first, second) = (lines("skipped: "), lines("rank 1: skipped: "));
    assert!(first > 0 && second > 0, "{first} and {second}: {said}");
    let all = format!("skipped {} times an image", first + second);
    assert!(said.contains(&all), "{all}: {said}");
    // At each of four evaluations.
    assert_eq!(lines("rank 1: skipped in the test: "), 4, "{said}");
    let records = read_metrics(&dir.path().join("out/metrics.jsonl")).unwrap();
    let test = records.iter().rfind(|r| r.split == Split::Test).unwrap();
    // Eleven images are left.
    let hits = test.top1.unwrap() * 11.0;
    assert!((hits - hits.round()).abs() < 1e-9, "{hits}");
}
