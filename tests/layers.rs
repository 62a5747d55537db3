//! Gradients of whole layers in every mode, against differences of their own results.
//!
//! A closed gradient that assumes what a mode does not have (statistics of the batch, say) shows here, and not in
//! the tests of single ops.

mod support;

use decorr::autodiff::gradients_from;
use decorr::graph::{Graph, Tensor};
use decorr::nn::{
    BatchNorm, ChannelDeconv, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions, Dropout, Layer,
    Linear, Mode,
};
use decorr::program::{Program, Store};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
    let options = DeconvOptions::default().block(3).eps(0.05);
    options.sampling_stride(1).refresh(refresh).freeze(freeze)
}

/// A layer as it is in evaluation.
struct InEvaluation<L>(L);

impl<L: Layer> Layer for InEvaluation<L> {
    fn forward<'g>(&self, x: Tensor<'g>, _: Mode) -> Tensor<'g> {
        self.0.forward(x, Mode::Eval)
    }
}

fn layers() -> Vec<(&'static str, Vec<usize>, Box<dyn Layer>)> {
    let (image, rows) = (|| vec![3, 6, 5, 7], || vec![9, 6]);
    let convolution = |options| DeconvConv2d::new(6, 5, 3).padding(1).options(options);
    let linear = |options| DeconvLinear::new(6, 5).options(options);
    let plain = Conv2d::new(6, 5, 3).padding(1);
    let norm = BatchNorm::new(6);
    let channel = ChannelDeconv::new(6, 3);
    let (every, eighth, first) = (deconv(1, false), deconv(8, false), deconv(1, true));
    vec![
        ("conv2d", image(), Box::new(plain)),
        ("linear", rows(), Box::new(Linear::new(6, 5))),
        ("batch norm", image(), Box::new(norm)),
        ("batch norm of rows", rows(), Box::new(norm)),
        ("channel deconv", image(), Box::new(channel)),
        ("deconv conv2d", image(), Box::new(convolution(every))),
        (
            "deconv conv2d, refresh 8",
            image(),
            Box::new(convolution(eighth)),
        ),
        (
            "deconv conv2d that freezes",
            image(),
            Box::new(convolution(first)),
        ),
        ("deconv linear", rows(), Box::new(linear(every))),
        ("deconv linear, refresh 8", rows(), Box::new(linear(eighth))),
        (
            // In training it is another function in every step.
            "dropout in evaluation",
            image(),
            Box::new(InEvaluation(Dropout::new(0.5))),
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
    fn new(store: &mut Store, layer: &dyn Layer, shape: &[usize], mode: Mode) -> Self {
        let g = Graph::new();
        let x = g.input("x", shape.to_vec());
        let y = layer.forward(x, mode);
        let seed = g.input("seed", y.shape());
        let names = ["weight", "bias"].map(String::from);
        let state = |name: &String| g.list().states().get(name).map(|&id| g.tensor(id));
        let (parameters, states): (Vec<String>, Vec<Tensor<'_>>) = names
            .into_iter()
            .filter_map(|name| state(&name).map(|state| (name, state)))
            .unzip();
        let of = [&[x][..], &states].concat();
        let grads = gradients_from(&[(y, seed)], &of);
        g.output("y", y);
        g.output("x_grad", grads[0]);
        for (name, grad) in parameters.iter().zip(&grads[1..]) {
            g.output(&format!("{name}_grad"), *grad);
        }
        let program = Program::compile(&g, store, support::compile_options()).unwrap();
        Self {
            program,
            parameters,
            seed: random(2, y.len()),
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
    for (name, shape, layer) in layers() {
        let mut store = Store::new(&support::gpu(), 1);
        // Running statistics that are neither their first values nor those of `x`, and a last refresh.
        let mut train = Compiled::new(&mut store, layer.as_ref(), &shape, Mode::Train);
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
            let mut compiled = Compiled::new(&mut store, layer.as_ref(), &shape, mode);
            let gradients = compiled.run(&x);
            for of in [&["x".to_string()][..], &compiled.parameters.clone()].concat() {
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
                            return compiled.objective(&moved);
                        }
                        store.write(&of, &moved).unwrap();
                        compiled.objective(&x)
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
