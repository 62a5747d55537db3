//! Every reader of files, given mutations of good ones: an answer or an error, never a panic, a hang or a size that is not
//! its data's.
//!
//! `cargo test --release --test malformed` takes a sample of each; `DECORR_FAULTS=1000` takes a thousand times as many,
//! with other seeds for each. A case that fails is written to the folder of temporary files and named.

mod support;

use std::fs;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use decorr::Picture;
use decorr::data;
use decorr::train::{TrainConfig, TrainOptions, Trained, checkpoint, read_metrics};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::cases;

/// Longer than this a case is a hang. The slowest are small files of many pixels, which take half a second on an idle machine.
const TOO_LONG: Duration = Duration::from_secs(20);

/// Numbers that sizes and counts go wrong at.
const NUMBERS: [u64; 12] = [
    0,
    1,
    16,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// Some changes of `good`, most of them in its first `head` bytes.
fn mutated(rng: &mut ChaCha8Rng, good: &[u8], head: usize) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..rng.random_range(1..6_u32) {
        let len = bytes.len();
        if len == 0 {
            bytes.push(rng.random());
            continue;
        }
        let most = if rng.random_bool(0.6) {
            head.min(len)
        } else {
            len
        };
        let at = rng.random_range(0..most);
        let some = rng.random_range(1..64_usize).min(len - at);
        match rng.random_range(0..8_u32) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8_u32),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + some)),
            4 => {
                let block = bytes[at..at + some].to_vec();
                let to = rng.random_range(0..=len);
                bytes.splice(to..to, block);
            }
            5 => bytes[at..at + some].fill([0, 0xff][usize::from(rng.random_bool(0.5))]),
            _ => {
                let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
                let width = [1, 2, 4, 8][rng.random_range(0..4_usize)];
                let whole = match rng.random_bool(0.5) {
                    true => number.to_le_bytes()[..width].to_vec(),
                    false => number.to_be_bytes()[8 - width..].to_vec(),
                };
                let fits = width.min(len - at);
                bytes[at..at + fits].copy_from_slice(&whole[..fits]);
            }
        }
    }
    bytes
}

/// The text with some of its numbers replaced by others and by words.
fn mutated_text(rng: &mut ChaCha8Rng, good: &str) -> String {
    const WORDS: [&str; 16] = [
        "0",
        "-1",
        "18446744073709551615",
        "9223372036854775807",
        "4294967296",
        "1e308",
        "1e39",
        "nan",
        "inf",
        "-0.0",
        "\"x\"",
        "[]",
        "{}",
        "true",
        "null",
        "[[[[[[[[[[[[",
    ];
    let mut text = good.to_string();
    for _ in 0..rng.random_range(1..4_u32) {
        let digits: Vec<usize> = text
            .char_indices()
            .filter(|(_, c)| c.is_ascii_digit())
            .map(|(i, _)| i)
            .collect();
        let Some(&at) = digits.get(rng.random_range(0..digits.len().max(1))) else {
            break;
        };
        let end = at
            + text[at..]
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(text.len() - at);
        text.replace_range(at..end, WORDS[rng.random_range(0..WORDS.len())]);
    }
    text
}

/// Gives `count` mutations to `read`, which answers whether it took the file.
fn reader(
    name: &str,
    count: usize,
    mut make: impl FnMut(&mut ChaCha8Rng) -> Vec<u8>,
    mut read: impl FnMut(&[u8]) -> bool,
) {
    let (mut taken, mut slowest) = (0, Duration::ZERO);
    for case in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(case as u64);
        let bytes = make(&mut rng);
        let mut timed = || {
            let begin = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
            (result, begin.elapsed())
        };
        let (result, mut time) = timed();
        if time > TOO_LONG {
            // The machine may have stood still.
            time = time.min(timed().1);
        }
        slowest = slowest.max(time);
        if result.is_err() || time > TOO_LONG {
            let kept = std::env::temp_dir().join(format!(
                "decorr-malformed-{}-{case}",
                name.replace(' ', "-")
            ));
            fs::write(&kept, &bytes).unwrap();
            panic!(
                "{name}, case {case}: panic or {time:?}; the file is {}",
                kept.display()
            );
        }
        taken += usize::from(result.unwrap_or(false));
    }
    support::report(&format!(
        "{name}: {count} cases, {taken} read, {} refused, slowest {:.2} s",
        count - taken,
        slowest.as_secs_f64()
    ));
    assert!(taken < count, "{name}: nothing was refused");
}

fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let n = (x * 7919 + y * 104_729 + x * y * 31) % 251;
        Rgb([n as u8, (n / 2) as u8, (250 - n) as u8])
    })
}

fn good_pictures(format: ImageFormat) -> Vec<Vec<u8>> {
    let colour = DynamicImage::from(noise(24, 17));
    let kinds = [
        colour.grayscale(),
        colour.to_rgba8().into(),
        colour.to_rgb16().into(),
        colour.to_luma_alpha8().into(),
        colour.to_rgb32f().into(),
        colour,
    ];
    let encoded = kinds.iter().filter_map(|image| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).ok()?;
        Some(bytes.into_inner())
    });
    encoded.collect()
}

/// Gives every chunk of a PNG its right checksum: with a wrong one nothing behind it is looked at.
fn sum_chunks(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(len) = bytes.get(at..at + 4) {
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8 + len).filter(|end| end + 4 <= bytes.len()) else {
            return;
        };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn pictures() {
    let formats = [
        ("PNG", ImageFormat::Png),
        ("JPEG", ImageFormat::Jpeg),
        ("BMP", ImageFormat::Bmp),
        ("GIF", ImageFormat::Gif),
        ("WebP", ImageFormat::WebP),
        ("TIFF", ImageFormat::Tiff),
        ("PNM", ImageFormat::Pnm),
    ];
    for (name, format) in formats {
        let mut good = good_pictures(format);
        if format == ImageFormat::Jpeg {
            good.push(fs::read("tests/data/progressive.jpg").unwrap());
            good.push(fs::read("tests/data/cmyk.jpg").unwrap());
        }
        if format == ImageFormat::Tiff {
            let files = fs::read_dir("tests/data/tiff").unwrap();
            let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            files.sort();
            good.extend(files.iter().map(|file| fs::read(file).unwrap()));
        }
        let make = |rng: &mut ChaCha8Rng| {
            let which = rng.random_range(0..good.len());
            let mut bytes = mutated(rng, &good[which], 300);
            if format == ImageFormat::Png && rng.random_bool(0.8) {
                sum_chunks(&mut bytes);
            }
            bytes
        };
        let read = |bytes: &[u8]| match Picture::decode(Path::new("picture"), bytes) {
            Ok(p) => {
                assert_eq!(p.data.len(), p.channels * p.height * p.width);
                true
            }
            Err(_) => false,
        };
        reader(name, cases(600), make, read);
    }
}

#[test]
fn data_sets() {
    let header = |sizes: &[u32]| {
        let mut bytes = vec![0, 0, 8, sizes.len() as u8];
        bytes.extend(sizes.iter().flat_map(|s| s.to_be_bytes()));
        bytes
    };
    let images = [
        header(&[20, 8, 8]),
        (0..1280).map(|i| (i * 7) as u8).collect(),
    ]
    .concat();
    let labels = [header(&[20]), (0..20).map(|i| i % 10).collect()].concat();
    let path = Path::new("file");
    reader(
        "IDX images",
        cases(3000),
        |rng| mutated(rng, &images, 16),
        |bytes| data::idx::pair(path, bytes, path, &labels).is_ok(),
    );
    reader(
        "IDX labels",
        cases(3000),
        |rng| mutated(rng, &labels, 8),
        |bytes| data::idx::pair(path, &images, path, bytes).is_ok(),
    );
    let gzipped = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&images).unwrap();
        encoder.finish().unwrap()
    };
    reader(
        "gzipped IDX",
        cases(2000),
        |rng| mutated(rng, &gzipped, 20),
        |bytes| data::idx::pair(path, bytes, path, &labels).is_ok(),
    );
    let dir = tempfile::tempdir().unwrap();
    let record = |i: usize| std::iter::once(i as u8).chain((0..3072).map(move |j| (j * i) as u8));
    let cifar: Vec<u8> = (0..3).flat_map(record).collect();
    for i in 1..=5 {
        fs::write(dir.path().join(format!("data_batch_{i}.bin")), &cifar).unwrap();
    }
    reader(
        "CIFAR-10",
        cases(500),
        |rng| mutated(rng, &cifar, 4),
        |bytes| {
            fs::write(dir.path().join("test_batch.bin"), bytes).unwrap();
            data::open("cifar10", Some(dir.path()), &Default::default()).is_ok()
        },
    );
}

#[test]
fn checkpoints_configurations_and_logs() {
    let values: Vec<u8> = (0..48_u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = |shape: &[usize], len: usize| {
        safetensors::tensor::TensorView::new(
            safetensors::Dtype::F32,
            shape.to_vec(),
            &values[..4 * len],
        )
        .unwrap()
    };
    let tensors = [
        ("a.weight", view(&[4, 3, 2, 2], 48)),
        ("a.bias", view(&[4], 4)),
    ];
    let config = TrainConfig::resolve(TrainOptions::default())
        .unwrap()
        .to_toml()
        .unwrap();
    let metadata = [("config", config.as_str()), ("step", "5")];
    let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string()));
    let good = safetensors::serialize(tensors, Some(metadata.into_iter().collect())).unwrap();
    let header_len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(good[8..8 + header_len].to_vec()).unwrap();
    let path = Path::new("file");
    let make = |rng: &mut ChaCha8Rng| match rng.random_range(0..3_u32) {
        0 => {
            let header = mutated_text(rng, &header);
            [
                &(header.len() as u64).to_le_bytes(),
                header.as_bytes(),
                &good[8 + header_len..],
            ]
            .concat()
        }
        1 => mutated(rng, &good, 8),
        _ => mutated(rng, &good, 1500),
    };
    reader("safetensors", cases(3000), make, |bytes| {
        let Ok((tensors, metadata)) = checkpoint::decode(path, bytes) else {
            return false;
        };
        for tensor in tensors.values() {
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        }
        let is_read = checkpoint::written_options(path, &metadata).is_ok();
        // Whatever it says of its input, which network it is of, and what is missing.
        drop(Trained::decode(path, bytes, TrainOptions::default()));
        is_read
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let make = |rng: &mut ChaCha8Rng| match rng.random_bool(0.7) {
        true => mutated_text(rng, &config).into_bytes(),
        false => mutated(rng, config.as_bytes(), 600),
    };
    reader("config.toml", cases(2000), make, |bytes| {
        fs::write(&file, bytes).unwrap();
        let options = TrainOptions::read(&file);
        options.and_then(TrainConfig::resolve).is_ok()
    });
    let line =
        r#"{"split":"train","step":1,"epoch":0,"loss":2.31,"top1":0.12,"lr":0.1,"seconds":0.02}"#;
    let log = format!("{line}\n").repeat(4);
    let make = |rng: &mut ChaCha8Rng| match rng.random_bool(0.5) {
        true => mutated_text(rng, &log).into_bytes(),
        false => mutated(rng, log.as_bytes(), 400),
    };
    reader("metrics.jsonl", cases(2000), make, |bytes| {
        fs::write(&file, bytes).unwrap();
        read_metrics(&file).is_ok()
    });
}
