//! Which updates of states may be written over the old value.

use crate::graph::{Kind, NodeList, TensorId};
use crate::shape::Broadcast;

/// How an assignment is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
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
pub(crate) fn in_place(graph: &NodeList, roots: &[usize]) -> Vec<InPlace> {
    let nodes = graph.nodes();
    let mut last_reader: Vec<Option<usize>> = vec![None; nodes.len()];
    for (i, node) in nodes.iter().enumerate().filter(|(i, _)| roots[*i] == *i) {
        for input in &node.inputs {
            last_reader[roots[input.index()]] = Some(i);
        }
    }
    // Two states may take the same value, and then only one can be its home.
    let mut claims = vec![0; nodes.len()];
    for (_, value) in graph.assigns() {
        claims[roots[value.index()]] += 1;
    }
    let one = |&(state, value): &(TensorId, TensorId)| {
        let writer = roots[value.index()];
        let Kind::Op(op) = &nodes[writer].kind else {
            return InPlace::Copy;
        };
        if claims[writer] > 1 || last_reader[state.index()] > Some(writer) {
            return InPlace::Copy;
        }
        let inputs = &nodes[writer].inputs;
        let mut readers = (0..inputs.len()).filter(|&k| roots[inputs[k].index()] == state.index());
        match (readers.next(), readers.next()) {
            (None, _) => InPlace::Direct(None),
            (Some(k), None) if op.pointwise().is_some() => {
                match graph.shape(inputs[k]).broadcast_to(&nodes[writer].shape) {
                    Some(Broadcast::Same) => InPlace::Direct(Some(k)),
                    _ => InPlace::Copy,
                }
            }
            _ => InPlace::Copy,
        }
    };
    graph.assigns().iter().map(one).collect()
}
