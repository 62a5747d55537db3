//! The programs as a user runs them: what they print, what they leave, how they refuse.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

fn decorr(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_decorr")).args(args))
}

fn visualiser(args: &[&str]) -> Output {
    static BUILD: Once = Once::new();
    // Cargo builds examples for the whole test suite, but not for one file of it.
    BUILD.call_once(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet", "--example", "visualiser"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // Those of this package: a dependency's build script that looks at them would run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&*name);
            }
        }
        let built = run(&mut command);
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
    });
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps");
    let name = format!("visualiser{}", std::env::consts::EXE_SUFFIX);
    run(Command::new(profile.join("examples").join(name)).args(args))
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
    text
}

/// What a program that must refuse printed, in which all of `wanted` stand; no panic.
fn refusal(output: &Output, wanted: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded");
    assert!(!text.contains("panicked"), "{text}");
    for part in wanted {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

fn path(dir: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let path = dir.path().join(name);
    let text = path.to_string_lossy().into_owned();
    (path, text)
}

#[test]
fn train_eval_and_describe() {
    let dir = tempfile::tempdir().unwrap();
    let (out, out_text) = path(&dir, "runs/a");
    let text = stdout(&decorr(&[
        "train",
        "--data",
        "fashion-mnist",
        "--model",
        "mlp",
        "--norm",
        "deconv",
        "--loss",
        "ce",
        "--epochs",
        "1",
        "--steps",
        "12",
        "--batch-size",
        "64",
        "--optimizer",
        "sgd",
        "--lr",
        "0.05",
        "--momentum",
        "0.9",
        "--weight-decay",
        "0",
        "--block",
        "16",
        "--eps",
        "1e-5",
        "--n-iter",
        "5",
        "--sampling-stride",
        "3",
        "--log-every",
        "10",
        "--seed",
        "1",
        "--out",
        &out_text,
    ]));
    assert!(text.contains("12 steps"), "{text}");
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let first = metrics.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("{\"split\":\"train\",\"step\":1,\"epoch\":0,\"loss\":"),
        "{first}"
    );
    let last = metrics.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("{\"split\":\"test\",\"step\":12,"),
        "{last}"
    );

    let (_, checkpoint) = path(&dir, "runs/a/model.safetensors");
    let text = stdout(&decorr(&[
        "eval",
        "--checkpoint",
        &checkpoint,
        "--data",
        "fashion-mnist",
        "--json",
    ]));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        value["loss"].is_number() && value["top1"].is_number(),
        "{text}"
    );
    assert_eq!(value["images"], 1000);

    // The config that was written is one that can be given.
    let (_, config) = path(&dir, "runs/a/config.toml");
    let (_, again) = path(&dir, "runs/b");
    stdout(&decorr(&["train", "--config", &config, "--out", &again]));
    let other = std::fs::read_to_string(dir.path().join("runs/b/metrics.jsonl")).unwrap();
    let loss_of = |text: &str| text.split("\"loss\":").nth(1).map(|t| t[..8].to_string());
    assert_eq!(loss_of(&metrics), loss_of(&other));

    let (picture, picture_text) = path(&dir, "compare.png");
    let text = stdout(&decorr(&[
        "compare",
        &out_text,
        &again,
        "--out",
        &picture_text,
        "--json",
    ]));
    let both: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&both[0]["name"], &both[1]["name"]),
        (&"a".into(), &"b".into())
    );
    assert_eq!(both[0]["steps"], 12);
    assert_eq!(both[0]["train_loss"], both[1]["train_loss"]);
    assert!(both[0]["test_loss"].is_number() && both[0]["ms_per_step"].is_number());
    assert!(image::open(picture).unwrap().width() > 1000);
    let table = stdout(&decorr(&["compare", &out_text, &again]));
    assert_eq!(table.lines().count(), 3, "{table}");
    refusal(
        &decorr(&["compare", dir.path().to_str().unwrap()]),
        &["metrics.jsonl"],
    );

    refusal(
        &decorr(&["train", "--steps", "1", "--out", &out_text]),
        &["--force"],
    );

    let (dot, dot_text) = path(&dir, "graph.dot");
    let text = stdout(&decorr(&[
        "describe", "--model", "mlp", "--block", "16", "--dot", &dot_text,
    ]));
    assert!(
        text.contains("planned peak memory") && text.contains("GFLOP"),
        "{text}"
    );
    assert!(std::fs::read_to_string(dot).unwrap().starts_with("digraph"));
}

/// A file with PyTorch's names and nothing of ours in it.
#[test]
fn a_state_dict_is_evaluated_as_the_network_that_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (out, out_text) = path(&dir, "run");
    stdout(&decorr(&[
        "train", "--model", "linear", "--norm", "batch", "--steps", "3", "--out", &out_text,
    ]));
    let ours = out.join("model.safetensors");
    let bytes = std::fs::read(&ours).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (bare, bare_text) = path(&dir, "bare.safetensors");
    std::fs::write(&bare, safetensors::serialize(file.tensors(), None).unwrap()).unwrap();
    let of_ours = stdout(&decorr(&[
        "eval",
        "--json",
        "--checkpoint",
        ours.to_str().unwrap(),
    ]));
    let eval = ["eval", "--json", "--checkpoint", &bare_text];
    refusal(&decorr(&eval), &["bare.safetensors", "--model"]);
    let named = [&eval[..], &["--model", "linear", "--norm", "batch"]].concat();
    assert_eq!(stdout(&decorr(&named)), of_ours);
    let wrong = [&eval[..], &["--model", "cnn", "--norm", "batch"]].concat();
    refusal(&decorr(&wrong), &["bare.safetensors", "conv1"]);
}

#[test]
fn adapters_are_listed_and_a_missing_one_says_what_to_do() {
    let text = stdout(&decorr(&["devices"]));
    assert!(
        text.contains("0: ") && text.contains("timestamp-query"),
        "{text}"
    );
    refusal(
        &decorr(&["train", "--adapter", "no such gpu"]),
        &["no such gpu", "there are"],
    );
    refusal(
        &decorr(&["train", "--backend", "cuda"]),
        &["cuda", "vulkan"],
    );
}

/// With the loader told of no driver at all.
#[cfg(target_os = "linux")]
#[test]
fn no_adapter_at_all_says_what_to_install() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.args(["train", "--backend", "vulkan"]);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(variable, "/nonexistent.json");
    }
    let wanted = [
        "no GPU adapter",
        "mesa-vulkan-drivers",
        "vulkan-swrast",
        "macOS",
    ];
    refusal(&run(&mut command), &wanted);
}

#[test]
fn wrong_options_are_named() {
    refusal(
        &decorr(&["train", "--learning-rate", "1"]),
        &["--learning-rate"],
    );
    refusal(&decorr(&["train", "--norm", "layer"]), &["layer", "deconv"]);
    refusal(&decorr(&["train", "--lr", "nan"]), &["--lr"]);
    refusal(
        &decorr(&["train", "--batch-size", "9999"]),
        &["9999", "5800"],
    );
    let dir = tempfile::tempdir().unwrap();
    let (file, text) = path(&dir, "config.toml");
    std::fs::write(&file, "lerning-rate = 1").unwrap();
    refusal(
        &decorr(&["train", "--config", &text]),
        &["config.toml", "lerning-rate"],
    );
}

#[test]
fn bad_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, data) = path(&dir, "data");
    let train = |dir: &str| decorr(&["train", "--data", "mnist", "--data-dir", dir]);
    refusal(&train(&data), &["train-images-idx3-ubyte", "--data-dir"]);
    let (folder, _) = path(&dir, "data");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28];
    images.resize(16 + 2 * 784, 7);
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 3, 4];
    write("train-images-idx3-ubyte", &images[..900]);
    write("train-labels-idx1-ubyte", &labels);
    refusal(
        &train(&data),
        &["train-images-idx3-ubyte", "byte 900", "cut short"],
    );
    write("train-images-idx3-ubyte", &images);
    refusal(&train(&data), &["t10k-images-idx3-ubyte", "missing"]);
    write("t10k-images-idx3-ubyte", &labels);
    write("t10k-labels-idx1-ubyte", &labels);
    refusal(
        &train(&data),
        &["t10k-images-idx3-ubyte", "looks like a file of labels"],
    );
}

#[test]
fn bad_checkpoints_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (file, text) = path(&dir, "model.safetensors");
    refusal(
        &decorr(&["eval", "--checkpoint", &text]),
        &["model.safetensors"],
    );
    std::fs::write(&file, b"not a checkpoint").unwrap();
    refusal(
        &decorr(&["eval", "--checkpoint", &text]),
        &["model.safetensors", "damaged"],
    );
}

#[test]
fn an_unwritable_out_is_named_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let (file, _) = path(&dir, "file");
    std::fs::write(file, b"").unwrap();
    let (_, out) = path(&dir, "file/run");
    refusal(&decorr(&["train", "--out", &out]), &["file/run"]);
}

#[test]
fn figure_3_of_the_bundled_picture() {
    let dir = tempfile::tempdir().unwrap();
    let (out, text) = path(&dir, "fig3");
    let json = stdout(&visualiser(&[
        "fig3",
        "--out",
        &text,
        "--kernel-size",
        "3",
        "--eps",
        "1e-5",
        "--n-iter",
        "15",
        "--json",
    ]));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let get = |when: &str, what: &str| value[when][what].as_f64().unwrap();
    // Float64 values of the same formulas: -1.2491, 15.2517 and .9858, .0664.
    let near = |a: f64, b: f64, share: f64| (a - b).abs() <= share * b.abs();
    assert!(
        near(get("before", "excess_kurtosis"), -1.2491, 0.01),
        "{json}"
    );
    assert!(
        near(get("after", "excess_kurtosis"), 15.2517, 0.01),
        "{json}"
    );
    assert!(
        near(get("before", "max_correlation"), 0.9858, 0.01),
        "{json}"
    );
    assert!(get("after", "max_correlation") < 0.2, "{json}");
    assert!(get("after", "hoyer") > get("before", "hoyer"), "{json}");
    assert!(
        get("after", "near_zero") > get("before", "near_zero"),
        "{json}"
    );
    let panels = [
        "a_input",
        "b_zero_mean_abs",
        "c_deconvolved",
        "d_deconvolved_abs",
        "fig3",
    ];
    for name in panels {
        let picture = image::open(out.join(format!("{name}.png"))).unwrap();
        assert!(picture.width() >= 512, "{name}");
    }
}

#[test]
fn pictures_of_all_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = path(&dir, "out");
    let save = |name: &str, image: image::DynamicImage| {
        let (file, text) = path(&dir, name);
        image.save(file).unwrap();
        text
    };
    let ramp = |x: u32, y: u32| (x * 7 + y * 13 + x * y) as u8;
    let grey = image::GrayImage::from_fn(31, 17, |x, y| image::Luma([ramp(x, y)]));
    let constant = image::RgbImage::from_pixel(9, 9, image::Rgb([10, 200, 30]));
    let one = image::RgbaImage::from_pixel(1, 1, image::Rgba([1, 2, 3, 4]));
    for file in [
        save("grey.png", grey.into()),
        save("constant.bmp", constant.into()),
        save("one.png", one.into()),
    ] {
        let json = stdout(&visualiser(&["fig3", &file, "--out", &out, "--json"]));
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(
            value["after"]["max_correlation"].is_number(),
            "{file}: {json}"
        );
    }
    let (broken, text) = path(&dir, "broken.png");
    std::fs::write(broken, b"\x89PNG\r\n\x1a\n and no more").unwrap();
    refusal(
        &visualiser(&["fig3", &text, "--out", &out]),
        &["broken.png", "no picture"],
    );
    refusal(
        &visualiser(&["fig3", "none.png", "--out", &out]),
        &["none.png"],
    );
    let even = ["fig3", "--out", &out, "--kernel-size", "4"];
    refusal(&visualiser(&even), &["--kernel-size 4", "odd"]);
}

#[test]
fn models_are_listed_with_their_sizes() {
    let text = stdout(&decorr(&["models", "--norm", "batch", "--json"]));
    let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let found = |name: &str, form: &str| {
        let is_it = |m: &&serde_json::Value| m["name"] == name && m["form"] == form;
        all.iter().find(is_it).unwrap().clone()
    };
    let vgg = found("vgg11", "imagenet");
    assert_eq!(vgg["parameters"], 132_868_840);
    assert_eq!(vgg["norm"], "batch");
    assert!(vgg["flops"].as_u64() > Some(15_000_000_000));
    assert_eq!(found("resnet18", "cifar")["parameters"], 11_173_962);
    assert_eq!(found("linear", "mnist")["parameters"], 7850);
    assert!(all.iter().all(|m| m["norm"] == "batch"));

    let table = stdout(&decorr(&["models", "--form", "cifar", "--norm", "deconv"]));
    assert!(
        table.contains("densenet121") && !table.contains("imagenet"),
        "{table}"
    );
    refusal(&decorr(&["train", "--model", "vgg12"]), &["vgg12", "vgg11"]);
    let dir = tempfile::tempdir().unwrap();
    let (out, out_text) = path(&dir, "never");
    let small = decorr(&["train", "--model", "vgg11", "--out", &out_text]);
    refusal(&small, &["vgg11", "28 x 28", "--model cnn"]);
    assert!(!out.exists());
}
