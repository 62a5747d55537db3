//! What changed between two reports, beyond noise.
//!
//! Other work on a machine makes rounds slower, never faster. So the best round is the measurement, and how
//! far the better rounds lie apart says how far the best one may be from an undisturbed one: of times
//! that are disturbed at random, the gap between the best and the second best is on average the gap
//! between the best of them and no disturbance at all. The lower quartile is taken, which of five
//! rounds is the second best.
//!
//! The multiply-add peak is the control. It depends on nothing in decorr, so what changed of it, and its
//! noise, is the machine's: no other row counts as changed by less.

use std::fmt::Write;

use serde::Serialize;

use super::{Measurement, Report, workloads};

/// A change of less than this share is none: clocks and caches differ from one start of a program to
/// the next.
const LEAST_CHANGE: f64 = 0.03;

/// Noise that is assumed where fewer than three rounds tell nothing of it.
const UNKNOWN_NOISE: f64 = 0.1;

/// A machine whose own changes are above this is said to be busy.
const BUSY: f64 = 0.15;

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Takes less time than before, beyond noise.
    Faster,
    /// Takes more time than before, beyond noise.
    Slower,
    /// No change that noise could not have made.
    Same,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
        }
    }
}

/// A row that both reports have.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What was run.
    pub name: String,
    /// Milliseconds of the earlier report's best round.
    pub before_ms: f64,
    /// Milliseconds of the new report's best round.
    pub now_ms: f64,
    /// `now_ms` over `before_ms`.
    pub ratio: f64,
    /// The change that noise may make: 0.05 for 5 %.
    pub noise: f64,
    /// Whether it is more than that.
    pub verdict: Verdict,
}

/// Two reports side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What makes the comparison doubtful: another adapter, another version, a slower machine.
    pub notices: Vec<String>,
    /// Rows of both, in the order of the new report.
    pub changes: Vec<Change>,
    /// Names of rows that only the earlier report has.
    pub only_before: Vec<String>,
    /// Names of rows that only the new report has.
    pub only_now: Vec<String>,
}

/// Holds each row of `now` against that of `before`.
///
/// A row has changed if its best round did by more than its noise, and the median of its rounds did so by
/// 3 % in the same direction. Its noise is 3 %, and in both reports how far the lower quartile of the rounds
/// lies above the best (10 % where there are fewer than three rounds); and at least what the multiply-add peak,
/// which depends on nothing in decorr, changed by and has of noise itself, if the adapter is the same.
pub fn compare(before: &Report, now: &Report) -> Comparison {
    let pair = |name: &str| Some((before.measurement(name)?, now.measurement(name)?));
    let control = pair(workloads::PEAK).filter(|_| before.adapter == now.adapter);
    let control = control.map_or(0.0, |(old, new)| {
        let ratio = new.ms / old.ms;
        own_noise(old, new).max(ratio.max(1.0 / ratio) - 1.0)
    });
    let pairs = now.measurements.iter().filter_map(|new| pair(&new.name));
    let changes = pairs.map(|(old, new)| {
        let own = own_noise(old, new);
        let is_control = new.name == workloads::PEAK;
        change(old, new, if is_control { own } else { own.max(control) })
    });
    let missing_in = |report: &Report, of: &Report| {
        let names = of.measurements.iter().map(|f| f.name.clone());
        names.filter(|n| report.measurement(n).is_none()).collect()
    };
    let differences = [
        ("adapter", &before.adapter, &now.adapter),
        ("version of decorr", &before.version, &now.version),
        ("kernel variant", &before.variant, &now.variant),
    ];
    let mut notices: Vec<String> = differences
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(what, old, new)| {
            let old = if old.is_empty() {
                "an earlier one"
            } else {
                old
            };
            format!("another {what}: {old} before, {new} now")
        })
        .collect();
    if control > BUSY {
        notices.push(format!(
            "the machine itself changed or is busy: its {}, which depends on nothing in decorr, differs by \
             {:.0} % within or between the two runs, and no row counts as changed by less. Measure again \
             when nothing else runs",
            workloads::PEAK,
            100.0 * control
        ));
    }
    Comparison {
        notices,
        changes: changes.collect(),
        only_before: missing_in(now, before),
        only_now: missing_in(before, now),
    }
}

/// What the rounds of a row say of its noise.
fn own_noise(before: &Measurement, now: &Measurement) -> f64 {
    LEAST_CHANGE + noise(&before.rounds_ms) + noise(&now.rounds_ms)
}

fn change(before: &Measurement, now: &Measurement, noise: f64) -> Change {
    let ratio = now.ms / before.ms;
    let median_ratio = median(now) / median(before);
    let verdict = if ratio > 1.0 + noise && median_ratio > 1.0 + LEAST_CHANGE {
        Verdict::Slower
    } else if 1.0 / ratio > 1.0 + noise && 1.0 / median_ratio > 1.0 + LEAST_CHANGE {
        Verdict::Faster
    } else {
        Verdict::Same
    };
    Change {
        name: now.name.clone(),
        before_ms: before.ms,
        now_ms: now.ms,
        ratio,
        noise,
        verdict,
    }
}

/// How far the lower quartile lies above the least, as a share of it.
fn noise(rounds: &[f64]) -> f64 {
    let sorted = sorted(rounds);
    match sorted.as_slice() {
        [least, _, _, ..] => {
            let quartile = (sorted.len() as f64 / 4.0).round().max(1.0) as usize;
            sorted[quartile] / least - 1.0
        }
        _ => UNKNOWN_NOISE,
    }
}

fn median(measurement: &Measurement) -> f64 {
    let sorted = sorted(&measurement.rounds_ms);
    match sorted.len() {
        0 => measurement.ms,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

fn sorted(rounds: &[f64]) -> Vec<f64> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

impl Comparison {
    /// Names of the rows with this verdict.
    pub fn names(&self, verdict: Verdict) -> Vec<&str> {
        let rows = self.changes.iter().filter(|c| c.verdict == verdict);
        rows.map(|c| c.name.as_str()).collect()
    }

    /// The table for people, notices first.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for notice in &self.notices {
            let _ = writeln!(text, "notice: {notice}");
        }
        let widths = self.changes.iter().map(|c| c.name.len());
        let width = widths.fold(28, usize::max);
        let _ = writeln!(
            text,
            "{:<width$} {:>10} {:>10} {:>10} {:>7}  change",
            "workload", "ms before", "ms now", "now/before", "noise"
        );
        for c in &self.changes {
            let _ = writeln!(
                text,
                "{:<width$} {:>10.3} {:>10.3} {:>10.2} {:>6.0}%  {}",
                c.name,
                c.before_ms,
                c.now_ms,
                c.ratio,
                100.0 * c.noise,
                c.verdict.word()
            );
        }
        for (when, names) in [("before", &self.only_before), ("now", &self.only_now)] {
            if !names.is_empty() {
                let _ = writeln!(text, "only {when}: {}", names.join(", "));
            }
        }
        let count = |verdict| self.names(verdict).len();
        let _ = writeln!(
            text,
            "{} faster, {} slower, {} the same. Changed is what the best round and the median agree \
             on, the best by more than the noise.",
            count(Verdict::Faster),
            count(Verdict::Slower),
            count(Verdict::Same)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(name: &str, rounds: &[f64]) -> Measurement {
        Measurement {
            name: name.into(),
            ms: rounds.iter().copied().fold(f64::INFINITY, f64::min),
            rounds_ms: rounds.to_vec(),
            images_per_s: None,
            gflop: 1.0,
            gflops: 1.0,
            share_of_peak: 1.0,
            gb_per_s: 1.0,
            dispatches: 1,
            peak_mib: 1.0,
            ratio: None,
        }
    }

    fn report(measurements: Vec<Measurement>) -> Report {
        Report {
            version: "1".into(),
            adapter: "A".into(),
            variant: "tiled".into(),
            rounds: 5,
            measurements,
            summary: None,
            comparison: None,
        }
    }

    fn verdict(before: &[f64], now: &[f64]) -> Verdict {
        let (before, now) = (measurement("x", before), measurement("x", now));
        change(&before, &now, own_noise(&before, &now)).verdict
    }

    #[test]
    fn changes_are_told_from_noise() {
        let quiet = [100.0, 101.0, 100.5, 102.0, 100.2];
        let scaled = |by: f64| quiet.map(|ms| ms * by);
        assert_eq!(verdict(&quiet, &scaled(1.02)), Verdict::Same);
        assert_eq!(verdict(&quiet, &scaled(1.08)), Verdict::Slower);
        assert_eq!(verdict(&scaled(1.08), &quiet), Verdict::Faster);
        // A machine with other work on it: the same best in one of five rounds.
        let disturbed = [160.0, 104.0, 150.0, 130.0, 170.0];
        assert_eq!(verdict(&quiet, &disturbed), Verdict::Same);
        // The best is 12 % worse, but rounds were that far apart.
        let noisy = [112.0, 125.0, 130.0, 118.0, 150.0];
        assert_eq!(
            verdict(&[100.0, 109.0, 120.0, 105.0, 130.0], &noisy),
            Verdict::Same
        );
        // It is the noise of either report that counts: 7 % is much, but not where rounds lie 5 % above the best.
        let apart = [100.0, 105.0, 105.0, 105.0, 106.0];
        let later = [107.0, 107.2, 110.0, 111.0, 112.0];
        assert_eq!(verdict(&apart, &later), Verdict::Same);
        assert_eq!(verdict(&later, &apart), Verdict::Same);
        assert_eq!(verdict(&quiet, &later), Verdict::Slower);
        // One lucky round does not make a row faster while all others are slower.
        assert_eq!(
            verdict(&quiet, &[85.0, 86.0, 120.0, 118.0, 121.0]),
            Verdict::Same
        );
        // Nothing is known of the noise of single rounds.
        assert_eq!(verdict(&[100.0], &[120.0]), Verdict::Same);
        assert_eq!(verdict(&[100.0], &[130.0]), Verdict::Slower);
    }

    #[test]
    fn the_noise_is_the_lower_quartile_over_the_best() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(noise(&[130.0, 100.0, 104.0, 120.0, 110.0]), 0.04));
        assert!(near(noise(&[100.0, 110.0, 130.0]), 0.1));
        let seven = [107.0, 100.0, 101.0, 102.0, 103.0, 105.0, 106.0];
        assert!(near(noise(&seven), 0.02));
        assert!(near(noise(&[1.0, 2.0]), UNKNOWN_NOISE));
    }

    /// Rows of a multiply-add peak and others, 10 ms times a factor each.
    fn rows(factors: &[(&str, f64)]) -> Report {
        let row =
            |&(name, by): &(&str, f64)| measurement(name, &[10.0, 10.1, 10.2].map(|ms| ms * by));
        report(factors.iter().map(row).collect())
    }

    #[test]
    fn missing_rows_and_other_adapters_are_named() {
        let before = rows(&[(workloads::PEAK, 1.0), ("gone", 1.0), ("kept", 1.0)]);
        let mut now = rows(&[(workloads::PEAK, 1.5), ("kept", 1.5), ("new", 1.0)]);
        now.adapter = "B".into();
        let comparison = compare(&before, &now);
        assert_eq!(comparison.only_before, ["gone"]);
        assert_eq!(comparison.only_now, ["new"]);
        assert_eq!(comparison.names(Verdict::Slower), [workloads::PEAK, "kept"]);
        let table = comparison.table();
        for part in [
            "another adapter: A before, B now",
            "only before: gone",
            "only now: new",
            "0 faster, 2 slower, 0 the same",
        ] {
            assert!(table.contains(part), "no {part:?} in {table}");
        }
        let alike = compare(&before, &before);
        assert!(alike.notices.is_empty() && alike.only_now.is_empty());
        assert_eq!(alike.names(Verdict::Same).len(), 3);
    }

    #[test]
    fn what_the_machine_changed_by_is_no_change() {
        let before = rows(&[(workloads::PEAK, 1.0), ("a", 1.0), ("b", 1.0), ("c", 1.0)]);
        let now = rows(&[(workloads::PEAK, 1.3), ("a", 1.25), ("b", 2.0), ("c", 0.5)]);
        let comparison = compare(&before, &now);
        assert_eq!(comparison.names(Verdict::Same), ["a"]);
        assert_eq!(comparison.names(Verdict::Slower), [workloads::PEAK, "b"]);
        assert_eq!(comparison.names(Verdict::Faster), ["c"]);
        assert!(comparison.notices[0].contains("30 %"), "{comparison:?}");
        // Its noise counts too: rounds that lie far apart around the same best.
        let mut busy = rows(&[(workloads::PEAK, 1.0), ("a", 1.25)]);
        busy.measurements[0].rounds_ms = vec![10.0, 14.0, 15.0];
        let comparison = compare(&before, &busy);
        assert_eq!(comparison.names(Verdict::Same), [workloads::PEAK, "a"]);
        let quiet = rows(&[(workloads::PEAK, 1.01), ("a", 1.25)]);
        assert_eq!(compare(&before, &quiet).names(Verdict::Slower), ["a"]);
    }

    #[test]
    fn reports_of_earlier_versions_are_read() {
        let text = r#"{"adapter":"A","variant":"direct","rounds":5,"figures":[{"name":"x","ms":2.0,
            "gflop":1.0,"gflops":0.5,"share_of_peak":1.0,"gb_per_s":0.1,"dispatches":1,
            "peak_mib":0.5,"ratio":["y",1.5]}]}"#;
        let before: Report = serde_json::from_str(text).unwrap();
        let comparison = compare(&before, &report(vec![measurement("x", &[3.0, 3.0, 3.0])]));
        assert_eq!(comparison.names(Verdict::Slower), ["x"]);
        assert!(
            comparison
                .notices
                .iter()
                .any(|n| n.contains("an earlier one"))
        );
        let again = serde_json::to_string(&before).unwrap();
        let again: Report = serde_json::from_str(&again).unwrap();
        assert_eq!(again.measurements[0].ratio, Some(("y".into(), 1.5)));
    }

    #[test]
    fn rows_and_notices_have_before_and_now_in_their_places() {
        let (before, mut now) = (rows(&[("a", 1.0)]), rows(&[("a", 2.0)]));
        (now.version, now.variant) = ("2".into(), "direct".into());
        let comparison = compare(&before, &now);
        let wanted = [
            "another version of decorr: 1 before, 2 now",
            "another kernel variant: tiled before, direct now",
        ];
        assert_eq!(comparison.notices, wanted);
        let table = comparison.table();
        let row = table.lines().find(|line| line.starts_with("a ")).unwrap();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words, ["a", "10.000", "20.000", "2.00", "5%", "slower"]);
    }
}
