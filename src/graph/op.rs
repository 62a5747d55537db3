//! The contract of an op, and the plain data it hands to the program: what to dispatch.
//!
//! Unstable: may change in any release.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Tensor;
pub use super::variants::Variants;
use crate::graph::pointwise::Pointwise;
use crate::shape::Shape;
use crate::{Error, Result};

/// One differentiable operation with one output. Implementors hold attributes only, no tensors. Two that are equal compute
/// the same of the same inputs: common sub-expressions are found by `PartialEq`, which [`Same`] demands of every op.
pub trait Op: fmt::Debug + Send + Sync + Any + Same {
    /// What it is called in messages, labels and descriptions. Its file may have several ops, as `relu` and `exp` are in
    /// `src/ops/unary.rs`.
    fn name(&self) -> &'static str;

    /// Shape of the output. The graph adds the tensors' names to the error.
    ///
    /// # Errors
    /// What does not fit, in words, without the op's name.
    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// Appends the nodes of this op's gradient: for each input, d(loss)/d(input), or `None` where
    /// none flows. `y` is the op's own output, `y_grad` has its shape. An op without second derivatives fails the graph.
    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>>;

    /// Floating-point operations and bytes, for descriptions and bounds.
    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        Cost {
            flops: output.len() as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    /// The dispatches that compute the output. Views and element-wise ops have none of their own: nobody asks them.
    ///
    /// # Errors
    /// [`Error::Limit`] where no dispatch within the limits exists; [`Error::Bug`] of an op that is neither and forgot it.
    fn lower(&self, _ctx: &Lowering<'_>) -> Result<Lowered> {
        Err(Error::bug(format!("the op {} has no kernel", self.name())))
    }

    /// For element-wise ops: output element i as a function of the inputs' elements i. Such ops
    /// are dispatched, and fused, by generated WGSL, and not by [`Op::lower`].
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

    /// True if the output is the first input's storage, under another shape or for another gradient. It takes no kernel.
    fn is_view(&self) -> bool {
        false
    }

    /// True if the program has the output from the other ranks: the sum of their inputs, divided by their number. It takes no
    /// kernel.
    fn is_exchange(&self) -> bool {
        false
    }
}

/// Equality of ops of unknown kinds. Ops have it by `#[derive(PartialEq)]`, and do not compile without.
pub trait Same {
    /// Whether `other` is of this kind and equal.
    fn is_same(&self, other: &dyn Any) -> bool;
}

impl<T: Op + PartialEq> Same for T {
    fn is_same(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
}

impl PartialEq for dyn Op {
    fn eq(&self, other: &Self) -> bool {
        // 0 and -0 are equal numbers, but not in the text of a program.
        self.is_same(other) && self.pointwise() == other.pointwise()
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
    /// Choices made for the adapter.
    pub variants: Variants,
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
    /// The uniform struct at binding 0.
    pub params: Params,
    /// Storage at bindings 1, 2, ...: inputs first, outputs last.
    pub bindings: Vec<Slot>,
    /// How much of it runs.
    pub grid: Grid,
}

/// How many invocations or workgroups a dispatch has at least; see [`fold_workgroups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// So many invocations, in workgroups of the size that stands in the shader.
    Invocations(usize),
    /// So many workgroups.
    Workgroups(usize),
}

/// Values for the members of a kernel's uniform struct, by name. All need one but those whose names begin with `_`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(BTreeMap<&'static str, Vec<u32>>);

impl Params {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this value of the member `name`.
    ///
    /// # Errors
    /// [`Error::Limit`] if it does not fit 32 bits.
    pub fn with(mut self, name: &'static str, value: impl Param) -> Result<Self> {
        self.set(name, value)?;
        Ok(self)
    }

    /// Gives the member `name` this value.
    ///
    /// # Errors
    /// As [`Params::with`].
    pub fn set(&mut self, name: &'static str, value: impl Param) -> Result<()> {
        self.0.insert(name, value.words()?);
        Ok(())
    }

    /// Names and words.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.0.iter().map(|(name, words)| (*name, words.as_slice()))
    }
}

/// What a member of a uniform struct can be set to: a number, or those of a vector.
pub trait Param {
    /// Its words; floats as their bits.
    ///
    /// # Errors
    /// [`Error::Limit`] if a number does not fit 32 bits.
    fn words(self) -> Result<Vec<u32>>;
}

impl Param for usize {
    fn words(self) -> Result<Vec<u32>> {
        Ok(vec![word(self)?])
    }
}

impl Param for f32 {
    fn words(self) -> Result<Vec<u32>> {
        Ok(vec![self.to_bits()])
    }
}

impl<const N: usize> Param for [usize; N] {
    fn words(self) -> Result<Vec<u32>> {
        self.into_iter().map(word).collect()
    }
}

impl<const N: usize> Param for [i64; N] {
    fn words(self) -> Result<Vec<u32>> {
        self.into_iter().map(signed_word).collect()
    }
}

impl Param for Vec<u32> {
    fn words(self) -> Result<Vec<u32>> {
        Ok(self)
    }
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

/// `value` as a word of a uniform struct, or a constant.
///
/// # Errors
/// [`Error::Limit`] if it does not fit 32 bits.
pub fn word(value: usize) -> Result<u32> {
    u32::try_from(value)
        .map_err(|_| Error::Limit(format!("{value} does not fit the shaders' 32-bit index")))
}

/// `value` as a word, in two's complement.
///
/// # Errors
/// [`Error::Limit`] if it does not fit 32 bits.
pub fn signed_word(value: i64) -> Result<u32> {
    i32::try_from(value)
        .map(i32::cast_unsigned)
        .map_err(|_| Error::Limit(format!("{value} does not fit the shaders' 32-bit index")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In rows of about the same length: what lies past the end is run for nothing.
    #[test]
    fn workgroups_are_folded_into_as_few_rows_as_hold_them() {
        for (count, wanted) in [
            (0, [1, 1, 1]),
            (7, [7, 1, 1]),
            (65_535, [65_535, 1, 1]),
            (65_536, [32_768, 2, 1]),
            (131_071, [43_691, 3, 1]),
        ] {
            assert_eq!(fold_workgroups(count), wanted, "{count}");
        }
    }
}
