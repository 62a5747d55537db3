//! From when to when each tensor's memory is needed.

use crate::graph::{Kind, NodeList};

/// Positions in the order of nodes, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The node that writes it.
    pub first: usize,
    /// The last node that reads it.
    pub last: usize,
}

/// For each node the node whose storage it is: itself, or for views what they look at.
pub fn storage_roots(graph: &NodeList) -> Vec<usize> {
    let mut roots: Vec<usize> = Vec::with_capacity(graph.nodes().len());
    for (i, node) in graph.nodes().iter().enumerate() {
        let root = match &node.kind {
            Kind::Op(op) if op.is_view() => roots[node.inputs[0].index()],
            _ => i,
        };
        roots.push(root);
    }
    roots
}

/// Lifetimes of the storage roots that are computed; `None` for views, inputs and states. What is
/// read back or assigned lives to the end.
pub fn liveness(graph: &NodeList, roots: &[usize]) -> Vec<Option<Lifetime>> {
    let end = graph.nodes().len();
    let mut lifetimes: Vec<Option<Lifetime>> = vec![None; end];
    for (i, node) in graph.nodes().iter().enumerate() {
        if roots[i] == i && matches!(node.kind, Kind::Op(_)) {
            lifetimes[i] = Some(Lifetime { first: i, last: i });
        }
        for input in &node.inputs {
            if let Some(lifetime) = &mut lifetimes[roots[input.index()]] {
                lifetime.last = i;
            }
        }
    }
    let values = graph.assigns().iter().map(|(_, value)| value);
    let read = graph.outputs().iter().map(|(_, id)| id);
    for id in values.chain(read) {
        if let Some(lifetime) = &mut lifetimes[roots[id.index()]] {
            lifetime.last = end;
        }
    }
    lifetimes
}
