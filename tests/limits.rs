//! Sizes that the device cannot hold, and shapes that do not fit, are errors with names.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use decorr::Error;
use decorr::gpu::Gpu;
use decorr::graph::{Graph, Init};
use decorr::nn::{BatchNorm, Layer, Mode};
use decorr::passes::Passes;
use decorr::program::{CompileOptions, Memory, Program, Store};
use decorr::train::{Event, Norm, Start, TrainConfig, TrainOptions, train, training_step};

fn compile(g: &Graph) -> Result<Program, Error> {
    Program::compile(
        g,
        &mut Store::new(&support::gpu(), 1),
        CompileOptions::default(),
    )
}

/// Numbers of a line, in their order.
fn numbers(line: &str) -> Vec<f64> {
    let words = line.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.parse().ok()).collect()
}

/// In a chain each dispatch but the first reads what the one before it wrote.
#[test]
fn all_but_the_first_dispatch_of_a_chain_wait() {
    let g = Graph::new();
    let x = g.input("x", [8, 4]);
    let y = (0..4).fold(x, |x, _| {
        x.permute(&[1, 0])
            .square()
            .permute(&[1, 0])
            .exp()
            .sum_to([8, 1])
            + x
    });
    g.output("y", y);
    let program = compile(&g).unwrap();
    assert!(program.dispatch_count() > 4);
    assert_eq!(program.barrier_count(), program.dispatch_count() - 1);
}

#[test]
fn what_a_program_says_of_itself_is_what_it_has() {
    let g = Graph::new();
    let x = g.input("x", [1 << 18]);
    // Two of these are alive at a time: memory is used again.
    let y = (0..4).fold(x, |x, i| {
        let sums = x.reshape([1 << 9, 1 << 9]).permute(&[1, 0]);
        sums.named(&format!("turned{i}")).reshape([1 << 18])
    });
    let kept = g.parameter("kept", [1 << 17], Init::Constant(0.0));
    kept.assign(kept + y.slice(0, 0, 2, 1 << 17));
    g.output("y", y.square().sum_to([1]));
    let program = compile(&g).unwrap();
    let text = program.describe();
    let lines: Vec<&str> = text.lines().collect();
    let [sums, memory] = lines[lines.len() - 2..] else {
        panic!("{text}");
    };
    let cost = program.cost();
    // The columns of operations and of bytes add up to the step's.
    let rows = &lines[1..lines.len() - 2];
    assert_eq!(rows.len(), program.dispatch_count());
    for (from_the_right, wanted) in [(1, cost.flops), (0, cost.bytes)] {
        let column = rows.iter().map(|row| {
            let word = row.split_whitespace().rev().nth(from_the_right);
            word.unwrap().parse::<f64>().unwrap()
        });
        let (sum, wanted) = (column.sum::<f64>(), wanted as f64 / 1e6);
        assert!(
            (sum - wanted).abs() < 1e-3 * rows.len() as f64,
            "{sum}, not {wanted}: {text}"
        );
    }
    let counts = [
        program.dispatch_count() as f64,
        program.pipeline_count() as f64,
        program.barrier_count() as f64,
        cost.flops as f64 / 1e9,
        cost.bytes as f64 / 1e9,
    ];
    // Work is counted once a node, of however many dispatches: about an addition for each number of the sum.
    let sum = {
        let g = Graph::new();
        g.output("sum", g.input("x", [1 << 18]).sum_to([1]));
        compile(&g).unwrap()
    };
    assert!(sum.dispatch_count() > 1);
    let (flops, bytes) = (sum.cost().flops, sum.cost().bytes);
    assert!((1 << 18..(1 << 18) + (1 << 15)).contains(&flops), "{flops}");
    assert!((1 << 20..(1 << 20) + (1 << 17)).contains(&bytes), "{bytes}");
    let of = program.memory();
    assert!(of.live < of.unshared && of.states > 0, "{of:?}");
    let bytes = [
        of.peak(),
        of.arenas,
        of.live,
        of.unshared,
        of.states,
        of.other,
    ];
    let mib = bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    for (line, wanted, digit) in [(sums, &counts[..], 1e-3), (memory, &mib, 1e-2)] {
        let found = numbers(line);
        assert_eq!(found.len(), wanted.len(), "{line}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(
                (found - wanted).abs() <= 0.51 * digit,
                "{found}, not {wanted}: {line}"
            );
        }
    }
    assert_eq!(lines.len(), program.dispatch_count() + 3, "{text}");
    // The parameters of kernels, at least a vector each, are known once they are compiled.
    let planned = Program::plan(&g, program.gpu(), CompileOptions::default()).unwrap();
    let parameters = of.other - planned.other;
    let least = 16 * program.dispatch_count() as u64;
    assert!((least..1 << 16).contains(&parameters), "{parameters}");
    assert_eq!(
        Memory {
            other: of.other,
            ..planned
        },
        of
    );
}

/// What passes put together does the work of all its parts.
#[test]
fn joined_kernels_count_the_work_of_all() {
    let cost = |g: &Graph, passes: Passes| {
        let options = CompileOptions {
            passes,
            ..CompileOptions::default()
        };
        let program = Program::compile(g, &mut Store::new(&support::gpu(), 1), options).unwrap();
        (program.dispatch_count(), program.cost(), program.describe())
    };
    // A difference and a sum of the same numbers.
    let g = Graph::new();
    let (a, b) = (g.input("a", [640]), g.input("b", [640]));
    g.output("sum", a + b);
    g.output("difference", a - b);
    let (joined, of_pair, _) = cost(&g, Passes::ALL);
    assert_eq!(joined, 1);
    assert_eq!((of_pair.flops, of_pair.bytes), (2 * 640, 4 * 640 * 4));
    // Three states, each read and written.
    let g = Graph::new();
    for name in ["u", "v", "w"] {
        let state = g.parameter(name, [64], Init::Constant(1.0));
        state.assign(state * 0.5);
    }
    let (joined, of_updates, text) = cost(&g, Passes::ALL);
    assert_eq!(joined, 1, "{text}");
    assert_eq!((of_updates.flops, of_updates.bytes), (3 * 64, 2 * 3 * 256));
    assert!(
        text.contains(" and 2 more (") && text.contains("[192]"),
        "{text}"
    );
}

/// Programs find their inputs, outputs and states by name.
#[test]
fn a_name_is_of_one_tensor() {
    for (twice, wanted) in [
        ("input", "two inputs are called x"),
        ("output", "two outputs are called y"),
    ] {
        let g = Graph::new();
        let x = g.input("x", [3]);
        let other = g.input(if twice == "input" { "x" } else { "z" }, [3]);
        g.output("y", x + other);
        if twice == "output" {
            g.output("y", x);
        }
        let text = compile(&g).unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    }
    let mut store = Store::new(&support::gpu(), 1);
    let mut with = |len: usize| {
        let g = Graph::new();
        let w = g.parameter("w", [len], Init::Constant(0.0));
        g.output("y", w.relu());
        Program::compile(&g, &mut store, CompileOptions::default())
    };
    with(2).unwrap();
    let text = with(3).unwrap_err().to_string();
    assert!(
        text.contains("w is [2] in the store, [3] in the graph"),
        "{text}"
    );
    for values in [&[1.0][..], &[1.0; 3]] {
        let text = store.write("w", values).unwrap_err().to_string();
        let wanted = format!("{} values for w [2]", values.len());
        assert!(text.contains(&wanted), "{text}");
    }
}

#[test]
fn a_tensor_beyond_the_binding_limit_is_named() {
    let g = Graph::new();
    let x = g.input("images", [1 << 13]);
    let huge = x.reshape([1, 1 << 13]) * x.reshape([1 << 13, 1]);
    g.output("total", huge.named("everything").sum_to([1]));
    let options = CompileOptions {
        passes: Passes::NONE,
        ..CompileOptions::default()
    };
    let error = Program::compile(&g, &mut Store::new(&support::gpu(), 1), options).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Limit(_)), "{text}");
    assert!(
        text.contains("everything") && text.contains("batch"),
        "{text}"
    );
}

/// The advice is exact: that many images have room, one more has not.
#[test]
fn a_batch_that_does_not_fit_names_the_largest_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let go = |batch_size| {
        let config = TrainConfig::resolve(TrainOptions {
            norm: Some(Norm::None),
            batch_size: Some(batch_size),
            steps: Some(1),
            out: Some(dir.path().join(batch_size.to_string())),
            ..TrainOptions::default()
        });
        let stop = AtomicBool::new(true);
        train(&support::gpu(), &config.unwrap(), Start::New, &stop, |_| {})
    };
    let error = go(2400).unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error}");
    let text = error.to_string();
    let largest = text.split("At most ").nth(1).unwrap();
    let largest: usize = largest.split(' ').next().unwrap().parse().unwrap();
    assert!(text.contains("`accumulate` 2 for"), "{text}");
    support::report(&format!("largest batch of the cnn: {largest}"));
    let fits = |images| {
        let config = TrainConfig::resolve(TrainOptions {
            norm: Some(Norm::None),
            batch_size: Some(images),
            ..TrainOptions::default()
        })
        .unwrap();
        let (loss, optimizer) = (config.loss, config.optimizer);
        let shape = [images, 1, 28, 28];
        let graph = training_step(&config.model(10), loss, &optimizer, shape, Mode::Train).unwrap();
        Program::plan(&graph, &support::gpu(), CompileOptions::default()).is_ok()
    };
    assert!(fits(largest) && !fits(largest + 1));
}

#[test]
fn planned_memory_is_what_the_adapter_reports() {
    // A device of its own: other tests allocate on theirs.
    let gpu = Gpu::open(&support::choice()).unwrap();
    let config = TrainConfig::resolve(TrainOptions {
        norm: Some(Norm::Deconv),
        block: Some(16),
        batch_size: Some(64),
        ..TrainOptions::default()
    })
    .unwrap();
    let shape = [64, 1, 28, 28];
    let (loss, optimizer) = (config.loss, config.optimizer);
    let graph = training_step(&config.model(10), loss, &optimizer, shape, Mode::Train).unwrap();
    let planned = Program::plan(&graph, &gpu, CompileOptions::default()).unwrap();
    let before = gpu.allocated_bytes().unwrap();
    let mut store = Store::new(&gpu, 1);
    let program = Program::compile(&graph, &mut store, CompileOptions::default()).unwrap();
    let (planned, compiled) = (planned.peak() as f64, program.memory().peak() as f64);
    assert!(
        (compiled / planned - 1.0).abs() < 0.01,
        "{compiled} {planned}"
    );
    let used = match (before, gpu.allocated_bytes().unwrap()) {
        (Some(before), Some(after)) => (after - before) as f64,
        _ => gpu.counters().buffer_bytes as f64,
    };
    support::report(&format!("planned {planned}, reported {used} bytes"));
    assert!((used / planned - 1.0).abs() < 0.1, "{used} of {planned}");
}

/// Small states lie in buffers together, and each buffer is counted once: of what a store says that it takes, what is no
/// arena is its states and little more.
#[test]
fn a_store_counts_each_of_its_buffers_once() {
    let config = TrainConfig::resolve(TrainOptions {
        norm: Some(Norm::Batch),
        ..TrainOptions::default()
    })
    .unwrap();
    let (loss, optimizer) = (config.loss, config.optimizer);
    let shape = [2, 1, 28, 28];
    let graph = training_step(&config.model(10), loss, &optimizer, shape, Mode::Train).unwrap();
    let mut store = Store::new(&support::gpu(), 1);
    let program = Program::compile(&graph, &mut store, CompileOptions::default()).unwrap();
    let said = store.size_bytes() - program.memory().arenas;
    let states: u64 = store.states().map(|(_, shape, _)| shape.size_bytes()).sum();
    // Each begins at a multiple of what the device asks for.
    let most = states + 256 * store.states().count() as u64;
    assert!((states..=most).contains(&said), "{said} of {states}");
}

/// What `decorr train` prints before the first step. Nothing is run: the memory is only taken.
#[test]
fn memory_of_vgg11_and_resnet50_at_batch_128_is_what_the_adapter_reports() {
    for (model, norm) in [("vgg11", Norm::Deconv), ("resnet50", Norm::Batch)] {
        let dir = tempfile::tempdir().unwrap();
        cifar10(dir.path());
        let config = TrainConfig::resolve(TrainOptions {
            data: Some("cifar10".into()),
            data_dir: Some(dir.path().into()),
            model: Some(model.into()),
            norm: Some(norm),
            batch_size: Some(128),
            out: Some(dir.path().join("out")),
            ..TrainOptions::default()
        })
        .unwrap();
        let gpu = Gpu::open(&support::choice()).unwrap();
        let stop = AtomicBool::new(false);
        let mut memory = None;
        let result = train(&gpu, &config, Start::New, &stop, |event| {
            if let Event::Memory(planned, used) = event {
                memory = Some((planned, used));
                stop.store(true, Ordering::Relaxed);
            }
        });
        assert_eq!(result.unwrap().steps, 0);
        let (planned, used) = memory.unwrap();
        let used = used.unwrap_or(gpu.counters().buffer_bytes as u64);
        support::report(&format!(
            "{model}: planned {planned}, reported {used} bytes"
        ));
        assert!((used as f64 / planned as f64 - 1.0).abs() < 0.1);
    }
}

/// A batch of black images, and two to test on.
fn cifar10(dir: &Path) {
    for (file, images) in [("data_batch_1.bin", 128), ("test_batch.bin", 2)] {
        std::fs::write(dir.join(file), vec![0; 3073 * images]).unwrap();
    }
}

#[test]
fn a_state_beyond_the_buffer_limit_is_named() {
    let g = Graph::new();
    let weight = g.parameter("weight", [1 << 15, 1 << 14], Init::Constant(0.0));
    g.output("total", weight.sum_to([1]));
    let error = compile(&g).unwrap_err();
    assert!(matches!(error, Error::Limit(_)), "{error}");
    assert!(error.to_string().contains("weight"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_name_tensors_and_both_shapes() {
    let g = Graph::new();
    let x = g.input("x", [4, 8]);
    let w = g.input("w", [9, 5]);
    g.scope("fc", || x.matmul(w));
    let text = g.check().unwrap_err().to_string();
    for part in ["matmul", "fc", "x [4, 8]", "w [9, 5]"] {
        assert!(text.contains(part), "no {part} in: {text}");
    }
    let g = Graph::new();
    BatchNorm::new(3).forward(g.input("x", [4, 8]), Mode::Train);
    assert!(g.check().is_err());
}

#[test]
fn inputs_of_a_step_are_checked() {
    let g = Graph::new();
    let x = g.input("x", [3]);
    g.output("y", x.relu());
    let mut program = compile(&g).unwrap();
    let text = |inputs: &[(&str, &[f32])], program: &mut Program| {
        program.step(inputs).unwrap_err().to_string()
    };
    assert!(text(&[("x", &[1.0])], &mut program).contains("3 values, not 1"));
    assert!(text(&[], &mut program).contains("x is missing"));
    let twice = [("x", &[1.0; 3][..]), ("x", &[2.0; 3])];
    assert!(text(&twice, &mut program).contains("x is given twice"));
    assert!(text(&[("z", &[1.0; 3])], &mut program).contains("no input is called z"));
    assert_eq!(
        program.run(&[("x", &[-1.0, 0.0, 2.0])]).unwrap().values["y"],
        [0.0, 0.0, 2.0]
    );
}

#[test]
fn kernels_can_be_timed_where_the_adapter_has_timestamps() {
    let g = Graph::new();
    let a = g.parameter("a", [64, 64], Init::Uniform(1.0));
    g.output("c", a.matmul(a));
    let mut program = compile(&g).unwrap();
    if !program.gpu().has_timestamps() {
        assert!(matches!(program.profile(&[]), Err(Error::Adapter(_))));
        support::report("the adapter has no timestamps: only the refusal was tested");
        return;
    }
    let times = program.profile(&[]).unwrap();
    assert_eq!(times.len(), program.dispatch_count());
    assert!(times.iter().all(|t| t.seconds >= 0.0) && times[0].flops == 2 * 64 * 64 * 64);
}
