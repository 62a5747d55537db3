//! What a run writes for TensorBoard: its log as scalars; of its network histograms, and pictures if decorr has the feature
//! `draw`.

mod events;
#[cfg(feature = "draw")]
mod pictures;
#[cfg(not(feature = "draw"))]
#[path = "tensorboard/no_pictures.rs"]
mod pictures;

use std::path::Path;

use events::{EventWriter, histogram, scalar};
use pictures::Pictures;

use super::checkpoint::{self, HostTensor, Tensors};
use super::metrics::{Record, Split};
use crate::Result;
use crate::data::DataSet;
use crate::graph::Role;
use crate::models::Model;
use crate::program::Store;

/// The event file of a session of a run.
#[derive(Debug)]
pub(super) struct TensorBoard {
    events: EventWriter,
    pictures: Pictures,
}

impl TensorBoard {
    /// A new file in `out` of `model` from `step` on. What earlier files have of this step and later, TensorBoard drops.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(super) fn begin(out: &Path, step: u64, model: &Model, set: &DataSet) -> Result<Self> {
        Ok(Self {
            events: EventWriter::new(out, step)?,
            pictures: Pictures::new(model, set),
        })
    }

    /// The numbers of a line of metrics.jsonl.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path, for a full disk say.
    pub(super) fn log(&mut self, record: &Record) -> Result<()> {
        let split = match record.split {
            Split::Train => "train",
            Split::Test => "test",
        };
        let number = |name: &str, value: f64| scalar(&format!("{split}/{name}"), value as f32);
        let mut values = vec![
            number("loss", record.loss.unwrap_or(f64::NAN)),
            number("top1", record.top1.unwrap_or(f64::NAN)),
        ];
        values.extend(record.top5.map(|top5| number("top5", top5)));
        values.extend(record.lr.map(|lr| scalar("lr", lr)));
        if record.split == Split::Train {
            // As in run.json: since training began, without evaluations.
            values.push(number(
                "steps_per_second",
                record.step as f64 / record.seconds,
            ));
        }
        self.events.write(record.step, &values)
    }

    /// The network in `store` as it is after `step`. Waits for the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path; what the device reported.
    pub(super) fn show(&mut self, step: u64, store: &Store) -> Result<()> {
        let (mut values, mut all) = (Vec::new(), Tensors::new());
        for (group, role) in [
            ("parameters", Role::Parameter),
            ("statistics", Role::Statistic),
        ] {
            let tensors = checkpoint::from_store(store, &[role])?;
            let of = |(name, tensor): (&String, &HostTensor)| {
                histogram(&format!("{group}/{name}"), &tensor.data)
            };
            values.extend(tensors.iter().filter_map(of));
            all.extend(tensors);
        }
        values.extend(self.pictures.of(&all)?);
        self.events.write(step, &values)
    }

    /// Has the system write what it holds back, so that a checkpoint is never ahead of its events.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub(super) fn sync(&self) -> Result<()> {
        self.events.sync()
    }
}
