//! A graph compiled for a device: pipelines, memory and bind groups made once, replayed each step.

mod compile;
mod describe;
mod exchange;
mod on_device;
mod plan;
mod profile;
mod step;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use compile::CompileOptions;
pub use exchange::ExchangeTimes;
use exchange::Exchanges;
pub use on_device::{Input, OnDevice};
pub use profile::KernelTime;
pub use step::Outputs;
pub use store::Store;

use crate::gpu::{Gpu, Pipeline, Readback, Upload};
use crate::graph::Cost;
use crate::shape::Shape;

/// A compiled graph. One step is one encoder and one submit; no GPU object is made and nothing
/// waited for in it. (A step that exchanges values with other ranks is several, and waits for these.)
#[derive(Debug)]
pub struct Program {
    gpu: Arc<Gpu>,
    dispatches: Vec<Bound>,
    exchanges: Exchanges,
    inputs: BTreeMap<String, Placed>,
    input_buffer: wgpu::Buffer,
    outputs: Vec<OutputCopy>,
    upload: Upload,
    readback: Readback,
    finished: Vec<Outputs>,
    next_step: u64,
    memory: Memory,
    pipelines: usize,
}

/// One dispatch with all that it needs.
#[derive(Debug)]
struct Bound {
    label: String,
    op: &'static str,
    shape: String,
    entry: &'static str,
    cost: Cost,
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
    /// Whether wgpu puts a barrier before it: one of its buffers was used earlier in the step.
    waits: bool,
}

/// A host-written tensor in the input buffer.
#[derive(Clone, Copy, Debug)]
struct Placed {
    offset_bytes: u64,
    len: usize,
}

/// A tensor that is copied to the readback buffer after each step.
#[derive(Debug)]
struct OutputCopy {
    name: String,
    shape: Shape,
    len: usize,
    source: wgpu::Buffer,
    source_offset: u64,
    target_offset: u64,
}

/// Planned device memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Arenas of computed tensors.
    pub arenas: u64,
    /// The most that computed tensors need at one time: what arenas cannot be less than.
    pub live: u64,
    /// What computed tensors would need if none shared memory.
    pub unshared: u64,
    /// States that this program uses.
    pub states: u64,
    /// Inputs, kernel parameters, rings.
    pub other: u64,
}

impl Memory {
    /// All of it.
    pub fn peak(&self) -> u64 {
        self.arenas + self.states + self.other
    }
}

impl Program {
    /// Planned device memory.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Number of dispatches in a step.
    pub fn dispatch_count(&self) -> usize {
        self.dispatches.len()
    }

    /// Dispatches of a step that wait for a barrier. wgpu follows whole buffers and takes every
    /// storage buffer that a kernel may write to as written, so those are nearly all that share an
    /// arena, whether or not one reads what another wrote.
    pub fn barrier_count(&self) -> usize {
        self.dispatches.iter().filter(|d| d.waits).count()
    }

    /// Number of different pipelines.
    pub fn pipeline_count(&self) -> usize {
        self.pipelines
    }

    /// Operations and bytes of a step, every tensor counted once a use.
    pub fn cost(&self) -> Cost {
        self.dispatches.iter().fold(Cost::default(), |sum, d| Cost {
            flops: sum.flops + d.cost.flops,
            bytes: sum.bytes + d.cost.bytes,
        })
    }

    /// The device it runs on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}
