//! Formulas of tensors as a user writes them: what they compute, and where their errors say they are.

mod support;

use std::path::Path;

use decorr::autodiff::gradients;
use decorr::graph::{Graph, Init, Tensor};
use decorr::nn::{
    self, BatchNorm, ChannelDeconv, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions, Dropout,
    Layer, Linear, Mode,
};
use decorr::ops::{Conv2dGeometry, CovGrad, MatMul, Padding2d, Pool2d, Tiles, Transpose, Window};
use decorr::optim::{Optimizer, Sgd};
use decorr::program::{Program, Store};

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
        let sgd = Optimizer::from(Sgd::default());
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

/// Ops that refuse sizes take what is just within their rule, and what is just beyond it is an error with their name.
#[test]
fn ops_refuse_what_is_just_beyond_their_rule() {
    type Build = for<'g> fn(&'g Graph) -> Tensor<'g>;
    fn x<'g>(g: &'g Graph, shape: &[usize]) -> Tensor<'g> {
        g.input("x", shape)
    }
    fn y<'g>(g: &'g Graph, shape: &[usize]) -> Tensor<'g> {
        g.input("y", shape)
    }
    fn geometry(groups: usize) -> Conv2dGeometry {
        Conv2dGeometry {
            groups,
            ..Conv2dGeometry::default()
        }
    }
    const WINDOW: Window = Window {
        kernel_size: [3, 3],
        stride: 1,
        padding: 0,
        dilation: 1,
    };
    const SYMMETRIC: MatMul = MatMul {
        transpose: Transpose { a: false, b: false },
        alpha: 1.0,
        diag: 0.0,
        symmetric: true,
        b_is_symmetric: false,
    };
    const BY_SYMMETRIC: MatMul = MatMul {
        symmetric: false,
        b_is_symmetric: true,
        ..SYMMETRIC
    };
    // Two tiles of 3 x 5 numbers, with so many channels.
    fn tiles(channels: usize) -> Tiles {
        Tiles {
            count: 2,
            columns: 2,
            ..Tiles::picture(channels, [3, 5], [6, 5])
        }
    }
    fn padding(spacing: usize) -> Padding2d {
        Padding2d {
            before: [1, 1],
            size: [4, 5],
            spacing: [1, spacing],
        }
    }
    fn pixels<'g>(words: Tensor<'g>, scale: Tensor<'g>) -> Tensor<'g> {
        words.unpack_pixels(scale, scale, [2, 3, 1, 3])
    }
    const SPREAD: Window = Window {
        dilation: 2,
        ..WINDOW
    };
    let rules: &[(&str, Build, Build)] = &[
        // At most half of the window is padding.
        (
            "max_pool2d",
            |g| x(g, &[1, 1, 4, 4]).max_pool2d(Pool2d::new(3).padding(1)),
            |g| x(g, &[1, 1, 4, 4]).max_pool2d(Pool2d::new(3).padding(2)),
        ),
        (
            "avg_pool2d",
            |g| x(g, &[1, 1, 4, 4]).avg_pool2d(Pool2d::new(4).padding(2)),
            |g| x(g, &[1, 1, 4, 4]).avg_pool2d(Pool2d::new(4).padding(3)),
        ),
        (
            "avg_pool2d",
            |g| x(g, &[1, 1, 3, 4]).avg_pool2d(Pool2d::new(3)),
            |g| x(g, &[1, 1, 2, 4]).avg_pool2d(Pool2d::new(3)),
        ),
        (
            "im2col",
            |g| x(g, &[1, 1, 3, 4]).im2col(WINDOW),
            |g| x(g, &[1, 1, 3, 2]).im2col(WINDOW),
        ),
        (
            "im2col",
            |g| x(g, &[1, 1, 5, 5]).im2col(SPREAD),
            |g| x(g, &[1, 1, 4, 5]).im2col(SPREAD),
        ),
        (
            "im2col",
            |g| x(g, &[1, 2, 3, 3]).im2col_centred(y(g, &[9]), WINDOW),
            |g| x(g, &[1, 2, 3, 3]).im2col_centred(y(g, &[4]), WINDOW),
        ),
        (
            "col2im",
            |g| x(g, &[2, 9]).col2im(WINDOW, [1, 1, 3, 4]),
            |g| x(g, &[3, 9]).col2im(WINDOW, [1, 1, 3, 4]),
        ),
        (
            "matmul",
            |g| x(g, &[2, 3]).matmul(y(g, &[3, 4])),
            |g| x(g, &[2, 3]).matmul(y(g, &[4, 3])),
        ),
        // A batch of one serves all, one of three not two.
        (
            "matmul",
            |g| x(g, &[2, 2, 3]).matmul(y(g, &[1, 3, 4])),
            |g| x(g, &[2, 2, 3]).matmul(y(g, &[3, 3, 4])),
        ),
        (
            "matmul",
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 4]), Some(x(g, &[4])), Transpose::default()),
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 4]), Some(x(g, &[2])), Transpose::default()),
        ),
        // Matrices and batches of one are not the same.
        (
            "matmul",
            |g| x(g, &[1, 2, 3]).matmul(y(g, &[1, 3, 4])),
            |g| x(g, &[2, 3]).matmul(y(g, &[1, 3, 4])),
        ),
        (
            "matmul",
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 2]), None, SYMMETRIC),
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 4]), None, SYMMETRIC),
        ),
        (
            "matmul",
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 3]), None, BY_SYMMETRIC),
            |g| x(g, &[2, 3]).matmul_with(y(g, &[3, 4]), None, BY_SYMMETRIC),
        ),
        // The last number that is painted is there; each tile has a range, or all have one.
        (
            "paint",
            |g| x(g, &[30]).paint(y(g, &[1, 2]), tiles(1)),
            |g| x(g, &[29]).paint(y(g, &[1, 2]), tiles(1)),
        ),
        (
            "paint",
            |g| x(g, &[90]).paint(y(g, &[2, 2]), tiles(3)),
            |g| x(g, &[90]).paint(y(g, &[3, 2]), tiles(3)),
        ),
        (
            "paint",
            |g| x(g, &[90]).paint(y(g, &[1, 2]), tiles(3)),
            |g| x(g, &[90]).paint(y(g, &[1, 2]), tiles(2)),
        ),
        (
            "conv2d",
            |g| x(g, &[1, 4, 3, 3]).conv2d(y(g, &[2, 2, 3, 3]), None, geometry(2)),
            |g| x(g, &[1, 4, 3, 3]).conv2d(y(g, &[3, 2, 3, 3]), None, geometry(2)),
        ),
        (
            "conv2d",
            |g| x(g, &[1, 4, 3, 3]).conv2d(y(g, &[2, 4, 3, 3]), None, geometry(1)),
            |g| x(g, &[1, 4, 3, 3]).conv2d(y(g, &[2, 3, 3, 3]), None, geometry(1)),
        ),
        (
            "conv2d",
            |g| x(g, &[1, 1, 3, 3]).conv2d(y(g, &[2, 1, 3, 3]), Some(x(g, &[2])), geometry(1)),
            |g| x(g, &[1, 1, 3, 3]).conv2d(y(g, &[2, 1, 3, 3]), Some(x(g, &[3])), geometry(1)),
        ),
        (
            "concat",
            |g| g.concat(&[x(g, &[1, 2, 3]), y(g, &[1, 4, 3])], 1),
            |g| g.concat(&[x(g, &[1, 2, 3]), y(g, &[1, 4, 2])], 1),
        ),
        (
            "concat",
            |g| g.concat(&[x(g, &[1, 2]), y(g, &[3, 2])], 0),
            |g| g.concat(&[x(g, &[1, 2]), y(g, &[3, 2, 1])], 0),
        ),
        (
            "kth_value",
            |g| x(g, &[2, 4]).kth_value(&[0, 1, 2, 3]),
            |g| x(g, &[2, 4]).kth_value(&[4]),
        ),
        (
            "kth_value",
            |g| x(g, &[2, 9]).kth_value(&[0, 1, 2, 3]),
            |g| x(g, &[2, 9]).kth_value(&[0, 1, 2, 3, 4]),
        ),
        (
            "histogram",
            |g| x(g, &[9]).histogram(4096, [0.0, 1.0]),
            |g| x(g, &[9]).histogram(4097, [0.0, 1.0]),
        ),
        (
            "histogram",
            |g| x(g, &[9]).histogram(1, [0.0, 1.0]),
            |g| x(g, &[9]).histogram(1, [1.0, 1.0]),
        ),
        // Sizes that are kept lie side by side.
        (
            "reduce_sum",
            |g| x(g, &[2, 3, 4]).sum_to([2, 3, 1]),
            |g| x(g, &[2, 3, 4]).sum_to([2, 1, 4]),
        ),
        (
            "broadcast",
            |g| x(g, &[2, 1]).broadcast_to([2, 3]),
            |g| x(g, &[1, 2]).broadcast_to([2, 3]),
        ),
        (
            "add",
            |g| x(g, &[2, 3]) + y(g, &[1, 3]),
            |g| x(g, &[2, 3]) + y(g, &[1, 2]),
        ),
        (
            "softmax_cross_entropy",
            |g| x(g, &[2, 3]).softmax_cross_entropy(y(g, &[2]), 0.0),
            |g| x(g, &[2, 3]).softmax_cross_entropy(y(g, &[3]), 0.0),
        ),
        (
            "top_k_accuracy",
            |g| x(g, &[2, 3]).top_k_accuracy(y(g, &[2]), 1),
            |g| x(g, &[2, 3]).top_k_accuracy(y(g, &[3]), 1),
        ),
        (
            "one_hot",
            |g| x(g, &[2]).one_hot(3),
            |g| x(g, &[2, 2]).one_hot(3),
        ),
        (
            "covariance",
            |g| x(g, &[1, 2, 3]).covariance(1e-5),
            |g| x(g, &[2, 3]).covariance(1e-5),
        ),
        (
            "newton_schulz",
            |g| x(g, &[1, 2, 2]).newton_schulz(1, CovGrad::Symmetric),
            |g| x(g, &[1, 2, 3]).newton_schulz(1, CovGrad::Symmetric),
        ),
        (
            "newton_schulz",
            |g| x(g, &[1, 2, 2]).newton_schulz(1, CovGrad::Symmetric),
            |g| x(g, &[1, 2, 2]).newton_schulz(0, CovGrad::Symmetric),
        ),
        (
            "random_uniform",
            |g| x(g, &[1]).random_uniform([5]),
            |g| x(g, &[2]).random_uniform([5]),
        ),
        (
            "reshape",
            |g| x(g, &[2, 3]).reshape([6]),
            |g| x(g, &[2, 3]).reshape([5]),
        ),
        (
            "constant",
            |g| g.constant(f32::MAX, [2]),
            |g| g.constant(f32::INFINITY, [2]),
        ),
        (
            "newton_schulz_of_rows",
            |g| x(g, &[1, 2, 3]).newton_schulz_of_rows(1e-5, 2),
            |g| x(g, &[1, 2, 3]).newton_schulz_of_rows(1e-5, 1),
        ),
        (
            "newton_schulz_of_rows",
            |g| x(g, &[1, 2, 3]).newton_schulz_of_rows(1e-5, 7),
            |g| x(g, &[1, 2, 3]).newton_schulz_of_rows(1e-5, 8),
        ),
        (
            "pad2d",
            |g| x(g, &[2, 3]).pad2d(padding(1)),
            |g| x(g, &[2, 3]).pad2d(padding(0)),
        ),
        (
            "pad2d",
            |g| x(g, &[2, 3]).pad2d(padding(1)),
            |g| x(g, &[3]).pad2d(padding(1)),
        ),
        (
            "strided_copy",
            |g| x(g, &[2, 3, 4, 5]).permute(&[3, 2, 1, 0]),
            |g| x(g, &[2, 3, 4, 5, 6]).permute(&[4, 3, 2, 1, 0]),
        ),
        // Whole channels of 3 x 3 numbers, and those of the image in whole blocks.
        (
            "im2col_matmul",
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[18, 3]), None, WINDOW, false),
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[12, 3]), None, WINDOW, false),
        ),
        (
            "im2col_matmul",
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[36, 3]), None, WINDOW, false),
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[27, 3]), None, WINDOW, false),
        ),
        (
            "im2col_matmul",
            |g| x(g, &[1, 2, 5, 5]).im2col_matmul(y(g, &[18, 3]), None, WINDOW, false),
            |g| x(g, &[1, 2, 5, 5]).im2col_matmul(y(g, &[0, 3]), None, WINDOW, false),
        ),
        (
            "im2col_matmul",
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[18, 18]), None, WINDOW, true),
            |g| x(g, &[1, 4, 5, 5]).im2col_matmul(y(g, &[18, 17]), None, WINDOW, true),
        ),
        // 18 bytes in words of four.
        (
            "unpack_pixels",
            |g| pixels(x(g, &[5]), y(g, &[1, 3, 1, 1])),
            |g| pixels(x(g, &[4]), y(g, &[1, 3, 1, 1])),
        ),
    ];
    let mut said = String::new();
    for (i, (name, within, beyond)) in rules.iter().enumerate() {
        let g = Graph::new();
        within(&g);
        let taken = g.check();
        assert!(taken.is_ok(), "{name}, row {i}: {taken:?}");
        let g = Graph::new();
        beyond(&g);
        let Err(error) = g.check() else {
            panic!("{name}, row {i}: is taken");
        };
        let error = error.to_string();
        assert!(error.contains(name), "row {i}: {error}");
        // Without the place in this file.
        let (what, _) = error.split_once(" (at ").unwrap();
        said += &format!("{what}\n");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formulas/refusals.txt");
    let differs = support::held_against(&file, &said);
    assert!(differs.is_none(), "{}", differs.unwrap_or_default());
}

/// Where a copy of a copy is one copy, what the first left out stays out.
#[test]
fn what_is_cut_away_does_not_come_back() {
    let g = Graph::new();
    let x = g.input("x", [3, 4]);
    fn padded(x: Tensor<'_>, before: [i64; 2], size: [usize; 2]) -> Tensor<'_> {
        x.pad2d(Padding2d {
            before,
            size,
            spacing: [1, 1],
        })
    }
    let rows = |x: Tensor<'_>, name: &str| g.output(name, x);
    rows(padded(x.slice(1, 0, 1, 2), [0, 0], [3, 4]), "columns after");
    rows(
        padded(padded(x, [0, 0], [3, 2]), [0, 0], [3, 4]),
        "last cut",
    );
    rows(
        padded(padded(x, [0, -2], [3, 2]), [0, 2], [3, 4]),
        "first cut",
    );
    rows(padded(x.slice(0, 1, 1, 2), [1, 0], [3, 4]), "rows before");
    rows(padded(x, [0, 1], [3, 4]), "shifted");
    rows(padded(x, [-1, 0], [3, 4]), "up");
    let values: Vec<f32> = (1..13).map(|i| i as f32).collect();
    let found = support::run(&g, &[("x", &values)]).unwrap();
    for (name, wanted) in [
        ("columns after", [1, 2, 0, 0, 5, 6, 0, 0, 9, 10, 0, 0]),
        ("last cut", [1, 2, 0, 0, 5, 6, 0, 0, 9, 10, 0, 0]),
        ("first cut", [0, 0, 3, 4, 0, 0, 7, 8, 0, 0, 11, 12]),
        ("rows before", [0, 0, 0, 0, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("shifted", [0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]),
        ("up", [5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0]),
    ] {
        assert_eq!(found[name], wanted.map(|v| v as f32), "{name}");
    }
}

/// Each size by its own name: it would divide by zero further down.
#[test]
fn layers_refuse_sizes_of_zero() {
    let options = DeconvOptions::default();
    let conv = DeconvConv2d::new(4, 4, 3);
    let linear = DeconvLinear::new(4, 4);
    let channel = ChannelDeconv::new(4, 2);
    let layers: Vec<(&str, &str, Box<dyn Layer>)> = vec![
        (
            "conv2d",
            "in_channels",
            Box::new(DeconvConv2d::new(0, 4, 3)),
        ),
        (
            "conv2d",
            "out_channels",
            Box::new(DeconvConv2d::new(4, 0, 3)),
        ),
        (
            "conv2d",
            "kernel_size",
            Box::new(DeconvConv2d::new(4, 4, 0)),
        ),
        ("conv2d", "stride", Box::new(conv.stride(0))),
        ("conv2d", "dilation", Box::new(conv.dilation(0))),
        (
            "conv2d",
            "sampling_stride",
            Box::new(conv.options(options.sampling_stride(0))),
        ),
        ("conv2d", "block", Box::new(conv.options(options.block(0)))),
        ("linear", "in_features", Box::new(DeconvLinear::new(0, 4))),
        ("linear", "out_features", Box::new(DeconvLinear::new(4, 0))),
        (
            "linear",
            "block",
            Box::new(linear.options(options.block(0))),
        ),
        ("channel", "channels", Box::new(ChannelDeconv::new(0, 2))),
        (
            "channel",
            "sampling_stride",
            Box::new(channel.options(options.sampling_stride(0))),
        ),
    ];
    for (kind, size, layer) in layers {
        let g = Graph::new();
        let channels = if size.starts_with("in_") || size == "channels" {
            0
        } else {
            4
        };
        let x = match kind {
            "linear" => g.input("x", [2, channels]),
            _ => g.input("x", [2, channels, 5, 5]),
        };
        layer.forward(x, Mode::Train);
        let error = g.check().unwrap_err().to_string();
        assert!(error.contains(&format!("{size} is 0")), "{kind}: {error}");
    }
}

/// Word for word, with what was given and what was asked for.
#[test]
fn layers_refuse_what_does_not_fit_them() {
    let conv = DeconvConv2d::new(4, 6, 3);
    let layers: Vec<(Box<dyn Layer>, Vec<usize>, &str)> = vec![
        (
            Box::new(conv.groups(3)),
            vec![2, 4, 5, 5],
            "shape mismatch in deconv_conv2d: 3 groups do not divide 4 and 6 channels",
        ),
        (
            Box::new(conv.groups(4)),
            vec![2, 4, 5, 5],
            "shape mismatch in deconv_conv2d: 4 groups do not divide 4 and 6 channels",
        ),
        (
            Box::new(conv),
            vec![2, 3, 5, 5],
            "shape mismatch in deconv_conv2d: [2, 3, 5, 5] does not have 4 channels",
        ),
        (
            Box::new(DeconvLinear::new(4, 2)),
            vec![2, 3],
            "shape mismatch in deconv_linear: [2, 3] does not have 4 features",
        ),
        (
            Box::new(ChannelDeconv::new(4, 2)),
            vec![2, 3, 5, 5],
            "shape mismatch in channel_deconv: [2, 3, 5, 5] does not have 4 channels",
        ),
        (
            Box::new(ChannelDeconv::new(4, 2)),
            vec![2, 4, 5],
            "shape mismatch in channel_deconv: [2, 4, 5] does not have 4 channels",
        ),
        (
            Box::new(Dropout::new(1.0)),
            vec![2],
            "dropout: p 1 is not in [0, 1)",
        ),
        (
            Box::new(Dropout::new(-0.5)),
            vec![2],
            "dropout: p -0.5 is not in [0, 1)",
        ),
    ];
    for (layer, shape, wanted) in layers {
        let g = Graph::new();
        layer.forward(g.input("x", shape), Mode::Train);
        let said = g.check().unwrap_err().to_string();
        let (what, _) = said.split_once(" (at ").unwrap_or((&said, ""));
        assert_eq!(what, wanted);
    }
}

/// Batches of which statistics have nothing to divide by, or nothing to leave out.
#[test]
fn the_least_batches_have_finite_statistics() {
    let one = {
        let g = Graph::new();
        let y = BatchNorm::new(3).forward(g.input("x", [1, 3]), Mode::Train);
        g.output("y", y);
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = Program::compile(&g, &mut store, support::compile_options()).unwrap();
        program.run(&[("x", &[1.0, -2.0, 3.0])]).unwrap();
        store.read("running_var").unwrap()
    };
    // Nothing varies: nine tenths of the first variance, which is 1.
    assert!(one.iter().all(|v| (v - 0.9).abs() < 1e-6), "{one:?}");
    // Every second pixel in both directions would be every fourth of a single row: all are taken.
    let [all, sampled] = [1, 2].map(|stride| {
        let g = Graph::new();
        let options = DeconvOptions::default().block(2).sampling_stride(stride);
        let layer = ChannelDeconv::new(2, 2).options(options);
        g.output("y", layer.forward(g.input("x", [3, 2, 1, 7]), Mode::Train));
        let values: Vec<f32> = (0..42).map(|i| (i * 37 % 23) as f32 / 9.0).collect();
        support::run(&g, &[("x", &values)]).unwrap()["y"].clone()
    });
    assert_eq!(all, sampled);
}

/// Of a layer, so that `describe` and messages say whose they are.
#[test]
fn named_tensors_have_the_scope_that_they_are_named_in() {
    let g = Graph::new();
    let x = g.input("x", [3]);
    let named = g.scope("conv1", || g.scope("deconv", || (x + x).named("cov")));
    assert_eq!(named.name(), "conv1.deconv.cov");
}
