//! Each pass leaves results unchanged, and the memory plan never lets live tensors overlap.

mod support;

use std::collections::BTreeMap;

use decorr::graph::{Graph, Init, Role};
use decorr::models::{Model, Norm};
use decorr::nn::{Loss, Mode};
use decorr::ops;
use decorr::optim::{Adam, Optimizer, Sgd};
use decorr::passes::{Lifetime, Passes, Request, liveness, memory_plan, optimise, storage_roots};
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::training_step;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BATCH: usize = 9;

fn graph(norm: Norm) -> Graph {
    graph_with(norm, &sgd())
}

fn graph_with(norm: Norm, optimizer: &Optimizer) -> Graph {
    let mut model = Model::new("cnn", norm, 10).unwrap();
    model.deconv.block = 8;
    let loss = Loss::CrossEntropy { smoothing: 0.1 };
    training_step(&model, loss, optimizer, [BATCH, 1, 14, 14], Mode::Train).unwrap()
}

fn sgd() -> Optimizer {
    Optimizer::from(Sgd {
        momentum: 0.9,
        weight_decay: 1e-3,
        nesterov: true,
    })
}

type Trained = (Vec<f32>, BTreeMap<String, Vec<f32>>);

/// Losses of three steps and all states after them.
fn run(graph: &Graph, passes: Passes) -> Trained {
    run_in(&mut Store::new(&support::gpu(), 5), graph, passes)
}

fn run_in(store: &mut Store, graph: &Graph, passes: Passes) -> Trained {
    let options = CompileOptions {
        passes,
        ..CompileOptions::default()
    };
    let mut program = Program::compile(graph, store, options).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let images: Vec<f32> = (0..BATCH * 196).map(|_| rng.random()).collect();
    let labels: Vec<f32> = (0..BATCH).map(|i| (i % 10) as f32).collect();
    let inputs = [("images", &*images), ("labels", &*labels), ("lr", &[0.05])];
    let losses = (0..3)
        .map(|_| program.run(&inputs).unwrap().scalar("loss").unwrap())
        .collect();
    let names: Vec<String> = store.states().map(|(name, ..)| name.to_string()).collect();
    let values = names
        .into_iter()
        .map(|name| {
            let values = store.read(&name).unwrap();
            (name, values)
        })
        .collect();
    (losses, values)
}

fn compare(graph: &Graph, with: Passes, without: Passes, tolerance: f64) {
    let (losses, states) = run(graph, with);
    let (other_losses, other_states) = run(graph, without);
    let (error, _) = support::relative_error(&losses, &other_losses);
    assert!(error <= tolerance, "losses {losses:?} and {other_losses:?}");
    for (name, values) in &states {
        let (error, at) = support::relative_error(values, &other_states[name]);
        let (a, b) = (values[at], other_states[name][at]);
        // Momenta of weights before a normalisation are differences that nearly cancel.
        assert!(
            error <= tolerance * 20.0,
            "{name}[{at}]: {a} and {b}, error {error:.1e}"
        );
    }
}

#[test]
fn each_pass_alone_leaves_the_numbers_as_they_are() {
    for norm in [Norm::Batch, Norm::Deconv] {
        let graph = graph(norm);
        let all = Passes::ALL;
        // These only drop, merge and place: the same arithmetic, the same bits.
        compare(
            &graph,
            all,
            Passes {
                dead_code: false,
                ..all
            },
            0.0,
        );
        compare(
            &graph,
            all,
            Passes {
                reuse_memory: false,
                ..all
            },
            0.0,
        );
        compare(
            &graph,
            all,
            Passes {
                in_place: false,
                ..all
            },
            0.0,
        );
        compare(
            &graph,
            all,
            Passes {
                join_updates: false,
                ..all
            },
            0.0,
        );
        compare(
            &graph,
            all,
            Passes {
                join_pairs: false,
                ..all
            },
            0.0,
        );
        compare(
            &graph,
            all,
            Passes {
                epilogue: false,
                ..all
            },
            1e-5,
        );
        // Fusion lets the driver contract a * b + c; common expressions change what is fused.
        compare(
            &graph,
            all,
            Passes {
                common_subexpr: false,
                ..all
            },
            1e-5,
        );
        compare(&graph, all, Passes { fuse: false, ..all }, 1e-5);
        compare(&graph, all, Passes::NONE, 1e-5);
    }
}

/// Products that end with a sum or with `ReLU`: the same numbers, of NaN too.
#[test]
fn what_ends_a_product_is_what_followed_it() {
    let g = Graph::new();
    let image = g.input("image", [3, 2, 7, 5]);
    let weight = g.input("weight", [4, 2, 3, 3]);
    let bias = g.input("bias", [4]);
    let geometry = ops::Conv2dGeometry {
        padding: 1,
        ..ops::Conv2dGeometry::default()
    };
    let y = image.conv2d(weight, Some(bias), geometry).relu();
    g.output("relu of conv2d", y);
    let (a, b) = (g.input("a", [2, 9, 300]), g.input("b", [2, 300, 11]));
    let columns = g.input("columns", [11]);
    let c = g.input("c", [2, 9, 11]);
    let none = ops::Transpose::default();
    let y = a.matmul_with(b, Some(columns), none).relu();
    g.output("relu of matmul", y);
    for (name, reversed) in [("sum", false), ("sum, reversed", true)] {
        let op = ops::MatMul {
            alpha: if reversed { 0.5 } else { -2.0 },
            ..none.into()
        };
        let product = a.matmul_with(b, None, op);
        let y = match reversed {
            false => product + c,
            true => c + product,
        };
        g.output(name, y);
    }
    // Whose result is needed in itself too.
    let both = ops::Transpose { a: true, b: true };
    let product = b.matmul_with(a, None, both);
    g.output("product", product);
    g.output("relu", product.relu());

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let names: Vec<(String, usize)> = g
        .list()
        .nodes()
        .iter()
        .filter(|n| n.inputs.is_empty())
        .map(|n| (n.name.clone(), n.shape.len()))
        .collect();
    let mut values: Vec<Vec<f32>> = names
        .iter()
        .map(|(_, len)| (0..*len).map(|_| rng.random::<f32>() - 0.5).collect())
        .collect();
    values[0][17] = f32::NAN;
    let inputs: Vec<(&str, &[f32])> = names
        .iter()
        .zip(&values)
        .map(|((name, _), v)| (name.as_str(), v.as_slice()))
        .collect();
    let [with, without] = [true, false].map(|epilogue| {
        let options = CompileOptions {
            passes: Passes {
                epilogue,
                // What is left outside products would be joined.
                join_pairs: false,
                ..Passes::ALL
            },
            ..support::compile_options()
        };
        let mut program =
            Program::compile(&g, &mut Store::new(&support::gpu(), 1), options).unwrap();
        (
            program.dispatch_count(),
            program.run(&inputs).unwrap().values,
        )
    });
    assert!(with.0 + 4 <= without.0, "{} and {}", with.0, without.0);
    for (name, expected) in &without.1 {
        let values = &with.1[name];
        assert_eq!(values.len(), expected.len());
        for (a, b) in values.iter().zip(expected) {
            let alike = (a - b).abs() <= 1e-6 * (1.0 + b.abs()) || (a.is_nan() && b.is_nan());
            assert!(alike, "{name}: {a} and {b}");
        }
    }
    let nans = |name: &str| with.1[name].iter().filter(|v| v.is_nan()).count();
    assert!(nans("relu of conv2d") > 0 && nans("relu of matmul") == 0);
}

/// Momenta and weights in one kernel, small ones of many layers in one dispatch.
#[test]
fn two_nodes_over_the_same_tensors_are_one_dispatch() {
    let g = Graph::new();
    let a = g.input("a", [3, 37]);
    let b = g.input("b", [3, 37]);
    let factor = g.input("factor", [1]);
    let both = a * factor + b;
    let other = a - b;
    // It reads the first of the two, so it is in neither's kernel.
    let after = both.square();
    for (name, tensor) in [("both", both), ("other", other), ("after", after)] {
        g.output(name, tensor);
    }
    let values: Vec<f32> = (0..111).map(|i| i as f32 / 7.0 - 5.0).collect();
    let negated: Vec<f32> = values.iter().map(|v| 0.3 - v).collect();
    let inputs: [(&str, &[f32]); 3] = [("a", &values), ("b", &negated), ("factor", &[1.5])];
    let [joined, apart] = joined_and_apart(&g, &inputs);
    assert_eq!(joined.0 + 1, apart.0);
    for (name, expected) in &apart.1 {
        assert_eq!(&joined.1[name], expected, "{name}");
    }
    let expected = 1.5 * values[9] + negated[9];
    assert!((joined.1["both"][9] - expected).abs() < 1e-5);
}

/// Dispatches and outputs with pairs joined, and without.
fn joined_and_apart(
    g: &Graph,
    inputs: &[(&str, &[f32])],
) -> [(usize, BTreeMap<String, Vec<f32>>); 2] {
    [true, false].map(|join_pairs| {
        let passes = Passes {
            join_pairs,
            ..Passes::ALL
        };
        let options = CompileOptions {
            passes,
            ..support::compile_options()
        };
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = Program::compile(g, &mut store, options).unwrap();
        let count = program.dispatch_count();
        (count, program.run(inputs).unwrap().values)
    })
}

/// Each kernel of sums has two results of its own here: of rows, of many short rows, of columns.
#[test]
fn two_sums_over_the_same_tensor_are_one_dispatch() {
    for [outer, mid, inner] in [
        [2, 3, 700],
        [2, 3, 37],
        [2, 130, 12],
        [2, 130, 5],
        [50, 8, 1],
        [50, 7, 1],
    ] {
        let g = Graph::new();
        let x = g.input("x", [outer, mid, inner]);
        g.output("mean", x.mean_to([1, mid, 1]));
        g.output("of_squares", x.square().mean_to([1, mid, 1]));
        let value = |i: usize| (i * 37 % 101) as f32 / 50.0 - 0.7;
        let values: Vec<f32> = (0..outer * mid * inner).map(value).collect();
        let [joined, apart] = joined_and_apart(&g, &[("x", &values)]);
        let shape = [outer, mid, inner];
        assert!(joined.0 < apart.0, "{shape:?}: {} dispatches", joined.0);
        for m in 0..mid {
            let row = values.chunks(inner).skip(m).step_by(mid).flatten();
            let row: Vec<f64> = row.map(|&v| f64::from(v)).collect();
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let of_squares = row.iter().map(|v| v * v).sum::<f64>() / count;
            for (name, wanted) in [("mean", mean), ("of_squares", of_squares)] {
                for (of, found) in [("joined", &joined.1), ("apart", &apart.1)] {
                    let found = f64::from(found[name][m]);
                    assert!(
                        (found - wanted).abs() < 1e-5,
                        "{shape:?}: {name}[{m}] {of} is {found}, not {wanted}"
                    );
                }
            }
        }
    }
}

#[test]
fn joined_updates_are_the_updates() {
    let apart = Passes {
        join_updates: false,
        ..Passes::ALL
    };
    let plain = Optimizer::from(Sgd::default());
    let adam = Optimizer::from(Adam::default());
    let adam_w = Optimizer::from(Adam {
        weight_decay: 0.01,
        decoupled: true,
        ..Adam::default()
    });
    for optimizer in [sgd(), plain, adam, adam_w] {
        let graph = graph_with(Norm::Batch, &optimizer);
        compare(&graph, Passes::ALL, apart, 0.0);
        let count = |passes| {
            let options = CompileOptions {
                passes,
                ..CompileOptions::default()
            };
            let mut store = Store::new(&support::gpu(), 1);
            let program = Program::compile(&graph, &mut store, options);
            program.unwrap().dispatch_count()
        };
        let (joined, apart) = (count(Passes::ALL), count(apart));
        support::report(&format!("{joined} dispatches, {apart} with updates apart"));
        assert!(joined + 10 <= apart);
    }
}

/// Where states are in buffers of their own already, or in lists of another program, they stay there.
#[test]
fn updates_are_joined_only_where_states_lie_side_by_side() {
    let graphs = [sgd(), Optimizer::from(Adam::default())].map(|o| graph_with(Norm::Batch, &o));
    for (first, passes) in [
        (&graphs[1], Passes::ALL),
        (&graphs[0], Passes::NONE),
        (&graphs[0], Passes::ALL),
    ] {
        let mut store = Store::new(&support::gpu(), 5);
        let options = CompileOptions {
            passes,
            ..CompileOptions::default()
        };
        Program::compile(first, &mut store, options).unwrap();
        let (losses, states) = run_in(&mut store, &graphs[0], Passes::ALL);
        let (expected, expected_states) = run(&graphs[0], Passes::ALL);
        assert_eq!(losses, expected);
        for (name, values) in expected_states {
            assert_eq!(states[&name], values, "{name}");
        }
    }
}

/// Two updates that read each other's old value; one that follows another's new value; one whose
/// old value is read later.
#[test]
fn updates_that_read_one_another_keep_their_order() {
    let numbers = |passes| {
        let g = Graph::new();
        let state = |name: &str, value| {
            let init = Init::Constant(value);
            g.state(name, [5], Role::Statistic, init)
        };
        let [a, b, c, d, e] =
            [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("e", 5.0)].map(|(n, v)| state(n, v));
        let double = b * 2.0;
        let triple = a * 3.0;
        let next = c + triple;
        let follows = d + next;
        let late = e * 0.5;
        let sum = e.sum_to([1]);
        for (state, value) in [(a, double), (b, triple), (c, next), (d, follows), (e, late)] {
            state.assign(value);
        }
        g.output("sum", sum);
        let mut store = Store::new(&support::gpu(), 1);
        let options = CompileOptions {
            passes,
            ..CompileOptions::default()
        };
        let mut program = Program::compile(&g, &mut store, options).unwrap();
        let sums = [(); 3].map(|()| program.run(&[]).unwrap().scalar("sum").unwrap());
        (
            sums,
            ["a", "b", "c", "d", "e"].map(|s| store.read(s).unwrap()[4]),
        )
    };
    let (mut a, mut b, mut c, mut d) = (1.0, 2.0, 3.0, 4.0);
    for _ in 0..3 {
        (a, b, c) = (2.0 * b, 3.0 * a, c + 3.0 * a);
        d += c;
    }
    for passes in [Passes::ALL, Passes::NONE] {
        let (sums, states) = numbers(passes);
        assert_eq!(sums, [25.0, 12.5, 6.25]);
        assert_eq!(states, [a, b, c, d, 5.0 / 8.0]);
    }
}

#[test]
fn passes_pay() {
    for norm in [Norm::None, Norm::Batch, Norm::Channel, Norm::Deconv] {
        let graph = graph(norm);
        let mut programs = [Passes::NONE, Passes::ALL].map(|passes| {
            let options = CompileOptions {
                passes,
                ..CompileOptions::default()
            };
            Program::compile(&graph, &mut Store::new(&support::gpu(), 1), options).unwrap()
        });
        let [none, all] = &mut programs;
        support::report(&format!(
            "{norm:?}: {} dispatches, {} without passes; {} bytes of arenas, {} without",
            all.dispatch_count(),
            none.dispatch_count(),
            all.memory().arenas,
            none.memory().arenas
        ));
        assert!(4 * all.dispatch_count() < 3 * none.dispatch_count());
        assert!(2 * all.memory().arenas < none.memory().arenas);
    }
}

/// Plans only: nothing is made on the device.
#[test]
fn arenas_are_hardly_larger_than_what_is_alive_at_one_time() {
    let gpu = support::gpu();
    let mut worst = (0.0, String::new());
    for network in ["mlp", "cnn", "vgg11", "resnet18"] {
        for norm in [Norm::None, Norm::Batch, Norm::Channel, Norm::Deconv] {
            let model = Model::new(network, norm, 10).unwrap();
            let [c, h, w] = match network {
                "mlp" | "cnn" => [1, 28, 28],
                _ => [3, 32, 32],
            };
            for batch in [1, 16, 37, 128] {
                let (loss, sgd) = (Loss::CrossEntropy { smoothing: 0.0 }, sgd());
                let shape = [batch, c, h, w];
                let graph = training_step(&model, loss, &sgd, shape, Mode::Train).unwrap();
                let memory = Program::plan(&graph, &gpu, CompileOptions::default()).unwrap();
                assert!(memory.arenas >= memory.live);
                let ratio = memory.arenas as f64 / memory.live as f64;
                if ratio > worst.0 {
                    worst = (ratio, format!("{network}, {norm:?}, {batch} images"));
                }
            }
        }
    }
    let (ratio, which) = worst;
    support::report(&format!("largest ratio {ratio:.3}: {which}"));
    assert!(ratio <= 1.05, "{ratio}: {which}");
}

#[test]
fn live_tensors_never_overlap() {
    let list = optimise(&graph(Norm::Deconv).list(), Passes::ALL).unwrap();
    let roots = storage_roots(&list);
    let lifetimes = liveness(&list, &roots);
    let mut requests: Vec<Request> = list
        .nodes()
        .iter()
        .zip(&lifetimes)
        .filter_map(|(node, lifetime)| {
            Some(Request {
                size_bytes: node.shape.size_bytes(),
                lifetime: (*lifetime)?,
            })
        })
        .collect();
    assert_disjoint(&requests, 1 << 30);
    // And on random ones, with arenas so small that several are needed.
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for _ in 0..20 {
        requests = (0..120)
            .map(|_| {
                let first = rng.random_range(0..200);
                Request {
                    size_bytes: rng.random_range(1..5000),
                    lifetime: Lifetime {
                        first,
                        last: first + rng.random_range(0..40),
                    },
                }
            })
            .collect();
        assert_disjoint(&requests, 16 << 10);
    }
}

fn assert_disjoint(requests: &[Request], max_arena: u64) {
    let plan = memory_plan(requests, 256, max_arena, true).unwrap();
    for (i, a) in requests.iter().enumerate() {
        let (arena, start) = plan.places[i];
        assert!(start + a.size_bytes <= plan.arenas[arena] && plan.arenas[arena] <= max_arena);
        for (j, b) in requests.iter().enumerate().skip(i + 1) {
            let (other, other_start) = plan.places[j];
            let together =
                a.lifetime.first <= b.lifetime.last && b.lifetime.first <= a.lifetime.last;
            let overlap = start < other_start + b.size_bytes && other_start < start + a.size_bytes;
            assert!(
                !(arena == other && together && overlap),
                "requests {i} and {j}"
            );
        }
    }
}

/// `sub(x, x)` has one input after equal inputs are merged, but two operands.
#[test]
fn an_op_that_reads_one_tensor_twice_survives_fusion() {
    let g = Graph::new();
    let x = g.input("x", [5]);
    g.output("y", x - x);
    let outputs = support::run(&g, &[("x", &[1.0, 2.0, 3.0, 4.0, 5.0])]).unwrap();
    assert_eq!(outputs["y"], [0.0; 5]);
}

/// Assignments happen together at the end of a step; what is read back is from before it.
#[test]
fn assigned_states_keep_their_old_value_to_the_end_of_the_step() {
    for passes in [Passes::ALL, Passes::NONE] {
        let g = Graph::new();
        let state = |name: &str, value| g.parameter(name, [3], Init::Constant(value));
        let (a, b) = (state("a", 1.0), state("b", 2.0));
        a.assign(b);
        b.assign(a);
        let (w, last) = (state("w", 1.0), state("last", 0.0));
        w.assign(w + 1.0);
        last.assign(w);
        for (name, tensor) in [("a", a), ("b", b), ("w", w), ("last", last)] {
            g.output(name, tensor);
        }
        let mut store = Store::new(&support::gpu(), 1);
        let options = CompileOptions {
            passes,
            ..CompileOptions::default()
        };
        let mut program = Program::compile(&g, &mut store, options).unwrap();
        for [a, b, w, last] in [
            [1.0, 2.0, 1.0, 0.0],
            [2.0, 1.0, 2.0, 1.0],
            [1.0, 2.0, 3.0, 2.0],
        ] {
            let values = program.run(&[]).unwrap().values;
            for (name, value) in [("a", a), ("b", b), ("w", w), ("last", last)] {
                assert_eq!(values[name], [value; 3], "{name} with {passes:?}");
            }
        }
    }
}

/// Two states that take one value, and a state that is read through another shape of it: each must be as if all
/// assignments came at the end.
#[test]
fn values_that_are_shared_and_states_under_another_shape() {
    for passes in [Passes::ALL, Passes::NONE] {
        let g = Graph::new();
        let state =
            |name: &str, value, shape: [usize; 2]| g.parameter(name, shape, Init::Constant(value));
        let (a, b) = (state("a", 1.0, [2, 3]), state("b", 2.0, [2, 3]));
        let sum = a + b;
        a.assign(sum);
        b.assign(sum);
        let w = state("w", 1.0, [2, 3]);
        let under = w.reshape([3, 2]);
        g.output("before", under);
        w.assign(w * 2.0);
        let kept = state("kept", 0.0, [3, 2]);
        kept.assign(under);
        let mut store = Store::new(&support::gpu(), 1);
        let options = CompileOptions {
            passes,
            ..CompileOptions::default()
        };
        let mut program = Program::compile(&g, &mut store, options).unwrap();
        for (step, [a, w]) in [[3.0, 1.0], [6.0, 2.0], [12.0, 4.0]]
            .into_iter()
            .enumerate()
        {
            let before = program.run(&[]).unwrap().values["before"].clone();
            assert_eq!(before, [w; 6], "step {step} with {passes:?}");
            for (name, value) in [("a", a), ("b", a), ("w", 2.0 * w), ("kept", w)] {
                assert_eq!(
                    store.read(name).unwrap(),
                    [value; 6],
                    "{name} {step} {passes:?}"
                );
            }
        }
    }
}
