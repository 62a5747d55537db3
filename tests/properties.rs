//! What must hold for any input.

mod support;

use std::path::Path;

use decorr::autodiff::gradients;
use decorr::graph::{Graph, Init};
use decorr::nn::{DeconvConv2d, DeconvLinear, DeconvOptions, Dropout, Layer, Linear, Mode};
use decorr::ops::CovGrad;
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::checkpoint;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect()
}

/// Largest |deconv cov deconv - I| after `n_iter` iterations, and largest asymmetry of deconv.
fn residual(rows: &[f32], features: usize, n_iter: usize) -> (f32, f32) {
    let count = rows.len() / features;
    let g = Graph::new();
    let x = g.input("x", [1, count, features]);
    let cov = (x - x.mean_to([1, 1, features])).covariance(1e-5);
    let deconv = cov.newton_schulz(n_iter, CovGrad::Symmetric);
    g.output("white", deconv.matmul(cov).matmul(deconv));
    g.output("deconv", deconv);
    let outputs = support::run(&g, &[("x", rows)]).unwrap();
    let eye = |i: usize| f32::from(u8::from(i / features == i % features));
    let white = outputs["white"].iter().enumerate();
    let far = white.map(|(i, v)| (v - eye(i)).abs()).fold(0.0, f32::max);
    let d = &outputs["deconv"];
    let largest = d.iter().fold(0f32, |m, v| m.max(v.abs()));
    let skew = (0..features * features)
        .map(|i| (d[i] - d[i % features * features + i / features]).abs())
        .fold(0.0, f32::max);
    (far, skew / largest)
}

#[test]
fn deconvolution_nears_whitening_with_iterations_not_at_five() {
    for (seed, features) in [(1, 5), (2, 27), (3, 70)] {
        let mut rows = random(seed, 400 * features);
        // Neighbours correlate, as pixels do.
        for i in 1..rows.len() {
            rows[i] += 0.9 * rows[i - 1];
        }
        let residuals: Vec<f32> = [2, 5, 20]
            .map(|n| residual(&rows, features, n))
            .iter()
            .map(|&(far, skew)| {
                assert!(skew < 1e-5, "deconv is asymmetric by {skew}");
                far
            })
            .collect();
        support::report(&format!(
            "|deconv cov deconv - I| of {features} features: {residuals:?}"
        ));
        assert!(residuals[0] > residuals[1] && residuals[1] > residuals[2]);
        assert!(residuals[2] < 1e-3, "{residuals:?}");
    }
}

#[test]
fn a_step_has_the_same_bits_every_time() {
    let run = || {
        let g = Graph::new();
        let x = g.input("x", [3, 5, 11, 9]);
        let layer = DeconvConv2d::new(5, 7, 3).padding(1);
        let y = layer.forward(x, Mode::Train);
        let grads = gradients(y.sum_to([1]), &g.parameters());
        g.output("y", y);
        g.output("weight_grad", grads[0]);
        support::run(&g, &[("x", &random(9, 3 * 5 * 99))]).unwrap()
    };
    assert_eq!(run(), run());
}

/// First values follow from seed and name alone: tensors of one shape differ, other layers change nothing, and each spreads
/// as its `Init` says.
#[test]
fn first_values_are_a_tensors_own() {
    let first = |seed: u64, inits: &[(&str, Init)]| -> Vec<Vec<f32>> {
        let g = Graph::new();
        for (name, init) in inits {
            let w = g.parameter(name, [100, 41], init.clone());
            g.output(name, w.sum_to([1]));
        }
        let mut store = Store::new(&support::gpu(), seed);
        Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        inits.iter().map(|(n, _)| store.read(n).unwrap()).collect()
    };
    for (init, deviation) in [
        (Init::Uniform(0.5), 0.5 / 3f64.sqrt()),
        (Init::Normal(0.5), 0.5),
    ] {
        let both = first(7, &[("a.weight", init.clone()), ("b.weight", init.clone())]);
        assert!(both[0] != both[1], "{init:?}: two names, the same values");
        let alone = |seed| first(seed, &[("b.weight", init.clone())]).remove(0);
        assert!(both[1] == alone(7), "{init:?}: another layer changes it");
        assert!(both[1] != alone(8), "{init:?}: the seed changes nothing");
        for values in both {
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let square = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
            // Five standard errors of 4100 values, and of their variance.
            assert!(mean.abs() < 5.0 * deviation / n.sqrt(), "{init:?}: {mean}");
            let ratio = square / (deviation * deviation);
            assert!((ratio - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{ratio}");
            if let Init::Uniform(bound) = init {
                assert!(values.iter().all(|v| v.abs() <= bound));
            }
        }
    }
}

/// By hand: what follows the last row would count as 0 + 1.
#[test]
fn sums_of_columns_end_with_the_last_row() {
    for rows in [63, 65, 130, 259, 1001] {
        let g = Graph::new();
        let x = g.input("x", [rows, 8]);
        g.output("sum", (x + 1.0).sum_to([1, 8]));
        let values: Vec<f32> = (0..rows * 8).map(|i| (i % 8) as f32).collect();
        let sums = &support::run(&g, &[("x", &values)]).unwrap()["sum"];
        let wanted: Vec<f32> = (1..=8).map(|c| (rows * c) as f32).collect();
        assert_eq!(*sums, wanted, "{rows} rows");
    }
}

/// A stride leaves no pixel out of images that have fewer rows or columns than it.
#[test]
fn small_images_are_deconvolved_by_all_of_their_pixels() {
    use decorr::nn::ChannelDeconv;
    for [h, w] in [[2, 6], [6, 2]] {
        let g = Graph::new();
        // Blocks of 4, and one channel that is left.
        let x = g.input("x", [4, 5, h, w]);
        for stride in [1, 3] {
            let options = DeconvOptions::default().block(4).sampling_stride(stride);
            let layer = ChannelDeconv::new(5, 4).options(options);
            let scope = format!("stride{stride}");
            g.output(&scope, g.scope(&scope, || layer.forward(x, Mode::Train)));
        }
        let outputs = support::run(&g, &[("x", &random(8, 20 * h * w))]).unwrap();
        assert_eq!(outputs["stride1"], outputs["stride3"], "{h} x {w}");
    }
}

#[test]
fn deconvolved_output_does_not_change_when_the_input_is_scaled_and_shifted() {
    // y depends on the input by its whitened form alone, up to eps: scale by 8, shift by 3.
    let image = random(4, 2 * 4 * 100);
    let moved: Vec<f32> = image.iter().map(|v| 8.0 * v + 3.0).collect();
    let g = Graph::new();
    let x = g.input("x", [2, 4, 10, 10]);
    let options = DeconvOptions::default().eps(1e-6).sampling_stride(1);
    let layer = DeconvConv2d::new(4, 6, 3).options(options);
    g.output("y", layer.forward(x, Mode::Train));
    let mut store = Store::new(&support::gpu(), 1);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    let a = program.run(&[("x", &image)]).unwrap();
    let b = program.run(&[("x", &moved)]).unwrap();
    let (error, at) = support::relative_error(&a.values["y"], &b.values["y"]);
    assert!(error < 1e-3, "error {error} at {at}");
}

/// D may be multiplied into the weight or into the input; a layer of many outputs takes the input.
#[test]
fn a_linear_layer_of_many_outputs_is_one_of_few_and_more() {
    const IN: usize = 20;
    let options = DeconvOptions::default().block(10).eps(1e-3);
    let x: Vec<f32> = (0..12 * IN)
        .map(|i| ((i * i) % 31) as f32 * 0.1 + (i % 7) as f32)
        .collect();
    let weight: Vec<f32> = (0..33 * IN)
        .map(|i| ((i * 17) % 23) as f32 * 0.05 - 0.5)
        .collect();
    // 12 rows: 9 outputs fold D into the weight, 33 do not.
    let run = |outputs: usize| {
        let g = Graph::new();
        let image = g.input("x", [12, IN]);
        let layer = DeconvLinear::new(IN, outputs).bias(false).options(options);
        let y = layer.forward(image, Mode::Train).slice(1, 0, 1, 9);
        let loss = y.square().sum_to([1]);
        let grads = gradients(loss, &[g.parameters()[0], image]);
        g.output("y", y);
        g.output("weight_grad", grads[0]);
        g.output("x_grad", grads[1]);
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        store.write("weight", &weight[..outputs * IN]).unwrap();
        program.run(&[("x", &x)]).unwrap().values
    };
    let (few, many) = (run(9), run(33));
    for name in ["y", "weight_grad", "x_grad"] {
        let (a, b) = (&few[name], &many[name][..few[name].len()]);
        let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
        let worst = a
            .iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0f32, f32::max);
        support::report(&format!(
            "{name}: relative difference {:.1e}",
            worst / largest
        ));
        assert!(worst < 1e-4 * largest, "{name}: {worst} of {largest}");
    }
}

/// VGG's first linear layer on ImageNet is larger than what WebGPU promises to bind.
#[test]
fn a_weight_in_parts_is_one_tensor_in_a_checkpoint() {
    const IN: usize = 17_000;
    const OUT: usize = 2_500; // 170 MB
    let g = Graph::new();
    let x = g.input("x", [3, IN]);
    g.output("y", Linear::new(IN, OUT).forward(x, Mode::Train));
    let mut store = Store::new(&support::gpu(), 1);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    let mut tensors = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
    assert_eq!(tensors["weight"].shape, [OUT, IN]);
    // Row r is all r: y = r * sum(x) + bias.
    let row = |i: usize| (i / IN) as f32;
    tensors.get_mut("weight").unwrap().data = (0..OUT * IN).map(row).collect();
    tensors.get_mut("bias").unwrap().data = (0..OUT).map(|r| r as f32 / 2.0).collect();
    checkpoint::to_store(Path::new("x"), &tensors, &store, &checkpoint::MODEL).unwrap();
    assert_eq!(
        checkpoint::from_store(&store, &checkpoint::MODEL).unwrap(),
        tensors
    );
    let mut x = vec![0.0; 3 * IN];
    (x[0], x[2 * IN - 1], x[2 * IN]) = (1.0, 2.0, -1.0);
    let y = &program.run(&[("x", &x)]).unwrap().values["y"];
    for (n, sum) in [1.0, 2.0, -1.0].into_iter().enumerate() {
        for r in 0..OUT {
            assert_eq!(y[n * OUT + r], r as f32 * sum + r as f32 / 2.0);
        }
    }
}

#[test]
fn dropout_keeps_its_share_and_the_mean_and_drops_others_each_step() {
    let run = |mode, steps: usize, seed| {
        let g = Graph::new();
        let x = g.input("x", [10_000]);
        g.output("y", Dropout { p: 0.3 }.forward(x, mode));
        let mut store = Store::new(&support::gpu(), seed);
        let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        let ones = vec![1.0; 10_000];
        let step = |_| program.run(&[("x", &ones)]).unwrap().values["y"].clone();
        (0..steps).map(step).collect::<Vec<Vec<f32>>>()
    };
    let steps = run(Mode::Train, 2, 1);
    for y in &steps {
        let kept = y.iter().filter(|&&v| v != 0.0).count();
        support::report(&format!("kept {kept} of 10000 at p 0.3"));
        // Five standard deviations.
        assert!((6770..7230).contains(&kept));
        assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6));
    }
    let same = steps[0]
        .iter()
        .zip(&steps[1])
        .filter(|(a, b)| a == b)
        .count();
    // 0.7^2 + 0.3^2 = 0.58 where they are independent.
    assert!(
        (5550..6050).contains(&same),
        "{same} of 10000 the same in two steps"
    );
    assert_eq!(run(Mode::Train, 2, 1), steps);
    assert_ne!(run(Mode::Train, 2, 2), steps);
    assert_eq!(run(Mode::Eval, 1, 1)[0], vec![1.0; 10_000]);
}

/// As a resumed run does: the counter is one of the states that a checkpoint keeps.
#[test]
fn dropout_goes_on_where_its_counter_was_saved() {
    let g = Graph::new();
    let x = g.input("x", [100]);
    g.output("y", Dropout { p: 0.5 }.forward(x, Mode::Train));
    let ones = vec![1.0; 100];
    let begin = |seed| {
        let mut store = Store::new(&support::gpu(), seed);
        let program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        (store, program)
    };
    let step = |program: &mut Program| program.run(&[("x", &ones)]).unwrap().values["y"].clone();
    let (store, mut program) = begin(1);
    step(&mut program);
    let role = decorr::graph::Role::Optimizer;
    let saved = checkpoint::from_store(&store, &[role]).unwrap();
    assert_eq!(saved.len(), 1);
    let second = step(&mut program);
    let (store, mut program) = begin(2);
    checkpoint::to_store(Path::new("saved"), &saved, &store, &[role]).unwrap();
    assert_eq!(step(&mut program), second);
}

/// What would be a wrong number without a word is an error that says what to do.
#[test]
fn mistakes_of_a_program_are_errors() {
    use decorr::nn::{BatchNorm, ChannelDeconv};
    let g = Graph::new();
    let linear = |x| Linear::new(4, 4).forward(x, Mode::Train);
    let x = linear(g.input("x", [3, 4]));
    let text = g.attempt(|| linear(x)).unwrap_err().to_string();
    assert!(
        text.contains("already") && text.contains("g.scope"),
        "{text}"
    );
    // Errors name the layer.
    let norm = || BatchNorm::new(9).forward(x, Mode::Train);
    let wrong = g.attempt(|| g.scope("block", || g.scope("norm", norm)));
    let text = wrong.unwrap_err().to_string();
    assert!(text.contains("(in block.norm"), "{text}");
    let y = g.scope("second", || linear(x));
    g.check().unwrap();
    assert_eq!(g.parameters().len(), 4);
    // On purpose.
    g.shared(|| linear(y));
    g.check().unwrap();
    assert_eq!(g.parameters().len(), 4);
    // Running statistics alone are not shared by mistake either.
    let image = g.input("image", [3, 4, 2, 2]);
    let bare = BatchNorm::new(4).affine(false);
    for layer in [0, 1] {
        let of = || match layer {
            0 => bare.forward(image, Mode::Train),
            _ => ChannelDeconv::new(4, 2).forward(image, Mode::Train),
        };
        let scope = format!("norm{layer}");
        g.attempt(|| g.scope(&scope, of)).unwrap();
        assert!(g.attempt(|| g.scope(&scope, of)).is_err());
    }

    let mut store = Store::new(&support::gpu(), 1);
    let compile =
        |g: &Graph, store: &mut Store| Program::compile(g, store, support::compile_options());
    let nothing = Graph::new();
    nothing.input("x", [3]);
    let text = compile(&nothing, &mut store).unwrap_err().to_string();
    assert!(text.contains("no output and assigns nothing"), "{text}");
    let g = Graph::new();
    let x = g.input("x", [3]);
    g.output("x", x);
    g.output("sum", x.sum_to([1]));
    let outputs = compile(&g, &mut store)
        .unwrap()
        .run(&[("x", &[1.0, 2.0, 4.0])])
        .unwrap();
    assert_eq!(outputs.scalar("sum").unwrap(), 7.0);
    for (name, wanted) in [("sun", "there are: sum, x"), ("x", "3 numbers")] {
        let text = outputs.scalar(name).unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    }
}

/// Adam's first step is lr g / (|g| + eps): with gradients as small as eps, half of lr.
#[test]
fn adams_eps_is_added_to_the_root() {
    use decorr::graph::{Init, Role};
    use decorr::optim::{Adam, Optimizer};
    let adam = Adam::default();
    let g = Graph::new();
    let w = g.parameter("w", [3], Init::Constant(0.0));
    let values = vec![adam.eps, -adam.eps, 1.0];
    let grad = g.state("g", [3], Role::Statistic, Init::Values(values.into()));
    let lr = g.input("lr", [1]);
    Optimizer::from(adam).update(&[w], &[grad], lr);
    let mut store = Store::new(&support::gpu(), 1);
    let mut program = Program::compile(&g, &mut store, support::compile_options()).unwrap();
    program.run(&[("lr", &[0.25])]).unwrap();
    for (actual, expected) in store.read("w").unwrap().iter().zip([-0.125, 0.125, -0.25]) {
        assert!((actual - expected).abs() < 1e-3, "{actual}, not {expected}");
    }
}

/// As `torch.nn.utils.clip_grad_norm_` of 3 and -4 and 12, whose norm is 13; a smaller one is left as it is.
#[test]
fn gradients_are_clipped_by_the_norm_of_all_of_them() {
    use decorr::graph::{Init, Role};
    use decorr::optim::{Optimizer, Sgd};
    for (max_norm, factor) in [(6.5, 0.5), (13.5, 1.0), (0.013, 0.001)] {
        let g = Graph::new();
        let state = |name: &str, values: &[f32]| {
            let init = Init::Values(values.to_vec().into());
            g.state(name, [values.len()], Role::Statistic, init)
        };
        let grads = [state("a", &[3.0, -4.0]), state("b", &[12.0])];
        let zero = Init::Constant(0.0);
        let weights = [
            g.parameter("v", [2], zero.clone()),
            g.parameter("w", [1], zero),
        ];
        let sgd = Optimizer::from(Sgd::default()).clip_grad_norm(max_norm);
        sgd.update(&weights, &grads, g.input("lr", [1]));
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = Program::compile(&g, &mut store, support::compile_options()).unwrap();
        program.run(&[("lr", &[1.0])]).unwrap();
        let all = [store.read("v").unwrap(), store.read("w").unwrap()].concat();
        for (actual, grad) in all.iter().zip([3.0, -4.0, 12.0]) {
            let wanted = -grad * factor;
            assert!(
                (actual - wanted).abs() < 1e-5 * wanted.abs(),
                "{max_norm}: {all:?}"
            );
        }
    }
}
