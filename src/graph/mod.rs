//! A list of nodes: an op, its inputs, a static shape. Building one runs nothing and needs no GPU.
//!
//! Names no concrete op: those are in [`crate::ops`].

mod dot;
pub mod op;
pub mod pointwise;
pub mod tiles;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::shape::Shape;
use crate::{Error, Result};
pub use op::{Cost, Op, Symmetry};

/// A tensor: the output of one node of one graph, and of no other graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(u32);

impl TensorId {
    /// Position of the node in [`Graph::nodes`].
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
    Buffer,
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

/// A computation over tensors of static shape.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    scope: Vec<String>,
    states: BTreeMap<String, TensorId>,
    /// Parameters that were given a first value and are not yet a layer's.
    preset: BTreeSet<String>,
    /// Whether layers take parameters that are there.
    is_sharing: bool,
    assigns: Vec<(TensorId, TensorId)>,
    outputs: Vec<(String, TensorId)>,
}

impl Graph {
    /// An empty graph.
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

    /// A tensor the host writes before every step.
    pub fn input(&mut self, name: &str, shape: impl Into<Shape>) -> TensorId {
        let name = self.scoped(name);
        self.push(Kind::Input, vec![], shape.into(), name)
    }

    /// A tensor that stays on the GPU between steps and is shared, by name, with other programs
    /// of the same store. Reading it gives the value from before the step. One of this name that is there is given again.
    ///
    /// # Errors
    /// [`Error::Shape`] if the name was used with another shape.
    pub fn state(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        role: Role,
        init: Init,
    ) -> Result<TensorId> {
        let (name, shape) = (self.scoped(name), shape.into());
        if let Some(&id) = self.states.get(&name) {
            if *self.shape(id) != shape {
                let message = format!("{name} is {} and cannot be {shape} too", self.shape(id));
                return Err(Error::shape("state", message));
            }
            return Ok(id);
        }
        if let Init::Values(values) = &init
            && values.len() != shape.len()
        {
            let message = format!("{} values for {name} {shape}", values.len());
            return Err(Error::shape("state", message));
        }
        let id = self.push(Kind::State(State { role, init }), vec![], shape, name);
        self.states.insert(self.node(id).name.clone(), id);
        Ok(id)
    }

    /// A learned tensor of one layer: a state with [`Role::Parameter`], made anew.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is one of this name, unless it was [`Graph::preset`] or is [`Graph::shared`]; else as
    /// [`Graph::state`].
    pub fn parameter(
        &mut self,
        name: &str,
        shape: impl Into<Shape>,
        init: Init,
    ) -> Result<TensorId> {
        self.made_once(name, shape.into(), Role::Parameter, init)
    }

    /// Running statistics of one layer: a state with [`Role::Buffer`], made anew.
    ///
    /// # Errors
    /// As [`Graph::parameter`].
    pub fn buffer(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<TensorId> {
        self.made_once(name, shape.into(), Role::Buffer, init)
    }

    /// Gives a parameter its first value before its layer is appended, which then takes it.
    ///
    /// # Errors
    /// As [`Graph::parameter`].
    pub fn preset(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<TensorId> {
        let id = self.parameter(name, shape, init)?;
        self.preset.insert(self.node(id).name.clone());
        Ok(id)
    }

    /// Runs `build`, in which layers take the parameters and running statistics of their names that are there: a network
    /// appended a second time, or one weight in two places.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn shared<T>(&mut self, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = std::mem::replace(&mut self.is_sharing, true);
        let result = build(self);
        self.is_sharing = before;
        result
    }

    fn made_once(&mut self, name: &str, shape: Shape, role: Role, init: Init) -> Result<TensorId> {
        let full = self.scoped(name);
        let may_be_there = self.preset.remove(&full) || self.is_sharing;
        if !may_be_there && self.states.contains_key(&full) {
            let message = "is there already: give each layer a scope of its own, g.scope(\"fc1\", |g| ...), or wrap those that \
                           are to have the same weights in g.shared(|g| ...)";
            return Err(Error::graph(full, message));
        }
        self.state(name, shape, role, init)
    }

    /// Gives `state` another first value; other tensors have none.
    pub fn set_init(&mut self, state: TensorId, init: Init) {
        if let Kind::State(state) = &mut self.nodes[state.index()].kind {
            state.init = init;
        }
    }

    /// Appends an op.
    ///
    /// # Errors
    /// [`Error::Shape`] with the names and shapes of all inputs.
    pub fn add(&mut self, op: impl Op, inputs: &[TensorId]) -> Result<TensorId> {
        self.add_arc(Arc::new(op), inputs)
    }

    /// Appends an op that is already shared.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn add_arc(&mut self, op: Arc<dyn Op>, inputs: &[TensorId]) -> Result<TensorId> {
        if let Some(foreign) = inputs.iter().find(|i| i.index() >= self.nodes.len()) {
            let message = format!("{foreign:?} is of another graph");
            return Err(Error::graph(op.name(), message));
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&i| self.shape(i)).collect();
        let shape = op.output_shape(&shapes).map_err(|message| {
            let tensors: Vec<String> = inputs
                .iter()
                .map(|&i| format!("{} {}", self.node(i).name, self.shape(i)))
                .collect();
            let place = self.scope.join(".");
            let place = if place.is_empty() {
                "the graph"
            } else {
                &place
            };
            Error::graph(
                op.name(),
                format!("{message} (in {place}; inputs: {})", tensors.join(", ")),
            )
        })?;
        let name = self.scoped(op.name());
        Ok(self.push(Kind::Op(op), inputs.to_vec(), shape, name))
    }

    /// Renames a computed tensor, for messages and labels.
    pub fn rename(&mut self, id: TensorId, name: &str) -> TensorId {
        let name = self.scoped(name);
        if matches!(self.nodes[id.index()].kind, Kind::Op(_)) {
            self.nodes[id.index()].name = name;
        }
        id
    }

    /// Puts `scope.` before the names of the computed tensors from the node at `first` on: for
    /// nodes that are made outside of the scope they belong to, as gradients are.
    pub fn move_into_scope(&mut self, first: usize, scope: &str) {
        for node in &mut self.nodes[first..] {
            if matches!(node.kind, Kind::Op(_)) {
                node.name = format!("{scope}.{}", node.name);
            }
        }
    }

    /// At the end of every step `state` takes the value of `value`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `state` is no state, is assigned twice, or the shapes differ.
    pub fn assign(&mut self, state: TensorId, value: TensorId) -> Result<()> {
        let (s, v) = (self.node(state), self.node(value));
        if !matches!(s.kind, Kind::State(_)) {
            return Err(Error::graph("assign", format!("{} is not a state", s.name)));
        }
        if s.shape != v.shape {
            let message = format!("{} {} takes {} {}", s.name, s.shape, v.name, v.shape);
            return Err(Error::shape("assign", message));
        }
        if self.assigns.iter().any(|(other, _)| *other == state) {
            return Err(Error::shape(
                "assign",
                format!("{} is assigned twice", s.name),
            ));
        }
        self.assigns.push((state, value));
        Ok(())
    }

    /// `id` is read back by the host after every step, under `name`.
    pub fn output(&mut self, name: &str, id: TensorId) {
        self.outputs.push((name.to_string(), id));
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

    /// Names made inside `build` start with `name.`.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<T>(
        &mut self,
        name: &str,
        build: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.scope.push(name.to_string());
        let mut result = build(self);
        // Which of the layers it was; ops say it themselves.
        if let Err(Error::Shape { message, .. } | Error::Graph { message, .. }) = &mut result
            && !message.contains("(in ")
        {
            *message += &format!(" (in {})", self.scope.join("."));
        }
        self.scope.pop();
        result
    }

    /// The same graph made anew node by node: `rewrite` gets the new graph, each old node and
    /// where the old nodes went, and says where this one goes (`None` leaves it out).
    /// States, assignments and outputs follow. For passes.
    ///
    /// # Errors
    /// Those of `rewrite`; [`Error::Shape`] if something needed was left out.
    pub fn rebuild(
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
    pub fn replace_ends(
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

    /// Appends a node as it is, with its inputs already those of this graph. For passes.
    pub fn copy_node(&mut self, node: &Node, inputs: Vec<TensorId>) -> TensorId {
        let (shape, name) = (node.shape.clone(), node.name.clone());
        self.push(node.kind.clone(), inputs, shape, name)
    }

    /// How many times each node is used, counting assignments and outputs.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        let used = self.nodes.iter().flat_map(|n| n.inputs.iter().copied());
        let kept = self.assigns.iter().map(|(_, value)| *value);
        let read = self.outputs.iter().map(|(_, id)| *id);
        for id in used.chain(kept).chain(read) {
            counts[id.index()] += 1;
        }
        counts
    }

    fn scoped(&self, name: &str) -> String {
        let mut parts = self.scope.clone();
        parts.push(name.to_string());
        parts.join(".")
    }

    fn push(&mut self, kind: Kind, inputs: Vec<TensorId>, shape: Shape, name: String) -> TensorId {
        let id = self.id(self.nodes.len());
        self.nodes.push(Node {
            kind,
            inputs,
            shape,
            name,
        });
        id
    }
}

/// Where the nodes of an old graph went, see [`Graph::rebuild`].
#[derive(Debug)]
pub struct Remap(Vec<Option<TensorId>>);

impl Remap {
    /// The new id of an old node.
    ///
    /// # Errors
    /// [`Error::Bug`] if a pass left it out.
    pub fn get(&self, old: TensorId) -> Result<TensorId> {
        self.0[old.index()].ok_or_else(|| Error::bug(format!("node {} is used but gone", old.0)))
    }

    /// The new ids of old nodes.
    ///
    /// # Errors
    /// As [`Remap::get`].
    pub fn all(&self, old: &[TensorId]) -> Result<Vec<TensorId>> {
        old.iter().map(|&id| self.get(id)).collect()
    }
}
