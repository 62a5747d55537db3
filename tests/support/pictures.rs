//! Pictures that tests write, and images in CIFAR's form.

use std::path::Path;

use image::{DynamicImage, Rgb, RgbImage};

/// Values of an image of CIFAR.
pub const CIFAR_LEN: usize = 3072;
/// The constants of `--data cifar10`, from the paper's code.
const MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const STD: [f64; 3] = [0.2023, 0.1994, 0.2010];

/// Writes `image` by the ending of `path`, whose folder is made.
pub fn save(path: &Path, image: impl Into<DynamicImage>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

/// Writes 9 x 12 pixels of one colour.
pub fn save_plain(path: &Path, colour: [u8; 3]) {
    save(path, RgbImage::from_pixel(9, 12, Rgb(colour)));
}

/// Image `i` in CIFAR's form: not symmetric, so that a mirrored or shifted one differs.
pub fn cifar_image(i: usize) -> Vec<u8> {
    let pixel = |p: usize| ((p * p / 7 + 31 * i + p % 32 * 5) % 256) as u8;
    (0..CIFAR_LEN).map(pixel).collect()
}

/// What a linear network says of an image of CIFAR, in float64.
pub fn cifar_logits(image: &[u8], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = image
        .iter()
        .enumerate()
        .map(|(p, &v)| (f64::from(v) / 255.0 - MEAN[p / 1024]) / STD[p / 1024])
        .collect();
    let rows = weight.chunks_exact(CIFAR_LEN).zip(bias);
    rows.map(|(row, &b)| {
        let sum: f64 = row.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum();
        sum + f64::from(b)
    })
    .collect()
}
