//! Progress over several runs.

use std::time::Instant;

use decorr::train::Event;

use super::train::duration;

/// What was done of all runs, for the time that is left.
pub(super) struct Sums {
    runs: usize,
    /// Those that need no more time, before the one that runs.
    before: usize,
    /// The run that is told of, and when it began.
    now: Option<(String, Instant)>,
    /// Of the runs that ran.
    seconds: Vec<f64>,
}

impl Sums {
    pub(super) fn new(runs: usize) -> Self {
        Self {
            runs,
            before: 0,
            now: None,
            seconds: Vec::new(),
        }
    }

    /// The next run that is told of is the one after the first `count`.
    pub(super) fn after(&mut self, count: usize) {
        self.before = count;
    }

    /// What is said of an event of run `name`: its beginning, its evaluations and its notices.
    pub(super) fn lines(&mut self, name: &str, event: &Event<'_>) -> Vec<String> {
        let mut said = Vec::new();
        if self.now.as_ref().is_none_or(|(of, _)| of != name) {
            if let Some((_, begun)) = self.now.replace((name.into(), Instant::now())) {
                self.seconds.push(begun.elapsed().as_secs_f64());
            }
            said.push("begins".into());
        }
        match event {
            Event::Notice(text) | Event::Skipped(text) => said.push(text.to_string()),
            Event::Test(step, test) => said.push(format!("step {step}: test {test}")),
            Event::Step(p) if p.step == p.total_steps || p.step.is_multiple_of(100) => {
                let after = self.runs.saturating_sub(self.before + 1);
                let left = time_left(&self.seconds, after, p.seconds_left);
                let left = left.map_or("?".into(), duration);
                let (step, all, loss) = (p.step, p.total_steps, p.loss);
                said.push(format!("{step}/{all} loss {loss:.4}, {left} left for all"));
            }
            _ => {}
        }
        let place = format!("[{}/{}] {name}", self.before + 1, self.runs);
        said.iter().map(|what| format!("{place}: {what}")).collect()
    }
}

/// Seconds of the run that runs, and of those after it by the mean of those before it; unknown in the first run.
fn time_left(before: &[f64], after: usize, of_this: f64) -> Option<f64> {
    let mean = before.iter().sum::<f64>() / before.len() as f64;
    match (after, before.is_empty()) {
        (0, _) => Some(of_this),
        (_, true) => None,
        (after, false) => Some(of_this + after as f64 * mean),
    }
}

#[cfg(test)]
mod tests {
    use decorr::train::Progress;

    use super::*;

    /// Of three runs, of which the first needed no time.
    #[test]
    fn a_run_is_told_of_with_the_time_left_for_all() {
        let step = |step: u64| {
            Event::Step(Progress {
                step,
                total_steps: 150,
                epoch: 0,
                loss: 0.5,
                top1: 0.25,
                images_per_second: 10.0,
                seconds_left: 7.0,
            })
        };
        let mut sums = Sums::new(3);
        sums.after(1);
        assert_eq!(sums.lines("b", &step(1)), ["[2/3] b: begins"]);
        // There is a run after it, and none that says how long it takes.
        assert_eq!(
            sums.lines("b", &step(100)),
            ["[2/3] b: 100/150 loss 0.5000, ? left for all"]
        );
        assert!(sums.lines("b", &step(149)).is_empty());
        let notice = Event::Notice("a word");
        assert_eq!(sums.lines("b", &notice), ["[2/3] b: a word"]);
        // The last.
        sums.after(2);
        assert_eq!(
            sums.lines("c", &step(150)),
            [
                "[3/3] c: begins".to_string(),
                format!(
                    "[3/3] c: 150/150 loss 0.5000, {} left for all",
                    duration(7.0)
                )
            ]
        );
        assert_eq!(sums.seconds.len(), 1);
        // A run of ten seconds is over: the one that follows takes as long, and after the last there is none.
        for (before, left) in [(1, 17.0), (2, 7.0)] {
            let mut sums = Sums {
                seconds: vec![10.0],
                ..Sums::new(3)
            };
            sums.after(before);
            let said = sums.lines("b", &step(150)).concat();
            let wanted = format!(" {} left for all", duration(left));
            assert!(said.ends_with(&wanted), "{said}");
        }
    }

    #[test]
    fn the_time_left_is_of_this_run_and_of_those_after_it() {
        assert_eq!(time_left(&[], 0, 5.0), Some(5.0));
        assert_eq!(time_left(&[], 2, 5.0), None);
        assert_eq!(time_left(&[10.0, 20.0], 2, 5.0), Some(35.0));
        assert_eq!(time_left(&[10.0, 20.0], 0, 5.0), Some(5.0));
    }
}
