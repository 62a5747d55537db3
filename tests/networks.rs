//! VGG, `ResNet` and `DenseNet` against torch and torchvision (`tests/networks/README.md`), their known
//! numbers of parameters, and that all of them can be trained with every norm.
//!
//! `DECORR_NETWORKS=DIR` adds full-size state dicts of torchvision that `make.py --full DIR` wrote, and
//! writes ours beside them for `make.py --load DIR`.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use decorr::autodiff::gradients;
use decorr::gpu::Gpu;
use decorr::graph::Graph;
use decorr::models::{Form, Model, Norm, networks, summaries};
use decorr::nn::{FreezeCounter, Loss, Mode};
use decorr::optim::{Optimizer, Sgd};
use decorr::program::{Program, Store};
use decorr::train::checkpoint::{self, Tensors};
use decorr::train::{TrainOptions, Trained, evaluate_checkpoint, training_step};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const CE: Loss = Loss::CrossEntropy { smoothing: 0.0 };

/// A reference file.
struct Case {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: &TensorView<'_>| bytemuck::pod_collect_to_vec(view.data());
        Self {
            metadata: header.metadata().clone().unwrap().into_iter().collect(),
            tensors: file
                .tensors()
                .iter()
                .map(|(name, view)| (name.clone(), values(view)))
                .collect(),
        }
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> T {
        serde_json::from_str(&self.metadata[key]).unwrap()
    }

    fn images(&self) -> (Vec<usize>, Vec<f32>) {
        let shape: Vec<usize> = self.get("images");
        let count = shape.iter().product();
        let values = noise(&self.metadata["seed"], count);
        (shape, values.into_iter().map(|v| v as f32).collect())
    }

    fn model(&self, form: Form, width: f32, classes: usize) -> Model {
        let norm = self.metadata["norm"].as_str();
        let norm = Norm::ALL.into_iter().find(|n| n.name() == norm).unwrap();
        Model {
            form: Some(form),
            width,
            // Off in the references: torch draws other numbers.
            dropout: 0.0,
            ..Model::new(&self.metadata["model"], norm, classes).unwrap()
        }
    }
}

/// `count` numbers in [-1, 1), the same as in make.py.
fn noise(name: &str, count: usize) -> Vec<f64> {
    let fnv = |h: u32, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, fnv);
    let element = |i: usize| {
        let mut v = (i as u32).wrapping_mul(0x9e37_79b1).wrapping_add(hash);
        v = (v ^ (v >> 16)).wrapping_mul(0x85eb_ca6b);
        v = (v ^ (v >> 13)).wrapping_mul(0xc2b2_ae35);
        v ^= v >> 16;
        f64::from(v >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..count).map(element).collect()
}

/// The value of a state, the same as in make.py.
fn value(name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let is_flat = shape.len() == 1;
    if name.ends_with("running_deconv") && !is_flat {
        let n = shape[shape.len() - 1];
        let on_diagonal = |i: usize| (i / n) % n == i % n;
        return (0..count)
            .map(|i| f32::from(u8::from(on_diagonal(i))))
            .collect();
    }
    let fan_in: usize = shape[1..].iter().product();
    let is_scale = name.ends_with("running_var") || name.ends_with("weight");
    let scaled = |u: f64| match (is_flat, is_scale) {
        (true, true) => 1.0 + u / 4.0,
        (true, false) => u / 10.0,
        (false, _) => u * (3.0 / fan_in as f64).sqrt(),
    };
    noise(name, count)
        .into_iter()
        .map(|u| scaled(u) as f32)
        .collect()
}

/// Writes the state dict of a case as torch would, integers and all.
fn write_state_dict(case: &Case, path: &Path) {
    let entries: BTreeMap<String, (String, Vec<usize>)> = case.get("state_dict");
    let bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = entries
        .into_iter()
        .map(|(name, (dtype, shape))| match dtype.as_str() {
            "I64" => (name, Dtype::I64, shape, 7i64.to_le_bytes().to_vec()),
            _ => {
                let values = value(&name, &shape);
                let bytes = bytemuck::cast_slice(&values).to_vec();
                (name, Dtype::F32, shape, bytes)
            }
        })
        .collect();
    let views = bytes.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), view)
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    paths.sort();
    paths
}

/// Compiles the evaluation of a model on `store`.
fn evaluation(store: &mut Store, model: &Model, shape: &[usize]) -> Program {
    let g = Graph::new();
    let x = g.input("images", shape.to_vec());
    g.output("logits", model.forward(x, Mode::Eval));
    Program::compile(&g, store, support::compile_options()).unwrap()
}

/// Compiles loss and gradients of all parameters, in training mode.
fn gradient_step(store: &mut Store, model: &Model, shape: &[usize]) -> Program {
    let g = Graph::new();
    let x = g.input("images", shape.to_vec());
    let labels = g.input("labels", [shape[0]]);
    let logits = model.forward(x, Mode::Train);
    let loss = CE.per_row(logits, labels).mean_to([1]);
    let parameters = g.parameters();
    let grads = gradients(loss, &parameters);
    g.output("loss", loss);
    for (w, grad) in parameters.iter().zip(grads) {
        g.output(&format!("grad.{}", w.name()), grad);
    }
    Program::compile(&g, store, support::compile_options()).unwrap()
}

/// What decorr makes of a case's state dict and images.
fn results(case: &Case, model: &Model) -> BTreeMap<String, Vec<f32>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torch.safetensors");
    write_state_dict(case, &path);
    let (tensors, _) = checkpoint::load(&path).unwrap();
    let (shape, images) = case.images();
    let labels: Vec<f32> = (0..shape[0]).map(|i| (i % model.classes) as f32).collect();
    let mut store = Store::new(&support::gpu(), 1);
    let mut evaluate = evaluation(&mut store, model, &shape);
    let mut step = gradient_step(&mut store, model, &shape);
    checkpoint::to_store(&path, &tensors, &store, &checkpoint::MODEL).unwrap();

    let mut logits = || evaluate.run(&[("images", &images)]).unwrap().values["logits"].clone();
    let before = logits();
    let inputs = [("images", &*images), ("labels", &*labels)];
    let mut found = step.run(&inputs).unwrap().values;
    found.insert("logits".into(), before);
    found.insert("logits_after".into(), logits());
    if model.norm == Norm::Deconv {
        found.insert("logits_folded".into(), folded_logits(case, model, &store));
    }
    found
}

/// Of the plain network that `store` is exported to, with running statistics that a step has moved.
fn folded_logits(case: &Case, model: &Model, store: &Store) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let tensors = checkpoint::from_store(store, &checkpoint::MODEL).unwrap();
    checkpoint::save(&path("deconv.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let plain = path("plain.safetensors");
    decorr::train::export(&path("deconv.safetensors"), &plain).unwrap();
    let (tensors, _) = checkpoint::load(&plain).unwrap();
    let (shape, images) = case.images();
    let mut store = Store::new(&support::gpu(), 1);
    let norm = Norm::None;
    let mut evaluate = evaluation(&mut store, &Model { norm, ..*model }, &shape);
    checkpoint::to_store(&plain, &tensors, &store, &checkpoint::MODEL).unwrap();
    evaluate.run(&[("images", &images)]).unwrap().values["logits"].clone()
}

/// The elements that make.py keeps of a gradient.
fn sampled(values: &[f32]) -> Vec<f32> {
    let step = values.len().div_ceil(256);
    let odd = step + 1 - step % 2;
    values.iter().copied().step_by(odd).collect()
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&v| f64::from(v).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Of a state dict nothing but its width is named: what it is of is in its tensors.
#[test]
fn state_dicts_say_what_they_are_of() {
    let dir = tempfile::tempdir().unwrap();
    for path in files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks"),
        ".safetensors",
    ) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = Case::read(&path);
        let file = dir.path().join(format!("{name}.safetensors"));
        write_state_dict(&case, &file);
        let (shape, images) = case.images();
        let options = TrainOptions {
            width: Some(case.get("width")),
            image_size: Some(shape[2]),
            ..TrainOptions::default()
        };
        let mut trained = Trained::open_with(&support::gpu(), &file, options).unwrap();
        let model = trained.model();
        assert_eq!(model.network.name, case.metadata["model"], "{name}");
        assert_eq!(model.norm.name(), case.metadata["norm"], "{name}");
        assert_eq!(model.form.unwrap().name(), case.metadata["form"], "{name}");
        assert_eq!(model.classes, case.get::<usize>("classes"), "{name}");
        assert_eq!(trained.input_shape()[..], shape[1..], "{name}");
        let len = images.len() / shape[0];
        let inputs: Vec<Vec<f32>> = images.chunks(len).map(<[f32]>::to_vec).collect();
        let found = trained.predict_inputs(&inputs).unwrap();
        let logits: Vec<f32> = found.into_iter().flat_map(|p| p.logits).collect();
        let limit = case.get::<BTreeMap<String, f64>>("f32_rel_err")["logits"];
        let (error, _) = support::relative_error(&logits, &case.tensors["logits"]);
        assert!(error < (10.0 * limit).max(1e-4), "{name}: {error}");

        // Images that it is not for.
        let narrow = TrainOptions {
            width: Some(case.get("width")),
            ..TrainOptions::default()
        };
        let wrong = evaluate_checkpoint(&support::gpu(), &file, narrow, |_| ()).unwrap_err();
        let wrong = wrong.to_string();
        for part in [
            "is of 3 channels",
            ".weight",
            "`data` fashion-mnist has 1",
            "`data_dir`",
        ] {
            assert!(wrong.contains(part), "{name}: no {part:?} in: {wrong}");
        }
    }
}

#[test]
fn logits_loss_and_gradients_are_torchs() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks");
    let paths = files(&dir, ".safetensors");
    assert_eq!(paths.len(), 8, "reference files in {}", dir.display());
    let mut problems = Vec::new();
    for path in paths {
        let case = Case::read(&path);
        let form = match case.metadata["form"].as_str() {
            "cifar" => Form::Cifar,
            _ => Form::Imagenet,
        };
        let model = case.model(form, case.get("width"), case.get("classes"));
        let found = results(&case, &model);
        let limits: BTreeMap<String, f64> = case.get("f32_rel_err");
        let largest: BTreeMap<String, f64> = case.get("largest");
        let norms: BTreeMap<String, f64> = case.get("l2_norm");
        let name = path.file_stem().unwrap().to_string_lossy();
        let mut worst = (0.0, String::new());
        // The plain network that is exported gives what torch's deconvolved one does.
        let after = ("logits_after".to_string(), "logits_folded");
        let folded = case
            .tensors
            .get_key_value(&after.0)
            .filter(|_| model.norm == Norm::Deconv);
        let all = case
            .tensors
            .iter()
            .map(|(key, expected)| (key, key.as_str(), expected));
        let folded = folded.map(|(key, expected)| (key, after.1, expected));
        for (key, mine, expected) in all.chain(folded) {
            let values = &found[mine];
            let tolerance = (10.0 * limits[key]).max(1e-4);
            let kept = match key.starts_with("grad.") {
                true => sampled(values),
                false => values.clone(),
            };
            assert_eq!(kept.len(), expected.len(), "{name}: {key}");
            let difference = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
            let error = kept.iter().zip(expected).map(difference);
            let error = error.fold(0.0, |m: f64, e| if e > m || e.is_nan() { e } else { m });
            let of_norm = (norm(values) - norms[key]).abs() / norms[key];
            let error = match error.is_nan() {
                true => error,
                false => (error / largest[key]).max(of_norm),
            };
            if error > tolerance || error.is_nan() {
                problems.push(format!(
                    "{name}: {mine} is off by {error:.1e} of {tolerance:.1e}"
                ));
            }
            // Biases before batch norm have a gradient of rounding only.
            if largest[key] > 1e-9 && error > worst.0 {
                worst = (error, mine.to_string());
            }
        }
        let gradients = case.tensors.keys().filter(|k| k.starts_with("grad."));
        let learned = found.keys().filter(|k| k.starts_with("grad."));
        let all = gradients.count();
        assert!(
            all == 0 || all == learned.count(),
            "{name}: gradients of all parameters"
        );
        support::report(&format!(
            "{name}: {} tensors, at most {:.1e} off ({})",
            case.tensors.len(),
            worst.0,
            worst.1
        ));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn full_size_state_dicts_give_torchvisions_logits() {
    let Ok(dir) = std::env::var("DECORR_NETWORKS") else {
        return;
    };
    // Larger limits than the default ones: VGG's pictures and products are large.
    let gpu = Gpu::open(&support::choice()).unwrap();
    for path in files(Path::new(&dir), ".logits.safetensors") {
        let case = Case::read(&path);
        let model = case.model(Form::Imagenet, 1.0, 1000);
        let (shape, images) = case.images();
        let mut store = Store::new(&gpu, 1);
        let mut evaluate = evaluation(&mut store, &model, &shape);
        let state = PathBuf::from(path.to_string_lossy().replace(".logits.", ".state."));
        let (tensors, _) = checkpoint::load(&state).unwrap();
        checkpoint::to_store(&state, &tensors, &store, &checkpoint::MODEL).unwrap();
        let logits = &evaluate.run(&[("images", &images)]).unwrap().values["logits"];
        let (error, _) = support::relative_error(logits, &case.tensors["logits"]);
        let in_torch: f64 = case.get("f32_rel_err");
        let name = path.file_name().unwrap().to_string_lossy();
        support::report(&format!(
            "{name}: logits off by {error:.1e}, float32 in torch by {in_torch:.1e}"
        ));
        assert!(error <= (10.0 * in_torch).max(1e-4), "{name}: {error:e}");
        // For `make.py --load`.
        let ours = PathBuf::from(path.to_string_lossy().replace(".logits.", ".decorr."));
        let saved = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
        checkpoint::save(&ours, &saved, &BTreeMap::new()).unwrap();
    }
}

#[test]
fn what_is_saved_has_the_names_and_shapes_of_torch() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks");
    let (batch, none) = ("_imagenet_batch", "_imagenet_none");
    let families = [
        ("vgg11", none),
        ("resnet18", batch),
        ("resnet50", batch),
        ("densenet121", batch),
    ];
    for (name, rest) in families {
        let case = Case::read(&dir.join(format!("{name}{rest}.safetensors")));
        let model = case.model(Form::Imagenet, case.get("width"), 10);
        let mut store = Store::new(&support::gpu(), 1);
        evaluation(&mut store, &model, &case.images().0);
        let saved: Tensors = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
        let torch: BTreeMap<String, (String, Vec<usize>)> = case.get("state_dict");
        let torch: BTreeMap<String, Vec<usize>> = torch
            .into_iter()
            .map(|(name, (_, shape))| (name, shape))
            .collect();
        // In the file there are the counts of batches too, which strict=True asks for.
        let file = tempfile::NamedTempFile::new().unwrap();
        checkpoint::save(
            file.path(),
            &saved,
            &BTreeMap::from([("step".into(), "7".into())]),
        )
        .unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let saved: BTreeMap<String, Vec<usize>> = file
            .tensors()
            .into_iter()
            .map(|(name, t)| (name, t.shape().to_vec()))
            .collect();
        assert_eq!(saved, torch, "{name}");
        for (name, tensor) in file
            .tensors()
            .iter()
            .filter(|(n, _)| n.ends_with("num_batches_tracked"))
        {
            assert_eq!(
                (tensor.dtype(), tensor.data()),
                (Dtype::I64, &7_i64.to_le_bytes()[..]),
                "{name}"
            );
        }
    }
}

/// Paper section 4: 512 features together on CIFAR, 32 groups for ImageNet.
#[test]
fn linear_layers_are_decorrelated_in_the_papers_blocks() {
    let blocks = |name: &str, images: usize| {
        let model = Model::new(name, Norm::Deconv, 1000).unwrap();
        let graph = step_graph(&model, [1, 3, images, images], Mode::Train);
        let list = graph.list();
        let mut blocks = Vec::new();
        for (state, &id) in list.states() {
            let of_linear = state.starts_with("classifier") || state.starts_with("fc");
            if of_linear && state.ends_with("running_deconv") {
                blocks.push(*list.shape(id).dims().last().unwrap());
            }
        }
        blocks
    };
    assert_eq!(blocks("vgg11", 32), [512]);
    assert_eq!(blocks("densenet121", 32), [512]);
    assert_eq!(blocks("vgg11", 224), [25_088 / 32, 4096 / 32, 4096 / 32]);
    assert_eq!(blocks("resnet18", 224), [512 / 32]);
}

#[test]
fn numbers_of_parameters_are_those_of_torchvision_and_the_cifar_networks() {
    let of = |name: &str, form: &str, norm: Norm| {
        let all = summaries(None, Some(norm)).unwrap();
        let found = all.iter().find(|s| (s.name, s.form) == (name, form));
        found.unwrap_or_else(|| panic!("{name} {form}")).parameters
    };
    // torchvision: vgg11_bn and so on.
    assert_eq!(of("vgg11", "imagenet", Norm::Batch), 132_868_840);
    assert_eq!(of("vgg13", "imagenet", Norm::Batch), 133_053_736);
    assert_eq!(of("vgg16", "imagenet", Norm::Batch), 138_365_992);
    assert_eq!(of("vgg19", "imagenet", Norm::Batch), 143_678_248);
    assert_eq!(of("resnet18", "imagenet", Norm::Batch), 11_689_512);
    assert_eq!(of("resnet34", "imagenet", Norm::Batch), 21_797_672);
    assert_eq!(of("resnet50", "imagenet", Norm::Batch), 25_557_032);
    assert_eq!(of("densenet121", "imagenet", Norm::Batch), 7_978_856);
    assert_eq!(of("vgg11", "imagenet", Norm::None), 132_863_336);
    // kuangliu/pytorch-cifar, whose form the paper's CIFAR networks have.
    assert_eq!(of("vgg11", "cifar", Norm::Batch), 9_231_114);
    assert_eq!(of("vgg13", "cifar", Norm::Batch), 9_416_010);
    assert_eq!(of("vgg16", "cifar", Norm::Batch), 14_728_266);
    assert_eq!(of("vgg19", "cifar", Norm::Batch), 20_040_522);
    assert_eq!(of("resnet18", "cifar", Norm::Batch), 11_173_962);
    assert_eq!(of("resnet34", "cifar", Norm::Batch), 21_282_122);
    assert_eq!(of("resnet50", "cifar", Norm::Batch), 23_520_842);
    assert_eq!(of("densenet121", "cifar", Norm::Batch), 6_956_298);
    // Batch norm of an input has neither weight nor bias: the linear layer follows, which has both.
    let all = summaries(None, Some(Norm::Batch)).unwrap();
    let linear = all.iter().find(|s| s.name == "linear").unwrap();
    assert_eq!(linear.parameters, 784 * 10 + 10);
}

#[test]
fn operations_are_twice_the_known_multiply_adds() {
    // torchvision's documentation, in units of 10^9: 7.61, 1.81 and 4.09 multiply-adds.
    let all = summaries(Some(Form::Imagenet), Some(Norm::Batch)).unwrap();
    for (name, known) in [("vgg11", 7.61), ("resnet18", 1.81), ("resnet50", 4.09)] {
        let summary = all.iter().find(|s| s.name == name).unwrap();
        let billions = summary.flops as f64 / 2e9;
        assert!((billions - known).abs() < 0.006, "{name}: {billions}");
    }
    // By hand: positions x inputs x outputs, once for each image, whatever is done once a batch.
    let plain = 28 * 28 * 9 * 32 + 14 * 14 * 288 * 64 + 7 * 7 * 576 * 128 + 1152 * 10;
    for norm in [Norm::None, Norm::Batch, Norm::Deconv] {
        let all = summaries(None, Some(norm)).unwrap();
        let cnn = all.iter().find(|s| s.name == "cnn").unwrap();
        assert_eq!(cnn.flops, 2 * plain, "{norm:?}");
    }
}

/// A narrow model of every network in every form with every norm, and images for it.
fn narrow_models() -> Vec<(Model, [usize; 4])> {
    let mut all = Vec::new();
    for network in networks() {
        let mut forms: Vec<Option<Form>> = network.forms.iter().copied().map(Some).collect();
        if forms.is_empty() {
            forms.push(None);
        }
        for form in forms {
            let ([c, h, w], _) = network.usual_images(form);
            for norm in Norm::ALL {
                let mut model = Model::new(network.name, norm, 10).unwrap();
                (model.form, model.width) = (form, 1.0 / 16.0);
                all.push((model, [4, c, h, w]));
            }
        }
    }
    all
}

fn step_graph(model: &Model, images: [usize; 4], mode: Mode) -> Graph {
    let sgd = Optimizer::from(Sgd::default());
    training_step(model, CE, &sgd, images, mode).unwrap()
}

/// A training of `steps.json`, which make.py wrote.
#[derive(Deserialize)]
struct Training {
    model: String,
    form: Form,
    norm: String,
    width: f32,
    classes: usize,
    images: Vec<usize>,
    lr: f32,
    block: usize,
    eps: f32,
    momentum: f32,
    weight_decay: f32,
    batches: usize,
    losses: Vec<f64>,
}

/// The losses of the training with decorr.
fn losses(training: &Training) -> Vec<f32> {
    let norm = Norm::ALL.into_iter().find(|n| n.name() == training.norm);
    let mut model = Model {
        form: Some(training.form),
        width: training.width,
        ..Model::new(&training.model, norm.unwrap(), training.classes).unwrap()
    };
    (model.deconv.block, model.deconv.eps) = (training.block, training.eps);
    let shape = &training.images;
    let g = Graph::new();
    let logits = model.forward(g.input("images", shape.clone()), Mode::Train);
    let loss = CE
        .per_row(logits, g.input("labels", [shape[0]]))
        .mean_to([1]);
    g.output("loss", loss);
    let sgd = Sgd::default().momentum(training.momentum);
    let optimizer = Optimizer::from(sgd.weight_decay(training.weight_decay));
    let parameters = g.parameters();
    optimizer.update(
        &parameters,
        &gradients(loss, &parameters),
        g.input("lr", [1]),
    );
    let mut store = Store::new(&support::gpu(), 1);
    let mut program = Program::compile(&g, &mut store, support::compile_options()).unwrap();
    let mut states = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
    for (name, tensor) in &mut states {
        tensor.data = value(name, &tensor.shape);
    }
    checkpoint::to_store(Path::new("steps"), &states, &store, &checkpoint::MODEL).unwrap();
    let labels: Vec<f32> = (0..shape[0])
        .map(|i| (i % training.classes) as f32)
        .collect();
    let step = |step: usize| {
        let images = noise(
            &format!("batch {}", step % training.batches),
            shape.iter().product(),
        );
        let images: Vec<f32> = images.into_iter().map(|v| v as f32).collect();
        let inputs = [
            ("images", &*images),
            ("labels", &*labels),
            ("lr", &[training.lr]),
        ];
        program.run(&inputs).unwrap().values["loss"][0]
    };
    (0..training.losses.len()).map(step).collect()
}

/// Networks that train as torch's do: each of 40 losses, in float64 there, within half a percent.
#[test]
fn forty_steps_are_torchs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/networks/steps.json");
    let trainings: Vec<Training> =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(trainings.len(), 2);
    for training in &trainings {
        let name = format!("{} with {}", training.model, training.norm);
        assert_eq!(training.losses.len(), 40, "{name}");
        let mut worst: f64 = 0.0;
        for (step, (ours, wanted)) in losses(training)
            .into_iter()
            .zip(&training.losses)
            .enumerate()
        {
            let error = (f64::from(ours) / wanted - 1.0).abs();
            assert!(
                error < 0.005,
                "{name}: step {step} has {ours}, not {wanted}"
            );
            worst = worst.max(error);
        }
        support::report(&format!("{name}: 40 losses within {worst:.1e} of torch's"));
    }
}

/// Without deconvolution and with folded weights, every network gives the same logits.
#[test]
fn folded_networks_give_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (
        dir.path().join("deconv.safetensors"),
        dir.path().join("plain.safetensors"),
    );
    let mut worst: f64 = 0.0;
    // A software adapter compiles for half a minute for each of the large ones.
    for name in [
        "linear",
        "mlp",
        "cnn",
        "vgg11",
        "resnet18",
        "resnet50",
        "densenet121",
    ] {
        let network = networks().find(|n| n.name == name).unwrap();
        let ([c, h, w], _) = network.usual_images(Some(Form::Cifar));
        let (h, w) = if name == "densenet121" {
            (8, 8)
        } else {
            (h, w)
        };
        let shape = [3, c, h, w];
        let model = |norm| {
            let mut model = Model::new(name, norm, 10).unwrap();
            model.width = 1.0 / 16.0;
            if !network.forms.is_empty() {
                model.form = Some(Form::Cifar);
            }
            model
        };
        let images: Vec<f32> = noise("images", 3 * c * h * w)
            .iter()
            .map(|&v| v as f32)
            .collect();
        let run = |program: &mut Program| {
            program.run(&[("images", &images)]).unwrap().values["logits"].clone()
        };
        let mut store = Store::new(&support::gpu(), 1);
        let mut deconvolved = evaluation(&mut store, &model(Norm::Deconv), &shape);
        // Statistics that are those of no images, D symmetric.
        let mut tensors = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
        for (name, tensor) in &mut tensors {
            let random = noise(name, tensor.data.len());
            let f = *tensor.shape.last().unwrap();
            for i in 0..tensor.data.len() {
                let mirrored = i / (f * f) * f * f + i % f * f + i / f % f;
                if name.ends_with("running_mean") {
                    tensor.data[i] = 0.2 * random[i] as f32;
                } else if name.ends_with("running_deconv") {
                    let both = (random[i] + random[mirrored]) as f32 / f as f32;
                    tensor.data[i] = both + f32::from(u8::from(i / f % f == i % f));
                }
            }
        }
        checkpoint::to_store(&from, &tensors, &store, &checkpoint::MODEL).unwrap();
        checkpoint::save(&from, &tensors, &BTreeMap::new()).unwrap();
        let expected = run(&mut deconvolved);
        let count = decorr::train::export(&from, &out).unwrap();
        assert!(count >= 1, "{name}");
        let (plain, _) = checkpoint::load(&out).unwrap();
        let mut store = Store::new(&support::gpu(), 1);
        let mut program = evaluation(&mut store, &model(Norm::None), &shape);
        checkpoint::to_store(&out, &plain, &store, &checkpoint::MODEL).unwrap();
        let (error, _) = support::relative_error(&run(&mut program), &expected);
        assert!(error < 1e-4, "{name}: {error:e}");
        worst = worst.max(error);
        let text = decorr::train::export(&out, &from).unwrap_err().to_string();
        assert!(text.contains("no deconvolved layer"), "{text}");
    }
    support::report(&format!("7 folded networks, logits within {worst:.1e}"));
    channel_networks_of_linear_layers_fold_too(&from, &out);
}

/// A convolution that pads cannot hold channel deconvolution, and says so.
fn channel_networks_of_linear_layers_fold_too(from: &Path, out: &Path) {
    for (name, eps, folds) in [
        ("linear", None, true),
        ("linear", Some(0.5), true),
        ("mlp", None, true),
        ("mlp", Some(0.5), true),
        ("cnn", None, false),
    ] {
        let model = |norm| {
            let mut model = Model::new(name, norm, 10).unwrap();
            model.deconv.eps = eps.unwrap_or(model.deconv.eps);
            model
        };
        // As a run says what it was trained with; a file that does not is taken to have the default.
        let config = eps.map(|eps| ("config".into(), format!("eps = {eps:?}")));
        let metadata = BTreeMap::from_iter(config);
        let shape = [3, 1, 28, 28];
        let images: Vec<f32> = noise("images", 3 * 784).iter().map(|&v| v as f32).collect();
        let run = |program: &mut Program| {
            program.run(&[("images", &images)]).unwrap().values["logits"].clone()
        };
        let mut store = Store::new(&support::gpu(), 1);
        let mut channel = evaluation(&mut store, &model(Norm::Channel), &shape);
        let mut tensors = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
        for (name, tensor) in &mut tensors {
            let random = noise(name, tensor.data.len());
            let values = tensor.data.iter_mut().zip(random);
            match name.rsplit('.').next().unwrap() {
                "running_mean" | "running_rest_mean" => {
                    values.for_each(|(v, u)| *v = 0.2 * u as f32);
                }
                "running_deconv" => values.for_each(|(v, u)| *v += 0.1 * u as f32),
                "running_rest_var" => values.for_each(|(v, u)| *v = 1.0 + 0.5 * u as f32),
                _ => {}
            }
        }
        checkpoint::to_store(from, &tensors, &store, &checkpoint::MODEL).unwrap();
        checkpoint::save(from, &tensors, &metadata).unwrap();
        let expected = run(&mut channel);
        match decorr::train::export(from, out) {
            Ok(_) if folds => {
                let (plain, _) = checkpoint::load(out).unwrap();
                let mut store = Store::new(&support::gpu(), 1);
                let mut program = evaluation(&mut store, &model(Norm::None), &shape);
                checkpoint::to_store(out, &plain, &store, &checkpoint::MODEL).unwrap();
                let (error, _) = support::relative_error(&run(&mut program), &expected);
                assert!(error < 1e-4, "{name}: {error:e}");
            }
            Err(error) if !folds => {
                assert!(error.to_string().contains("pads with zeros"), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// torchvision's `kaiming_normal_`: by the outputs, DenseNet by the inputs. Widths are rounded to the nearest multiple of 8.
#[test]
fn first_weights_and_widths() {
    use decorr::graph::{Init, Kind};
    for (name, by_outputs) in [("resnet18", true), ("vgg11", true), ("densenet121", false)] {
        let mut model = Model::new(name, Norm::Batch, 10).unwrap();
        (model.form, model.width) = (Some(Form::Imagenet), 0.25);
        let graph = step_graph(&model, [2, 3, 224, 224], Mode::Train);
        let list = graph.list();
        let mut convolutions = 0;
        let biases = list
            .states()
            .iter()
            .filter(|(name, _)| name.ends_with(".bias"));
        for (name, &id) in biases {
            let is_zero = |init: &Init| matches!(init, Init::Constant(value) if *value == 0.0);
            let Kind::State(state) = &list.node(id).kind else {
                panic!("{name} is no state");
            };
            // A ResNet's last layer alone has PyTorch's own.
            let is_own = name == "fc.bias";
            assert_ne!(is_zero(&state.init), is_own, "{name}: {:?}", state.init);
        }
        for &id in list.states().values() {
            let node = list.node(id);
            let (Kind::State(state), &[o, i, k, _]) = (&node.kind, node.shape.dims()) else {
                continue;
            };
            if !node.name.ends_with(".weight") {
                continue;
            }
            let fan = k * k * if by_outputs { o } else { i };
            let std = (2.0 / fan as f32).sqrt();
            let is_as_wanted =
                matches!(state.init, Init::Normal(found) if (found / std - 1.0).abs() < 1e-6);
            assert!(
                is_as_wanted,
                "{name}: {} {} is {:?}, not {std}",
                node.name, node.shape, state.init
            );
            convolutions += 1;
        }
        assert!(convolutions >= 8, "{name}: {convolutions}");
    }
    // PyTorch's own in the other forms: uniform, biases too.
    for (name, side) in [
        ("vgg11", 32),
        ("resnet18", 32),
        ("densenet121", 32),
        ("cnn", 28),
    ] {
        let mut model = Model::new(name, Norm::None, 10).unwrap();
        let channels = if side == 28 { 1 } else { 3 };
        model.form = (side == 32).then_some(Form::Cifar);
        model.width = 0.25;
        let graph = step_graph(&model, [2, channels, side, side], Mode::Train);
        let list = graph.list();
        let mut learned = 0;
        for (name, &id) in list.states() {
            let Kind::State(state) = &list.node(id).kind else {
                panic!("{name} is no state");
            };
            let Some((layer, "weight" | "bias")) = name.rsplit_once('.') else {
                continue;
            };
            learned += 1;
            // Within 1 / sqrt(fan_in), which a bias has of its layer's weight.
            let weight = list.shape(list.states()[&format!("{layer}.weight")]);
            let fan_in: usize = weight.dims()[1..].iter().product();
            let bound = 1.0 / (fan_in as f32).sqrt();
            let is_own =
                matches!(state.init, Init::Uniform(found) if (found / bound - 1.0).abs() < 1e-6);
            assert!(is_own, "{name}: {:?}, not within {bound}", state.init);
        }
        assert!(learned >= 8, "{name}: {learned}");
    }
    for (width, channels) in [(0.22, 16), (0.18, 8), (0.2, 16), (1.3, 80), (0.01, 8)] {
        let mut model = Model::new("vgg11", Norm::None, 10).unwrap();
        (model.form, model.width) = (Some(Form::Cifar), width);
        let graph = step_graph(&model, [2, 3, 32, 32], Mode::Train);
        let list = graph.list();
        let first = list.states()["features.0.weight"];
        assert_eq!(list.shape(first).dims()[0], channels, "{width}");
    }
}

#[test]
fn every_network_has_a_training_step_in_every_form_with_every_norm() {
    for (model, images) in narrow_models() {
        let graph = step_graph(&model, images, Mode::Train);
        // All that is learned or followed changes in a step.
        let states = graph.list().states().len();
        let assigned = graph.list().assigns().len();
        let place = format!("{} {:?} {:?}", model.network.name, model.form, model.norm);
        assert_eq!(states, assigned, "{place}");
        // Frozen, one layer keeps its two running statistics.
        let frozen = step_graph(&model, images, Mode::TrainFrozen);
        let kept = assigned - frozen.list().assigns().len();
        let modes = model.modes(u64::MAX, FreezeCounter::new(100));
        let freezes = modes.contains(&Mode::TrainFrozen);
        assert_eq!(kept, if freezes { 2 } else { 0 }, "{place}");
    }
}

#[test]
fn a_step_of_every_family_is_finite() {
    // Those that no stored case has; a software adapter compiles for half a minute for each norm of the large ones.
    let families: [(_, &[Norm]); 3] = [
        ("vgg11", &[Norm::Channel]),
        ("resnet18", &[Norm::None, Norm::Channel]),
        ("resnet50", &[Norm::Deconv]),
    ];
    for (name, norms) in families {
        for &norm in norms {
            let mut model = Model::new(name, norm, 10).unwrap();
            model.width = 1.0 / 16.0;
            let shape = [4, 3, 32, 32];
            let graph = step_graph(&model, shape, Mode::Train);
            let mut store = Store::new(&support::gpu(), 1);
            let options = support::compile_options();
            let mut program = Program::compile(&graph, &mut store, options).unwrap();
            let images = noise("images", shape.iter().product());
            let images: Vec<f32> = images.into_iter().map(|v| v as f32).collect();
            let labels = [0.0, 1.0, 2.0, 3.0];
            let inputs = [("images", &*images), ("labels", &labels), ("lr", &[0.01])];
            let loss = program.run(&inputs).unwrap().scalar("loss").unwrap();
            let states = checkpoint::from_store(&store, &checkpoint::MODEL).unwrap();
            support::report(&format!("{name} {}: loss {loss:.3}", norm.name()));
            assert!(loss.is_finite(), "{name} {norm:?}");
            for (state, tensor) in states {
                let finite = tensor.data.iter().all(|v| v.is_finite());
                assert!(finite, "{name} {norm:?}: {state}");
            }
        }
    }
}

#[test]
fn images_that_do_not_fit_are_refused_with_advice() {
    let refuse = |name: &str, form: Option<Form>, side: usize, wanted: &[&str]| {
        let mut model = Model::new(name, Norm::Deconv, 10).unwrap();
        model.form = form;
        let g = Graph::new();
        let x = g.input("images", [2, 1, side, side]);
        model.forward(x, Mode::Train);
        let text = g.check().unwrap_err().to_string();
        for part in wanted {
            assert!(text.contains(part), "no {part:?} in: {text}");
        }
    };
    refuse("vgg11", None, 28, &["vgg11", "28 x 28", "`model` cnn"]);
    refuse("vgg11", Some(Form::Imagenet), 32, &["224", "`form` cifar"]);
    refuse("vgg16", None, 200, &["224"]);
    refuse("densenet121", None, 4, &["densenet121", "4 x 4"]);
    refuse("cnn", None, 4, &["cnn", "4 x 4"]);
    // Of the sides that fit, each in its direction, but not square.
    let mut model = Model::new("vgg11", Norm::None, 10).unwrap();
    (model.form, model.width) = (Some(Form::Imagenet), 1.0 / 16.0);
    for (h, w, fits) in [(224, 224, true), (448, 448, true), (448, 224, false)] {
        let g = Graph::new();
        model.forward(g.input("images", [1, 3, h, w]), Mode::Eval);
        assert_eq!(g.check().is_ok(), fits, "{h} x {w}");
    }
}

#[test]
fn the_form_goes_by_the_images_unless_it_is_chosen() {
    let mut model = Model::new("resnet18", Norm::Batch, 10).unwrap();
    assert_eq!(model.form(32, 32), Form::Cifar);
    assert_eq!(model.form(64, 64), Form::Cifar);
    assert_eq!(model.form(224, 224), Form::Imagenet);
    // By the longer side.
    assert_eq!(model.form(65, 20), Form::Imagenet);
    assert_eq!(model.form(20, 65), Form::Imagenet);
    model.form = Some(Form::Cifar);
    assert_eq!(model.form(224, 224), Form::Cifar);
    let cnn = Model::new("cnn", Norm::Deconv, 10).unwrap();
    assert_eq!(cnn.form(224, 224), Form::Cifar);
}

#[test]
fn unknown_networks_are_refused_with_the_known_ones() {
    let text = Model::new("vgg12", Norm::Deconv, 10)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("vgg12") && text.contains("densenet121"),
        "{text}"
    );
}
