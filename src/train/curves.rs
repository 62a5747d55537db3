//! curves.png: loss and accuracy over the steps.

use std::path::Path;

use image::RgbImage;
use plotters::prelude::*;

use super::metrics::{Record, Split};
use crate::Result;
use crate::drawing::{Area, Drawn, draw_png};
use crate::files::write_atomically;

const SIZE: (u32, u32) = (1200, 480);
const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 39, 40);

/// Draws both panels: training steps thin with their running mean bold, tests as dots.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn draw_curves(path: &Path, title: &str, records: &[Record]) -> Result<()> {
    let canvas = RgbImage::from_pixel(SIZE.0, SIZE.1, image::Rgb([255; 3]));
    let bytes = draw_png(canvas, |root| {
        let inner = root.titled(title, ("sans-serif", 24))?;
        let (left, right) = inner.split_horizontally(SIZE.0 / 2);
        panel(&left, "loss", records, |r| r.loss)?;
        panel(&right, "top-1 accuracy", records, |r| r.top1)
    })?;
    write_atomically(path, &bytes)
}

fn panel(
    area: &Area<'_>,
    name: &str,
    records: &[Record],
    value: impl Fn(&Record) -> Option<f64>,
) -> Drawn {
    let points = |split: Split| -> Vec<(f64, f64)> {
        let of = records.iter().filter(|r| r.split == split);
        of.filter_map(|r| Some((r.step as f64, value(r).filter(|v| v.is_finite())?)))
            .collect()
    };
    let (train, test) = (points(Split::Train), points(Split::Test));
    let all = || train.iter().chain(&test);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min).min(1e9);
    let high = all()
        .map(|p| p.1)
        .fold(f64::NEG_INFINITY, f64::max)
        .max(-1e9);
    let (low, high) = if low < high {
        (low, high)
    } else {
        (low.min(0.0), low.max(0.0) + 1.0)
    };
    let room = (high - low) * 0.05;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low - room..high + room)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc(name)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new(train.iter().copied(), TRAIN.mix(0.35)))?;
    chart
        .draw_series(LineSeries::new(running_mean(&train), TRAIN.stroke_width(2)))?
        .label("train (running mean)")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], TRAIN.stroke_width(2)));
    chart.draw_series(LineSeries::new(test.iter().copied(), TEST.mix(0.6)))?;
    chart
        .draw_series(test.iter().map(|&p| Circle::new(p, 4, TEST.filled())))?
        .label("test")
        .legend(|(x, y)| Circle::new((x + 9, y), 4, TEST.filled()));
    let corner = if name == "loss" {
        SeriesLabelPosition::UpperRight
    } else {
        SeriesLabelPosition::LowerRight
    };
    chart
        .configure_series_labels()
        .position(corner)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// Each point's mean with up to ten before it.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    (0..points.len())
        .map(|i| {
            let window = &points[i.saturating_sub(10)..=i];
            let sum: f64 = window.iter().map(|p| p.1).sum();
            (points[i].0, sum / window.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_records_gives_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let record = |split, step, loss| Record {
            split,
            step,
            epoch: 0,
            loss,
            top1: Some(0.5),
            lr: None,
            seconds: 0.0,
        };
        let one = vec![record(Split::Train, 1, Some(2.0))];
        let mut many: Vec<Record> = (0..50)
            .map(|i| record(Split::Train, i, Some(2.0 / (1.0 + i as f64))))
            .collect();
        many.push(record(Split::Test, 49, None));
        for records in [vec![], one, many] {
            draw_curves(&path, "a run", &records).unwrap();
            let image = image::open(&path).unwrap();
            assert_eq!((image.width(), image.height()), SIZE);
        }
    }
}
