//! What experiments came to: numbers over seeds, drawings, and whether the paper's claims show.

use std::path::Path;
use std::sync::Arc;

use decorr::Result;
use decorr::gpu::Gpu;
use decorr::train::{CurveOptions, Ended, Points, XAxis, YAxis, draw_curves, draw_points};
use decorr::train::{Line as CurveLine, Record, RunInfo, Split};
use serde_json::{Value, json};

use super::experiment::{Claim, Group, Measured, Plot};
use super::isometry::LineLayers;
use super::optimum::least_squares;
use super::runs::LineRuns;
use super::{distinct, isometry};
use crate::cli::compare::runs::{Run, last, last_train_loss, text_of, train_losses};
use crate::cli::compare::table::Measure;

/// Results of a group of runs.
pub(super) struct GroupResults {
    pub(super) group: &'static Group,
    /// With what stands in for the paper's network or data.
    pub(super) title: String,
    pub(super) lines: Vec<LineResults>,
    /// File names and what is in them, SVG.
    pub(super) drawings: Vec<(String, String)>,
    /// Sentences: what differs from the paper, what shows, what cannot be drawn.
    pub(super) differences: String,
    pub(super) verdicts: Vec<String>,
    pub(super) notices: Vec<String>,
    pub(super) optimum: Option<f64>,
    /// Of the layers, if they are drawn.
    pub(super) layers: Vec<LineLayers>,
}

/// Results of the runs of a line.
pub(super) struct LineResults {
    pub(super) name: &'static str,
    pub(super) paper: Option<f64>,
    pub(super) runs: Vec<Run>,
    pub(super) infos: Vec<RunInfo>,
    /// `done`, or why not.
    pub(super) state: String,
    pub(super) tried: Vec<(f32, Option<f64>)>,
    pub(super) options: toml::Table,
    pub(super) top1: Measure,
    pub(super) test_loss: Measure,
    pub(super) train_loss: Measure,
    /// At [`Group::losses_at`].
    pub(super) losses: Vec<Measure>,
    pub(super) ms_per_step: Measure,
    pub(super) seconds: f64,
}

impl GroupResults {
    /// Reads what `lines` ran and draws it into `dir`.
    ///
    /// # Errors
    /// What a damaged run's files are told to be, what the device reported, and [`decorr::Error::Io`].
    pub(super) fn collect(
        gpu: &Arc<Gpu>,
        group: &'static Group,
        lines: &[LineRuns],
        dir: &Path,
    ) -> Result<Self> {
        let results: Result<Vec<LineResults>> = lines
            .iter()
            .map(|line| LineResults::of(group, line))
            .collect();
        let results = results?;
        let first = lines.first().and_then(|line| line.runs.first());
        let finished = |l: &LineResults| !l.runs.is_empty();
        let optimum = match first.filter(|_| group.optimum && results.iter().any(finished)) {
            Some((planned, _)) => Some(least_squares(&planned.config.open_data()?)?),
            None => None,
        };
        let of_layers = |plot: &Plot| matches!(plot, Plot::Layers { .. });
        let layers = match group.plots.iter().any(of_layers) {
            true => isometry::measure(gpu, lines)?,
            false => Vec::new(),
        };
        let title = title(group, lines)?;
        let mut drawings = Vec::new();
        let mut notices = Vec::new();
        for (i, plot) in group.plots.iter().enumerate() {
            let name = format!("{}-{}.svg", group.name, i + 1);
            if results.iter().any(finished) {
                let path = dir.join(&name);
                notices.extend(draw(&path, &title, *plot, &results, &layers, optimum)?);
                let text =
                    std::fs::read_to_string(&path).map_err(|e| decorr::Error::io(&path, e))?;
                drawings.push((name, text));
            }
        }
        let notices = distinct(notices);
        let claims = group.claims.iter();
        let mut verdicts: Vec<String> = claims
            .map(|claim| verdict(claim, group, &results))
            .collect();
        let over_time = |plot: &Plot| {
            matches!(
                plot,
                Plot::Curves {
                    x: XAxis::Seconds,
                    ..
                }
            )
        };
        if group.plots.iter().any(over_time) {
            verdicts.extend(times_to_the_first(&results));
        }
        Ok(Self {
            group,
            title,
            differences: differences(group, lines, &results)?,
            verdicts,
            lines: results,
            drawings,
            notices,
            optimum,
            layers,
        })
    }

    /// A heading, and cells a line.
    pub(super) fn cells(&self) -> Vec<Vec<String>> {
        let in_paper = self.lines.iter().any(|line| line.paper.is_some());
        let mut heading = vec!["", "runs"];
        heading.extend(in_paper.then_some("paper: accuracy, %"));
        heading.extend(["test accuracy, %", "test loss", "training loss"]);
        let mut heading: Vec<String> = heading.into_iter().map(String::from).collect();
        // Steps that no run came to have no column.
        let has = |i: &usize| self.lines.iter().any(|line| !line.losses[*i].0.is_empty());
        let at: Vec<usize> = (0..self.group.losses_at.len()).filter(has).collect();
        let step = |&i: &usize| format!("loss at step {}", self.group.losses_at[i]);
        heading.extend(at.iter().map(step));
        heading.extend(["lr", "steps", "ms a step", "time"].map(String::from));
        let mut cells = vec![heading];
        for line in &self.lines {
            let n = line.runs.len();
            let mut row = vec![line.name.to_string()];
            row.push(match line.state.as_str() {
                "done" => n.to_string(),
                state => format!("{n} ({state})"),
            });
            if in_paper {
                row.push(line.paper.map_or("-".into(), |p| format!("{p:.2}")));
            }
            row.extend([
                line.top1.times(100.0).text(2, n),
                line.test_loss.text(4, n),
                line.train_loss.text(4, n),
            ]);
            row.extend(at.iter().map(|&i| line.losses[i].text(3, n)));
            let steps = line.infos.iter().map(|info| info.steps).max();
            row.extend([
                line.options.get("lr").map_or("-".into(), text_of),
                steps.map_or("-".into(), |steps| steps.to_string()),
                line.ms_per_step.text(1, n),
                crate::cli::train::duration(line.seconds),
            ]);
            cells.push(row);
        }
        cells
    }

    pub(super) fn json(&self) -> Value {
        let measure = |m: &Measure| json!({ "mean": m.mean(), "sd": m.deviation(), "values": m.0 });
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                let losses = self.group.losses_at.iter().zip(&line.losses);
                let losses = losses.map(|(step, m)| (step.to_string(), measure(m)));
                json!({
                    "name": line.name, "state": line.state, "paper_top1_percent": line.paper,
                    "top1": measure(&line.top1), "test_loss": measure(&line.test_loss),
                    "train_loss": measure(&line.train_loss), "train_loss_at": serde_json::Map::from_iter(losses),
                    "ms_per_step": measure(&line.ms_per_step), "seconds": line.seconds,
                    "lr_tried": line.tried, "options": line.options, "runs": line.infos,
                })
            })
            .collect();
        json!({
            "name": self.group.name, "title": self.group.title, "optimum": self.optimum,
            "differs_from_the_paper": self.differences, "verdicts": self.verdicts, "lines": lines,
            "layers": self.layers.iter().map(|l| json!({ "name": l.name, "runs": l.runs })).collect::<Vec<_>>(),
        })
    }
}

impl LineResults {
    fn of(group: &Group, line: &LineRuns) -> Result<Self> {
        let mut runs = Vec::new();
        let mut infos = Vec::new();
        let mut states = Vec::new();
        for (planned, ended) in &line.runs {
            states.push(match ended {
                Ended::Done(_) => "done".into(),
                Ended::Diverged(why) => format!("diverged: {why}"),
                Ended::Failed(why) => format!("could not run: {why}"),
                Ended::Open => "not finished".into(),
            });
            if matches!(ended, Ended::Done(_) | Ended::Diverged(_)) {
                runs.push(Run::read(&planned.config.out)?);
                infos.push(RunInfo::read(&planned.config.out)?);
            }
        }
        if line.open > 0 {
            states.push("not finished".into());
        }
        let mut states = distinct(states);
        // That others are done is no news.
        if states.len() > 1 {
            states.retain(|state| state != "done");
        }
        let smoothed = |run: &Run| last_train_loss(&run.records, None);
        let at = |step: u64| {
            let of = |run: &Run| {
                let losses = train_losses(&run.records);
                losses.iter().find(|p| p.0 == step as f64).map(|p| p.1)
            };
            Measure(runs.iter().filter_map(of).collect())
        };
        let per_step = |info: &RunInfo| info.steps_per_second.map(|rate| 1000.0 / rate);
        let options = match line.runs.first() {
            Some((planned, _)) => planned.config.to_table()?,
            None => toml::Table::new(),
        };
        Ok(Self {
            name: line.line.name,
            paper: line.line.paper,
            state: states.join("; "),
            tried: line.tried.clone(),
            options,
            top1: last_tests(&runs, |test| test.top1),
            test_loss: last_tests(&runs, |test| test.loss),
            train_loss: Measure(runs.iter().filter_map(smoothed).collect()),
            losses: group.losses_at.iter().map(|&step| at(step)).collect(),
            ms_per_step: Measure(infos.iter().filter_map(per_step).collect()),
            seconds: infos
                .iter()
                .filter_map(|i| Some(i.steps as f64 / i.steps_per_second?))
                .sum(),
            runs,
            infos,
        })
    }
}

/// Of the last test of each run that has one; NaN where it was not finite.
fn last_tests(runs: &[Run], value: impl Fn(&Record) -> Option<f64>) -> Measure {
    let of = |run: &Run| Some(value(last(&run.records, Split::Test)?).unwrap_or(f64::NAN));
    Measure(runs.iter().filter_map(of).collect())
}

/// The group's, and what its runs have in place of the paper's network and data.
fn title(group: &Group, lines: &[LineRuns]) -> Result<String> {
    let Some((first, (run, _))) = lines.first().and_then(|l| Some((l.line, l.runs.first()?)))
    else {
        return Ok(group.title.into());
    };
    let paper = group.paper_table(first)?;
    let run = run.config.to_table()?;
    let differ = |name: &&str| paper.get(*name) != run.get(*name);
    let other = ["model", "data"].into_iter().filter(differ);
    let other: Vec<String> = other
        .filter_map(|name| Some(text_of(run.get(name)?)))
        .collect();
    Ok(match other.is_empty() {
        true => group.title.into(),
        false => format!("{} (here: {})", group.title, other.join(", ")),
    })
}

/// Draws `plot` into an SVG file; returns what could not be drawn.
fn draw(
    path: &Path,
    title: &str,
    plot: Plot,
    results: &[LineResults],
    layers: &[LineLayers],
    optimum: Option<f64>,
) -> Result<Vec<String>> {
    let shown = results.iter().filter(|line| !line.runs.is_empty());
    match plot {
        Plot::Curves { x, y, log, smooth } => {
            let lines: Vec<CurveLine<'_>> = shown
                .map(|line| CurveLine {
                    name: line.name,
                    runs: line.runs.iter().map(|run| run.records.as_slice()).collect(),
                    steps_per_epoch: line.runs.iter().find_map(|run| run.steps_per_epoch),
                })
                .collect();
            let options = CurveOptions {
                title: title.into(),
                x,
                y: Some(y),
                log,
                smooth,
                level: optimum
                    .filter(|_| y == YAxis::Loss)
                    .map(|value| ("optimum".into(), value)),
            };
            draw_curves(path, &lines, &options)
        }
        Plot::Over(option, y) => {
            let points = shown.filter_map(|line| {
                let x = text_of(line.options.get(option)?).parse::<f64>().ok()?;
                let values = last_tests(&line.runs, |test| y.of(test)).0;
                let norm = line.options.get("norm").map_or(String::new(), text_of);
                Some((norm, x, values))
            });
            let lines = Points::grouped(points);
            draw_points(path, &lines, title, [option, y.name()], false)
        }
        Plot::Layers { name, pointer } => {
            let lines = isometry::points(layers, pointer);
            draw_points(path, &lines, name, ["layer", ""], true)
        }
    }
}

/// What the runs have other than in the paper, as a sentence.
fn differences(group: &Group, lines: &[LineRuns], results: &[LineResults]) -> Result<String> {
    let mut all = Vec::new();
    if let Some(info) = results.iter().flat_map(|line| &line.infos).next()
        && let Some(set) = lines.first().and_then(|line| line.runs.first())
        && let Some([train, _]) = decorr::data::find_set(&set.0.config.data)?.counts
        && info.images[0] < train
        && set.0.config.options.train_images.is_none()
    {
        all.push(format!(
            "{} training images (the set has {train})",
            info.images[0]
        ));
    }
    for line in lines {
        if let Some((planned, _)) = line.runs.first() {
            all.extend(group.differences(line.line, &planned.config)?);
        }
    }
    let all = distinct(all);
    Ok(match (lines.is_empty(), all.is_empty()) {
        (true, _) => "Not run at this scale.".into(),
        (_, true) => "Settings are the paper's, as far as it gives them.".into(),
        _ => format!("Differs from the paper: {}.", all.join(", ")),
    })
}

/// After how many seconds, and steps, lines come to the last accuracy of the first one: when what they cost pays.
fn times_to_the_first(results: &[LineResults]) -> Vec<String> {
    let Some((first, others)) = results.split_first() else {
        return Vec::new();
    };
    let Some(wanted) = first.top1.mean().filter(|top1| top1.is_finite()) else {
        return Vec::new();
    };
    // Of each run that comes to it: seconds and steps of the first test that is as good.
    let reached = |line: &LineResults| -> [Measure; 2] {
        let test = |run: &Run| {
            let mut tests = run.records.iter().filter(|r| r.split == Split::Test);
            let test = tests.find(|r| r.top1.is_some_and(|top1| top1 >= wanted))?;
            Some((test.seconds, test.step as f64))
        };
        let found: Vec<(f64, f64)> = line.runs.iter().filter_map(test).collect();
        let (seconds, steps) = found.into_iter().unzip();
        [Measure(seconds), Measure(steps)]
    };
    let percent = 100.0 * wanted;
    let sentence = |line: &LineResults| {
        let [seconds, steps] = reached(line);
        let (name, count) = (line.name, line.runs.len());
        match seconds.0.len() {
            0 => format!(
                "{name} does not come to the last accuracy of {}, {percent:.2} %.",
                first.name
            ),
            reached => format!(
                "{name} comes to the last accuracy of {}, {percent:.2} %, after {} s and {} steps ({reached} of {count} runs).",
                first.name,
                Measure(seconds.0).text(1, reached),
                Measure(steps.0).text(0, reached)
            ),
        }
    };
    others.iter().map(sentence).collect()
}

/// Whether `claim` shows, as a sentence.
fn verdict(claim: &Claim, group: &Group, results: &[LineResults]) -> String {
    let Claim { better, worse, by } = claim;
    let value = |name: &str| {
        let line = results.iter().find(|line| line.name == name)?;
        let measure = match by {
            Measured::Top1 => &line.top1,
            Measured::TrainLoss => &line.train_loss,
            Measured::LossAt(step) => {
                &line.losses[group.losses_at.iter().position(|at| at == step)?]
            }
        };
        measure
            .mean()
            .filter(|mean| mean.is_finite())
            .map(|mean| (mean, measure))
    };
    let what = match by {
        Measured::Top1 => "test accuracy".to_string(),
        Measured::TrainLoss => "training loss at the end".into(),
        Measured::LossAt(step) => format!("training loss at step {step}"),
    };
    let (Some((a, of_a)), Some((b, of_b))) = (value(better), value(worse)) else {
        return format!("{better} against {worse} ({what}): not measured here.");
    };
    let is_top1 = matches!(by, Measured::Top1);
    let shows = if is_top1 { a > b } else { a < b };
    let range = |m: &Measure| {
        let low = m.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = m.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    };
    let ((low_a, high_a), (low_b, high_b)) = (range(of_a), range(of_b));
    let overlap = low_a <= high_b && low_b <= high_a && of_a.0.len() > 1;
    let number = |m: &Measure| match is_top1 {
        true => m.times(100.0).text(2, m.0.len()) + " %",
        false => m.text(4, m.0.len()),
    };
    format!(
        "{} {better} against {worse}, {what}: {} and {}{}.",
        if shows {
            "Shows here:"
        } else {
            "Does not show here:"
        },
        number(of_a),
        number(of_b),
        if overlap {
            ", but the seeds overlap"
        } else {
            ""
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::compare::runs::tests::run;

    fn record(split: Split, step: u64, value: f64) -> Record {
        Record {
            split,
            step,
            epoch: 0,
            loss: Some(value),
            top1: Some(value),
            top5: None,
            lr: None,
            seconds: 2.0 * step as f64,
        }
    }

    /// Of runs whose last test is `ends`, each after one that is half as good.
    fn line(name: &'static str, ends: &[f64]) -> LineResults {
        let runs = ends.iter().map(|&end| {
            let mut run = run(name, "");
            run.records = vec![
                record(Split::Test, 5, end / 2.0),
                record(Split::Test, 9, end),
            ];
            run
        });
        LineResults {
            name,
            paper: None,
            runs: runs.collect(),
            infos: Vec::new(),
            state: "done".into(),
            tried: Vec::new(),
            options: toml::Table::new(),
            top1: Measure(ends.to_vec()),
            test_loss: Measure(ends.to_vec()),
            train_loss: Measure(ends.to_vec()),
            losses: vec![Measure(Vec::new()), Measure(ends.to_vec())],
            ms_per_step: Measure(Vec::new()),
            seconds: 1.0,
        }
    }

    const GROUP: Group = Group {
        name: "a",
        title: "A",
        paper: "lr = 0.5\nnorm = 'batch'\nweight-decay = 0.25",
        laptop: None,
        smoke: Some("steps = 3"),
        lines: &[],
        plots: &[],
        losses_at: &[1, 5],
        optimum: false,
        claims: &[],
    };

    fn claim(by: Measured) -> Claim {
        let (better, worse) = ("new", "old");
        Claim { better, worse, by }
    }

    #[test]
    fn a_claim_shows_or_not_or_is_within_the_spread() {
        let say = |by: Measured, new: &[f64], old: &[f64]| {
            let results = [line("old", old), line("new", new)];
            verdict(&claim(by), &GROUP, &results)
        };
        let text = say(Measured::Top1, &[0.8, 0.9], &[0.5, 0.6]);
        assert_eq!(
            text,
            "Shows here: new against old, test accuracy: 85.00 ± 7.07 % and 55.00 ± 7.07 %."
        );
        let text = say(Measured::Top1, &[0.5], &[0.6]);
        assert!(
            text.starts_with("Does not show here:") && !text.contains("overlap"),
            "{text}"
        );
        // Less is better of losses.
        let text = say(Measured::TrainLoss, &[0.5, 0.7], &[0.6, 0.9]);
        assert!(
            text.starts_with("Shows here:") && text.ends_with(", but the seeds overlap."),
            "{text}"
        );
        // Seeds that meet overlap.
        for (new, old) in [([0.6, 0.9], [0.5, 0.6]), ([0.5, 0.6], [0.6, 0.9])] {
            let text = say(Measured::Top1, &new, &old);
            assert!(text.ends_with(", but the seeds overlap."), "{text}");
        }
        let text = say(Measured::LossAt(5), &[0.7], &[0.6]);
        assert!(
            text.starts_with("Does not show here:") && text.contains("step 5: 0.7000 and 0.6000"),
            "{text}"
        );
        for text in [
            say(Measured::LossAt(1), &[0.7], &[0.6]),
            say(Measured::LossAt(7), &[0.7], &[0.6]),
            say(Measured::Top1, &[f64::NAN], &[0.6]),
        ] {
            assert!(text.ends_with("not measured here."), "{text}");
        }
    }

    #[test]
    fn the_time_to_the_first_lines_accuracy_is_of_the_first_test_that_is_as_good() {
        let results = [
            line("old", &[0.4, 0.6]),
            line("new", &[1.0, 0.6]),
            line("bad", &[0.3]),
        ];
        let said = times_to_the_first(&results);
        assert_eq!(
            said,
            [
                "new comes to the last accuracy of old, 50.00 %, after 14.0 ± 5.7 s and 7 ± 3 steps (2 of 2 runs).",
                "bad does not come to the last accuracy of old, 50.00 %.",
            ]
        );
        assert!(times_to_the_first(&[]).is_empty());
    }

    #[test]
    fn what_differs_from_the_paper_is_named_with_both_values() {
        let line = crate::cli::paper::experiment::Line {
            name: "x",
            options: "norm = 'deconv'",
            lrs: &[],
            paper: None,
        };
        let options = GROUP
            .options(&line, super::super::experiment::Scale::Smoke)
            .unwrap()
            .unwrap();
        let run = decorr::train::TrainConfig::resolve(options).unwrap();
        let differences = GROUP.differences(&line, &run).unwrap();
        assert_eq!(differences, ["steps 3 (paper: none)"]);
        let none = GROUP
            .options(&line, super::super::experiment::Scale::Laptop)
            .unwrap();
        assert!(none.is_none());
    }
}
