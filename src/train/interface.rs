//! What a network takes and gives, as the files of its weights say it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::checkpoint::{self, CLASS_NAMES};
use crate::data::DataSet;
use crate::{Error, Result};

/// Entries of a file's metadata, each a JSON text.
const INPUT_SHAPE: &str = "input_shape";
const MEAN: &str = "mean";
const STD: &str = "std";
const VERSION: &str = "decorr_version";

/// Most channels, rows or columns: far above all that is of use, and a damaged file cannot ask for all memory.
const LONGEST_SIDE: usize = 1 << 16;

/// The images that a network takes, and the names of its classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Interface {
    /// [C, H, W].
    pub(super) shape: [usize; 3],
    /// Per channel, of bytes divided by 255, or of floats as they are.
    pub(super) mean: Vec<f32>,
    /// Per channel.
    pub(super) std: Vec<f32>,
    /// In the order of their numbers; none if they are not known.
    pub(super) class_names: Vec<String>,
}

impl Interface {
    /// Of a network that is trained on `set`.
    pub(super) fn of(set: &DataSet) -> Self {
        let images = &set.train;
        Self {
            shape: [images.channels, images.height, images.width],
            mean: set.mean.clone(),
            std: set.std.clone(),
            class_names: set.class_names.clone(),
        }
    }

    /// Adds it to the metadata of a file.
    ///
    /// # Errors
    /// None but bugs.
    pub(super) fn write(&self, metadata: &mut BTreeMap<String, String>) -> Result<()> {
        let mut add = |key: &str, value: serde_json::Result<String>| {
            let text = value.map_err(|e| Error::bug(format!("{key} cannot be written: {e}")))?;
            metadata.insert(key.into(), text);
            Ok(())
        };
        add(INPUT_SHAPE, serde_json::to_string(&self.shape))?;
        add(MEAN, serde_json::to_string(&self.mean))?;
        add(STD, serde_json::to_string(&self.std))?;
        add(VERSION, serde_json::to_string(env!("CARGO_PKG_VERSION")))?;
        if !self.class_names.is_empty() {
            add(CLASS_NAMES, serde_json::to_string(&self.class_names))?;
        }
        Ok(())
    }

    /// What the metadata of the file at `path` says; what it does not say is as in `below`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what makes no sense, and what neither says.
    pub(super) fn read(
        path: &Path,
        metadata: &BTreeMap<String, String>,
        below: Option<Self>,
    ) -> Result<Self> {
        let (shape, mean, std, class_names) = match below {
            Some(of) => (Some(of.shape), Some(of.mean), Some(of.std), of.class_names),
            None => (None, None, None, Vec::new()),
        };
        let this = Self {
            shape: entry(path, metadata, INPUT_SHAPE, shape)?,
            mean: entry(path, metadata, MEAN, mean)?,
            std: entry(path, metadata, STD, std)?,
            class_names: checkpoint::class_names(path, metadata)?.unwrap_or(class_names),
        };
        match this.makes_sense() {
            true => Ok(this),
            false => Err(Error::checkpoint(
                path,
                format!(
                    "its `{INPUT_SHAPE}` {:?}, `{MEAN}` {:?} and `{STD}` {:?} are damaged: [C, H, W], and a number for \
                     each channel",
                    this.shape, this.mean, this.std
                ),
            )),
        }
    }

    fn makes_sense(&self) -> bool {
        let channels = self.shape[0];
        let is_side = |side: &usize| (1..=LONGEST_SIDE).contains(side);
        self.shape.iter().all(is_side)
            && self.mean.len() == channels
            && self.std.len() == channels
            && self.mean.iter().all(|v| v.is_finite())
            && self.std.iter().all(|v| v.is_finite() && *v > 0.0)
    }
}

/// The entry `key`, or if there is none `below`.
fn entry<T: DeserializeOwned>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    key: &str,
    below: Option<T>,
) -> Result<T> {
    let fail = |message: String| Error::checkpoint(path, message);
    match (metadata.get(key), below) {
        (Some(text), _) => {
            serde_json::from_str(text).map_err(|e| fail(format!("its `{key}` is damaged: {e}")))
        }
        (None, Some(below)) => Ok(below),
        (None, None) => Err(fail(format!(
            "has no `{key}`, which says what images the network takes: it was not written by decorr"
        ))),
    }
}
