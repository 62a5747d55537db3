//! The Gaussian that an image is blurred by before it is deconvolved.

use super::decorrelate::zeros_around;
use crate::graph::Tensor;
use crate::ops::Conv2dGeometry;

/// Taps of the Gaussian on either side of its centre.
const BLUR_RADIUS: usize = 24;
/// Its taps.
const TAPS: usize = 2 * BLUR_RADIUS + 1;
/// Largest standard deviation of the Gaussian, in pixels: three of them are within its taps.
pub const MAX_BLUR: f32 = BLUR_RADIUS as f32 / 3.0;

/// `image` [1, C, H, W] convolved with the input `taps` along columns, then along rows. Beyond its
/// border there is nothing: the taps that are on the image are made to sum to 1.
pub(super) fn blurred<'g>(image: Tensor<'g>) -> Tensor<'g> {
    let (g, [_, c, h, w]) = (image.graph(), image.dims());
    let taps = g.input("taps", [TAPS]);
    let along = |x: Tensor<'g>, [rows, columns]: [usize; 2]| {
        let padded = zeros_around(x, [rows / 2, columns / 2]);
        let weight = taps.reshape([1, 1, rows, columns]);
        padded.conv2d(weight, None, Conv2dGeometry::default())
    };
    let along_both = |x: Tensor<'g>| along(along(x, [TAPS, 1]), [1, TAPS]);
    let sums = along_both(image.reshape([c, 1, h, w]));
    let weights = along_both(g.constant(1.0, [1, 1, h, w]));
    (sums / weights).reshape([1, c, h, w])
}

/// The Gaussian of this standard deviation at whole pixels, its sum 1.
pub(super) fn gaussian(sigma: f32) -> Vec<f32> {
    let at = |i: usize| {
        let x = i as f64 - BLUR_RADIUS as f64;
        (-0.5 * (x / f64::from(sigma.max(1e-3))).powi(2)).exp()
    };
    let values: Vec<f64> = (0..TAPS).map(at).collect();
    let sum: f64 = values.iter().sum();
    values.iter().map(|v| (v / sum) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gaussian_sums_to_one_and_fits_its_taps() {
        for sigma in [0.3, 1.0, MAX_BLUR] {
            let taps = gaussian(sigma);
            assert!((taps.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(taps[0] < 0.02 * taps[BLUR_RADIUS]);
            assert_eq!(taps[0], taps[2 * BLUR_RADIUS]);
        }
    }
}
