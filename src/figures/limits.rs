//! How large an image may be.

use crate::gpu::Gpu;
use crate::picture::Picture;
use crate::{Error, Result};

/// Longest side of an image: the shaders count its pixels in 32 bits.
const MAX_SIDE: usize = 65_535;

/// An image must fit one binding, and a row of its patches too.
pub(super) fn refuse_large(gpu: &Gpu, picture: &Picture, k: usize) -> Result<()> {
    let (width, height) = (picture.width, picture.height);
    if width.max(height) > MAX_SIDE {
        return Err(Error::Limit(format!(
            "the image has {width} x {height} pixels; no side may be longer than {MAX_SIDE}: `max_side` {MAX_SIDE} \
             scales it down"
        )));
    }
    let most = (gpu.limits().max_storage_buffer_binding_size / 4).min(u64::from(u32::MAX));
    let padded = picture.channels * (picture.height + k) * (picture.width + k);
    let row = picture.channels * k * k * picture.width;
    if padded as u64 <= most && (row as u64) <= most {
        return Ok(());
    }
    if padded as u64 <= most {
        return Err(Error::Limit(format!(
            "the {width} patches of {k} x {k} of a row do not fit one tensor of {}: take a smaller `kernel_size`, or \
             a narrower image",
            gpu.name()
        )));
    }
    let side = ((most as f64 / picture.channels as f64).sqrt() as usize).saturating_sub(k) / 100;
    Err(Error::Limit(format!(
        "the image has {width} x {height} pixels; {} holds about {} million of {} channels in one tensor. \
         `max_side` {} scales it down",
        gpu.name(),
        most / picture.channels as u64 / 1_000_000,
        picture.channels,
        side * 100
    )))
}
