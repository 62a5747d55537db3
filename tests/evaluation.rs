//! What an evaluation says of written files, against float64: normalised, in order, not changed at random, by the number of
//! images.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use decorr::train::{
    LossName, Norm, Saved, Start, TrainConfig, TrainOptions, evaluate_checkpoint, train,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use support::pictures::{CIFAR_LEN, cifar_image, cifar_logits, save_plain};

fn label(i: usize) -> u8 {
    [3, 1, 4, 1, 5, 9, 2][i]
}

fn weights() -> (Vec<f32>, Vec<f32>) {
    let value = |i: usize| ((i * 2654435761) % 1000) as f32 / 1000.0 - 0.5;
    let weight = (0..10 * CIFAR_LEN).map(|i| value(i) * 0.01).collect();
    let bias = (0..10).map(|i| value(i + 77) * 0.1).collect();
    (weight, bias)
}

fn write_cifar(dir: &Path) {
    let record = |i: usize| [vec![label(i)], cifar_image(i)].concat();
    let test: Vec<u8> = (0..7).flat_map(record).collect();
    fs::write(dir.join("test_batch.bin"), test).unwrap();
    for file in 1..=5 {
        let train: Vec<u8> = (0..2)
            .flat_map(|i| [vec![0], cifar_image(50 * file + i)].concat())
            .collect();
        fs::write(dir.join(format!("data_batch_{file}.bin")), train).unwrap();
    }
}

fn write_weights(path: &Path) {
    let (weight, bias) = weights();
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let (weight, bias) = (bytes(&weight), bytes(&bias));
    let tensors = HashMap::from([
        (
            "fc.weight",
            TensorView::new(Dtype::F32, vec![10, CIFAR_LEN], &weight).unwrap(),
        ),
        (
            "fc.bias",
            TensorView::new(Dtype::F32, vec![10], &bias).unwrap(),
        ),
    ]);
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// Logits of image i.
fn logits(i: usize) -> Vec<f64> {
    let (weight, bias) = weights();
    cifar_logits(&cifar_image(i), &weight, &bias)
}

/// Cross-entropy, and at which place of the ordered logits the label is, of image i.
fn expected(i: usize) -> (f64, usize) {
    let logits = logits(i);
    let own = logits[usize::from(label(i))];
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    let place = logits.iter().filter(|l| **l > own).count();
    (sum.ln() + most - own, place)
}

/// The mean over the images of a loss that is summed over classes, `of` a logit and its target.
fn expected_sum(of: fn(f64, f64) -> f64) -> f64 {
    let of_image = |i: usize| -> f64 {
        let target = |class: usize| f64::from(u8::from(class == usize::from(label(i))));
        let logits = logits(i).into_iter().enumerate();
        logits.map(|(class, z)| of(z, target(class))).sum()
    };
    (0..7).map(of_image).sum::<f64>() / 7.0
}

#[test]
fn loss_and_top1_of_written_images_in_float64() {
    let dir = tempfile::tempdir().unwrap();
    write_cifar(dir.path());
    let checkpoint = dir.path().join("w.safetensors");
    write_weights(&checkpoint);
    let evaluate = |change: fn(&mut TrainOptions)| {
        let mut options = TrainOptions {
            model: Some("linear".into()),
            norm: Some(Norm::None),
            data: Some("cifar10".into()),
            data_dir: Some(dir.path().to_path_buf()),
            batch_size: Some(4),
            ..TrainOptions::default()
        };
        change(&mut options);
        evaluate_checkpoint(&support::gpu(), &checkpoint, options, |_| ()).unwrap()
    };
    let all: Vec<(f64, usize)> = (0..7).map(expected).collect();
    let loss = all.iter().map(|(loss, _)| loss).sum::<f64>() / 7.0;
    let within =
        |places: usize| all.iter().filter(|(_, place)| *place < places).count() as f64 / 7.0;
    // What could be mistaken for it differs.
    assert!(within(1) > 0.0 && within(1) < within(5), "{all:?}");
    let result = evaluate(|_| ());
    assert_eq!(result.images, 7);
    assert!(
        (result.loss - loss).abs() < 1e-5 * loss,
        "{result:?}, not {loss}"
    );
    assert_eq!(result.top1, within(1));
    // Not by the size of the batch, and not by threads.
    let whole = evaluate(|o| o.batch_size = Some(7));
    assert!((whole.loss - loss).abs() < 1e-5 * loss && whole.top1 == within(1));
    let some = evaluate(|o| o.test_images = Some(3));
    assert_eq!(some.images, 3);
    // Losses that are not the training's. Of these the row that fills up the last batch would not be 0.
    let l2 = evaluate(|o| o.loss = Some(LossName::L2));
    let wanted = expected_sum(|z, t| 0.5 * (z - t) * (z - t));
    assert!((l2.loss - wanted).abs() < 1e-5 * wanted, "{l2:?} {wanted}");
    let bce = evaluate(|o| o.loss = Some(LossName::Bce));
    let wanted = expected_sum(|z, t| z.max(0.0) - z * t + (-z.abs()).exp().ln_1p());
    assert!(
        (bce.loss - wanted).abs() < 1e-5 * wanted,
        "{bce:?} {wanted}"
    );
}

#[test]
fn parts_of_a_set_are_as_large_as_they_are_asked_to_be() {
    let dir = tempfile::tempdir().unwrap();
    write_cifar(dir.path());
    let options = TrainOptions {
        data: Some("cifar10".into()),
        data_dir: Some(dir.path().to_path_buf()),
        train_images: Some(5),
        test_images: Some(3),
        ..TrainOptions::default()
    };
    let set = TrainConfig::resolve(options).unwrap().open_data().unwrap();
    assert_eq!((set.train.len(), set.test.len()), (5, 3));
}

#[test]
fn a_folder_may_have_its_test_pictures_only() {
    let dir = tempfile::tempdir().unwrap();
    for (class, shade) in [("cat", 20), ("dog", 200)] {
        let folder = dir.path().join("pictures/val").join(class);
        save_plain(&folder.join("0.png"), [shade, 10, 250]);
    }
    let weight = vec![0; 4 * 2 * 3 * 64];
    let bias: Vec<u8> = [1.0_f32, 0.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let tensors = HashMap::from([
        (
            "fc.weight",
            TensorView::new(Dtype::F32, vec![2, 192], &weight).unwrap(),
        ),
        (
            "fc.bias",
            TensorView::new(Dtype::F32, vec![2], &bias).unwrap(),
        ),
    ]);
    let checkpoint = dir.path().join("w.safetensors");
    fs::write(&checkpoint, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let options = TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        data: Some("folder".into()),
        data_dir: Some(dir.path().join("pictures")),
        image_size: Some(8),
        ..TrainOptions::default()
    };
    let result = evaluate_checkpoint(&support::gpu(), &checkpoint, options, |_| ()).unwrap();
    // The bias alone: the first class always.
    let cross_entropy = |own: f64| (1.0_f64.exp() + 1.0).ln() - own;
    let loss = (cross_entropy(1.0) + cross_entropy(0.0)) / 2.0;
    assert_eq!((result.images, result.top1), (2, 0.5));
    assert!((result.loss - loss).abs() < 1e-6, "{result:?}, not {loss}");
}

/// Folders of one picture each.
fn folder(root: &Path, names: &[&str]) {
    for (split, name) in names
        .iter()
        .flat_map(|name| [("train", name), ("val", name)])
    {
        let mut colour = [0; 3];
        colour[usize::from(name.as_bytes()[0] % 3)] = 255;
        save_plain(&root.join(split).join(name).join("0.png"), colour);
    }
}

/// Classes have the numbers that they had in training, whichever of them are there.
#[test]
fn classes_are_known_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    folder(&at("all"), &["ant", "bee", "cat"]);
    folder(&at("one"), &["cat"]);
    fs::remove_dir_all(at("one/train")).unwrap();
    folder(&at("other"), &["bee", "cat", "dog"]);
    folder(&at("french"), &["abeille", "chat", "fourmi"]);
    let options = |data: &str| TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        data: Some("folder".into()),
        data_dir: Some(at(data)),
        image_size: Some(8),
        batch_size: Some(3),
        steps: Some(20),
        lr: Some(0.01),
        out: Some(at("run")),
        ..TrainOptions::default()
    };
    let stop = AtomicBool::new(false);
    let config = TrainConfig::resolve(options("all")).unwrap();
    let run = train(&support::gpu(), &config, Start::New, &stop, |_| ()).unwrap();
    let eval = |data: &str| {
        let mut said = Vec::new();
        let options = TrainOptions {
            data: Some("folder".into()),
            data_dir: Some(at(data)),
            ..TrainOptions::default()
        };
        let tell = |text: &str| said.push(text.to_string());
        let result = evaluate_checkpoint(&support::gpu(), &run.checkpoint, options, tell);
        result.map(|result| (result, said.join("\n")))
    };
    let (all, said) = eval("all").unwrap();
    assert!(all.top1 == 1.0 && said.is_empty(), "{all:?} {said}");
    let (one, said) = eval("one").unwrap();
    assert!(
        (one.images, one.top1) == (1, 1.0) && said.is_empty(),
        "{one:?} {said}"
    );
    let text = eval("other").unwrap_err().to_string();
    assert!(
        text.contains("(bee, cat, dog)") && text.contains("(ant, bee, cat)"),
        "{text}"
    );
    let (_, said) = eval("french").unwrap();
    assert!(said.contains("taken in order: abeille is ant"), "{said}");

    let longer = TrainOptions {
        steps: Some(25),
        ..options("other")
    };
    let config = TrainConfig::resolve(longer).unwrap();
    let saved = Box::new(Saved::latest(&at("run")).unwrap());
    let resumed = train(
        &support::gpu(),
        &config,
        Start::Resume(saved),
        &stop,
        |_| (),
    );
    let text = resumed.unwrap_err().to_string();
    assert!(text.contains("the network was trained on 3"), "{text}");
}

/// `decorr eval` with each of its options. One that is not in the table fails.
#[test]
fn every_option_of_eval_does_what_it_says() {
    use std::collections::BTreeSet;
    use std::process::{Command, Output};

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str| at(name).to_string_lossy().into_owned();
    folder(&at("all"), &["ant", "bee", "cat"]);
    folder(&at("broken"), &["ant", "bee", "cat"]);
    fs::write(at("broken/val/ant/0.png"), b"no picture").unwrap();
    folder(&at("two"), &["ant", "bee"]);
    let options = TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        data: Some("folder".into()),
        data_dir: Some(at("all")),
        image_size: Some(8),
        batch_size: Some(3),
        steps: Some(2),
        lr: Some(1e-3),
        out: Some(at("run")),
        ..TrainOptions::default()
    };
    let stop = AtomicBool::new(false);
    let config = TrainConfig::resolve(options).unwrap();
    train(&support::gpu(), &config, Start::New, &stop, |_| ()).unwrap();
    // The same weights as another program would hand them over.
    let checkpoint = text("run/model.safetensors");
    let (tensors, _) = decorr::train::checkpoint::load(Path::new(&checkpoint)).unwrap();
    let bare = text("bare.safetensors");
    decorr::train::checkpoint::save(Path::new(&bare), &tensors, &Default::default()).unwrap();

    let decorr = |args: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_decorr"))
            .arg("eval")
            .args(args)
            .output()
            .unwrap()
    };
    let json = |args: &[&str]| -> serde_json::Value {
        let output = decorr(&[args, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let refusal = |args: &[&str]| -> String {
        let output = decorr(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let own = ["--checkpoint", &checkpoint];
    let with = |more: &[&str]| json(&[&own[..], more].concat());
    let plain = with(&[]);
    assert_eq!(plain["images"], 3);

    let data = ["--data", "folder", "--data-dir"];
    let (all, broken, two) = (text("all"), text("broken"), text("two"));
    let other = [
        "--checkpoint",
        &bare,
        "--norm",
        "none",
        "--image-size",
        "8",
        data[0],
        data[1],
        data[2],
        &all,
    ];
    let mut seen = BTreeSet::from(["checkpoint", "json", "adapter", "backend", "help"]);
    let mut row = |option: &'static str, holds: bool| {
        seen.insert(option);
        assert!(holds, "{option}");
    };
    row(
        "model",
        json(&[&other[..], &["--model", "linear"]].concat()) == plain,
    );
    row(
        "norm",
        refusal(&[&own[..], &["--norm", "batch"]].concat()).contains("leave --norm out"),
    );
    row(
        "form",
        refusal(&[&other[..], &["--model", "linear", "--form", "cifar"]].concat())
            .contains("--form"),
    );
    // Not in the folder of the training.
    let elsewhere = refusal(&[&own[..], &["--data", "fashion-mnist"]].concat());
    row("data", elsewhere.contains("fc.weight"));
    row("data-dir", with(&["--data-dir", &two])["images"] == 2);
    row(
        "image-size",
        refusal(&[&own[..], &["--image-size", "16"]].concat()).contains("fc.weight"),
    );
    row("test-images", with(&["--test-images", "2"])["images"] == 2);
    let bad = ["--data-dir", &broken];
    let named = refusal(&[&own[..], &bad].concat()).contains("no picture");
    row(
        "skip-bad",
        named && with(&[&bad[..], &["--skip-bad"]].concat())["images"] == 2,
    );
    row("workers", with(&["--workers", "3"]) == plain);
    row("loss", with(&["--loss", "bce"])["loss"] != plain["loss"]);
    row(
        "batch-size",
        with(&["--batch-size", "2"])["top1"] == plain["top1"],
    );

    let help = String::from_utf8(decorr(&["--help"]).stdout).unwrap();
    let words = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"));
    let options: BTreeSet<&str> = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split("--").nth(1)?.split([' ', '\n', '=', '[']).next())
        .collect();
    assert!(
        options.len() >= 15 && words.count() >= options.len(),
        "{help}"
    );
    for option in options {
        assert!(seen.contains(option), "--{option} has no row");
    }
}
