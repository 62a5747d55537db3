//! One image and its deconvolution, compiled: what Figures 1 to 3 and the window show.
//!
//! Image, statistics, D and pictures stay on the GPU; a step reads back a few hundred numbers.

use std::sync::Arc;

use super::axes::Axes;
use super::blur::{MAX_BLUR, blurred, gaussian};
use super::decorrelate::{Border, PatchForm, WhitenOptions, check_options, patches, whiten};
use super::measures::{
    Fig3Report, Measures, Sparsity, correlations, few_patches, measure_correlation,
    measure_histogram, measure_sparsity, sparsity, undefined,
};
use super::opened::{Opened, image};
use super::views::{Range, View, covariance_views, fitted, range, view};
use crate::gpu::Gpu;
use crate::graph::{Graph, Init, Tensor};
use crate::ops::Tiles;
use crate::picture::Picture;
use crate::program::{Outputs, Store};
use crate::{Error, Result};

/// Share of the values of a deconvolved image that are told apart: single pixels would leave the rest dark.
const PAINTED: f64 = 0.999;
/// How the names of views end that are of the size of a page.
pub(super) const OF_PAGE: &str = ".page";
/// Least magnitudes that are stretched to white: less is rounding, of constant images. Of values in [0, 1], less
/// than a step of 16 bits; and of deconvolved ones, whose standard deviation is about 1.
const LEAST_INPUT: f32 = 1e-5;
const LEAST_DECONVOLVED: f32 = 1e-2;

/// What to compute. A scene serves all values of `eps`, and all of `blur` but 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SceneOptions {
    /// k, odd.
    pub kernel_size: usize,
    /// Channels decorrelated together, see [`crate::nn::resolve_block`].
    pub block: usize,
    /// How D is computed.
    pub statistics: WhitenOptions,
    /// Standard deviation in pixels of the Gaussian that the image is blurred by first; 0: none.
    pub blur: f32,
    /// Largest side of the painted pictures of the image in pixels; `None`: as many as it has.
    pub side: Option<usize>,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self {
            kernel_size: 3,
            block: 3,
            statistics: WhitenOptions::default(),
            blur: 0.0,
            side: None,
        }
    }
}

impl SceneOptions {
    /// Refuses what cannot be computed.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub fn check(&self) -> Result<()> {
        check_options(self.kernel_size, self.block, &self.statistics)?;
        if !(0.0..=MAX_BLUR).contains(&self.blur) {
            let blur = self.blur;
            return Err(Error::Config(format!(
                "`blur` {blur} is not a standard deviation from 0 to {MAX_BLUR} pixels"
            )));
        }
        Ok(())
    }

    /// True if a scene for these options serves `other` too.
    pub fn serves(&self, other: &Self) -> bool {
        let fixed = |o: &Self| Self {
            statistics: WhitenOptions {
                eps: 0.0,
                ..o.statistics
            },
            blur: f32::from(u8::from(o.blur > 0.0)),
            ..*o
        };
        fixed(self) == fixed(other)
    }
}

/// What a step computed beside pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// How sparse and how correlated.
    pub report: Fig3Report,
    /// Before and after: shares of [`super::BINS`] parts of -[`super::SIGMAS`] to [`super::SIGMAS`]
    /// standard deviations.
    pub histograms: [Vec<f32>; 2],
    /// Ends of the colours of the covariances before and after.
    pub cov_ends: [f32; 2],
}

/// An image on the GPU with the program that deconvolves and paints it.
#[derive(Debug)]
pub struct Scene {
    opened: Opened<Built>,
    options: SceneOptions,
    len: usize,
}

/// What a graph shows, and what is to be said of how many patches there are.
#[derive(Debug)]
struct Built {
    views: Vec<View>,
    remark: Option<&'static str>,
}

impl Scene {
    /// Compiles, and takes the image to the device. With `like` it shares that one's memory of
    /// computed tensors and its pipelines: for scenes that are used in turn.
    ///
    /// # Errors
    /// [`Error::Config`] for options that make no sense, [`Error::Limit`] for an image that does not
    /// fit the device.
    pub fn new(
        gpu: &Arc<Gpu>,
        picture: &Picture,
        options: SceneOptions,
        like: Option<&Self>,
    ) -> Result<Self> {
        let store = match like {
            Some(like) => Store::in_workspace(like.opened.store.workspace(), 0),
            None => Store::new(gpu, 0),
        };
        Self::painting(store, picture, options, &[("", options.side)])
    }

    /// As [`Scene::new`], with every picture of the image in a second size too, no side longer than `side`: their views
    /// end in [`OF_PAGE`].
    pub(super) fn with_page(
        gpu: &Arc<Gpu>,
        picture: &Picture,
        options: SceneOptions,
        side: usize,
    ) -> Result<Self> {
        let sizes = [("", options.side), (OF_PAGE, Some(side))];
        Self::painting(Store::new(gpu, 0), picture, options, &sizes)
    }

    fn painting(
        store: Store,
        picture: &Picture,
        options: SceneOptions,
        sizes: &[(&str, Option<usize>)],
    ) -> Result<Self> {
        options.check()?;
        let axes = Axes::of(picture);
        let build = |image: Tensor<'_>| Ok(build(image, axes, &options, sizes));
        let opened = Opened::new(store, picture, options.kernel_size, None, build)?;
        Ok(Self {
            opened,
            options,
            len: picture.data.len(),
        })
    }

    /// Submits one step and waits for nothing.
    ///
    /// # Errors
    /// What the device reported, [`Error::Config`] for options that need another scene.
    pub fn step(&mut self, options: &SceneOptions) -> Result<()> {
        options.check()?;
        if !self.options.serves(options) {
            let message = format!("a scene for {:?} does not serve {options:?}", self.options);
            return Err(Error::Config(message));
        }
        let inputs = inputs(options);
        let inputs: Vec<(&str, &[f32])> = inputs.iter().map(|(n, v)| (*n, v.as_slice())).collect();
        self.opened.program.step(&inputs)?;
        Ok(())
    }

    /// The numbers of the last step that is done, if any is since the last call. Waits for nothing.
    ///
    /// # Errors
    /// What the device reported.
    pub fn take(&mut self) -> Result<Option<Numbers>> {
        let outputs = self.opened.program.collect()?;
        Ok(outputs.last().map(|o| self.numbers(o)))
    }

    /// The numbers of the last step submitted. Waits for it.
    ///
    /// # Errors
    /// What the device reported; [`Error::Config`] if no step was submitted since the last call.
    pub fn finish(&mut self) -> Result<Numbers> {
        let outputs = self.opened.program.finish()?;
        let last = outputs.last().map(|o| self.numbers(o));
        last.ok_or_else(|| Error::Config("no step of the scene is under way".into()))
    }

    /// What was painted. In the order of the figures.
    pub fn views(&self) -> &[View] {
        &self.opened.built.views
    }

    /// Holds the views.
    pub fn store(&self) -> &Store {
        &self.opened.store
    }

    fn numbers(&self, outputs: &Outputs) -> Numbers {
        let values = &outputs.values;
        let [before, after] = correlations(values);
        let measures = |name: &str, max_correlation: f64| Measures {
            sparsity: sparsity(values, name, self.len)
                .first()
                .copied()
                .unwrap_or(Sparsity::UNDEFINED),
            max_correlation,
        };
        let (before, after) = (measures("before", before), measures("after", after));
        let list = |name: &str| values.get(name).cloned().unwrap_or_default();
        let end = |name: &str| list(name).last().copied().unwrap_or(f32::NAN);
        Numbers {
            report: Fig3Report::new(before, after, undefined(values), self.opened.built.remark),
            histograms: [list("before.histogram"), list("after.histogram")],
            cov_ends: [end("cov_before.range"), end("cov_after.range")],
        }
    }
}

/// What a step of a scene of random pixels [C, H, W] computes, to be measured with [`inputs`].
pub(crate) fn random_scene(size: [usize; 3], options: &SceneOptions) -> Result<Graph> {
    let graph = Graph::new();
    let pixels = image(&graph, size, Init::Uniform(0.5));
    build(pixels, Axes::OPPONENT, options, &[("", options.side)]);
    graph.check()?;
    Ok(graph)
}

/// Values of the inputs of a step.
pub(crate) fn inputs(options: &SceneOptions) -> Vec<(&'static str, Vec<f32>)> {
    let mut inputs = vec![("eps", vec![options.statistics.eps])];
    if options.blur > 0.0 {
        inputs.push(("taps", gaussian(options.blur)));
    }
    inputs
}

/// The graph of `image` [1, C, H, W]. Inputs `eps` and, with a blur, `taps`. Pictures of the image are painted in all
/// `sizes`: how the names of their views end, and the largest side.
fn build<'g>(
    mut image: Tensor<'g>,
    axes: Axes,
    options: &SceneOptions,
    sizes: &[(&str, Option<usize>)],
) -> Built {
    let [_, c, h, w] = image.dims();
    let mut views = Vec::new();
    let paint = |views: &mut Vec<View>, name: &str, title: &str, shown: Tensor<'g>, ends| {
        let ends = range(shown, ends, 1);
        for (of, side) in sizes {
            let painted = side.map_or([h, w], |side| fitted([h, w], side));
            let tiles = Tiles::picture(c, [h, w], painted);
            views.push(view(&format!("{name}{of}"), title, shown, ends, tiles));
        }
    };
    let (mut input_title, mut border) = ("(a) input", Border::Zeros);
    if options.blur > 0.0 {
        paint(&mut views, "original", "original", image, Range::Unit);
        image = blurred(image);
        (input_title, border) = ("(a) input: the original, blurred", Border::Repeated);
    }
    let x = zero_mean(image);
    let layout = PatchForm {
        kernel_size: options.kernel_size,
        block: options.block,
        axes,
    };
    let patches = patches(x, layout, border);
    let layout = patches.layout;
    let stride = options.statistics.sampling_stride;
    let remark = few_patches(patches.count(stride), layout.features());
    let whitening = whiten(patches.moments(stride), &layout, options.statistics.n_iter);
    let y = patches.deconvolve(&whitening);

    let (abs_x, abs_y) = (x.abs(), y.abs());
    let (share, least) = (PAINTED, LEAST_DECONVOLVED);
    for (name, title, shown, ends) in [
        ("a_input", input_title, image, Range::Unit),
        (
            "b_zero_mean_abs",
            "(b) |zero-mean input|",
            abs_x,
            Range::FromZero {
                share: 1.0,
                least: LEAST_INPUT,
            },
        ),
        (
            "c_deconvolved",
            "(c) deconvolved, grey is 0",
            y,
            Range::Symmetric { share, least },
        ),
        (
            "d_deconvolved_abs",
            "(d) |deconvolved|",
            abs_y,
            Range::FromZero { share, least },
        ),
    ] {
        paint(&mut views, name, title, shown, ends);
    }
    views.extend(covariance_views(
        &whitening,
        options.kernel_size,
        layout.block,
    ));
    for (name, x, least) in [("before", x, LEAST_INPUT), ("after", y, LEAST_DECONVOLVED)] {
        measure_sparsity(name, x, false);
        measure_histogram(name, x, least);
    }
    measure_correlation(&whitening);
    Built { views, remark }
}

/// `image` [1, C, H, W] less the mean of each channel. Twice: float32's first mean of a million equal pixels is off
/// by more than what a few others differ by.
pub(super) fn zero_mean<'g>(image: Tensor<'g>) -> Tensor<'g> {
    let c = image.size(1);
    let less_mean = |x: Tensor<'g>| x - x.mean_to([1, c, 1, 1]);
    less_mean(less_mean(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_serves_what_it_was_compiled_for() {
        let options = SceneOptions {
            blur: 1.0,
            ..SceneOptions::default()
        };
        let with = |change: fn(&mut SceneOptions)| {
            let mut other = options;
            change(&mut other);
            options.serves(&other)
        };
        assert!(with(|o| o.statistics.eps = 0.1) && with(|o| o.blur = 2.0));
        for (name, served) in [
            ("kernel_size", with(|o| o.kernel_size = 5)),
            ("block", with(|o| o.block = 1)),
            ("n_iter", with(|o| o.statistics.n_iter = 5)),
            (
                "sampling_stride",
                with(|o| o.statistics.sampling_stride = 2),
            ),
            ("blur", with(|o| o.blur = 0.0)),
            ("side", with(|o| o.side = Some(64))),
        ] {
            assert!(!served, "{name}");
        }
    }
}
