//! What curves are drawn of, and over what.

use super::metrics::Record;

/// A run, or several that differ only in their seed, as one line of a drawing.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// For the legend.
    pub name: &'a str,
    /// What each run logged.
    pub runs: Vec<&'a [Record]>,
    /// Steps of an epoch. If it is `None`, curves over epochs have each record at its whole epoch.
    pub steps_per_epoch: Option<f64>,
}

/// What curves are drawn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum XAxis {
    /// Training steps
    #[default]
    Step,
    /// Epochs, with their parts
    Epoch,
    /// Seconds since training began, without evaluations
    Seconds,
}

impl XAxis {
    /// Where `record` is.
    pub(super) fn of(self, record: &Record, steps_per_epoch: Option<f64>) -> f64 {
        match self {
            Self::Step => record.step as f64,
            Self::Epoch => match steps_per_epoch {
                Some(steps) => record.step as f64 / steps,
                None => record.epoch as f64,
            },
            Self::Seconds => record.seconds,
        }
    }

    /// What the axis says.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Epoch => "epoch",
            Self::Seconds => "seconds",
        }
    }
}

/// What curves are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum YAxis {
    /// Loss
    Loss,
    /// Top-1 accuracy
    Top1,
    /// 1 - top-1 accuracy
    Error,
}

impl YAxis {
    /// The value of `record`.
    pub fn of(self, record: &Record) -> Option<f64> {
        match self {
            Self::Loss => record.loss,
            Self::Top1 => record.top1,
            Self::Error => record.top1.map(|top1| 1.0 - top1),
        }
    }

    /// What the axis says.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Top1 => "top-1 accuracy",
            Self::Error => "top-1 error",
        }
    }
}

/// What is drawn, and how.
#[derive(Clone, Debug, Default)]
pub struct CurveOptions {
    /// Above the curves.
    pub title: String,
    /// What they are over.
    pub x: XAxis,
    /// What they are of; `None`: losses and top-1 accuracies, side by side.
    pub y: Option<YAxis>,
    /// Whether the y axes are logarithmic.
    pub log: bool,
    /// See [`super::smoothing`].
    pub smooth: Option<usize>,
    /// A value that is marked among the losses by a dashed line, and its name.
    pub level: Option<(String, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::Split;

    #[test]
    fn curves_are_over_and_of_what_the_axes_say() {
        let one = Record {
            split: Split::Train,
            step: 9,
            epoch: 4,
            loss: Some(3.0),
            top1: Some(0.75),
            top5: None,
            lr: None,
            seconds: 81.0,
        };
        assert_eq!(
            [XAxis::Step, XAxis::Seconds].map(|x| x.of(&one, None)),
            [9.0, 81.0]
        );
        assert_eq!(
            [None, Some(6.0)].map(|p| XAxis::Epoch.of(&one, p)),
            [4.0, 1.5]
        );
        let of = [YAxis::Loss, YAxis::Top1, YAxis::Error].map(|y| y.of(&one));
        assert_eq!(of, [Some(3.0), Some(0.75), Some(0.25)]);
    }
}
