//! Pairs of nodes over the same tensors that one dispatch computes, so that what both read is read once: the
//! gradients of batch norm's weight and bias, which are sums; the two quadratics of `newton_schulz`, which
//! are element-wise.

use std::any::Any;
use std::collections::HashMap;

use crate::graph::pointwise::{Pointwise, Source};
use crate::graph::{Kind, NodeList, TensorId};
use crate::ops::ReduceSum;
use crate::ops::pointwise::MAX_INPUTS;

/// How many nodes may lie between the two.
const REACH: usize = 8;

/// Two sums, or two element-wise nodes, that are computed in the place of the second.
#[derive(Clone, Debug)]
pub(crate) struct JoinedPair {
    /// The nodes.
    pub nodes: [usize; 2],
    /// What they read.
    pub inputs: Vec<TensorId>,
    /// For each of the nodes its inputs' places in `inputs`.
    pub sources: [Vec<Source>; 2],
}

/// The sum that node `i` is.
pub(crate) fn as_sum(graph: &NodeList, i: usize) -> Option<&ReduceSum> {
    match &graph.nodes()[i].kind {
        Kind::Op(op) => {
            let op: &dyn Any = op.as_ref();
            op.downcast_ref()
        }
        _ => None,
    }
}

/// The program of node `i`, if it is element-wise.
pub(crate) fn as_elementwise(graph: &NodeList, i: usize) -> Option<Pointwise> {
    match &graph.nodes()[i].kind {
        Kind::Op(op) => op.pointwise(),
        _ => None,
    }
}

/// The pairs of `graph`. Arguments as for [`super::updates`].
pub(crate) fn joined_pairs(
    graph: &NodeList,
    roots: &[usize],
    written_in_place: &HashMap<usize, (usize, Option<usize>)>,
) -> Vec<JoinedPair> {
    let mut pairs: Vec<JoinedPair> = Vec::new();
    let mut is_taken = vec![false; graph.nodes().len()];
    let joinable: Vec<bool> = (0..graph.nodes().len())
        .map(|i| as_sum(graph, i).is_some() || as_elementwise(graph, i).is_some())
        .collect();
    for second in (0..graph.nodes().len()).filter(|&i| joinable[i]) {
        let near = second.saturating_sub(REACH)..second;
        let partner = near.rev().filter(|&i| joinable[i]).find_map(|first| {
            let between = first + 1..second;
            let is_free = !is_taken[first]
                && !written_in_place.contains_key(&first)
                && !written_in_place.contains_key(&second)
                // The first is computed later than it was: nothing may need it before, nor overwrite
                // what it reads.
                && !reads(graph, roots, second, first)
                && !between.clone().any(|i| reads(graph, roots, i, first))
                && !between.clone().any(|i| written_in_place.contains_key(&i));
            if is_free {
                pair(graph, roots, [first, second])
            } else {
                None
            }
        });
        if let Some(pair) = partner {
            pair.nodes.iter().for_each(|&i| is_taken[i] = true);
            pairs.push(pair);
        }
    }
    pairs
}

/// Whether node `i`, which is no view, reads the tensor of `root`.
fn reads(graph: &NodeList, roots: &[usize], i: usize, root: usize) -> bool {
    let inputs = &graph.nodes()[i].inputs;
    roots[i] == i && inputs.iter().any(|x| roots[x.index()] == root)
}

fn pair(graph: &NodeList, roots: &[usize], nodes: [usize; 2]) -> Option<JoinedPair> {
    let are_alike = match nodes.map(|i| as_sum(graph, i)) {
        [Some(first), Some(second)] => first.is_like(second),
        [None, None] => {
            let [first, second] = nodes.map(|i| &graph.nodes()[i].shape);
            first == second && nodes.iter().all(|&i| is_plain(graph, i))
        }
        _ => false,
    };
    if !are_alike {
        return None;
    }
    let mut inputs: Vec<TensorId> = Vec::new();
    let sources = nodes.map(|i| {
        let place = |&x: &TensorId| {
            let known = inputs.iter().position(|&known| known == x);
            Source::Input(known.unwrap_or_else(|| {
                inputs.push(x);
                inputs.len() - 1
            }))
        };
        graph.nodes()[i].inputs.iter().map(place).collect()
    });
    let [a, b] = nodes.map(|i| &graph.nodes()[i].inputs);
    let is_shared = |x: &TensorId| b.iter().any(|y| roots[y.index()] == roots[x.index()]);
    let fits = inputs.len() < MAX_INPUTS;
    (fits && a.iter().any(is_shared)).then_some(JoinedPair {
        nodes,
        inputs,
        sources,
    })
}

/// Whether each input of an element-wise node has its shape, or is one number.
fn is_plain(graph: &NodeList, i: usize) -> bool {
    let node = &graph.nodes()[i];
    node.inputs.iter().all(|&x| {
        let shape = graph.shape(x);
        *shape == node.shape || shape.len() == 1
    })
}
