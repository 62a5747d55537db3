//! Figures as files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use decorr::figures::{
    self, Fig2Options, Fig9Options, NETWORK_SIDE, Picture, Report, Scene, SceneOptions, in_digits,
};
use decorr::gpu::Gpu;
use decorr::{Error, Result};
use serde::Serialize;

use crate::options::{AdapterArgs, DeconvArgs, NetworkArgs, picture};

/// As `println!`, but a reader that has had enough is no reason to panic.
macro_rules! say {
    ($($argument:tt)*) => {
        let _ = writeln!(std::io::stdout(), $($argument)*);
    };
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Folder for the pictures
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    /// Scale images down so that no side is longer, in pixels [default: as they are; 448 for a network]
    #[arg(long, allow_negative_numbers = true)]
    max_side: Option<usize>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Fig2Args {
    /// Pictures, or folders of them [default: one that comes along]
    images: Vec<PathBuf>,
    #[command(flatten)]
    deconv: DeconvArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Fig3Args {
    /// Picture: PNG, JPEG, WebP, GIF, BMP, TIFF, PNM [default: one that comes along]
    image: Option<PathBuf>,
    #[command(flatten)]
    deconv: DeconvArgs,
    /// First blur the image by a Gaussian of this standard deviation in pixels, up to 8
    #[arg(
        long,
        value_name = "SIGMA",
        allow_negative_numbers = true,
        default_value_t = 0.0
    )]
    blur: f32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Fig9Args {
    /// Picture [default: one that comes along]
    image: Option<PathBuf>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Channels decorrelated together [default: as many as in the network's layers, or 64]
    #[arg(long, allow_negative_numbers = true)]
    block: Option<usize>,
    /// Added to the diagonal of the covariance
    #[arg(long, allow_negative_numbers = true, default_value_t = 1e-5)]
    eps: f32,
    /// Denman-Beavers iterations
    #[arg(long, allow_negative_numbers = true, default_value_t = 15)]
    n_iter: usize,
    /// Deconvolve by the running statistics of the network, not by those of the image
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Pictures, or folders of them
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Pixels of a patch's side, odd; one or more, with commas
    #[arg(long, value_delimiter = ',', default_values_t = [3, 7])]
    kernel_size: Vec<usize>,
    /// Channels decorrelated together
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    block: usize,
    /// Added to the diagonal of the covariance
    #[arg(long, allow_negative_numbers = true, default_value_t = 1e-5)]
    eps: f32,
    /// Denman-Beavers iterations
    #[arg(long, allow_negative_numbers = true, default_value_t = 15)]
    n_iter: usize,
    /// Scale images down so that no side is longer, in pixels [default: as they are]
    #[arg(long, allow_negative_numbers = true)]
    max_side: Option<usize>,
    /// Print a JSON array: of each image and size of patches what was measured before and after
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(crate) fn fig2(args: &Fig2Args) -> Result<()> {
    let layer = args.network.layer;
    if layer.is_none() && args.network.checkpoint.is_some() {
        let message = "--checkpoint: which convolution? --layer N, from 1";
        return Err(Error::Config(message.into()));
    }
    let trained = match layer {
        Some(_) => Some(args.network.open()?),
        None => None,
    };
    let max_side = args.output.max_side;
    let paths = files_of(&args.images)?;
    let mut pictures: Vec<Picture> = Vec::new();
    let paths: Vec<Option<&Path>> = match paths.is_empty() {
        true => vec![None],
        false => paths.iter().map(|p| Some(p.as_path())).collect(),
    };
    for path in paths {
        let read = picture(path, max_side)?;
        let read = match &trained {
            Some(trained) => trained.prepare(&read, max_side.unwrap_or(NETWORK_SIDE))?,
            None => read,
        };
        if let (Some(path), Some(first)) = (path, pictures.first())
            && first.channels != read.channels
        {
            let kind = |channels| if channels == 1 { "grey" } else { "colour" };
            let message = format!(
                "is in {} and those before in {}: they have no covariance together",
                kind(read.channels),
                kind(first.channels)
            );
            return Err(Error::data(path, message));
        }
        pictures.push(read);
    }
    let block = args.deconv.block.unwrap_or(match &trained {
        Some(trained) => trained.block(),
        None => 3,
    });
    let options = Fig2Options {
        kernel_size: args.deconv.kernel_size,
        block,
        eps: args.deconv.eps,
        n_iter: args.deconv.n_iter,
    };
    let gpu = args.output.adapter.open()?;
    let layer = trained.as_ref().zip(layer);
    let figure = figures::fig2(&gpu, &pictures, layer, options)?;
    let names = figure.write(&args.output.out)?;
    let report = &figure.report;
    tell(&args.output, report, &names, || {
        say!(
            "{} image{}, {} features; largest |correlation| {} before, {} after; \
             largest |after - identity| {:.4}",
            report.images,
            if report.images == 1 { "" } else { "s" },
            report.features,
            in_digits(report.max_correlation_before, 4),
            in_digits(report.max_correlation_after, 4),
            report.identity_error
        );
    })
}

pub(crate) fn fig3(args: &Fig3Args) -> Result<()> {
    let input = picture(args.image.as_deref(), args.output.max_side)?;
    let options = SceneOptions {
        kernel_size: args.deconv.kernel_size,
        block: args.deconv.block.unwrap_or(3),
        eps: args.deconv.eps,
        n_iter: args.deconv.n_iter,
        blur: args.blur,
        side: None,
    };
    options.check()?;
    let gpu = args.output.adapter.open()?;
    let figure = figures::fig3(&gpu, &input, options)?;
    let names = figure.write(&args.output.out)?;
    let report = &figure.numbers.report;
    tell(&args.output, report, &names, || print_report(report))
}

pub(crate) fn fig9(args: &Fig9Args) -> Result<()> {
    let trained = args.network.open()?;
    let read = picture(args.image.as_deref(), None)?;
    let side = args.output.max_side.unwrap_or(NETWORK_SIDE);
    let input = trained.prepare(&read, side)?;
    let options = Fig9Options {
        layer: args.network.layer.unwrap_or(5),
        block: args.block,
        eps: args.eps,
        n_iter: args.n_iter,
        running: args.running,
    };
    let gpu = args.output.adapter.open()?;
    let figure = figures::fig9(&gpu, &input, &trained, options)?;
    let names = figure.write(&args.output.out)?;
    let r = &figure.report;
    tell(&args.output, r, &names, || {
        say!(
            "{:<8} {:>10} {:>10} {:>12} {:>12}",
            "channel",
            "Hoyer",
            "after",
            "kurtosis",
            "after"
        );
        for (i, [before, after]) in r.channels.iter().enumerate() {
            say!(
                "{i:<8} {:>10} {:>10} {:>12} {:>12}",
                in_digits(before.hoyer, 4),
                in_digits(after.hoyer, 4),
                in_digits(before.excess_kurtosis, 3),
                in_digits(after.excess_kurtosis, 3)
            );
        }
        say!(
            "input of {}: {:?}; mean Hoyer {} before, {} after; {} of {} live channels are \
             sparser after",
            r.layer,
            r.shape,
            in_digits(r.mean_hoyer[0], 4),
            in_digits(r.mean_hoyer[1], 4),
            r.sparser_channels,
            r.live_channels
        );
    })
}

/// One line of `measure`.
#[derive(Serialize)]
struct Row {
    image: String,
    kernel_size: usize,
    #[serde(flatten)]
    report: Report,
}

pub(crate) fn measure(args: &MeasureArgs) -> Result<()> {
    let gpu = args.adapter.open()?;
    let mut rows = Vec::new();
    if !args.json {
        say!(
            "{:<28} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "image",
            "k",
            "kurtosis",
            "after",
            "Hoyer",
            "after",
            "max |r|",
            "after"
        );
    }
    for path in files_of(&args.images)? {
        let input = picture(Some(&path), args.max_side)?;
        for &kernel_size in &args.kernel_size {
            let options = SceneOptions {
                kernel_size,
                block: args.block,
                eps: args.eps,
                n_iter: args.n_iter,
                // The pictures are not looked at.
                side: Some(64),
                ..SceneOptions::default()
            };
            let report = report_of(&gpu, &input, options)?;
            let image = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !args.json {
                let (b, a) = (&report.before, &report.after);
                say!(
                    "{image:<28} {kernel_size:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
                    in_digits(b.sparsity.excess_kurtosis, 3),
                    in_digits(a.sparsity.excess_kurtosis, 3),
                    in_digits(b.sparsity.hoyer, 4),
                    in_digits(a.sparsity.hoyer, 4),
                    in_digits(b.max_correlation, 4),
                    in_digits(a.max_correlation, 4)
                );
            }
            rows.push(Row {
                image,
                kernel_size,
                report,
            });
        }
    }
    if args.json {
        print_json(&rows)?;
    }
    Ok(())
}

fn report_of(gpu: &Arc<Gpu>, input: &Picture, options: SceneOptions) -> Result<Report> {
    let mut scene = Scene::new(gpu, input, options, None)?;
    scene.step(&options)?;
    let numbers = scene.take(true)?;
    let numbers = numbers.ok_or_else(|| Error::DeviceLost("the step left no result".into()))?;
    Ok(numbers.report)
}

/// Prints what a figure found, and what was written.
fn tell(
    output: &Output,
    report: &impl Serialize,
    names: &[String],
    print: impl FnOnce(),
) -> Result<()> {
    if output.json {
        return print_json(report);
    }
    print();
    say!("wrote {} in {}", names.join(", "), output.out.display());
    Ok(())
}

fn print_report(report: &Report) {
    say!("{:<34} {:>10} {:>10}", "", "before", "after");
    for (name, before, after) in report.rows() {
        say!("{name:<34} {before:>10} {after:>10}");
    }
}

/// Undefined figures, of constant images, are null.
fn print_json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Config(e.to_string()))?;
    say!("{text}");
    Ok(())
}

/// Files as they are, and of folders the pictures in them by name.
fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
            let file = entry.map_err(|e| Error::io(path, e))?.path();
            if Picture::has_known_extension(&file) {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(Error::data(path, "has no pictures in it"));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}
