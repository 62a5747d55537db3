//! Every op against its float64 reference: values, and gradients against central differences of
//! the reference. Sizes are no multiples of any tile; limits are WebGPU's defaults.

mod support;

use std::collections::BTreeSet;

use decorr::autodiff::gradients_from;
use decorr::graph::op::Variants;
use decorr::graph::tiles::{Tile, Tiles};
use decorr::graph::{self, Graph, Init, Kind, Role};
use decorr::ops::{self, Conv2dGeometry, CovGrad, Padding2d, Pool2d, Transpose, Window};
use decorr::passes::Passes;
use decorr::program::CompileOptions;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::reference::{self, Geometry, Tensor};

type Build = Box<dyn for<'g> Fn(&[graph::Tensor<'g>]) -> graph::Tensor<'g>>;
type Reference = Box<dyn Fn(&[Tensor]) -> Tensor>;

/// One op at one size.
struct Case {
    name: String,
    shapes: Vec<Vec<usize>>,
    /// Values are drawn from this range.
    range: [f64; 2],
    /// Of the largest value of a tensor.
    tolerance: f64,
    /// False for ops that have no gradient.
    differentiable: bool,
    build: Build,
    reference: Reference,
}

fn case(
    name: &str,
    shapes: &[&[usize]],
    build: impl for<'g> Fn(&[graph::Tensor<'g>]) -> graph::Tensor<'g> + 'static,
    reference: impl Fn(&[Tensor]) -> Tensor + 'static,
) -> Case {
    Case {
        name: name.to_string(),
        shapes: shapes.iter().map(|s| s.to_vec()).collect(),
        range: [-1.0, 1.0],
        // f32 has 6e-8; sums of hundreds of terms lose a digit or two.
        tolerance: 1e-5,
        differentiable: true,
        build: Box::new(build),
        reference: Box::new(reference),
    }
}

impl Case {
    fn range(mut self, low: f64, high: f64) -> Self {
        self.range = [low, high];
        self
    }

    fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    fn not_differentiable(mut self) -> Self {
        self.differentiable = false;
        self
    }
}

fn unary_cases() -> Vec<Case> {
    type Unary = for<'g> fn(graph::Tensor<'g>) -> graph::Tensor<'g>;
    type Row = (&'static str, Unary, fn(f64) -> f64, [f64; 2]);
    let table: [Row; 11] = [
        ("relu", |x| x.relu(), |v| v.max(0.0), [-1.0, 1.0]),
        (
            "sigmoid",
            |x| x.sigmoid(),
            |v| 1.0 / (1.0 + (-v).exp()),
            [-6.0, 6.0],
        ),
        ("exp", |x| x.exp(), f64::exp, [-3.0, 3.0]),
        ("log", |x| x.ln(), f64::ln, [0.1, 3.0]),
        ("sqrt", |x| x.sqrt(), f64::sqrt, [0.1, 3.0]),
        ("rsqrt", |x| x.rsqrt(), |v| 1.0 / v.sqrt(), [0.1, 3.0]),
        ("recip", |x| x.recip(), |v| 1.0 / v, [0.3, 3.0]),
        ("square", |x| x.square(), |v| v * v, [-2.0, 2.0]),
        ("abs", |x| x.abs(), f64::abs, [-1.0, 1.0]),
        (
            "greater_than_zero",
            |x| x.greater_than_zero(),
            |v| f64::from(u8::from(v > 0.0)),
            [-1.0, 1.0],
        ),
        ("neg", |x| -x, |v| -v, [-1.0, 1.0]),
    ];
    let mut cases = Vec::new();
    for (name, op, f, [low, high]) in table {
        let one = case(name, &[&[3, 7, 5]], move |x| op(x[0]), move |x| x[0].map(f));
        cases.push(one.range(low, high));
    }
    cases.push(case(
        "affine",
        &[&[67]],
        |x| x[0].affine(-1.5, 0.25),
        |x| x[0].map(|v| -1.5 * v + 0.25),
    ));
    cases
}

fn binary_cases() -> Vec<Case> {
    type Binary = for<'g> fn(graph::Tensor<'g>, graph::Tensor<'g>) -> graph::Tensor<'g>;
    type Row = (&'static str, Binary, fn(f64, f64) -> f64);
    let table: [Row; 5] = [
        ("add", |a, b| a + b, |a, b| a + b),
        ("sub", |a, b| a - b, |a, b| a - b),
        ("mul", |a, b| a * b, |a, b| a * b),
        ("div", |a, b| a / b, |a, b| a / b),
        ("maximum", |a, b| a.maximum(b), f64::max),
    ];
    let shapes: [[&[usize]; 2]; 6] = [
        [&[3, 5, 7], &[3, 5, 7]],
        [&[2, 3, 5, 7], &[1, 3, 1, 1]],
        [&[5, 8], &[1, 8]],
        [&[5, 7], &[5, 1]],
        [&[2, 3, 4, 8], &[1]],
        [&[1, 3], &[9, 1]],
    ];
    let mut cases = Vec::new();
    for (name, op, f) in table {
        for [a, b] in shapes {
            let name = format!("{name} {a:?} {b:?}");
            let one = case(
                &name,
                &[a, b],
                move |x| op(x[0], x[1]),
                move |x| x[0].zip(&x[1], f),
            );
            cases.push(one.range(0.5, 2.0));
        }
    }
    cases
}

fn sum_cases() -> Vec<Case> {
    let table: [(&[usize], &[usize]); 11] = [
        (&[3, 5, 7, 9], &[1, 5, 1, 1]),
        (&[3, 5, 4, 8], &[1, 5, 1, 1]),
        (&[37, 13], &[1, 13]),
        (&[1201, 12], &[1, 12]),
        (&[13, 37], &[13, 1]),
        (&[3, 131, 5], &[1, 131, 1]),
        (&[2, 130, 4], &[1, 130, 1]),
        (&[5, 40], &[5, 1]),
        (&[3, 4, 5], &[3, 4, 1]),
        (&[9001], &[1]),
        (&[2, 31, 67], &[1]),
    ];
    let mut cases = Vec::new();
    for (from, to) in table {
        let (target, to) = (to.to_vec(), to.to_vec());
        cases.push(
            case(
                &format!("reduce_sum {from:?} {to:?}"),
                &[from],
                move |x| x[0].reduce_sum(to.clone(), 0.5),
                move |x| x[0].sum_to(&target).map(|v| 0.5 * v),
            )
            .tolerance(3e-5),
        );
    }
    for (from, to) in [
        (&[1, 3, 1, 1], &[2, 3, 5, 7]),
        (&[1, 1, 1, 1], &[2, 3, 1, 5]),
    ] {
        cases.push(case(
            &format!("broadcast {from:?} {to:?}"),
            &[from],
            move |x| x[0].broadcast_to(*to),
            move |x| x[0].broadcast(to),
        ));
    }
    cases
}

fn copy_cases() -> Vec<Case> {
    let padding = Padding2d {
        before: [1, 2],
        size: [13, 12],
        spacing: [2, 2],
    };
    vec![
        case(
            "strided_copy permute",
            &[&[2, 3, 5, 7]],
            |x| x[0].permute(&[2, 0, 3, 1]),
            |x| x[0].permute(&[2, 0, 3, 1]),
        ),
        case(
            "strided_copy slice",
            &[&[3, 11, 5]],
            |x| x[0].slice(1, 1, 3, 3),
            |x| x[0].slice(1, 1, 3, 3),
        ),
        case(
            "strided_copy pad and insert",
            &[&[2, 3, 5, 4]],
            move |x| x[0].pad2d(padding),
            |x| {
                let shape = [2, 3, 13, 12];
                Tensor::from_fn(&shape, |i| {
                    let (plane, row, column) = (i / 156, i / 12 % 13, i % 12);
                    let (y, x_) = (row.wrapping_sub(1), column.wrapping_sub(2));
                    let inside = y % 2 == 0 && x_ % 2 == 0 && y / 2 < 5 && x_ / 2 < 4;
                    if inside {
                        x[0].data[(plane * 5 + y / 2) * 4 + x_ / 2]
                    } else {
                        0.0
                    }
                })
            },
        ),
        case(
            "concat",
            &[&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]],
            |x| x[0].graph().concat(x, 1),
            |x| Tensor::concat(x, 1),
        ),
        case(
            "concat",
            &[&[1, 7], &[3, 7], &[2, 7], &[1, 7], &[4, 7], &[1, 7]],
            |x| x[0].graph().concat(x, 0),
            |x| Tensor::concat(x, 0),
        ),
        case(
            "reshape",
            &[&[2, 3, 5]],
            |x| x[0].reshape([6, 5]),
            |x| x[0].reshape(&[6, 5]),
        ),
        case(
            "detach",
            &[&[3, 5]],
            |x| x[0].detach() * x[0],
            |x| x[0].map(|v| v * v),
        )
        // The gradient is x, not 2x: checked in its own test.
        .not_differentiable(),
        case(
            "constant",
            &[&[3, 5]],
            |x| x[0].graph().constant(0.75, [3, 5]) * x[0],
            |x| x[0].map(|v| 0.75 * v),
        ),
    ]
}

fn product_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (m, n, k) in [
        (1, 1, 1),
        (7, 5, 3),
        (65, 33, 130),
        (3, 70, 9),
        (12, 20, 1030),
    ] {
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = if ta { [k, m] } else { [m, k] };
            let b = if tb { [n, k] } else { [k, n] };
            cases.push(case(
                &format!("matmul {m}x{n}x{k} {ta} {tb}"),
                &[&a, &b],
                move |x| match (ta, tb) {
                    (false, false) => x[0].matmul(x[1]),
                    (true, false) => x[0].t_matmul(x[1]),
                    (false, true) => x[0].matmul_t(x[1]),
                    (true, true) => x[0].matmul_with(x[1], None, Transpose { a: ta, b: tb }),
                },
                move |x| reference::matmul(&x[0], &x[1], ta, tb),
            ));
        }
    }
    for (a, b) in [
        ([3, 9, 11], [3, 11, 5]),
        ([1, 9, 11], [3, 11, 5]),
        ([3, 9, 11], [1, 11, 5]),
    ] {
        cases.push(case(
            &format!("matmul batched {a:?} {b:?}"),
            &[&a, &b],
            |x| x[0].matmul(x[1]),
            |x| reference::matmul(&x[0], &x[1], false, false),
        ));
    }
    for n in [5, 70] {
        cases.push(case(
            &format!("symmetric matmul with a matrix as bias {n}"),
            &[&[2, 9, n], &[2, n, n]],
            |x| {
                let bias = x[1] + x[1].permute(&[0, 2, 1]);
                let op = ops::MatMul {
                    transpose: Transpose { a: true, b: false },
                    alpha: -0.5,
                    diag: 1.5,
                    symmetric: true,
                    ..ops::MatMul::default()
                };
                x[0].matmul_with(x[0], Some(bias), op)
            },
            move |x| {
                let product = reference::matmul(&x[0], &x[0], true, false);
                Tensor::from_fn(&[2, n, n], |i| {
                    let mirrored = i / (n * n) * n * n + i % n * n + i / n % n;
                    let diag = if i == mirrored { 1.5 } else { 0.0 };
                    -0.5 * product.data[i] + diag + x[1].data[i] + x[1].data[mirrored]
                })
            },
        ));
    }
    // Of a symmetric B, only the symmetric part of its gradient.
    for n in [7, 70] {
        cases.push(case(
            &format!("matmul with a symmetric operand {n}"),
            &[&[2, 9, n], &[2, n, n]],
            |x| {
                let b = x[1] + x[1].permute(&[0, 2, 1]);
                let op = ops::MatMul {
                    alpha: -0.5,
                    b_is_symmetric: true,
                    ..ops::MatMul::default()
                };
                x[0].matmul_with(b, None, op)
            },
            move |x| {
                let b = x[1].zip(&x[1].permute(&[0, 2, 1]), |b, t| b + t);
                reference::matmul(&x[0], &b, false, false).map(|v| -0.5 * v)
            },
        ));
    }
    cases.push(case(
        "matmul with alpha, diagonal and bias",
        &[&[9, 7], &[7, 11], &[11]],
        |x| {
            let op = ops::MatMul {
                alpha: -0.5,
                diag: 1.5,
                ..ops::MatMul::default()
            };
            x[0].matmul_with(x[1], Some(x[2]), op)
        },
        |x| {
            let eye = Tensor::from_fn(&[9, 11], |i| f64::from(u8::from(i / 11 == i % 11)));
            let product = reference::matmul(&x[0], &x[1], false, false).map(|v| -0.5 * v);
            let sum = product.zip(&eye, |p, e| p + 1.5 * e);
            sum.zip(&x[2].reshape(&[1, 11]), |s, b| s + b)
        },
    ));
    for shape in [[1, 37, 9], [2, 23, 70], [1, 700, 13]] {
        cases.push(case(
            &format!("covariance {shape:?}"),
            &[&shape],
            |x| x[0].covariance(0.01),
            |x| reference::covariance(&x[0], 0.01),
        ));
    }
    for cov_grad in [CovGrad::Whole, CovGrad::Symmetric] {
        for n_iter in [1, 2, 5, 8] {
            cases.push(
                case(
                    &format!("newton_schulz {n_iter} {cov_grad:?}"),
                    &[&[2, 17, 6]],
                    move |x| x[0].covariance(0.05).newton_schulz(n_iter, cov_grad),
                    move |x| reference::newton_schulz(&reference::covariance(&x[0], 0.05), n_iter),
                )
                .tolerance(3e-5),
            );
        }
    }
    // By the Gram matrix of few rows, and of more than a tile has.
    for (shape, n_iter) in [
        ([2, 9, 23], 2),
        ([1, 9, 23], 3),
        ([1, 8, 40], 5),
        ([1, 70, 110], 5),
        ([1, 6, 31], 6),
        ([1, 6, 31], 7),
    ] {
        cases.push(
            case(
                &format!("newton_schulz_of_rows {n_iter} {shape:?}"),
                &[&shape],
                move |x| x[0].newton_schulz_of_rows(0.05, n_iter),
                move |x| reference::newton_schulz(&reference::covariance(&x[0], 0.05), n_iter),
            )
            .tolerance(3e-5),
        );
    }
    // More features than a tile has rows: tiles above the diagonal are mirrored.
    cases.push(
        case(
            "newton_schulz of 70",
            &[&[1, 200, 70]],
            |x| x[0].covariance(0.05).newton_schulz(5, CovGrad::Symmetric),
            |x| reference::newton_schulz(&reference::covariance(&x[0], 0.05), 5),
        )
        .tolerance(3e-5),
    );
    cases
}

fn convolution_cases() -> Vec<Case> {
    let table: [([usize; 4], [usize; 4], Geometry); 10] = [
        ([2, 3, 7, 6], [5, 3, 3, 3], geometry(1, 1, 1, 1)),
        ([2, 3, 11, 9], [5, 3, 3, 3], geometry(2, 1, 1, 1)),
        ([1, 4, 9, 9], [6, 2, 3, 3], geometry(1, 1, 1, 2)),
        ([2, 4, 9, 8], [8, 1, 3, 3], geometry(2, 1, 1, 4)),
        ([2, 3, 12, 10], [4, 3, 3, 3], geometry(1, 2, 2, 1)),
        ([2, 5, 6, 7], [7, 5, 1, 1], geometry(2, 0, 1, 1)),
        ([2, 4, 6, 7], [6, 2, 1, 1], geometry(2, 1, 1, 2)),
        ([1, 2, 9, 9], [3, 2, 2, 5], geometry(3, 2, 1, 1)),
        ([1, 2, 5, 5], [3, 2, 3, 3], geometry(1, 3, 1, 1)),
        ([3, 1, 6, 6], [66, 1, 6, 6], geometry(1, 0, 1, 1)),
    ];
    let mut cases = Vec::new();
    for (x, w, g) in table {
        cases.push(case(
            &format!("conv2d {x:?} {w:?} {g:?}"),
            &[&x, &w, &[w[0]]],
            move |t| {
                let geometry = Conv2dGeometry {
                    stride: g.stride,
                    padding: g.padding,
                    dilation: g.dilation,
                    groups: g.groups,
                };
                t[0].conv2d(t[1], Some(t[2]), geometry)
            },
            move |t| reference::conv2d(&t[0], &t[1], &t[2], g),
        ));
    }
    let small = Window {
        kernel_size: [3, 3],
        stride: 1,
        padding: 1,
        dilation: 1,
    };
    cases.push(case(
        "im2col_matmul with a symmetric matrix",
        &[&[5, 4, 2, 4], &[18, 18]],
        move |x| {
            let b = x[1] + x[1].permute(&[1, 0]);
            x[0].im2col_matmul(b, None, small, true)
        },
        |x| {
            let patches = reference::im2col(&x[0], [3, 3], geometry(1, 1, 1, 1));
            let b = x[1].zip(&x[1].permute(&[1, 0]), |b, t| b + t);
            let y = reference::matmul(&patches.reshape(&[80, 18]), &b, false, false);
            y.reshape(&[40, 36])
        },
    ));
    for g in [
        geometry(1, 1, 1, 1),
        geometry(2, 2, 2, 1),
        geometry(1, 2, 2, 1),
    ] {
        let window = Window {
            kernel_size: [3, 2],
            stride: g.stride,
            padding: g.padding,
            dilation: g.dilation,
        };
        let image = [2, 3, 7, 6];
        let columns = reference::im2col(&Tensor::from_fn(&image, |_| 0.0), [3, 2], g).shape;
        cases.push(case(
            &format!("im2col {g:?}"),
            &[&image],
            move |t| t[0].im2col(window),
            move |t| reference::im2col(&t[0], [3, 2], g),
        ));
        for len in [18, 6] {
            cases.push(case(
                &format!("im2col minus a mean of {len} {g:?}"),
                &[&image, &[1, len]],
                move |t| t[0].im2col_centred(t[1], window),
                move |t| {
                    let patches = reference::im2col(&t[0], [3, 2], g);
                    let mean = &t[1];
                    Tensor::from_fn(&patches.shape, |i| patches.data[i] - mean.data[i % len])
                },
            ));
        }
        for (blocks, is_biased) in [(1, true), (3, false)] {
            let features = 18 / blocks;
            let shapes: [&[usize]; 3] = [&image, &[features, 5], &[5 * blocks]];
            cases.push(case(
                &format!("im2col_matmul of {blocks} blocks {g:?}"),
                &shapes[..2 + usize::from(is_biased)],
                move |t| t[0].im2col_matmul(t[1], t.get(2).copied(), window, false),
                move |t| {
                    let patches = reference::im2col(&t[0], [3, 2], g);
                    let rows = patches.shape[0];
                    let by_block = patches.reshape(&[rows * blocks, features]);
                    let y = reference::matmul(&by_block, &t[1], false, false);
                    let y = y.reshape(&[rows, 5 * blocks]);
                    Tensor::from_fn(&y.shape, |i| {
                        y.data[i] + t.get(2).map_or(0.0, |bias| bias.data[i % (5 * blocks)])
                    })
                },
            ));
        }
        cases.push(case(
            &format!("col2im {g:?}"),
            &[&columns],
            move |t| t[0].col2im(window, image),
            move |t| reference::col2im(&t[0], [3, 2], g, &image),
        ));
    }
    for (kernel_size, stride, padding) in [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1)] {
        let pool = Pool2d {
            kernel_size,
            stride,
            padding,
        };
        let g = geometry(stride, padding, 1, 1);
        cases.push(case(
            &format!("max_pool2d {kernel_size} {stride} {padding}"),
            &[&[2, 3, 9, 7]],
            move |t| t[0].max_pool2d(pool),
            move |t| reference::pool(&t[0], kernel_size, g, true),
        ));
        cases.push(case(
            &format!("avg_pool2d {kernel_size} {stride} {padding}"),
            &[&[2, 3, 9, 7]],
            move |t| t[0].avg_pool2d(pool),
            move |t| reference::pool(&t[0], kernel_size, g, false),
        ));
    }
    cases.push(case(
        "global_avg_pool",
        &[&[2, 3, 5, 7]],
        |x| x[0].global_avg_pool(),
        |x| x[0].sum_to(&[2, 3, 1, 1]).map(|v| v / 35.0),
    ));
    for shape in [&[3, 5, 7, 3][..], &[17, 5], &[3, 131, 2, 2]] {
        let channels = shape[1];
        cases.push(
            case(
                &format!("batch_norm {shape:?}"),
                &[shape, &[channels], &[channels]],
                |x| x[0].batch_norm(x[0].batch_statistics(), x[1], x[2], 1e-3),
                |x| reference::batch_norm(&x[0], &x[1], &x[2], 1e-3),
            )
            .tolerance(3e-5),
        );
    }
    cases
}

fn geometry(stride: usize, padding: usize, dilation: usize, groups: usize) -> Geometry {
    Geometry {
        stride,
        padding,
        dilation,
        groups,
    }
}

fn loss_cases() -> Vec<Case> {
    // Those below 0 fill up a batch.
    const LABELS: [f64; 7] = [0.0, 2.0, -1.0, 4.0, 3.0, -1.5, -5.0];
    fn labels(g: &Graph) -> graph::Tensor<'_> {
        let values: Vec<f32> = LABELS.iter().map(|&v| v as f32).collect();
        g.state("labels", [7], Role::Statistic, Init::Values(values.into()))
    }
    let mut cases = Vec::new();
    for smoothing in [0.0, 0.1] {
        cases.push(case(
            &format!("softmax_cross_entropy {smoothing}"),
            &[&[7, 5]],
            move |x| x[0].softmax_cross_entropy(labels(x[0].graph()), smoothing as f32),
            move |x| reference::cross_entropy(&x[0], &LABELS, smoothing),
        ));
    }
    cases.push(case(
        "one_hot",
        &[&[7, 5]],
        |x| labels(x[0].graph()).one_hot(5) * x[0],
        |x| {
            Tensor::from_fn(&[7, 5], |i| {
                if (i % 5) as f64 == LABELS[i / 5] {
                    x[0].data[i]
                } else {
                    0.0
                }
            })
        },
    ));
    // Scaled by a tensor, as dropout does; 70 is no multiple of a workgroup.
    cases.push(case(
        "random_uniform",
        &[&[7, 10]],
        |x| {
            let init = Init::Values(vec![-1234.5].into());
            let counter = x[0].graph().state("counter", [1], Role::Optimizer, init);
            counter.random_uniform([7, 10]) * x[0]
        },
        |x| {
            let key = reference::pcg((-1234.5f32).to_bits());
            Tensor::from_fn(&[7, 10], |i| {
                let hash = reference::pcg((i as u32).wrapping_add(key));
                f64::from(hash >> 8) / f64::from(1 << 24) * x[0].data[i]
            })
        },
    ));
    for k in [1, 3] {
        cases.push(
            case(
                &format!("top_k_accuracy {k}"),
                &[&[7, 5]],
                move |x| x[0].top_k_accuracy(labels(x[0].graph()), k),
                move |x| {
                    Tensor::from_fn(&[7], |r| {
                        let row = &x[0].data[r * 5..(r + 1) * 5];
                        let Some(label) = (0..5).find(|&c| c as f64 == LABELS[r]) else {
                            return 0.0;
                        };
                        let own = row[label];
                        f64::from(u8::from(row.iter().filter(|&&v| v > own).count() < k))
                    })
                },
            )
            .not_differentiable(),
        );
    }
    cases
}

/// Ops that look at values and have no gradient.
fn figure_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // 20 001 values are counted by several workgroups; many of 70 are equal.
    for (shape, places) in [([3, 70], &[0, 35, 69, 1][..]), ([1, 20_001], &[0, 19_980])] {
        cases.push(case(
            &format!("kth_value {shape:?}"),
            &[&shape],
            move |x| (x[0] * 4.0).kth_value(places),
            move |x| {
                let rows = x[0].data.chunks(shape[1]);
                let of = rows.flat_map(|row| {
                    let mut sorted: Vec<f64> = row.iter().map(|v| 4.0 * v).collect();
                    sorted.sort_by(f64::total_cmp);
                    places.iter().map(move |&k| sorted[k]).collect::<Vec<f64>>()
                });
                Tensor::new(&[shape[0], places.len()], of.collect())
            },
        ));
    }
    for (shape, bins) in [([7, 11], 5), ([3, 20_001], 301)] {
        cases.push(case(
            &format!("histogram {shape:?}"),
            &[&shape],
            move |x| x[0].histogram(bins, [-0.5, 0.7]),
            move |x| {
                let mut shares = vec![0.0; bins];
                for &value in &x[0].data {
                    // In float32, as the edges of bins are.
                    let value = value as f32;
                    if (-0.5..=0.7).contains(&value) {
                        let bin = (value + 0.5) * (bins as f32 / 1.2);
                        shares[(bin as usize).min(bins - 1)] += 1.0 / x[0].data.len() as f64;
                    }
                }
                Tensor::new(&[bins], shares)
            },
        ));
    }
    // On both ends of the range, beyond them, and on edges of bins.
    let places = [
        -9.0, -8.0, -8.0, -7.5, -4.0, 0.0, 4.0, 7.9, 8.0, 8.0, 8.0, 8.5_f32,
    ];
    cases.push(case(
        "histogram of edges",
        &[&[places.len()]],
        move |x| {
            let values = Init::Values(places.to_vec().into());
            let known = x[0]
                .graph()
                .state("edges", [places.len()], Role::Scratch, values);
            (known + x[0] * 0.0).histogram(4, [-8.0, 8.0])
        },
        // 8, the last bin's upper end, is in it; what is beyond is in none.
        |_| Tensor::new(&[4], [3.0, 1.0, 1.0, 5.0].map(|n| n / 12.0).to_vec()),
    ));
    // Below half of the range the words are numbers. All pixels: tests/figures.rs.
    cases.push(
        case(
            "paint",
            &[&[2, 3, 5], &[1, 2]],
            |x| {
                let ends = x[1] * 0.0 + 1.0;
                let zero = ends * 0.0;
                let (low, high) = (zero.slice(1, 0, 1, 1), ends.slice(1, 0, 1, 1));
                let range = x[0].graph().concat(&[low, high], 1);
                let tiles = ops::Tiles {
                    count: 2,
                    columns: 2,
                    ..ops::Tiles::picture(1, [3, 5], [6, 5])
                };
                x[0].paint(range, tiles)
            },
            |x| {
                Tensor::from_fn(&[6, 64], |i| {
                    let (row, column) = (i / 64 / 2, i % 64);
                    let level = match column < 10 {
                        true => (x[0].data[(column / 5 * 3 + row) * 5 + column % 5] as f32 * 255.0)
                            .round() as u8,
                        false => 0,
                    };
                    f64::from(f32::from_bits(u32::from_le_bytes([
                        level, level, level, 255,
                    ])))
                })
            },
        )
        .range(0.0, 0.49),
    );
    cases.into_iter().map(Case::not_differentiable).collect()
}

fn all_cases() -> Vec<Case> {
    let mut cases = unary_cases();
    cases.extend(binary_cases());
    cases.extend(sum_cases());
    cases.extend(copy_cases());
    cases.extend(product_cases());
    cases.extend(convolution_cases());
    cases.extend(loss_cases());
    cases.extend(figure_cases());
    cases
}

/// Runs one case under `options`; returns the ops that its graph holds.
fn check(case: &Case, options: CompileOptions) -> BTreeSet<&'static str> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut draw = |shape: &[usize], [low, high]: [f64; 2]| {
        // As f32 knows it, so that both sides start from the same numbers.
        Tensor::from_fn(shape, |_| {
            f64::from((low + (high - low) * rng.random::<f64>()) as f32)
        })
    };
    let inputs: Vec<Tensor> = case.shapes.iter().map(|s| draw(s, case.range)).collect();
    let expected = (case.reference)(&inputs);
    let weights = draw(&expected.shape, [-1.0, 1.0]);

    let g = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let tensors: Vec<graph::Tensor> = names
        .iter()
        .zip(&inputs)
        .map(|(name, tensor)| g.input(name, tensor.shape.clone()))
        .collect();
    let y = (case.build)(&tensors);
    g.check().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(y.shape().dims(), expected.shape, "{}: shape", case.name);
    g.output("y", y);
    if case.differentiable {
        let seed = g.input("y_grad", expected.shape.clone());
        let grads = gradients_from(&[(y, seed)], &tensors);
        for (name, grad) in names.iter().zip(grads) {
            g.output(&format!("{name}_grad"), grad);
        }
    }
    let to_f32 = |t: &Tensor| t.data.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let mut values: Vec<(String, Vec<f32>)> = names
        .iter()
        .cloned()
        .zip(inputs.iter().map(to_f32))
        .collect();
    if case.differentiable {
        values.push(("y_grad".into(), to_f32(&weights)));
    }
    let given: Vec<(&str, &[f32])> = values
        .iter()
        .map(|(name, v)| (name.as_str(), v.as_slice()))
        .collect();
    let outputs =
        support::run_with(&g, &given, options).unwrap_or_else(|e| panic!("{}: {e}", case.name));

    compare(case, "y", &outputs["y"], &to_f32(&expected));
    if case.differentiable {
        for (i, name) in names.iter().enumerate() {
            let name = format!("{name}_grad");
            check_gradient(case, &name, &outputs[&name], &inputs, &weights, i);
        }
    }
    let list = g.list();
    let ops = list.nodes().iter().filter_map(|node| match &node.kind {
        Kind::Op(op) => Some(op.name()),
        _ => None,
    });
    ops.collect()
}

fn compare(case: &Case, what: &str, actual: &[f32], expected: &[f32]) {
    let (error, at) = support::relative_error(actual, expected);
    assert!(
        error <= case.tolerance,
        "{}: {what}[{at}] is {}, not {}: error {error:.1e} over {:.1e}",
        case.name,
        actual[at],
        expected[at],
        case.tolerance
    );
}

/// Compares d(sum of weights * reference)/d(input i) by central differences, at a sample of the
/// elements, spread evenly and with both ends.
fn check_gradient(
    case: &Case,
    what: &str,
    actual: &[f32],
    inputs: &[Tensor],
    weights: &Tensor,
    i: usize,
) {
    const STEP: f64 = 1e-6;
    const SAMPLE: usize = 23;
    let mut inputs = inputs.to_vec();
    let len = inputs[i].data.len();
    assert_eq!(actual.len(), len, "{}: {what}", case.name);
    let largest = actual.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    let objective = |inputs: &[Tensor]| {
        let y = (case.reference)(inputs);
        let products = y.data.iter().zip(&weights.data);
        products.map(|(a, b)| a * b).sum::<f64>()
    };
    for j in 0..SAMPLE.min(len) {
        let k = j * (len - 1) / (SAMPLE.min(len) - 1).max(1);
        let value = inputs[i].data[k];
        inputs[i].data[k] = value + STEP;
        let above = objective(&inputs);
        inputs[i].data[k] = value - STEP;
        let below = objective(&inputs);
        inputs[i].data[k] = value;
        let expected = (above - below) / (2.0 * STEP);
        let error = (f64::from(actual[k]) - expected).abs() / largest.max(1e-3);
        assert!(
            error <= case.tolerance,
            "{}: {what}[{k}] is {}, not {expected}: error {error:.1e} over {:.1e}",
            case.name,
            actual[k],
            case.tolerance
        );
    }
}

fn with(variants: Variants) -> CompileOptions {
    CompileOptions {
        variants: Some(variants),
        ..CompileOptions::default()
    }
}

#[test]
fn every_op_and_its_gradient_with_direct_kernels() {
    let cases = all_cases();
    let mut seen = BTreeSet::new();
    for case in &cases {
        seen.extend(check(case, with(Variants::direct(false))));
    }
    support::report(&format!(
        "direct kernels: {} cases of {} ops",
        cases.len(),
        seen.len()
    ));
    let known: BTreeSet<&str> = ops::NAMES.iter().copied().collect();
    assert_eq!(seen, known, "ops without a case, or unknown to the list");
}

/// With the kernels that `DECORR_KERNELS` names, or those of the smallest tile: a software adapter takes minutes to
/// compile larger ones for every size.
#[test]
fn products_and_convolutions_with_tiled_kernels() {
    let smallest = Tile::ALL[Tile::ALL.len() - 1];
    let named = support::compile_options().variants;
    let variants = named.unwrap_or(Variants::tiled(Tiles::all(smallest)));
    let mut cases = product_cases();
    cases.extend(convolution_cases());
    for case in &cases {
        check(case, with(variants));
    }
    support::report(&format!("{variants} kernels: {} cases", cases.len()));
}

#[test]
fn every_op_without_any_pass() {
    let cases = all_cases();
    for case in &cases {
        let options = CompileOptions {
            passes: Passes::NONE,
            ..CompileOptions::default()
        };
        check(case, options);
    }
    let own = "the adapter's own kernels, without passes";
    support::report(&format!("{own}: {} cases", cases.len()));
}

#[test]
fn no_gradient_flows_through_detach() {
    let g = Graph::new();
    let x = g.input("x", [3]);
    let y = x.detach() * x;
    let seed = g.constant(1.0, [3]);
    let grads = gradients_from(&[(y, seed)], &[x]);
    g.output("x_grad", grads[0]);
    let outputs = support::run(&g, &[("x", &[1.0, -2.0, 3.0])]).unwrap();
    assert_eq!(outputs["x_grad"], [1.0, -2.0, 3.0]);
}
