//! The IDX format of MNIST, plain or gzipped: two zero bytes, the element type, the number of
//! dimensions, the sizes as big-endian u32, then the elements.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;

use super::{Images, Source};
use crate::{Error, Result};

/// Element type of unsigned bytes.
const UBYTE: u8 = 0x08;

/// More than any set of this format has; stops files that unpack without end.
const MAX_BYTES: u64 = 4 << 30;

/// How a gzip begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Classes of MNIST and Fashion-MNIST.
const CLASSES: u8 = 10;

/// A file of images and the file of their labels, as [N, 1, H, W].
///
/// # Errors
/// [`Error::Data`] naming the file and, where known, the byte.
pub fn pair(
    images_path: &Path,
    images: &[u8],
    labels_path: &Path,
    labels: &[u8],
) -> Result<Images> {
    let (sizes, pixels) = parse(images_path, images, 3, "images")?;
    let (label_sizes, labels) = parse(labels_path, labels, 1, "labels")?;
    if sizes[0] != label_sizes[0] {
        let (n, m, other) = (label_sizes[0], sizes[0], images_path.display());
        let message = format!("has {n} labels, but {other} has {m} images");
        return Err(Error::data(labels_path, message));
    }
    if let Some(i) = labels.iter().position(|&l| l >= CLASSES) {
        let message = format!(
            "label {} at byte {} is not below {CLASSES}",
            labels[i],
            8 + i
        );
        return Err(Error::data(labels_path, message));
    }
    Ok(Images {
        name: images_path.display().to_string(),
        channels: 1,
        height: sizes[1],
        width: sizes[2],
        classes: usize::from(CLASSES),
        source: Source::Bytes(pixels),
        labels: labels.into_iter().map(u16::from).collect(),
    })
}

/// Sizes and elements of an IDX file of unsigned bytes with `rank` dimensions. `what` it should
/// hold is for the messages.
///
/// # Errors
/// [`Error::Data`] naming the byte.
pub fn parse(path: &Path, bytes: &[u8], rank: u8, what: &str) -> Result<(Vec<usize>, Vec<u8>)> {
    let fail = |message: String| Error::data(path, message);
    let header_len = 4 + 4 * usize::from(rank);
    let bytes = unpack(path, bytes, header_len)?;
    let magic = match *bytes.as_ref() {
        [0, 0, kind, dims, ..] => (kind, dims),
        [a, b, c, d, ..] => {
            return Err(fail(format!(
                "does not start like an IDX file: bytes 0..4 are {a:02x} {b:02x} {c:02x} {d:02x}, \
                 not 00 00 08 {rank:02x}"
            )));
        }
        _ => {
            return Err(fail(format!(
                "ends at byte {}, within the header",
                bytes.len()
            )));
        }
    };
    if magic.0 != UBYTE {
        let message = format!(
            "byte 2 is {:02x}: elements are not unsigned bytes (08)",
            magic.0
        );
        return Err(fail(message));
    }
    if magic.1 != rank {
        let hint = match (magic.1, rank) {
            (1, 3) => "; this looks like a file of labels",
            (3, 1) => "; this looks like a file of images",
            _ => "",
        };
        let found = magic.1;
        return Err(fail(format!(
            "byte 3 says {found} dimensions; {what} have {rank}{hint}"
        )));
    }
    if bytes.len() < header_len {
        return Err(fail(format!(
            "ends at byte {}, within the header",
            bytes.len()
        )));
    }
    let sizes: Vec<usize> = bytes[4..header_len]
        .chunks_exact(4)
        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize)
        .collect();
    if let Some(i) = sizes.iter().position(|&s| s == 0) {
        return Err(fail(format!("size {i} at byte {} is 0", 4 + 4 * i)));
    }
    let Some(expected) = whole_len(&bytes[..header_len]) else {
        return Err(fail(format!("sizes {sizes:?} are absurd")));
    };
    let len = bytes.len();
    match len.cmp(&expected) {
        std::cmp::Ordering::Less => Err(fail(format!(
            "ends at byte {len}; {sizes:?} {what} need {expected}: cut short?"
        ))),
        std::cmp::Ordering::Greater => {
            let more = match &bytes {
                Cow::Borrowed(_) => format!("{} bytes", len - expected),
                // Unpacked no further.
                Cow::Owned(_) => "more".to_string(),
            };
            Err(fail(format!(
                "has {more} after byte {expected}, where {sizes:?} {what} end"
            )))
        }
        std::cmp::Ordering::Equal => Ok((sizes, bytes[header_len..].to_vec())),
    }
}

/// Bytes of the whole file, as the sizes in its header say; `None` if they are absurd.
fn whole_len(header: &[u8]) -> Option<usize> {
    let sizes = header.get(4..)?.chunks_exact(4);
    let mut sizes = sizes.map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let elements = sizes.try_fold(1_usize, usize::checked_mul)?;
    elements.checked_add(header.len())
}

/// The bytes of a file of `header_len` and what its sizes say. A gzip is unpacked to a byte more at most: a small one may unpack to
/// any size.
fn unpack<'a>(path: &Path, bytes: &'a [u8], header_len: usize) -> Result<Cow<'a, [u8]>> {
    let fail = |message: String| Err(Error::data(path, message));
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes.into());
    }
    let mut unpacked = Vec::new();
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let mut most = header_len;
    loop {
        let left = (most - unpacked.len()) as u64;
        let read = decoder.by_ref().take(left).read_to_end(&mut unpacked);
        if let Err(e) = read {
            let at = unpacked.len();
            return fail(format!(
                "gzip is cut short or damaged after {at} unpacked bytes: {e}"
            ));
        }
        if unpacked.len() == header_len {
            let len = whole_len(&unpacked).filter(|_| unpacked.starts_with(&[0, 0, UBYTE]));
            match len {
                // The parser says what is wrong.
                None => return Ok(unpacked.into()),
                Some(len) if len as u64 <= MAX_BYTES => most = len + 1,
                Some(_) => return fail(format!("unpacks to more than {MAX_BYTES} bytes")),
            }
            continue;
        }
        if unpacked.len() == most {
            return Ok(unpacked.into());
        }
        // The end of one gzip; others may follow, and zeros that fill a tape's block.
        let rest = decoder.into_inner();
        if !rest.starts_with(&GZIP) {
            return match rest.iter().all(|&byte| byte == 0) {
                true => Ok(unpacked.into()),
                false => fail(format!(
                    "has {} bytes after byte {}, where its gzip ends",
                    rest.len(),
                    bytes.len() - rest.len()
                )),
            };
        }
        decoder = flate2::bufread::GzDecoder::new(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn images(count: u32) -> Vec<u8> {
        let mut file = vec![0, 0, 8, 3];
        for size in [count, 2, 3] {
            file.extend(size.to_be_bytes());
        }
        file.extend((0..count * 6).map(|i| (i % 256) as u8));
        file
    }

    fn labels(values: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, 8, 1];
        file.extend((values.len() as u32).to_be_bytes());
        file.extend(values);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// 16 is also the length of the header.
    #[test]
    fn sizes_are_multiplied_whatever_they_are() {
        for count in [1, 8, 16] {
            let labels = labels(&vec![0; count as usize]);
            assert_eq!(open(&images(count), &labels).unwrap().len(), count as usize);
            let mut short = images(count);
            short.pop();
            assert!(open(&short, &labels).is_err(), "{count} images");
        }
        let mut square = vec![0, 0, 8, 3];
        for size in [4u32, 4, 5] {
            square.extend(size.to_be_bytes());
        }
        square.extend([0; 5]);
        assert!(open(&square, &labels(&[0; 4])).is_err());
    }

    fn open(images: &[u8], labels: &[u8]) -> Result<Images> {
        pair(Path::new("images"), images, Path::new("labels"), labels)
    }

    fn message(result: Result<Images>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn plain_and_gzipped_are_the_same() {
        let plain = open(&images(4), &labels(&[1, 2, 3, 4])).unwrap();
        let packed = open(&gzip(&images(4)), &gzip(&labels(&[1, 2, 3, 4]))).unwrap();
        assert_eq!(plain, packed);
        assert_eq!((plain.len(), plain.height, plain.width), (4, 2, 3));
    }

    #[test]
    fn the_largest_label_is_the_last_class() {
        assert!(open(&images(2), &labels(&[0, 9])).is_ok());
        let text = message(open(&images(2), &labels(&[0, 10])));
        assert!(
            text.contains("label 10 at byte 9 is not below 10"),
            "{text}"
        );
    }

    #[test]
    fn truncated_file_names_the_byte() {
        let file = images(4);
        for cut in [0, 3, 9, 15, 17, file.len() - 1] {
            let text = message(open(&file[..cut], &labels(&[0; 4])));
            assert!(
                text.contains("images") && text.contains(&format!("byte {cut}")),
                "{text}"
            );
        }
        let text = message(open(&images(2), &labels(&[1, 2])[..9]));
        assert!(
            text.contains("[2] labels need 10") && text.contains("byte 9"),
            "{text}"
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut file = images(4);
        file.push(0);
        assert!(message(open(&file, &labels(&[0; 4]))).contains("1 bytes after"));
    }

    /// As `gzip -d` takes them: several in a row, and zeros at the end.
    #[test]
    fn what_follows_a_gzip() {
        let (whole, labels) = (images(4), labels(&[0; 4]));
        let joined = [gzip(&whole[..10]), gzip(&whole[10..30]), gzip(&whole[30..])].concat();
        let zeros = [gzip(&whole), vec![0; 512]].concat();
        for packed in [joined, zeros] {
            assert_eq!(
                open(&packed, &labels).unwrap(),
                open(&whole, &labels).unwrap()
            );
        }
        let packed = gzip(&whole);
        let text = message(open(&[&packed[..], b"tail"].concat(), &labels));
        let wanted = format!("4 bytes after byte {}", packed.len());
        assert!(text.contains(&wanted), "{text}");
    }

    #[test]
    fn a_small_gzip_is_not_unpacked_beyond_its_header() {
        let packed = gzip(&[images(4), vec![7; 10_000_000]].concat());
        assert!(packed.len() < 20_000);
        let unpacked = unpack(Path::new("images"), &packed, 16).unwrap();
        assert_eq!(unpacked.len(), 16 + 24 + 1);
        let text = message(open(&packed, &labels(&[0; 4])));
        assert!(text.contains("more after byte 40"), "{text}");
        let text = message(open(&gzip(&[9; 100]), &labels(&[0; 4])));
        assert!(text.contains("09 09 09 09"), "{text}");
    }

    #[test]
    fn labels_in_place_of_images_are_named() {
        let text = message(open(&labels(&[0; 4]), &labels(&[0; 4])));
        assert!(text.contains("looks like a file of labels"), "{text}");
        let text = message(open(&images(4), &images(4)));
        assert!(text.contains("looks like a file of images"), "{text}");
    }

    #[test]
    fn wrong_magic_and_type_are_refused() {
        assert!(message(open(b"\x89PNG\r\n", &labels(&[0]))).contains("89 50 4e 47"));
        let mut file = images(4);
        file[2] = 0x0d;
        assert!(message(open(&file, &labels(&[0; 4]))).contains("byte 2 is 0d"));
    }

    #[test]
    fn gzip_cut_short_is_named() {
        let packed = gzip(&images(100));
        let text = message(open(&packed[..packed.len() / 2], &labels(&[0; 100])));
        assert!(text.contains("gzip is cut short"), "{text}");
    }

    #[test]
    fn absurd_sizes_allocate_nothing() {
        let mut file = vec![0, 0, 8, 3];
        file.extend([0xff; 12]);
        assert!(open(&file, &labels(&[0])).is_err());
        file[4..8].fill(0);
        assert!(message(open(&file, &labels(&[0]))).contains("size 0 at byte 4 is 0"));
    }

    #[test]
    fn label_range_and_counts() {
        let text = message(open(&images(3), &labels(&[0, 11, 1])));
        assert!(text.contains("label 11 at byte 9"), "{text}");
        let text = message(open(&images(3), &labels(&[0, 1])));
        assert!(
            text.contains("2 labels") && text.contains("3 images"),
            "{text}"
        );
    }
}
