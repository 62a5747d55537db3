//! The fastest tile of each class of products on an adapter: measured there once, kept in a file of the user's
//! cache.
//!
//! Unstable: may change in any release.
//!
//! Which tile is fastest depends on registers, caches, cores and the driver's compiler, and only the GPU itself
//! can say it. So each candidate multiplies the example of each class ([`Class::example`]): a convolution where
//! there are more columns than images have in late layers, a plain product elsewhere. Candidates take turns, and
//! the least time of each counts.
//!
//! Sums are cut and ordered by the tile, so another choice gives other last bits. The choice follows from the file
//! alone, and the file stays as it is until adapter, driver or version change: the same file gives the same bits.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::files::write_atomically;
use crate::gpu::{Gpu, Workspace};
use crate::graph::op::Variants;
use crate::graph::tiles::{Class, Tile, Tiles};
use crate::graph::{Graph, Init};
use crate::ops::Conv2dGeometry;
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Rounds over the candidates of a class, if they are short.
const ROUNDS: usize = 4;

/// A round that takes longer than this is not repeated: it is long enough to be told from noise.
const LONG: Duration = Duration::from_millis(25);

/// Times closer to the least than this are the same, and the order of [`Tile::candidates`] decides.
const NOISE: f64 = 0.02;

/// Version of decorr in the file.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What each candidate took for the example of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The class.
    pub class: Class,
    /// Seconds, in the order of [`Tile::candidates`].
    pub seconds: Vec<(Tile, f64)>,
}

/// What is told while kernels are chosen.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Something the user should know.
    Notice(&'a str),
    /// This many classes of so many are measured.
    Progress(usize, usize),
}

/// The tile with the least time, or one that is listed before it and is as fast but for noise. `None` if no time
/// is a positive number, as where a driver's clock stands still.
pub fn fastest(seconds: &[(Tile, f64)]) -> Option<Tile> {
    let measured = || seconds.iter().filter(|(_, s)| s.is_finite() && *s > 0.0);
    let least = measured().map(|(_, s)| *s).min_by(f64::total_cmp)?;
    let mut as_fast = measured().filter(|(_, s)| *s <= least * (1.0 + NOISE));
    as_fast.next().map(|(tile, _)| *tile)
}

/// The tiles for `gpu`: those of its file in `folder`, or measured now and written there. A file that is damaged, or
/// of another adapter, driver or version, is replaced, with a notice.
///
/// # Errors
/// What the device reported while it measured. A file that cannot be written is a notice.
pub fn tiles(
    gpu: &Arc<Gpu>,
    folder: Option<&Path>,
    mut tell: impl FnMut(Event<'_>),
) -> Result<Tiles> {
    kept_or(folder, &gpu.describe(), &mut tell, |tell| {
        measure(gpu, |_| true, Tile::candidates(), tell)
    })
}

/// As [`tiles`], with what `measure` gives.
fn kept_or<T: FnMut(Event<'_>)>(
    folder: Option<&Path>,
    adapter: &str,
    tell: &mut T,
    measure: impl FnOnce(&mut T) -> Result<Vec<Timing>>,
) -> Result<Tiles> {
    if let Some(folder) = folder {
        match read(folder, adapter) {
            Ok(Some(tiles)) => return Ok(tiles),
            Ok(None) => {}
            Err(why) => tell(Event::Notice(&format!("{why}; measuring anew"))),
        }
    }
    let mut tiles = Tiles::default();
    for timing in measure(tell)? {
        timing.choose(&mut tiles);
    }
    if let Some(folder) = folder
        && let Err(error) = write(folder, adapter, &tiles)
    {
        let text = format!("the choice of kernels is not kept for the next time: {error}");
        tell(Event::Notice(&text));
    }
    Ok(tiles)
}

/// Measures those of `candidates` that fit each class that is `wanted`.
///
/// # Errors
/// What the device reported.
pub fn measure(
    gpu: &Arc<Gpu>,
    wanted: impl Fn(Class) -> bool,
    candidates: &[Tile],
    mut tell: impl FnMut(Event<'_>),
) -> Result<Vec<Timing>> {
    let classes: Vec<Class> = Class::all().filter(|&class| wanted(class)).collect();
    let mut timings = Vec::new();
    // The memory stays; the operands of the class before do not.
    let workspace = Workspace::new(gpu);
    for (done, &class) in classes.iter().enumerate() {
        tell(Event::Progress(done, classes.len()));
        match measure_class(&mut Store::in_workspace(&workspace, 1), class, candidates) {
            // A small adapter does without the choice of its largest products.
            Err(error @ (Error::Limit(_) | Error::OutOfMemory(_))) => {
                tell(Event::Notice(&format!("{class} is left out: {error}")));
            }
            other => timings.push(other?),
        }
    }
    tell(Event::Progress(classes.len(), classes.len()));
    Ok(timings)
}

fn measure_class(store: &mut Store, class: Class, candidates: &[Tile]) -> Result<Timing> {
    let graph = example(class);
    let mut programs = Vec::new();
    for &tile in candidates.iter().filter(|tile| fits(tile, class)) {
        let options = CompileOptions {
            variants: Some(Variants::Tiled(Tiles::all(tile))),
            ..CompileOptions::default()
        };
        let mut program = Program::compile(&graph, store, options)?;
        // Drivers compile, and clocks rise, in the first step.
        seconds(&mut program)?;
        programs.push((tile, program, f64::INFINITY));
    }
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for (_, program, least) in &mut programs {
            *least = least.min(seconds(program)?);
        }
        if start.elapsed() > LONG {
            break;
        }
    }
    let seconds = programs.into_iter().map(|(tile, _, least)| (tile, least));
    Ok(Timing {
        class,
        seconds: seconds.collect(),
    })
}

/// A tile that has more than twice the rows or columns of a product computes the most part for nothing.
fn fits(tile: &Tile, class: Class) -> bool {
    let [m, n, _] = class.example();
    tile.m as usize <= 2 * m && tile.n as usize <= 2 * n
}

/// A step's time on the GPU, or where it has no timestamps, with the way there and back.
fn seconds(program: &mut Program) -> Result<f64> {
    if program.gpu().has_timestamps() {
        return Ok(program.profile(&[])?.iter().map(|k| k.seconds).sum());
    }
    let start = Instant::now();
    program.step(&[])?;
    program.finish()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The product that stands for a class, of operands that are on the GPU.
fn example(class: Class) -> Graph {
    /// Positions along a side of an image, and channels' taps.
    const SIDE: usize = 16;
    const TAPS: usize = 9;
    let [m, n, k] = class.example();
    let g = Graph::new();
    let half = Init::Constant(0.5);
    let result = if n > SIDE * SIDE * 2 {
        let (images, channels) = (n / (SIDE * SIDE), k / TAPS);
        let x = g.parameter("x", [images, channels, SIDE + 2, SIDE + 2], half.clone());
        let weight = g.parameter("weight", [m, channels, 3, 3], half);
        x.conv2d(weight, None, Conv2dGeometry::default())
    } else {
        let a = g.parameter("a", [m, k], half.clone());
        let b = g.parameter("b", [k, n], half);
        a.matmul(b)
    };
    // Kept on the GPU: written by the product itself, and nothing is read back.
    let state = g.parameter("c", result.shape(), Init::Constant(0.0));
    state.assign(result);
    g
}

impl Timing {
    /// Gives the class its fastest tile.
    pub fn choose(&self, tiles: &mut Tiles) {
        if let Some(tile) = fastest(&self.seconds) {
            tiles.set(self.class, tile);
        }
    }
}

/// Milliseconds of every candidate by class, and what `tiles` has chosen.
pub fn table(timings: &[Timing], tiles: &Tiles) -> String {
    let mut text = format!("{:<32}", "class (milliseconds)");
    // Writing to a String cannot fail.
    for tile in Tile::candidates() {
        let _ = write!(text, " {:>10}", tile.name());
    }
    let _ = writeln!(text, "  choice");
    for Timing { class, seconds } in timings {
        let _ = write!(text, "{:<32}", class.to_string());
        for tile in Tile::candidates() {
            let time = seconds.iter().find(|(t, _)| t == tile);
            let time = time.map_or("-".to_string(), |(_, s)| format!("{:.4}", 1e3 * s));
            let _ = write!(text, " {time:>10}");
        }
        let _ = writeln!(text, "  {}", tiles.of(*class).name());
    }
    text
}

/// The folder of the user's cache: `DECORR_CACHE_DIR`, or `decorr` where the system has caches. `None` if the
/// environment does not say where that is.
pub fn cache_dir() -> Option<PathBuf> {
    cache_dir_of(|name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    })
}

fn cache_dir_of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(dir) = variable("DECORR_CACHE_DIR") {
        return Some(dir);
    }
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let caches = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home("Library/Caches")
    } else {
        // A path that is not absolute is to be ignored, says the XDG specification.
        let given = variable("XDG_CACHE_HOME").filter(|dir| dir.is_absolute());
        given.or_else(|| home(".cache"))
    };
    caches.map(|dir| dir.join("decorr"))
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    decorr: String,
    /// Name, backend and driver.
    adapter: String,
    /// Tiles by class.
    #[serde(skip_serializing)]
    tiles: BTreeMap<String, String>,
}

/// The file of an adapter, as [`Gpu::describe`] calls it: another driver's choice is in the same file, and
/// replaced.
pub fn path(folder: &Path, adapter: &str) -> PathBuf {
    let name = adapter
        .split(", ")
        .next()
        .unwrap_or_default()
        .to_lowercase();
    let words: Vec<&str> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    folder.join(format!("tiles-{}.toml", words.join("-")))
}

/// The tiles that were measured on this adapter; `None` if there is no file.
///
/// # Errors
/// Why the file is of no use, with its path.
pub fn read(folder: &Path, adapter: &str) -> Result<Option<Tiles>, String> {
    let path = path(folder, adapter);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let tiles = parse(&text, adapter);
    tiles
        .map(Some)
        .map_err(|why| format!("{} {why}", path.display()))
}

fn parse(text: &str, adapter: &str) -> Result<Tiles, String> {
    let cache: Cache = toml::from_str(text).map_err(|e| {
        let reason = e.message().lines().next().unwrap_or_default().to_string();
        format!("is damaged ({reason})")
    })?;
    if cache.decorr != VERSION {
        return Err(format!("is of decorr {}, not {VERSION}", cache.decorr));
    }
    if cache.adapter != adapter {
        return Err(format!("is of {}, not {adapter}", cache.adapter));
    }
    let mut tiles = Tiles::default();
    for class in Class::all() {
        let name = cache.tiles.get(&class.to_string());
        let name = name.ok_or_else(|| format!("is damaged (it lacks {class})"))?;
        let tile = Tile::find(name);
        tiles.set(
            class,
            tile.ok_or_else(|| format!("is damaged (no tile is called {name:?})"))?,
        );
    }
    Ok(tiles)
}

/// Writes the file of an adapter, whole or not at all.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write(folder: &Path, adapter: &str, tiles: &Tiles) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let head = Cache {
        decorr: VERSION.into(),
        adapter: adapter.into(),
        tiles: BTreeMap::new(),
    };
    let mut text =
        "# The fastest kernels here, as `decorr tune` measured them. It may be removed.\n"
            .to_string();
    text.push_str(&toml::to_string(&head).map_err(|e| Error::Config(e.to_string()))?);
    text.push_str("\n[tiles]\n");
    for class in Class::all() {
        let _ = writeln!(
            text,
            "{:?} = {:?}",
            class.to_string(),
            tiles.of(class).name()
        );
    }
    write_atomically(&path(folder, adapter), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTER: &str = "Some GPU 12 (vulkan, driver 1.2)";

    fn mixed() -> Tiles {
        let mut tiles = Tiles::default();
        for (i, class) in Class::all().enumerate() {
            tiles.set(class, Tile::candidates()[i % Tile::candidates().len()]);
        }
        tiles
    }

    #[test]
    fn the_least_time_wins_and_noise_does_not() {
        let [first, second, third] = [0, 1, 2].map(|i| Tile::ALL[i]);
        let of = |times: &[(Tile, f64)]| fastest(times);
        assert_eq!(
            of(&[(first, 3.0), (second, 1.0), (third, 2.0)]),
            Some(second)
        );
        assert_eq!(of(&[(first, 1.01), (second, 1.0)]), Some(first));
        assert_eq!(of(&[(first, 1.03), (second, 1.0)]), Some(second));
        assert_eq!(
            of(&[(first, 0.0), (second, f64::NAN), (third, 5.0)]),
            Some(third)
        );
        assert_eq!(of(&[(first, f64::INFINITY)]), None);
        assert_eq!(of(&[]), None);
        // A class that could not be measured keeps its default.
        let class = Class::of(1, 1, 1);
        let mut tiles = Tiles::default();
        Timing {
            class,
            seconds: vec![(first, 0.0)],
        }
        .choose(&mut tiles);
        assert_eq!(tiles, Tiles::default());
        Timing {
            class,
            seconds: vec![(first, 2.0), (third, 1.0)],
        }
        .choose(&mut tiles);
        assert_eq!(tiles.of(class), third);
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/there/yet");
        assert_eq!(read(&folder, ADAPTER), Ok(None));
        write(&folder, ADAPTER, &mixed()).unwrap();
        assert_eq!(read(&folder, ADAPTER), Ok(Some(mixed())));
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "no temporary left"
        );
        assert!(folder.join("tiles-some-gpu-12-vulkan.toml").exists());
    }

    #[test]
    fn damaged_foreign_and_old_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ADAPTER, &mixed()).unwrap();
        let file = path(dir.path(), ADAPTER);
        let whole = fs::read_to_string(&file).unwrap();
        let other = ADAPTER.replace("1.2", "1.3");
        let refused = read(dir.path(), &other).unwrap_err();
        assert!(
            refused.contains("driver 1.2") && refused.contains("driver 1.3"),
            "{refused}"
        );
        let old = whole.replace(VERSION, "0.0.1");
        let line = whole.lines().last().unwrap();
        for (text, reason) in [
            (old.as_str(), "decorr 0.0.1"),
            (&whole[..whole.len() / 2], "damaged"),
            (&whole.replace(line, ""), "lacks"),
            (&whole.replace("16x64x16", "15x63x15"), "15x63x15"),
            ("\0\0", "damaged"),
            ("", "damaged"),
        ] {
            fs::write(&file, text).unwrap();
            let refused = read(dir.path(), ADAPTER).unwrap_err();
            assert!(
                refused.contains(reason) && refused.contains("tiles-some-gpu"),
                "{refused}"
            );
        }
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(read(dir.path(), ADAPTER).is_err());
    }

    #[test]
    fn a_file_of_no_use_is_replaced_and_one_of_use_spares_the_measuring() {
        let dir = tempfile::tempdir().unwrap();
        let class = Class::of(99, 99, 99);
        let measure_to = |tile: Tile| {
            let seconds = vec![(Tile::DEFAULT, 2.0), (tile, 1.0)];
            Ok(vec![Timing { class, seconds }])
        };
        let file = path(dir.path(), ADAPTER);
        let run = |folder: &Path, adapter: &str, tile: Option<Tile>| {
            let mut notices = Vec::new();
            let mut tell = |event: Event<'_>| {
                if let Event::Notice(text) = event {
                    notices.push(text.to_string());
                }
            };
            let tiles = kept_or(Some(folder), adapter, &mut tell, |_| {
                measure_to(tile.expect("measured although there is a file"))
            });
            (tiles.unwrap().of(class), notices.join(" "))
        };
        let [first, second, third] = [1, 2, 3].map(|i| Tile::ALL[i]);
        assert_eq!(
            run(dir.path(), ADAPTER, Some(first)),
            (first, String::new())
        );
        assert_eq!(run(dir.path(), ADAPTER, None), (first, String::new()));
        let (tile, notice) = run(dir.path(), &ADAPTER.replace("1.2", "1.3"), Some(second));
        assert!(tile == second && notice.contains("driver 1.2"), "{notice}");
        fs::write(&file, "nonsense").unwrap();
        let (tile, notice) = run(dir.path(), ADAPTER, Some(third));
        assert!(
            tile == third && notice.contains("measuring anew"),
            "{notice}"
        );
        assert_eq!(run(dir.path(), ADAPTER, None), (third, String::new()));
        // Where no folder can be made, the choice holds for this time.
        let (tile, notice) = run(&file.join("below"), ADAPTER, Some(first));
        assert!(tile == first && notice.contains("not kept"), "{notice}");
    }

    #[test]
    fn the_cache_is_where_the_system_has_caches() {
        let root = if cfg!(windows) { "C:\\" } else { "/" };
        let set = |pairs: &'static [(&'static str, &'static str)]| {
            move |name: &str| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| Path::new(root).join(value))
            }
        };
        let own = [
            ("DECORR_CACHE_DIR", "own"),
            ("XDG_CACHE_HOME", "xdg"),
            ("HOME", "home"),
        ];
        assert_eq!(
            cache_dir_of(set(Box::leak(Box::new(own)))),
            Some(Path::new(root).join("own"))
        );
        assert_eq!(cache_dir_of(|_| None), None);
        if cfg!(target_os = "linux") {
            let xdg = cache_dir_of(set(&[("XDG_CACHE_HOME", "xdg"), ("HOME", "home")]));
            assert_eq!(xdg, Some("/xdg/decorr".into()));
            assert_eq!(
                cache_dir_of(set(&[("HOME", "home")])),
                Some("/home/.cache/decorr".into())
            );
            let relative = |name: &str| (name != "DECORR_CACHE_DIR").then(|| PathBuf::from("x"));
            assert_eq!(cache_dir_of(relative), Some("x/.cache/decorr".into()));
        }
    }

    #[test]
    fn every_class_has_an_example_of_its_own_class_and_two_candidates() {
        for class in Class::all() {
            let graph = example(class);
            let list = graph.checked().unwrap();
            let len = list.shape(list.states()["c"]).len();
            let [m, n, _] = class.example();
            assert_eq!(len, m * n, "{class}");
            let fitting = Tile::candidates().iter().filter(|tile| fits(tile, class));
            assert!(fitting.count() >= 2, "{class}");
        }
        // Up to twice the rows, and up to twice the columns.
        let fits = |name, m, n| fits(&Tile::find(name).unwrap(), Class::of(m, n, 1));
        assert!(fits("64x128x8", 32, 64) && !fits("64x128x8", 16, 512));
        assert!(fits("128x64x8", 64, 64) && !fits("128x64x8", 32, 512));
    }

    #[test]
    fn the_table_has_all_candidates_and_the_choice() {
        let class = Class::of(1, 1, 1);
        let seconds = vec![(Tile::ALL[4], 2e-3), (Tile::ALL[5], 1e-3)];
        let timing = Timing { class, seconds };
        let mut tiles = Tiles::default();
        timing.choose(&mut tiles);
        let text = table(&[timing], &tiles);
        assert!(
            text.contains("128x128x8") && text.contains("2.0000"),
            "{text}"
        );
        assert!(text.trim_end().ends_with("1.0000  16x64x16"), "{text}");
    }
}
