//! Picture files to pixels.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::{Error, Result};

/// Most bytes of a file, and of the pixels in it. A damaged header may claim any number.
const MAX_BYTES: u64 = 1 << 30;

/// Reads a picture, whatever its ending says it is, as [`decode`] does.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it is no whole picture, or too large.
pub(crate) fn read(path: &Path) -> Result<DynamicImage> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::data(path, "has more than 1 GiB: that is no picture"));
    }
    decode(path, &bytes)
}

/// The picture in the bytes of a file; `path` is for messages. Grey stays grey and 16 bits stay 16 bits,
/// CMYK becomes RGB, and what a camera laid on its side is put upright.
///
/// # Errors
/// [`Error::Data`] if it is no whole picture.
pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage> {
    let decoded = match bytes.starts_with(&[0xff, 0xd8]) {
        true => jpeg(bytes),
        false => other(bytes),
    };
    decoded.map_err(|e| {
        let message = match bytes.len() {
            0 => "is empty".to_string(),
            len => format!("is no picture that can be read ({len} bytes): {e}"),
        };
        Error::data(path, message)
    })
}

/// The marker that a whole JPEG ends with.
const END_OF_JPEG: [u8; 2] = [0xff, 0xd9];

/// By the decoder that `image` uses too, but strictly: `image` has it fill up with grey what is
/// missing of a file that was cut short, which nobody would notice.
fn jpeg(bytes: &[u8]) -> Result<DynamicImage, String> {
    let decode = |strict: bool| {
        let most = usize::from(u16::MAX);
        let options = DecoderOptions::default().set_strict_mode(strict);
        let options = options.set_max_width(most).set_max_height(most);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers()?;
        let (width, height) = decoder.dimensions().unwrap_or_default();
        if let Err(message) = check_size(width as u64, height as u64, 3) {
            return Err(DecodeErrors::Format(message));
        }
        let colours = match decoder.input_colorspace() {
            Some(ColorSpace::Luma) => ColorSpace::Luma,
            _ => ColorSpace::RGB,
        };
        decoder.set_options(options.jpeg_set_out_colorspace(colours));
        let pixels = decoder.decode()?;
        Ok((decoder, pixels, colours))
    };
    let decoded = match decode(true) {
        // Bytes between the segments of the header harm nothing and are found in real files. What was cut
        // short must be seen otherwise then.
        Err(DecodeErrors::FormatStatic(e)) if e.contains("Extra bytes between headers") => {
            if !bytes
                .windows(2)
                .rev()
                .take(64)
                .any(|two| two == END_OF_JPEG)
            {
                return Err("it was cut short".into());
            }
            decode(false)
        }
        decoded => decoded,
    };
    let (decoder, pixels, colours) = decoded.map_err(|e| match e {
        DecodeErrors::Format(text) => text,
        DecodeErrors::FormatStatic(text) => text.to_string(),
        DecodeErrors::ExhaustedData => "it was cut short".to_string(),
        other => other.to_string(),
    })?;
    if !has_finest_luma(bytes) {
        return Err("its colours are stored finer than its brightness, which is not read".into());
    }
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let (width, height) = (width as u32, height as u32);
    let image = match colours {
        ColorSpace::Luma => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let image = image.ok_or("its pixels do not fill its size")?;
    let orientation = decoder.exif().and_then(|e| Orientation::from_exif_chunk(e));
    Ok(upright(image, orientation))
}

fn other(bytes: &[u8]) -> Result<DynamicImage, String> {
    let explain = |e: ImageError| match e {
        ImageError::Unsupported(e) => {
            format!("{e}; what is read is PNG, JPEG, WebP, GIF, BMP, TIFF and PNM")
        }
        e => e.to_string(),
    };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|e| e.to_string())?;
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let each = u64::from(decoder.color_type().bytes_per_pixel());
    check_size(width.into(), height.into(), each)?;
    let orientation = decoder.orientation().ok();
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    Ok(upright(image, orientation))
}

/// Before memory is asked for: of an image of so many pixels of `each` bytes.
fn check_size(width: u64, height: u64, each: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("it has {width} x {height} pixels"));
    }
    match width.checked_mul(height).and_then(|n| n.checked_mul(each)) {
        Some(bytes) if bytes <= MAX_BYTES => Ok(()),
        _ => Err(format!(
            "its header claims {width} x {height} pixels, which are more than 1 GiB"
        )),
    }
}

/// False if a component of a JPEG has more samples than the first, which zune-jpeg takes for stripes.
fn has_finest_luma(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        if !(0xc0..=0xc2).contains(&marker) {
            // Some bytes may stand between segments: on to what looks like the next one.
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let rest = bytes.get(end..).unwrap_or_default();
            match rest.iter().position(|&b| b == 0xff) {
                Some(more) => at = end + more,
                None => return true,
            }
            continue;
        }
        let count = bytes.get(at + 9).map_or(0, |&n| usize::from(n));
        let factors = (0..count).filter_map(|c| bytes.get(at + 11 + 3 * c));
        let factors: Vec<[u8; 2]> = factors.map(|v| [v >> 4, v & 15]).collect();
        let first = factors.first().copied().unwrap_or([1; 2]);
        return factors.iter().all(|f| f[0] <= first[0] && f[1] <= first[1]);
    }
    true
}

fn upright(mut image: DynamicImage, orientation: Option<Orientation>) -> DynamicImage {
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    image
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Luma, Rgb, Rgba};

    use super::*;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage> {
        Ok(decode(Path::new("picture"), bytes)?.into_rgb8())
    }

    fn near(image: &RgbImage, x: u32, y: u32, wanted: [u8; 3]) {
        let found = image.get_pixel(x, y).0;
        let differ = found.iter().zip(wanted).any(|(a, b)| a.abs_diff(b) > 4);
        assert!(!differ, "{found:?} at {x}, {y} in place of {wanted:?}");
    }

    #[test]
    fn all_kinds_become_rgb() {
        let grey = GrayImage::from_pixel(9, 5, Luma([77]));
        for format in [ImageFormat::Jpeg, ImageFormat::Png] {
            let image = decoded(&encoded(grey.clone(), format)).unwrap();
            assert_eq!(image.dimensions(), (9, 5));
            near(&image, 8, 4, [77; 3]);
        }
        let bytes = encoded(grey, ImageFormat::Jpeg);
        let kept = decode(Path::new("grey.jpg"), &bytes).unwrap();
        assert!(matches!(kept, DynamicImage::ImageLuma8(_)), "{kept:?}");
        let deep = image::ImageBuffer::from_pixel(2, 2, Luma([0x8000_u16]));
        near(
            &decoded(&encoded(deep, ImageFormat::Png)).unwrap(),
            1,
            1,
            [128; 3],
        );
        let clear = image::RgbaImage::from_pixel(2, 2, Rgba([10, 20, 30, 0]));
        near(
            &decoded(&encoded(clear, ImageFormat::Png)).unwrap(),
            0,
            1,
            [10, 20, 30],
        );
        let one = RgbImage::from_pixel(1, 1, Rgb([200, 100, 50]));
        near(
            &decoded(&encoded(one, ImageFormat::Jpeg)).unwrap(),
            0,
            0,
            [200, 100, 50],
        );
    }

    /// The colours are those that Pillow 13 (libjpeg-turbo) gives for these files.
    #[test]
    fn cmyk_and_ycck_become_the_right_rgb() {
        let cmyk = decoded(include_bytes!("../tests/data/cmyk.jpg")).unwrap();
        assert_eq!(cmyk.dimensions(), (40, 24));
        near(&cmyk, 5, 5, [49, 190, 207]);
        near(&cmyk, 30, 5, [159, 61, 23]);
        let ycck = decoded(include_bytes!("../tests/data/ycck.jpg")).unwrap();
        near(&ycck, 5, 5, [44, 225, 41]);
        near(&ycck, 30, 5, [91, 0, 44]);
    }

    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let n = (x * 7919 + y * 104_729 + x * y * 31) % 251;
            Rgb([n as u8, (n / 2) as u8, (250 - n) as u8])
        })
    }

    #[test]
    fn a_camera_on_its_side_is_put_upright() {
        let mut picture = RgbImage::from_pixel(32, 16, Rgb([0, 0, 255]));
        for y in 0..16 {
            (0..16).for_each(|x| picture.put_pixel(x, y, Rgb([255, 0, 0])));
        }
        let mut bytes = encoded(picture, ImageFormat::Jpeg);
        // An Exif segment that says: turn by 90 degrees clockwise.
        let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
        exif.extend(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
        bytes.splice(2..2, exif);
        let image = decoded(&bytes).unwrap();
        assert_eq!(image.dimensions(), (16, 32));
        near(&image, 8, 4, [254, 0, 0]);
        near(&image, 8, 28, [0, 0, 254]);
    }

    #[test]
    fn what_is_cut_short_or_no_picture_is_an_error() {
        let jpeg = encoded(noise(64, 48), ImageFormat::Jpeg);
        let png = encoded(noise(64, 48), ImageFormat::Png);
        let cut = |bytes: &[u8], share: usize| bytes[..bytes.len() * share / 10].to_vec();
        let bad = [
            cut(&jpeg, 9),
            cut(&jpeg, 5),
            cut(&jpeg, 1),
            cut(&png, 9),
            b"hello".to_vec(),
        ];
        for bytes in bad {
            let text = decoded(&bytes).unwrap_err().to_string();
            assert!(text.contains("is no picture that can be read"), "{text}");
        }
        assert!(decoded(&[]).unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        for picture in [noise(24, 24), noise(17, 3)] {
            let whole = encoded(picture, ImageFormat::Jpeg);
            for at in 0..whole.len() {
                for value in [0, 0xff, whole[at] ^ 0x10] {
                    let mut bytes = whole.clone();
                    bytes[at] = value;
                    let _ = jpeg(&bytes);
                }
            }
        }
    }
}
