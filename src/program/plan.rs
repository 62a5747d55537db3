//! Graph to plan: passes, kernels chosen, memory laid out. Makes nothing on the device.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use super::exchange::Wanted;
use super::{CompileOptions, Memory, Placed, Program};
use crate::gpu::{Gpu, RING_SLOTS};
use crate::graph::op::{Dispatch, Lowered, Lowering, Variants};
use crate::graph::pointwise::{Joint, Pointwise};
use crate::graph::{Cost, Graph, Kind, Node, NodeList, Op};
use crate::ops::pointwise;
use crate::passes::{
    self, InPlace, JoinedPair, Lifetime, MadeStates, MemoryPlan, Passes, Request, Runs, Update,
    UpdateInput, in_place, largest_live_set, liveness, memory_plan, old_values, optimise,
    storage_of, storage_roots, updates,
};
use crate::shape::Shape;
use crate::{Error, Result};

/// A graph after all passes, and where its tensors will lie.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) graph: NodeList,
    /// The node whose memory each node has: another one's for views.
    pub(super) roots: Vec<usize>,
    /// Nodes that write a state's memory: the state, and the input that reads it in the same kernel.
    pub(super) written_in_place: HashMap<usize, (usize, Option<usize>)>,
    pub(super) kernels: Vec<PlannedKernels>,
    /// In the order of nodes.
    pub(super) wanted: Vec<Wanted>,
    pub(super) requests: Vec<Request>,
    /// By node, with the offset in it in bytes; `None` for what is in no arena.
    pub(super) request_of: Vec<Option<(usize, u64)>>,
    /// States that must lie side by side in one buffer, each from a multiple of `alignment` on.
    pub(super) state_runs: Vec<Vec<usize>>,
    pub(super) alignment: u64,
    pub(super) layout: MemoryPlan,
    /// All host-written tensors lie side by side in one buffer, so that one copy brings them.
    pub(super) inputs: BTreeMap<String, Placed>,
    pub(super) inputs_bytes: u64,
    /// Without kernel parameters, which are few.
    pub(super) memory: Memory,
}

/// Dispatches of a node, of the nodes of an update, or of an assignment, before memory is known.
#[derive(Debug)]
pub(super) struct PlannedKernels {
    pub(super) name: String,
    pub(super) op: &'static str,
    pub(super) shape: String,
    pub(super) cost: Cost,
    pub(super) lowered: Lowered,
    /// What the slots are.
    pub(super) inputs: Vec<Region>,
    pub(super) output: Region,
    /// Index of its first scratch request.
    pub(super) scratch: usize,
}

/// Memory of a tensor, or of a run of tensors that begins with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) node: usize,
    pub(super) size_bytes: u64,
}

impl Program {
    /// The memory that `graph` would take, but for kernel parameters. Makes nothing on the device.
    ///
    /// # Errors
    /// The graph's first error, see [`Graph::check`]; [`Error::Limit`] for tensors that the device cannot bind.
    pub fn plan(graph: &Graph, gpu: &Gpu, options: CompileOptions) -> Result<Memory> {
        let own = || passes::select_variant(gpu);
        let variants = options.variants.unwrap_or_else(own);
        let made = MadeStates::new();
        Ok(Plan::new(&*graph.checked()?, gpu, options.passes, variants, &made)?.memory)
    }
}

impl Plan {
    /// `made`: the states that are in the store already.
    pub(super) fn new(
        graph: &NodeList,
        gpu: &Gpu,
        passes: Passes,
        variants: Variants,
        made: &MadeStates,
    ) -> Result<Self> {
        if graph.outputs().is_empty() && graph.assigns().is_empty() {
            let message = "the graph has no output and assigns nothing, so that a step would do nothing. Name what is wanted: \
                           g.output(\"y\", y)";
            return Err(Error::graph("compile", message));
        }
        let graph = old_values(&optimise(graph, passes)?)?;
        let limits = gpu.limits();
        let max_binding = limits.max_storage_buffer_binding_size;
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment).max(16);
        for node in graph.nodes() {
            let size_bytes = padded(node.shape.size_bytes());
            check_binding(&node.name, &node.shape, size_bytes, max_binding)?;
        }
        let roots = storage_roots(&graph);
        let assigned = if passes.in_place {
            in_place(&graph, &roots)
        } else {
            vec![InPlace::Copy; graph.assigns().len()]
        };
        let mut written_in_place = HashMap::new();
        for (&(state, value), update) in graph.assigns().iter().zip(&assigned) {
            if let InPlace::Direct(reader) = update {
                written_in_place.insert(roots[value.index()], (state.index(), *reader));
            }
        }
        let (joined, runs) = if passes.join_updates {
            updates(&graph, &roots, &written_in_place, made, alignment)
        } else {
            Default::default()
        };
        let pairs = if passes.join_pairs {
            passes::joined_pairs(&graph, &roots, &written_in_place)
        } else {
            Vec::new()
        };
        let (inputs, inputs_bytes) = place_inputs(&graph, alignment)?;

        let lifetimes = lifetimes(&graph, &roots, &written_in_place, &joined, &pairs);
        let (mut requests, request_of) = requests(&graph, &lifetimes, &runs, alignment);
        let mut kernels = Vec::new();
        let mut update_at: Vec<Option<&Update>> = vec![None; graph.nodes().len()];
        let mut is_joined = vec![false; graph.nodes().len()];
        for update in &joined {
            update_at[update.position] = Some(update);
            for &node in update.members.iter().flatten() {
                is_joined[node] = true;
            }
        }
        let mut pair_at: Vec<Option<&JoinedPair>> = vec![None; graph.nodes().len()];
        for pair in &pairs {
            pair_at[pair.nodes[1]] = Some(pair);
            is_joined[pair.nodes[0]] = true;
        }
        let (mut wanted, mut dispatches) = (Vec::new(), 0);
        // How many dispatches must have run before a node's memory has its value.
        let mut written_after = vec![0; graph.nodes().len()];
        for (i, node) in graph.nodes().iter().enumerate() {
            let Kind::Op(op) = &node.kind else { continue };
            if op.is_exchange() {
                let input = roots[node.inputs[0].index()];
                wanted.push(Wanted {
                    input,
                    output: i,
                    size_bytes: node.shape.size_bytes(),
                    start: written_after[input],
                    due: dispatches,
                });
                written_after[i] = dispatches;
                continue;
            }
            let mut planned = match (update_at[i], pair_at[i]) {
                (Some(update), _) => update_kernel(&graph, update, &written_in_place)?,
                (_, Some(pair)) => pair_kernel(&graph, pair, variants)?,
                _ if op.is_view() || is_joined[i] => continue,
                _ => {
                    let reader = written_in_place.get(&i).and_then(|(_, reader)| *reader);
                    node_kernel(&graph, i, op.as_ref(), reader, variants)?
                }
            };
            dispatches += planned.lowered.dispatches.len();
            let joined = update_at[i].map(|update| update.members.concat());
            let joined = joined.or(pair_at[i].map(|pair| pair.nodes.to_vec()));
            for written in joined.unwrap_or_else(|| vec![i]) {
                written_after[written] = dispatches;
            }
            planned.scratch = requests.len();
            for &len in &planned.lowered.scratch {
                let size_bytes = padded(len as u64 * 4);
                check_binding(&node.name, "scratch memory", size_bytes, max_binding)?;
                requests.push(Request {
                    size_bytes,
                    lifetime: Lifetime { first: i, last: i },
                });
            }
            kernels.push(planned);
        }
        for (&(state, value), update) in graph.assigns().iter().zip(&assigned) {
            if *update == InPlace::Copy {
                kernels.push(copy_kernel(&graph, value.index(), state.index())?);
            }
        }

        // An arena of the largest possible size may be more than a driver gives at once.
        let max_arena = limits.max_buffer_size.min(1 << 30);
        let layout = memory_plan(&requests, alignment, max_arena, passes.reuse_memory)?;
        let unshared = requests
            .iter()
            .map(|r| r.size_bytes.next_multiple_of(alignment));
        let outputs_bytes = outputs_bytes(&graph)?;
        let state_runs = runs_of_states(&graph, &runs);
        let memory = Memory {
            arenas: layout.arenas_bytes(),
            live: largest_live_set(&requests, alignment),
            unshared: unshared.sum(),
            states: states_bytes(&graph),
            other: inputs_bytes + RING_SLOTS * (inputs_bytes + outputs_bytes),
        };
        Ok(Self {
            graph,
            roots,
            written_in_place,
            kernels,
            wanted,
            requests,
            request_of,
            state_runs,
            alignment,
            layout,
            inputs,
            inputs_bytes,
            memory,
        })
    }
}

impl Plan {
    /// All dispatches in order, each with its number among those of its kernels.
    pub(super) fn dispatches(&self) -> impl Iterator<Item = (&PlannedKernels, usize, &Dispatch)> {
        self.kernels.iter().flat_map(|planned| {
            let numbered = planned.lowered.dispatches.iter().enumerate();
            numbered.map(move |(i, dispatch)| (planned, i, dispatch))
        })
    }
}

/// When the memory of each computed tensor is needed; `None` for what is in no arena.
fn lifetimes(
    graph: &NodeList,
    roots: &[usize],
    written_in_place: &HashMap<usize, (usize, Option<usize>)>,
    joined: &[Update],
    pairs: &[JoinedPair],
) -> Vec<Option<Lifetime>> {
    let mut lifetimes = liveness(graph, roots);
    for &node in written_in_place.keys() {
        lifetimes[node] = None;
    }
    // What is joined reads its inputs, and writes its results, later than its nodes would.
    for JoinedPair { nodes, inputs, .. } in pairs {
        let position = nodes[1];
        for input in inputs {
            if let Some(lifetime) = &mut lifetimes[roots[input.index()]] {
                lifetime.last = lifetime.last.max(position);
            }
        }
        if let Some(lifetime) = &mut lifetimes[nodes[0]] {
            lifetime.first = position;
            lifetime.last = lifetime.last.max(position);
        }
    }
    for update in joined {
        for input in &update.inputs {
            let read = match input {
                UpdateInput::Shared(node) => std::slice::from_ref(node),
                UpdateInput::Each(nodes) => nodes,
            };
            for &node in read {
                if let Some(lifetime) = &mut lifetimes[node] {
                    lifetime.last = lifetime.last.max(update.position);
                }
            }
        }
    }
    lifetimes
}

/// The memory of all computed tensors, and where in it each node is. Those of a run are one request.
fn requests(
    graph: &NodeList,
    lifetimes: &[Option<Lifetime>],
    runs: &Runs,
    alignment: u64,
) -> (Vec<Request>, Vec<Option<(usize, u64)>>) {
    let (mut requests, mut request_of) = (Vec::new(), vec![None; graph.nodes().len()]);
    let computed = |run: &&Vec<usize>| lifetimes[run[0]].is_some();
    for run in runs.new_runs().iter().filter(computed) {
        let (mut size_bytes, mut whole) = (0, None::<Lifetime>);
        for &node in run {
            request_of[node] = Some((requests.len(), size_bytes));
            size_bytes += padded(graph.nodes()[node].shape.size_bytes());
            size_bytes = size_bytes.next_multiple_of(alignment);
            if let Some(Lifetime { first, last }) = lifetimes[node] {
                let whole = whole.get_or_insert(Lifetime { first, last });
                whole.first = whole.first.min(first);
                whole.last = whole.last.max(last);
            }
        }
        requests.extend(whole.map(|lifetime| Request {
            size_bytes,
            lifetime,
        }));
    }
    for (i, node) in graph.nodes().iter().enumerate() {
        if let (Some(lifetime), None) = (lifetimes[i], request_of[i]) {
            request_of[i] = Some((requests.len(), 0));
            requests.push(Request {
                size_bytes: padded(node.shape.size_bytes()),
                lifetime,
            });
        }
    }
    (requests, request_of)
}

fn runs_of_states(graph: &NodeList, runs: &Runs) -> Vec<Vec<usize>> {
    let is_state = |run: &&Vec<usize>| matches!(graph.nodes()[run[0]].kind, Kind::State(_));
    runs.new_runs().iter().filter(is_state).cloned().collect()
}

fn region(graph: &NodeList, node: usize) -> Region {
    Region {
        node,
        size_bytes: padded(graph.nodes()[node].shape.size_bytes()),
    }
}

/// The kernels of node `i`, whose input `in_place` is the state that it overwrites.
fn node_kernel(
    graph: &NodeList,
    i: usize,
    op: &dyn Op,
    in_place: Option<usize>,
    variants: Variants,
) -> Result<PlannedKernels> {
    let node = &graph.nodes()[i];
    let shapes: Vec<&Shape> = node.inputs.iter().map(|&x| graph.shape(x)).collect();
    let lowering = Lowering {
        inputs: &shapes,
        output: &node.shape,
        variants,
    };
    let lowered = match op.pointwise() {
        Some(program) => pointwise::lower(&program, &shapes, &node.shape, in_place)?,
        None => op.lower(&lowering)?,
    };
    let inputs = node.inputs.iter().map(|x| region(graph, x.index()));
    Ok(PlannedKernels {
        name: node.name.clone(),
        op: op.name(),
        shape: node.shape.to_string(),
        cost: op.cost(&shapes, &node.shape),
        lowered,
        inputs: inputs.collect(),
        output: region(graph, i),
        scratch: 0,
    })
}

/// The kernels of two sums, or the kernel of two element-wise nodes.
fn pair_kernel(graph: &NodeList, pair: &JoinedPair, variants: Variants) -> Result<PlannedKernels> {
    let differ = || Error::bug("two joined nodes differ");
    let shapes: Vec<&Shape> = pair.inputs.iter().map(|&x| graph.shape(x)).collect();
    let [node, other] = pair.nodes.map(|i| &graph.nodes()[i]);
    let (Kind::Op(op), Kind::Op(other_op)) = (&node.kind, &other.kind) else {
        return Err(differ());
    };
    let own = |node: &Node| {
        node.inputs
            .iter()
            .map(|&x| graph.shape(x))
            .collect::<Vec<_>>()
    };
    let sources = [&*pair.sources[0], &*pair.sources[1]];
    let of = |i: usize| (passes::as_sum(graph, i), passes::as_elementwise(graph, i));
    let lowered = match pair.nodes.map(of) {
        [(Some(first), _), (Some(second), _)] => {
            first.lower_pair(second, sources, &shapes, variants)?
        }
        [(_, Some(first)), (_, Some(second))] => {
            let mut joint = Joint::default();
            joint.push(&first, sources[0]);
            joint.push(&second, sources[1]);
            let are_shared: Vec<bool> = shapes.iter().map(|s| **s != node.shape).collect();
            pointwise::lower_joint(&joint, &are_shared, &[None, None], node.shape.len())?
        }
        _ => return Err(differ()),
    };
    let read: u64 = shapes.iter().map(|s| s.size_bytes()).sum();
    let inputs = pair.inputs.iter().map(|x| x.index()).chain(pair.nodes);
    Ok(PlannedKernels {
        name: format!("{} and 1 more", node.name),
        op: op.name(),
        shape: node.shape.to_string(),
        cost: Cost {
            flops: op.cost(&own(node), &node.shape).flops
                + other_op.cost(&own(other), &other.shape).flops,
            bytes: read + 2 * node.shape.size_bytes(),
        },
        lowered,
        inputs: inputs.map(|i| region(graph, i)).collect(),
        output: region(graph, pair.nodes[1]),
        scratch: 0,
    })
}

/// The kernel of an update of several nodes.
fn update_kernel(
    graph: &NodeList,
    update: &Update,
    written_in_place: &HashMap<usize, (usize, Option<usize>)>,
) -> Result<PlannedKernels> {
    let size_bytes = padded(update.size_bytes);
    let one = padded(4);
    let is_shared = |input: &UpdateInput| matches!(input, UpdateInput::Shared(_));
    let shared: Vec<bool> = update.inputs.iter().map(is_shared).collect();
    let region = |node, size_bytes| Region { node, size_bytes };
    let mut inputs: Vec<Region> = update
        .inputs
        .iter()
        .map(|input| match input {
            UpdateInput::Shared(node) => region(*node, one),
            UpdateInput::Each(nodes) => region(nodes[0], size_bytes),
        })
        .collect();
    let first = &update.members[0];
    let states = first.iter().map(|&node| storage_of(node, written_in_place));
    inputs.extend(states.map(|state| region(state, size_bytes)));
    let len = (update.size_bytes / 4) as usize;
    let output = region(first[0], size_bytes);
    let last = &graph.nodes()[first[first.len() - 1]];
    let more = match update.members.len() {
        1 => String::new(),
        members => format!(" and {} more", members - 1),
    };
    let moved = shared.iter().filter(|s| !**s).count() + first.len();
    Ok(PlannedKernels {
        name: format!("{}{more}", last.name),
        op: "update",
        shape: format!("[{len}]"),
        cost: Cost {
            flops: (len * update.program.program.instructions.len()) as u64,
            bytes: moved as u64 * update.size_bytes,
        },
        lowered: pointwise::lower_joint(&update.program, &shared, &update.in_place, len)?,
        inputs,
        output,
        scratch: 0,
    })
}

/// The kernel that gives a state, at the end of the step, a value that was computed elsewhere.
fn copy_kernel(graph: &NodeList, value: usize, state: usize) -> Result<PlannedKernels> {
    let node = &graph.nodes()[state];
    let (identity, shape) = (Pointwise::identity(), &node.shape);
    Ok(PlannedKernels {
        name: node.name.clone(),
        op: "assign",
        shape: shape.to_string(),
        cost: Cost {
            flops: 0,
            bytes: 2 * shape.size_bytes(),
        },
        lowered: pointwise::lower(&identity, &[shape], shape, None)?,
        inputs: vec![region(graph, value)],
        output: region(graph, state),
        scratch: 0,
    })
}

/// Kernels may read and write whole vectors of 16 bytes at a tensor's end.
pub(super) fn padded(size_bytes: u64) -> u64 {
    size_bytes.max(16).next_multiple_of(16)
}

fn states_bytes(graph: &NodeList) -> u64 {
    let states = graph.nodes().iter();
    let states = states.filter(|n| matches!(n.kind, Kind::State(_)));
    states.map(|n| padded(n.shape.size_bytes())).sum()
}

fn outputs_bytes(graph: &NodeList) -> Result<u64> {
    let mut sum = 0;
    for (i, (name, id)) in graph.outputs().iter().enumerate() {
        if graph.outputs()[..i].iter().any(|(other, _)| other == name) {
            let message = format!("two outputs are called {name}");
            return Err(Error::graph("compile", message));
        }
        sum += padded(graph.shape(*id).size_bytes());
    }
    Ok(sum)
}

fn place_inputs(graph: &NodeList, alignment: u64) -> Result<(BTreeMap<String, Placed>, u64)> {
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
                return Err(Error::graph("compile", message));
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
