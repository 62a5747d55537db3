//! Logits of images by a network with its running statistics.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::checkpoint;
use super::graphs::{ImageInput, classes_of, prediction_step};
use super::interface::Interface;
use super::prediction::Prediction;
use crate::gpu::Gpu;
use crate::nn::Layer;
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Most images of one step.
const MOST: usize = 256;

/// A trained network that predicts.
#[derive(Debug)]
pub struct Predictor {
    store: Store,
    interface: Interface,
    classes: usize,
    forward: Forward,
}

impl Predictor {
    /// `model` with the parameters and running statistics of a file that [`super::Trainer::save`] or `decorr train` wrote,
    /// which also says what images it takes. `model` must be built as the one that was trained.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if the file is damaged, does not say what images it is for, or does not fit the
    /// model; those of [`Program::compile`].
    pub fn open(
        gpu: &Arc<Gpu>,
        model: impl Layer + Send + Sync + 'static,
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = &checkpoint::file_of(path.as_ref())?;
        let (tensors, metadata) = checkpoint::load(path)?;
        let interface = Interface::read(path, &metadata, None)?;
        let classes = classes_of(&model, 1, interface.shape)?;
        let mut store = Store::new(gpu, 0);
        let mut forward = Forward::new(Arc::new(model), &interface);
        // Compiling makes the states in the store that the file then fills.
        forward.prepare(&mut store, 1)?;
        checkpoint::part_to_store(path, &tensors, &store, &checkpoint::MODEL)?;
        Ok(Self {
            store,
            interface,
            classes,
            forward,
        })
    }

    /// Logits [N, classes] of `images` [N, C, H, W], both row-major. Values are as those that the network was trained on,
    /// before normalisation: floats as they are, bytes divided by 255.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values are no whole images; what the device reported.
    pub fn predict(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        self.forward.predict(&mut self.store, images)
    }

    /// What the network says of each of `images`, which are as in [`Predictor::predict`]: the most probable classes by
    /// [`Prediction::top`], with their names if they are known.
    ///
    /// # Errors
    /// As [`Predictor::predict`].
    pub fn predictions(&mut self, images: &[f32]) -> Result<Vec<Prediction>> {
        let logits = self.predict(images)?;
        let names = self.interface.class_names.clone().into();
        Ok(Prediction::of_rows(&logits, self.classes, &names))
    }

    /// The network for `count` images as a program, for [`Program::record`] on the buffers of a host: its input `images`
    /// [count, C, H, W] has values as in [`Predictor::predict`], its output `logits` is [count, classes].
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile(&mut self, count: usize) -> Result<Program> {
        self.forward.compile(&mut self.store, count)
    }

    /// Shape [C, H, W] of an image.
    pub fn image_shape(&self) -> [usize; 3] {
        self.interface.shape
    }

    /// Numbers a row of logits.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Names of the classes in the order of their numbers; none if they are not known.
    pub fn class_names(&self) -> &[String] {
        &self.interface.class_names
    }
}

/// A network compiled for predictions of some numbers of images at once.
pub(super) struct Forward {
    model: Arc<dyn Layer + Send + Sync>,
    /// [C, H, W].
    shape: [usize; 3],
    /// By which the graph normalises images, if they are not given so: mean and deviation per channel.
    scales: Option<[Vec<f32>; 2]>,
    programs: BTreeMap<usize, Program>,
    /// Most images of one step.
    most: usize,
}

impl Forward {
    /// Of images as `interface` has them, before normalisation.
    pub(super) fn new(model: Arc<dyn Layer + Send + Sync>, interface: &Interface) -> Self {
        Self {
            scales: Some([interface.mean.clone(), interface.std.clone()]),
            ..Self::of_normalised(model, interface.shape, MOST)
        }
    }

    /// Of normalised images [C, H, W] of `shape`, `most` of them in a step.
    pub(super) fn of_normalised(
        model: Arc<dyn Layer + Send + Sync>,
        shape: [usize; 3],
        most: usize,
    ) -> Self {
        Self {
            model,
            shape,
            scales: None,
            programs: BTreeMap::new(),
            most,
        }
    }

    pub(super) fn model(&self) -> &dyn Layer {
        &*self.model
    }

    /// Compiles for `count` images at once, or, if these do not fit, for fewer. Gives the number of images of a step. Few
    /// numbers are compiled, powers of two, and one that is up to four times as large serves as well.
    pub(super) fn prepare(&mut self, store: &mut Store, count: usize) -> Result<usize> {
        loop {
            let at_once = count.next_power_of_two().min(self.most);
            let mut there = self.programs.range(at_once..=at_once.saturating_mul(4));
            if let Some((&at_once, _)) = there.next() {
                return Ok(at_once);
            }
            match self.compile(store, at_once) {
                Ok(program) => {
                    self.programs.insert(at_once, program);
                    return Ok(at_once);
                }
                Err(Error::Limit(_) | Error::OutOfMemory(_)) if at_once > 1 => {
                    self.most = at_once / 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// For exactly `count` images.
    fn compile(&self, store: &mut Store, count: usize) -> Result<Program> {
        let [c, h, w] = self.shape;
        let shape = [count, c, h, w];
        let images = match &self.scales {
            Some([mean, std]) => ImageInput::floats(shape, mean, std),
            None => shape.into(),
        };
        let graph = prediction_step(&*self.model, images)?;
        Program::compile(&graph, store, CompileOptions::default())
    }

    /// As [`Predictor::predict`].
    pub(super) fn predict(&mut self, store: &mut Store, images: &[f32]) -> Result<Vec<f32>> {
        let len: usize = self.shape.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(len) {
            let message = format!(
                "{} values are no images of {:?}, which have {len} values each",
                images.len(),
                self.shape
            );
            return Err(Error::shape("predict", message));
        }
        let at_once = self.prepare(store, images.len() / len)?;
        let Some(program) = self.programs.get_mut(&at_once) else {
            return Err(Error::bug("there is no program to predict with"));
        };
        let mut logits = Vec::new();
        for some in images.chunks(at_once * len) {
            let mut whole = some.to_vec();
            // Images that fill up the step are zeros.
            whole.resize(at_once * len, 0.0);
            let outputs = program.run(&[("images", &whole)])?;
            let all = outputs.values.get("logits").map_or(&[][..], Vec::as_slice);
            logits.extend(&all[..all.len() / at_once * (some.len() / len)]);
        }
        Ok(logits)
    }
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward")
            .field("programs", &self.programs)
            .finish_non_exhaustive()
    }
}
