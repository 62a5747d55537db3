//! curves.png: loss and accuracy over the steps, of one run or of several.

use std::path::Path;

use image::RgbImage;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::axis::{clipped, number, ticks, unscaled};
use super::config::TrainConfig;
use super::curve_options::{CurveOptions, Line, YAxis};
use super::lines::{Curve, Point, bounds};
use super::metrics::Record;
use crate::Result;
use crate::drawing::{Drawn, SERIES, draw_png, draw_svg};
use crate::files::write_atomically;

/// Of a drawing with two panels, and with one.
const SIZE: (u32, u32) = (1200, 480);
const ONE_PANEL: (u32, u32) = (760, 480);
const TRAIN: RGBColor = RGBColor(31, 119, 180);
const TEST: RGBColor = RGBColor(214, 39, 40);

/// Draws the panels: training steps thin with their running mean bold, tests as dots. Several lines have a colour each.
/// Lines of several runs are the mean of these with a band from the least to the greatest; tests have a bar for it. The file is
/// SVG if its name ends with .svg, or PNG.
///
/// A run whose loss diverged does not widen the axis: its line ends at the border. Returns sentences about that, and about all
/// that could not be drawn.
///
/// Needs the feature `draw`.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn draw_curves(path: &Path, lines: &[Line<'_>], options: &CurveOptions) -> Result<Vec<String>> {
    let ys = options
        .y
        .map_or(vec![YAxis::Loss, YAxis::Top1], |y| vec![y]);
    let panels: Vec<Panel<'_>> = ys.iter().map(|&y| Panel::new(lines, options, y)).collect();
    write_panels(path, &panels, &options.title)?;
    let notices = ys.iter().zip(&panels).flat_map(|(&y, panel)| {
        let of = move |curve: &Curve<'_>| curve.notices(options, y, panel.axis);
        panel.curves.iter().flat_map(of)
    });
    Ok(notices.collect())
}

/// A drawing of `panels` side by side, as SVG if the file's name ends with .svg, or PNG.
pub(super) fn write_panels(path: &Path, panels: &[Panel<'_>], title: &str) -> Result<()> {
    let size = if panels.len() == 1 { ONE_PANEL } else { SIZE };
    let is_svg = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("svg"));
    let bytes = if is_svg {
        draw_svg(size, |root| draw_panels(root, panels, title))?
    } else {
        let canvas = RgbImage::from_pixel(size.0, size.1, image::Rgb([255; 3]));
        draw_png(canvas, |root| draw_panels(root, panels, title))?
    };
    write_atomically(path, &bytes)
}

/// The curves of a run by `config`, titled by it.
pub(super) fn draw_run(path: &Path, config: &TrainConfig, records: &[Record]) -> Result<()> {
    let line = Line {
        name: "",
        runs: vec![records],
        steps_per_epoch: None,
    };
    let options = CurveOptions {
        title: title(config),
        ..CurveOptions::default()
    };
    // That a loss was no number has been said.
    draw_curves(path, &[line], &options).map(drop)
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

/// What one panel shows.
pub(super) struct Panel<'a> {
    pub(super) curves: Vec<Curve<'a>>,
    /// Whether it is of one run, whose training and tests have a colour each.
    pub(super) alone: bool,
    /// What the axes say.
    pub(super) names: [&'a str; 2],
    /// The ends of the x axis, and whether it is logarithmic.
    pub(super) x: ([f64; 2], bool),
    /// The ends of the y axis, and whether it is logarithmic.
    pub(super) axis: [f64; 2],
    pub(super) log: bool,
    /// A value that is marked, as it stands on the axis, and its name.
    pub(super) level: Option<(&'a str, f64)>,
    /// Whether most curves rise.
    pub(super) rises: bool,
}

impl<'a> Panel<'a> {
    fn new(lines: &[Line<'a>], options: &'a CurveOptions, y: YAxis) -> Self {
        let curves: Vec<_> = lines
            .iter()
            .map(|line| Curve::of(line, options, y))
            .collect();
        let level = options.level.as_ref().filter(|_| y == YAxis::Loss);
        let scale = |v: f64| if options.log { v.log10() } else { v };
        let level = level.map(|(name, value)| (name.as_str(), scale(*value)));
        let level = level.filter(|(_, value)| value.is_finite());
        let (last, mut axis) = bounds(&curves, options.log);
        if let Some((_, value)) = level {
            let room = (axis[1] - axis[0]) * 0.05;
            axis = [axis[0].min(value - room), axis[1].max(value + room)];
        }
        Self {
            alone: matches!(&curves[..], [only] if only.runs == 1),
            curves,
            names: [options.x.name(), y.name()],
            x: ([0.0, last], false),
            axis,
            log: options.log,
            level,
            rises: y == YAxis::Top1,
        }
    }
}

fn draw_panels<B: DrawingBackend>(
    root: &DrawingArea<B, Shift>,
    panels: &[Panel<'_>],
    title: &str,
) -> Drawn
where
    B::ErrorType: 'static,
{
    let inner = root.titled(title, ("sans-serif", 24))?;
    let areas = inner.split_evenly((1, panels.len()));
    areas
        .iter()
        .zip(panels)
        .try_for_each(|(area, panel)| draw_panel(area, panel))
}

fn draw_panel<B: DrawingBackend>(area: &DrawingArea<B, Shift>, panel: &Panel<'_>) -> Drawn
where
    B::ErrorType: 'static,
{
    let &Panel { axis, alone, .. } = panel;
    let (ends, log_x) = panel.x;
    let x = Axis::new(ends, log_x);
    let y = Axis::new(axis, panel.log);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(panel.names[0])
        .y_desc(panel.names[1])
        .x_label_formatter(&|x| number(unscaled(*x, log_x)))
        .y_label_formatter(&|y| number(unscaled(*y, panel.log)))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 17))
        .light_line_style(WHITE)
        .draw()?;
    let within = |v: f64| v.clamp(axis[0], axis[1]);
    for (curve, &colour) in panel.curves.iter().zip(SERIES.iter().cycle()) {
        let [train, test] = if alone { [TRAIN, TEST] } else { [colour; 2] };
        let (name, of) = match (alone, curve.runs) {
            (true, _) => ("train (running mean)", String::new()),
            (false, 1) => (curve.name, String::new()),
            (false, runs) => (curve.name, format!(" (mean of {runs}, band: min to max)")),
        };
        if curve.runs > 1 {
            let upper = curve.train.iter().map(|p| (p.x, within(p.high)));
            let lower = curve.train.iter().rev().map(|p| (p.x, within(p.low)));
            let band: Vec<_> = upper.chain(lower).collect();
            chart.draw_series([Polygon::new(band, train.mix(0.2))])?;
        }
        for part in clipped(&curve.raw, axis) {
            let pale = train.mix(if alone { 0.35 } else { 0.2 });
            chart.draw_series(LineSeries::new(part, pale))?;
        }
        let mean: Vec<_> = curve.train.iter().map(middle).collect();
        for part in clipped(&mean, axis) {
            chart.draw_series(LineSeries::new(part, train.stroke_width(2)))?;
        }
        // For the legend, of lines that are not there too.
        chart
            .draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?
            .label(format!("{name}{of}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], train.stroke_width(2)));
        let tests: Vec<_> = curve.test.iter().map(middle).collect();
        if alone {
            for part in clipped(&tests, axis) {
                chart.draw_series(LineSeries::new(part, test.mix(0.6)))?;
            }
        }
        if curve.runs > 1 {
            let bar = |p: &Point| {
                PathElement::new([(p.x, within(p.low)), (p.x, within(p.high))], test.filled())
            };
            chart.draw_series(curve.test.iter().map(bar))?;
        }
        let inside = tests.iter().filter(|p| (axis[0]..=axis[1]).contains(&p.1));
        let dots = inside.map(|&p| Circle::new(p, 4, test.filled()));
        let dots = chart.draw_series(dots)?;
        if alone {
            dots.label("test")
                .legend(move |(x, y)| Circle::new((x + 9, y), 4, test.filled()));
        }
    }
    if let Some((name, value)) = panel.level {
        let grey = RGBColor(110, 110, 110);
        let line = DashedLineSeries::new(ends.map(|x| (x, value)), 6, 4, grey.stroke_width(2));
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], grey.stroke_width(2)));
    }
    let corner = match panel.rises {
        true => SeriesLabelPosition::LowerRight,
        false => SeriesLabelPosition::UpperRight,
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

/// An axis with numbers at places of our own.
struct Axis {
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Axis {
    fn new(ends: [f64; 2], log: bool) -> Self {
        let ticks = ticks(ends, log);
        Self { ends, ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.ends[0]) / (self.ends[1] - self.ends[0]);
        (f64::from(from) + share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.clone(),
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.ends[0]..self.ends[1]
    }
}

fn middle(point: &Point) -> (f64, f64) {
    (point.x, point.mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::curve_options::XAxis;
    use crate::train::metrics::Split;

    fn record(step: u64, loss: f64, top1: f64) -> Record {
        Record {
            split: Split::Train,
            step,
            epoch: 0,
            loss: Some(loss),
            top1: Some(top1),
            top5: None,
            lr: None,
            seconds: 0.0,
        }
    }

    /// Each a name and its records.
    fn draw(path: &Path, runs: &[(&str, &[Record])], x: XAxis) {
        let line = |&(name, records)| Line {
            name,
            runs: vec![records],
            steps_per_epoch: None,
        };
        let lines: Vec<_> = runs.iter().map(line).collect();
        let options = CurveOptions {
            title: "a run".into(),
            x,
            ..CurveOptions::default()
        };
        draw_curves(path, &lines, &options).unwrap();
    }

    /// A level is one of losses, and the axis reaches to it.
    #[test]
    fn a_level_is_drawn_among_the_losses_alone() {
        let record = |step| record(step, 0.75, 0.4 + step as f64 / 100.0);
        let records: Vec<Record> = (1..9).map(record).collect();
        let lines = [Line {
            name: "a run",
            runs: vec![&records],
            steps_per_epoch: None,
        }];
        let options = CurveOptions {
            level: Some(("optimum".into(), 0.25)),
            ..CurveOptions::default()
        };
        let losses = Panel::new(&lines, &options, YAxis::Loss);
        assert_eq!(losses.level, Some(("optimum", 0.25)));
        assert!(losses.axis[0] < 0.25 && losses.axis[1] >= 0.75);
        let accuracies = Panel::new(&lines, &options, YAxis::Top1);
        assert_eq!(accuracies.level, None);
        assert!(accuracies.axis[0] > 0.25);
    }

    /// The left panel is of losses alone, the right one of accuracies.
    #[test]
    fn each_panel_shows_its_own_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let halves = |loss: f64, top1: f64| {
            let record = |step| record(step, loss / step as f64, 1.0 - top1 / step as f64);
            let records: Vec<Record> = (1..30).map(record).collect();
            draw(&path, &[("a run", &records)], XAxis::Step);
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curves.png");
        let records: Vec<Record> = (1..30).map(record).collect();
        let mut pictures = [XAxis::Step, XAxis::Seconds].map(|x| {
            draw(&path, &[("a run", &records)], x);
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
            draw(&path, &runs, XAxis::Step);
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
            draw(&path, runs, XAxis::Step);
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
        draw(&path, &[("a run", &records)], XAxis::Step);
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
