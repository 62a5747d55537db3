//! JPEG, strictly: `image` has its decoder fill up with grey what is missing of a file that was cut short, which
//! nobody would notice.

use std::borrow::Cow;

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::PixelFormat;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::jpeg_scans::{Survey, survey};
use super::{Check, Held, exif, filled};

/// Pictures with a side of no more pixels are jpeg-decoder's.
const SMALL: usize = 32;

/// The picture and how it was held, once the survey has found it whole.
///
/// zune-jpeg is the decoder of `image` and the faster one. It reads as noise what has its components in scans of their own, as
/// stripes what has its colours finer than its brightness, refuses shares other than a half and a quarter, and is up to 6 levels
/// from libjpeg in pictures of a few pixels: those are jpeg-decoder's.
pub(super) fn decode(bytes: &[u8], check: Check<'_>) -> Result<Held, String> {
    let survey = survey(bytes, check)?;
    let mut bytes = Cow::Borrowed(bytes);
    // Decoders disagree about files that say both.
    if let Some(at) = survey.overruled()
        && let Some(marker) = bytes.to_mut().get_mut(at + 1)
    {
        // A segment of an application that nobody knows.
        *marker = 0xef;
    }
    let is_small = is_small(survey.components(), survey.size);
    let image = match survey.is_interleaved && survey.is_common() && !is_small {
        true => by_zune(&bytes)?,
        false => by_jpeg_decoder(&bytes, &survey)?,
    };
    Ok((image, exif::of_jpeg(&bytes)))
}

/// Whether so few pixels are jpeg-decoder's. Four components are zune-jpeg's: it makes RGB of them.
fn is_small(components: usize, size: [usize; 2]) -> bool {
    components < 4 && size.iter().any(|&side| side <= SMALL)
}

fn by_zune(bytes: &[u8]) -> Result<DynamicImage, String> {
    let decode = |strict: bool| {
        let most = usize::from(u16::MAX);
        let options = DecoderOptions::default().set_strict_mode(strict);
        let options = options.set_max_width(most).set_max_height(most);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers()?;
        let colours = match decoder.input_colorspace() {
            Some(ColorSpace::Luma) => ColorSpace::Luma,
            _ => ColorSpace::RGB,
        };
        decoder.set_options(options.jpeg_set_out_colorspace(colours));
        let pixels = decoder.decode()?;
        Ok((decoder.dimensions(), pixels, colours))
    };
    let decoded = match decode(true) {
        // Bytes between the segments of the header harm nothing and are found in real files.
        Err(DecodeErrors::FormatStatic(e)) if e.contains("Extra bytes between headers") => {
            decode(false)
        }
        decoded => decoded,
    };
    let (size, pixels, colours) = decoded.map_err(|e| match e {
        DecodeErrors::Format(text) => text,
        DecodeErrors::FormatStatic(text) => text.to_string(),
        DecodeErrors::ExhaustedData => "it was cut short".to_string(),
        other => other.to_string(),
    })?;
    let (width, height) = size.unwrap_or_default();
    from_pixels([width, height], pixels, colours == ColorSpace::Luma)
}

fn by_jpeg_decoder(bytes: &[u8], survey: &Survey) -> Result<DynamicImage, String> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let pixels = decoder.decode().map_err(|e| e.to_string())?;
    match decoder.info().map(|info| info.pixel_format) {
        Some(PixelFormat::L8) => from_pixels(survey.size, pixels, true),
        Some(PixelFormat::RGB24) => from_pixels(survey.size, pixels, false),
        _ => Err("its four components are in scans of their own, which is not read".into()),
    }
}

fn from_pixels(size: [usize; 2], pixels: Vec<u8>, is_grey: bool) -> Result<DynamicImage, String> {
    let [width, height] = size.map(|n| u32::try_from(n).unwrap_or(0));
    let image = match is_grey {
        true => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        false => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    filled(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_small_if_one_side_is() {
        for (components, size, wanted) in [
            (1, [32, 500], true),
            (3, [500, 32], true),
            (3, [1, 1], true),
            (1, [33, 33], false),
            (3, [33, 500], false),
            (4, [32, 32], false),
        ] {
            assert_eq!(is_small(components, size), wanted, "{components} {size:?}");
        }
    }
}
