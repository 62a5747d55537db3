//! What curves show: points of runs, smoothed, as means over seeds, within an axis. Nothing here draws.

use std::collections::BTreeMap;

use super::axis::{number, rounded, unscaled};
use super::curve_options::{CurveOptions, Line, YAxis};
use super::metrics::{Record, Split};

/// Logged steps that a running mean over `count` of them is over: `smooth`, or a tenth of all, at most 10.
pub fn smoothing(count: usize, smooth: Option<usize>) -> usize {
    let window = smooth.unwrap_or((count / 10).min(10));
    window.clamp(1, count.max(1))
}

/// Each point's mean with those before it: over as many as [`smoothing`] says.
pub fn running_mean(points: &[(f64, f64)], smooth: Option<usize>) -> Vec<(f64, f64)> {
    let window = smoothing(points.len(), smooth);
    (0..points.len())
        .map(|i| {
            let last = &points[(i + 1).saturating_sub(window)..=i];
            let sum: f64 = last.iter().map(|p| p.1).sum();
            (points[i].0, sum / last.len() as f64)
        })
        .collect()
}

/// Steps of an epoch by the log of a run: known once an epoch is over, since the test at its end is at its last step.
pub fn steps_per_epoch(records: &[Record]) -> Option<f64> {
    let is_over = records.iter().any(|r| r.epoch > 0);
    let least = records.iter().map(|r| r.step as f64 / (r.epoch + 1) as f64);
    least.reduce(f64::max).filter(|_| is_over)
}

/// A point of a curve: the mean of runs, their least and their greatest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// One line in one panel. On a logarithmic axis values are their logarithms to base 10.
#[derive(Debug)]
pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) runs: usize,
    /// Training steps of a run that is alone, without smoothing.
    pub(super) raw: Vec<(f64, f64)>,
    /// Their running means.
    pub(super) train: Vec<Point>,
    pub(super) test: Vec<Point>,
    /// Whether the axis need not hold it.
    diverged: bool,
    /// Where a loss was not a number.
    lost: Option<f64>,
    /// Values that a logarithmic axis has no place for.
    not_positive: usize,
}

impl<'a> Curve<'a> {
    /// Of points that are as they are to be drawn.
    pub(super) fn through(name: &'a str, runs: usize, points: Vec<Point>) -> Self {
        Self {
            name,
            runs,
            raw: Vec::new(),
            train: points.clone(),
            test: points,
            diverged: false,
            lost: None,
            not_positive: 0,
        }
    }

    pub(super) fn of(line: &Line<'a>, options: &CurveOptions, y: YAxis) -> Self {
        let place = |r: &Record| options.x.of(r, line.steps_per_epoch);
        let points = |split: Split, smooth: Option<usize>| -> Vec<Vec<(u64, f64, f64)>> {
            let of_run = |records: &&[Record]| {
                let of = records.iter().filter(|r| r.split == split);
                let finite =
                    of.filter_map(|r| Some((r, y.of(r).filter(|value| value.is_finite())?)));
                let (steps, points): (Vec<u64>, Vec<(f64, f64)>) =
                    finite.map(|(r, value)| (r.step, (place(r), value))).unzip();
                let means = running_mean(&points, smooth);
                steps
                    .into_iter()
                    .zip(means)
                    .map(|(step, (x, y))| (step, x, y))
                    .collect()
            };
            line.runs.iter().map(of_run).collect()
        };
        let train = over_runs(&points(Split::Train, options.smooth));
        let test = over_runs(&points(Split::Test, Some(1)));
        let raw = match line.runs.len() {
            1 => over_runs(&points(Split::Train, Some(1))),
            _ => Vec::new(),
        };
        let not_positive = |points: &[Point]| points.iter().filter(|p| p.mean <= 0.0).count();
        let not_positive = match options.log {
            true => not_positive(&train) + not_positive(&test),
            false => 0,
        };
        let of_loss = y == YAxis::Loss;
        let lost = line
            .runs
            .iter()
            .copied()
            .flatten()
            .find(|r| r.loss.is_none());
        Self {
            name: line.name,
            runs: line.runs.len(),
            raw: scaled(raw, options.log).map(|p| (p.x, p.mean)).collect(),
            train: scaled(train, options.log).collect(),
            test: scaled(test, options.log).collect(),
            diverged: of_loss && line.runs.iter().any(|records| has_diverged(records)),
            lost: lost.filter(|_| of_loss).map(place),
            not_positive,
        }
    }

    /// What a reader should know of it in panel `y`, whose axis goes from `low` to `high`.
    pub(super) fn notices(&self, options: &CurveOptions, y: YAxis, axis: [f64; 2]) -> Vec<String> {
        let (name, over) = (self.name, options.x.name());
        let mut notices = Vec::new();
        let outside = |p: &&Point| !(axis[0]..=axis[1]).contains(&p.mean);
        let first = |points: &[Point]| points.iter().find(outside).map(|p| p.x);
        let left = [first(&self.train), first(&self.test)];
        if let Some(x) = left.into_iter().flatten().reduce(f64::min) {
            let [low, high] = axis.map(|v| number(rounded(unscaled(v, options.log))));
            notices.push(format!(
                "{name} leaves the axis of the {}, {low} to {high}, at {over} {}: the axis is that of the runs that did not diverge",
                y.name(),
                number(x)
            ));
        }
        if let Some(x) = self.lost {
            notices.push(format!(
                "the loss of {name} is not a number at {over} {}",
                number(x)
            ));
        }
        if self.not_positive > 0 {
            notices.push(format!(
                "{name}: a logarithmic axis has no place for {} of its points of the {}, which are not above 0",
                self.not_positive,
                y.name()
            ));
        }
        notices
    }
}

/// Whether a run's loss stopped being a number, or came to ten times what it began with (to 10 if it began below 1).
fn has_diverged(records: &[Record]) -> bool {
    let first = records.iter().find_map(|r| r.loss).unwrap_or(1.0);
    let most = 10.0 * first.max(1.0);
    records
        .iter()
        .any(|r| r.loss.is_none_or(|loss| loss.is_nan() || loss > most))
}

/// At the steps that all runs have: mean place, mean value, least and greatest value.
fn over_runs(runs: &[Vec<(u64, f64, f64)>]) -> Vec<Point> {
    let mut at: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for run in runs {
        // The last one counts, should a run have a step twice.
        let run: BTreeMap<u64, (f64, f64)> = run.iter().map(|&(s, x, y)| (s, (x, y))).collect();
        run.into_iter()
            .for_each(|(step, point)| at.entry(step).or_default().push(point));
    }
    let all = at.into_values().filter(|points| points.len() == runs.len());
    all.map(|points| {
        let count = points.len() as f64;
        let ys = || points.iter().map(|p| p.1);
        Point {
            x: points.iter().map(|p| p.0).sum::<f64>() / count,
            mean: ys().sum::<f64>() / count,
            low: ys().fold(f64::INFINITY, f64::min),
            high: ys().fold(f64::NEG_INFINITY, f64::max),
        }
    })
    .collect()
}

/// As they are, or their logarithms, without those that have none.
fn scaled(points: Vec<Point>, log: bool) -> impl Iterator<Item = Point> {
    let scale = move |v: f64| if log { v.log10() } else { v };
    let points = points.into_iter().map(move |p| Point {
        x: p.x,
        mean: scale(p.mean),
        low: scale(p.low),
        high: scale(p.high),
    });
    points.filter(|p| p.mean.is_finite())
}

/// How far the axes of `curves` go: to the right, down and up. Of those that diverged only if all did.
pub(super) fn bounds(curves: &[Curve<'_>], log: bool) -> (f64, [f64; 2]) {
    let points = |c: &Curve<'_>| -> Vec<Point> { c.train.iter().chain(&c.test).copied().collect() };
    let last = curves
        .iter()
        .flat_map(points)
        .map(|p| p.x)
        .fold(1.0, f64::max);
    (last, held(curves, log))
}

/// The ends of the y axis that holds `curves`.
pub(super) fn held(curves: &[Curve<'_>], log: bool) -> [f64; 2] {
    let points = |c: &Curve<'_>| -> Vec<Point> { c.train.iter().chain(&c.test).copied().collect() };
    let all_diverged = curves.iter().all(|c| c.diverged);
    let held = curves.iter().filter(|c| all_diverged || !c.diverged);
    let values = held.flat_map(|c| {
        let ends = points(c).into_iter().flat_map(|p| [p.low, p.mean, p.high]);
        ends.chain(c.raw.iter().map(|p| p.1)).collect::<Vec<_>>()
    });
    let values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    let low = values.iter().copied().reduce(f64::min);
    let high = values.iter().copied().reduce(f64::max);
    let [low, high] = match (low.zip(high), log) {
        (Some((low, high)), _) if low < high => [low, high],
        // A single value, or none.
        (Some((only, _)), true) => [only - 0.5, only + 0.5],
        (None, true) => [-1.0, 0.0],
        (only, false) => {
            let only = only.map_or(0.0, |both| both.0);
            [only.min(0.0), only.max(0.0) + 1.0]
        }
    };
    let room = (high - low) * 0.05;
    [low - room, high + room]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(split: Split, step: u64, loss: Option<f64>, top1: f64) -> Record {
        Record {
            split,
            step,
            epoch: (step.max(1) - 1) / 20,
            loss,
            top1: Some(top1),
            top5: None,
            lr: None,
            seconds: (step * step) as f64,
        }
    }

    fn losses(losses: &[f64]) -> Vec<Record> {
        let steps = losses.iter().zip(1..);
        steps
            .map(|(&loss, step)| record(Split::Train, step, Some(loss), 0.5))
            .collect()
    }

    fn line<'a>(name: &'a str, runs: &[&'a [Record]]) -> Line<'a> {
        Line {
            name,
            runs: runs.to_vec(),
            steps_per_epoch: None,
        }
    }

    fn curve<'a>(runs: &[&'a [Record]], options: &CurveOptions) -> Curve<'a> {
        Curve::of(&line("a", runs), options, YAxis::Loss)
    }

    #[test]
    fn the_running_mean_is_over_a_tenth_or_what_is_asked_for() {
        let points: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i), f64::from(i))).collect();
        let means = running_mean(&points, None);
        assert_eq!((means[0].1, means[1].1, means[19].1), (0.0, 0.5, 18.5));
        assert_eq!(running_mean(&points[..9], None), points[..9]);
        assert_eq!(running_mean(&points, Some(1)), points);
        assert_eq!(running_mean(&points, Some(4))[19], (19.0, 17.5));
        // No more than there are, and no fewer than one.
        assert_eq!(running_mean(&points[..3], Some(99))[2], (2.0, 1.0));
        assert_eq!(
            [
                smoothing(3, Some(99)),
                smoothing(3, Some(0)),
                smoothing(0, None)
            ],
            [3, 1, 1]
        );
        // Ten at most: 290 to 299.
        let points: Vec<(f64, f64)> = (0..300).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(running_mean(&points, None)[299], (299.0, 294.5));
        assert!(running_mean(&[], None).is_empty());
    }

    #[test]
    fn an_epoch_is_as_long_as_the_log_says_once_one_is_over() {
        let at = |step| record(Split::Train, step, Some(1.0), 0.5);
        assert_eq!(steps_per_epoch(&[at(1), at(10), at(20)]), None);
        assert_eq!(
            steps_per_epoch(&[at(1), at(10), at(20), at(30)]),
            Some(20.0)
        );
        assert_eq!(steps_per_epoch(&[]), None);
    }

    /// Only where all runs are, so that the mean does not jump where one ends.
    #[test]
    fn seeds_become_mean_least_and_greatest() {
        let (a, b) = (losses(&[4.0, 2.0, 1.0]), losses(&[6.0, 8.0]));
        let both = curve(
            &[&a, &b],
            &CurveOptions {
                smooth: Some(1),
                ..CurveOptions::default()
            },
        );
        let point = |x, mean, low, high| Point { x, mean, low, high };
        assert_eq!(
            both.train,
            [point(1.0, 5.0, 4.0, 6.0), point(2.0, 5.0, 2.0, 8.0)]
        );
        assert!(both.raw.is_empty() && both.runs == 2);
        // Each is smoothed by itself: 3 and 7 at the second step.
        let smooth = CurveOptions {
            smooth: Some(2),
            ..CurveOptions::default()
        };
        assert_eq!(
            curve(&[&a, &b], &smooth).train[1],
            point(2.0, 5.0, 3.0, 7.0)
        );
        let alone = curve(&[&a], &smooth);
        assert_eq!(alone.raw, [(1.0, 4.0), (2.0, 2.0), (3.0, 1.0)]);
        assert_eq!(alone.train[2], point(3.0, 1.5, 1.5, 1.5));
    }

    /// All that is drawn lies inside, tests among it.
    #[test]
    fn bounds_are_those_of_all_points() {
        let options = CurveOptions::default();
        let mut first = losses(&[4.0, 3.0]);
        first.push(record(Split::Test, 7, Some(9.0), 0.5));
        let mut second = losses(&[5.0]);
        second.push(record(Split::Test, 8, Some(1.0), 0.5));
        let both = [curve(&[&first], &options), curve(&[&second], &options)];
        let near = |(last, [low, high]): (f64, [f64; 2]), wanted: [f64; 3]| {
            let room = (wanted[2] - wanted[1]) * 0.05;
            let distance = [
                last - wanted[0],
                low + room - wanted[1],
                high - room - wanted[2],
            ];
            assert!(
                distance.iter().all(|d| d.abs() < 1e-9),
                "{last} {low} {high}"
            );
        };
        near(bounds(&both, false), [8.0, 1.0, 9.0]);
        near(bounds(&both[..1], false), [7.0, 3.0, 9.0]);
        let single = losses(&[2.0]);
        near(
            bounds(&[curve(&[&single], &options)], false),
            [1.0, 0.0, 3.0],
        );
        near(bounds(&[], false), [1.0, 0.0, 1.0]);
        near(bounds(&[], true), [1.0, -1.0, 0.0]);
        let log = CurveOptions {
            log: true,
            ..options
        };
        let hundred = losses(&[100.0]);
        near(bounds(&[curve(&[&hundred], &log)], true), [1.0, 1.5, 2.5]);
        let [a, b] = [losses(&[100.0, 10.0]), losses(&[1.0])];
        near(
            bounds(&[curve(&[&a], &log), curve(&[&b], &log)], true),
            [2.0, 0.0, 2.0],
        );
        // The band of seeds is inside.
        near(
            bounds(
                &[curve(
                    &[&losses(&[4.0]), &losses(&[6.0])],
                    &CurveOptions::default(),
                )],
                false,
            ),
            [1.0, 4.0, 6.0],
        );
    }

    #[test]
    fn a_run_that_diverged_leaves_the_axis_to_the_others() {
        let options = CurveOptions {
            smooth: Some(1),
            ..CurveOptions::default()
        };
        let good = losses(&[2.0, 1.0, 0.5]);
        let wild = losses(&[2.0, 30.0, 1e11]);
        let mut lost = losses(&[2.0, 1.9]);
        lost.push(record(Split::Train, 3, None, 0.1));
        let curves = [&good, &wild, &lost].map(|records| curve(&[records], &options));
        assert_eq!([0, 1, 2].map(|i| curves[i].diverged), [false, true, true]);
        let (last, axis) = bounds(&curves, false);
        assert_eq!(last, 3.0);
        assert!(axis[0] > 0.4 && axis[1] < 2.1, "{axis:?}");
        let notices = [0, 1, 2].map(|i| curves[i].notices(&options, YAxis::Loss, axis).join("; "));
        assert_eq!(notices[0], "");
        let left = "a leaves the axis of the loss, 0.425 to 2.08, at step 2: ";
        assert!(notices[1].starts_with(left), "{}", notices[1]);
        assert_eq!(notices[2], "the loss of a is not a number at step 3");
        // Of several runs one is enough.
        let several = curve(&[&good, &wild], &options);
        assert!(several.diverged);
        // Alone it has the axis for itself.
        assert!(bounds(&curves[1..2], false).1[1] > 1e11);
        // Its accuracies are numbers like others.
        let of = Curve::of(&line("a", &[&wild]), &options, YAxis::Top1);
        assert!(!of.diverged && of.lost.is_none());
        // Losses that begin small may grow to 10.
        assert!(!has_diverged(&losses(&[0.01, 9.0])) && has_diverged(&losses(&[0.01, 11.0])));
        assert!(!has_diverged(&[]));
    }

    #[test]
    fn what_a_logarithm_does_not_know_is_counted() {
        let log = CurveOptions {
            log: true,
            smooth: Some(1),
            ..CurveOptions::default()
        };
        let records = [1.0, 0.9, 1.0].iter().zip(1..);
        let records: Vec<Record> = records
            .map(|(&top1, step)| record(Split::Test, step, Some(1.0), top1))
            .collect();
        let of = Curve::of(&line("a", &[&records]), &log, YAxis::Error);
        assert_eq!(of.test.len(), 1);
        assert!((of.test[0].mean + 1.0).abs() < 1e-9);
        let notices = of.notices(&log, YAxis::Error, [-2.0, 0.0]);
        assert!(
            notices.len() == 1 && notices[0].contains("2 of its points"),
            "{notices:?}"
        );
    }
}
