//! What is measured.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::peak::multiply_add;
use crate::Result;
use crate::autodiff::gradients_from;
use crate::figures::{SceneOptions, Statistics, random_scene, scene_inputs};
use crate::graph::{Graph, Init, TensorId};
use crate::models::{Model, Norm};
use crate::nn::{Loss, Mode};
use crate::ops::{
    Conv2dGeometry, CovGrad, Transpose, affine, conv2d, covariance, matmul, newton_schulz,
};
use crate::optim::{Optimizer, Sgd};
use crate::train::training_step;

/// A graph with values for its inputs.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For the table.
    pub name: String,
    /// The step.
    pub graph: Graph,
    /// Values by input name.
    pub inputs: Vec<(String, Vec<f32>)>,
    /// Name of the workload whose time this one's is divided by.
    pub compared_with: Option<String>,
}

impl Workload {
    /// As a program takes them.
    pub(super) fn inputs(&self) -> Vec<(&str, &[f32])> {
        let pairs = self.inputs.iter();
        pairs.map(|(n, v)| (n.as_str(), v.as_slice())).collect()
    }
}

/// Images of a step where nothing else is said.
const BATCH: usize = 128;

/// Name of the workload that measures the adapter's peak.
pub(super) const PEAK: &str = "multiply-add peak";

/// All workloads, in the order of the table.
///
/// # Errors
/// None but bugs.
pub fn workloads() -> Result<Vec<Workload>> {
    let mut all = vec![
        peak()?,
        stream()?,
        product(512, 512, 512)?,
        product(1024, 1024, 1024)?,
        product(128, 128, 784)?,
        product(144, 144, 144)?,
        gram(6400, 144)?,
        inverse_root(144)?,
        inverse_root(576)?,
    ];
    all.extend(convolutions("conv 64-128 forward", 1)?);
    all.extend(convolutions("conv stride 2 forward", 2)?);
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
fn operand(g: &mut Graph, name: &str, shape: &[usize]) -> Result<TensorId> {
    g.parameter(name, shape, Init::Uniform(1.0))
}

/// One number is read back, so that the result is used but its transfer is not measured.
fn finish(mut g: Graph, name: String, results: &[TensorId]) -> Workload {
    for (i, &result) in results.iter().enumerate() {
        g.output(&format!("result{i}"), result);
    }
    Workload {
        name,
        graph: g,
        inputs: vec![],
        compared_with: None,
    }
}

/// Keeps `result` on the GPU as a state: written by its own kernel, nothing added.
fn keep(g: &mut Graph, name: &str, result: TensorId) -> Result<()> {
    let shape = g.shape(result).clone();
    let state = g.parameter(name, shape, Init::Constant(0.0))?;
    g.assign(state, result)
}

pub(super) fn peak() -> Result<Workload> {
    // Enough invocations for any GPU, a few milliseconds of work on a CPU.
    let mut g = Graph::new();
    let x = operand(&mut g, "x", &[1 << 16])?;
    let y = multiply_add(&mut g, x)?;
    keep(&mut g, "y", y)?;
    Ok(finish(g, PEAK.into(), &[]))
}

/// 64 MiB, beyond the caches, read once and written once in place.
fn stream() -> Result<Workload> {
    let mut g = Graph::new();
    let x = operand(&mut g, "x", &[1 << 24])?;
    let y = affine(&mut g, x, 0.5, 1.0)?;
    g.assign(x, y)?;
    Ok(finish(g, "memory stream".into(), &[]))
}

fn product(m: usize, n: usize, k: usize) -> Result<Workload> {
    let mut g = Graph::new();
    let a = operand(&mut g, "a", &[m, k])?;
    let b = operand(&mut g, "b", &[k, n])?;
    let c = matmul(&mut g, a, b, Transpose::default())?;
    keep(&mut g, "c", c)?;
    let name = if m == n && n == k {
        format!("matmul {m}^3")
    } else {
        format!("matmul {m}x{n}x{k}")
    };
    Ok(finish(g, name, &[]))
}

fn gram(rows: usize, features: usize) -> Result<Workload> {
    let mut g = Graph::new();
    let x = operand(&mut g, "x", &[1, rows, features])?;
    let cov = covariance(&mut g, x, 1e-5)?;
    keep(&mut g, "c", cov)?;
    Ok(finish(g, format!("covariance {rows}x{features}"), &[]))
}

fn inverse_root(features: usize) -> Result<Workload> {
    let mut g = Graph::new();
    let x = operand(&mut g, "x", &[1, 4 * features, features])?;
    let cov = covariance(&mut g, x, 1e-5)?;
    let deconv = newton_schulz(&mut g, cov, 5, CovGrad::Symmetric)?;
    let grads = gradients_from(&mut g, &[(deconv, cov)], &[cov])?;
    keep(&mut g, "deconv", deconv)?;
    keep(&mut g, "cov_grad", grads[0])?;
    Ok(finish(g, format!("newton_schulz {features} f+b"), &[]))
}

/// 64 to 128 channels, 3x3, on 32 images of 16x16: forward, input gradient, weight gradient.
fn convolutions(forward: &'static str, stride: usize) -> Result<Vec<Workload>> {
    let mut all = Vec::new();
    for direction in ["forward", "input grad", "weight grad"] {
        let mut g = Graph::new();
        let x = operand(&mut g, "x", &[32, 64, 16, 16])?;
        let weight = operand(&mut g, "weight", &[128, 64, 3, 3])?;
        let y_grad = operand(&mut g, "y_grad", &[32, 128, 16 / stride, 16 / stride])?;
        let geometry = Conv2dGeometry {
            stride,
            padding: 1,
            ..Conv2dGeometry::default()
        };
        let y = conv2d(&mut g, x, weight, None, geometry)?;
        let wanted = match direction {
            "forward" => y,
            "input grad" => gradients_from(&mut g, &[(y, y_grad)], &[x])?[0],
            _ => gradients_from(&mut g, &[(y, y_grad)], &[weight])?[0],
        };
        keep(&mut g, "result", wanted)?;
        let name = forward.replace("forward", direction);
        let mut workload = finish(g, name, &[]);
        workload.compared_with = (direction != "forward").then(|| forward.to_string());
        all.push(workload);
    }
    Ok(all)
}

/// What the window computes and paints for each position of its sliders.
fn scene(kernel_size: usize, sampling_stride: usize, blur: f32) -> Result<Workload> {
    let options = SceneOptions {
        kernel_size,
        statistics: Statistics {
            sampling_stride,
            ..Statistics::default()
        },
        blur,
        ..SceneOptions::default()
    };
    let inputs = scene_inputs(&options).into_iter();
    let blurred = if blur > 0.0 { " blur" } else { "" };
    let sampled = if sampling_stride > 1 { " sampled" } else { "" };
    Ok(Workload {
        name: format!("scene 640x480 k {kernel_size}{sampled}{blurred}"),
        graph: random_scene([3, 480, 640], &options)?,
        inputs: inputs.map(|(n, v)| (n.to_string(), v)).collect(),
        compared_with: None,
    })
}

/// Training steps of a network at a batch size: every norm, deconvolution in blocks of 16 (the paper's
/// text) and of 64 (its code).
///
/// # Errors
/// [`crate::Error::Config`] if there is no such network.
pub fn network_steps(network: &str, batch_size: usize) -> Result<Vec<Workload>> {
    let of = |norm: Norm, block| step(network, batch_size, norm, block);
    Ok(vec![
        of(Norm::None, None)?,
        of(Norm::Batch, None)?,
        of(Norm::Channel, None)?,
        of(Norm::Deconv, Some(16))?,
        of(Norm::Deconv, Some(64))?,
    ])
}

/// A training step on images of the network's usual size, compared with that of batch norm.
fn step(network: &str, batch_size: usize, norm: Norm, block: Option<usize>) -> Result<Workload> {
    let mut model = Model::new(network, norm, 0)?;
    let ([c, h, w], classes) = model.network.usual_images(None);
    model.classes = classes;
    model.deconv.block = block.unwrap_or(model.deconv.block);
    let optimizer = Optimizer::Sgd(Sgd {
        momentum: 0.9,
        ..Sgd::default()
    });
    let loss = Loss::CrossEntropy { smoothing: 0.0 };
    let shape = [batch_size, c, h, w];
    let graph = training_step(&model, loss, &optimizer, shape, Mode::Train)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let len: usize = shape.iter().product();
    let images = (0..len).map(|_| rng.random::<f32>()).collect();
    let labels = (0..batch_size).map(|i| (i % classes) as f32).collect();
    let name = |norm: Norm| match batch_size {
        BATCH => format!("{network} step {}", norm.name()),
        _ => format!("{network} at {batch_size} {}", norm.name()),
    };
    Ok(Workload {
        name: match block {
            Some(block) => format!("{} {block}", name(norm)),
            None => name(norm),
        },
        graph,
        inputs: vec![
            ("images".into(), images),
            ("labels".into(), labels),
            ("lr".into(), vec![1e-3]),
        ],
        compared_with: (norm != Norm::Batch).then(|| name(Norm::Batch)),
    })
}
