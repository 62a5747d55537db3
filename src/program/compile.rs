//! Graph to program: passes, memory, pipelines, bind groups.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use wgpu::BufferUsages;

use super::{Bound, Memory, OutputCopy, Placed, Program, Store};
use crate::gpu::PipelineCache;
use crate::gpu::{Gpu, RING_SLOTS, Readback, Upload, wgsl};
use crate::graph::op::{Dispatch, Lowered, Lowering, Slot, Variants};
use crate::graph::pointwise::Pointwise;
use crate::graph::{Cost, Graph, Kind};
use crate::passes::{
    self, InPlace, Lifetime, Passes, Request, in_place, liveness, memory_plan, old_values,
    optimise, storage_roots,
};
use crate::shape::Shape;
use crate::{Error, Result, ops};

/// How to compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompileOptions {
    /// Which passes run.
    pub passes: Passes,
    /// Kernel variants; the default is what suits the adapter.
    pub variants: Option<Variants>,
}

/// Bytes of a buffer that a tensor occupies.
#[derive(Clone, Debug)]
struct Storage {
    buffer: wgpu::Buffer,
    offset: u64,
    size: u64,
}

/// A node's dispatches, before memory is known.
struct Planned {
    node: usize,
    lowered: Lowered,
    /// Index of its first scratch request.
    scratch: usize,
}

impl Program {
    /// Compiles `graph` for the device of `store`, which gets the states that it lacks.
    ///
    /// # Errors
    /// [`Error::Limit`] and [`Error::OutOfMemory`] for sizes the device cannot hold,
    /// [`Error::Shader`] for bugs of this crate.
    pub fn compile(graph: &Graph, store: &mut Store, options: CompileOptions) -> Result<Self> {
        let gpu = Arc::clone(store.gpu());
        let variants = options
            .variants
            .unwrap_or_else(|| passes::select_variant(&gpu));
        let graph = old_values(&optimise(graph, options.passes)?)?;
        let max_binding = gpu.limits().max_storage_buffer_binding_size;
        for node in graph.nodes() {
            let size_bytes = padded(node.shape.size_bytes());
            check_binding(&node.name, &node.shape, size_bytes, max_binding)?;
        }
        let roots = storage_roots(&graph);
        let updates = if options.passes.in_place {
            in_place(&graph, &roots)
        } else {
            vec![InPlace::Copy; graph.assigns().len()]
        };

        // Where each root is stored; computed ones follow after planning.
        let mut storage: Vec<Option<Storage>> = vec![None; graph.nodes().len()];
        let mut memory = Memory::default();
        place_states(&graph, store, &mut storage, &mut memory)?;
        let (inputs, input_buffer) = place_inputs(&gpu, &graph, &mut storage)?;
        memory.other += input_buffer.size();
        let mut written_in_place: HashMap<usize, Option<usize>> = HashMap::new();
        for (&(state, value), update) in graph.assigns().iter().zip(&updates) {
            if let InPlace::Direct(reader) = update {
                let writer = roots[value.index()];
                storage[writer] = storage[state.index()].clone();
                written_in_place.insert(writer, *reader);
            }
        }

        let lifetimes = liveness(&graph, &roots);
        let mut requests = Vec::new();
        let mut request_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        for (i, lifetime) in lifetimes.iter().enumerate() {
            if let (Some(lifetime), None) = (lifetime, &storage[i]) {
                request_of[i] = Some(requests.len());
                requests.push(Request {
                    size_bytes: padded(graph.nodes()[i].shape.size_bytes()),
                    lifetime: *lifetime,
                });
            }
        }
        let mut planned = Vec::new();
        for (i, node) in graph.nodes().iter().enumerate() {
            let Kind::Op(op) = &node.kind else { continue };
            if op.is_view() {
                continue;
            }
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&x| graph.shape(x)).collect();
            let lowered = op.lower(&Lowering {
                inputs: &shapes,
                output: &node.shape,
                in_place: written_in_place.get(&i).copied().flatten(),
                variants,
            })?;
            let scratch = requests.len();
            for &len in &lowered.scratch {
                let size_bytes = padded(len as u64 * 4);
                check_binding(&node.name, "scratch memory", size_bytes, max_binding)?;
                requests.push(Request {
                    size_bytes,
                    lifetime: Lifetime { first: i, last: i },
                });
            }
            planned.push(Planned {
                node: i,
                lowered,
                scratch,
            });
        }

        let limits = gpu.limits();
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment).max(16);
        // An arena of the largest possible size may be more than a driver gives at once.
        let max_arena = limits.max_buffer_size.min(1 << 30);
        let plan = memory_plan(&requests, alignment, max_arena, options.passes.reuse_memory)?;
        let mut arenas = Vec::new();
        for (k, &size) in plan.arenas.iter().enumerate() {
            arenas.push(store.arena(k, size)?);
        }
        memory.arenas = plan.arenas.iter().sum();
        memory.unshared = requests
            .iter()
            .map(|r| r.size_bytes.next_multiple_of(alignment))
            .sum();
        let at = |request: usize| {
            let (arena, offset) = plan.places[request];
            Storage {
                buffer: arenas[arena].clone(),
                offset,
                size: requests[request].size_bytes,
            }
        };
        for (i, request) in request_of.iter().enumerate() {
            if let Some(request) = *request {
                storage[i] = Some(at(request));
            }
        }
        let of = |node: usize| {
            storage[roots[node]].clone().ok_or_else(|| {
                let name = &graph.nodes()[node].name;
                Error::shape("compile", format!("{name} has no storage: a bug"))
            })
        };

        let mut binder = Binder::new(&gpu);
        for planned in &planned {
            let node = &graph.nodes()[planned.node];
            let Kind::Op(op) = &node.kind else { continue };
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&x| graph.shape(x)).collect();
            let mut cost = op.cost(&shapes, &node.shape);
            for dispatch in &planned.lowered.dispatches {
                let mut bindings = Vec::new();
                for slot in &dispatch.bindings {
                    bindings.push(match *slot {
                        Slot::Input(k) => of(node.inputs[k].index())?,
                        Slot::Output => of(planned.node)?,
                        Slot::Scratch(k) => at(planned.scratch + k),
                    });
                }
                let shape = node.shape.to_string();
                binder.add(&node.name, op.name(), shape, cost, dispatch, &bindings)?;
                // The work of a node is counted with its first dispatch.
                cost = Cost::default();
            }
        }
        for (&(state, value), update) in graph.assigns().iter().zip(&updates) {
            if *update == InPlace::Copy {
                let node = graph.node(state);
                let copy = ops::pointwise::lower(
                    &Pointwise::identity(),
                    &Lowering {
                        inputs: &[&node.shape],
                        output: &node.shape,
                        in_place: None,
                        variants,
                    },
                )?;
                let cost = Cost {
                    flops: 0,
                    bytes: 2 * node.shape.size_bytes(),
                };
                let bindings = [of(value.index())?, of(state.index())?];
                for dispatch in &copy.dispatches {
                    let shape = node.shape.to_string();
                    binder.add(&node.name, "assign", shape, cost, dispatch, &bindings)?;
                }
            }
        }
        let pipelines = binder.pipelines.len();
        let (dispatches, params) = binder.finish()?;
        memory.other += params.size();

        let mut outputs = Vec::new();
        let mut target_offset = 0;
        for (i, (name, id)) in graph.outputs().iter().enumerate() {
            if graph.outputs()[..i].iter().any(|(other, _)| other == name) {
                let message = format!("two outputs are called {name}");
                return Err(Error::shape("compile", message));
            }
            let place = of(id.index())?;
            let len = graph.shape(*id).len();
            outputs.push(OutputCopy {
                name: name.clone(),
                len,
                source: place.buffer,
                source_offset: place.offset,
                target_offset,
            });
            target_offset += padded(len as u64 * 4);
        }
        let mut buffers = arenas;
        buffers.push(params);
        memory.other += RING_SLOTS * (input_buffer.size() + target_offset);
        Ok(Self {
            upload: Upload::new(&gpu, input_buffer.size())?,
            readback: Readback::new(&gpu, target_offset)?,
            gpu,
            dispatches,
            inputs,
            input_buffer,
            outputs,
            finished: Vec::new(),
            next_step: 0,
            memory,
            pipelines,
            _buffers: buffers,
        })
    }
}

/// Kernels may read and write whole vectors of 16 bytes at a tensor's end.
fn padded(size_bytes: u64) -> u64 {
    size_bytes.max(16).next_multiple_of(16)
}

fn place_states(
    graph: &Graph,
    store: &mut Store,
    storage: &mut [Option<Storage>],
    memory: &mut Memory,
) -> Result<()> {
    for (i, node) in graph.nodes().iter().enumerate() {
        if let Kind::State(state) = &node.kind {
            let buffer = store.ensure(&node.name, &node.shape, state.role, &state.init)?;
            memory.states += buffer.size();
            storage[i] = Some(Storage {
                size: padded(node.shape.size_bytes()),
                buffer,
                offset: 0,
            });
        }
    }
    Ok(())
}

/// All host-written tensors side by side in one buffer, so that one copy brings them.
fn place_inputs(
    gpu: &Gpu,
    graph: &Graph,
    storage: &mut [Option<Storage>],
) -> Result<(BTreeMap<String, Placed>, wgpu::Buffer)> {
    let alignment = u64::from(gpu.limits().min_storage_buffer_offset_alignment).max(16);
    let mut inputs = BTreeMap::new();
    let mut places = Vec::new();
    let mut end = 0u64;
    for (i, node) in graph.nodes().iter().enumerate() {
        if matches!(node.kind, Kind::Input) {
            let placed = Placed {
                offset_bytes: end,
                len: node.shape.len(),
            };
            if inputs.insert(node.name.clone(), placed).is_some() {
                let message = format!("two inputs are called {}", node.name);
                return Err(Error::shape("compile", message));
            }
            places.push((i, end, padded(node.shape.size_bytes())));
            end += padded(node.shape.size_bytes()).next_multiple_of(alignment);
        }
    }
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
    let buffer = gpu.buffer("inputs", end, usage)?;
    for (i, offset, size) in places {
        storage[i] = Some(Storage {
            buffer: buffer.clone(),
            offset,
            size,
        });
    }
    Ok((inputs, buffer))
}

/// Every tensor, and all scratch memory of a kernel, must fit one binding.
fn check_binding(name: &str, what: impl Display, size_bytes: u64, max_binding: u64) -> Result<()> {
    if size_bytes > max_binding {
        return Err(Error::Limit(format!(
            "tensor {name} {what} has {size_bytes} bytes; the device binds at most {max_binding} \
             at once. A smaller batch makes smaller tensors"
        )));
    }
    Ok(())
}

/// Collects dispatches and their parameters, then makes one parameter buffer for all.
struct Binder<'a> {
    gpu: &'a Gpu,
    pipelines: PipelineCache,
    pending: Vec<Pending>,
    params: Vec<u8>,
}

struct Pending {
    bound: BoundParts,
    bindings: Vec<Storage>,
    params_offset: u64,
    params_size: u64,
}

/// [`Bound`] without its bind group.
struct BoundParts {
    label: String,
    op: &'static str,
    shape: String,
    entry: &'static str,
    cost: Cost,
    pipeline: Arc<crate::gpu::Pipeline>,
    workgroups: [u32; 3],
}

impl<'a> Binder<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        Self {
            gpu,
            pipelines: PipelineCache::default(),
            pending: Vec::new(),
            params: Vec::new(),
        }
    }

    fn add(
        &mut self,
        name: &str,
        op: &'static str,
        shape: String,
        cost: Cost,
        dispatch: &Dispatch,
        bindings: &[Storage],
    ) -> Result<()> {
        let kernel = &dispatch.kernel;
        let source = wgsl::expand(kernel.name, &kernel.source, &kernel.constants)?;
        let label = format!("{name} ({})", kernel.name);
        let pipeline = self.pipelines.get(self.gpu, &label, source, kernel.entry)?;
        let alignment = self.gpu.limits().min_uniform_buffer_offset_alignment as usize;
        self.params
            .resize(self.params.len().next_multiple_of(alignment), 0);
        let offset = self.params.len();
        self.params
            .extend_from_slice(bytemuck::cast_slice(&dispatch.params));
        self.params
            .resize(self.params.len().next_multiple_of(16), 0);
        self.pending.push(Pending {
            bound: BoundParts {
                label,
                op,
                shape,
                entry: kernel.entry,
                cost,
                pipeline,
                workgroups: dispatch.workgroups,
            },
            bindings: bindings.to_vec(),
            params_offset: offset as u64,
            params_size: (self.params.len() - offset) as u64,
        });
        Ok(())
    }

    fn finish(self) -> Result<(Vec<Bound>, wgpu::Buffer)> {
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let params = self
            .gpu
            .buffer("parameters", self.params.len() as u64, usage)?;
        self.gpu.queue.write_buffer(&params, 0, &self.params);
        let mut dispatches = Vec::new();
        for pending in self.pending {
            let parts = pending.bound;
            let mut entries = vec![entry(
                0,
                &params,
                pending.params_offset,
                pending.params_size,
            )];
            for (k, storage) in (1..).zip(&pending.bindings) {
                entries.push(entry(k, &storage.buffer, storage.offset, storage.size));
            }
            let bind_group = self
                .gpu
                .device
                .create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some(&parts.label),
                    layout: &parts.pipeline.layout,
                    entries: &entries,
                });
            self.gpu.check().map_err(|error| match error {
                Error::Shader { message, .. } => Error::Shader {
                    name: parts.label.clone(),
                    message,
                },
                other => other,
            })?;
            dispatches.push(Bound {
                label: parts.label,
                op: parts.op,
                shape: parts.shape,
                entry: parts.entry,
                cost: parts.cost,
                pipeline: parts.pipeline,
                bind_group,
                workgroups: parts.workgroups,
            });
        }
        Ok((dispatches, params))
    }
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
