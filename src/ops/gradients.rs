//! How each op is tested: against its float64 reference, values and gradients, the latter by central differences of the
//! reference. The cases stand beside the ops, in `src/ops/NAME.rs`. Their sizes are no multiples of any tile; limits are
//! WebGPU's defaults.

#[path = "../../tests/support/mod.rs"]
pub(super) mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
pub(super) use support::reference;
pub(super) use support::reference::Geometry;

use crate::autodiff::gradients_from;
use crate::graph::op::Variants;
use crate::graph::tiles::{Tile, Tiles};
use crate::graph::{Graph, Init, Kind, Role, Tensor};
use crate::ops::Window;
use crate::passes::Passes;
use crate::program::CompileOptions;

type Build = Box<dyn for<'g> Fn(&[Tensor<'g>]) -> Tensor<'g>>;
type Reference = Box<dyn Fn(&[reference::Tensor]) -> reference::Tensor>;

/// One op at one size.
pub(super) struct Case {
    name: String,
    shapes: Vec<Vec<usize>>,
    /// Values are drawn from this range.
    range: [f64; 2],
    /// Of the largest value of a tensor.
    tolerance: f64,
    /// False for ops that have no gradient.
    differentiable: bool,
    build: Build,
    reference: Reference,
}

pub(super) fn case(
    name: &str,
    shapes: &[&[usize]],
    build: impl for<'g> Fn(&[Tensor<'g>]) -> Tensor<'g> + 'static,
    reference: impl Fn(&[reference::Tensor]) -> reference::Tensor + 'static,
) -> Case {
    Case {
        name: name.to_string(),
        shapes: shapes.iter().map(|s| s.to_vec()).collect(),
        range: [-1.0, 1.0],
        // f32 has 6e-8; sums of hundreds of terms lose a digit or two.
        tolerance: 1e-5,
        differentiable: true,
        build: Box::new(build),
        reference: Box::new(reference),
    }
}

impl Case {
    pub(super) fn range(mut self, low: f64, high: f64) -> Self {
        self.range = [low, high];
        self
    }

    pub(super) fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    pub(super) fn not_differentiable(mut self) -> Self {
        self.differentiable = false;
        self
    }
}

pub(super) fn geometry(stride: usize, padding: usize, dilation: usize, groups: usize) -> Geometry {
    Geometry {
        stride,
        padding,
        dilation,
        groups,
    }
}

/// Windows of 3 x 2 pixels: dense, and with strides, padding and dilation.
pub(super) fn windows() -> [(Geometry, Window); 3] {
    [(1, 1, 1), (2, 2, 2), (1, 2, 2)].map(|(stride, padding, dilation)| {
        let window = Window {
            kernel_size: [3, 2],
            stride,
            padding,
            dilation,
        };
        (geometry(stride, padding, dilation, 1), window)
    })
}

/// Labels of seven rows; those below 0 fill up a batch.
pub(super) const LABELS: [f64; 7] = [0.0, 2.0, -1.0, 4.0, 3.0, -1.5, -5.0];

/// [`LABELS`] as a tensor.
pub(super) fn labels(g: &Graph) -> Tensor<'_> {
    let values: Vec<f32> = LABELS.iter().map(|&v| v as f32).collect();
    g.state("labels", [7], Role::Statistic, Init::Values(values.into()))
}

/// The cases of `src/ops/FILE.rs` with direct kernels, and with the adapter's own kernels and no passes. Every op of the
/// file must be in one.
pub(super) fn check(file: &str, cases: &[Case]) {
    let mut seen = BTreeSet::new();
    for case in cases {
        seen.extend(check_case(case, with(Variants::Direct)));
        let options = CompileOptions {
            passes: Passes::NONE,
            ..CompileOptions::default()
        };
        check_case(case, options);
    }
    let (source, count) = (source_of(file), cases.len());
    let names = names_in(&source);
    let without: Vec<_> = names.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(
        without.is_empty(),
        "src/ops/{file}.rs: no case has {without:?}"
    );
    support::report(&format!(
        "{file}, {} ops: {count} cases with direct kernels, {count} with the adapter's own and no passes",
        names.len()
    ));
}

/// The cases of a file with the kernels that `DECORR_KERNELS` names, or those of the smallest tile: a software adapter
/// takes minutes to compile larger ones for every size.
pub(super) fn check_tiled(file: &str, cases: &[Case]) {
    let smallest = Tile::ALL[Tile::ALL.len() - 1];
    let named = support::compile_options().variants;
    let variants = named.unwrap_or(Variants::Tiled(Tiles::all(smallest)));
    for case in cases {
        check_case(case, with(variants));
    }
    support::report(&format!(
        "{file}: {} cases with {variants} kernels",
        cases.len()
    ));
}

fn with(variants: Variants) -> CompileOptions {
    CompileOptions {
        variants: Some(variants),
        ..CompileOptions::default()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/ops")
}

fn source_of(file: &str) -> String {
    let path = folder().join(format!("{file}.rs"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What `Op::name` may say: the strings in every `fn name` of a file.
fn names_in(source: &str) -> BTreeSet<&str> {
    let functions = source.split("fn name(&self)").skip(1);
    let bodies = functions.filter_map(|rest| rest.split("\n    }\n").next());
    bodies
        .flat_map(|body| body.split('"').skip(1).step_by(2))
        .collect()
}

/// A file that is no module is never compiled, and its test never run.
#[test]
fn every_op_file_is_a_module_and_checks_its_cases() {
    let modules = source_of("mod");
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() || stem == "gradients" {
            continue;
        }
        let source = source_of(&stem);
        if source.contains("impl Op for") {
            files += 1;
            let module = format!("\nmod {stem};\n");
            assert!(modules.contains(&module), "mod.rs lacks mod {stem};");
            let check = format!("        check(\"{stem}\", &cases");
            assert!(source.contains(&check), "{stem}.rs checks no cases");
            assert!(!names_in(&source).is_empty(), "{stem}.rs names no op");
        }
    }
    support::report(&format!("{files} files with ops"));
}

/// Runs one case under `options`; returns the ops that its graph holds.
fn check_case(case: &Case, options: CompileOptions) -> BTreeSet<&'static str> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut draw = |shape: &[usize], [low, high]: [f64; 2]| {
        // As f32 knows it, so that both sides start from the same numbers.
        reference::Tensor::from_fn(shape, |_| {
            f64::from((low + (high - low) * rng.random::<f64>()) as f32)
        })
    };
    let inputs: Vec<reference::Tensor> = case.shapes.iter().map(|s| draw(s, case.range)).collect();
    let expected = (case.reference)(&inputs);
    let weights = draw(&expected.shape, [-1.0, 1.0]);

    let g = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(&inputs)
        .map(|(name, tensor)| g.input(name, tensor.shape.clone()))
        .collect();
    let y = (case.build)(&tensors);
    g.check().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(y.shape().dims(), expected.shape, "{}: shape", case.name);
    g.output("y", y);
    if case.differentiable {
        let seed = g.input("y_grad", expected.shape.clone());
        let grads = gradients_from(&[(y, seed)], &tensors);
        for (name, grad) in names.iter().zip(grads) {
            g.output(&format!("{name}_grad"), grad);
        }
    }
    let to_f32 = |t: &reference::Tensor| t.data.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let mut values: Vec<(String, Vec<f32>)> = names
        .iter()
        .cloned()
        .zip(inputs.iter().map(to_f32))
        .collect();
    if case.differentiable {
        values.push(("y_grad".into(), to_f32(&weights)));
    }
    let given: Vec<(&str, &[f32])> = values
        .iter()
        .map(|(name, v)| (name.as_str(), v.as_slice()))
        .collect();
    let outputs =
        support::run_with(&g, &given, options).unwrap_or_else(|e| panic!("{}: {e}", case.name));

    compare(case, "y", &outputs["y"], &to_f32(&expected));
    if case.differentiable {
        for (i, name) in names.iter().enumerate() {
            let name = format!("{name}_grad");
            check_gradient(case, &name, &outputs[&name], &inputs, &weights, i);
        }
    }
    let list = g.list();
    let ops = list.nodes().iter().filter_map(|node| match &node.kind {
        Kind::Op(op) => Some(op.name()),
        _ => None,
    });
    ops.collect()
}

fn compare(case: &Case, what: &str, actual: &[f32], expected: &[f32]) {
    let (error, at) = support::relative_error(actual, expected);
    assert!(
        error <= case.tolerance,
        "{}: {what}[{at}] is {}, not {}: error {error:.1e} over {:.1e}",
        case.name,
        actual[at],
        expected[at],
        case.tolerance
    );
}

/// Compares d(sum of weights * reference)/d(input i) by central differences, at a sample of the
/// elements, spread evenly and with both ends.
fn check_gradient(
    case: &Case,
    what: &str,
    actual: &[f32],
    inputs: &[reference::Tensor],
    weights: &reference::Tensor,
    i: usize,
) {
    const STEP: f64 = 1e-6;
    const SAMPLE: usize = 23;
    let mut inputs = inputs.to_vec();
    let len = inputs[i].data.len();
    assert_eq!(actual.len(), len, "{}: {what}", case.name);
    let largest = actual.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
    let objective = |inputs: &[reference::Tensor]| {
        let y = (case.reference)(inputs);
        let products = y.data.iter().zip(&weights.data);
        products.map(|(a, b)| a * b).sum::<f64>()
    };
    for j in 0..SAMPLE.min(len) {
        let k = j * (len - 1) / (SAMPLE.min(len) - 1).max(1);
        let value = inputs[i].data[k];
        inputs[i].data[k] = value + STEP;
        let above = objective(&inputs);
        inputs[i].data[k] = value - STEP;
        let below = objective(&inputs);
        inputs[i].data[k] = value;
        let expected = (above - below) / (2.0 * STEP);
        let error = (f64::from(actual[k]) - expected).abs() / largest.max(1e-3);
        assert!(
            error <= case.tolerance,
            "{}: {what}[{k}] is {}, not {expected}: error {error:.1e} over {:.1e}",
            case.name,
            actual[k],
            case.tolerance
        );
    }
}
