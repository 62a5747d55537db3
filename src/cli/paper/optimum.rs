//! The least loss of linear regression, in closed form (Eq. 7).

use decorr::data::{DataSet, Images, Pixels};
use decorr::{Error, Result};

/// Half the squared error of the best linear layer with bias, summed over classes and averaged over the training images: the least
/// of Eq. 6, for targets that are 1 at the image's class and 0 elsewhere. Any scaling of the pixels gives the same.
///
/// # Errors
/// [`Error::Data`] if pixels are no bytes.
pub(super) fn least_squares(set: &DataSet) -> Result<f64> {
    let train = &set.train;
    // The image's pixels and a 1 for the bias.
    let features = train.image_len() + 1;
    // Sums of whole numbers, exact below 2^53.
    let mut gram = vec![0.0f64; features * features];
    let mut moments = vec![0.0f64; features * train.classes];
    let all: Vec<usize> = (0..train.len()).collect();
    for some in all.chunks(64) {
        let rows: Result<Vec<Vec<f64>>> = some.iter().map(|&i| row(train, i)).collect();
        let rows = rows?;
        for a in 0..features {
            let sums = &mut gram[a * features..][..=a];
            for row in rows.iter().filter(|row| row[a] != 0.0) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, other)| *sum += row[a] * other);
            }
            for (row, &i) in rows.iter().zip(some) {
                moments[a * train.classes + usize::from(train.labels[i])] += row[a];
            }
        }
    }
    // The loss is that of predicting 0, half of the one target a row that is 1, less what the weights explain.
    let explained = explained(&gram, &moments, features, train.classes);
    Ok(0.5 - 0.5 * explained / train.len() as f64)
}

fn row(images: &Images, i: usize) -> Result<Vec<f64>> {
    match images.image(i)?.0 {
        Pixels::Bytes(bytes) => Ok(bytes.into_iter().map(f64::from).chain([1.0]).collect()),
        Pixels::Floats(_) => Err(Error::data(
            &images.name,
            "the optimum is of images of bytes",
        )),
    }
}

/// The sum over classes of m^T G^-1 m, for the moments m of a class: by G = L L^T it is |L^-1 m|^2. Columns of the data that depend on
/// those before them, as of pixels that are always black, explain nothing more; so that rounding does not hide this, the column with
/// the most that is unexplained is always the next.
fn explained(gram: &[f64], moments: &[f64], n: usize, classes: usize) -> f64 {
    // Columns of length 1.
    let scale: Vec<f64> = (0..n).map(|i| gram[i * n + i].sqrt()).collect();
    let value = |i: usize, j: usize| gram[i.max(j) * n + i.min(j)] / (scale[i] * scale[j]);
    let mut left: Vec<f64> = scale
        .iter()
        .map(|&s| if s > 0.0 { 1.0 } else { 0.0 })
        .collect();
    let mut order: Vec<usize> = (0..n).collect();
    // Row i: what the columns of `order` explain of column i.
    let mut l = vec![0.0f64; n * n];
    let mut w = vec![0.0f64; n * classes];
    for k in 0..n {
        let Some(at) = (k..n).max_by(|&a, &b| left[order[a]].total_cmp(&left[order[b]])) else {
            break;
        };
        if left[order[at]] < 1e-10 {
            break;
        }
        order.swap(k, at);
        let i = order[k];
        let pivot = left[i].sqrt();
        let of_i = l[i * n..][..k].to_vec();
        l[i * n + k] = pivot;
        for &j in &order[k + 1..] {
            if scale[j] > 0.0 {
                let dot: f64 = of_i.iter().zip(&l[j * n..]).map(|(a, b)| a * b).sum();
                let share = (value(i, j) - dot) / pivot;
                l[j * n + k] = share;
                left[j] -= share * share;
            }
        }
        for c in 0..classes {
            let dot: f64 = (0..k).map(|m| of_i[m] * w[m * classes + c]).sum();
            w[k * classes + c] = (moments[i * classes + c] / scale[i] - dot) / pivot;
        }
    }
    w.iter().map(|w| w * w).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pixels of which one is always 0 and another is twice the first: two weights and a bias for four images.
    #[test]
    fn the_least_loss_is_that_of_the_normal_equations() {
        let bytes = vec![1, 0, 2, 2, 0, 4, 3, 0, 6, 4, 0, 8];
        let images =
            |bytes: Vec<u8>, labels: Vec<u16>| Images::new(bytes, [1, 1, 3], labels, 2).unwrap();
        let set = |labels: Vec<u16>| {
            let train = images(bytes.clone(), labels);
            DataSet::new(train.clone(), train, &[0.0], &[1.0]).unwrap()
        };
        // One x in 1, 2, 3, 4 and targets 0, 0, 1, 1: slope .4, bias -.5, residuals .1, -.3, .3, -.1; of two classes.
        let loss = least_squares(&set(vec![0, 0, 1, 1])).unwrap();
        assert!((loss - 0.5 * 2.0 * 0.2 / 4.0).abs() < 1e-12, "{loss}");
        // With more pixels than images, every target is met.
        let few = Images::new(
            (0..40u8).map(|i| i * i % 37).collect::<Vec<u8>>(),
            [1, 1, 10],
            vec![0, 1, 1, 0],
            2,
        );
        let few = few.unwrap();
        let loss = least_squares(&DataSet::new(few.clone(), few, &[0.0], &[1.0]).unwrap()).unwrap();
        assert!(loss.abs() < 1e-9, "{loss}");
        // A target that is always the same is met by the bias.
        assert!(least_squares(&set(vec![1; 4])).unwrap().abs() < 1e-12);
    }
}
