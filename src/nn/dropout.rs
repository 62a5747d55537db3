//! Dropout (Srivastava et al., 2014).

use super::{Layer, Mode};
use crate::Error;
use crate::graph::{Init, Role, Tensor};

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
    /// Drops with probability `p`, from 0 to below 1.
    #[must_use]
    pub const fn new(p: f32) -> Self {
        Self { p }
    }
}

impl Layer for Dropout {
    /// `x` of any shape.
    ///
    /// Fails with [`Error::Graph`] if `p` is not in [0, 1).
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        let (g, p) = (x.graph(), self.p);
        if !(0.0..1.0).contains(&p) {
            g.fail(Error::graph("dropout", format!("p {p} is not in [0, 1)")));
            return x;
        }
        if mode == Mode::Eval || p == 0.0 {
            return x;
        }
        // Whole steps of 1 change the bits of every float below 2^24 in size.
        let counter = g.state("counter", [1], Role::Optimizer, Init::Uniform(1e6));
        // Each rank counts what all of them use, and uses its own.
        let among = g.among();
        counter.assign(counter + among.ranks as f32);
        let own = match among.ranks {
            1 => counter,
            _ => counter + among.rank as f32,
        };
        let uniform = own.random_uniform(x.shape());
        // Kept where uniform >= p; the numbers are multiples of 2^-24.
        let kept = (uniform - (p - 0.5 / (1 << 24) as f32)).greater_than_zero();
        x * (kept * (1.0 / (1.0 - p)))
    }
}
