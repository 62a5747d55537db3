//! Rings of mapped buffers: batches go up and losses come back without a wait in the step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use wgpu::{BufferUsages, MapMode};

use super::Gpu;
use crate::{Error, Result};

/// Steps that may be under way at once.
pub(crate) const RING_SLOTS: u64 = 4;

const PENDING: u8 = 0;
const READY: u8 = 1;
const FAILED: u8 = 2;

/// A buffer whose mapping is asked for and reported by a flag.
#[derive(Debug)]
pub(crate) struct Mapping {
    buffer: wgpu::Buffer,
    state: Arc<AtomicU8>,
    submission: Option<wgpu::SubmissionIndex>,
}

impl Mapping {
    /// A buffer that is not mapped.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub(crate) fn new(gpu: &Gpu, label: &str, size_bytes: u64, mode: MapMode) -> Result<Self> {
        let usage = match mode {
            MapMode::Read => BufferUsages::MAP_READ | BufferUsages::COPY_DST,
            MapMode::Write => BufferUsages::MAP_WRITE | BufferUsages::COPY_SRC,
        };
        Ok(Self {
            buffer: gpu.buffer(label, size_bytes, usage)?,
            state: Arc::default(),
            submission: None,
        })
    }

    /// The buffer.
    pub(crate) fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Asks for it to be mapped once `submission`, the last that uses it, is done.
    pub(crate) fn map_after(
        &mut self,
        gpu: &Gpu,
        mode: MapMode,
        submission: &wgpu::SubmissionIndex,
    ) -> Result<()> {
        self.map(gpu, mode)?;
        self.submission = Some(submission.clone());
        Ok(())
    }

    /// Writes `bytes` to the start of the mapped buffer; unmaps.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        let view = self.buffer.get_mapped_range_mut(..bytes.len() as u64);
        let mut view = view.map_err(|e| Error::DeviceLost(format!("upload buffer: {e}")))?;
        view.slice(..).copy_from_slice(bytes);
        drop(view);
        self.buffer.unmap();
        Ok(())
    }

    pub(crate) fn map(&self, gpu: &Gpu, mode: MapMode) -> Result<()> {
        self.state.store(PENDING, Ordering::Release);
        let state = Arc::clone(&self.state);
        let done = move |result: Result<(), wgpu::BufferAsyncError>| {
            let reached = if result.is_ok() { READY } else { FAILED };
            state.store(reached, Ordering::Release);
        };
        gpu.watch(|| self.buffer.map_async(mode, .., done))
    }

    /// The mapped bytes, given to `read`; unmaps.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let result = {
            let view = self.buffer.get_mapped_range(..);
            let view = view.map_err(|e| Error::DeviceLost(format!("reading back: {e}")))?;
            read(&view)
        };
        self.buffer.unmap();
        Ok(result)
    }

    /// True once mapped; waits for it if `wait`.
    pub(crate) fn ready(&mut self, gpu: &Gpu, wait: bool) -> Result<bool> {
        if self.state.load(Ordering::Acquire) == PENDING {
            if wait {
                gpu.wait(self.submission.take())?;
                self.wait_for_callback(gpu)?;
            } else {
                gpu.poll()?;
            }
        }
        match self.state.load(Ordering::Acquire) {
            READY => Ok(true),
            PENDING if !wait => Ok(false),
            _ => {
                gpu.check()?;
                Err(Error::DeviceLost("a buffer could not be mapped".into()))
            }
        }
    }

    /// The work is done, but the callback may still be running: whichever thread polls the device
    /// runs those of all.
    fn wait_for_callback(&self, gpu: &Gpu) -> Result<()> {
        let patience = Instant::now() + Duration::from_secs(10);
        while self.state.load(Ordering::Acquire) == PENDING && Instant::now() < patience {
            std::thread::yield_now();
            gpu.poll()?;
        }
        Ok(())
    }
}

/// The bytes of `buffer` (usage `MAP_READ`) once `submission` is done, given to `read`.
///
/// # Errors
/// What the device reported.
pub(crate) fn read_back<T>(
    gpu: &Gpu,
    buffer: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<T> {
    let mut slot = Mapping {
        buffer,
        state: Arc::default(),
        submission: Some(submission),
    };
    slot.map(gpu, MapMode::Read)?;
    slot.ready(gpu, true)?;
    slot.read(read)
}

/// Buffers that the host fills while the GPU reads others.
#[derive(Debug)]
pub(crate) struct Upload {
    slots: Vec<Mapping>,
    next: usize,
    size_bytes: u64,
}

impl Upload {
    /// A ring of buffers of `size_bytes` each.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub(crate) fn new(gpu: &Gpu, size_bytes: u64) -> Result<Self> {
        let mut slots = Vec::new();
        for _ in 0..RING_SLOTS {
            let slot = Mapping::new(gpu, "upload", size_bytes, MapMode::Write)?;
            slot.map(gpu, MapMode::Write)?;
            slots.push(slot);
        }
        Ok(Self {
            slots,
            next: 0,
            size_bytes,
        })
    }

    /// Writes `parts` (offset, bytes; the last word is filled up with zeros) into the next free buffer, waiting only if
    /// the GPU is a whole ring behind, and records the copy of all of it to the start of `target`.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn write(
        &mut self,
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
        target: &wgpu::Buffer,
        parts: &[(u64, &[u8])],
    ) -> Result<()> {
        let slot = &mut self.slots[self.next];
        slot.ready(gpu, true)?;
        for (offset, bytes) in parts {
            // Whole words are mapped.
            let range = *offset..*offset + bytes.len().next_multiple_of(4) as u64;
            let mut view = slot
                .buffer
                .get_mapped_range_mut(range)
                .map_err(|e| Error::DeviceLost(format!("upload buffer: {e}")))?;
            view.slice(..bytes.len()).copy_from_slice(bytes);
            view.slice(bytes.len()..).fill(0);
        }
        slot.buffer.unmap();
        let size = self.size_bytes.next_multiple_of(4);
        encoder.copy_buffer_to_buffer(&slot.buffer, 0, target, 0, size);
        Ok(())
    }

    /// To be called once the encoder of the last [`Upload::write`] is submitted.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn submitted(
        &mut self,
        gpu: &Gpu,
        submission: &wgpu::SubmissionIndex,
    ) -> Result<()> {
        self.slots[self.next].map_after(gpu, MapMode::Write, submission)?;
        self.next = (self.next + 1) % self.slots.len();
        Ok(())
    }
}

/// Buffers that results are copied to and read from some steps later.
#[derive(Debug)]
pub(crate) struct Readback {
    free: Vec<Mapping>,
    under_way: VecDeque<(u64, Mapping)>,
}

impl Readback {
    /// A ring of buffers of `size_bytes` each.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub(crate) fn new(gpu: &Gpu, size_bytes: u64) -> Result<Self> {
        let mut free = Vec::new();
        for _ in 0..RING_SLOTS {
            free.push(Mapping::new(gpu, "readback", size_bytes, MapMode::Read)?);
        }
        Ok(Self {
            free,
            under_way: VecDeque::with_capacity(RING_SLOTS as usize),
        })
    }

    /// The step of the oldest results that are under way.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.under_way.front().map(|(step, _)| *step)
    }

    /// True if [`Readback::target`] needs no wait.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The buffer to copy the next results to. Call only where [`Readback::has_room`].
    pub(crate) fn target(&self) -> Option<&wgpu::Buffer> {
        self.free.last().map(|slot| &slot.buffer)
    }

    /// To be called once the copy to [`Readback::target`] is submitted.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn submitted(
        &mut self,
        gpu: &Gpu,
        step: u64,
        submission: &wgpu::SubmissionIndex,
    ) -> Result<()> {
        if let Some(mut slot) = self.free.pop() {
            slot.map_after(gpu, MapMode::Read, submission)?;
            self.under_way.push_back((step, slot));
        }
        Ok(())
    }

    /// The oldest results, given to `read` as floats with the number of their step; `None` if
    /// none are under way or, unless `wait`, none are there yet.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn take<T>(
        &mut self,
        gpu: &Gpu,
        wait: bool,
        read: impl FnOnce(u64, &[f32]) -> T,
    ) -> Result<Option<T>> {
        let Some((_, slot)) = self.under_way.front_mut() else {
            return Ok(None);
        };
        if !slot.ready(gpu, wait)? {
            return Ok(None);
        }
        let Some((step, slot)) = self.under_way.pop_front() else {
            return Ok(None);
        };
        let result = slot.read(|bytes| read(step, bytemuck::cast_slice(bytes)))?;
        self.free.push(slot);
        Ok(Some(result))
    }
}
