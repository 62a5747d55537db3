//! Deconvolution folded into the weights it stands before, for programs that know plain layers only.
//!
//! A deconvolved layer computes W D (x - mean) + b, block by block of x's features (section 3.4). With running statistics
//! that is a plain layer:
//!
//! ```text
//! W' = W D      b' = b - sum over blocks of W' mean
//! ```
//!
//! Channel deconvolution before a linear layer folds in the same way. Before a convolution that pads with zeros it does not:
//! there the padding is zeros of what is deconvolved already, and a plain convolution would deconvolve the zeros too.
//!
//! Sums are in float64: the weights are rounded once.

use super::checkpoint::{HostTensor, Tensors};

const DECONV: &str = ".running_deconv";

/// What a deconvolved layer, or channel deconvolution, keeps beside weights.
const STATISTICS: [&str; 5] = [
    "running_mean",
    "running_deconv",
    "running_rest_mean",
    "running_rest_var",
    "num_batches_tracked",
];

/// The weights of the same network without deconvolution, its running statistics folded away; and how many layers had some.
/// Others stay as they are. `eps` is that of channel deconvolution.
///
/// # Errors
/// What cannot be folded: channel deconvolution before a convolution with padding, and sizes that do not fit.
pub(super) fn folded(tensors: &Tensors, eps: f32) -> Result<(Tensors, usize), String> {
    let layers = tensors.keys().filter_map(|name| name.strip_suffix(DECONV));
    let layers: Vec<&str> = layers.collect();
    let mut plain = tensors.clone();
    for layer in &layers {
        let get = |what: &str| tensors.get(&format!("{layer}.{what}"));
        let (Some(mean), Some(deconv)) = (get("running_mean"), get("running_deconv")) else {
            return Err(format!("{layer} has no running mean"));
        };
        let into = match get("weight") {
            Some(_) => (*layer).to_string(),
            None => after_norm(layer, tensors)?,
        };
        let of = |what: &str| format!("{into}.{what}");
        let (Some(weight), Some(bias)) = (tensors.get(&of("weight")), tensors.get(&of("bias")))
        else {
            return Err(format!("{into} has no weight and bias"));
        };
        let rest = [get("running_rest_mean"), get("running_rest_var")];
        let made = match get("weight") {
            Some(_) => fold_layer(weight, bias, mean, deconv),
            None => fold_channels(weight, bias, mean, deconv, rest, eps),
        };
        let (weight, bias) =
            made.ok_or_else(|| format!("the sizes of {layer} do not fit each other"))?;
        plain.insert(of("weight"), weight);
        plain.insert(of("bias"), bias);
        for what in STATISTICS {
            plain.remove(&format!("{layer}.{what}"));
        }
    }
    Ok((plain, layers.len()))
}

/// The linear layer that follows the channel deconvolution `norm`, by the names that networks give them.
fn after_norm(norm: &str, tensors: &Tensors) -> Result<String, String> {
    let names = [
        norm.strip_suffix(".norm").map(str::to_string),
        norm.strip_prefix("norm")
            .map(|number| format!("fc{number}")),
    ];
    let is_linear = |name: &String| {
        let weight = tensors.get(&format!("{name}.weight"));
        weight.is_some_and(|weight| weight.shape.len() == 2)
    };
    names.into_iter().flatten().find(is_linear).ok_or_else(|| {
        format!(
            "{norm} decorrelates channels before a convolution that pads with zeros: no plain convolution does both. \
             Networks of linear layers alone can be folded with `norm` channel, all networks with `norm` deconv"
        )
    })
}

/// `weight` [O, C], `bias` `[O]` after channel deconvolution: `mean` `[block]`, `deconv` [block, block], and of the channels
/// that are left mean and variance. Channel b * blocks + j is component b of block j.
fn fold_channels(
    weight: &HostTensor,
    bias: &HostTensor,
    mean: &HostTensor,
    deconv: &HostTensor,
    rest: [Option<&HostTensor>; 2],
    eps: f32,
) -> Option<(HostTensor, HostTensor)> {
    let (&[outputs, channels], &[block, other]) =
        (weight.shape.as_slice(), deconv.shape.as_slice())
    else {
        return None;
    };
    let fits = block > 0
        && block == other
        && block <= channels
        && mean.data.len() == block
        && bias.data.len() == outputs;
    if !fits {
        return None;
    }
    let blocks = channels / block;
    let whitened = blocks * block;
    let [rest_mean, rest_var] = match whitened < channels {
        true => rest.map(|t| t.and_then(|t| t.data.first().copied())),
        false => [Some(0.0), Some(1.0)],
    };
    let (rest_mean, std) = (f64::from(rest_mean?), f64::from(rest_var? + eps).sqrt());
    let (mut folded, mut shifted) = (weight.clone(), bias.clone());
    for (row, bias) in folded.data.chunks_mut(channels).zip(&mut shifted.data) {
        let mut shift = 0.0;
        for j in 0..blocks {
            let of_block: Vec<f32> = (0..block).map(|b| row[b * blocks + j]).collect();
            let mut sums = vec![0.0; block];
            times(&of_block, &deconv.data, &mut sums);
            for (b, sum) in sums.iter().enumerate() {
                row[b * blocks + j] = *sum as f32;
                shift += sum * f64::from(mean.data[b]);
            }
        }
        for w in &mut row[whitened..] {
            let scaled = f64::from(*w) / std;
            *w = scaled as f32;
            shift += scaled * rest_mean;
        }
        *bias = (f64::from(*bias) - shift) as f32;
    }
    Some((folded, shifted))
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
        let (plain, count) = folded(&tensors, 0.0).unwrap();
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
        assert!(
            folded(&bare, 0.0)
                .unwrap_err()
                .contains("no weight and bias")
        );
        bare.remove("fc.weight");
        assert!(
            folded(&bare, 0.0)
                .unwrap_err()
                .contains("decorrelates channels")
        );
        let mut wrong = tensors;
        wrong.insert("fc.running_mean".into(), tensor(&[3], &[0.0; 3]));
        assert!(folded(&wrong, 0.0).unwrap_err().contains("do not fit"));
    }

    /// Five channels: two blocks of two, channels 0 and 2 in one, 1 and 3 in the other, and one that is left; by hand.
    #[test]
    fn channel_deconvolution_before_a_linear_layer_by_hand() {
        let tensors = Tensors::from([
            (
                "fc1.weight".into(),
                tensor(&[1, 5], &[1.0, 2.0, 3.0, 4.0, 6.0]),
            ),
            ("fc1.bias".into(), tensor(&[1], &[100.0])),
            ("norm1.running_mean".into(), tensor(&[2], &[1.0, -1.0])),
            (
                "norm1.running_deconv".into(),
                tensor(&[2, 2], &[2.0, 1.0, 1.0, 3.0]),
            ),
            ("norm1.running_rest_mean".into(), tensor(&[1], &[5.0])),
            ("norm1.running_rest_var".into(), tensor(&[1], &[3.0])),
            ("norm1.num_batches_tracked".into(), tensor(&[1], &[9.0])),
        ]);
        let (plain, count) = folded(&tensors, 1.0).unwrap();
        assert_eq!(count, 1);
        // (1, 3) D = (5, 10), (2, 4) D = (8, 14), 6 / sqrt(3 + 1) = 3.
        assert_eq!(plain["fc1.weight"].data, [5.0, 8.0, 10.0, 14.0, 3.0]);
        // 5 - 10 + 8 - 14 + 3 * 5 = 4.
        assert_eq!(plain["fc1.bias"].data, [96.0]);
        let names: Vec<&str> = plain.keys().map(String::as_str).collect();
        assert_eq!(names, ["fc1.bias", "fc1.weight"]);
        let mut convolution = tensors;
        convolution.insert("fc1.weight".into(), tensor(&[1, 5, 3, 3], &[0.0; 45]));
        assert!(
            folded(&convolution, 1.0)
                .unwrap_err()
                .contains("pads with zeros")
        );
    }

    /// Each of three groups of outputs has its own mean and D, whatever thread folds it.
    #[test]
    fn groups_keep_to_their_own_statistics() {
        let (groups, outputs) = (3, 12);
        let mean: Vec<f32> = (0..groups)
            .flat_map(|g| [g as f32, 2.0 - g as f32])
            .collect();
        let deconv = |g: usize| [g as f32 + 1.0, 1.0, 3.0, g as f32 - 4.0];
        let all: Vec<f32> = (0..groups).flat_map(deconv).collect();
        let weight: Vec<f32> = (0..outputs).flat_map(|o| [o as f32, 1.0]).collect();
        let bias: Vec<f32> = (0..outputs).map(|o| 100.0 + o as f32).collect();
        let (plain, shifted) = fold_layer(
            &tensor(&[outputs, 2, 1, 1], &weight),
            &tensor(&[outputs], &bias),
            &tensor(&[groups, 2], &mean),
            &tensor(&[groups, 2, 2], &all),
        )
        .unwrap();
        for o in 0..outputs {
            let g = o / 4;
            let [d00, d01, d10, d11] = deconv(g);
            let w = [o as f32 * d00 + d10, o as f32 * d01 + d11];
            assert_eq!(plain.data[2 * o..][..2], w, "output {o}");
            let shift = w[0] * g as f32 + w[1] * (2.0 - g as f32);
            assert_eq!(shifted.data[o], 100.0 + o as f32 - shift, "output {o}");
        }
        // No number of outputs that three groups share.
        let refused = fold_layer(
            &tensor(&[4, 2, 1, 1], &weight[..8]),
            &tensor(&[4], &bias[..4]),
            &tensor(&[groups, 2], &mean),
            &tensor(&[groups, 2, 2], &all),
        );
        assert!(refused.is_none());
    }
}
