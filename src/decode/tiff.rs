//! TIFF: by the decoder of `image`, and where that stops, by the crate below it.
//!
//! `image` reads grey, RGB and CMYK in 8 and 16 bits and RGB in floats. Here are palettes, grey in 2 and 4 bits and in
//! floats, bytes whose bits are in the other order, and refusals of what would be read wrong. Layouts that neither crate
//! knows (12 bits, colours at a lower resolution, colours in tiles of their own) are in `tiff_layouts`.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::tiff::TiffDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageBuffer, Rgb32FImage, RgbImage};
use tiff::decoder::ifd::Value;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::limits::MAX_BYTES;
use super::tiff_layouts::{Layout, relabel};
use super::{Check, Held, filled};

const ASSOCIATED_ALPHA: u16 = 1;
const NO_PREDICTOR: u16 = 1;
/// LZW, Deflate (by both of its numbers) and ZSTD. With other compressions libtiff passes the predictor over.
const PREDICTED: [u16; 4] = [5, 8, 32946, 50000];
const FILL_ORDER_REVERSED: u16 = 2;
pub(super) const GREY: u16 = 1;
const PALETTE: u16 = 3;
pub(super) const YCBCR: u16 = 6;
const FLOAT: u16 = 3;

pub(super) type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

/// The first picture of a file, and how it was held.
pub(super) fn decode(bytes: &[u8], check: Check<'_>) -> Result<Held, String> {
    let mut decoder = open(bytes)?;
    let (width, height) = decoder.dimensions().map_err(explain)?;
    let layout = Layout::of(&mut decoder)?;
    let [stored_width, stored_height] = layout.as_ref().map_or([width, height], Layout::padded);
    // Of a file with a palette or floats, what it becomes; of others, the widest that `image` makes of them.
    check(
        [stored_width as usize, stored_height as usize],
        bytes_of_pixel(&mut decoder)?,
    )?;
    let mut tag = |tag| decoder.find_tag_unsigned::<u16>(tag).map_err(explain);
    let orientation = tag(Tag::Orientation)?;
    let orientation =
        orientation.and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?));
    let is_tiled = tag(Tag::TileWidth)?.is_some();
    let is_reversed = tag(Tag::FillOrder)? == Some(FILL_ORDER_REVERSED);
    let photometric = tag(Tag::PhotometricInterpretation)?;
    let is_palette = photometric == Some(PALETTE);
    let has_predictor = tag(Tag::Predictor)?.is_some_and(|value| value != NO_PREDICTOR);
    let compression = tag(Tag::Compression)?.unwrap_or(1);
    let is_float = sample_format(&mut decoder)? == FLOAT;
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples);
    let extra = extra.map_err(explain)?.unwrap_or_default();
    let is_premultiplied = extra.first() == Some(&ASSOCIATED_ALPHA);

    if photometric == Some(YCBCR) {
        check_ycbcr(&mut decoder)?;
    }

    // Copied where it has to be changed.
    let mut changed = Cow::Borrowed(bytes);
    if is_reversed {
        let changed = changed.to_mut();
        for (from, len) in stored(&mut decoder, is_tiled)? {
            let part = from
                .checked_add(len)
                .and_then(|end| changed.get_mut(from..end));
            let part = part.ok_or("it was cut short")?;
            part.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
    }
    let has_predictor = has_predictor && {
        let is_used = PREDICTED.contains(&compression);
        if !is_used {
            relabel(&mut changed, &[(Tag::Predictor, NO_PREDICTOR.into())])?;
        }
        is_used
    };
    let image = if let Some(layout) = layout {
        layout.read(&mut changed, has_predictor)?
    } else if is_palette {
        palette(&mut decoder, &mut changed)?
    } else {
        match (decoder.colortype().map_err(explain)?, is_float) {
            (ColorType::Gray(bits @ (2 | 4)), _) => few_bits(&mut open(&changed)?, bits)?,
            (ColorType::YCbCr(8), _) => ycbcr(&mut open(&changed)?)?,
            (ColorType::Multiband { num_samples: 2, .. }, false) => {
                grey_with_alpha(&mut open(&changed)?)?
            }
            (ColorType::Gray(32), true) => floats(&mut open(&changed)?)?,
            (colours, _) => {
                check_kind(colours, is_float)?;
                by_image(&changed)?
            }
        }
    };
    let image = match is_premultiplied {
        true => divided_by_alpha(image),
        false => image,
    };
    Ok((with_known_white(image)?, orientation))
}

pub(super) fn open(bytes: &[u8]) -> Result<Reader<'_>, String> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let decoder = Decoder::new(Cursor::new(bytes)).map_err(explain)?;
    Ok(decoder.with_limits(limits))
}

pub(super) fn explain(error: TiffError) -> String {
    match error {
        TiffError::LimitsExceeded => "it claims more memory than pictures are given".to_string(),
        TiffError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it was cut short".to_string()
        }
        error => error.to_string(),
    }
}

fn sample_format(decoder: &mut Reader<'_>) -> Result<u16, String> {
    let formats = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat);
    let formats = formats.map_err(explain)?.unwrap_or_default();
    Ok(formats.first().copied().unwrap_or(1))
}

/// Where the bytes of strips or tiles lie: begin and length.
fn stored(decoder: &mut Reader<'_>, is_tiled: bool) -> Result<Vec<(usize, usize)>, String> {
    let [offsets, counts] = match is_tiled {
        true => [Tag::TileOffsets, Tag::TileByteCounts],
        false => [Tag::StripOffsets, Tag::StripByteCounts],
    };
    let mut numbers = |tag| decoder.get_tag_u64_vec(tag).map_err(explain);
    let (offsets, counts) = (numbers(offsets)?, numbers(counts)?);
    let number = |n: u64| usize::try_from(n).map_err(|_| "it was cut short".to_string());
    let pairs = offsets.into_iter().zip(counts);
    pairs
        .map(|(from, len)| Ok((number(from)?, number(len)?)))
        .collect()
}

/// What decoder and picture take.
fn bytes_of_pixel(decoder: &mut Reader<'_>) -> Result<u64, String> {
    let bits = decoder.find_tag_unsigned_vec::<u16>(Tag::BitsPerSample);
    let bits = bits.map_err(explain)?.unwrap_or_else(|| vec![1]);
    let bytes: u64 = bits.iter().map(|&bits| u64::from(bits.div_ceil(8))).sum();
    // The samples, and the picture made of them: palettes become RGB, grey floats three of them.
    Ok(bytes + (3 * bytes).max(4))
}

/// Refuses what `image` does not read, or reads wrong.
fn check_kind(colours: ColorType, is_float: bool) -> Result<(), String> {
    let (what, bits) = match colours {
        ColorType::Gray(bits) => ("grey", bits),
        ColorType::GrayA(bits) => ("grey with transparency", bits),
        ColorType::RGB(bits) => ("RGB", bits),
        ColorType::RGBA(bits) => ("RGB with transparency", bits),
        ColorType::CMYK(bits) => ("CMYK", bits),
        ColorType::Multiband {
            bit_depth,
            num_samples,
        } => {
            return Err(format!(
                "{num_samples} bands of {bit_depth} bits are not read"
            ));
        }
        other => return Err(format!("its colours ({other:?}) are not read")),
    };
    let is_read = match (bits, is_float) {
        (1, false) => what == "grey",
        (8 | 16, false) => true,
        (32, true) => what.starts_with("RGB"),
        _ => false,
    };
    let kind = if is_float { "floats" } else { "whole numbers" };
    match is_read {
        true => Ok(()),
        false => Err(format!("{what} in {kind} of {bits} bits is not read")),
    }
}

/// Colours that were multiplied by their transparency, as they were before.
fn divided_by_alpha(image: DynamicImage) -> DynamicImage {
    match image {
        DynamicImage::ImageRgba8(mut image) => {
            for pixel in image.pixels_mut() {
                let [colours @ .., alpha] = &mut pixel.0;
                let alpha = u32::from(*alpha).max(1);
                for colour in colours {
                    *colour = (u32::from(*colour) * 255 / alpha).min(255) as u8;
                }
            }
            image.into()
        }
        DynamicImage::ImageRgba16(mut image) => {
            for pixel in image.pixels_mut() {
                let [colours @ .., alpha] = &mut pixel.0;
                let alpha = u64::from(*alpha).max(1);
                for colour in colours {
                    *colour = (u64::from(*colour) * 65535 / alpha).min(65535) as u16;
                }
            }
            image.into()
        }
        other => other,
    }
}

/// Floats whose white is 1, 255 or 65535, as the largest says, with white 1.
fn with_known_white(image: DynamicImage) -> Result<DynamicImage, String> {
    let DynamicImage::ImageRgb32F(mut image) = image else {
        return Ok(image);
    };
    let values = image.as_raw().iter();
    let (low, high) = values.fold((0.0_f32, 0.0_f32), |(low, high), v| {
        (low.min(*v), high.max(*v))
    });
    let white = match high {
        // A little more than white comes of sharpening.
        _ if high <= 2.0 => 1.0,
        _ if high <= 255.0 => 255.0,
        _ if high <= 65535.0 => 65535.0,
        _ => f32::INFINITY,
    };
    if low < -0.05 * white || white == f32::INFINITY {
        return Err(format!(
            "its floats go from {low} to {high}; what is read goes from 0 to 1, 255 or 65535"
        ));
    }
    image.iter_mut().for_each(|v| *v /= white);
    Ok(image.into())
}

fn by_image(bytes: &[u8]) -> Result<DynamicImage, String> {
    let decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
    DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())
}

/// Grey in `bits` a pixel, rows of whole bytes: width, height and pixels.
fn unpacked(decoder: &mut Reader<'_>, bits: u8) -> Result<(u32, u32, Vec<u8>), String> {
    let (width, height) = decoder.dimensions().map_err(explain)?;
    let DecodingResult::U8(packed) = decoder.read_image().map_err(explain)? else {
        return Err(format!("its samples of {bits} bits are no bytes"));
    };
    let row_bytes = (width as usize * usize::from(bits)).div_ceil(8);
    let mut values = Vec::with_capacity(width as usize * height as usize);
    for row in packed.chunks_exact(row_bytes).take(height as usize) {
        values.extend((0..width as usize).map(|x| {
            let bit = x * usize::from(bits);
            row[bit / 8] << (bit % 8) >> (8 - bits)
        }));
    }
    Ok((width, height, values))
}

fn few_bits(decoder: &mut Reader<'_>, bits: u8) -> Result<DynamicImage, String> {
    let (width, height, mut values) = unpacked(decoder, bits)?;
    let most = (1_u16 << bits) - 1;
    for value in &mut values {
        *value = (u16::from(*value) * 255 / most) as u8;
    }
    filled(GrayImage::from_raw(width, height, values))
}

/// Grey, and its transparency, which is left out.
fn grey_with_alpha(decoder: &mut Reader<'_>) -> Result<DynamicImage, String> {
    let (width, height) = decoder.dimensions().map_err(explain)?;
    let image = match decoder.read_image().map_err(explain)? {
        DecodingResult::U8(v) => {
            let grey = v.into_iter().step_by(2).collect();
            GrayImage::from_raw(width, height, grey).map(DynamicImage::from)
        }
        DecodingResult::U16(v) => {
            let grey = v.into_iter().step_by(2).collect();
            ImageBuffer::from_raw(width, height, grey).map(DynamicImage::ImageLuma16)
        }
        _ => return Err("two bands of more than 16 bits are not read".into()),
    };
    filled(image)
}

/// Grey floats. (`image` has no such kind: three equal channels.)
fn floats(decoder: &mut Reader<'_>) -> Result<DynamicImage, String> {
    let (width, height) = decoder.dimensions().map_err(explain)?;
    let DecodingResult::F32(values) = decoder.read_image().map_err(explain)? else {
        return Err("its samples of 32 bits are no floats".into());
    };
    let values = values.into_iter().flat_map(|value| [value; 3]).collect();
    filled(Rgb32FImage::from_raw(width, height, values))
}

/// Brightness and two colours, as JPEG has them, to red, green and blue.
pub(super) fn rgb_of(ycbcr: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = ycbcr.map(f32::from);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    let rgb = [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ];
    rgb.map(|v| v.round().clamp(0.0, 255.0) as u8)
}

/// Refuses brightness and colours that are not as JPEG has them: of other ranges or other weights.
fn check_ycbcr(decoder: &mut Reader<'_>) -> Result<(), String> {
    let of_jpeg = [
        (529, "YCbCrCoefficients", &[0.299, 0.587, 0.114][..]),
        (
            532,
            "ReferenceBlackWhite",
            &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0],
        ),
    ];
    for (tag, name, wanted) in of_jpeg {
        let Some(Value::List(found)) = decoder.find_tag(Tag::Unknown(tag)).map_err(explain)? else {
            continue;
        };
        let is_as_wanted = |(found, wanted): (&Value, &f64)| match *found {
            Value::Rational(n, d) => (f64::from(n) / f64::from(d) - wanted).abs() < 0.01,
            _ => false,
        };
        if found.len() != wanted.len() || !found.iter().zip(wanted).all(is_as_wanted) {
            return Err(format!("its {name} are not JPEG's, which is not read"));
        }
    }
    Ok(())
}

/// Brightness and colours of full range, each as often as the other.
fn ycbcr(decoder: &mut Reader<'_>) -> Result<DynamicImage, String> {
    let (width, height) = decoder.dimensions().map_err(explain)?;
    let DecodingResult::U8(mut samples) = decoder.read_image().map_err(explain)? else {
        return Err("its samples of 8 bits are no bytes".into());
    };
    for pixel in samples.chunks_exact_mut(3) {
        pixel.copy_from_slice(&rgb_of([pixel[0], pixel[1], pixel[2]]));
    }
    filled(RgbImage::from_raw(width, height, samples))
}

/// Numbers of colours. The crate reads such samples only where the file calls them grey, so `bytes` are made to.
fn palette(decoder: &mut Reader<'_>, bytes: &mut Cow<'_, [u8]>) -> Result<DynamicImage, String> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(explain)?;
    relabel(bytes, &[(Tag::PhotometricInterpretation, GREY.into())])?;
    let mut decoder = open(bytes)?;
    let bits = match decoder.colortype().map_err(explain)? {
        ColorType::Gray(bits @ (1 | 2 | 4 | 8)) => bits,
        other => return Err(format!("a palette of {other:?} is not read")),
    };
    let (width, height, values) = unpacked(&mut decoder, bits)?;
    let colours = map.len() / 3;
    let colour = |value: u8| {
        let channel = |c: usize| {
            map.get(c * colours + usize::from(value))
                .map(|v| (v >> 8) as u8)
        };
        let is_there = usize::from(value) < colours;
        match (is_there, channel(0), channel(1), channel(2)) {
            (true, Some(r), Some(g), Some(b)) => Ok([r, g, b]),
            _ => Err("a pixel has a colour that its palette has not"),
        }
    };
    let mut pixels = Vec::with_capacity(3 * values.len());
    for value in values {
        pixels.extend(colour(value)?);
    }
    filled(RgbImage::from_raw(width, height, pixels))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What the files have at x, y, but for `palette.tif`, whose 16 colours come near it.
    fn value(x: u32, y: u32) -> [u8; 3] {
        let v = ((x * 12 + y * 5) % 256) as u8;
        [v, 255 - v, v / 2]
    }

    fn read(name: &str) -> Result<DynamicImage, String> {
        let path = Path::new("tests/data/tiff").join(name);
        let bytes = std::fs::read(&path).unwrap();
        let decoded = super::super::decode(&path, &bytes, super::super::Room::of(0));
        Ok(decoded.map_err(|e| e.to_string())?.image)
    }

    /// Files that Pillow wrote.
    #[test]
    fn kinds_of_microscopes_and_maps() {
        let kinds = [
            ("lzw.tif", 3, 0),
            ("zstd.tif", 3, 0),
            ("big.tif", 3, 0),
            ("jpeg.tif", 3, 6),
            ("ycbcr.tif", 3, 3),
            ("palette.tif", 3, 40),
            ("grey16.tif", 1, 0),
            ("float.tif", 1, 1),
        ];
        for (name, channels, most) in kinds {
            let image = read(name).unwrap_or_else(|e| panic!("{e}")).into_rgb8();
            assert_eq!(image.dimensions(), (20, 12), "{name}");
            for (x, y, pixel) in image.enumerate_pixels() {
                let wanted = value(x, y);
                for c in 0..3 {
                    let wanted = if channels == 1 { wanted[0] } else { wanted[c] };
                    let off = pixel.0[c].abs_diff(wanted);
                    assert!(off <= most, "{name}: {pixel:?} at {x}, {y}, not {wanted}");
                }
            }
        }
        // As Pillow reads them.
        let palette = read("palette.tif").unwrap().into_rgb8();
        assert_eq!(palette.get_pixel(3, 2).0, [49, 206, 24]);
        assert_eq!(palette.get_pixel(17, 9).0, [245, 10, 122]);
        let bits = read("bits1.tif").unwrap().into_luma8();
        for (x, y, pixel) in bits.enumerate_pixels() {
            assert_eq!(pixel.0[0] == 255, value(x, y)[0] > 127, "{x}, {y}");
        }
    }

    /// A TIFF of one strip with these tags, of type LONG where that is read.
    fn file(pixels: &[u8], tags: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = b"II*\0".to_vec();
        bytes.extend((8 + pixels.len() as u32).to_le_bytes());
        bytes.extend(pixels);
        bytes.extend((tags.len() as u16).to_le_bytes());
        for (tag, value) in tags {
            bytes.extend(tag.to_le_bytes());
            let kind = if *tag == 338 { 3 } else { 4 };
            bytes.extend([kind, 0, 1, 0, 0, 0]);
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes
    }

    /// Four bits a pixel, 3 x 2, and the same with the bits of every byte turned round.
    #[test]
    fn few_bits_and_bits_in_the_other_order() {
        let pixels = [0x0f, 0x80, 0xf1, 0x70];
        let with = |pixels: &[u8; 4], changes: &[(u16, u32)]| {
            // A predictor means nothing without a compression that has one.
            let mut tags = vec![
                (256, 3),
                (257, 2),
                (258, 4),
                (259, 1),
                (262, 1),
                (266, 1),
                (273, 8),
                (277, 1),
                (278, 2),
                (279, 4),
                (317, 2),
            ];
            for &(tag, value) in changes {
                tags.retain(|(other, _)| *other != tag);
                tags.push((tag, value));
            }
            tags.sort_unstable();
            let bytes = file(pixels, &tags);
            let decoded = super::super::decode(Path::new("x"), &bytes, super::super::Room::of(0));
            decoded.map(|decoded| decoded.image.into_luma8().into_raw())
        };
        let wanted = vec![0, 255, 136, 255, 17, 119];
        assert_eq!(with(&pixels, &[]).unwrap(), wanted);
        let turned = pixels.map(u8::reverse_bits);
        assert_eq!(with(&turned, &[(266, 2)]).unwrap(), wanted);
        let two = with(
            &[0b0001_1011, 0b1100_0000, 0b1110_0100, 0],
            &[(258, 2), (256, 4), (278, 1)],
        );
        assert!(two.is_err(), "a strip is missing");
        // What is refused, by name.
        for (changes, wanted) in [(&[(258, 10)][..], "10 bits"), (&[(258, 32)], "32 bits")] {
            let text = with(&pixels, changes).unwrap_err().to_string();
            assert!(text.contains(wanted), "{text}");
        }
    }

    /// 3 x 2 pixels of `samples` samples, and what is said of them.
    fn three_by_two(strip: &[u8], bits: u32, samples: u32, more: &[(u16, u32)]) -> Vec<u8> {
        let len = strip.len() as u32;
        let mut tags = vec![(256, 3), (257, 2), (258, bits), (262, 1), (273, 8)];
        tags.extend([(277, samples), (278, 2), (279, len)]);
        tags.extend(more);
        tags.sort_unstable();
        file(strip, &tags)
    }

    fn read_bytes(bytes: &[u8]) -> DynamicImage {
        let decoded = super::super::decode(Path::new("x"), bytes, super::super::Room::of(0));
        decoded.unwrap().image
    }

    /// Grey stays grey, its transparency goes.
    #[test]
    fn grey_with_transparency_in_8_and_16_bits() {
        let grey = [10, 20, 30, 40, 50, 60];
        let bytes: Vec<u8> = grey.iter().flat_map(|&v| [v, 7]).collect();
        let unassociated = [(259, 1), (338, 2)];
        let image = read_bytes(&three_by_two(&bytes, 8, 2, &unassociated));
        let wanted = GrayImage::from_raw(3, 2, grey.to_vec()).unwrap();
        assert_eq!(image, DynamicImage::ImageLuma8(wanted));

        let deep = grey.map(|v| u16::from(v) * 1000);
        let words = deep.iter().flat_map(|&v| [v, 7]);
        let bytes: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
        let image = read_bytes(&three_by_two(&bytes, 16, 2, &unassociated));
        let wanted = ImageBuffer::from_raw(3, 2, deep.to_vec()).unwrap();
        assert_eq!(image, DynamicImage::ImageLuma16(wanted));
    }

    /// Deflate as it is without compression; each row is its first pixel and differences, modulo 256.
    #[test]
    fn differences_that_were_compressed_are_added_up() {
        let rows = [10, 10, 10, 200, 156, 206];
        // The head of zlib, of a last block that is stored, its length and that turned round; at the end Adler-32.
        let head = [0x78, 0x01, 0x01, 6, 0, 0xf9, 0xff];
        let strip = [&head[..], &rows, &[4, 250, 2, 81], &[0]].concat();
        let image = read_bytes(&three_by_two(&strip, 8, 1, &[(259, 8), (317, 2)]));
        let wanted = GrayImage::from_raw(3, 2, vec![10, 20, 30, 200, 100, 50]).unwrap();
        assert_eq!(image, DynamicImage::ImageLuma8(wanted));
    }

    /// The weights of brightness are fractions; whole numbers are none, though they be as many.
    #[test]
    fn weights_of_another_type_are_refused() {
        let mut bytes = three_by_two(&[0; 6], 8, 1, &[(259, 1), (529, 0)]);
        assert_eq!(check_ycbcr(&mut open(&bytes).unwrap()), Ok(()));
        let at = bytes
            .windows(2)
            .position(|two| two == 529_u16.to_le_bytes());
        // Three bytes, which stand in the tag itself.
        bytes[at.unwrap() + 2..][..6].copy_from_slice(&[1, 0, 3, 0, 0, 0]);
        let said = check_ycbcr(&mut open(&bytes).unwrap()).unwrap_err();
        assert_eq!(
            said,
            "its YCbCrCoefficients are not JPEG's, which is not read"
        );
    }

    #[test]
    fn kinds_that_are_not_read_are_named() {
        use ColorType::{CMYK, Gray, GrayA, Multiband, RGB, RGBA, YCbCr};
        let bands = Multiband {
            bit_depth: 16,
            num_samples: 5,
        };
        for (colours, is_float, wanted) in [
            (Gray(1), false, ""),
            (Gray(8), false, ""),
            (GrayA(16), false, ""),
            (RGB(8), false, ""),
            (RGBA(16), false, ""),
            (CMYK(8), false, ""),
            (RGB(32), true, ""),
            (RGBA(32), true, ""),
            (RGB(1), false, "RGB in whole numbers of 1 bits is not read"),
            (
                Gray(32),
                false,
                "grey in whole numbers of 32 bits is not read",
            ),
            (Gray(16), true, "grey in floats of 16 bits is not read"),
            (
                GrayA(32),
                true,
                "grey with transparency in floats of 32 bits is not read",
            ),
            (
                RGBA(64),
                true,
                "RGB with transparency in floats of 64 bits is not read",
            ),
            (CMYK(32), true, "CMYK in floats of 32 bits is not read"),
            (bands, false, "5 bands of 16 bits are not read"),
            (YCbCr(16), false, "its colours (YCbCr(16)) are not read"),
        ] {
            let said = check_kind(colours, is_float).err().unwrap_or_default();
            assert_eq!(said, wanted, "{colours:?} {is_float}");
        }
    }

    #[test]
    fn colours_are_divided_by_their_transparency_and_floats_by_their_white() {
        let image = image::RgbaImage::from_pixel(1, 1, image::Rgba([100, 50, 0, 127]));
        let divided = divided_by_alpha(image.into()).into_rgb8();
        assert_eq!(divided.get_pixel(0, 0).0, [200, 100, 0]);
        let floats = |high: f32| {
            let image = Rgb32FImage::from_raw(2, 1, vec![0.0, 0.0, 0.0, high, high, high]);
            with_known_white(image.unwrap().into()).map(|image| image.to_rgb32f().into_raw()[5])
        };
        for (high, wanted) in [
            (-0.04, -0.04),
            (0.5, 0.5),
            (1.0, 1.0),
            (2.0, 2.0),
            (2.5, 2.5 / 255.0),
            (255.0, 1.0),
            (256.0, 256.0 / 65535.0),
            (65535.0, 1.0),
        ] {
            assert_eq!(floats(high), Ok(wanted));
        }
        assert!(floats(65536.0).is_err() && floats(-0.06).is_err());
        // In 16 bits, and no more than white.
        let deep = ImageBuffer::from_pixel(1, 1, image::Rgba([10_000_u16, 30_000, 0, 20_000]));
        let divided = divided_by_alpha(DynamicImage::ImageRgba16(deep)).into_rgb16();
        assert_eq!(divided.get_pixel(0, 0).0, [32_767, 65_535, 0]);
    }

    /// By JPEG's weights, worked out by hand.
    #[test]
    fn brightness_and_colours_become_rgb() {
        for (ycbcr, rgb) in [
            ([100, 128, 128], [100, 100, 100]),
            ([100, 178, 128], [100, 83, 189]),
            ([100, 128, 178], [170, 64, 100]),
            ([250, 255, 128], [250, 206, 255]),
            ([9, 0, 0], [0, 144, 0]),
        ] {
            assert_eq!(rgb_of(ycbcr), rgb, "{ycbcr:?}");
        }
    }
}
