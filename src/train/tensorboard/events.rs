//! Event files as TensorBoard reads them: frames of TFRecord, in each a message `Event` of protocol buffers.
//!
//! Numbers of fields are those of TensorFlow's `event.proto`, `summary.proto` and `histogram.proto`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::files::{EVENT_FILES, event_files};
use crate::{Error, Result};

/// Of a histogram, all of one width.
const BUCKETS: usize = 64;
/// What `SessionLog` has as its status where a run begins or goes on.
const START: u64 = 1;

/// A message of protocol buffers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Number of a field with the type of what follows.
    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.raw_varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.key(field, 2);
        self.raw_varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn doubles(self, field: u64, values: &[f64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(field, &bytes)
    }
}

/// A `Summary.Value`: a number.
pub(super) fn scalar(tag: &str, value: f32) -> Message {
    Message::default().bytes(1, tag.as_bytes()).float(2, value)
}

/// A `Summary.Value`: a PNG file of RGB pixels.
#[cfg(feature = "draw")]
pub(super) fn image(tag: &str, (width, height): (u32, u32), png: &[u8]) -> Message {
    const RGB: u64 = 3;
    let image = Message::default()
        .varint(1, height.into())
        .varint(2, width.into())
        .varint(3, RGB)
        .bytes(4, png);
    Message::default()
        .bytes(1, tag.as_bytes())
        .message(4, &image)
}

/// A `Summary.Value`: how many of the finite `values` lie where. `None` if there are none.
pub(super) fn histogram(tag: &str, values: &[f32]) -> Option<Message> {
    let finite = || {
        values
            .iter()
            .map(|&v| f64::from(v))
            .filter(|v| v.is_finite())
    };
    let least = finite().reduce(f64::min)?;
    let largest = finite().reduce(f64::max)?;
    // The right end of each bucket, whose values are below it; those of the last include it.
    let limits: Vec<f64> = match least == largest {
        true => vec![largest],
        false => (1..BUCKETS)
            .map(|i| least + (largest - least) * (i as f64 / BUCKETS as f64))
            .chain([largest])
            .collect(),
    };
    let mut counts = vec![0.0; limits.len()];
    let last = limits.len() - 1;
    for value in finite() {
        counts[limits[..last].partition_point(|&limit| limit <= value)] += 1.0;
    }
    let histogram = Message::default()
        .double(1, least)
        .double(2, largest)
        .double(3, finite().count() as f64)
        .double(4, finite().sum())
        .double(5, finite().map(|v| v * v).sum())
        .doubles(6, &limits)
        .doubles(7, &counts);
    let value = Message::default().bytes(1, tag.as_bytes());
    Some(value.message(5, &histogram))
}

/// Appends events to a new file, each written through at once.
#[derive(Debug)]
pub(super) struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Makes a file in `dir` that TensorBoard reads after those that are there. What these have of `step` and later is
    /// dropped by it.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn new(dir: &Path, step: u64) -> Result<Self> {
        let path = dir.join(file_name(seconds() as u64, &event_files(dir)));
        let file = File::create_new(&path).map_err(|e| Error::io(&path, e))?;
        let mut writer = Self { file, path };
        writer.append(event(0).bytes(3, b"brain.Event:2"))?;
        let start = Message::default().varint(1, START);
        writer.append(event(step).message(7, &start))?;
        Ok(writer)
    }

    /// Writes an event of `step` with all `values`, each a `Summary.Value`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, for a full disk say.
    pub(super) fn write(&mut self, step: u64, values: &[Message]) -> Result<()> {
        let add = |summary: Message, value| summary.message(1, value);
        let summary = values.iter().fold(Message::default(), add);
        self.append(event(step).message(5, &summary))
    }

    fn append(&mut self, event: Message) -> Result<()> {
        let written = self.file.write_all(&framed(&event.0));
        written.map_err(|e| Error::io(&self.path, e))
    }

    /// Has the system write what it holds back.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.map_err(|e| Error::io(&self.path, e))
    }
}

/// An `Event` of now.
fn event(step: u64) -> Message {
    Message::default().double(1, seconds()).varint(2, step)
}

/// Since 1970.
fn seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// `events.out.tfevents.SECONDS.HOST.PID`. TensorBoard reads files in the order of their names: so the seconds are after those
/// of `earlier` ones, also if the clock was set back.
fn file_name(now: u64, earlier: &[PathBuf]) -> String {
    let seconds_of = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        let (seconds, _) = name.strip_prefix(EVENT_FILES)?.split_once('.')?;
        seconds.parse().ok()
    };
    let last: Option<u64> = earlier.iter().filter_map(seconds_of).max();
    let seconds = last.map_or(now, |last| now.max(last.saturating_add(1)));
    format!(
        "{EVENT_FILES}{seconds:010}.{}.{}",
        host(),
        std::process::id()
    )
}

/// The machine's name, as far as it is easily known: it only tells files apart.
fn host() -> String {
    let named = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = named.or_else(|| std::env::var("HOSTNAME").ok());
    let named = named.or_else(|| std::env::var("COMPUTERNAME").ok());
    let is_safe = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = named
        .iter()
        .flat_map(|name| name.chars())
        .filter(is_safe)
        .collect();
    match name.is_empty() {
        true => "localhost".into(),
        false => name,
    }
}

/// A record of TFRecord: length, its checksum, `data`, its checksum.
fn framed(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let sum = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&len[..], &sum(&len), data, &sum(data)].concat()
}

/// TFRecord's: a checksum of bytes that contain checksums would be no good one.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Castagnoli's CRC.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        CRC_OF_BYTE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_tfrecord() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, B.4: 32 bytes of zeros, of ones.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let frame = framed(b"123456789");
        assert_eq!(frame.len(), 8 + 4 + 9 + 4);
        assert_eq!(
            (&frame[..8], &frame[12..21]),
            (&[9, 0, 0, 0, 0, 0, 0, 0][..], &b"123456789"[..])
        );
        let sum = u32::from_le_bytes(frame[21..].try_into().unwrap());
        // Shifted by 15 bits and added to, computed apart.
        assert_eq!(sum, 0xc78a_b0e5);
    }

    #[test]
    fn messages_are_those_of_protocol_buffers() {
        // The encoding's own documentation: field 1 is 150; field 2 is "testing"; field 3 is a message.
        let one = Message::default().varint(1, 150);
        assert_eq!(one.0, [0x08, 0x96, 0x01]);
        let text = Message::default().bytes(2, b"testing");
        assert_eq!(text.0, b"\x12\x07testing");
        let nested = Message::default().message(3, &one);
        assert_eq!(nested.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().float(2, 1.0).0, [0x15, 0, 0, 0x80, 0x3f]);
        let doubles = Message::default().doubles(6, &[1.0]).0;
        assert_eq!(doubles, [0x32, 8, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        assert_eq!(Message::default().varint(2, u64::MAX).0.len(), 11);
    }

    #[test]
    fn histograms_count_every_finite_value_once() {
        // 64 buckets of width 1; the largest value is in the last one.
        let values = [0.0, 0.5, 1.0, 63.5, 64.0, f32::NAN, f32::INFINITY];
        let mut counts = [0.0; 64];
        (counts[0], counts[1], counts[63]) = (2.0, 1.0, 2.0);
        let limits: Vec<f64> = (1..=64).map(f64::from).collect();
        let wanted = Message::default()
            .double(1, 0.0)
            .double(2, 64.0)
            .double(3, 5.0)
            .double(4, 129.0)
            .double(5, 0.25 + 1.0 + 63.5 * 63.5 + 64.0 * 64.0)
            .doubles(6, &limits)
            .doubles(7, &counts);
        let wanted = Message::default().bytes(1, b"a").message(5, &wanted);
        assert_eq!(histogram("a", &values), Some(wanted));
        // Values that are all the same have one bucket.
        let wanted = Message::default()
            .double(1, 0.5)
            .double(2, 0.5)
            .double(3, 2.0)
            .double(4, 1.0)
            .double(5, 0.5)
            .doubles(6, &[0.5])
            .doubles(7, &[2.0]);
        let wanted = Message::default().bytes(1, b"b").message(5, &wanted);
        assert_eq!(histogram("b", &[0.5, 0.5]), Some(wanted));
        assert_eq!(histogram("c", &[f32::NAN]), None);
    }

    /// A reader drops what earlier files have of the step at which a session starts, and of later ones.
    #[test]
    fn a_file_begins_with_the_step_of_its_session() {
        let dir = tempfile::tempdir().unwrap();
        let writer = EventWriter::new(dir.path(), 7).unwrap();
        let bytes = fs::read(&writer.path).unwrap();
        let len = |at: usize| usize::from(bytes[at]);
        let first = &bytes[12..12 + len(0)];
        assert!(first.ends_with(b"\x1a\x0dbrain.Event:2"), "{first:?}");
        let second = 12 + len(0) + 4;
        let event = &bytes[second + 12..second + 12 + len(second)];
        // After the time, a double: the step is field 2, and the start of a session, field 7, has 1 in its field 1.
        assert_eq!(event[9..], [0x10, 7, 0x3a, 2, 0x08, 1]);
        assert_eq!(bytes.len(), second + 12 + len(second) + 4);
    }

    #[test]
    fn a_later_file_has_a_later_name() {
        let names = |now, earlier: &[&str]| {
            let earlier: Vec<PathBuf> = earlier
                .iter()
                .map(|&name| Path::new("a/b").join(name))
                .collect();
            file_name(now, &earlier)
        };
        let ends = format!(".{}.{}", host(), std::process::id());
        let name = |seconds: &str| format!("events.out.tfevents.{seconds}{ends}");
        assert_eq!(names(1_764_000_000, &[]), name("1764000000"));
        let there = [
            "events.out.tfevents.1764000007.x.3",
            "events.out.tfevents.0000000009.y.4.v2",
        ];
        assert_eq!(names(1_764_000_000, &there), name("1764000008"));
        assert_eq!(names(1_764_000_009, &there), name("1764000009"));
        assert_eq!(names(5, &["events.out.tfevents.x"]), name("0000000005"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_and_a_folder_that_is_not_there_are_errors_with_the_path() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).unwrap();
        let mut writer = EventWriter { file, path };
        let text = writer
            .write(1, &[scalar("a", 1.0)])
            .unwrap_err()
            .to_string();
        assert!(text.contains("/dev/full"), "{text}");
        let text = EventWriter::new(Path::new("/nowhere"), 0)
            .unwrap_err()
            .to_string();
        assert!(text.contains("/nowhere/events.out.tfevents."), "{text}");
    }
}
