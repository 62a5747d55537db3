//! What the program says, word for word: `tests/transcripts/*.txt` have commands and what they printed.
//!
//! A command begins with `$ `, or with `~ ` where its numbers are not the same everywhere: then each is an N. Lines of standard
//! error begin with `! `, and an exit status that is not 0 is the last line. `cat FILE` prints a file that a command wrote.
//! Lines that say what this machine has, or how fast it is, are left out.
//! `DECORR_UPDATE_TRANSCRIPTS=1 cargo test --release --test transcripts` writes the files anew: read what `git diff` says then.

mod support;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use image::RgbImage;
use support::visualiser::visualiser_command;

/// What commands are given.
fn prepare(dir: &Path) {
    let picture = |path: &str, [w, h]: [u32; 2], salt: u32| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let level = |x: u32, y: u32| ((x * 37 + y * 91 + salt * 53) % 251) as u8;
        RgbImage::from_fn(w, h, |x, y| {
            image::Rgb([level(x, y), level(y, x), level(x + y, 3)])
        })
        .save(path)
        .unwrap();
    };
    for (i, class) in ["ant", "bee", "cat"].iter().enumerate() {
        for n in 0..6 {
            picture(
                &format!("pictures/train/{class}/{n}.png"),
                [20, 16],
                10 * i as u32 + n,
            );
        }
    }
    let sets: [(&str, &[&str]); 4] = [
        ("pictures", &["ant", "bee", "cat"]),
        ("some", &["ant", "cat"]),
        ("more", &["ant", "bee", "cat", "dog"]),
        ("renamed", &["x", "y", "z"]),
    ];
    for (set, classes) in sets {
        for class in classes {
            picture(&format!("{set}/val/{class}/0.png"), [20, 16], 77);
        }
    }
    for (path, text) in [
        ("pictures/train/ant/notes.txt", "not a picture"),
        ("words.png", "these are words"),
        ("words.safetensors", "these are words"),
        ("empty/train/ant/notes.txt", ""),
        ("bare/train/notes.txt", ""),
    ] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
    picture("picture.png", [20, 16], 3);
    let whole = fs::read(dir.join("picture.png")).unwrap();
    fs::write(dir.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::create_dir_all(dir.join("idx")).unwrap();
    fs::write(dir.join("idx/train-images-idx3-ubyte"), [0, 0, 8, 3, 0, 0]).unwrap();
    for (name, norm, lr, seed, fall) in [
        ("deconv-s1", "deconv", 0.1, 1, 0.80),
        ("deconv-s2", "deconv", 0.1, 2, 0.82),
        ("deconv-s12", "deconv", 0.1, 12, 0.84),
        ("batch-s1", "batch", 0.1, 1, 0.87),
        ("batch-s2", "batch", 0.2, 2, 0.91),
        ("wild", "none", 0.1, 1, 4.0),
    ] {
        run(&dir.join("runs").join(name), norm, lr, [seed, 1], fall);
    }
    run(&dir.join("runs/other-images"), "batch", 0.1, [3, 2], 0.9);
}

/// A run of 30 steps, whose loss falls by a factor every step; [seed, images].
fn run(dir: &Path, norm: &str, lr: f64, [seed, images]: [u64; 2], fall: f64) {
    fs::create_dir_all(dir).unwrap();
    let config = format!(
        "data = \"mnist\"\nmodel = \"cnn\"\nnorm = \"{norm}\"\nloss = \"ce\"\nbatch-size = 100\nlr = {lr:?}\nseed = {seed}\n"
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    let info = format!(
        "{{\"adapter\": \"Adapter {images}\", \"images\": [1500, 500], \"data_sha256\": \"{images}23456789\"}}"
    );
    fs::write(dir.join("run.json"), info).unwrap();
    let mut log = String::new();
    for step in 1..=30u32 {
        let loss = 2.5 * fall.powi(step as i32) + 0.01 * f64::from(step % 3);
        let top1 = f64::from(step) / 40.0;
        let epoch = (step - 1) / 15;
        writeln!(
            log,
            r#"{{"split":"train","step":{step},"epoch":{epoch},"loss":{loss:.6},"top1":{top1:.4},"lr":{lr},"seconds":{:.3}}}"#,
            0.25 * f64::from(step)
        )
        .unwrap();
        if step % 15 == 0 {
            writeln!(
                log,
                r#"{{"split":"test","step":{step},"epoch":{},"loss":{:.6},"top1":{:.4},"top5":{:.4},"seconds":{:.3}}}"#,
                epoch + 1,
                loss + 0.1,
                top1 - 0.05,
                top1 + 0.1,
                0.25 * f64::from(step)
            )
            .unwrap();
        }
    }
    fs::write(dir.join("metrics.jsonl"), log).unwrap();
}

/// Each number as N.
fn without_numbers(text: &str) -> String {
    let mut left = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            left.push(c);
            continue;
        }
        let is_part = |rest: &str| {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            rest.starts_with(|c: char| c.is_ascii_digit())
        };
        while is_part(chars.as_str()) {
            chars.next();
        }
        left.push('N');
    }
    // Columns are as wide as their numbers.
    let lines = left.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ") + "\n"
    });
    lines.collect()
}

/// Whether a line is about the machine.
fn is_of_machine(line: &str) -> bool {
    let parts = [
        "no GPU was found",
        "images/s",
        "the whole is here too",
        "planned in",
        "planned peak memory",
    ];
    parts.iter().any(|part| line.contains(part))
}

fn decorr(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.args(args);
    command
}

/// What `command` prints in `dir`.
fn said(command: &str, dir: &Path) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["cat", file] = words[..] {
        return fs::read_to_string(dir.join(file)).unwrap();
    }
    let mut command = match words[0] {
        "visualiser" => visualiser_command(&words[1..]),
        _ => decorr(&words[1..]),
    };
    command.current_dir(dir);
    let asks = |word: &&str| word.starts_with("-h") || *word == "--help";
    if words.len() == 1 || words.iter().any(asks) {
        // It says what they are.
        command
            .env_remove("DECORR_ADAPTER")
            .env_remove("DECORR_BACKEND");
    }
    let output = command.output().unwrap();
    let mut text = String::new();
    for (bytes, mark) in [(output.stdout, ""), (output.stderr, "! ")] {
        let lines = String::from_utf8(bytes).unwrap();
        for line in lines.lines().filter(|line| !is_of_machine(line)) {
            writeln!(text, "{mark}{line}").unwrap();
        }
    }
    if !output.status.success() {
        writeln!(text, "{}", output.status).unwrap();
    }
    let gpu = support::gpu();
    text.replace(&gpu.describe(), "ADAPTER")
        .replace(gpu.name(), "ADAPTER")
}

/// The commands of a transcript with what each printed.
fn again(old: &str, dir: &Path) -> String {
    let mut new = String::new();
    for line in old.lines() {
        let Some((kind @ ("$" | "~"), command)) = line.split_once(' ') else {
            continue;
        };
        let text = said(command, dir);
        let text = match kind {
            "~" => without_numbers(&text),
            _ => text,
        };
        writeln!(new, "{line}\n{}\n", text.trim_end()).unwrap();
    }
    new
}

#[test]
fn it_says_what_it_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let is_command = |line: &&str| line.starts_with("$ ") || line.starts_with("~ ");
    let check = |file: &Path| {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let old = fs::read_to_string(file).unwrap();
        let new = again(&old, dir.path());
        let commands = new.lines().filter(is_command).count();
        (commands, support::held_against(file, &new))
    };
    // Most of a command is waiting for the adapter.
    let checked: Vec<(usize, Option<String>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .map(|file| scope.spawn(|| check(file)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let commands: usize = checked.iter().map(|(commands, _)| commands).sum();
    let differ: Vec<String> = checked
        .into_iter()
        .filter_map(|(_, differs)| differs)
        .collect();
    support::report(&format!("{commands} commands"));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
