//! metrics.jsonl: one JSON object a line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::write_atomically;
use crate::{Error, Result};

/// Training or test images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The mean over one training batch, in training mode.
    Train,
    /// The mean over all test images, with running statistics.
    Test,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it is of.
    pub split: Split,
    /// Steps done.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Loss; `None` (null) if it was not finite.
    pub loss: Option<f64>,
    /// Share of hits.
    pub top1: Option<f64>,
    /// Of an evaluation with 100 classes or more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub top5: Option<f64>,
    /// Learning rate of a training step.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lr: Option<f32>,
    /// Since training began.
    pub seconds: f64,
}

/// Appends records to a new file, each written through at once.
#[derive(Debug)]
pub(crate) struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Makes the file, or puts `records` in the place of what is in it.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn over(path: &Path, records: &[Record]) -> Result<Self> {
        let lines: Result<Vec<String>> = records.iter().map(line).collect();
        write_atomically(path, lines?.concat().as_bytes())?;
        let file = File::options().append(true).open(path);
        Ok(Self {
            file: file.map_err(|e| Error::io(path, e))?,
            path: path.to_path_buf(),
        })
    }

    /// Has the system write what it holds back, so that a checkpoint is never ahead of its log.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn sync(&self) -> Result<()> {
        match self.file.sync_data() {
            // Pipes and devices have nothing to sync.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
            synced => synced.map_err(|e| Error::io(&self.path, e)),
        }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, for a full disk say.
    pub(super) fn write(&mut self, record: &Record) -> Result<()> {
        let written = self.file.write_all(line(record)?.as_bytes());
        written.map_err(|e| Error::io(&self.path, e))
    }
}

fn line(record: &Record) -> Result<String> {
    let line = serde_json::to_string(record).map_err(|e| Error::Config(e.to_string()))?;
    Ok(line + "\n")
}

/// Reads a file of records. A last line that was torn by a power cut is left out.
///
/// # Errors
/// [`Error::Io`], or [`Error::Data`] naming the line.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let mut records = Vec::new();
    for (i, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(record) => records.push(record),
            Err(_) if !text.ends_with('\n') && i + 1 == text.lines().count() => break,
            Err(e) => return Err(Error::data(path, format!("line {}: {e}", i + 1))),
        }
    }
    Ok(records)
}

/// The log of a run that goes on after `step`: its whole lines up to that step, and a sentence about what was not as it
/// should be. The checkpoint is the truth; a log that is torn, cut, missing or somebody else's never keeps a run from going on.
///
/// `log_every` says which steps should be in it.
///
/// # Errors
/// [`Error::Io`] if the file is there and cannot be read.
pub(super) fn read_up_to(
    path: &Path,
    step: u64,
    log_every: u64,
) -> Result<(Vec<Record>, Option<String>)> {
    // What is no file, a pipe say, is not waited for.
    let bytes = match std::fs::metadata(path) {
        Ok(it) if it.is_file() => std::fs::read(path).map_err(|e| Error::io(path, e))?,
        _ => Vec::new(),
    };
    let mut records: Vec<Record> = Vec::new();
    let mut damaged = None;
    for (i, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let record = serde_json::from_slice::<Record>(line).ok();
        let follows = |r: &Record| records.last().is_none_or(|last| last.step <= r.step);
        match record.filter(|record| line.ends_with(b"\n") && follows(record)) {
            Some(record) if record.step > step => break,
            Some(record) => records.push(record),
            None => {
                damaged = Some(i + 1);
                break;
            }
        }
    }
    let have = records.iter().filter(|r| r.split == Split::Train).count() as u64;
    // Every `log_every`-th step is logged, and the first one.
    let should = step / log_every + u64::from(step > 0 && log_every > 1);
    let mut trouble = Vec::new();
    if let Some(line) = damaged {
        trouble.push(format!(
            "is cut back to the {} whole lines before line {line}",
            line - 1
        ));
    }
    if have < should {
        trouble.push(format!(
            "has {have} of the {should} lines of the steps 1 to {step}"
        ));
    }
    let trouble =
        (!trouble.is_empty()).then(|| format!("{} {}", path.display(), trouble.join(" and ")));
    Ok((records, trouble))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that is a device, as `/dev/null`, has nothing to sync, and is no error.
    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_not_synced() {
        let path = PathBuf::from("/dev/null");
        let file = File::options().append(true).open(&path).unwrap();
        let mut log = MetricsWriter { file, path };
        log.write(&record(1)).unwrap();
        log.sync().unwrap();
    }

    fn record(step: u64) -> Record {
        Record {
            split: Split::Train,
            step,
            epoch: 0,
            loss: Some(0.5),
            top1: Some(0.25),
            top5: None,
            lr: Some(0.1),
            seconds: 1.5,
        }
    }

    #[test]
    fn lines_read_back_and_a_torn_last_one_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::over(&path, &[]).unwrap();
        for step in 0..3 {
            writer.write(&record(step)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"split\":\"train\",\"step\":0,\"epoch\":0,\"loss\":0.5,"));
        assert_eq!(read_metrics(&path).unwrap().len(), 3);
        std::fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 2);
        std::fs::write(&path, text.replacen("0.5", "x", 1)).unwrap();
        assert!(
            read_metrics(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_with_the_path() {
        let path = PathBuf::from("/dev/full");
        let file = File::options().write(true).open(&path).unwrap();
        let mut writer = MetricsWriter { file, path };
        let text = writer.write(&record(0)).unwrap_err().to_string();
        assert!(text.contains("/dev/full"), "{text}");
    }

    /// Three whole lines, and what may stand behind them.
    #[test]
    fn what_is_wrong_with_a_log_is_said_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let text: String = (1..=3).map(|step| line(&record(step)).unwrap()).collect();
        let read = |more: &str, step, log_every| {
            std::fs::write(&path, format!("{text}{more}")).unwrap();
            let (records, trouble) = read_up_to(&path, step, log_every).unwrap();
            let name = format!("{} ", path.display());
            let trouble = trouble.map(|trouble| trouble.strip_prefix(&name).unwrap().to_string());
            (records.len(), trouble.unwrap_or_default())
        };
        let cut = "is cut back to the 3 whole lines before line 4";
        let earlier = line(&record(2)).unwrap();
        let torn = line(&record(4)).unwrap();
        for (more, step, log_every, wanted) in [
            ("", 3, 1, (3, "".to_string())),
            ("", 2, 1, (2, String::new())),
            ("x\n", 2, 1, (2, String::new())),
            ("x\n", 3, 1, (3, cut.into())),
            (earlier.as_str(), 3, 1, (3, cut.into())),
            (
                torn.trim_end(),
                4,
                1,
                (
                    3,
                    format!("{cut} and has 3 of the 4 lines of the steps 1 to 4"),
                ),
            ),
            (
                "",
                4,
                1,
                (3, "has 3 of the 4 lines of the steps 1 to 4".into()),
            ),
            // The first, the fourth and the eighth.
            ("", 11, 4, (3, String::new())),
            (
                "",
                12,
                4,
                (3, "has 3 of the 4 lines of the steps 1 to 12".into()),
            ),
        ] {
            assert_eq!(
                read(more, step, log_every),
                wanted,
                "{more} {step} {log_every}"
            );
        }
        let missing = read_up_to(&dir.path().join("none"), 2, 1).unwrap();
        assert!(
            missing
                .1
                .unwrap()
                .ends_with("none has 0 of the 2 lines of the steps 1 to 2")
        );
        // Whole but no record, the last line is no torn one.
        for (more, wanted) in [("{}\n", "line 4: "), ("{}\n{", "line 4: ")] {
            std::fs::write(&path, format!("{text}{more}")).unwrap();
            let error = read_metrics(&path).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
