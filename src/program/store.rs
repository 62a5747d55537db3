//! Persistent tensors by name, shared by programs: parameters, running statistics, momenta.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wgpu::BufferUsages;

use crate::gpu::{Gpu, PipelineCache, read_back};
use crate::graph::op::Variants;
use crate::graph::{Init, Role};
use crate::passes::select_variant;
use crate::shape::Shape;
use crate::{Error, Result};

/// The states of one model on one device, and what its programs share: memory and pipelines.
#[derive(Debug)]
pub struct Store {
    gpu: Arc<Gpu>,
    seed: u64,
    entries: BTreeMap<String, Entry>,
    arenas: Vec<wgpu::Buffer>,
    pipelines: PipelineCache,
    variants: Variants,
}

#[derive(Debug)]
struct Entry {
    shape: Shape,
    role: Role,
    buffer: wgpu::Buffer,
}

impl Store {
    /// An empty store; `seed` decides all random first values.
    pub fn new(gpu: &Arc<Gpu>, seed: u64) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            seed,
            entries: BTreeMap::new(),
            arenas: Vec::new(),
            pipelines: PipelineCache::default(),
            variants: select_variant(gpu),
        }
    }

    /// An empty store whose programs share memory of computed tensors, and pipelines, with those of
    /// `other`: for several models whose steps are run in turn.
    pub fn sharing_memory_of(other: &Self, seed: u64) -> Self {
        Self {
            arenas: other.arenas.clone(),
            pipelines: other.pipelines.clone(),
            variants: other.variants,
            ..Self::new(&other.gpu, seed)
        }
    }

    /// The kernels of programs that are compiled for this store and do not say which they want: what suits
    /// the adapter, if [`Store::set_variants`] did not change it.
    pub fn variants(&self) -> Variants {
        self.variants
    }

    /// Kernels of programs that are compiled from now on.
    pub fn set_variants(&mut self, variants: Variants) {
        self.variants = variants;
    }

    /// The device that holds it.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Names, shapes and roles of all states, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, &Shape, Role)> {
        let entries = self.entries.iter();
        entries.map(|(name, e)| (name.as_str(), &e.shape, e.role))
    }

    /// Bytes of all states and of the memory that the programs share.
    pub fn size_bytes(&self) -> u64 {
        let states = self.entries.values().map(|e| &e.buffer);
        states.chain(&self.arenas).map(wgpu::Buffer::size).sum()
    }

    /// The values of a state, row-major. Waits for the GPU.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such state, or what the device reported.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        let len = entry.shape.len();
        let size = (len as u64 * 4).next_multiple_of(16);
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let copy = self.gpu.buffer("read state", size, usage)?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&entry.buffer, 0, &copy, 0, size);
        let submission = self.gpu.queue.submit([encoder.finish()]);
        read_back(&self.gpu, copy, submission, |bytes| {
            bytemuck::cast_slice::<u8, f32>(bytes)[..len].to_vec()
        })
    }

    /// The buffer of a state, row-major f32: to draw from on the same device, not to write to.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such state.
    pub fn buffer(&self, name: &str) -> Result<&wgpu::Buffer> {
        Ok(&self.entry(name)?.buffer)
    }

    /// Overwrites a state.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such state, [`Error::Shape`] if the number of values
    /// differs.
    pub fn write(&self, name: &str, values: &[f32]) -> Result<()> {
        let entry = self.entry(name)?;
        if values.len() != entry.shape.len() {
            let message = format!("{} values for {name} {}", values.len(), entry.shape);
            return Err(Error::shape("store", message));
        }
        let bytes = bytemuck::cast_slice(values);
        self.gpu.upload(&entry.buffer, bytes)
    }

    /// Memory for the computed tensors of a program: arena `k` of at least this size. Programs of
    /// one store share it, since the device runs their steps one after the other and nothing in an
    /// arena outlives a step.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub(super) fn arena(&mut self, k: usize, size_bytes: u64) -> Result<wgpu::Buffer> {
        if let Some(arena) = self.arenas.get(k)
            && arena.size() >= size_bytes
        {
            return Ok(arena.clone());
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let arena = self.gpu.buffer(&format!("arena {k}"), size_bytes, usage)?;
        self.arenas.truncate(k);
        self.arenas.push(arena.clone());
        Ok(arena)
    }

    /// Pipelines of all programs: a network's evaluation has most of its kernels from training.
    pub(super) fn pipelines(&mut self) -> &mut PipelineCache {
        &mut self.pipelines
    }

    /// The buffer of a state, made with its first value if it is new.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is there with another shape; what the device reported.
    pub(super) fn ensure(
        &mut self,
        name: &str,
        shape: &Shape,
        role: Role,
        init: &Init,
    ) -> Result<wgpu::Buffer> {
        if let Some(entry) = self.entries.get(name) {
            if entry.shape != *shape {
                let message = format!(
                    "{name} is {} in the store, {shape} in the graph",
                    entry.shape
                );
                return Err(Error::shape("store", message));
            }
            return Ok(entry.buffer.clone());
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer = self.gpu.buffer(name, shape.size_bytes(), usage)?;
        // Buffers begin as zeros.
        if !matches!(init, Init::Constant(0.0)) {
            let values = first_values(name, shape, init, self.seed);
            self.gpu.upload(&buffer, bytemuck::cast_slice(&values))?;
        }
        let entry = Entry {
            shape: shape.clone(),
            role,
            buffer: buffer.clone(),
        };
        self.entries.insert(name.to_string(), entry);
        Ok(buffer)
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        self.entries
            .get(name)
            .ok_or_else(|| Error::Config(format!("the model has no state called {name}")))
    }
}

fn first_values(name: &str, shape: &Shape, init: &Init, seed: u64) -> Vec<f32> {
    let len = shape.len();
    match init {
        Init::Constant(value) => vec![*value; len],
        Init::Values(values) => values.to_vec(),
        Init::Identity => {
            let n = shape.dims().last().copied().unwrap_or(1);
            let on_diagonal = |i: usize| (i / n) % n == i % n;
            (0..len)
                .map(|i| f32::from(u8::from(on_diagonal(i))))
                .collect()
        }
        Init::Uniform(bound) => {
            let mut rng = stream(name, seed);
            let draw = |_| (rng.random::<f32>() * 2.0 - 1.0) * bound;
            (0..len).map(draw).collect()
        }
        Init::Normal(std) => {
            let mut rng = stream(name, seed);
            // Box-Muller gives two numbers at once; in f64, so that libraries' last bits do not show.
            let mut draw = || {
                let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * f64::from(*std);
                let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
                [(radius * cos) as f32, (radius * sin) as f32]
            };
            let mut values: Vec<f32> = (0..len.div_ceil(2)).flat_map(|_| draw()).collect();
            values.truncate(len);
            values
        }
    }
}

/// Each tensor has its own stream, so that adding a layer changes no other's values.
fn stream(name: &str, seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ name_hash(name))
}

/// FNV-1a: the standard library's hashes may change between versions.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
