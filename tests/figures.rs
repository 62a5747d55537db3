//! The figures: their numbers against float64, and their pictures against committed ones.
//!
//! `DECORR_PHOTOS=DIR` measures the pictures of a folder too. `DECORR_UPDATE_FIGURES=1` writes the committed
//! pictures anew.

mod support;

use std::path::{Path, PathBuf};

use decorr::figures::{
    Fig2Options, Fig3Report, Fig9Options, Inspector, Picture, Scene, SceneOptions, Sparsity,
    WhitenOptions, fig2, fig3, fig9,
};
use decorr::graph::{Graph, Init, Role};
use decorr::ops::{Colours, ROW_ALIGNMENT, Tiles};
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::{Live, Norm, TrainOptions, Trained};
use image::RgbImage;
use support::gpu;
use support::reference::{self, Geometry, Tensor};

const EPS: f32 = 1e-5;
const N_ITER: usize = 15;
const STATISTICS: WhitenOptions = WhitenOptions {
    eps: EPS,
    n_iter: N_ITER,
    sampling_stride: 1,
};
const FIG2: Fig2Options = Fig2Options {
    kernel_size: 3,
    block: 3,
    statistics: STATISTICS,
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn astronaut(side: usize) -> Picture {
    let picture = Picture::read(&root().join("assets/astronaut.png")).unwrap();
    picture.scaled_down(side).unwrap()
}

fn pictures_in(dir: &Path) -> Vec<(String, Picture)> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| Picture::has_known_extension(p));
    paths.sort();
    let name = |p: &Path| p.file_name().unwrap().to_string_lossy().into_owned();
    let read = |p: PathBuf| (name(&p), Picture::read(&p).unwrap());
    paths.into_iter().map(read).collect()
}

/// Patches, their covariance and what deconvolution makes of them, in float64.
struct Reference {
    cov: Tensor,
    deconv: Tensor,
    cov_after: Tensor,
    /// [pixels, C].
    deconvolved: Tensor,
}

/// Of `x` [1, C, H, W] with zeros around it, in blocks of `block` channels.
fn deconvolve(x: &Tensor, k: usize, block: usize) -> Reference {
    deconvolve_padded(x, k, block, k / 2)
}

/// Patches less their mean, [1, rows, block k k], of `x` with so many zeros around it.
fn centred_patches(x: &Tensor, k: usize, block: usize, padding: usize, stride: usize) -> Tensor {
    let geometry = Geometry {
        stride,
        padding,
        dilation: 1,
        groups: 1,
    };
    let features = block * k * k;
    let patches = reference::im2col(x, [k, k], geometry);
    let rows = patches.data.len() / features;
    let mut mean = vec![0.0; features];
    for row in patches.data.chunks_exact(features) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, v)| *m += v / rows as f64);
    }
    Tensor::from_fn(&[1, rows, features], |i| {
        patches.data[i] - mean[i % features]
    })
}

/// As [`deconvolve`] with so many zeros around `x`.
fn deconvolve_padded(x: &Tensor, k: usize, block: usize, padding: usize) -> Reference {
    let c = x.shape[1];
    let features = block * k * k;
    let centred = centred_patches(x, k, block, padding, 1);
    let rows = centred.shape[1];
    let cov = reference::covariance(&centred, 0.0);
    let eps = f64::from(EPS);
    let ridge = Tensor::from_fn(&[1, features, features], |i| {
        if i / features == i % features {
            eps
        } else {
            0.0
        }
    });
    let deconv = reference::newton_schulz(&cov.zip(&ridge, |a, b| a + b), N_ITER);
    let half = reference::matmul(&deconv, &cov, false, false);
    let cov_after = reference::matmul(&half, &deconv, false, false);
    let square = [features, features];
    let centres = deconv.reshape(&square).slice(1, k * k / 2, k * k, block);
    let centred = centred.reshape(&[rows, features]);
    let deconvolved = reference::matmul(&centred, &centres, false, false);
    Reference {
        cov: cov.reshape(&square),
        deconv: deconv.reshape(&square),
        cov_after: cov_after.reshape(&square),
        deconvolved: deconvolved.reshape(&[rows * block / c, c]),
    }
}

/// The pixels [1, C, H, W] less the mean of each channel.
fn zero_mean(picture: &Picture) -> Tensor {
    let plane = picture.height * picture.width;
    let mean = |p: &[f32]| p.iter().map(|&v| f64::from(v)).sum::<f64>() / plane as f64;
    let means: Vec<f64> = picture.data.chunks(plane).map(mean).collect();
    let shape = [1, picture.channels, picture.height, picture.width];
    Tensor::from_fn(&shape, |i| f64::from(picture.data[i]) - means[i / plane])
}

fn excess_kurtosis(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let moment = |p| values.iter().map(|v| (v - mean).powi(p)).sum::<f64>() / n;
    moment(4) / moment(2).powi(2) - 3.0
}

fn hoyer(values: &[f64]) -> f64 {
    let root = (values.len() as f64).sqrt();
    let l1: f64 = values.iter().map(|v| v.abs()).sum();
    let l2 = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    (root - l1 / l2) / (root - 1.0)
}

fn near_zero(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let sigma = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.iter().filter(|v| v.abs() < 0.1 * sigma).count() as f64 / n
}

fn max_correlation(cov: &Tensor) -> f64 {
    let n = cov.shape[0];
    let at = |i: usize, j: usize| cov.data[i * n + j];
    let pairs = (0..n).flat_map(|i| (0..i).map(move |j| (i, j)));
    pairs.fold(0.0, |most, (i, j)| {
        f64::max(most, at(i, j).abs() / (at(i, i) * at(j, j)).sqrt())
    })
}

/// Kurtosis, Hoyer, near zero and correlation, before and after.
fn measures_in_f64(picture: &Picture, k: usize) -> [f64; 8] {
    let x = zero_mean(picture);
    let of = deconvolve(&x, k, picture.channels);
    let side = |values: &[f64], cov: &Tensor| {
        [
            excess_kurtosis(values),
            hoyer(values),
            near_zero(values),
            max_correlation(cov),
        ]
    };
    let (before, after) = (
        side(&x.data, &of.cov),
        side(&of.deconvolved.data, &of.cov_after),
    );
    [before, after].concat().try_into().unwrap()
}

fn measures_on_gpu(picture: &Picture, kernel_size: usize) -> [f64; 8] {
    let options = SceneOptions {
        kernel_size,
        statistics: STATISTICS,
        side: Some(64),
        ..SceneOptions::default()
    };
    let mut scene = Scene::new(&gpu(), picture, options, None).unwrap();
    scene.step(&options).unwrap();
    let Fig3Report { before, after, .. } = scene.finish().unwrap().report;
    let side = |m: decorr::figures::Measures| {
        let s = m.sparsity;
        [s.excess_kurtosis, s.hoyer, s.near_zero, m.max_correlation]
    };
    [side(before), side(after)].concat().try_into().unwrap()
}

/// Of a figure, relative; near zero, absolute.
fn error(actual: f64, expected: f64) -> f64 {
    (actual - expected).abs() / expected.abs().max(0.05)
}

#[test]
fn photographs_become_sparse_and_their_patches_uncorrelated() {
    let mut photographs = pictures_in(&root().join("tests/photographs"));
    photographs.push(("astronaut.png".into(), astronaut(256)));
    let ours = photographs.len();
    assert!(ours >= 10, "only {ours} photographs");
    if let Some(dir) = std::env::var_os("DECORR_PHOTOS") {
        photographs.extend(pictures_in(Path::new(&dir)));
    }
    support::report(
        "photograph                 k  kurtosis before, after  Hoyer  largest |r|  error",
    );
    let mut worst = 0f64;
    for (i, (name, picture)) in photographs.iter().enumerate() {
        let (on_gpu, in_f64) = std::thread::scope(|scope| {
            let in_f64 = [3, 7].map(|k| scope.spawn(move || measures_in_f64(picture, k)));
            let on_gpu = [3, 7].map(|k| scope.spawn(move || measures_on_gpu(picture, k)));
            (
                on_gpu.map(|thread| thread.join().unwrap()),
                in_f64.map(|thread| thread.join().unwrap()),
            )
        });
        for ((k, actual), expected) in [3, 7].into_iter().zip(on_gpu).zip(in_f64) {
            let pairs = actual.iter().zip(&expected);
            let largest = pairs.map(|(&a, &e)| error(a, e)).fold(0.0, f64::max);
            worst = worst.max(largest);
            let [k0, h0, _, r0, k1, h1, _, r1] = actual;
            support::report(&format!(
                "{name:<26} {k}  {k0:7.3} {k1:7.3}  {h0:.4} {h1:.4}  {r0:.4} {r1:.4}  {:.4} %",
                100.0 * largest
            ));
            assert!(
                largest < 0.01,
                "{name}, k {k}: {actual:?}, in float64 {expected:?}"
            );
            // Of pictures that others give, only that the numbers are right.
            if i < ours {
                assert!(k1 > k0 && h1 > h0, "{name}, k {k}: not sparser: {actual:?}");
                assert!(r0 > 0.9 && r1 < 0.3, "{name}, k {k}: {r0} to {r1}");
            }
        }
    }
    support::report(&format!(
        "{} photographs at k 3 and 7: largest error against float64 {:.4} %",
        photographs.len(),
        100.0 * worst
    ));
}

/// Of colours that depend on each other, or do not vary, float32 must lose nothing; nor of a few pixels that differ
/// a little on a large plain ground.
#[test]
fn saturated_and_plain_images_in_float64() {
    let (h, w) = (60, 80);
    let plane = h * w;
    // Boxes at some distance from each other.
    let boxes = |i: usize, salt: usize| {
        let (y, x) = (i / w / 9, i % w / 11);
        f32::from(u8::from((y * 7 + x * 5 + salt).is_multiple_of(3)))
    };
    let noise = |i: usize| ((i * 7919 + i / 13 * 104_729) % 251) as f32 / 250.0;
    let picture = |of: [&dyn Fn(usize) -> f32; 3]| Picture {
        channels: 3,
        height: h,
        width: w,
        data: of.iter().flat_map(|f| (0..plane).map(f)).collect(),
    };
    let (a, b) = (|i| boxes(i, 0), |i| boxes(i, 1));
    let negative = |i| 1.0 - boxes(i, 0);
    let dim = |i| 0.02 * noise(i);
    let zero = |_| 0.0;
    let plain = |i| {
        if i == 1234 {
            201.0 / 255.0
        } else {
            200.0 / 255.0
        }
    };
    let one_row = Picture {
        channels: 3,
        height: 1,
        width: 500,
        data: (0..1500).map(|i| noise(i * 31)).collect(),
    };
    for (name, picture, k) in [
        ("yellow on black", picture([&a, &a, &zero]), 7),
        ("red and blue", picture([&a, &zero, &b]), 7),
        ("red alone", picture([&b, &zero, &zero]), 3),
        ("blue is not red", picture([&a, &b, &negative]), 5),
        ("dim red, full blue", picture([&dim, &zero, &b]), 7),
        ("one row", one_row, 3),
        ("one pixel", picture([&plain, &plain, &plain]), 1),
    ] {
        let (actual, expected) = (measures_on_gpu(&picture, k), measures_in_f64(&picture, k));
        for (what, i) in [("kurtosis", 4), ("Hoyer", 5), ("Hoyer before", 1)] {
            let (actual, expected) = (actual[i], expected[i]);
            assert!(
                error(actual, expected) < 0.01,
                "{name}: {what} {actual}, in float64 {expected}"
            );
        }
        assert!(
            (0.0..=1.0).contains(&actual[3]) && (0.0..=1.0).contains(&actual[7]),
            "{name}: {actual:?}"
        );
    }
}

#[test]
fn figure_2_is_of_the_covariance_in_float64() {
    let picture = astronaut(96);
    // Twice the same image: the covariance of both is that of one.
    let images = [picture.clone(), picture.clone()].map(Ok);
    let figure = fig2(&gpu(), images, None, FIG2).unwrap();
    let expected = deconvolve(&zero_mean(&picture), 3, 3);
    let as_f32 = |t: &Tensor| t.data.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let (cov, _) = support::relative_error(&figure.cov, &as_f32(&expected.cov));
    let (deconv, _) = support::relative_error(&figure.deconv, &as_f32(&expected.deconv));
    assert!(cov < 1e-6 && deconv < 1e-5, "cov {cov:e}, D {deconv:e}");
    let report = &figure.report;
    assert_eq!((report.images, report.features, report.block), (2, 27, 3));
    let off = |i: usize| expected.cov_after.data[i] - f64::from(u8::from(i / 27 == i % 27));
    let identity_error = (0..27 * 27).map(|i| off(i).abs()).fold(0.0, f64::max);
    assert!(error(report.identity_error, identity_error) < 0.01);
    assert!(
        error(
            report.max_correlation_after,
            max_correlation(&expected.cov_after)
        ) < 0.01
    );
}

/// `cov` is the covariance of these rows in float64.
fn is_covariance(cov: &[f32], centred: &Tensor) {
    let expected = reference::covariance(centred, 0.0).data;
    let expected: Vec<f32> = expected.iter().map(|&v| v as f32).collect();
    let (error, _) = support::relative_error(cov, &expected);
    assert!(error < 1e-6, "{error:e}");
}

/// Each patch counts the same, whatever the size of its image.
#[test]
fn figure_2_of_images_of_several_sizes_in_float64() {
    let other = |side, power| {
        let mut other = astronaut(side);
        other.data.iter_mut().for_each(|v| *v = v.powi(power));
        other
    };
    let pictures = [astronaut(64), other(40, 3), other(23, 2)];
    let figure = fig2(&gpu(), pictures.clone().map(Ok), None, FIG2).unwrap();
    let same = Geometry {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
    };
    let rows = pictures
        .each_ref()
        .map(|p| reference::im2col(&zero_mean(p), [3, 3], same).data)
        .concat();
    let count = rows.len() / 27;
    assert_eq!(count, 64 * 64 + 40 * 40 + 23 * 23);
    let mean = |j: usize| rows.iter().skip(j).step_by(27).sum::<f64>() / count as f64;
    let means: Vec<f64> = (0..27).map(mean).collect();
    let centred = Tensor::from_fn(&[1, count, 27], |i| rows[i] - means[i % 27]);
    is_covariance(&figure.cov, &centred);
}

/// A map's own largest magnitude is what its bar ends at, before as after.
#[test]
fn the_bars_of_figure_2_end_where_its_maps_do() {
    let figure = fig2(&gpu(), [Ok(astronaut(48))], None, FIG2).unwrap();
    let at_end = |values: &[f32]| values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let before = f64::from(at_end(&figure.cov));
    let expected = deconvolve(&zero_mean(&astronaut(48)), 3, 3);
    let after = expected
        .cov_after
        .data
        .iter()
        .fold(0.0_f64, |most, v| most.max(v.abs()));
    assert!(after > 2.0 * before, "{before} {after}");
    for (end, expected) in figure.bars.iter().zip([before, after]) {
        assert!(
            error(f64::from(*end), expected) < 0.01,
            "{:?} {before} {after}",
            figure.bars
        );
    }
}

/// What the window shows beside pictures: histograms of the values in their own deviations, and where colours end.
#[test]
fn numbers_of_a_scene_in_float64() {
    let picture = astronaut(48);
    let options = SceneOptions {
        statistics: STATISTICS,
        ..SceneOptions::default()
    };
    let mut scene = Scene::new(&gpu(), &picture, options, None).unwrap();
    scene.step(&options).unwrap();
    let numbers = scene.finish().unwrap();
    let x = zero_mean(&picture);
    let of = deconvolve(&x, 3, 3);
    for (ours, values) in numbers
        .histograms
        .iter()
        .zip([&x.data, &of.deconvolved.data])
    {
        let n = values.len() as f64;
        let sigma = (values.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
        let mut shares = vec![0.0; 161];
        for v in values {
            let part = ((v / sigma + 8.0) / 16.0 * 161.0).floor();
            shares[part.clamp(0.0, 160.0) as usize] += 1.0 / n;
        }
        let pairs = ours.iter().zip(&shares);
        let apart: f64 = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).sum();
        assert!(ours.len() == 161 && apart < 0.02, "{apart}");
    }
    for (end, cov) in numbers.cov_ends.iter().zip([&of.cov, &of.cov_after]) {
        let most = cov.data.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
        assert!(error(f64::from(*end), most) < 0.01, "{end}, not {most}");
    }
}

/// Statistics of every other patch, of an image whose sides are no multiples of the stride.
#[test]
fn figure_2_of_a_sample_in_float64() {
    // Of many rows: strips of patches fit a binding whatever the stride.
    let whole = astronaut(512);
    let large = Picture {
        channels: 1,
        height: 2048,
        width: 512 * 3,
        data: [whole.data.clone(), whole.data[..512 * 512].to_vec()]
            .concat()
            .repeat(3),
    };
    for (kernel_size, sampling_stride) in [(11, 64), (11, 5)] {
        let options = Fig2Options {
            kernel_size,
            block: 1,
            statistics: WhitenOptions {
                sampling_stride,
                ..STATISTICS
            },
        };
        let report = fig2(&gpu(), [Ok(large.clone())], None, options)
            .unwrap()
            .report;
        assert!(report.max_correlation_before > 0.9, "{report:?}");
    }

    let picture = astronaut(51);
    let (k, stride) = (5, 3);
    let options = Fig2Options {
        kernel_size: k,
        block: 3,
        statistics: WhitenOptions {
            sampling_stride: stride,
            ..STATISTICS
        },
    };
    let figure = fig2(&gpu(), [Ok(picture.clone())], None, options).unwrap();
    let (h, w) = (picture.height, picture.width);
    let centred = centred_patches(&zero_mean(&picture), k, 3, k / 2, stride);
    assert_eq!(centred.shape[1], h.div_ceil(stride) * w.div_ceil(stride));
    is_covariance(&figure.cov, &centred);
}

/// Of 3 x 3 patches of three colours, every eighth of 24 x 24 are 9, fewer than the 27 values of one.
#[test]
fn few_patches_are_said_where_a_stride_leaves_few() {
    let picture = astronaut(24);
    let network = trained();
    let notices = |sampling_stride| {
        let statistics = WhitenOptions {
            sampling_stride,
            ..STATISTICS
        };
        let of_fig2 = Fig2Options { statistics, ..FIG2 };
        let of_fig3 = SceneOptions {
            statistics,
            ..SceneOptions::default()
        };
        let of_fig9 = Fig9Options {
            layer: 1,
            block: Some(3),
            statistics,
            ..FIG9
        };
        let of_fig2 = fig2(&gpu(), [Ok(picture.clone())], None, of_fig2).unwrap();
        let of_fig3 = fig3(&gpu(), &picture, of_fig3).unwrap();
        let of_fig9 = fig9(&gpu(), &picture, &network, of_fig9).unwrap();
        [
            of_fig2.report.notice,
            of_fig3.numbers.report.notice,
            of_fig9.report.notice,
        ]
    };
    assert_eq!(notices(1), [None; 3]);
    for notice in notices(8) {
        let notice = notice.expect("9 patches are few");
        assert!(notice.contains("fewer patches than values"), "{notice}");
    }
}

/// The network that comes along, up to the input of its 5th convolution, in float64.
fn vgg_features(picture: &Picture) -> Tensor {
    let path = root().join("assets/vgg11-cifar10.safetensors");
    let (tensors, _) = decorr::train::checkpoint::load(&path).unwrap();
    let tensor = |name: String| {
        let t = &tensors[&name];
        Tensor::new(&t.shape, t.data.iter().map(|&v| f64::from(v)).collect())
    };
    let set = decorr::data::find_set("cifar10").unwrap();
    let (h, w) = (picture.height, picture.width);
    let mut x = Tensor::from_fn(&[1, 3, h, w], |i| {
        let c = i / (h * w);
        (f64::from(picture.data[i]) - f64::from(set.mean[c])) / f64::from(set.std[c])
    });
    let same = Geometry {
        stride: 1,
        padding: 1,
        dilation: 1,
        groups: 1,
    };
    let halve = Geometry {
        stride: 2,
        padding: 0,
        ..same
    };
    // Places of the convolutions in torchvision's `features`; pooling after the ones marked.
    for (i, pooled) in [(0, true), (3, true), (6, false), (8, true)] {
        let weight = tensor(format!("features.{i}.weight"));
        let bias = tensor(format!("features.{i}.bias"));
        let deconv = tensor(format!("features.{i}.running_deconv"));
        let mean = tensor(format!("features.{i}.running_mean"));
        let f = mean.data.len();
        let rows = weight.data.len() / f;
        let deconv = deconv.reshape(&[f, f]);
        let folded = reference::matmul(&weight.reshape(&[rows, f]), &deconv, false, false);
        let shift = reference::matmul(&folded, &mean.reshape(&[f, 1]), false, false);
        let blocks = rows / weight.shape[0];
        let bias = Tensor::from_fn(&bias.shape, |o| {
            bias.data[o] - shift.data[o * blocks..(o + 1) * blocks].iter().sum::<f64>()
        });
        let y = reference::conv2d(&x, &folded.reshape(&weight.shape), &bias, same);
        x = y.map(|v| v.max(0.0));
        if pooled {
            x = reference::pool(&x, 2, halve, true);
        }
    }
    x
}

fn trained() -> Trained {
    let path = root().join("assets/vgg11-cifar10.safetensors");
    Trained::read(&path, TrainOptions::default()).unwrap()
}

const FIG9: Fig9Options = Fig9Options {
    layer: 5,
    block: None,
    statistics: STATISTICS,
    running: false,
};

#[test]
fn figure_9_is_of_the_features_in_float64() {
    let picture = astronaut(120);
    let figure = fig9(&gpu(), &picture, &trained(), FIG9).unwrap();
    let report = &figure.report;
    assert_eq!(report.layer, "features.11");
    let x = vgg_features(&picture);
    assert_eq!(report.shape.as_slice(), &x.shape[1..]);
    let pixels = x.shape[2] * x.shape[3];
    let of = deconvolve(&x, 3, report.block);
    // Rows are (pixel, block), columns a block's channels: [pixels, C].
    let channels = x.shape[1];
    let mut worst = 0f64;
    for c in 0..channels {
        let plane = &x.data[c * pixels..(c + 1) * pixels];
        let mean = plane.iter().sum::<f64>() / pixels as f64;
        let before: Vec<f64> = plane.iter().map(|v| v - mean).collect();
        let after: Vec<f64> = (0..pixels)
            .map(|p| of.deconvolved.data[p * channels + c])
            .collect();
        let [ours_before, ours_after] = report.channels[c];
        for (ours, values) in [(ours_before, &before), (ours_after, &after)] {
            let expected = [excess_kurtosis(values), hoyer(values)];
            // A channel that is almost always 0 has no features to speak of.
            if expected[0].is_finite() && ours.hoyer.is_finite() {
                worst = worst.max(error(ours.hoyer, expected[1]));
                worst = worst.max(error(ours.excess_kurtosis, expected[0]));
            }
        }
    }
    assert!(worst < 0.01, "{worst}");
    assert!(report.live_channels * 10 > channels * 9, "{report:?}");
    // Where eps is far above all variances, features stay as they are.
    let mut with_eps = FIG9;
    with_eps.statistics.eps = 1e6;
    let same = fig9(&gpu(), &picture, &trained(), with_eps).unwrap().report;
    for [before, after] in &same.channels {
        let [before, after] = [before, after].map(|s| s.excess_kurtosis);
        let is_same = before.is_nan() || error(after, before) < 0.01;
        assert!(is_same, "{before} {after}");
    }
    // By Hoyer's measure, which says something else than kurtosis does.
    let count = |is_sparser: fn(&[Sparsity; 2]) -> bool| {
        report.channels.iter().filter(|c| is_sparser(c)).count()
    };
    let by_hoyer = count(|[before, after]| after.hoyer > before.hoyer);
    let by_kurtosis = count(|[before, after]| after.excess_kurtosis > before.excess_kurtosis);
    assert_eq!(report.sparser_channels, by_hoyer);
    assert_ne!(by_hoyer, by_kurtosis);
    support::report(&format!(
        "{channels} channels: largest error of Hoyer and kurtosis against float64 {:.4} %",
        100.0 * worst
    ));
}

/// A grey picture has one channel, however many are asked for: the page says so in its caption, too.
#[test]
fn the_page_of_figure_3_names_the_block_that_was_used() {
    let grey = astronaut(64).with_channels(1);
    let page = |block: usize| {
        let options = SceneOptions {
            block,
            ..SceneOptions::default()
        };
        fig3(&gpu(), &grey, options).unwrap().sheet
    };
    assert!(page(1) == page(3));
}

/// The running D of a checkpoint is another one, and a network without it says so.
#[test]
fn figure_9_by_running_statistics() {
    let picture = astronaut(64);
    let running = Fig9Options {
        running: true,
        ..FIG9
    };
    let of_image = fig9(&gpu(), &picture, &trained(), FIG9).unwrap().report;
    let of_network = fig9(&gpu(), &picture, &trained(), running).unwrap().report;
    assert_eq!(of_image.max_correlation[0], of_network.max_correlation[0]);
    assert!(of_network.max_correlation[1] > of_image.max_correlation[1]);
    // What would have no say is refused.
    let block = trained().block();
    let mut statistics = running.statistics;
    statistics.n_iter += 1;
    for (options, wanted) in [
        (
            Fig9Options {
                block: Some(block + 1),
                ..running
            },
            format!("`running`: the network's D is of blocks of {block}; leave `block` out"),
        ),
        (
            Fig9Options {
                statistics,
                ..running
            },
            "`running`: the network's D is taken as it is; leave `eps`, `n_iter` and `sampling_stride` out".into(),
        ),
    ] {
        let refused = fig9(&gpu(), &picture, &trained(), options).unwrap_err();
        assert_eq!(refused.to_string(), wanted);
    }
    let past = Fig9Options { layer: 9, ..FIG9 };
    let message = fig9(&gpu(), &picture, &trained(), past)
        .unwrap_err()
        .to_string();
    assert!(message.contains("8 convolutions"), "{message}");
}

/// A state dict of torchvision's names, which says neither its network nor its norm.
#[test]
fn figure_9_of_a_state_dict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vgg11.safetensors");
    let options = TrainOptions {
        width: Some(0.125),
        ..TrainOptions::default()
    };
    let g = Graph::new();
    let model = decorr::train::TrainConfig::resolve(TrainOptions {
        model: Some("vgg11".into()),
        norm: Some(Norm::None),
        data: Some("folder".into()),
        ..options.clone()
    })
    .unwrap()
    .model(1000);
    let x = g.input("x", [1, 3, 224, 224]);
    g.output("y", model.forward(x, decorr::nn::Mode::Eval));
    let mut store = Store::new(&gpu(), 5);
    Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    let roles = decorr::train::checkpoint::MODEL;
    let tensors = decorr::train::checkpoint::from_store(&store, &roles).unwrap();
    decorr::train::checkpoint::save(&path, &tensors, &Default::default()).unwrap();

    let trained = Trained::read(&path, options).unwrap();
    let picture = trained.prepare(&astronaut(100), 80).unwrap();
    let running = Fig9Options {
        running: true,
        ..FIG9
    };
    let refused = fig9(&gpu(), &picture, &trained, running).unwrap_err();
    let wanted = "`running`: the network was trained with `norm` none and has no running D";
    assert_eq!(refused.to_string(), wanted);
    let report = fig9(&gpu(), &picture, &trained, FIG9).unwrap().report;
    assert_eq!(
        (report.layer.as_str(), report.shape),
        ("features.11", [32, 10, 10])
    );

    // Channels that are constant have no part in the means.
    let (mut tensors, _) = decorr::train::checkpoint::load(&path).unwrap();
    let feeding = "features.8";
    for (name, value) in [("weight", 0.0), ("bias", -1.0)] {
        let tensor = tensors.get_mut(&format!("{feeding}.{name}")).unwrap();
        let each = tensor.data.len() / tensor.shape[0];
        tensor.data[..5 * each].fill(value);
    }
    decorr::train::checkpoint::save(&path, &tensors, &Default::default()).unwrap();
    let narrow = TrainOptions {
        width: Some(0.125),
        ..TrainOptions::default()
    };
    let trained = Trained::read(&path, narrow).unwrap();
    let report = fig9(&gpu(), &picture, &trained, FIG9).unwrap().report;
    let live: Vec<_> = report
        .channels
        .iter()
        .filter(|c| c[0].hoyer.is_finite())
        .collect();
    assert!(
        live.len() == report.live_channels && live.len() <= 32 - 5,
        "{}",
        live.len()
    );
    for side in [0, 1] {
        let mean =
            |of: &dyn Fn(usize) -> f64| (0..live.len()).map(of).sum::<f64>() / live.len() as f64;
        assert!((report.mean_hoyer[side] - mean(&|i| live[i][side].hoyer)).abs() < 1e-9);
        let kurtosis = mean(&|i| live[i][side].excess_kurtosis);
        assert!((report.mean_excess_kurtosis[side] - kurtosis).abs() < 1e-9 * kurtosis.abs());
    }
}

/// Every pixel of a mosaic in each kind of colours, against the same written out.
#[test]
fn paint_is_exact() {
    let (h, w, count) = (3, 5, 4);
    let values: Vec<f32> = (0..count * h * w)
        .map(|i| ((i * 37) % 101) as f32 / 101.0)
        .collect();
    for (colours, pixels, own) in [
        (Colours::Linear, [6, 10], false),
        (Colours::Linear, [3, 5], true),
        (Colours::Linear, [2, 2], true),
        (Colours::Signed, [3, 10], false),
    ] {
        let tiles = Tiles {
            count,
            columns: 3,
            pixels,
            gap: 1,
            background: [9, 8, 7],
            colours,
            ..Tiles::picture(1, [h, w], pixels)
        };
        let [height, width] = tiles.extent();
        let ranges: Vec<f32> = match own {
            true => (0..count).flat_map(|t| [0.1 * t as f32, 0.9]).collect(),
            false => vec![0.2, 0.8],
        };
        let g = Graph::new();
        let x = g.input("x", [count, h, w]);
        let range = g.input("range", [ranges.len() / 2, 2]);
        let picture = x.paint(range, tiles);
        let shape = [height, width.next_multiple_of(ROW_ALIGNMENT)];
        let state = g.state("picture", shape, Role::Scratch, Init::Constant(0.0));
        state.assign(picture);
        let mut store = Store::new(&gpu(), 0);
        let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        program.run(&[("x", &values), ("range", &ranges)]).unwrap();
        let words = store.read("picture").unwrap();
        let row = width.next_multiple_of(ROW_ALIGNMENT);
        for y in 0..height {
            for x in 0..width {
                let actual = words[y * row + x].to_bits().to_le_bytes();
                let (tile_y, in_y) = (y / (pixels[0] + 1), y % (pixels[0] + 1));
                let (tile_x, in_x) = (x / (pixels[1] + 1), x % (pixels[1] + 1));
                let tile = tile_y * 3 + tile_x;
                let expected = if tile >= count || in_y >= pixels[0] || in_x >= pixels[1] {
                    [9, 8, 7, 255]
                } else {
                    let span = |at: usize, size: usize, pixels: usize| {
                        let first = at * size / pixels;
                        first..((at + 1) * size / pixels).max(first + 1)
                    };
                    let mut sum = (0.0, 0.0);
                    for r in span(in_y, h, pixels[0]) {
                        for c in span(in_x, w, pixels[1]) {
                            sum.0 += f64::from(values[(tile * h + r) * w + c]);
                            sum.1 += 1.0;
                        }
                    }
                    let [low, high] = match own {
                        true => [0.1 * tile as f64, 0.9],
                        false => [0.2, 0.8],
                    };
                    let level = ((sum.0 / sum.1 - low) / (high - low)).clamp(0.0, 1.0);
                    colour(colours, level)
                };
                let far = actual
                    .iter()
                    .zip(&expected)
                    .any(|(a, e)| a.abs_diff(*e) > 1);
                assert!(
                    !far,
                    "{colours:?} {pixels:?} at {y}, {x}: {actual:?}, not {expected:?}"
                );
            }
        }
    }
}

fn colour(colours: Colours, level: f64) -> [u8; 4] {
    let byte = |v: f64| (v * 255.0).round() as u8;
    if colours == Colours::Linear {
        return [byte(level), byte(level), byte(level), 255];
    }
    let size = (2.0 * level - 1.0).abs();
    let (full, half) = match level > 0.5 {
        true => ([0.70, 0.03, 0.10], [0.97, 0.58, 0.42]),
        false => ([0.02, 0.19, 0.58], [0.42, 0.66, 0.95]),
    };
    let channel = |c: usize| match size > 0.5 {
        true => half[c] + (full[c] - half[c]) * (2.0 * size - 1.0),
        false => 1.0 + (half[c] - 1.0) * 2.0 * size,
    };
    [byte(channel(0)), byte(channel(1)), byte(channel(2)), 255]
}

/// A picture as committed: no more than one pixel in 500 differs by more than 3 of 255 levels in any channel.
/// Other adapters round sums of thousands of numbers otherwise, which moves a level here and there.
fn same_as_committed(name: &str, actual: &RgbImage) {
    let path = root().join("tests/figures").join(format!("{name}.png"));
    if std::env::var_os("DECORR_UPDATE_FIGURES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        actual.save(&path).unwrap();
    }
    let expected = image::open(&path)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
        .to_rgb8();
    assert_eq!(actual.dimensions(), expected.dimensions(), "{name}");
    let differs = |a: &image::Rgb<u8>, b: &image::Rgb<u8>| {
        a.0.iter().zip(&b.0).any(|(a, b)| a.abs_diff(*b) > 3)
    };
    let far = actual.pixels().zip(expected.pixels());
    let far = far.filter(|(a, b)| differs(a, b)).count();
    let all = (expected.width() * expected.height()) as usize;
    let failed = far * 500 > all;
    if failed {
        let at = std::env::temp_dir().join(format!("decorr-{name}.png"));
        actual.save(&at).unwrap();
        panic!(
            "{name}: {far} of {all} pixels differ; what was painted is {}",
            at.display()
        );
    }
    support::report(&format!("{name}: {far} of {all} pixels differ"));
}

#[test]
fn pictures_are_the_committed_ones() {
    let page = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
    let picture = astronaut(96);
    let figure = fig2(&gpu(), [Ok(picture.clone())], None, FIG2).unwrap();
    same_as_committed("fig2", &page(&figure.sheet));
    let layer = Fig2Options { block: 16, ..FIG2 };
    let network = trained();
    let of_layer = fig2(&gpu(), [Ok(picture.clone())], Some((&network, 2)), layer).unwrap();
    assert_eq!(of_layer.report.layer.as_deref(), Some("features.3"));
    same_as_committed("fig2_layer2", &page(&of_layer.sheet));

    let scene = SceneOptions::default();
    let figure = fig3(&gpu(), &picture, scene).unwrap();
    same_as_committed("fig3", &page(&figure.sheet));
    for one in &figure.panels {
        same_as_committed(&format!("fig3_{}", one.name), &one.picture);
    }
    let blurred = SceneOptions { blur: 1.5, ..scene };
    let figure = fig3(&gpu(), &picture, blurred).unwrap();
    same_as_committed("fig3_blurred", &page(&figure.sheet));

    let figure = fig9(&gpu(), &picture, &network, FIG9).unwrap();
    same_as_committed("fig9", &page(&figure.sheet));
}

/// The blur is the convolution with a Gaussian whose taps on the image sum to 1, and patches at the border of what
/// is blurred see its outermost pixels once more.
#[test]
fn blur_in_float64() {
    let picture = astronaut(40);
    let sigma = 1.5f64;
    let options = SceneOptions {
        blur: sigma as f32,
        kernel_size: 5,
        ..SceneOptions::default()
    };
    let figure = fig3(&gpu(), &picture, options).unwrap();
    let panel = figure.panels.iter().find(|p| p.name == "a_input").unwrap();
    let (h, w) = (picture.height, picture.width);
    let tap = |d: usize| (-0.5 * (d as f64 / sigma).powi(2)).exp();
    let blurred = Tensor::from_fn(&[3, h, w], |i| {
        let (c, y, x) = (i / (h * w), i / w % h, i % w);
        let mut sum = (0.0, 0.0);
        for v in 0..h {
            for u in 0..w {
                let weight = tap(y.abs_diff(v)) * tap(x.abs_diff(u));
                sum.0 += weight * f64::from(picture.data[(c * h + v) * w + u]);
                sum.1 += weight;
            }
        }
        sum.0 / sum.1
    });
    for (x, y, pixel) in panel.picture.enumerate_pixels() {
        for c in 0..3 {
            let value = blurred.data[(c * h + y as usize) * w + x as usize];
            let level = 255.0 * value;
            assert!((level - f64::from(pixel[c])).abs() < 0.6, "{x} {y} {c}");
        }
    }

    let mean =
        |c: usize| blurred.data[c * h * w..(c + 1) * h * w].iter().sum::<f64>() / (h * w) as f64;
    let means = [mean(0), mean(1), mean(2)];
    let (k, pad) = (5, 2);
    let (padded_h, padded_w) = (h + 2 * pad, w + 2 * pad);
    let padded = Tensor::from_fn(&[1, 3, padded_h, padded_w], |i| {
        let (c, y, x) = (
            i / (padded_h * padded_w),
            i / padded_w % padded_h,
            i % padded_w,
        );
        let inside = |at: usize, n: usize| at.saturating_sub(pad).min(n - 1);
        blurred.data[(c * h + inside(y, h)) * w + inside(x, w)] - means[c]
    });
    let of = deconvolve_padded(&padded, k, 3, 0);
    let after = &figure.numbers.report.after;
    let values = &of.deconvolved.data;
    for (name, actual, expected) in [
        (
            "kurtosis",
            after.sparsity.excess_kurtosis,
            excess_kurtosis(values),
        ),
        ("Hoyer", after.sparsity.hoyer, hoyer(values)),
        (
            "correlation",
            after.max_correlation,
            max_correlation(&of.cov_after),
        ),
    ] {
        assert!(
            error(actual, expected) < 0.01,
            "{name}: {actual}, in float64 {expected}"
        );
    }
}

/// What does not vary is painted as what it is, and not as its rounding.
#[test]
fn a_constant_image_is_painted_as_such() {
    let picture = Picture {
        channels: 3,
        height: 20,
        width: 30,
        data: [0.2, 0.6, 0.8].iter().flat_map(|&v| vec![v; 600]).collect(),
    };
    let figure = fig3(&gpu(), &picture, SceneOptions::default()).unwrap();
    let colours = [
        ("a_input", [51, 153, 204]),
        ("b_zero_mean_abs", [0; 3]),
        ("c_deconvolved", [128; 3]),
        ("d_deconvolved_abs", [0; 3]),
    ];
    for (one, (name, colour)) in figure.panels.iter().zip(colours) {
        assert_eq!(one.name, name);
        for pixel in one.picture.pixels() {
            // Black is at 0, white at 1e-5: rounding shows, but barely.
            let far = pixel.0.iter().zip(colour).any(|(a, b)| a.abs_diff(b) > 12);
            assert!(!far, "{name}: {pixel:?}");
        }
    }
    // Where nothing varies, the maps have the scale of what is nothing: before, and after by D of eps alone.
    assert_eq!(figure.numbers.cov_ends, [1e-12, 1e-3]);
    let figure = fig2(&gpu(), [Ok(picture)], None, FIG2).unwrap();
    assert_eq!(figure.bars, [1e-12, 1e-3]);
    for one in &figure.panels[..2] {
        let white = |p: &image::Rgb<u8>| p.0.iter().all(|&v| v > 250);
        assert!(one.picture.pixels().all(white), "{}", one.name);
    }
}

/// What is shown of a network while it learns is what its parameters are by then.
#[test]
fn an_inspector_paints_the_first_kernels_of_its_store() {
    let options = TrainOptions {
        model: Some("cnn".into()),
        block: Some(16),
        lr: Some(0.1),
        batch_size: Some(16),
        ..TrainOptions::default()
    };
    let mut live = Live::new(&gpu(), &options, &[Norm::Batch, Norm::Deconv]).unwrap();
    let test = &live.data().test;
    let shape = [test.channels, test.height, test.width];
    let image = live.data().normalise(&test.image(0).unwrap().0);
    let mut inspectors = Vec::new();
    for run in live.runs_mut() {
        let model = *run.model();
        inspectors.push(Inspector::new(run.store_mut(), &model, 2, shape, &image).unwrap());
    }
    let mut before: Option<Vec<RgbImage>> = None;
    for _ in 0..2 {
        let mut painted = Vec::new();
        for (run, inspector) in live.runs().iter().zip(&mut inspectors) {
            inspector.paint().unwrap();
            let [kernels, features] = inspector.views() else {
                panic!("{:?}", inspector.views());
            };
            let weight = run.store().read("conv1.weight").unwrap();
            let most = weight.iter().fold(0f32, |most, v| most.max(v.abs()));
            let k = 3;
            let count = weight.len() / (k * k);
            let columns = (1..).find(|n| n * n >= count).unwrap();
            let picture = kernels.read(run.store()).unwrap();
            let tile = (kernels.width + 6) / columns;
            let pixels = (tile - 6) / k;
            for (i, &v) in weight.iter().enumerate() {
                let (o, y, x) = (i / (k * k), i / k % k, i % k);
                let at =
                    |tile_at: usize, n: usize| (tile_at * tile + n * pixels + pixels / 2) as u32;
                let found = picture.get_pixel(at(o % columns, x), at(o / columns, y));
                let level = f64::from(0.5 * (v / most + 1.0));
                let expected = colour(Colours::Signed, level);
                let far = found.0.iter().zip(expected).any(|(a, e)| a.abs_diff(e) > 1);
                assert!(
                    !far,
                    "{:?} kernel {o} at {y}, {x}: {found:?}, not {expected:?}",
                    run.norm
                );
            }
            painted.push(picture);
            painted.push(features.read(run.store()).unwrap());
        }
        live.step().unwrap();
        live.collect(true).unwrap();
        if let Some(before) = before.replace(painted.clone()) {
            assert!(before.iter().zip(&painted).all(|(a, b)| a != b));
        }
    }
}

/// Sliders that come back give the same bits.
#[test]
fn a_scene_is_used_again_for_other_options() {
    let picture = astronaut(64);
    let options = SceneOptions {
        side: Some(32),
        ..SceneOptions::default()
    };
    let mut scene = Scene::new(&gpu(), &picture, options, None).unwrap();
    let mut report = |eps: f32| {
        let statistics = WhitenOptions { eps, ..STATISTICS };
        scene
            .step(&SceneOptions {
                statistics,
                ..options
            })
            .unwrap();
        scene.finish().unwrap().report
    };
    let (first, other, again) = (report(1e-5), report(1e-2), report(1e-5));
    assert_eq!(first, again);
    assert!(other.after.max_correlation > first.after.max_correlation);
    let deeper = SceneOptions {
        statistics: WhitenOptions {
            n_iter: 3,
            ..STATISTICS
        },
        ..options
    };
    assert!(
        scene
            .step(&deeper)
            .unwrap_err()
            .to_string()
            .contains("does not serve")
    );
}
