//! What several test files need: one device, and running a graph once.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by test files, each of which uses a part"
)]

pub mod pictures;
pub mod reference;
pub mod visualiser;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use decorr::Result;
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::graph::Graph;
use decorr::program::{CompileOptions, Program, Store};

/// The adapter that the environment chooses.
pub fn choice() -> AdapterChoice {
    AdapterChoice {
        adapter: std::env::var("DECORR_ADAPTER").ok(),
        backend: std::env::var("DECORR_BACKEND").ok(),
    }
}

/// A device with WebGPU's default limits, the same for all of a test; `DECORR_ADAPTER` and `DECORR_BACKEND` choose another
/// adapter. There are two, since a software adapter works on what is submitted to one device one after the other, and
/// tests run side by side: a test gets the one that fewer use.
pub fn gpu() -> Arc<Gpu> {
    static DEVICES: Mutex<Vec<Arc<Gpu>>> = Mutex::new(Vec::new());
    thread_local! {
        static OF_TEST: OnceCell<Arc<Gpu>> = const { OnceCell::new() };
    }
    let choose = || {
        let mut devices = DEVICES.lock().unwrap();
        let free = devices.iter().min_by_key(|gpu| Arc::strong_count(gpu));
        match free {
            Some(free) if Arc::strong_count(free) == 1 || devices.len() == 2 => Arc::clone(free),
            _ => {
                let gpu = Gpu::open_with_default_limits(&choice());
                let gpu = gpu.unwrap_or_else(|error| panic!("the tests need an adapter: {error}"));
                if devices.is_empty() {
                    report(&format!("adapter: {}", gpu.describe()));
                }
                devices.push(Arc::clone(&gpu));
                gpu
            }
        }
    };
    OF_TEST.with(|gpu| Arc::clone(gpu.get_or_init(choose)))
}

/// Kernels of the adapter's own kind, or those that `DECORR_KERNELS` names, as `--kernels` does: `direct`,
/// `tiled`, `tiled:128x128x8`.
pub fn compile_options() -> CompileOptions {
    let named = std::env::var("DECORR_KERNELS").ok();
    let parsed = named.map(|name| {
        name.parse()
            .unwrap_or_else(|e| panic!("DECORR_KERNELS: {e}"))
    });
    CompileOptions {
        variants: parsed,
        ..CompileOptions::default()
    }
}

/// `sample`, times what `DECORR_FAULTS` says: how many cases a test of faults tries.
pub fn cases(sample: usize) -> usize {
    let times = std::env::var("DECORR_FAULTS").ok();
    sample * times.and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Prints a line that is also seen when the test passes: cargo holds back what `println!` prints.
pub fn report(line: &str) {
    // A test does not fail for a closed terminal.
    let _ = writeln!(std::io::stdout(), "    {line}");
}

/// Where a text differs from that of `file`; with `DECORR_UPDATE_TRANSCRIPTS=1` the file is written anew.
pub fn held_against(file: &Path, new: &str) -> Option<String> {
    let old = std::fs::read_to_string(file).unwrap_or_default();
    if new == old {
        return None;
    }
    if std::env::var_os("DECORR_UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(file, new).unwrap();
        return None;
    }
    let line = |text: &str, i: usize| text.lines().nth(i).unwrap_or("(its end)").to_string();
    let same = old
        .lines()
        .zip(new.lines())
        .take_while(|(a, b)| a == b)
        .count();
    Some(format!(
        "{}:{}\n  was {}\n  is  {}",
        file.display(),
        same + 1,
        line(&old, same),
        line(new, same)
    ))
}

/// Compiles `graph` and runs one step.
pub fn run(graph: &Graph, inputs: &[(&str, &[f32])]) -> Result<BTreeMap<String, Vec<f32>>> {
    run_with(graph, inputs, compile_options())
}

/// As [`run`], compiled by `options`.
pub fn run_with(
    graph: &Graph,
    inputs: &[(&str, &[f32])],
    options: CompileOptions,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut store = Store::new(&gpu(), 1);
    let mut program = Program::compile(graph, &mut store, options)?;
    Ok(program.run(inputs)?.values)
}

/// Sends a process SIGINT, SIGKILL, ..., by their names without SIG.
pub fn signal(name: &str, pid: u32) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success(), "{name} was not sent to {pid}");
}

/// Waits for a minute at most.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(60), "not in a minute: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The largest |a - b| over the largest |b|, and where it is. NaN counts as infinite.
pub fn relative_error(actual: &[f32], expected: &[f32]) -> (f64, usize) {
    assert_eq!(actual.len(), expected.len(), "number of values");
    let largest = expected
        .iter()
        .fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    let mut worst = (0.0, 0);
    for (i, (&a, &b)) in actual.iter().zip(expected).enumerate() {
        let difference = (f64::from(a) - f64::from(b)).abs();
        let error = match (difference.is_nan(), largest > 0.0) {
            (true, _) => f64::INFINITY,
            (false, true) => difference / largest,
            (false, false) => difference,
        };
        if error > worst.0 {
            worst = (error, i);
        }
    }
    worst
}
