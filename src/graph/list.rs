//! The plain list of nodes that passes rewrite and programs are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::graph::op::{Op, Symmetry};
use crate::shape::Shape;
use crate::{Error, Result};

/// The number of a node of one list, and of no other list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u32);

impl TensorId {
    /// Position of the node in [`NodeList::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a node's value comes from.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Written by the host before every step.
    Input,
    /// Kept on the GPU between steps, in the [`crate::program::Store`], under the node's name.
    State(State),
    /// Computed.
    Op(Arc<dyn Op>),
}

/// What a persistent tensor is and starts as.
#[derive(Clone, Debug)]
pub struct State {
    /// Its part in training.
    pub role: Role,
    /// Its first value.
    pub init: Init,
}

/// The part a persistent tensor has in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Learned by gradients.
    Parameter,
    /// Running statistics.
    Statistic,
    /// Momenta and the like.
    Optimizer,
    /// Of one step, kept between the programs that make it up: not in checkpoints.
    Scratch,
}

/// First value of a persistent tensor.
#[derive(Clone, Debug)]
pub enum Init {
    /// The same value everywhere.
    Constant(f32),
    /// Ones on the diagonal of the last two dimensions, zeros elsewhere.
    Identity,
    /// Uniform in [-bound, bound), drawn from the store's seed and the tensor's name.
    Uniform(f32),
    /// Normal around 0 with this standard deviation, drawn as `Uniform` is.
    Normal(f32),
    /// These values, row-major.
    Values(Arc<Vec<f32>>),
}

/// One tensor and how it comes about.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value comes from.
    pub kind: Kind,
    /// Operands; always earlier nodes.
    pub inputs: Vec<TensorId>,
    /// Static shape.
    pub shape: Shape,
    /// For messages, labels and, for states, the store.
    pub name: String,
}

/// The nodes of a computation, what its states become and what is read back. [`super::Graph`] writes one.
///
/// Unstable: may change in any release.
#[derive(Clone, Debug, Default)]
pub struct NodeList {
    nodes: Vec<Node>,
    states: BTreeMap<String, TensorId>,
    assigns: Vec<(TensorId, TensorId)>,
    outputs: Vec<(String, TensorId)>,
}

impl NodeList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// All nodes; inputs come before their users.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of `id`.
    pub fn node(&self, id: TensorId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The shape of `id`.
    pub fn shape(&self, id: TensorId) -> &Shape {
        &self.nodes[id.index()].shape
    }

    /// True if `id` is known to be symmetric in its last two dimensions, whatever the values of inputs and
    /// states: one number for each matrix, or what [`Op::symmetry`] says.
    pub fn is_symmetric(&self, id: TensorId) -> bool {
        let node = self.node(id);
        let (rows, columns) = match *node.shape.dims() {
            [] => (1, 1),
            [columns] => (1, columns),
            [.., rows, columns] => (rows, columns),
        };
        if rows != columns || rows == 1 {
            return rows == columns;
        }
        match &node.kind {
            Kind::Op(op) => match op.symmetry() {
                Symmetry::Certain => true,
                Symmetry::OfInputs => node.inputs.iter().all(|&input| self.is_symmetric(input)),
                Symmetry::Unknown => false,
            },
            _ => false,
        }
    }

    /// The id of the node at `index`.
    pub fn id(&self, index: usize) -> TensorId {
        TensorId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// States and the values they take at the end of a step.
    pub fn assigns(&self) -> &[(TensorId, TensorId)] {
        &self.assigns
    }

    /// Tensors that are read back.
    pub fn outputs(&self) -> &[(String, TensorId)] {
        &self.outputs
    }

    /// States by name.
    pub fn states(&self) -> &BTreeMap<String, TensorId> {
        &self.states
    }

    /// Learned tensors, in the order they were made.
    pub fn parameters(&self) -> Vec<TensorId> {
        let learned = |n: &Node| matches!(&n.kind, Kind::State(s) if s.role == Role::Parameter);
        (0..self.nodes.len())
            .filter(|&i| learned(&self.nodes[i]))
            .map(|i| self.id(i))
            .collect()
    }

    /// Appends an op under its own name.
    ///
    /// # Errors
    /// [`Error::Graph`] if it refuses the shapes of its inputs.
    pub fn add(&mut self, op: impl Op, inputs: &[TensorId]) -> Result<TensorId> {
        self.add_arc(Arc::new(op), inputs)
    }

    /// Appends an op that is already shared.
    ///
    /// # Errors
    /// As [`NodeList::add`].
    pub(crate) fn add_arc(&mut self, op: Arc<dyn Op>, inputs: &[TensorId]) -> Result<TensorId> {
        let name = op.name();
        let shape = self
            .output_shape(op.as_ref(), inputs)
            .map_err(|message| Error::graph(name, message))?;
        Ok(self.push(Kind::Op(op), inputs.to_vec(), shape, name.to_string()))
    }

    /// The shape that `op` makes of `inputs`, or what does not fit.
    pub(super) fn output_shape(&self, op: &dyn Op, inputs: &[TensorId]) -> Result<Shape, String> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&i| self.shape(i)).collect();
        op.output_shape(&shapes)
    }

    /// Appends a node as it is, with its inputs already those of this graph. For passes.
    pub(crate) fn copy_node(&mut self, node: &Node, inputs: Vec<TensorId>) -> TensorId {
        let (shape, name) = (node.shape.clone(), node.name.clone());
        self.push(node.kind.clone(), inputs, shape, name)
    }

    /// How many times each node is used, counting assignments and outputs.
    pub(crate) fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        let used = self.nodes.iter().flat_map(|n| n.inputs.iter().copied());
        let kept = self.assigns.iter().map(|(_, value)| *value);
        let read = self.outputs.iter().map(|(_, id)| *id);
        for id in used.chain(kept).chain(read) {
            counts[id.index()] += 1;
        }
        counts
    }

    /// The same graph made anew node by node: `rewrite` gets the new graph, each old node and
    /// where the old nodes went, and says where this one goes (`None` leaves it out).
    /// States, assignments and outputs follow. For passes.
    ///
    /// # Errors
    /// Those of `rewrite`; [`Error::Bug`] if something needed was left out.
    pub(crate) fn rebuild(
        &self,
        mut rewrite: impl FnMut(&mut Self, TensorId, &Node, &Remap) -> Result<Option<TensorId>>,
    ) -> Result<Self> {
        let mut new = Self::new();
        let mut remap = Remap(vec![None; self.nodes.len()]);
        for (i, node) in self.nodes.iter().enumerate() {
            let place = rewrite(&mut new, self.id(i), node, &remap)?;
            if let (Kind::State(_), Some(place)) = (&node.kind, place) {
                new.states.insert(node.name.clone(), place);
            }
            remap.0[i] = place;
        }
        for (state, value) in &self.assigns {
            new.assigns.push((remap.get(*state)?, remap.get(*value)?));
        }
        for (name, id) in &self.outputs {
            new.outputs.push((name.clone(), remap.get(*id)?));
        }
        Ok(new)
    }

    /// Puts `replace` of each assigned value and each output in its place. For passes.
    ///
    /// # Errors
    /// Those of `replace`.
    pub(crate) fn replace_ends(
        &mut self,
        mut replace: impl FnMut(&mut Self, TensorId) -> Result<TensorId>,
    ) -> Result<()> {
        for i in 0..self.assigns.len() {
            self.assigns[i].1 = replace(self, self.assigns[i].1)?;
        }
        for i in 0..self.outputs.len() {
            self.outputs[i].1 = replace(self, self.outputs[i].1)?;
        }
        Ok(())
    }

    pub(super) fn push(
        &mut self,
        kind: Kind,
        inputs: Vec<TensorId>,
        shape: Shape,
        name: String,
    ) -> TensorId {
        let id = self.id(self.nodes.len());
        self.nodes.push(Node {
            kind,
            inputs,
            shape,
            name,
        });
        id
    }

    pub(super) fn node_mut(&mut self, id: TensorId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(super) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    pub(super) fn keep_state(&mut self, id: TensorId) {
        self.states.insert(self.node(id).name.clone(), id);
    }

    pub(super) fn push_assign(&mut self, state: TensorId, value: TensorId) {
        self.assigns.push((state, value));
    }

    pub(super) fn push_output(&mut self, name: &str, id: TensorId) {
        self.outputs.push((name.to_string(), id));
    }
}

/// Where the nodes of an old graph went, see [`NodeList::rebuild`].
#[derive(Debug)]
pub(crate) struct Remap(Vec<Option<TensorId>>);

impl Remap {
    /// The new id of an old node.
    ///
    /// # Errors
    /// [`Error::Bug`] if a pass left it out.
    pub(crate) fn get(&self, old: TensorId) -> Result<TensorId> {
        self.0[old.index()].ok_or_else(|| Error::bug(format!("node {} is used but gone", old.0)))
    }

    /// The new ids of old nodes.
    ///
    /// # Errors
    /// As [`Remap::get`].
    pub(crate) fn all(&self, old: &[TensorId]) -> Result<Vec<TensorId>> {
        old.iter().map(|&id| self.get(id)).collect()
    }
}
