//! Figures as files.

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use decorr::figures::{
    self, Fig2Options, Fig2Report, Fig3Report, Fig9Options, Fig9Report, NETWORK_SIDE, Picture,
    Scene, SceneOptions, Sparsity, in_digits,
};
use decorr::gpu::Gpu;
use decorr::nn::resolve_block;
use decorr::{Error, Result};
use serde::Serialize;

use crate::options::{AdapterArgs, NetworkArgs, StatisticsArgs, picture};

/// As `println!`, but a reader that has had enough (`| head`) ends the program without complaint, and a full disk
/// with one.
macro_rules! say {
    ($($argument:tt)*) => {
        if let Err(error) = writeln!(std::io::stdout(), $($argument)*) {
            let enough = error.kind() == std::io::ErrorKind::BrokenPipe;
            if !enough {
                let _ = writeln!(std::io::stderr(), "error: standard output: {error}");
            }
            std::process::exit(i32::from(!enough));
        }
    };
}

/// To standard error, if there is one.
macro_rules! warn {
    ($($argument:tt)*) => {
        let _ = writeln!(std::io::stderr(), $($argument)*);
    };
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Folder for the pictures
    #[arg(long, default_value = "pictures")]
    out: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fig2Args {
    /// Pictures, or folders of them [default: the bundled one]
    images: Vec<PathBuf>,
    /// Side of a patch in pixels, odd; with --layer that of its kernels [default: 3]
    #[arg(long, allow_negative_numbers = true)]
    kernel_size: Option<usize>,
    /// Channels decorrelated together; 1 takes each colour alone [default: 3 for pixels; with --layer the block of
    /// its network, or 64]
    #[arg(long, allow_negative_numbers = true)]
    block: Option<usize>,
    #[command(flatten)]
    statistics: StatisticsArgs,
    /// Show the input of this convolution of a network, from 1 [default: the pixels]
    #[arg(long, allow_negative_numbers = true)]
    layer: Option<usize>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Scale images down so that no side is longer, in pixels [default: as they are; 448 for a network]
    #[arg(long, allow_negative_numbers = true)]
    max_side: Option<usize>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Fig3Args {
    /// Picture: PNG, JPEG, WebP, GIF, BMP, TIFF, PNM [default: the bundled one]
    image: Option<PathBuf>,
    /// Side of a patch in pixels, odd
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    kernel_size: usize,
    /// Colours decorrelated together: 3, or 1 for each alone
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    block: usize,
    #[command(flatten)]
    statistics: StatisticsArgs,
    /// First blur the image by a Gaussian of this standard deviation in pixels, up to 8
    #[arg(
        long,
        value_name = "SIGMA",
        allow_negative_numbers = true,
        default_value_t = 0.0
    )]
    blur: f32,
    /// Scale the image down so that no side is longer, in pixels [default: as it is]
    #[arg(long, allow_negative_numbers = true)]
    max_side: Option<usize>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Fig9Args {
    /// Picture [default: the bundled one]
    image: Option<PathBuf>,
    /// Show the input of this convolution, from 1; the paper's figure has the 5th
    #[arg(long, allow_negative_numbers = true, default_value_t = 5)]
    layer: usize,
    #[command(flatten)]
    network: NetworkArgs,
    /// Channels decorrelated together [default: the block of the network, or 64]
    #[arg(long, allow_negative_numbers = true)]
    block: Option<usize>,
    #[command(flatten)]
    statistics: StatisticsArgs,
    /// Deconvolve with the running statistics of the network, not with those of the image
    #[arg(long)]
    running: bool,
    /// Also print the sparsity of each channel
    #[arg(long)]
    channels: bool,
    /// Scale the image down so that no side is longer, in pixels
    #[arg(long, allow_negative_numbers = true, default_value_t = NETWORK_SIDE)]
    max_side: usize,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    /// Pictures, or folders of them
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Side of a patch in pixels, odd; one or more, with commas
    #[arg(long, allow_negative_numbers = true, value_delimiter = ',', default_values_t = [3, 7])]
    kernel_size: Vec<usize>,
    /// Colours decorrelated together: 3, or 1 for each alone
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    block: usize,
    #[command(flatten)]
    statistics: StatisticsArgs,
    /// Scale images down so that no side is longer, in pixels [default: as they are]
    #[arg(long, allow_negative_numbers = true)]
    max_side: Option<usize>,
    /// Print a JSON array: for each image and patch size the measures before and after
    #[arg(long)]
    json: bool,
}

/// What makes no sense without a layer, or with one.
fn check_layer(args: &Fig2Args) -> Result<()> {
    let network = &args.network;
    let given = [
        ("--checkpoint", network.checkpoint.is_some()),
        ("--model", network.model.is_some()),
        ("--norm", network.norm.is_some()),
    ];
    let given = given.into_iter().find(|(_, is_given)| *is_given);
    if let (None, Some((name, _))) = (args.layer, given) {
        return Err(Error::Config(format!(
            "{name}: which convolution of the network? --layer N, from 1"
        )));
    }
    if args.layer.is_some() && args.kernel_size.is_some() {
        return Err(Error::Config(
            "--kernel-size: patches of a layer are those of its own kernels; leave it out beside --layer".into(),
        ));
    }
    Ok(())
}

pub(crate) fn fig2(args: &Fig2Args, adapter: &AdapterArgs) -> Result<()> {
    check_layer(args)?;
    let trained = match args.layer {
        Some(_) => Some(args.network.open()?),
        None => None,
    };
    let paths = files_of(&args.images)?;
    let listed: Vec<Option<&Path>> = match paths.is_empty() {
        true => vec![None],
        false => paths.iter().map(|p| Some(p.as_path())).collect(),
    };
    let block = args.block.unwrap_or(match &trained {
        Some(trained) => trained.block(),
        None => 3,
    });
    let gpu = adapter.open()?;
    let mut channels = None;
    let current = Cell::new(None);
    // Read when it is their turn: a folder of photographs does not fit in memory.
    let pictures = listed.iter().map(|&path| {
        current.set(path);
        let read = match &trained {
            Some(trained) => {
                let side = args.max_side.unwrap_or(NETWORK_SIDE);
                trained.prepare(&picture(path, None, None)?, side)?
            }
            None => picture(path, args.max_side, Some(&gpu))?,
        };
        let first = *channels.get_or_insert(read.channels);
        let blocks = [first, read.channels].map(|channels| resolve_block(block, channels));
        if let Some(path) = path
            && blocks[0] != blocks[1]
        {
            let channels = [read.channels, first];
            return Err(Error::data(path, no_covariance(channels)));
        }
        Ok(read)
    });
    let options = Fig2Options {
        kernel_size: args.kernel_size.unwrap_or(3),
        block,
        statistics: args.statistics.options(),
    };
    let layer = trained.as_ref().zip(args.layer);
    let figure = figures::fig2(&gpu, pictures, layer, options);
    let figure = figure.map_err(|e| of_file(current.get(), e))?;
    spare(&paths, &args.output.out, &figure.files())?;
    let names = figure.write(&args.output.out)?;
    let report = &figure.report;
    tell(&args.output, report, &names, || {
        if let Some(notice) = report.notice {
            say!("{notice}");
        }
        say!("{}", line_of_fig2(report));
    })
}

/// Why a picture of so many channels does not go with others of so many.
fn no_covariance(channels: [usize; 2]) -> String {
    let [this, others] = channels.map(|n| if n == 1 { "grey" } else { "colour" });
    format!(
        "is in {this} and those before in {others}: they have no covariance together. Give them apart, or take each \
         channel alone (--block 1)"
    )
}

fn line_of_fig2(report: &Fig2Report) -> String {
    format!(
        "{} image{}, {} values a patch; largest |correlation| {} before, {} after; \
         largest |after - identity| {}",
        report.images,
        if report.images == 1 { "" } else { "s" },
        report.features,
        in_digits(report.max_correlation_before, 4),
        in_digits(report.max_correlation_after, 4),
        in_digits(report.identity_error, 4)
    )
}

pub(crate) fn fig3(args: &Fig3Args, adapter: &AdapterArgs) -> Result<()> {
    let options = SceneOptions {
        kernel_size: args.kernel_size,
        block: args.block,
        statistics: args.statistics.options(),
        blur: args.blur,
        side: None,
    };
    options.check()?;
    let gpu = adapter.open()?;
    let input = picture(args.image.as_deref(), args.max_side, Some(&gpu))?;
    let figure = figures::fig3(&gpu, &input, options);
    let figure = figure.map_err(|e| of_file(args.image.as_deref(), e))?;
    spare(args.image.as_slice(), &args.output.out, &figure.files())?;
    let names = figure.write(&args.output.out)?;
    let report = &figure.numbers.report;
    tell(&args.output, report, &names, || {
        say!("{}", table_of_fig3(report));
    })
}

pub(crate) fn fig9(args: &Fig9Args, adapter: &AdapterArgs) -> Result<()> {
    let trained = args.network.open()?;
    let read = picture(args.image.as_deref(), None, None)?;
    let input = trained.prepare(&read, args.max_side)?;
    let options = Fig9Options {
        layer: args.layer,
        block: args.block,
        statistics: args.statistics.options(),
        running: args.running,
    };
    let gpu = adapter.open()?;
    let figure = figures::fig9(&gpu, &input, &trained, options);
    let figure = figure.map_err(|e| of_file(args.image.as_deref(), e))?;
    spare(args.image.as_slice(), &args.output.out, &figure.files())?;
    let names = figure.write(&args.output.out)?;
    let r = &figure.report;
    tell(&args.output, r, &names, || {
        if args.channels {
            print_channels(r);
        }
        if let Some(notice) = r.notice {
            say!("{notice}");
        }
        say!("{}", line_of_fig9(r));
    })
}

fn line_of_fig9(r: &Fig9Report) -> String {
    let [channels, rows, columns] = r.shape;
    format!(
        "input of {}: {channels} channels of {columns} x {rows}; mean Hoyer {} before, {} after; {} of the {} \
         that are not constant are sparser after by Hoyer's measure",
        r.layer,
        in_digits(r.mean_hoyer[0], 4),
        in_digits(r.mean_hoyer[1], 4),
        r.sparser_channels,
        r.live_channels
    )
}

fn print_channels(report: &Fig9Report) {
    say!("{}", heading_of_channels());
    for (i, pair) in report.channels.iter().enumerate() {
        say!("{}", line_of_channel(i, pair));
    }
}

fn heading_of_channels() -> String {
    format!(
        "{:<8} {:>10} {:>10} {:>12} {:>12}",
        "channel", "Hoyer", "after", "kurtosis", "after"
    )
}

/// Of the channel with this number, from 0.
fn line_of_channel(i: usize, [before, after]: &[Sparsity; 2]) -> String {
    format!(
        "{:<8} {:>10} {:>10} {:>12} {:>12}",
        i + 1,
        in_digits(before.hoyer, 4),
        in_digits(after.hoyer, 4),
        in_digits(before.excess_kurtosis, 3),
        in_digits(after.excess_kurtosis, 3)
    )
}

/// One line of `measure`.
#[derive(Serialize)]
struct Row {
    image: String,
    /// What is no Unicode in it is shown by replacement characters.
    path: String,
    kernel_size: usize,
    #[serde(flatten)]
    report: Fig3Report,
}

pub(crate) fn measure(args: &MeasureArgs, adapter: &AdapterArgs) -> Result<()> {
    let options_of = |kernel_size| SceneOptions {
        kernel_size,
        block: args.block,
        statistics: args.statistics.options(),
        // The pictures are not looked at.
        side: Some(64),
        ..SceneOptions::default()
    };
    for &kernel_size in &args.kernel_size {
        options_of(kernel_size).check()?;
    }
    let paths = files_of(&args.images)?;
    let gpu = adapter.open()?;
    let mut rows = Vec::new();
    if !args.json {
        say!("{}", heading_of_rows());
    }
    let mut failed = 0;
    for path in &paths {
        // One picture that cannot be read costs none of the others.
        let input = match picture(Some(path), args.max_side, Some(&gpu)) {
            Ok(input) => input,
            Err(error) => {
                warn!("left out: {error}");
                failed += 1;
                continue;
            }
        };
        for &kernel_size in &args.kernel_size {
            let report = match report_of(&gpu, &input, options_of(kernel_size)) {
                Err(error @ Error::Limit(_)) => {
                    warn!("left out: {}", of_file(Some(path), error));
                    failed += 1;
                    break;
                }
                report => report?,
            };
            let row = Row {
                image: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                path: path.to_string_lossy().into_owned(),
                kernel_size,
                report,
            };
            if !args.json {
                say!("{}", text_of_row(&row));
            }
            rows.push(row);
        }
    }
    if args.json {
        print_json(&rows)?;
    }
    all_measured(failed, paths.len())
}

/// Refuses to be taken for a success where pictures were left out.
fn all_measured(failed: usize, of: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        n => Err(Error::Config(format!(
            "{n} of {of} pictures could not be measured"
        ))),
    }
}

/// The row, and below it what is to be known of its numbers.
fn text_of_row(row: &Row) -> String {
    let line = line_of_row(row);
    match row.report.notice {
        Some(notice) => format!("{line}\n  ({notice})"),
        None => line,
    }
}

fn heading_of_rows() -> String {
    format!(
        "{:<28} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "image", "k", "kurtosis", "after", "Hoyer", "after", "max |r|", "after"
    )
}

fn line_of_row(row: &Row) -> String {
    let (b, a) = (&row.report.before, &row.report.after);
    format!(
        "{:<28} {:>3} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        // Without what a terminal would take for commands.
        row.image.replace(char::is_control, "?"),
        row.kernel_size,
        in_digits(b.sparsity.excess_kurtosis, 3),
        in_digits(a.sparsity.excess_kurtosis, 3),
        in_digits(b.sparsity.hoyer, 4),
        in_digits(a.sparsity.hoyer, 4),
        in_digits(b.max_correlation, 4),
        in_digits(a.max_correlation, 4)
    )
}

fn report_of(gpu: &Arc<Gpu>, input: &Picture, options: SceneOptions) -> Result<Fig3Report> {
    let mut scene = Scene::new(gpu, input, options, None)?;
    scene.step(&options)?;
    Ok(scene.finish()?.report)
}

/// What is wrong with a picture, with its name.
fn of_file(path: Option<&Path>, error: Error) -> Error {
    match (path, error) {
        (Some(path), Error::Shape { message, .. }) => Error::data(path, message),
        (Some(path), Error::Limit(message)) => {
            Error::Limit(format!("{}: {message}", path.display()))
        }
        (_, error) => error,
    }
}

/// Refuses to write files of these names over the pictures that were looked at.
pub(crate) fn spare(pictures: &[PathBuf], dir: &Path, names: &[String]) -> Result<()> {
    let inputs: Vec<PathBuf> = pictures
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    for name in names {
        let output = dir.join(name);
        if output.canonicalize().is_ok_and(|o| inputs.contains(&o)) {
            return Err(Error::Config(format!(
                "{} would be written over, and it is what was looked at: choose another folder",
                output.display()
            )));
        }
    }
    Ok(())
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
    if let Some(page) = names.last() {
        say!("look at {}", output.out.join(page).display());
    }
    Ok(())
}

/// The table of both sides, and before it what is to be known of its numbers.
fn table_of_fig3(report: &Fig3Report) -> String {
    let heading = [("", "before".to_string(), "after".to_string())];
    let rows = heading.into_iter().chain(report.rows());
    let rows = rows.map(|(name, before, after)| format!("{name:<34} {before:>10} {after:>10}"));
    let notice = report.notice.map(String::from);
    notice
        .into_iter()
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n")
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
            let hidden = file
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if !hidden && file.is_file() && Picture::has_known_extension(&file) {
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

#[cfg(test)]
mod tests {
    use decorr::figures::Measures;

    use super::*;

    #[test]
    fn pictures_that_were_left_out_are_counted_of_all() {
        let said = |failed| all_measured(failed, 3).map_err(|e| e.to_string());
        assert_eq!(said(0), Ok(()));
        for failed in [1, 3] {
            let wanted = format!("{failed} of 3 pictures could not be measured");
            assert_eq!(said(failed), Err(wanted));
        }
    }

    /// Each number its own, so that none stands in the place of another.
    #[test]
    fn lines_have_each_number_behind_its_name_or_below_its_heading() {
        let sparsity = |at: f64| Sparsity {
            excess_kurtosis: at + 0.1,
            hoyer: at + 0.2,
            near_zero: at + 0.3,
        };
        let measures = |at: f64| Measures {
            sparsity: sparsity(at),
            max_correlation: at + 0.4,
        };
        let row = Row {
            image: "a\x1b.png".into(),
            path: "b/a.png".into(),
            kernel_size: 7,
            report: Fig3Report {
                before: measures(0.0),
                after: measures(0.5),
                notice: None,
            },
        };
        let words = |line: String| {
            line.split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(line_of_row(&row)),
            [
                "a?.png", "7", "0.100", "0.600", "0.2000", "0.7000", "0.4000", "0.9000"
            ]
        );
        assert_eq!(
            words(line_of_channel(3, &[sparsity(0.0), sparsity(0.5)])),
            ["4", "0.2000", "0.7000", "0.100", "0.600"]
        );
        let fig2 = Fig2Report {
            images: 2,
            layer: None,
            channels: 3,
            kernel_size: 5,
            block: 3,
            features: 75,
            max_correlation_before: 0.9,
            max_correlation_after: 0.25,
            identity_error: 0.125,
            notice: None,
        };
        assert_eq!(
            line_of_fig2(&fig2),
            "2 images, 75 values a patch; largest |correlation| 0.9000 before, 0.2500 after; largest |after - identity| \
             0.1250"
        );
        let fig9 = Fig9Report {
            layer: "conv2".into(),
            shape: [64, 8, 9],
            block: 16,
            max_correlation: [0.9, 0.1],
            mean_hoyer: [0.25, 0.5],
            mean_excess_kurtosis: [1.0, 2.0],
            mean_hoyer_of_input: 0.75,
            sparser_channels: 40,
            live_channels: 60,
            notice: None,
            channels: Vec::new(),
        };
        assert_eq!(
            line_of_fig9(&fig9),
            "input of conv2: 64 channels of 9 x 8; mean Hoyer 0.2500 before, 0.5000 after; 40 of the 60 that are not \
             constant are sparser after by Hoyer's measure"
        );
    }

    /// Headings are over what the lines have there, and what is to be known of the numbers is said with them.
    #[test]
    fn tables_have_headings_and_notices() {
        assert_eq!(
            heading_of_rows(),
            "image                          k  kurtosis     after     Hoyer     after   max |r|     after"
        );
        assert_eq!(
            heading_of_channels(),
            "channel       Hoyer      after     kurtosis        after"
        );
        let side = |at: f64| Measures {
            sparsity: Sparsity {
                excess_kurtosis: at + 0.1,
                hoyer: at + 0.2,
                near_zero: at + 0.3,
            },
            max_correlation: at + 0.4,
        };
        for notice in [None, Some("mind")] {
            let report = Fig3Report {
                before: side(0.0),
                after: side(0.5),
                notice,
            };
            let table = table_of_fig3(&report);
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let lines: Vec<String> = table.lines().map(words).collect();
            let wanted = [
                "before after",
                "excess kurtosis 0.100 0.600",
                "Hoyer's sparsity 0.2000 0.7000",
                "share of |x| under 0.1 sigma 0.3000 0.8000",
                "largest |correlation| in patches 0.4000 0.9000",
            ];
            let said: Vec<&str> = notice.into_iter().chain(wanted).collect();
            assert_eq!(lines, said);
            let row = Row {
                image: "a.png".into(),
                path: "b/a.png".into(),
                kernel_size: 3,
                report,
            };
            let line = line_of_row(&row);
            let said = match notice {
                Some(_) => format!("{line}\n  (mind)"),
                None => line,
            };
            assert_eq!(text_of_row(&row), said);
        }
    }

    #[test]
    fn what_is_wrong_names_the_picture_that_it_is_of() {
        let text = no_covariance([1, 3]);
        assert!(
            text.starts_with("is in grey and those before in colour:"),
            "{text}"
        );
        let text = no_covariance([3, 1]);
        assert!(
            text.starts_with("is in colour and those before in grey:"),
            "{text}"
        );
        let path = Path::new("b/a.png");
        let shape = || Error::Shape {
            op: "fig2".into(),
            message: "too small".into(),
        };
        let limit = || Error::Limit("too large".into());
        for error in [shape(), limit()] {
            let text = of_file(Some(path), error).to_string();
            assert!(text.contains("b/a.png: too "), "{text}");
        }
        // The bundled picture has no name that would help.
        assert!(!of_file(None, limit()).to_string().contains("png"));
    }

    #[test]
    fn folders_are_their_pictures_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["z.png", "a.jpg", ".b.png", "c.txt", "m.PNG"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        std::fs::create_dir(dir.path().join("d.png")).unwrap();
        let given = [PathBuf::from("last.png"), dir.path().into(), "a.png".into()];
        let inside = ["a.jpg", "m.PNG", "z.png"].map(|name| dir.path().join(name));
        let mut wanted = vec![PathBuf::from("last.png")];
        wanted.extend(inside);
        wanted.push("a.png".into());
        assert_eq!(files_of(&given).unwrap(), wanted);
    }

    /// By whatever name it is reached.
    #[test]
    fn what_is_looked_at_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let picture = dir.path().join("a_input.png");
        std::fs::write(&picture, b"").unwrap();
        let names = ["b.png", "a_input.png"].map(String::from);
        let other = dir.path().join("x").join("..").join("a_input.png");
        std::fs::create_dir(dir.path().join("x")).unwrap();
        for looked_at in [picture, other] {
            let text = spare(&[looked_at], dir.path(), &names)
                .unwrap_err()
                .to_string();
            assert!(text.contains("a_input.png would be written over"), "{text}");
        }
        spare(&[dir.path().join("c.png")], dir.path(), &names).unwrap();
        spare(&[], dir.path(), &names).unwrap();
    }
}
