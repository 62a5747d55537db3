//! A step reads no memory that it has not written: with NaN everywhere before it, no bit changes.

mod support;

use decorr::models::{Model, Norm};
use decorr::nn::{Loss, Mode};
use decorr::optim::{Adam, Optimizer, Sgd};
use decorr::program::{CompileOptions, Program, Store};
use decorr::train::{evaluation_step, training_step};

/// Losses of three steps and every state after them, as bits.
fn bits(
    model: &Model,
    optimizer: &Optimizer,
    shape: [usize; 4],
    poison: bool,
) -> Vec<(String, Vec<u32>)> {
    let loss = Loss::CrossEntropy { smoothing: 0.1 };
    let mut store = Store::new(&support::gpu(), 3);
    let options = CompileOptions::default();
    let modes = match model.deconv.refresh {
        1 => vec![Mode::Train, Mode::TrainFrozen, Mode::Train],
        _ => vec![Mode::Train, Mode::Between, Mode::Between],
    };
    let mut programs: Vec<(Mode, Program)> = Vec::new();
    for &mode in &modes {
        if programs.iter().all(|(made, _)| *made != mode) {
            let graph = training_step(model, loss, optimizer, shape, mode).unwrap();
            programs.push((mode, Program::compile(&graph, &mut store, options).unwrap()));
        }
    }
    let graph = evaluation_step(model, loss, shape).unwrap();
    let mut evaluation = Program::compile(&graph, &mut store, options).unwrap();
    let len: usize = shape.iter().product();
    let images: Vec<f32> = (0..len)
        .map(|i| ((i * i / 5 + i) % 97) as f32 / 97.0)
        .collect();
    let labels: Vec<f32> = (0..shape[0]).map(|i| (i % 10) as f32).collect();
    let mut found = Vec::new();
    let mut keep = |name: String, values: &[f32]| {
        found.push((
            name,
            values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>(),
        ));
    };
    for (step, mode) in modes.iter().enumerate() {
        if poison {
            store.workspace().fill(f32::NAN).unwrap();
        }
        let (_, program) = programs.iter_mut().find(|(made, _)| made == mode).unwrap();
        let inputs = [
            ("images", &images[..]),
            ("labels", &labels),
            ("lr", &[0.01]),
        ];
        let outputs = program.run(&inputs).unwrap();
        keep(format!("loss {step}"), &outputs.values["loss"]);
    }
    if poison {
        store.workspace().fill(f32::NAN).unwrap();
    }
    let outputs = evaluation
        .run(&[("images", &images[..]), ("labels", &labels)])
        .unwrap();
    keep("evaluation".into(), &outputs.values["losses"]);
    let names: Vec<String> = store.states().map(|(name, ..)| name.to_string()).collect();
    for name in names {
        keep(name.clone(), &store.read(&name).unwrap());
    }
    found
}

/// With NaN in all memory before a step no bit changes: a network, its norm, its `refresh`.
fn check(cases: &[(&str, Norm, usize)]) {
    let (mut count, mut states) = (0, 0);
    let sgd = Optimizer::from(Sgd {
        momentum: 0.9,
        weight_decay: 1e-3,
        nesterov: true,
    });
    let adam = Optimizer::from(Adam::default());
    for &(name, norm, refresh) in cases {
        let mut model = Model::new(name, norm, 10).unwrap();
        model.width = 0.125;
        model.deconv.block = 16;
        model.deconv.refresh = refresh;
        let colours = if matches!(name, "mlp" | "cnn") { 1 } else { 3 };
        let side = if colours == 1 { 28 } else { 32 };
        let optimizer = if name == "mlp" { &adam } else { &sgd };
        let shape = [5, colours, side, side];
        let clean = bits(&model, optimizer, shape, false);
        let poisoned = bits(&model, optimizer, shape, true);
        for ((what, a), (_, b)) in clean.iter().zip(&poisoned) {
            assert_eq!(a, b, "{name} {norm:?} {refresh}: {what}");
            assert!(
                a.iter().all(|&v| f32::from_bits(v).is_finite()),
                "{name}: {what}"
            );
        }
        count += 1;
        states += clean.len();
    }
    support::report(&format!(
        "{count} networks, {states} tensors equal to the bit"
    ));
}

#[test]
fn small_networks_with_every_norm() {
    for name in ["mlp", "cnn"] {
        check(&Norm::ALL.map(|norm| (name, norm, 1)));
        check(&[(name, Norm::Deconv, 3)]);
    }
}

#[test]
fn a_residual_network() {
    check(&[("resnet18", Norm::Deconv, 1), ("resnet18", Norm::Batch, 1)]);
}

#[test]
fn a_deep_network_between_refreshes() {
    check(&[("vgg11", Norm::Deconv, 3)]);
}
