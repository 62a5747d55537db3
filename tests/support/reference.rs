//! Plain float64 loops for what the shaders compute.

/// A dense row-major tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Tensor {
    pub fn new(shape: &[usize], data: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Self {
            shape: shape.to_vec(),
            data,
        }
    }

    pub fn from_fn(shape: &[usize], f: impl FnMut(usize) -> f64) -> Self {
        let len = shape.iter().product();
        Self::new(shape, (0..len).map(f).collect())
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(&self.shape, self.data.iter().map(|&v| f(v)).collect())
    }

    pub fn reshape(&self, shape: &[usize]) -> Self {
        Self::new(shape, self.data.clone())
    }

    /// The indices of element `i`.
    fn at(&self, mut i: usize) -> Vec<usize> {
        let mut index = vec![0; self.shape.len()];
        for d in (0..self.shape.len()).rev() {
            index[d] = i % self.shape[d];
            i /= self.shape[d];
        }
        index
    }

    /// The element at `index`, sizes of 1 repeating.
    fn get(&self, index: &[usize]) -> f64 {
        if self.data.len() == 1 {
            return self.data[0];
        }
        let mut i = 0;
        for (&size, &k) in self.shape.iter().zip(index) {
            i = i * size + if size == 1 { 0 } else { k };
        }
        self.data[i]
    }

    pub fn broadcast(&self, shape: &[usize]) -> Self {
        let empty = Self::from_fn(shape, |_| 0.0);
        Self::from_fn(shape, |i| self.get(&empty.at(i)))
    }

    pub fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let shape: Vec<usize> = if self.shape.len() == other.shape.len() {
            let sizes = self.shape.iter().zip(&other.shape);
            sizes.map(|(&a, &b)| a.max(b)).collect()
        } else if self.data.len() == 1 {
            other.shape.clone()
        } else {
            self.shape.clone()
        };
        let (a, b) = (self.broadcast(&shape), other.broadcast(&shape));
        let values = a.data.iter().zip(&b.data);
        Self::new(&shape, values.map(|(&x, &y)| f(x, y)).collect())
    }

    pub fn sum_to(&self, shape: &[usize]) -> Self {
        let mut sum = Self::from_fn(shape, |_| 0.0);
        for i in 0..self.data.len() {
            let index = self.at(i);
            let mut k = 0;
            if sum.data.len() > 1 {
                for (&size, &at) in shape.iter().zip(&index) {
                    k = k * size + if size == 1 { 0 } else { at };
                }
            }
            sum.data[k] += self.data[i];
        }
        sum
    }

    pub fn permute(&self, order: &[usize]) -> Self {
        let shape: Vec<usize> = order.iter().map(|&d| self.shape[d]).collect();
        let empty = Self::from_fn(&shape, |_| 0.0);
        Self::from_fn(&shape, |i| {
            let to = empty.at(i);
            let mut from = vec![0; to.len()];
            for (k, &d) in order.iter().enumerate() {
                from[d] = to[k];
            }
            self.get(&from)
        })
    }

    pub fn slice(&self, dim: usize, start: usize, step: usize, len: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[dim] = len;
        let empty = Self::from_fn(&shape, |_| 0.0);
        Self::from_fn(&shape, |i| {
            let mut index = empty.at(i);
            index[dim] = start + index[dim] * step;
            self.get(&index)
        })
    }

    pub fn concat(parts: &[Self], dim: usize) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[dim] = parts.iter().map(|p| p.shape[dim]).sum();
        let empty = Self::from_fn(&shape, |_| 0.0);
        Self::from_fn(&shape, |i| {
            let mut index = empty.at(i);
            for part in parts {
                if index[dim] < part.shape[dim] {
                    return part.get(&index);
                }
                index[dim] -= part.shape[dim];
            }
            f64::NAN
        })
    }
}

/// op(A) op(B), [m, k] x [k, n] or batched, a batch of 1 serving all.
/// Of each matrix of [B, M, N], as `permute(&[0, 2, 1])`, without an index vector an element.
fn transposed(t: &Tensor) -> Tensor {
    let (b, m, n) = (t.shape[0], t.shape[1], t.shape[2]);
    Tensor::from_fn(&[b, n, m], |i| {
        t.data[(i / (m * n) * m + i % m) * n + i / m % n]
    })
}

pub fn matmul(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Tensor {
    let as_batch = |t: &Tensor| match t.shape.len() {
        2 => t.reshape(&[1, t.shape[0], t.shape[1]]),
        _ => t.clone(),
    };
    let flip = |t: Tensor, yes| if yes { transposed(&t) } else { t };
    let (x, y) = (
        flip(as_batch(a), transpose_a),
        flip(as_batch(b), transpose_b),
    );
    let batch = x.shape[0].max(y.shape[0]);
    let (m, k, n) = (x.shape[1], x.shape[2], y.shape[2]);
    let mut c = Tensor::from_fn(&[batch, m, n], |_| 0.0);
    for (i, sums) in c.data.chunks_exact_mut(n).enumerate() {
        let (p, r) = (i / m, i % m);
        let (px, py) = (p % x.shape[0], p % y.shape[0]);
        let row = &x.data[(px * m + r) * k..][..k];
        // A row of b at a time: a column at a time is ten times slower.
        for (j, a) in row.iter().enumerate() {
            let b = &y.data[(py * k + j) * n..][..n];
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    if a.shape.len() == 2 {
        c.reshape(&[m, n])
    } else {
        c
    }
}

/// Stride, padding, dilation and groups of a window.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
    pub groups: usize,
}

fn out_size(size: usize, k: usize, g: Geometry) -> usize {
    (size + 2 * g.padding - g.dilation * (k - 1) - 1) / g.stride + 1
}

/// Visits (n, oh, ow, ky, kx, y, x) for all taps inside an image.
fn taps(shape: &[usize], k: [usize; 2], g: Geometry, mut visit: impl FnMut([usize; 7])) {
    let (n, h, w) = (shape[0], shape[2], shape[3]);
    for i in 0..n {
        for oh in 0..out_size(h, k[0], g) {
            for ow in 0..out_size(w, k[1], g) {
                for ky in 0..k[0] {
                    for kx in 0..k[1] {
                        let y = (oh * g.stride + ky * g.dilation).wrapping_sub(g.padding);
                        let x = (ow * g.stride + kx * g.dilation).wrapping_sub(g.padding);
                        if y < h && x < w {
                            visit([i, oh, ow, ky, kx, y, x]);
                        }
                    }
                }
            }
        }
    }
}

pub fn conv2d(x: &Tensor, weight: &Tensor, bias: &Tensor, g: Geometry) -> Tensor {
    let (n, c, h, w) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    let (o, c_group) = (weight.shape[0], weight.shape[1]);
    let k = [weight.shape[2], weight.shape[3]];
    let (out_h, out_w) = (out_size(h, k[0], g), out_size(w, k[1], g));
    let mut y = Tensor::from_fn(&[n, o, out_h, out_w], |i| {
        bias.data[i / (out_h * out_w) % o]
    });
    let per_group = o / g.groups;
    taps(&x.shape, k, g, |[i, oh, ow, ky, kx, row, column]| {
        for j in 0..o {
            for q in 0..c_group {
                let channel = j / per_group * c_group + q;
                y.data[((i * o + j) * out_h + oh) * out_w + ow] += x.data
                    [((i * c + channel) * h + row) * w + column]
                    * weight.data[((j * c_group + q) * k[0] + ky) * k[1] + kx];
            }
        }
    });
    y
}

pub fn im2col(x: &Tensor, k: [usize; 2], g: Geometry) -> Tensor {
    let (n, c, h, w) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    let (out_h, out_w) = (out_size(h, k[0], g), out_size(w, k[1], g));
    let columns = c * k[0] * k[1];
    let mut y = Tensor::from_fn(&[n * out_h * out_w, columns], |_| 0.0);
    taps(&x.shape, k, g, |[i, oh, ow, ky, kx, row, column]| {
        for q in 0..c {
            y.data[((i * out_h + oh) * out_w + ow) * columns + (q * k[0] + ky) * k[1] + kx] =
                x.data[((i * c + q) * h + row) * w + column];
        }
    });
    y
}

pub fn col2im(columns: &Tensor, k: [usize; 2], g: Geometry, image: &[usize]) -> Tensor {
    let (c, h, w) = (image[1], image[2], image[3]);
    let (out_h, out_w) = (out_size(h, k[0], g), out_size(w, k[1], g));
    let width = c * k[0] * k[1];
    let mut x = Tensor::from_fn(image, |_| 0.0);
    taps(image, k, g, |[i, oh, ow, ky, kx, row, column]| {
        for q in 0..c {
            x.data[((i * c + q) * h + row) * w + column] +=
                columns.data[((i * out_h + oh) * out_w + ow) * width + (q * k[0] + ky) * k[1] + kx];
        }
    });
    x
}

/// Max (`true`) or average pooling.
pub fn pool(x: &Tensor, k: usize, g: Geometry, max: bool) -> Tensor {
    let (n, c, h, w) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    let (out_h, out_w) = (out_size(h, k, g), out_size(w, k, g));
    let start = if max { f64::NEG_INFINITY } else { 0.0 };
    let mut y = Tensor::from_fn(&[n, c, out_h, out_w], |_| start);
    taps(&x.shape, [k, k], g, |[i, oh, ow, _, _, row, column]| {
        for q in 0..c {
            let value = x.data[((i * c + q) * h + row) * w + column];
            let to = &mut y.data[((i * c + q) * out_h + oh) * out_w + ow];
            *to = if max {
                to.max(value)
            } else {
                *to + value / (k * k) as f64
            };
        }
    });
    y
}

/// centred^T centred / rows + eps I, of [groups, rows, features].
pub fn covariance(x: &Tensor, eps: f64) -> Tensor {
    let (rows, f) = (x.shape[1], x.shape[2]);
    let mut cov = Tensor::from_fn(&[x.shape[0], f, f], |_| 0.0);
    for (group, cov) in x
        .data
        .chunks_exact(rows * f)
        .zip(cov.data.chunks_exact_mut(f * f))
    {
        // Its lower triangle, a row of x at a time: of many rows x does not fit a cache, but this does.
        for row in group.chunks_exact(f) {
            for (i, a) in row.iter().enumerate() {
                let sums = &mut cov[i * f..=i * f + i];
                sums.iter_mut().zip(row).for_each(|(sum, b)| *sum += a * b);
            }
        }
        for i in 0..f {
            for j in 0..=i {
                let value = cov[i * f + j] / rows as f64;
                cov[j * f + i] = value;
                cov[i * f + j] = value + if i == j { eps } else { 0.0 };
            }
        }
    }
    cov
}

pub fn newton_schulz(cov: &Tensor, n_iter: usize) -> Tensor {
    let (groups, f) = (cov.shape[0], cov.shape[1]);
    let mut parts = Vec::new();
    for i in 0..groups {
        let one = Tensor::new(&[f, f], cov.data[i * f * f..(i + 1) * f * f].to_vec());
        let norm = one.data.iter().map(|v| v * v).sum::<f64>().sqrt();
        let eye = Tensor::from_fn(&[f, f], |i| if i / f == i % f { 1.0 } else { 0.0 });
        let (mut y, mut z) = (one.map(|v| v / norm), eye.clone());
        for _ in 0..n_iter {
            let t = eye.zip(&matmul(&z, &y, false, false), |e, zy| (3.0 * e - zy) / 2.0);
            y = matmul(&y, &t, false, false);
            z = matmul(&t, &z, false, false);
        }
        parts.push(z.map(|v| v / norm.sqrt()).reshape(&[1, f, f]));
    }
    Tensor::concat(&parts, 0)
}

pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    let mut per_channel = vec![1; x.shape.len()];
    per_channel[1] = x.shape[1];
    let count = (x.data.len() / x.shape[1]) as f64;
    let mean = x.sum_to(&per_channel).map(|v| v / count);
    let centred = x.zip(&mean, |a, b| a - b);
    let var = centred
        .map(|v| v * v)
        .sum_to(&per_channel)
        .map(|v| v / count);
    let normal = centred.zip(&var, |a, v| a / (v + eps).sqrt());
    let scaled = normal.zip(&weight.reshape(&per_channel), |a, b| a * b);
    scaled.zip(&bias.reshape(&per_channel), |a, b| a + b)
}

pub fn cross_entropy(logits: &Tensor, labels: &[f64], smoothing: f64) -> Tensor {
    let (rows, classes) = (logits.shape[0], logits.shape[1]);
    Tensor::from_fn(&[rows], |r| {
        let z = &logits.data[r * classes..(r + 1) * classes];
        if !(0..classes).any(|c| c as f64 == labels[r]) {
            return 0.0;
        }
        let log_sum = z.iter().map(|v| v.exp()).sum::<f64>().ln();
        (0..classes)
            .map(|c| {
                let chosen = if c as f64 == labels[r] {
                    1.0 - smoothing
                } else {
                    0.0
                };
                (chosen + smoothing / classes as f64) * (log_sum - z[c])
            })
            .sum()
    })
}

/// PCG-RXS-M-XS with 32 bits of state, as a hash (O'Neill 2014).
pub fn pcg(value: u32) -> u32 {
    let state = value.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}
