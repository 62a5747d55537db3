//! A trained network: whose weights these are, what images it takes, and what it says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use super::checkpoint::{self, CLASS_NAMES, HostTensor, Tensors};
use super::config::{NormName, TrainConfig, TrainOptions};
use super::fold;
use super::graphs::prediction_step;
use crate::data::{self, DataSet, Transform};
use crate::decode::{self, Room};
use crate::gpu::{AdapterChoice, Gpu};
use crate::graph::{Graph, Init, Kind, Role, Tensor};
use crate::models::{ConvInput, Form, Model, Network, Norm, network, networks};
use crate::nn::{DeconvOptions, Mode, part_of_weight};
use crate::picture::Picture;
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Entries of a file's metadata, each a JSON text.
const INPUT_SHAPE: &str = "input_shape";
const MEAN: &str = "mean";
const STD: &str = "std";
const VERSION: &str = "decorr_version";

/// Pictures that go through the network together.
const MOST: usize = 32;

/// Bytes of a pixel that is resized.
const OF_RGB: u64 = 3;

/// Images with a longer side are no input of a network here.
const LONGEST_SIDE: usize = 1 << 16;

/// The last layer of each network, of which a file has one.
const LAST_LAYERS: [&str; 4] = [
    "classifier.6.weight",
    "classifier.weight",
    "fc4.weight",
    "fc.weight",
];

/// The first convolution of each network, likewise.
const STEMS: [&str; 3] = ["features.0.weight", "features.conv0.weight", "conv1.weight"];

/// What a network takes and gives.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) transform: Transform,
    /// In the order of their numbers; none if they are not known.
    pub(super) class_names: Vec<String>,
}

impl Interface {
    /// Of a network that is trained on `set` by `config`.
    pub(super) fn of(config: &TrainConfig, set: &DataSet) -> Self {
        let images = &set.train;
        Self {
            transform: Transform {
                shape: [images.channels, images.height, images.width],
                mean: set.mean.clone(),
                std: set.std.clone(),
                crops: config.data == data::FOLDER,
            },
            class_names: set.class_names.clone(),
        }
    }

    /// What the metadata of a file says of it.
    ///
    /// # Errors
    /// None but bugs.
    pub(super) fn write(&self, metadata: &mut BTreeMap<String, String>) -> Result<()> {
        let mut add = |key: &str, value: serde_json::Result<String>| {
            let text = value.map_err(|e| Error::bug(format!("{key} cannot be written: {e}")))?;
            metadata.insert(key.into(), text);
            Ok(())
        };
        add(INPUT_SHAPE, serde_json::to_string(&self.transform.shape))?;
        add(MEAN, serde_json::to_string(&self.transform.mean))?;
        add(STD, serde_json::to_string(&self.transform.std))?;
        add(VERSION, serde_json::to_string(env!("CARGO_PKG_VERSION")))?;
        if !self.class_names.is_empty() {
            add(CLASS_NAMES, serde_json::to_string(&self.class_names))?;
        }
        Ok(())
    }

    /// What the file at `path` says; what it does not say is as `config` has it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what makes no sense.
    fn read(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        config: &TrainConfig,
    ) -> Result<Self> {
        let set = data::find_set(&config.data)?;
        let (shape, _) = data::shape(&config.data, None, config.data_options.image_size)?;
        let of_set = |names: &[&str]| names.iter().map(|n| (*n).to_string()).collect();
        let class_names = checkpoint::class_names(path, metadata)?;
        let transform = Transform {
            shape: entry(path, metadata, INPUT_SHAPE)?.unwrap_or(shape),
            mean: entry(path, metadata, MEAN)?.unwrap_or(set.mean.to_vec()),
            std: entry(path, metadata, STD)?.unwrap_or(set.std.to_vec()),
            crops: config.data == data::FOLDER,
        };
        let [channels, height, width] = transform.shape;
        let sides = 1..=LONGEST_SIDE;
        let is_mean = |v: &f32| v.is_finite();
        let is_std = |v: &f32| v.is_finite() && *v > 0.0;
        let makes_sense = matches!(channels, 1 | 3)
            && sides.contains(&height)
            && sides.contains(&width)
            && transform.mean.len() == channels
            && transform.std.len() == channels
            && transform.mean.iter().all(is_mean)
            && transform.std.iter().all(is_std);
        if !makes_sense {
            let message = format!(
                "its `{INPUT_SHAPE}` {:?}, `{MEAN}` {:?} and `{STD}` {:?} are damaged: [C, H, W] with 1 or 3 channels, and \
                 a number for each channel",
                transform.shape, transform.mean, transform.std
            );
            return Err(Error::checkpoint(path, message));
        }
        Ok(Self {
            transform,
            class_names: class_names.unwrap_or_else(|| of_set(set.class_names)),
        })
    }
}

fn entry<T: DeserializeOwned>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<T>> {
    let read = |text: &String| {
        serde_json::from_str(text)
            .map_err(|e| Error::checkpoint(path, format!("its `{key}` is damaged: {e}")))
    };
    metadata.get(key).map(read).transpose()
}

/// A trained network: its weights, in host memory, and what has to be known to use them.
///
/// ```no_run
/// use std::path::Path;
///
/// use decorr::Picture;
/// use decorr::gpu::{AdapterChoice, Gpu};
/// use decorr::train::Trained;
///
/// # fn main() -> decorr::Result<()> {
/// let gpu = Gpu::open(&AdapterChoice::default())?;
/// let mut trained = Trained::open(&gpu, Path::new("runs/a"))?;
/// for prediction in trained.predict(&[Picture::read(Path::new("cat.png"))?])? {
///     for guess in prediction.top(5) {
///         println!("{guess}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
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
    predictor: Option<Predictor>,
}

/// A network on a device.
#[derive(Debug)]
struct Predictor {
    store: Store,
    program: Program,
    /// Pictures of a step.
    batch: usize,
    /// Whether no more fit.
    is_largest: bool,
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
        let mut interface = Interface::read(path, &metadata, &config)?;
        let [_, height, width] = &mut interface.transform.shape;
        let of_set = data::find_set(&config.data)?.classes;
        let classes = match last_layer(&tensors) {
            Some((_, classes)) => classes,
            None => of_set,
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
            is_state: metadata.contains_key("seconds"),
            tensors,
            model,
            config,
            written,
            transform: interface.transform,
            class_names: interface.class_names.into(),
            gpu: None,
            predictor: None,
        })
    }

    /// A network that is in memory, as it is now.
    pub(super) fn of_store(
        store: &Store,
        model: &Model,
        config: &TrainConfig,
        interface: Interface,
    ) -> Result<Self> {
        let [_, height, width] = interface.transform.shape;
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
            transform: interface.transform,
            class_names: interface.class_names.into(),
            gpu: Some(Arc::clone(store.gpu())),
            predictor: None,
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
            predictor: None,
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
                "is of {own} {what} by its {tensor} {shape:?}, and --data {name} has {other}. Name the data that it is for: \
                 --data, and with --data folder, as for ImageNet, --data-dir DIR"
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
                    "takes images of {} channels by its {name} {:?}, and those of --data {} have {channels}: name the --data \
                     that it was trained on",
                    tensor.shape[1], tensor.shape, self.config.data
                );
                Err(Error::checkpoint(&self.path, message))
            }
            _ => Ok(()),
        }
    }

    /// `picture` with the channels that the network takes, no side longer than `side`.
    ///
    /// # Errors
    /// [`Error::Config`] for a side of 0, [`Error::Checkpoint`] if the file does not say what images the network takes.
    pub fn prepare(&self, picture: &Picture, side: usize) -> Result<Picture> {
        self.check_channels()?;
        let [channels, ..] = self.transform.shape;
        Ok(picture.scaled_down(side)?.with_channels(channels))
    }

    /// Appends normalisation and the network up to its `n`-th convolution, from 1, to `image` [1, C, H, W]
    /// with values in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer convolutions, [`Error::Shape`] if the image is too small.
    pub fn conv_input<'g>(&self, image: Tensor<'g>, n: usize) -> Result<ConvInput<'g>> {
        let per_channel = |name: &str, values: &[f32]| {
            let init = Init::Values(values.to_vec().into());
            let shape = [1, values.len(), 1, 1];
            image.graph().state(name, shape, Role::Scratch, init)
        };
        let mean = per_channel("normalise.mean", &self.transform.mean);
        let std = per_channel("normalise.std", &self.transform.std);
        let x = (image - mean) / std;
        let input = self.model.conv_input(x, Mode::Eval, n);
        input.map_err(|e| match e {
            // What to do about it is another thing than in training.
            Error::Shape { op, .. } => {
                let [_, _, h, w] = image.dims();
                let message = format!(
                    "has {w} x {h} pixels, of which nothing is left before convolution {n}: take a larger image, or \
                     an earlier --layer"
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

    /// What `picture` becomes before it goes into the network: its values, [C, H, W]. It is brought to the network's size as
    /// the test images of the training's data set are, to 8 bits a channel, grey or colour as the network takes it, and
    /// normalised. Of a picture of another shape the middle is taken, and of one for a network of `--data folder` 7/8 of that.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not 1 or 3 planes of its size.
    pub fn input(&self, picture: &Picture) -> Result<Vec<f32>> {
        let fail = |what: String| Error::Config(format!("a picture {what}"));
        let (height, width) = (picture.height, picture.width);
        if !matches!(picture.channels, 1 | 3)
            || picture.data.is_empty()
            || picture.data.len() != picture.channels * height * width
        {
            return Err(fail(format!(
                "of {} channels and {width} x {height} pixels has {} values: it is to be 1 or 3 planes",
                picture.channels,
                picture.data.len()
            )));
        }
        let plane = height * width;
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        // Grey is the same in all three.
        let of = |c: usize, i: usize| byte(picture.data[(c % picture.channels) * plane + i]);
        let bytes = (0..plane).flat_map(|i| [0, 1, 2].map(|c| of(c, i)));
        let image = RgbImage::from_raw(width as u32, height as u32, bytes.collect());
        let image = image.ok_or_else(|| fail("has too many pixels".into()))?;
        let mut input = Vec::new();
        self.transform.append(&image, &mut input).map_err(fail)?;
        Ok(input)
    }

    /// As [`Trained::input`], of the picture in a file. It takes less memory than a [`Picture`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is no whole picture, or too large.
    pub fn read_input(&self, path: &Path) -> Result<Vec<f32>> {
        let decoded = decode::read(path, Room::of(OF_RGB))?;
        let mut input = Vec::new();
        let image = decoded.image.into_rgb8();
        let appended = self.transform.append(&image, &mut input);
        appended.map_err(|e| Error::data(path, e))?;
        Ok(input)
    }

    /// What the network says of each picture, of any size, grey or colour.
    ///
    /// The first call compiles a program and puts the weights on the device; others take the same one, for up to 32 pictures at
    /// once.
    ///
    /// # Errors
    /// Those of [`Trained::input`] and [`Trained::predict_inputs`].
    pub fn predict(&mut self, pictures: &[Picture]) -> Result<Vec<Prediction>> {
        let mut predictions = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(MOST) {
            let inputs: Result<Vec<_>> = pictures.iter().map(|p| self.input(p)).collect();
            predictions.extend(self.predict_inputs(&inputs?)?);
        }
        Ok(predictions)
    }

    /// As [`Trained::predict`], of what [`Trained::input`] gave.
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
        let mut predictions = Vec::with_capacity(inputs.len());
        if inputs.is_empty() {
            return Ok(predictions);
        }
        self.compile(inputs.len().min(MOST))?;
        let Some(Predictor { program, batch, .. }) = &mut self.predictor else {
            return Err(Error::bug("there is no program to predict with"));
        };
        let mut images = Vec::new();
        for inputs in inputs.chunks(*batch) {
            images.clear();
            inputs.iter().for_each(|input| images.extend(input));
            images.resize(*batch * len, 0.0);
            let outputs = program.run(&[("images", &images)])?;
            let logits = outputs.values.get("logits").map_or(&[][..], Vec::as_slice);
            for logits in logits
                .chunks_exact(self.model.classes.max(1))
                .take(inputs.len())
            {
                if logits.iter().any(|v| !v.is_finite()) {
                    let message = "gives no numbers for an image: it is damaged, or did not learn";
                    return Err(Error::checkpoint(&self.path, message));
                }
                predictions.push(Prediction {
                    logits: logits.to_vec(),
                    class_names: Arc::clone(&self.class_names),
                });
            }
        }
        Ok(predictions)
    }

    /// Makes a program for `wanted` pictures at once, or as many as fit, unless there is one.
    fn compile(&mut self, wanted: usize) -> Result<()> {
        if let Some(there) = &self.predictor
            && (there.batch >= wanted || there.is_largest)
        {
            return Ok(());
        }
        self.check_channels()?;
        let gpu = match &self.gpu {
            Some(gpu) => Arc::clone(gpu),
            None => Arc::clone(self.gpu.insert(Gpu::open(&AdapterChoice::default())?)),
        };
        let mut batch = wanted;
        let (store, program) = loop {
            let [channels, height, width] = self.transform.shape;
            let graph = prediction_step(&self.model, [batch, channels, height, width])?;
            // Those weights that an earlier program has are the store's already.
            let mut store = match self.predictor.take() {
                Some(predictor) => predictor.store,
                None => Store::new(&gpu, 1),
            };
            // Those of a training on a GPU would take minutes to compile for a CPU.
            if !gpu.is_software() {
                self.config.choose_kernels(&mut store)?;
            }
            match Program::compile(&graph, &mut store, CompileOptions::default()) {
                Ok(program) => break (store, program),
                Err(Error::Limit(_) | Error::OutOfMemory(_)) if batch > 1 => batch /= 2,
                Err(error) => return Err(error),
            }
        };
        self.fill_whole(&store)?;
        self.predictor = Some(Predictor {
            store,
            program,
            batch,
            is_largest: batch < wanted,
        });
        Ok(())
    }
}

/// What a network says of a picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Of each class.
    pub logits: Vec<f32>,
    class_names: Arc<[String]>,
}

/// A class, and how probable it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Its name, if it is known.
    pub class: Option<String>,
    /// Its number, from 0.
    pub index: usize,
    /// In [0, 1].
    #[serde(serialize_with = "short")]
    pub probability: f64,
}

/// Seven digits, which is what there is of an f32.
fn short<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f32(*value as f32)
}

impl Prediction {
    /// Softmax of the logits: of each class, how probable it is. (Whatever loss the network was trained with.)
    pub fn probabilities(&self) -> Vec<f64> {
        let most = self
            .logits
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let exp = |v: &f32| (f64::from(*v) - f64::from(most)).exp();
        let sum: f64 = self.logits.iter().map(exp).sum();
        self.logits.iter().map(|v| exp(v) / sum).collect()
    }

    /// The `k` most probable classes, the most probable one first; of equal ones that with the smaller number. All if there
    /// are no more.
    pub fn top(&self, k: usize) -> Vec<Guess> {
        let probabilities = self.probabilities();
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        order.sort_by(|&a, &b| self.logits[b].total_cmp(&self.logits[a]));
        let guess = |index: usize| Guess {
            class: self.class_names.get(index).cloned(),
            index,
            probability: probabilities[index],
        };
        order.into_iter().take(k).map(guess).collect()
    }
}

impl fmt::Display for Guess {
    /// `tabby .83`, or of a class without a name `class 281 .83`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(name) => write!(f, "{name} ")?,
            None => write!(f, "class {} ", self.index)?,
        }
        let digits = format!("{:.2}", self.probability);
        f.write_str(digits.strip_prefix('0').unwrap_or(&digits))
    }
}

/// Refuses options that are other than those that the file itself says.
fn refuse_others(path: &Path, options: &TrainOptions, written: &TrainOptions) -> Result<()> {
    fn is_other<T: PartialEq>(given: &Option<T>, written: &Option<T>) -> bool {
        given.is_some() && given != written
    }
    let other = [
        ("--model", is_other(&options.model, &written.model)),
        ("--norm", is_other(&options.norm, &written.norm)),
        ("--form", is_other(&options.form, &written.form)),
        ("--data", is_other(&options.data, &written.data)),
    ];
    match other.iter().find(|(_, is_other)| *is_other) {
        Some((name, _)) => {
            let message = format!("says itself what it is of: leave {name} out");
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
        None => network_of(tensors, norm.into(), form),
    };
    let Some(network) = chosen else {
        return Err(Error::checkpoint(
            path,
            "does not say which network it is of, as those of decorr do, and has not the tensors of a VGG, ResNet or \
             DenseNet: name --model, --norm and, if it has two, --form",
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
fn norm_of(tensors: &Tensors) -> NormName {
    let mut layers = tensors
        .keys()
        .filter_map(|name| name.strip_suffix(".running_deconv"));
    match layers.next() {
        // Channel deconvolution is a layer without weights of its own.
        Some(layer) if tensors.contains_key(&format!("{layer}.weight")) => NormName::Deconv,
        Some(_) => NormName::Channel,
        None if tensors.keys().any(|name| name.ends_with(".running_var")) => NormName::Batch,
        None => NormName::None,
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
