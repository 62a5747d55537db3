//! The paper's settings by name: `DATA-MODEL-NORM`, for example `cifar10-vgg11-deconv`.

use super::options::{OptimizerName, ScheduleName, TrainOptions};
use crate::models::Norm;
use crate::{Error, Result};

/// A row of section 4: what a data set and a network are trained with, whatever the norm.
struct Row {
    name: &'static str,
    data: &'static str,
    model: &'static str,
    epochs: u64,
    batch_size: usize,
    lr: f32,
    weight_decay: f32,
}

/// Table 1 (CIFAR) and Table 2 (ImageNet). The paper does not give CIFAR's learning rate; 0.1 is that
/// of the authors' published commands.
const ROWS: &[Row] = &[
    cifar10("vgg11"),
    cifar10("resnet50"),
    cifar10("densenet121"),
    cifar100("vgg13"),
    cifar100("resnet50"),
    cifar100("densenet121"),
    imagenet("vgg11", 0.01),
    imagenet("resnet18", 0.1),
];

const fn cifar10(model: &'static str) -> Row {
    Row {
        name: "cifar10",
        data: "cifar10",
        model,
        epochs: 20,
        batch_size: 128,
        lr: 0.1,
        weight_decay: 1e-3,
    }
}

const fn cifar100(model: &'static str) -> Row {
    Row {
        name: "cifar100",
        data: "cifar100",
        model,
        epochs: 100,
        batch_size: 256,
        lr: 0.1,
        weight_decay: 5e-3,
    }
}

const fn imagenet(model: &'static str, lr: f32) -> Row {
    Row {
        name: "imagenet",
        data: "folder",
        model,
        epochs: 90,
        batch_size: 256,
        lr,
        weight_decay: 1e-4,
    }
}

/// The names of all presets.
fn preset_names() -> Vec<String> {
    let of =
        |row: &Row| Norm::ALL.map(|norm| format!("{}-{}-{}", row.name, row.model, norm.name()));
    ROWS.iter().flat_map(of).collect()
}

/// The options that `name` stands for.
///
/// # Errors
/// [`Error::Config`] with the names there are.
pub fn preset(name: &str) -> Result<TrainOptions> {
    let found = ROWS.iter().find_map(|row| {
        let norm = name.strip_prefix(row.name)?.strip_prefix('-')?;
        let norm = norm.strip_prefix(row.model)?.strip_prefix('-')?;
        let norm = Norm::ALL.into_iter().find(|n| n.name() == norm)?;
        Some((row, norm))
    });
    let Some((row, norm)) = found else {
        let names = preset_names().join(", ");
        let message = format!("no preset is called {name:?}; there are {names}");
        return Err(Error::Config(message));
    };
    Ok(TrainOptions {
        data: Some(row.data.to_string()),
        model: Some(row.model.to_string()),
        norm: Some(norm),
        epochs: Some(row.epochs),
        batch_size: Some(row.batch_size),
        optimizer: Some(OptimizerName::Sgd),
        lr: Some(row.lr),
        momentum: Some(0.9),
        weight_decay: Some(row.weight_decay),
        schedule: Some(ScheduleName::Cosine),
        ..TrainOptions::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_the_papers_settings() {
        assert_eq!(preset_names().len(), ROWS.len() * Norm::ALL.len());
        for name in preset_names() {
            let options = preset(&name).unwrap();
            crate::train::TrainConfig::resolve(options).unwrap();
        }
        let settings = |network: &str| {
            let o = preset(&format!("{network}-deconv")).unwrap();
            assert_eq!((o.momentum, o.norm), (Some(0.9), Some(Norm::Deconv)));
            assert_eq!(o.schedule, Some(ScheduleName::Cosine));
            assert_eq!(o.optimizer, Some(OptimizerName::Sgd));
            let of = |v: Option<f32>| v.unwrap();
            let numbers = (
                o.epochs.unwrap(),
                o.batch_size.unwrap(),
                of(o.lr),
                of(o.weight_decay),
            );
            (format!("{} {}", o.data.unwrap(), o.model.unwrap()), numbers)
        };
        for (network, what, numbers) in [
            ("cifar10-vgg11", "cifar10 vgg11", (20, 128, 0.1, 1e-3)),
            ("cifar10-resnet50", "cifar10 resnet50", (20, 128, 0.1, 1e-3)),
            (
                "cifar10-densenet121",
                "cifar10 densenet121",
                (20, 128, 0.1, 1e-3),
            ),
            ("cifar100-vgg13", "cifar100 vgg13", (100, 256, 0.1, 5e-3)),
            (
                "cifar100-resnet50",
                "cifar100 resnet50",
                (100, 256, 0.1, 5e-3),
            ),
            (
                "cifar100-densenet121",
                "cifar100 densenet121",
                (100, 256, 0.1, 5e-3),
            ),
            ("imagenet-vgg11", "folder vgg11", (90, 256, 0.01, 1e-4)),
            ("imagenet-resnet18", "folder resnet18", (90, 256, 0.1, 1e-4)),
        ] {
            assert_eq!(settings(network), (what.to_string(), numbers));
        }
        let norm = preset("cifar100-vgg13-channel").unwrap().norm;
        assert_eq!(norm, Some(Norm::Channel));
        assert!(preset("cifar10-vgg11").is_err() && preset("").is_err());
    }
}
