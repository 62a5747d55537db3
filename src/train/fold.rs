//! Deconvolution folded into the weights it stands before, for programs that know plain layers only.
//!
//! A deconvolved layer computes W D (x - mean) + b, block by block of x's features (section 3.4). With running statistics
//! that is a plain layer:
//!
//! ```text
//! W' = W D      b' = b - sum over blocks of W' mean
//! ```
//!
//! Sums are in float64: the weights are rounded once.

use super::checkpoint::{HostTensor, Tensors};

const DECONV: &str = ".running_deconv";

/// The weights of the same network without deconvolution, its running statistics folded away; and how many layers had some.
/// Others stay as they are.
///
/// # Errors
/// What cannot be folded: channel deconvolution, whose mean a convolution with padding cannot hold, and sizes that do not
/// fit.
pub(super) fn folded(tensors: &Tensors) -> Result<(Tensors, usize), String> {
    let layers = tensors.keys().filter_map(|name| name.strip_suffix(DECONV));
    let layers: Vec<&str> = layers.collect();
    let mut plain = tensors.clone();
    for layer in &layers {
        let of = |what: &str| format!("{layer}.{what}");
        let get = |what: &str| tensors.get(&of(what));
        let (Some(weight), Some(bias)) = (get("weight"), get("bias")) else {
            return Err(format!(
                "{layer} decorrelates channels before a convolution that pads with zeros: no plain convolution does both. Only \
                 --norm deconv can be folded"
            ));
        };
        let (Some(mean), Some(deconv)) = (get("running_mean"), get("running_deconv")) else {
            return Err(format!("{layer} has no running mean"));
        };
        let (weight, bias) = fold_layer(weight, bias, mean, deconv)
            .ok_or_else(|| format!("the sizes of {layer} do not fit each other"))?;
        plain.insert(of("weight"), weight);
        plain.insert(of("bias"), bias);
        plain.remove(&of("running_mean"));
        plain.remove(&of("running_deconv"));
    }
    Ok((plain, layers.len()))
}

/// `weight` [O, ...], `bias` `[O]`, `mean` [groups, F] or `[F]`, `deconv` [groups, F, F] or [F, F]. A row of the weight is blocks of F features; with
/// groups, those of its own.
fn fold_layer(
    weight: &HostTensor,
    bias: &HostTensor,
    mean: &HostTensor,
    deconv: &HostTensor,
) -> Option<(HostTensor, HostTensor)> {
    let (groups, features, other) = match *deconv.shape.as_slice() {
        [features, other] => (1, features, other),
        [groups, features, other] => (groups, features, other),
        _ => return None,
    };
    let outputs = *weight.shape.first()?;
    let columns = weight.data.len() / outputs.max(1);
    let fits = features == other
        && features > 0
        && mean.data.len() == groups * features
        && outputs.is_multiple_of(groups)
        && columns.is_multiple_of(features)
        && bias.data.len() == outputs;
    if !fits {
        return None;
    }
    let (mut folded, mut shifted) = (weight.clone(), bias.clone());
    let per_group = outputs / groups;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let rows_each = outputs.div_ceil(threads);
    std::thread::scope(|scope| {
        let rows = folded.data.chunks_mut(rows_each * columns);
        for (part, (rows, biases)) in rows.zip(shifted.data.chunks_mut(rows_each)).enumerate() {
            scope.spawn(move || {
                let mut sums = vec![0.0; features];
                for (i, (row, bias)) in rows.chunks_mut(columns).zip(biases).enumerate() {
                    let group = (part * rows_each + i) / per_group;
                    let mean = &mean.data[group * features..][..features];
                    let deconv = &deconv.data[group * features * features..][..features * features];
                    let mut shift = 0.0;
                    for block in row.chunks_mut(features) {
                        times(block, deconv, &mut sums);
                        shift += sums
                            .iter()
                            .zip(mean)
                            .map(|(w, m)| w * f64::from(*m))
                            .sum::<f64>();
                        block
                            .iter_mut()
                            .zip(&sums)
                            .for_each(|(w, sum)| *w = *sum as f32);
                    }
                    *bias = (f64::from(*bias) - shift) as f32;
                }
            });
        }
    });
    Some((folded, shifted))
}

/// `sums` = `row` times the square matrix `deconv`.
fn times(row: &[f32], deconv: &[f32], sums: &mut [f64]) {
    sums.fill(0.0);
    for (w, of_row) in row.iter().zip(deconv.chunks_exact(row.len())) {
        let w = f64::from(*w);
        sums.iter_mut()
            .zip(of_row)
            .for_each(|(sum, d)| *sum += w * f64::from(*d));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize], data: &[f32]) -> HostTensor {
        HostTensor {
            shape: shape.to_vec(),
            data: data.to_vec(),
        }
    }

    /// Two outputs, two blocks of two features; by hand.
    #[test]
    fn a_layer_by_hand() {
        let tensors = Tensors::from([
            (
                "fc.weight".into(),
                tensor(&[2, 4], &[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 0.0, -1.0]),
            ),
            ("fc.bias".into(), tensor(&[2], &[10.0, 20.0])),
            ("fc.running_mean".into(), tensor(&[1, 2], &[1.0, -1.0])),
            (
                "fc.running_deconv".into(),
                tensor(&[1, 2, 2], &[2.0, 1.0, 1.0, 3.0]),
            ),
            ("other.weight".into(), tensor(&[1], &[7.0])),
        ]);
        let (plain, count) = folded(&tensors).unwrap();
        assert_eq!(count, 1);
        assert_eq!(
            plain["fc.weight"].data,
            [4.0, 7.0, 10.0, 15.0, 1.0, 3.0, -1.0, -3.0]
        );
        // W' mean of each block: 4 - 7 and 10 - 15; 1 - 3 and -1 + 3.
        assert_eq!(plain["fc.bias"].data, [18.0, 20.0]);
        let names: Vec<&str> = plain.keys().map(String::as_str).collect();
        assert_eq!(names, ["fc.bias", "fc.weight", "other.weight"]);

        let mut bare = tensors.clone();
        bare.remove("fc.bias");
        assert!(folded(&bare).unwrap_err().contains("decorrelates channels"));
        let mut wrong = tensors;
        wrong.insert("fc.running_mean".into(), tensor(&[3], &[0.0; 3]));
        assert!(folded(&wrong).unwrap_err().contains("do not fit"));
    }
}
