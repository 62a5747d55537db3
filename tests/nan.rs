//! NaN passes through the ops that choose between numbers as in PyTorch: what a NaN goes into is NaN, all else is what it was.
//! (In the ops that calculate, IEEE 754 sees to it.)

mod support;

use decorr::autodiff::gradients_from;
use decorr::graph::{Graph, Tensor};
use decorr::ops::Pool2d;
use decorr::passes::Passes;
use decorr::program::CompileOptions;

/// NaNs of both signs, quiet and signalling.
const NANS: [u32; 4] = [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff];

fn run(g: &Graph, inputs: &[(&str, &[f32])], fuse: bool) -> Vec<f32> {
    let options = CompileOptions {
        passes: Passes {
            fuse,
            ..Passes::ALL
        },
        ..support::compile_options()
    };
    support::run_with(g, inputs, options).unwrap()["y"].clone()
}

fn check(name: &str, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(
            a == e || (a.is_nan() && e.is_nan()),
            "{name}: element {i} is {a}, not {e}"
        );
    }
}

#[test]
fn element_wise() {
    let infinity = f32::INFINITY;
    let mut a = vec![-1.5, 0.0, -0.0, 2.0, infinity, -infinity, -1e-40, 3e38];
    a.extend(NANS.map(f32::from_bits));
    a.extend([1.0, -4.0, f32::from_bits(NANS[0])]);
    let b: Vec<f32> = (0..a.len()).map(|i| i as f32 - 3.5).collect();
    let b: Vec<f32> = b
        .iter()
        .map(|&v| if v == 8.5 { f32::NAN } else { v })
        .collect();
    let larger = |a: f32, b: f32| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            a.max(b)
        }
    };
    let relu = |a: f32| larger(a, 0.0);
    type Build = for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;
    let table: [(&str, Build, Vec<f32>); 4] = [
        (
            "relu",
            |a, _| a.relu(),
            a.iter().map(|&a| relu(a)).collect(),
        ),
        (
            "maximum",
            |a, b| a.maximum(b),
            a.iter().zip(&b).map(|(&a, &b)| larger(a, b)).collect(),
        ),
        (
            "maximum, exchanged",
            |a, b| b.maximum(a),
            a.iter().zip(&b).map(|(&a, &b)| larger(b, a)).collect(),
        ),
        (
            "relu in a chain",
            |a, b| (a * b).relu() + a,
            a.iter().zip(&b).map(|(&a, &b)| relu(a * b) + a).collect(),
        ),
    ];
    for fuse in [false, true] {
        for (name, build, expected) in &table {
            let g = Graph::new();
            let [x, y] = ["a", "b"].map(|name| g.input(name, [a.len()]));
            g.output("y", build(x, y));
            check(name, &run(&g, &[("a", &a), ("b", &b)], fuse), expected);
        }
    }
}

/// A sum over what `relu` lets through, in the same dispatch.
#[test]
fn before_a_sum() {
    for bits in NANS {
        for at in [0, 63, 64, 129] {
            let mut a: Vec<f32> = (0..130).map(|i| (i as f32 - 60.0) / 7.0).collect();
            a[at] = f32::from_bits(bits);
            let g = Graph::new();
            let x = g.input("a", [130]);
            g.output("y", x.relu().reduce_sum([1], 1.0));
            check("sum of relu", &run(&g, &[("a", &a)], true), &[f32::NAN]);
        }
    }
}

#[test]
fn max_pooling_and_its_gradient() {
    let pool =
        |kernel_size, stride, padding| Pool2d::new(kernel_size).stride(stride).padding(padding);
    let (height, width) = (5, 7);
    let numbers: Vec<f32> = (0..height * width)
        .map(|i| ((i * 17) % 35) as f32 - 40.0)
        .collect();
    for pool in [pool(2, 2, 0), pool(3, 2, 1), pool(3, 1, 0)] {
        for at in 0..numbers.len() {
            let mut image = numbers.clone();
            image[at] = f32::from_bits(NANS[at % NANS.len()]);
            let g = Graph::new();
            let x = g.input("x", [1, 1, height, width]);
            let y = x.max_pool2d(pool);
            let [_, _, rows, columns] = y.dims();
            let seed = g.input("seed", [1, 1, rows, columns]);
            let grads = gradients_from(&[(y, seed)], &[x]);
            g.output("y", y);
            g.output("grad", grads[0]);
            let seeds: Vec<f32> = (0..rows * columns).map(|i| 1.0 + i as f32).collect();
            // By the rule of PyTorch's kernel: an element takes over if it is larger, or NaN.
            let (mut expected, mut grad) = (Vec::new(), vec![0.0; image.len()]);
            for (window, seed) in seeds.iter().enumerate() {
                let (row, column) = (
                    window / columns * pool.stride,
                    window % columns * pool.stride,
                );
                let mut largest: Option<usize> = None;
                for i in 0..pool.kernel_size * pool.kernel_size {
                    let h = (row + i / pool.kernel_size).checked_sub(pool.padding);
                    let w = (column + i % pool.kernel_size).checked_sub(pool.padding);
                    let (Some(h), Some(w)) = (h, w) else { continue };
                    if h >= height || w >= width {
                        continue;
                    }
                    let pixel = h * width + w;
                    if largest.is_none_or(|l| image[pixel] > image[l] || image[pixel].is_nan()) {
                        largest = Some(pixel);
                    }
                }
                let largest = largest.unwrap();
                expected.push(image[largest]);
                grad[largest] += seed;
            }
            let inputs: [(&str, &[f32]); 2] = [("x", &image), ("seed", &seeds)];
            let out = support::run(&g, &inputs).unwrap();
            let name = format!("{pool:?}, NaN at {at}");
            check(&name, &out["y"], &expected);
            check(&name, &out["grad"], &grad);
        }
    }
}

/// Pooling of an image that is -infinity all over.
#[test]
fn infinities() {
    let g = Graph::new();
    let x = g.input("x", [1, 1, 2, 2]);
    g.output("y", x.max_pool2d(Pool2d::new(2)));
    let low = [f32::NEG_INFINITY; 4];
    check(
        "max_pool2d",
        &run(&g, &[("x", &low)], true),
        &[f32::NEG_INFINITY],
    );
}

/// Labels below 0 fill up a batch and count nothing. Others that are no class are a mistake, and must be seen.
#[test]
fn labels_that_are_no_class() {
    const CLASSES: usize = 3;
    let labels = [0.0, 2.0, -1.0, -0.5, 3.0, 1.5, 1e9, f32::NAN, f32::INFINITY];
    let rows = labels.len();
    let logits: Vec<f32> = (0..rows * CLASSES)
        .map(|i| (i * 7 % 5) as f32 - 2.0)
        .collect();
    type Build = for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;
    let table: [(&str, Build, usize); 4] = [
        ("cross entropy", |x, l| x.softmax_cross_entropy(l, 0.1), 1),
        (
            "gradient of cross entropy",
            |x, l| {
                let loss = x.softmax_cross_entropy(l, 0.1);
                let seed = x.graph().constant(1.0, [9]);
                gradients_from(&[(loss, seed)], &[x])[0]
            },
            CLASSES,
        ),
        ("one hot", |_, l| l.one_hot(CLASSES), CLASSES),
        (
            "half squared error",
            |x, l| decorr::nn::half_squared_error(x, l),
            1,
        ),
    ];
    for (name, build, width) in table {
        let g = Graph::new();
        let (x, l) = (g.input("x", [rows, CLASSES]), g.input("labels", [rows]));
        g.output("y", build(x, l));
        // One hot does not read the logits.
        g.output("zero", x * 0.0);
        let inputs: [(&str, &[f32]); 2] = [("x", &logits), ("labels", &labels)];
        let y = run(&g, &inputs, true);
        for (row, (values, label)) in y.chunks(width).zip(labels).enumerate() {
            let is_filler = label < 0.0;
            for value in values {
                assert_eq!(value.is_nan(), row > 3, "{name}: {value} for label {label}");
                let is_zero = *value == 0.0;
                assert!(
                    !is_filler || is_zero || name == "half squared error",
                    "{name}: {value}"
                );
            }
        }
    }
}
