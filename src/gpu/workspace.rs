//! What programs whose steps are run in turn share: memory of computed tensors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wgpu::BufferUsages;

use super::Gpu;
use crate::Result;

/// Memory for computed tensors. The device runs steps one after the other and nothing computed
/// outlives a step, so the programs of several models can do with one.
#[derive(Debug)]
pub struct Workspace {
    gpu: Arc<Gpu>,
    arenas: Mutex<Vec<wgpu::Buffer>>,
}

impl Workspace {
    /// An empty one. It grows with the programs that are compiled for it.
    pub fn new(gpu: &Arc<Gpu>) -> Arc<Self> {
        Arc::new(Self {
            gpu: Arc::clone(gpu),
            arenas: Mutex::default(),
        })
    }

    /// The device that it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Bytes of its memory for computed tensors.
    pub fn size_bytes(&self) -> u64 {
        self.arenas().iter().map(wgpu::Buffer::size).sum()
    }

    /// Writes `value` into all memory that steps compute in. No step may read there what it has not written, so what it
    /// gives is the same; tests hold it to that with NaN.
    ///
    /// # Errors
    /// What the device reported.
    pub fn fill(&self, value: f32) -> Result<()> {
        let some = vec![value; 1 << 18];
        for arena in self.arenas().iter() {
            for offset in (0..arena.size()).step_by(4 * some.len()) {
                let len = (arena.size() - offset).min(4 * some.len() as u64) as usize;
                self.gpu
                    .upload(arena, offset, &bytemuck::cast_slice(&some)[..len])?;
            }
        }
        Ok(())
    }

    /// Arena `k`, of at least this size. A program that needs a larger one leaves earlier programs theirs.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub(crate) fn arena(&self, k: usize, size_bytes: u64) -> Result<wgpu::Buffer> {
        let mut arenas = self.arenas();
        if let Some(arena) = arenas.get(k)
            && arena.size() >= size_bytes
        {
            return Ok(arena.clone());
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let arena = self.gpu.buffer(&format!("arena {k}"), size_bytes, usage)?;
        arenas.truncate(k);
        arenas.push(arena.clone());
        Ok(arena)
    }

    /// A panic elsewhere leaves them whole: they only grow.
    fn arenas(&self) -> MutexGuard<'_, Vec<wgpu::Buffer>> {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
