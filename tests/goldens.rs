//! Every stored case against float64 reference values, by kind; an unknown kind fails.
//!
//! `DECORR_GOLDENS=DIR cargo test --release --test goldens` runs those of another folder.
//! tests/goldens/README.md defines the cases and tolerances.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use decorr::autodiff::{gradients, gradients_from};
use decorr::graph::{Graph, Init, Tensor};
use decorr::nn::{
    BatchNorm, ChannelDeconv, DeconvConv2d, DeconvLinear, DeconvOptions, FreezeCounter, Layer,
    Layout, Loss, Mode, Statistics,
};
use decorr::ops::{Conv2dGeometry, CovGrad, Pool2d, Window};
use decorr::optim::{Adam, Optimizer, Schedule, Sgd};
use decorr::program::{Outputs, Program, Store};
use safetensors::{Dtype, SafeTensors};

type Failure = Box<dyn std::error::Error>;

/// One stored case.
struct Case {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Case {
    fn load(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let values = match view.dtype() {
                Dtype::F32 => view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                    .collect(),
                Dtype::I64 => view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                    .map(|v| v as f32)
                    .collect(),
                other => return Err(format!("tensor {name} has type {other:?}").into()),
            };
            tensors.insert(name.to_string(), (view.shape().to_vec(), values));
        }
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self {
            metadata: metadata.into_iter().collect(),
            tensors,
        })
    }

    fn text(&self, key: &str) -> Result<&str, Failure> {
        let value = self.metadata.get(key).map(String::as_str);
        value.ok_or_else(|| format!("metadata lacks {key}").into())
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<T, Failure> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("metadata {key} = {text:?} is no number").into())
    }

    fn flag(&self, key: &str) -> Result<bool, Failure> {
        match self.text(key)? {
            "True" => Ok(true),
            "False" => Ok(false),
            other => Err(format!("metadata {key} = {other:?}").into()),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn shape(&self, name: &str) -> Result<&[usize], Failure> {
        let tensor = self.tensors.get(name);
        tensor
            .map(|t| t.0.as_slice())
            .ok_or_else(|| format!("tensor {name} is missing").into())
    }

    fn values(&self, name: &str) -> Result<&[f32], Failure> {
        let tensor = self.tensors.get(name);
        tensor
            .map(|t| t.1.as_slice())
            .ok_or_else(|| format!("tensor {name} is missing").into())
    }

    fn init(&self, name: &str) -> Result<Init, Failure> {
        Ok(Init::Values(self.values(name)?.to_vec().into()))
    }

    fn input<'g>(&self, g: &'g Graph, name: &str) -> Result<Tensor<'g>, Failure> {
        Ok(g.input(name, self.shape(name)?))
    }

    /// 10 times the error of a plain f32 run, or 1e-5.
    fn tolerance(&self, name: &str) -> f64 {
        let Some(text) = self.metadata.get("f32_rel_err") else {
            return 1e-5;
        };
        let errors: BTreeMap<String, f64> = serde_json::from_str(text).unwrap_or_default();
        (errors.get(name).copied().unwrap_or(0.0) * 10.0).max(1e-5)
    }

    fn layout(&self) -> Result<Layout, Failure> {
        match self.text("layout")? {
            "strided" => Ok(Layout::Strided),
            "contiguous" => Ok(Layout::Contiguous),
            other => Err(format!("unknown layout {other}").into()),
        }
    }
}

/// Compares one tensor; collects what is wrong.
struct Judge<'a> {
    case: &'a Case,
    failures: Vec<String>,
    compared: usize,
    /// The largest error as a share of its tolerance, and the tensor.
    nearest: (f64, String),
}

impl Judge<'_> {
    fn compare(&mut self, name: &str, actual: &[f32]) -> Result<(), Failure> {
        let expected = self.case.values(name)?.to_vec();
        self.compare_values(name, actual, &expected, self.case.tolerance(name))
    }

    fn compare_values(
        &mut self,
        name: &str,
        actual: &[f32],
        expected: &[f32],
        tolerance: f64,
    ) -> Result<(), Failure> {
        if actual.len() != expected.len() {
            let (a, e) = (actual.len(), expected.len());
            self.failures.push(format!("{name}: {a} values, not {e}"));
            return Ok(());
        }
        self.compared += 1;
        let (error, at) = support::relative_error(actual, expected);
        if error / tolerance > self.nearest.0 {
            self.nearest = (error / tolerance, name.to_string());
        }
        if error.is_nan() || error > tolerance {
            self.failures.push(format!(
                "{name}: error {error:.2e} over {tolerance:.2e} at {at}: {} is not {}",
                actual[at], expected[at]
            ));
        }
        Ok(())
    }
}

fn compile(g: &Graph, store: &mut Store) -> Result<Program, Failure> {
    Ok(Program::compile(g, store, support::compile_options())?)
}

fn store() -> Store {
    Store::new(&support::gpu(), 1)
}

fn output(outputs: &Outputs, name: &str) -> Result<Vec<f32>, Failure> {
    let values = outputs.values.get(name).cloned();
    values.ok_or_else(|| format!("no output {name}").into())
}

/// Gradients of sum(y * `y_grad`) with respect to `wrt`, as outputs under the names given.
fn gradient_outputs<'g>(
    case: &Case,
    y: Tensor<'g>,
    wrt: &[(&str, Tensor<'g>)],
) -> Result<(), Failure> {
    let y_grad = case.input(y.graph(), "y_grad")?;
    let tensors: Vec<Tensor> = wrt.iter().map(|(_, tensor)| *tensor).collect();
    let grads = gradients_from(&[(y, y_grad)], &tensors);
    for ((name, _), grad) in wrt.iter().zip(grads) {
        y.graph().output(name, grad);
    }
    Ok(())
}

fn options(case: &Case) -> Result<DeconvOptions, Failure> {
    Ok(DeconvOptions {
        block: case.number("block")?,
        eps: case.number("eps")?,
        n_iter: case.number("n_iter")?,
        momentum: case.number("momentum")?,
        sampling_stride: match case.metadata.contains_key("sampling_stride") {
            true => case.number("sampling_stride")?,
            false => 1,
        },
        layout: case.layout()?,
        freeze: false,
        refresh: 1,
    })
}

fn deconv_conv2d_layer(case: &Case) -> Result<DeconvConv2d, Failure> {
    let (x, w) = (case.shape("x")?, case.shape("weight")?);
    let geometry = Conv2dGeometry {
        stride: case.number("stride")?,
        padding: case.number("padding")?,
        dilation: case.number("dilation")?,
        groups: case.number("groups")?,
    };
    Ok(DeconvConv2d {
        in_channels: x[x.len() - 3],
        out_channels: w[0],
        kernel_size: w[2],
        geometry,
        bias: case.has("bias"),
        options: options(case)?,
    })
}

/// The states that layers take from the case.
fn seed_parameters(g: &Graph, case: &Case) -> Result<(), Failure> {
    for name in ["weight", "bias"] {
        if case.has(name) {
            g.preset(name, case.shape(name)?, case.init(name)?);
        }
    }
    Ok(())
}

fn parameter<'g>(g: &'g Graph, name: &str) -> Option<Tensor<'g>> {
    g.parameters().into_iter().find(|p| p.name() == name)
}

fn parameter_grads<'g>(case: &Case, x: Tensor<'g>) -> Vec<(&'static str, Tensor<'g>)> {
    let mut wrt = vec![("x_grad", x)];
    for (name, grad) in [
        ("weight", "w_grad"),
        ("weight", "weight_grad"),
        ("bias", "b_grad"),
        ("bias", "bias_grad"),
    ] {
        if case.has(grad)
            && let Some(parameter) = parameter(x.graph(), name)
        {
            wrt.push((grad, parameter));
        }
    }
    wrt
}

/// The output of a layer and what else of it is compared.
type Built<'g> = (Tensor<'g>, Vec<(&'static str, Tensor<'g>)>);

fn with_statistics<'g>(y: Tensor<'g>, s: Statistics<'g>) -> Built<'g> {
    let mut outputs = vec![("mean", s.mean), ("deconv", s.deconv)];
    outputs.extend(s.cov.map(|cov| ("cov", cov)));
    (y, outputs)
}

/// Layers with running statistics: first forward with gradients, three training steps, evaluation.
fn layer_with_statistics(
    case: &Case,
    judge: &mut Judge<'_>,
    layer: impl for<'g> Fn(Tensor<'g>, Mode) -> Built<'g>,
    running: &[&str],
) -> Result<(), Failure> {
    // The gradients of the first step, in a store of their own.
    let g = Graph::new();
    seed_parameters(&g, case)?;
    let x = case.input(&g, "x")?;
    let (y, statistics) = layer(x, Mode::Train);
    g.output("output", y);
    for (name, tensor) in statistics {
        if case.has(name) {
            g.output(name, tensor);
        }
    }
    gradient_outputs(case, y, &parameter_grads(case, x))?;
    let inputs = [("x", case.values("x")?), ("y_grad", case.values("y_grad")?)];
    let first = compile(&g, &mut store())?.run(&inputs)?;
    for (name, values) in &first.values {
        judge.compare(name, values)?;
    }
    if !case.has("x_step2") {
        return Ok(());
    }
    // Three steps and an evaluation, sharing a store.
    let mut store = store();
    let g = Graph::new();
    seed_parameters(&g, case)?;
    let (y, _) = layer(case.input(&g, "x")?, Mode::Train);
    g.output("output", y);
    let mut train = compile(&g, &mut store)?;
    for name in ["x", "x_step2", "x_step3"] {
        train.run(&[("x", case.values(name)?)])?;
    }
    for name in running {
        if case.has(name) {
            judge.compare(name, &store.read(name)?)?;
        }
    }
    let g = Graph::new();
    seed_parameters(&g, case)?;
    let (y, _) = layer(case.input(&g, "x")?, Mode::Eval);
    g.output("eval_output", y);
    let eval = compile(&g, &mut store)?.run(&[("x", case.values("x")?)])?;
    judge.compare("eval_output", &output(&eval, "eval_output")?)
}

fn deconv_conv2d(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let layer = deconv_conv2d_layer(case)?;
    layer_with_statistics(
        case,
        judge,
        |x, mode| {
            let (y, statistics) = layer.forward_with_statistics(x, mode);
            with_statistics(y, statistics)
        },
        &["running_mean", "running_deconv"],
    )
}

fn deconv_linear(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let (x, w) = (case.shape("x")?, case.shape("weight")?);
    let layer = DeconvLinear {
        in_features: x[1],
        out_features: w[0],
        bias: case.flag("has_bias")?,
        options: options(case)?,
    };
    layer_with_statistics(
        case,
        judge,
        |x, mode| {
            let (y, statistics) = layer.forward_with_statistics(x, mode);
            with_statistics(y, statistics)
        },
        &["running_mean", "running_deconv"],
    )
}

fn channel_deconv(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let layer = ChannelDeconv {
        channels: case.shape("x")?[1],
        options: options(case)?,
        centered: case.flag("centered")?,
    };
    layer_with_statistics(
        case,
        judge,
        |x, mode| {
            let result = layer.forward_with_statistics(x, mode);
            match result.statistics {
                Some(statistics) => with_statistics(result.output, statistics),
                None => (result.output, vec![]),
            }
        },
        &[
            "running_mean",
            "running_deconv",
            "running_rest_mean",
            "running_rest_var",
        ],
    )
}

fn batch_norm(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let layer = BatchNorm {
        eps: case.number("eps")?,
        momentum: case.number("momentum")?,
        ..BatchNorm::new(case.shape("x")?[1])
    };
    layer_with_statistics(
        case,
        judge,
        |x, mode| (layer.forward(x, mode), vec![]),
        &["running_mean", "running_var"],
    )
}

fn deconv_freeze(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let mut layer = deconv_conv2d_layer(case)?;
    layer.options.freeze = true;
    let counter = FreezeCounter::new(case.number("freeze_iter")?);
    let (x_shape, x) = (case.shape("x")?, case.values("x")?);
    let (steps, one) = (x_shape[0], x_shape[1..].iter().product::<usize>());
    let updated = case.values("stats_updated")?;
    let kept = case.values("kept_steps")?;
    let mut store = store();
    let mut build = |mode| -> Result<Program, Failure> {
        let g = Graph::new();
        seed_parameters(&g, case)?;
        let x = g.input("x", &x_shape[1..]);
        let y = layer.forward(x, mode);
        g.output("output", y);
        gradient_outputs(case, y, &parameter_grads(case, x))?;
        compile(&g, &mut store)
    };
    let mut train = build(Mode::Train)?;
    let mut frozen = build(Mode::TrainFrozen)?;
    let mut k = 0;
    for t in 0..steps {
        let mode = counter.mode(t as u64);
        let updates = f32::from(u8::from(mode == Mode::Train));
        judge.compare_values("stats_updated", &[updates], &updated[t..=t], 0.0)?;
        let program = if mode == Mode::Train {
            &mut train
        } else {
            &mut frozen
        };
        let inputs = [
            ("x", &x[t * one..(t + 1) * one]),
            ("y_grad", case.values("y_grad")?),
        ];
        let outputs = program.run(&inputs)?;
        let row = |name: &str, i: usize| -> Result<Vec<f32>, Failure> {
            let values = case.values(name)?;
            let len = values.len() / case.shape(name)?[0];
            Ok(values[i * len..(i + 1) * len].to_vec())
        };
        let mean = store.read("running_mean")?;
        judge.compare_values("running_mean", &mean, &row("running_mean", t)?, 1e-5)?;
        if kept.get(k) == Some(&(t as f32)) {
            for name in ["output", "x_grad", "w_grad"] {
                let actual = output(&outputs, name)?;
                judge.compare_values(name, &actual, &row(name, k)?, 1e-5)?;
            }
            let deconv = store.read("running_deconv")?;
            judge.compare_values("running_deconv", &deconv, &row("running_deconv", k)?, 1e-5)?;
            k += 1;
        }
    }
    if k != kept.len() {
        judge
            .failures
            .push(format!("{k} of {} kept steps", kept.len()));
    }
    Ok(())
}

fn newton_schulz(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let n: usize = case.number("n")?;
    let text = case.text("f32_rel_err_deconv_and_grad")?;
    let errors: BTreeMap<String, [f64; 2]> = serde_json::from_str(text)?;
    let counts: Vec<&str> = case
        .tensors
        .keys()
        .filter_map(|name| name.strip_prefix("deconv_"))
        .collect();
    // What covariance looks at of the golden, which is the whole gradient.
    let symmetric_part = |values: &[f32]| -> Vec<f32> {
        let mirrored = |i: usize| values[i % n * n + i / n];
        (0..n * n)
            .map(|i| (values[i] + mirrored(i)) / 2.0)
            .collect()
    };
    for count in counts {
        for cov_grad in [CovGrad::Whole, CovGrad::Symmetric] {
            let g = Graph::new();
            let cov = g.input("cov", [1, n, n]);
            let d_grad = g.input("d_grad", [1, n, n]);
            let deconv = cov.newton_schulz(count.parse()?, cov_grad);
            let grads = gradients_from(&[(deconv, d_grad)], &[cov]);
            g.output("deconv", deconv);
            g.output("cov_grad", grads[0]);
            let inputs = [
                ("cov", case.values("cov")?),
                ("d_grad", case.values("d_grad")?),
            ];
            let outputs = support::run(&g, &inputs)?;
            let [deconv_error, grad_error] = errors.get(count).copied().unwrap_or([0.0; 2]);
            for (name, error) in [("deconv", deconv_error), ("cov_grad", grad_error)] {
                let golden = format!("{name}_{count}");
                let mut expected = case.values(&golden)?.to_vec();
                if name == "cov_grad" && cov_grad == CovGrad::Symmetric {
                    expected = symmetric_part(&expected);
                }
                let label = format!("{golden} {cov_grad:?}");
                judge.compare_values(
                    &label,
                    &outputs[name],
                    &expected,
                    (10.0 * error).max(1e-5),
                )?;
            }
        }
    }
    Ok(())
}

fn im2col(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let g = Graph::new();
    let x = case.input(&g, "x")?;
    let window = Window {
        kernel_size: [case.number("kernel")?; 2],
        stride: case.number("stride")?,
        padding: case.number("padding")?,
        dilation: case.number("dilation")?,
    };
    g.output("columns", x.im2col(window));
    let outputs = support::run(&g, &[("x", case.values("x")?)])?;
    judge.compare_values("columns", &outputs["columns"], case.values("columns")?, 0.0)
}

fn conv2d(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let g = Graph::new();
    seed_parameters(&g, case)?;
    let x = case.input(&g, "x")?;
    let weight = parameter(&g, "weight").ok_or("tensor weight is missing")?;
    let geometry = Conv2dGeometry {
        stride: case.number("stride")?,
        padding: case.number("padding")?,
        dilation: case.number("dilation")?,
        groups: case.number("groups")?,
    };
    let y = x.conv2d(weight, parameter(&g, "bias"), geometry);
    g.output("output", y);
    gradient_outputs(case, y, &parameter_grads(case, x))?;
    compare_all(case, judge, &g)
}

/// Runs `g` on the case's `x` and `y_grad` and compares every output.
fn compare_all(case: &Case, judge: &mut Judge<'_>, g: &Graph) -> Result<(), Failure> {
    let inputs = [("x", case.values("x")?), ("y_grad", case.values("y_grad")?)];
    for (name, values) in support::run(g, &inputs)? {
        judge.compare(&name, &values)?;
    }
    Ok(())
}

fn pool(case: &Case, judge: &mut Judge<'_>, kind: &str) -> Result<(), Failure> {
    let g = Graph::new();
    let x = case.input(&g, "x")?;
    let pool = Pool2d {
        kernel_size: case.number("kernel")?,
        stride: case.number("stride")?,
        padding: case.number("padding")?,
    };
    let pooled = match kind {
        "max_pool2d" => x.max_pool2d(pool),
        "avg_pool2d" => x.avg_pool2d(pool),
        _ => x.global_avg_pool(),
    };
    let y = pooled.reshape(case.shape("y_grad")?);
    g.output("output", y);
    gradient_outputs(case, y, &[("x_grad", x)])?;
    compare_all(case, judge, &g)
}

fn activations(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    type Unary = for<'g> fn(Tensor<'g>) -> Tensor<'g>;
    let table: [(&str, Unary); 2] = [("relu", |x| x.relu()), ("sigmoid", |x| x.sigmoid())];
    for (name, op) in table {
        let g = Graph::new();
        let x = case.input(&g, "x")?;
        let y = op(x);
        g.output(name, y);
        gradient_outputs(case, y, &[(&format!("{name}_grad"), x)])?;
        compare_all(case, judge, &g)?;
    }
    Ok(())
}

fn losses(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let (rows, classes) = (case.shape("logits")?[0], case.shape("logits")?[1]);
    let smoothing: f32 = case.number("label_smoothing")?;
    let smooth_name = format!("ce_smooth_{smoothing}");
    let ce = |smoothing| Loss::CrossEntropy { smoothing };
    let wanted: [(&str, Loss, f32); 6] = [
        ("ce", ce(0.0), 1.0),
        (&smooth_name, ce(smoothing), 1.0),
        ("bce_sum_classes_mean_batch", Loss::Logistic, 1.0),
        ("bce_mean_all", Loss::Logistic, 1.0 / classes as f32),
        (
            "l2_half_sum_classes_mean_batch",
            Loss::HalfSquaredError,
            1.0,
        ),
        ("mse_mean_all", Loss::HalfSquaredError, 2.0 / classes as f32),
    ];
    for (name, loss, factor) in wanted {
        let g = Graph::new();
        let logits = g.input("logits", [rows, classes]);
        let labels = g.input("labels", [rows]);
        let mean = loss.per_row(logits, labels).mean_to([1]) * factor;
        let grads = gradients(mean, &[logits]);
        g.output(name, mean);
        g.output(&format!("{name}_grad"), grads[0]);
        let inputs = [
            ("logits", case.values("logits")?),
            ("labels", case.values("labels")?),
        ];
        for (name, values) in support::run(&g, &inputs)? {
            judge.compare(&name, &values)?;
        }
    }
    Ok(())
}

fn optimizers(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let (lr, momentum): (f32, f32) = (case.number("lr")?, case.number("momentum")?);
    let weight_decay: f32 = case.number("weight_decay")?;
    let adam_lr: f32 = case.number("adam_lr")?;
    let betas: Vec<f32> = case
        .text("adam_betas")?
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let sgd = |momentum, weight_decay, nesterov| {
        Optimizer::from(Sgd {
            momentum,
            weight_decay,
            nesterov,
        })
    };
    let adam = |weight_decay, decoupled| {
        let eps = case.number("adam_eps")?;
        Ok::<_, Failure>(Optimizer::from(Adam {
            betas: [betas[0], betas[1]],
            eps,
            weight_decay,
            decoupled,
        }))
    };
    let wanted = [
        ("sgd", sgd(0.0, 0.0, false), lr),
        ("sgd_mom", sgd(momentum, 0.0, false), lr),
        ("sgd_mom_wd", sgd(momentum, weight_decay, false), lr),
        ("sgd_nesterov_wd", sgd(momentum, weight_decay, true), lr),
        ("adam", adam(0.0, false)?, adam_lr),
        ("adam_l2", adam(weight_decay, false)?, adam_lr),
        ("adamw", adam(weight_decay, true)?, adam_lr),
    ];
    let len = case.shape("w0")?[0];
    let grads = case.values("grads")?;
    for (name, optimizer, lr) in wanted {
        let g = Graph::new();
        let w = g.parameter("w", [len], case.init("w0")?);
        let (grad, lr_input) = (g.input("grad", [len]), g.input("lr", [1]));
        optimizer.update(&[w], &[grad], lr_input);
        let mut store = store();
        let mut program = compile(&g, &mut store)?;
        for (step, expected) in case.values(name)?.chunks(len).enumerate() {
            let grad = &grads[step * len..(step + 1) * len];
            program.run(&[("grad", grad), ("lr", &[lr])])?;
            let actual = store.read("w")?;
            judge.compare_values(name, &actual, expected, 1e-5)?;
        }
    }
    Ok(())
}

fn cosine(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let schedule = Schedule::Cosine {
        t_max: case.number("t_max")?,
        eta_min: case.number("eta_min")?,
    };
    let base_lr: f32 = case.number("base_lr")?;
    let len = case.shape("lr")?[0] as u64;
    let lr: Vec<f32> = (0..len).map(|t| schedule.lr(base_lr, t)).collect();
    judge.compare("lr", &lr)
}

fn tiny_deconv_net(case: &Case, judge: &mut Judge<'_>) -> Result<(), Failure> {
    let net = TinyNet {
        options: DeconvOptions {
            eps: case.number("eps")?,
            n_iter: case.number("n_iter")?,
            momentum: case.number("momentum_stats")?,
            layout: case.layout()?,
            ..DeconvOptions::default()
        },
    };
    let mut store = store();
    let batch = case.shape("x")?[1];
    let g = Graph::new();
    let logits = net.build(&g, case, Mode::Train)?;
    let (labels, lr) = (g.input("labels", [batch]), g.input("lr", [1]));
    let loss = Loss::CrossEntropy { smoothing: 0.0 }
        .per_row(logits, labels)
        .mean_to([1]);
    let parameters = g.parameters();
    let grads = gradients(loss, &parameters);
    g.output("loss", loss);
    g.output("logits", logits);
    for (p, &grad) in parameters.iter().zip(&grads) {
        g.output(&p.name(), grad);
    }
    let optimizer = Optimizer::from(Sgd {
        momentum: case.number("sgd_momentum")?,
        weight_decay: case.number("weight_decay")?,
        nesterov: false,
    });
    optimizer.update(&parameters, &grads, lr);
    let mut train = compile(&g, &mut store)?;
    let steps: usize = case.number("steps")?;
    let image = case.values("x")?.len() / steps;
    let (mut losses, mut all_logits) = (vec![], vec![]);
    let short = |name: &str| name.replace(".weight", "_w").replace(".bias", "_b");
    for t in 0..steps {
        let outputs = train.run(&[
            ("x", &case.values("x")?[t * image..(t + 1) * image]),
            (
                "labels",
                &case.values("labels")?[t * batch..(t + 1) * batch],
            ),
            ("lr", &[case.number("lr")?]),
        ])?;
        losses.push(outputs.scalar("loss").unwrap());
        all_logits.extend(output(&outputs, "logits")?);
        if t == 0 {
            for p in &parameters {
                let name = p.name();
                let key = format!("{}_grad_step1", short(&name));
                judge.compare(&key, &output(&outputs, &name)?)?;
            }
        }
    }
    judge.compare("losses", &losses)?;
    judge.compare("logits", &all_logits)?;
    for p in &parameters {
        let name = p.name();
        judge.compare(&format!("{}_final", short(&name)), &store.read(&name)?)?;
    }
    for (i, scope) in ["conv1", "conv2", "fc"].iter().enumerate() {
        for state in ["running_mean", "running_deconv"] {
            let values = store.read(&format!("{scope}.{state}"))?;
            judge.compare(&format!("{state}_{}", i + 1), &values)?;
        }
    }
    let g = Graph::new();
    g.output("eval_logits", net.build(&g, case, Mode::Eval)?);
    let eval = compile(&g, &mut store)?.run(&[("x", &case.values("x")?[..image])])?;
    judge.compare("eval_logits", &output(&eval, "eval_logits")?)
}

/// The network of `tiny_deconv_net`, as the case's metadata describes it.
struct TinyNet {
    options: DeconvOptions,
}

impl TinyNet {
    /// The logits, of the case's parameters.
    fn build<'g>(&self, g: &'g Graph, case: &Case, mode: Mode) -> Result<Tensor<'g>, Failure> {
        for scope in ["conv1", "conv2", "fc"] {
            for (s, long) in [("w", "weight"), ("b", "bias")] {
                let name = format!("{scope}_{s}");
                let init = case.init(&name)?;
                g.preset(&format!("{scope}.{long}"), case.shape(&name)?, init);
            }
        }
        let x = g.input("x", &case.shape("x")?[1..]);
        Ok(self.forward(x, mode, case.shape("fc_b")?[0]))
    }

    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode, classes: usize) -> Tensor<'g> {
        let g = x.graph();
        let conv = |inputs, outputs, block, sampling_stride| {
            let options = self.options.block(block).sampling_stride(sampling_stride);
            let layer = DeconvConv2d::new(inputs, outputs, 3);
            layer.padding(1).options(options)
        };
        let options = self.options.block(512);
        let h = g.scope("conv1", || conv(3, 8, 64, 2).forward(x, mode));
        let h = h.relu().max_pool2d(Pool2d::new(2));
        let h = g.scope("conv2", || conv(8, 12, 4, 1).forward(h, mode));
        let h = h.relu().global_avg_pool();
        let h = h.reshape([h.size(0), 12]);
        let fc = DeconvLinear::new(12, classes).options(options);
        g.scope("fc", || fc.forward(h, mode))
    }
}

/// How many tensors were compared, and which came nearest to its tolerance.
fn judge(path: &Path) -> Result<(usize, (f64, String)), String> {
    let case = Case::load(path).map_err(|e| e.to_string())?;
    let mut judge = Judge {
        case: &case,
        failures: Vec::new(),
        compared: 0,
        nearest: (0.0, String::new()),
    };
    let kind = case.text("op").map_err(|e| e.to_string())?;
    let done = match kind {
        "deconv_conv2d" => deconv_conv2d(&case, &mut judge),
        "deconv_conv2d_freeze" => deconv_freeze(&case, &mut judge),
        "deconv_linear" => deconv_linear(&case, &mut judge),
        "channel_deconv" => channel_deconv(&case, &mut judge),
        "newton_schulz" => newton_schulz(&case, &mut judge),
        "im2col" => im2col(&case, &mut judge),
        "tiny_deconv_net" => tiny_deconv_net(&case, &mut judge),
        "conv2d" => conv2d(&case, &mut judge),
        "batch_norm" => batch_norm(&case, &mut judge),
        "max_pool2d" | "avg_pool2d" | "global_avg_pool" => pool(&case, &mut judge, kind),
        "losses" => losses(&case, &mut judge),
        "activations" => activations(&case, &mut judge),
        "optimizers" => optimizers(&case, &mut judge),
        "cosine_annealing" => cosine(&case, &mut judge),
        other => Err(format!("unknown kind of case: {other}").into()),
    };
    if let Err(error) = done {
        judge.failures.push(error.to_string());
    }
    if judge.compared == 0 {
        judge.failures.push("nothing was compared".into());
    }
    match judge.failures.is_empty() {
        true => Ok((judge.compared, judge.nearest)),
        false => Err(judge.failures.join("\n    ")),
    }
}

#[test]
fn goldens() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let dir = std::env::var_os("DECORR_GOLDENS").map_or(default, PathBuf::from);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    paths.sort();
    let (mut compared, mut failed) = (0, 0);
    let mut nearest = (0.0, String::new());
    // Two at a time: most of a case is compiling, on one core.
    let next = AtomicUsize::new(0);
    let (next, paths) = (&next, &paths);
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = move || {
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = paths.get(i) else {
                    return done;
                };
                done.push((i, judge(path)));
            }
        };
        let threads = [(); 2].map(|()| scope.spawn(work));
        let mut all: Vec<_> = threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect();
        all.sort_by_key(|(i, _)| *i);
        all
    });
    for (i, result) in results {
        let name = paths[i].file_stem().unwrap_or_default().to_string_lossy();
        match result {
            Ok((count, (share, tensor))) => {
                compared += count;
                if share > nearest.0 {
                    nearest = (share, format!("{name} {tensor}"));
                }
            }
            Err(message) => {
                failed += 1;
                println!("FAILED {name}\n    {message}");
            }
        }
    }
    support::report(&format!(
        "{} of {} cases passed, {compared} tensors compared; nearest to its tolerance: {} with {:.2} of it",
        paths.len() - failed,
        paths.len(),
        nearest.1,
        nearest.0
    ));
    assert!(!paths.is_empty(), "no case in {}", dir.display());
    assert_eq!(failed, 0, "failed cases");
}
