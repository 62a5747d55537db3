//! The GPU as bytes and WGSL: adapters, the device, WGSL expansion, pipelines, rings of mapped
//! buffers, memory that programs share. Knows nothing of tensors.

mod adapter;
mod device;
mod pipelines;
mod ring;
pub mod wgsl;
mod workspace;

pub use adapter::{AdapterChoice, AdapterSummary, list_adapters};
pub use device::{Counters, Gpu, choose_adapter, device_descriptor};
pub(crate) use pipelines::{Pipeline, PipelineCache};
pub(crate) use ring::{Mapping, RING_SLOTS, read_back};
pub(crate) use ring::{Readback, Upload};
pub use workspace::Workspace;
