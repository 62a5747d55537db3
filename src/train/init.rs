//! Training that begins with the weights of another network.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Begun, Tensors};
use super::foreign::first_of;
use super::trained::last_layer_of;
use crate::Result;
use crate::program::Store;

/// The tensors that a training begins with.
pub(super) struct Weights {
    file: PathBuf,
    tensors: Tensors,
}

impl Weights {
    /// Those in `from`: the folder of a run, a checkpoint, or a state dict of PyTorch as safetensors.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] if it is damaged, [`crate::Error::Io`].
    pub(super) fn read(from: &Path) -> Result<Self> {
        let file = checkpoint::file_of(from)?;
        let (tensors, _) = checkpoint::load(&file)?;
        Ok(Self { file, tensors })
    }

    /// Gives them to the states of `store` that have their names, and says what was taken, in a sentence.
    ///
    /// # Errors
    /// [`crate::Error::Checkpoint`] if they are of a network of another kind or size.
    pub(super) fn give(&self, store: &Store) -> Result<String> {
        let names: Vec<&str> = store.states().map(|(name, ..)| name).collect();
        let last = last_layer_of(&names);
        let Begun {
            taken,
            anew,
            missing,
            unused,
        } = checkpoint::begin_with(&self.file, &self.tensors, store, last)?;
        let mut text = format!("begins with {taken} tensors of {}", self.file.display());
        for (names, what) in [
            (anew, "New, since the number of classes is another"),
            (missing, "New, since the file lacks them"),
            (unused, "Left out, since this network lacks them"),
        ] {
            if !names.is_empty() {
                text += &format!(". {what}: {}", first_of(&names));
            }
        }
        Ok(text)
    }
}
