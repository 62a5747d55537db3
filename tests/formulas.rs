//! Formulas of tensors as a user writes them: what they compute, and where their errors say they are.

mod support;

use decorr::autodiff::gradients;
use decorr::graph::{Graph, Init};
use decorr::nn::{self, Conv2d, Layer, Linear, Mode};
use decorr::optim::{Optimizer, Sgd};

#[test]
fn an_error_names_the_line_of_the_caller_and_the_scope() {
    let g = Graph::new();
    let (x, y) = (g.input("x", [2, 3]), g.input("y", [4, 5]));
    let line = line!() + 1;
    let sum = g.scope("block", || x.relu() + y);
    let _ = sum.matmul(y).sum_rows();
    let error = g.check().unwrap_err().to_string();
    let place = format!("(in block, at {}:{line})", file!());
    assert!(
        error.contains(&place) && error.contains("y [4, 5]"),
        "{error}"
    );
}

/// By layers, gradients, updates and outputs built on what does not fit: no panic, and the first error stays.
#[test]
fn a_whole_step_on_what_does_not_fit_ends_in_the_first_error() {
    for shape in [
        vec![],
        vec![0],
        vec![2],
        vec![2, 3],
        vec![2, 7, 5],
        vec![1, 3, 2, 2],
        vec![0, 3, 9, 9],
    ] {
        let g = Graph::new();
        let x = g.input("x", shape.clone());
        let convolution = Conv2d::new(3, 4, 5);
        let h = g
            .scope("conv", || convolution.forward(x, Mode::Train))
            .relu();
        let [n, c, height, width] = h.dims();
        let h = h.reshape([n, c * height * width]);
        let y = g.scope("fc", || Linear::new(4, 3).forward(h, Mode::Train));
        let loss = nn::cross_entropy(y, g.input("labels", [n]), 0.1).mean_to([1]);
        let parameters = g.parameters();
        let grads = gradients(loss, &parameters);
        let sgd = Optimizer::Sgd(Sgd::default());
        sgd.update(&parameters, &grads, g.input("lr", [1]));
        g.output("loss", loss);
        let error = g.check().unwrap_err().to_string();
        assert!(
            error.contains("(in conv") || error.contains("(in fc"),
            "{shape:?}: {error}"
        );
    }
}

#[test]
fn formulas_compute_what_they_say() {
    let g = Graph::new();
    let (z, t) = (g.input("z", [2, 3]), g.input("t", [2, 3]));
    let loss = (z.relu() - z * t + ((-z.abs()).exp() + 1.0).ln()).sum_rows();
    g.output("loss", loss);
    let w = g.parameter("w", [3], Init::Constant(2.0));
    g.output("mixed", 1.0 - 0.5 * (z - 3.0) / w.reshape([1, 3]));
    g.output(
        "products",
        z.matmul_t(t)
            + z.t_matmul(t)
                .slice(0, 0, 1, 1)
                .slice(1, 0, 1, 1)
                .maximum(g.constant(-9.0, [1, 1])),
    );
    let (z, t) = (
        [0.5, -2.0, 3.0, 1.0, 0.0, -0.25_f32],
        [1.0, 0.0, 1.0, 0.0, 1.0, 1.0_f32],
    );
    let results = support::run(&g, &[("z", &z), ("t", &t)]).unwrap();
    let of = |i: usize| {
        let (z, t) = (f64::from(z[i]), f64::from(t[i]));
        -t * (1.0 / (1.0 + (-z).exp())).ln() - (1.0 - t) * (1.0 / (1.0 + z.exp())).ln()
    };
    let mixed: Vec<f64> = z
        .iter()
        .map(|&z| 1.0 - 0.25 * (f64::from(z) - 3.0))
        .collect();
    let dot = |i: usize, j: usize| {
        (0..3)
            .map(|k| f64::from(z[3 * i + k] * t[3 * j + k]))
            .sum::<f64>()
    };
    // The first entry of z^T t.
    let corner = f64::from(z[0] * t[0] + z[3] * t[3]);
    let products: Vec<f64> = [dot(0, 0), dot(0, 1), dot(1, 0), dot(1, 1)]
        .map(|d| d + corner)
        .to_vec();
    for (name, expected) in [
        ("loss", vec![of(0) + of(1) + of(2), of(3) + of(4) + of(5)]),
        ("mixed", mixed),
        ("products", products),
    ] {
        assert_eq!(results[name].len(), expected.len());
        for (got, expected) in results[name].iter().zip(expected) {
            assert!(
                (f64::from(*got) - expected).abs() < 1e-5,
                "{name}: {got} {expected}"
            );
        }
    }
}
