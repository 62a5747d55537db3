//! The matrices whose rows a layer's weights are multiplied with, on the host: patches, deconvolved where the layer does so,
//! and their means and covariances.

use super::Scale;
use super::matrix::{Matrix, add};
use crate::ops::Window;

/// The rows of a layer: patches of its images, or for a linear layer, whose images are single pixels, its inputs.
#[derive(Debug)]
pub(super) struct Rows {
    /// [N, C, H, W].
    pub(super) x: Vec<f32>,
    /// [N, C, H, W].
    pub(super) shape: [usize; 4],
    pub(super) window: Window,
    /// [N, `out_h`, `out_w`]: rows of the matrix, in this order.
    pub(super) grid: [usize; 3],
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.grid.iter().product()
    }

    fn taps(&self) -> usize {
        self.window.kernel_size.iter().product()
    }

    /// Columns of the matrix, in the order of channels and their taps.
    pub(super) fn features(&self) -> usize {
        self.shape[1] * self.taps()
    }

    /// Image, row and column of a row of the matrix.
    pub(super) fn place(&self, row: usize) -> [usize; 3] {
        let [_, h, w] = self.grid;
        [row / (h * w), row / w % h, row % w]
    }

    /// The first `columns` numbers of the row there, before deconvolution.
    fn patch(&self, [n, h, w]: [usize; 3], columns: usize) -> Vec<f64> {
        let [_, channels, height, width] = self.shape;
        let ([_, k_w], taps) = (self.window.kernel_size, self.taps());
        let value = |column: usize| {
            let (channel, tap) = (column / taps, column % taps);
            let (y, x) = (
                h * self.window.stride + tap / k_w,
                w * self.window.stride + tap % k_w,
            );
            let (y, x) = (
                y.wrapping_sub(self.window.padding),
                x.wrapping_sub(self.window.padding),
            );
            match y < height && x < width {
                true => f64::from(self.x[((n * channels + channel) * height + y) * width + x]),
                false => 0.0,
            }
        };
        (0..columns).map(value).collect()
    }

    /// The first `columns` of these rows, before deconvolution.
    pub(super) fn sampled(&self, rows: &[usize], columns: usize) -> Centred {
        let patches = rows.iter().map(|&row| self.patch(self.place(row), columns));
        Centred::of(Matrix::of_rows(columns, patches))
    }

    /// The middle taps of the channels at a place, deconvolved.
    pub(super) fn channels_at(&self, place: [usize; 3], deconv: Option<&Deconv>) -> Vec<f64> {
        let patch = self.patch(place, self.features());
        self.channels_of(&patch, deconv)
    }

    /// The sum of the channels over all places of an image, divided by the root of their number: the coordinate along a unit
    /// vector, so that independent numbers keep their variance.
    pub(super) fn channels_of_image(&self, image: usize, deconv: Option<&Deconv>) -> Vec<f64> {
        let [_, height, width] = self.grid;
        let mut mean = vec![0.0; self.features()];
        let share = 1.0 / (height * width) as f64;
        for place in 0..height * width {
            let place = [image, place / width, place % width];
            add(&mut mean, share, &self.patch(place, self.features()));
        }
        // Deconvolution is linear but for the mean that it subtracts.
        let mut channels = self.channels_of(&mean, deconv);
        let root = ((height * width) as f64).sqrt();
        channels.iter_mut().for_each(|v| *v *= root);
        channels
    }

    fn channels_of(&self, patch: &[f64], deconv: Option<&Deconv>) -> Vec<f64> {
        let taps = self.taps();
        match deconv {
            None => patch.iter().skip(taps / 2).step_by(taps).copied().collect(),
            Some(deconv) => deconv.apply(patch, taps / 2, taps),
        }
    }
}

/// z = (x - mean) D of each block of neighbouring columns.
#[derive(Debug)]
pub(super) struct Deconv {
    /// Of a block.
    pub(super) mean: Vec<f64>,
    pub(super) deconv: Matrix,
}

impl Deconv {
    /// Columns of a block.
    pub(super) fn features(&self) -> usize {
        self.mean.len()
    }

    /// Of each block of `patch` the numbers `first`, `first` + `step`, ...
    fn apply(&self, patch: &[f64], first: usize, step: usize) -> Vec<f64> {
        let wanted: Vec<usize> = (first..self.features()).step_by(step).collect();
        let mut out = Vec::new();
        for block in patch.chunks_exact(self.features()) {
            let mut sums = vec![0.0; wanted.len()];
            for (f, (x, mean)) in block.iter().zip(&self.mean).enumerate() {
                let (row, centred) = (self.deconv.row(f), x - mean);
                for (sum, &column) in sums.iter_mut().zip(&wanted) {
                    *sum += centred * row[column];
                }
            }
            out.extend(sums);
        }
        out
    }
}

/// Rows less their mean.
pub(super) struct Centred {
    mean: Vec<f64>,
    rows: Matrix,
}

impl Centred {
    pub(super) fn of(mut rows: Matrix) -> Self {
        let mean = rows.centre();
        Self { mean, rows }
    }

    /// Deconvolved, whole blocks. (D^T Cov D would be less work where rows are many, and lose the small eigenvalues: D is
    /// large where Cov is small.)
    pub(super) fn deconvolved(&self, by: &Deconv) -> Self {
        let mut rows = Matrix::zeros(self.rows.rows(), self.rows.columns);
        for first in (0..rows.columns).step_by(by.features()) {
            let block = first..first + by.features();
            let product = self.rows.part(block.clone()).product(&by.deconv);
            for i in 0..rows.rows() {
                rows.row_mut(i)[block.clone()].copy_from_slice(product.row(i));
            }
        }
        let mean = by.apply(&self.mean, 0, 1);
        Self { mean, rows }
    }

    pub(super) fn moments(self) -> Moments {
        let mut cov = self.rows.gram();
        let count = self.rows.rows() as f64;
        cov.data.iter_mut().for_each(|v| *v /= count);
        Moments {
            mean: self.mean,
            cov,
        }
    }
}

/// Mean and covariance of the columns of a matrix.
#[derive(Debug)]
pub(super) struct Moments {
    mean: Vec<f64>,
    pub(super) cov: Matrix,
}

impl Moments {
    /// Those of y W, by the first columns of the weight, [O, columns].
    pub(super) fn times(&self, weight: &Matrix) -> Scale {
        let outputs = weight.transposed().gram();
        let products = self.cov.data.iter().zip(&outputs.data);
        let variance = products.map(|(a, b)| a * b).sum::<f64>();
        let mut mean = vec![0.0; weight.columns];
        for (o, &v) in self.mean.iter().enumerate() {
            add(&mut mean, v, weight.row(o));
        }
        Scale::new(variance, &mean)
    }

    pub(super) fn scale(&self) -> Scale {
        Scale::new(self.cov.trace(), &self.mean)
    }
}

/// Up to `most` of `count` rows, spread over all: multiples of the golden ratio fall together with no width of an image.
pub(super) fn sample(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let row = |i: usize| ((i as f64 * GOLDEN).fract() * count as f64) as usize;
    (0..most).map(row).collect()
}
