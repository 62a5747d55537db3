//! What is written of experiments: a page for all, and for each its drawings, a table as Markdown and CSV, and all numbers as JSON.

use std::rc::Rc;

use decorr::files::write_atomically;
use decorr::train::RunInfo;
use decorr::{Error, Result};
use serde_json::{Value, json};

use super::experiment::{Experiment, Group, Scale};
use super::pictures::Drawn;
use super::results::{GroupResults, LineResults};
use super::runs::Setting;
use super::{distinct, html, isometry};
use crate::cli::compare::runs::text_of;
use crate::cli::compare::table::markdown;
use crate::cli::csv::quoted;

/// An experiment and what came of it.
pub(super) struct Part {
    pub(super) experiment: &'static Experiment,
    /// Experiments may share them.
    pub(super) groups: Vec<Rc<Outcome>>,
    pub(super) picture: Option<Drawn>,
}

/// What became of a group of runs.
pub(super) struct Outcome {
    pub(super) group: &'static Group,
    /// How many runs are to go.
    pub(super) open: usize,
    /// Why runs could not run or be read.
    pub(super) failures: Vec<String>,
    /// None if they could not be read.
    pub(super) results: Option<GroupResults>,
}

impl Part {
    /// Why it, or a part of it, could not run or be read.
    pub(super) fn failures(&self) -> Vec<String> {
        let all = self.groups.iter().flat_map(|group| &group.failures);
        distinct(all.cloned())
    }

    fn open(&self) -> usize {
        self.groups.iter().map(|group| group.open).sum()
    }

    fn results(&self) -> impl Iterator<Item = &GroupResults> {
        self.groups
            .iter()
            .filter_map(|group| group.results.as_ref())
    }

    /// In a word or two, for the list of all.
    fn state(&self) -> String {
        let at_this_scale = self.picture.is_some() || self.results().any(|g| !g.lines.is_empty());
        match (self.open(), self.failures().is_empty()) {
            (_, false) => "could not run in full".into(),
            (0, _) if !at_this_scale => "not at this scale".into(),
            (0, _) => "done".into(),
            (open, _) => format!("{open} runs to go"),
        }
    }

    /// Writes its files beside the page: NAME.json, NAME.md, NAME.csv, and NAME.png of a picture.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub(super) fn write(&self, setting: &Setting) -> Result<()> {
        let out = &setting.out;
        let path = |ending: &str| out.join(format!("{}.{ending}", self.experiment.name));
        let mut text = serde_json::to_string_pretty(&self.json(setting))
            .map_err(|e| Error::bug(e.to_string()))?;
        text.push('\n');
        write_atomically(&path("json"), text.as_bytes())?;
        if let Some(picture) = &self.picture {
            write_atomically(&path("png"), &picture.png)?;
        }
        write_atomically(&path("md"), self.markdown(setting).as_bytes())?;
        let mut csv = String::new();
        for group in self.results().filter(|g| !g.lines.is_empty()) {
            for (i, row) in group.cells().iter().enumerate() {
                let name = if i == 0 { "group" } else { group.group.name };
                let cells = row.iter().map(|cell| quoted(cell));
                let cells: Vec<String> = [quoted(name)].into_iter().chain(cells).collect();
                csv += &(cells.join(",") + "\n");
            }
        }
        write_atomically(&path("csv"), csv.as_bytes())
    }

    fn json(&self, setting: &Setting) -> Value {
        json!({
            "experiment": self.experiment.name, "title": self.experiment.title, "claim": self.experiment.claim,
            "scale": setting.scale.name(), "seeds": setting.seeds, "failures": self.failures(), "open_runs": self.open(),
            "groups": self.results().map(GroupResults::json).collect::<Vec<_>>(),
            "picture": self.picture.as_ref().map(|p| json!({ "about": p.about, "numbers": p.numbers })),
        })
    }

    fn markdown(&self, setting: &Setting) -> String {
        let e = self.experiment;
        let mut text = format!(
            "# {}\n\nScale: {}. The paper: {}\n",
            e.title,
            setting.scale.name(),
            e.claim
        );
        for failure in self.failures() {
            text += &format!("\n**{failure}**\n");
        }
        if let Some(picture) = &self.picture {
            text += &format!("\n![{}]({}.png)\n\n{}\n", e.title, e.name, picture.about);
        }
        for group in self.results() {
            text += &format!("\n## {}\n\n{}\n", group.title, group.differences);
            if group.lines.is_empty() {
                continue;
            }
            for (name, _) in &group.drawings {
                text += &format!("\n![{}]({name})\n", group.title);
            }
            if !group.layers.is_empty() {
                let cells = isometry::cells(&group.layers);
                text += &format!("\n{}\n", markdown(&cells).join("\n"));
            }
            text += &format!("\n{}\n", markdown(&group.cells()).join("\n"));
            let sentences = group.sentences(setting);
            text += &sentences
                .iter()
                .map(|s| format!("\n- {s}"))
                .collect::<String>();
            text.push('\n');
        }
        text
    }

    fn html(&self, setting: &Setting) -> String {
        let e = self.experiment;
        let mut text = format!(
            "<section id=\"{}\">\n<h2>{} <span class=\"badge\">{}</span></h2>\n<p>The paper: {}</p>\n",
            e.name,
            html::escaped(e.title),
            setting.scale.name(),
            html::escaped(e.claim)
        );
        text += &html::list(&self.failures());
        if let Some(picture) = &self.picture {
            text += &html::picture(&picture.png, e.title);
            text += &format!("<p>{}</p>\n", html::escaped(&picture.about));
        }
        for group in self.results() {
            text += &group.html(setting);
        }
        text + "</section>\n"
    }
}

impl GroupResults {
    /// What is to be known beside the table.
    fn sentences(&self, setting: &Setting) -> Vec<String> {
        let mut sentences = self.verdicts.clone();
        if let Some(optimum) = self.optimum {
            sentences.push(format!("The least training loss that a linear layer can have is {optimum:.4} (Eq. 7, computed in closed form)."));
        }
        for line in self.lines.iter().filter(|line| line.tried.len() > 1) {
            let of = |(lr, top1): &(f32, Option<f64>)| {
                format!(
                    "{lr}: {}",
                    top1.map_or("none".into(), |v| format!("{:.2} %", 100.0 * v))
                )
            };
            let tried: Vec<String> = line.tried.iter().map(of).collect();
            sentences.push(format!(
                "{}: learning rates tried with the first seed, by test accuracy: {}.",
                line.name,
                tried.join(", ")
            ));
        }
        if setting.seeds > 1 {
            sentences.push("Numbers are mean ± standard deviation over the seeds; bands go from the least to the greatest.".into());
        }
        sentences
            .push("Training loss: mean of the last tenth of the logged steps, at most ten.".into());
        sentences.extend(self.notices.iter().map(|notice| format!("{notice}.")));
        sentences
    }

    fn html(&self, setting: &Setting) -> String {
        let mut text = format!(
            "<h3>{}</h3>\n<p class=\"pale\">{}</p>\n",
            html::escaped(&self.title),
            html::escaped(&self.differences)
        );
        if self.lines.is_empty() {
            return text;
        }
        text += "<div class=\"drawings\">\n";
        for (_, svg) in &self.drawings {
            text += &html::drawing(svg, &self.title);
        }
        text += "</div>\n";
        if !self.layers.is_empty() {
            text += &html::table(&isometry::cells(&self.layers));
        }
        text += &html::table(&self.cells());
        text += &html::list(&self.sentences(setting));
        let on = self.lines.iter().flat_map(|line| &line.infos).map(on);
        text += &format!(
            "<p class=\"pale\">{}</p>\n",
            html::escaped(&distinct(on).join(" "))
        );
        let settings: String = self.lines.iter().map(settings).collect();
        text + &format!("<details><summary>All settings</summary>\n{settings}</details>\n")
    }
}

/// What a run ran on.
fn on(info: &RunInfo) -> String {
    let commit = match info.commit.as_str() {
        "" => String::new(),
        commit => format!(" ({commit})"),
    };
    let data = info.data_sha256.as_ref().map_or(String::new(), |sum| {
        format!(", SHA-256 {}", sum.chars().take(8).collect::<String>())
    });
    format!(
        "decorr {}{commit} on {}, {}, {}. Data: {}, {} + {} images{data}.",
        info.version,
        info.adapter,
        info.driver,
        info.backend,
        info.data,
        info.images[0],
        info.images[1]
    )
}

fn settings(line: &LineResults) -> String {
    let options = line
        .options
        .iter()
        .filter(|(name, _)| !["out", "seed", "data-dir"].contains(&name.as_str()));
    let options: Vec<String> = options
        .map(|(name, value)| format!("{name} = {}", text_of(value)))
        .collect();
    format!(
        "<p>{}</p>\n<pre>{}</pre>\n",
        html::escaped(line.name),
        html::escaped(&options.join("\n"))
    )
}

/// Writes index.html.
///
/// # Errors
/// [`Error::Io`] with the path.
pub(super) fn write_page(setting: &Setting, command: &str, parts: &[Part]) -> Result<()> {
    let scale = match setting.scale {
        Scale::Smoke => {
            "Scale: smoke. These runs show that everything works. They are far too short to say anything about the paper."
        }
        Scale::Laptop => {
            "Scale: laptop. Runs are shorter than the paper's; each experiment says by what."
        }
        Scale::Paper => "Scale: paper, its full setting.",
    };
    let mut body = format!(
        "<h1>Network Deconvolution, measured with decorr</h1>\n<p>{scale} Made by <code>{}</code>.</p>\n",
        html::escaped(command)
    );
    let rows = parts.iter().map(|part| {
        format!(
            "<tr><td><a href=\"#{0}\">{0}</a></td><td class=\"words\">{1}</td><td>{2}</td></tr>\n",
            part.experiment.name,
            html::escaped(part.experiment.title),
            html::escaped(&part.state())
        )
    });
    body += &format!(
        "<nav class=\"table\"><table><tbody>\n{}</tbody></table></nav>\n",
        rows.collect::<String>()
    );
    for part in parts {
        body += &part.html(setting);
    }
    let page = html::page("Network Deconvolution, measured with decorr", &body);
    write_atomically(&setting.out.join("index.html"), page.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_ran_on_is_said_in_a_sentence() {
        let mut info = RunInfo {
            version: "1.2".into(),
            commit: "abc".into(),
            command_line: vec!["decorr".into()],
            started: "then".into(),
            ended: None,
            sessions: 3,
            adapter: "A".into(),
            driver: "D 7".into(),
            backend: "vulkan".into(),
            system: "linux".into(),
            data: "mnist".into(),
            data_sha256: Some("0123456789".into()),
            images: [600, 100],
            classes: 10,
            parameters: 5,
            device_bytes: 6,
            host_bytes: None,
            steps: 8,
            steps_per_second: None,
            finished: true,
            diverged: None,
        };
        assert_eq!(
            on(&info),
            "decorr 1.2 (abc) on A, D 7, vulkan. Data: mnist, 600 + 100 images, SHA-256 01234567."
        );
        info.commit.clear();
        info.data_sha256 = None;
        assert_eq!(
            on(&info),
            "decorr 1.2 on A, D 7, vulkan. Data: mnist, 600 + 100 images."
        );
    }
}
