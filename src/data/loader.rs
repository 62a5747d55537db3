//! Batches, made ahead of the GPU by threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Augment, Images, Pixels, Source, augment};
use crate::{Error, Result};

/// Batches waiting for the GPU, over all threads. With more threads than that each holds the one
/// it has made.
const AHEAD: usize = 4;

/// Most threads: a batch of ImageNet's size is 40 MB, and each thread holds at least one.
const MOST_WORKERS: usize = 16;

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct LoaderConfig {
    /// Images of a batch.
    pub batch_size: usize,
    /// Another order every epoch, by `seed` and the epoch's number alone.
    pub shuffle: bool,
    /// For `shuffle` and `augment`.
    pub seed: u64,
    /// Leave out the images that do not fill a batch; else the last batch is filled up with
    /// zeros whose label is -1.
    pub drop_last: bool,
    /// How many passes over the images; `None` goes on for ever.
    pub epochs: Option<u64>,
    /// Number of batches, from the first one of the first epoch, that are left out; none of their
    /// images is touched.
    pub start: u64,
    /// What is done to images at random, by `seed`, epoch and image alone.
    pub augment: Augment,
    /// Threads. 0: one for images in memory, as many as there are cores, up to 16, for files. The
    /// batches are the same whatever it is.
    pub workers: usize,
    /// What to do with images that cannot be read: name them and go on, with the next good one of
    /// the epoch's order in their place if `drop_last`, else without them; or end with an error.
    pub skip_bad: bool,
    /// Which of how many equal parts of each batch is made: that of a rank. [0, 1] is the whole.
    pub part: [usize; 2],
}

impl LoaderConfig {
    /// Images of the part of a batch.
    fn part_size(&self) -> usize {
        self.batch_size / self.part[1].max(1)
    }
}

impl Default for LoaderConfig {
    /// All images once, in order.
    fn default() -> Self {
        Self {
            batch_size: 1,
            shuffle: false,
            seed: 0,
            drop_last: false,
            epochs: Some(1),
            start: 0,
            augment: Augment::None,
            workers: 0,
            skip_bad: false,
            part: [0, 1],
        }
    }
}

/// One batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// [N, C, H, W], before normalisation: bytes, if [`Images::are_bytes`].
    pub images: Pixels,
    /// Class numbers, -1 for filling.
    pub labels: Vec<f32>,
    /// Number of images that are no filling; they come first.
    pub len: usize,
    /// From 0.
    pub epoch: u64,
    /// Number of the batch in its epoch, from 0.
    pub index: usize,
    /// Whether it is the last of its epoch.
    pub is_last: bool,
    /// Images left out, with what is wrong with them.
    pub skipped: Vec<String>,
}

/// Gives batches in order. Dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    work: Arc<Work>,
    /// Threads that have not started yet.
    waiting: usize,
    /// Thread w makes batches w, w + threads, ... and puts them here: taking from one after the
    /// other gives them in order. None after the end.
    threads: Vec<(Receiver<Result<Batch>>, JoinHandle<()>)>,
    /// The thread whose turn it is.
    turn: usize,
}

/// What the threads share.
#[derive(Debug)]
struct Work {
    images: Arc<Images>,
    config: LoaderConfig,
    per_epoch: usize,
    /// Batches whose memory can be used again.
    used: Mutex<Vec<Batch>>,
}

impl Loader {
    /// Checks what can be checked; the threads start with the first batch that is asked for, so that one too large for the
    /// device is refused before memory is taken for it.
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made.
    pub fn new(images: Arc<Images>, config: LoaderConfig) -> Result<Self> {
        let per_epoch = if config.drop_last {
            images.len() / config.batch_size.max(1)
        } else {
            images.len().div_ceil(config.batch_size.max(1))
        };
        if config.batch_size == 0 || per_epoch == 0 {
            return Err(Error::Config(format!(
                "no batch of {} can be made of {} images; choose a `batch_size` between 1 and {}",
                config.batch_size,
                images.len(),
                images.len()
            )));
        }
        let [part, parts] = config.part;
        if part >= parts || !config.batch_size.is_multiple_of(parts) {
            return Err(Error::Config(format!(
                "a `batch_size` of {} has no equal part {part} of {parts}",
                config.batch_size
            )));
        }
        let in_memory = !matches!(images.source, Source::Files(_));
        if in_memory && config.augment == Augment::ResizedCropFlip {
            let message = "random resized crops are made of pictures in files only";
            return Err(Error::Config(message.into()));
        }
        let workers = match config.workers {
            0 if in_memory => 1,
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let workers = workers.min(MOST_WORKERS);
        let work = Arc::new(Work {
            config,
            per_epoch,
            images,
            used: Mutex::default(),
        });
        Ok(Self {
            work,
            waiting: workers,
            threads: Vec::new(),
            turn: 0,
        })
    }

    fn start(&mut self) -> Result<()> {
        let workers = std::mem::take(&mut self.waiting);
        for worker in 0..workers {
            let (send, batches) = sync_channel(AHEAD / workers);
            let work = Arc::clone(&self.work);
            let thread = std::thread::Builder::new()
                .name(format!("loader {worker}"))
                .spawn(move || work.produce(worker as u64, workers as u64, &send))
                .map_err(|e| Error::io("loader thread", e))?;
            self.threads.push((batches, thread));
        }
        Ok(())
    }

    /// The next batch; `None` after the last epoch and after an error.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] naming an image that cannot be read, [`Error::Data`] if a
    /// thread died before.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.start()?;
        let Some((batches, _)) = self.threads.get(self.turn) else {
            return Ok(None);
        };
        match batches.recv() {
            Ok(Ok(batch)) => {
                self.turn = (self.turn + 1) % self.threads.len();
                Ok(Some(batch))
            }
            Ok(Err(error)) => {
                self.stop();
                Err(error)
            }
            // This thread has ended, and all batches before its next one were taken.
            Err(_) if self.stop() => {
                let name = &self.work.images.name;
                Err(Error::data(name, "its loader thread died: a bug"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Gives a batch back, so that its memory is used again.
    pub fn recycle(&mut self, batch: Batch) {
        self.work.used().push(batch);
    }

    /// Batches of one epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.work.per_epoch
    }

    /// Ends all threads: whether one had died.
    fn stop(&mut self) -> bool {
        // With its channel closed a thread's next send fails, and it ends.
        let threads: Vec<_> = self.threads.drain(..).map(|(_, thread)| thread).collect();
        // Counted, not searched: every one of them is to be waited for.
        let died = threads.into_iter().filter_map(|thread| thread.join().err());
        died.count() > 0
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Work {
    /// What a thread does: every `workers`th batch from `start` + `worker` on.
    fn produce(&self, worker: u64, workers: u64, send: &SyncSender<Result<Batch>>) {
        let per_epoch = self.per_epoch as u64;
        let mut order = (u64::MAX, Vec::new());
        let mut number = self.config.start.saturating_add(worker);
        loop {
            let (epoch, index) = (number / per_epoch, (number % per_epoch) as usize);
            if self.config.epochs.is_some_and(|epochs| epoch >= epochs) {
                return;
            }
            if order.0 != epoch {
                order = (epoch, self.order(epoch));
            }
            let batch = self.batch(epoch, index, &order.1);
            let failed = batch.is_err();
            if send.send(batch).is_err() || failed {
                return;
            }
            number = number.saturating_add(workers);
        }
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.images.len()).collect();
        if self.config.shuffle {
            let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
            rng.set_stream(epoch);
            order.shuffle(&mut rng);
        }
        order
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Vec<Batch>> {
        // A thread that died while it held the lock left nothing half done.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn batch(&self, epoch: u64, index: usize, order: &[usize]) -> Result<Batch> {
        let size = self.config.part_size();
        let first = index * self.config.batch_size + self.config.part[0] * size;
        let mut batch = self.used().pop().unwrap_or_default();
        batch.images = emptied(batch.images, self.images.are_bytes());
        batch.labels.clear();
        batch.skipped.clear();
        for at in first.min(order.len())..(first + size).min(order.len()) {
            match self.image(order[at], order[at], epoch, &mut batch) {
                Err(error) if self.config.skip_bad => {
                    batch.skipped.push(error.to_string());
                    if self.config.drop_last {
                        self.replacement(order, at, epoch, &mut batch)?;
                    }
                }
                done => done?,
            }
        }
        batch.len = batch.labels.len();
        batch.epoch = epoch;
        batch.index = index;
        batch.is_last = index + 1 == self.per_epoch;
        let len = size * self.images.image_len();
        match &mut batch.images {
            Pixels::Bytes(bytes) => bytes.resize(len, 0),
            Pixels::Floats(values) => values.resize(len, 0.0),
        }
        batch.labels.resize(size, -1.0);
        Ok(batch)
    }

    /// The next good image after the bad one at `at`, changed by the bad one's random numbers:
    /// it may be in this batch already.
    fn replacement(&self, order: &[usize], at: usize, epoch: u64, batch: &mut Batch) -> Result<()> {
        let others = order[at + 1..].iter().chain(&order[..at]);
        for &other in others {
            if self.image(other, order[at], epoch, batch).is_ok() {
                return Ok(());
            }
        }
        Err(Error::data(&self.images.name, "no image can be read"))
    }

    /// Appends image `i`, changed by the random numbers of `luck`.
    fn image(&self, i: usize, luck: usize, epoch: u64, batch: &mut Batch) -> Result<()> {
        let (images, augment) = (&*self.images, self.config.augment);
        let (len, size) = (images.image_len(), (images.height, images.width));
        let mut random = augment::random(self.config.seed, epoch, luck);
        match (&images.source, &mut batch.images) {
            (Source::Bytes(bytes), Pixels::Bytes(out)) => {
                let placement = augment.placement(&mut random);
                augment::place(&bytes[i * len..(i + 1) * len], size, placement, out);
            }
            (Source::Floats(values), Pixels::Floats(out)) => {
                let placement = augment.placement(&mut random);
                augment::place(&values[i * len..(i + 1) * len], size, placement, out);
            }
            (Source::Files(paths), Pixels::Bytes(out)) => {
                let picture = images.read(&paths[i], augment, &mut random)?;
                let placement = augment.placement(&mut random);
                augment::place(&picture, size, placement, out);
            }
            _ => return Err(Error::bug("a batch has no place for these images")),
        }
        batch.labels.push(f32::from(images.labels[i]));
        Ok(())
    }
}

/// No values, in the memory of `used` if they are of the same kind.
fn emptied(used: Pixels, are_bytes: bool) -> Pixels {
    match (used, are_bytes) {
        (Pixels::Bytes(mut bytes), true) => {
            bytes.clear();
            Pixels::Bytes(bytes)
        }
        (Pixels::Floats(mut values), false) => {
            values.clear();
            Pixels::Floats(values)
        }
        (_, true) => Pixels::Bytes(Vec::new()),
        (_, false) => Pixels::Floats(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(count: usize) -> Arc<Images> {
        Arc::new(Images {
            name: "test".into(),
            channels: 1,
            height: 1,
            width: 2,
            classes: 10,
            source: Source::Bytes((0..2 * count).map(|i| (i / 2) as u8).collect()),
            labels: (0..count).map(|i| (i % 10) as u16).collect(),
        })
    }

    fn config(batch_size: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size,
            shuffle: true,
            seed: 3,
            drop_last: false,
            epochs: Some(2),
            ..LoaderConfig::default()
        }
    }

    fn all(config: LoaderConfig) -> Vec<Batch> {
        let mut loader = Loader::new(images(23), config).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            batches.push(batch.clone());
            loader.recycle(batch);
        }
        batches
    }

    fn bytes(batch: &Batch) -> &[u8] {
        match &batch.images {
            Pixels::Bytes(bytes) => bytes,
            Pixels::Floats(_) => panic!("bytes became floats"),
        }
    }

    #[test]
    fn every_image_once_an_epoch_in_another_order() {
        let batches = all(config(5));
        assert_eq!(batches.len(), 10);
        let epoch = |e: u64| -> Vec<u8> {
            let of = batches.iter().filter(|b| b.epoch == e);
            of.flat_map(|b| bytes(b).chunks(2).take(b.len).map(|p| p[0]))
                .collect()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        for mut values in [first, second] {
            values.sort_unstable();
            assert_eq!(values, (0..23).collect::<Vec<u8>>());
        }
    }

    /// Ranks see all that one process sees, in the same batches.
    #[test]
    fn parts_of_batches_are_the_batches() {
        let whole = all(config(6));
        let part = |i| {
            all(LoaderConfig {
                part: [i, 3],
                ..config(6)
            })
        };
        let parts = [part(0), part(1), part(2)];
        for (i, batch) in whole.iter().enumerate() {
            let of_parts = |of: fn(&Batch) -> Vec<f32>| -> Vec<f32> {
                parts.iter().flat_map(|part| of(&part[i])).collect()
            };
            assert_eq!(of_parts(|b| b.labels.clone()), batch.labels);
            let images = |b: &Batch| bytes(b).iter().map(|&v| f32::from(v)).collect();
            assert_eq!(of_parts(images), images(batch));
            let len: usize = parts.iter().map(|part| part[i].len).sum();
            assert_eq!((len, parts[2][i].is_last), (batch.len, batch.is_last));
        }
        for part in [[3, 3], [0, 4]] {
            let config = LoaderConfig { part, ..config(6) };
            assert!(Loader::new(images(23), config).is_err(), "{part:?}");
        }
    }

    #[test]
    fn same_seed_same_batches() {
        assert_eq!(all(config(5)), all(config(5)));
        let other = LoaderConfig {
            seed: 4,
            ..config(5)
        };
        assert_ne!(all(config(5)), all(other));
    }

    #[test]
    fn the_last_batch_is_filled_up_or_dropped() {
        let last = &all(config(5))[4];
        assert_eq!((last.len, last.is_last), (3, true));
        assert_eq!(last.labels[3..], [-1.0, -1.0]);
        assert_eq!(bytes(last)[6..], [0; 4]);
        let dropped = LoaderConfig {
            drop_last: true,
            ..config(5)
        };
        let batches = all(dropped);
        assert_eq!(batches.len(), 8);
        assert!(batches.iter().all(|b| b.len == 5));
    }

    #[test]
    fn impossible_batches_are_refused() {
        let new = |config| Loader::new(images(3), config);
        assert!(new(config(0)).is_err());
        let dropped = LoaderConfig {
            drop_last: true,
            ..config(4)
        };
        let text = new(dropped).unwrap_err().to_string();
        assert!(text.contains("between 1 and 3"), "{text}");
    }

    #[test]
    fn a_thread_that_dies_is_an_error() {
        let mut broken = Images::clone(&images(9));
        broken.source = Source::Bytes(vec![0; 7]);
        let mut loader = Loader::new(Arc::new(broken), config(2)).unwrap();
        let error = (0..9).find_map(|_| loader.next_batch().err());
        assert!(matches!(error, Some(Error::Data { .. })), "{error:?}");
    }

    #[test]
    fn batches_are_the_same_whatever_the_number_of_threads() {
        let with = |workers| LoaderConfig {
            workers,
            augment: Augment::CropFlip,
            ..config(5)
        };
        let one = all(with(1));
        assert_eq!(one.len(), 10);
        for workers in [2, 3, 16] {
            assert_eq!(all(with(workers)), one, "{workers} threads");
        }
    }

    #[test]
    fn a_loader_begins_anywhere() {
        let whole = all(config(5));
        for start in [1, 4, 5, 7, 10, 99] {
            let config = LoaderConfig {
                start,
                workers: 2,
                ..config(5)
            };
            assert_eq!(all(config), whole[(start as usize).min(10)..]);
        }
    }

    #[test]
    fn augmentation_differs_by_epoch() {
        let config = LoaderConfig {
            augment: Augment::CropFlip,
            shuffle: false,
            ..config(23)
        };
        let batches = all(config);
        assert_ne!(batches[0].images, batches[1].images);
        assert_eq!(batches[0].labels, batches[1].labels);
    }

    #[test]
    fn dropping_a_loader_ends_its_thread() {
        let endless = LoaderConfig {
            epochs: None,
            ..config(2)
        };
        let mut loader = Loader::new(images(9), endless).unwrap();
        assert!(loader.next_batch().unwrap().is_some());
        drop(loader);
    }

    /// Bad pictures of full batches are replaced by the next good one of the epoch's order, which begins anew at its end.
    #[cfg(feature = "pictures")]
    #[test]
    fn the_next_good_picture_takes_the_place_of_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let labels_of = |good: &[usize]| {
            let path = |i: usize| {
                let path = dir.path().join(format!("{i}.ppm"));
                let is_good = good.contains(&i);
                let text: &[u8] = if is_good { b"P6 1 1 255\n123" } else { b"P6" };
                std::fs::write(&path, text).unwrap();
                path
            };
            let images = Images {
                name: "test".into(),
                channels: 3,
                height: 1,
                width: 1,
                classes: 5,
                source: Source::Files((0..5).map(path).collect()),
                labels: (0..5).collect(),
            };
            let config = LoaderConfig {
                batch_size: 5,
                drop_last: true,
                skip_bad: true,
                ..LoaderConfig::default()
            };
            let batch = Loader::new(Arc::new(images), config)?.next_batch()?;
            let batch = batch.expect("a batch");
            assert_eq!((batch.len, batch.skipped.len()), (5, 5 - good.len()));
            Ok(batch.labels)
        };
        let labels: Result<Vec<_>> = [&[0, 1, 2, 3, 4][..], &[1, 3], &[0], &[4]]
            .map(labels_of)
            .into_iter()
            .collect();
        let wanted = [
            [0.0, 1.0, 2.0, 3.0, 4.0],
            [1.0, 1.0, 3.0, 3.0, 1.0],
            [0.0; 5],
            [4.0; 5],
        ];
        assert_eq!(labels.unwrap(), wanted);
        let error = labels_of(&[]).unwrap_err().to_string();
        assert!(error.contains("no image can be read"), "{error}");
    }
}
