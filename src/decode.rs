//! Picture files to pixels: whole, upright, within bounds of memory, or an error that names the file.

mod exif;
mod jpeg;
mod jpeg_scans;
mod limits;
mod tiff;
mod tiff_layouts;

use std::cell::Cell;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use crate::{Error, Result};
pub(crate) use limits::Room;
use limits::{MAX_BYTES, Share, share};

/// A picture, and its share of the memory that pictures may take together.
pub(crate) struct Decoded {
    pub(crate) image: DynamicImage,
    _share: Option<Share>,
}

/// Reads a picture, whatever its ending says it is, as [`decode`] does.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it is no whole picture, or too large.
pub(crate) fn read(path: &Path, room: Room) -> Result<Decoded> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::data(path, "has more than 1 GiB: that is no picture"));
    }
    decode(path, &bytes, room)
}

/// The picture in the bytes of a file; `path` is for messages. Grey stays grey and 16 bits stay 16 bits,
/// CMYK becomes RGB, and what a camera laid on its side is put upright.
///
/// What the decoder and the caller take of memory is at most 1 GiB, for this picture and for all that are decoded at the
/// same time.
///
/// # Errors
/// [`Error::Data`] if it is no whole picture, or too large.
pub(crate) fn decode(path: &Path, bytes: &[u8], room: Room) -> Result<Decoded> {
    if bytes.is_empty() {
        return Err(Error::data(path, "is empty"));
    }
    let mut taken = None;
    let decoded = guarded(|| {
        // Before memory is asked for: `each` bytes a pixel are the decoder's and the picture's.
        let mut check = |[width, height]: [usize; 2], each: u64| {
            taken = Some(share(room.bytes(width as u64, height as u64, each)?));
            Ok(())
        };
        match image::guess_format(bytes) {
            Ok(ImageFormat::Jpeg) => jpeg::decode(bytes, &mut check),
            Ok(ImageFormat::Tiff) => tiff::decode(bytes, &mut check),
            _ if BIG_TIFF.iter().any(|magic| bytes.starts_with(magic)) => {
                tiff::decode(bytes, &mut check)
            }
            _ => other(bytes, &mut check),
        }
    });
    let (mut image, orientation) = decoded.map_err(|e| {
        let len = bytes.len();
        let message = format!("is no picture that can be read ({len} bytes): {e}");
        Error::data(path, message)
    })?;
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(Decoded {
        image,
        _share: taken,
    })
}

/// How a `BigTIFF` begins, in either order of bytes.
const BIG_TIFF: [&[u8]; 2] = [b"II+\0", b"MM\0+"];

/// What a decoder gives: the picture, and how it was held.
type Held = (DynamicImage, Option<Orientation>);

/// Reserves so many bytes a pixel for a picture of this width and height, or refuses.
type Check<'a> = &'a mut dyn FnMut([usize; 2], u64) -> Result<(), String>;

/// WebP's decoder takes 21 bytes a pixel beside the result: 6.7 GB for 16 383 x 16 383 pixels.
const OF_WEBP: u64 = 21;

/// Bytes that the decoder of a format and a picture of `each` bytes a pixel take for a pixel.
fn with_decoder(format: Option<ImageFormat>, each: u64) -> u64 {
    match format {
        Some(ImageFormat::WebP) => each + OF_WEBP,
        Some(ImageFormat::Gif) => 2 * each,
        _ => each,
    }
}

fn other(bytes: &[u8], check: Check<'_>) -> Result<Held, String> {
    let explain = |e: ImageError| match e {
        ImageError::Unsupported(e) => {
            format!("{e}; what is read is PNG, JPEG, WebP, GIF, BMP, TIFF and PNM")
        }
        e => e.to_string(),
    };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|e| e.to_string())?;
    let format = reader.format();
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let each = u64::from(decoder.color_type().bytes_per_pixel());
    check(
        [width as usize, height as usize],
        with_decoder(format, each),
    )?;
    let orientation = match format {
        Some(ImageFormat::Png) => exif::of_png(bytes),
        _ => {
            let data = decoder.exif_metadata().ok().flatten();
            data.and_then(|data| exif::orientation(&data))
        }
    };
    let image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    Ok((image, orientation))
}

/// The picture that was made of pixels, if there were as many as its size says.
fn filled(image: Option<impl Into<DynamicImage>>) -> Result<DynamicImage, String> {
    let image = image.ok_or("its pixels do not fill its size")?;
    Ok(image.into())
}

thread_local! {
    /// Whether a panic of this thread is a foreign decoder's, that is made an error.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a foreign decoder. Its panic becomes an error, and is not printed.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                before(info);
            }
        }));
    });
    IS_GUARDED.set(true);
    // What the closure leaves half done is dropped with it.
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_GUARDED.set(false);
    decoded.unwrap_or_else(|_| Err("its decoder failed at something that it did not expect".into()))
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage, Rgba};

    use super::*;

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decoded(bytes: &[u8]) -> Result<RgbImage> {
        Ok(decode(Path::new("picture"), bytes, Room::of(0))?
            .image
            .into_rgb8())
    }

    fn near(image: &RgbImage, x: u32, y: u32, wanted: [u8; 3]) {
        let found = image.get_pixel(x, y).0;
        let differ = found.iter().zip(wanted).any(|(a, b)| a.abs_diff(b) > 4);
        assert!(!differ, "{found:?} at {x}, {y} in place of {wanted:?}");
    }

    /// A chunk of a WebP file, which is filled up to an even length.
    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut chunk = [&name[..], &(data.len() as u32).to_le_bytes(), data].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    }

    #[test]
    fn a_webp_is_turned_as_its_exif_says() {
        let wide = RgbImage::from_fn(5, 3, |x, _| Rgb([if x == 0 { 200 } else { 10 }; 3]));
        let plain = encoded(wide, ImageFormat::WebP);
        // Orientation 6: its first column is to be the first row.
        let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        for prefix in [&b""[..], b"Exif\0\0"] {
            // Flag of Exif, and sizes less one.
            let canvas = [8, 0, 0, 0, 4, 0, 0, 2, 0, 0];
            let exif = chunk(b"EXIF", &[prefix, tiff].concat());
            let chunks = [&chunk(b"VP8X", &canvas)[..], &plain[12..], &exif].concat();
            let file = chunk(b"RIFF", &[&b"WEBP"[..], &chunks].concat());
            let image = decoded(&file).unwrap();
            assert_eq!(image.dimensions(), (3, 5), "{prefix:?}");
            near(&image, 2, 0, [200; 3]);
            near(&image, 2, 4, [10; 3]);
        }
        assert_eq!(decoded(&plain).unwrap().dimensions(), (5, 3));
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
        let kept = decode(Path::new("grey.jpg"), &bytes, Room::of(0))
            .unwrap()
            .image;
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

    /// Each of the eight ways: red is the upper left corner as the camera stored it.
    #[test]
    fn a_camera_on_its_side_is_put_upright() {
        let mut picture = RgbImage::from_pixel(32, 16, Rgb([0, 0, 255]));
        for y in 0..8 {
            (0..8).for_each(|x| picture.put_pixel(x, y, Rgb([255, 0, 0])));
        }
        let stored = encoded(picture, ImageFormat::Jpeg);
        // Where red must be: left or right, up or down; and whether the picture stands.
        let ways = [
            (1, [0, 0], false),
            (2, [1, 0], false),
            (3, [1, 1], false),
            (4, [0, 1], false),
            (5, [0, 0], true),
            (6, [1, 0], true),
            (7, [1, 1], true),
            (8, [0, 1], true),
        ];
        for (orientation, [right, down], stands) in ways {
            let mut bytes = stored.clone();
            let mut exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
            exif.extend(b"\x12\x01\x03\0\x01\0\0\0");
            exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
            bytes.splice(2..2, exif);
            let image = decoded(&bytes).unwrap();
            let (w, h) = if stands { (16, 32) } else { (32, 16) };
            assert_eq!(image.dimensions(), (w, h), "{orientation}");
            for (x, y) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let is_red = [x, y] == [right, down];
                let wanted = if is_red { [254, 0, 0] } else { [0, 0, 254] };
                near(&image, 3 + x * (w - 7), 3 + y * (h - 7), wanted);
            }
        }
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
                    let _ = jpeg::decode(&bytes, &mut |_, _| Ok(()));
                }
            }
        }
    }

    /// JFIF says that colours are stored apart from brightness, Adobe's segment that they are not: libjpeg believes JFIF.
    #[test]
    fn adobes_word_does_not_count_beside_jfif() {
        let bytes = encoded(noise(40, 40), ImageFormat::Jpeg);
        assert!(bytes.windows(5).any(|five| five == b"JFIF\0"));
        let plain = decoded(&bytes).unwrap();
        let first_end = 4 + usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        let adobe = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0";
        for at in [2, first_end] {
            let mut both = bytes.clone();
            both.splice(at..at, adobe.iter().copied());
            assert_eq!(decoded(&both).unwrap(), plain, "at {at}");
        }
    }

    #[test]
    fn a_panic_of_a_decoder_is_an_error() {
        let text = guarded::<()>(|| panic!("in a foreign crate")).unwrap_err();
        assert!(text.contains("its decoder failed"), "{text}");
        assert_eq!(guarded(|| Ok(5)), Ok(5));
        // Other panics of this thread are printed as before.
        assert!(!IS_GUARDED.get());
    }

    #[test]
    fn a_cut_that_was_closed_is_seen() {
        for (name, mut bytes) in [
            ("baseline", encoded(noise(64, 48), ImageFormat::Jpeg)),
            (
                "progressive",
                include_bytes!("../tests/data/progressive.jpg").to_vec(),
            ),
        ] {
            assert!(decoded(&bytes).is_ok(), "{name}");
            let len = bytes.len();
            for share in 5..10 {
                let mut cut = bytes[..len * share / 10].to_vec();
                // Not in the middle of a stuffed byte.
                while cut.last() == Some(&0xff) {
                    cut.pop();
                }
                cut.extend([0xff, 0xd9]);
                let text = decoded(&cut).unwrap_err().to_string();
                assert!(
                    text.contains("cut short") || text.contains("ends before"),
                    "{name}: {text}"
                );
            }
            // What follows the end harms nothing.
            bytes.extend(b"trailing");
            assert!(decoded(&bytes).is_ok(), "{name}");
        }
    }

    #[test]
    fn headers_that_claim_more_than_the_bound_are_refused_before_memory_is_asked_for() {
        let mut png = encoded(RgbImage::new(1, 1), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0x60, 0, 0, 0, 0x60, 0]);
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let text = decoded(&png).unwrap_err().to_string();
        assert!(
            text.contains("24576 x 24576") && text.contains("1024 MiB"),
            "{text}"
        );
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        !bytes
            .iter()
            .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
    }

    #[test]
    fn decoders_that_hold_more_than_the_picture_are_given_room() {
        for (format, wanted) in [
            (Some(ImageFormat::WebP), 25),
            (Some(ImageFormat::Gif), 8),
            (Some(ImageFormat::Png), 4),
            (None, 4),
        ] {
            assert_eq!(with_decoder(format, 4), wanted, "{format:?}");
        }
    }
}
