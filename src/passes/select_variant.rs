//! Kernel variants for an adapter.

use crate::gpu::Gpu;
use crate::graph::op::Variants;
use crate::graph::tiles::Tiles;
use crate::{Error, Result};

/// Barrier-free register-blocked products where the adapter runs on the CPU: there they are 2.5
/// times as fast as the best shared-memory tile and 20 times a classic 16x16 one; and twice as
/// fast again with broadcasts in subgroups of 8.
pub(crate) fn select_variant(gpu: &Gpu) -> Variants {
    match gpu.is_software() {
        false => Variants::Tiled(Tiles::default()),
        true if check_variant(Variants::Subgroup, gpu).is_ok() => Variants::Subgroup,
        true => Variants::Direct,
    }
}

/// Refuses kernels that an adapter cannot run.
///
/// # Errors
/// [`Error::Config`] with what it lacks.
pub fn check_variant(variants: Variants, gpu: &Gpu) -> Result<()> {
    if variants == Variants::Subgroup && !gpu.has_subgroups_of_8() {
        return Err(Error::Config(format!(
            "kernels {variants}: {} has no subgroups of 8 invocations",
            gpu.name()
        )));
    }
    Ok(())
}
