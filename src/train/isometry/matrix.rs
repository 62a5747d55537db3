//! Dense matrices in float64, for some thousand rows and a thousand columns: products, eigenvalues, least squares.

use std::ops::Range;

/// Row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    pub(super) columns: usize,
    pub(super) data: Vec<f64>,
}

/// Rows that are multiplied at a time, so that a part of a matrix of 500 columns stays in a cache.
const ROWS_AT_ONCE: usize = 256;

impl Matrix {
    pub(super) fn zeros(rows: usize, columns: usize) -> Self {
        let data = vec![0.0; rows * columns];
        Self { columns, data }
    }

    /// `rows` from left to right, each of `columns` numbers.
    pub(super) fn of_rows(columns: usize, rows: impl Iterator<Item = Vec<f64>>) -> Self {
        let data = rows.flatten().collect();
        Self { columns, data }
    }

    pub(super) fn rows(&self) -> usize {
        self.data.len() / self.columns.max(1)
    }

    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.data[i * self.columns..(i + 1) * self.columns]
    }

    pub(super) fn trace(&self) -> f64 {
        self.data.iter().step_by(self.columns + 1).sum()
    }

    pub(super) fn transposed(&self) -> Self {
        transposed(&self.data, self.columns)
    }

    /// Some of the columns.
    pub(super) fn part(&self, columns: Range<usize>) -> Self {
        let rows = (0..self.rows()).map(|i| self.row(i)[columns.clone()].to_vec());
        Self::of_rows(columns.len(), rows)
    }

    /// Subtracts the mean of each column from it and gives the means.
    pub(super) fn centre(&mut self) -> Vec<f64> {
        let mut mean = vec![0.0; self.columns];
        let rows = self.rows();
        for i in 0..rows {
            add(&mut mean, 1.0 / rows as f64, self.row(i));
        }
        for i in 0..rows {
            add(self.row_mut(i), -1.0, &mean);
        }
        mean
    }

    /// A^T A.
    pub(super) fn gram(&self) -> Self {
        let mut gram = self.products(self, true);
        let n = gram.columns;
        for i in 0..n {
            for j in 0..i {
                gram.data[j * n + i] = gram.data[i * n + j];
            }
        }
        gram
    }

    /// A B.
    pub(super) fn product(&self, other: &Self) -> Self {
        self.transposed().t_product(other)
    }

    /// A^T B of two matrices with equally many rows.
    pub(super) fn t_product(&self, other: &Self) -> Self {
        self.products(other, false)
    }

    /// A^T B, of which only the lower triangle may be wanted.
    fn products(&self, other: &Self, is_lower: bool) -> Self {
        let mut sums = Self::zeros(self.columns, other.columns);
        let of_chunk = |m: &Self, first: usize| {
            let last = (first + ROWS_AT_ONCE).min(m.rows());
            transposed(&m.data[first * m.columns..last * m.columns], m.columns)
        };
        for first in (0..self.rows()).step_by(ROWS_AT_ONCE) {
            let (a, b) = (of_chunk(self, first), of_chunk(other, first));
            for i in 0..self.columns {
                let end = if is_lower { i + 1 } else { other.columns };
                for (j, sum) in sums.row_mut(i)[..end].iter_mut().enumerate() {
                    *sum += dot(a.row(i), b.row(j));
                }
            }
        }
        sums
    }

    /// X with self X = `right`, by Cholesky's factors; `None` if self is not positive definite. Of self, which is symmetric,
    /// the lower triangle is read.
    pub(super) fn solve(mut self, mut right: Self) -> Option<Self> {
        let n = self.columns;
        for i in 0..n {
            for j in 0..=i {
                let rest = self.data[i * n + j] - dot(&self.row(i)[..j], &self.row(j)[..j]);
                self.data[i * n + j] = match i == j {
                    false => rest / self.data[j * n + j],
                    true if rest > 0.0 => rest.sqrt(),
                    true => return None,
                };
            }
        }
        let width = right.columns;
        for i in 0..n {
            let (before, row) = right.data.split_at_mut(i * width);
            let row = &mut row[..width];
            for (k, done) in before.chunks_exact(width).enumerate() {
                add(row, -self.data[i * n + k], done);
            }
            row.iter_mut().for_each(|v| *v /= self.data[i * n + i]);
        }
        for i in (0..n).rev() {
            let (before, after) = right.data.split_at_mut((i + 1) * width);
            let row = &mut before[i * width..];
            for (k, done) in (i + 1..n).zip(after.chunks_exact(width)) {
                add(row, -self.data[k * n + i], done);
            }
            row.iter_mut().for_each(|v| *v /= self.data[i * n + i]);
        }
        Some(right)
    }

    /// All eigenvalues, the smallest first, each within some 1e-15 of the largest; `None` if there is one that is no number.
    /// Of self, which is symmetric, the lower triangle is read.
    pub(super) fn eigenvalues(self) -> Option<Vec<f64>> {
        let (diagonal, beside) = self.tridiagonal();
        let mut values = of_tridiagonal(diagonal, beside)?;
        values.sort_by(f64::total_cmp);
        Some(values)
    }

    /// Diagonal and second diagonal of the tridiagonal matrix with the same eigenvalues, by Householder's reflections of the
    /// last row that is left.
    fn tridiagonal(mut self) -> (Vec<f64>, Vec<f64>) {
        let n = self.columns;
        let mut beside = vec![0.0; n];
        for i in (1..n).rev() {
            let mut u = self.row(i)[..i].to_vec();
            let norm = dot(&u, &u).sqrt();
            beside[i - 1] = -norm.copysign(u[i - 1]);
            if norm == 0.0 {
                continue;
            }
            u[i - 1] -= beside[i - 1];
            let half = dot(&u, &u) / 2.0;
            // p = A u / half, of the triangle.
            let mut p = vec![0.0; i];
            for (j, &of_j) in u.iter().enumerate() {
                let row = &self.row(j)[..=j];
                p[j] += dot(row, &u[..=j]);
                add(&mut p[..j], of_j, &row[..j]);
            }
            p.iter_mut().for_each(|v| *v /= half);
            let share = dot(&u, &p) / (2.0 * half);
            add(&mut p, -share, &u);
            for j in 0..i {
                let row = &mut self.row_mut(j)[..=j];
                add(row, -u[j], &p[..=j]);
                add(row, -p[j], &u[..=j]);
            }
        }
        let diagonal = self.data.iter().step_by(n + 1).copied().collect();
        (diagonal, beside)
    }
}

/// Eigenvalues of a symmetric tridiagonal matrix, in no order, by QL steps with implicit shifts.
fn of_tridiagonal(mut diagonal: Vec<f64>, mut beside: Vec<f64>) -> Option<Vec<f64>> {
    let n = diagonal.len();
    let all = || diagonal.iter().chain(&beside);
    if !all().all(|v| v.is_finite()) {
        return None;
    }
    let negligible = f64::EPSILON * all().fold(0.0, |m: f64, v| m.max(v.abs()));
    for first in 0..n {
        for round in 0.. {
            let is_end = |&i: &usize| i + 1 == n || beside[i].abs() <= negligible;
            let end = (first..n).find(is_end)?;
            if end == first {
                break;
            }
            // Two or three rounds are usual.
            if round == 60 {
                return None;
            }
            let shift = (diagonal[first + 1] - diagonal[first]) / (2.0 * beside[first]);
            let root = shift.hypot(1.0).copysign(shift);
            let mut g = diagonal[end] - diagonal[first] + beside[first] / (shift + root);
            let (mut sin, mut cos, mut p) = (1.0, 1.0, 0.0);
            let mut is_split = false;
            for i in (first..end).rev() {
                let (f, b) = (sin * beside[i], cos * beside[i]);
                let r = f.hypot(g);
                beside[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= p;
                    is_split = true;
                    break;
                }
                (sin, cos) = (f / r, g / r);
                g = diagonal[i + 1] - p;
                let r = (diagonal[i] - g) * sin + 2.0 * cos * b;
                p = sin * r;
                diagonal[i + 1] = g + p;
                g = cos * r - b;
            }
            if !is_split {
                diagonal[first] -= p;
                beside[first] = g;
            }
            beside[end] = 0.0;
        }
    }
    Some(diagonal)
}

/// Of a row-major matrix.
fn transposed(data: &[f64], columns: usize) -> Matrix {
    let rows = data.len() / columns.max(1);
    let mut out = Matrix::zeros(columns, rows);
    for (i, row) in data.chunks_exact(columns.max(1)).enumerate() {
        for (j, &v) in row.iter().enumerate() {
            out.data[j * rows + i] = v;
        }
    }
    out
}

/// The sum of products, in eight sums side by side, which compilers turn into vectors.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// y += factor x.
pub(super) fn add(y: &mut [f64], factor: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers in [-1, 1) that repeat after some thousand.
    fn numbers(rows: usize, columns: usize) -> Matrix {
        let value = |i: usize| ((i * 2_654_435_761) % 9973) as f64 / 4986.5 - 1.0;
        let data = (0..rows * columns).map(value).collect();
        Matrix { columns, data }
    }

    fn near(a: f64, b: f64, of: f64) {
        assert!((a - b).abs() <= 1e-12 * of, "{a} {b}");
    }

    #[test]
    fn a_matrix_with_what_is_no_number_has_no_eigenvalues() {
        for value in [f64::NAN, f64::INFINITY] {
            let mut matrix = Matrix::zeros(3, 3);
            matrix.data[4] = value;
            assert_eq!(matrix.eigenvalues(), None);
        }
    }

    #[test]
    fn products_are_sums() {
        let (a, b) = (numbers(301, 13), numbers(301, 5));
        let (gram, product) = (a.gram(), a.t_product(&b));
        for i in 0..13 {
            let of_columns =
                |b: &Matrix, j: usize| -> f64 { (0..301).map(|r| a.row(r)[i] * b.row(r)[j]).sum() };
            for j in 0..13 {
                near(gram.row(i)[j], of_columns(&a, j), 301.0);
            }
            assert_eq!(a.transposed().product(&b), product);
            for j in 0..5 {
                near(product.row(i)[j], of_columns(&b, j), 301.0);
            }
        }
    }

    /// -2 cos is the spectrum of a chain; a diagonal matrix, also with equal numbers and zeros, is turned by a reflection.
    #[test]
    fn eigenvalues_of_known_matrices() {
        let n = 37;
        let mut chain = Matrix::zeros(n, n);
        for i in 1..n {
            chain.data[i * n + i - 1] = 1.0;
        }
        let values = chain.eigenvalues().unwrap();
        for (k, value) in (1..).zip(&values) {
            let angle = std::f64::consts::PI * f64::from(k) / (n + 1) as f64;
            near(*value, -2.0 * angle.cos(), 2.0);
        }
        for spectrum in [
            vec![0.0; 9],
            vec![0.0, 0.0, 0.0, 1e-9, 1e-3, 1.0, 1.0, 1.0, 7.0],
            (0..60).map(|k| 1.5f64.powi(k - 30)).collect(),
        ] {
            let n = spectrum.len();
            let u = numbers(1, n).data;
            let square = dot(&u, &u);
            let reflection =
                |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * u[i] * u[j] / square;
            let mut turned = Matrix::zeros(n, n);
            for i in 0..n {
                for j in 0..n {
                    turned.data[i * n + j] = (0..n)
                        .map(|k| reflection(i, k) * spectrum[k] * reflection(j, k))
                        .sum();
                }
            }
            let values = turned.eigenvalues().unwrap();
            for (value, wanted) in values.iter().zip(&spectrum) {
                near(*value, *wanted, spectrum[n - 1]);
            }
        }
        assert_eq!(Matrix::zeros(0, 0).eigenvalues(), Some(vec![]));
        let nan = Matrix {
            columns: 2,
            data: vec![f64::NAN; 4],
        };
        assert_eq!(nan.eigenvalues(), None);
    }

    #[test]
    fn solutions_solve() {
        let (a, wanted) = (numbers(40, 17).gram(), numbers(17, 3));
        let right = a.t_product(&wanted);
        let found = a.solve(right).unwrap();
        for (found, wanted) in found.data.iter().zip(&wanted.data) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
        assert_eq!(Matrix::zeros(2, 2).solve(Matrix::zeros(2, 1)), None);
    }
}
