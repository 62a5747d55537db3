//! Matrix products, batched, with transposed operands: C = alpha * op(A) op(B) + diag * I + bias.
//!
//! Bound: 2 m n k operations a batch element, half of them for a symmetric C. The kernels are
//! [`contraction`]'s.

use crate::graph::op::{Lowered, Lowering, Slot};
use crate::graph::{Cost, Op, Symmetry, Tensor};
use crate::ops::contraction::{Bias, Contraction};
use crate::shape::Shape;
use crate::{Error, Result};

/// Which operands are transposed (their last two dimensions exchanged).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transpose {
    /// A is stored as [k, m].
    pub a: bool,
    /// B is stored as [n, k].
    pub b: bool,
}

/// What [`Tensor::matmul_with`] computes beside the bare product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatMul {
    /// Which operands are transposed.
    pub transpose: Transpose,
    /// Factor of the product.
    pub alpha: f32,
    /// Added to the diagonal.
    pub diag: f32,
    /// C is known to be symmetric: only what is on and below the diagonal is computed (of the bias
    /// too, where it is a matrix), and mirrored.
    pub symmetric: bool,
    /// B is symmetric, and only the symmetric part of its gradient is wanted: that is computed as two
    /// products by half, the work of one, and nothing is transposed. Not with transposed operands.
    pub b_is_symmetric: bool,
}

impl Default for MatMul {
    fn default() -> Self {
        Self {
            transpose: Transpose::default(),
            alpha: 1.0,
            diag: 0.0,
            symmetric: false,
            b_is_symmetric: false,
        }
    }
}

impl From<Transpose> for MatMul {
    fn from(transpose: Transpose) -> Self {
        Self {
            transpose,
            ..Self::default()
        }
    }
}

/// Products; all fail if the sizes do not fit.
impl Tensor<'_> {
    /// A B: this, [m, k], times `b` [k, n], or batched: [batch, m, k] times [batch, k, n], where a batch of 1
    /// serves all.
    #[must_use]
    #[track_caller]
    pub fn matmul(self, b: Self) -> Self {
        self.matmul_with(b, None, MatMul::default())
    }

    /// A B^T, `b` stored as [n, k].
    #[must_use]
    #[track_caller]
    pub fn matmul_t(self, b: Self) -> Self {
        self.matmul_with(b, None, Transpose { a: false, b: true })
    }

    /// A^T B, this stored as [k, m].
    #[must_use]
    #[track_caller]
    pub fn t_matmul(self, b: Self) -> Self {
        self.matmul_with(b, None, Transpose { a: true, b: false })
    }

    /// alpha * op(A) op(B) + diag * I + `bias`, in one kernel. The bias is one value a column, `[n]`,
    /// or of the shape of the result.
    #[must_use]
    #[track_caller]
    pub fn matmul_with(self, b: Self, bias: Option<Self>, op: impl Into<MatMul>) -> Self {
        let inputs: Vec<Self> = [self, b].into_iter().chain(bias).collect();
        self.graph().add(op.into(), &inputs)
    }
}

/// Sizes of one product.
struct ProductSizes {
    batch: [usize; 2],
    m: usize,
    n: usize,
    k: usize,
    batched: bool,
}

impl ProductSizes {
    fn output(&self) -> Shape {
        if self.batched {
            [self.batch[0].max(self.batch[1]), self.m, self.n].into()
        } else {
            [self.m, self.n].into()
        }
    }
}

impl MatMul {
    fn sizes(&self, inputs: &[&Shape]) -> Result<ProductSizes, String> {
        let (a, b) = (inputs[0], inputs[1]);
        let split = |s: &Shape| match *s.dims() {
            [rows, columns] => Ok((1, rows, columns)),
            [batch, rows, columns] => Ok((batch, rows, columns)),
            _ => Err(format!("{s} is neither a matrix nor a batch of matrices")),
        };
        let (a_batch, a_rows, a_columns) = split(a)?;
        let (b_batch, b_rows, b_columns) = split(b)?;
        let (m, k) = if self.transpose.a {
            (a_columns, a_rows)
        } else {
            (a_rows, a_columns)
        };
        let (b_k, n) = if self.transpose.b {
            (b_columns, b_rows)
        } else {
            (b_rows, b_columns)
        };
        if k != b_k {
            return Err(format!(
                "{k} columns of op(A) do not meet {b_k} rows of op(B)"
            ));
        }
        if a.rank() != b.rank() || (a_batch != b_batch && a_batch != 1 && b_batch != 1) {
            return Err(format!("batches of {a} and {b} differ"));
        }
        if self.b_is_symmetric && (b_rows != b_columns || self.transpose != Transpose::default()) {
            return Err(format!("B {b} is not symmetric, or an operand transposed"));
        }
        if self.symmetric && m != n {
            return Err(format!("a result of {m} x {n} is not symmetric"));
        }
        let sizes = ProductSizes {
            batch: [a_batch, b_batch],
            m,
            n,
            k,
            batched: a.rank() == 3,
        };
        if let Some(&bias) = inputs.get(2)
            && bias.dims() != [n]
            && *bias != sizes.output()
        {
            let output = sizes.output();
            return Err(format!("the bias {bias} is neither [{n}] nor {output}"));
        }
        Ok(sizes)
    }
}

/// The symmetric part of `alpha` `a`^T `c_grad`: (a^T c' + c'^T a) `alpha` / 2, each by half.
pub(super) fn symmetric_part<'g>(a: Tensor<'g>, c_grad: Tensor<'g>, alpha: f32) -> Tensor<'g> {
    let op = MatMul {
        alpha: alpha / 2.0,
        symmetric: true,
        ..Transpose { a: true, b: false }.into()
    };
    let first = a.matmul_with(c_grad, None, op);
    c_grad.matmul_with(a, Some(first), op)
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn symmetry(&self) -> Symmetry {
        match self.symmetric {
            true => Symmetry::Certain,
            false => Symmetry::Unknown,
        }
    }

    fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(self.sizes(inputs)?.output())
    }

    fn gradient<'g>(&self, y: Tensor<'g>, y_grad: Tensor<'g>) -> Vec<Option<Tensor<'g>>> {
        let inputs = y.all_inputs();
        let (a, b) = (inputs[0], inputs[1]);
        let Transpose { a: ta, b: tb } = self.transpose;
        let product = |left: Tensor<'g>, right, a, b| {
            let op = Self {
                alpha: self.alpha,
                ..Transpose { a, b }.into()
            };
            left.matmul_with(right, None, op)
        };
        // Of C = A B: A' = C' B^T and B' = A^T C'; the transposed cases follow by transposing.
        let a_grad = match ta {
            false => product(y_grad, b, false, !tb),
            true => product(b, y_grad, tb, true),
        };
        let b_grad = match tb {
            _ if self.b_is_symmetric => symmetric_part(a, y_grad, self.alpha),
            false => product(a, y_grad, !ta, false),
            true => product(y_grad, a, true, ta),
        };
        let mut grads = vec![
            Some(a_grad.sum_to(a.shape())),
            Some(b_grad.sum_to(b.shape())),
        ];
        if let Some(bias) = inputs.get(2) {
            if bias.shape() == y_grad.shape() {
                grads.push(Some(y_grad));
                return grads;
            }
            let (n, rank) = (bias.len(), y_grad.rank());
            let mut to = vec![1; rank];
            to[rank - 1] = n;
            grads.push(Some(y_grad.reduce_sum(to, 1.0).reshape([n])));
        }
        grads
    }

    fn cost(&self, inputs: &[&Shape], output: &Shape) -> Cost {
        let k = self.sizes(inputs).map_or(0, |s| s.k);
        Cost {
            flops: if self.symmetric { 1 } else { 2 } * (output.len() * k) as u64,
            bytes: inputs.iter().map(|s| s.size_bytes()).sum::<u64>() + output.size_bytes(),
        }
    }

    fn lower(&self, ctx: &Lowering<'_>) -> Result<Lowered> {
        let s = self.sizes(ctx.inputs).map_err(Error::bug)?;
        let batch_stride = |batch: usize, len: usize| if batch == 1 { 0 } else { len };
        let (a_row, a_k) = if self.transpose.a { (1, s.m) } else { (s.k, 1) };
        let (b_k, b_column) = if self.transpose.b { (1, s.k) } else { (s.n, 1) };
        let mut contraction = Contraction::matrix(s.m, s.n, s.k, [a_row, a_k], [b_k, b_column]);
        contraction.batch = s.batch[0].max(s.batch[1]);
        contraction.a_batch = batch_stride(s.batch[0], s.m * s.k);
        contraction.b_batch = batch_stride(s.batch[1], s.k * s.n);
        contraction.c_batch = s.m * s.n;
        contraction.alpha = self.alpha;
        contraction.diag = self.diag;
        contraction.symmetric = self.symmetric;
        let bias = ctx.inputs.get(2).map(|_| Slot::Input(2));
        contraction.bias = match ctx.inputs.get(2) {
            None => Bias::None,
            Some(&bias) if bias == ctx.output => Bias::Matrix,
            Some(_) => Bias::PerColumn,
        };
        contraction.lower(
            ctx.variants,
            Slot::Input(0),
            Slot::Input(1),
            bias,
            Slot::Output,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradients::{Case, case, check, check_tiled, reference};

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for (m, n, k) in [
            (1, 1, 1),
            (7, 5, 3),
            (65, 33, 130),
            (3, 70, 9),
            (12, 20, 1030),
        ] {
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let a = if ta { [k, m] } else { [m, k] };
                let b = if tb { [n, k] } else { [k, n] };
                cases.push(case(
                    &format!("matmul {m}x{n}x{k} {ta} {tb}"),
                    &[&a, &b],
                    move |x| match (ta, tb) {
                        (false, false) => x[0].matmul(x[1]),
                        (true, false) => x[0].t_matmul(x[1]),
                        (false, true) => x[0].matmul_t(x[1]),
                        (true, true) => x[0].matmul_with(x[1], None, Transpose { a: ta, b: tb }),
                    },
                    move |x| reference::matmul(&x[0], &x[1], ta, tb),
                ));
            }
        }
        for (a, b) in [
            ([3, 9, 11], [3, 11, 5]),
            ([1, 9, 11], [3, 11, 5]),
            ([3, 9, 11], [1, 11, 5]),
        ] {
            cases.push(case(
                &format!("matmul batched {a:?} {b:?}"),
                &[&a, &b],
                |x| x[0].matmul(x[1]),
                |x| reference::matmul(&x[0], &x[1], false, false),
            ));
        }
        for n in [5, 70] {
            cases.push(case(
                &format!("symmetric matmul with a matrix as bias {n}"),
                &[&[2, 9, n], &[2, n, n]],
                |x| {
                    let bias = x[1] + x[1].permute(&[0, 2, 1]);
                    let op = MatMul {
                        transpose: Transpose { a: true, b: false },
                        alpha: -0.5,
                        diag: 1.5,
                        symmetric: true,
                        ..MatMul::default()
                    };
                    x[0].matmul_with(x[0], Some(bias), op)
                },
                move |x| {
                    let product = reference::matmul(&x[0], &x[0], true, false);
                    reference::Tensor::from_fn(&[2, n, n], |i| {
                        let mirrored = i / (n * n) * n * n + i % n * n + i / n % n;
                        let diag = if i == mirrored { 1.5 } else { 0.0 };
                        -0.5 * product.data[i] + diag + x[1].data[i] + x[1].data[mirrored]
                    })
                },
            ));
        }
        // Of a symmetric B, only the symmetric part of its gradient.
        for n in [7, 70] {
            cases.push(case(
                &format!("matmul with a symmetric operand {n}"),
                &[&[2, 9, n], &[2, n, n]],
                |x| {
                    let b = x[1] + x[1].permute(&[0, 2, 1]);
                    let op = MatMul {
                        alpha: -0.5,
                        b_is_symmetric: true,
                        ..MatMul::default()
                    };
                    x[0].matmul_with(b, None, op)
                },
                move |x| {
                    let b = x[1].zip(&x[1].permute(&[0, 2, 1]), |b, t| b + t);
                    reference::matmul(&x[0], &b, false, false).map(|v| -0.5 * v)
                },
            ));
        }
        cases.push(case(
            "matmul with alpha, diagonal and bias",
            &[&[9, 7], &[7, 11], &[11]],
            |x| {
                let op = MatMul {
                    alpha: -0.5,
                    diag: 1.5,
                    ..MatMul::default()
                };
                x[0].matmul_with(x[1], Some(x[2]), op)
            },
            |x| {
                let eye =
                    reference::Tensor::from_fn(&[9, 11], |i| f64::from(u8::from(i / 11 == i % 11)));
                let product = reference::matmul(&x[0], &x[1], false, false).map(|v| -0.5 * v);
                let sum = product.zip(&eye, |p, e| p + 1.5 * e);
                sum.zip(&x[2].reshape(&[1, 11]), |s, b| s + b)
            },
        ));
        cases
    }

    #[test]
    fn it_and_its_gradient_are_the_reference() {
        check("matmul", &cases());
    }

    #[test]
    fn they_are_with_tiled_kernels() {
        check_tiled("matmul", &cases());
    }

    #[test]
    fn shape_rule_names_what_does_not_fit() {
        let op = MatMul::from(Transpose { a: false, b: true });
        let shape = |dims: &[usize]| Shape::from(dims);
        let ok = op.output_shape(&[&shape(&[2, 3]), &shape(&[5, 3])]);
        assert_eq!(ok, Ok(shape(&[2, 5])));
        let error = op.output_shape(&[&shape(&[2, 3]), &shape(&[3, 5])]);
        assert!(error.is_err_and(|e| e.contains("3 columns")));
        let batched = op.output_shape(&[&shape(&[4, 2, 3]), &shape(&[1, 5, 3])]);
        assert_eq!(batched, Ok(shape(&[4, 2, 5])));
        let symmetric = MatMul {
            symmetric: true,
            ..op
        };
        let error = symmetric.output_shape(&[&shape(&[2, 3]), &shape(&[5, 3])]);
        assert!(error.is_err_and(|e| e.contains("2 x 5")));
    }

    /// A multiply-add counts two; of a symmetric result half is computed.
    #[test]
    fn symmetric_products_cost_half() {
        let shapes: [Shape; 3] = [[3, 5].into(), [5, 3].into(), [3, 3].into()];
        let cost = |symmetric| {
            let op = MatMul {
                symmetric,
                ..MatMul::default()
            };
            op.cost(&[&shapes[0], &shapes[1]], &shapes[2])
        };
        assert_eq!((cost(false).flops, cost(true).flops), (90, 45));
        assert_eq!((cost(false).bytes, cost(true).bytes), (156, 156));
    }
}
