//! A trained network: whose weights these are, what images it takes, and what it says of them.

#[cfg(feature = "pictures")]
mod pictures;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::{self, HostTensor, Tensors};
use super::config::TrainConfig;
use super::fold;
use super::graphs::normalised;
use super::interface::Interface;
use super::options::TrainOptions;
use super::prediction::Prediction;
use super::predictor::Forward;
use crate::data::{self, Transform};
use crate::gpu::{AdapterChoice, Gpu};
use crate::graph::{Graph, Kind, Tensor};
use crate::models::{ConvInput, Form, Model, Network, Norm, network, networks};
use crate::nn::{DeconvOptions, Mode, part_of_weight};
use crate::program::Store;
use crate::{Error, Result};

/// Pictures that go through the network together.
const MOST: usize = 32;

/// The last layer of each network, of which a file has one.
const LAST_LAYERS: [&str; 4] = [
    "classifier.6.weight",
    "classifier.weight",
    "fc4.weight",
    "fc.weight",
];

/// The first convolution of each network, likewise.
const STEMS: [&str; 3] = ["features.0.weight", "features.conv0.weight", "conv1.weight"];

/// A trained network: its weights, in host memory, and what has to be known to use them.
#[derive(Debug)]
pub struct Trained {
    /// Where it was read from, for messages.
    path: PathBuf,
    tensors: Tensors,
    /// Whether the optimiser's states are among the tensors.
    is_state: bool,
    model: Model,
    config: TrainConfig,
    /// What the file says that it was trained by.
    written: Option<TrainOptions>,
    transform: Transform,
    class_names: Arc<[String]>,
    gpu: Option<Arc<Gpu>>,
    /// The network on a device, with these weights.
    on_device: Option<(Store, Forward)>,
}

impl Trained {
    /// Reads the network in `path`: the folder of a run, a checkpoint of one, or a state dict of PyTorch's as safetensors
    /// with the names of torchvision. It predicts on `gpu`.
    ///
    /// # Errors
    /// As [`Trained::read`].
    pub fn open(gpu: &Arc<Gpu>, path: &Path) -> Result<Self> {
        Self::open_with(gpu, path, TrainOptions::default())
    }

    /// As [`Trained::open`], with what a state dict does not say.
    ///
    /// # Errors
    /// As [`Trained::read`].
    pub fn open_with(gpu: &Arc<Gpu>, path: &Path, options: TrainOptions) -> Result<Self> {
        Ok(Self {
            gpu: Some(Arc::clone(gpu)),
            ..Self::read(path, options)?
        })
    }

    /// As [`Trained::open`], without a device: predictions are then made on the default one.
    ///
    /// A file of decorr's says what it is of. Of a state dict, number of classes, channels, form and norm are taken from
    /// the tensors, and so is which VGG, `ResNet` or `DenseNet` it is of; `options` may say `model`, `norm`, `form` and `width`,
    /// and by `data` and `image_size` what images it takes. Without these it takes those of ImageNet, or in the CIFAR form
    /// those of CIFAR.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] if it is damaged, or says something else than `options`, or nothing says which
    /// network it is of, [`Error::Config`] for options that are none.
    pub fn read(path: &Path, options: TrainOptions) -> Result<Self> {
        let file = checkpoint::file_of(path)?;
        Self::decode(&file, &checkpoint::read(&file)?, options)
    }

    /// As [`Trained::read`], from the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Trained::read`].
    pub fn decode(path: &Path, bytes: &[u8], options: TrainOptions) -> Result<Self> {
        let (tensors, metadata) = checkpoint::decode(path, bytes)?;
        let written = checkpoint::written_options(path, &metadata)?;
        // The names of a set's classes are a guess where the set is one.
        let is_known = written.is_some() || options.data.is_some();
        let size = options.image_size;
        let below = match &written {
            Some(written) => {
                refuse_others(path, &options, written)?;
                written.clone()
            }
            None => found_in(path, &tensors, &options)?,
        };
        let config = TrainConfig::resolve(options.over(below));
        let config = config.map_err(|e| Error::checkpoint(path, e.to_string()))?;
        let set = data::find_set(&config.data)?;
        let (shape, _) = data::shape(&config.data, None, config.data_options.image_size)?;
        let below = Interface {
            shape,
            mean: set.mean.to_vec(),
            std: set.std.to_vec(),
            class_names: set.class_names.iter().map(|n| (*n).to_string()).collect(),
        };
        let mut interface = Interface::read(path, &metadata, Some(below))?;
        let [channels, height, width] = &mut interface.shape;
        if !matches!(channels, 1 | 3) {
            let message = format!("is for images of {channels} channels: pictures have 1 or 3");
            return Err(Error::checkpoint(path, message));
        }
        let classes = match last_layer(&tensors) {
            Some((_, classes)) => classes,
            None => set.classes,
        };
        let mut model = config.model(classes);
        // The images that are looked at may have another size than those it was trained on.
        model.form = Some(model.form(*height, *width));
        if let Some(size) = size {
            (*height, *width) = (size, size);
        }
        if !is_known || interface.class_names.len() != classes {
            interface.class_names.clear();
        }
        Ok(Self {
            path: path.to_path_buf(),
            is_state: checkpoint::is_state(&metadata),
            tensors,
            model,
            transform: transform(&interface, &config),
            config,
            written,
            class_names: interface.class_names.into(),
            gpu: None,
            on_device: None,
        })
    }

    /// A network that is in memory, as it is now.
    #[cfg(feature = "draw")]
    pub(super) fn of_store(
        store: &Store,
        model: &Model,
        config: &TrainConfig,
        interface: Interface,
    ) -> Result<Self> {
        let [_, height, width] = interface.shape;
        Ok(Self {
            path: PathBuf::from("the network in memory"),
            tensors: checkpoint::from_store(store, &checkpoint::MODEL)?,
            is_state: false,
            model: Model {
                form: Some(model.form(height, width)),
                ..*model
            },
            config: config.clone(),
            written: Some(config.options.clone()),
            transform: transform(&interface, config),
            class_names: interface.class_names.into(),
            gpu: Some(Arc::clone(store.gpu())),
            on_device: None,
        })
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The images that it takes, [C, H, W].
    pub fn input_shape(&self) -> [usize; 3] {
        self.transform.shape
    }

    /// Names of its classes in the order of their numbers; none if they are not known.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// What the file says that it was trained by; of a state dict, which network it is.
    pub(super) fn trained_by(&self) -> TrainOptions {
        self.written.clone().unwrap_or_else(|| TrainOptions {
            model: self.config.options.model.clone(),
            norm: self.config.options.norm,
            ..TrainOptions::default()
        })
    }

    /// Channels that its layers decorrelate together; 64, the default of decorr, if they do not.
    pub fn block(&self) -> usize {
        match self.model.norm {
            Norm::Deconv => self.model.deconv.block,
            _ => DeconvOptions::default().block,
        }
    }

    /// The same network without deconvolution, D and the running means folded into weights and biases, and how many layers
    /// were folded.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for channel deconvolution before a convolution with padding, which cannot be folded.
    pub fn folded(&self) -> Result<(Self, usize)> {
        let folded = fold::folded(&self.tensors, self.model.deconv.eps);
        let (tensors, count) = folded.map_err(|e| Error::checkpoint(&self.path, e))?;
        let mut model = self.model;
        if matches!(model.norm, Norm::Deconv | Norm::Channel) {
            model.norm = Norm::None;
        }
        let trained = Self {
            path: self.path.clone(),
            tensors,
            is_state: self.is_state,
            model,
            config: self.config.clone(),
            written: self.written.clone(),
            transform: self.transform.clone(),
            class_names: Arc::clone(&self.class_names),
            gpu: self.gpu.clone(),
            on_device: None,
        };
        Ok((trained, count))
    }

    /// Refuses images that the network is not for.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] saying what it is for.
    pub(super) fn refuse_other(&self, name: &str, channels: usize, classes: usize) -> Result<()> {
        let fail = |what: &str, tensor: &str, shape: &[usize], own: usize, other: usize| {
            let message = format!(
                "is of {own} {what} by its {tensor} {shape:?}, and `data` {name} has {other}. Name the data that it is for: \
                 `data`, and with `data` folder, as for ImageNet, `data_dir` DIR"
            );
            Err(Error::checkpoint(&self.path, message))
        };
        if let Some((stem, tensor)) = stem(&self.tensors)
            && tensor.shape[1] != channels
        {
            return fail("channels", stem, &tensor.shape, tensor.shape[1], channels);
        }
        match last_layer(&self.tensors) {
            Some((layer, own)) if own != classes => {
                let shape = &self.tensors[layer].shape;
                fail("classes", layer, shape, own, classes)
            }
            _ => Ok(()),
        }
    }

    /// Refuses to give a state dict images of another number of channels than it takes.
    fn check_channels(&self) -> Result<()> {
        let [channels, ..] = self.transform.shape;
        match stem(&self.tensors) {
            Some((name, tensor)) if tensor.shape[1] != channels => {
                let message = format!(
                    "takes images of {} channels by its {name} {:?}, and those of `data` {} have {channels}: name the `data` \
                     that it was trained on",
                    tensor.shape[1], tensor.shape, self.config.data
                );
                Err(Error::checkpoint(&self.path, message))
            }
            _ => Ok(()),
        }
    }

    /// Appends normalisation and the network up to its `n`-th convolution, from 1, to `image` [1, C, H, W]
    /// with values in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer convolutions, [`Error::Shape`] if the image is too small.
    pub fn conv_input<'g>(&self, image: Tensor<'g>, n: usize) -> Result<ConvInput<'g>> {
        let x = normalised(image, &self.transform.mean, &self.transform.std);
        let input = self.model.conv_input(x, Mode::Eval, n);
        input.map_err(|e| match e {
            // What to do about it is another thing than in training.
            Error::Shape { op, .. } => {
                let [_, _, h, w] = image.dims();
                let message = format!(
                    "has {w} x {h} pixels, of which nothing is left before convolution {n}: take a larger image, or \
                     an earlier `layer`"
                );
                Error::shape(op, message)
            }
            e => e,
        })
    }

    /// Gives the store, whose programs have some of its layers, their parameters and statistics.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming what is missing or of another shape.
    pub fn fill(&self, store: &Store) -> Result<()> {
        checkpoint::part_to_store(&self.path, &self.tensors, store, &checkpoint::MODEL)
    }

    /// As [`Trained::fill`], for a store with the whole network: what the file has beside it is refused.
    ///
    /// # Errors
    /// As [`Trained::fill`].
    pub(super) fn fill_whole(&self, store: &Store) -> Result<()> {
        match self.is_state {
            true => self.fill(store),
            false => checkpoint::to_store(&self.path, &self.tensors, store, &checkpoint::MODEL),
        }
    }

    /// What the network says of images that are prepared already: each is [C, H, W], of the size of [`Trained::input_shape`] and
    /// normalised. As `predict`, of what `input` gave.
    ///
    /// # Errors
    /// [`Error::Shape`] for inputs of another size and networks that take none of this size, [`Error::Checkpoint`] for
    /// tensors that do not fit the network, or if it gives what is no number; what the device reported.
    pub fn predict_inputs(&mut self, inputs: &[Vec<f32>]) -> Result<Vec<Prediction>> {
        let len: usize = self.transform.shape.iter().product();
        if let Some(other) = inputs.iter().find(|input| input.len() != len) {
            let message = format!("an image has {} values, not {len}", other.len());
            return Err(Error::shape("predict", message));
        }
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let (mut store, mut forward) = match self.on_device.take() {
            Some(there) => there,
            None => self.put_on_device(inputs.len())?,
        };
        let logits = forward.predict(&mut store, &inputs.concat());
        self.on_device = Some((store, forward));
        let logits = logits?;
        if logits.iter().any(|v| !v.is_finite()) {
            let message = "gives no numbers for an image: it is damaged, or did not learn";
            return Err(Error::checkpoint(&self.path, message));
        }
        Ok(Prediction::of_rows(
            &logits,
            self.model.classes,
            &self.class_names,
        ))
    }

    /// The network with its weights on a device, compiled for `count` pictures at once or as many as fit.
    fn put_on_device(&mut self, count: usize) -> Result<(Store, Forward)> {
        self.check_channels()?;
        let gpu = match &self.gpu {
            Some(gpu) => Arc::clone(gpu),
            None => Arc::clone(self.gpu.insert(Gpu::open(&AdapterChoice::default())?)),
        };
        let mut store = Store::new(&gpu, 1);
        // Those of a training on a GPU would take minutes to compile for a CPU.
        if !gpu.is_software() {
            self.config.choose_kernels(&mut store)?;
        }
        let (model, shape) = (Arc::new(self.model), self.transform.shape);
        let mut forward = Forward::of_normalised(model, shape, MOST);
        forward.prepare(&mut store, count)?;
        self.fill_whole(&store)?;
        Ok((store, forward))
    }
}

/// How a picture becomes the input of a network that was trained by `config`.
fn transform(interface: &Interface, config: &TrainConfig) -> Transform {
    Transform {
        shape: interface.shape,
        mean: interface.mean.clone(),
        std: interface.std.clone(),
        crops: config.data == data::FOLDER,
    }
}

/// Refuses options that are other than those that the file itself says.
fn refuse_others(path: &Path, options: &TrainOptions, written: &TrainOptions) -> Result<()> {
    fn is_other<T: PartialEq>(given: &Option<T>, written: &Option<T>) -> bool {
        given.is_some() && given != written
    }
    let other = [
        ("model", is_other(&options.model, &written.model)),
        ("norm", is_other(&options.norm, &written.norm)),
        ("form", is_other(&options.form, &written.form)),
        ("data", is_other(&options.data, &written.data)),
    ];
    match other.iter().find(|(_, is_other)| *is_other) {
        Some((name, _)) => {
            let message = format!("says itself what it is of: leave `{name}` out");
            Err(Error::checkpoint(path, message))
        }
        None => Ok(()),
    }
}

/// The options of a state dict that says nothing of itself: those given, and what the tensors tell.
fn found_in(path: &Path, tensors: &Tensors, options: &TrainOptions) -> Result<TrainOptions> {
    let norm = options.norm.unwrap_or(norm_of(tensors));
    let form = options.form.or(form_of(tensors));
    let chosen = match &options.model {
        Some(name) => Some(network(name)?),
        None => network_of(tensors, norm, form),
    };
    let Some(network) = chosen else {
        return Err(Error::checkpoint(
            path,
            "does not say which network it is of, as those of decorr do, and has not the tensors of a VGG, ResNet or \
             DenseNet: name `model`, `norm` and, if it has two, `form`",
        ));
    };
    let form = form.filter(|_| !network.forms.is_empty());
    let classes = last_layer(tensors).map(|(_, classes)| classes);
    let data = match (form, classes) {
        (Some(Form::Imagenet), _) => Some("folder".to_string()),
        (Some(Form::Cifar), Some(100)) => Some("cifar100".to_string()),
        (Some(Form::Cifar), _) => Some("cifar10".to_string()),
        (None, _) => None,
    };
    Ok(TrainOptions {
        model: Some(network.name.into()),
        norm: Some(norm),
        form,
        data,
        ..TrainOptions::default()
    })
}

/// By the running statistics.
fn norm_of(tensors: &Tensors) -> Norm {
    let mut layers = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".running_deconv"));
    match layers.next() {
        // Channel deconvolution is a layer without weights of its own.
        Some(layer) if tensors.contains_key(&format!("{layer}.weight")) => Norm::Deconv,
        Some(_) => Norm::Channel,
        None if tensors.keys().any(|name| name.ends_with(".running_var")) => Norm::Batch,
        None => Norm::None,
    }
}

/// By the stem, or of a VGG, whose stems are the same, by the head.
fn form_of(tensors: &Tensors) -> Option<Form> {
    let (name, stem) = stem(tensors)?;
    let is_large = match name {
        "features.0.weight" => tensors.contains_key("classifier.6.weight"),
        _ => stem.shape[2] == 7,
    };
    Some(if is_large {
        Form::Imagenet
    } else {
        Form::Cifar
    })
}

/// The one of those with forms, whose names are torchvision's, that has tensors of these names.
fn network_of(tensors: &Tensors, norm: Norm, form: Option<Form>) -> Option<&'static Network> {
    let (_, stem) = stem(tensors)?;
    let found: BTreeSet<&str> = tensors.keys().map(String::as_str).collect();
    let side = if form == Some(Form::Imagenet) {
        224
    } else {
        32
    };
    networks().filter(|n| !n.forms.is_empty()).find(|network| {
        let Ok(model) = Model::new(network.name, norm, 1) else {
            return false;
        };
        let g = Graph::new();
        let x = g.input("images", [1, stem.shape[1].max(1), side, side]);
        Model { form, ..model }.forward(x, Mode::Eval);
        let list = g.list();
        let states = list.nodes().iter().filter_map(|node| match &node.kind {
            Kind::State(state) if checkpoint::MODEL.contains(&state.role) => {
                let whole = part_of_weight(&node.name).map(|(whole, _)| whole);
                Some(whole.unwrap_or(&node.name))
            }
            _ => None,
        });
        !g.has_failed() && states.collect::<BTreeSet<&str>>() == found
    })
}

/// Name and number of classes.
fn last_layer(tensors: &Tensors) -> Option<(&'static str, usize)> {
    let found = |name: &&'static str| Some((*name, *tensors.get(*name)?.shape.first()?));
    LAST_LAYERS.iter().find_map(found)
}

/// Which of the layers with these states is the last.
pub(super) fn last_layer_of(states: &[&str]) -> Option<&'static str> {
    let is_there = |weight: &&&'static str| {
        let has = |name: &&str| part_of_weight(name).map_or(*name, |(whole, _)| whole) == **weight;
        states.iter().any(has)
    };
    let weight = LAST_LAYERS.iter().find(is_there)?;
    weight.strip_suffix(".weight")
}

/// Name and weight [O, C, k, k].
fn stem(tensors: &Tensors) -> Option<(&'static str, &HostTensor)> {
    let found = |name: &&'static str| Some((*name, tensors.get(*name)?));
    let stem = STEMS.iter().find_map(found);
    stem.filter(|(_, weight)| weight.shape.len() == 4)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A network of 7 classes for images of 3 channels, of which nothing but that is looked at.
    fn read(text: &str, metadata: &BTreeMap<String, String>) -> Trained {
        let tensor = |shape: &[usize]| HostTensor {
            shape: shape.to_vec(),
            data: vec![0.5; shape.iter().product()],
        };
        let tensors = Tensors::from([
            ("conv1.weight".to_string(), tensor(&[8, 3, 5, 5])),
            ("fc.weight".to_string(), tensor(&[7, 4])),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net.safetensors");
        checkpoint::save(&path, &tensors, metadata).unwrap();
        Trained::read(&path, toml::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn other_images_are_refused_with_what_the_network_and_the_data_have() {
        let of_mnist = read("model = 'cnn'", &BTreeMap::new());
        assert_eq!(
            (of_mnist.model().classes, of_mnist.input_shape()),
            (7, [1, 28, 28])
        );
        for (name, channels, classes, wanted) in [
            (
                "mnist",
                1,
                10,
                "is of 3 channels by its conv1.weight [8, 3, 5, 5], and `data` mnist has 1.",
            ),
            (
                "cifar10",
                3,
                10,
                "is of 7 classes by its fc.weight [7, 4], and `data` cifar10 has 10.",
            ),
        ] {
            let refused = of_mnist.refuse_other(name, channels, classes);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        of_mnist.refuse_other("cifar10", 3, 7).unwrap();
        let error = of_mnist.check_channels().unwrap_err().to_string();
        let wanted = "takes images of 3 channels by its conv1.weight [8, 3, 5, 5], and those of `data` fashion-mnist have 1:";
        assert!(error.contains(wanted), "{error}");
        #[cfg(feature = "pictures")]
        {
            let grey = crate::Picture {
                channels: 1,
                height: 2,
                width: 2,
                data: vec![0.0; 4],
            };
            let of_picture = of_mnist.prepare(&grey, 28).unwrap_err().to_string();
            assert_eq!(of_picture, error);
        }
        read("model = 'cnn'\ndata = 'cifar10'", &BTreeMap::new())
            .check_channels()
            .unwrap();
    }

    #[test]
    fn channels_go_together_as_in_the_layers_that_deconvolve() {
        let block = |config: &str| {
            let metadata = BTreeMap::from([("config".to_string(), config.to_string())]);
            read("", &metadata).block()
        };
        assert_eq!(block("model = 'cnn'\nnorm = 'deconv'\nblock = 16"), 16);
        assert_eq!(block("model = 'cnn'\nnorm = 'deconv'"), 64);
        assert_eq!(block("model = 'cnn'\nnorm = 'channel'\nblock = 16"), 64);
        assert_eq!(block("model = 'cnn'\nnorm = 'batch'"), 64);
    }

    #[test]
    fn names_of_classes_are_those_of_the_file_if_there_is_one_for_each() {
        let names = |text: &str, entries: &[(&str, &str)]| {
            let entry = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
            let metadata = entries.iter().map(entry).collect();
            read(text, &metadata).class_names().join(" ")
        };
        let config = ("config", "model = 'cnn'\ndata = 'cifar10'");
        let seven = ("classes", r#"["a","b","c","d","e","f","g"]"#);
        assert_eq!(names("", &[config, seven]), "a b c d e f g");
        let model = "model = 'cnn'\ndata = 'cifar10'";
        assert_eq!(names(model, &[seven]), "a b c d e f g");
        for of_file in [r#"["a","b","c","d","e","f"]"#, "[]"] {
            assert_eq!(names("", &[config, ("classes", of_file)]), "", "{of_file}");
        }
        // Ten of CIFAR-10.
        assert_eq!(names("", &[config]), "");
        assert_eq!(names(model, &[]), "");
    }
}
