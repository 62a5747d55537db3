//! Section 3.2: measures of the layers of what runs trained.

use std::path::Path;
use std::sync::Arc;

use decorr::files::write_atomically;
use decorr::gpu::Gpu;
use decorr::train::{Ended, Points, TrainOptions, isometry};
use decorr::{Error, Result};
use serde_json::Value;

use super::runs::LineRuns;

/// Training images that layers are measured on.
const IMAGES: usize = 128;

/// What was measured of the layers of each of a line's runs, in order: see [`decorr::train::isometry::LayerIsometry`].
pub(super) struct LineLayers {
    pub(super) name: &'static str,
    /// One an ended run.
    pub(super) runs: Vec<Value>,
}

/// Measures the runs of `lines` that ended. What was measured before is in the run's folder.
///
/// # Errors
/// Those of [`isometry`], and [`Error::Io`].
pub(super) fn measure(gpu: &Arc<Gpu>, lines: &[LineRuns]) -> Result<Vec<LineLayers>> {
    let of = |line: &LineRuns| {
        let ended = line
            .runs
            .iter()
            .filter(|(_, ended)| matches!(ended, Ended::Done(_)));
        let runs: Result<Vec<Value>> = ended.map(|(run, _)| of_run(gpu, &run.config.out)).collect();
        Ok(LineLayers {
            name: line.line.name,
            runs: runs?,
        })
    };
    lines.iter().map(of).collect()
}

fn of_run(gpu: &Arc<Gpu>, run: &Path) -> Result<Value> {
    let path = run.join("isometry.json");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return serde_json::from_str(&text).map_err(|e| Error::data(&path, e.to_string()));
    }
    let layers = isometry(gpu, run, TrainOptions::default(), IMAGES, |_| {})?;
    let layers = serde_json::to_value(layers).map_err(|e| Error::bug(e.to_string()))?;
    write_atomically(&path, format!("{layers:#}\n").as_bytes())?;
    Ok(layers)
}

/// A line of each network over the numbers of its layers, from 1: of the value at `pointer` of each layer, where it has one.
pub(super) fn points(all: &[LineLayers], pointer: &str) -> Vec<Points> {
    let each = all.iter().flat_map(|line| {
        let of_run = move |run: &Value| values(run, pointer);
        let values = line.runs.iter().flat_map(of_run);
        values.map(|(layer, value)| (line.name.to_string(), layer as f64, vec![value]))
    });
    Points::grouped(each)
}

/// The numbers of layers that have a value at `pointer`, and it.
fn values(run: &Value, pointer: &str) -> Vec<(usize, f64)> {
    let layers = run.as_array().map_or(&[][..], Vec::as_slice);
    let value = |(i, layer): (usize, &Value)| Some((i + 1, layer.pointer(pointer)?.as_f64()?));
    layers.iter().enumerate().filter_map(value).collect()
}

/// A heading and a row a line: how far its first run is from an isometry.
pub(super) fn cells(all: &[LineLayers]) -> Vec<Vec<String>> {
    let heading = [
        "",
        "activations, layer to layer",
        "gradients, layer to layer",
        "condition number before, at most",
        "after, at most",
        "largest singular value over the median, at most",
    ];
    let mut cells = vec![heading.map(String::from).to_vec()];
    for line in all {
        let Some(run) = line.runs.first() else {
            continue;
        };
        let ends = |pointer: &str| {
            let values = values(run, pointer).into_iter().map(|v| v.1);
            values.fold(None, |ends: Option<[f64; 2]>, v| {
                Some(ends.map_or([v, v], |[low, high]| [low.min(v), high.max(v)]))
            })
        };
        let between = |pointer: &str| {
            ends(pointer).map_or("-".into(), |[low, high]| {
                format!("{} to {}", digits(low), digits(high))
            })
        };
        let most = |pointer: &str| ends(pointer).map_or("-".into(), |[_, high]| digits(high));
        cells.push(vec![
            line.name.into(),
            between("/next/activation"),
            between("/next/gradient"),
            most("/before/condition"),
            most("/after/condition"),
            spread(run).map_or("-".into(), digits),
        ]);
    }
    cells
}

/// The greatest over the layers.
fn spread(run: &Value) -> Option<f64> {
    let [largest, median] = ["/next/map/largest", "/next/map/median"].map(|p| values(run, p));
    let quotients = largest.iter().zip(&median).map(|(a, b)| a.1 / b.1);
    quotients.filter(|v| v.is_finite()).reduce(f64::max)
}

/// Three digits.
fn digits(value: f64) -> String {
    match value.abs() {
        0.01..1000.0 => format!("{value:.2}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_are_counted_from_1_and_those_without_a_value_are_left_out() {
        let layer = |next: Value, condition: f64| json!({ "before": { "condition": 9.0e4 }, "after": { "condition": condition }, "next": next });
        let map = json!({ "largest": 3.0, "median": 2.0 });
        let first = json!({ "activation": 0.5, "gradient": 2.0, "map": map });
        let second = json!({ "activation": 0.75, "gradient": 1.0, "map": null });
        let run = json!([
            layer(first, 4.0),
            layer(second, 1.5),
            layer(Value::Null, 1.0)
        ]);
        let all = [LineLayers {
            name: "deconv",
            runs: vec![run.clone(), run],
        }];
        let points = points(&all, "/next/activation");
        assert_eq!(points.len(), 1);
        assert_eq!(
            points[0].points,
            [(1.0, vec![0.5, 0.5]), (2.0, vec![0.75, 0.75])]
        );
        let row = [
            "deconv",
            "0.50 to 0.75",
            "1.00 to 2.00",
            "9.00e4",
            "4.00",
            "1.50",
        ];
        assert_eq!(cells(&all)[1], row);
    }
}
