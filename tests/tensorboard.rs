//! What `train` writes for TensorBoard, read by a small reader of event files; `scripts/try-tensorboard` reads it by
//! TensorBoard's own.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use decorr::Result;
use decorr::train::{
    Norm, Outcome, Saved, Split, Start, TrainConfig, TrainOptions, checkpoint, read_metrics, train,
};

/// Four steps an epoch, in the middle of which a run of five ends.
fn options(out: &Path) -> TrainOptions {
    TrainOptions {
        model: Some("cnn".into()),
        width: Some(0.25),
        norm: Some(Norm::Deconv),
        block: Some(8),
        batch_size: Some(16),
        train_images: Some(64),
        test_images: Some(7),
        steps: Some(8),
        log_every: Some(2),
        lr: Some(0.05),
        tensorboard: Some(true),
        out: Some(out.to_path_buf()),
        ..TrainOptions::default()
    }
}

fn run(options: TrainOptions, start: Start) -> Result<Outcome> {
    let config = TrainConfig::resolve(options)?;
    let stop = AtomicBool::new(false);
    train(&support::gpu(), &config, start, &stop, |_| {})
}

fn event_files(out: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(out).unwrap().map(|e| e.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("events.out.tfevents.")
    };
    let mut files: Vec<PathBuf> = paths.filter(is_one).collect();
    files.sort();
    files
}

/// A field of a message of protocol buffers.
#[derive(Clone, Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(bytes) => panic!("{bytes:?} are no number"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} is no text"),
        }
    }

    fn double(&self) -> f64 {
        f64::from_bits(self.number())
    }

    fn doubles(&self) -> Vec<f64> {
        let (chunks, rest) = self.bytes().as_chunks::<8>();
        assert!(rest.is_empty());
        chunks
            .iter()
            .map(|&bytes| f64::from_le_bytes(bytes))
            .collect()
    }
}

/// Number and value of each field.
fn message(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        bytes.split_off(..count).unwrap()
    }
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let len = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, len).to_vec())
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("no field has type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn only(fields: &[(u64, Field)], number: u64) -> &Field {
    let mut found = fields.iter().filter(|(n, _)| *n == number);
    let (_, field) = found.next().unwrap_or_else(|| panic!("no field {number}"));
    assert!(found.next().is_none(), "field {number} twice");
    field
}

/// What an event file holds, by tag and step.
#[derive(Debug, Default)]
struct Events {
    /// The step from which earlier files do not count.
    start: u64,
    scalars: BTreeMap<(String, u64), f32>,
    histograms: BTreeMap<(String, u64), Vec<(u64, Field)>>,
    /// Columns and rows.
    images: BTreeMap<(String, u64), [u32; 2]>,
}

impl Events {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let mut frames = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((len, after)) = rest.split_first_chunk() {
            let len = u64::from_le_bytes(*len) as usize;
            frames.push(message(&after[4..4 + len]));
            rest = &after[4 + len + 4..];
        }
        assert!(rest.is_empty());
        let (version, start) = (&frames[0], &frames[1]);
        assert_eq!(only(version, 3).bytes(), b"brain.Event:2");
        assert_eq!(only(&message(only(start, 7).bytes()), 1).number(), 1);
        let mut events = Self {
            start: only(start, 2).number(),
            ..Self::default()
        };
        let mut before = 0.0;
        for frame in &frames {
            let time = only(frame, 1).double();
            assert!(time >= before, "{time} after {before}");
            before = time;
        }
        for frame in &frames[2..] {
            let step = only(frame, 2).number();
            for (number, value) in message(only(frame, 5).bytes()) {
                assert_eq!(number, 1);
                events.add(step, &message(value.bytes()));
            }
        }
        events
    }

    fn add(&mut self, step: u64, value: &[(u64, Field)]) {
        let tag = String::from_utf8(only(value, 1).bytes().to_vec()).unwrap();
        let at = (tag, step);
        let (number, field) = &value[1];
        let is_new = match number {
            2 => {
                let bits = u32::try_from(field.number()).unwrap();
                self.scalars.insert(at, f32::from_bits(bits)).is_none()
            }
            4 => {
                let image = message(field.bytes());
                let [h, w] = [1, 2].map(|n| only(&image, n).number() as u32);
                assert_eq!(only(&image, 3).number(), 3, "RGB");
                let png = image::load_from_memory(only(&image, 4).bytes()).unwrap();
                assert_eq!((png.width(), png.height()), (w, h));
                let colours: BTreeSet<_> = png.to_rgb8().pixels().map(|p| p.0).collect();
                assert!(colours.len() > 10, "{at:?} has {} colours", colours.len());
                self.images.insert(at, [w, h]).is_none()
            }
            5 => {
                let histogram = message(field.bytes());
                self.histograms.insert(at, histogram).is_none()
            }
            other => panic!("no value is field {other}"),
        };
        assert!(is_new, "a value twice");
    }

    fn image_tags(&self) -> Vec<&str> {
        let tags: BTreeSet<&str> = self.images.keys().map(|(tag, _)| tag.as_str()).collect();
        tags.into_iter().collect()
    }
}

/// The scalars that the log of the run in `out` comes to, of steps in `steps`.
fn logged(out: &Path, steps: std::ops::RangeInclusive<u64>) -> BTreeMap<(String, u64), f32> {
    let mut scalars = BTreeMap::new();
    for r in read_metrics(&out.join("metrics.jsonl")).unwrap() {
        if !steps.contains(&r.step) {
            continue;
        }
        let mut add = |tag: &str, value: f64| {
            scalars.insert((tag.to_string(), r.step), value as f32);
        };
        match r.split {
            Split::Train => {
                add("train/loss", r.loss.unwrap());
                add("train/top1", r.top1.unwrap());
                add("train/steps_per_second", r.step as f64 / r.seconds);
                add("lr", r.lr.unwrap().into());
            }
            Split::Test => {
                add("test/loss", r.loss.unwrap());
                add("test/top1", r.top1.unwrap());
            }
        }
    }
    scalars
}

#[test]
fn events_are_the_log_and_the_weights_of_each_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let five = TrainOptions {
        stop_after: Some(5),
        ..options(&out)
    };
    run(five, Start::New).unwrap();
    let files = event_files(&out);
    let [first] = files.as_slice() else {
        panic!("{files:?}");
    };
    let events = Events::read(first);
    assert_eq!(events.start, 0);
    let wanted = logged(&out, 0..=5);
    assert_eq!(events.scalars, wanted);
    let steps: BTreeSet<u64> = wanted.keys().map(|(_, step)| *step).collect();
    assert_eq!(steps, BTreeSet::from([1, 2, 4, 5]));

    // At the start and at the evaluations. 8 kernels of 3 x 3 at 10 pixels each; the first test image.
    let of_network = [0, 4, 5];
    for step in of_network {
        let image = |tag: &str| events.images[&(tag.to_string(), step)];
        assert_eq!(image("kernels/conv1"), [94, 94]);
        assert_eq!(image("features/conv1.input"), [28, 28]);
        assert_eq!(image("features/conv1.deconvolved"), [28, 28]);
    }
    assert_eq!(events.images.len(), 9);

    let (tensors, _) = checkpoint::load(&out.join("model.safetensors")).unwrap();
    assert_eq!(events.histograms.len(), tensors.len() * of_network.len());
    for (name, tensor) in &tensors {
        let group = match name.contains("running_") {
            true => "statistics",
            false => "parameters",
        };
        for step in of_network {
            let histogram = &events.histograms[&(format!("{group}/{name}"), step)];
            let count = tensor.data.len() as f64;
            assert_eq!(only(histogram, 3).double(), count, "{name}");
            let (limits, counts) = (only(histogram, 6).doubles(), only(histogram, 7).doubles());
            assert_eq!(limits.len(), counts.len());
            assert_eq!(counts.iter().sum::<f64>(), count, "{name}");
            assert_eq!(limits.last(), Some(&only(histogram, 2).double()), "{name}");
        }
        // What was saved after the last evaluation.
        let histogram = &events.histograms[&(format!("{group}/{name}"), 5)];
        let values = || tensor.data.iter().map(|&v| f64::from(v));
        let of = |number| only(histogram, number).double();
        assert_eq!(of(1), values().fold(f64::INFINITY, f64::min), "{name}");
        assert_eq!(of(2), values().fold(f64::NEG_INFINITY, f64::max), "{name}");
        assert!((of(4) - values().sum::<f64>()).abs() < 1e-9, "{name}");
        assert!(
            (of(5) - values().map(|v| v * v).sum::<f64>()).abs() < 1e-9,
            "{name}"
        );
    }

    // The option is the run's: it goes on with a file that begins at the checkpoint.
    let saved = Saved::latest(&out).unwrap();
    let resumed = TrainOptions {
        out: Some(out.clone()),
        stop_after: Some(8),
        ..saved.options.clone()
    };
    run(resumed, Start::Resume(Box::new(saved))).unwrap();
    let files = event_files(&out);
    let [again, second] = files.as_slice() else {
        panic!("{files:?}");
    };
    assert_eq!(again, first);
    let events = Events::read(second);
    assert_eq!(events.start, 5);
    assert_eq!(events.scalars, logged(&out, 5..=8));
    let steps: BTreeSet<u64> = events.images.keys().map(|(_, step)| *step).collect();
    assert_eq!(steps, BTreeSet::from([5, 8]));

    // Not a bit is another without them.
    let without = dir.path().join("without");
    let options = TrainOptions {
        tensorboard: None,
        ..options(&without)
    };
    run(options, Start::New).unwrap();
    assert!(event_files(&without).is_empty());
    let tensors =
        [&out, &without].map(|out| checkpoint::load(&out.join("model.safetensors")).unwrap().0);
    assert!(tensors[0] == tensors[1]);
}

#[test]
fn pictures_are_those_that_a_network_has() {
    let dir = tempfile::tempdir().unwrap();
    for (model, norm, wanted) in [
        ("cnn", Norm::Batch, &["kernels/conv1"][..]),
        ("linear", Norm::Deconv, &["kernels/fc"]),
        ("mlp", Norm::None, &["kernels/fc1"]),
    ] {
        let out = dir.path().join(model);
        let options = TrainOptions {
            model: Some(model.into()),
            norm: Some(norm),
            steps: Some(1),
            ..options(&out)
        };
        run(options, Start::New).unwrap();
        let events = Events::read(&event_files(&out)[0]);
        assert_eq!(events.image_tags(), wanted, "{model}");
        // 28 x 28 each, 2 between them: 10 in four columns, 32 in six.
        let size = events.images[&(wanted[0].to_string(), 1)];
        match model {
            "linear" => assert_eq!(size, [118, 88]),
            "mlp" => assert_eq!(size, [178, 178]),
            _ => assert_eq!(size, [94, 94]),
        }
    }
}

#[test]
fn a_run_over_another_leaves_none_of_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let options = || TrainOptions {
        model: Some("linear".into()),
        norm: Some(Norm::None),
        steps: Some(1),
        ..options(&out)
    };
    run(options(), Start::New).unwrap();
    let before = event_files(&out);
    // Somebody's own are not mixed with.
    for name in [
        "config.toml",
        "model.safetensors",
        "metrics.jsonl",
        "curves.png",
        "run.json",
    ] {
        fs::remove_file(out.join(name)).unwrap();
    }
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    let error = run(options(), Start::New).unwrap_err().to_string();
    assert!(
        error.contains("holds events.out.tfevents.") && error.contains("`force`"),
        "{error}"
    );
    assert_eq!(event_files(&out), before);
    let later = fs::read(&before[0]).unwrap();
    run(options(), Start::Over).unwrap();
    let after = event_files(&out);
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(fs::read(&after[0]).unwrap(), later);
    let without = TrainOptions {
        tensorboard: Some(false),
        ..options()
    };
    run(without, Start::Over).unwrap();
    assert!(event_files(&out).is_empty());
}
