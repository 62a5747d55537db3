//! Gradients of whole layers in every mode, against differences of their own results.
//!
//! A closed gradient that assumes what a mode does not have (statistics of the batch, say) shows here, and not in
//! the tests of single ops.

mod support;

use decorr::Result;
use decorr::autodiff::gradients_from;
use decorr::graph::{Graph, TensorId};
use decorr::nn::{
    BatchNorm, ChannelDeconv, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions, Dropout, Linear,
    Mode,
};
use decorr::ops::Conv2dGeometry;
use decorr::program::{Program, Store};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Forward = Box<dyn Fn(&mut Graph, TensorId, Mode) -> Result<TensorId>>;

const MODES: [Mode; 5] = [
    Mode::Train,
    Mode::TrainFrozen,
    Mode::Between,
    Mode::BetweenFrozen,
    Mode::Eval,
];
/// Half the distance of two results along a direction of length 1.
const STEP: f32 = 0.02;

fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0_f32)).collect()
}

fn deconv(refresh: usize, freeze: bool) -> DeconvOptions {
    DeconvOptions {
        block: 3,
        eps: 0.05,
        sampling_stride: 1,
        refresh,
        freeze,
        ..DeconvOptions::default()
    }
}

fn layers() -> Vec<(&'static str, Vec<usize>, Forward)> {
    let image = || vec![3, 6, 5, 7];
    let geometry = Conv2dGeometry {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
    };
    let convolution = move |options| DeconvConv2d {
        in_channels: 6,
        out_channels: 5,
        kernel_size: 3,
        geometry,
        bias: true,
        options,
    };
    let linear = |options| DeconvLinear {
        in_features: 6,
        out_features: 5,
        bias: true,
        options,
    };
    let plain = Conv2d {
        in_channels: 6,
        out_channels: 5,
        kernel_size: 3,
        geometry,
        bias: true,
    };
    let norm = BatchNorm::new(6);
    let channel = ChannelDeconv::new(6, 3);
    let forward_of = |options| -> [Forward; 2] {
        let (convolution, linear) = (convolution(options), linear(options));
        [
            Box::new(move |g, x, mode| convolution.forward(g, x, mode)),
            Box::new(move |g, x, mode| linear.forward(g, x, mode)),
        ]
    };
    let [every, every_linear] = forward_of(deconv(1, false));
    let [eighth, eighth_linear] = forward_of(deconv(8, false));
    let [first, _] = forward_of(deconv(1, true));
    vec![
        (
            "conv2d",
            image(),
            Box::new(move |g, x, _| plain.forward(g, x)),
        ),
        (
            "linear",
            vec![9, 6],
            Box::new(|g, x, _| Linear::new(6, 5).forward(g, x)),
        ),
        (
            "batch norm",
            image(),
            Box::new(move |g, x, mode| norm.forward(g, x, mode)),
        ),
        (
            "batch norm of rows",
            vec![9, 6],
            Box::new(move |g, x, mode| norm.forward(g, x, mode)),
        ),
        (
            "channel deconv",
            image(),
            Box::new(move |g, x, mode| channel.forward(g, x, mode)),
        ),
        ("deconv conv2d", image(), every),
        ("deconv conv2d, refresh 8", image(), eighth),
        ("deconv conv2d that freezes", image(), first),
        ("deconv linear", vec![9, 6], every_linear),
        ("deconv linear, refresh 8", vec![9, 6], eighth_linear),
        (
            // In training it is another function in every step.
            "dropout in evaluation",
            image(),
            Box::new(|g, x, _| Dropout { p: 0.5 }.forward(g, x, Mode::Eval)),
        ),
    ]
}

/// A layer in one mode: its results and the gradients of (results * seed) for x and its parameters.
struct Compiled {
    program: Program,
    parameters: Vec<String>,
    seed: Vec<f32>,
}

impl Compiled {
    fn new(store: &mut Store, forward: &Forward, shape: &[usize], mode: Mode) -> Self {
        let mut g = Graph::new();
        let x = g.input("x", shape.to_vec());
        let y = forward(&mut g, x, mode).unwrap();
        let y_shape = g.shape(y).clone();
        let seed = g.input("seed", y_shape.clone());
        let names = ["weight", "bias"].map(String::from);
        let parameters: Vec<String> = names
            .into_iter()
            .filter(|name| g.states().contains_key(name))
            .collect();
        let mut of = vec![x];
        of.extend(parameters.iter().map(|name| g.states()[name]));
        let grads = gradients_from(&mut g, &[(y, seed)], &of).unwrap();
        g.output("y", y);
        g.output("x_grad", grads[0]);
        for (name, grad) in parameters.iter().zip(&grads[1..]) {
            g.output(&format!("{name}_grad"), *grad);
        }
        let program = Program::compile(&g, store, support::compile_options()).unwrap();
        Self {
            program,
            parameters,
            seed: random(2, y_shape.len()),
        }
    }

    fn run(&mut self, x: &[f32]) -> std::collections::BTreeMap<String, Vec<f32>> {
        self.program
            .run(&[("x", x), ("seed", &self.seed)])
            .unwrap()
            .values
    }

    fn objective(&mut self, x: &[f32]) -> f64 {
        let y = &self.run(x)["y"];
        y.iter()
            .zip(&self.seed)
            .map(|(&y, &s)| f64::from(y) * f64::from(s))
            .sum()
    }
}

#[test]
fn gradients_of_layers_in_every_mode() {
    let mut count = 0;
    for (name, shape, forward) in layers() {
        let mut store = Store::new(&support::gpu(), 1);
        // Running statistics that are neither their first values nor those of `x`, and a last refresh.
        let mut train = Compiled::new(&mut store, &forward, &shape, Mode::Train);
        let x: Vec<f32> = random(1, shape.iter().product())
            .iter()
            .map(|v| v + 0.3)
            .collect();
        for seed in 10..13 {
            let other: Vec<f32> = random(seed, x.len())
                .iter()
                .map(|v| 0.7 * v - 0.2)
                .collect();
            train.run(&other);
        }
        for parameter in &train.parameters {
            let len = store.read(parameter).unwrap().len();
            store.write(parameter, &random(20, len)).unwrap();
        }
        for mode in MODES {
            let mut layer = Compiled::new(&mut store, &forward, &shape, mode);
            let gradients = layer.run(&x);
            for of in [&["x".to_string()][..], &layer.parameters.clone()].concat() {
                let gradient = &gradients[&format!("{of}_grad")];
                let at = match of.as_str() {
                    "x" => x.clone(),
                    parameter => store.read(parameter).unwrap(),
                };
                for seed in 30..33 {
                    let direction = random(seed, at.len());
                    let length = direction.iter().map(|v| v * v).sum::<f32>().sqrt();
                    let mut objective_at = |distance: f32| {
                        let moved = at.iter().zip(&direction);
                        let moved: Vec<f32> =
                            moved.map(|(v, d)| v + distance * d / length).collect();
                        if of == "x" {
                            return layer.objective(&moved);
                        }
                        store.write(&of, &moved).unwrap();
                        layer.objective(&x)
                    };
                    let slope = (objective_at(STEP) - objective_at(-STEP)) / f64::from(2.0 * STEP);
                    if of != "x" {
                        store.write(&of, &at).unwrap();
                    }
                    let along = gradient.iter().zip(&direction);
                    let along = along
                        .map(|(&g, &d)| f64::from(g) * f64::from(d))
                        .sum::<f64>();
                    let along = along / f64::from(length);
                    let size = gradient
                        .iter()
                        .map(|&g| f64::from(g).powi(2))
                        .sum::<f64>()
                        .sqrt();
                    let error = (along - slope).abs() / size;
                    assert!(
                        error < 2e-3,
                        "{name}, {mode:?}: along a direction of {of} the gradient has {along}, the results {slope}"
                    );
                    count += 1;
                }
            }
        }
    }
    support::report(&format!(
        "{count} slopes of layers in {} modes",
        MODES.len()
    ));
}
