//! Networks for other programs.

use std::path::Path;

use super::checkpoint;
use super::fold::folded;
use super::options::TrainOptions;
use crate::models::Norm;
use crate::nn::ChannelDeconv;
use crate::{Error, Result};

/// Writes the network of `from`, a checkpoint or the folder of a run, to `out` without deconvolution: D and the running means are
/// folded into weights and biases. It is the same model with `--norm none`. Returns how many layers were folded.
///
/// # Errors
/// [`Error::Checkpoint`] if there is nothing to fold, or it cannot be folded; [`Error::Io`].
pub fn export(from: &Path, out: &Path) -> Result<usize> {
    let file = checkpoint::file_of(from)?;
    let fail = |message: String| Error::checkpoint(&file, message);
    let (mut tensors, mut metadata) = checkpoint::load(&file)?;
    if checkpoint::is_state(&metadata) {
        metadata.retain(|key, _| !checkpoint::OF_STATE.contains(&key.as_str()));
        // The state that a run is resumed from: what optimisers keep is nothing of the network.
        let is_of_network = |name: &str| {
            let last = name.rsplit('.').next().unwrap_or(name);
            [
                "weight",
                "bias",
                "running_mean",
                "running_var",
                "running_deconv",
                "running_rest_mean",
                "running_rest_var",
            ]
            .contains(&last)
        };
        tensors.retain(|name, _| is_of_network(name));
    }
    let written = checkpoint::written_options(&file, &metadata)?;
    // What a file that says nothing was trained with.
    let eps = written.as_ref().and_then(|options| options.eps);
    let eps = eps.unwrap_or(ChannelDeconv::new(1, 1).options.eps);
    let (plain, count) = folded(&tensors, eps).map_err(fail)?;
    if count == 0 {
        return Err(fail(
            "has no deconvolved layer: its tensors are plain as they are".into(),
        ));
    }
    if let Some(written) = written {
        let plain = TrainOptions {
            norm: Some(Norm::None),
            refresh: Some(1),
            refresh_after: Some(0),
            ..written
        };
        let text = toml::to_string(&plain).map_err(|e| Error::bug(e.to_string()))?;
        metadata.insert("config".into(), text);
    }
    checkpoint::save(out, &plain, &metadata)?;
    Ok(count)
}
