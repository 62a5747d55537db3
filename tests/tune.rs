//! Choosing kernels as a user does: measuring, the file that keeps the choice, naming kernels, and that a run keeps
//! those that it began with.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use decorr::graph::op::Variants;
use decorr::graph::tiles::{Class, Tile, Tiles};
use decorr::tune;

/// With its own cache.
fn decorr(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.args(args).env("DECORR_CACHE_DIR", cache);
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn text_of(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t));
    assert!(!error.contains("panicked"), "{error}");
    format!("{out}{error}")
}

fn success(output: &Output) -> String {
    let text = text_of(output);
    assert!(output.status.success(), "{text}");
    text
}

fn refusal(output: &Output, wanted: &str) {
    let text = text_of(output);
    assert!(!output.status.success() && text.contains(wanted), "{text}");
}

/// What the commands call the adapter of the tests.
fn adapter() -> String {
    support::gpu().describe()
}

fn smallest() -> Tile {
    Tile::ALL[Tile::ALL.len() - 1]
}

const SMALL: [&str; 12] = [
    "train",
    "--model",
    "mlp",
    "--norm",
    "batch",
    "--width",
    "0.1",
    "--batch-size",
    "16",
    "--test-images",
    "16",
    "--seed",
];

/// A run of `steps`, which takes the kernels of the other arguments.
fn train(cache: &Path, out: &Path, steps: &str, others: &[&str]) -> String {
    let out = out.to_str().unwrap();
    let mut args = SMALL.to_vec();
    args.extend(["3", "--steps", steps, "--out", out]);
    args.extend(others);
    success(&decorr(cache, &args))
}

#[test]
fn a_class_is_measured_and_kept() {
    let cache = tempfile::tempdir().unwrap();
    let class = Class::of(16, 64, 512);
    let name = class.to_string();
    // Other classes keep what they have.
    let mut before = Tiles::all(Tile::ALL[1]);
    before.set(class, Tile::ALL[2]);
    tune::write(cache.path(), &adapter(), &before).unwrap();
    let args = [
        "tune",
        &name,
        "--variant",
        "tiled",
        "--tile",
        "16x64x16",
        "--tile",
        "32x32x16",
    ];
    let text = success(&decorr(cache.path(), &args));
    let after = tune::read(cache.path(), &adapter())
        .unwrap()
        .expect("a file");
    let chosen = after.of(class);
    assert!(["16x64x16", "32x32x16"].contains(&chosen.name()), "{text}");
    let row = text.lines().find(|line| line.starts_with(&name));
    let row = row.unwrap_or_else(|| panic!("{text}"));
    assert!(row.ends_with(chosen.name()) && row.contains('-'), "{text}");
    before.set(class, chosen);
    assert_eq!(after, before);

    // A file that is of no use is replaced.
    let file = tune::path(cache.path(), &adapter());
    std::fs::write(&file, "tiles = 3").unwrap();
    let text = success(&decorr(cache.path(), &args));
    assert!(text.contains("damaged"), "{text}");
    let after = tune::read(cache.path(), &adapter())
        .unwrap()
        .expect("a file");
    assert_eq!(after.of(Class::of(999, 999, 999)), Tile::DEFAULT);
}

#[test]
fn what_cannot_be_measured_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let of = |args: &[&str]| decorr(cache.path(), args);
    refusal(
        &of(&["tune", "m <= 17", "--variant", "tiled"]),
        "m <= 16, n <= 64, k <= 512",
    );
    refusal(
        &of(&["tune", "--variant", "tiled", "--tile", "16x16x16"]),
        "128x128x8",
    );
    refusal(&of(&["tune", "--variant", "direct"]), "tiled");
    if support::gpu().is_software() {
        refusal(&of(&["tune"]), "--variant tiled");
    }
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 0);
}

/// The same file, the same bits; and a run that is resumed takes the kernels that it began with, whatever has become
/// of the file.
#[test]
fn a_run_keeps_its_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let mut tiles = Tiles::all(smallest());
    tiles.set(Class::of(1, 9999, 9999), Tile::FEW_ROWS);
    tune::write(&cache, &adapter(), &tiles).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
    let model = |out: &Path| std::fs::read(out.join("model.safetensors")).unwrap();
    let kernels = format!("kernels = \"{}\"", Variants::Tiled(tiles));
    let config = |out: &Path| std::fs::read_to_string(out.join("config.toml")).unwrap();

    train(&cache, &a, "4", &["--kernels", "measured"]);
    train(&cache, &b, "4", &["--kernels", "measured"]);
    assert!(
        kernels.contains("measured:16x16x4,") && config(&a).contains(&kernels),
        "{}",
        config(&a)
    );
    assert!(model(&a) == model(&b), "two runs with one file differ");

    train(&cache, &c, "2", &["--kernels", "measured"]);
    let file = tune::path(&cache, &adapter());
    std::fs::write(&file, "damaged").unwrap();
    let text = train(&cache, &c, "4", &["--resume"]);
    assert!(
        text.contains("resuming after step 2") && !text.contains("measuring"),
        "{text}"
    );
    assert!(config(&c).contains(&kernels));
    assert!(model(&a) == model(&c), "the resumed run took other kernels");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "damaged");
}

#[test]
fn kernels_are_named_or_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let config = |out: &Path| std::fs::read_to_string(out.join("config.toml")).unwrap();
    train(&cache, &a, "1", &["--no-tune"]);
    assert!(!config(&a).contains("measured"), "{}", config(&a));
    train(
        &cache,
        &b,
        "1",
        &["--no-tune", "--kernels", "tiled:16x16x4"],
    );
    assert!(
        config(&b).contains("kernels = \"tiled:16x16x4\""),
        "{}",
        config(&b)
    );
    assert!(!cache.exists(), "--no-tune measured");

    let of = |kernels| {
        decorr(
            &cache,
            &["describe", "--model", "mlp", "--kernels", kernels],
        )
    };
    assert!(success(&of("direct")).contains(" direct "));
    assert!(success(&of("tiled:128x128x8")).contains(" tiled_128x128x8 "));
    let tiled = success(&of("tiled"));
    assert!(
        tiled.contains(" tiled_64x64x16 ") && tiled.contains(" tiled_16x64x16 "),
        "{tiled}"
    );
    refusal(&of("tiled:1x1x1"), "64x64x16");
    refusal(&of("fast"), "subgroup");
    if !support::gpu().has_subgroups_of_8() {
        refusal(&of("subgroup"), "subgroups of 8");
    }
}
