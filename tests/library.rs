//! decorr as a library: layers by builders, networks of one's own, and trainers on data of one's own.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use decorr::nn::Layout;
use decorr::ops::Conv2dGeometry;
use decorr::prelude::*;
use decorr::train::checkpoint;

const SHAPE: [usize; 3] = [2, 6, 5];
const LEN: usize = 60;
const CLASSES: usize = 3;

/// Images that classes can be told of, from 0 to 255.
fn bytes(count: usize, seed: usize) -> Vec<u8> {
    let value = |i: usize| {
        let (image, pixel) = (i / LEN, i % LEN);
        let noise = (i + 1) * (seed + 7919) % 1009;
        let noise = noise * noise % 1009 % 100;
        let class = image % CLASSES;
        (noise + 50 * usize::from(pixel % CLASSES == class) + pixel) as u8
    };
    (0..count * LEN).map(value).collect()
}

fn labels(count: usize) -> Vec<u16> {
    (0..count).map(|i| (i % CLASSES) as u16).collect()
}

fn images(count: usize, seed: usize) -> Images {
    Images::new(bytes(count, seed), SHAPE, labels(count), CLASSES).unwrap()
}

/// 50 images for training and 19 for testing, in floats that are those bytes divided by 255.
fn data() -> DataSet {
    let floats = |count, seed| {
        let values: Vec<f32> = bytes(count, seed)
            .iter()
            .map(|&b| f32::from(b) / 255.0)
            .collect();
        Images::new(values, SHAPE, labels(count), CLASSES).unwrap()
    };
    DataSet::new(floats(50, 1), floats(19, 2), &[0.3, 0.4], &[0.25, 0.5]).unwrap()
}

/// With everything that a step leaves something behind of.
fn network() -> Sequential {
    let options = DeconvOptions::default().block(2).sampling_stride(1);
    Sequential::new()
        .add(
            "conv1",
            DeconvConv2d::new(2, 4, 3).padding(1).options(options),
        )
        .add("norm1", BatchNorm::new(4))
        .add("relu1", Relu)
        .add("pool1", MaxPool2d::new(2))
        .add("flatten", Flatten)
        .add("drop", Dropout::new(0.25))
        .add("fc", Linear::new(4 * 3 * 2, CLASSES))
}

/// The same in evaluation, without a `Sequential`.
fn by_hand(x: Tensor<'_>) -> Tensor<'_> {
    let (g, mode) = (x.graph(), Mode::Eval);
    let options = DeconvOptions::default().block(2).sampling_stride(1);
    let conv = DeconvConv2d::new(2, 4, 3).padding(1).options(options);
    let h = g.scope("conv1", || conv.forward(x, mode));
    let h = g.scope("norm1", || BatchNorm::new(4).forward(h, mode));
    let h = h.relu().max_pool2d(Pool2d::new(2)).reshape([19, 24]);
    g.scope("fc", || Linear::new(24, CLASSES).forward(h, mode))
}

fn options() -> TrainerOptions {
    TrainerOptions::default().batch_size(8).lr(0.05).seed(3)
}

fn trainer(model: impl Layer + Send + Sync + 'static, options: TrainerOptions) -> Result<Trainer> {
    Trainer::new(&support::gpu(), model, data(), options)
}

#[track_caller]
fn assert_says<T>(result: Result<T>, parts: &[&str]) {
    let error = result.err().expect("this was to fail").to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn builders_make_what_literals_make() {
    let geometry = Conv2dGeometry {
        stride: 2,
        padding: 1,
        dilation: 3,
        groups: 4,
    };
    let conv = Conv2d {
        in_channels: 8,
        out_channels: 16,
        kernel_size: 5,
        geometry,
        bias: false,
    };
    let built = Conv2d::new(8, 16, 5)
        .stride(2)
        .padding(1)
        .dilation(3)
        .groups(4)
        .bias(false);
    assert_eq!(format!("{built:?}"), format!("{conv:?}"));
    let options = DeconvOptions {
        block: 16,
        eps: 0.5,
        n_iter: 7,
        momentum: 0.25,
        sampling_stride: 2,
        layout: Layout::Strided,
        freeze: true,
        refresh: 4,
    };
    let built = DeconvOptions::default()
        .block(16)
        .eps(0.5)
        .n_iter(7)
        .momentum(0.25)
        .sampling_stride(2)
        .layout(Layout::Strided)
        .freeze(true)
        .refresh(4);
    assert_eq!(built, options);
    let deconv = DeconvConv2d {
        in_channels: 8,
        out_channels: 16,
        kernel_size: 5,
        geometry,
        bias: false,
        options,
    };
    let built = DeconvConv2d::new(8, 16, 5).options(options).bias(false);
    let built = built.stride(2).padding(1).dilation(3).groups(4);
    assert_eq!(format!("{built:?}"), format!("{deconv:?}"));
    // The defaults are PyTorch's, and those of the paper's code: 64 channels or 512 features together.
    assert_eq!(Conv2d::new(1, 1, 3).geometry, Conv2dGeometry::default());
    assert!(Conv2d::new(1, 1, 3).bias && DeconvConv2d::new(1, 1, 3).bias);
    assert_eq!(DeconvConv2d::new(1, 1, 3).options, DeconvOptions::default());
    assert_eq!(
        DeconvLinear::new(1, 1).options,
        DeconvOptions::default().block(512)
    );
    let channel = ChannelDeconv::new(6, 3).options(options).centered(false);
    assert_eq!((channel.options, channel.centered), (options, false));
    assert_eq!(
        ChannelDeconv::new(6, 3).options,
        DeconvOptions::default().block(3).eps(1e-2)
    );
    let norm = BatchNorm::new(4).eps(0.5).momentum(0.25).affine(false);
    assert_eq!(
        (norm.channels, norm.eps, norm.momentum, norm.affine),
        (4, 0.5, 0.25, false)
    );
    let pool = Pool2d {
        kernel_size: 3,
        stride: 2,
        padding: 1,
    };
    assert_eq!(Pool2d::new(3).stride(2).padding(1), pool);
    assert_eq!(MaxPool2d::new(3).stride(2).padding(1).pool, pool);
    assert_eq!(AvgPool2d::new(3).stride(2).padding(1).pool, pool);
    assert_eq!(AvgPool2d::new(3).pool, Pool2d::new(3).stride(3));
    let sgd = Sgd {
        momentum: 0.9,
        weight_decay: 0.01,
        nesterov: true,
    };
    assert_eq!(
        Sgd::default()
            .momentum(0.9)
            .weight_decay(0.01)
            .nesterov(true),
        sgd
    );
    let adam = Adam {
        betas: [0.5, 0.25],
        eps: 0.125,
        weight_decay: 0.01,
        decoupled: true,
    };
    let built = Adam::default().betas([0.5, 0.25]).eps(0.125);
    assert_eq!(built.weight_decay(0.01).decoupled(true), adam);
}

#[test]
fn names_of_a_sequential_are_scopes() {
    let g = Graph::new();
    let inner = Sequential::new()
        .add("0", Linear::new(4, 4).bias(false))
        .add("1", Sigmoid);
    let network = Sequential::new()
        .add("pool", AvgPool2d::new(2))
        .add("mean", GlobalAvgPool)
        .add("flatten", Flatten)
        .add("block", inner)
        .add("fc", Linear::new(4, 2));
    let y = network.forward(g.input("x", [3, 4, 6, 6]), Mode::Train);
    g.check().unwrap();
    assert_eq!(y.dims(), [3, 2]);
    let names: Vec<String> = g.parameters().iter().map(|p| p.name()).collect();
    assert_eq!(
        names,
        ["block.0.weight", "fc.bias", "fc.weight"].map(String::from)
    );
    assert_eq!(
        network.names().collect::<Vec<_>>(),
        ["pool", "mean", "flatten", "block", "fc"]
    );
    assert!(format!("{network:?}").contains("flatten"));

    // Two layers of one name are an error.
    let twice = Sequential::new()
        .add("fc", Linear::new(2, 2))
        .add("fc", Linear::new(2, 2));
    let g = Graph::new();
    let _ = twice.forward(g.input("x", [3, 2]), Mode::Train);
    assert_says(g.check(), &["fc.bias", "is there already"]);
    // A mistake is told with its layer.
    let g = Graph::new();
    let _ = network.forward(g.input("x", [3, 5, 6, 6]), Mode::Train);
    assert_says(g.check(), &["block.0"]);
}

/// A trainer that was saved, and one of another seed that loaded the file in the middle of an epoch, end with the same bits as
/// one that went on; and so does one that was thrown back.
#[test]
fn a_loaded_trainer_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let schedule = Schedule::StepLr {
        step_size: 5,
        gamma: 0.5,
    };
    let options = options()
        .schedule(schedule)
        .optimizer(Adam::default())
        .lr(0.01);
    let mut whole = trainer(network(), options.clone()).unwrap();
    assert_eq!(whole.steps_per_epoch(), 6);
    for _ in 0..4 {
        whole.step().unwrap();
    }
    whole.save(file("middle")).unwrap();
    let losses: Vec<StepResult> = (0..5).map(|_| whole.step().unwrap()).collect();
    assert_eq!(whole.steps(), 9);
    whole.save(file("whole")).unwrap();

    let mut resumed = trainer(network(), options.seed(99)).unwrap();
    resumed.step().unwrap();
    resumed.load(file("middle")).unwrap();
    assert_eq!((resumed.steps(), resumed.options().seed), (4, 3));
    let again: Vec<StepResult> = (0..5).map(|_| resumed.step().unwrap()).collect();
    assert_eq!(again, losses);
    resumed.save(file("resumed")).unwrap();
    whole.load(file("middle")).unwrap();
    // Steps of a whole epoch are those one by one: 2 are left of it, then 3.
    let rest = whole.epoch().unwrap();
    let mean = (losses[0].loss + losses[1].loss) / 2.0;
    assert!((rest.loss - mean).abs() < 1e-6, "{rest:?} {losses:?}");
    for _ in 0..3 {
        whole.step().unwrap();
    }
    whole.save(file("back")).unwrap();
    let bits = |name| std::fs::read(file(name)).unwrap();
    assert!(bits("whole") == bits("resumed") && bits("whole") == bits("back"));
    assert_eq!(resumed.evaluate().unwrap(), whole.evaluate().unwrap());
}

/// Loss, accuracy and logits as a graph has them that is written by hand.
#[test]
fn evaluate_and_predict_are_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut trainer = trainer(network(), options()).unwrap();
    let first = trainer.epoch().unwrap();
    for _ in 0..5 {
        trainer.epoch().unwrap();
    }
    let last = trainer.epoch().unwrap();
    assert!(last.loss < 0.7 * first.loss, "{first:?} {last:?}");
    trainer.save(&path).unwrap();

    let raw: Vec<f32> = bytes(19, 2).iter().map(|&b| f32::from(b) / 255.0).collect();
    let scaled = |(i, v): (usize, &f32)| match i % LEN < LEN / 2 {
        true => (v - 0.3) / 0.25,
        false => (v - 0.4) / 0.5,
    };
    let normalised: Vec<f32> = raw.iter().enumerate().map(scaled).collect();
    let classes: Vec<f32> = labels(19).into_iter().map(f32::from).collect();
    let g = Graph::new();
    let y = by_hand(g.input("x", [19, 2, 6, 5]));
    let wanted = g.input("labels", [19]);
    g.output("logits", y);
    g.output("loss", cross_entropy(y, wanted, 0.0).mean_to([1]));
    g.output("top1", y.top_k_accuracy(wanted, 1).mean_to([1]));
    let mut program = Program::compile(&g, trainer.store_mut(), CompileOptions::default()).unwrap();
    let outputs = program
        .run(&[("x", &normalised), ("labels", &classes)])
        .unwrap();

    let evaluation = trainer.evaluate().unwrap();
    assert_eq!(evaluation.images, 19);
    let near = |a: f64, b: f32| (a - f64::from(b)).abs() < 1e-5;
    assert!(
        near(evaluation.loss, outputs.scalar("loss").unwrap()),
        "{evaluation:?}"
    );
    assert!(
        near(evaluation.top1, outputs.scalar("top1").unwrap()),
        "{evaluation:?}"
    );
    assert_eq!(trainer.evaluate().unwrap(), evaluation);
    let mut predictor = Predictor::open(&support::gpu(), network(), &path).unwrap();
    assert_eq!(
        (predictor.image_shape(), predictor.classes()),
        (SHAPE, CLASSES)
    );
    let of_trainer = trainer.predict(&raw).unwrap();
    assert_eq!(predictor.predict(&raw).unwrap(), of_trainer);
    let one = predictor.predict(&raw[LEN..2 * LEN]).unwrap();
    assert_eq!((of_trainer.len(), one.len()), (19 * CLASSES, CLASSES));
    let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(same(&of_trainer, &outputs.values["logits"]));
    assert!(same(&one, &of_trainer[CLASSES..]));
    let mut of_three = predictor.compile(3).unwrap();
    let three = of_three.run(&[("images", &raw[..3 * LEN])]).unwrap();
    assert_eq!(three.values["logits"].len(), 3 * CLASSES);
    assert!(same(&three.values["logits"], &of_trainer));
    // More than are computed at once.
    let many = trainer.predict(&raw.repeat(30)).unwrap();
    assert_eq!(many.len(), 19 * 30 * CLASSES);
    assert!(same(&many[29 * 19 * CLASSES..], &of_trainer));
}

#[test]
fn bytes_are_floats_divided_by_255() {
    let small = || {
        Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(LEN, CLASSES))
    };
    let of_bytes = DataSet::new(images(50, 1), images(19, 2), &[0.3, 0.4], &[0.25, 0.5]).unwrap();
    let options = options().optimizer(Sgd::default());
    let gpu = support::gpu();
    let mut first = Trainer::new(&gpu, small(), of_bytes.clone(), options.clone()).unwrap();
    let mut second = trainer(small(), options.clone()).unwrap();
    let before = first.evaluate().unwrap();
    assert_eq!(before, second.evaluate().unwrap());
    for _ in 0..3 {
        assert_eq!(first.step().unwrap(), second.step().unwrap());
    }
    assert_ne!(first.evaluate().unwrap(), before);
    // Training images of one kind and test images of the other.
    let mut mixed = of_bytes;
    mixed.test = data().test;
    let mut third = Trainer::new(&gpu, small(), mixed, options).unwrap();
    assert_eq!(third.evaluate().unwrap(), before);
}

/// A part has 3 images of 35 bytes: its last word is not full, and the next part begins within a word.
#[test]
fn parts_of_batches_of_bytes_are_the_batch() {
    let shape = [1, 5, 7];
    let of = |count: usize, seed| {
        let values = bytes(count, seed)[..count * 35].to_vec();
        Images::new(values, shape, labels(count), CLASSES).unwrap()
    };
    let set = DataSet::new(of(31, 1), of(7, 2), &[0.3], &[0.25]).unwrap();
    let model = || {
        Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(35, CLASSES))
    };
    let gpu = support::gpu();
    let options = options().batch_size(6);
    let parts = options.clone().accumulate(2);
    let mut whole = Trainer::new(&gpu, model(), set.clone(), options).unwrap();
    let mut parts = Trainer::new(&gpu, model(), set, parts).unwrap();
    for _ in 0..4 {
        let (a, b) = (whole.step().unwrap(), parts.step().unwrap());
        assert!((a.loss - b.loss).abs() < 1e-5, "{a:?} {b:?}");
    }
}

/// A formula as loss is the loss of that formula; parts of a batch are the batch, without statistics.
/// What a step reports is of the weights that it began with, over its whole batch.
#[test]
fn a_step_reports_loss_and_top1_of_its_images() {
    let raw: Vec<f32> = bytes(50, 1).iter().map(|&b| f32::from(b) / 255.0).collect();
    for parts in [1, 5] {
        let model = Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(LEN, CLASSES));
        let options = options().batch_size(50).accumulate(parts);
        let mut trainer = trainer(model, options).unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            let logits = trainer.predict(&raw).unwrap();
            let (mut loss, mut hits) = (0.0, 0.0);
            for (row, label) in logits.chunks(CLASSES).zip(labels(50)) {
                let own = f64::from(row[usize::from(label)]);
                let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
                loss += sum.ln() - own;
                hits += f64::from(u8::from(row.iter().all(|&v| f64::from(v) <= own)));
            }
            let step = trainer.step().unwrap();
            let near = |a: f32, b: f64| (f64::from(a) - b / 50.0).abs() < 1e-4;
            assert!(
                near(step.loss, loss) && near(step.top1, hits),
                "{step:?}, not {loss} and {hits} of 50, in {parts} parts"
            );
            seen.push(hits);
        }
        // Neither all nor none, so that other ranks than the first would show.
        assert!(seen.iter().any(|&hits| hits < 40.0), "{seen:?}");
    }
}

#[test]
fn losses_networks_and_steps_of_ones_own() {
    let small = || {
        Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(LEN, CLASSES))
    };
    let plain = || options().optimizer(Sgd::default());
    let mut named = trainer(small(), plain().loss(Loss::HalfSquaredError)).unwrap();
    let own = plain().loss_fn(|logits, labels| {
        let target = labels.one_hot(CLASSES);
        (0.5 * (logits - target).square()).sum_rows()
    });
    let mut own = trainer(small(), own).unwrap();
    let in_parts = plain().loss(Loss::HalfSquaredError).accumulate(4);
    let mut in_parts = trainer(small(), in_parts).unwrap();
    for _ in 0..3 {
        let step = named.step().unwrap();
        assert_eq!(own.step().unwrap(), step);
        let parts = in_parts.step().unwrap();
        assert!((parts.loss - step.loss).abs() < 1e-5, "{parts:?} {step:?}");
    }
    // A network of decorr's, with steps between refreshes.
    let mut model = Model::new("linear", Norm::Deconv, CLASSES).unwrap();
    model.deconv.refresh = 2;
    let never = decorr::nn::FreezeCounter::new(0);
    let modes = plain().modes(&[Mode::Train, Mode::Between], move |step| {
        model.mode(step, never)
    });
    let mut of_ours = trainer(model, modes).unwrap();
    let mut every = trainer(model, plain()).unwrap();
    assert_eq!(of_ours.step().unwrap(), every.step().unwrap());
    assert_ne!(of_ours.step().unwrap(), every.step().unwrap());
}

#[test]
fn wrong_data_is_named() {
    let new = |values: Vec<f32>, labels: Vec<u16>| Images::new(values, SHAPE, labels, CLASSES);
    assert_says(
        new(vec![0.5; 2 * LEN], vec![0, 3]),
        &["label of image 1 is 3", "0 to 2"],
    );
    assert_says(
        new(vec![0.5; 2 * LEN - 1], vec![0, 1]),
        &["119 values", "2 labels", "60"],
    );
    assert_says(new(vec![], vec![]), &["0 images"]);
    let mut values = vec![0.5; 2 * LEN];
    values[LEN + 7] = f32::NAN;
    assert_says(new(values, vec![0, 1]), &["value 7 of image 1 is NaN"]);
    assert_says(
        Images::new(vec![1_u8], [1, 1, 0], vec![0], 1),
        &["[1, 1, 0]"],
    );

    let files = decorr::data::Source::Files(vec!["a.png".into()]);
    assert_says(Images::new(files, SHAPE, vec![0], 1), &["2 channels", "3"]);

    let other = |shape: [usize; 3], classes| {
        let len: usize = shape.iter().product();
        Images::new(vec![0_u8; len], shape, vec![0], classes).unwrap()
    };
    let set = |train, test| DataSet::new(train, test, &[0.0; 2], &[1.0; 2]);
    assert_says(
        set(other(SHAPE, 3), other([2, 6, 6], 3)),
        &["[2, 6, 6]", "[2, 6, 5]"],
    );
    assert_says(
        set(other(SHAPE, 3), other(SHAPE, 4)),
        &["of 4 classes", "of 3"],
    );
    let scaled = |mean: &[f32], std: &[f32]| DataSet::new(images(9, 1), images(9, 2), mean, std);
    assert_says(scaled(&[0.0], &[1.0]), &["2 channels"]);
    assert_says(scaled(&[0.0; 2], &[1.0, 0.0]), &["above 0"]);
    assert_says(scaled(&[f32::NAN; 2], &[1.0; 2]), &["finite"]);
    // Put together by hand.
    let mut broken = images(9, 1);
    broken.labels[4] = 7;
    assert_says(set(broken, images(9, 2)), &["label of image 4 is 7"]);
}

#[test]
fn wrong_networks_and_options_are_named() {
    let small = |outputs| {
        Sequential::new()
            .add("flatten", Flatten)
            .add("fc", Linear::new(LEN, outputs))
    };
    assert_says(trainer(small(5), options()), &["5 numbers", "3 classes"]);
    assert_says(trainer(Relu, options()), &["[8, 2, 6, 5]", "[8, classes]"]);
    let misfit = Sequential::new()
        .add("flatten", Flatten)
        .add("fc", Linear::new(7, CLASSES));
    assert_says(trainer(misfit, options()), &["fc"]);
    let mean = options().loss_fn(|logits, labels| cross_entropy(logits, labels, 0.0).mean_to([1]));
    assert_says(trainer(small(CLASSES), mean), &["loss", "[1]", "[8]"]);
    for (batch, parts, text) in [
        (0, 1, "no batch of 0"),
        (51, 1, "50 images"),
        (8, 3, "3 equal parts"),
    ] {
        let options = options().batch_size(batch).accumulate(parts);
        assert_says(trainer(small(CLASSES), options), &[text]);
    }
    let none = options().modes(&[], |_| Mode::Train);
    assert_says(trainer(small(CLASSES), none), &["no mode"]);
    let other = options().modes(&[Mode::Train], |_| Mode::Between);
    let mut other = trainer(small(CLASSES), other).unwrap();
    assert_says(other.step(), &["step 0", "Between", "[Train]"]);
    // A loss that is a number still, but beyond reason, and one that is none.
    for loss in [Loss::default(), Loss::HalfSquaredError] {
        let mut wild = trainer(small(CLASSES), options().lr(1e30).loss(loss)).unwrap();
        let error = (0..9).find_map(|_| wild.step().err()).unwrap();
        assert!(matches!(error, Error::Diverged(_)), "{error:?}");
        assert!(error.to_string().contains("1e30"), "{error}");
        if loss == Loss::HalfSquaredError {
            let _ = wild.step();
            assert_says(wild.save("not-written"), &["no numbers"]);
            assert!(!Path::new("not-written").exists());
        }
    }
    let mut good = trainer(small(CLASSES), options()).unwrap();
    assert_says(good.predict(&[0.0; LEN + 1]), &["61 values", "60"]);
    assert_says(good.predict(&[]), &["0 values"]);
}

#[test]
fn wrong_files_are_named_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let small = |name: &str| {
        Sequential::new()
            .add("flatten", Flatten)
            .add(name, Linear::new(LEN, CLASSES))
    };
    let mut trainer = trainer(small("fc"), options()).unwrap();
    trainer.step().unwrap();
    trainer.save(file("good")).unwrap();
    assert_says(trainer.save(file("no/folder")), &["no"]);

    let gpu = support::gpu();
    let other = DataSet::new(images(50, 1), images(19, 2), &[0.5; 2], &[0.25; 2]).unwrap();
    let mut of_others = Trainer::new(&gpu, small("fc"), other, options()).unwrap();
    assert_says(of_others.load(file("good")), &["other images", "0.3"]);
    let mut renamed = self::trainer(small("head"), options()).unwrap();
    assert_says(
        renamed.load(file("good")),
        &["head.weight", "missing", "fc.bias", "unknown"],
    );
    let plain = options().optimizer(Sgd::default());
    let mut plain = self::trainer(small("fc"), plain).unwrap();
    assert_says(plain.load(file("good")), &["momentum_buffer"]);
    assert_says(
        Predictor::open(&gpu, small("head"), file("good")),
        &["head.weight", "missing"],
    );
    assert_says(Predictor::open(&gpu, Relu, file("good")), &["network"]);
    let wider = Sequential::new()
        .add("flatten", Flatten)
        .add("fc", Linear::new(LEN, CLASSES + 1));
    assert_says(
        Predictor::open(&gpu, wider, file("good")),
        &[
            "fc.weight is [3, 60], not [4, 60]",
            "fc.bias is [3], not [4]",
        ],
    );
    assert_says(trainer.load(file("none")), &["none"]);

    let whole = std::fs::read(file("good")).unwrap();
    std::fs::write(file("cut"), &whole[..whole.len() - 4]).unwrap();
    assert_says(trainer.load(file("cut")), &["cut", "damaged"]);
    // One of another program's: with the tensors, but nothing beside them.
    let (tensors, mut metadata) = checkpoint::load(&file("good")).unwrap();
    let save = |name: &str, metadata: &BTreeMap<String, String>| {
        checkpoint::save(&file(name), &tensors, metadata).unwrap();
    };
    save("plain", &BTreeMap::new());
    assert_says(
        trainer.load(file("plain")),
        &["input_shape", "not written by decorr"],
    );
    metadata.insert("step".into(), "many".into());
    save("step", &metadata);
    assert_says(trainer.load(file("step")), &["step", "many"]);
    for (key, text) in [
        ("input_shape", "[0, 6, 5]"),
        ("input_shape", "[2, 6]"),
        ("mean", "[0.5]"),
        ("std", "[1.0, 0.0]"),
        ("std", "some"),
    ] {
        let mut metadata = metadata.clone();
        metadata.insert(key.into(), text.into());
        save("damaged", &metadata);
        let opened = Predictor::open(&gpu, small("fc"), file("damaged"));
        assert_says(opened, &[key, "damaged"]);
    }
    // After all of that the trainer is as it was.
    trainer.save(file("again")).unwrap();
    assert!(std::fs::read(file("again")).unwrap() == whole);
}

/// Of 100 classes or more the evaluation has the five largest logits, too.
/// The seed decides first weights, and not the names or shapes of states before them.
#[test]
fn another_seed_has_other_first_weights() {
    let first = |seed: u64| {
        let g = Graph::new();
        let x = g.input("x", [2, 3]);
        g.output("y", Linear::new(3, 4).forward(x, Mode::Train));
        let mut store = Store::new(&support::gpu(), seed);
        Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        store.read("weight").unwrap()
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
}

#[test]
fn many_classes_have_a_top5() {
    const CLASSES: usize = 100;
    let images = |count: usize, salt: usize| {
        let values: Vec<f32> = (0..count * 6)
            .map(|i| ((i * 31 + salt) % 17) as f32 / 8.0)
            .collect();
        let labels = (0..count)
            .map(|i| ((i * 37 + salt) % CLASSES) as u16)
            .collect();
        Images::new(values, [6, 1, 1], labels, CLASSES).unwrap()
    };
    let test = images(230, 5);
    let (labels, decorr::data::Source::Floats(values)) = (test.labels.clone(), test.source.clone())
    else {
        panic!("not floats");
    };
    let data = DataSet::new(images(40, 1), test, &[0.0; 6], &[1.0; 6]).unwrap();
    let network = Sequential::new()
        .add("flatten", Flatten)
        .add("fc", Linear::new(6, CLASSES));
    let options = TrainerOptions::default().batch_size(20);
    let mut trainer = Trainer::new(&support::gpu(), network, data, options).unwrap();
    let found = trainer.evaluate().unwrap();
    let logits = trainer.predict(&values).unwrap();
    let hits = |k: usize| {
        let rows = logits.chunks(CLASSES).zip(&labels);
        let hit = rows.filter(|(row, label)| {
            let own = row[usize::from(**label)];
            row.iter().filter(|v| **v > own).count() < k
        });
        hit.count() as f64 / 230.0
    };
    assert_eq!((found.top1, found.top5), (hits(1), Some(hits(5))));
    assert!(hits(5) > hits(1) && hits(5) < 0.5, "{found:?}");
}
