//! Computes equal expressions once: the same op, attributes and inputs give the same tensor.

use std::collections::HashMap;

use crate::Result;
use crate::graph::{Kind, NodeList, TensorId};

/// `graph` with equal nodes merged: their ops are equal, and so are inputs and shapes.
///
/// # Errors
/// None but bugs.
pub fn common_subexpr(graph: &NodeList) -> Result<NodeList> {
    let mut seen: HashMap<(&str, Vec<TensorId>), Vec<TensorId>> = HashMap::new();
    graph.rebuild(|new, _, node, remap| {
        let inputs = remap.all(&node.inputs)?;
        let Kind::Op(op) = &node.kind else {
            return Ok(Some(new.copy_node(node, inputs)));
        };
        let alike = seen.entry((op.name(), inputs.clone())).or_default();
        let is_equal = |&&known: &&TensorId| {
            let known = new.node(known);
            known.shape == node.shape && matches!(&known.kind, Kind::Op(other) if other == op)
        };
        if let Some(&known) = alike.iter().find(is_equal) {
            return Ok(Some(known));
        }
        let id = new.copy_node(node, inputs);
        alike.push(id);
        Ok(Some(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;

    #[test]
    fn equal_ops_of_equal_inputs_are_one() {
        let g = Graph::new();
        let x = g.input("x", [4, 4]);
        let once = [x.exp(), x.affine(2.0, 1.0), x.reduce_sum([1], 0.5)];
        let again = [x.exp(), x.affine(2.0, 1.0), x.reduce_sum([1], 0.5)];
        let others = [x.ln(), x.affine(2.0, 3.0), x.reduce_sum([1], 2.0)];
        // Kinds, attributes, shapes; and 0.0 and -0.0 are not the same to multiply by.
        let _ = [x.reshape([16]), x.reshape([8, 2])];
        let _ = [x.affine(0.0, 1.0), x.affine(-0.0, 1.0)];
        assert!((0..3).all(|i| once[i] != again[i] && again[i] != others[i]));
        let list = g.checked().unwrap();
        let merged = common_subexpr(&list).unwrap();
        assert_eq!(merged.nodes().len(), list.nodes().len() - once.len());
    }
}
