//! Merges element-wise chains into one generated kernel, and into the sums that read them.
//!
//! An element-wise node is taken into its users instead of being stored where that saves memory
//! traffic: it has one user, or it reads at most one tensor of full size, so that reading its
//! input again costs its users no more than reading its result. It is stored after all where a
//! user is no element-wise kernel, or would have more inputs than a kernel can bind.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Result;
use crate::graph::pointwise::{Argument, Pointwise};
use crate::graph::{Cost, Kind, Node, NodeList, Op, Tensor, TensorId};
use crate::ops::pointwise::MAX_INPUTS;
use crate::shape::Shape;

/// Steps a merged program may have.
const MAX_STEPS: usize = 64;

/// A chain of element-wise ops as one op. Made by [`fuse`] only.
#[derive(Debug, PartialEq)]
struct Fused {
    program: Pointwise,
    shape: Shape,
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn output_shape(&self, _inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(self.shape.clone())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "gradients are built before fusion";
        y.graph().fail(crate::Error::graph("fused", message));
        vec![]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: (output.len() * self.program.instructions.len()) as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn pointwise(&self) -> Option<Pointwise> {
        Some(self.program.clone())
    }
}

/// A node that is not stored: its program and the stored tensors that it reads.
#[derive(Clone)]
struct Inlined {
    program: Pointwise,
    leaves: Vec<TensorId>,
    node: Node,
}

/// `graph` with element-wise chains merged.
///
/// # Errors
/// None but bugs.
pub fn fuse(graph: &NodeList) -> Result<NodeList> {
    let inlinable = inlinable(graph);
    // By old id; a node may be here and, once some user needs it stored, also in `stored`.
    let mut inlined: HashMap<usize, Inlined> = HashMap::new();
    let mut stored: HashMap<usize, TensorId> = HashMap::new();
    graph.rebuild(|new, id, node, remap| {
        let merged = match &node.kind {
            Kind::Op(op) => {
                let program = op.pointwise().or_else(|| op.prologue().cloned());
                program.map(|program| (Arc::clone(op), program))
            }
            _ => None,
        };
        let mut place = |new: &mut NodeList, old: TensorId| match inlined.get(&old.index()) {
            None => remap.get(old),
            Some(inner) => Ok(*stored
                .entry(old.index())
                .or_insert_with(|| store(new, inner))),
        };
        let Some((op, program)) = merged else {
            let inputs = node.inputs.iter().map(|&i| place(new, i));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            return Ok(Some(new.copy_node(node, inputs)));
        };
        // Take in what can be; if that is too much, take in less, from the last input on.
        let mut take: Vec<bool> = node
            .inputs
            .iter()
            .map(|i| inlined.contains_key(&i.index()))
            .collect();
        let (program, leaves) = loop {
            let mut leaves: Vec<TensorId> = Vec::new();
            let mut arguments = Vec::new();
            for (&input, &take) in node.inputs.iter().zip(&take) {
                let mut leaf = |id: TensorId| {
                    leaves.iter().position(|&l| l == id).unwrap_or_else(|| {
                        leaves.push(id);
                        leaves.len() - 1
                    })
                };
                match inlined.get(&input.index()) {
                    Some(inner) if take => {
                        let places = inner.leaves.iter().map(|&l| leaf(l)).collect();
                        arguments.push(Argument::Inline(&inner.program, places));
                    }
                    _ => arguments.push(Argument::Input(leaf(place(new, input)?))),
                }
            }
            let merged = program.substitute(&arguments, leaves.len());
            let fits = leaves.len() <= MAX_INPUTS && merged.instructions.len() <= MAX_STEPS;
            match take.iter().rposition(|&t| t) {
                Some(last) if !fits => take[last] = false,
                _ => break (merged, leaves),
            }
        };
        if let Some(op) = op.with_prologue(program.clone()) {
            let node = Node {
                kind: Kind::Op(op),
                ..node.clone()
            };
            return Ok(Some(new.copy_node(&node, leaves)));
        }
        let inner = Inlined {
            program,
            leaves,
            node: node.clone(),
        };
        if inlinable[id.index()] {
            inlined.insert(id.index(), inner);
            return Ok(None);
        }
        Ok(Some(store(new, &inner)))
    })
}

/// Appends an element-wise node with all that it took in.
fn store(new: &mut NodeList, inner: &Inlined) -> TensorId {
    let mut node = inner.node.clone();
    let unchanged =
        matches!(&node.kind, Kind::Op(op) if op.pointwise() == Some(inner.program.clone()));
    if !unchanged {
        node.kind = Kind::Op(Arc::new(Fused {
            program: inner.program.clone(),
            shape: node.shape.clone(),
        }));
    }
    new.copy_node(&node, inner.leaves.clone())
}

/// Which nodes are worth taking into their users.
fn inlinable(graph: &NodeList) -> Vec<bool> {
    let uses = graph.use_counts();
    let reads_elementwise = |node: &Node| match &node.kind {
        Kind::Op(op) => op.pointwise().is_some() || op.prologue().is_some(),
        _ => false,
    };
    let mut worth: Vec<bool> = graph
        .nodes()
        .iter()
        .enumerate()
        .map(|(i, node)| {
            let full = |input: &TensorId| graph.shape(*input).len() == node.shape.len();
            let cheap = node.inputs.iter().filter(|input| full(input)).count() <= 1;
            let pointwise = matches!(&node.kind, Kind::Op(op) if op.pointwise().is_some());
            pointwise && (uses[i] == 1 || cheap)
        })
        .collect();
    for node in graph.nodes() {
        if !reads_elementwise(node) {
            for input in &node.inputs {
                worth[input.index()] = false;
            }
        } else {
            // A scalar of rank 0 in between would hide how its own inputs broadcast.
            for input in &node.inputs {
                let domain = user_domain(graph, node);
                let inner = &graph.node(*input).inputs;
                if inner.iter().any(|l| !leaves_fit(graph, *l, &domain)) {
                    worth[input.index()] = false;
                }
            }
        }
    }
    for id in graph.outputs().iter().map(|(_, id)| id) {
        worth[id.index()] = false;
    }
    for (_, value) in graph.assigns() {
        worth[value.index()] = false;
    }
    worth
}

/// What a node's element-wise program runs over.
fn user_domain(graph: &NodeList, node: &Node) -> Shape {
    match &node.kind {
        Kind::Op(op) if op.prologue().is_some() => node
            .inputs
            .iter()
            .map(|&i| graph.shape(i).clone())
            .max_by_key(Shape::len)
            .unwrap_or_default(),
        _ => node.shape.clone(),
    }
}

fn leaves_fit(graph: &NodeList, leaf: TensorId, domain: &Shape) -> bool {
    graph.shape(leaf).broadcast_to(domain).is_some()
}
