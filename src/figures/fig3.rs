//! Figure 3: an image, its zero-mean size, the deconvolved image, its size.
//!
//! Pixels in [0, 1], zero mean per channel. Patches of every pixel with zero padding k / 2; a
//! deconvolved channel is the column of (patches - mean) D at that channel's centre tap, which is
//! a convolution with that column of D: X D is never formed.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use plotters::prelude::*;
use serde::Serialize;

use super::picture::Picture;
use super::sparsity::{excess_kurtosis, hoyer, near_zero};
use crate::drawing::{draw_png, encode_png};
use crate::files::write_atomically;
use crate::gpu::Gpu;
use crate::graph::{Graph, TensorId};
use crate::ops::{
    Conv2dGeometry, CovGrad, MatMul, Padding2d, Transpose, Window, add, conv2d, covariance, im2col,
    matmul, matmul_with, mean_to, newton_schulz, pad2d, permute, reshape, scale, slice, sub,
};
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Most values of a strip of patches, so that it fits a binding of 128 MiB.
const STRIP_LEN: usize = 16 << 20;

/// Width of a panel on the sheet in pixels.
const PANEL: u32 = 480;

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fig3Options {
    /// k, odd.
    pub kernel_size: usize,
    /// Added to the diagonal of the covariance.
    pub eps: f32,
    /// Denman–Beavers iterations.
    pub n_iter: usize,
}

impl Default for Fig3Options {
    fn default() -> Self {
        Self {
            kernel_size: 3,
            eps: 1e-5,
            n_iter: 15,
        }
    }
}

/// How sparse and how correlated. Undefined ones (of a constant image) are NaN, in JSON null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measures {
    /// Over all pixels and channels.
    pub excess_kurtosis: f64,
    /// Over all pixels and channels.
    pub hoyer: f64,
    /// Share of |x| under 0.1 sigma.
    pub near_zero: f64,
    /// Largest off-diagonal |correlation| of the patches.
    pub max_correlation: f64,
}

/// The figures behind the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fig3Report {
    /// Of the zero-mean image.
    pub before: Measures,
    /// Of the deconvolved image.
    pub after: Measures,
}

/// Figure 3 of one image.
#[derive(Clone, Debug)]
pub struct Fig3 {
    /// (a) as it was.
    pub input: Picture,
    /// (b) is the size of this.
    pub zero_mean: Picture,
    /// (c), and (d) is the size of this.
    pub deconvolved: Picture,
    /// Figures.
    pub report: Fig3Report,
    options: Fig3Options,
}

/// Computes Figure 3 of `input` on the GPU.
///
/// # Errors
/// [`Error::Config`] for options that make no sense, [`Error::Limit`] for an image that does not
/// fit the device, and what the device reported.
pub fn fig3(gpu: &Arc<Gpu>, input: &Picture, options: Fig3Options) -> Result<Fig3> {
    let k = options.kernel_size;
    if k.is_multiple_of(2) || options.n_iter == 0 {
        return Err(Error::Config(format!(
            "--kernel-size {k} must be odd (a patch has a centre) and --n-iter {} at least 1",
            options.n_iter
        )));
    }
    if !(options.eps.is_finite() && options.eps > 0.0) {
        let message = format!("--eps {} is not a positive number", options.eps);
        return Err(Error::Config(message));
    }
    if k > input.height.min(input.width).max(3) {
        return Err(Error::Config(format!(
            "--kernel-size {k} is larger than the image of {}x{} pixels",
            input.width, input.height
        )));
    }
    let most = gpu.limits().max_storage_buffer_binding_size / 4;
    let padded = input.channels * (input.height + k) * (input.width + k);
    if padded as u64 > most || input.width * input.channels * k * k > STRIP_LEN {
        return Err(Error::Limit(format!(
            "the image has {}x{} pixels; {} holds about {} in one tensor. Scale it down",
            input.width,
            input.height,
            gpu.name(),
            most / input.channels as u64
        )));
    }
    let graph = graph(input, options)?;
    let mut store = Store::new(gpu, 0);
    let mut program = Program::compile(&graph, &mut store, CompileOptions::default())?;
    let mut values = program.run(&[("image", &input.data)])?.values;
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    let features = input.channels * k * k;
    let measure = |x: &[f32], cov: &[f32]| Measures {
        excess_kurtosis: excess_kurtosis(x),
        hoyer: hoyer(x),
        near_zero: near_zero(x),
        max_correlation: max_correlation(cov, features),
    };
    let (before, after) = (take("zero_mean"), take("deconvolved"));
    let report = Fig3Report {
        before: measure(&before, &take("cov_before")),
        after: measure(&after, &take("cov_after")),
    };
    let like = |data| Picture {
        channels: input.channels,
        height: input.height,
        width: input.width,
        data,
    };
    Ok(Fig3 {
        zero_mean: like(before),
        deconvolved: like(after),
        input: input.clone(),
        report,
        options,
    })
}

fn graph(input: &Picture, options: Fig3Options) -> Result<Graph> {
    let (c, h, w, k) = (
        input.channels,
        input.height,
        input.width,
        options.kernel_size,
    );
    let features = c * k * k;
    let mut g = Graph::new();
    let image = g.input("image", [1, c, h, w]);
    let channel_mean = mean_to(&mut g, image, [1, c, 1, 1])?;
    let x = sub(&mut g, image, channel_mean)?;
    let (mean, second_moment) = moments(&mut g, x, k)?;
    // The channels have mean zero, so that the columns' means are those of the border alone and
    // this difference loses no digits.
    let minus = |transpose| MatMul {
        alpha: -1.0,
        ..MatMul::from(transpose)
    };
    let product = |g: &mut Graph, diag| {
        let by_column = Transpose { a: true, b: false };
        let op = MatMul {
            diag,
            ..minus(by_column)
        };
        matmul_with(g, mean, mean, None, op)
    };
    let minus_mean = product(&mut g, 0.0)?;
    let cov_before = add(&mut g, second_moment, minus_mean)?;
    let minus_mean_plus_eps = product(&mut g, options.eps)?;
    let cov = add(&mut g, second_moment, minus_mean_plus_eps)?;
    let cov = reshape(&mut g, cov, [1, features, features])?;
    let deconv = newton_schulz(&mut g, cov, options.n_iter, CovGrad::Symmetric)?;

    let deconv = reshape(&mut g, deconv, [features, features])?;
    let half = matmul(&mut g, deconv, cov_before, Transpose::default())?;
    let cov_after = matmul(&mut g, half, deconv, Transpose::default())?;
    // Column of the centre tap of each channel, as a kernel.
    let centres = slice(&mut g, deconv, 1, k * k / 2, k * k, c)?;
    let kernels = permute(&mut g, centres, &[1, 0])?;
    let by_row = Transpose { a: false, b: true };
    let shift = matmul_with(&mut g, kernels, mean, None, minus(by_row))?;
    let bias = reshape(&mut g, shift, [c])?;
    let kernels = reshape(&mut g, kernels, [c, c, k, k])?;
    let geometry = Conv2dGeometry {
        padding: k / 2,
        ..Conv2dGeometry::default()
    };
    let deconvolved = conv2d(&mut g, x, kernels, Some(bias), geometry)?;
    g.output("zero_mean", x);
    g.output("deconvolved", deconvolved);
    g.output("cov_before", cov_before);
    g.output("cov_after", cov_after);
    Ok(g)
}

/// Mean `[1, features]` and second moment `[features, features]` of the patches of every pixel,
/// strip by strip: all patches of a photograph at once would not fit a binding.
fn moments(g: &mut Graph, x: TensorId, k: usize) -> Result<(TensorId, TensorId)> {
    let &[_, c, h, w] = g.shape(x).dims() else {
        return Err(Error::shape("fig3", "the image is not NCHW"));
    };
    let (features, pad) = (c * k * k, k / 2);
    let before = i64::try_from(pad).unwrap_or(i64::MAX);
    let padding = Padding2d {
        before: [before; 2],
        size: [h + 2 * pad, w + 2 * pad],
        spacing: [1, 1],
    };
    let padded = pad2d(g, x, padding)?;
    let window = Window {
        kernel_size: [k; 2],
        stride: 1,
        padding: 0,
        dilation: 1,
    };
    let rows_per_strip = (STRIP_LEN / (w * features)).max(1);
    let mut sums: Option<(TensorId, TensorId)> = None;
    for first in (0..h).step_by(rows_per_strip) {
        let rows = rows_per_strip.min(h - first);
        let strip = slice(g, padded, 2, first, 1, rows + k - 1)?;
        let patches = im2col(g, strip, window)?;
        let share = rows as f32 / h as f32;
        let mean = mean_to(g, patches, [1, features])?;
        let mean = scale(g, mean, share)?;
        let batch = reshape(g, patches, [1, rows * w, features])?;
        let moment = covariance(g, batch, 0.0)?;
        let moment = reshape(g, moment, [features, features])?;
        let moment = scale(g, moment, share)?;
        sums = Some(match sums {
            None => (mean, moment),
            Some((a, b)) => (add(g, a, mean)?, add(g, b, moment)?),
        });
    }
    sums.ok_or_else(|| Error::shape("fig3", "the image has no rows"))
}

/// Largest |cov[i, j]| / sqrt(cov[i, i] cov[j, j]), i and j different; 0 where a variance is 0.
fn max_correlation(cov: &[f32], features: usize) -> f64 {
    let at = |i: usize, j: usize| f64::from(cov[i * features + j]);
    let mut largest = 0f64;
    for i in 0..features {
        for j in 0..i {
            let variances = at(i, i) * at(j, j);
            if variances > 0.0 {
                largest = largest.max(at(i, j).abs() / variances.sqrt());
            }
        }
    }
    largest
}

impl Fig3 {
    /// The four panels: file stem, title, picture. (a), (b) and (d) are stretched from their least
    /// to their largest value, (c) symmetrically, so that grey is 0; in (c) and (d) the outermost
    /// thousandth of the values is cut, or single pixels would leave the rest dark.
    pub fn panels(&self) -> [(&'static str, &'static str, RgbImage); 4] {
        let range = |picture: &Picture| picture.quantiles(0.0, 1.0);
        let (low, high) = range(&self.input);
        let zero_mean = self.zero_mean.abs();
        let (_, b_high) = range(&zero_mean);
        let size = self.deconvolved.abs();
        let (_, d_high) = size.quantiles(0.0, 0.999);
        [
            ("a_input", "(a) input", self.input.to_rgb(low, high)),
            (
                "b_zero_mean_abs",
                "(b) |zero-mean input|",
                zero_mean.to_rgb(0.0, b_high),
            ),
            (
                "c_deconvolved",
                "(c) deconvolved, grey is 0",
                self.deconvolved.to_rgb(-d_high, d_high),
            ),
            (
                "d_deconvolved_abs",
                "(d) |deconvolved|",
                size.to_rgb(0.0, d_high),
            ),
        ]
    }

    /// Writes the four panels and the sheet `fig3.png` into `dir`, which is made; returns the
    /// paths' file names.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, dir: &Path) -> Result<Vec<String>> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let panels = self.panels();
        let mut names = Vec::new();
        for (stem, _, picture) in &panels {
            let name = format!("{stem}.png");
            let bytes = encode_png(picture)?;
            write_atomically(&dir.join(&name), &bytes)?;
            names.push(name);
        }
        write_atomically(&dir.join("fig3.png"), &self.sheet(&panels)?)?;
        names.push("fig3.png".into());
        Ok(names)
    }

    /// All panels with titles and figures, as a PNG file.
    fn sheet(&self, panels: &[(&str, &str, RgbImage); 4]) -> Result<Vec<u8>> {
        let height = (PANEL * self.input.height as u32).div_ceil(self.input.width.max(1) as u32);
        let height = height.clamp(40, 2 * PANEL);
        let (gap, title, caption) = (16, 34, 64);
        let size = (2 * PANEL + 3 * gap, 2 * (height + title + gap) + caption);
        let mut canvas = RgbImage::from_pixel(size.0, size.1, image::Rgb([255; 3]));
        let corner = |i: u32| {
            let x = gap + (i % 2) * (PANEL + gap);
            (x, (i / 2) * (height + title + gap))
        };
        for (i, (_, _, picture)) in (0..).zip(panels) {
            let (x, y) = corner(i);
            let filter = image::imageops::FilterType::Triangle;
            let scaled = image::imageops::resize(picture, PANEL, height, filter);
            image::imageops::replace(&mut canvas, &scaled, i64::from(x), i64::from(y + title));
        }
        draw_png(canvas, |root| {
            let write = |text: &str, x: u32, y: u32, points: f64| {
                let style = ("sans-serif", points).into_text_style(root);
                root.draw_text(text, &style, (x as i32, y as i32))
            };
            for (i, (_, text, _)) in (0..).zip(panels) {
                let (x, y) = corner(i);
                write(text, x, y + 8, 22.0)?;
            }
            let bottom = 2 * (height + title + gap) + 4;
            let line = |name: &str, m: &Measures| {
                format!(
                    "{name}: excess kurtosis {:.2}, Hoyer {:.3}, |x| < 0.1 sigma {:.1} %, largest \
                     patch correlation {:.3}",
                    m.excess_kurtosis,
                    m.hoyer,
                    100.0 * m.near_zero,
                    m.max_correlation
                )
            };
            write(&line("before", &self.report.before), gap, bottom, 19.0)?;
            let options = format!(
                "   (k {}, eps {:e}, n_iter {})",
                self.options.kernel_size, self.options.eps, self.options.n_iter
            );
            let after = line("after", &self.report.after) + &options;
            Ok(write(&after, gap, bottom + 26, 19.0)?)
        })
    }
}
