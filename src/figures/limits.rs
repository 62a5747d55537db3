//! How large an image may be.

use crate::gpu::Gpu;
use crate::picture::Picture;
use crate::{Error, Result};

/// Longest side of an image: the shaders count its pixels in 32 bits.
const MAX_SIDE: usize = 65_535;

/// An image must fit one binding, and a row of its patches too.
pub(super) fn refuse_large(gpu: &Gpu, picture: &Picture, k: usize) -> Result<()> {
    let most = (gpu.limits().max_storage_buffer_binding_size / 4).min(u64::from(u32::MAX));
    let size = [picture.channels, picture.height, picture.width];
    refuse(size, k, most, gpu.name())
}

/// Of an image of this size [C, H, W], on an adapter that holds `most` values in one tensor.
fn refuse([channels, height, width]: [usize; 3], k: usize, most: u64, adapter: &str) -> Result<()> {
    if width.max(height) > MAX_SIDE {
        return Err(Error::Limit(format!(
            "the image has {width} x {height} pixels; no side may be longer than {MAX_SIDE}: `max_side` {MAX_SIDE} \
             scales it down"
        )));
    }
    let padded = channels * (height + k) * (width + k);
    let row = channels * k * k * width;
    if padded as u64 <= most && (row as u64) <= most {
        return Ok(());
    }
    if padded as u64 <= most {
        return Err(Error::Limit(format!(
            "the {width} patches of {k} x {k} of a row do not fit one tensor of {}: take a smaller `kernel_size`, or \
             a narrower image",
            adapter
        )));
    }
    let side = ((most as f64 / channels as f64).sqrt() as usize).saturating_sub(k) / 100;
    Err(Error::Limit(format!(
        "the image has {width} x {height} pixels; {} holds about {} million of {} channels in one tensor. \
         `max_side` {} scales it down",
        adapter,
        most / channels as u64 / 1_000_000,
        channels,
        side * 100
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_said_with_what_would_fit() {
        for (size, k, most, wanted) in [
            ([3, 4000, 3900], 3, 48_000_000, None),
            ([1, 65_535, 9], 3, 48_000_000, None),
            (
                [3, 4000, 4001],
                3,
                48_000_000,
                Some([
                    "4001 x 4000 pixels",
                    "about 16 million of 3 channels",
                    "`max_side` 3900",
                ]),
            ),
            (
                [1, 9, 65_536],
                3,
                48_000_000,
                Some(["65536 x 9 pixels", "65535:", "`max_side` 65535"]),
            ),
            (
                [1, 65_536, 9],
                3,
                48_000_000,
                Some(["9 x 65536 pixels", "65535:", "`max_side` 65535"]),
            ),
            (
                [1, 9, 60_000],
                15,
                13_000_000,
                Some(["60000 patches of 15 x 15", "tensor of A", "`kernel_size`"]),
            ),
            ([1, 9, 60_000], 13, 13_000_000, None),
            // As many values as there is room for.
            ([1, 2, 100], 11, 12_100, None),
        ] {
            match (refuse(size, k, most, "A"), wanted) {
                (Ok(()), None) => {}
                (Err(Error::Limit(text)), Some(parts)) => {
                    for part in parts {
                        assert!(text.contains(part), "no {part:?} in: {text}");
                    }
                }
                (other, _) => panic!("{size:?}: {other:?}"),
            }
        }
        // The side that is named fits.
        refuse([3, 3900, 3900], 3, 48_000_000, "A").unwrap();
    }
}
