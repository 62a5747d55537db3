//! TIFF layouts that the decoder's crate does not know, read by giving them the names of those it does.
//!
//! The crate undoes strips, tiles and compressions whatever their bytes mean. So a copy of the file is made to claim a
//! grey picture whose bytes lie in the same places, and what comes back is put in order here:
//!
//! | layout | claimed | an element of it |
//! |---|---|---|
//! | 12 bits a sample | 4 bits, rows three times as long for each sample | a third of a sample |
//! | brightness, and colours once for `h` x `v` pixels | 8 bits, a row for each `v` rows | a sample |
//! | colours in tiles of their own | the planes one below the other, each padded to whole tiles | a sample |

use std::borrow::Cow;

use image::{DynamicImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tiff::decoder::DecodingResult;
use tiff::tags::Tag;

use super::filled;
use super::tiff::{GREY, Reader, YCBCR, explain, open, rgb_of};

const WHITE_IS_ZERO: u16 = 0;
const RGB: u16 = 2;
const PLANAR: u16 = 2;
const JPEG: u16 = 7;

/// A layout, and the size of the picture that is in it.
pub(super) struct Layout {
    width: u32,
    height: u32,
    /// Width and height of a tile, or the picture's width and the rows of a strip.
    chunk: [u32; 2],
    is_tiled: bool,
    photometric: u16,
    samples: u32,
    bits: u32,
    kind: Kind,
}

enum Kind {
    TwelveBits,
    /// Columns and rows that share one colour.
    Subsampled([u32; 2]),
    PlanarTiles,
}

impl Layout {
    /// The layout of a file, if it is one of these.
    ///
    /// # Errors
    /// If it is one of these, but with something that is not read.
    pub(super) fn of(decoder: &mut Reader<'_>) -> Result<Option<Self>, String> {
        let (width, height) = decoder.dimensions().map_err(explain)?;
        let shares = decoder.find_tag_unsigned_vec::<u32>(Tag::ChromaSubsampling);
        let shares = shares.map_err(explain)?.unwrap_or_else(|| vec![2, 2]);
        let mut number = |tag, default| {
            let found = decoder.find_tag_unsigned_vec::<u32>(tag).map_err(explain)?;
            Ok::<u32, String>(found.and_then(|n| n.first().copied()).unwrap_or(default))
        };
        let bits = number(Tag::BitsPerSample, 1)?;
        let samples = number(Tag::SamplesPerPixel, 1)?;
        let photometric = number(Tag::PhotometricInterpretation, u32::MAX)?;
        let compression = number(Tag::Compression, 1)?;
        let tile = [number(Tag::TileWidth, 0)?, number(Tag::TileLength, 0)?];
        let is_tiled = tile[0] > 0;
        let is_planar = samples > 1 && number(Tag::PlanarConfiguration, 1)? == u32::from(PLANAR);
        let rows = number(Tag::RowsPerStrip, u32::MAX)?;
        let format = number(Tag::SampleFormat, 1)?;

        let photometric = u16::try_from(photometric).unwrap_or(u16::MAX);
        let is_subsampled =
            photometric == YCBCR && compression != u32::from(JPEG) && shares != [1, 1];
        let kind = match () {
            () if bits == 12 && !is_planar => Kind::TwelveBits,
            () if is_subsampled && !is_planar => match shares.as_slice() {
                &[h @ (1 | 2 | 4), v @ (1 | 2 | 4)] => Kind::Subsampled([h, v]),
                other => return Err(format!("colours at 1 in {other:?} pixels are not read")),
            },
            () if is_planar && is_tiled => Kind::PlanarTiles,
            () => return Ok(None),
        };
        let is_known = match kind {
            Kind::TwelveBits => {
                matches!((photometric, samples), (WHITE_IS_ZERO | GREY, 1) | (RGB, 3))
            }
            Kind::Subsampled(_) => bits == 8 && samples == 3,
            Kind::PlanarTiles => photometric == RGB && samples >= 3 && (bits == 8 || bits == 16),
        };
        if !is_known || format != 1 {
            let kind = kind.name();
            return Err(format!(
                "{kind} is not read where it has {samples} samples of {bits} bits (PhotometricInterpretation {photometric})"
            ));
        }
        let chunk = match is_tiled {
            true => tile,
            false => [width, rows.min(height)],
        };
        if chunk.contains(&0) || width == 0 || height == 0 {
            return Err("its strips or tiles have no pixels".into());
        }
        Ok(Some(Self {
            width,
            height,
            chunk,
            is_tiled,
            photometric,
            samples,
            bits,
            kind,
        }))
    }

    /// Width and height of what has to be held: the picture, with planes padded to whole tiles.
    pub(super) fn padded(&self) -> [u32; 2] {
        let height = match self.kind {
            Kind::PlanarTiles => self.plane_rows().unwrap_or(u32::MAX),
            _ => self.height,
        };
        [self.width, height]
    }

    /// The picture. `bytes` is the file, which is changed.
    pub(super) fn read(
        &self,
        bytes: &mut Cow<'_, [u8]>,
        has_predictor: bool,
    ) -> Result<DynamicImage, String> {
        if has_predictor && !matches!(self.kind, Kind::PlanarTiles) {
            return Err(format!("{} is not read with a predictor", self.kind.name()));
        }
        match self.kind {
            Kind::TwelveBits => self.twelve_bits(bytes),
            Kind::Subsampled(shares) => self.subsampled(bytes, shares),
            Kind::PlanarTiles => self.planar_tiles(bytes),
        }
    }

    fn twelve_bits(&self, bytes: &mut Cow<'_, [u8]>) -> Result<DynamicImage, String> {
        let wide = |columns: u32| columns.checked_mul(3 * self.samples).ok_or(TOO_LARGE);
        let mut tags = vec![
            (Tag::ImageWidth, wide(self.width)?),
            (Tag::BitsPerSample, 4),
        ];
        if self.is_tiled {
            tags.push((Tag::TileWidth, wide(self.chunk[0])?));
        }
        let photometric = match self.photometric {
            WHITE_IS_ZERO => WHITE_IS_ZERO,
            _ => GREY,
        };
        let DecodingResult::U8(packed) = claimed(bytes, &tags, photometric)? else {
            return Err("its samples of 12 bits are no bytes".into());
        };
        let row_samples = self.width as usize * self.samples as usize;
        let row_bytes = (row_samples * 12).div_ceil(8);
        let mut values = Vec::with_capacity(row_samples * self.height as usize);
        for row in packed.chunks_exact(row_bytes) {
            values.extend((0..row_samples).map(|i| {
                let [first, second] = [row[i * 3 / 2], row[i * 3 / 2 + 1]].map(u32::from);
                let value = match i % 2 {
                    0 => first << 4 | second >> 4,
                    _ => (first & 15) << 8 | second,
                };
                (value * 65535 / 4095) as u16
            }));
        }
        let (width, height) = (self.width, self.height);
        match self.samples {
            1 => filled(ImageBuffer::<Luma<u16>, _>::from_raw(width, height, values)),
            _ => filled(ImageBuffer::<Rgb<u16>, _>::from_raw(width, height, values)),
        }
    }

    fn subsampled(
        &self,
        bytes: &mut Cow<'_, [u8]>,
        [h, v]: [u32; 2],
    ) -> Result<DynamicImage, String> {
        // A unit has the brightness of h x v pixels, row by row, and then their two colours.
        let unit = h * v + 2;
        let [columns, rows] = self.chunk;
        let divides = match self.is_tiled {
            true => columns.is_multiple_of(h) && rows.is_multiple_of(v),
            false => rows.is_multiple_of(v) || rows >= self.height,
        };
        if !divides {
            return Err(format!(
                "strips or tiles of {columns} x {rows} pixels do not fit colours for {h} x {v} pixels"
            ));
        }
        let wide = |columns: u32| columns.div_ceil(h).checked_mul(unit).ok_or(TOO_LARGE);
        let mut tags = vec![
            (Tag::ImageWidth, wide(self.width)?),
            (Tag::ImageLength, self.height.div_ceil(v)),
            (Tag::BitsPerSample, 8),
        ];
        match self.is_tiled {
            true => tags.extend([
                (Tag::TileWidth, wide(columns)?),
                (Tag::TileLength, rows / v),
            ]),
            false => tags.push((Tag::RowsPerStrip, rows.div_ceil(v))),
        }
        let DecodingResult::U8(units) = claimed(bytes, &tags, GREY)? else {
            return Err("its samples of 8 bits are no bytes".into());
        };
        let row_units = self.width.div_ceil(h) as usize * unit as usize;
        let wanted = row_units * self.height.div_ceil(v) as usize;
        let units = units.get(..wanted).ok_or(CUT_SHORT)?;
        let picture = RgbImage::from_fn(self.width, self.height, |x, y| {
            let at = (y / v) as usize * row_units + (x / h) as usize * unit as usize;
            let unit = &units[at..][..unit as usize];
            let [cb, cr] = [unit[unit.len() - 2], unit[unit.len() - 1]];
            Rgb(rgb_of([unit[(y % v * h + x % h) as usize], cb, cr]))
        });
        Ok(picture.into())
    }

    /// Rows of a plane, padded to whole tiles.
    fn plane_rows(&self) -> Option<u32> {
        let rows = self.chunk[1];
        self.height.div_ceil(rows).checked_mul(rows)
    }

    fn planar_tiles(&self, bytes: &mut Cow<'_, [u8]>) -> Result<DynamicImage, String> {
        let plane_rows = self.plane_rows().ok_or(TOO_LARGE)?;
        let tags = vec![
            (
                Tag::ImageLength,
                plane_rows.checked_mul(self.samples).ok_or(TOO_LARGE)?,
            ),
            (Tag::BitsPerSample, self.bits),
        ];
        let (width, height) = (self.width, self.height);
        let plane = plane_rows as usize * width as usize;
        // A fourth is transparency; what follows it is left out.
        let channels = self.samples.min(4) as usize;
        let pixels = width as usize * height as usize;
        let places = (0..pixels).flat_map(|i| (0..channels).map(move |c| c * plane + i));
        match claimed(bytes, &tags, GREY)? {
            DecodingResult::U8(v) if v.len() >= channels * plane => {
                let values = places.map(|at| v[at]).collect();
                match channels {
                    3 => filled(RgbImage::from_raw(width, height, values)),
                    _ => filled(RgbaImage::from_raw(width, height, values)),
                }
            }
            DecodingResult::U16(v) if v.len() >= channels * plane => {
                let values = places.map(|at| v[at]).collect();
                match channels {
                    3 => filled(ImageBuffer::<Rgb<u16>, _>::from_raw(width, height, values)),
                    _ => filled(ImageBuffer::<Rgba<u16>, _>::from_raw(width, height, values)),
                }
            }
            _ => Err(CUT_SHORT.into()),
        }
    }
}

const CUT_SHORT: &str = "it was cut short";
const TOO_LARGE: &str = "its rows are longer than pictures are given";

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::TwelveBits => "a TIFF of 12 bits",
            Self::Subsampled(_) => "a TIFF with colours at a lower resolution",
            Self::PlanarTiles => {
                "a TIFF with colours in tiles of their own (PlanarConfiguration 2)"
            }
        }
    }
}

/// What is stored, read as samples of one channel in rows of whole bytes.
fn claimed(
    bytes: &mut Cow<'_, [u8]>,
    tags: &[(Tag, u32)],
    photometric: u16,
) -> Result<DecodingResult, String> {
    relabel(bytes, tags)?;
    relabel(
        bytes,
        &[(Tag::PhotometricInterpretation, photometric.into())],
    )?;
    // One channel is what is meant where these are missing.
    for tag in [
        Tag::SamplesPerPixel,
        Tag::PlanarConfiguration,
        Tag::SampleFormat,
    ] {
        let _ = relabel(bytes, &[(tag, 1)]);
    }
    open(bytes)?.read_image().map_err(explain)
}

/// Gives tags of the first directory other values, one number each.
///
/// # Errors
/// If one is not there.
pub(super) fn relabel(bytes: &mut Cow<'_, [u8]>, tags: &[(Tag, u32)]) -> Result<(), String> {
    const LONG: u16 = 4;
    let (is_little, is_big) = order_and_size(bytes).ok_or(CUT_SHORT)?;
    for &(tag, value) in tags {
        let at = place_of(bytes, tag).ok_or_else(|| format!("it has no {tag:?}"))?;
        let mut entry = Vec::new();
        let mut put = |number: u64, len: usize| match is_little {
            true => entry.extend(&number.to_le_bytes()[..len]),
            false => entry.extend(&number.to_be_bytes()[8 - len..]),
        };
        put(LONG.into(), 2);
        put(1, if is_big { 8 } else { 4 });
        put(value.into(), 4);
        let place = bytes.to_mut().get_mut(at + 2..at + 2 + entry.len());
        place.ok_or(CUT_SHORT)?.copy_from_slice(&entry);
    }
    Ok(())
}

/// Whether the lower byte of a number comes first, and whether it is a `BigTIFF`.
fn order_and_size(bytes: &[u8]) -> Option<(bool, bool)> {
    match bytes.get(..4)? {
        b"II*\0" => Some((true, false)),
        b"II+\0" => Some((true, true)),
        b"MM\0*" => Some((false, false)),
        b"MM\0+" => Some((false, true)),
        _ => None,
    }
}

/// Where the entry of a tag of the first directory lies.
fn place_of(bytes: &[u8], tag: Tag) -> Option<usize> {
    let (is_little, is_big) = order_and_size(bytes)?;
    let number = |at: usize, len: usize| {
        let bytes = bytes.get(at..at.checked_add(len)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        let sum = match is_little {
            true => bytes.iter().rev().fold(0, add),
            false => bytes.iter().fold(0, add),
        };
        usize::try_from(sum).ok()
    };
    let (directory, count_len, entry_len) = match is_big {
        true => (number(8, 8)?, 8, 20),
        false => (number(4, 4)?, 2, 12),
    };
    let first = directory.checked_add(count_len)?;
    (0..number(directory, count_len)?)
        .map(|i| first + i * entry_len)
        .take_while(|at| at + entry_len <= bytes.len())
        .find(|&at| number(at, 2) == Some(usize::from(tag.to_u16())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{DynamicImage, RgbImage};

    fn read_any(name: &str, change: impl Fn(&mut Vec<u8>)) -> Result<DynamicImage, String> {
        let path = Path::new("tests/data/tiff").join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        let decoded = super::super::decode(&path, &bytes, super::super::Room::of(0));
        Ok(decoded.map_err(|e| e.to_string())?.image)
    }

    fn read(name: &str, change: impl Fn(&mut Vec<u8>)) -> Result<RgbImage, String> {
        read_any(name, change).map(DynamicImage::into_rgb8)
    }

    /// Files of 21 x 13 pixels in both orders of bytes, in strips and tiles, plain and deflated. libtiff reads those of them that it can
    /// in the same way.
    #[test]
    fn pixels_come_back() {
        for (name, channels) in [
            ("grey12.tif", 1),
            ("grey12-tiles.tif", 1),
            ("rgb12.tif", 3),
            ("planar-tiles.tif", 3),
            ("planar-tiles-alpha16.tif", 3),
        ] {
            let image = read(name, |_| ()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(image.dimensions(), (21, 13), "{name}");
            for (x, y, pixel) in image.enumerate_pixels() {
                let v = (x * 187 + y * 79) % 4096;
                let wanted = [v, 4095 - v, v / 2].map(|v| (v * 255 / 4095) as u8);
                for c in 0..3 {
                    let wanted = wanted[if channels == 1 { 0 } else { c }];
                    let off = pixel.0[c].abs_diff(wanted);
                    assert!(off <= 1, "{name}: {pixel:?} at {x}, {y}, not {wanted}");
                }
            }
        }
        // A sample of 12 bits is scaled to 16 and rounded down: white stays white.
        let deep = read_any("grey12.tif", |_| ()).unwrap().into_luma16();
        for (x, y, pixel) in deep.enumerate_pixels() {
            let v = (x * 187 + y * 79) % 4096;
            assert_eq!(u32::from(pixel.0[0]), v * 65535 / 4095, "at {x}, {y}");
        }
    }

    /// The colours are those of libtiff's `tiff2rgba`.
    #[test]
    fn colours_at_a_lower_resolution() {
        let places = [(0, 0), (5, 3), (20, 12), (17, 7)];
        for (name, wanted) in [
            (
                "ycbcr-2x2.tif",
                [[9, 249, 4], [60, 188, 29], [36, 219, 17], [221, 28, 109]],
            ),
            (
                "ycbcr-4x1-tiles.tif",
                [[20, 242, 11], [79, 177, 40], [36, 219, 17], [159, 67, 72]],
            ),
        ] {
            let image = read(name, |_| ()).unwrap_or_else(|e| panic!("{e}"));
            for ((x, y), wanted) in places.into_iter().zip(wanted) {
                assert_eq!(image.get_pixel(x, y).0, wanted, "{name} at {x}, {y}");
            }
        }
    }

    /// Gives a tag of type SHORT in a file with the lower byte first another value.
    fn with(tag: u16, value: u16) -> impl Fn(&mut Vec<u8>) {
        move |bytes| {
            let entry = [tag.to_le_bytes(), [3, 0]].concat();
            let at = bytes.windows(4).rposition(|four| four == entry).unwrap();
            bytes[at + 8..at + 10].copy_from_slice(&value.to_le_bytes());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        for (name, tag, value, wanted) in [
            ("grey12.tif", 258, 10, "10 bits"),
            ("grey12.tif", 262, 5, "PhotometricInterpretation 5"),
            ("ycbcr-2x2.tif", 530, 3, "colours at 1 in"),
        ] {
            let text = read(name, with(tag, value)).unwrap_err();
            assert!(text.contains(wanted), "{text}");
        }
        for name in ["grey12.tif", "ycbcr-2x2.tif", "planar-tiles-alpha16.tif"] {
            // A row more than there are samples of.
            assert!(read(name, with(257, 200)).is_err(), "{name}");
        }
    }
}
