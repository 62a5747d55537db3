//! What a network says of an image.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// What a network says of a picture.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Of each class.
    pub logits: Vec<f32>,
    class_names: Arc<[String]>,
}

/// A class, and how probable it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Its name, if it is known.
    pub class: Option<String>,
    /// Its number, from 0.
    pub index: usize,
    /// In [0, 1].
    #[serde(serialize_with = "short")]
    pub probability: f64,
}

/// Seven digits, which is what there is of an f32.
fn short<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f32(*value as f32)
}

impl Prediction {
    /// One for each row of `logits` [N, classes].
    pub(super) fn of_rows(
        logits: &[f32],
        classes: usize,
        class_names: &Arc<[String]>,
    ) -> Vec<Self> {
        let of_row = |logits: &[f32]| Self {
            logits: logits.to_vec(),
            class_names: Arc::clone(class_names),
        };
        logits.chunks_exact(classes.max(1)).map(of_row).collect()
    }

    /// Softmax of the logits: of each class, how probable it is. (Whatever loss the network was trained with.)
    pub fn probabilities(&self) -> Vec<f64> {
        let most = self
            .logits
            .iter()
            .copied()
            .fold(f32::NEG_INFINITY, f32::max);
        let exp = |v: &f32| (f64::from(*v) - f64::from(most)).exp();
        let sum: f64 = self.logits.iter().map(exp).sum();
        self.logits.iter().map(|v| exp(v) / sum).collect()
    }

    /// The `k` most probable classes, the most probable one first; of equal ones that with the smaller number. All if there
    /// are no more.
    pub fn top(&self, k: usize) -> Vec<Guess> {
        let probabilities = self.probabilities();
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        order.sort_by(|&a, &b| self.logits[b].total_cmp(&self.logits[a]));
        let guess = |index: usize| Guess {
            class: self.class_names.get(index).cloned(),
            index,
            probability: probabilities[index],
        };
        order.into_iter().take(k).map(guess).collect()
    }
}

impl fmt::Display for Guess {
    /// `tabby .83`, or of a class without a name `class 281 .83`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.class {
            Some(name) => write!(f, "{name} ")?,
            None => write!(f, "class {} ", self.index)?,
        }
        let digits = format!("{:.2}", self.probability);
        f.write_str(digits.strip_prefix('0').unwrap_or(&digits))
    }
}
