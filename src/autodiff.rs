//! Reverse-mode gradients as nodes of the same graph.

use crate::graph::{Graph, Kind, TensorId};
use crate::{Error, Result, ops};

/// Names of the nodes that gradients are made of begin with this; the scope of the node whose gradient
/// it is follows.
pub const GRAD_SCOPE: &str = "grad";

/// Appends the nodes that compute d(`loss`)/d(w) for each w of `wrt`, and returns them in order,
/// each of the shape of its w.
///
/// # Errors
/// [`Error::Shape`] if `loss` is not a single number or an op on the way has no gradient.
pub fn gradients(g: &mut Graph, loss: TensorId, wrt: &[TensorId]) -> Result<Vec<TensorId>> {
    if g.shape(loss).len() != 1 {
        let message = format!("{} {} is not one number", g.node(loss).name, g.shape(loss));
        return Err(Error::shape("gradients", message));
    }
    let seed = ops::constant(g, 1.0, g.shape(loss).clone())?;
    gradients_from(g, &[(loss, seed)], wrt)
}

/// As [`gradients`], of the sum over `seeds` of (tensor * its given gradient).
///
/// # Errors
/// [`Error::Shape`] if a seed's shape differs from its tensor's, or as [`gradients`].
pub fn gradients_from(
    g: &mut Graph,
    seeds: &[(TensorId, TensorId)],
    wrt: &[TensorId],
) -> Result<Vec<TensorId>> {
    let forward_len = g.nodes().len();
    let mut grads: Vec<Option<TensorId>> = vec![None; forward_len];
    for &(tensor, grad) in seeds {
        if g.shape(tensor) != g.shape(grad) {
            let message = format!("{} for {}", g.shape(grad), g.shape(tensor));
            return Err(Error::shape("gradients", message));
        }
        accumulate(g, &mut grads, tensor, grad)?;
    }
    let reaches = depends_on(g, wrt, forward_len);
    for i in (0..forward_len).rev() {
        let (Some(grad), true) = (grads[i], reaches[i]) else {
            continue;
        };
        let id = g.id(i);
        let Kind::Op(op) = g.node(id).kind.clone() else {
            continue;
        };
        let inputs = g.node(id).inputs.clone();
        let first = g.nodes().len();
        let input_grads = op.gradient(g, id, grad)?;
        for (input, input_grad) in inputs.into_iter().zip(input_grads) {
            if let (Some(input_grad), true) = (input_grad, reaches[input.index()]) {
                accumulate(g, &mut grads, input, input_grad)?;
            }
        }
        let scope = match g.node(id).name.rsplit_once('.') {
            Some((scope, _)) => format!("{GRAD_SCOPE}.{scope}"),
            None => GRAD_SCOPE.into(),
        };
        g.move_into_scope(first, &scope);
    }
    wrt.iter()
        .map(|&w| match grads.get(w.index()).copied().flatten() {
            Some(grad) => Ok(grad),
            None => ops::constant(g, 0.0, g.shape(w).clone()),
        })
        .collect()
}

/// Which of the first `len` nodes depend on any of `wrt`.
fn depends_on(g: &Graph, wrt: &[TensorId], len: usize) -> Vec<bool> {
    let mut reaches = vec![false; len];
    for (i, node) in g.nodes()[..len].iter().enumerate() {
        reaches[i] = wrt.contains(&g.id(i)) || node.inputs.iter().any(|x| reaches[x.index()]);
    }
    reaches
}

fn accumulate(
    g: &mut Graph,
    grads: &mut [Option<TensorId>],
    tensor: TensorId,
    grad: TensorId,
) -> Result<()> {
    let total = match grads[tensor.index()] {
        Some(other) => ops::add(g, other, grad)?,
        None => grad,
    };
    grads[tensor.index()] = Some(total);
    Ok(())
}
