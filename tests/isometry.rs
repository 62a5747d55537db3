//! What is measured of the layers of a network (section 3.2), against float64: formulas written anew, gradients by
//! differences, eigenvalues by rotations.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use decorr::Error;
use decorr::graph::{Graph, Kind};
use decorr::models::{Model, Norm};
use decorr::nn::{Mode, resolve_block};
use decorr::train::checkpoint::{self, HostTensor, Tensors};
use decorr::train::isometry::{LayerIsometry, Map, Scale, Spectrum, isometry};
use decorr::train::{Start, TrainConfig, TrainOptions, train};
use support::pictures::CIFAR_LEN;
use support::reference::{self, Geometry, Tensor};

/// Of a value that was computed in float32, with margin.
const TOLERANCE: f64 = 2e-4;

const SAME: Geometry = Geometry {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

/// The constants of `data` mnist, from the paper's code.
const MEAN: f64 = 0.1307;
const STD: f64 = 0.3081;

/// In [-1, 1), from `i`.
fn noise(i: usize) -> f64 {
    f64::from(reference::pcg(i as u32)) / f64::from(1u32 << 31) - 1.0
}

/// Pixel p of image i: neighbours are alike.
fn pixel(i: usize, p: usize) -> u8 {
    let smooth = 90.0 * ((p as f64 * 0.31 + i as f64).sin() + 1.0);
    (smooth + 30.0 * (noise(1000 * i + p) + 1.0)) as u8
}

fn label(i: usize) -> usize {
    (7 * i + i / 3) % 10
}

/// Writes `count` images in the form of MNIST, of the sizes of training and test images.
fn write_images(dir: &Path, count: usize, [h, w]: [usize; 2]) {
    let size = |n: usize| (n as u32).to_be_bytes();
    let pixels = (0..count).flat_map(|i| (0..h * w).map(move |p| pixel(i, p)));
    let mut images = [[0, 0, 8, 3], size(count), size(h), size(w)].concat();
    images.extend(pixels);
    let mut labels = [[0, 0, 8, 1], size(count)].concat();
    labels.extend((0..count).map(|i| label(i) as u8));
    for split in ["train", "t10k"] {
        let file = |what: &str| dir.join(format!("{split}-{what}-ubyte"));
        fs::write(file("images-idx3"), &images).unwrap();
        fs::write(file("labels-idx1"), &labels).unwrap();
    }
}

/// The options that say which network a file is of, and its data.
fn options(model: &str, norm: Norm, width: f64, data: &str, dir: &Path) -> TrainOptions {
    TrainOptions {
        model: Some(model.into()),
        norm: Some(norm),
        width: Some(width as f32),
        data: Some(data.into()),
        data_dir: Some(dir.to_path_buf()),
        ..TrainOptions::default()
    }
}

/// A file with weights for images of `shape`, and what it has.
fn write_weights(path: &Path, model: &Model, shape: [usize; 3]) -> Tensors {
    let g = Graph::new();
    let [c, h, w] = shape;
    model.forward(g.input("images", [2, c, h, w]), Mode::Eval);
    g.check().unwrap();
    let mut tensors = Tensors::new();
    for node in g.list().nodes() {
        let Kind::State(state) = &node.kind else {
            continue;
        };
        assert!(checkpoint::MODEL.contains(&state.role), "{}", node.name);
        let shape = node.shape.dims().to_vec();
        let fan: usize = shape[1..].iter().product();
        let centre = f64::from(u8::from(
            node.name.contains("running_var") || shape.len() == 1,
        ));
        let seed = tensors.len() * 100_000;
        let value = |i: usize| (centre + noise(seed + i) / (fan as f64).sqrt()) as f32;
        let data = (0..shape.iter().product()).map(value).collect();
        tensors.insert(node.name.clone(), HostTensor { shape, data });
    }
    checkpoint::save(path, &tensors, &BTreeMap::new()).unwrap();
    tensors
}

/// What the reference knows of a layer.
struct Measured {
    name: String,
    /// [rows, features] of the patches before a norm.
    before: Tensor,
    /// [rows, features].
    z: Tensor,
    /// [N, O, H, W] or [N, O].
    y: Tensor,
}

/// cnn or mlp in float64.
struct Net {
    weights: Tensors,
    norm: Norm,
    is_cnn: bool,
    /// Channels of a convolution that are deconvolved together.
    block: usize,
    labels: Vec<f64>,
}

impl Net {
    fn tensor(&self, name: &str) -> Tensor {
        let of = &self.weights[name];
        let data = of.data.iter().map(|&v| f64::from(v)).collect();
        Tensor::new(&of.shape, data)
    }

    fn layers(&self) -> usize {
        4
    }

    fn is_conv(&self, i: usize) -> bool {
        self.is_cnn && i < 3
    }

    fn layer_name(&self, i: usize) -> String {
        match (self.is_cnn, i) {
            (true, 3) => "fc".into(),
            (true, _) => format!("conv{}", i + 1),
            (false, _) => format!("fc{}", i + 1),
        }
    }

    /// Before layer `i`, of `x`: patches before its norm, those after it, and its result.
    fn layer(&self, i: usize, x: &Tensor) -> Measured {
        let name = self.layer_name(i);
        let given = match self.norm {
            Norm::Channel => channel_deconvolved(x),
            _ => x.clone(),
        };
        let patches = |x: &Tensor, stride: usize| match self.is_conv(i) {
            true => reference::im2col(x, [3, 3], Geometry { stride, ..SAME }),
            false => x.clone(),
        };
        let (before, mut z) = (patches(x, 1), patches(&given, 1));
        if self.norm == Norm::Deconv {
            let n_iter = if self.is_conv(i) && i == 0 { 15 } else { 5 };
            let sampled = if self.is_conv(i) {
                patches(x, 3)
            } else {
                x.clone()
            };
            let columns = z.shape[1];
            let block = match self.is_conv(i) {
                true => 9 * resolve_block(self.block, columns / 9),
                false => resolve_block(512, columns),
            };
            // Blocks of a row lie one after the other.
            let by_block = |t: &Tensor| t.reshape(&[t.data.len() / block, block]);
            let (mean, deconv) = statistics(&by_block(&sampled), 1e-5, n_iter);
            let centred = by_block(&z).zip(&mean, |z, m| z - m);
            z = reference::matmul(&centred, &deconv, false, false).reshape(&z.shape);
        }
        let weight = self.tensor(&format!("{name}.weight"));
        let outputs = weight.shape[0];
        let weight = weight.reshape(&[outputs, z.shape[1]]);
        let mut y = reference::matmul(&z, &weight, false, true).reshape(&[z.shape[0], outputs]);
        if self.weights.contains_key(&format!("{name}.bias")) {
            let bias = self.tensor(&format!("{name}.bias")).reshape(&[1, outputs]);
            y = y.zip(&bias, |y, b| y + b);
        }
        if self.is_conv(i) {
            let (n, h, w) = (x.shape[0], x.shape[2], x.shape[3]);
            y = y.reshape(&[n, h, w, outputs]).permute(&[0, 3, 1, 2]);
        }
        Measured { name, before, z, y }
    }

    /// The input of the layer after `i`, by the result of this one.
    fn input_after(&self, i: usize, y: &Tensor) -> Tensor {
        let mut y = y.clone();
        if self.norm == Norm::Batch {
            let parameter = |name: &str| {
                let of = self.tensor(&format!("norm{}.{name}", i + 1));
                let mut shape = vec![1; y.shape.len()];
                shape[1] = of.data.len();
                of.reshape(&shape)
            };
            let (weight, bias) = (parameter("weight"), parameter("bias"));
            y = reference::batch_norm(&y, &weight, &bias, 1e-5);
        }
        if !self.is_cnn {
            return y.map(|v| 1.0 / (1.0 + (-v).exp()));
        }
        let halve = Geometry {
            stride: 2,
            padding: 0,
            ..SAME
        };
        let pooled = reference::pool(&y.map(|v| v.max(0.0)), 2, halve, true);
        match i {
            2 => {
                let images = pooled.shape[0];
                pooled.reshape(&[images, pooled.data.len() / images])
            }
            _ => pooled,
        }
    }

    /// The mean loss, by the result of layer `i`.
    fn loss_after(&self, i: usize, y: &Tensor) -> f64 {
        if i + 1 == self.layers() {
            let losses = reference::cross_entropy(y, &self.labels, 0.0);
            return losses.data.iter().sum::<f64>() / losses.data.len() as f64;
        }
        let next = self.layer(i + 1, &self.input_after(i, y));
        self.loss_after(i + 1, &next.y)
    }

    fn measure(&self, images: &Tensor) -> Vec<Measured> {
        let mut x = images.clone();
        if !self.is_cnn {
            x = x.reshape(&[images.shape[0], images.data.len() / images.shape[0]]);
        }
        let mut layers = Vec::new();
        for i in 0..self.layers() {
            let layer = self.layer(i, &x);
            if i + 1 < self.layers() {
                x = self.input_after(i, &layer.y);
            }
            layers.push(layer);
        }
        layers
    }

    /// dLoss / dz of layer `i` times the images: the gradient of its result, by differences, times its weight.
    fn z_grad(&self, i: usize, layer: &Measured) -> Tensor {
        let mut y = layer.y.clone();
        let step = 1e-5;
        let mut loss_with = |k: usize, value: f64| {
            let before = std::mem::replace(&mut y.data[k], value);
            let loss = self.loss_after(i, &y);
            y.data[k] = before;
            loss
        };
        let images = self.labels.len() as f64;
        let values = (0..layer.y.data.len()).map(|k| {
            let at = layer.y.data[k];
            images * (loss_with(k, at + step) - loss_with(k, at - step)) / (2.0 * step)
        });
        let grad = Tensor::new(&layer.y.shape, values.collect());
        let weight = self.tensor(&format!("{}.weight", layer.name));
        let outputs = weight.shape[0];
        let weight = weight.reshape(&[outputs, weight.data.len() / outputs]);
        let rows = match self.is_conv(i) {
            true => grad.permute(&[0, 2, 3, 1]),
            false => grad,
        };
        let rows = rows.reshape(&[rows.data.len() / outputs, outputs]);
        let grads = reference::matmul(&rows, &weight, false, false);
        grads.reshape(&layer.z.shape)
    }
}

/// [1, columns]: the mean of the rows.
fn mean(rows: &Tensor) -> Tensor {
    let count = rows.shape[0] as f64;
    rows.sum_to(&[1, rows.shape[1]]).map(|v| v / count)
}

/// [columns, columns], with eps.
fn covariance(rows: &Tensor, eps: f64) -> Tensor {
    let (count, columns) = (rows.shape[0], rows.shape[1]);
    let centred = rows.zip(&mean(rows), |x, m| x - m);
    let cov = reference::covariance(&centred.reshape(&[1, count, columns]), eps);
    cov.reshape(&[columns, columns])
}

/// Mean and D of rows.
fn statistics(rows: &Tensor, eps: f64, n_iter: usize) -> (Tensor, Tensor) {
    let cov = covariance(rows, eps);
    let f = cov.shape[0];
    let deconv = reference::newton_schulz(&cov.reshape(&[1, f, f]), n_iter);
    (mean(rows), deconv.reshape(&[f, f]))
}

/// Of fewer channels than a block, by every 9th pixel.
fn channel_deconvolved(x: &Tensor) -> Tensor {
    let (n, c) = (x.shape[0], x.shape[1]);
    let pixels = x.data.len() / n / c;
    let is_sampled = x.shape.len() == 4 && x.shape[2] >= 3 && x.shape[3] >= 3;
    let by_pixel = x.reshape(&[n, c, pixels]).permute(&[0, 2, 1]);
    let by_pixel = by_pixel.reshape(&[n * pixels, c]);
    let step = if is_sampled { 9 } else { 1 };
    let sample = by_pixel.slice(0, 0, step, (n * pixels).div_ceil(step));
    let (mean, deconv) = statistics(&sample, 1e-2, 5);
    let centred = by_pixel.zip(&mean, |x, m| x - m);
    let white = reference::matmul(&centred, &deconv, false, false);
    let white = white.reshape(&[n, pixels, c]).permute(&[0, 2, 1]);
    white.reshape(&x.shape)
}

/// Eigenvalues of a symmetric matrix, the smallest first, by Jacobi's rotations.
fn eigenvalues(matrix: &Tensor) -> Vec<f64> {
    let n = matrix.shape[0];
    let mut a = matrix.data.clone();
    for _ in 0..30 {
        for p in 0..n {
            for q in p + 1..n {
                let angle = 0.5 * (2.0 * a[p * n + q]).atan2(a[p * n + p] - a[q * n + q]);
                let (sin, cos) = angle.sin_cos();
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (cos * x + sin * y, cos * y - sin * x);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (cos * x + sin * y, cos * y - sin * x);
                }
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|i| a[i * n + i]).collect();
    values.sort_by(f64::total_cmp);
    values
}

#[track_caller]
fn near(what: &str, found: f64, wanted: f64, tolerance: f64) {
    let error = (found - wanted).abs();
    assert!(
        error <= tolerance * wanted.abs().max(1e-9),
        "{what}: {found}, not {wanted}"
    );
}

#[track_caller]
fn check_scale(what: &str, found: Scale, rows: &Tensor) {
    let square = rows.data.iter().map(|v| v * v).sum::<f64>() / rows.data.len() as f64;
    near(&format!("{what} rms"), found.rms, square.sqrt(), TOLERANCE);
    let cov = covariance(rows, 0.0);
    let columns = cov.shape[0];
    let variance = (0..columns).map(|i| cov.data[i * columns + i]).sum::<f64>() / columns as f64;
    let variance_name = format!("{what} variance");
    near(&variance_name, found.variance, variance, 2.0 * TOLERANCE);
}

/// Rounding in float32 adds some 1e-7 of the largest to activations: to small ones, whose squares are the eigenvalues, by so
/// much more as they are smaller.
#[track_caller]
fn check_spectrum(what: &str, found: Spectrum, rows: &Tensor) {
    let values = eigenvalues(&covariance(rows, 0.0));
    let largest = values[values.len() - 1];
    let others: Vec<f64> = values
        .into_iter()
        .filter(|v| *v > 1e-12 * largest)
        .collect();
    assert_eq!(found.rank, others.len(), "{what}");
    let sum: f64 = others.iter().sum();
    let squares: f64 = others.iter().map(|v| v * v).sum();
    let effective = format!("{what} effective rank");
    near(&effective, found.effective_rank, sum * sum / squares, 1e-3);
    let condition = largest / others[0];
    let tolerance = 2e-3 + 1e-5 * condition.sqrt();
    assert!(tolerance < 0.1, "{what}: {condition}");
    near(
        &format!("{what} condition"),
        found.condition.unwrap(),
        condition,
        tolerance,
    );
}

/// The map in least squares with its ridge, by Gaussian elimination.
fn expected_map(a: &Tensor, b: &Tensor) -> (Vec<f64>, f64) {
    let centred = |t: &Tensor| t.zip(&mean(t), |x, m| x - m);
    let (a, b) = (centred(a), centred(b));
    let (inputs, outputs) = (a.shape[1], b.shape[1]);
    let mut gram = reference::matmul(&a, &a, true, false).data;
    let ridge = 1e-6 * (0..inputs).map(|i| gram[i * inputs + i]).sum::<f64>();
    for i in 0..inputs {
        gram[i * inputs + i] += ridge;
    }
    let mut x = reference::matmul(&a, &b, true, false).data;
    for i in 0..inputs {
        let pivot = gram[i * inputs + i];
        for r in (0..inputs).filter(|&r| r != i) {
            let factor = gram[r * inputs + i] / pivot;
            for c in 0..inputs {
                gram[r * inputs + c] -= factor * gram[i * inputs + c];
            }
            for c in 0..outputs {
                x[r * outputs + c] -= factor * x[i * outputs + c];
            }
        }
    }
    for (row, values) in x.chunks_exact_mut(outputs).enumerate() {
        values
            .iter_mut()
            .for_each(|v| *v /= gram[row * inputs + row]);
    }
    let map = Tensor::new(&[inputs, outputs], x);
    let given = reference::matmul(&a, &map, false, false).reshape(&b.shape);
    let square = |t: &Tensor| t.data.iter().map(|v| v * v).sum::<f64>();
    let rest = square(&given.zip(&b, |g, b| g - b));
    let of_outputs = outputs < inputs;
    let squares = reference::matmul(&map, &map, of_outputs, !of_outputs);
    let n = inputs.min(outputs);
    let values = eigenvalues(&squares.reshape(&[n, n]));
    let values = values.into_iter().map(|v| v.max(0.0).sqrt()).collect();
    (values, 1.0 - rest / square(&b))
}

#[track_caller]
fn check_map(what: &str, found: Map, a: &Tensor, b: &Tensor) {
    let sizes = [found.rows, found.inputs, found.outputs];
    assert_eq!(sizes, [a.shape[0], a.shape[1], b.shape[1]], "{what}");
    let (values, explained) = expected_map(a, b);
    let last = values.len() - 1;
    near(
        &format!("{what} largest"),
        found.largest,
        values[last],
        2e-3,
    );
    let middle = values[values.len() / 2];
    near(&format!("{what} median"), found.median, middle, 5e-3);
    let error = (found.smallest - values[0]).abs();
    assert!(
        error < 2e-3 * middle + 1e-4,
        "{what} smallest: {found:?}, {}",
        values[0]
    );
    near(
        &format!("{what} spread"),
        found.spread(),
        values[last] / middle,
        1e-2,
    );
    near(
        &format!("{what} explained"),
        found.explained,
        explained,
        2e-3,
    );
}

/// Images as the network takes them.
fn normalised(count: usize, [h, w]: [usize; 2]) -> Tensor {
    let value = |k: usize| (f64::from(pixel(k / (h * w), k % (h * w))) / 255.0 - MEAN) / STD;
    Tensor::from_fn(&[count, 1, h, w], value)
}

/// Measures a network of `model` with written weights and compares all but maps, gradients if `has_grads`.
fn check(
    model: &str,
    norm: Norm,
    width: f64,
    size: [usize; 2],
    count: usize,
    has_grads: bool,
) -> (Vec<LayerIsometry>, Vec<Measured>) {
    let dir = tempfile::tempdir().unwrap();
    // Of more images the first are taken.
    write_images(dir.path(), count + 3, size);
    let options = options(model, norm, width, "mnist", dir.path());
    let file = dir.path().join("w.safetensors");
    let of_model = Model {
        width: width as f32,
        ..Model::new(model, norm, 10).unwrap()
    };
    let weights = write_weights(&file, &of_model, [1, size[0], size[1]]);
    let bytes = fs::read(&file).unwrap();
    let found = isometry(&support::gpu(), &file, options, count, |_| ()).unwrap();
    assert_eq!(fs::read(&file).unwrap(), bytes, "the file is as it was");
    let net = Net {
        weights,
        norm,
        is_cnn: model == "cnn",
        block: 64,
        labels: (0..count).map(|i| label(i) as f64).collect(),
    };
    let wanted = net.measure(&normalised(count, size));
    compare(&net, &found, &wanted, has_grads);
    (found, wanted)
}

/// All but maps, gradients if `has_grads`.
fn compare(net: &Net, found: &[LayerIsometry], wanted: &[Measured], has_grads: bool) {
    let model = if net.is_cnn { "cnn" } else { "mlp" };
    assert_eq!(found.len(), wanted.len());
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let what = |of: &str| format!("{model} {} {} {of}", net.norm.name(), wanted.name);
        let [rows, features] = [wanted.z.shape[0], wanted.z.shape[1]];
        assert_eq!(found.name, wanted.name);
        assert_eq!(
            [found.features, found.columns, found.rows],
            [features, features, rows]
        );
        check_scale(&what("z"), found.activation, &wanted.z);
        check_spectrum(&what("before"), found.before, &wanted.before);
        check_spectrum(&what("after"), found.after, &wanted.z);
        if has_grads {
            check_scale(&what("gradient"), found.gradient, &net.z_grad(i, wanted));
        }
    }
    for (i, pair) in found.windows(2).enumerate() {
        let next = pair[0].next.as_ref().unwrap();
        assert_eq!(next.name, wanted[i + 1].name);
        let [a, b] = [0, 1].map(|k| pair[k].activation.rms);
        near("activations", next.activation, b / a, 1e-12);
        let [a, b] = [0, 1].map(|k| pair[k].gradient.rms);
        near("gradients", next.gradient, a / b, 1e-12);
    }
    assert!(found[found.len() - 1].next.is_none());
}

#[test]
fn mlp_in_float64() {
    for norm in Norm::ALL {
        let (found, wanted) = check("mlp", norm, 0.0625, [5, 5], 52, true);
        for i in 0..3 {
            let map = found[i].next.as_ref().unwrap().map.unwrap();
            let what = format!("mlp {} map {i}", norm.name());
            check_map(&what, map, &wanted[i].z, &wanted[i + 1].z);
        }
    }
}

/// Fewer rows than twice the inputs do not determine a map.
#[test]
fn a_map_needs_rows() {
    let (found, _) = check("mlp", Norm::None, 0.0625, [5, 5], 49, false);
    let maps = found
        .iter()
        .filter_map(|l| Some(l.next.as_ref()?.map.is_some()));
    assert_eq!(maps.collect::<Vec<_>>(), [false, true, true]);
}

#[test]
fn convolutions_of_odd_sizes_in_float64() {
    for norm in Norm::ALL {
        let size = [9, 11];
        let (found, wanted) = check("cnn", norm, 0.25, size, 40, false);
        // Middle taps of the patches before and after pooling, the first places of windows.
        let middle = |z: &Tensor| z.slice(1, 4, 9, z.shape[1] / 9);
        let at = |z: &Tensor, grid: [usize; 2], wanted: [usize; 2]| {
            let channels = z.shape[1];
            let places = (0..40).flat_map(|n| {
                (0..wanted[0] * wanted[1]).map(move |p| {
                    let place = [p / wanted[1], p % wanted[1]];
                    let [y, x] = [0, 1].map(|d| place[d] * grid[d] / wanted[d]);
                    (n * grid[0] + y) * grid[1] + x
                })
            });
            let rows: Vec<f64> = places
                .flat_map(|row| z.data[row * channels..(row + 1) * channels].to_vec())
                .collect();
            Tensor::new(&[rows.len() / channels, channels], rows)
        };
        let grids = [size, [4, 5], [2, 2]];
        for i in 0..2 {
            let map = found[i].next.as_ref().unwrap().map.unwrap();
            let from = at(&middle(&wanted[i].z), grids[i], grids[i + 1]);
            let what = format!("cnn {} map {i}", norm.name());
            check_map(&what, map, &from, &middle(&wanted[i + 1].z));
        }
        // Before a linear layer: sums over the 2 x 2 places of an image, over the root of 4.
        let z = middle(&wanted[2].z);
        let (channels, map) = (z.shape[1], found[2].next.as_ref().unwrap().map);
        let by_image = z.reshape(&[40, 4, channels]).sum_to(&[40, 1, channels]);
        let by_image = by_image.map(|v| v / 2.0).reshape(&[40, channels]);
        let what = format!("cnn {} map 2", norm.name());
        check_map(&what, map.unwrap(), &by_image, &wanted[3].z);
    }
}

/// A trained network of blocks of 8 channels: the third convolution has two.
#[test]
fn blocks_are_those_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (count, size) = (20, [9, 11]);
    write_images(dir.path(), count, size);
    let run = trained(
        &dir.path().join("run"),
        TrainOptions {
            block: Some(8),
            steps: Some(2),
            batch_size: Some(10),
            ..options("cnn", Norm::Deconv, 0.25, "mnist", dir.path())
        },
    );
    let found = isometry(
        &support::gpu(),
        &run,
        TrainOptions::default(),
        count,
        |_| (),
    )
    .unwrap();
    let (weights, _) = checkpoint::load(&run.join("model.safetensors")).unwrap();
    let net = Net {
        weights,
        norm: Norm::Deconv,
        is_cnn: true,
        block: 8,
        labels: (0..count).map(|i| label(i) as f64).collect(),
    };
    let wanted = net.measure(&normalised(count, size));
    compare(&net, &found, &wanted, false);
    assert_eq!(found[2].features, 2 * 8 * 9);
}

/// Of 1600 inputs in blocks of 64 the first nine blocks are measured, or without blocks as many columns.
#[test]
fn of_a_wide_layer_the_first_blocks_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (count, size) = (12, [40, 40]);
    write_images(dir.path(), count, size);
    let file = dir.path().join("w.safetensors");
    let x = normalised(count, size).reshape(&[count, 1600]);
    let blocks = x.reshape(&[count * 25, 64]);
    let (mean, deconv) = statistics(&blocks, 1e-5, 5);
    let centred = blocks.zip(&mean, |x, m| x - m);
    let white = reference::matmul(&centred, &deconv, false, false).reshape(&[count, 1600]);
    for (norm, z) in [(Norm::None, &x), (Norm::Deconv, &white)] {
        let model = Model::new("linear", norm, 10).unwrap();
        write_weights(&file, &model, [1, size[0], size[1]]);
        let options = options("linear", norm, 1.0, "mnist", dir.path());
        let found = isometry(&support::gpu(), &file, options, count, |_| ()).unwrap();
        let sizes = [found[0].features, found[0].columns, found[0].rows];
        assert_eq!(sizes, [1600, 576, count]);
        check_scale(norm.name(), found[0].activation, &z.slice(1, 0, 1, 576));
        assert_eq!(
            [found[0].before, found[0].after].map(|s| s.rank),
            [count - 1; 2]
        );
    }
}

#[test]
fn gradients_through_convolutions_by_differences() {
    for norm in [Norm::None, Norm::Batch] {
        check("cnn", norm, 0.25, [9, 8], 2, true);
    }
}

/// One image has no statistics; of fewer images than asked for all are taken; an undamaged file of another network is refused.
#[test]
fn images_and_networks_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    write_images(dir.path(), 12, [5, 5]);
    let file = dir.path().join("w.safetensors");
    let model = Model::new("linear", Norm::Batch, 10).unwrap();
    write_weights(&file, &model, [1, 5, 5]);
    let measure = |norm, images| {
        let options = options("linear", norm, 1.0, "mnist", dir.path());
        isometry(&support::gpu(), &file, options, images, |_| ())
    };
    let error = measure(Norm::Batch, 1).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    let error = measure(Norm::Deconv, 12).unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    let found = measure(Norm::Batch, 1000).unwrap();
    assert_eq!(found, measure(Norm::Batch, 12).unwrap());
    // The norm of the input is before the layer.
    let [layer] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!([layer.rows, layer.columns], [12, 25]);
    near("variance", layer.activation.variance, 1.0, 1e-3);
    assert!(layer.before != layer.after && layer.next.is_none());
}

fn trained(out: &Path, options: TrainOptions) -> PathBuf {
    let config = TrainConfig::resolve(TrainOptions {
        out: Some(out.to_path_buf()),
        ..options
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    train(
        &support::gpu(),
        &config.unwrap(),
        Start::Over,
        &stop,
        |_| (),
    )
    .unwrap();
    out.to_path_buf()
}

#[test]
fn a_whole_block_is_white_after_deconvolution() {
    let dir = tempfile::tempdir().unwrap();
    let out = trained(
        &dir.path().join("run"),
        TrainOptions {
            model: Some("cnn".into()),
            norm: Some(Norm::Deconv),
            width: Some(0.25),
            steps: Some(4),
            sampling_stride: Some(1),
            n_iter: Some(15),
            batch_size: Some(32),
            ..TrainOptions::default()
        },
    );
    let found = isometry(&support::gpu(), &out, TrainOptions::default(), 128, |_| ()).unwrap();
    let convs = &found[..3];
    for (layer, rows) in convs.iter().zip([8192, 8192, 6272]) {
        assert_eq!(layer.rows, rows);
        let [before, after] = [layer.before, layer.after].map(|s| s.condition.unwrap());
        assert!(before > 100.0 && after < 2.0, "{layer:?}");
        let columns = layer.columns as f64;
        let ranks = [layer.before, layer.after].map(|s| s.effective_rank / columns);
        assert!(ranks[0] < 0.3 && ranks[1] > 0.98, "{layer:?}");
        near("variance", layer.activation.variance, 1.0, 0.05);
    }
    // 128 rows of 288 inputs.
    assert_eq!([found[3].before, found[3].after].map(|s| s.rank), [127; 2]);
}

/// VGG is a chain; the result of a residual block's last convolution goes past the shortcut to the next block.
#[test]
fn every_norm_of_larger_networks() {
    let dir = tempfile::tempdir().unwrap();
    let record = |i: usize| {
        let pixels = (0..CIFAR_LEN).map(|p| pixel(i, p)).collect();
        [vec![label(i) as u8], pixels].concat()
    };
    let images: Vec<u8> = (0..24).flat_map(record).collect();
    fs::write(dir.path().join("test_batch.bin"), &images).unwrap();
    for file in 1..=5 {
        fs::write(dir.path().join(format!("data_batch_{file}.bin")), &images).unwrap();
    }
    let file = dir.path().join("w.safetensors");
    for (name, count) in [("vgg11", 9), ("resnet18", 21)] {
        for norm in Norm::ALL {
            let model = Model {
                width: 0.125,
                ..Model::new(name, norm, 10).unwrap()
            };
            write_weights(&file, &model, [3, 32, 32]);
            let options = options(name, norm, 0.125, "cifar10", dir.path());
            let found = isometry(&support::gpu(), &file, options, 24, |_| ()).unwrap();
            assert_eq!(found.len(), count);
            let next_of = |i: usize| found[i].next.as_ref().map(|next| next.name.as_str());
            for (i, layer) in found.iter().enumerate() {
                let after = match (name, layer.name.as_str()) {
                    ("resnet18", block) if block.ends_with("0.conv2") && i > 3 => i + 2,
                    _ => i + 1,
                };
                let after = found.get(after).map(|l| l.name.as_str());
                assert_eq!(next_of(i), after, "{}", layer.name);
                let is_positive = |scale: Scale| scale.rms > 0.0 && scale.variance > 0.0;
                let scales = [layer.activation, layer.gradient];
                assert!(scales.into_iter().all(is_positive), "{layer:?}");
                for spectrum in [layer.before, layer.after] {
                    let is_right = spectrum.condition.is_some_and(|c| c >= 1.0)
                        && (1.0..=spectrum.rank as f64 + 1e-9).contains(&spectrum.effective_rank);
                    assert!(is_right && spectrum.rank <= layer.columns, "{layer:?}");
                }
                // Norms that are layers after the product change nothing of its input.
                let is_same = matches!(norm, Norm::None | Norm::Batch);
                assert_eq!(layer.before == layer.after, is_same, "{layer:?}");
            }
        }
    }
}
