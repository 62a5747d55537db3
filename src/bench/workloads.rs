//! What is measured.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::peak::multiply_add;
use crate::Result;
use crate::autodiff::gradients_from;
use crate::figures::{SceneOptions, WhitenOptions, random_scene, scene_inputs};
use crate::graph::{Graph, Init, Tensor};
use crate::models::{Form, Model, Norm};
use crate::nn::{Loss, Mode};
use crate::ops::{Conv2dGeometry, CovGrad};
use crate::optim::{Optimizer, Sgd};
use crate::train::training_step;

/// What is timed: the steps of one graph, or of several in turn.
#[derive(Debug)]
pub struct Workload {
    /// For the table.
    pub name: String,
    /// Graphs of one store and how many steps each has, in the order of running. Most workloads have
    /// one graph and one step. Of several, every measurement is the mean over the steps of the cycle.
    pub cycle: Vec<(Graph, usize)>,
    /// Values by input name, the same for all graphs.
    pub inputs: Vec<(String, Vec<f32>)>,
    /// Images that a step trains on, if it does.
    pub images: Option<usize>,
    /// Name of the workload whose time this one's is divided by.
    pub compared_with: Option<String>,
}

impl Workload {
    /// The steps of one graph that has no inputs.
    pub fn new(name: impl Into<String>, graph: Graph) -> Self {
        Self {
            name: name.into(),
            cycle: vec![(graph, 1)],
            inputs: Vec::new(),
            images: None,
            compared_with: None,
        }
    }

    /// The steps of what `build` writes.
    fn of(name: impl Into<String>, build: impl FnOnce(&Graph)) -> Self {
        let g = Graph::new();
        build(&g);
        Self::new(name, g)
    }
}

/// Images of a step where nothing else is said.
pub(super) const BATCH: usize = 128;

/// Name of the workload that measures the adapter's peak.
pub(super) const PEAK: &str = "multiply-add peak";

/// Name of the workload that measures how fast memory is read and written.
pub(super) const STREAM: &str = "memory stream";

/// All workloads, in the order of the table.
///
/// # Errors
/// None but bugs.
pub fn workloads() -> Result<Vec<Workload>> {
    let mut all = vec![
        peak(),
        stream(),
        product(512, 512, 512),
        product(1024, 1024, 1024),
        product(128, 128, 784),
        product(144, 144, 144),
        gram(6400, 144),
        inverse_root(144),
        inverse_root(576),
    ];
    all.extend(convolutions("conv 64-128 forward", 1));
    all.extend(convolutions("conv stride 2 forward", 2));
    for norm in Norm::ALL {
        all.push(step("mlp", BATCH, norm, None)?);
    }
    all.extend(network_steps("cnn", BATCH)?);
    for (kernel_size, sampling_stride, blur) in [(3, 1, 0.0), (7, 1, 0.0), (7, 2, 0.0), (7, 1, 2.0)]
    {
        all.push(scene(kernel_size, sampling_stride, blur)?);
    }
    Ok(all)
}

/// A random state, so that its upload is not part of the step.
fn operand<'g>(g: &'g Graph, name: &str, shape: &[usize]) -> Tensor<'g> {
    g.parameter(name, shape, Init::Uniform(1.0))
}

/// Keeps `result` on the GPU as a state: written by its own kernel, nothing added.
fn keep(name: &str, result: Tensor<'_>) {
    let g = result.graph();
    let state = g.parameter(name, result.shape(), Init::Constant(0.0));
    state.assign(result);
}

pub(super) fn peak() -> Workload {
    // Enough invocations for any GPU, a few milliseconds of work on a CPU.
    Workload::of(PEAK, |g| {
        let x = operand(g, "x", &[1 << 16]);
        keep("y", multiply_add(x));
    })
}

/// 64 MiB, beyond the caches, read once and written once in place.
pub(super) fn stream() -> Workload {
    Workload::of(STREAM, |g| {
        let x = operand(g, "x", &[1 << 24]);
        x.assign(x.affine(0.5, 1.0));
    })
}

pub(super) fn product(m: usize, n: usize, k: usize) -> Workload {
    let name = if m == n && n == k {
        format!("matmul {m}^3")
    } else {
        format!("matmul {m}x{n}x{k}")
    };
    Workload::of(name, |g| {
        let a = operand(g, "a", &[m, k]);
        let b = operand(g, "b", &[k, n]);
        keep("c", a.matmul(b));
    })
}

fn gram(rows: usize, features: usize) -> Workload {
    Workload::of(format!("covariance {rows}x{features}"), |g| {
        let x = operand(g, "x", &[1, rows, features]);
        keep("c", x.covariance(1e-5));
    })
}

pub(super) fn inverse_root(features: usize) -> Workload {
    Workload::of(format!("newton_schulz {features} f+b"), |g| {
        let x = operand(g, "x", &[1, 4 * features, features]);
        let cov = x.covariance(1e-5);
        let deconv = cov.newton_schulz(5, CovGrad::Symmetric);
        let grads = gradients_from(&[(deconv, cov)], &[cov]);
        keep("deconv", deconv);
        keep("cov_grad", grads[0]);
    })
}

/// 64 to 128 channels, 3x3, on 32 images of 16x16: forward, input gradient, weight gradient.
pub(super) fn convolutions(forward: &'static str, stride: usize) -> [Workload; 3] {
    ["forward", "input grad", "weight grad"].map(|direction| {
        let mut workload = Workload::of(forward.replace("forward", direction), |g| {
            let x = operand(g, "x", &[32, 64, 16, 16]);
            let weight = operand(g, "weight", &[128, 64, 3, 3]);
            let y_grad = operand(g, "y_grad", &[32, 128, 16 / stride, 16 / stride]);
            let geometry = Conv2dGeometry {
                stride,
                padding: 1,
                ..Conv2dGeometry::default()
            };
            let y = x.conv2d(weight, None, geometry);
            let wanted = match direction {
                "forward" => y,
                "input grad" => gradients_from(&[(y, y_grad)], &[x])[0],
                _ => gradients_from(&[(y, y_grad)], &[weight])[0],
            };
            keep("result", wanted);
        });
        workload.compared_with = (direction != "forward").then(|| forward.to_string());
        workload
    })
}

/// What the window computes and paints for each position of its sliders.
fn scene(kernel_size: usize, sampling_stride: usize, blur: f32) -> Result<Workload> {
    let options = SceneOptions {
        kernel_size,
        statistics: WhitenOptions {
            sampling_stride,
            ..WhitenOptions::default()
        },
        blur,
        ..SceneOptions::default()
    };
    let inputs = scene_inputs(&options).into_iter();
    let blurred = if blur > 0.0 { " blur" } else { "" };
    let sampled = if sampling_stride > 1 { " sampled" } else { "" };
    let name = format!("scene 640x480 k {kernel_size}{sampled}{blurred}");
    Ok(Workload {
        inputs: inputs.map(|(n, v)| (n.to_string(), v)).collect(),
        ..Workload::new(name, random_scene([3, 480, 640], &options)?)
    })
}

/// What a network is normalised by in [`network_steps`]: every norm, deconvolution in blocks of 16 (the
/// paper's text) and of 64 (its code).
pub(super) const NORMS: [(Norm, Option<usize>); 5] = [
    (Norm::None, None),
    (Norm::Batch, None),
    (Norm::Channel, None),
    (Norm::Deconv, Some(16)),
    (Norm::Deconv, Some(64)),
];

/// Steps from one covariance and D to the next in the rows of [`network_steps`] that say so.
const REFRESH: usize = 8;

/// Training steps of a network at a batch size, with every norm; of deconvolution also the mean over a whole
/// cycle of `--refresh 8`.
///
/// # Errors
/// [`crate::Error::Config`] if there is no such network.
pub fn network_steps(network: &str, batch_size: usize) -> Result<Vec<Workload>> {
    let of = |(norm, block)| step(network, batch_size, norm, block);
    let mut all = NORMS.into_iter().map(of).collect::<Result<Vec<_>>>()?;
    for block in [16, 64] {
        all.push(cycle(network, batch_size, block)?);
    }
    Ok(all)
}

/// A refresh and the steps to the next, compared as [`step`] is.
fn cycle(network: &str, batch_size: usize, block: usize) -> Result<Workload> {
    let exact = step(network, batch_size, Norm::Deconv, Some(block))?;
    let graph = |mode| {
        let row = (Norm::Deconv, Some(block));
        training_graph(network, None, batch_size, row, REFRESH, mode)
    };
    Ok(Workload {
        name: format!("{} refresh {REFRESH}", exact.name),
        cycle: vec![
            (graph(Mode::Train)?, 1),
            (graph(Mode::Between)?, REFRESH - 1),
        ],
        ..exact
    })
}

/// What a training step is called in the table: "vgg11 step deconv 64", "vgg11 at 16 batch".
pub(super) fn step_name(
    network: &str,
    batch_size: usize,
    norm: Norm,
    block: Option<usize>,
) -> String {
    let at = match batch_size {
        BATCH => "step".into(),
        _ => format!("at {batch_size}"),
    };
    format!("{network} {at} {}", norm_name(norm, block))
}

/// "batch", "deconv 64".
pub(super) fn norm_name(norm: Norm, block: Option<usize>) -> String {
    match block {
        Some(block) => format!("{} {block}", norm.name()),
        None => norm.name().into(),
    }
}

/// The graph of a training step on images of the network's usual size, or of `form`'s.
pub(super) fn step_graph(
    network: &str,
    form: Option<Form>,
    batch_size: usize,
    norm: Norm,
    block: Option<usize>,
) -> Result<Graph> {
    training_graph(network, form, batch_size, (norm, block), 1, Mode::Train)
}

fn training_graph(
    network: &str,
    form: Option<Form>,
    batch_size: usize,
    (norm, block): (Norm, Option<usize>),
    refresh: usize,
    mode: Mode,
) -> Result<Graph> {
    let mut model = Model::new(network, norm, 0)?;
    model.deconv.refresh = refresh;
    let ([c, h, w], classes) = model.network.usual_images(form);
    model.form = form;
    model.classes = classes;
    model.deconv.block = block.unwrap_or(model.deconv.block);
    let optimizer = Optimizer::from(Sgd::default().momentum(0.9));
    let loss = Loss::CrossEntropy { smoothing: 0.0 };
    let shape = [batch_size, c, h, w];
    training_step(&model, loss, &optimizer, shape, mode)
}

/// A training step on images of the network's usual size, compared with that of batch norm.
pub(super) fn step(
    network: &str,
    batch_size: usize,
    norm: Norm,
    block: Option<usize>,
) -> Result<Workload> {
    let graph = step_graph(network, None, batch_size, norm, block)?;
    Ok(Workload {
        inputs: step_inputs(network, batch_size)?,
        images: Some(batch_size),
        compared_with: (norm != Norm::Batch)
            .then(|| step_name(network, batch_size, Norm::Batch, None)),
        ..Workload::new(step_name(network, batch_size, norm, block), graph)
    })
}

/// What a training step takes: random images, labels in turn, a small learning rate.
fn step_inputs(network: &str, batch_size: usize) -> Result<Vec<(String, Vec<f32>)>> {
    let ([c, h, w], classes) = crate::models::network(network)?.usual_images(None);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let len = batch_size * c * h * w;
    let images = (0..len).map(|_| rng.random::<f32>()).collect();
    let labels = (0..batch_size).map(|i| (i % classes) as f32).collect();
    Ok(vec![
        ("images".into(), images),
        ("labels".into(), labels),
        ("lr".into(), vec![1e-3]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_compared_with_those_of_batch_norm() {
        let against = |norm| step("mlp", 4, norm, None).unwrap().compared_with;
        let batch = step("mlp", 4, Norm::Batch, None).unwrap().name;
        assert_eq!(against(Norm::Batch), None);
        assert_eq!(against(Norm::Deconv), Some(batch.clone()));
        assert_eq!(against(Norm::None), Some(batch));
    }

    /// D is computed in the first step of a cycle alone; the others take what it keeps.
    #[test]
    fn a_cycle_refreshes_in_its_first_step() {
        let cycle = cycle("cnn", 2, 16).unwrap();
        assert!(
            cycle.name.ends_with("deconv 16 refresh 8"),
            "{}",
            cycle.name
        );
        let counts: Vec<usize> = cycle.cycle.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 7]);
        let exact = step_graph("cnn", None, 2, Norm::Deconv, Some(16)).unwrap();
        let [of_first, of_others, of_exact] =
            [&cycle.cycle[0].0, &cycle.cycle[1].0, &exact].map(|graph| {
                let list = graph.checked().unwrap();
                let kept = list
                    .states()
                    .keys()
                    .filter(|s| s.ends_with(".refresh_deconv"));
                let computed = list.nodes().iter().filter(|n| n.name.ends_with(".cov"));
                (kept.count(), computed.count())
            });
        // A first convolution refreshes in every step.
        let layers = of_exact.1;
        assert_eq!(of_exact, (0, 4));
        assert_eq!(of_first, (layers - 1, layers));
        assert_eq!(of_others, (layers - 1, 1));
    }
}
