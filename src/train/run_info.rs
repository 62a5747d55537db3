//! run.json: on what and how a run ran, so that it can be cited.

use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::DataSet;
use crate::files::write_atomically;
use crate::gpu::Gpu;
use crate::program::Store;

pub(super) const RUN_INFO: &str = "run.json";

/// What run.json holds. It is about the run, and nothing reads it to go on: a missing one never keeps a run from resuming.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Of decorr.
    pub version: String,
    /// That decorr was built of, with `-dirty` if files were changed since; empty if it was not built of a repository.
    pub commit: String,
    /// The program's arguments of the session that ran last.
    pub command_line: Vec<String>,
    /// Of the first session, in UTC.
    pub started: String,
    /// Of the last session; `None` while it runs, and if it was killed.
    pub ended: Option<String>,
    /// How often it was started: 1 for a run without interruption.
    pub sessions: u32,
    /// Name of the adapter.
    pub adapter: String,
    /// Its driver and the driver's version.
    pub driver: String,
    /// Vulkan, Metal, DX12 or GL.
    pub backend: String,
    /// Operating system and processor architecture.
    pub system: String,
    /// The data set, of which `data_sha256` is a checksum.
    pub data: String,
    /// SHA-256 over training and test images: labels, then values in memory, or names and sizes of files. `None` without the
    /// feature `fetch`.
    pub data_sha256: Option<String>,
    /// Training and test images.
    pub images: [usize; 2],
    /// Classes.
    pub classes: usize,
    /// Learned values.
    pub parameters: u64,
    /// Most bytes of device memory: all is taken before the first step. As the adapter reports it, or as planned.
    pub device_bytes: u64,
    /// Most bytes of the host's memory that the process held, where the system tells (Linux).
    pub host_bytes: Option<u64>,
    /// Steps done.
    pub steps: u64,
    /// Without evaluations and set-up, over all sessions.
    pub steps_per_second: Option<f64>,
    /// Whether it came to its last step.
    pub finished: bool,
    /// Why it stopped, if its loss or weights were no numbers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub diverged: Option<String>,
}

impl RunInfo {
    /// Of a run that begins, or goes on in `out`.
    pub(super) fn begin(
        gpu: &Gpu,
        store: &Store,
        set: &DataSet,
        device_bytes: u64,
        resumed: Option<&Path>,
    ) -> Self {
        let before = resumed.and_then(|out| Self::read(out).ok());
        let info = gpu.adapter_info();
        let parameters = store
            .states()
            .filter(|(_, _, role)| *role == crate::graph::Role::Parameter)
            .map(|(_, shape, _)| shape.len() as u64);
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("DECORR_BUILT_OF").into(),
            command_line: std::env::args_os()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect(),
            started: before.as_ref().map_or_else(now, |b| b.started.clone()),
            ended: None,
            sessions: before.map_or(0, |b| b.sessions) + 1,
            adapter: info.name.clone(),
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .into(),
            backend: info.backend.to_string(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            data: set.train.name.clone(),
            data_sha256: checksum(set),
            images: [set.train.len(), set.test.len()],
            classes: set.train.classes,
            parameters: parameters.sum(),
            device_bytes,
            host_bytes: None,
            steps: 0,
            steps_per_second: None,
            finished: false,
            diverged: None,
        }
    }

    /// After `steps` steps, which took `seconds`.
    pub(super) fn end(&mut self, steps: u64, seconds: f64, finished: bool) {
        self.ended = Some(now());
        self.host_bytes = peak_host_bytes();
        self.steps = steps;
        self.steps_per_second = (seconds > 0.0).then(|| steps as f64 / seconds);
        self.finished = finished;
    }

    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(super) fn write(&self, out: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| crate::Error::bug(format!("{RUN_INFO} cannot be written: {e}")))?;
        text.push('\n');
        write_atomically(&out.join(RUN_INFO), text.as_bytes())
    }

    /// That of the run in the folder `out`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if there is none, [`crate::Error::Data`] if it is damaged.
    pub fn read(out: &Path) -> Result<Self> {
        let path = out.join(RUN_INFO);
        let text = std::fs::read_to_string(&path).map_err(|e| crate::Error::io(&path, e))?;
        serde_json::from_str(&text).map_err(|e| crate::Error::data(&path, e.to_string()))
    }
}

/// In UTC, to the second.
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Most memory that this process held.
fn peak_host_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    peak_of(&status)
}

/// `VmHWM:    1234 kB`, of Linux.
fn peak_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let number = line.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(not(feature = "fetch"))]
pub(super) fn checksum(_: &DataSet) -> Option<String> {
    None
}

#[cfg(feature = "fetch")]
pub(super) fn checksum(set: &DataSet) -> Option<String> {
    use crate::data::Source;
    use sha2::{Digest, Sha256};

    let mut hash = Sha256::new();
    for images in [&set.train, &set.test] {
        hash.update((images.len() as u64).to_le_bytes());
        for label in &images.labels {
            hash.update(label.to_le_bytes());
        }
        match &images.source {
            Source::Bytes(bytes) => hash.update(bytes),
            Source::Floats(values) => hash.update(bytemuck::cast_slice(values)),
            Source::Files(files) => {
                for file in files {
                    let name = file.file_name().unwrap_or_default();
                    hash.update(name.as_encoded_bytes());
                    let size = std::fs::metadata(file).map_or(0, |it| it.len());
                    hash.update(size.to_le_bytes());
                }
            }
        }
    }
    Some(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_linux_says() {
        let status = "Name:\tdecorr\nVmPeak:\t  900 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(peak_of(status), Some(1234 * 1024));
        assert_eq!(peak_of("VmHWM:\t many kB"), None);
        assert_eq!(peak_of(""), None);
    }

    #[test]
    fn a_time_is_one_that_everybody_reads() {
        let text = now();
        assert_eq!((text.len(), &text[..2], &text[19..]), (20, "20", "Z"));
        assert!(humantime::parse_rfc3339(&text).is_ok(), "{text}");
    }

    /// The test is that a value, a label, a size and the split matter.
    #[test]
    #[cfg(feature = "fetch")]
    fn the_checksum_is_of_all_that_a_run_sees() {
        use crate::data::Images;
        let set = |values: [u8; 4], labels: [u16; 4], at: usize| {
            let of = |range: std::ops::Range<usize>| {
                let (v, l) = (values[range.clone()].to_vec(), labels[range].to_vec());
                Images::new(v, [1, 1, 1], l, 3).unwrap()
            };
            let set = DataSet::new(of(0..at), of(at..4), &[0.0], &[1.0]).unwrap();
            checksum(&set).unwrap()
        };
        let first = set([1, 2, 3, 4], [0, 1, 2, 0], 2);
        assert_eq!(first.len(), 64);
        assert_eq!(first, set([1, 2, 3, 4], [0, 1, 2, 0], 2));
        for other in [
            set([1, 2, 3, 5], [0, 1, 2, 0], 2),
            set([1, 2, 3, 4], [0, 1, 2, 1], 2),
            set([1, 2, 3, 4], [0, 1, 2, 0], 3),
        ] {
            assert_ne!(first, other);
        }
    }

    /// Of pictures in files, which are too many to be read, their names and sizes.
    #[test]
    fn the_checksum_of_files_is_of_their_names_and_sizes() {
        use crate::data::{Images, Source};
        let dir = tempfile::tempdir().unwrap();
        let sum = |name: &str, size: usize| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![0; size]).unwrap();
            let source = Source::Files(vec![path]);
            let images = Images::new(source, [3, 1, 1], vec![0], 1).unwrap();
            let set = DataSet::new(images.clone(), images, &[0.0; 3], &[1.0; 3]).unwrap();
            checksum(&set).unwrap()
        };
        let first = sum("a.png", 5);
        assert_eq!(first, sum("a.png", 5));
        assert_ne!(first, sum("a.png", 6));
        assert_ne!(first, sum("b.png", 5));
    }
}
