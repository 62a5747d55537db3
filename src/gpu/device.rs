//! The device with its queue, and errors that come back as values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wgpu::{DeviceType, Features};

use super::PipelineCache;
use super::adapter::{self, AdapterChoice};
use crate::{Error, Result};

/// How long a single wait for the GPU may last before it counts as lost. A software adapter takes
/// minutes for a step that a GPU does in a second.
const PATIENCE: Duration = Duration::from_secs(120);
const SOFTWARE_PATIENCE: Duration = Duration::from_secs(3600);

/// Bytes that may be on their way to the device outside of the step.
const UPLOAD_BYTES: u64 = 64 << 20;

/// One of a device's limits.
type Limit = fn(&wgpu::Limits) -> u32;

/// Limits that must be no less than wgpu's defaults.
const NEEDED_LIMITS: [(&str, Limit); 5] = [
    ("max_storage_buffers_per_shader_stage", |l| {
        l.max_storage_buffers_per_shader_stage
    }),
    ("max_compute_workgroup_storage_size", |l| {
        l.max_compute_workgroup_storage_size
    }),
    ("max_compute_invocations_per_workgroup", |l| {
        l.max_compute_invocations_per_workgroup
    }),
    ("max_compute_workgroup_size_x", |l| {
        l.max_compute_workgroup_size_x
    }),
    ("max_compute_workgroups_per_dimension", |l| {
        l.max_compute_workgroups_per_dimension
    }),
];

/// An opened device, decorr's own or a host program's. Cheap to share behind an [`Arc`].
#[derive(Debug)]
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    /// Errors that no scope caught: of others who use a device that [`Gpu::open`] made. None of a host's device.
    uncaught: Arc<Mutex<Option<Error>>>,
    /// Why the device is gone, once it is. Of a host's device nobody tells: there it shows in what no longer works.
    lost: Arc<OnceLock<String>>,
    /// Bytes given to [`Gpu::upload`] since they were last waited for.
    uploading: AtomicU64,
    pub(crate) pipelines: PipelineCache,
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
        let (_, adapter) = choose_adapter(choice)?;
        let mut descriptor = device_descriptor(&adapter);
        if default_limits {
            let offered = adapter.limits();
            descriptor.required_limits = wgpu::Limits::default().or_worse_values_from(&offered);
        }
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
                Error::Adapter(format!("{} cannot be opened: {e}", adapter.get_info().name))
            })?;
        let gpu = Self::on_device(&adapter, device, queue)?;
        let slot = Arc::clone(&gpu.uncaught);
        gpu.device.on_uncaptured_error(Arc::new(move |error| {
            slot.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(of_wgpu(error));
        }));
        let slot = Arc::clone(&gpu.lost);
        gpu.device.set_device_lost_callback(move |_, message| {
            let _ = slot.set(message);
        });
        Ok(Arc::new(gpu))
    }

    /// The device and queue of a host program (a game engine's, a window's), which goes on using them. `adapter` is the one
    /// that the device was requested from.
    ///
    /// The device must allow 8 storage buffers in a shader, workgroups of 256 with 16 KiB of memory and 65 535 of them in a
    /// row: wgpu's default limits do. A tensor is no larger than what the device binds. [`device_descriptor`] asks for all
    /// of that, and for what makes decorr faster. decorr's own calls are inside of error scopes: it sets no
    /// handler on the device and sees no error of the host's. [`crate::program::Program::record`] has an example.
    ///
    /// # Errors
    /// [`Error::Adapter`] with the first limit that is too low.
    pub fn from_wgpu(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::on_device(adapter, device, queue)?))
    }

    fn on_device(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Self> {
        let (info, limits) = (adapter.get_info(), device.limits());
        for (name, limit) in NEEDED_LIMITS {
            let (there, needed) = (limit(&limits), limit(&wgpu::Limits::default()));
            if there < needed {
                return Err(Error::Adapter(format!(
                    "the device on {} has {name} {there}, and decorr needs {needed}: ask for it in the device's \
                     required_limits, as decorr::gpu::device_descriptor(&adapter) does",
                    info.name
                )));
            }
        }
        Ok(Self {
            device,
            queue,
            info,
            limits,
            uncaught: Arc::default(),
            lost: Arc::default(),
            uploading: AtomicU64::new(0),
            pipelines: PipelineCache::default(),
        })
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Runs `work`, which calls wgpu, and gives the first error that it makes: this thread's calls in it, and nobody
    /// else's.
    ///
    /// # Errors
    /// That error; [`Error::DeviceLost`].
    pub(crate) fn watch<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, OutOfMemory, Validation].map(|f| self.device.push_error_scope(f));
        let result = work();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            let error = pollster::block_on(scope.pop());
            first = first.or(error);
        }
        self.check()?;
        match first {
            None => Ok(result),
            Some(error) => {
                // The loss is told in a poll only, and what is reported before is what follows from it.
                let _ = self.device.poll(wgpu::PollType::Poll);
                self.check()?;
                let error = of_wgpu(error);
                if let Error::DeviceLost(why) = &error {
                    let _ = self.lost.set(why.clone());
                }
                Err(error)
            }
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

    /// What wgpu knows of the adapter.
    pub fn adapter_info(&self) -> &wgpu::AdapterInfo {
        &self.info
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
    pub(crate) fn need_timestamps(&self) -> Result<()> {
        match self.has_timestamps() {
            true => Ok(()),
            false => Err(Error::Adapter(format!(
                "{} has no timestamp queries, so its kernels cannot be timed one by one (`decorr \
                 devices` lists what has them, `decorr bench` times whole steps)",
                self.name()
            ))),
        }
    }

    /// Whether the device is there, and, if decorr opened it, the first error of others who use it since the last call.
    ///
    /// wgpu tells the loss of a device to one callback, which is the host's on a device of [`Gpu::from_wgpu`]. Such a loss is
    /// known here only once a call of decorr's has failed for it (reading, uploading, compiling): ask your own callback.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; that error.
    pub fn check(&self) -> Result<()> {
        let mut slot = self.uncaught.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// [`Error::Limit`] beyond the device's limits, [`Error::OutOfMemory`] if there is no room, [`Error::Config`] if wgpu
    /// refuses this `usage`.
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
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        };
        let made = self.watch(|| self.device.create_buffer(&descriptor));
        made.map_err(|error| match error {
            Error::OutOfMemory(why) => Error::OutOfMemory(format!("{label}, {size} bytes: {why}")),
            Error::Bug(why) => Error::Config(format!("{label}, for {usage:?}: {why}")),
            other => other,
        })
    }

    /// True if there is room for this many bytes in buffers beside those that are there already.
    ///
    /// # Errors
    /// What the device reported, but for memory that is out.
    pub(crate) fn has_room(&self, size_bytes: u64) -> Result<bool> {
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
    pub(crate) fn poll(&self) -> Result<()> {
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
        self.watch(|| self.queue.write_buffer(buffer, offset, bytes))?;
        let len = bytes.len() as u64;
        if self.uploading.fetch_add(len, Ordering::Relaxed) + len > UPLOAD_BYTES {
            return self.finish_uploads();
        }
        self.check()
    }

    fn finish_uploads(&self) -> Result<()> {
        self.uploading.store(0, Ordering::Relaxed);
        let submission = self.watch(|| self.queue.submit([]))?;
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

/// The instance and the adapter that `choice` means.
///
/// # Errors
/// [`Error::Adapter`] if there is none, with what to install.
pub fn choose_adapter(choice: &AdapterChoice) -> Result<(wgpu::Instance, wgpu::Adapter)> {
    adapter::choose(choice)
}

/// What decorr asks of `adapter` for a device of its own: WebGPU's default limits and, where there is more, larger buffers and
/// bindings, timestamps and subgroups. No kernel depends on what the defaults do not have. A host adds its own wishes.
pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
    descriptor_of(&adapter.limits(), adapter.features())
}

/// Of an adapter with these limits and features.
fn descriptor_of(offered: &wgpu::Limits, features: Features) -> wgpu::DeviceDescriptor<'static> {
    let limits = wgpu::Limits {
        max_buffer_size: offered.max_buffer_size,
        max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
        ..wgpu::Limits::default()
    };
    let wanted = adapter::OPTIONAL_FEATURES
        .iter()
        .fold(Features::empty(), |all, (_, feature)| all | *feature);
    wgpu::DeviceDescriptor {
        label: Some("decorr"),
        required_features: features & wanted,
        // GL and old devices offer less than the default of limits that we do not use
        // (textures and the like): never ask for more than there is.
        required_limits: limits.or_worse_values_from(offered),
        ..Default::default()
    }
}

fn of_wgpu(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
        // Whatever could not be made was an error at once; what is invalid later was made of a device that is gone.
        wgpu::Error::Validation { description, .. } if description.contains("label is invalid") => {
            Error::DeviceLost(format!("it was lost or destroyed: {description}"))
        }
        wgpu::Error::Validation { description, .. } => {
            Error::bug(format!("wgpu refused a call: {description}"))
        }
        wgpu::Error::Internal { description, .. } => Error::DeviceLost(description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger buffers and bindings where the adapter has them, no more of anything than it has, and no feature that decorr
    /// does not use. (Software adapters bind no more than the default.)
    #[test]
    fn what_is_asked_for_is_what_the_adapter_has() {
        let default = wgpu::Limits::default();
        let offered = wgpu::Limits {
            max_buffer_size: 5 << 30,
            max_storage_buffer_binding_size: 3 << 30,
            max_texture_dimension_2d: 2048,
            max_compute_invocations_per_workgroup: 1024,
            ..default.clone()
        };
        let used = Features::TIMESTAMP_QUERY | Features::SUBGROUP;
        let asked = descriptor_of(&offered, used | Features::SHADER_F16);
        assert_eq!(asked.required_features, used);
        let wanted = wgpu::Limits {
            max_compute_invocations_per_workgroup: default.max_compute_invocations_per_workgroup,
            ..offered
        };
        assert_eq!(asked.required_limits, wanted);
        let asked = descriptor_of(&default, Features::empty());
        assert!(asked.required_features.is_empty());
        assert_eq!(asked.required_limits, default);
    }

    /// Drivers are told apart by name, then version; buffers by the limit that they are beyond.
    #[test]
    fn a_device_says_its_own_names_and_limits() {
        let gpu = Gpu::open_with_default_limits(&AdapterChoice::default()).unwrap();
        let (info, text) = (&gpu.info, gpu.describe());
        assert!(!info.driver.is_empty() && info.driver != info.driver_info);
        let wanted = format!("{} {})", info.driver, info.driver_info);
        assert!(
            text.starts_with(&info.name) && text.ends_with(&wanted),
            "{text}"
        );
        let most = gpu.limits().max_buffer_size;
        let error = gpu.buffer("big", most + 1, wgpu::BufferUsages::STORAGE);
        let text = error.unwrap_err().to_string();
        let size = (most + 1).next_multiple_of(16);
        let wanted = format!(
            "big needs a buffer of {size} bytes; {} allows {most}",
            info.name
        );
        assert!(text.contains(&wanted), "{text}");
    }

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
