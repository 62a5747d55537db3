//! `decorr profile`: when each kernel of a step ran, as a trace for Perfetto or Chrome.
//!
//! The format is Chrome's "Trace Event Format": a JSON object with complete events ("ph": "X") in
//! microseconds, and metadata ("ph": "M") with the names of tracks. A process stands for a phase of the step,
//! a thread in it for a layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::runner::Runner;
use super::workloads::{self, STREAM, stream};
use crate::Result;
use crate::autodiff::GRAD_SCOPE;
use crate::graph::{Graph, NodeList};
use crate::optim::UPDATE_SCOPE;
use crate::program::{CompileOptions, KernelTime, Program, Store};

/// Steps that are traced after one that warms up; the fastest one is kept.
const STEPS: usize = 5;

/// Rounds in which peak and memory stream are measured.
const ROUNDS: usize = 3;

/// What the adapter reaches, measured beside the step.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Multiply-adds in registers, in operations a second.
    pub flops_per_s: f64,
    /// Memory read and written, in bytes a second.
    pub bytes_per_s: f64,
}

/// The kernels of one step.
#[derive(Clone, Debug)]
pub struct StepTrace {
    /// Adapter, backend and driver.
    pub adapter: String,
    /// In the order of running.
    pub kernels: Vec<KernelTime>,
    /// Names of the layers, as far as they have states, in the order of the graph.
    pub layers: Vec<String>,
    /// What the adapter reaches.
    pub peaks: Peaks,
}

/// Part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Forward,
    Backward,
    Update,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Update];

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// What the kernels of an op took together.
#[derive(Clone, Debug, PartialEq)]
pub struct OpTimes {
    /// Name of the op.
    pub op: String,
    /// Number of kernels.
    pub count: usize,
    /// Seconds.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the kernels of a layer took in each phase.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTimes {
    /// Name of the layer, or what stands between layers.
    pub layer: String,
    /// Seconds forward, backward and in the update.
    pub seconds: [f64; 3],
}

/// Compiles a step for the device and with the kernels of `store`, runs it with timestamps, and measures what
/// the adapter reaches. `progress` is told what is going on.
///
/// # Errors
/// [`crate::Error::Adapter`] if the adapter has no timestamps; what compiling and running report.
pub fn trace_step(
    store: &mut Store,
    graph: &Graph,
    inputs: &[(&str, &[f32])],
    progress: impl Fn(&str),
) -> Result<StepTrace> {
    let gpu = &Arc::clone(store.gpu());
    gpu.need_timestamps()?;
    progress("compiling the step");
    let mut program = Program::compile(graph, store, CompileOptions::default())?;
    progress("running it with timestamps");
    program.profile(inputs)?;
    let mut kernels = program.profile(inputs)?;
    for _ in 1..STEPS {
        let other = program.profile(inputs)?;
        if span(&other) < span(&kernels) {
            kernels = other;
        }
    }
    progress("measuring what the adapter reaches");
    let mut runner = Runner::new(gpu, None, &|_| {});
    runner.add(workloads::peak())?;
    runner.add(stream())?;
    for round in 1..=ROUNDS {
        runner.round(&format!("round {round}"))?;
    }
    let report = runner.report();
    let of = |name: &str, rate: fn(&super::Measurement) -> f64| {
        report.measurement(name).map_or(f64::NAN, |f| 1e9 * rate(f))
    };
    Ok(StepTrace {
        adapter: report.adapter.clone(),
        kernels,
        layers: layers(&graph.list()),
        peaks: Peaks {
            flops_per_s: of(workloads::PEAK, |f| f.gflops),
            bytes_per_s: of(STREAM, |f| f.gb_per_s),
        },
    })
}

/// Seconds from the begin of the first kernel to the end of the last.
fn span(kernels: &[KernelTime]) -> f64 {
    kernels
        .iter()
        .map(|k| k.start + k.seconds)
        .fold(0.0, f64::max)
}

/// Scopes of the graph's states, in order: what has a weight or a running statistic is a layer.
fn layers(graph: &NodeList) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut states: Vec<_> = graph.states().values().copied().collect();
    states.sort();
    for state in states {
        // Parameters and running statistics only: the optimiser's states are within their parameters' names.
        if let Some((layer, _)) = graph.node(state).name.rsplit_once('.')
            && !graph.states().contains_key(layer)
            && !all.iter().any(|known| known == layer)
        {
            all.push(layer.into());
        }
    }
    all
}

/// Phase and layer of a tensor by its name, and what is left of the name.
fn place<'a>(tensor: &'a str, layers: &'a [String]) -> (Phase, Option<usize>, &'a str) {
    let in_scope = |scope: &str| tensor.strip_prefix(scope)?.strip_prefix('.');
    let (phase, name) = match (in_scope(GRAD_SCOPE), in_scope(UPDATE_SCOPE)) {
        (Some(name), _) => (Phase::Backward, name),
        (_, Some(name)) => (Phase::Update, name),
        _ => (Phase::Forward, tensor),
    };
    let rest = |layer: &str| name.strip_prefix(layer)?.strip_prefix('.');
    let found = (0..layers.len()).filter(|&i| rest(&layers[i]).is_some());
    // Of a layer within a layer, the inner one.
    match found.max_by_key(|&i| layers[i].len()) {
        Some(i) => (phase, Some(i), rest(&layers[i]).unwrap_or(name)),
        None => (phase, None, name),
    }
}

/// What belongs to no layer with states: activations, pooling, the loss.
const NO_LAYER: &str = "between layers";

/// Times summed by op, the longest first.
pub fn times_by_op(kernels: &[KernelTime]) -> Vec<OpTimes> {
    let mut ops: Vec<OpTimes> = Vec::new();
    for kernel in kernels {
        let at = ops.iter().position(|o| o.op == kernel.op);
        let at = at.unwrap_or_else(|| {
            ops.push(OpTimes {
                op: kernel.op.into(),
                count: 0,
                seconds: 0.0,
                flops: 0,
                bytes: 0,
            });
            ops.len() - 1
        });
        let op = &mut ops[at];
        op.count += 1;
        op.seconds += kernel.seconds;
        op.flops += kernel.flops;
        op.bytes += kernel.bytes;
    }
    ops.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    ops
}

impl StepTrace {
    /// Seconds from the begin of the first kernel to the end of the last.
    pub fn seconds(&self) -> f64 {
        span(&self.kernels)
    }

    fn layer_name(&self, layer: Option<usize>) -> &str {
        layer.map_or(NO_LAYER, |i| self.layers[i].as_str())
    }

    /// Times summed by layer, the longest first.
    pub fn times_by_layer(&self) -> Vec<LayerTimes> {
        let mut sums: BTreeMap<Option<usize>, [f64; 3]> = BTreeMap::new();
        for kernel in &self.kernels {
            let (phase, layer, _) = place(kernel.names().0, &self.layers);
            sums.entry(layer).or_default()[phase as usize] += kernel.seconds;
        }
        let mut all: Vec<LayerTimes> = sums
            .into_iter()
            .map(|(layer, seconds)| LayerTimes {
                layer: self.layer_name(layer).into(),
                seconds,
            })
            .collect();
        let sum = |times: &LayerTimes| times.seconds.iter().sum::<f64>();
        all.sort_by(|a, b| sum(b).total_cmp(&sum(a)));
        all
    }

    /// The trace. `about`: what was run, for the file's own description.
    ///
    /// Each kernel is an event on the track of its phase and layer. Its arguments: `op`, `layer`, `phase`,
    /// `tensor`, `kernel`, `shape`, `microseconds`, `flops`, `bytes`, and with a time above 0 `gflops`,
    /// `gb_per_s`, `share_of_peak`, `share_of_stream` (of the adapter's multiply-adds and of its memory
    /// stream) and `bound`, which of the two shares is larger.
    pub fn to_json(&self, about: &[(&str, String)]) -> Value {
        let mut events = Vec::new();
        // Where the last event of each track ends.
        let mut tracks: BTreeMap<(Phase, Option<usize>), u64> = BTreeMap::new();
        for kernel in &self.kernels {
            let (tensor, _) = kernel.names();
            let (phase, layer, name) = place(tensor, &self.layers);
            let end = tracks.entry((phase, layer)).or_insert(0);
            // A GPU may begin a kernel before the one before it has ended. Viewers know no overlap on a
            // track, so such an event is drawn from there on; `microseconds` is all of its time.
            let from = nanos(kernel.start).max(*end);
            let to = nanos(kernel.start + kernel.seconds).max(from);
            *end = to;
            events.push(json!({
                "ph": "X",
                "name": name,
                "cat": format!("{},{}", phase.name(), kernel.op),
                "pid": process(phase),
                "tid": self.thread(phase, layer),
                "ts": from as f64 / 1e3,
                "dur": (to - from) as f64 / 1e3,
                "args": self.arguments(kernel),
            }));
        }
        let mut metadata = Vec::new();
        let mut name = |what: &str, phase: Phase, tid: usize, args: Value| {
            metadata.push(json!({
                "ph": "M", "name": what, "pid": process(phase), "tid": tid, "args": args,
            }));
        };
        for phase in Phase::ALL {
            let index = json!({ "sort_index": process(phase) });
            name("process_name", phase, 0, json!({ "name": phase.name() }));
            name("process_sort_index", phase, 0, index);
        }
        for &(phase, layer) in tracks.keys() {
            let tid = self.thread(phase, layer);
            let title = json!({ "name": self.layer_name(layer) });
            name("thread_name", phase, tid, title);
            name(
                "thread_sort_index",
                phase,
                tid,
                json!({ "sort_index": tid }),
            );
        }
        metadata.extend(events);
        let mut about: BTreeMap<&str, Value> = about
            .iter()
            .map(|(key, value)| (*key, json!(value)))
            .collect();
        about.insert("adapter", json!(self.adapter));
        about.insert("decorr", json!(env!("CARGO_PKG_VERSION")));
        about.insert("peak_gflops", json!(self.peaks.flops_per_s / 1e9));
        about.insert("stream_gb_per_s", json!(self.peaks.bytes_per_s / 1e9));
        json!({ "traceEvents": metadata, "displayTimeUnit": "ms", "otherData": about })
    }

    /// Number of the track of a layer: viewers want numbers that no other process has.
    fn thread(&self, phase: Phase, layer: Option<usize>) -> usize {
        let in_phase = layer.unwrap_or(self.layers.len());
        1 + phase as usize * (self.layers.len() + 1) + in_phase
    }

    fn arguments(&self, kernel: &KernelTime) -> Value {
        let (tensor, kernel_name) = kernel.names();
        let (phase, layer, _) = place(tensor, &self.layers);
        let mut arguments = json!({
            "op": kernel.op,
            "layer": self.layer_name(layer),
            "phase": phase.name(),
            "tensor": tensor,
            "kernel": format!("{kernel_name} {}", kernel.entry),
            "shape": kernel.shape,
            "microseconds": 1e6 * kernel.seconds,
            "flops": kernel.flops,
            "bytes": kernel.bytes,
        });
        if kernel.seconds > 0.0 {
            let flops_per_s = kernel.flops as f64 / kernel.seconds;
            let bytes_per_s = kernel.bytes as f64 / kernel.seconds;
            let of_peak = flops_per_s / self.peaks.flops_per_s;
            let of_stream = bytes_per_s / self.peaks.bytes_per_s;
            let bound = if of_peak > of_stream {
                "operations"
            } else {
                "bytes"
            };
            arguments["gflops"] = json!(flops_per_s / 1e9);
            arguments["gb_per_s"] = json!(bytes_per_s / 1e9);
            arguments["share_of_peak"] = json!(of_peak);
            arguments["share_of_stream"] = json!(of_stream);
            arguments["bound"] = json!(bound);
        }
        arguments
    }
}

fn process(phase: Phase) -> usize {
    1 + phase as usize
}

/// Whole nanoseconds: the end of an event and the begin of the next are the same number.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Init, Role};

    fn kernel(tensor: &str, start: f64, seconds: f64) -> KernelTime {
        KernelTime {
            label: format!("{tensor} (contraction)"),
            op: "matmul",
            entry: "tiled",
            shape: "[2, 3]".into(),
            start,
            seconds,
            flops: 2_000_000,
            bytes: 1_000,
        }
    }

    fn trace(kernels: Vec<KernelTime>) -> StepTrace {
        StepTrace {
            adapter: "A".into(),
            kernels,
            layers: ["conv1", "block", "block.conv2"].map(String::from).to_vec(),
            peaks: Peaks {
                flops_per_s: 1e10,
                bytes_per_s: 1e9,
            },
        }
    }

    #[test]
    fn phase_and_layer_are_read_from_the_name() {
        let layers = trace(vec![]).layers;
        for (tensor, wanted) in [
            ("conv1.cov", (Phase::Forward, Some(0), "cov")),
            (
                "grad.conv1.newton_schulz.matmul",
                (Phase::Backward, Some(0), "newton_schulz.matmul"),
            ),
            (
                "update.block.conv2.weight",
                (Phase::Update, Some(2), "weight"),
            ),
            ("block.add", (Phase::Forward, Some(1), "add")),
            ("conv10.cov", (Phase::Forward, None, "conv10.cov")),
            ("grad.relu", (Phase::Backward, None, "relu")),
            ("gradient", (Phase::Forward, None, "gradient")),
        ] {
            assert_eq!(place(tensor, &layers), wanted, "{tensor}");
        }
    }

    /// By names that autodiff and the optimiser give; a step of a whole network.
    #[test]
    fn every_layer_of_a_network_has_its_phases() {
        use crate::bench::workloads::step_graph;
        use crate::graph::Kind;
        use crate::models::Norm;
        use crate::passes::{Passes, optimise};
        let graph = step_graph("cnn", None, 4, Norm::Deconv, Some(16)).unwrap();
        let layers = layers(&graph.list());
        assert_eq!(layers, ["conv1", "conv2", "conv3", "fc"]);
        let graph = optimise(&graph.list(), Passes::ALL).unwrap();
        let mut counts = [[0; 5]; 3];
        for node in graph.nodes() {
            if let Kind::Op(op) = &node.kind {
                let (phase, layer, _) = place(&node.name, &layers);
                counts[phase as usize][layer.unwrap_or(4)] += 1;
                if op.name().ends_with("_grad") {
                    assert_eq!(phase, Phase::Backward, "{}", node.name);
                }
            }
        }
        let all_some = counts.iter().flatten().filter(|&&n| n == 0).count();
        // Only updates belong to a layer each.
        assert_eq!((all_some, counts[2][4]), (1, 0), "{counts:?}");
        // Weight and bias, with their momenta.
        assert_eq!(counts[2][..4], [4; 4], "{counts:?}");
    }

    #[test]
    fn layers_are_what_has_states() {
        let g = Graph::new();
        let zero = Init::Constant(0.0);
        g.parameter("a.conv.weight", [1], zero.clone());
        g.parameter("a.conv.bias", [1], zero.clone());
        g.state(
            "a.conv.weight.momentum_buffer",
            [1],
            Role::Optimizer,
            zero.clone(),
        );
        g.state("a.bn.running_mean", [1], Role::Statistic, zero.clone());
        g.state("step", [1], Role::Optimizer, zero);
        assert_eq!(layers(&g.checked().unwrap()), ["a.conv", "a.bn"]);
    }

    #[test]
    fn events_of_a_track_do_not_overlap() {
        // The second begins before the first has ended, the third lies within the second.
        let json = trace(vec![
            kernel("conv1.cov", 0.0, 2e-3),
            kernel("conv1.deconv", 1e-3, 3e-3),
            kernel("conv1.weight_eff", 2e-3, 1e-3),
            kernel("grad.conv1.matmul", 2.5e-3, 1e-3),
            kernel("relu", 0.0, 0.0),
            KernelTime {
                flops: 1_000_000,
                bytes: 5_000_000,
                ..kernel("add", 4e-3, 1e-2)
            },
        ])
        .to_json(&[("model", "cnn".into())]);
        let events = json["traceEvents"].as_array().unwrap();
        let complete: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
        let times: Vec<(f64, f64)> = complete
            .iter()
            .map(|e| (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap()))
            .collect();
        assert_eq!(times[0], (0.0, 2000.0));
        assert_eq!(times[1], (2000.0, 2000.0));
        assert_eq!(times[2], (4000.0, 0.0));
        assert_eq!(times[3], (2500.0, 1000.0));
        // All of the time is in the arguments.
        assert_eq!(complete[1]["args"]["microseconds"], 3000.0);
        assert_eq!(complete[0]["args"]["gflops"], 1.0);
        assert_eq!(complete[0]["args"]["share_of_peak"], 0.1);
        assert_eq!(complete[0]["args"]["bound"], "operations");
        assert_eq!(complete[0]["args"]["kernel"], "contraction tiled");
        assert!(complete[4]["args"].get("gflops").is_none());
        let add = &complete[5]["args"];
        for (name, wanted) in [
            ("gflops", 0.1),
            ("gb_per_s", 0.5),
            ("share_of_peak", 0.01),
            ("share_of_stream", 0.5),
        ] {
            let found = add[name].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 1e-9, "{name}: {add}");
        }
        assert_eq!(add["bound"], "bytes");
        assert_eq!(
            (&add["flops"], &add["bytes"]),
            (&json!(1_000_000), &json!(5_000_000))
        );
        let tracks = |e: &Value| (e["pid"].clone(), e["tid"].clone());
        assert_eq!(tracks(complete[0]), tracks(complete[2]));
        assert_ne!(tracks(complete[0]).0, tracks(complete[3]).0);
        assert_ne!(tracks(complete[0]).1, tracks(complete[3]).1);
        for event in complete {
            let title = |what: &str, key: &str| {
                let named = |m: &&Value| m["name"] == what && m["pid"] == event["pid"];
                let own = |m: &&Value| key == "pid" || m["tid"] == event["tid"];
                events.iter().filter(named).filter(own).count()
            };
            assert_eq!(title("process_name", "pid"), 1, "{event}");
            assert_eq!(title("thread_name", "tid"), 1, "{event}");
        }
        let about = &json["otherData"];
        assert_eq!(
            (&about["model"], &about["adapter"]),
            (&json!("cnn"), &json!("A"))
        );
        assert_eq!(
            (&about["peak_gflops"], &about["stream_gb_per_s"]),
            (&json!(10.0), &json!(1.0))
        );
    }

    #[test]
    fn times_are_summed_by_op_and_layer() {
        let trace = trace(vec![
            kernel("conv1.cov", 0.0, 1.0),
            kernel("grad.conv1.cov", 1.0, 2.0),
            kernel("update.block.conv2.weight", 3.0, 4.0),
            kernel("relu", 7.0, 0.5),
        ]);
        assert_eq!(trace.seconds(), 7.5);
        let ops = times_by_op(&trace.kernels);
        assert_eq!((ops.len(), ops[0].count, ops[0].seconds), (1, 4, 7.5));
        assert_eq!((ops[0].flops, ops[0].bytes), (8_000_000, 4_000));
        let other = KernelTime {
            op: "add",
            ..kernel("sum", 0.0, 8.0)
        };
        let ops = times_by_op(&[&trace.kernels[..], &[other]].concat());
        let order: Vec<&str> = ops.iter().map(|op| op.op.as_str()).collect();
        assert_eq!(order, ["add", "matmul"]);
        let layers = trace.times_by_layer();
        let first = LayerTimes {
            layer: "block.conv2".into(),
            seconds: [0.0, 0.0, 4.0],
        };
        assert_eq!(layers[0], first);
        assert_eq!(layers[1].seconds, [1.0, 2.0, 0.0]);
        assert_eq!((layers[2].layer.as_str(), layers.len()), (NO_LAYER, 3));
    }
}
