//! The experiments: a row for each, and the groups of runs that they are made of. To add one, add a row.

use decorr::train::{XAxis, YAxis};

use super::experiment::{Claim, Experiment, Group, Line, Measured, Plot, What};
use super::pictures::PictureOf;

/// In the order of the paper.
pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "fig2",
        title: "Figure 2: the covariance of an image's patches, and the kernels that decorrelate",
        claim: "Pixels of natural images are strongly correlated with their neighbours, and more so than their colours with each \
                other. Deconvolution makes the covariance of the patches nearly the identity. Its kernels look like \
                center-surround cells of the retina.",
        what: What::Picture(PictureOf::Fig2),
    },
    Experiment {
        name: "fig3",
        title: "Figure 3: deconvolution of an image",
        claim: "The deconvolved image is sparser than the input with its mean removed.",
        what: What::Picture(PictureOf::Fig3),
    },
    Experiment {
        name: "isometry",
        title: "Section 3.2: isometry",
        claim: "With deconvolution before every layer, the map from one deconvolved input to the next keeps norms on average, \
                forwards and backwards.",
        what: What::Runs(&[&ISOMETRY]),
    },
    Experiment {
        name: "onestep",
        title: "Section 3.3: one step to the optimum",
        claim: "Once the input is deconvolved, one step of gradient descent at learning rate 1 solves linear regression with the L2 \
                loss.",
        what: What::Runs(&[&ONE_STEP]),
    },
    Experiment {
        name: "fig4a",
        title: "Figure 4(a): linear regression with the L2 loss",
        claim: "Deconvolution can use the optimal learning rate 1.0, and the cost is low after about 5 iterations; SGD needs a small \
                rate to not diverge.",
        what: What::Runs(&[&LINEAR_L2]),
    },
    Experiment {
        name: "fig4b",
        title: "Figure 4(b): logistic regression",
        claim: "The fast descent holds for the logistic loss, too.",
        what: What::Runs(&[&LINEAR_BCE]),
    },
    Experiment {
        name: "fig4c",
        title: "Figure 4(c) and (d): a multi-layer perceptron with three hidden layers",
        claim: "Deconvolution is better than batch norm in loss and accuracy, also in a network without convolutions.",
        what: What::Runs(&[&MLP]),
    },
    Experiment {
        name: "fig5",
        title: "Figure 5: networks on CIFAR-10",
        claim: "Deconvolution converges faster than batch norm and than channel deconvolution, in all networks.",
        what: What::Runs(CIFAR10),
    },
    Experiment {
        name: "fig6",
        title: "Figure 6: networks on CIFAR-100",
        claim: "Full deconvolution performs best in all networks.",
        what: What::Runs(CIFAR100),
    },
    Experiment {
        name: "table1",
        title: "Table 1: accuracy on CIFAR-10 after 20 epochs and on CIFAR-100 after 100",
        claim: "Deconvolution (DC) has a higher final accuracy than batch norm (BN) and channel deconvolution (CD) in all networks.",
        what: What::Runs(&[
            &CIFAR10_VGG11,
            &CIFAR10_DENSENET121,
            &CIFAR10_RESNET50,
            &CIFAR100_VGG13,
            &CIFAR100_DENSENET121,
            &CIFAR100_RESNET50,
        ]),
    },
    Experiment {
        name: "fig7",
        title: "Figure 7: VGG-11 and ResNet-18 on ImageNet",
        claim: "Deconvolution learns faster than the reference networks and ends higher.",
        what: What::Runs(IMAGENET),
    },
    Experiment {
        name: "table2",
        title: "Table 2: accuracy on ImageNet after 90 epochs",
        claim: "Deconvolution is above the reference networks of PyTorch and above channel deconvolution.",
        what: What::Runs(IMAGENET),
    },
    Experiment {
        name: "fig8a",
        title: "Figure 8(a): weight decay",
        claim: "More weight decay makes standard training worse. With deconvolution, the final accuracy improves with it (.001 to \
                .005).",
        what: What::Runs(&[&WEIGHT_DECAY]),
    },
    Experiment {
        name: "fig8b",
        title: "Figure 8(b): the first 1 000 steps of VGG-11 on ImageNet",
        claim: "The training loss falls much faster with deconvolution.",
        what: What::Runs(&[&FIRST_STEPS]),
    },
    Experiment {
        name: "fig9",
        title: "Figure 9: the input of the 5th convolution of VGG-11, deconvolved",
        claim: "The deconvolved features are sharper and sparser.",
        what: What::Picture(PictureOf::Fig9),
    },
    Experiment {
        name: "speed",
        title: "Beyond the paper: accuracy against time",
        claim: "The paper's implementation was slower than batch norm by the clock, which its authors took for a matter of code.",
        what: What::Runs(&[&SPEED]),
    },
];

const CIFAR10: &[&Group] = &[&CIFAR10_VGG11, &CIFAR10_RESNET50, &CIFAR10_DENSENET121];
const CIFAR100: &[&Group] = &[&CIFAR100_VGG13, &CIFAR100_RESNET50, &CIFAR100_DENSENET121];
const IMAGENET: &[&Group] = &[&IMAGENET_VGG11, &IMAGENET_RESNET18];

/// Of which each norm has its best.
const RATES: &[f32] = &[0.1, 0.03, 0.01];

/// The built-in images and a network that is small enough for a few seconds a run.
const SMALL: &str = "data = 'fashion-mnist'\nmodel = 'cnn'\nwidth = 0.25\ntrain-images = 640\ntest-images = 200\n\
                     steps = 10\nbatch-size = 64\nlog-every = 1";

const LOSS: Plot = Plot::Curves {
    x: XAxis::Step,
    y: YAxis::Loss,
    log: false,
    smooth: None,
};
const EACH_LOSS: Plot = Plot::Curves {
    x: XAxis::Step,
    y: YAxis::Loss,
    log: true,
    smooth: Some(1),
};
const LOSS_BY_EPOCH: Plot = Plot::Curves {
    x: XAxis::Epoch,
    y: YAxis::Loss,
    log: false,
    smooth: None,
};
const TOP1_BY_EPOCH: Plot = Plot::Curves {
    x: XAxis::Epoch,
    y: YAxis::Top1,
    log: false,
    smooth: None,
};

const fn line(name: &'static str, options: &'static str) -> Line {
    Line {
        name,
        options,
        lrs: &[],
        paper: None,
    }
}

/// With the best of [`RATES`], and the paper's accuracy in per cent.
const fn tuned(name: &'static str, options: &'static str, paper: Option<f64>) -> Line {
    Line {
        name,
        options,
        lrs: RATES,
        paper,
    }
}

const fn better(better: &'static str, worse: &'static str, by: Measured) -> Claim {
    Claim { better, worse, by }
}

/// What the paper says of every network.
const DECONVOLUTION_IS_BEST: &[Claim] = &[
    better("deconvolution", "batch norm", Measured::Top1),
    better("deconvolution", "channel deconvolution", Measured::Top1),
];

const fn regression(
    name: &'static str,
    title: &'static str,
    paper: &'static str,
    lines: &'static [Line],
    (optimum, claims): (bool, &'static [Claim]),
) -> Group {
    Group {
        name,
        title,
        paper,
        laptop: Some(""),
        smoke: Some("steps = 20"),
        lines,
        plots: &[EACH_LOSS, TOP1_BY_EPOCH],
        losses_at: &[1, 5, 20, 100],
        optimum,
        claims,
    }
}

const LINEAR_L2: Group = regression(
    "linear-l2",
    "One linear layer on Fashion-MNIST, half the squared error (Eq. 6)",
    "data = 'fashion-mnist'\nmodel = 'linear'\nloss = 'l2'\nbatch-size = 512\nmomentum = 0.0\nepochs = 5\nlog-every = 1",
    &[
        line("SGD, lr 0.004", "norm = 'none'\nlr = 0.004"),
        line("SGD, lr 0.01", "norm = 'none'\nlr = 0.01"),
        line("batch norm, lr 0.004", "norm = 'batch'\nlr = 0.004"),
        line(
            "deconvolution, lr 1",
            "norm = 'deconv'\nblock = 784\neps = 1e-2\nlr = 1.0",
        ),
    ],
    (
        true,
        &[
            better("deconvolution, lr 1", "SGD, lr 0.01", Measured::LossAt(5)),
            better("deconvolution, lr 1", "SGD, lr 0.01", Measured::TrainLoss),
            better(
                "deconvolution, lr 1",
                "batch norm, lr 0.004",
                Measured::TrainLoss,
            ),
        ],
    ),
);

const LINEAR_BCE: Group = regression(
    "linear-bce",
    "One linear layer on Fashion-MNIST, logistic loss",
    "data = 'fashion-mnist'\nmodel = 'linear'\nloss = 'bce'\nbatch-size = 512\nmomentum = 0.0\nepochs = 5\nlog-every = 1",
    &[
        line("SGD, lr 0.1", "norm = 'none'\nlr = 0.1"),
        line("batch norm, lr 0.1", "norm = 'batch'\nlr = 0.1"),
        line(
            "deconvolution, lr 1",
            "norm = 'deconv'\nblock = 784\neps = 1e-2\nlr = 1.0",
        ),
    ],
    (
        false,
        &[
            better("deconvolution, lr 1", "SGD, lr 0.1", Measured::LossAt(20)),
            better("deconvolution, lr 1", "SGD, lr 0.1", Measured::TrainLoss),
            better(
                "deconvolution, lr 1",
                "batch norm, lr 0.1",
                Measured::TrainLoss,
            ),
        ],
    ),
);

const MLP: Group = Group {
    name: "mlp",
    title: "Perceptron with three hidden layers of 128 sigmoids on MNIST",
    paper: "data = 'mnist'\nmodel = 'mlp'\nepochs = 10\nbatch-size = 512\nlr = 0.1\nmomentum = 0.9\nweight-decay = 5e-4\n\
            schedule = 'cosine'\nlog-every = 1",
    laptop: Some(""),
    smoke: Some("data = 'fashion-mnist'\nepochs = 2\ntrain-images = 2048"),
    lines: NORMS,
    plots: &[LOSS_BY_EPOCH, TOP1_BY_EPOCH],
    losses_at: &[],
    optimum: false,
    claims: DECONVOLUTION_IS_BEST,
};

const NORMS: &[Line] = &[
    line("no norm", "norm = 'none'"),
    line("batch norm", "norm = 'batch'"),
    line("channel deconvolution", "norm = 'channel'"),
    line("deconvolution", "norm = 'deconv'"),
];

const ONE_STEP: Group = Group {
    name: "one-step",
    title: "Linear regression on Fashion-MNIST, every step of 40 000 images",
    paper: "data = 'fashion-mnist'\nmodel = 'linear'\nloss = 'l2'\ntrain-images = 40000\nbatch-size = 40000\nmomentum = 0.0\nsteps = 10\n\
            log-every = 1\nblock = 784\neps = 1e-5",
    laptop: Some(""),
    smoke: Some("train-images = 2000\nbatch-size = 2000\nsteps = 3"),
    lines: &[
        line("gradient descent, lr 0.01", "norm = 'none'\nlr = 0.01"),
        line(
            "deconvolution, lr 1, n_iter 5",
            "norm = 'deconv'\nn-iter = 5\nlr = 1.0",
        ),
        line(
            "deconvolution, lr 1, n_iter 10",
            "norm = 'deconv'\nn-iter = 10\nlr = 1.0",
        ),
        line(
            "deconvolution, lr 1, n_iter 15",
            "norm = 'deconv'\nn-iter = 15\nlr = 1.0",
        ),
    ],
    plots: &[EACH_LOSS],
    losses_at: &[1, 2, 4, 10],
    optimum: true,
    claims: &[better(
        "deconvolution, lr 1, n_iter 15",
        "gradient descent, lr 0.01",
        Measured::LossAt(2),
    )],
};

const fn network(
    name: &'static str,
    title: &'static str,
    paper: &'static str,
    [laptop, smoke]: [Option<&'static str>; 2],
    lines: &'static [Line],
) -> Group {
    Group {
        name,
        title,
        paper,
        laptop,
        smoke,
        lines,
        plots: &[LOSS_BY_EPOCH, TOP1_BY_EPOCH],
        losses_at: &[],
        optimum: false,
        claims: DECONVOLUTION_IS_BEST,
    }
}

const CIFAR10_VGG11: Group = network(
    "cifar10-vgg11",
    "VGG-11 on CIFAR-10",
    "preset = 'cifar10-vgg11-deconv'",
    [Some("epochs = 5"), Some(SMALL)],
    &[
        tuned("no norm", "norm = 'none'", None),
        tuned("batch norm", "norm = 'batch'", Some(89.15)),
        tuned("channel deconvolution", "norm = 'channel'", Some(90.23)),
        tuned("deconvolution", "norm = 'deconv'", Some(91.33)),
    ],
);

const CIFAR10_RESNET50: Group = network(
    "cifar10-resnet50",
    "ResNet-50 on CIFAR-10",
    "preset = 'cifar10-resnet50-deconv'",
    [None, None],
    &[
        tuned("batch norm", "norm = 'batch'", Some(90.6)),
        tuned("channel deconvolution", "norm = 'channel'", Some(91.7)),
        tuned("deconvolution", "norm = 'deconv'", Some(94.05)),
    ],
);

const CIFAR10_DENSENET121: Group = network(
    "cifar10-densenet121",
    "DenseNet-121 on CIFAR-10",
    "preset = 'cifar10-densenet121-deconv'",
    [None, None],
    &[
        tuned("batch norm", "norm = 'batch'", Some(93.45)),
        tuned("channel deconvolution", "norm = 'channel'", Some(93.65)),
        tuned("deconvolution", "norm = 'deconv'", Some(94.71)),
    ],
);

const CIFAR100_VGG13: Group = network(
    "cifar100-vgg13",
    "VGG-13 on CIFAR-100",
    "preset = 'cifar100-vgg13-deconv'",
    [Some("epochs = 5"), Some(SMALL)],
    &[
        tuned("batch norm", "norm = 'batch'", Some(70.57)),
        tuned("channel deconvolution", "norm = 'channel'", Some(74.31)),
        tuned("deconvolution", "norm = 'deconv'", Some(74.74)),
    ],
);

const CIFAR100_RESNET50: Group = network(
    "cifar100-resnet50",
    "ResNet-50 on CIFAR-100",
    "preset = 'cifar100-resnet50-deconv'",
    [None, None],
    &[
        tuned("batch norm", "norm = 'batch'", Some(77.78)),
        tuned("channel deconvolution", "norm = 'channel'", Some(76.62)),
        tuned("deconvolution", "norm = 'deconv'", Some(80.43)),
    ],
);

const CIFAR100_DENSENET121: Group = network(
    "cifar100-densenet121",
    "DenseNet-121 on CIFAR-100",
    "preset = 'cifar100-densenet121-deconv'",
    [None, None],
    &[
        tuned("batch norm", "norm = 'batch'", Some(79.2)),
        tuned("channel deconvolution", "norm = 'channel'", Some(79.09)),
        tuned("deconvolution", "norm = 'deconv'", Some(80.27)),
    ],
);

const fn at(name: &'static str, options: &'static str, paper: f64) -> Line {
    Line {
        name,
        options,
        lrs: &[],
        paper: Some(paper),
    }
}

const IMAGENET_VGG11: Group = network(
    "imagenet-vgg11",
    "VGG-11 on ImageNet",
    "preset = 'imagenet-vgg11-deconv'",
    [None, Some(SMALL)],
    &[
        at("no norm", "norm = 'none'", 69.02),
        at("batch norm", "norm = 'batch'", 70.38),
        at("channel deconvolution", "norm = 'channel'", 71.45),
        at("deconvolution", "norm = 'deconv'", 71.74),
    ],
);

const IMAGENET_RESNET18: Group = network(
    "imagenet-resnet18",
    "ResNet-18 on ImageNet",
    "preset = 'imagenet-resnet18-deconv'",
    [None, None],
    &[
        at("batch norm", "norm = 'batch'", 69.76),
        at("channel deconvolution", "norm = 'channel'", 69.80),
        at("deconvolution", "norm = 'deconv'", 70.65),
    ],
);

const FIRST_STEPS: Group = Group {
    name: "imagenet-first-steps",
    title: "VGG-11 on ImageNet, learning rate as at the beginning of 90 epochs",
    paper: "preset = 'imagenet-vgg11-deconv'\nstop-after = 1000",
    laptop: Some("stop-after = 100\naccumulate = 16"),
    smoke: Some(SMALL),
    lines: NORMS,
    plots: &[LOSS],
    losses_at: &[100, 300, 1000],
    optimum: false,
    claims: &[
        better("deconvolution", "batch norm", Measured::TrainLoss),
        better(
            "deconvolution",
            "channel deconvolution",
            Measured::TrainLoss,
        ),
    ],
};

const WEIGHT_DECAY: Group = Group {
    name: "weight-decay",
    title: "VGG-13 on CIFAR-100",
    paper: "preset = 'cifar100-vgg13-deconv'",
    laptop: Some("epochs = 5"),
    smoke: Some(SMALL),
    lines: &[
        line(
            "SGD, weight decay 5e-4",
            "norm = 'none'\nweight-decay = 5e-4",
        ),
        line(
            "SGD, weight decay 1e-3",
            "norm = 'none'\nweight-decay = 1e-3",
        ),
        line(
            "SGD, weight decay 5e-3",
            "norm = 'none'\nweight-decay = 5e-3",
        ),
        line(
            "batch norm, weight decay 5e-4",
            "norm = 'batch'\nweight-decay = 5e-4",
        ),
        line(
            "batch norm, weight decay 1e-3",
            "norm = 'batch'\nweight-decay = 1e-3",
        ),
        line(
            "batch norm, weight decay 5e-3",
            "norm = 'batch'\nweight-decay = 5e-3",
        ),
        line(
            "deconvolution, weight decay 5e-4",
            "norm = 'deconv'\nweight-decay = 5e-4",
        ),
        line(
            "deconvolution, weight decay 1e-3",
            "norm = 'deconv'\nweight-decay = 1e-3",
        ),
        line(
            "deconvolution, weight decay 5e-3",
            "norm = 'deconv'\nweight-decay = 5e-3",
        ),
    ],
    plots: &[Plot::Over("weight-decay", YAxis::Top1)],
    losses_at: &[],
    optimum: false,
    claims: &[
        better(
            "deconvolution, weight decay 5e-3",
            "deconvolution, weight decay 1e-3",
            Measured::Top1,
        ),
        better(
            "SGD, weight decay 5e-4",
            "SGD, weight decay 5e-3",
            Measured::Top1,
        ),
        better(
            "batch norm, weight decay 5e-4",
            "batch norm, weight decay 5e-3",
            Measured::Top1,
        ),
    ],
};

/// Over the layers, on a logarithmic axis.
const fn layers(name: &'static str, pointer: &'static str) -> Plot {
    Plot::Layers { name, pointer }
}

const ISOMETRY: Group = Group {
    name: "isometry",
    title: "VGG-11 on CIFAR-10",
    paper: "preset = 'cifar10-vgg11-deconv'",
    laptop: Some("epochs = 2"),
    smoke: Some(SMALL),
    lines: &[
        line("no norm, at first", "norm = 'none'\nstop-after = 1"),
        line("batch norm, at first", "norm = 'batch'\nstop-after = 1"),
        line(
            "channel deconvolution, at first",
            "norm = 'channel'\nstop-after = 1",
        ),
        line("deconvolution, at first", "norm = 'deconv'\nstop-after = 1"),
        line("no norm", "norm = 'none'"),
        line("batch norm", "norm = 'batch'"),
        line("channel deconvolution", "norm = 'channel'"),
        line("deconvolution", "norm = 'deconv'"),
    ],
    plots: &[
        layers("activations: root mean square", "/activation/rms"),
        layers("activations: variance", "/activation/variance"),
        layers("gradients: root mean square", "/gradient/rms"),
        layers("gradients: variance", "/gradient/variance"),
        layers(
            "covariance of patches before: condition number",
            "/before/condition",
        ),
        layers(
            "covariance of patches after: condition number",
            "/after/condition",
        ),
        layers(
            "map to the next layer: largest singular value",
            "/next/map/largest",
        ),
        layers(
            "map to the next layer: median singular value",
            "/next/map/median",
        ),
    ],
    losses_at: &[],
    optimum: false,
    claims: &[],
};

const SPEED: Group = Group {
    name: "speed",
    title: "VGG-11 on CIFAR-10",
    paper: "preset = 'cifar10-vgg11-deconv'",
    laptop: Some("epochs = 3"),
    smoke: Some(SMALL),
    lines: &[
        line("batch norm", "norm = 'batch'"),
        line("deconvolution, block 64", "norm = 'deconv'"),
        line("block 16", "norm = 'deconv'\nblock = 16"),
        line("n_iter 3", "norm = 'deconv'\nn-iter = 3"),
        line("eps 1e-2", "norm = 'deconv'\neps = 1e-2"),
        line("sampling stride 5", "norm = 'deconv'\nsampling-stride = 5"),
        line("refresh 8", "norm = 'deconv'\nrefresh = 8"),
    ],
    plots: &[
        Plot::Curves {
            x: XAxis::Seconds,
            y: YAxis::Top1,
            log: false,
            smooth: None,
        },
        Plot::Curves {
            x: XAxis::Step,
            y: YAxis::Top1,
            log: false,
            smooth: None,
        },
        Plot::Curves {
            x: XAxis::Seconds,
            y: YAxis::Loss,
            log: false,
            smooth: None,
        },
        LOSS,
    ],
    losses_at: &[],
    optimum: false,
    claims: &[better(
        "deconvolution, block 64",
        "batch norm",
        Measured::Top1,
    )],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paper::experiment::Scale;

    /// Every row can be run at every scale, and says what is there.
    #[test]
    fn rows_are_right() {
        let mut names: Vec<&str> = ALL.iter().map(|e| e.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for group in ALL.iter().flat_map(|e| e.what.groups()) {
            for line in group.lines {
                for scale in [Scale::Smoke, Scale::Laptop, Scale::Paper] {
                    if let Some(options) = group.options(line, scale).unwrap() {
                        decorr::train::TrainConfig::resolve(options).unwrap();
                    }
                }
                assert!(group.options(line, Scale::Paper).unwrap().is_some());
            }
            let is_line = |name: &str| group.lines.iter().any(|line| line.name == name);
            for claim in group.claims {
                assert!(
                    is_line(claim.better) && is_line(claim.worse),
                    "{}: {claim:?}",
                    group.name
                );
                if let Measured::LossAt(step) = claim.by {
                    assert!(group.losses_at.contains(&step), "{}: {claim:?}", group.name);
                }
            }
        }
    }

    /// Table 1 and Table 2 of the paper.
    #[test]
    fn accuracies_are_the_papers() {
        let of = |name: &str| {
            let experiment = ALL.iter().find(|e| e.name == name).unwrap();
            let lines = experiment.what.groups().iter().flat_map(|g| g.lines);
            lines.filter_map(|line| line.paper).collect::<Vec<f64>>()
        };
        let table1 = [
            89.15, 90.23, 91.33, 93.45, 93.65, 94.71, 90.6, 91.7, 94.05, 70.57, 74.31, 74.74, 79.2,
            79.09, 80.27, 77.78, 76.62, 80.43,
        ];
        assert_eq!(of("table1"), table1);
        assert_eq!(
            of("table2"),
            [69.02, 70.38, 71.45, 71.74, 69.76, 69.80, 70.65]
        );
    }
}
