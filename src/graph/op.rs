//! The contract of an op, and the plain data it hands to the program: what to dispatch.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Graph, TensorId};
use crate::Result;
use crate::graph::pointwise::Pointwise;
use crate::shape::Shape;

/// One differentiable operation with one output. Implementors hold attributes only, no tensors;
/// their `Debug` text names op and attributes and is compared by common sub-expression elimination.
pub trait Op: fmt::Debug + Send + Sync + Any {
    /// File stem of the op and of its shader; label in descriptions.
    fn name(&self) -> &'static str;

    /// Shape of the output. The graph adds the tensors' names to the error.
    ///
    /// # Errors
    /// What does not fit, in words, without the op's name.
    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// Appends the nodes of this op's gradient: for each input, d(loss)/d(input), or `None` where
    /// none flows. `node` is the op's own output, `output_grad` has its shape.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] from the nodes built, or for an op without second derivatives.
    fn gradient(
        &self,
        g: &mut Graph,
        node: TensorId,
        output_grad: TensorId,
    ) -> Result<Vec<Option<TensorId>>>;

    /// Floating-point operations and bytes, for descriptions and bounds.
    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: output.len() as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    /// The dispatches that compute the output.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] where no dispatch within the limits exists.
    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered>;

    /// For element-wise ops: output element i as a function of the inputs' elements i. Such ops
    /// are dispatched, and fused, by generated WGSL.
    fn pointwise(&self) -> Option<Pointwise> {
        None
    }

    /// For ops that read every input element through an element-wise function first (reductions):
    /// that function, which the fusion pass may extend by [`Op::with_prologue`].
    fn prologue(&self) -> Option<&Pointwise> {
        None
    }

    /// The same op with another prologue.
    fn with_prologue(&self, _prologue: Pointwise) -> Option<Arc<dyn Op>> {
        None
    }

    /// Whether the output is symmetric in its last two dimensions. What this says spares gradients of
    /// symmetric matrices their transposes.
    fn symmetry(&self) -> Symmetry {
        match self.pointwise() {
            Some(_) => Symmetry::OfInputs,
            None => Symmetry::Unknown,
        }
    }

    /// True if the output is the first input's storage under another shape.
    fn is_view(&self) -> bool {
        false
    }
}

/// What an op knows of the symmetry of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symmetry {
    /// Symmetric, by definition.
    Certain,
    /// Symmetric if all inputs are.
    OfInputs,
    /// Nothing.
    Unknown,
}

/// Work of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations (a multiply-add counts two).
    pub flops: u64,
    /// Bytes read and written if every input is read once and every output written once.
    pub bytes: u64,
}

/// What an op may know while it chooses its kernels.
#[derive(Debug)]
pub struct Lowering<'a> {
    /// Shapes of the inputs.
    pub inputs: &'a [&'a Shape],
    /// Shape of the output.
    pub output: &'a Shape,
    /// The input that shares the output's storage, where the update is made in place.
    pub in_place: Option<usize>,
    /// Choices made for the adapter.
    pub variants: Variants,
}

/// Kernel choices for an adapter, see `passes::select_variant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variants {
    /// Barrier-free register-blocked kernels (for CPU adapters) in place of shared-memory tiles.
    pub direct: bool,
    /// Subgroups exist and have 8 invocations, neither more nor less: `direct` kernels may share
    /// loads by broadcasts.
    pub subgroups_of_8: bool,
}

/// The dispatches of one node and the scratch memory that lives while they run.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Elements (f32) of each scratch tensor.
    pub scratch: Vec<usize>,
}

impl From<Dispatch> for Lowered {
    fn from(dispatch: Dispatch) -> Self {
        Self {
            dispatches: vec![dispatch],
            scratch: Vec::new(),
        }
    }
}

/// One dispatch of one kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The WGSL to run.
    pub kernel: Kernel,
    /// Words of the uniform struct at binding 0; floats as their bits. Never empty.
    pub params: Vec<u32>,
    /// Storage at bindings 1, 2, ...: inputs first, outputs last.
    pub bindings: Vec<Slot>,
    /// Workgroups in x, y, z, each at most 65 535 (see [`fold_workgroups`]).
    pub workgroups: [u32; 3],
}

/// A WGSL entry point with its constants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// File stem, or what generated it.
    pub name: &'static str,
    /// WGSL before `#import` and constants are put in.
    pub source: Cow<'static, str>,
    /// Entry point.
    pub entry: &'static str,
    /// Values for the file's `const NAME: u32 = ...;` lines.
    pub constants: Vec<(&'static str, u32)>,
}

/// A tensor of the node as a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The node's i-th input.
    Input(usize),
    /// The node's output.
    Output,
    /// The node's i-th scratch tensor.
    Scratch(usize),
}

/// Largest number of workgroups in one dimension (WebGPU's default limit).
pub const MAX_WORKGROUPS: u32 = 65_535;

/// Folds a number of workgroups into x and y. The shader, with `#import grid`, gets the linear
/// number back and must ignore those past the end.
pub fn fold_workgroups(workgroups: usize) -> [u32; 3] {
    let count = u32::try_from(workgroups.max(1)).unwrap_or(u32::MAX);
    if count <= MAX_WORKGROUPS {
        return [count, 1, 1];
    }
    let y = count.div_ceil(MAX_WORKGROUPS);
    [count.div_ceil(y), y, 1]
}

/// `value` as a word of the uniform struct.
///
/// # Errors
/// [`crate::Error::Limit`] if it does not fit 32 bits.
pub fn word(value: usize) -> Result<u32> {
    u32::try_from(value)
        .map_err(|_| crate::Error::Limit(format!("{value} does not fit the shaders' 32-bit index")))
}
