//! Where runs are, in a table.

use decorr::train::{Record, Split, smoothing};
use serde_json::{Value, json};

use super::runs::{Run, last, last_train_loss, train_losses};

/// One run, or runs that differ in their seed.
pub(super) struct Row {
    name: String,
    runs: usize,
    norm: Option<String>,
    lr: Option<String>,
    /// Least and greatest.
    steps: [u64; 2],
    train_loss: Measure,
    /// Logged steps that it is a mean of: least and greatest.
    train_loss_over: [usize; 2],
    test_loss: Measure,
    test_top1: Measure,
    ms_per_step: Measure,
    adapter: Option<String>,
}

/// A number of each run that has it; NaN where it was not finite.
pub(in crate::cli) struct Measure(pub(in crate::cli) Vec<f64>);

impl Measure {
    /// In other units.
    pub(in crate::cli) fn times(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|v| factor * v).collect())
    }

    pub(in crate::cli) fn mean(&self) -> Option<f64> {
        let count = self.0.len();
        (count > 0).then(|| self.0.iter().sum::<f64>() / count as f64)
    }

    /// Standard deviation of a sample.
    pub(in crate::cli) fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let squares: f64 = self.0.iter().map(|v| (v - mean).powi(2)).sum();
        (self.0.len() > 1).then(|| (squares / (self.0.len() - 1) as f64).sqrt())
    }

    /// For people, of `runs` runs.
    pub(in crate::cli) fn text(&self, decimals: usize, runs: usize) -> String {
        let Some(mean) = self.mean() else {
            return "-".into();
        };
        let number = |value: f64| match value {
            value if value.is_nan() => "nan".into(),
            value if value.abs() >= 1e5 => format!("{value:.2e}"),
            value => format!("{value:.decimals$}"),
        };
        let text = match self.deviation().filter(|_| !mean.is_nan()) {
            Some(deviation) => format!("{} ± {}", number(mean), number(deviation)),
            None => number(mean),
        };
        match self.0.len() {
            count if count < runs => format!("{text} ({count} of {runs})"),
            _ => text,
        }
    }
}

impl Row {
    pub(super) fn of(name: &str, runs: &[&Run], smooth: Option<usize>) -> Self {
        let each = |value: &dyn Fn(&[Record]) -> Option<f64>| {
            Measure(runs.iter().filter_map(|run| value(&run.records)).collect())
        };
        let first = runs.first();
        let end = |records: &[Record]| last(records, Split::Train).cloned();
        let test = |records: &[Record]| last(records, Split::Test).cloned();
        let steps = runs
            .iter()
            .map(|run| end(&run.records).map_or(0, |r| r.step));
        let over = runs
            .iter()
            .map(|run| smoothing(train_losses(&run.records).len(), smooth));
        let mut adapters: Vec<&str> = runs
            .iter()
            .filter_map(|run| run.adapter.as_deref())
            .collect();
        adapters.sort_unstable();
        adapters.dedup();
        Self {
            name: name.into(),
            runs: runs.len(),
            norm: first.and_then(|run| run.option("norm")),
            lr: first.and_then(|run| run.option("lr")),
            steps: [steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0)],
            train_loss: each(&|records| last_train_loss(records, smooth)),
            train_loss_over: [over.clone().min().unwrap_or(1), over.max().unwrap_or(1)],
            test_loss: each(&|records| Some(test(records)?.loss.unwrap_or(f64::NAN))),
            test_top1: each(&|records| Some(test(records)?.top1.unwrap_or(f64::NAN))),
            ms_per_step: each(&|records| {
                let end = end(records).filter(|r| r.step > 0)?;
                Some(1000.0 * end.seconds / end.step as f64)
            }),
            adapter: (!adapters.is_empty()).then(|| adapters.join(", ")),
        }
    }

    /// For --json: means, and standard deviations of several runs as `NAME_sd`.
    pub(super) fn json(&self) -> Value {
        let mut object = json!({
            "name": self.name, "runs": self.runs, "norm": self.norm,
            "lr": self.lr.as_ref().and_then(|lr| lr.parse::<f64>().ok()),
            "steps": self.steps[0], "train_loss_over": self.train_loss_over[1], "adapter": self.adapter,
        });
        for (name, measure) in [
            ("train_loss", &self.train_loss),
            ("test_loss", &self.test_loss),
            ("test_top1", &self.test_top1),
            ("ms_per_step", &self.ms_per_step),
        ] {
            object[name] = json!(measure.mean());
            if self.runs > 1 {
                object[format!("{name}_sd")] = json!(measure.deviation());
            }
        }
        object
    }
}

/// A heading, and cells a row.
pub(super) fn cells(rows: &[Row], seeds: bool) -> Vec<Vec<String>> {
    let heading = [
        "run",
        "n",
        "norm",
        "lr",
        "steps",
        "train loss",
        "test loss",
        "test top1",
        "ms a step",
        "adapter",
    ];
    let mut cells = vec![heading.map(String::from).to_vec()];
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".into());
    for row in rows {
        cells.push(vec![
            row.name.clone(),
            row.runs.to_string(),
            word(&row.norm),
            word(&row.lr),
            between(row.steps),
            row.train_loss.text(4, row.runs),
            row.test_loss.text(4, row.runs),
            row.test_top1.text(4, row.runs),
            row.ms_per_step.text(1, row.runs),
            word(&row.adapter),
        ]);
    }
    if !seeds {
        cells.iter_mut().for_each(|row| drop(row.remove(1)));
    }
    cells
}

fn between<T: PartialEq + std::fmt::Display>([least, most]: [T; 2]) -> String {
    if least == most {
        most.to_string()
    } else {
        format!("{least} to {most}")
    }
}

/// What the numbers of the table are.
pub(super) fn footnotes(rows: &[Row], seeds: bool) -> Vec<String> {
    let least = rows
        .iter()
        .map(|row| row.train_loss_over[0])
        .min()
        .unwrap_or(1);
    let most = rows
        .iter()
        .map(|row| row.train_loss_over[1])
        .max()
        .unwrap_or(1);
    let over = format!(
        "train loss: mean of the last {} logged steps",
        between([least, most])
    );
    let seeds = seeds.then(|| "several seeds: mean ± standard deviation over n runs".to_string());
    [over].into_iter().chain(seeds).collect()
}

/// In columns: names and adapters from the left, numbers from the right.
pub(super) fn text(cells: &[Vec<String>]) -> Vec<String> {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |i: usize| {
        cells
            .iter()
            .map(|row| row[i].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(i, cell): (usize, &String)| match i {
            0 => format!("{cell:0$}", widths[i]),
            _ if i + 1 == columns => cell.clone(),
            _ => format!("{cell:>0$}", widths[i]),
        };
        row.iter()
            .enumerate()
            .map(cell)
            .collect::<Vec<_>>()
            .join("  ")
    };
    cells.iter().map(line).collect()
}

/// As Markdown.
pub(in crate::cli) fn markdown(cells: &[Vec<String>]) -> Vec<String> {
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .map(|cell| cell.replace('\\', "\\\\").replace('|', "\\|"));
        format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut lines: Vec<String> = cells.iter().map(line).collect();
    lines.insert(1, format!("|{}", "---|".repeat(cells[0].len())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::compare::runs::tests::run;

    fn record(split: Split, step: u64, loss: Option<f64>, top1: f64, seconds: f64) -> Record {
        Record {
            split,
            step,
            epoch: 0,
            loss,
            top1: Some(top1),
            top5: None,
            lr: None,
            seconds,
        }
    }

    fn first() -> Run {
        let mut run = run("a", "norm = 'deconv'\nlr = 0.05");
        run.records = vec![
            record(Split::Train, 1, Some(4.0), 0.1, 1.0),
            record(Split::Test, 1, Some(3.0), 0.2, 1.0),
            record(Split::Train, 10, Some(2.0), 0.3, 5.0),
            record(Split::Test, 10, Some(1.0), 0.4, 5.0),
        ];
        run.adapter = Some("a GPU".into());
        run
    }

    #[test]
    fn a_run_is_summed_up_by_its_last_step_and_its_last_test() {
        let rows = [
            Row::of("a", &[&first()], None),
            Row::of("deconv", &[&run("", "")], None),
        ];
        let wanted = [
            "run       norm    lr  steps  train loss  test loss  test top1  ms a step  adapter",
            "a       deconv  0.05     10      2.0000     1.0000     0.4000      500.0  a GPU",
            "deconv       -     -      0           -          -          -          -  -",
        ];
        assert_eq!(text(&cells(&rows, false)), wanted);
        assert_eq!(
            footnotes(&rows, false),
            ["train loss: mean of the last 1 logged steps"]
        );
        let json = rows[0].json();
        assert_eq!(
            (&json["train_loss"], &json["lr"]),
            (
                &json!(2.0),
                &json!(0.05f32.to_string().parse::<f64>().unwrap())
            )
        );
        assert!(json.get("train_loss_sd").is_none() && rows[1].json()["test_loss"].is_null());
        // Of many steps, the mean over the last tenth, or over what is asked for.
        let mut many = run("b", "");
        many.records = (1..=40)
            .map(|i| record(Split::Train, i, Some((i % 4) as f64), 0.5, i as f64))
            .collect();
        let loss = |smooth| Row::of("b", &[&many], smooth).json()["train_loss"].clone();
        assert_eq!(
            [None, Some(1), Some(2)].map(loss),
            [json!(1.5), json!(0.0), json!(1.5)]
        );
        let both = [
            Row::of("a", &[&first()], None),
            Row::of("b", &[&many], None),
        ];
        assert_eq!(
            footnotes(&both, false),
            ["train loss: mean of the last 1 to 4 logged steps"]
        );
        let row = Row::of("both", &[&first(), &many], None);
        assert_eq!((row.train_loss_over, row.steps), ([1, 4], [10, 40]));
    }

    #[test]
    fn seeds_are_mean_and_deviation() {
        let (a, mut b) = (first(), first());
        b.records.truncate(3);
        b.records[2].loss = Some(4.0);
        b.records[1].loss = Some(5.0);
        let mut c = first();
        c.records.clear();
        let rows = [
            Row::of("deconv", &[&a, &b, &c], None),
            Row::of("one", &[&a], None),
        ];
        let cells = cells(&rows, true);
        assert_eq!(cells[0][1], "n");
        assert_eq!(
            cells[1][1..6],
            ["3", "deconv", "0.05", "0 to 10", "3.0000 ± 1.4142 (2 of 3)"]
        );
        assert_eq!(
            (cells[2][1].as_str(), cells[2][5].as_str()),
            ("1", "2.0000")
        );
        assert!(footnotes(&rows, true)[1].contains("mean ± standard deviation over n runs"));
        // The deviations of two are their distance over the root of 2; of one number there is none.
        let sd = |a: f64, b: f64| (a - b).abs() / 2f64.sqrt();
        let wanted = json!({
            "name": "deconv", "runs": 3, "norm": "deconv", "lr": 0.05, "steps": 0, "train_loss_over": 1, "adapter": "a GPU",
            "train_loss": 3.0, "train_loss_sd": sd(2.0, 4.0), "test_loss": 3.0, "test_loss_sd": sd(1.0, 5.0),
            "test_top1": (0.4 + 0.2) / 2.0, "test_top1_sd": 0.1414213562373095,
            "ms_per_step": 500.0, "ms_per_step_sd": 0.0,
        });
        let found = rows[0].json();
        for (name, wanted) in wanted.as_object().unwrap() {
            let is_near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            let same = match (wanted.as_f64(), found[name].as_f64()) {
                (Some(a), Some(b)) => is_near(a, b),
                _ => *wanted == found[name],
            };
            assert!(same, "{name}: {} is not {wanted}", found[name]);
        }
        assert_eq!(found.as_object().unwrap().len(), 15);
    }

    #[test]
    fn runs_that_diverged_fit_the_table() {
        let mut wild = first();
        wild.records[2].loss = Some(123_456_789.0);
        wild.records[3].loss = None;
        let row = Row::of("wild", &[&wild], None);
        let cells = cells(&[row], false);
        assert_eq!(cells[1][4..6], ["1.23e8", "nan"]);
        wild.records[2].loss = None;
        assert_eq!(Row::of("wild", &[&wild], None).train_loss.text(4, 1), "nan");
        assert_eq!(Measure(vec![99_999.0]).text(1, 1), "99999.0");
        assert!(Row::of("wild", &[&wild], None).json()["test_loss"].is_null());
    }

    #[test]
    fn markdown_is_a_table() {
        let cells = [["run", "lr"], ["a|b", "0.1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(
            markdown(&cells),
            ["| run | lr |", "|---|---|", "| a\\|b | 0.1 |"]
        );
    }
}
