//! Kills, refused system calls, signals and two runs at once: what is left is whole, and goes on to the same bits.
//!
//! `cargo test --release --test faults` takes a sample; `DECORR_FAULTS=20` takes twenty times as many cases.
//! Injected errors need `strace`, which a machine may lack: then it is said that they were not run.

#![cfg(unix)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::cases;

/// A run of half a second with twelve checkpoints: a small network, since it is the files that are looked at.
const RUN: &[&str] = &[
    "train",
    "--model",
    "linear",
    "--norm",
    "deconv",
    "--block",
    "16",
    "--batch-size",
    "16",
    "--steps",
    "60",
    "--save-every",
    "5",
    "--log-every",
    "1",
    "--train-images",
    "400",
    "--test-images",
    "50",
];

fn decorr(args: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.args(args).arg("--out").arg(out);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The weights that an undisturbed run ends with, and how long it takes.
fn undisturbed() -> &'static (Vec<u8>, Duration) {
    static WHOLE: OnceLock<(Vec<u8>, Duration)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let begin = Instant::now();
        let output = decorr(RUN, &out).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        (
            fs::read(out.join("model.safetensors")).unwrap(),
            begin.elapsed(),
        )
    })
}

/// Nothing half-written stands under a name that is read.
fn nothing_is_half(out: &Path) {
    let mut files: Vec<PathBuf> = vec![out.join("model.safetensors")];
    files.extend(
        fs::read_dir(out.join("checkpoints"))
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path()),
    );
    for file in files.iter().filter(|file| file.is_file()) {
        let is_temporary = file.file_name().unwrap().to_string_lossy().starts_with('.');
        if !is_temporary {
            let bytes = fs::read(file).unwrap();
            safetensors::SafeTensors::deserialize(&bytes)
                .unwrap_or_else(|e| panic!("{} is half: {e}", file.display()));
        }
    }
}

/// Finishes a run that was disturbed, however often it takes, and holds its weights against the undisturbed ones.
fn finish(out: &Path, what: &str) {
    nothing_is_half(out);
    let has_checkpoint = fs::read_dir(out.join("checkpoints")).is_ok_and(|mut entries| {
        entries.any(|e| {
            e.unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("step-")
        })
    });
    let output = match has_checkpoint {
        true => decorr(&["train", "--resume"], out).output().unwrap(),
        false => decorr(&[RUN, &["--force"]].concat(), out).output().unwrap(),
    };
    let said = text(&output);
    let was_over = said.contains("has all its 60 steps");
    assert!(output.status.success() || was_over, "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    assert!(
        fs::read(out.join("model.safetensors")).unwrap() == undisturbed().0,
        "{what}: other bits"
    );
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let steps = log
        .lines()
        .filter(|line| line.contains("\"train\""))
        .count();
    assert_eq!(steps, 60, "{what}: lines of the log");
    assert!(out.join("curves.png").is_file(), "{what}");
    // Nothing is left over of files that were being written.
    for dir in [out, &out.join("checkpoints")] {
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                !name.to_string_lossy().ends_with(".tmp"),
                "{what}: {name:?} is left"
            );
        }
    }
}

fn silent(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bits() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let whole = undisturbed().1;
    let runs = cases(4);
    let mut kills = 0;
    for run in 0..runs {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        for again in 0..3 {
            let resumes = again > 0 && out.join("checkpoints").is_dir();
            let mut command = match resumes {
                true => decorr(&["train", "--resume"], &out),
                false => decorr(&[RUN, &["--force"]].concat(), &out),
            };
            let mut child = silent(&mut command);
            std::thread::sleep(whole.mul_f64(0.2 + 0.8 * rng.random::<f64>()));
            kills += usize::from(child.kill().is_ok());
            child.wait().unwrap();
            nothing_is_half(&out);
        }
        finish(&out, &format!("run {run}"));
    }
    support::report(&format!(
        "{kills} kills in {runs} runs, all of them ended with the same bits"
    ));
}

#[test]
fn files_that_cannot_be_written_are_errors_and_lose_nothing() {
    inject(&[
        ("fsync", "error=EIO"),
        ("fdatasync", "error=EIO"),
        ("write", "error=ENOSPC"),
    ]);
}

#[test]
fn folders_that_cannot_be_changed_are_errors_and_lose_nothing() {
    inject(&[
        ("rename", "error=ENOSPC"),
        ("mkdir", "error=EACCES"),
        ("unlink", "error=EIO"),
    ]);
}

#[test]
fn kills_at_system_calls_lose_nothing() {
    inject(&[
        ("fsync", "signal=SIGKILL"),
        ("rename", "signal=SIGKILL"),
        ("write", "signal=SIGKILL"),
    ]);
}

/// What a power cut leaves depends on the order of these calls. The bytes of a file are on the disk before the file gets its name.
/// The name is on the disk before the run goes on. The lines of the log are on the disk before the checkpoint of their step.
#[test]
fn bytes_are_on_the_disk_before_names() {
    if !has_strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (out, log) = (dir.path().join("out"), dir.path().join("calls"));
    let program = decorr(RUN, &out);
    let output = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-y", "-s", "4096", "-e"])
        .args(["trace=fsync,fdatasync,rename,renameat,renameat2", "-o"])
        .arg(&log)
        .arg(program.get_program())
        .args(program.get_args())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let calls = fs::read_to_string(&log).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    let is_sync = |call: &str, path: &Path| {
        let call = call.split_once("sync(").map_or("", |(_, of)| of);
        call.contains(&format!("<{}>)", path.display())) && call.ends_with("= 0")
    };
    let (mut names, mut checkpoints, mut last) = (0, 0, 0);
    for (i, call) in calls.iter().enumerate() {
        let quoted: Vec<&str> = call.split('"').collect();
        let (true, [_, from, _, to, ..]) = (call.contains("rename"), &quoted[..]) else {
            continue;
        };
        let [from, to] = [from, to].map(Path::new);
        if !to.starts_with(&out) {
            continue;
        }
        let before = calls[i - 1];
        assert!(is_sync(before, from), "{before}\n{call}");
        let after = calls[i + 1];
        assert!(is_sync(after, to.parent().unwrap()), "{call}\n{after}");
        names += 1;
        if to.starts_with(out.join("checkpoints")) {
            let since = &calls[last..i];
            let log = out.join("metrics.jsonl");
            assert!(since.iter().any(|call| is_sync(call, &log)), "{since:?}");
            last = i;
            checkpoints += 1;
        }
    }
    // One for every five of 60 steps; and of the files of a run.
    assert!(checkpoints == 12 && names >= 16, "{checkpoints} of {names}");
    support::report(&format!(
        "{names} files were on the disk before they had their names"
    ));
}

/// Whether strace is there and may look into other processes.
fn has_strace() -> bool {
    let strace = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-o", "/dev/null", "true"])
        .output();
    let is_there = strace.is_ok_and(|output| output.status.success());
    if !is_there {
        support::report("NOT RUN: strace is not there, or not allowed");
    }
    is_there
}

/// Runs with each of `faults`, a system call and what strace makes of it.
fn inject(faults: &[(&str, &str)]) {
    if !has_strace() {
        return;
    }
    let (mut tried, mut failed) = (0, 0);
    for &(call, fault) in faults {
        for i in 0..cases(1) {
            // Writes are many: those of the driver come first.
            let when = if call == "write" { 40 + 13 * i } else { 1 + i };
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            let what = format!("{call} number {when}: {fault}");
            let program = decorr(RUN, &out);
            let mut command = Command::new("strace");
            // With seccomp the program stops at these calls only.
            command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e"]);
            command.arg(format!("trace={call}")).arg("-e");
            command.arg(format!("inject={call}:{fault}:when={when}"));
            command.arg(program.get_program()).args(program.get_args());
            let output = command.output().unwrap();
            let said = text(&output);
            assert!(!said.contains("panicked"), "{what}: {said}");
            tried += 1;
            failed += usize::from(!output.status.success());
            if !output.status.success() && fault.starts_with("error") {
                let reasons = [
                    "os error",
                    "No space",
                    "Input/output",
                    "Permission",
                    "closed",
                ];
                assert!(reasons.iter().any(|r| said.contains(r)), "{what}: {said}");
                let is_saved =
                    fs::read_dir(out.join("checkpoints")).is_ok_and(|mut e| e.next().is_some());
                assert!(
                    !is_saved || said.contains("goes on from there"),
                    "{what}: {said}"
                );
            }
            finish(&out, &what);
        }
    }
    support::report(&format!(
        "{tried} injected faults, {failed} ended the run; all went on to the same bits"
    ));
}

#[test]
fn sigterm_and_sighup_save_as_ctrl_c_does() {
    for signal in ["TERM", "HUP", "INT"] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let long: Vec<&str> = RUN
            .iter()
            .map(|&a| if a == "60" { "100000" } else { a })
            .collect();
        let long: Vec<&str> = long
            .into_iter()
            .map(|a| if a == "5" { "100000" } else { a })
            .collect();
        let mut command = decorr(&long, &out);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = out.join("metrics.jsonl");
        support::wait_until("some steps are logged", || {
            fs::metadata(&log).is_ok_and(|m| m.len() >= 2000)
        });
        support::signal(signal, child.id());
        let output = child.wait_with_output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "SIG{signal}: {said}");
        assert!(said.contains("all is saved"), "SIG{signal}: {said}");
        nothing_is_half(&out);
        assert!(
            fs::read_dir(out.join("checkpoints")).unwrap().count() > 0,
            "SIG{signal}"
        );
    }
}

#[test]
fn of_two_runs_into_one_folder_the_second_is_refused() {
    for _ in 0..cases(1) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let start = || {
            let mut command = decorr(RUN, &out);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let good = both.iter().filter(|output| output.status.success()).count();
        let said = both.each_ref().map(text);
        assert_eq!(good, 1, "{said:?}");
        let refused = ["another run is writing", "holds an earlier run"];
        assert!(
            said.iter().any(|s| refused.iter().any(|r| s.contains(r))),
            "{said:?}"
        );
        let again = decorr(&["train", "--resume"], &out).output().unwrap();
        assert!(
            text(&again).contains("has all its 60 steps"),
            "{}",
            text(&again)
        );
        assert!(fs::read(out.join("model.safetensors")).unwrap() == undisturbed().0);
    }
}

/// `2>&1 | head`, and a terminal that is gone.
#[test]
fn a_closed_standard_error_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let program = env!("CARGO_BIN_EXE_decorr");
    let script = format!(
        "'{program}' {} --out '{}' 2>&1 >/dev/null | head -n 1",
        RUN.join(" "),
        out.display()
    );
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(fs::read(out.join("model.safetensors")).unwrap() == undisturbed().0);
}

/// `| head`: the reader has had enough.
#[test]
fn a_closed_standard_output_ends_without_complaint() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_decorr"))
        .args(["models"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output)),
        (Some(0), String::new())
    );
}

/// A disk of a few kilobytes, which only root can make.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let mut full = 0;
    for i in 0..cases(2) {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let size = format!("size={}k", 200 + 150 * i);
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&disk)
            .output();
        if !mount.is_ok_and(|output| output.status.success()) {
            support::report("NOT RUN: no small disk can be mounted here");
            return;
        }
        let out = disk.join("out");
        let output = decorr(RUN, &out).output().unwrap();
        let said = text(&output);
        let is_full = !output.status.success();
        full += usize::from(is_full);
        // To a disk with room.
        let moved = dir.path().join("moved");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&disk)
            .arg(&moved)
            .status()
            .unwrap();
        assert!(
            Command::new("umount")
                .arg(&disk)
                .status()
                .unwrap()
                .success()
                && copied.success()
        );
        assert!(!said.contains("panicked"), "{size}: {said}");
        assert!(!is_full || said.contains("No space left"), "{size}: {said}");
        finish(&moved.join("out"), &size);
    }
    support::report(&format!(
        "{full} disks ran full; all runs went on to the same bits"
    ));
}
