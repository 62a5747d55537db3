//! A tensor of a graph as a value to write formulas with.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::{Graph, Kind, Node, Op, TensorId};
use crate::Error;
use crate::shape::Shape;

/// A tensor: the output of one node of a [`Graph`]. Copied freely. Operators and methods, defined beside the ops in
/// [`crate::ops`], append nodes: `(x - mean).square().mean_to([1])`.
#[derive(Clone, Copy)]
pub struct Tensor<'g> {
    graph: &'g Graph,
    id: TensorId,
}

impl PartialEq for Tensor<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.graph, other.graph) && self.id == other.id
    }
}

impl Eq for Tensor<'_> {}

/// Name and shape.
impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.shape())
    }
}

impl<'g> Tensor<'g> {
    pub(super) fn new(graph: &'g Graph, id: TensorId) -> Self {
        Self { graph, id }
    }

    /// The graph it is of.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// The number of its node.
    pub fn id(self) -> TensorId {
        self.id
    }

    /// Its sizes, outermost first.
    pub fn shape(self) -> Shape {
        self.graph.list().shape(self.id).clone()
    }

    /// Its number of elements.
    pub fn len(self) -> usize {
        self.graph.list().shape(self.id).len()
    }

    /// Whether it has no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Its number of dimensions.
    pub fn rank(self) -> usize {
        self.graph.list().shape(self.id).rank()
    }

    /// Its `N` sizes: `let [n, c, h, w] = x.dims();`.
    ///
    /// Fails with [`Error::Shape`] if it has another number of dimensions, and gives ones.
    #[track_caller]
    pub fn dims<const N: usize>(self) -> [usize; N] {
        let shape = self.shape();
        if let Ok(dims) = shape.dims().try_into() {
            return dims;
        }
        let message = format!("{self:?} has {} dimensions and not {N}", shape.rank());
        self.graph.fail(Error::shape("dims", message));
        [1; N]
    }

    /// Its size in one dimension.
    ///
    /// Fails with [`Error::Shape`] if it has no such dimension, and gives 1.
    #[track_caller]
    pub fn size(self, dim: usize) -> usize {
        if let Some(&size) = self.shape().dims().get(dim) {
            return size;
        }
        let message = format!("{self:?} has no dimension {dim}");
        self.graph.fail(Error::shape("size", message));
        1
    }

    /// The name of its node, with scope.
    pub fn name(self) -> String {
        self.graph.list().node(self.id).name.clone()
    }

    /// The same tensor, if it is computed with `name` under the current scope, for messages and labels.
    pub fn named(self, name: &str) -> Self {
        let name = self.graph.scoped(name);
        self.set_full_name(name);
        self
    }

    pub(crate) fn set_full_name(self, name: String) {
        let mut list = self.graph.list.borrow_mut();
        let node = list.node_mut(self.id);
        if matches!(node.kind, Kind::Op(_)) {
            node.name = name;
        }
    }

    /// The `N` tensors that it is computed of: `let [a, b] = y.inputs();`. For gradients.
    ///
    /// Fails with [`Error::Bug`] if there are others, and gives the tensor itself.
    #[track_caller]
    pub fn inputs<const N: usize>(self) -> [Self; N] {
        let inputs = self.all_inputs();
        if let Ok(inputs) = inputs.as_slice().try_into() {
            return inputs;
        }
        let message = format!("{self:?} has {} inputs and not {N}", inputs.len());
        self.graph.fail(Error::bug(message));
        [self; N]
    }

    /// The tensors that it is computed of, however many.
    pub fn all_inputs(self) -> Vec<Self> {
        let inputs = self.graph.list().node(self.id).inputs.clone();
        inputs.into_iter().map(|id| self.graph.tensor(id)).collect()
    }

    /// What it is made by, if that is an `O`, with the tensor that it is made of first.
    pub(crate) fn made_by<O: Op + Clone>(self) -> Option<(O, Self)> {
        let op = self.op()?;
        let op: &dyn Any = op.as_ref();
        Some((op.downcast_ref::<O>()?.clone(), *self.all_inputs().first()?))
    }

    /// The op that computes it, if one does.
    pub fn op(self) -> Option<Arc<dyn Op>> {
        match &self.graph.list().node(self.id).kind {
            Kind::Op(op) => Some(op.clone()),
            Kind::Input | Kind::State(_) => None,
        }
    }

    /// Its node, copied.
    pub fn node(self) -> Node {
        self.graph.list().node(self.id).clone()
    }

    /// See [`super::NodeList::is_symmetric`].
    pub fn is_symmetric(self) -> bool {
        self.graph.list().is_symmetric(self.id)
    }

    /// At the end of every step this state takes the value of `value`.
    ///
    /// Fails with [`Error::Graph`] if it is no state or is assigned twice, with [`Error::Shape`] if the shapes differ.
    #[track_caller]
    pub fn assign(self, value: Self) {
        if !self.is_state() {
            return self
                .graph
                .fail(Error::graph("assign", format!("{self:?} is not a state")));
        }
        if self.shape() != value.shape() {
            let message = format!("{self:?} takes {value:?}");
            return self.graph.fail(Error::shape("assign", message));
        }
        let is_assigned = (self.graph.list().assigns().iter()).any(|(state, _)| *state == self.id);
        if is_assigned {
            return self.graph.fail(Error::graph(
                "assign",
                format!("{self:?} is assigned twice"),
            ));
        }
        let (state, value) = (self.id, value.id);
        self.graph.list.borrow_mut().push_assign(state, value);
    }

    fn is_state(self) -> bool {
        matches!(self.graph.list().node(self.id).kind, Kind::State(_))
    }

    /// This op on this tensor alone.
    #[track_caller]
    pub fn apply(self, op: impl Op) -> Self {
        self.graph.add(op, &[self])
    }
}
