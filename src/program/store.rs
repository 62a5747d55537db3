//! Persistent tensors by name, shared by programs: parameters, running statistics, momenta.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wgpu::BufferUsages;

use super::plan::padded;
use crate::gpu::{Gpu, Workspace, read_back};
use crate::graph::op::Variants;
use crate::graph::{Init, Kind, Node, NodeList, Role, State};
use crate::passes::{MadeStates, select_variant};
use crate::ranks::{OneProcess, Ranks};
use crate::shape::Shape;
use crate::{Error, Result};

/// The states of one model on one device.
#[derive(Debug)]
pub struct Store {
    workspace: Arc<Workspace>,
    seed: u64,
    entries: BTreeMap<String, Entry>,
    /// Buffers of states made so far.
    buffers: usize,
    variants: Variants,
    ranks: Arc<dyn Ranks>,
}

#[derive(Debug)]
struct Entry {
    shape: Shape,
    role: Role,
    buffer: wgpu::Buffer,
    offset_bytes: u64,
    /// The number of its buffer, and how many states lie before it there.
    place: (usize, usize),
}

impl Store {
    /// An empty store with a [`Workspace`] of its own; `seed` decides all random first values.
    pub fn new(gpu: &Arc<Gpu>, seed: u64) -> Self {
        Self::in_workspace(&Workspace::new(gpu), seed)
    }

    /// An empty store whose programs share memory of computed tensors with those of the other stores in
    /// `workspace`: for several models whose steps are run in turn.
    pub fn in_workspace(workspace: &Arc<Workspace>, seed: u64) -> Self {
        Self {
            seed,
            entries: BTreeMap::new(),
            buffers: 0,
            variants: select_variant(workspace.gpu()),
            ranks: Arc::new(OneProcess::default()),
            workspace: Arc::clone(workspace),
        }
    }

    /// What its programs share.
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
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

    /// Those that its programs exchange values with; this process alone at first.
    pub fn ranks(&self) -> &Arc<dyn Ranks> {
        &self.ranks
    }

    /// Ranks of programs that are compiled from now on.
    pub fn set_ranks(&mut self, ranks: Arc<dyn Ranks>) {
        self.ranks = ranks;
    }

    /// The device that holds it.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.workspace.gpu()
    }

    /// Names, shapes and roles of all states, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, &Shape, Role)> {
        let entries = self.entries.iter();
        entries.map(|(name, e)| (name.as_str(), &e.shape, e.role))
    }

    /// Bytes of all states and of the memory that the programs share.
    pub fn size_bytes(&self) -> u64 {
        // Each buffer once, with the first of its states.
        let states = self.entries.values().filter(|e| e.place.1 == 0);
        states.map(|e| e.buffer.size()).sum::<u64>() + self.workspace.size_bytes()
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
        let gpu = self.gpu();
        let copy = gpu.buffer("read state", size, usage)?;
        let submission = gpu.watch(|| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&entry.buffer, entry.offset_bytes, &copy, 0, size);
            gpu.queue.submit([encoder.finish()])
        })?;
        read_back(gpu, copy, submission, |bytes| {
            bytemuck::cast_slice::<u8, f32>(bytes)[..len].to_vec()
        })
    }

    /// The buffer of a state, row-major f32: to draw from on the same device, not to write to.
    ///
    /// Small states that a step updates lie side by side in one buffer. Of these only the first begins where its buffer
    /// does; the buffer is longer than that state. To have a state in a shader in any case, make it an output
    /// ([`crate::graph::Graph::output`]) and use [`super::Program::output_on_device`].
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such state, or if it does not begin where its buffer does.
    pub fn buffer(&self, name: &str) -> Result<&wgpu::Buffer> {
        let entry = self.entry(name)?;
        match entry.offset_bytes {
            0 => Ok(&entry.buffer),
            _ => Err(Error::Config(format!("{name} has no buffer of its own"))),
        }
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
        self.gpu().upload(&entry.buffer, entry.offset_bytes, bytes)
    }

    /// Where the states are that there are.
    pub(super) fn made_states(&self) -> MadeStates {
        let entries = self.entries.iter();
        entries.map(|(name, e)| (name.clone(), e.place)).collect()
    }

    /// Makes states of `graph`, none of which may be there, side by side in one buffer, each from a multiple of
    /// `alignment` on.
    ///
    /// # Errors
    /// What the device reported.
    pub(super) fn make_run(
        &mut self,
        graph: &NodeList,
        states: &[usize],
        alignment: u64,
    ) -> Result<()> {
        let nodes = || states.iter().map(|&i| &graph.nodes()[i]);
        let aligned = |node: &Node| padded(node.shape.size_bytes()).next_multiple_of(alignment);
        let name = format!(
            "{} and {} more",
            nodes().next().map_or("", |n| &n.name),
            states.len() - 1
        );
        let buffer = self.state_buffer(&name, nodes().map(aligned).sum())?;
        let mut offset = 0;
        for (before, node) in nodes().enumerate() {
            if let Kind::State(state) = &node.kind {
                self.insert(node, state, (buffer.clone(), offset), before)?;
            }
            offset += aligned(node);
        }
        Ok(())
    }

    /// The buffer of a state and its offset in bytes there, made with its first value if it is new.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is there with another shape; what the device reported.
    pub(super) fn ensure(&mut self, node: &Node, state: &State) -> Result<(wgpu::Buffer, u64)> {
        if let Some(entry) = self.entries.get(&node.name) {
            if entry.shape != node.shape {
                let message = format!(
                    "{} is {} in the store, {} in the graph",
                    node.name, entry.shape, node.shape
                );
                return Err(Error::shape("store", message));
            }
            return Ok((entry.buffer.clone(), entry.offset_bytes));
        }
        let buffer = self.state_buffer(&node.name, node.shape.size_bytes())?;
        self.insert(node, state, (buffer.clone(), 0), 0)?;
        Ok((buffer, 0))
    }

    fn state_buffer(&mut self, name: &str, size_bytes: u64) -> Result<wgpu::Buffer> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        self.buffers += 1;
        self.gpu().buffer(name, size_bytes, usage)
    }

    /// Adds a state that lies in the newest buffer, at this offset, with so many `before` it.
    fn insert(
        &mut self,
        node: &Node,
        state: &State,
        (buffer, offset_bytes): (wgpu::Buffer, u64),
        before: usize,
    ) -> Result<()> {
        // Buffers begin as zeros.
        if !matches!(state.init, Init::Constant(0.0)) {
            let values = first_values(&node.name, &node.shape, &state.init, self.seed);
            let bytes = bytemuck::cast_slice(&values);
            self.gpu().upload(&buffer, offset_bytes, bytes)?;
        }
        let entry = Entry {
            shape: node.shape.clone(),
            role: state.role,
            buffer,
            offset_bytes,
            place: (self.buffers, before),
        };
        self.entries.insert(node.name.clone(), entry);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_values_are_as_many_as_there_is_room_for() {
        for len in [1, 2, 7, 4096] {
            let shape = Shape::from([len]);
            let of = |init: &Init, name: &str| first_values(name, &shape, init, 5);
            for init in [Init::Constant(2.0), Init::Uniform(0.5), Init::Normal(0.5)] {
                let values = of(&init, "a");
                assert_eq!(values.len(), len, "{init:?}");
                assert_eq!(values, of(&init, "a"), "{init:?}");
            }
            assert_eq!(of(&Init::Constant(2.0), "a"), vec![2.0; len]);
            for init in [Init::Uniform(0.5), Init::Normal(0.5)] {
                assert_ne!(of(&init, "a"), of(&init, "b"), "{init:?}");
            }
        }
        // Variances of a third of the bound's square, and of the square; four standard errors of 4096 numbers are room enough.
        let shape = Shape::from([4096]);
        for (init, wanted) in [(Init::Uniform(0.5), 0.25 / 3.0), (Init::Normal(0.5), 0.25)] {
            let values = first_values("a", &shape, &init, 5);
            let mean = values.iter().sum::<f32>() / 4096.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4096.0;
            assert!(mean.abs() < 0.04, "{init:?}: {mean}");
            assert!(
                (variance / wanted - 1.0).abs() < 0.09,
                "{init:?}: {variance}"
            );
        }
        // Of each of two blocks.
        let identity = first_values("a", &Shape::from([2, 2, 2]), &Init::Identity, 5);
        assert_eq!(identity, [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    }
}
