//! A computation as it is written: tensors that carry their graph, so that formulas nest. Building one runs nothing and
//! needs no GPU.
//!
//! What does not fit is not answered at once: the graph keeps its first error, with the place in the source, and goes on
//! with a tensor that stands in. [`Graph::check`] and [`crate::program::Program::compile`] give the error.
//!
//! Names no concrete op: those are in [`crate::ops`].

mod dot;
mod list;
pub mod op;
pub mod pointwise;
mod tensor;
pub mod tiles;
mod variants;

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;

use crate::shape::Shape;
use crate::{Error, Result};
pub use list::{Init, Kind, Node, NodeList, Role, State, TensorId};
pub use op::{Cost, Op, Symmetry};
pub use tensor::Tensor;

/// A computation over tensors of static shape, while it is written.
#[derive(Debug, Default)]
pub struct Graph {
    list: RefCell<NodeList>,
    scope: RefCell<Vec<String>>,
    /// Parameters that were given a first value and are not yet a layer's.
    preset: RefCell<BTreeSet<String>>,
    /// Whether layers take parameters that are there.
    is_sharing: Cell<bool>,
    error: RefCell<FirstError>,
    among: Cell<Among>,
}

/// Which of the processes that train together a graph is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Among {
    /// The number of the process, from 0.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Whether statistics of layers are those of all ranks' images, and not of the rank's own.
    pub sync_stats: bool,
}

impl Default for Among {
    /// One process.
    fn default() -> Self {
        Self {
            rank: 0,
            ranks: 1,
            sync_stats: false,
        }
    }
}

impl Among {
    /// Over how many ranks statistics are taken.
    pub fn sync_ranks(self) -> usize {
        match self.sync_stats {
            true => self.ranks,
            false => 1,
        }
    }
}

/// The first error of a graph.
#[derive(Debug, Default)]
enum FirstError {
    #[default]
    None,
    Kept(Error),
    /// Given to somebody; this is its text.
    Given(String),
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of one of several processes.
    pub fn of_rank(among: Among) -> Self {
        let graph = Self::new();
        graph.among.set(among);
        graph
    }

    /// Which process it is of.
    pub fn among(&self) -> Among {
        self.among.get()
    }

    /// The nodes so far. They must not be held while the graph grows.
    pub fn list(&self) -> Ref<'_, NodeList> {
        self.list.borrow()
    }

    /// The first error, if anything that was built does not fit. Asked again, it says so with the same text.
    ///
    /// # Errors
    /// [`Error::Graph`] or [`Error::Shape`] as a rule, with the scope and the place in the source.
    pub fn check(&self) -> Result<()> {
        let mut slot = self.error.borrow_mut();
        match std::mem::take(&mut *slot) {
            FirstError::None => Ok(()),
            FirstError::Kept(error) => {
                *slot = FirstError::Given(error.to_string());
                Err(error)
            }
            FirstError::Given(text) => {
                *slot = FirstError::Given(text.clone());
                Err(Error::graph(
                    "graph",
                    format!("had this error before: {text}"),
                ))
            }
        }
    }

    /// Whether there was an error.
    pub fn has_failed(&self) -> bool {
        !matches!(*self.error.borrow(), FirstError::None)
    }

    /// The nodes, if all is well: what a program is made of.
    ///
    /// # Errors
    /// Those of [`Graph::check`].
    pub fn checked(&self) -> Result<Ref<'_, NodeList>> {
        self.check()?;
        Ok(self.list())
    }

    /// Keeps `error` if it is the first, with the scope and the caller's place in the source, if that is not decorr's.
    #[track_caller]
    pub fn fail(&self, mut error: Error) {
        let mut slot = self.error.borrow_mut();
        if !matches!(*slot, FirstError::None) {
            return;
        }
        if let Error::Shape { message, .. } | Error::Graph { message, .. } = &mut error {
            let scope = self.scope.borrow().join(".");
            let caller = Location::caller();
            let own_source = file!().trim_end_matches("graph/mod.rs");
            let mut places = Vec::new();
            if !scope.is_empty() {
                places.push(format!("in {scope}"));
            }
            // A line of this crate tells the user nothing.
            if !caller.file().starts_with(own_source) {
                places.push(format!("at {}:{}", caller.file(), caller.line()));
            }
            if !places.is_empty() {
                *message += &format!(" ({})", places.join(", "));
            }
        }
        *slot = FirstError::Kept(error);
    }

    /// Runs `build` and gives the first error in it, which is then not the graph's: what was built of it must not be used.
    ///
    /// # Errors
    /// The first one of `build`, whether the graph has failed before or not.
    pub fn attempt<T>(&self, build: impl FnOnce() -> T) -> Result<T> {
        let before = self.error.take();
        let result = build();
        let outcome = match self.error.take() {
            FirstError::Kept(error) => Err(error),
            FirstError::None | FirstError::Given(_) => Ok(result),
        };
        self.error.replace(before);
        outcome
    }

    /// A tensor the host writes before every step.
    pub fn input(&self, name: &str, shape: impl Into<Shape>) -> Tensor<'_> {
        let name = self.scoped(name);
        self.push(Kind::Input, vec![], shape.into(), name)
    }

    /// A tensor that stays on the GPU between steps and is shared, by name, with other programs
    /// of the same store. Reading it gives the value from before the step. One of this name that is there is given again.
    ///
    /// Fails with [`Error::Shape`] if the name was used with another shape.
    #[track_caller]
    pub fn state(&self, name: &str, shape: impl Into<Shape>, role: Role, init: Init) -> Tensor<'_> {
        let (name, shape) = (self.scoped(name), shape.into());
        let there = self.list().states().get(&name).copied();
        if let Some(there) = there.map(|id| self.tensor(id)) {
            if there.shape() == shape {
                return there;
            }
            let message = format!("{name} is {} and cannot be {shape} too", there.shape());
            self.fail(Error::shape("state", message));
        }
        if let Init::Values(values) = &init
            && values.len() != shape.len()
        {
            let message = format!("{} values for {name} {shape}", values.len());
            self.fail(Error::shape("state", message));
        }
        let state = self.push(Kind::State(State { role, init }), vec![], shape, name);
        self.list.borrow_mut().keep_state(state.id());
        state
    }

    /// A learned tensor of one layer: a state with [`Role::Parameter`], made anew.
    ///
    /// Fails with [`Error::Graph`] if there is one of this name, unless it was [`Graph::preset`] or is [`Graph::shared`];
    /// else as [`Graph::state`].
    #[track_caller]
    pub fn parameter(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor<'_> {
        self.made_once(name, shape.into(), Role::Parameter, init)
    }

    /// Running statistics of one layer: a state with [`Role::Statistic`], made anew.
    ///
    /// Fails as [`Graph::parameter`].
    #[track_caller]
    pub fn statistic(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor<'_> {
        self.made_once(name, shape.into(), Role::Statistic, init)
    }

    /// Gives a parameter its first value before its layer is appended, which then takes it.
    ///
    /// Fails as [`Graph::parameter`].
    #[track_caller]
    pub fn preset(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Tensor<'_> {
        let parameter = self.parameter(name, shape, init);
        self.preset.borrow_mut().insert(parameter.name());
        parameter
    }

    /// Runs `build`, in which layers take the parameters and running statistics of their names that are there: a network
    /// appended a second time, or one weight in two places.
    pub fn shared<T>(&self, build: impl FnOnce() -> T) -> T {
        let before = self.is_sharing.replace(true);
        let result = build();
        self.is_sharing.set(before);
        result
    }

    #[track_caller]
    fn made_once(&self, name: &str, shape: Shape, role: Role, init: Init) -> Tensor<'_> {
        let full = self.scoped(name);
        let may_be_there = self.preset.borrow_mut().remove(&full) || self.is_sharing.get();
        if !may_be_there && self.list().states().contains_key(&full) {
            let message = "is there already: give each layer a scope of its own, g.scope(\"fc1\", || ...), or wrap those that \
                           are to have the same weights in g.shared(|| ...)";
            self.fail(Error::graph(full, message));
        }
        self.state(name, shape, role, init)
    }

    /// Gives the states made since the graph had `first` nodes the first values that `init` has for their names.
    pub(crate) fn set_init(&self, first: usize, init: impl Fn(&str) -> Option<Init>) {
        for node in &mut self.list.borrow_mut().nodes_mut()[first..] {
            if let (Kind::State(state), Some(init)) = (&mut node.kind, init(&node.name)) {
                state.init = init;
            }
        }
    }

    /// Appends an op. The functions of [`crate::ops`] do so for the ops there are.
    ///
    /// Fails with [`Error::Graph`], with the names and shapes of all inputs, if the op refuses them; the first input, or a
    /// single number, stands in for the result.
    #[track_caller]
    pub fn add<'g>(&'g self, op: impl Op, inputs: &[Tensor<'g>]) -> Tensor<'g> {
        // One function for all ops, which is compiled once.
        self.add_shared(Arc::new(op), inputs)
    }

    #[track_caller]
    fn add_shared<'g>(&'g self, op: Arc<dyn Op>, inputs: &[Tensor<'g>]) -> Tensor<'g> {
        let name = op.name();
        if inputs.iter().any(|x| !std::ptr::eq(x.graph(), self)) {
            self.fail(Error::graph(name, "an input is a tensor of another graph"));
            return self.push(Kind::Input, vec![], Shape::default(), name.into());
        }
        let ids: Vec<TensorId> = inputs.iter().map(|x| x.id()).collect();
        let shape = self.list().output_shape(op.as_ref(), &ids);
        match shape {
            Ok(shape) => self.push(Kind::Op(op), ids, shape, self.scoped(name)),
            Err(message) => {
                let inputs_text: Vec<String> = inputs.iter().map(|x| format!("{x:?}")).collect();
                let message = format!("{message} (inputs: {})", inputs_text.join(", "));
                self.fail(Error::graph(name, message));
                match inputs.first() {
                    Some(&first) => first,
                    None => self.push(Kind::Input, vec![], Shape::default(), name.into()),
                }
            }
        }
    }

    /// `tensor` is a result of every step, under `name`: `Program::run` and `step` read it back, after `record` it stays on
    /// the device.
    pub fn output(&self, name: &str, tensor: Tensor<'_>) {
        self.list.borrow_mut().push_output(name, tensor.id());
    }

    /// Learned tensors, in the order they were made.
    pub fn parameters(&self) -> Vec<Tensor<'_>> {
        let ids = self.list().parameters();
        ids.into_iter().map(|id| self.tensor(id)).collect()
    }

    /// Names made inside `build` start with `name.`.
    pub fn scope<T>(&self, name: &str, build: impl FnOnce() -> T) -> T {
        self.scope.borrow_mut().push(name.to_string());
        let result = build();
        self.scope.borrow_mut().pop();
        result
    }

    /// The tensor of a node.
    pub fn tensor(&self, id: TensorId) -> Tensor<'_> {
        Tensor::new(self, id)
    }

    /// Puts `scope.` before the names of the computed tensors from the node at `first` on: for
    /// nodes that are made outside of the scope they belong to, as gradients are.
    pub(crate) fn move_into_scope(&self, first: usize, scope: &str) {
        for node in &mut self.list.borrow_mut().nodes_mut()[first..] {
            if matches!(node.kind, Kind::Op(_)) {
                node.name = format!("{scope}.{}", node.name);
            }
        }
    }

    fn scoped(&self, name: &str) -> String {
        let scope = self.scope.borrow();
        let parts = scope.iter().map(String::as_str).chain([name]);
        parts.collect::<Vec<_>>().join(".")
    }

    fn push(&self, kind: Kind, inputs: Vec<TensorId>, shape: Shape, name: String) -> Tensor<'_> {
        let id = self.list.borrow_mut().push(kind, inputs, shape, name);
        self.tensor(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_comes_out_with_its_scope() {
        let g = Graph::new();
        let (x, y) = (g.input("x", [2, 3]), g.input("y", [4, 5]));
        let sum = g.scope("block", || g.scope("norm", || x + y));
        // It goes on with what stands in, and keeps the first.
        let _ = sum.matmul(y).reshape([7]).slice(9, 0, 1, 1);
        let error = g.check().unwrap_err().to_string();
        for part in ["add:", "x [2, 3]", "y [4, 5]", "in block.norm"] {
            assert!(error.contains(part), "{error}");
        }
        // An error that was given is not forgotten.
        let again = g.check().unwrap_err().to_string();
        assert!(again.contains(&error), "{again}");
        assert!(g.has_failed() && g.checked().is_err());
    }

    #[test]
    fn an_attempt_takes_its_error_out() {
        let g = Graph::new();
        let x = g.input("x", [2, 3]);
        let error = g.attempt(|| x.reshape([7])).unwrap_err().to_string();
        assert!(error.contains("6 elements"), "{error}");
        assert_eq!(g.attempt(|| x.reshape([6])).unwrap().dims(), [6]);
        g.check().unwrap();
    }

    #[test]
    fn tensors_of_another_graph_are_refused() {
        let (g, other) = (Graph::new(), Graph::new());
        let (x, y) = (g.input("x", [2]), other.input("y", [2]));
        let _ = x + y;
        let error = g.check().unwrap_err().to_string();
        assert!(error.contains("another graph"), "{error}");
        other.check().unwrap();
    }

    #[test]
    fn sizes_of_another_rank_are_an_error_and_ones() {
        let g = Graph::new();
        let x = g.input("x", [2, 3]);
        let [n, c, h, w] = x.dims();
        assert_eq!([n, c, h, w], [1; 4]);
        let error = g.check().unwrap_err().to_string();
        assert!(error.contains("2 dimensions and not 4"), "{error}");
    }

    #[test]
    fn what_is_shared_within_shared_ends_with_the_outer_one() {
        let g = Graph::new();
        let made = || g.parameter("w", [2], Init::Constant(1.0));
        let first = made();
        let again = g.shared(|| {
            g.shared(made);
            made()
        });
        assert_eq!(first.id(), again.id());
        g.check().unwrap();
        made();
        let error = g.check().unwrap_err().to_string();
        assert!(error.contains("w") && error.contains("g.shared"), "{error}");
    }

    /// One too few, and one too many.
    #[test]
    fn first_values_are_as_many_as_the_shape_has() {
        for (count, is_right) in [(5, false), (6, true), (7, false)] {
            let g = Graph::new();
            g.parameter("w", [2, 3], Init::Values(vec![0.0; count].into()));
            let found = g.check();
            assert_eq!(found.is_ok(), is_right, "{count}: {found:?}");
            if let Err(error) = found {
                let wanted = format!("{count} values for w [2, 3]");
                assert!(error.to_string().contains(&wanted), "{error}");
            }
        }
    }

    /// As an op's input, as a state's next value, as an output: a pass that takes one for the only use of three loses two.
    #[test]
    fn every_use_is_counted() {
        let g = Graph::new();
        let x = g.input("x", [2]);
        let w = g.parameter("w", [2], Init::Constant(0.0));
        let sum = x + x;
        w.assign(sum);
        g.output("sum", sum);
        g.output("sum again", sum);
        let _ = sum.relu();
        let counts = g.list().use_counts();
        let count = |of: Tensor<'_>| counts[of.id().index()];
        assert_eq!((count(x), count(w), count(sum)), (2, 0, 4));
    }

    /// Word for word, each by the operation that was asked for.
    #[test]
    fn what_a_tensor_is_not_made_for_is_refused() {
        type Use = for<'g> fn(&'g Graph, Tensor<'g>);
        let table: [(Use, &str); 5] = [
            (
                |_, x| assert_eq!(x.size(2), 1),
                "shape mismatch in size: x [2, 3] has no dimension 2",
            ),
            (
                |_, x| {
                    let y = x.relu();
                    assert_eq!(y.inputs(), [y; 2]);
                },
                "relu [2, 3] has 1 inputs and not 2. This is a bug of decorr: please report it with the command and \
                 this line",
            ),
            (|_, x| x.assign(x), "assign: x [2, 3] is not a state"),
            (
                |g, x| {
                    g.state("w", [3, 2], Role::Statistic, Init::Constant(0.0))
                        .assign(x);
                },
                "shape mismatch in assign: w [3, 2] takes x [2, 3]",
            ),
            (
                |g, _| {
                    let w = |shape| g.state("w", shape, Role::Statistic, Init::Constant(0.0));
                    assert_eq!(w([3, 2]), w([3, 2]));
                    g.check().unwrap();
                    w([2, 3]);
                },
                "shape mismatch in state: w is [3, 2] and cannot be [2, 3] too",
            ),
        ];
        for (used, wanted) in table {
            let g = Graph::new();
            used(&g, g.input("x", [2, 3]));
            assert_eq!(g.check().unwrap_err().to_string(), wanted);
        }
        // A pass, which has a list and no graph, is told the same.
        let g = Graph::new();
        let (x, y) = (g.input("x", [2]), g.input("y", [3]));
        let added = g
            .list
            .borrow_mut()
            .add(crate::ops::Binary::Add, &[x.id(), y.id()]);
        let text = added.unwrap_err().to_string();
        assert_eq!(text, "add: [2] and [3] do not broadcast");
    }

    /// A single number is, however many dimensions it has.
    #[test]
    fn a_tensor_is_symmetric_or_empty_by_its_shape() {
        for (shape, is_symmetric, is_empty) in [
            (vec![], true, false),
            (vec![1], true, false),
            (vec![2], false, false),
            (vec![3, 1, 1], true, false),
            (vec![2, 2], false, false),
            (vec![2, 0], false, true),
        ] {
            let g = Graph::new();
            let x = g.input("x", shape);
            assert_eq!(
                (x.is_symmetric(), x.is_empty()),
                (is_symmetric, is_empty),
                "{x:?}"
            );
        }
    }
}
