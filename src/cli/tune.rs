//! `decorr tune`, and what other commands do about tiles that were or are to be measured.

use std::sync::Arc;

use clap::Args;
use decorr::gpu::Gpu;
use decorr::graph::op::Variants;
use decorr::graph::tiles::{Class, Tile, Tiles};
use decorr::tune::{self, Event};
use decorr::{Error, Result};
use indicatif::ProgressBar;

use super::{AdapterArgs, note, print};

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Only classes whose name contains this, for example "m <= 16, n <= 64"; others keep their tiles
    #[arg(default_value = "")]
    filter: String,
    /// Kernels whose tiles are measured: tiled. A software adapter uses other kernels, and is measured only with
    /// this option
    #[arg(long, value_name = "KERNELS")]
    variant: Option<Variants>,
    /// Only this tile, for example 64x64x16; may be given several times [default: all]
    #[arg(long, value_name = "TILE")]
    tile: Vec<String>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

pub(super) fn run(args: &TuneArgs) -> Result<()> {
    let tiled = Variants::Tiled(Tiles::default());
    if args.variant.is_some_and(|variant| variant != tiled) {
        return Err(Error::Config(
            "--variant takes tiled: other kernels have no tiles".into(),
        ));
    }
    let mut candidates = Vec::new();
    for name in &args.tile {
        let tile = Tile::candidates().iter().find(|tile| tile.name() == name);
        candidates.push(*tile.ok_or_else(|| {
            let names: Vec<&str> = Tile::candidates().iter().map(|tile| tile.name()).collect();
            Error::Config(format!(
                "no tile is called {name:?}; there are {}",
                names.join(", ")
            ))
        })?);
    }
    if candidates.is_empty() {
        candidates.extend(Tile::candidates());
    }
    let wanted = |class: Class| class.to_string().contains(&args.filter);
    if !Class::all().any(wanted) {
        let names: Vec<String> = Class::all().map(|class| class.to_string()).collect();
        return Err(Error::Config(format!(
            "no class's name contains {:?}; there are\n{}",
            args.filter,
            names.join("\n")
        )));
    }
    let gpu = args.adapter.open_to_run()?;
    if gpu.is_software() && args.variant.is_none() {
        return Err(Error::Config(format!(
            "{} runs on the CPU and takes kernels without tiles; --variant tiled measures those of GPUs all the \
             same",
            gpu.name()
        )));
    }
    let (adapter, folder) = (gpu.describe(), tune::cache_dir());
    let before = match &folder {
        Some(folder) => tune::read(folder, &adapter).unwrap_or_else(|why| {
            note(format_args!("{why}; it is replaced"));
            None
        }),
        None => None,
    };
    let mut tiles = before.unwrap_or_default();
    let bar = Bar::new("measuring");
    let timings = tune::measure(&gpu, wanted, &candidates, |event| bar.show(&event))?;
    bar.finish();
    for timing in &timings {
        timing.choose(&mut tiles);
    }
    print(format_args!("{adapter}"));
    print(tune::table(&timings, &tiles).trim_end_matches('\n'));
    if let Some(folder) = folder {
        tune::write(&folder, &adapter, &tiles)?;
        print(format_args!(
            "wrote {}",
            tune::path(&folder, &adapter).display()
        ));
    }
    Ok(())
}

/// The tiles that were measured on `gpu`, now if they never were.
pub(super) fn measured(gpu: &Arc<Gpu>) -> Result<Tiles> {
    let bar = Bar::new("measuring this adapter's fastest kernels, once (--no-tune does without)");
    let tiles = tune::tiles(gpu, tune::cache_dir().as_deref(), |event| bar.show(&event))?;
    bar.finish();
    Ok(tiles)
}

/// The tiles that were measured on `gpu`, if they were and the file is of use.
pub(super) fn kept(gpu: &Gpu) -> Option<Tiles> {
    tune::read(&tune::cache_dir()?, &gpu.describe())
        .ok()
        .flatten()
}

/// Progress on stderr: a bar that goes away again, or where there is no terminal, one line.
struct Bar {
    bar: ProgressBar,
    what: &'static str,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0);
        Self { bar, what }
    }

    fn show(&self, event: &Event<'_>) {
        let Self { bar, what } = self;
        match *event {
            Event::Notice(text) if bar.is_hidden() => note(text),
            Event::Notice(text) => bar.println(text),
            Event::Progress(0, _) if bar.is_hidden() => note(format_args!("{what} ...")),
            Event::Progress(0, of) => {
                bar.println(what);
                bar.set_length(of as u64);
            }
            Event::Progress(done, _) => bar.set_position(done as u64),
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
