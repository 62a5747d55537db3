//! Takes into a product what follows it element by element: the sum with another tensor, where that can
//! be its bias, and `ReLU`.
//!
//! A product's result is then written once, and not written, read and written again.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use crate::Result;
use crate::graph::op::{Lowered, Lowering};
use crate::graph::{Cost, Kind, Node, NodeList, Op, Tensor, TensorId};
use crate::ops::{Binary, Conv2d, MatMul, Unary, finish_with_relu};
use crate::shape::Shape;

/// A product that ends with `ReLU`. Made by [`epilogue`] only.
#[derive(Debug)]
struct WithRelu {
    product: Arc<dyn Op>,
}

impl PartialEq for WithRelu {
    fn eq(&self, other: &Self) -> bool {
        *self.product == *other.product
    }
}

impl Op for WithRelu {
    fn name(&self) -> &'static str {
        self.product.name()
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        self.product.output_shape(inputs)
    }

    fn gradient<'g>(&self, y: Tensor<'g>, _: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let message = "gradients are built before passes";
        y.graph().fail(crate::Error::graph(self.name(), message));
        vec![]
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        self.product.cost(inputs, output)
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let mut lowered = self.product.lower(ctx)?;
        finish_with_relu(&mut lowered);
        Ok(lowered)
    }
}

/// `graph` with such products.
///
/// # Errors
/// None but bugs.
pub fn epilogue(graph: &NodeList) -> Result<NodeList> {
    let taken = taken(graph);
    graph.rebuild(|new, id, node, remap| {
        let Some(ends) = taken.get(&id.index()) else {
            let inputs = remap.all(&node.inputs)?;
            return Ok(Some(new.copy_node(node, inputs)));
        };
        let (product, addend) = match *ends {
            // It is made where its end is.
            End::Moved => return Ok(None),
            End::Relu(product) => (product, None),
            End::Add(product, addend) => (product, Some(addend)),
        };
        let (product, relu) = (graph.node(product), matches!(ends, End::Relu(_)));
        let mut inputs = remap.all(&product.inputs)?;
        if let Some(addend) = addend {
            inputs.push(remap.get(addend)?);
        }
        let kind = match &product.kind {
            Kind::Op(op) if relu => Kind::Op(Arc::new(WithRelu {
                product: Arc::clone(op),
            })),
            kind => kind.clone(),
        };
        let node = Node {
            kind,
            ..node.clone()
        };
        Ok(Some(new.copy_node(&node, inputs)))
    })
}

/// What becomes of a node.
enum End {
    /// A product that is made later.
    Moved,
    /// `ReLU` of this product.
    Relu(TensorId),
    /// The sum of this product and a tensor.
    Add(TensorId, TensorId),
}

fn taken(graph: &NodeList) -> HashMap<usize, End> {
    let uses = graph.use_counts();
    let mut only_user: Vec<Option<usize>> = vec![None; uses.len()];
    for (i, node) in graph.nodes().iter().enumerate() {
        for input in &node.inputs {
            only_user[input.index()] = (uses[input.index()] == 1).then_some(i);
        }
    }
    let mut taken = HashMap::new();
    for (i, node) in graph.nodes().iter().enumerate() {
        let is_free = |id: TensorId, taken: &HashMap<usize, End>| {
            uses[id.index()] == 1 && !taken.contains_key(&id.index())
        };
        let end = match (as_op::<Unary>(node), as_op::<Binary>(node)) {
            (Some(Unary::Relu), _) => {
                let product = node.inputs[0];
                let inner = graph.node(product);
                let is_product =
                    as_op::<Conv2d>(inner).is_some() || as_op::<MatMul>(inner).is_some();
                (is_product && is_free(product, &taken)).then_some(End::Relu(product))
            }
            // A chain of element-wise nodes goes into one kernel, which reads the product anyway.
            (_, Some(Binary::Add)) if !only_user[i].is_some_and(|u| is_elementwise(graph, u)) => {
                let (a, b) = (node.inputs[0], node.inputs[1]);
                let fits = |&(product, addend): &(TensorId, TensorId)| {
                    product != addend
                        && is_free(product, &taken)
                        && takes_addend(graph, product)
                        && graph.shape(addend) == graph.shape(product)
                        && !is_elementwise(graph, addend.index())
                };
                let found = [(a, b), (b, a)].into_iter().find(fits);
                found.map(|(product, addend)| End::Add(product, addend))
            }
            _ => None,
        };
        if let Some(end) = end {
            let (End::Relu(product) | End::Add(product, _)) = end else {
                continue;
            };
            taken.insert(product.index(), End::Moved);
            taken.insert(i, end);
        }
    }
    taken
}

fn as_op<T: 'static>(node: &Node) -> Option<&T> {
    match &node.kind {
        Kind::Op(op) => {
            let op: &dyn Any = op.as_ref();
            op.downcast_ref()
        }
        _ => None,
    }
}

/// A product of matrices without a bias, all of whose elements are computed.
fn takes_addend(graph: &NodeList, product: TensorId) -> bool {
    let node = graph.node(product);
    as_op::<MatMul>(node).is_some_and(|op| !op.symmetric && node.inputs.len() == 2)
}

/// Whether fusion may put node `i` into another kernel, or another node into its own.
fn is_elementwise(graph: &NodeList, i: usize) -> bool {
    match &graph.nodes()[i].kind {
        Kind::Op(op) => op.pointwise().is_some() || op.prologue().is_some(),
        _ => false,
    }
}
