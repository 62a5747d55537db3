//! A network and data of your own: training, evaluating, saving, going on from the file, predicting.
//!
//! `cargo run --release --example own_data` teaches a small network to tell horizontal, vertical and diagonal stripes.

use decorr::prelude::*;

const SIDE: usize = 12;
const CLASSES: [&str; 3] = ["horizontal", "vertical", "diagonal"];

/// Noisy stripes of some brightness, and their classes. Yours come from files, or from a camera.
fn pictures(count: usize, seed: usize) -> (Vec<f32>, Vec<u16>) {
    let random = |i: usize| {
        let mixed = (i + 1) * (seed + 7919) % 100_003;
        (mixed * mixed % 100_003) as f32 / 100_003.0
    };
    let mut values = Vec::new();
    for picture in 0..count {
        let phase = 6.0 * random(picture);
        for pixel in 0..SIDE * SIDE {
            let (y, x) = ((pixel / SIDE) as f32, (pixel % SIDE) as f32);
            let along = [y, x, 0.7 * (x + y)][picture % CLASSES.len()];
            let noise = random(picture * SIDE * SIDE + pixel) - 0.5;
            values.push((along + phase).sin() + 2.0 * noise);
        }
    }
    (values, [0, 1, 2].into_iter().cycle().take(count).collect())
}

/// Layers by name, as the parameters are called in the file: `conv1.weight`. Anything that is a `Layer` can take its place.
fn network() -> Sequential {
    let features = 8 * (SIDE / 2) * (SIDE / 2);
    Sequential::new()
        .add("conv1", DeconvConv2d::new(1, 8, 3).padding(1))
        .add("relu1", Relu)
        .add("pool1", MaxPool2d::new(2))
        .add("flatten", Flatten)
        .add("fc", DeconvLinear::new(features, CLASSES.len()))
}

fn main() -> Result<()> {
    let images = |count, seed| {
        let (values, labels) = pictures(count, seed);
        Images::new(values, [1, SIDE, SIDE], labels, CLASSES.len())
    };
    // With mean 0 and deviation 1 the network is given the numbers as they are.
    let data = DataSet::new(images(600, 1)?, images(150, 2)?, &[0.0], &[1.0])?;
    let options = TrainerOptions::default().batch_size(50).lr(0.05);

    let gpu = Gpu::best()?;
    let mut trainer = Trainer::new(&gpu, network(), data.clone(), options.clone())?;
    for epoch in 1..=2 {
        let StepResult { loss, top1 } = trainer.epoch()?;
        let test = trainer.evaluate()?;
        let of_test = test.top1;
        println!("epoch {epoch}: loss {loss:.4}, top1 {top1:.3}, of the test {of_test:.3}");
    }

    // The file has all that training depends on: another trainer goes on from it, to the same bits.
    let path = std::env::temp_dir().join(format!("own_data-{}.safetensors", std::process::id()));
    trainer.save(&path)?;
    let mut resumed = Trainer::new(&gpu, network(), data, options)?;
    resumed.load(&path)?;
    println!("step {}: loss {:.4}", resumed.steps(), resumed.step()?.loss);

    // To predict, network and file are enough.
    let (values, labels) = pictures(6, 3);
    let predictions = Predictor::open(&gpu, network(), &path)?.predictions(&values)?;
    for (prediction, label) in predictions.iter().zip(labels) {
        let label = CLASSES[usize::from(label)];
        for guess in prediction.top(1) {
            let (looks, sure) = (CLASSES[guess.index], guess.probability);
            println!("{label} stripes look {looks} ({sure:.2})");
        }
    }
    std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))
}

#[test]
fn it_runs() {
    main().unwrap();
}
