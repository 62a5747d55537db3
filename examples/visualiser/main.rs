//! Shows what decorrelation does to images.
//!
//! `cargo run --release --example visualiser -- fig3 [IMAGE] --out DIR` writes the four panels of
//! the paper's Figure 3 and one sheet, and prints how sparse and how correlated the image was
//! before and after.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use decorr::Result;
use decorr::figures::{Fig3Options, Fig3Report, Measures, Picture, fig3};
use decorr::gpu::{AdapterChoice, Gpu};

/// The paper's figures on your own images.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// Input, |zero-mean input|, deconvolved input, |deconvolved|.
    Fig3(Fig3Args),
}

#[derive(Debug, Args)]
struct Fig3Args {
    /// Picture: PNG, JPEG, WebP, GIF, BMP, TIFF, PNM [default: one that comes along]
    image: Option<PathBuf>,
    /// Folder for the pictures
    #[arg(long)]
    out: PathBuf,
    /// Pixels of a patch's side, odd
    #[arg(long, allow_negative_numbers = true, default_value_t = 3)]
    kernel_size: usize,
    /// Added to the diagonal of the covariance
    #[arg(long, allow_negative_numbers = true, default_value_t = 1e-5)]
    eps: f32,
    /// Denman-Beavers iterations
    #[arg(long, allow_negative_numbers = true, default_value_t = 15)]
    n_iter: usize,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    /// Adapter by number or part of its name, see `decorr devices`
    #[arg(long, env = "DECORR_ADAPTER")]
    adapter: Option<String>,
    /// Only this backend: vulkan, metal, dx12 or gl
    #[arg(long, env = "DECORR_BACKEND")]
    backend: Option<String>,
}

fn main() -> ExitCode {
    let Figure::Fig3(args) = Cli::parse().figure;
    match run_fig3(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_fig3(args: &Fig3Args) -> Result<()> {
    let input = match &args.image {
        Some(path) => Picture::read(path)?,
        None => {
            let bytes = include_bytes!("../../assets/astronaut.png");
            Picture::decode(Path::new("assets/astronaut.png"), bytes)?
        }
    };
    let gpu = Gpu::open(&AdapterChoice {
        adapter: args.adapter.clone(),
        backend: args.backend.clone(),
    })?;
    let options = Fig3Options {
        kernel_size: args.kernel_size,
        eps: args.eps,
        n_iter: args.n_iter,
    };
    let figure = fig3(&gpu, &input, options)?;
    let files = figure.write(&args.out)?;
    if args.json {
        // Undefined figures of a constant image are null.
        let text = serde_json::to_string(&figure.report);
        println!(
            "{}",
            text.map_err(|e| decorr::Error::Config(e.to_string()))?
        );
    } else {
        print_table(&figure.report);
        println!("wrote {} in {}", files.join(", "), args.out.display());
    }
    Ok(())
}

fn print_table(report: &Fig3Report) {
    println!("{:<34} {:>10} {:>10}", "", "before", "after");
    let row = |name: &str, value: fn(&Measures) -> f64| {
        let (before, after) = (value(&report.before), value(&report.after));
        println!("{name:<34} {before:>10.4} {after:>10.4}");
    };
    row("excess kurtosis", |m| m.excess_kurtosis);
    row("Hoyer's sparsity", |m| m.hoyer);
    row("share of |x| under 0.1 sigma", |m| m.near_zero);
    row("largest |correlation| of patches", |m| m.max_correlation);
}
