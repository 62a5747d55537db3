//! Graph to plan: passes, kernels chosen, memory laid out. Makes nothing on the device.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use super::{CompileOptions, Memory, Placed, Program};
use crate::gpu::{Gpu, RING_SLOTS};
use crate::graph::op::{Lowered, Lowering, Variants};
use crate::graph::{Graph, Kind};
use crate::passes::{
    self, InPlace, Lifetime, MemoryPlan, Passes, Request, in_place, liveness, memory_plan,
    old_values, optimise, storage_roots,
};
use crate::shape::Shape;
use crate::{Error, Result};

/// A graph after all passes, and where its tensors will lie.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) graph: Graph,
    pub(super) variants: Variants,
    /// The node whose memory each node has: another one's for views.
    pub(super) roots: Vec<usize>,
    /// How each assignment is done.
    pub(super) updates: Vec<InPlace>,
    /// Nodes that write a state's memory: the state, and the input that reads it in the same kernel.
    pub(super) written_in_place: HashMap<usize, (usize, Option<usize>)>,
    pub(super) kernels: Vec<PlannedKernels>,
    pub(super) requests: Vec<Request>,
    /// By node; `None` for what is in no arena.
    pub(super) request_of: Vec<Option<usize>>,
    pub(super) layout: MemoryPlan,
    /// All host-written tensors lie side by side in one buffer, so that one copy brings them.
    pub(super) inputs: BTreeMap<String, Placed>,
    pub(super) inputs_bytes: u64,
    /// Without kernel parameters, which are few.
    pub(super) memory: Memory,
}

/// A node's dispatches, before memory is known.
#[derive(Debug)]
pub(super) struct PlannedKernels {
    pub(super) node: usize,
    pub(super) lowered: Lowered,
    /// Index of its first scratch request.
    pub(super) scratch: usize,
}

impl Program {
    /// The memory that `graph` would take, but for kernel parameters. Makes nothing on the device.
    ///
    /// # Errors
    /// [`Error::Limit`] for tensors that the device cannot bind.
    pub fn plan(graph: &Graph, gpu: &Gpu, options: CompileOptions) -> Result<Memory> {
        let own = || passes::select_variant(gpu);
        let variants = options.variants.unwrap_or_else(own);
        Ok(Plan::new(graph, gpu, options.passes, variants)?.memory)
    }
}

impl Plan {
    pub(super) fn new(
        graph: &Graph,
        gpu: &Gpu,
        passes: Passes,
        variants: Variants,
    ) -> Result<Self> {
        let graph = old_values(&optimise(graph, passes)?)?;
        let limits = gpu.limits();
        let max_binding = limits.max_storage_buffer_binding_size;
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment).max(16);
        for node in graph.nodes() {
            let size_bytes = padded(node.shape.size_bytes());
            check_binding(&node.name, &node.shape, size_bytes, max_binding)?;
        }
        let roots = storage_roots(&graph);
        let updates = if passes.in_place {
            in_place(&graph, &roots)
        } else {
            vec![InPlace::Copy; graph.assigns().len()]
        };
        let mut written_in_place = HashMap::new();
        for (&(state, value), update) in graph.assigns().iter().zip(&updates) {
            if let InPlace::Direct(reader) = update {
                written_in_place.insert(roots[value.index()], (state.index(), *reader));
            }
        }
        let (inputs, inputs_bytes) = place_inputs(&graph, alignment)?;

        let lifetimes = liveness(&graph, &roots);
        let mut requests = Vec::new();
        let mut request_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        for (i, node) in graph.nodes().iter().enumerate() {
            let is_computed =
                matches!(node.kind, Kind::Op(_)) && !written_in_place.contains_key(&i);
            if let (Some(lifetime), true) = (lifetimes[i], is_computed) {
                request_of[i] = Some(requests.len());
                requests.push(Request {
                    size_bytes: padded(node.shape.size_bytes()),
                    lifetime,
                });
            }
        }
        let mut kernels = Vec::new();
        for (i, node) in graph.nodes().iter().enumerate() {
            let Kind::Op(op) = &node.kind else { continue };
            if op.is_view() {
                continue;
            }
            let shapes: Vec<&Shape> = node.inputs.iter().map(|&x| graph.shape(x)).collect();
            let lowered = op.lower(&Lowering {
                inputs: &shapes,
                output: &node.shape,
                in_place: written_in_place.get(&i).and_then(|(_, reader)| *reader),
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
            kernels.push(PlannedKernels {
                node: i,
                lowered,
                scratch,
            });
        }

        // An arena of the largest possible size may be more than a driver gives at once.
        let max_arena = limits.max_buffer_size.min(1 << 30);
        let layout = memory_plan(&requests, alignment, max_arena, passes.reuse_memory)?;
        let unshared = requests
            .iter()
            .map(|r| r.size_bytes.next_multiple_of(alignment));
        let outputs_bytes = outputs_bytes(&graph)?;
        let memory = Memory {
            arenas: layout.arenas.iter().sum(),
            unshared: unshared.sum(),
            states: states_bytes(&graph),
            other: inputs_bytes + RING_SLOTS * (inputs_bytes + outputs_bytes),
        };
        Ok(Self {
            graph,
            variants,
            roots,
            updates,
            written_in_place,
            kernels,
            requests,
            request_of,
            layout,
            inputs,
            inputs_bytes,
            memory,
        })
    }
}

/// Kernels may read and write whole vectors of 16 bytes at a tensor's end.
pub(super) fn padded(size_bytes: u64) -> u64 {
    size_bytes.max(16).next_multiple_of(16)
}

fn states_bytes(graph: &Graph) -> u64 {
    let states = graph.nodes().iter();
    let states = states.filter(|n| matches!(n.kind, Kind::State(_)));
    states.map(|n| padded(n.shape.size_bytes())).sum()
}

fn outputs_bytes(graph: &Graph) -> Result<u64> {
    let mut sum = 0;
    for (i, (name, id)) in graph.outputs().iter().enumerate() {
        if graph.outputs()[..i].iter().any(|(other, _)| other == name) {
            let message = format!("two outputs are called {name}");
            return Err(Error::shape("compile", message));
        }
        sum += padded(graph.shape(*id).size_bytes());
    }
    Ok(sum)
}

fn place_inputs(graph: &Graph, alignment: u64) -> Result<(BTreeMap<String, Placed>, u64)> {
    let mut inputs = BTreeMap::new();
    let mut end = 0u64;
    for node in graph.nodes() {
        if matches!(node.kind, Kind::Input) {
            let placed = Placed {
                offset_bytes: end,
                len: node.shape.len(),
            };
            if inputs.insert(node.name.clone(), placed).is_some() {
                let message = format!("two inputs are called {}", node.name);
                return Err(Error::shape("compile", message));
            }
            end += padded(node.shape.size_bytes()).next_multiple_of(alignment);
        }
    }
    Ok((inputs, end))
}

/// Every tensor, and all scratch memory of a kernel, must fit one binding.
fn check_binding(name: &str, what: impl Display, size_bytes: u64, max_binding: u64) -> Result<()> {
    if size_bytes > max_binding {
        return Err(Error::Limit(format!(
            "tensor {name} {what} has {size_bytes} bytes; the device binds at most {max_binding} \
             at once. A smaller batch, or smaller images, make smaller tensors"
        )));
    }
    Ok(())
}
