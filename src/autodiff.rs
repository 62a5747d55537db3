//! Reverse-mode gradients as nodes of the same graph.

use crate::Error;
use crate::graph::{NodeList, Tensor, TensorId};

/// Names of the nodes that gradients are made of begin with this; the scope of the node whose gradient
/// it is follows.
pub(crate) const GRAD_SCOPE: &str = "grad";

/// Appends the nodes that compute d(`loss`)/d(w) for each w of `wrt`, and returns them in order,
/// each of the shape of its w.
///
/// The graph fails if `loss` is not a single number or an op on the way has no gradient.
#[track_caller]
pub fn gradients<'g>(loss: Tensor<'g>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let g = loss.graph();
    if loss.len() != 1 {
        let message = format!("{loss:?} is not one number");
        g.fail(Error::shape("gradients", message));
    }
    let seed = g.constant(1.0, loss.shape());
    gradients_from(&[(loss, seed)], wrt)
}

/// As [`gradients`], of the sum over `seeds` of (tensor * its given gradient). The graph fails if a seed's shape differs
/// from its tensor's.
#[track_caller]
pub fn gradients_from<'g>(
    seeds: &[(Tensor<'g>, Tensor<'g>)],
    wrt: &[Tensor<'g>],
) -> Vec<Tensor<'g>> {
    let Some(g) = wrt.first().map(|w| w.graph()) else {
        return Vec::new();
    };
    for (tensor, grad) in seeds {
        if tensor.shape() != grad.shape() {
            let message = format!("{grad:?} for {tensor:?}");
            g.fail(Error::shape("gradients", message));
        }
    }
    if g.has_failed() {
        // What was built does not hold together; parameters stand in, which have the right shapes.
        return wrt.to_vec();
    }
    let forward_len = g.list().nodes().len();
    let mut grads: Vec<Option<Tensor<'g>>> = vec![None; forward_len];
    for &(tensor, grad) in seeds {
        accumulate(&mut grads, tensor, grad);
    }
    let wanted: Vec<TensorId> = wrt.iter().map(|w| w.id()).collect();
    let reaches = depends_on(&g.list(), &wanted, forward_len);
    for i in (0..forward_len).rev() {
        let (Some(grad), true) = (grads[i], reaches[i]) else {
            continue;
        };
        let id = g.list().id(i);
        let y = g.tensor(id);
        let Some(op) = y.op() else {
            continue;
        };
        let first = g.list().nodes().len();
        for (input, input_grad) in y.all_inputs().into_iter().zip(op.gradient(y, grad)) {
            if let (Some(input_grad), true) = (input_grad, reaches[input.id().index()]) {
                accumulate(&mut grads, input, input_grad);
            }
        }
        let scope = match y.name().rsplit_once('.') {
            Some((scope, _)) => format!("{GRAD_SCOPE}.{scope}"),
            None => GRAD_SCOPE.into(),
        };
        g.move_into_scope(first, &scope);
    }
    let of = |w: &Tensor<'g>| grads.get(w.id().index()).copied().flatten();
    wrt.iter()
        .map(|w| of(w).unwrap_or_else(|| g.constant(0.0, w.shape())))
        .collect()
}

/// Which of the first `len` nodes depend on any of `wrt`.
pub(crate) fn depends_on(list: &NodeList, wrt: &[TensorId], len: usize) -> Vec<bool> {
    let mut reaches = vec![false; len];
    for (i, node) in list.nodes()[..len].iter().enumerate() {
        reaches[i] = wrt.contains(&list.id(i)) || node.inputs.iter().any(|x| reaches[x.index()]);
    }
    reaches
}

fn accumulate<'g>(grads: &mut [Option<Tensor<'g>>], tensor: Tensor<'g>, grad: Tensor<'g>) {
    let total = &mut grads[tensor.id().index()];
    *total = Some(total.map_or(grad, |other| other + grad));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::ops::{Conv2dGeometry, Pool2d, Window};

    /// A gradient is in the scope of what it is the gradient of: traces sort kernels by it.
    #[test]
    fn gradients_are_named_after_what_they_are_of() {
        for (scope, wanted) in [(None, "grad"), (Some("fc"), "grad.fc")] {
            let g = Graph::new();
            let x = g.input("x", [2, 3]);
            let product = || x.square().matmul_t(x);
            let y = match scope {
                Some(scope) => g.scope(scope, product),
                None => product(),
            };
            let first = g.list().nodes().len();
            gradients_from(&[(y, y)], &[x]);
            let list = g.list();
            let made = &list.nodes()[first..];
            assert!(!made.is_empty());
            for node in made {
                let (scope, _) = node.name.rsplit_once('.').unwrap_or_default();
                assert!(scope == wanted || scope.is_empty(), "{}", node.name);
            }
            let inside = made.iter().filter(|node| node.name.starts_with("grad."));
            assert!(inside.count() >= 3, "{made:?}");
        }
    }

    /// The parameters stand in for their gradients, with the right shapes.
    #[test]
    fn gradients_of_what_does_not_fit_are_refused() {
        let g = Graph::new();
        let x = g.input("x", [2, 3]);
        assert_eq!(gradients(x, &[x]), [x]);
        let text = g.check().unwrap_err().to_string();
        assert_eq!(
            text,
            "shape mismatch in gradients: x [2, 3] is not one number"
        );

        let g = Graph::new();
        let (x, y) = (g.input("x", [2, 3]), g.input("y", [3, 2]));
        assert_eq!(gradients_from(&[(x, y)], &[x]), [x]);
        let text = g.check().unwrap_err().to_string();
        assert_eq!(text, "shape mismatch in gradients: y [3, 2] for x [2, 3]");
    }

    #[test]
    fn the_gradient_of_what_a_loss_does_not_depend_on_is_zero() {
        let g = Graph::new();
        let (x, w) = (g.input("x", [2, 3]), g.input("w", [5]));
        let grad = gradients(x.sum_to([1]), &[x, w])[1];
        assert_eq!(grad.dims(), [5]);
        let program = grad.op().and_then(|op| op.pointwise()).unwrap();
        assert_eq!(program.wgsl().0, "    let t0 = vec4<f32>(0.0f);\n");
    }

    /// Of the gradient of one input, that of another: word for word, by the op that has none.
    #[test]
    fn second_derivatives_that_are_not_there_are_refused() {
        type Build = for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;
        type Row = (Build, [&'static [usize]; 2], [usize; 2], &'static str);
        const WINDOW: Window = Window {
            kernel_size: [3, 3],
            stride: 1,
            padding: 0,
            dilation: 1,
        };
        let convolved: Build = |x, w| x.conv2d(w, None, Conv2dGeometry::default());
        let (image, weight): (&[usize], &[usize]) = (&[1, 1, 4, 4], &[2, 1, 3, 3]);
        let table: [Row; 5] = [
            (
                // With kernels of one pixel the gradient reads the weight as it lies, transposed.
                convolved,
                [image, &[2, 1, 1, 1]],
                [0, 1],
                "conv2d: second derivatives of convolutions are not implemented",
            ),
            (
                convolved,
                [image, weight],
                [1, 0],
                "conv2d_weight_grad: second derivatives of convolutions are not implemented",
            ),
            (
                |x, b| x.im2col_matmul(b, None, WINDOW, false),
                [image, &[9, 2]],
                [0, 1],
                "col2im_matmul: second derivatives of im2col_matmul are not implemented",
            ),
            (
                |x, _| x.max_pool2d(Pool2d::new(2)),
                [image, &[1]],
                [0, 0],
                "max_pool2d_grad: second derivatives of pooling are not implemented",
            ),
            (
                |x, labels| x.softmax_cross_entropy(labels, 0.0),
                [&[2, 3], &[2]],
                [0, 0],
                "softmax_cross_entropy_grad: second derivatives of losses are not implemented",
            ),
        ];
        for (build, shapes, [first, second], wanted) in table {
            let g = Graph::new();
            let given = ["x", "y"].map(|name| g.input(name, shapes[usize::from(name == "y")]));
            let y = build(given[0], given[1]);
            let once = gradients_from(&[(y, g.input("seed", y.shape()))], &[given[first]])[0];
            g.check().unwrap();
            gradients_from(&[(once, g.input("again", once.shape()))], &[given[second]]);
            assert_eq!(g.check().unwrap_err().to_string(), wanted);
        }
    }
}
