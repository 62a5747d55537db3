//! Steps between refreshes against float64, and D on either side, by rows or by features.

mod support;

use std::sync::Arc;

use decorr::autodiff::gradients_from;
use decorr::graph::{self, Graph, Init, Role};
use decorr::models;
use decorr::nn::{DeconvConv2d, DeconvLinear, DeconvOptions, FreezeCounter, Layer, Layout, Mode};
use decorr::ops::Conv2dGeometry;
use decorr::program::{Program, Store};
use decorr::shape::Shape;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::reference::{self, Geometry, Tensor};

/// A layer and the images it is given.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// [N, C, H, W]; for a linear layer H = W = 1 and `kernel_size` 0.
    x: [usize; 4],
    outputs: usize,
    kernel_size: usize,
    geometry: Conv2dGeometry,
    options: DeconvOptions,
}

const EPS: f32 = 0.05;

fn geometry(stride: usize, padding: usize, groups: usize) -> Conv2dGeometry {
    Conv2dGeometry {
        stride,
        padding,
        dilation: 1,
        groups,
    }
}

fn options(block: usize, sampling_stride: usize) -> DeconvOptions {
    let options = DeconvOptions::default().block(block).eps(EPS);
    options.sampling_stride(sampling_stride).refresh(4)
}

fn cases() -> Vec<Case> {
    let strided = options(2, 1).layout(Layout::Strided);
    let row = |name, x, outputs, kernel_size, geometry, options| Case {
        name,
        x,
        outputs,
        kernel_size,
        geometry,
        options,
    };
    vec![
        row(
            "k 3, sampled",
            [3, 6, 9, 7],
            5,
            3,
            geometry(1, 1, 1),
            options(3, 3),
        ),
        row(
            "k 3, stride 2",
            [3, 4, 9, 8],
            7,
            3,
            geometry(2, 1, 1),
            options(4, 1),
        ),
        row("k 1", [2, 6, 5, 5], 4, 1, geometry(1, 0, 1), options(2, 1)),
        row(
            "groups",
            [2, 6, 7, 5],
            4,
            3,
            geometry(1, 1, 2),
            options(64, 1),
        ),
        row(
            "strided layout",
            [2, 6, 7, 5],
            4,
            3,
            geometry(1, 1, 1),
            strided,
        ),
        row(
            "on patches",
            [2, 4, 3, 3],
            37,
            3,
            geometry(2, 1, 1),
            options(2, 1),
        ),
        row(
            "strided layout on patches",
            [2, 6, 2, 3],
            37,
            3,
            geometry(1, 1, 1),
            strided,
        ),
        row(
            "blocks of more than 64",
            [2, 16, 6, 5],
            9,
            3,
            geometry(1, 1, 1),
            options(8, 1),
        ),
        row(
            "blocks of more than 64 on patches",
            [2, 16, 2, 2],
            19,
            3,
            geometry(1, 1, 1),
            options(8, 1),
        ),
        row(
            "fewer pixels than weights",
            [2, 8, 5, 5],
            20,
            3,
            geometry(1, 1, 1),
            options(4, 3),
        ),
        row(
            "fewer pixels than weights, stride 2",
            [3, 8, 6, 5],
            17,
            3,
            geometry(2, 1, 1),
            options(2, 1),
        ),
        row(
            "fewer pixels than weights, on patches",
            [2, 8, 3, 2],
            17,
            3,
            geometry(1, 1, 1),
            options(2, 1),
        ),
        row(
            "on patches, by regions",
            [30, 4, 2, 2],
            121,
            3,
            geometry(1, 1, 1),
            options(2, 1),
        ),
        row(
            "blocks of more than 64 on patches, by regions",
            [29, 8, 2, 2],
            117,
            3,
            geometry(1, 1, 1),
            options(8, 1),
        ),
        row(
            "on patches, by regions, stride 2",
            [31, 4, 3, 4],
            125,
            3,
            geometry(2, 1, 1),
            options(2, 1),
        ),
        row(
            "linear",
            [11, 12, 1, 1],
            5,
            0,
            geometry(1, 0, 1),
            options(4, 1),
        ),
        row(
            "linear on rows",
            [5, 12, 1, 1],
            9,
            0,
            geometry(1, 0, 1),
            options(6, 1),
        ),
    ]
}

impl Case {
    fn taps(&self) -> usize {
        self.kernel_size.max(1).pow(2)
    }

    fn groups(&self) -> usize {
        self.geometry.groups
    }

    /// Features of a block.
    fn features(&self) -> usize {
        let per_group = self.x[1] / self.groups();
        self.options.block.min(per_group) * self.taps()
    }

    fn is_linear(&self) -> bool {
        self.kernel_size == 0
    }

    fn weight_shape(&self) -> Vec<usize> {
        let [_, c, ..] = self.x;
        match self.is_linear() {
            true => vec![self.outputs, c],
            false => vec![
                self.outputs,
                c / self.groups(),
                self.kernel_size,
                self.kernel_size,
            ],
        }
    }

    fn x_shape(&self) -> Vec<usize> {
        let dims = if self.is_linear() { 2 } else { 4 };
        self.x[..dims].to_vec()
    }

    fn forward<'g>(&self, x: graph::Tensor<'g>, mode: Mode) -> graph::Tensor<'g> {
        if self.is_linear() {
            let layer = DeconvLinear::new(self.x[1], self.outputs).options(self.options);
            return layer.forward(x, mode);
        }
        let layer = DeconvConv2d {
            in_channels: self.x[1],
            out_channels: self.outputs,
            kernel_size: self.kernel_size,
            geometry: self.geometry,
            bias: true,
            options: self.options,
        };
        layer.forward(x, mode)
    }

    /// The layer applied to the input `x` of `x_shape`, the input `seed` as the gradient of its output, and the outputs `y`
    /// and, of each state or input in `of`, its name with `_grad`. Returns the shape of y.
    fn append(&self, g: &Graph, x_shape: Vec<usize>, mode: Mode, of: &[&str]) -> Shape {
        let x = g.input("x", x_shape);
        let y = self.forward(x, mode);
        let seed = g.input("seed", y.shape());
        let tensors: Vec<graph::Tensor<'_>> = of
            .iter()
            .map(|&name| match name {
                "x" => x,
                state => g.tensor(g.list().states()[state]),
            })
            .collect();
        let grads = gradients_from(&[(y, seed)], &tensors);
        g.output("y", y);
        for (name, grad) in of.iter().zip(&grads) {
            g.output(&format!("{name}_grad"), *grad);
        }
        y.shape()
    }

    /// D of the last refresh, symmetric; the variances then.
    fn last_refresh(&self) -> (Tensor, Tensor) {
        let (groups, f) = (self.groups(), self.features());
        let random = tensor(7, &[groups, f, f]);
        let d = Tensor::from_fn(&[groups, f, f], |i| {
            let (group, row, column) = (i / (f * f), i / f % f, i % f);
            let mirrored = (group * f + column) * f + row;
            let both = random.data[i] + random.data[mirrored];
            both * 0.2 + f64::from(u8::from(row == column))
        });
        (d, tensor(8, &[self.x[1]]).map(|v| 0.4 + 0.3 * v))
    }

    /// Block and feature of column j of a group's patches.
    fn place(&self, j: usize) -> (usize, usize) {
        let f = self.features();
        let blocks = self.x[1] / self.groups() * self.taps() / f;
        match self.options.layout {
            Layout::Strided => (j % blocks, j / blocks),
            Layout::Contiguous => (j / f, j % f),
        }
    }

    /// f of every channel for images `x` [N, C, H, W].
    fn factors(&self, x: &Tensor) -> Vec<f64> {
        let [n, c, h, w] = self.x;
        let (_, var_then) = self.last_refresh();
        let count = (n * h * w) as f64;
        let of_channel = [1, c, 1, 1];
        let mean = x.sum_to(&of_channel).map(|v| v / count);
        let centred = x.zip(&mean, |a, b| a - b);
        let var = centred
            .map(|v| v * v)
            .sum_to(&of_channel)
            .map(|v| v / count);
        let eps = f64::from(EPS);
        let layer = |v: &Tensor| v.data.iter().sum::<f64>() / c as f64 + eps;
        let of_layer = layer(&var_then) / layer(&var);
        let of_channel = var_then.data.iter().zip(&var.data);
        of_channel
            .map(|(then, now)| ((then + eps) / (now + eps) * of_layer).powf(0.25))
            .collect()
    }

    /// The running D after a step between refreshes that began with the identity, from its definition.
    fn running_deconv(&self, x: &Tensor) -> Tensor {
        let (d, _) = self.last_refresh();
        let factors = self.factors(&x.reshape(&self.x));
        let (groups, taps, f) = (self.groups(), self.taps(), self.features());
        let per_group = self.x[1] / groups * taps;
        // The mean over blocks.
        let mut by_feature = vec![0.0; groups * f];
        for j in 0..groups * per_group {
            let (group, (_, feature)) = (j / per_group, self.place(j % per_group));
            by_feature[group * f + feature] += factors[j / taps] * f as f64 / per_group as f64;
        }
        Tensor::from_fn(&[groups, f, f], |i| {
            let (group, row, column) = (i / (f * f), i / f % f, i % f);
            let of_both = by_feature[group * f + row] * by_feature[group * f + column];
            0.9 * f64::from(u8::from(row == column)) + 0.1 * d.data[i] * of_both.sqrt()
        })
    }

    /// A step between refreshes in float64, from its definition: the weight times D of all blocks times f.
    fn reference(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let [n, c, h, w] = self.x;
        let x = x.reshape(&[n, c, h, w]);
        let (d, _) = self.last_refresh();
        let (groups, taps, f) = (self.groups(), self.taps(), self.features());
        let per_group = c / groups * taps;
        let blocks = per_group / f;
        let factors = self.factors(&x);
        // The mean patch, and of it the mean over blocks.
        let mean_image = x.sum_to(&[1, c, h, w]).map(|v| v / n as f64);
        let k = self.kernel_size.max(1);
        let stride = match k {
            1 => 1,
            _ => self.geometry.stride * self.options.sampling_stride,
        };
        let window = Geometry {
            stride,
            padding: self.geometry.padding,
            dilation: 1,
            groups: 1,
        };
        let patches = reference::im2col(&mean_image, [k, k], window);
        let rows = patches.shape[0] as f64;
        let mean_patch = patches.sum_to(&[1, c * taps]).map(|v| v / rows);
        let mut block_mean = vec![0.0; groups * f];
        for (j, value) in mean_patch.data.iter().enumerate() {
            let (group, (_, feature)) = (j / per_group, self.place(j % per_group));
            block_mean[group * f + feature] += value / blocks as f64;
        }
        let outputs = self.outputs / groups;
        let folded = Tensor::from_fn(&[self.outputs, c / groups, k, k], |i| {
            let (o, column) = (i / per_group, i % per_group);
            let group = o / outputs;
            let (block, feature) = self.place(column);
            let mut sum = 0.0;
            for other in 0..per_group {
                let (other_block, other_feature) = self.place(other);
                if other_block == block {
                    sum += weight.data[o * per_group + other]
                        * d.data[(group * f + other_feature) * f + feature];
                }
            }
            sum * factors[group * (c / groups) + column / taps]
        });
        let shifted = Tensor::from_fn(&[self.outputs], |o| {
            let mut sum = bias.data[o];
            for column in 0..per_group {
                let (_, feature) = self.place(column);
                sum -= folded.data[o * per_group + column] * block_mean[o / outputs * f + feature];
            }
            sum
        });
        let g = Geometry {
            stride: self.geometry.stride,
            padding: self.geometry.padding,
            dilation: 1,
            groups,
        };
        reference::conv2d(&x, &folded, &shifted, g)
    }
}

/// Numbers in [-1, 1) that f32 holds exactly.
fn tensor(seed: u64, shape: &[usize]) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Tensor::from_fn(shape, |_| f64::from(rng.random::<f32>() * 2.0 - 1.0))
}

fn f32s(t: &Tensor) -> Vec<f32> {
    t.data.iter().map(|&v| v as f32).collect()
}

fn values(t: &Tensor) -> Init {
    Init::Values(Arc::new(f32s(t)))
}

fn close(name: &str, what: &str, actual: &[f32], expected: &[f32], tolerance: f64) {
    let (error, at) = support::relative_error(actual, expected);
    assert!(
        error <= tolerance,
        "{name}: {what}[{at}] is {}, not {}: error {error:.1e}",
        actual[at],
        expected[at]
    );
}

#[test]
fn steps_between_refreshes_and_their_gradients_in_float64() {
    let cases = cases();
    for case in &cases {
        let (d, var) = case.last_refresh();
        let x0 = tensor(1, &case.x_shape()).map(|v| v + 0.3);
        let weight0 = tensor(2, &case.weight_shape());
        let bias0 = tensor(3, &[case.outputs]);
        let g = Graph::new();
        g.state(
            "refresh_deconv",
            d.shape.clone(),
            Role::Optimizer,
            values(&d),
        );
        let with_eps = var.map(|v| v + f64::from(EPS));
        let of_layer = with_eps.data.iter().sum::<f64>() / with_eps.data.len() as f64;
        let scale = values(&with_eps.map(|v| (v * of_layer).powf(0.25)));
        g.state("refresh_scale", var.shape.clone(), Role::Optimizer, scale);
        g.preset("weight", case.weight_shape(), values(&weight0));
        g.preset("bias", [case.outputs], values(&bias0));
        let of = ["x", "weight", "bias"];
        let shape = case.append(&g, case.x_shape(), Mode::Between, &of);
        let seed0 = tensor(4, shape.dims());
        let inputs = [("x", f32s(&x0)), ("seed", f32s(&seed0))];
        let inputs = inputs.each_ref().map(|(n, v)| (*n, v.as_slice()));
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = Program::compile(&g, &mut store, support::compile_options()).unwrap();
        let out = program.run(&inputs).unwrap().values;
        let expected = case.reference(&x0, &weight0, &bias0);
        close(case.name, "y", &out["y"], &f32s(&expected), 1e-5);
        let running = store.read("running_deconv").unwrap();
        let expected = f32s(&case.running_deconv(&x0));
        close(case.name, "running_deconv", &running, &expected, 1e-6);
        let objective = |t: &[Tensor; 3]| {
            let y = case.reference(&t[0], &t[1], &t[2]);
            y.data
                .iter()
                .zip(&seed0.data)
                .map(|(a, b)| a * b)
                .sum::<f64>()
        };
        let mut at = [x0, weight0, bias0];
        for (i, name) in of.into_iter().enumerate() {
            let actual = &out[&format!("{name}_grad")];
            let largest = actual.iter().fold(0f32, |m, v| m.max(v.abs()));
            let len = actual.len();
            for j in 0..len.min(29) {
                let place = j * (len - 1) / (len.min(29) - 1).max(1);
                let value = at[i].data[place];
                let mut objective_at = |v: f64| {
                    at[i].data[place] = v;
                    objective(&at)
                };
                let slope = (objective_at(value + 1e-6) - objective_at(value - 1e-6)) / 2e-6;
                at[i].data[place] = value;
                let error = (f64::from(actual[place]) - slope).abs() / f64::from(largest);
                assert!(
                    error < 2e-5,
                    "{}: gradient of {name}[{place}] is {}, not {slope}",
                    case.name,
                    actual[place]
                );
            }
        }
    }
    support::report(&format!(
        "{} layers between refreshes in float64",
        cases.len()
    ));
}

/// A refresh is the layer as it is defined, and right after it, on the same images, nothing has changed. (Layers with
/// k 1 take the mean of a step between of all pixels, which here are the sampled ones too.)
#[test]
fn a_refresh_is_the_definition_and_the_step_after_it_the_same() {
    for case in cases() {
        let x0 = f32s(&tensor(1, &case.x_shape()).map(|v| v + 0.3));
        let run = |refresh: usize, modes: &[Mode]| {
            let mut store = Store::new(&support::gpu(), 1);
            let mut steps = Vec::new();
            for &mode in modes {
                let case = Case {
                    options: case.options.refresh(refresh),
                    ..case
                };
                let g = Graph::new();
                let shape = case.append(&g, case.x_shape(), mode, &["x", "weight"]);
                let seed0 = f32s(&tensor(4, shape.dims()));
                let options = support::compile_options();
                let mut program = Program::compile(&g, &mut store, options).unwrap();
                steps.push(program.run(&[("x", &x0), ("seed", &seed0)]).unwrap().values);
            }
            (steps, store)
        };
        let (exact, _) = run(1, &[Mode::Train]);
        let (steps, store) = run(4, &[Mode::Train, Mode::Between]);
        for name in ["y", "x_grad", "weight_grad"] {
            assert_eq!(steps[0][name], exact[0][name], "{}: {name}", case.name);
        }
        close(case.name, "y", &steps[1]["y"], &exact[0]["y"], 1e-5);
        let weight_grad = &exact[0]["weight_grad"];
        close(
            case.name,
            "weight_grad",
            &steps[1]["weight_grad"],
            weight_grad,
            1e-5,
        );
        // Two steps of the same images: .9^2 of the identity, the rest of the D that is kept.
        let running = store.read("running_deconv").unwrap();
        let kept = store.read("refresh_deconv").unwrap();
        let f = case.features();
        for (i, (running, kept)) in running.iter().zip(&kept).enumerate() {
            let identity = f32::from(u8::from(i / f % f == i % f));
            let expected = 0.81 * identity + 0.19 * kept;
            assert!(
                (running - expected).abs() < 1e-5,
                "{}: running_deconv[{i}] is {running}, not {expected}",
                case.name
            );
        }
    }
}

/// Twice the same images have the statistics of once: the layer gives each the same result, although D goes into the
/// patches of few images and into the weights for more, and few rows go by their Gram matrix.
#[test]
fn results_do_not_depend_on_the_side_that_is_computed() {
    let row = |x, outputs, kernel_size, padding, block, n_iter| Case {
        name: "either side",
        x,
        outputs,
        kernel_size,
        geometry: geometry(1, padding, 1),
        options: DeconvOptions {
            block,
            n_iter,
            sampling_stride: 1,
            ..DeconvOptions::default()
        },
    };
    let cases = [
        row([2, 16, 2, 2], 19, 3, 1, 8, 5),
        row([31, 16, 2, 2], 130, 3, 1, 8, 5),
        row([2, 6, 2, 3], 23, 3, 1, 3, 4),
        row([5, 30, 2, 2], 37, 1, 0, 30, 5),
        row([9, 40, 1, 1], 12, 0, 0, 20, 3),
    ];
    for case in cases {
        let once = f32s(&tensor(1, &case.x_shape()));
        let twice = [once.clone(), once.clone()].concat();
        let run = |x0: &[f32], images: usize| {
            let mut shape = case.x_shape();
            shape[0] = images;
            let g = Graph::new();
            let shape = case.append(&g, shape, Mode::Train, &["x", "weight"]);
            let len = shape.len();
            let mut dims = shape.dims().to_vec();
            assert_eq!(dims[0], images);
            dims[0] = case.x[0];
            let one = f32s(&tensor(4, &dims));
            let seed0: Vec<f32> = one.iter().copied().cycle().take(len).collect();
            support::run(&g, &[("x", x0), ("seed", &seed0)]).unwrap()
        };
        let few = run(&once, case.x[0]);
        let more = run(&twice, 2 * case.x[0]);
        let half = |name: &str| more[name][..more[name].len() / 2].to_vec();
        close(case.name, "y", &few["y"], &half("y"), 2e-5);
        close(case.name, "x_grad", &few["x_grad"], &half("x_grad"), 5e-5);
        let halved: Vec<f32> = more["weight_grad"].iter().map(|v| v / 2.0).collect();
        close(case.name, "weight_grad", &few["weight_grad"], &halved, 5e-5);
    }
}

#[test]
fn a_run_has_a_program_for_every_mode_it_comes_to() {
    let mut model = models::Model::new("cnn", models::Norm::Deconv, 10).unwrap();
    let cycles = [1, 2, 3, 8, 11]
        .into_iter()
        .flat_map(|refresh| [0, 1, 2, 7, 16].map(|after| (refresh, after)));
    for (refresh, after) in cycles {
        (model.deconv.refresh, model.deconv.refresh_after) = (refresh, after);
        for freeze_iter in [0, 1, 2, 5] {
            let freeze = FreezeCounter::new(freeze_iter);
            for steps in [1, 2, 3, 9, 40, 200] {
                let modes = model.modes(steps, freeze);
                for step in 0..steps {
                    let mode = model.mode(step, freeze);
                    assert!(
                        modes.contains(&mode),
                        "{refresh} {freeze_iter} {steps}: {mode:?}"
                    );
                    let is_exact = step < after || step % refresh as u64 == 0;
                    assert_eq!(mode.is_between(), !is_exact);
                    assert_eq!(mode.is_frozen(), freeze.mode(step) == Mode::TrainFrozen);
                }
            }
        }
    }
    model.norm = models::Norm::Batch;
    assert_eq!(model.modes(100, FreezeCounter::new(2)), [Mode::Train]);
}
