//! What a trained network says of pictures, against float64 and against `eval`; where it is read from, and what is refused.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use decorr::Picture;
use decorr::data::{DataSet, Images, Source};
use decorr::models::{Model, Norm};
use decorr::train::checkpoint::{self, HostTensor, Tensors};
use decorr::train::{
    Live, Prediction, Predictor, Start, TrainConfig, TrainOptions, Trained, Trainer,
    TrainerOptions, evaluate_checkpoint, train,
};
use image::{DynamicImage, ImageBuffer, Luma, Rgb, RgbImage};
use support::pictures::{cifar_image, cifar_logits, save, save_plain};

fn picture(bytes: &[u8], channels: usize, side: usize) -> Picture {
    Picture {
        channels,
        height: side,
        width: side,
        data: bytes.iter().map(|&v| f32::from(v) / 255.0).collect(),
    }
}

/// Runs `options` and returns the folder.
fn trained(options: TrainOptions) -> PathBuf {
    let config = TrainConfig::resolve(options).unwrap();
    let stop = AtomicBool::new(false);
    train(&support::gpu(), &config, Start::New, &stop, |_| ()).unwrap();
    config.out
}

/// A plain linear network on CIFAR's images, of which the file says nothing: softmax of W x + b.
#[test]
fn probabilities_are_the_softmax_of_the_logits_in_float64() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("w.safetensors");
    let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
    let tensor = |shape: &[usize], scale: f32, from: usize| HostTensor {
        shape: shape.to_vec(),
        data: (0..shape.iter().product())
            .map(|i| value(i + from) * scale)
            .collect(),
    };
    let (weight, bias) = (tensor(&[10, 3072], 0.02, 0), tensor(&[10], 0.5, 77));
    let tensors = Tensors::from([
        ("module.fc.weight".to_string(), weight.clone()),
        ("module.fc.bias".to_string(), bias.clone()),
    ]);
    checkpoint::save(&file, &tensors, &BTreeMap::new()).unwrap();
    let options = TrainOptions {
        model: Some("linear".into()),
        data: Some("cifar10".into()),
        ..TrainOptions::default()
    };
    let mut network = Trained::open_with(&support::gpu(), &file, options.clone()).unwrap();
    assert_eq!(network.input_shape(), [3, 32, 32]);
    // More than go through the network at once.
    let pictures: Vec<Picture> = (0..35).map(|n| picture(&cifar_image(n), 3, 32)).collect();
    let found = network.predict(&pictures).unwrap();
    assert_eq!(found.len(), 35);
    let mut firsts = std::collections::BTreeSet::new();
    for (n, prediction) in found.iter().enumerate() {
        let logits = cifar_logits(&cifar_image(n), &weight.data, &bias.data);
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        let expected: Vec<f64> = logits.iter().map(|l| l.exp() / sum).collect();
        let probabilities = prediction.probabilities();
        for (ours, wanted) in probabilities.iter().zip(&expected) {
            assert!(
                (ours - wanted).abs() < 1e-5,
                "{probabilities:?}, not {expected:?}"
            );
        }
        let mut order: Vec<usize> = (0..10).collect();
        order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
        let top = prediction.top(3);
        let indices: Vec<usize> = top.iter().map(|guess| guess.index).collect();
        assert_eq!(indices, order[..3]);
        assert_eq!(
            top[0].class.as_deref(),
            Some(network.class_names()[order[0]].as_str())
        );
        firsts.insert(order[0]);
    }
    assert!(firsts.len() > 1);
    assert_eq!(network.class_names()[..2], ["airplane", "automobile"]);
    // Alone, or with more than before.
    let alone = network.predict(&pictures[34..]).unwrap();
    assert_eq!(alone[0].top(10)[0].index, found[34].top(10)[0].index);
    assert_eq!(found[0].top(99).len(), 10);
    assert!(network.predict(&[]).unwrap().is_empty());
    // One that gives no numbers for bright images only.
    let large = HostTensor {
        data: vec![3e36; 10 * 3072],
        ..weight
    };
    let tensors = Tensors::from([("fc.weight".into(), large), ("fc.bias".into(), bias)]);
    checkpoint::save(&file, &tensors, &BTreeMap::new()).unwrap();
    let mut network = Trained::open_with(&support::gpu(), &file, options).unwrap();
    let [dark, bright] = [0.48, 1.0].map(|value| Picture {
        data: vec![value; 3072],
        ..pictures[0].clone()
    });
    network.predict(std::slice::from_ref(&dark)).unwrap();
    let text = network.predict(&[dark, bright]).unwrap_err().to_string();
    let wanted = "gives no numbers for an image: it is damaged, or did not learn";
    assert!(text.ends_with(wanted), "{text}");
}

/// The test images of the built-in set, by the run's folder, by its file, by what it is resumed from, and folded.
#[test]
fn the_hits_are_those_of_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        model: Some("cnn".into()),
        width: Some(0.25),
        norm: Some(Norm::Deconv),
        block: Some(8),
        steps: Some(12),
        batch_size: Some(32),
        lr: Some(0.05),
        test_images: Some(150),
        out: Some(dir.path().join("run")),
        ..TrainOptions::default()
    };
    let set = TrainConfig::resolve(options.clone())
        .unwrap()
        .open_data()
        .unwrap();
    let run = trained(options);
    let eval = evaluate_checkpoint(&support::gpu(), &run, TrainOptions::default(), |_| ()).unwrap();
    let Source::Bytes(bytes) = &set.test.source else {
        panic!("no bytes")
    };
    let pictures: Vec<Picture> = bytes
        .chunks(784)
        .map(|image| picture(image, 1, 28))
        .collect();
    let labels = set.test.labels.iter().map(|&label| usize::from(label));
    let hits = |found: &[Prediction]| {
        let right = found
            .iter()
            .zip(labels.clone())
            .filter(|(p, label)| p.top(1)[0].index == *label);
        right.count() as f64 / found.len() as f64
    };
    let mut of_run = Trained::open(&support::gpu(), &run).unwrap();
    let found = of_run.predict(&pictures).unwrap();
    assert_eq!(found.len(), eval.images);
    assert_eq!(hits(&found), eval.top1);
    assert!(eval.top1 > 0.2 && eval.top1 < 1.0, "{eval:?}");
    let loss: f64 = found
        .iter()
        .zip(labels.clone())
        .map(|(p, l)| -p.probabilities()[l].ln())
        .sum();
    assert!(
        (loss / eval.images as f64 - eval.loss).abs() < 1e-5 * eval.loss,
        "{loss} {eval:?}"
    );
    assert_eq!(of_run.class_names()[9], "Ankle boot");

    let logits = |network: &mut Trained| -> Vec<Vec<f32>> {
        let found = network.predict(&pictures[..40]).unwrap();
        found
            .into_iter()
            .map(|prediction| prediction.logits)
            .collect()
    };
    let whole = logits(&mut of_run);
    let state = run.join("checkpoints/step-00000012.safetensors");
    for file in [run.join("model.safetensors"), state] {
        assert_eq!(
            logits(&mut Trained::open(&support::gpu(), &file).unwrap()),
            whole
        );
    }
    let (mut folded, count) = of_run.folded().unwrap();
    assert_eq!(count, 4);
    let (folded, whole) = (logits(&mut folded).concat(), whole.concat());
    assert!(support::relative_error(&folded, &whole).0 < 1e-4);

    // A file from before there were these entries.
    let (tensors, mut metadata) = checkpoint::load(&run.join("model.safetensors")).unwrap();
    assert_eq!(metadata["input_shape"], "[1,28,28]");
    assert_eq!(
        (metadata["mean"].as_str(), metadata["std"].as_str()),
        ("[0.0]", "[1.0]")
    );
    assert_eq!(
        metadata["decorr_version"],
        format!("\"{}\"", env!("CARGO_PKG_VERSION"))
    );
    assert!(metadata["classes"].contains("Trouser"));
    let file = dir.path().join("other.safetensors");
    let read = |metadata: &BTreeMap<String, String>| {
        checkpoint::save(&file, &tensors, metadata).unwrap();
        Trained::open(&support::gpu(), &file)
    };
    let mut older = metadata.clone();
    older.retain(|key, _| ["config", "step"].contains(&key.as_str()));
    let mut older = read(&older).unwrap();
    assert_eq!(logits(&mut older).concat(), whole);
    assert_eq!(older.class_names(), of_run.class_names());
    for (key, value) in [
        ("input_shape", "[2,28,28]"),
        ("input_shape", "[1,0,28]"),
        ("mean", "[0,0]"),
        ("std", "[0]"),
        ("std", "much"),
    ] {
        let good = metadata.insert(key.into(), value.into()).unwrap();
        let text = read(&metadata).unwrap_err().to_string();
        assert!(text.contains(key) && text.contains("damaged"), "{text}");
        metadata.insert(key.into(), good);
    }
}

/// Pictures of all kinds are what the loader makes of their files.
#[test]
fn pictures_are_brought_to_the_networks_input() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = Tensors::from([
        (
            "fc.weight".to_string(),
            HostTensor {
                shape: vec![2, 192],
                data: vec![0.0; 384],
            },
        ),
        (
            "fc.bias".to_string(),
            HostTensor {
                shape: vec![2],
                data: vec![1.0, 1.0],
            },
        ),
    ]);
    let file = dir.path().join("w.safetensors");
    checkpoint::save(&file, &tensors, &BTreeMap::new()).unwrap();
    let options = TrainOptions {
        model: Some("linear".into()),
        data: Some("folder".into()),
        image_size: Some(8),
        ..TrainOptions::default()
    };
    let mut network = Trained::open_with(&support::gpu(), &file, options).unwrap();
    let colour = RgbImage::from_fn(37, 23, |x, y| {
        Rgb([(x * 6) as u8, (y * 9) as u8, (x * y) as u8])
    });
    let deep = ImageBuffer::from_fn(19, 40, |x, y| Luma([(x * 3000 + y * 101) as u16]));
    for (name, image) in [
        ("colour.png", DynamicImage::from(colour)),
        ("deep.png", DynamicImage::from(deep)),
    ] {
        save(&dir.path().join("set/val").join(name).join(name), image);
    }
    let config = TrainConfig::resolve(TrainOptions {
        data: Some("folder".into()),
        data_dir: Some(dir.path().join("set")),
        image_size: Some(8),
        ..TrainOptions::default()
    });
    // Classes without train/ are those of val/.
    fs::rename(dir.path().join("set/val"), dir.path().join("set/train")).unwrap();
    let set = config.unwrap().open_data().unwrap();
    let batch = set.test_loader(2).unwrap().next_batch().unwrap().unwrap();
    let Source::Files(paths) = &set.test.source else {
        panic!("no files")
    };
    let images = set.normalise(&batch.images);
    for (path, wanted) in paths.iter().zip(images.chunks(192)) {
        assert_eq!(
            network.read_input(path).unwrap(),
            wanted,
            "{}",
            path.display()
        );
        let read = Picture::read(path).unwrap();
        assert_eq!(network.input(&read).unwrap(), wanted, "{}", path.display());
    }
    // Equal logits: the class with the smaller number comes first.
    let guesses = network
        .predict(&[Picture::read(&paths[0]).unwrap()])
        .unwrap()[0]
        .top(2);
    assert_eq!((guesses[0].index, guesses[0].probability), (0, 0.5));
    assert_eq!(guesses[1].to_string(), "class 1 .50");
    let no_picture = Picture {
        channels: 2,
        height: 1,
        width: 1,
        data: vec![0.0; 2],
    };
    let text = network.predict(&[no_picture]).unwrap_err().to_string();
    assert!(text.contains("2 channels"), "{text}");
}

fn decorr(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_decorr"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(args: &[&str]) -> String {
    let output = decorr(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(args: &[&str], wanted: &[&str]) {
    let output = decorr(args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{args:?}"
    );
    for part in wanted {
        assert!(text.contains(part), "{args:?}: no {part:?} in: {text}");
    }
}

/// A red and a blue class, learned, and the command with each of its options.
#[test]
fn the_command_says_what_is_on_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str| at(name).to_string_lossy().into_owned();
    for split in ["train", "val"] {
        save_plain(&at("set").join(split).join("red/0.png"), [250, 10, 20]);
        save_plain(&at("set").join(split).join("blue/0.png"), [10, 20, 250]);
    }
    let run = trained(TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::Deconv),
        block: Some(16),
        data: Some("folder".into()),
        data_dir: Some(at("set")),
        augment: Some(decorr::train::AugmentName::None),
        image_size: Some(8),
        batch_size: Some(2),
        steps: Some(20),
        lr: Some(0.01),
        out: Some(at("run")),
        ..TrainOptions::default()
    });
    // The set is not needed for it.
    fs::remove_dir_all(at("set")).unwrap();
    save_plain(&at("new/a.png"), [200, 0, 0]);
    save_plain(&at("new/below/b.png"), [0, 0, 200]);
    let run = run.to_string_lossy().into_owned();
    let (new, a) = (text("new"), text("new/a.png"));
    let predict = ["predict", "--checkpoint", &run];
    let with = |more: &[&'static str]| [&predict[..], &[&new], more].concat();
    let lines = stdout(&with(&[]));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{a}: red ")), "{lines:?}");
    assert!(
        lines[1].contains("b.png: blue ") && lines[1].contains(", red ."),
        "{lines:?}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&with(&["--json", "--top", "1"]))).unwrap();
    assert_eq!(json[0]["file"], a.as_str());
    let guesses = json[0]["predictions"].as_array().unwrap();
    assert_eq!(guesses.len(), 1);
    assert_eq!(
        (&guesses[0]["class"], &guesses[0]["index"]),
        (&"red".into(), &1.into())
    );
    let probability = guesses[0]["probability"].as_f64().unwrap();
    assert!(probability > 0.5 && probability <= 1.0);
    let wrong = with(&["--image-size", "16"]);
    refused(&wrong, &["fc.weight"]);

    // All classes, and no more.
    let all: serde_json::Value =
        serde_json::from_str(&stdout(&with(&["--json", "--top", "2"]))).unwrap();
    assert_eq!(all[0]["predictions"].as_array().unwrap().len(), 2);
    refused(&with(&["--top", "0"]), &["--top must be at least 1"]);
    refused(&with(&["--top", "3"]), &["--top 3", "2 classes"]);
    for option in [
        ["--model", "cnn"],
        ["--norm", "none"],
        ["--form", "cifar"],
        ["--data", "cifar10"],
    ] {
        refused(&with(&option), &["says itself what it is of", option[0]]);
    }
    let missing = text("nothing.png");
    refused(
        &[&predict[..], &[&missing, "--skip-bad"]].concat(),
        &["nothing.png", "No such file"],
    );
    refused(&["predict", "--checkpoint", &missing, &a], &["nothing.png"]);
    refused(
        &["predict", "--checkpoint", &new, &a],
        &["without a model.safetensors"],
    );
    refused(
        &["predict", "--checkpoint", &a, &a],
        &["a.png", "safetensors"],
    );
    fs::create_dir_all(at("empty")).unwrap();
    refused(
        &[&predict[..], &[&text("empty")]].concat(),
        &["has no picture in it"],
    );
    fs::write(at("new/bad.png"), b"no picture").unwrap();
    refused(&with(&[]), &["bad.png", "no picture"]);
    let output = decorr(&with(&["--skip-bad"]));
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("skipped: "));
    let bad = text("new/bad.png");
    refused(
        &[&predict[..], &[&bad, "--skip-bad", "--json"]].concat(),
        &["bad.png", "is the first of 1 pictures, none of which"],
    );
    // More than go through the network together, and after them bad ones alone.
    let many = [&[a.as_str(); 32][..], &[bad.as_str(); 2]].concat();
    let of_many = stdout(&[&predict[..], &many, &["--skip-bad"]].concat());
    assert_eq!(of_many.lines().count(), 32);
    // What another program wrote of it: which network it is has to be said.
    let (tensors, _) = checkpoint::load(&at("run/model.safetensors")).unwrap();
    let bare = text("bare.safetensors");
    checkpoint::save(Path::new(&bare), &tensors, &BTreeMap::new()).unwrap();
    refused(&["predict", "--checkpoint", &bare, &a], &["--model"]);
    let named = [
        "predict",
        "--checkpoint",
        &bare,
        &a,
        "--model",
        "linear",
        "--data",
        "folder",
    ];
    refused(&named, &["fc.weight"]);
}

/// `eval` and `export` take the folder of a run too; figures do in tests/cli.rs.
#[test]
fn a_folder_is_its_model() {
    let dir = tempfile::tempdir().unwrap();
    let run = trained(TrainOptions {
        model: Some("mlp".into()),
        block: Some(16),
        steps: Some(2),
        batch_size: Some(8),
        test_images: Some(20),
        out: Some(dir.path().join("run")),
        ..TrainOptions::default()
    });
    let folder = run.to_string_lossy().into_owned();
    let file = run.join("model.safetensors").to_string_lossy().into_owned();
    let plain = dir
        .path()
        .join("not/there/yet/plain.safetensors")
        .to_string_lossy()
        .into_owned();
    let of = |path: &str| stdout(&["eval", "--json", "--checkpoint", path]);
    assert_eq!(of(&folder), of(&file));
    stdout(&["export", &folder, "--fold", "--out", &plain]);
    // What training goes on from has the state of the optimiser, too: the network is the same, to the bit.
    let state = run.join("checkpoints/step-00000002.safetensors");
    let state = state.to_string_lossy().into_owned();
    let of_state = format!("{plain}.safetensors");
    stdout(&["export", &state, "--fold", "--out", &of_state]);
    let [model, state] = [&plain, &of_state].map(|path| fs::read(path).unwrap());
    assert!(model == state, "the export of a state is another network");
    let empty = dir.path().to_string_lossy().into_owned();
    for args in [
        &["eval", "--checkpoint", &empty][..],
        &["export", &empty, "--fold", "--out", "x.safetensors"],
    ] {
        refused(args, &["without a model.safetensors"]);
    }
}

/// A run's network in a program of one's own, and a trainer's in the commands: all files say alike what images they are for.
#[test]
fn files_of_trainers_and_of_commands_are_of_one_format() {
    let dir = tempfile::tempdir().unwrap();
    let gpu = support::gpu();
    let options = TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        data: Some("fashion-mnist".into()),
        ..TrainOptions::default()
    };
    let pixels = |n: usize| -> Vec<u8> { (0..784).map(|p| (p * n % 251) as u8).collect() };
    let pictures: Vec<Picture> = (1..4).map(|n| picture(&pixels(n), 1, 28)).collect();
    let values: Vec<f32> = pictures.iter().flat_map(|p| p.data.clone()).collect();
    let logits_of = |mut trained: Trained| -> Vec<f32> {
        let found = trained.predict(&pictures).unwrap();
        found.into_iter().flat_map(|p| p.logits).collect()
    };
    let model = Model::new("linear", Norm::None, 10).unwrap();

    let run = trained(TrainOptions {
        steps: Some(2),
        batch_size: Some(8),
        test_images: Some(20),
        out: Some(dir.path().join("run")),
        ..options.clone()
    });
    let mut own = Predictor::open(&gpu, model, &run).unwrap();
    assert_eq!((own.image_shape(), own.classes()), ([1, 28, 28], 10));
    assert_eq!(own.class_names()[9], "Ankle boot");
    let of_run = logits_of(Trained::open(&gpu, &run).unwrap());
    assert_eq!(own.predict(&values).unwrap(), of_run);
    let said = own.predictions(&values).unwrap();
    assert_eq!(said.len(), of_run.len() / 10);
    for (said, logits) in said.iter().zip(of_run.chunks(10)) {
        let [first, second] = &said.top(2)[..] else {
            panic!("{said:?}");
        };
        assert!(logits.iter().all(|v| *v <= logits[first.index]), "{first}");
        assert!(logits[second.index] <= logits[first.index] && second.index != first.index);
        assert_eq!(first.class.as_ref(), Some(&own.class_names()[first.index]));
        assert_eq!(said.logits, logits);
    }

    let images = |n: usize| {
        let bytes: Vec<u8> = (1..=n).flat_map(pixels).collect();
        Images::new(bytes, [1, 28, 28], vec![0; n], 10).unwrap()
    };
    let mut set = DataSet::new(images(8), images(2), &[0.25], &[0.5]).unwrap();
    set.class_names = (0..10).map(|n| format!("kind {n}")).collect();
    let of_trainer = TrainerOptions::default().batch_size(4);
    let mut trainer = Trainer::new(&gpu, model, set, of_trainer).unwrap();
    trainer.step().unwrap();
    let file = dir.path().join("own.safetensors");
    trainer.save(&file).unwrap();
    let read = Trained::open_with(&gpu, &file, options).unwrap();
    assert_eq!(read.class_names()[3], "kind 3");
    let of_file = logits_of(read);
    assert_eq!(trainer.predict(&values).unwrap(), of_file);
    assert!(support::relative_error(&of_file, &of_run).0 > 0.1);
}

/// A network that is learning is the one in the file that is written of it then.
#[test]
fn a_network_in_memory_needs_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions {
        model: Some("cnn".into()),
        width: Some(0.25),
        block: Some(8),
        batch_size: Some(8),
        ..TrainOptions::default()
    };
    let norms = [Norm::Batch, Norm::Deconv];
    let mut live = Live::new(&support::gpu(), &options, &norms).unwrap();
    live.step().unwrap();
    live.collect(true).unwrap();
    live.save(dir.path()).unwrap();
    let pictures: Vec<Picture> = (0..3)
        .map(|n| picture(&[90 * n as u8; 784], 1, 28))
        .collect();
    let mut all = Vec::new();
    for (run, name) in live.runs().iter().zip(["batch", "deconv"]) {
        let file = dir.path().join(format!("{name}.safetensors"));
        let mut written = Trained::open(&support::gpu(), &file).unwrap();
        let mut in_memory = live.trained(run).unwrap();
        assert_eq!(in_memory.class_names(), written.class_names());
        let logits = |network: &mut Trained| -> Vec<Vec<f32>> {
            let found = network.predict(&pictures).unwrap();
            found
                .into_iter()
                .map(|prediction| prediction.logits)
                .collect()
        };
        let found = logits(&mut in_memory);
        assert_eq!(found, logits(&mut written), "{name}");
        all.push(found);
    }
    assert_ne!(all[0], all[1]);
}
