//! The device with its queue, and errors that come back as values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wgpu::{DeviceType, Features};

use super::adapter::{self, AdapterChoice};
use crate::{Error, Result};

/// How long a single wait for the GPU may last before it counts as lost. A software adapter takes
/// minutes for a step that a GPU does in a second.
const PATIENCE: Duration = Duration::from_secs(120);
const SOFTWARE_PATIENCE: Duration = Duration::from_secs(3600);

/// Bytes that may be on their way to the device outside of the step.
const UPLOAD_BYTES: u64 = 64 << 20;

/// An opened device. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Gpu {
    instance: wgpu::Instance,
    adapter: wgpu::Adapter,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    first_error: Arc<Mutex<Option<Error>>>,
    /// Why the device is gone, once it is.
    lost: Arc<OnceLock<String>>,
    /// Bytes given to [`Gpu::upload`] since they were last waited for.
    uploading: AtomicU64,
}

/// What a device is to wgpu.
#[derive(Clone, Copy, Debug)]
pub struct Handles<'a> {
    /// That found the adapter.
    pub instance: &'a wgpu::Instance,
    /// That the device is of.
    pub adapter: &'a wgpu::Adapter,
    /// The device.
    pub device: &'a wgpu::Device,
    /// Its queue.
    pub queue: &'a wgpu::Queue,
}

/// How many GPU objects exist, by wgpu's internal counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Buffers alive.
    pub buffers: isize,
    /// Bind groups alive.
    pub bind_groups: isize,
    /// Compute pipelines alive.
    pub compute_pipelines: isize,
    /// Shader modules alive.
    pub shader_modules: isize,
    /// Bytes in buffers.
    pub buffer_bytes: isize,
}

impl Gpu {
    /// Opens the adapter that `choice` means.
    ///
    /// Asks for WebGPU's default limits and, where the adapter has more, for its larger buffers
    /// and bindings: no kernel depends on them, but larger batches fit.
    ///
    /// # Errors
    /// [`Error::Adapter`] if there is none or it refuses.
    pub fn open(choice: &AdapterChoice) -> Result<Arc<Self>> {
        Self::open_with(choice, false)
    }

    /// As [`Gpu::open`], but with WebGPU's default limits exactly.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with_default_limits(choice: &AdapterChoice) -> Result<Arc<Self>> {
        Self::open_with(choice, true)
    }

    fn open_with(choice: &AdapterChoice, default_limits: bool) -> Result<Arc<Self>> {
        let (instance, adapter) = adapter::choose(choice)?;
        let info = adapter.get_info();
        let offered = adapter.limits();
        let mut limits = wgpu::Limits::default();
        if !default_limits {
            limits.max_buffer_size = offered.max_buffer_size;
            limits.max_storage_buffer_binding_size = offered.max_storage_buffer_binding_size;
        }
        // GL and old devices offer less than the default of limits that we do not use
        // (textures and the like): never ask for more than there is.
        let limits = limits.or_worse_values_from(&offered);
        let wanted = adapter::OPTIONAL_FEATURES
            .iter()
            .fold(Features::empty(), |all, (_, feature)| all | *feature);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("decorr"),
            required_features: adapter.features() & wanted,
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| Error::Adapter(format!("{} cannot be opened: {e}", info.name)))?;
        let first_error = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&first_error);
        device.on_uncaptured_error(Arc::new(move |error| remember(&slot, from_wgpu(error))));
        let lost = Arc::new(OnceLock::new());
        let slot = Arc::clone(&lost);
        device.set_device_lost_callback(move |_, message| {
            let _ = slot.set(message);
        });
        Ok(Arc::new(Self {
            instance,
            adapter,
            device,
            queue,
            info,
            limits,
            first_error,
            lost,
            uploading: AtomicU64::new(0),
        }))
    }

    /// wgpu's own objects, for others who draw on this device: a window's toolkit. Errors of what they do
    /// come up in [`Gpu::check`] too.
    pub fn wgpu(&self) -> Handles<'_> {
        Handles {
            instance: &self.instance,
            adapter: &self.adapter,
            device: &self.device,
            queue: &self.queue,
        }
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Name, backend and driver in one line, for logs and benchmarks.
    pub fn describe(&self) -> String {
        let info = &self.info;
        format!(
            "{} ({}, {} {})",
            info.name, info.backend, info.driver, info.driver_info
        )
    }

    /// True for adapters that run on the CPU (lavapipe, `SwiftShader`, WARP).
    pub fn is_software(&self) -> bool {
        self.info.device_type == DeviceType::Cpu
    }

    /// True if kernels may use subgroups and these always have 8 invocations.
    pub fn has_subgroups_of_8(&self) -> bool {
        self.device.features().contains(Features::SUBGROUP)
            && self.info.subgroup_min_size == 8
            && self.info.subgroup_max_size == 8
    }

    /// The limits that hold for this device.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// True if kernels can be timed on the GPU.
    pub fn has_timestamps(&self) -> bool {
        self.device.features().contains(Features::TIMESTAMP_QUERY)
    }

    /// Refuses adapters on which kernels cannot be timed.
    ///
    /// # Errors
    /// [`Error::Adapter`] with what does without.
    pub fn need_timestamps(&self) -> Result<()> {
        match self.has_timestamps() {
            true => Ok(()),
            false => Err(Error::Adapter(format!(
                "{} has no timestamp queries, so its kernels cannot be timed one by one (`decorr \
                 devices` lists what has them, `decorr bench` times whole steps)",
                self.name()
            ))),
        }
    }

    /// The first error that wgpu reported since the last call, if any. The driver reports
    /// out-of-memory, validation errors and loss of the device this way.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<()> {
        let mut slot = self
            .first_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let error = slot.take();
        if error.is_some() {
            // The loss is told in a poll only, and what is reported before is what follows from it.
            let _ = self.device.poll(wgpu::PollType::Poll);
        }
        match (self.lost.get(), error) {
            (Some(message), _) => Err(Error::DeviceLost(format!("{}: {message}", self.name()))),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }

    /// A buffer of `size_bytes`, rounded up to 16.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond the device's limits, [`Error::OutOfMemory`] if there is no room.
    pub fn buffer(
        &self,
        label: &str,
        size_bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let size = size_bytes.max(16).next_multiple_of(16);
        if size > self.limits.max_buffer_size {
            return Err(Error::Limit(format!(
                "{label} needs a buffer of {size} bytes; {} allows {}",
                self.name(),
                self.limits.max_buffer_size
            )));
        }
        self.check()?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        self.check().map_err(|error| match error {
            Error::OutOfMemory(why) => Error::OutOfMemory(format!("{label}, {size} bytes: {why}")),
            other => other,
        })?;
        Ok(buffer)
    }

    /// True if there is room for this many bytes in buffers beside those that are there already.
    ///
    /// # Errors
    /// What the device reported, but for memory that is out.
    pub fn has_room(&self, size_bytes: u64) -> Result<bool> {
        let most = self.limits.max_buffer_size.min(1 << 30);
        let mut made = Vec::new();
        let mut left = size_bytes;
        while left > 0 {
            let size = left.min(most);
            match self.buffer("probe", size, wgpu::BufferUsages::STORAGE) {
                Ok(buffer) => made.push(buffer),
                Err(Error::OutOfMemory(_)) => break,
                Err(other) => return Err(other),
            }
            left -= size;
        }
        drop(made);
        self.poll()?;
        Ok(left == 0)
    }

    /// Lets callbacks of finished work run, without waiting.
    ///
    /// # Errors
    /// What the device reported.
    pub fn poll(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Poll);
        self.check()?;
        polled
            .map(|_| ())
            .map_err(|e| Error::DeviceLost(e.to_string()))
    }

    /// Waits until `submission` is done.
    ///
    /// # Errors
    /// What the device reported; [`Error::DeviceLost`] if it does not answer within two minutes.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let patience = match self.is_software() {
            true => SOFTWARE_PATIENCE,
            false => PATIENCE,
        };
        let polled = self.device.poll(wgpu::PollType::Wait {
            submission_index: submission,
            timeout: Some(patience),
        });
        self.check()?;
        polled.map(|_| ()).map_err(|e| {
            Error::DeviceLost(format!(
                "{} gave no answer in {patience:?}: {e}",
                self.name()
            ))
        })
    }

    /// Writes into a buffer before the next submission. What passes through the host on the way is
    /// given back every [`UPLOAD_BYTES`], so that a network does not take twice its memory to begin.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn upload(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        self.queue.write_buffer(buffer, offset, bytes);
        let len = bytes.len() as u64;
        if self.uploading.fetch_add(len, Ordering::Relaxed) + len > UPLOAD_BYTES {
            return self.finish_uploads();
        }
        self.check()
    }

    fn finish_uploads(&self) -> Result<()> {
        self.uploading.store(0, Ordering::Relaxed);
        let submission = self.queue.submit([]);
        self.wait(Some(submission))
    }

    /// Bytes of device memory in use as the driver's allocator reports them, after all uploads;
    /// `None` where it does not (Metal, GL).
    ///
    /// # Errors
    /// What the device reported.
    pub fn allocated_bytes(&self) -> Result<Option<u64>> {
        self.finish_uploads()?;
        let report = self.device.generate_allocator_report();
        Ok(report.map(|report| report.total_allocated_bytes))
    }

    /// How many GPU objects exist now.
    pub fn counters(&self) -> Counters {
        let hal = self.device.get_internal_counters().hal;
        Counters {
            buffers: hal.buffers.read(),
            bind_groups: hal.bind_groups.read(),
            compute_pipelines: hal.compute_pipelines.read(),
            shader_modules: hal.shader_modules.read(),
            buffer_bytes: hal.buffer_memory.read(),
        }
    }
}

fn remember(slot: &Mutex<Option<Error>>, error: Error) {
    slot.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(error);
}

fn from_wgpu(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
        wgpu::Error::Validation { description, .. } => Error::Shader {
            name: "validation".into(),
            message: description,
        },
        wgpu::Error::Internal { description, .. } => Error::DeviceLost(description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is asked of it then, and however wgpu words that.
    #[test]
    fn a_lost_device_is_said_to_be_lost() {
        let gpu = Gpu::open(&AdapterChoice::default()).unwrap();
        gpu.device.destroy();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let made = gpu.buffer("lost", 1 << 20, usage);
        let error = match made {
            Ok(buffer) => gpu
                .upload(&buffer, 0, &[0; 64])
                .and_then(|()| gpu.wait(None)),
            Err(error) => Err(error),
        };
        let error = error.unwrap_err();
        assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    }
}
