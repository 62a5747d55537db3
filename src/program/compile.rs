//! Plan to program: buffers, pipelines, bind groups.

use std::collections::HashSet;
use std::sync::Arc;

use wgpu::BufferUsages;

use super::exchange::{Exchanged, Exchanges, schedule};
use super::plan::{Plan, PlannedKernels, Region, padded};
use super::{Bound, Memory, OutputCopy, Program, Store};
use crate::gpu::{Gpu, Readback, Upload, wgsl};
use crate::graph::op::{Grid, Slot, Variants, fold_workgroups};
use crate::graph::{Cost, Graph, Kind};
use crate::passes::Passes;
use crate::{Error, Result};

/// How to compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompileOptions {
    /// Which passes run.
    pub passes: Passes,
    /// Kernel variants; the default is the store's, see [`Store::variants`].
    pub variants: Option<Variants>,
}

/// Bytes of a buffer that a tensor occupies.
#[derive(Clone, Debug)]
struct Storage {
    buffer: wgpu::Buffer,
    offset: u64,
    size: u64,
}

impl Program {
    /// Compiles `graph` for the device of `store`, which gets the states that it lacks.
    ///
    /// # Errors
    /// The graph's first error, see [`Graph::check`]; [`Error::Limit`] and [`Error::OutOfMemory`] for sizes the device
    /// cannot hold, [`Error::Shader`] for bugs of this crate.
    pub fn compile(graph: &Graph, store: &mut Store, options: CompileOptions) -> Result<Self> {
        let gpu = Arc::clone(store.gpu());
        let variants = options.variants.unwrap_or(store.variants());
        let plan = Plan::new(
            &*graph.checked()?,
            &gpu,
            options.passes,
            variants,
            &store.made_states(),
        )?;
        let (graph, memory) = (&plan.graph, plan.memory);
        let places = Places::new(&plan, store)?;

        let (dispatches, params) = bind(&gpu, &places)?;
        let mut pipelines: Vec<_> = dispatches
            .iter()
            .map(|d| Arc::as_ptr(&d.pipeline))
            .collect();
        pipelines.sort_unstable();
        pipelines.dedup();

        let mut outputs = Vec::new();
        let mut target_offset = 0;
        for (name, id) in graph.outputs() {
            let place = places.of(id.index())?;
            let len = graph.shape(*id).len();
            outputs.push(OutputCopy {
                name: name.clone(),
                shape: graph.shape(*id).clone(),
                len,
                source: place.buffer,
                source_offset: place.offset,
                target_offset,
            });
            target_offset += padded(len as u64 * 4);
        }
        let exchanges = exchanges(&gpu, &places, store, dispatches.len())?;
        let memory = Memory {
            other: memory.other + params.size() + exchanges.size_bytes(),
            ..memory
        };
        let input_buffer = places.inputs;
        Ok(Self {
            upload: Upload::new(&gpu, input_buffer.size())?,
            readback: Readback::new(&gpu, target_offset)?,
            gpu,
            dispatches,
            exchanges,
            inputs: plan.inputs,
            input_buffer,
            outputs,
            finished: Vec::new(),
            next_step: 0,
            memory,
            pipelines: pipelines.len(),
        })
    }
}

/// Where every tensor of a plan is.
struct Places<'a> {
    plan: &'a Plan,
    arenas: Vec<wgpu::Buffer>,
    inputs: wgpu::Buffer,
    /// By node; computed tensors only at the roots of views.
    storage: Vec<Option<Storage>>,
}

impl<'a> Places<'a> {
    fn new(plan: &'a Plan, store: &mut Store) -> Result<Self> {
        let graph = &plan.graph;
        let mut storage: Vec<Option<Storage>> = vec![None; graph.nodes().len()];
        for run in &plan.state_runs {
            store.make_run(graph, run, plan.alignment)?;
        }
        for (i, node) in graph.nodes().iter().enumerate() {
            if let Kind::State(state) = &node.kind {
                let (buffer, offset) = store.ensure(node, state)?;
                storage[i] = Some(Storage {
                    buffer,
                    offset,
                    size: padded(node.shape.size_bytes()),
                });
            }
        }
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let inputs = store.gpu().buffer("inputs", plan.inputs_bytes, usage)?;
        for (i, node) in graph.nodes().iter().enumerate() {
            if matches!(node.kind, Kind::Input) {
                storage[i] = Some(Storage {
                    buffer: inputs.clone(),
                    offset: plan.inputs[&node.name].offset_bytes,
                    size: padded(node.shape.size_bytes()),
                });
            }
        }
        for (&writer, &(state, _)) in &plan.written_in_place {
            storage[writer] = storage[state].clone();
        }
        let mut arenas = Vec::new();
        for (k, &size) in plan.layout.arenas.iter().enumerate() {
            arenas.push(store.workspace().arena(k, size)?);
        }
        let mut places = Self {
            plan,
            arenas,
            inputs,
            storage,
        };
        for (i, request) in plan.request_of.iter().enumerate() {
            if let Some((request, offset)) = *request {
                let whole = places.request(request);
                places.storage[i] = Some(Storage {
                    offset: whole.offset + offset,
                    size: padded(plan.graph.nodes()[i].shape.size_bytes()),
                    ..whole
                });
            }
        }
        Ok(places)
    }

    /// Of a request for memory in an arena.
    fn request(&self, request: usize) -> Storage {
        let (arena, offset) = self.plan.layout.places[request];
        Storage {
            buffer: self.arenas[arena].clone(),
            offset,
            size: self.plan.requests[request].size_bytes,
        }
    }

    fn slot(&self, planned: &PlannedKernels, slot: Slot) -> Result<Storage> {
        match slot {
            Slot::Input(k) => self.region(planned.inputs[k]),
            Slot::Output => self.region(planned.output),
            Slot::Scratch(k) => Ok(self.request(planned.scratch + k)),
        }
    }

    fn region(&self, region: Region) -> Result<Storage> {
        Ok(Storage {
            size: region.size_bytes,
            ..self.of(region.node)?
        })
    }

    /// Of a node.
    fn of(&self, node: usize) -> Result<Storage> {
        self.storage[self.plan.roots[node]].clone().ok_or_else(|| {
            let name = &self.plan.graph.nodes()[node].name;
            Error::bug(format!("{name} has no storage"))
        })
    }
}

/// What a step of so many dispatches exchanges with the other ranks.
fn exchanges(
    gpu: &Gpu,
    places: &Places<'_>,
    store: &Store,
    dispatches: usize,
) -> Result<Exchanges> {
    let ranks = Arc::clone(store.ranks());
    let wanted = &places.plan.wanted;
    let (buckets, actions) = schedule(wanted, dispatches, ranks.size());
    let place = |node: usize| {
        places
            .of(node)
            .map(|storage| (storage.buffer, storage.offset))
    };
    let exchanged = |&i: &usize| -> Result<Exchanged> {
        Ok(Exchanged {
            name: places.plan.graph.nodes()[wanted[i].input].name.clone(),
            from: place(wanted[i].input)?,
            to: place(wanted[i].output)?,
            len: (wanted[i].size_bytes / 4) as usize,
        })
    };
    let buckets = buckets.iter().map(|b| b.iter().map(exchanged).collect());
    Exchanges::new(gpu, ranks, buckets.collect::<Result<_>>()?, actions)
}

/// The dispatches of a plan, and the one buffer of their parameters.
fn bind(gpu: &Gpu, places: &Places<'_>) -> Result<(Vec<Bound>, wgpu::Buffer)> {
    let alignment = gpu.limits().min_uniform_buffer_offset_alignment as usize;
    let mut bytes: Vec<u8> = Vec::new();
    let mut kernels = Vec::new();
    for (planned, _, dispatch) in places.plan.dispatches() {
        let kernel = &dispatch.kernel;
        let label = format!("{} ({})", planned.name, kernel.name);
        let source = wgsl::expand(kernel.name, &kernel.source, &kernel.constants)?;
        let pipeline = gpu.pipelines.get(gpu, &label, source, kernel.entry)?;
        bytes.resize(bytes.len().next_multiple_of(alignment), 0);
        let offset = bytes.len();
        bytes.extend(pipeline.interface.pack(&label, dispatch.params.iter())?);
        kernels.push((label, pipeline, offset as u64..bytes.len() as u64));
    }
    let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let params = gpu.buffer("parameters", bytes.len() as u64, usage)?;
    gpu.upload(&params, 0, &bytes)?;

    let mut bound = Vec::new();
    #[allow(
        clippy::mutable_key_type,
        reason = "wgpu's buffers hash and compare by their identity"
    )]
    let mut used = HashSet::new();
    for ((planned, i, dispatch), (label, pipeline, at)) in places.plan.dispatches().zip(kernels) {
        let mut entries = vec![entry(0, &params, at.start, at.end - at.start)];
        let slots = dispatch.bindings.iter();
        let storage: Vec<Storage> = slots
            .map(|&slot| places.slot(planned, slot))
            .collect::<Result<_>>()?;
        for (k, storage) in (1..).zip(&storage) {
            entries.push(entry(k, &storage.buffer, storage.offset, storage.size));
        }
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &pipeline.layout,
            entries: &entries,
        };
        let made = gpu.watch(|| gpu.device.create_bind_group(&descriptor));
        let bind_group = made.map_err(|error| error.of_shader(&label))?;
        let waits = storage.iter().any(|s| used.contains(&s.buffer));
        used.extend(storage.into_iter().map(|s| s.buffer));
        let workgroups = match dispatch.grid {
            Grid::Invocations(count) => count.div_ceil(pipeline.interface.invocations),
            Grid::Workgroups(count) => count,
        };
        bound.push(Bound {
            label,
            op: planned.op,
            shape: planned.shape.clone(),
            entry: dispatch.kernel.entry,
            // The work of a node is counted with its first dispatch.
            cost: if i == 0 {
                planned.cost
            } else {
                Cost::default()
            },
            pipeline,
            bind_group,
            workgroups: fold_workgroups(workgroups),
            waits,
        });
    }
    Ok((bound, params))
}

fn entry(binding: u32, buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer,
            offset,
            size: wgpu::BufferSize::new(size),
        }),
    }
}
