//! What would have room on a device where a run has not.

use std::collections::BTreeMap;

use super::config::TrainConfig;
use super::graphs::{ImageInput, evaluation_step};
use super::stepper::{Recipe, step_graphs};
use crate::data::DataSet;
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::graph::op::Variants;
use crate::models::Model;
use crate::nn::Mode;
use crate::program::{CompileOptions, Program};
use crate::{Error, Result};

/// `error`, a lack of room for batches of `set`, with the largest batch that there is room for and the fewest parts of this
/// one. Allocates, but compiles nothing.
///
/// # Errors
/// What the device reported.
pub(super) fn with_advice(
    error: Error,
    gpu: &Gpu,
    model: &Model,
    config: &TrainConfig,
    set: &DataSet,
    modes: &[Mode],
) -> Result<Error> {
    let batch = config.batch_size;
    let fits = |images: usize, accumulate: usize| -> Result<bool> {
        let mut part = config.clone();
        part.accumulate = accumulate;
        let [train, test] = [&set.train, &set.test].map(|of| ImageInput::of(set, of, images));
        let mut graphs = step_graphs(Recipe::new(model, &part), &train, modes)?;
        graphs.push(evaluation_step(model, config.loss, test)?);
        match planned_bytes(gpu, &graphs, config.kernels) {
            Ok(bytes) => gpu.has_room(bytes),
            Err(Error::Limit(_)) => Ok(false),
            Err(other) => Err(other),
        }
    };
    let accumulate = config.accumulate;
    let (mut largest, mut too_many) = (0, batch / accumulate);
    while largest + 1 < too_many {
        let middle = largest.midpoint(too_many);
        if fits(middle, accumulate)? {
            largest = middle;
        } else {
            too_many = middle;
        }
    }
    let parts = fewest_parts(batch, accumulate, largest, fits)?;
    let advice = match (largest, parts) {
        (0, _) => "Not even one image at a time would have room".to_string(),
        (_, None) => format!("At most {largest} images fit at once: `batch_size` {largest}"),
        (_, Some(parts)) => format!(
            "At most {largest} images fit at once: `batch_size` {largest}, or `accumulate` {parts} \
             for this batch in parts"
        ),
    };
    Ok(match error {
        Error::Limit(why) => Error::Limit(format!("{why}. {advice}")),
        Error::OutOfMemory(why) => Error::OutOfMemory(format!("{why}. {advice}")),
        other => other,
    })
}

/// The fewest equal parts of a batch, more than `accumulate`, that have at most `largest` images and fit.
fn fewest_parts(
    batch: usize,
    accumulate: usize,
    largest: usize,
    fits: impl Fn(usize, usize) -> Result<bool>,
) -> Result<Option<usize>> {
    for n in (accumulate + 1..=batch).filter(|n| batch.is_multiple_of(*n)) {
        if batch / n <= largest && fits(batch / n, n)? {
            return Ok(Some(n));
        }
    }
    Ok(None)
}

/// Device memory of programs of one store: they share arenas and states.
fn planned_bytes(gpu: &Gpu, graphs: &[Graph], kernels: Option<Variants>) -> Result<u64> {
    let (mut arenas, mut other, mut states) = (0, 0, BTreeMap::new());
    let options = CompileOptions {
        variants: kernels,
        ..CompileOptions::default()
    };
    for graph in graphs {
        let memory = Program::plan(graph, gpu, options)?;
        arenas = memory.arenas.max(arenas);
        other += memory.other;
        let list = graph.list();
        for (name, &id) in list.states() {
            states.insert(name.clone(), list.shape(id).size_bytes());
        }
    }
    Ok(arenas + other + states.values().sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps run one after the other, in the same arena, on the same states.
    #[test]
    fn programs_share_their_arena_and_their_states() {
        use crate::graph::Init;
        let gpu = Gpu::open(&Default::default()).unwrap();
        let step = |rows: usize| {
            let g = Graph::new();
            let w = g.parameter("w", [64, 64], Init::Constant(0.5));
            let x = g.input("x", [rows, 64]);
            g.output("y", x.matmul(w).matmul(w).sum_rows());
            g
        };
        let of = |rows: &[usize]| {
            let graphs: Vec<Graph> = rows.iter().map(|&n| step(n)).collect();
            planned_bytes(&gpu, &graphs, None).unwrap()
        };
        let plan = |rows| Program::plan(&step(rows), &gpu, CompileOptions::default()).unwrap();
        let (small, large) = (plan(64), plan(256));
        let states = 64 * 64 * 4;
        assert!(large.arenas > small.arenas && small.arenas > 0);
        assert_eq!(of(&[64]), small.arenas + small.other + states);
        assert_eq!(
            of(&[256, 64]),
            large.arenas + large.other + small.other + states
        );
    }

    #[test]
    fn the_fewest_parts_that_fit_are_named() {
        for (batch, accumulate, largest, wanted) in [
            (12, 1, 4, Some(3)),
            (12, 1, 5, Some(3)),
            (12, 1, 3, Some(4)),
            (12, 3, 4, Some(4)),
            (12, 1, 0, None),
        ] {
            let found = fewest_parts(batch, accumulate, largest, |_, _| Ok(true)).unwrap();
            assert_eq!(found, wanted, "{batch} {accumulate} {largest}");
        }
        // Parts of 6 images would have room but for what keeps the sums of two.
        let found = fewest_parts(12, 1, 6, |images, parts| {
            Ok(images * parts == 12 && images < 5)
        });
        assert_eq!(found.unwrap(), Some(3));
    }
}
