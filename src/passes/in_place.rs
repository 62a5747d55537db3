//! Which updates of states may be written over the old value.

use crate::graph::{Graph, Kind, TensorId};
use crate::shape::Broadcast;

/// How an assignment is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    /// The node that computes the value writes it where the state is; the number is the node's
    /// input that reads the old value, if it does.
    Direct(Option<usize>),
    /// The value is computed elsewhere and copied at the end of the step.
    Copy,
}

/// For each assignment of `graph`, in order. `roots` as from [`super::storage_roots`]; `graph` as
/// from [`super::old_values`], so that only nodes read states.
///
/// A value may be written over its state if no later node reads the old one, and the node that
/// writes it reads it element by element, or not at all.
pub fn in_place(graph: &Graph, roots: &[usize]) -> Vec<InPlace> {
    graph
        .assigns()
        .iter()
        .map(|&(state, value)| one(graph, roots, state, value))
        .collect()
}

fn one(graph: &Graph, roots: &[usize], state: TensorId, value: TensorId) -> InPlace {
    let writer = roots[value.index()];
    let Kind::Op(op) = &graph.nodes()[writer].kind else {
        return InPlace::Copy;
    };
    // Two states may take the same value, and then only one can be its home.
    let claims = |&&(_, v): &&(TensorId, TensorId)| roots[v.index()] == writer;
    if graph.assigns().iter().filter(claims).count() > 1 {
        return InPlace::Copy;
    }
    let reads_state = |i: usize| {
        let node = &graph.nodes()[i];
        node.inputs
            .iter()
            .any(|x| roots[x.index()] == state.index())
    };
    let is_view = |i: usize| roots[i] != i;
    let read_later = (writer + 1..graph.nodes().len()).any(|i| reads_state(i) && !is_view(i));
    if read_later {
        return InPlace::Copy;
    }
    let node = &graph.nodes()[writer];
    let readers: Vec<usize> = (0..node.inputs.len())
        .filter(|&k| roots[node.inputs[k].index()] == state.index())
        .collect();
    match readers.as_slice() {
        [] => InPlace::Direct(None),
        &[k] if op.pointwise().is_some() => {
            let input = graph.shape(node.inputs[k]);
            match input.broadcast_to(&node.shape) {
                Some(Broadcast::Same) => InPlace::Direct(Some(k)),
                _ => InPlace::Copy,
            }
        }
        _ => InPlace::Copy,
    }
}
