//! `decorr predict`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use decorr::data::pictures_below;
use decorr::train::{Guess, TrainOptions, Trained, data_name_parser};
use decorr::{Error, Result};
use serde::Serialize;

use super::checkpoint::CheckpointArgs;
use super::{AdapterArgs, note, plain, print, print_json};

/// Pictures that are read before they go through the network together.
const CHUNK: usize = 32;

#[derive(Debug, Args)]
pub(super) struct PredictArgs {
    #[command(flatten)]
    network: CheckpointArgs,
    /// Pictures, and folders of them with all that is below
    #[arg(required = true, value_name = "IMAGE|FOLDER")]
    images: Vec<PathBuf>,
    /// Print this number of classes, the most probable first [default: 5, or all if there are fewer]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top: Option<usize>,
    /// Report pictures that cannot be read and continue without them
    #[arg(long)]
    skip_bad: bool,
    /// Print one JSON array of objects: file, predictions: class (null if it has no name), index, probability
    #[arg(long)]
    json: bool,
    /// Data set that a state dict is for, which says how pictures are normalised and what classes are called [default: folder,
    /// as for ImageNet; cifar10 or cifar100 for the form of CIFAR; fashion-mnist for networks without forms]
    #[arg(long, value_parser = data_name_parser())]
    data: Option<String>,
    /// Rows and columns to which pictures are scaled [default: those of the training; 224 for the form of ImageNet]
    #[arg(long)]
    image_size: Option<usize>,
    #[command(flatten)]
    adapter: AdapterArgs,
}

/// What is said of a picture.
#[derive(Serialize)]
struct OfFile {
    file: String,
    predictions: Vec<Guess>,
}

pub(super) fn run(args: PredictArgs) -> Result<()> {
    if args.top == Some(0) {
        return Err(Error::Config("--top must be at least 1".into()));
    }
    let (files, others) = files_of(&args.images)?;
    others.iter().for_each(note);
    let gpu = args.adapter.open_to_run()?;
    let options = TrainOptions {
        data: args.data,
        image_size: args.image_size,
        ..args.network.options()
    };
    let mut trained = Trained::open_with(&gpu, &args.network.checkpoint, options)?;
    let classes = trained.model().classes;
    let top = match args.top {
        Some(top) if top > classes => {
            return Err(Error::Config(format!(
                "--top {top}: the network has {classes} classes"
            )));
        }
        top => top.unwrap_or(5.min(classes)),
    };
    let mut all = Vec::new();
    let mut count = 0;
    for files in files.chunks(CHUNK) {
        let (mut names, mut inputs) = (Vec::new(), Vec::new());
        for file in files {
            match trained.read_input(file) {
                Ok(input) => {
                    names.push(file.display().to_string());
                    inputs.push(input);
                }
                Err(error) if args.skip_bad => note(format_args!("skipped: {error}")),
                Err(error) => return Err(error),
            }
        }
        count += names.len();
        for (file, prediction) in names.into_iter().zip(trained.predict_inputs(&inputs)?) {
            let predictions = prediction.top(top);
            if args.json {
                all.push(OfFile { file, predictions });
                continue;
            }
            let guesses: Vec<String> = predictions.iter().map(Guess::to_string).collect();
            let line = format!("{file}: {}", guesses.join(", "));
            print(plain(&line));
        }
    }
    if let (0, Some(first)) = (count, files.first()) {
        let all = files.len();
        let message = format!("is the first of {all} pictures, none of which can be read");
        return Err(Error::data(first, message));
    }
    if args.json {
        print_json(&all)?;
    }
    Ok(())
}

/// The pictures that `paths` name, those in folders among them; what is said of other files there.
fn files_of(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut files, mut notices): (Vec<PathBuf>, Vec<String>) = (Vec::new(), Vec::new());
    for path in paths {
        if path.is_dir() {
            let (pictures, others) = pictures_below(path)?;
            files.extend(pictures);
            notices.extend(others);
        } else {
            // A name that is mistyped is no bad picture.
            fs::metadata(path).map_err(|e| Error::io(path, e))?;
            files.push(path.clone());
        }
    }
    Ok((files, notices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_folders_that_are_no_pictures_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["b.png", "a.JPG", "notes.txt", "table.csv"] {
            fs::write(root.join(name), "").unwrap();
        }
        let (files, notices) = files_of(&[root.to_path_buf(), root.join("notes.txt")]).unwrap();
        let wanted = ["a.JPG", "b.png", "notes.txt"].map(|name| root.join(name));
        assert_eq!(files, wanted);
        let [said] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert!(said.contains("2 files are passed over"), "{said}");
        let error = files_of(&[root.join("none.png")]).unwrap_err();
        assert!(error.to_string().contains("none.png"), "{error}");
    }
}
