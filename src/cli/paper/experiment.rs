//! What an experiment is: a row of [`super::experiments::ALL`].

use decorr::train::{NO_RESULT, TrainConfig, TrainOptions, XAxis, YAxis};
use decorr::{Error, Result};

use super::pictures::PictureOf;
use crate::cli::compare::runs::text_of;

/// How much is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Scale {
    /// Two minutes on two CPU cores, on the built-in images. It shows that everything works, and says nothing about the paper
    Smoke,
    /// Shorter runs, meant for an hour on a laptop's GPU (not measured on one yet)
    Laptop,
    /// The paper's full setting
    Paper,
}

impl Scale {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Laptop => "laptop",
            Self::Paper => "paper",
        }
    }
}

/// A figure, a table or a claim of the paper.
#[derive(Debug)]
pub(super) struct Experiment {
    /// As on the command line: `fig4a`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What the paper says of it.
    pub(super) claim: &'static str,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Training runs, which several experiments may share.
    Runs(&'static [&'static Group]),
    /// Pictures of the built-in photograph.
    Picture(PictureOf),
}

impl What {
    pub(super) fn groups(&self) -> &[&'static Group] {
        match self {
            Self::Runs(groups) => groups,
            Self::Picture(_) => &[],
        }
    }
}

/// Training runs that are drawn together and stand in one table.
#[derive(Debug)]
pub(super) struct Group {
    /// Of the folder of its runs.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Options of all its runs in the paper's setting, as in config.toml.
    pub(super) paper: &'static str,
    /// What other scales have in place of it; `None`: it is not run then.
    pub(super) laptop: Option<&'static str>,
    pub(super) smoke: Option<&'static str>,
    pub(super) lines: &'static [Line],
    pub(super) plots: &'static [Plot],
    /// Steps whose training loss stands in the table.
    pub(super) losses_at: &'static [u64],
    /// Whether the least-squares optimum is drawn too.
    pub(super) optimum: bool,
    /// What the paper says of it.
    pub(super) claims: &'static [Claim],
}

/// That a line is better than another.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) better: &'static str,
    pub(super) worse: &'static str,
    pub(super) by: Measured,
}

/// What lines are compared by.
#[derive(Debug)]
pub(super) enum Measured {
    /// Accuracy of the last test.
    Top1,
    /// At the end.
    TrainLoss,
    /// At a step of [`Group::losses_at`].
    LossAt(u64),
}

/// A run, or runs that differ in seed and learning rate.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Its own options, as in config.toml.
    pub(super) options: &'static str,
    /// Learning rates of which the best is taken, by the test accuracy of the first seed; none: that of the options.
    pub(super) lrs: &'static [f32],
    /// The test accuracy in the paper, in per cent.
    pub(super) paper: Option<f64>,
}

/// What is drawn over what.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plot {
    /// Of the runs' logs.
    Curves {
        x: XAxis,
        y: YAxis,
        log: bool,
        /// Running mean over so many logged steps.
        smooth: Option<usize>,
    },
    /// Of the last test, over an option.
    Over(&'static str, YAxis),
    /// Of the layers of the trained networks: where the value is in [`decorr::train::isometry::LayerIsometry`] as JSON.
    Layers {
        name: &'static str,
        pointer: &'static str,
    },
}

impl Group {
    /// The options of `line` at `scale`, without seed and folder; `None` if it is not run at that scale.
    ///
    /// # Errors
    /// [`Error::Config`] if the row is wrong.
    pub(super) fn options(&self, line: &Line, scale: Scale) -> Result<Option<TrainOptions>> {
        let smaller = match scale {
            Scale::Smoke => self.smoke,
            Scale::Laptop => self.laptop,
            Scale::Paper => Some(""),
        };
        let Some(smaller) = smaller else {
            return Ok(None);
        };
        let read = |text: &str| {
            let fail = |e| Error::bug(format!("{}: {text}: {e}", self.name));
            toml::from_str::<TrainOptions>(text).map_err(fail)
        };
        let of_line = read(line.options)?;
        Ok(Some(read(smaller)?.over(of_line.over(read(self.paper)?))))
    }

    /// All options of `line` in the paper's setting.
    ///
    /// # Errors
    /// [`Error::Config`] if the row is wrong.
    pub(super) fn paper_table(&self, line: &Line) -> Result<toml::Table> {
        let paper = self.options(line, Scale::Paper)?.unwrap_or_default();
        // A folder of pictures is to be named; where files are is no setting.
        let paper = TrainOptions {
            data_dir: Some("data".into()),
            ..paper
        };
        TrainConfig::resolve(paper)?.to_table()
    }

    /// What `run` has other than the paper's setting, in words.
    pub(super) fn differences(&self, line: &Line, run: &TrainConfig) -> Result<Vec<String>> {
        let paper = self.paper_table(line)?;
        let run = run.to_table()?;
        // The rate is chosen, and stands in the table.
        let others = ["seed", "data-dir", "kernels", "lr"];
        let is_setting = |name: &str| !NO_RESULT.contains(&name) && !others.contains(&name);
        let mut names: Vec<&String> = run.keys().chain(paper.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let differ = names.into_iter().filter(|name| is_setting(name));
        let differ = differ.filter(|name| run.get(*name) != paper.get(*name));
        let value = |value: Option<&toml::Value>| value.map_or("none".into(), text_of);
        Ok(differ
            .map(|name| {
                format!(
                    "{name} {} (paper: {})",
                    value(run.get(name)),
                    value(paper.get(name))
                )
            })
            .collect())
    }
}
