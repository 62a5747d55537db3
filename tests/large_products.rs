//! Products large enough that their operands are packed, whole or in parts, on adapters that run on the
//! CPU: against float64. No size is a multiple of a tile but where vectors shall be read in place.

mod support;

use decorr::autodiff::gradients_from;
use decorr::graph::Graph;
use decorr::ops::{Conv2dGeometry, Transpose, Window};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::reference::{self, Geometry, Tensor};

/// Of the largest value; sums of 7000 terms of either sign lose a digit or two.
const TOLERANCE: f64 = 1e-5;

fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // As float32 has them.
    Tensor::from_fn(shape, |_| f64::from(rng.random_range(-1.0f32..1.0)))
}

fn to_f32(t: &Tensor) -> Vec<f32> {
    t.data.iter().map(|&v| v as f32).collect()
}

fn compare(name: &str, actual: &[f32], expected: &[f64]) {
    let expected: Vec<f32> = expected.iter().map(|&v| v as f32).collect();
    let (error, at) = support::relative_error(actual, &expected);
    assert!(
        error <= TOLERANCE,
        "{name}: element {at} is {}, not {}; error {error:.1e}",
        actual[at],
        expected[at]
    );
}

/// `batch` products of op(a) [m, k] and op(b) [k, n], bare and plus a bias a column.
fn check_product(batch: usize, [m, n, k]: [usize; 3], transpose: [bool; 2]) {
    let name = format!("{batch} x {m} x {n} x {k}, transposed {transpose:?}");
    let [ta, tb] = transpose;
    let a = random(&if ta { [batch, k, m] } else { [batch, m, k] }, 1);
    let b = random(&if tb { [batch, n, k] } else { [batch, k, n] }, 2);
    let bias = random(&[n], 3);
    let g = Graph::new();
    let a_in = g.input("a", a.shape.as_slice());
    let b_in = g.input("b", b.shape.as_slice());
    let bias_in = g.input("bias", [n]);
    let transpose = Transpose { a: ta, b: tb };
    g.output("y", a_in.matmul_with(b_in, Some(bias_in), transpose));
    g.output("bare", a_in.matmul_with(b_in, None, transpose));
    let (a32, b32, bias32) = (to_f32(&a), to_f32(&b), to_f32(&bias));
    let outputs = support::run(&g, &[("a", &a32), ("b", &b32), ("bias", &bias32)]).unwrap();
    let mut expected = Vec::with_capacity(batch * m * n);
    for z in 0..batch {
        for i in 0..m {
            let mut row = bias.data.clone();
            for p in 0..k {
                let x = a.data[z * m * k + if ta { p * m + i } else { i * k + p }];
                for (j, sum) in row.iter_mut().enumerate() {
                    *sum += x * b.data[z * k * n + if tb { j * k + p } else { p * n + j }];
                }
            }
            expected.extend(row);
        }
    }
    compare(&name, &outputs["y"], &expected);
    for (i, value) in expected.iter_mut().enumerate() {
        *value -= bias.data[i % n];
    }
    compare(&format!("{name}, bare"), &outputs["bare"], &expected);
}

#[test]
fn operands_read_in_place_as_vectors() {
    check_product(2, [68, 100, 72], [false, false]);
    check_product(1, [100, 36, 64], [false, true]);
    check_product(3, [44, 60, 31], [true, false]);
}

#[test]
fn operands_packed_whole() {
    check_product(1, [225, 197, 333], [false, false]);
    check_product(2, [167, 131, 126], [false, true]);
    check_product(1, [417, 389, 130], [true, false]);
    check_product(1, [420, 396, 128], [true, false]);
}

#[test]
fn one_operand_packed_in_parts_along_n() {
    check_product(1, [133, 901, 1501], [false, false]);
}

/// Without a bias: A and B are exchanged, and A packed in parts.
#[test]
fn operands_exchanged() {
    check_product(1, [1201, 389, 1002], [false, false]);
    check_product(2, [901, 397, 770], [true, true]);
}

#[test]
fn both_operands_packed_in_parts_along_k() {
    check_product(1, [150, 170, 7003], [false, false]);
}

#[test]
fn symmetric_results_of_packed_operands() {
    let (rows, features) = (503, 261);
    let x = random(&[1, rows, features], 4);
    let g = Graph::new();
    let x_in = g.input("x", [1, rows, features]);
    g.output("cov", x_in.covariance(0.5));
    let outputs = support::run(&g, &[("x", &to_f32(&x))]).unwrap();
    compare(
        "covariance",
        &outputs["cov"],
        &reference::covariance(&x, 0.5).data,
    );
}

#[test]
fn convolutions_with_packed_patches() {
    let (x_shape, w_shape) = ([9, 20, 9, 11], [133, 20, 3, 3]);
    let (x, w) = (random(&x_shape, 5), random(&w_shape, 6));
    let out_shape = [9, 133, 9, 11];
    let y_grad = random(&out_shape, 7);
    let g = Graph::new();
    let x_in = g.input("x", x_shape);
    let w_in = g.input("w", w_shape);
    let grad_in = g.input("y_grad", out_shape);
    let geometry = Conv2dGeometry {
        padding: 1,
        ..Conv2dGeometry::default()
    };
    let y = x_in.conv2d(w_in, None, geometry);
    let grads = gradients_from(&[(y, grad_in)], &[x_in, w_in]);
    g.output("y", y);
    g.output("x_grad", grads[0]);
    g.output("w_grad", grads[1]);
    let (x32, w32, grad32) = (to_f32(&x), to_f32(&w), to_f32(&y_grad));
    let inputs = [("x", &x32[..]), ("w", &w32), ("y_grad", &grad32)];
    let outputs = support::run(&g, &inputs).unwrap();

    let g = Geometry {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
    };
    let bias = Tensor::new(&[133], vec![0.0; 133]);
    compare(
        "y",
        &outputs["y"],
        &reference::conv2d(&x, &w, &bias, g).data,
    );
    let (mut x_grad, mut w_grad) = (vec![0.0; x.data.len()], vec![0.0; w.data.len()]);
    let at = |shape: [usize; 4], i: [usize; 4]| {
        ((i[0] * shape[1] + i[1]) * shape[2] + i[2]) * shape[3] + i[3]
    };
    for (n, o, row, column) in
        (0..9 * 133 * 99).map(|i| (i / 99 / 133, i / 99 % 133, i / 11 % 9, i % 11))
    {
        let grad = y_grad.data[at(out_shape, [n, o, row, column])];
        for (c, ky, kx) in (0..20 * 9).map(|i| (i / 9, i / 3 % 3, i % 3)) {
            // Padding by one.
            let (y, x_at) = (row + ky, column + kx);
            if (1..=9).contains(&y) && (1..=11).contains(&x_at) {
                let (pixel, tap) = (
                    at(x_shape, [n, c, y - 1, x_at - 1]),
                    at(w_shape, [o, c, ky, kx]),
                );
                x_grad[pixel] += grad * w.data[tap];
                w_grad[tap] += grad * x.data[pixel];
            }
        }
    }
    compare("x_grad", &outputs["x_grad"], &x_grad);
    compare("w_grad", &outputs["w_grad"], &w_grad);
}

/// Regions of many rows: both operands are packed, from where the region's taps begin.
#[test]
fn patches_by_regions_with_both_operands_packed() {
    let (x_shape, blocks, features, columns) = ([400, 32, 3, 3], 2, 144, 400);
    let (x, b) = (random(&x_shape, 8), random(&[features, columns], 9));
    let g = Graph::new();
    let x_in = g.input("x", x_shape);
    let b_in = g.input("b", [features, columns]);
    let window = Window {
        kernel_size: [3, 3],
        stride: 1,
        padding: 1,
        dilation: 1,
    };
    g.output("y", x_in.im2col_matmul(b_in, None, window, false));
    let outputs = support::run(&g, &[("x", &to_f32(&x)), ("b", &to_f32(&b))]).unwrap();
    let geometry = Geometry {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
    };
    let patches = reference::im2col(&x, [3, 3], geometry);
    let patches = patches.reshape(&[patches.shape[0] * blocks, features]);
    let expected = reference::matmul(&patches, &b, false, false);
    compare("y", &outputs["y"], &expected.data);
}
