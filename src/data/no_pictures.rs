//! In place of `resize` without the feature `pictures`.

use std::path::Path;

use rand_chacha::ChaCha8Rng;

use super::Augment;
use crate::{Error, Result};

/// Refuses the picture in a file.
///
/// # Errors
/// [`Error::Config`] always.
pub(super) fn read(
    path: &Path,
    _: Augment,
    _: &mut ChaCha8Rng,
    _: (usize, usize),
    _: &mut Vec<u8>,
) -> Result<()> {
    Err(Error::Config(format!(
        "{}: pictures in files need decorr's feature `pictures`",
        path.display()
    )))
}
