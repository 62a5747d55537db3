//! Pictures of a network: the kernels of its first layer, and what deconvolution makes of a test image before it.

use image::{Rgb, RgbImage};

use super::events::{self, Message};
use crate::Result;
use crate::data::DataSet;
use crate::drawing::encode_png;
use crate::graph::Graph;
use crate::models::Model;
use crate::nn::Mode;
use crate::train::checkpoint::Tensors;

/// Pixels that a tile's longer side has at least.
const LEAST_SIDE: usize = 32;
/// Pixels that are shown of kernels at most: a first linear layer has as many for each output as an image has.
const MOST_PIXELS: usize = 1 << 22;
/// Pixels between tiles.
const GAP: usize = 2;

/// What is known before the first step.
#[derive(Debug)]
pub(super) struct Pictures {
    /// Name of the first convolution.
    conv: Option<String>,
    /// [C, H, W] of an image.
    shape: [usize; 3],
    /// The first test image that can be read, as the network is given it.
    image: Option<Vec<f32>>,
}

impl Pictures {
    pub(super) fn new(model: &Model, set: &DataSet) -> Self {
        let images = &set.test;
        let shape @ [c, h, w] = [images.channels, images.height, images.width];
        let g = Graph::new();
        let x = g.input("images", [1, c, h, w]);
        // An error says that there is no convolution.
        let conv = model.conv_input(x, Mode::Eval, 1).ok();
        // What cannot be read, the evaluation names.
        let pixels = (0..images.len()).find_map(|i| images.image(i).ok());
        Self {
            conv: conv.map(|conv| conv.name),
            shape,
            image: pixels.map(|(pixels, _)| set.normalise(&pixels)),
        }
    }

    /// Those of a network with `tensors`, each a `Summary.Value`.
    ///
    /// # Errors
    /// Those of the encoder.
    pub(super) fn of(&self, tensors: &Tensors) -> Result<Vec<Message>> {
        let Some((layer, shape, kernels)) = self.first_layer(tensors) else {
            return Ok(Vec::new());
        };
        let picture = |tag: String, x: &[f32], shape| {
            let picture = tiles(x, shape);
            let png = encode_png(&picture)?;
            Ok(events::image(&tag, picture.dimensions(), &png))
        };
        let mut values = vec![picture(format!("kernels/{layer}"), kernels, shape)?];
        let statistic = |name: &str| tensors.get(&format!("{layer}.running_{name}"));
        if let (Some(_), Some(x), Some(mean), Some(deconv)) = (
            &self.conv,
            &self.image,
            statistic("mean"),
            statistic("deconv"),
        ) {
            let [_, k, _] = shape;
            let y = deconvolved(x, self.shape, k, &mean.data, &deconv.data);
            for (what, x) in [("input", x), ("deconvolved", &y)] {
                let tag = format!("features/{layer}.{what}");
                values.push(picture(tag, x, self.shape)?);
            }
        }
        Ok(values)
    }

    /// Name, shape [C, H, W] of a kernel, and kernels [O, C, H, W] of the first convolution; of a network without one, those
    /// that the rows of its first linear layer are.
    fn first_layer<'a>(&'a self, tensors: &'a Tensors) -> Option<(&'a str, [usize; 3], &'a [f32])> {
        if let Some(name) = &self.conv {
            let weight = tensors.get(&format!("{name}.weight"))?;
            let [_, c, h, w] = *weight.shape else {
                return None;
            };
            return Some((name, [c, h, w], &weight.data));
        }
        let len: usize = self.shape.iter().product();
        tensors.iter().find_map(|(name, tensor)| {
            let is_of_pixels = matches!(*tensor.shape, [_, inputs] if inputs == len);
            let name = name.strip_suffix(".weight").filter(|_| is_of_pixels)?;
            Some((name, self.shape, &*tensor.data))
        })
    }
}

/// What a convolution of k x k pixels is given of `x` [C, H, W]: for each pixel and channel its value of (patch - mean) D, as
/// `src/nn/deconv_conv2d.rs` has it. `mean` \[features\], `deconv` [features, features], features = block * k * k.
fn deconvolved(
    x: &[f32],
    [channels, height, width]: [usize; 3],
    k: usize,
    mean: &[f32],
    deconv: &[f32],
) -> Vec<f32> {
    let (features, taps, plane) = (mean.len(), k * k, height * width);
    let block = features / taps;
    let mut y = vec![0.0; channels * plane];
    for (channel, y) in y.chunks_mut(plane).enumerate() {
        let first = channel - channel % block;
        let centre = (channel - first) * taps + taps / 2;
        for feature in 0..features {
            let factor = deconv[feature * features + centre];
            let (source, dy, dx) = (first + feature / taps, feature % taps / k, feature % k);
            let x = &x[source * plane..(source + 1) * plane];
            for (i, y) in y.iter_mut().enumerate() {
                // Pixels around the image are 0.
                let row = (i / width + dy)
                    .checked_sub(k / 2)
                    .filter(|&row| row < height);
                let column = (i % width + dx)
                    .checked_sub(k / 2)
                    .filter(|&column| column < width);
                let pixel = row
                    .zip(column)
                    .map_or(0.0, |(row, column)| x[row * width + column]);
                *y += (pixel - mean[feature]) * factor;
            }
        }
    }
    y
}

/// `values` [N, C, H, W] as a mosaic, each from its least value, black, to its largest, white: in colour if there are three
/// channels, otherwise of the first one.
fn tiles(values: &[f32], [channels, height, width]: [usize; 3]) -> RgbImage {
    let plane = height * width;
    let most = (MOST_PIXELS / plane).max(1);
    let all: Vec<&[f32]> = values.chunks(channels * plane).take(most).collect();
    let columns = (1..).find(|n| n * n >= all.len()).unwrap_or(1);
    let rows = all.len().div_ceil(columns);
    let scale = (LEAST_SIDE / height.max(width)).max(1);
    let pixels = |count: usize, side: usize| (count * (side * scale + GAP) - GAP) as u32;
    let (w, h) = (pixels(columns, width), pixels(rows, height));
    let mut picture = RgbImage::from_pixel(w, h, Rgb([110; 3]));
    for (n, tile) in all.iter().enumerate() {
        let shown = match channels {
            3 => tile,
            _ => &tile[..plane],
        };
        let least = shown.iter().copied().fold(f32::INFINITY, f32::min);
        let largest = shown.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Of values that are all the same, black.
        let byte = |v: f32| ((v - least) / (largest - least) * 255.0).round() as u8;
        let (left, top) = (
            n % columns * (width * scale + GAP),
            n / columns * (height * scale + GAP),
        );
        for y in 0..height * scale {
            for x in 0..width * scale {
                let at = y / scale * width + x / scale;
                let colour = [0, 1, 2].map(|c| byte(shown[c * plane % shown.len() + at]));
                picture.put_pixel((left + x) as u32, (top + y) as u32, Rgb(colour));
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two kernels of 2 x 1, 32 pixels high.
    #[test]
    fn kernels_stand_side_by_side_each_from_black_to_white() {
        let picture = tiles(&[0.0, 2.0, 7.0, 3.0], [1, 2, 1]);
        assert_eq!(picture.dimensions(), (2 * 16 + GAP as u32, 32));
        let at = |x, y| picture.get_pixel(x, y).0;
        assert_eq!(
            [at(0, 0), at(15, 15), at(0, 16), at(15, 31)],
            [[0; 3], [0; 3], [255; 3], [255; 3]]
        );
        assert_eq!([at(16, 0), at(17, 31)], [[110; 3]; 2]);
        assert_eq!([at(18, 0), at(33, 31)], [[255; 3], [0; 3]]);
    }

    #[test]
    fn three_channels_are_colours_and_of_others_the_first_is_shown() {
        // One pixel of red, green, blue; the three have one range.
        let colour = tiles(&[0.0, 1.0, 0.2], [3, 1, 1]);
        assert_eq!(colour.dimensions(), (32, 32));
        assert_eq!(colour.get_pixel(31, 31).0, [0, 255, 51]);
        let first = tiles(&[1.0, 2.0, 9.0, 9.0], [2, 1, 2]);
        assert_eq!(
            [first.get_pixel(0, 0).0, first.get_pixel(31, 0).0],
            [[0; 3], [255; 3]]
        );
        // A large tile is not magnified; what is all the same, or no number, is no panic.
        let flat = tiles(&[0.5; 100], [1, 10, 10]);
        assert_eq!(
            (flat.dimensions(), flat.get_pixel(0, 0).0),
            ((30, 30), [0; 3])
        );
        assert_eq!(
            tiles(&[f32::NAN; 1000], [1, 10, 100]).dimensions(),
            (100, 10)
        );
        // Five tiles: three columns, two rows.
        assert_eq!(
            tiles(&[0.0; 5], [1, 1, 1]).dimensions(),
            (3 * 34 - 2, 2 * 34 - 2)
        );
    }

    /// Against the layer itself, with weights that take each channel's centre tap.
    #[test]
    fn a_channel_is_what_the_layer_sees_of_it() {
        use crate::gpu::{AdapterChoice, Gpu};
        use crate::nn::{DeconvConv2d, DeconvOptions, Layer};
        use crate::program::{CompileOptions, Program, Store};

        let gpu = Gpu::open_with_default_limits(&AdapterChoice::default()).unwrap();
        let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 101.0 - 0.5;
        for (channels, block, k) in [(3, 1, 3), (4, 2, 3), (3, 3, 5), (1, 1, 1)] {
            let (height, width) = (5, 7);
            let (taps, features) = (k * k, block * k * k);
            let x: Vec<f32> = (0..channels * height * width).map(number).collect();
            let mean: Vec<f32> = (0..features).map(|i| number(i + 5)).collect();
            let (row, column) = (|i| i / features, |i| i % features);
            // Symmetric, as D is.
            let deconv = (0..features * features)
                .map(|i| number(row(i) * column(i)) + number(row(i) + column(i)));
            let deconv: Vec<f32> = deconv.collect();
            let mut weight = vec![0.0; channels * channels * taps];
            for c in 0..channels {
                weight[(c * channels + c) * taps + taps / 2] = 1.0;
            }
            let g = Graph::new();
            let input = g.input("x", [1, channels, height, width]);
            let layer = DeconvConv2d::new(channels, channels, k)
                .padding(k / 2)
                .options(DeconvOptions::PAPER.block(block));
            g.output("y", g.scope("conv", || layer.forward(input, Mode::Eval)));
            let mut store = Store::new(&gpu, 1);
            let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
            let zeros = vec![0.0; channels];
            for (name, values) in [
                ("conv.weight", &weight),
                ("conv.bias", &zeros),
                ("conv.running_mean", &mean),
                ("conv.running_deconv", &deconv),
            ] {
                store.write(name, values).unwrap();
            }
            let wanted = program
                .run(&[("x", &x)])
                .unwrap()
                .values
                .remove("y")
                .unwrap();
            let y = deconvolved(&x, [channels, height, width], k, &mean, &deconv);
            let worst = y
                .iter()
                .zip(&wanted)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            // Sums of up to 75 products below 1.
            assert!(
                y.len() == wanted.len() && worst < 2e-5,
                "{channels} {block} {k}: {worst}"
            );
        }
    }
}
