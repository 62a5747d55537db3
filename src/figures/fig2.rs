//! Figure 2: the covariance of patches before and after deconvolution, and the kernels that decorrelate.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::axes::Axes;
use super::decorrelate::{
    Border, Moments, PatchForm, WhitenOptions, check_options, patches, whiten,
};
use super::measures::{
    correlations, few_patches, in_digits, largest_magnitude, measure_correlation, number, undefined,
};
use super::opened::Opened;
use super::scene::zero_mean;
use super::sheet::{
    Content, NamedPicture, Panel, file_names, has_block_lines, sheet, write_figure,
};
use super::views::{View, covariance_views, find};
use crate::gpu::Gpu;
use crate::graph::{Graph, Tensor};
use crate::picture::Picture;
use crate::program::{CompileOptions, Program, Store};
use crate::train::Trained;
use crate::{Error, Result};

/// What to compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fig2Options {
    /// k, odd; a layer has its own.
    pub kernel_size: usize,
    /// Channels decorrelated together, see [`crate::nn::resolve_block`].
    pub block: usize,
    /// How D is computed.
    pub statistics: WhitenOptions,
}

/// The numbers behind the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fig2Report {
    /// Images that the covariance is of.
    pub images: usize,
    /// The convolution whose input it is of, if of a network's.
    pub layer: Option<String>,
    /// Channels of that input, or of the images.
    pub channels: usize,
    /// k.
    pub kernel_size: usize,
    /// Channels of one covariance.
    pub block: usize,
    /// Rows of the covariance: block k k.
    pub features: usize,
    /// Largest off-diagonal |correlation| before.
    pub max_correlation_before: f64,
    /// After.
    pub max_correlation_after: f64,
    /// Largest |D cov D - I|: how near to the identity `eps` and `n_iter` let it come.
    pub identity_error: f64,
    /// Why something is undefined, or means little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

/// Figure 2 of one or more images.
#[derive(Clone, Debug)]
pub struct Fig2 {
    /// Heat maps and kernels.
    pub panels: Vec<NamedPicture>,
    /// Numbers.
    pub report: Fig2Report,
    /// [F, F], before deconvolution, row-major.
    pub cov: Vec<f32>,
    /// [F, F].
    pub deconv: Vec<f32>,
    /// The largest magnitude in the covariance before and after: where the bars of their colours end.
    pub bars: [f32; 2],
    /// The page, a PNG file.
    pub sheet: Vec<u8>,
}

/// The two maps of covariances.
const MAPS: [&str; 2] = ["cov_before", "cov_after"];

/// Mean and covariance of the patches of images, and how many there are.
struct Pool {
    name: Option<String>,
    channels: usize,
    layout: PatchForm,
    /// Patches.
    count: usize,
    mean: Vec<f32>,
    cov: Vec<f32>,
}

/// Computes Figure 2 of all `images` together. They are taken one by one.
///
/// Without a `layer` it is of their pixels, the channels of each made zero-mean. With (network, n) it is of what the
/// network's `n`-th convolution is given for them.
///
/// # Errors
/// [`Error::Config`] for options that make no sense, [`Error::Limit`] for an image that does not
/// fit the device, [`Error::Checkpoint`], those of `images`, and what the device reported.
pub fn fig2(
    gpu: &Arc<Gpu>,
    images: impl IntoIterator<Item = Result<Picture>>,
    layer: Option<(&Trained, usize)>,
    options: Fig2Options,
) -> Result<Fig2> {
    check_options(options.kernel_size, options.block, &options.statistics)?;
    let mut total: Option<Pool> = None;
    let mut axes = None;
    let mut count = 0;
    for picture in images {
        let picture = picture?;
        // Any will do, and those of different images could not be added up.
        let axes = *axes.get_or_insert_with(|| Axes::of(&picture));
        let one = of_one(gpu, &picture, axes, layer, &options)?;
        count += 1;
        total = Some(match total {
            None => one,
            Some(sum) => pooled(sum, &one)?,
        });
    }
    let of = total.ok_or_else(|| Error::Config("Figure 2 of no image".into()))?;

    let features = of.mean.len();
    let g = Graph::new();
    let mean = g.input("mean", [1, features]);
    let cov = g.input("cov", [features, features]);
    let whitening = whiten(Moments { mean, cov }, &of.layout, options.statistics.n_iter);
    let views = covariance_views(&whitening, of.layout.kernel_size, of.layout.block);
    measure_correlation(&whitening);
    let difference = whitening.cov_after - whitening.identity;
    g.output("identity_error", largest_magnitude(difference));
    g.output("cov", whitening.cov);
    g.output("deconv", whitening.deconv);
    let mut store = Store::new(gpu, 0);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default())?;
    let eps = [options.statistics.eps];
    let inputs: [(&str, &[f32]); 3] = [("mean", &of.mean), ("cov", &of.cov), ("eps", &eps)];
    let mut values = program.run(&inputs)?.values;
    let [max_correlation_before, mut max_correlation_after] = correlations(&values);
    let mut identity_error = number(&values, "identity_error");
    let undefined = undefined(&values);
    if undefined.is_some() {
        (max_correlation_after, identity_error) = (f64::NAN, f64::NAN);
    }
    let report = Fig2Report {
        images: count,
        layer: of.name,
        channels: of.channels,
        kernel_size: of.layout.kernel_size,
        block: of.layout.block,
        features,
        max_correlation_before,
        max_correlation_after,
        identity_error,
        notice: undefined.or(few_patches(of.count, features)),
    };
    let bar = |map: &str| number(&values, &format!("{map}.range")).abs() as f32;
    let number = layer.map(|(_, n)| n);
    let bars = MAPS.map(bar);
    let (panels, sheet) = page(&store, &views, bar, &report, &options, number)?;
    Ok(Fig2 {
        panels,
        report,
        bars,
        cov: values.remove("cov").unwrap_or_default(),
        deconv: values.remove("deconv").unwrap_or_default(),
        sheet,
    })
}

/// `axes` are those of the first image.
fn of_one(
    gpu: &Arc<Gpu>,
    picture: &Picture,
    axes: Axes,
    layer: Option<(&Trained, usize)>,
    options: &Fig2Options,
) -> Result<Pool> {
    let stride = options.statistics.sampling_stride;
    let build = |image: Tensor<'_>| {
        let (x, kernel_size, name) = match layer {
            Some((trained, n)) => {
                let input = trained.conv_input(image, n)?;
                (input.x, input.kernel_size, Some(input.name))
            }
            None => (zero_mean(image), options.kernel_size, None),
        };
        let layout = PatchForm {
            kernel_size,
            block: options.block,
            axes,
        };
        let patches = patches(x, layout, Border::Zeros);
        let Moments { mean, cov } = patches.moments(stride);
        image.graph().output("mean", mean);
        image.graph().output("cov", cov);
        Ok((name, x.size(1), patches.layout, patches.count(stride)))
    };
    let store = Store::new(gpu, 0);
    let trained = layer.map(|(trained, _)| trained);
    let mut opened = Opened::new(store, picture, options.kernel_size, trained, build)?;
    let (name, channels, layout, count) = opened.built;
    let mut values = opened.program.run(&[])?.values;
    Ok(Pool {
        name,
        channels,
        layout,
        count,
        mean: values.remove("mean").unwrap_or_default(),
        cov: values.remove("cov").unwrap_or_default(),
    })
}

/// Of all patches of both.
fn pooled(a: Pool, b: &Pool) -> Result<Pool> {
    if a.layout != b.layout {
        return Err(Error::Config(
            "images in grey and in colour have no covariance together".into(),
        ));
    }
    let count = a.count + b.count;
    let share = b.count as f64 / count as f64;
    let between = |x: f32, y: f32| f64::from(x) + share * (f64::from(y) - f64::from(x));
    let apart = |i: usize| f64::from(b.mean[i]) - f64::from(a.mean[i]);
    let features = a.mean.len();
    let cov = |i: usize| {
        // Their means differ: that is covariance too.
        let of_means = share * (1.0 - share) * apart(i / features) * apart(i % features);
        (between(a.cov[i], b.cov[i]) + of_means) as f32
    };
    let mean = |i: usize| between(a.mean[i], b.mean[i]) as f32;
    Ok(Pool {
        mean: (0..features).map(mean).collect(),
        cov: (0..features * features).map(cov).collect(),
        count,
        ..a
    })
}

/// What stands at the maps of the channels of a block; nothing where there is no room.
fn names_of_channels(block: usize, is_of_layer: bool) -> Vec<String> {
    match block {
        3 if !is_of_layer => ["red", "green", "blue"].map(String::from).into(),
        2..=16 => (1..=block).map(|c| c.to_string()).collect(),
        _ => Vec::new(),
    }
}

/// `number` is that of the convolution, if it is of a layer.
fn page(
    store: &Store,
    views: &[View],
    bar: impl Fn(&str) -> f32,
    report: &Fig2Report,
    options: &Fig2Options,
    number: Option<usize>,
) -> Result<(Vec<NamedPicture>, Vec<u8>)> {
    let features = report.features;
    let block = report.block;
    let labels = names_of_channels(block, number.is_some());
    let mut files = Vec::new();
    let mut maps = Vec::new();
    for name in MAPS {
        let named = find(views, name)?.named(store)?;
        let content = Content::HeatMap {
            picture: named.picture.clone(),
            blocks: block,
            bar: find(views, "colour_bar")?.read(store)?,
            end: bar(name),
        };
        let note = format!("rows and columns: the {features} values of a patch");
        maps.push(Panel::new(&named.title, note, content).labelled(labels.clone()));
        files.push(named);
    }
    let kernels = find(views, "kernels")?.named(store)?;
    let row = vec![kernels_panel(&kernels, report, labels)];
    files.push(kernels);
    let sheet = sheet(&[maps, row], &caption(report, options, number))?;
    Ok((files, sheet))
}

fn kernels_panel(kernels: &NamedPicture, report: &Fig2Report, labels: Vec<String>) -> Panel {
    let k = report.kernel_size;
    let (note, labels) = match report.block {
        1 | 3 => {
            let note = format!(
                "a tile a column of D; its place among {k} x {k} is that of the pixel it decorrelates"
            );
            (note, labels)
        }
        _ => {
            let note = format!(
                "a row a channel that comes out, a column a channel that is read, by {k} x {k} taps"
            );
            (note, Vec::new())
        }
    };
    let content = Content::Picture(kernels.picture.clone());
    Panel::new(&kernels.title, note, content).labelled(labels)
}

fn caption(report: &Fig2Report, options: &Fig2Options, number: Option<usize>) -> Vec<String> {
    let (k, block) = (report.kernel_size, report.block);
    let images = match report.images {
        1 => "1 image".to_string(),
        n => format!("{n} images"),
    };
    let of = match (&report.layer, number) {
        (Some(name), Some(n)) => format!("the input of {name} (convolution {n}) for {images}"),
        _ => images,
    };
    let lines = match has_block_lines(block) {
        true => ", divided by lines",
        false => "",
    };
    let together = match (block, report.channels) {
        (1, 1) => "one channel".to_string(),
        (1, n) => format!("each of {n} channels alone, pooled"),
        (b, n) if b == n => format!("{n} channels{lines}"),
        (b, n) => format!("{n} channels, {b} at a time{lines}, pooled"),
    };
    let mut caption = vec![
        format!("Patches of {k} x {k} of {of}: {together}. Each map has its own scale."),
        format!(
            "largest |correlation| off the diagonal: {} before, {} after; largest |after - identity|: {} (0: \
             perfect)",
            in_digits(report.max_correlation_before, 4),
            in_digits(report.max_correlation_after, 4),
            in_digits(report.identity_error, 4)
        ),
        options.statistics.describe(),
    ];
    caption.extend(report.notice.map(String::from));
    caption
}

impl Fig2 {
    /// The names of the files that [`Fig2::write`] writes.
    pub fn files(&self) -> Vec<String> {
        file_names(&self.panels, "fig2.png")
    }

    /// Writes the panels and the page `fig2.png` into `dir`, which is made; returns the names of the
    /// files.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, dir: &Path) -> Result<Vec<String>> {
        write_figure(dir, &self.panels, "fig2.png", &self.sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_named_by_colour_or_counted_from_1() {
        let names = |block, is_of_layer| names_of_channels(block, is_of_layer).join(" ");
        assert_eq!(names(3, false), "red green blue");
        assert_eq!(
            (names(3, true), names(4, true)),
            ("1 2 3".into(), "1 2 3 4".into())
        );
        assert!(names(16, true).ends_with(" 15 16"));
        assert_eq!(
            [names(1, true), names(1, false), names(17, true)],
            ["", "", ""]
        );
    }

    #[test]
    fn the_caption_says_what_the_maps_are_of() {
        let report = Fig2Report {
            images: 1,
            layer: None,
            channels: 3,
            kernel_size: 5,
            block: 3,
            features: 75,
            max_correlation_before: 0.9,
            max_correlation_after: 0.25,
            identity_error: 0.125,
            notice: Some("mind"),
        };
        let options = Fig2Options {
            kernel_size: 5,
            block: 3,
            statistics: WhitenOptions {
                eps: 0.01,
                n_iter: 7,
                sampling_stride: 2,
            },
        };
        let wanted = [
            "Patches of 5 x 5 of 1 image: 3 channels, divided by lines. Each map has its own scale.",
            "largest |correlation| off the diagonal: 0.9000 before, 0.2500 after; largest |after - identity|: 0.1250 \
             (0: perfect)",
            "eps 1e-2, n_iter 7, counting one patch in 2 along rows and columns",
            "mind",
        ];
        assert_eq!(caption(&report, &options, None), wanted);
        let layer = Some("conv2".to_string());
        for (images, layer, channels, block, number, wanted) in [
            (4, None, 1, 1, None, "4 images: one channel"),
            (
                4,
                None,
                3,
                1,
                None,
                "4 images: each of 3 channels alone, pooled",
            ),
            (
                1,
                layer.clone(),
                64,
                16,
                Some(2),
                "the input of conv2 (convolution 2) for 1 image: 64 channels, 16 at a time, divided by lines, pooled",
            ),
            (
                2,
                layer,
                128,
                64,
                Some(2),
                "the input of conv2 (convolution 2) for 2 images: 128 channels, 64 at a time, pooled",
            ),
        ] {
            let report = Fig2Report {
                images,
                layer,
                channels,
                block,
                ..report.clone()
            };
            let first = caption(&report, &options, number).swap_remove(0);
            assert_eq!(
                first,
                format!("Patches of 5 x 5 of {wanted}. Each map has its own scale.")
            );
        }
    }

    /// The mean of 1 patch and of 3; the covariance has what lies between the means too.
    #[test]
    fn only_patches_of_one_form_are_pooled() {
        let pool = |block, count, mean: f32, cov| Pool {
            name: None,
            channels: 3,
            layout: PatchForm {
                kernel_size: 1,
                block,
                axes: Axes::OPPONENT,
            },
            count,
            mean: vec![mean],
            cov: vec![cov],
        };
        let both = pooled(pool(1, 1, 2.0, 5.0), &pool(1, 3, 6.0, 1.0)).unwrap();
        assert_eq!((both.count, both.mean), (4, vec![5.0]));
        // A quarter of 5, three quarters of 1, and 1/4 * 3/4 of the square of 4.
        assert_eq!(both.cov, [5.0]);
        let refused = pooled(pool(1, 1, 0.0, 1.0), &pool(3, 1, 0.0, 1.0))
            .err()
            .unwrap();
        let wanted = "images in grey and in colour have no covariance together";
        assert_eq!(refused.to_string(), wanted);
    }
}
