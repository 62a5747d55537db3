//! The mean of a tensor over the processes that train together. It is no kernel: the program hands the values to its
//! [`crate::ranks::Ranks`] in the middle of a step.
//! Bound: the network between the processes.

use crate::graph::{Cost, Op, Symmetry, Tensor};
use crate::shape::Shape;

/// See [`Tensor::rank_mean`].
#[derive(Debug, PartialEq)]
pub struct RankMean;

impl Tensor<'_> {
    /// The mean of this over the ranks of the run, number by number; with one process this itself, at the cost of a way through
    /// the host.
    ///
    /// Its gradient is the mean of the gradients: where every rank's loss is that of its part of the batch, and the gradients of
    /// the parameters are averaged at the end, they are those of the mean loss.
    #[must_use]
    #[track_caller]
    pub fn rank_mean(self) -> Self {
        self.apply(RankMean)
    }

    /// Statistics as the graph wants them: the mean over the ranks, or with one process, or if each rank has statistics of its
    /// own, this.
    #[must_use]
    #[track_caller]
    pub(crate) fn over_ranks(self) -> Self {
        match self.graph().among().sync_ranks() {
            1 => self,
            _ => self.rank_mean(),
        }
    }
}

impl Op for RankMean {
    fn name(&self) -> &'static str {
        "rank_mean"
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn gradient<'g>(&self, _: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        vec![Some(y_grad.rank_mean())]
    }

    fn cost(&self, inputs: &[&Shape], _: &Shape) -> Cost {
        Cost {
            flops: 0,
            bytes: 2 * inputs[0].size_bytes(),
        }
    }

    fn symmetry(&self) -> Symmetry {
        Symmetry::OfInputs
    }

    fn is_exchange(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradients::{Case, case, check};

    fn cases() -> Vec<Case> {
        let square = |x: &crate::ops::gradients::reference::Tensor| x.map(|v| 3.0 * v * v);
        vec![
            case(
                "rank_mean of a computed tensor",
                &[&[7, 11]],
                |x| x[0].square().rank_mean() * 3.0,
                move |x| square(&x[0]),
            ),
            case(
                "rank_mean of an input, of a view, twice",
                &[&[5, 3]],
                |x| {
                    let mean = x[0].reshape([15]).rank_mean().rank_mean();
                    mean.reshape([5, 3]) * x[0].rank_mean() * 3.0
                },
                move |x| square(&x[0]),
            ),
        ]
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("rank_mean", &cases());
    }

    /// Nothing is computed here: each number is read and written once.
    #[test]
    fn it_costs_a_way_there_and_back() {
        let x = Shape::from([7, 11]);
        let cost = RankMean.cost(&[&x], &x);
        assert_eq!((cost.flops, cost.bytes), (0, 2 * 4 * 77));
    }
}
