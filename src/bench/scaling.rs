//! `decorr bench --scaling`: what of a step of several processes is their exchange.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::data::{DataSet, Images};
use crate::gpu::Gpu;
use crate::models::{Model, Norm, network};
use crate::program::ExchangeTimes;
use crate::ranks::Ranks;
use crate::train::{Trainer, TrainerOptions};
use crate::{Error, Result};

/// Steps of a round.
const STEPS: usize = 8;

/// A training step on several ranks, in milliseconds: means over the ranks, of the round with the shortest step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scaling {
    /// Network.
    pub network: String,
    /// What normalises it.
    pub norm: String,
    /// Processes.
    pub ranks: usize,
    /// Images of a step, of all ranks together.
    pub batch_size: usize,
    /// A step of one process on as many images as each rank has, while the others wait.
    pub alone_ms: f64,
    /// A step.
    pub step_ms: f64,
    /// What is left of it without `shown_ms`.
    pub compute_ms: f64,
    /// What the step waited for the exchange.
    pub shown_ms: f64,
    /// What the exchange took while the step went on.
    pub hidden_ms: f64,
    /// Bytes of the tensors that are exchanged in a step.
    pub bytes: u64,
    /// Bytes that each rank sends.
    pub sent_bytes: u64,
    /// Sums of so many bytes while nothing else runs, and their milliseconds, the best of several: what docs/scaling.md's model
    /// is made of.
    pub bare: Vec<(u64, f64)>,
    /// `alone_ms` over `step_ms`: 1 if nothing is lost.
    pub efficiency: f64,
}

impl Scaling {
    /// As text.
    pub fn table(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let bare = |&(bytes, ms): &(u64, f64)| {
            format!("\na sum of {:6.2} MiB alone     {ms:9.2} ms", mib(bytes))
        };
        let bare: String = self.bare.iter().map(bare).collect();
        format!(
            "{} with norm {}, {} ranks, {} images a step\n\
             one rank alone on its part  {:9.2} ms\n\
             step                        {:9.2} ms\n  \
               compute                   {:9.2} ms\n  \
               exchange that shows       {:9.2} ms\n\
             exchange that is hidden     {:9.2} ms\n\
             exchanged                   {:9.2} MiB, each rank sends {:.2} MiB\n\
             efficiency                  {:9.3}{bare}",
            self.network,
            self.norm,
            self.ranks,
            self.batch_size,
            self.alone_ms,
            self.step_ms,
            self.compute_ms,
            self.shown_ms,
            self.hidden_ms,
            mib(self.bytes),
            mib(self.sent_bytes),
            self.efficiency
        )
    }
}

/// Measures steps of the network called `name` with `norm` on `batch_size` images, divided over the ranks, in so many
/// rounds.
///
/// # Errors
/// [`Error::Config`] if the ranks do not divide the batch; as [`Trainer::new`] and [`Trainer::epoch`].
pub fn scaling(
    gpu: &Arc<Gpu>,
    ranks: &Arc<dyn Ranks>,
    name: &str,
    norm: Norm,
    batch_size: usize,
    rounds: usize,
) -> Result<Scaling> {
    let size = ranks.size();
    if batch_size == 0 || !batch_size.is_multiple_of(size) {
        let message = format!("{size} ranks do not divide a `batch_size` of {batch_size}");
        return Err(Error::Config(message));
    }
    let trainer = |options: TrainerOptions| {
        let ([c, h, w], classes) = network(name)?.usual_images(None);
        let images = |count: usize| {
            let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
            let values: Vec<u8> = (0..count * c * h * w).map(value).collect();
            let labels = (0..count).map(|i| (i % classes) as u16).collect();
            Images::new(values, [c, h, w], labels, classes)
        };
        let count = options.batch_size;
        let set = DataSet::new(
            images(count * STEPS)?,
            images(count)?,
            &vec![0.5; c],
            &vec![0.25; c],
        )?;
        let model = Model::new(name, norm, classes)?;
        Trainer::new(gpu, model, set, options.lr(1e-6))
    };
    // What compiles and caches is no part of it.
    let timed = |trainer: &mut Trainer| -> Result<f64> {
        let begin = Instant::now();
        trainer.epoch()?;
        Ok(begin.elapsed().as_secs_f64() / STEPS as f64)
    };
    let mut alone = f64::INFINITY;
    if ranks.rank() == 0 {
        let mut trainer = trainer(TrainerOptions::default().batch_size(batch_size / size))?;
        timed(&mut trainer)?;
        for _ in 0..rounds {
            alone = alone.min(timed(&mut trainer)?);
        }
    }
    let options = TrainerOptions::default().batch_size(batch_size);
    let mut trainer = trainer(options.ranks(Arc::clone(ranks), false))?;
    ranks.gather("the measurement of one rank", Vec::new())?;
    timed(&mut trainer)?;
    let mut best = Scaling {
        step_ms: f64::INFINITY,
        ..Scaling::default()
    };
    for _ in 0..rounds {
        let before = trainer.exchange_times();
        let step = timed(&mut trainer)?;
        let after = trainer.exchange_times();
        let own = own_times(step, before, after);
        let sums = ranks.sum("times", own.map(|v| v as f32).to_vec())?;
        let [step_ms, shown_ms, hidden_ms] = [0, 1, 2].map(|i| f64::from(sums[i]) / size as f64);
        if step_ms < best.step_ms {
            let bytes = (after.bytes - before.bytes) / STEPS as u64;
            best = Scaling {
                network: name.into(),
                norm: norm.name().into(),
                ranks: size,
                batch_size,
                alone_ms: 0.0,
                step_ms,
                compute_ms: step_ms - shown_ms,
                shown_ms,
                hidden_ms,
                bytes,
                sent_bytes: sent(bytes, size as u64),
                bare: Vec::new(),
                efficiency: 0.0,
            };
        }
    }
    for bytes in [1_u64 << 16, 1 << 20, 1 << 24] {
        let mut least = f64::INFINITY;
        for _ in 0..10 {
            ranks.begin_sum("numbers alone", vec![1.0; bytes as usize / 4])?;
            least = least.min(1e3 * ranks.take_sum()?.seconds);
        }
        best.bare.push((bytes, least));
    }
    // That of the first rank; the others know none.
    best.alone_ms = 1e3 * alone;
    best.efficiency = best.alone_ms / best.step_ms;
    Ok(best)
}

/// Milliseconds of a step of `step` seconds: all of it, what it waited for its exchange, and what went on beside it.
fn own_times(step: f64, before: ExchangeTimes, after: ExchangeTimes) -> [f64; 3] {
    let per_step = |seconds: f64| 1e3 * seconds / STEPS as f64;
    let shown = per_step(after.shown - before.shown);
    let exchange = per_step(after.seconds - before.seconds);
    [1e3 * step, shown, (exchange - shown).max(0.0)]
}

/// What a rank sends for a sum of so many bytes: all but its own part, and again once it is added up.
fn sent(bytes: u64, ranks: u64) -> u64 {
    2 * bytes * (ranks - 1) / ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_stands_behind_its_name() {
        let found = Scaling {
            network: "cnn".into(),
            norm: "deconv".into(),
            ranks: 4,
            batch_size: 512,
            alone_ms: 81.0,
            step_ms: 90.0,
            compute_ms: 83.0,
            shown_ms: 7.0,
            hidden_ms: 2.5,
            bytes: 6 << 20,
            sent_bytes: 9 << 20,
            bare: vec![(1 << 16, 0.25), (1 << 20, 3.0)],
            efficiency: 0.9,
        };
        let wanted = "cnn with norm deconv, 4 ranks, 512 images a step\n\
            one rank alone on its part      81.00 ms\n\
            step                            90.00 ms\n  \
              compute                       83.00 ms\n  \
              exchange that shows            7.00 ms\n\
            exchange that is hidden          2.50 ms\n\
            exchanged                        6.00 MiB, each rank sends 9.00 MiB\n\
            efficiency                      0.900\n\
            a sum of   0.06 MiB alone          0.25 ms\n\
            a sum of   1.00 MiB alone          3.00 ms";
        assert_eq!(found.table(), wanted);
    }

    /// Of steps that took 4 ms each to exchange, of which they waited for 1; and of steps that waited for all.
    #[test]
    fn an_exchange_shows_or_is_hidden() {
        let steps = STEPS as f64;
        let times = |seconds: f64, shown: f64| ExchangeTimes {
            seconds: 1.0 + steps * seconds,
            shown: 0.5 + steps * shown,
            bytes: 0,
        };
        for (seconds, shown, wanted) in [
            (0.004, 0.001, [10.0, 1.0, 3.0]),
            (0.002, 0.003, [10.0, 3.0, 0.0]),
        ] {
            let found = own_times(0.01, times(0.0, 0.0), times(seconds, shown));
            let near = |i: usize| (found[i] - wanted[i]).abs() < 1e-9;
            assert!((0..3).all(near), "{found:?} is not {wanted:?}");
        }
    }

    #[test]
    fn each_rank_sends_twice_what_is_not_its_own_part() {
        for (ranks, wanted) in [(1, 0), (2, 1200), (3, 1600), (4, 1800)] {
            assert_eq!(sent(1200, ranks), wanted);
        }
    }
}
