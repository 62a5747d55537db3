//! Batches, made ahead of the GPU by a thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Images;
use crate::{Error, Result};

/// Batches waiting for the GPU.
const AHEAD: usize = 4;

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct LoaderConfig {
    /// Images of a batch.
    pub batch_size: usize,
    /// Another order every epoch, by `seed` and the epoch's number alone.
    pub shuffle: bool,
    /// For `shuffle`.
    pub seed: u64,
    /// Leave out the images that do not fill a batch; else the last batch is filled up with
    /// zeros whose label is -1.
    pub drop_last: bool,
    /// How many passes over the images; `None` goes on for ever.
    pub epochs: Option<u64>,
}

/// One batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Normalised, NCHW.
    pub images: Vec<f32>,
    /// Class numbers, -1 for filling.
    pub labels: Vec<f32>,
    /// Number of images that are no filling.
    pub len: usize,
    /// From 0.
    pub epoch: u64,
    /// Number of the batch in its epoch, from 0.
    pub index: usize,
    /// Whether it is the last of its epoch.
    pub is_last: bool,
}

/// Gives batches in order. Dropping it ends its thread.
#[derive(Debug)]
pub struct Loader {
    batches: Option<Receiver<Batch>>,
    used: Option<Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
    per_epoch: usize,
    name: String,
}

impl Loader {
    /// Starts the thread. `mean` and `std` per channel, of pixels in [0, 1].
    ///
    /// # Errors
    /// [`Error::Config`] if no batch can be made.
    pub fn new(
        images: Arc<Images>,
        mean: &[f32],
        std: &[f32],
        config: LoaderConfig,
    ) -> Result<Self> {
        let per_epoch = if config.drop_last {
            images.len() / config.batch_size.max(1)
        } else {
            images.len().div_ceil(config.batch_size.max(1))
        };
        if config.batch_size == 0 || per_epoch == 0 {
            return Err(Error::Config(format!(
                "no batch of {} can be made of {} images; choose a --batch-size between 1 and {}",
                config.batch_size,
                images.len(),
                images.len()
            )));
        }
        if mean.len() != images.channels || std.len() != images.channels {
            return Err(Error::Config(format!(
                "{} means and {} standard deviations for {} channels",
                mean.len(),
                std.len(),
                images.channels
            )));
        }
        let (send, batches) = sync_channel(AHEAD);
        let (used, recycled) = channel();
        let tables = tables(mean, std);
        let name = images.name.clone();
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || produce(&images, &tables, config, per_epoch, &send, &recycled))
            .map_err(|e| Error::io("loader thread", e))?;
        Ok(Self {
            batches: Some(batches),
            used: Some(used),
            thread: Some(thread),
            per_epoch,
            name,
        })
    }

    /// The next batch; `None` after the last epoch.
    ///
    /// # Errors
    /// [`Error::Data`] if the thread died before.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        let Some(batches) = &self.batches else {
            return Ok(None);
        };
        if let Ok(batch) = batches.recv() {
            return Ok(Some(batch));
        }
        self.batches = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::data(&self.name, "its loader thread died: a bug")),
            _ => Ok(None),
        }
    }

    /// Gives a batch back, so that its memory is used again.
    pub fn recycle(&mut self, batch: Batch) {
        if let Some(used) = &self.used {
            // The thread may be gone already after the last epoch.
            let _ = used.send(batch);
        }
    }

    /// Batches of one epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.per_epoch
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // With its channels closed the thread's next send fails, and it ends.
        self.batches = None;
        self.used = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The normalised value of every byte, per channel.
fn tables(mean: &[f32], std: &[f32]) -> Vec<[f32; 256]> {
    let table = |(&mean, &std): (&f32, &f32)| {
        let mut table = [0.0; 256];
        for (i, value) in table.iter_mut().enumerate() {
            *value = (i as f32 / 255.0 - mean) / std;
        }
        table
    };
    mean.iter().zip(std).map(table).collect()
}

fn produce(
    images: &Images,
    tables: &[[f32; 256]],
    config: LoaderConfig,
    per_epoch: usize,
    send: &SyncSender<Batch>,
    recycled: &Receiver<Batch>,
) {
    let mut epoch = 0;
    while config.epochs.is_none_or(|epochs| epoch < epochs) {
        let order = order(images.len(), config, epoch);
        for (index, chunk) in order.chunks(config.batch_size).take(per_epoch).enumerate() {
            let mut batch = recycled.try_recv().unwrap_or_default();
            fill(&mut batch, images, tables, chunk, config.batch_size);
            batch.epoch = epoch;
            batch.index = index;
            batch.is_last = index + 1 == per_epoch;
            if send.send(batch).is_err() {
                return;
            }
        }
        epoch += 1;
    }
}

fn order(len: usize, config: LoaderConfig, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    if config.shuffle {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(epoch);
        order.shuffle(&mut rng);
    }
    order
}

fn fill(
    batch: &mut Batch,
    images: &Images,
    tables: &[[f32; 256]],
    chosen: &[usize],
    batch_size: usize,
) {
    let (image_len, plane) = (images.image_len(), images.height * images.width);
    batch.len = chosen.len();
    batch.images.clear();
    batch.labels.clear();
    for &i in chosen {
        let image = &images.pixels[i * image_len..(i + 1) * image_len];
        for (channel, table) in image.chunks_exact(plane).zip(tables) {
            batch
                .images
                .extend(channel.iter().map(|&p| table[usize::from(p)]));
        }
        batch.labels.push(f32::from(images.labels[i]));
    }
    batch.images.resize(batch_size * image_len, 0.0);
    batch.labels.resize(batch_size, -1.0);
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
            pixels: (0..2 * count).map(|i| (i / 2) as u8).collect(),
            labels: (0..count).map(|i| (i % 10) as u8).collect(),
        })
    }

    fn config(batch_size: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size,
            shuffle: true,
            seed: 3,
            drop_last: false,
            epochs: Some(2),
        }
    }

    fn all(config: LoaderConfig) -> Vec<Batch> {
        let mut loader = Loader::new(images(23), &[0.0], &[1.0 / 255.0], config).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            batches.push(batch.clone());
            loader.recycle(batch);
        }
        batches
    }

    #[test]
    fn every_image_once_an_epoch_in_another_order() {
        let batches = all(config(5));
        assert_eq!(batches.len(), 10);
        let epoch = |e: u64| -> Vec<f32> {
            let of = batches.iter().filter(|b| b.epoch == e);
            of.flat_map(|b| b.images.chunks(2).take(b.len).map(|p| p[0]))
                .collect()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        for mut values in [first, second] {
            values.sort_by(f32::total_cmp);
            let expected: Vec<f32> = (0..23).map(|i| i as f32).collect();
            for (value, wanted) in values.iter().zip(&expected) {
                assert!((value - wanted).abs() < 1e-4);
            }
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
        assert_eq!(last.images[6..], [0.0; 4]);
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
        let new = |config| Loader::new(images(3), &[0.0], &[1.0], config);
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
        broken.pixels.truncate(7);
        let mut loader = Loader::new(Arc::new(broken), &[0.0], &[1.0], config(2)).unwrap();
        let error = (0..9).find_map(|_| loader.next_batch().err());
        assert!(matches!(error, Some(Error::Data { .. })), "{error:?}");
    }

    #[test]
    fn dropping_a_loader_ends_its_thread() {
        let endless = LoaderConfig {
            epochs: None,
            ..config(2)
        };
        let mut loader = Loader::new(images(9), &[0.0], &[1.0], endless).unwrap();
        assert!(loader.next_batch().unwrap().is_some());
        drop(loader);
    }
}
