//! `decorr paper`: runs, the report, and what goes wrong.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// As short as it can be.
const SHORT: [&str; 7] = [
    "--",
    "--steps",
    "2",
    "--train-images",
    "128",
    "--batch-size",
    "64",
];

fn paper(out: &Path, what: &[&str], options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.arg("paper").args(what).arg("--out").arg(out);
    command.args(options);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// One page that needs no other file, and beside it what it shows; the numbers are those of the runs; nothing is run again.
#[test]
fn the_report_holds_what_the_runs_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let what = ["fig4a", "fig5", "fig9"];
    let options = [&["--scale", "smoke", "--seeds", "2"], &SHORT[..]].concat();
    let output = paper(&out, &what, &options).output().unwrap();
    done(&output);
    let begun = text(&output.stderr).matches(": begins").count();
    // Two seeds of 4 lines, and of 4 others first two learning rates and then the better one again.
    assert_eq!(begun, 2 * 4 + 4 * 3);
    let said = text(&output.stderr);
    let place = |line: &str| Some(line.split_once("] ")?.0.to_string() + "]");
    let places: Vec<String> = said
        .lines()
        .filter(|line| line.ends_with(": begins"))
        .filter_map(place)
        .collect();
    let wanted: Vec<String> = (1..=begun).map(|i| format!("[{i}/{begun}]")).collect();
    assert_eq!(places, wanted);
    for file in [
        "fig4a.md",
        "fig5.csv",
        "fig5.json",
        "fig9.png",
        "linear-l2-1.svg",
        "cifar10-vgg11-2.svg",
    ] {
        assert!(out.join(file).exists(), "{file}");
    }
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"));
    assert!(page.contains("data:image/png;base64,") && page.matches("<svg ").count() >= 4);
    assert_eq!(page.matches("<section").count(), 3);

    let report = json(&out.join("fig4a.json"));
    let group = &report["groups"][0];
    let line = &group["lines"][3];
    assert_eq!(line["name"], "deconvolution, lr 1");
    let of_runs: Vec<f64> = (1..=2)
        .map(|seed| {
            let run = out.join(format!("runs/linear-l2/deconvolution-lr-1_seed-{seed}"));
            let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
            let records = log
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let test: Vec<Value> = records.filter(|r| r["split"] == "test").collect();
            test.last().unwrap()["top1"].as_f64().unwrap()
        })
        .collect();
    let mean = line["top1"]["mean"].as_f64().unwrap();
    assert!((mean - (of_runs[0] + of_runs[1]) / 2.0).abs() < 1e-12);
    assert_eq!(line["top1"]["values"].as_array().unwrap().len(), 2);
    // Each number stands in its column.
    let csv = std::fs::read_to_string(out.join("fig4a.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|row| row.split(',').collect()).collect();
    let heading = rows[0]
        .iter()
        .position(|cell| *cell == "test loss")
        .unwrap();
    // A comma is in the name of the line, and one in the heading before it.
    let cell = rows[4][heading];
    let mean = |name: &str| line[name]["mean"].as_f64().unwrap();
    assert!(
        cell.starts_with(&format!("{:.4} ±", mean("test_loss"))),
        "{cell}: {line}"
    );
    assert!((mean("test_loss") - mean("train_loss")).abs() > 1e-3);
    let picture = &json(&out.join("fig9.json"))["picture"];
    let hoyer = |i: usize| picture["numbers"]["mean_hoyer"][i].as_f64().unwrap();
    let wanted = format!("whose mean goes from {:.3} to {:.3}", hoyer(0), hoyer(1));
    assert!(
        picture["about"].as_str().unwrap().contains(&wanted),
        "{picture}"
    );
    // Better than nothing, worse than none: half of the one target that is 1 bounds it.
    let optimum = group["optimum"].as_f64().unwrap();
    assert!((0.0..0.45).contains(&optimum), "{optimum}");
    let differs = group["differs_from_the_paper"].as_str().unwrap();
    assert!(differs.contains("batch-size 64 (paper: 512)"), "{differs}");
    assert!(
        differs.contains("train-images 128 (paper: none)"),
        "{differs}"
    );

    // The better rate has both seeds, and the paper's number is beside it.
    let report = json(&out.join("fig5.json"));
    let line = &report["groups"][0]["lines"][3];
    assert_eq!(line["paper_top1_percent"], 91.33);
    let tried = line["lr_tried"].as_array().unwrap();
    let best = tried
        .iter()
        .max_by(|a, b| a[1].as_f64().unwrap().total_cmp(&b[1].as_f64().unwrap()));
    let lr = best.unwrap()[0].as_f64().unwrap();
    assert!(tried.len() == 2 && (line["options"]["lr"].as_f64().unwrap() - lr).abs() < 1e-6);
    let markdown = std::fs::read_to_string(out.join("fig5.md")).unwrap();
    assert!(
        markdown.contains("91.33")
            && markdown
                .contains("![VGG-11 on CIFAR-10 (here: cnn, fashion-mnist)](cifar10-vgg11-1.svg)")
    );

    let again = paper(&out, &what, &options).output().unwrap();
    done(&again);
    assert!(
        !text(&again.stderr).contains(": begins"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        std::fs::read_to_string(out.join("index.html")).unwrap(),
        page
    );

    it_reports_what_it_reported(&out, &options);

    // Other options are other runs.
    let options = ["--scale", "smoke", "--", "--steps", "3"];
    let other = paper(&out, &["fig4a"], &options).output().unwrap();
    let said = text(&other.stderr);
    assert!(
        !other.status.success() && said.contains("holds a run that differs in"),
        "{said}"
    );
}

/// The numbers of the report are those that stand with each run, which are measured once.
#[test]
fn layers_are_measured_once_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let small = "--scale smoke -- --model mlp --width 0.1 --steps 2 --train-images 64 --batch-size 32 --test-images 8";
    let small: Vec<&str> = small.split(' ').collect();
    let report = || {
        let output = paper(&out, &["isometry"], &small).output().unwrap();
        done(&output);
        let begun = text(&output.stderr).matches(": begins").count();
        (
            begun,
            std::fs::read_to_string(out.join("isometry.md")).unwrap(),
        )
    };
    let (begun, first) = report();
    assert_eq!(begun, 8);
    let file = out.join("runs/isometry/deconvolution_seed-1/isometry.json");
    let mut layers = json(&file);
    let conditions = |layers: &Value| -> Vec<f64> {
        let layers = layers.as_array().unwrap().iter();
        layers
            .map(|layer| layer["after"]["condition"].as_f64().unwrap())
            .collect()
    };
    let found = conditions(&layers);
    assert_eq!(found.len(), 4);
    let most = found.into_iter().fold(0.0, f64::max);
    let cell = |text: &str| -> String {
        let row = text.lines().find(|l| l.starts_with("| deconvolution | "));
        row.unwrap().split(" | ").nth(4).unwrap().to_string()
    };
    assert_eq!(cell(&first), format!("{most:.2}"));
    layers[1]["after"]["condition"] = 12345.0.into();
    std::fs::write(&file, layers.to_string()).unwrap();
    let (begun, second) = report();
    assert_eq!((begun, cell(&second).as_str()), (0, "1.23e4"));
    // In the page as well, with a drawing for each number.
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("<td>1.23e4</td>"));
    assert_eq!(page.matches("<svg ").count(), 8);
    let heading = "largest singular value over the median, at most";
    assert!(page.contains(heading) && second.contains(heading));
}

/// Every number and sentence of a report, from runs whose logs were written by hand: `tests/paper/*.txt`, which
/// `DECORR_UPDATE_TRANSCRIPTS=1` writes anew.
fn it_reports_what_it_reported(out: &Path, options: &[&str]) {
    let what = ["fig4a", "fig4b", "fig5"];
    // Other logs have other learning rates win, which takes other runs.
    let mut begin = true;
    while begin {
        for experiment in std::fs::read_dir(out.join("runs")).unwrap() {
            for run in std::fs::read_dir(experiment.unwrap().path()).unwrap() {
                write_log(&run.unwrap().path());
            }
        }
        let output = paper(out, &what, options).output().unwrap();
        done(&output);
        begin = text(&output.stderr).contains(": begins");
    }
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/paper/page.txt");
    let differs = support::held_against(&file, &words_of_page(&page));
    assert!(differs.is_none(), "{}", differs.unwrap());
    for name in what {
        let mut report = json(&out.join(format!("{name}.json")));
        let mut texts = ["md", "csv"]
            .map(|ending| std::fs::read_to_string(out.join(format!("{name}.{ending}"))).unwrap())
            .to_vec();
        for group in report["groups"].as_array_mut().unwrap() {
            for line in group["lines"].as_array_mut().unwrap() {
                // What run.json says is of this machine.
                line.as_object_mut().unwrap().remove("runs").unwrap();
                line["options"].as_object_mut().unwrap().remove("out");
            }
        }
        texts.push(format!("{report:#}\n"));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/paper/{name}.txt"));
        let differs = support::held_against(&file, &texts.join("\n"));
        assert!(differs.is_none(), "{}", differs.unwrap());
    }
}

/// The page without its drawings, and without what is of this machine: the command, and what the runs ran on.
fn words_of_page(page: &str) -> String {
    let mut parts = page.split("<svg ");
    let mut words = parts.next().unwrap_or_default().to_string();
    for part in parts {
        words += "(a drawing)";
        words += part.split_once("</svg>").map_or("", |(_, after)| after);
    }
    let is_of_machine = |line: &&str| {
        line.contains("Made by <code>") || line.starts_with("<p class=\"pale\">decorr ")
    };
    let lines = words.lines().skip_while(|line| *line != "<body>");
    let lines: Vec<&str> = lines.filter(|line| !is_of_machine(line)).collect();
    lines.join("\n") + "\n"
}

/// Gives a run losses, accuracies and times that depend on its name.
fn write_log(run: &Path) {
    let name = run.file_name().unwrap().to_string_lossy();
    let sum: u32 = name
        .bytes()
        .zip(1..)
        .map(|(byte, i)| u32::from(byte) * i)
        .sum();
    let number = |of: u32| f64::from(sum * of % 97) / 97.0;
    let file = run.join("metrics.jsonl");
    let old = std::fs::read_to_string(&file).unwrap();
    let lines = old.lines().map(|line| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        let step = record["step"].as_f64().unwrap();
        let is_test = record["split"] == "test";
        record["loss"] = (number(5) / step + if is_test { 0.25 } else { 0.0 }).into();
        // Of two seeds one diverges.
        if name == "batch-norm-lr-0.1_seed-2" && step > 1.0 {
            record["loss"] = Value::Null;
        }
        record["top1"] = (number(7) * if is_test { 0.9 } else { 1.0 }).into();
        record["seconds"] = (step * (0.5 + number(11))).into();
        format!("{record}\n")
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let file = run.join("run.json");
    let mut info = json(&file);
    info["steps_per_second"] = (1.0 + number(13)).into();
    std::fs::write(&file, info.to_string()).unwrap();
}

/// What was killed goes on, and what was finished before it stays as it is.
#[test]
fn a_killed_report_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let options = [
        "--scale",
        "smoke",
        "--",
        "--batch-size",
        "64",
        "--log-every",
        "1",
    ];
    let mut child = paper(&out, &["fig4b"], &options)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let second = out.join("runs/linear-bce/batch-norm-lr-0.1_seed-1/metrics.jsonl");
    while !second.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before its second run"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let first = out.join("runs/linear-bce/SGD-lr-0.1_seed-1");
    let before = std::fs::read(first.join("run.json")).unwrap();
    let output = paper(&out, &["fig4b"], &options).output().unwrap();
    done(&output);
    let said = text(&output.stderr);
    assert!(!said.contains("SGD-lr-0.1_seed-1: begins"), "{said}");
    assert_eq!(std::fs::read(first.join("run.json")).unwrap(), before);
    let group = json(&out.join("fig4b.json"))["groups"][0].clone();
    let differs = group["differs_from_the_paper"].as_str().unwrap();
    assert!(
        differs.contains("5800 training images (the set has 60000)"),
        "{differs}"
    );
    let lines = group["lines"].clone();
    for line in lines.as_array().unwrap() {
        assert_eq!(
            (&line["state"], &line["runs"][0]["steps"]),
            (&"done".into(), &20.into())
        );
    }
}

/// Says which command fetches the set; what needs none goes on.
#[test]
fn a_missing_set_keeps_the_others_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    let options = ["--scale", "laptop", "--data-dir", empty, "--seeds", "1"];
    let output = paper(&out, &["fig6", "fig8b", "fig9"], &options)
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("fig6: ") && said.contains("decorr data fetch cifar100"),
        "{said}"
    );
    assert!(
        said.contains("fig8b: ") && said.contains("imagenet"),
        "{said}"
    );
    assert!(
        said.contains("2 of 3 experiments could not run in full"),
        "{said}"
    );
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("decorr data fetch cifar100") && page.contains("data:image/png;base64,"));
}

/// A damaged run, options in the wrong place, a file where a folder should be.
#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let options = [&["--scale", "smoke"], &SHORT[..]].concat();
    done(&paper(&out, &["fig4b"], &options).output().unwrap());
    let log = out.join("runs/linear-bce/SGD-lr-0.1_seed-1/metrics.jsonl");
    let whole = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, whole.replacen("\"split\"", "\"spl", 1)).unwrap();
    let output = paper(&out, &["fig4b", "fig9"], &options).output().unwrap();
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("metrics.jsonl"),
        "{said}"
    );
    assert!(said.contains("1 of 2 experiments"), "{said}");
    assert!(out.join("fig9.png").exists());

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = paper(&file, &["fig9"], &[]).output().unwrap();
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains(file.to_str().unwrap()),
        "{said}"
    );

    for (options, wanted) in [
        (&["--", "--out", "there"][..], "stands before `--`"),
        (&["--", "--seed", "3"], "stands before `--`"),
        (&["--", "--lr", "-1"], "not a positive number"),
        (&["--seeds", "0"], "--seeds"),
        (&["--scale", "huge"], "smoke, laptop, paper"),
    ] {
        let output = paper(&out, &["fig4b"], options).output().unwrap();
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains(wanted),
            "{options:?}: {said}"
        );
    }
    let output = paper(&out, &["fig10"], &[]).output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("fig4a"), "{said}");
}

/// Ctrl-C ends it with a page that says how many runs are to go, also where those that ran are all done.
#[test]
#[cfg(unix)]
fn an_interrupted_report_says_what_is_to_go() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report");
    let child = paper(&out, &["fig5"], &["--scale", "smoke"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The second learning rate of the first of four norms.
    let second = out.join("runs/cifar10-vgg11/no-norm_lr-0.03_seed-1/metrics.jsonl");
    support::wait_until("the second run begins", || second.exists());
    support::signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    done(&output);
    let said = text(&output.stderr);
    assert!(said.contains("not all runs are finished"), "{said}");
    let report = json(&out.join("fig5.json"));
    assert!(report["open_runs"].as_u64().unwrap() >= 5, "{report}");
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains(" runs to go") && page.contains("not finished"));
}
