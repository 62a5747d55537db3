//! Figure 9: what a convolution of a trained network is given, and the magnitude of it deconvolved.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::axes::Axes;
use super::decorrelate::{
    Border, PatchForm, WhitenOptions, Whitening, check_options, patches, whiten,
};
use super::measures::{
    Sparsity, correlations, few_patches, in_digits, measure_correlation, measure_sparsity,
    sparsity, undefined,
};
use super::opened::Opened;
use super::scene::zero_mean;
use super::sheet::{Content, NamedPicture, Panel, file_names, sheet, write_figure};
use super::views::{SIDE, View, channels_view};
use crate::gpu::Gpu;
use crate::graph::{Init, Role, Tensor};
use crate::models::{ConvInput, Norm};
use crate::picture::Picture;
use crate::program::Store;
use crate::shape::Shape;
use crate::train::Trained;
use crate::{Error, Result};

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fig9Options {
    /// Which convolution, from 1.
    pub layer: usize,
    /// Channels decorrelated together; `None`: as many as the network's own layers, or 64.
    pub block: Option<usize>,
    /// How D is computed.
    pub statistics: WhitenOptions,
    /// Deconvolve by the running mean and D that the network has learned, not by those of the image.
    pub running: bool,
}

impl Default for Fig9Options {
    /// The paper's figure: the 5th convolution.
    fn default() -> Self {
        Self {
            layer: 5,
            block: None,
            statistics: WhitenOptions::default(),
            running: false,
        }
    }
}

/// The numbers behind the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fig9Report {
    /// The convolution.
    pub layer: String,
    /// Channels, rows and columns of its input.
    pub shape: [usize; 3],
    /// Channels of one covariance.
    pub block: usize,
    /// Largest off-diagonal |correlation| of the patches, before and after.
    pub max_correlation: [f64; 2],
    /// Mean over the channels that are not constant: of zero-mean channels, and after.
    pub mean_hoyer: [f64; 2],
    /// Likewise.
    pub mean_excess_kurtosis: [f64; 2],
    /// Mean Hoyer over the same channels as they are, with the zeros that `ReLU` leaves.
    pub mean_hoyer_of_input: f64,
    /// Channels that are sparser after than before by Hoyer's measure.
    pub sparser_channels: usize,
    /// Channels that are not constant.
    pub live_channels: usize,
    /// Why something is undefined, or means little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
    /// Of each channel: zero-mean, and after.
    pub channels: Vec<[Sparsity; 2]>,
}

/// Figure 9 of one image.
#[derive(Clone, Debug)]
pub struct Fig9 {
    /// The mosaics.
    pub panels: Vec<NamedPicture>,
    /// Numbers.
    pub report: Fig9Report,
    /// The page, a PNG file.
    pub sheet: Vec<u8>,
}

/// Computes Figure 9: the channels that a convolution of `trained` is given for `picture`, and their
/// deconvolved sizes, each channel stretched from its least to its largest value.
///
/// # Errors
/// [`Error::Config`] for options that make no sense, [`Error::Limit`] for an image that does not
/// fit the device, [`Error::Checkpoint`], and what the device reported.
pub fn fig9(
    gpu: &Arc<Gpu>,
    picture: &Picture,
    trained: &Trained,
    options: Fig9Options,
) -> Result<Fig9> {
    let block = options.block.unwrap_or(trained.block());
    check_options(1, block, &options.statistics)?;
    if options.running {
        options.check_running(trained)?;
    }
    let build = |image: Tensor<'_>| build(image, trained, block, Axes::of(picture), &options);
    let mut opened = Opened::new(Store::new(gpu, 0), picture, 1, Some(trained), build)?;
    let eps = [options.statistics.eps];
    let values = opened.program.run(&[("eps", &eps)])?.values;
    let report = Fig9Report::new(&opened.built, &values, options.running);
    let mut panels = Vec::new();
    for view in &opened.built.views {
        panels.push(view.named(&opened.store)?);
    }
    let sheet = page(&panels, &report, &options)?;
    Ok(Fig9 {
        panels,
        report,
        sheet,
    })
}

impl Fig9Options {
    /// Refuses `running` beside what it does not go with.
    fn check_running(&self, trained: &Trained) -> Result<()> {
        let norm = trained.model().norm;
        let block = trained.block();
        let why = if norm != Norm::Deconv {
            let norm = norm.name();
            format!("the network was trained with `norm` {norm} and has no running D")
        } else if self.statistics != WhitenOptions::default() {
            "the network's D is taken as it is; leave `eps`, `n_iter` and `sampling_stride` out"
                .into()
        } else if self.block.is_some_and(|other| other != block) {
            format!("the network's D is of blocks of {block}; leave `block` out")
        } else {
            return Ok(());
        };
        Err(Error::Config(format!("`running`: {why}")))
    }
}

impl Fig9Report {
    /// Of what a run of the graph gave; `running` if D is not that of the image.
    fn new(built: &Built, values: &BTreeMap<String, Vec<f32>>, running: bool) -> Self {
        // Running statistics are others' and may leave any variance.
        let undefined = undefined(values).filter(|_| !running);
        let [_, rows, columns] = built.shape;
        let of = |name: &str| sparsity(values, name, rows * columns);
        let (before, mut after) = (of("before"), of("after"));
        let mut max_correlation = correlations(values);
        if undefined.is_some() {
            after.fill(Sparsity::UNDEFINED);
            max_correlation[1] = f64::NAN;
        }
        let pairs = before.iter().zip(&after);
        let channels: Vec<[Sparsity; 2]> = pairs.map(|(&b, &a)| [b, a]).collect();
        let live = channels.iter().filter(|[b, _]| b.hoyer.is_finite());
        let live: Vec<&[Sparsity; 2]> = live.collect();
        let mean = |of: fn(&Sparsity) -> f64| {
            [0, 1].map(|side| live.iter().map(|p| of(&p[side])).sum::<f64>() / live.len() as f64)
        };
        let hoyers = of("input").into_iter().map(|s| s.hoyer);
        let hoyers: Vec<f64> = hoyers.filter(|h| h.is_finite()).collect();
        Self {
            layer: built.layer.clone(),
            shape: built.shape,
            block: built.block,
            max_correlation,
            mean_hoyer: mean(|s| s.hoyer),
            mean_excess_kurtosis: mean(|s| s.excess_kurtosis),
            mean_hoyer_of_input: hoyers.iter().sum::<f64>() / hoyers.len() as f64,
            sparser_channels: live.iter().filter(|[b, a]| a.hoyer > b.hoyer).count(),
            live_channels: live.len(),
            notice: undefined.or(built.remark.filter(|_| !running)),
            channels,
        }
    }
}

/// What the graph of an image shows.
struct Built {
    views: Vec<View>,
    /// The convolution.
    layer: String,
    /// Channels, rows and columns of its input.
    shape: [usize; 3],
    block: usize,
    remark: Option<&'static str>,
}

/// The graph of `image` [1, C, H, W]: the input of a convolution of `trained` and what becomes of it, in blocks of up to
/// `block` channels. Input `eps`.
fn build(
    image: Tensor<'_>,
    trained: &Trained,
    block: usize,
    axes: Axes,
    options: &Fig9Options,
) -> Result<Built> {
    let input = trained.conv_input(image, options.layer)?;
    let x = input.x;
    let [_, channels, rows, columns] = x.dims();
    let layout = PatchForm {
        kernel_size: input.kernel_size,
        block,
        axes,
    };
    let patches = patches(x, layout, Border::Zeros);
    let layout = patches.layout;
    let stride = options.statistics.sampling_stride;
    let mut whitening = whiten(patches.moments(stride), &layout, options.statistics.n_iter);
    if options.running {
        whitening = running(&input, &whitening);
    }
    let y = patches.deconvolve(&whitening);
    // Deconvolution takes the mean away: what it does beside that is seen against this.
    let zero_mean = zero_mean(x);
    for (name, x) in [("input", x), ("before", zero_mean), ("after", y)] {
        measure_sparsity(name, x, true);
    }
    measure_correlation(&whitening);
    Ok(Built {
        views: channel_views(x, y),
        layer: input.name,
        shape: [channels, rows, columns],
        block: layout.block,
        remark: few_patches(patches.count(stride), layout.features()),
    })
}

/// As the network itself deconvolves when it is evaluated. The covariances are still those of the image.
fn running<'g>(input: &ConvInput<'g>, of_image: &Whitening<'g>) -> Whitening<'g> {
    let (g, features) = (input.x.graph(), of_image.deconv.size(0));
    let buffer = |what: &str, shape: Shape, init| {
        let name = format!("{}.running_{what}", input.name);
        g.state(&name, shape, Role::Statistic, init)
    };
    let mean = buffer("mean", [1, features].into(), Init::Constant(0.0));
    let deconv = buffer("deconv", [1, features, features].into(), Init::Identity);
    of_image.with_deconv(mean, deconv.reshape([features, features]))
}

/// What is given, and the magnitude of it deconvolved.
fn channel_views<'g>(x: Tensor<'g>, y: Tensor<'g>) -> Vec<View> {
    let input = "(a) input of the convolution, channel by channel";
    let magnitude = "(b) |deconvolved input|";
    let y_abs = y.abs();
    vec![
        channels_view("a_features", input, x, 2 * SIDE),
        channels_view("b_deconvolved_abs", magnitude, y_abs, 2 * SIDE),
    ]
}

fn page(panels: &[NamedPicture], report: &Fig9Report, options: &Fig9Options) -> Result<Vec<u8>> {
    let mosaics = panels.iter().map(|one| {
        let note = "a tile a channel, from its least (black) to its largest value (white)";
        Panel::new(&one.title, note, Content::Picture(one.picture.clone()))
    });
    let series = [("before", 0), ("after", 1)].map(|(name, side)| {
        let values = report.channels.iter().map(|pair| pair[side].hoyer as f32);
        (name.to_string(), values.collect())
    });
    let chart = Panel::new(
        "sparsity of each channel, zero-mean before, and after",
        "Hoyer's measure: 0 if all values are equally large, 1 if all but one are zero",
        Content::Channels {
            series: series.to_vec(),
            what: "Hoyer's sparsity",
        },
    );
    sheet(&[mosaics.collect(), vec![chart]], &caption(report, options))
}

fn caption(report: &Fig9Report, options: &Fig9Options) -> Vec<String> {
    let [channels, rows, columns] = report.shape;
    let statistics = match options.running {
        true => "running statistics of the network".to_string(),
        false => format!(
            "statistics of this image, {}",
            options.statistics.describe()
        ),
    };
    let mut caption = vec![
        format!(
            "Input of {} (convolution {}): {channels} channels of {columns} x {rows}, in blocks of {}; {statistics}.",
            report.layer, options.layer, report.block
        ),
        format!(
            "mean over channels: Hoyer {} before (zero-mean), {} after; excess kurtosis {} before, {} \
             after; {} of the {} that are not constant are sparser after by Hoyer's measure",
            in_digits(report.mean_hoyer[0], 3),
            in_digits(report.mean_hoyer[1], 3),
            in_digits(report.mean_excess_kurtosis[0], 2),
            in_digits(report.mean_excess_kurtosis[1], 2),
            report.sparser_channels,
            report.live_channels
        ),
        format!(
            "largest |correlation| in patches: {} before, {} after",
            in_digits(report.max_correlation[0], 4),
            in_digits(report.max_correlation[1], 4)
        ),
    ];
    caption.extend(report.notice.map(String::from));
    caption
}

impl Fig9 {
    /// The names of the files that [`Fig9::write`] writes.
    pub fn files(&self) -> Vec<String> {
        file_names(&self.panels, "fig9.png")
    }

    /// Writes the panels and the page `fig9.png` into `dir`, which is made; returns the names of the
    /// files.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, dir: &Path) -> Result<Vec<String>> {
        write_figure(dir, &self.panels, "fig9.png", &self.sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four values a channel: two become sparser, one less sparse, one is constant.
    #[test]
    fn numbers_are_of_the_channels_that_are_not_constant() {
        // Variances, fourth moments, means of |x| and of squares, shares near zero. Hoyer's measure is 2 - 2 l1.
        let of = |fourth: [f32; 3], l1: [f32; 3]| {
            let rows = [[1.0; 3], fourth, l1, [1.0; 3], [0.5, 0.25, 0.125]];
            let rows = rows.iter().flat_map(|&[a, b, c]| [a, b, c, 0.0]);
            rows.collect::<Vec<f32>>()
        };
        let mut values = BTreeMap::from(
            [
                ("input.sparsity", of([3.0; 3], [0.875, 0.625, 0.75])),
                ("before.sparsity", of([5.0, 3.0, 4.0], [0.75, 0.875, 0.75])),
                ("after.sparsity", of([7.0, 4.0, 4.0], [0.625, 0.75, 0.875])),
                ("before.largest_variance", vec![1.0]),
                ("after.largest_variance", vec![1.0]),
                ("after.least_variance", vec![0.5]),
                ("before.max_correlation", vec![0.75]),
                ("after.max_correlation", vec![0.125]),
            ]
            .map(|(name, value)| (name.to_string(), value)),
        );
        let built = Built {
            views: Vec::new(),
            layer: "conv2".into(),
            shape: [4, 1, 4],
            block: 3,
            remark: Some("few"),
        };
        let report = Fig9Report::new(&built, &values, false);
        assert_eq!((report.live_channels, report.sparser_channels), (3, 2));
        assert_eq!(report.max_correlation, [0.75, 0.125]);
        assert_eq!(report.mean_hoyer, [1.25 / 3.0, 0.5]);
        assert_eq!(report.mean_excess_kurtosis, [1.0, 2.0]);
        assert_eq!(report.mean_hoyer_of_input, 0.5);
        let [before, after] = report.channels[1];
        assert_eq!(
            (before.hoyer, after.hoyer, after.near_zero),
            (0.25, 0.5, 0.25)
        );
        assert!(report.channels[3][0].hoyer.is_nan());

        let options = Fig9Options {
            layer: 2,
            ..Fig9Options::default()
        };
        let lines = [
            "Input of conv2 (convolution 2): 4 channels of 4 x 1, in blocks of 3; statistics of this image, eps 1e-5, \
             n_iter 15.",
            "mean over channels: Hoyer 0.417 before (zero-mean), 0.500 after; excess kurtosis 1.00 before, 2.00 \
             after; 2 of the 3 that are not constant are sparser after by Hoyer's measure",
            "largest |correlation| in patches: 0.7500 before, 0.1250 after",
            "few",
        ];
        assert_eq!(caption(&report, &options), lines);
        // Few patches of the image are no matter of the network's own statistics.
        let report = Fig9Report::new(&built, &values, true);
        let running = Fig9Options {
            running: true,
            ..options
        };
        let said = caption(&report, &running);
        assert!(
            said[0].ends_with("; running statistics of the network."),
            "{said:?}"
        );
        assert_eq!(said[1..], lines[1..3]);

        // What did not converge is not said, and why not is.
        values.insert("after.largest_variance".into(), vec![1.5]);
        let report = Fig9Report::new(&built, &values, false);
        assert!(
            report
                .notice
                .is_some_and(|text| text.contains("larger eps"))
        );
        assert_eq!(report.mean_hoyer[0], 1.25 / 3.0);
        assert!(report.mean_hoyer[1].is_nan() && report.max_correlation[1].is_nan());
        assert_eq!(report.sparser_channels, 0);
    }
}
