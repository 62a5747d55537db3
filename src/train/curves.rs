//! curves.png: loss and accuracy over the steps, of one run or of several.

use std::path::Path;

use image::RgbImage;
use plotters::prelude::*;

use super::config::TrainConfig;
use super::metrics::{Record, Split};
use crate::Result;
use crate::drawing::{Area, Drawn, SERIES, draw_png};
use crate::files::write_atomically;

const SIZE: (u32, u32) = (1200, 480);
const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 39, 40);

/// What curves are drawn over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Over {
    /// Training steps
    Steps,
    /// Seconds since training began
    Seconds,
}

impl Over {
    fn of(self, record: &Record) -> f64 {
        match self {
            Self::Steps => record.step as f64,
            Self::Seconds => record.seconds,
        }
    }

    fn axis(self) -> &'static str {
        match self {
            Self::Steps => "step",
            Self::Seconds => "seconds",
        }
    }
}

/// Draws both panels: training steps thin with their running mean bold, tests as dots. Several
/// runs, each a name and its records, have a colour each.
///
/// Needs the feature `draw`.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn draw_curves(path: &Path, title: &str, runs: &[(&str, &[Record])], over: Over) -> Result<()> {
    let canvas = RgbImage::from_pixel(SIZE.0, SIZE.1, image::Rgb([255; 3]));
    let bytes = draw_png(canvas, |root| {
        let inner = root.titled(title, ("sans-serif", 24))?;
        let (left, right) = inner.split_horizontally(SIZE.0 / 2);
        panel(&left, "loss", runs, over, |r| r.loss)?;
        panel(&right, "top-1 accuracy", runs, over, |r| r.top1)
    })?;
    write_atomically(path, &bytes)
}

/// The curves of a run by `config`, titled by it.
pub(super) fn draw_run(path: &Path, config: &TrainConfig, records: &[Record]) -> Result<()> {
    draw_curves(path, &title(config), &[("", records)], Over::Steps)
}

fn title(config: &TrainConfig) -> String {
    let name = config
        .out
        .file_name()
        .map(Path::new)
        .unwrap_or(Path::new(""));
    let model = config.model(0);
    let refresh = match model.deconv.refresh {
        1 => String::new(),
        steps => format!(", refresh {steps}"),
    };
    format!(
        "{}: {}, norm {}{refresh}, lr {}",
        name.display(),
        model.network.name,
        model.norm.name(),
        config.lr
    )
}

/// Points of one run in one panel.
struct Curve<'a> {
    name: &'a str,
    train: Vec<(f64, f64)>,
    test: Vec<(f64, f64)>,
    colours: [RGBColor; 2],
}

impl<'a> Curve<'a> {
    /// One for each run: the finite of `value` of its records.
    fn all(
        runs: &[(&'a str, &[Record])],
        over: Over,
        value: impl Fn(&Record) -> Option<f64>,
    ) -> Vec<Self> {
        let alone = runs.len() == 1;
        let curve = |(&(name, records), &colour): (&(&'a str, &[Record]), &RGBColor)| {
            let points = |split: Split| -> Vec<(f64, f64)> {
                let of = records.iter().filter(|r| r.split == split);
                of.filter_map(|r| Some((over.of(r), value(r).filter(|v| v.is_finite())?)))
                    .collect()
            };
            Self {
                name: if alone { "train (running mean)" } else { name },
                train: points(Split::Train),
                test: points(Split::Test),
                colours: if alone { [TRAIN, TEST] } else { [colour; 2] },
            }
        };
        runs.iter().zip(SERIES.iter().cycle()).map(curve).collect()
    }
}

/// How far curves go to the right, and their least and largest values; some range where there is none.
fn bounds(curves: &[Curve<'_>]) -> (f64, [f64; 2]) {
    let all = || curves.iter().flat_map(|c| c.train.iter().chain(&c.test));
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let low = all().map(|p| p.1).fold(f64::INFINITY, f64::min).min(1e9);
    let high = all().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    let high = high.max(-1e9);
    match low < high {
        true => (last, [low, high]),
        false => (last, [low.min(0.0), low.max(0.0) + 1.0]),
    }
}

fn panel(
    area: &Area<'_>,
    name: &str,
    runs: &[(&str, &[Record])],
    over: Over,
    value: impl Fn(&Record) -> Option<f64>,
) -> Drawn {
    let alone = runs.len() == 1;
    let curves = Curve::all(runs, over, value);
    let (last, [low, high]) = bounds(&curves);
    let room = (high - low) * 0.05;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, low - room..high + room)?;
    chart
        .configure_mesh()
        .x_desc(over.axis())
        .y_desc(name)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .light_line_style(WHITE)
        .draw()?;
    for curve in &curves {
        let [train, test] = curve.colours;
        let steps = curve.train.iter().copied();
        chart.draw_series(LineSeries::new(
            steps,
            train.mix(if alone { 0.35 } else { 0.2 }),
        ))?;
        let mean = running_mean(&curve.train);
        chart
            .draw_series(LineSeries::new(mean, train.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], train.stroke_width(2)));
        if alone {
            chart.draw_series(LineSeries::new(curve.test.iter().copied(), test.mix(0.6)))?;
        }
        let dots = curve.test.iter().map(|&p| Circle::new(p, 4, test.filled()));
        let dots = chart.draw_series(dots)?;
        if alone {
            dots.label("test")
                .legend(move |(x, y)| Circle::new((x + 9, y), 4, test.filled()));
        }
    }
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

/// Each point's mean with those before it: a tenth of all, at most ten.
pub fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 10).clamp(1, 10);
    (0..points.len())
        .map(|i| {
            let last = &points[(i + 1).saturating_sub(window)..=i];
            let sum: f64 = last.iter().map(|p| p.1).sum();
            (points[i].0, sum / last.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_mean_is_over_a_tenth() {
        let points: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i), f64::from(i))).collect();
        let means = running_mean(&points);
        assert_eq!((means[0].1, means[1].1, means[19].1), (0.0, 0.5, 18.5));
        assert_eq!(running_mean(&points[..9]), points[..9]);
        // Ten at most: 290 to 299.
        let points: Vec<(f64, f64)> = (0..300).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(running_mean(&points)[299], (299.0, 294.5));
        assert!(running_mean(&[]).is_empty());
    }

    /// The left panel is of losses alone, the right one of accuracies.
    #[test]
    fn each_panel_shows_its_own_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let halves = |loss: f64, top1: f64| {
            let record = |step| Record {
                split: Split::Train,
                step,
                epoch: 0,
                loss: Some(loss / step as f64),
                top1: Some(1.0 - top1 / step as f64),
                top5: None,
                lr: None,
                seconds: 0.0,
            };
            let records: Vec<Record> = (1..30).map(record).collect();
            draw_curves(&path, "a run", &[("a run", &records)], Over::Steps).unwrap();
            let image = image::open(&path).unwrap().into_rgb8();
            let half =
                |x| image::imageops::crop_imm(&image, x, 40, SIZE.0 / 2, SIZE.1 - 40).to_image();
            [half(0), half(SIZE.0 / 2)]
        };
        let [loss, top1] = halves(2.0, 0.5);
        let [other_loss, same_top1] = halves(1.2, 0.5);
        assert!(loss != other_loss && top1 == same_top1);
        let [same_loss, other_top1] = halves(2.0, 0.3);
        assert!(loss == same_loss && top1 != other_top1);
    }

    /// The same losses lie elsewhere over seconds that do not go with the steps.
    #[test]
    fn curves_are_over_what_the_axis_says() {
        let record = |step: u64| Record {
            split: Split::Train,
            step,
            epoch: 0,
            loss: Some(1.0 / step as f64),
            top1: Some(0.5),
            top5: None,
            lr: None,
            seconds: (step * step) as f64,
        };
        let (first, last) = (record(3), record(9));
        assert_eq!([&first, &last].map(|r| Over::Steps.of(r)), [3.0, 9.0]);
        assert_eq!([&first, &last].map(|r| Over::Seconds.of(r)), [9.0, 81.0]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let records: Vec<Record> = (1..30).map(record).collect();
        let mut pictures = [Over::Steps, Over::Seconds].map(|over| {
            draw_curves(&path, "a run", &[("a run", &records)], over).unwrap();
            image::open(&path).unwrap().into_rgb8()
        });
        // The left panel without its axis: only where the curve lies.
        let inside = |picture: &mut RgbImage| {
            image::imageops::crop(picture, 70, 60, SIZE.0 / 2 - 90, SIZE.1 - 140).to_image()
        };
        assert!(
            pictures
                .each_mut()
                .map(inside)
                .windows(2)
                .all(|p| p[0] != p[1])
        );
    }

    /// Runs are told apart: each has a colour of its own, as many of them as there are.
    #[test]
    fn each_run_has_its_colour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let records = |place: f64| -> Vec<Record> {
            let record = |step| Record {
                split: Split::Train,
                step,
                epoch: 0,
                loss: Some(place),
                top1: Some(place),
                top5: None,
                lr: None,
                seconds: 0.0,
            };
            (1..30).map(record).collect()
        };
        let all = [0.2, 0.5, 0.8].map(records);
        for count in 2..=3 {
            let runs: Vec<_> = all[..count].iter().map(|r| ("run", &r[..])).collect();
            draw_curves(&path, "runs", &runs, Over::Steps).unwrap();
            let image = image::open(&path).unwrap().into_rgb8();
            for (i, &RGBColor(r, g, b)) in SERIES.iter().take(3).enumerate() {
                let has = image.pixels().any(|p| p.0 == [r, g, b]);
                assert_eq!(has, i < count, "colour {i} of {count} runs");
            }
        }
    }

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
            top5: None,
            lr: None,
            seconds: 0.0,
        };
        let one = vec![record(Split::Train, 1, Some(2.0))];
        let mut many: Vec<Record> = (0..50)
            .map(|i| record(Split::Train, i, Some(2.0 / (1.0 + i as f64))))
            .collect();
        many.push(record(Split::Test, 49, None));
        let several: [(&str, &[Record]); 3] = [("a", &one), ("b", &many), ("c", &[])];
        for runs in [&[("a run", &one[..])][..], &several, &[("none", &[])], &[]] {
            draw_curves(&path, "a run", runs, Over::Steps).unwrap();
            let image = image::open(&path).unwrap();
            assert_eq!((image.width(), image.height()), SIZE);
        }
    }

    #[test]
    fn the_title_says_what_was_run() {
        let title = |refresh| {
            let options = format!("out = 'runs/first'\nlr = 0.25\nrefresh = {refresh}");
            title(&TrainConfig::resolve(toml::from_str(&options).unwrap()).unwrap())
        };
        assert_eq!(title(1), "first: cnn, norm deconv, lr 0.25");
        assert_eq!(title(8), "first: cnn, norm deconv, refresh 8, lr 0.25");
    }

    /// All that is drawn lies inside, tests among it.
    #[test]
    fn bounds_are_those_of_all_points() {
        let curve = |train: &[(f64, f64)], test: &[(f64, f64)]| Curve {
            name: "",
            train: train.to_vec(),
            test: test.to_vec(),
            colours: [TRAIN, TEST],
        };
        let both = [
            curve(&[(1.0, 4.0), (7.0, 3.0)], &[(7.0, 9.0)]),
            curve(&[(2.0, 5.0)], &[(8.0, 1.0)]),
        ];
        assert_eq!(bounds(&both), (8.0, [1.0, 9.0]));
        assert_eq!(bounds(&both[..1]), (7.0, [3.0, 9.0]));
        assert_eq!(bounds(&[curve(&[(0.5, 2.0)], &[])]), (1.0, [0.0, 3.0]));
        let (last, [low, high]) = bounds(&[]);
        assert!(last == 1.0 && low < high && low.is_finite() && high.is_finite());
    }

    /// Losses fall and accuracies rise: the names of the curves stand where these are not.
    #[test]
    fn names_stand_above_losses_and_below_accuracies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        // A little above the middle of the range that a constant has.
        let record = |step| Record {
            split: Split::Train,
            step,
            epoch: 0,
            loss: Some(1.2),
            top1: Some(1.2),
            top5: None,
            lr: None,
            seconds: 0.0,
        };
        let records: Vec<Record> = (1..30).map(record).collect();
        draw_curves(&path, "a run", &[("a run", &records)], Over::Steps).unwrap();
        let image = image::open(&path).unwrap().into_rgb8();
        let has = |left: u32, top: u32| {
            let part = image::imageops::crop_imm(&image, left, top, SIZE.0 / 2, 100).to_image();
            let RGBColor(r, g, b) = TEST;
            part.pixels().any(|p| p.0 == [r, g, b])
        };
        let (right, bottom) = (SIZE.0 / 2, SIZE.1 - 150);
        assert_eq!([has(0, 50), has(0, bottom)], [true, false]);
        assert_eq!([has(right, 50), has(right, bottom)], [false, true]);
    }
}
