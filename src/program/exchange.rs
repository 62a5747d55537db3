//! Steps in which values are exchanged with the other ranks: which tensors go together, when, and the way through the host.
//!
//! A step with exchanges is submitted in pieces. Once the last dispatch that writes a tensor is recorded, a copy of it to a
//! buffer that the host can read follows, and the piece is submitted. While later pieces run, what has arrived is given to
//! [`Ranks`]. Where the mean is needed, the host waits for it, and its copy to the device begins the next piece. Tensors that
//! are needed at the same place, as all gradients are, go in buckets in the order in which they are computed.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use wgpu::{CommandEncoder, MapMode};

use super::Program;
use crate::gpu::{Gpu, Mapping};
use crate::ranks::Ranks;
use crate::{Error, Result};

/// Bytes of a bucket. With many ranks more, since each gets a part of it as a message of its own.
fn bucket_bytes(ranks: usize) -> u64 {
    (1 << 20).max(ranks as u64 * (1 << 16))
}

/// A tensor whose mean over the ranks is wanted. Positions are numbers of dispatches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whose memory it is in: a node.
    pub(super) input: usize,
    /// The node that is the mean.
    pub(super) output: usize,
    pub(super) size_bytes: u64,
    /// It is there after so many dispatches.
    pub(super) start: usize,
    /// The mean must be there before this dispatch.
    pub(super) due: usize,
}

/// What a step does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// These dispatches.
    Run(Range<usize>),
    /// Copies a bucket to the host. Buckets are numbered in this order.
    Copy(usize),
    /// Waits for the means of these, and brings them to the device.
    Finish(Vec<usize>),
}

/// The buckets, each the places in `wanted` of its tensors, and what a step of so many `dispatches` does. `wanted` is in
/// the order of nodes.
pub(super) fn schedule(
    wanted: &[Wanted],
    dispatches: usize,
    ranks: usize,
) -> (Vec<Vec<usize>>, Vec<Action>) {
    // What is due at the same place, and does not depend on each other.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, one) in wanted.iter().enumerate() {
        let fits = |group: &&mut Vec<usize>| {
            let members = group.iter().map(|&k| &wanted[k]);
            members
                .clone()
                .all(|other| other.due == one.due && other.output != one.input)
        };
        match groups.last_mut().filter(|group| fits(group)) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    let start = |bucket: &[usize]| bucket.iter().map(|&i| wanted[i].start).max().unwrap_or(0);
    let grouped: Vec<(usize, Vec<Vec<usize>>)> = groups
        .into_iter()
        .map(|group| {
            (
                wanted[group[0]].due,
                buckets_of(group, wanted, bucket_bytes(ranks)),
            )
        })
        .collect();
    let mut positions: BTreeSet<usize> = wanted.iter().map(|one| one.due).collect();
    positions.extend(
        grouped
            .iter()
            .flat_map(|(_, buckets)| buckets.iter().map(|b| start(b))),
    );
    positions.insert(dispatches);

    let (mut order, mut actions, mut at) = (Vec::new(), Vec::new(), 0);
    let mut numbers: Vec<Vec<usize>> = vec![Vec::new(); grouped.len()];
    for position in positions {
        if position > at {
            actions.push(Action::Run(at..position));
            at = position;
        }
        // Those that end here first: others that begin here may depend on them.
        let (ending, later): (Vec<usize>, Vec<usize>) =
            (0..grouped.len()).partition(|&group| grouped[group].0 == position);
        for group in ending.into_iter().chain(later) {
            let (due, buckets) = &grouped[group];
            for bucket in buckets.iter().filter(|bucket| start(bucket) == position) {
                numbers[group].push(order.len());
                actions.push(Action::Copy(order.len()));
                order.push(bucket.clone());
            }
            if *due == position {
                actions.push(Action::Finish(std::mem::take(&mut numbers[group])));
            }
        }
    }
    (order, actions)
}

/// `group` in the order in which its tensors are there, cut where a bucket is full.
fn buckets_of(mut group: Vec<usize>, wanted: &[Wanted], full: u64) -> Vec<Vec<usize>> {
    group.sort_by_key(|&i| wanted[i].start);
    let mut buckets: Vec<(u64, Vec<usize>)> = Vec::new();
    for i in group {
        let size_bytes = wanted[i].size_bytes;
        match buckets.last_mut() {
            Some((filled, bucket)) if *filled + size_bytes <= full => {
                *filled += size_bytes;
                bucket.push(i);
            }
            _ => buckets.push((size_bytes, vec![i])),
        }
    }
    buckets.into_iter().map(|(_, bucket)| bucket).collect()
}

/// The exchanges of a program.
#[derive(Debug)]
pub(super) struct Exchanges {
    ranks: Arc<dyn Ranks>,
    buckets: Vec<Bucket>,
    actions: Vec<Action>,
    /// Buckets that were given to the ranks in this step, and those whose sums were taken.
    given: usize,
    taken: usize,
    /// Whose upload buffers are to be mapped again.
    used: Vec<usize>,
    times: ExchangeTimes,
}

/// What a program has exchanged since it was compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExchangeTimes {
    /// Seconds that exchanges took, whatever else was done in that time.
    pub seconds: f64,
    /// Seconds of these in which the step waited for them.
    pub shown: f64,
    /// Bytes of the tensors.
    pub bytes: u64,
}

/// Tensors that are exchanged together.
#[derive(Debug)]
struct Bucket {
    /// The first of them, and how many more.
    name: String,
    tensors: Vec<Exchanged>,
    len: usize,
    from_device: Mapping,
    to_device: Mapping,
    /// Memory of the last sum.
    values: Vec<f32>,
}

/// A tensor and its mean on the device, by buffer and offset in bytes.
#[derive(Debug)]
pub(super) struct Exchanged {
    pub(super) name: String,
    pub(super) from: (wgpu::Buffer, u64),
    pub(super) to: (wgpu::Buffer, u64),
    pub(super) len: usize,
}

impl Exchanges {
    /// Makes the buffers of these buckets.
    pub(super) fn new(
        gpu: &Gpu,
        ranks: Arc<dyn Ranks>,
        buckets: Vec<Vec<Exchanged>>,
        actions: Vec<Action>,
    ) -> Result<Self> {
        let made = buckets.into_iter().map(|tensors| Bucket::new(gpu, tensors));
        Ok(Self {
            ranks,
            buckets: made.collect::<Result<_>>()?,
            actions,
            given: 0,
            taken: 0,
            used: Vec::new(),
            times: ExchangeTimes::default(),
        })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Bytes of its buffers.
    pub(super) fn size_bytes(&self) -> u64 {
        self.buckets.iter().map(|b| 2 * b.len as u64 * 4).sum()
    }

    /// Gives the ranks what has arrived of the first `copied` buckets, in their order; waits for what is needed of the first
    /// `needed`.
    fn give(&mut self, gpu: &Gpu, copied: usize, needed: usize) -> Result<()> {
        while self.given < copied {
            let bucket = &mut self.buckets[self.given];
            if !bucket.from_device.ready(gpu, self.given < needed)? {
                break;
            }
            let mut values = std::mem::take(&mut bucket.values);
            values.clear();
            let len = bucket.len;
            bucket.from_device.read(|bytes| {
                values.extend_from_slice(&bytemuck::cast_slice::<u8, f32>(bytes)[..len]);
            })?;
            self.ranks.begin_sum(&bucket.name, values)?;
            self.given += 1;
        }
        Ok(())
    }

    /// Takes the sums of the first `needed` buckets and writes their means where the device copies them from.
    fn take(&mut self, gpu: &Gpu, needed: usize) -> Result<()> {
        while self.taken < needed {
            let begin = std::time::Instant::now();
            let sum = self.ranks.take_sum()?;
            self.times.shown += begin.elapsed().as_secs_f64();
            self.times.seconds += sum.seconds;
            let bucket = &mut self.buckets[self.taken];
            self.times.bytes += bucket.len as u64 * 4;
            let mut values = sum.values;
            let ranks = self.ranks.size() as f32;
            values.iter_mut().for_each(|v| *v /= ranks);
            bucket.to_device.ready(gpu, true)?;
            bucket.to_device.write(bytemuck::cast_slice(&values))?;
            bucket.values = values;
            self.taken += 1;
        }
        Ok(())
    }

    /// The buffers that the pieces up to this submission copied from can be written again after it.
    fn submitted(&mut self, gpu: &Gpu, submission: &wgpu::SubmissionIndex) -> Result<()> {
        for bucket in self.used.drain(..) {
            let to_device = &mut self.buckets[bucket].to_device;
            to_device.map_after(gpu, MapMode::Write, submission)?;
        }
        Ok(())
    }
}

impl Bucket {
    fn new(gpu: &Gpu, tensors: Vec<Exchanged>) -> Result<Self> {
        let len = tensors.iter().map(|tensor| tensor.len).sum();
        let first = tensors.first().map_or("", |tensor| &tensor.name);
        let name = match tensors.len() {
            1 => first.to_string(),
            more => format!("{first} and {} more", more - 1),
        };
        let size_bytes = len as u64 * 4;
        let to_device = Mapping::new(gpu, "means from ranks", size_bytes, MapMode::Write)?;
        to_device.map(gpu, MapMode::Write)?;
        Ok(Self {
            name,
            tensors,
            len,
            from_device: Mapping::new(gpu, "values for ranks", size_bytes, MapMode::Read)?,
            to_device,
            values: Vec::with_capacity(len),
        })
    }

    fn copy(&self, encoder: &mut CommandEncoder, is_up: bool) {
        let mut offset = 0;
        for Exchanged { from, to, len, .. } in &self.tensors {
            let size = *len as u64 * 4;
            match is_up {
                true => {
                    let source = self.to_device.buffer();
                    encoder.copy_buffer_to_buffer(source, offset, &to.0, to.1, size);
                }
                false => {
                    let target = self.from_device.buffer();
                    encoder.copy_buffer_to_buffer(&from.0, from.1, target, offset, size);
                }
            }
            offset += size;
        }
    }
}

impl Program {
    /// All that the step does, in pieces of which each but the last is submitted: it is in the encoder that is given back.
    pub(super) fn pieces(&mut self, mut encoder: CommandEncoder) -> Result<CommandEncoder> {
        let gpu = Arc::clone(&self.gpu);
        // The list is not changed, but what it acts on is.
        let actions = std::mem::take(&mut self.exchanges.actions);
        (self.exchanges.given, self.exchanges.taken) = (0, 0);
        let mut copied = 0;
        for action in &actions {
            match action {
                Action::Run(range) => self.dispatch(&mut encoder, range.clone()),
                Action::Copy(bucket) => {
                    self.exchanges.buckets[*bucket].copy(&mut encoder, false);
                    let submission = self.submit_piece(&mut encoder)?;
                    let from_device = &mut self.exchanges.buckets[*bucket].from_device;
                    from_device.map_after(&gpu, MapMode::Read, &submission)?;
                    copied = bucket + 1;
                    self.exchanges.give(&gpu, copied, 0)?;
                }
                Action::Finish(buckets) => {
                    // The device goes on while the host waits.
                    self.submit_piece(&mut encoder)?;
                    let needed = buckets.iter().max().map_or(0, |last| last + 1);
                    self.exchanges.give(&gpu, copied, needed)?;
                    self.exchanges.take(&gpu, needed)?;
                    for &bucket in buckets {
                        self.exchanges.buckets[bucket].copy(&mut encoder, true);
                        self.exchanges.used.push(bucket);
                    }
                }
            }
        }
        self.exchanges.actions = actions;
        Ok(encoder)
    }

    fn submit_piece(&mut self, encoder: &mut CommandEncoder) -> Result<wgpu::SubmissionIndex> {
        let gpu = Arc::clone(&self.gpu);
        let next = gpu.device.create_command_encoder(&Default::default());
        let submission = gpu
            .queue
            .submit([std::mem::replace(encoder, next).finish()]);
        self.exchanges.submitted(&gpu, &submission)?;
        Ok(submission)
    }

    /// To be called with the last submission of a step.
    pub(super) fn pieces_submitted(&mut self, submission: &wgpu::SubmissionIndex) -> Result<()> {
        let gpu = Arc::clone(&self.gpu);
        self.exchanges.submitted(&gpu, submission)
    }

    /// What its steps have exchanged with the other ranks.
    pub fn exchange_times(&self) -> ExchangeTimes {
        self.exchanges.times
    }

    /// Numbers of each exchange of a step, in order: those of all ranks must be the same.
    pub(crate) fn exchange_lens(&self) -> Vec<usize> {
        self.exchanges.buckets.iter().map(|b| b.len).collect()
    }

    /// Refuses a program with exchanges where a step is not submitted by it.
    pub(super) fn refuse_exchanges(&self, op: &str) -> Result<()> {
        match self.exchanges.is_empty() {
            true => Ok(()),
            false => Err(Error::graph(
                op,
                "the graph exchanges values with other ranks: only a step of its own can do that",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(input: usize, output: usize, size_bytes: u64, [start, due]: [usize; 2]) -> Wanted {
        Wanted {
            input,
            output,
            size_bytes,
            start,
            due,
        }
    }

    /// Gradients are needed together, and given in the order in which the backward pass makes them.
    #[test]
    fn what_is_due_together_goes_in_buckets_by_its_start() {
        let half = 1 << 19;
        let all = [
            wanted(1, 11, half, [7, 9]),
            wanted(2, 12, half, [3, 9]),
            wanted(3, 13, half, [5, 9]),
            wanted(4, 14, 4, [8, 9]),
        ];
        let (buckets, actions) = schedule(&all, 12, 2);
        assert_eq!(buckets, [vec![1, 2], vec![0, 3]]);
        let expected = [
            Action::Run(0..5),
            Action::Copy(0),
            Action::Run(5..8),
            Action::Copy(1),
            Action::Run(8..9),
            Action::Finish(vec![0, 1]),
            Action::Run(9..12),
        ];
        assert_eq!(actions, expected);
        assert_eq!(schedule(&all, 12, 64).0.len(), 1);
    }

    /// A mean of a mean, or one that another is made of; some that began earlier end later.
    #[test]
    fn what_depends_on_another_begins_when_that_has_ended() {
        let all = [
            wanted(1, 5, 4, [2, 2]),
            wanted(5, 6, 4, [2, 2]),
            wanted(2, 7, 4, [2, 4]),
            wanted(3, 8, 4, [1, 4]),
            wanted(6, 9, 4, [2, 2 + 4]),
        ];
        let (buckets, actions) = schedule(&all, 6, 2);
        assert_eq!(buckets, [vec![0], vec![1], vec![3, 2], vec![4]]);
        let expected = [
            Action::Run(0..2),
            Action::Copy(0),
            Action::Finish(vec![0]),
            Action::Copy(1),
            Action::Finish(vec![1]),
            Action::Copy(2),
            Action::Copy(3),
            Action::Run(2..4),
            Action::Finish(vec![2]),
            Action::Run(4..6),
            Action::Finish(vec![3]),
        ];
        assert_eq!(actions, expected);
    }

    #[test]
    fn a_step_without_exchanges_is_one_run() {
        assert_eq!(schedule(&[], 5, 1), (Vec::new(), vec![Action::Run(0..5)]));
    }
}
