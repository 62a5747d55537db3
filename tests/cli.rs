//! The programs as a user runs them: what they print, what they leave, how they refuse.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use support::visualiser::visualiser_command;

fn decorr(args: &[&str]) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_decorr")).args(args))
}

fn visualiser(args: &[&str]) -> Output {
    run(&mut visualiser_command(args))
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
fn a_step_between_refreshes_is_described_where_there_is_one() {
    let step = ["describe", "--model", "cnn", "--batch-size", "4", "--norm"];
    let of = |rest: &[&str]| decorr(&[&step[..], rest].concat());
    refusal(&of(&["deconv", "--between"]), &["--between", "--refresh"]);
    refusal(&of(&["batch", "--between"]), &["--between", "--refresh"]);
    refusal(
        &of(&["batch", "--accumulate", "2"]),
        &["--accumulate 2 is not described: give --batch-size 2,"],
    );
    // The table of kernel times has all dispatches of the plan.
    let linear = ["describe", "--model", "linear", "--norm", "none"];
    let options = ["--batch-size", "4", "--profile"];
    let profile = stdout(&decorr(&[&linear[..], &options].concat()));
    let (plan, times) = profile
        .split_once("\nplanned in ")
        .expect("a line of the time");
    let all = times.lines().find(|line| line.starts_with("all "));
    let all: Vec<&str> = all.expect("a sum").split_whitespace().collect();
    let dispatches = plan.lines().find_map(|line| line.split_once(" dispatches"));
    assert!(
        dispatches.is_some_and(|(n, _)| n.ends_with(all[1])),
        "{profile}"
    );
    let count = |text: &str| text.lines().filter(|l| l.contains("newton_schulz")).count();
    let refresh = stdout(&of(&["deconv", "--refresh", "8"]));
    let between = stdout(&of(&["deconv", "--refresh", "8", "--between"]));
    assert!(count(&between) < count(&refresh), "{between}");
}

/// One that was named is taken without a word.
#[test]
fn that_there_is_no_gpu_is_said_once() {
    let said = |more: &[&str]| {
        let output = run(Command::new(env!("CARGO_BIN_EXE_decorr"))
            .args(["describe", "--model", "linear", "--batch-size", "4"])
            .args(more)
            .env_remove("DECORR_ADAPTER"));
        stdout(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let gpu = decorr::gpu::Gpu::best().unwrap();
    let wanted = match gpu.is_software() {
        true => format!(
            "no GPU was found: running on the CPU by {}, which is slow\n",
            gpu.name()
        ),
        false => String::new(),
    };
    assert_eq!(said(&[]), wanted);
    assert_eq!(said(&["--adapter", "0"]), "");
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
    let over_steps = image::open(picture).unwrap();
    assert!(over_steps.width() > 1000);
    let (picture, picture_text) = path(&dir, "seconds.png");
    let over = ["--out", &picture_text, "--x", "seconds"];
    stdout(&decorr(
        &[&["compare", &out_text, &again][..], &over].concat(),
    ));
    assert!(image::open(picture).unwrap() != over_steps);
    let table = stdout(&decorr(&["compare", &out_text, &again]));
    assert_eq!(table.lines().count(), 4, "{table}");
    // What it ran on is known by run.json, with which the length of an epoch is, too.
    assert!(both[0]["adapter"].is_string() && both[0]["norm"].is_string());
    let epochs = ["--out", &picture_text, "--x", "epoch"];
    let said = decorr(&[&["compare", &out_text][..], &epochs].concat());
    assert!(said.stderr.is_empty(), "{said:?}");
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
fn what_a_resumed_run_and_an_evaluation_take_from_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (out, name) = path(&dir, "run");
    let train = [
        "train",
        "--model",
        "linear",
        "--norm",
        "none",
        "--out",
        &name,
        "--train-images",
        "64",
        "--test-images",
        "16",
        "--batch-size",
        "8",
        "--accumulate",
        "4",
        "--save-every",
        "2",
    ];
    stdout(&decorr(&[&train[..], &["--steps", "2"]].concat()));

    // The parts of the training are no matter of an evaluation.
    let model = format!("{name}/model.safetensors");
    let eval = |size: &[&str]| -> serde_json::Value {
        let command = ["eval", "--json", "--checkpoint", &model];
        serde_json::from_str(&stdout(&decorr(&[&command[..], size].concat()))).unwrap()
    };
    let whole = eval(&[]);
    for size in ["1", "6"] {
        let other = eval(&["--batch-size", size]);
        assert_eq!(other["top1"], whole["top1"]);
        let [a, b] = [&other, &whole].map(|e| e["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }

    // What the run is resumed from has the network too.
    let state = format!("{name}/checkpoints/step-00000002.safetensors");
    let of_state = stdout(&decorr(&["eval", "--json", "--checkpoint", &state]));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&of_state).unwrap(),
        whole
    );
    let other = ["eval", "--checkpoint", &model, "--norm", "batch"];
    refusal(
        &decorr(&other),
        &["says itself what it is of: leave --norm out"],
    );

    let resume = ["train", "--resume", "--out", &name];
    let with = |more: &[&str]| decorr(&[&resume[..], more].concat());
    refusal(
        &with(&["--steps", "4", "--preset", "cifar10-vgg11-deconv"]),
        &["--preset would change nothing"],
    );
    refusal(
        &with(&["--epochs", "9"]),
        &["all its 2 steps", "a larger --steps"],
    );

    // Of a deconvolved run, a plain network that says what it is.
    let (_, deconv) = path(&dir, "deconv");
    let train = [
        "train",
        "--model",
        "mlp",
        "--norm",
        "deconv",
        "--block",
        "16",
        "--steps",
        "3",
        "--batch-size",
        "8",
    ];
    // With what only deconvolution has: none of it may be in the way of the plain network.
    let of_deconv = [
        "--refresh",
        "2",
        "--refresh-after",
        "1",
        "--n-iter",
        "4",
        "--eps",
        "1e-4",
    ];
    stdout(&decorr(
        &[
            &train[..],
            &of_deconv,
            &["--test-images", "64", "--out", &deconv],
        ]
        .concat(),
    ));
    let (_, plain) = path(&dir, "plain.safetensors");
    let export = ["export", &deconv, "--fold", "--out", &plain];
    assert!(stdout(&decorr(&export)).contains("layers folded"));
    refusal(&decorr(&export), &["plain.safetensors", "--force"]);
    stdout(&decorr(&[&export[..], &["--force"]].concat()));
    let of = |file: &str| -> serde_json::Value {
        let text = stdout(&decorr(&["eval", "--json", "--checkpoint", file]));
        serde_json::from_str(&text).unwrap()
    };
    let (folded, whole) = (of(&plain), of(&format!("{deconv}/model.safetensors")));
    assert_eq!(folded["top1"], whole["top1"]);
    let [a, b] = [&folded, &whole].map(|e| e["loss"].as_f64().unwrap());
    assert!((a - b).abs() < 1e-4 * b, "{a} {b}");
    refusal(
        &decorr(&["export", &model, "--fold", "--out", &plain, "--force"]),
        &["no deconvolved layer"],
    );

    // Nothing is written over a run's own files.
    for command in [
        &["compare", &name, "--out"][..],
        &["profile", "--model", "linear", "--norm", "none", "--out"],
        &["describe", "--model", "linear", "--norm", "none", "--dot"],
    ] {
        refusal(
            &decorr(&[command, &[&model]].concat()),
            &["model.safetensors would not be"],
        );
    }

    let file = out.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let edited = text.replace("weight-decay = ", "weight-decay = 1");
    assert_ne!(edited, text);
    std::fs::write(&file, edited).unwrap();
    let output = with(&["--steps", "4"]);
    stdout(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("differs from the checkpoint in weight-decay; --resume goes by"),
        "{said}"
    );
    for (more, is_said) in [
        (&["--steps", "6"][..], false),
        (&["--steps", "8", "--batch-size", "16"], true),
    ] {
        let output = with(more);
        stdout(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("differs from the checkpoint"), "{said}");
        assert_eq!(said.contains("epochs are counted anew"), is_said, "{said}");
    }
}

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

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_said() {
    for command in [&["models", "--json"][..], &["devices"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut decorr = Command::new(env!("CARGO_BIN_EXE_decorr"));
        let output = decorr.args(command).stdout(full).output().unwrap();
        refusal(&output, &["standard output", "No space left"]);
    }
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

/// Rows of --network: ratios are of the row that they name, and a step with --refresh is the mean of its cycle.
#[test]
fn steps_of_a_network_are_held_against_batch_norm() {
    let args = [
        "bench",
        "--network",
        "mlp",
        "--batch-size",
        "16",
        "--rounds",
        "2",
        "--json",
    ];
    let report: serde_json::Value = serde_json::from_str(&stdout(&decorr(&args))).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let ms = |name: &str| {
        let figure = figures.iter().find(|f| f["name"] == name);
        figure.unwrap_or_else(|| panic!("no {name}: {report}"))["ms"]
            .as_f64()
            .unwrap()
    };
    let mut ratios = 0;
    for figure in figures.iter().filter(|f| f["ratio"].is_array()) {
        let [base, ratio] = [&figure["ratio"][0], &figure["ratio"][1]];
        let expected = figure["ms"].as_f64().unwrap() / ms(base.as_str().unwrap());
        assert!(
            (ratio.as_f64().unwrap() / expected - 1.0).abs() < 1e-9,
            "{figure}"
        );
        ratios += 1;
    }
    assert!(ratios >= 4, "{ratios} ratios: {report}");
    // A cycle of 8 steps takes about six times as long as a step: far from one, and from none.
    let (exact, cycle) = (
        ms("mlp at 16 deconv 64"),
        ms("mlp at 16 deconv 64 refresh 8"),
    );
    assert!(
        cycle < 3.0 * exact,
        "{cycle} ms a step, {exact} with D of every step"
    );
}

#[test]
fn loading_is_measured_in_images() {
    let args = ["data", "bench", "--seconds", "1", "--batch-size", "32"];
    let text = stdout(&decorr(&args));
    let number = |word: &str| -> f64 {
        let before = text.split(word).next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (images, seconds) = (number("images in"), number("s, batches of 32"));
    assert!(images >= 32.0 && images % 32.0 == 0.0, "{text}");
    let rate: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!((rate * seconds / images - 1.0).abs() < 0.1, "{text}");
}

/// Before memory is taken for them.
#[test]
fn what_no_device_can_hold_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = path(&dir, "out");
    for split in ["train", "val"] {
        let folder = dir.path().join("data").join(split).join("a");
        std::fs::create_dir_all(&folder).unwrap();
        RgbImage::new(9, 9).save(folder.join("0.png")).unwrap();
    }
    let data = dir.path().join("data");
    let data = data.to_string_lossy();
    let folder = [
        "--model",
        "cnn",
        "--width",
        "0.25",
        "--data",
        "folder",
        "--image-size",
        "46341",
        "--batch-size",
        "1",
    ];
    for command in ["describe", "profile"] {
        let output = decorr(&[&[command][..], &folder].concat());
        refusal(&output, &["25769859372 bytes", "smaller images"]);
    }
    let train = ["train", "--data-dir", &data, "--steps", "1", "--out", &out];
    refusal(&decorr(&[&train[..], &folder].concat()), &["binds at most"]);
    let parts = [
        "describe",
        "--model",
        "linear",
        "--batch-size",
        "8",
        "--accumulate",
        "4",
    ];
    refusal(&decorr(&parts), &["give --batch-size 2"]);
    refusal(&decorr(&["bench", "--rounds", "0"]), &["--rounds"]);
    let running = ["fig9", "--running", "--eps", "0.1", "--out", &out];
    refusal(&visualiser(&running), &["leave --eps"]);
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
    let save = |name: &str, image: DynamicImage| {
        let (file, text) = path(&dir, name);
        image.save(file).unwrap();
        text
    };
    let fig3 = |file: &str| -> serde_json::Value {
        let json = stdout(&visualiser(&["fig3", file, "--out", &out, "--json"]));
        serde_json::from_str(&json).unwrap()
    };
    let ramp = |x: u32, y: u32| (x * 7 + y * 13 + x * y) as u8;
    let grey = GrayImage::from_fn(31, 17, |x, y| Luma([ramp(x, y)]));
    // The same in 16 bits, and in colour with transparency that must not matter.
    let deep = ImageBuffer::from_fn(31, 17, |x, y| Luma([u16::from(ramp(x, y)) * 257]));
    let clear = RgbaImage::from_fn(31, 17, |x, y| {
        Rgba([ramp(x, y), ramp(y, x), x as u8, (x * y) as u8])
    });
    let solid = RgbImage::from_fn(31, 17, |x, y| Rgb([ramp(x, y), ramp(y, x), x as u8]));
    let eight = fig3(&save("grey.png", grey.into()));
    assert!(
        eight["after"]["max_correlation"].as_f64() < Some(0.3),
        "{eight}"
    );
    assert_eq!(eight, fig3(&save("deep.png", deep.into())));
    assert_eq!(
        fig3(&save("clear.png", clear.into())),
        fig3(&save("solid.bmp", solid.into()))
    );
    // Nothing varies in these, so that nothing can be said of it.
    let constant = RgbImage::from_pixel(9, 9, Rgb([10, 200, 30]));
    let one = RgbaImage::from_pixel(1, 1, Rgba([1, 2, 3, 4]));
    for file in [
        save("constant.bmp", constant.into()),
        save("one.png", one.into()),
    ] {
        let value = fig3(&file);
        for side in ["before", "after"] {
            for (name, figure) in value[side].as_object().unwrap() {
                assert!(figure.is_null(), "{file}: {side} {name}: {figure}");
            }
        }
        stdout(&visualiser(&["fig2", &file, "--out", &out]));
    }
    for (option, value, wanted) in [
        ("--kernel-size", "4", "odd"),
        ("--n-iter", "0", "from 1 to 100"),
        ("--n-iter", "18446744073709551615", "from 1 to 100"),
        ("--sampling-stride", "0", "from 1 to 64"),
        ("--eps", "NaN", "not a positive number"),
        ("--blur", "9", "from 0 to 8"),
        ("--max-side", "0", "at least 1"),
    ] {
        refusal(
            &visualiser(&["fig3", "--out", &out, option, value]),
            &[option, wanted],
        );
    }
    // What float32 cannot carry is said to be undefined, and not printed.
    let line = RgbImage::from_fn(1, 50, |_, y| {
        Rgb([y * 83, y * 31, y * y * 7].map(|v| v as u8))
    });
    let line = save("line.png", line.into());
    let tiny = [
        "fig3",
        &line,
        "--eps",
        "1e-20",
        "--n-iter",
        "30",
        "--kernel-size",
        "7",
    ];
    let tiny = stdout(&visualiser(
        &[&tiny[..], &["--out", &out, "--json"]].concat(),
    ));
    let tiny: serde_json::Value = serde_json::from_str(&tiny).unwrap();
    let notice = tiny["notice"].as_str().unwrap_or_default();
    assert!(
        notice.contains("larger eps") && tiny["after"]["hoyer"].is_null(),
        "{tiny}"
    );
    // A picture is not written over by what is made of it.
    let own = save(
        "a_input.png",
        RgbImage::from_fn(20, 30, |x, y| Rgb([ramp(x, y); 3])).into(),
    );
    let before = std::fs::read(&own).unwrap();
    let here = dir.path().to_string_lossy();
    refusal(
        &visualiser(&["fig3", &own, "--out", &here]),
        &["a_input.png", "another folder"],
    );
    assert_eq!(std::fs::read(&own).unwrap(), before);
}

#[test]
fn bad_pictures_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = path(&dir, "out");
    let write = |name: &str, bytes: &[u8]| {
        let (file, text) = path(&dir, name);
        std::fs::write(file, bytes).unwrap();
        text
    };
    let photograph = std::fs::read("tests/photographs/rocket.jpg").unwrap();
    let broken = write("broken.png", b"\x89PNG\r\n\x1a\n and no more");
    let cut = write("cut.jpg", &photograph[..photograph.len() / 2]);
    let empty = write("empty.png", b"");
    for figure in ["fig2", "fig3", "fig9"] {
        let draw = |file: &str| visualiser(&[figure, file, "--out", &out]);
        refusal(&draw(&broken), &["broken.png", "no picture"]);
        refusal(&draw(&cut), &["cut.jpg", "no picture"]);
        refusal(&draw(&empty), &["empty.png", "is empty"]);
        refusal(&draw("none.png"), &["none.png"]);
    }
    refusal(&visualiser(&["--window", &cut]), &["cut.jpg", "no picture"]);
    refusal(&visualiser(&["measure", out.as_str()]), &["out"]);
    let (folder, text) = path(&dir, "none");
    std::fs::create_dir(folder).unwrap();
    refusal(&visualiser(&["measure", &text]), &["none", "no pictures"]);
    let both = ["fig2", "tests/photographs", "--out", &out];
    refusal(&visualiser(&both), &["chelsea.jpg", "colour", "grey"]);
    assert!(!dir.path().join("out").exists());

    // Headers that claim anything, and pictures of nothing.
    let huge_bmp = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = DynamicImage::from(RgbImage::new(9, 7));
        image.write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
        let mut bytes = bytes.into_inner();
        for at in [18, 22] {
            bytes[at..at + 2].copy_from_slice(&60_000u16.to_le_bytes());
        }
        bytes
    };
    for (name, bytes, wanted) in [
        (
            "claims.ppm",
            b"P6\n90000 90000\n255\n".to_vec(),
            "90000 x 90000",
        ),
        ("claims.bmp", huge_bmp, "60000 x 60000"),
        ("nothing.ppm", b"P6\n5 0\n255\n".to_vec(), "5 x 0 pixels"),
        ("text.png", b"<svg></svg>".to_vec(), "PNG, JPEG, WebP"),
    ] {
        refusal(
            &visualiser(&["fig3", &write(name, &bytes), "--out", &out]),
            &[name, wanted],
        );
    }
    let folder = [
        "measure",
        &dir.path().to_string_lossy(),
        "--json",
        "--kernel-size",
        "3",
    ];
    assert!(!visualiser(&folder).status.success());

    // Too large for one buffer: said before anything is computed, with a size that fits.
    let (file, huge) = path(&dir, "huge.png");
    GrayImage::new(12_000, 9_000).save(file).unwrap();
    let wanted = ["12000 x 9000", "--max-side"];
    refusal(&visualiser(&["fig3", &huge, "--out", &out]), &wanted);
    let small = ["fig3", &huge, "--out", &out, "--max-side", "64"];
    stdout(&visualiser(&small));
    let (_, page) = path(&dir, "out/d_deconvolved_abs.png");
    assert_eq!(image::image_dimensions(page).unwrap(), (64, 48));
}

#[test]
fn figures_2_and_9_of_the_bundled_network_and_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let (out, text) = path(&dir, "out");
    let json = |args: &[&str]| -> serde_json::Value {
        let all = [args, &["--out", &text, "--json"]].concat();
        serde_json::from_str(&stdout(&visualiser(&all))).unwrap()
    };
    let has = |names: &[&str]| {
        for name in names {
            let picture = image::open(out.join(format!("{name}.png"))).unwrap();
            assert!(picture.width() >= 200, "{name}");
        }
    };
    let of_pixels = json(&["fig2"]);
    assert_eq!(of_pixels["features"], 27);
    assert!(of_pixels["max_correlation_before"].as_f64() > Some(0.9));
    assert!(of_pixels["max_correlation_after"].as_f64() < Some(0.3));
    has(&["cov_before", "cov_after", "kernels", "fig2"]);
    let of_a_layer = json(&["fig2", "--layer", "3"]);
    assert_eq!(of_a_layer["features"], 16 * 9);
    let colours = [
        "tests/photographs/chelsea.jpg",
        "tests/photographs/coffee.jpg",
    ];
    let of_two = json(&[&["fig2", "--kernel-size", "5"], &colours[..]].concat());
    assert_eq!(
        (&of_two["images"], &of_two["features"]),
        (&2.into(), &75.into())
    );

    // Two constant channels of a layer's input, far from 0.
    let red = RgbImage::from_fn(200, 150, |x, y| Rgb([(x * y % 251) as u8, 0, 0]));
    let (file, red_text) = path(&dir, "red.png");
    red.save(file).unwrap();
    let of_red = json(&["fig2", &red_text, "--layer", "1"]);
    assert!(of_red["notice"].is_null(), "{of_red}");
    assert!(of_red["identity_error"].as_f64() < Some(1.001), "{of_red}");

    let of_fifth = json(&["fig9"]);
    assert_eq!(of_fifth["channels"].as_array().unwrap().len(), 64);
    assert!(of_fifth["mean_hoyer"][1].as_f64() > of_fifth["mean_hoyer"][0].as_f64());
    has(&["a_features", "b_deconvolved_abs", "fig9"]);

    // A network trained on the spot, of another kind.
    let (_, run) = path(&dir, "run");
    stdout(&decorr(&[
        "train", "--model", "cnn", "--norm", "batch", "--steps", "3", "--out", &run,
    ]));
    let (_, checkpoint) = path(&dir, "run/model.safetensors");
    let small = json(&[
        "fig9",
        "--checkpoint",
        &run,
        "--layer",
        "2",
        "--max-side",
        "28",
    ]);
    assert_eq!(small["layer"], "conv2");

    let refused = |args: &[&str], wanted: &[&str]| {
        let all = [args, &["--out", &text]].concat();
        refusal(&visualiser(&all), wanted);
    };
    refused(
        &["fig9", "--layer", "99"],
        &["vgg11", "8 convolutions", "99"],
    );
    refused(
        &["fig9", "--checkpoint", "tests/photographs/rocket.jpg"],
        &["rocket.jpg", "damaged"],
    );
    refused(
        &[
            "fig9",
            "--checkpoint",
            &checkpoint,
            "--layer",
            "2",
            "--running",
        ],
        &["--running", "batch"],
    );
    refused(&["fig2", "--checkpoint", &checkpoint], &["--layer"]);
    refused(&["fig2", "--norm", "batch"], &["--norm", "--layer"]);
    refused(
        &["fig2", "--layer", "2", "--kernel-size", "5"],
        &["--kernel-size", "--layer"],
    );
    refused(&["fig9", "--norm", "none"], &["--norm", "leave"]);
    refused(
        &["fig9", "--max-side", "8", "--layer", "9"],
        &["8 convolutions"],
    );
}

#[test]
fn images_are_measured() {
    // One that cannot be read costs none of the others, and files that are not seen are not pictures.
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("a.png", &b"no picture"[..]),
        ("._b.png", b"\0"),
        ("c.txt", b"text"),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    std::fs::create_dir(dir.path().join("d.png")).unwrap();
    std::fs::copy("tests/photographs/rocket.jpg", dir.path().join("e.jpg")).unwrap();
    let folder = dir.path().to_string_lossy();
    let mixed = visualiser(&["measure", &folder, "--kernel-size", "3", "--json"]);
    refusal(&mixed, &["a.png", "no picture", "1 of 2 pictures"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&mixed.stdout).unwrap();
    assert_eq!((rows.len(), &rows[0]["image"]), (1, &"e.jpg".into()));

    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"p\xff.jpg"));
        std::fs::copy("tests/photographs/rocket.jpg", odd).unwrap();
        let folder = dir.path().to_string_lossy();
        let text = stdout(&visualiser(&[
            "measure",
            &folder,
            "--kernel-size",
            "3",
            "--json",
        ]));
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(rows[0]["image"], "p\u{fffd}.jpg");
    }

    let text = stdout(&visualiser(&["measure", "tests/photographs"]));
    assert_eq!(text.lines().count(), 1 + 9 * 2, "{text}");
    let text = stdout(&visualiser(&[
        "measure",
        "tests/photographs/rocket.jpg",
        "--kernel-size",
        "3",
        "--json",
    ]));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows[0]["image"], "rocket.jpg");
    assert!(rows[0]["after"]["hoyer"].as_f64() > rows[0]["before"]["hoyer"].as_f64());
}

/// The window itself is tried by `scripts/try-window`.
#[cfg(target_os = "linux")]
#[test]
fn a_window_without_a_display_says_so() {
    let mut command = visualiser_command(&["--window"]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command.env_remove("WAYLAND_SOCKET");
    refusal(&run(&mut command), &["no display", "fig3"]);
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

#[test]
fn a_bench_is_held_against_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let (file, before) = path(&dir, "before.json");
    let bench = ["bench", "matmul 144", "--rounds", "3"];
    let json = stdout(&decorr(&[&bench[..], &["--json"]].concat()));
    let mut report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let figures = report["figures"].as_array().unwrap();
    let names: Vec<_> = figures
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["multiply-add peak", "matmul 144^3"]);
    for figure in figures {
        let rounds: Vec<f64> = serde_json::from_value(figure["rounds_ms"].clone()).unwrap();
        let best = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!((rounds.len(), figure["ms"].as_f64()), (3, Some(best)));
    }

    // As if the product had been a hundred times as fast, beside a row that is no more.
    let (peak, mut product) = (figures[0].clone(), figures[1].clone());
    product["ms"] = (product["ms"].as_f64().unwrap() / 100.0).into();
    for ms in product["rounds_ms"].as_array_mut().unwrap() {
        *ms = (ms.as_f64().unwrap() / 100.0).into();
    }
    let mut gone = product.clone();
    gone["name"] = "gone".into();
    report["figures"] = vec![peak, product, gone].into();
    report["adapter"] = "another card".into();
    std::fs::write(&file, report.to_string()).unwrap();
    let against = [&bench[..], &["--baseline", &before]].concat();
    let table = stdout(&decorr(&against));
    for part in [
        "slower",
        "another adapter: another card",
        "only before: gone",
    ] {
        assert!(table.contains(part), "no {part:?} in {table}");
    }
    let strict = decorr(&[&against[..], &["--fail-if-slower", "--json"]].concat());
    refusal(&strict, &["slower than the baseline", "matmul 144^3"]);
    let json: serde_json::Value = serde_json::from_slice(&strict.stdout).unwrap();
    let changes = json["comparison"]["changes"].as_array().unwrap();
    let product = changes
        .iter()
        .find(|c| c["name"] == "matmul 144^3")
        .unwrap();
    assert_eq!(product["verdict"], "slower");
    assert_eq!(json["comparison"]["only_before"][0], "gone");

    let (broken, broken_text) = path(&dir, "broken.json");
    let with = |file: &str| decorr(&[&bench[..], &["--baseline", file]].concat());
    refusal(&with(&broken_text), &["broken.json"]);
    std::fs::write(&broken, "{\"adapter\":").unwrap();
    refusal(&with(&broken_text), &["broken.json", "decorr bench --json"]);
    refusal(&decorr(&["bench", "--fail-if-slower"]), &["--baseline"]);
    refusal(&decorr(&["bench", "no such"]), &["no such", "matmul 144^3"]);
}

#[test]
fn a_quick_bench_says_what_the_adapter_is_good_for() {
    // Too short for most of it: what does not fit is left out by name.
    let output = decorr(&["bench", "--quick=3", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let found = |name: &str| figures.iter().find(|f| f["name"] == name);
    for name in ["multiply-add peak", "memory stream", "matmul 512^3"] {
        assert!(found(name).unwrap()["ms"].as_f64() > Some(0.0), "{name}");
    }
    let steps = figures
        .iter()
        .filter(|f| f["name"].as_str().unwrap().starts_with("cnn"));
    for step in steps {
        let (ms, images) = (
            step["ms"].as_f64().unwrap(),
            step["images_per_s"].as_f64().unwrap(),
        );
        let batch = images * ms / 1e3;
        let at = step["name"].as_str().unwrap().split(' ').nth(2).unwrap();
        let wanted = at.parse().unwrap_or(128.0);
        assert!((batch - wanted).abs() < 1e-6 * wanted, "{step}");
    }
    let runs = report["summary"]["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 6);
    for run in runs {
        // CIFAR-10's 390 steps an epoch, ImageNet's 5004.
        let steps = if run["experiment"] == "cifar10-vgg11" {
            20.0 * 390.0
        } else {
            90.0 * 5004.0
        };
        let hours = run["ms_per_step"].as_f64().unwrap() * steps / 3.6e6;
        assert!(
            (run["hours"].as_f64().unwrap() / hours - 1.0).abs() < 1e-9,
            "{run}"
        );
    }
    let words = report["summary"]["words"].to_string();
    // Flags, as they are typed, not the names of the library.
    assert!(!words.contains('`'), "{words}");
    for part in ["VGG-11 on CIFAR-10", "Measured", "good for"] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    refusal(
        &decorr(&["bench", "--quick", "--network", "cnn"]),
        &["--network"],
    );
    refusal(&decorr(&["bench", "--quick=0"]), &["--quick"]);
}

#[test]
fn a_step_is_traced_for_perfetto() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = path(&dir, "traces/mlp.json");
    let step = [
        "--model",
        "mlp",
        "--norm",
        "deconv",
        "--block",
        "16",
        "--batch-size",
        "24",
    ];
    let text = stdout(&decorr(&[&["profile", "--out", &out], &step[..]].concat()));
    for part in ["time by op", "time by layer", "matmul", "fc1", "mlp.json"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let json = std::fs::read_to_string(file).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(trace["otherData"]["model"], "mlp");
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |kind: &str| {
        events
            .iter()
            .filter(|e| e["ph"] == kind)
            .collect::<Vec<_>>()
    };
    let (complete, metadata) = (of("X"), of("M"));
    assert_eq!(complete.len() + metadata.len(), events.len());

    // As many as there are dispatches.
    let described = stdout(&decorr(&[&["describe"], &step[..]].concat()));
    let counted = format!("{} dispatches", complete.len());
    assert!(described.contains(&counted), "{counted}: {described}");

    let number = |v: &serde_json::Value| v.as_f64().unwrap_or_else(|| panic!("{v}"));
    // Shares are of the peaks that are printed.
    let printed = |before: &str| -> f64 {
        let rest = text.split(before).nth(1).unwrap().trim_start();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    // And these are what the bench measures; its noise is far below an operation for many bytes.
    let bench = stdout(&decorr(&[
        "bench",
        "memory stream",
        "--rounds",
        "2",
        "--json",
    ]));
    let bench: serde_json::Value = serde_json::from_str(&bench).unwrap();
    let figures = bench["figures"].as_array().unwrap();
    for (name, unit, printed) in [
        ("memory stream", "gb_per_s", printed("memory stream")),
        ("multiply-add peak", "gflops", printed("multiply-add peak")),
    ] {
        let figure = figures.iter().find(|f| f["name"] == name).unwrap();
        let ratio = printed / number(&figure[unit]);
        assert!(
            (0.25..4.0).contains(&ratio),
            "{name}: {printed}, by the bench {figure}"
        );
    }
    let largest = |name: &str| {
        let of = |e: &&serde_json::Value| number(&e["args"][name]);
        let timed = complete
            .iter()
            .copied()
            .filter(|e| number(&e["args"]["microseconds"]) > 0.0);
        timed.max_by(|a, b| of(a).total_cmp(&of(b))).unwrap()
    };
    for (rate, share, peak) in [
        ("gflops", "share_of_peak", "multiply-add peak"),
        ("gb_per_s", "share_of_stream", "memory stream"),
    ] {
        let args = &largest(rate)["args"];
        let expected = number(&args[rate]) / printed(peak);
        let actual = number(&args[share]);
        assert!(
            (actual / expected - 1.0).abs() < 0.05,
            "{share} {actual}, not {expected}"
        );
    }
    let mut ends = std::collections::HashMap::new();
    let mut phases = std::collections::BTreeSet::new();
    for event in &complete {
        let (from, length) = (number(&event["ts"]), number(&event["dur"]));
        let track = (event["pid"].as_u64(), event["tid"].as_u64());
        let end = ends.entry(track).or_insert(0.0);
        assert!(length >= 0.0 && from >= *end - 1e-6, "{event}");
        *end = from + length;
        let args = &event["args"];
        for name in ["op", "layer", "phase", "tensor", "kernel", "shape"] {
            assert!(
                args[name].as_str().is_some_and(|s| !s.is_empty()),
                "{name}: {event}"
            );
        }
        phases.insert(args["phase"].as_str().unwrap());
        let (micros, flops) = (number(&args["microseconds"]), number(&args["flops"]));
        assert!(args["bytes"].is_u64(), "{event}");
        if micros > 0.0 {
            let gflops = number(&args["gflops"]);
            assert!(
                (gflops - flops / micros / 1e3).abs() <= 1e-6 * gflops,
                "{event}"
            );
            for name in ["gb_per_s", "share_of_peak", "share_of_stream"] {
                assert!(number(&args[name]) >= 0.0, "{name}: {event}");
            }
        }
    }
    assert_eq!(
        phases.into_iter().collect::<Vec<_>>(),
        ["backward", "forward", "update"]
    );
    // Each track has a name.
    for (_, tid) in ends.keys() {
        let named =
            |m: &&&serde_json::Value| m["name"] == "thread_name" && m["tid"].as_u64() == *tid;
        assert_eq!(metadata.iter().filter(named).count(), 1, "{tid:?}");
    }

    refusal(
        &decorr(&[
            "profile",
            "--model",
            "linear",
            "--out",
            dir.path().to_str().unwrap(),
        ]),
        &["--out", "is a folder"],
    );
    let (blocked, _) = path(&dir, "blocked");
    std::fs::write(blocked, b"").unwrap();
    let (_, below) = path(&dir, "blocked/trace.json");
    refusal(
        &decorr(&["profile", "--model", "linear", "--out", &below]),
        &["blocked"],
    );
}

/// Options of the figures that change numbers, against each other and against the library.
#[test]
fn options_of_figures_change_what_they_print() {
    let dir = tempfile::tempdir().unwrap();
    let (_, out) = path(&dir, "out");
    let photograph = "tests/photographs/coffee.jpg";
    let json = |args: &[&str]| -> serde_json::Value {
        let text = stdout(&visualiser(args));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    };
    let base = ["measure", photograph, "--json", "--kernel-size", "3"];
    let with = |more: &[&str]| json(&[&base[..], more].concat())[0].clone();
    let plain = with(&[]);
    for more in [
        &["--max-side", "64"][..],
        &["--block", "1"],
        &["--eps", "0.01"],
        &["--n-iter", "2"],
        &["--sampling-stride", "4"],
    ] {
        let other = with(more);
        assert_ne!(other["after"], plain["after"], "measure {more:?}");
        // What is before deconvolution is of the picture alone.
        let same = other["before"]["hoyer"] == plain["before"]["hoyer"];
        assert_eq!(same, more[0] != "--max-side", "measure {more:?}");
    }
    let scaled = {
        let picture = decorr::figures::Picture::read(Path::new(photograph)).unwrap();
        let (_, png) = path(&dir, "small.png");
        std::fs::write(&png, picture.scaled_down(64).unwrap().to_png().unwrap()).unwrap();
        json(&["measure", &png, "--json", "--kernel-size", "3"])[0].clone()
    };
    let [of_file, of_option] =
        [&scaled, &with(&["--max-side", "64"])].map(|row| row["before"]["hoyer"].as_f64().unwrap());
    assert!((of_file - of_option).abs() < 2e-3, "{of_file} {of_option}");
    let fig2 =
        |more: &[&str]| json(&[&["fig2", photograph, "--out", &out, "--json"], more].concat());
    let plain = fig2(&["--kernel-size", "3"]);
    for more in [
        &["--max-side", "64"][..],
        &["--block", "1"],
        &["--eps", "0.01"],
    ] {
        assert_ne!(
            fig2(&[&["--kernel-size", "3"], more].concat()),
            plain,
            "fig2 {more:?}"
        );
    }
    // Of a layer of the bundled network.
    for command in [
        &["fig2", photograph, "--layer", "2"][..],
        &["fig9", photograph, "--layer", "2"],
    ] {
        let of = |side: &str, more: &[&str]| {
            json(
                &[
                    command,
                    &["--max-side", side, "--out", &out, "--json"],
                    more,
                ]
                .concat(),
            )
        };
        let plain = of("48", &[]);
        assert_ne!(of("32", &[]), plain, "{command:?} --max-side");
        for more in [
            &["--block", "8"][..],
            &["--eps", "0.01"],
            &["--n-iter", "3"],
            &["--sampling-stride", "2"],
        ] {
            assert_ne!(of("48", more), plain, "{command:?} {more:?}");
        }
    }
    let other = json(&[
        "fig9",
        photograph,
        "--max-side",
        "48",
        "--layer",
        "3",
        "--out",
        &out,
        "--json",
    ]);
    assert_eq!(other["layer"], "features.6");
}

/// A folder as `decorr train` writes it: losses of the steps 1, 2, ..., and a test at the end.
fn write_run(dir: &Path, config: &str, losses: &[&str]) -> String {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("config.toml"), config).unwrap();
    let line = |split: &str, step: usize, loss: &str| {
        let rest = format!("\"epoch\":0,\"loss\":{loss},\"top1\":0.5,\"seconds\":{step}.5");
        format!("{{\"split\":\"{split}\",\"step\":{step},{rest}}}\n")
    };
    let train = losses
        .iter()
        .zip(1..)
        .map(|(loss, step)| line("train", step, loss));
    let test = line("test", losses.len(), losses.last().unwrap());
    let text: String = train.chain([test]).collect();
    std::fs::write(dir.join("metrics.jsonl"), text).unwrap();
    dir.to_str().unwrap().into()
}

#[test]
fn compare_makes_what_a_report_needs() {
    let dir = tempfile::tempdir().unwrap();
    let config = |norm: &str, seed: u32| {
        format!("data = \"mnist\"\nnorm = \"{norm}\"\nloss = \"ce\"\nlr = 0.1\nseed = {seed}\n")
    };
    let run = |name: &str, config: &str, losses: &[&str]| {
        write_run(&dir.path().join(name), config, losses)
    };
    let a = run("deconv-s1", &config("deconv", 1), &["2.0", "1.0", "0.5"]);
    let b = run("deconv-s2", &config("deconv", 2), &["2.0", "1.5", "1.0"]);
    let wild = run("wild", &config("none", 1), &["2.0", "50.0", "123456789.0"]);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let (svg, svg_text) = path(&dir, "all.svg");
    let (csv, csv_text) = path(&dir, "all.csv");
    let options = [
        "--group-seeds",
        "--smooth",
        "1",
        "--out",
        &svg_text,
        "--csv",
        &csv_text,
    ];
    let output = decorr(&[&["compare", &a, &b, &wild][..], &options].concat());
    let table = stdout(&output);
    let lines: Vec<&str> = table.lines().collect();
    let words = |line: &str| {
        line.split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(lines[1])[..8],
        ["deconv", "2", "deconv", "0.1", "3", "0.7500", "±", "0.3536"]
    );
    assert_eq!(
        words(lines[2])[..6],
        ["wild", "1", "none", "0.1", "3", "1.23e8"]
    );
    assert!(table.contains("mean of the last 1 logged steps"), "{table}");
    assert!(
        table.contains("mean ± standard deviation over n runs"),
        "{table}"
    );
    let notices = said(&output);
    assert!(
        notices.contains("wild leaves the axis of the loss"),
        "{notices}"
    );
    assert!(notices.contains("at step 2"), "{notices}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(
        picture.starts_with("<svg") && picture.contains("deconv (mean of 2, band: min to max)")
    );
    let text = std::fs::read_to_string(csv).unwrap();
    assert_eq!(text.lines().count(), 1 + 3 * 4);
    assert_eq!(text.lines().nth(1), Some("deconv-s1,train,1,0,1.5,2,0.5,,"));

    // Each choice draws another picture.
    let mut pictures = std::collections::BTreeSet::from([picture]);
    for choice in [
        &["--y", "loss"][..],
        &["--y", "error"],
        &["--y", "top1"],
        &["--y", "loss", "--log"],
        &["--y", "loss", "--x", "seconds"],
        &["--y", "loss", "--x", "epoch"],
        &["--y", "loss", "--smooth", "2"],
        &["--y", "loss", "--names", "one,two"],
        &["--y", "loss", "--title", "a title"],
    ] {
        let output = decorr(&[&["compare", &a, &b, "--out", &svg_text][..], choice].concat());
        stdout(&output);
        let is_about_epochs = said(&output).contains("no epoch is over");
        assert_eq!(is_about_epochs, choice.contains(&"epoch"), "{choice:?}");
        let is_new = pictures.insert(std::fs::read_to_string(&svg).unwrap());
        assert!(is_new, "{choice:?}");
    }

    let counted = |option: &[&str]| {
        let of = [&["compare", &a, &b, "--names", "1,2,3"][..], option].concat();
        said(&decorr(&of))
    };
    let (runs, groups) = (counted(&[]), counted(&["--group-seeds"]));
    assert!(runs.contains("2 runs"), "{runs}");
    assert!(groups.contains("1 groups"), "{groups}");
    let markdown = stdout(&decorr(&[
        "compare",
        &a,
        &b,
        "--markdown",
        "--names",
        "x,y",
    ]));
    let lines: Vec<&str> = markdown.lines().collect();
    assert!(
        lines[1].starts_with("|---|") && lines[3].starts_with("| y | deconv | 0.1 |"),
        "{markdown}"
    );
    assert_eq!(lines[4], "");

    let other = run("other", "data = \"cifar10\"\nloss = \"l2\"\n", &["0.5"]);
    let notices = said(&decorr(&["compare", &a, &other]));
    assert!(
        notices.contains("different losses") && notices.contains("different data sets"),
        "{notices}"
    );
}

/// Runs that differ in the option and their seed are one line; its place is the option's value, its height the last test.
#[test]
fn compare_draws_over_an_option() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, norm: &str, decay: &str, seed: u32, losses: &[&str]| {
        let config = format!("norm = \"{norm}\"\nweight-decay = {decay}\nseed = {seed}\n");
        write_run(&dir.path().join(name), &config, losses)
    };
    let runs = [
        run("a", "batch", "0.0001", 1, &["2.0", "1.0"]),
        run("b", "batch", "0.001", 1, &["2.0", "1.0"]),
        run("c", "batch", "0.001", 2, &["2.0", "1.0"]),
        run("d", "deconv", "0.0001", 1, &["2.0", "1.0"]),
        run("e", "deconv", "0.001", 1, &["2.0", "1.0"]),
    ];
    let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
    let (svg, svg_text) = path(&dir, "over.svg");
    let draw = |options: &[&str]| {
        let output = decorr(&[&["compare"], &runs[..], &["--out", &svg_text], options].concat());
        stdout(&output);
        std::fs::read_to_string(&svg).unwrap()
    };
    let text = draw(&["--x", "weight-decay"]);
    for word in [
        "norm batch (mean of 2, band: min to max)",
        "norm deconv",
        "weight-decay",
        "top-1 accuracy",
        "1e-4",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let named = draw(&["--x", "weight_decay", "--y", "loss", "--names", "BN,DC"]);
    assert!(
        named.contains(">\nBN (mean of 2")
            && named.contains("loss")
            && !named.contains("norm batch"),
        "{named}"
    );
    // Each option of the drawing changes it, over steps as over an option.
    for x in ["step", "weight-decay"] {
        let plain = draw(&["--x", x, "--y", "loss"]);
        for option in [
            &["--log"][..],
            &["--title", "Of all"],
            &["--names", "p,q,r,s,t"],
            &["--y", "error"],
        ] {
            let names = ["--names", "BN,DC"];
            let option = if x != "step" && option[0] == names[0] {
                &names
            } else {
                option
            };
            let rest = if option[0] == "--y" {
                &[][..]
            } else {
                &["--y", "loss"]
            };
            let drawn = draw(&[&["--x", x], rest, option].concat());
            assert_ne!(drawn, plain, "--x {x} {option:?}");
            assert!(
                option[0] != "--title" || drawn.contains("Of all"),
                "--x {x}"
            );
        }
    }
    let compare = |options: &[&str]| {
        decorr(&[&["compare"], &runs[..], &["--out", &svg_text], options].concat())
    };
    refusal(
        &compare(&["--x", "norm"]),
        &["--x norm", "is batch in a", "no number"],
    );
    refusal(
        &compare(&["--x", "weight"]),
        &["step, epoch or seconds", "option of"],
    );
    refusal(
        &compare(&["--x", "weight-decay", "--names", "one"]),
        &["--names has 1 for 2 lines"],
    );
}

#[test]
fn compare_says_what_is_wrong_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| write_run(&dir.path().join(name), "", &["2.0", "1.0", "0.5"]);
    let (a, b) = (run("a"), run("b"));
    let log = dir.path().join("a/metrics.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();

    // A line that is not whole is left out at the end, and named elsewhere.
    std::fs::write(&log, &text[..text.len() - 10]).unwrap();
    let output = stdout(&decorr(&["compare", &a, "--json"]));
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert!(
        value[0]["test_loss"].is_null() && value[0]["steps"] == 3,
        "{value}"
    );
    std::fs::write(&log, text.replacen("\"loss\":1.0", "\"lo", 1)).unwrap();
    refusal(&decorr(&["compare", &a]), &["metrics.jsonl", "line 2"]);
    std::fs::write(&log, text).unwrap();

    let empty = dir.path().to_str().unwrap();
    refusal(
        &decorr(&["compare", empty]),
        &["is no run", "metrics.jsonl", "decorr train"],
    );
    let (_, missing) = path(&dir, "missing");
    refusal(&decorr(&["compare", &missing]), &["missing"]);
    refusal(
        &decorr(&["compare", &a, &b, "--names", "one"]),
        &["--names has 1 for 2 runs"],
    );
    for (option, name) in [("--out", "c.pdf"), ("--csv", "c.txt")] {
        let (file, name) = path(&dir, name);
        refusal(
            &decorr(&["compare", &a, option, &name]),
            &["let it end with"],
        );
        assert!(!file.exists());
    }
    std::fs::write(dir.path().join("b/config.toml"), "lr = ").unwrap();
    refusal(&decorr(&["compare", &b]), &["config.toml"]);
    std::fs::write(dir.path().join("b/config.toml"), "").unwrap();
    std::fs::write(dir.path().join("b/run.json"), "{").unwrap();
    refusal(&decorr(&["compare", &b]), &["run.json"]);
}

/// Runs are made once, those that diverge are told of, and a folder of other options is refused.
#[test]
fn a_sweep_runs_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("sweep");
    let sweep = |more: &[&str], steps: &str| {
        let mut args = vec!["sweep", "--vary", "lr=0.001,1e6", "--vary", "seed=1,2"];
        args.extend(more);
        args.extend(["--out", out.to_str().unwrap(), "--", "--model", "linear"]);
        args.extend(["--norm", "none", "--loss", "l2", "--train-images", "64"]);
        args.extend(["--test-images", "16", "--batch-size", "16", "--epochs", "8"]);
        args.extend(["--schedule", "cosine", "--stop-after", steps]);
        decorr(&args)
    };
    let said = stdout(&sweep(&[], "20"));
    for line in [
        "lr-0.001_seed-1: 20 steps, test loss ",
        "lr-1e6_seed-2: diverged: the loss of step ",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let table = std::fs::read_to_string(out.join("sweep.csv")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert!(
        rows[2].starts_with("lr-0.001_seed-2,0.001,2,done,20,"),
        "{table}"
    );
    assert!(
        rows[3].starts_with("lr-1e6_seed-1,1e6,1,diverged,"),
        "{table}"
    );

    // Again: nothing is run but what is missing.
    let model = |run: &str| std::fs::read(out.join(run).join("model.safetensors")).unwrap();
    let written = |run: &str| {
        let file = std::fs::metadata(out.join(run).join("run.json")).unwrap();
        file.modified().unwrap()
    };
    let before = (
        model("lr-0.001_seed-1"),
        written("lr-0.001_seed-2"),
        written("lr-1e6_seed-1"),
    );
    std::fs::remove_dir_all(out.join("lr-0.001_seed-1")).unwrap();
    stdout(&sweep(&[], "20"));
    assert_eq!(
        std::fs::read_to_string(out.join("sweep.csv"))
            .unwrap()
            .lines()
            .count(),
        5
    );
    let after = (
        model("lr-0.001_seed-1"),
        written("lr-0.001_seed-2"),
        written("lr-1e6_seed-1"),
    );
    assert!(before == after, "a run was repeated, or has other bits");

    refusal(
        &sweep(&[], "19"),
        &["lr-0.001_seed-1", "differs in stop-after"],
    );
    refusal(&sweep(&["--vary", "nrom=batch"], "20"), &["nrom"]);

    // Interrupted in the first run.
    let (open, open_text) = path(&dir, "open");
    let long = ["sweep", "--vary", "seed=1,2", "--out", &open_text, "--"];
    let options = "--model linear --norm none --train-images 64 --test-images 16 --batch-size 16 --steps 1000000";
    let options: Vec<&str> = options.split(' ').collect();
    let child = Command::new(env!("CARGO_BIN_EXE_decorr"))
        .args([&long[..], &options].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = open.join("seed-1/metrics.jsonl");
    support::wait_until("some steps are logged", || {
        std::fs::metadata(&log).is_ok_and(|m| m.len() >= 500)
    });
    support::signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    stdout(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    let wanted = "2 of 2 runs are not finished: give the same command again to go on";
    assert!(said.contains(wanted), "{said}");
    let table = std::fs::read_to_string(open.join("sweep.csv")).unwrap();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert!(
        rows[0].starts_with("seed-1,1,open,") && rows[1].starts_with("seed-2,2,open,0,,,,"),
        "{table}"
    );
    let twice = decorr(&["sweep", "--vary", "lr=1", "--", "--out", "there"]);
    refusal(&twice, &["--out"]);
    refusal(&decorr(&["sweep", "--vary", "lr"]), &["NAME=VALUE,VALUE"]);
}
