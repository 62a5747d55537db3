//! How a picture was held, out of Exif, in every container that carries it.
//!
//! Exif is a TIFF header and directories; the tag 0x0112 of the first says which of eight ways is up.

use image::metadata::Orientation;

/// Bytes that stand before Exif in a JPEG's segment, and that some programs write into other containers too.
const PREFIX: &[u8] = b"Exif\0\0";

const ORIENTATION: u16 = 0x0112;
const SHORT: u16 = 3;
const LONG: u16 = 4;

/// What Exif data say, with the prefix or without. `None` if they say nothing, or are damaged.
pub(super) fn orientation(data: &[u8]) -> Option<Orientation> {
    let data = data.strip_prefix(PREFIX).unwrap_or(data);
    let is_little = match data.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let bytes = |at: usize, len: usize| data.get(at..at.checked_add(len)?);
    let short = |at| {
        let two: [u8; 2] = bytes(at, 2)?.try_into().ok()?;
        Some(match is_little {
            true => u16::from_le_bytes(two),
            false => u16::from_be_bytes(two),
        })
    };
    let long = |at| {
        let four: [u8; 4] = bytes(at, 4)?.try_into().ok()?;
        Some(match is_little {
            true => u32::from_le_bytes(four),
            false => u32::from_be_bytes(four),
        })
    };
    let directory = long(4)? as usize;
    let entries = usize::from(short(directory)?);
    for i in 0..entries {
        let entry = directory + 2 + 12 * i;
        if short(entry)? == ORIENTATION {
            let value = match short(entry + 2)? {
                SHORT => u32::from(short(entry + 8)?),
                LONG => long(entry + 8)?,
                _ => return None,
            };
            return Orientation::from_exif(u8::try_from(value).ok()?);
        }
    }
    None
}

/// Of a JPEG: its first Exif segment.
pub(super) fn of_jpeg(bytes: &[u8]) -> Option<Orientation> {
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let &[_, marker, high, low] = bytes.get(at..at + 4)? else {
            return None;
        };
        match marker {
            // Bytes that fill up.
            0xff => at += 1,
            // The scans begin.
            0xda | 0xd9 => return None,
            _ => {
                let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
                let data = bytes.get(at + 4..end)?;
                if marker == 0xe1 && data.starts_with(PREFIX) {
                    return orientation(data);
                }
                at = end;
            }
        }
    }
}

/// Of a PNG: its chunk eXIf, before the pixels or after them.
pub(super) fn of_png(bytes: &[u8]) -> Option<Orientation> {
    let mut at = 8;
    loop {
        let length: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        let length = u32::from_be_bytes(length) as usize;
        let name = bytes.get(at + 4..at + 8)?;
        if name == b"eXIf" {
            return orientation(bytes.get(at + 8..at + 8 + length)?);
        }
        at += 12 + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exif with one tag.
    fn exif(is_little: bool, kind: u16, value: u32) -> Vec<u8> {
        let two = |v: u16| {
            if is_little {
                v.to_le_bytes()
            } else {
                v.to_be_bytes()
            }
        };
        let four = |v: u32| {
            if is_little {
                v.to_le_bytes()
            } else {
                v.to_be_bytes()
            }
        };
        let mut data = if is_little {
            b"II*\0".to_vec()
        } else {
            b"MM\0*".to_vec()
        };
        data.extend(four(8));
        data.extend(two(1));
        data.extend(two(ORIENTATION));
        data.extend(two(kind));
        data.extend(four(1));
        match kind {
            SHORT => data.extend([two(value as u16), [0; 2]].concat()),
            _ => data.extend(four(value)),
        }
        data.extend(four(0));
        data
    }

    #[test]
    fn both_byte_orders_both_types_with_and_without_prefix() {
        for is_little in [false, true] {
            for kind in [SHORT, LONG] {
                let data = exif(is_little, kind, 6);
                assert_eq!(orientation(&data), Some(Orientation::Rotate90));
                let prefixed = [PREFIX, &data].concat();
                assert_eq!(orientation(&prefixed), Some(Orientation::Rotate90));
            }
        }
        assert_eq!(orientation(&exif(true, SHORT, 9)), None);
        assert_eq!(orientation(&exif(true, 2, 6)), None);
        // Behind another tag, whose value would be an orientation too.
        let mut second = exif(true, SHORT, 6);
        second[8] = 2;
        second.splice(10..10, [0x06, 0x01, 3, 0, 1, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(orientation(&second), Some(Orientation::Rotate90));
        // The value ends at byte 20.
        for len in 0..20 {
            assert_eq!(orientation(&exif(true, SHORT, 6)[..len]), None, "{len}");
        }
    }

    #[test]
    fn the_first_of_two_segments_and_a_chunk_after_the_pixels() {
        let segment = |value| {
            let data = [PREFIX, &exif(false, SHORT, value)].concat();
            let length = (data.len() as u16 + 2).to_be_bytes();
            [&[0xff, 0xe1], &length[..], &data].concat()
        };
        let jpeg = [
            &[0xff, 0xd8][..],
            &segment(8),
            &segment(3),
            &[0xff, 0xda, 0, 2],
        ]
        .concat();
        assert_eq!(of_jpeg(&jpeg), Some(Orientation::Rotate270));
        let chunk = |name: &[u8], data: &[u8]| {
            [&(data.len() as u32).to_be_bytes(), name, data, &[0; 4]].concat()
        };
        let after = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IDAT", &[1, 2, 3]),
            chunk(b"eXIf", &exif(true, LONG, 3)),
        ];
        assert_eq!(of_png(&after.concat()), Some(Orientation::Rotate180));
    }

    /// Any number of bytes that fill up stand before a marker, and other segments before Exif.
    #[test]
    fn bytes_that_fill_up_are_passed_over() {
        let data = [PREFIX, &exif(true, SHORT, 6)].concat();
        let length = (data.len() as u16 + 2).to_be_bytes();
        let other = [0xff, 0xe0, 0, 4, 0xff, 0xe1];
        for fill in 0..5 {
            for others in 0..2 {
                let jpeg = [
                    &[0xff, 0xd8][..],
                    &other.repeat(others),
                    &vec![0xff; fill],
                    &[0xff, 0xe1],
                    &length,
                    &data,
                    &[0xff, 0xda, 0, 2],
                ]
                .concat();
                let found = of_jpeg(&jpeg);
                assert_eq!(found, Some(Orientation::Rotate90), "{fill} {others}");
            }
        }
        // Behind the beginning of the scans it is none.
        let late = [&[0xff, 0xd8, 0xff, 0xda][..], &[0xff, 0xe1], &length, &data].concat();
        assert_eq!(of_jpeg(&late), None);
    }
}
