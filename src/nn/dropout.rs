//! Dropout (Srivastava et al., 2014).

use super::Mode;
use crate::graph::{Graph, Init, Role, TensorId};
use crate::ops::{affine, greater_than_zero, mul, random_uniform, scale};
use crate::{Error, Result};

/// In training, sets each value to zero with probability `p` and divides the others by 1 - `p`; in
/// evaluation nothing, as PyTorch's.
///
/// State: `counter` `[1]`, which begins at a number that follows from the store's seed and its own
/// name and grows by one each step: a resumed run drops the same values.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// From 0 to below 1.
    pub p: f32,
}

impl Dropout {
    /// `x` of any shape.
    ///
    /// # Errors
    /// [`Error::Graph`] if `p` is not in [0, 1).
    pub fn forward(&self, g: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        if !(0.0..1.0).contains(&self.p) {
            let message = format!("p {} is not in [0, 1)", self.p);
            return Err(Error::graph("dropout", message));
        }
        if mode == Mode::Eval || self.p == 0.0 {
            return Ok(x);
        }
        // Whole steps of 1 change the bits of every float below 2^24 in size.
        let counter = g.state("counter", [1], Role::Optimizer, Init::Uniform(1e6))?;
        let next = affine(g, counter, 1.0, 1.0)?;
        g.assign(counter, next)?;
        let shape = g.shape(x).clone();
        let uniform = random_uniform(g, counter, shape)?;
        // Kept where uniform >= p; the numbers are multiples of 2^-24.
        let above = affine(g, uniform, 1.0, -self.p + 0.5 / (1 << 24) as f32)?;
        let kept = greater_than_zero(g, above)?;
        let kept = scale(g, kept, 1.0 / (1.0 - self.p))?;
        mul(g, x, kept)
    }
}
