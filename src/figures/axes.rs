//! Coordinates in which the patches of natural images are nearly uncorrelated.

use crate::picture::Picture;

/// Three orthonormal axes of colours, as rows. Those of an image are its colours' own principal axes: what does
/// not vary, or depends on the rest, then has an axis to itself and no part in the sums of large numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axes(pub(super) [f64; 9]);

impl Axes {
    /// Grey, red against blue, green against both: about those of natural images.
    pub(super) const OPPONENT: Self = {
        const GREY: f64 = 0.577_350_269_189_625_8;
        const TWO: f64 = std::f64::consts::FRAC_1_SQRT_2;
        const SIX: f64 = 0.408_248_290_463_863;
        Self([GREY, GREY, GREY, TWO, 0.0, -TWO, SIX, -2.0 * SIX, SIX])
    };

    /// Those of the colours of `picture`; of one in grey they do not matter.
    pub(super) fn of(picture: &Picture) -> Self {
        if picture.channels != 3 {
            return Self::OPPONENT;
        }
        let plane = picture.height * picture.width;
        let colours: Vec<&[f32]> = picture.data.chunks(plane).collect();
        let means: Vec<f64> = colours
            .iter()
            .map(|c| c.iter().map(|&v| f64::from(v)).sum::<f64>() / plane as f64)
            .collect();
        let cov = |a: usize, b: usize| {
            let pairs = colours[a].iter().zip(colours[b]);
            let products =
                pairs.map(|(&x, &y)| (f64::from(x) - means[a]) * (f64::from(y) - means[b]));
            products.sum::<f64>() / plane as f64
        };
        let [rg, rb, gb] = [cov(0, 1), cov(0, 2), cov(1, 2)];
        Self::principal([
            [cov(0, 0), rg, rb],
            [rg, cov(1, 1), gb],
            [rb, gb, cov(2, 2)],
        ])
    }

    /// The eigenvectors of a symmetric matrix, by Jacobi's rotations.
    fn principal(mut a: [[f64; 3]; 3]) -> Self {
        let mut vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        // Each sweep squares what is left off the diagonal: six are enough for any matrix.
        for _ in 0..8 {
            for (p, q) in [(0, 1), (0, 2), (1, 2)] {
                let angle = 0.5 * (2.0 * a[p][q]).atan2(a[p][p] - a[q][q]);
                let (sin, cos) = angle.sin_cos();
                for row in &mut a {
                    (row[p], row[q]) = (cos * row[p] + sin * row[q], cos * row[q] - sin * row[p]);
                }
                let (row_p, row_q) = (a[p], a[q]);
                let (vector_p, vector_q) = (vectors[p], vectors[q]);
                for i in 0..3 {
                    a[p][i] = cos * row_p[i] + sin * row_q[i];
                    a[q][i] = cos * row_q[i] - sin * row_p[i];
                    vectors[p][i] = cos * vector_p[i] + sin * vector_q[i];
                    vectors[q][i] = cos * vector_q[i] - sin * vector_p[i];
                }
            }
        }
        Self(vectors.concat().try_into().unwrap_or(Self::OPPONENT.0))
    }

    /// The coordinates in which patches are counted, as orthonormal columns [F, F]: cosines along rows and
    /// columns, and of three channels these axes.
    ///
    /// D is the same in any such coordinates. In these the covariance of natural images is nearly
    /// diagonal, so that its small eigenvalues are sums of small numbers: in pixels they are what is left
    /// of large ones, and float32 sums of a photograph's patches are wrong by 1 % of an eps of 1e-5.
    pub(super) fn basis(&self, k: usize, block: usize) -> Vec<f64> {
        let cosines = cosines(k);
        let features = block * k * k;
        let mut columns = vec![0.0; features * features];
        for row in 0..features {
            let (c, ky, kx) = (row / (k * k), row / k % k, row % k);
            for column in 0..features {
                // As `coordinates` leaves them: colour, frequency along the row, along the column.
                let (d, u, v) = (column / (k * k), column / k % k, column % k);
                let colour = match block {
                    3 => self.0[3 * d + c],
                    _ => f64::from(u8::from(c == d)),
                };
                let cosine = cosines[u * k + kx] * cosines[v * k + ky];
                columns[row * features + column] = colour * cosine;
            }
        }
        columns
    }
}

/// The discrete cosine transform of `k` values: rows, orthonormal.
pub(super) fn cosines(k: usize) -> Vec<f64> {
    let at = |u: usize, i: usize| {
        let norm = if u == 0 { 1.0 } else { 2.0 } / k as f64;
        let phase = (2 * i + 1) as f64 * u as f64 / (2 * k) as f64;
        norm.sqrt() * (std::f64::consts::PI * phase).cos()
    };
    (0..k * k).map(|n| at(n / k, n % k)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_orthonormal() {
        for (k, block) in [(1, 3), (3, 3), (5, 1), (3, 4)] {
            let (columns, n) = (Axes::OPPONENT.basis(k, block), block * k * k);
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = (0..n)
                        .map(|r| columns[r * n + i] * columns[r * n + j])
                        .sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((product - expected).abs() < 1e-12, "{k} {block} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn principal_axes_make_a_covariance_diagonal() {
        for cov in [
            [[0.5, 0.4, 0.3], [0.4, 0.6, 0.5], [0.3, 0.5, 0.7]],
            [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]],
            [[0.0; 3]; 3],
            [[1.0, -1.0, 1e-6], [-1.0, 1.0, 0.0], [1e-6, 0.0, 1e-9]],
        ] {
            let axes = Axes::principal(cov).0;
            let axis = |i: usize| &axes[3 * i..3 * i + 3];
            for i in 0..3 {
                for j in 0..3 {
                    let product: f64 = axis(i).iter().zip(axis(j)).map(|(a, b)| a * b).sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((product - expected).abs() < 1e-12, "{cov:?} {i} {j}");
                    let of_cov: f64 = (0..9)
                        .map(|n| axis(i)[n / 3] * cov[n / 3][n % 3] * axis(j)[n % 3])
                        .sum();
                    assert!(
                        i == j || of_cov.abs() < 1e-15,
                        "{cov:?} {i} {j}: {of_cov:e}"
                    );
                }
            }
        }
    }
}
