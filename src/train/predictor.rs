//! Logits of images by a network with its running statistics.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::graphs::prediction_step;
use crate::data::DataSet;
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
    format: Format,
    forward: Forward,
}

impl Predictor {
    /// `model` with the parameters and running statistics of a file that [`super::Trainer::save`] wrote, which also says
    /// what images it takes. `model` must be built as the one that was trained.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Checkpoint`] if the file is damaged, none of a trainer's, or does not fit the model; those of
    /// [`Program::compile`].
    pub fn open(
        gpu: &Arc<Gpu>,
        model: impl Layer + Send + Sync + 'static,
        path: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = path.as_ref();
        let (tensors, metadata) = checkpoint::load(path)?;
        let format = Format::of_file(path, &metadata)?;
        let mut store = Store::new(gpu, 0);
        let mut forward = Forward::new(Arc::new(model));
        // A program has the states that are to be filled.
        forward.program(&mut store, &format, 1)?;
        checkpoint::part_to_store(path, &tensors, &store, &checkpoint::MODEL)?;
        Ok(Self {
            store,
            format,
            forward,
        })
    }

    /// Logits [N, classes] of `images` [N, C, H, W], both row-major. Values are as those that the network was trained on,
    /// before normalisation: floats as they are, bytes divided by 255.
    ///
    /// # Errors
    /// [`Error::Shape`] if the values are no whole images; what the device reported.
    pub fn predict(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        self.forward.predict(&mut self.store, &self.format, images)
    }

    /// Shape [C, H, W] of an image.
    pub fn image_shape(&self) -> [usize; 3] {
        self.format.image
    }

    /// Numbers a row of logits.
    pub fn classes(&self) -> usize {
        self.format.classes
    }
}

/// What images a network takes, and how they are normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Format {
    /// [C, H, W].
    pub(super) image: [usize; 3],
    pub(super) classes: usize,
    /// Per channel.
    pub(super) mean: Vec<f32>,
    /// Per channel.
    pub(super) std: Vec<f32>,
}

/// The entry of a checkpoint's metadata that holds the format as JSON.
const FORMAT: &str = "format";

impl Format {
    pub(super) fn of(data: &DataSet) -> Self {
        let images = &data.train;
        Self {
            image: [images.channels, images.height, images.width],
            classes: images.classes,
            mean: data.mean.clone(),
            std: data.std.clone(),
        }
    }

    /// As an entry of a checkpoint's metadata.
    pub(super) fn entry(&self) -> Result<(String, String)> {
        let text = serde_json::to_string(self)
            .map_err(|e| Error::bug(format!("the format of images is no JSON: {e}")))?;
        Ok((FORMAT.into(), text))
    }

    /// What the metadata of the checkpoint at `path` say.
    pub(super) fn of_file(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let fail = |message: String| Error::checkpoint(path, message);
        let text = metadata.get(FORMAT).ok_or_else(|| {
            fail(format!(
                "has no `{FORMAT}`: it was not written by Trainer::save"
            ))
        })?;
        let format: Self = serde_json::from_str(text)
            .map_err(|e| fail(format!("its `{FORMAT}` is damaged: {e}")))?;
        let channels = format.image[0];
        let len = format
            .image
            .iter()
            .try_fold(1, |len: usize, &n| len.checked_mul(n));
        let is_sound = len.is_some_and(|len| len > 0)
            && format.classes > 0
            && format.mean.len() == channels
            && format.std.len() == channels;
        match is_sound {
            true => Ok(format),
            false => Err(fail(format!("its `{FORMAT}` is damaged: {text}"))),
        }
    }
}

/// A network compiled for predictions of some numbers of images at once.
pub(super) struct Forward {
    model: Arc<dyn Layer + Send + Sync>,
    programs: BTreeMap<usize, Program>,
}

impl Forward {
    pub(super) fn new(model: Arc<dyn Layer + Send + Sync>) -> Self {
        Self {
            model,
            programs: BTreeMap::new(),
        }
    }

    pub(super) fn model(&self) -> &dyn Layer {
        &*self.model
    }

    /// The program for so many images, compiled if it is the first time.
    fn program(
        &mut self,
        store: &mut Store,
        format: &Format,
        count: usize,
    ) -> Result<&mut Program> {
        use std::collections::btree_map::Entry;
        match self.programs.entry(count) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => {
                let [c, h, w] = format.image;
                let graph = prediction_step(&*self.model, [count, c, h, w])?;
                let program = Program::compile(&graph, store, CompileOptions::default())?;
                Ok(place.insert(program))
            }
        }
    }

    /// As [`Predictor::predict`].
    pub(super) fn predict(
        &mut self,
        store: &mut Store,
        format: &Format,
        images: &[f32],
    ) -> Result<Vec<f32>> {
        let len: usize = format.image.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(len) {
            let message = format!(
                "{} values are no images of {:?}, which have {len} values each",
                images.len(),
                format.image
            );
            return Err(Error::shape("predict", message));
        }
        // Few sizes are compiled: the next power of two, filled up with zeros.
        let at_once = (images.len() / len).next_power_of_two().min(MOST);
        let plane = len / format.image[0];
        let scales = || format.mean.iter().zip(&format.std).cycle();
        let mut logits = Vec::new();
        for some in images.chunks(at_once * len) {
            let mut normalised = Vec::with_capacity(at_once * len);
            for (plane, (mean, std)) in some.chunks_exact(plane).zip(scales()) {
                normalised.extend(plane.iter().map(|v| (v - mean) / std));
            }
            normalised.resize(at_once * len, 0.0);
            let program = self.program(store, format, at_once)?;
            let outputs = program.run(&[("images", &normalised)])?;
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
