//! Pages: panels with titles, scales and captions, as PNG files.

use std::path::Path;

use image::RgbImage;
use plotters::prelude::*;

use super::measures::{BINS, SIGMAS};
use crate::Result;
use crate::drawing::{Area, Drawn, SERIES, draw_png, encode_png, text_width};
use crate::files::{make_folder, write_atomically};

const GAP: u32 = 18;
/// Heights of a title, of the note under it, of labels under a picture, of a line of the caption.
const TITLE: u32 = 32;
const NOTE: u32 = 22;
const LABELS: u32 = 24;
const LINE: u32 = 26;
/// Sizes of their letters.
const TITLE_POINTS: f64 = 21.0;
const NOTE_POINTS: f64 = 16.0;
const LINE_POINTS: f64 = 19.0;
/// Width of the labels beside a bar of colours.
const BAR_LABELS: u32 = 60;
/// Of a chart; one that has a row of its own is as wide as the page.
const CHART: [u32; 2] = [480, 320];

/// Red, green and blue of the `i`-th line of a chart: 0 before deconvolution, or batch norm; 1 after it, or with it.
pub fn series_colour(i: usize) -> [u8; 3] {
    let RGBColor(r, g, b) = SERIES[i % SERIES.len()];
    [r, g, b]
}

/// One picture of a figure.
#[derive(Clone, Debug)]
pub struct NamedPicture {
    /// File stem.
    pub name: String,
    /// For people.
    pub title: String,
    /// Pixels.
    pub picture: RgbImage,
}

/// The files of pictures and of their page.
pub(super) fn file_names(pictures: &[NamedPicture], page: &str) -> Vec<String> {
    let pictures = pictures.iter().map(|one| format!("{}.png", one.name));
    pictures.chain([page.to_string()]).collect()
}

/// Writes pictures and their page into a folder, which is made; returns the names of the files.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub(super) fn write_figure(
    dir: &Path,
    pictures: &[NamedPicture],
    page: &str,
    sheet: &[u8],
) -> Result<Vec<String>> {
    make_folder(dir)?;
    let names = file_names(pictures, page);
    for (one, name) in pictures.iter().zip(&names) {
        write_atomically(&dir.join(name), &encode_png(&one.picture)?)?;
    }
    write_atomically(&dir.join(page), sheet)?;
    Ok(names)
}

/// What stands under a title.
pub(super) enum Content {
    /// As it was painted.
    Picture(RgbImage),
    /// A square matrix with lines between its `blocks`, and its colours from -`end` to `end`.
    HeatMap {
        picture: RgbImage,
        blocks: usize,
        bar: RgbImage,
        end: f32,
    },
    /// Histograms with their names.
    Histograms(Vec<(String, Vec<f32>)>),
    /// A number in [0, 1] for each channel, with names.
    Channels {
        series: Vec<(String, Vec<f32>)>,
        /// What the number is.
        what: &'static str,
    },
}

/// A part of a page.
pub(super) struct Panel {
    title: String,
    /// How to read it.
    note: String,
    content: Content,
    /// Under parts of the same width of the picture.
    labels: Vec<String>,
}

impl Panel {
    pub(super) fn new(title: impl Into<String>, note: impl Into<String>, content: Content) -> Self {
        Self {
            title: title.into(),
            note: note.into(),
            content,
            labels: Vec::new(),
        }
    }

    /// The same with names under its parts.
    pub(super) fn labelled(self, labels: Vec<String>) -> Self {
        Self { labels, ..self }
    }

    fn content_size(&self) -> [u32; 2] {
        match &self.content {
            Content::Picture(picture) => [picture.width(), picture.height()],
            Content::HeatMap { picture, bar, .. } => {
                let beside = GAP + bar.width() + BAR_LABELS;
                [picture.width() + beside, picture.height()]
            }
            Content::Histograms(_) => CHART,
            Content::Channels { .. } => [2 * CHART[0], CHART[1] * 3 / 4],
        }
    }

    fn width(&self) -> u32 {
        let title = text_width(&self.title, TITLE_POINTS);
        let note = text_width(&self.note, NOTE_POINTS);
        self.content_size()[0].max(title).max(note)
    }

    /// Of everything.
    fn height(&self) -> u32 {
        let labels = if self.labels.is_empty() { 0 } else { LABELS };
        TITLE + NOTE + self.content_size()[1] + labels
    }

    fn is_chart(&self) -> bool {
        matches!(
            self.content,
            Content::Histograms(_) | Content::Channels { .. }
        )
    }
}

/// A page of rows of panels, under it the lines of a caption.
///
/// # Errors
/// Those of the encoder.
pub(super) fn sheet(rows: &[Vec<Panel>], caption: &[String]) -> Result<Vec<u8>> {
    // Rows of more than one panel are a grid.
    let column_width = |row: &Vec<Panel>, i: usize| {
        let grid = rows.iter().filter(|other| other.len() > 1);
        let widths = grid.filter_map(|other| other.get(i)).map(Panel::width);
        match row.as_slice() {
            [alone] => alone.width(),
            _ => widths.max().unwrap_or(0),
        }
    };
    let width_of = |row: &Vec<Panel>| {
        let widths = (0..row.len()).map(|i| column_width(row, i) + GAP);
        widths.sum::<u32>() + GAP
    };
    let height_of = |row: &Vec<Panel>| row.iter().map(Panel::height).max().unwrap_or(0);
    let of_line = |line: &String| text_width(line, LINE_POINTS) + 2 * GAP;
    let widths = rows.iter().map(width_of).chain(caption.iter().map(of_line));
    let width = widths.max().unwrap_or(0);
    let body: u32 = rows.iter().map(|row| height_of(row) + GAP).sum();
    let height = body + caption.len() as u32 * LINE + GAP;
    let mut canvas = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    let mut places = Vec::new();
    let mut y = 0;
    for row in rows {
        let mut x = GAP;
        for (i, panel) in row.iter().enumerate() {
            let [mut panel_width, _] = panel.content_size();
            if panel.is_chart() && row.len() == 1 {
                panel_width = width - 2 * GAP;
            }
            place(&mut canvas, panel, [x, y + TITLE + NOTE]);
            places.push((panel, [x, y], panel_width));
            x += column_width(row, i) + GAP;
        }
        y += height_of(row) + GAP;
    }
    draw_png(canvas, |root| {
        for (panel, at, width) in places {
            draw_panel(root, panel, at, width)?;
        }
        for (i, line) in (0..).zip(caption) {
            write(root, line, [GAP, body + i * LINE], LINE_POINTS)?;
        }
        Ok(())
    })
}

fn place(canvas: &mut RgbImage, panel: &Panel, [x, y]: [u32; 2]) {
    let mut put = |picture: &RgbImage, x: u32| {
        image::imageops::replace(canvas, picture, i64::from(x), i64::from(y));
    };
    match &panel.content {
        Content::Picture(picture) => put(picture, x),
        Content::HeatMap { picture, bar, .. } => {
            put(picture, x);
            put(bar, x + picture.width() + GAP);
        }
        Content::Histograms(_) | Content::Channels { .. } => {}
    }
}

/// Everything but the pixels of pictures.
fn draw_panel(root: &Area<'_>, panel: &Panel, [x, y]: [u32; 2], width: u32) -> Drawn {
    write(root, &panel.title, [x, y + 8], TITLE_POINTS)?;
    let note = ("sans-serif", NOTE_POINTS).into_text_style(root);
    let note = note.color(&RGBColor(90, 90, 90));
    root.draw_text(&panel.note, &note, (x as i32, (y + TITLE) as i32))?;
    let top = y + TITLE + NOTE;
    let height = panel.content_size()[1];
    let part = || root.clone().shrink((x, top), (width, height));
    let mut labelled = width;
    match &panel.content {
        Content::Picture(_) => {}
        Content::HeatMap {
            picture,
            blocks,
            end,
            bar,
        } => {
            labelled = picture.width();
            let bar_right = x + labelled + GAP + bar.width();
            block_lines(root, [x, top], [labelled, height], *blocks)?;
            bar_labels(root, [bar_right + 6, top], height, *end)?;
        }
        Content::Histograms(series) => histograms(&part(), series)?,
        Content::Channels { series, what } => channels(&part(), series, what)?,
    }
    let share = f64::from(labelled) / panel.labels.len().max(1) as f64;
    for (i, label) in panel.labels.iter().enumerate() {
        let indent = (share - f64::from(text_width(label, NOTE_POINTS))) / 2.0;
        let at = f64::from(x) + i as f64 * share + indent.max(0.0);
        write(root, label, [at as u32, top + height + 6], NOTE_POINTS)?;
    }
    Ok(())
}

fn write(root: &Area<'_>, text: &str, [x, y]: [u32; 2], points: f64) -> Drawn {
    let style = ("sans-serif", points).into_text_style(root);
    Ok(root.draw_text(text, &style, (x as i32, y as i32))?)
}

/// Whether lines between so many channels would not hide what they divide.
pub(super) fn has_block_lines(blocks: usize) -> bool {
    (2..=24).contains(&blocks)
}

/// A frame, and lines between the channels.
fn block_lines(root: &Area<'_>, at: [u32; 2], size: [u32; 2], blocks: usize) -> Drawn {
    let [x, y] = at.map(|v| v as i32);
    let [w, h] = size.map(|v| v as i32);
    let blocks = if has_block_lines(blocks) {
        blocks as i32
    } else {
        1
    };
    for i in 0..=blocks {
        let (dx, dy) = (i * w / blocks, i * h / blocks);
        root.draw(&PathElement::new([(x + dx, y), (x + dx, y + h)], BLACK))?;
        root.draw(&PathElement::new([(x, y + dy), (x + w, y + dy)], BLACK))?;
    }
    Ok(())
}

/// What stands beside the bar of colours from `end` to -`end`: how far down, and the value.
fn bar_values(end: f32) -> [(f64, f32); 5] {
    [
        (0.0, end),
        (0.25, end / 2.0),
        (0.5, 0.0),
        (0.75, -end / 2.0),
        (1.0, -end),
    ]
}

fn bar_labels(root: &Area<'_>, [x, y]: [u32; 2], height: u32, end: f32) -> Drawn {
    for (share, value) in bar_values(end) {
        let down = label_top(share, height);
        write(root, &short(value), [x, y + down], 15.0)?;
    }
    Ok(())
}

/// Where a label begins that stands so far down a bar: it is 14 pixels high and lies beside the bar as a whole.
fn label_top(share: f64, height: u32) -> u32 {
    let down = (share * f64::from(height)) as u32;
    down.saturating_sub(8).min(height.saturating_sub(14))
}

/// A number for a scale: three decimals, or two digits and an exponent.
pub fn short(value: f32) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (0.01..1000.0).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Shares on a log scale over standard deviations, without a line where there is nothing.
fn histograms(part: &Area<'_>, series: &[(String, Vec<f32>)]) -> Drawn {
    let shares = series.iter().flat_map(|(_, shares)| shares.iter());
    let least = shares.filter(|&&v| v > 0.0).fold(1f32, |a, &b| a.min(b));
    let mut chart = ChartBuilder::on(part)
        .margin(4)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(
            -SIGMAS..SIGMAS,
            ((least.max(1e-9) * 0.7).min(1e-2)..1.0f32).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("value in its own standard deviations; the ends hold all beyond")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_desc("share of values")
        .y_label_formatter(&|v| format!("{v:.0e}"))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, shares), colour) in series.iter().zip(SERIES) {
        let width = 2.0 * SIGMAS / BINS as f32;
        let at = |i: usize| -SIGMAS + (i as f32 + 0.5) * width;
        let style = colour.stroke_width(2);
        for run in runs(shares) {
            let line: Vec<(f32, f32)> = run.map(|i| (at(i), shares[i])).collect();
            if let [alone] = line[..] {
                chart.draw_series([Circle::new(alone, 2, colour.filled())])?;
            }
            chart.draw_series(LineSeries::new(line, style))?;
        }
        chart
            .draw_series(std::iter::empty::<Circle<(f32, f32), i32>>())?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}

/// Where `shares` are above 0, run by run: a line through more would show what is not there.
pub fn runs(shares: &[f32]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for i in (0..shares.len()).filter(|&i| shares[i] > 0.0) {
        match runs.last_mut() {
            Some(run) if run.end == i => run.end += 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// One number a channel.
fn channels(part: &Area<'_>, series: &[(String, Vec<f32>)], what: &str) -> Drawn {
    let count = series
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(1);
    let mut chart = ChartBuilder::on(part)
        .margin(4)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(0f32..count as f32 + 1.0, 0f32..1f32)?;
    chart
        .configure_mesh()
        .x_desc("channel, from left to right and from top to bottom")
        .y_desc(what)
        .y_labels(5)
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .x_label_formatter(&|v| match (v - v.round()).abs() < 1e-3 {
            true => format!("{v:.0}"),
            false => String::new(),
        })
        .draw()?;
    for ((name, values), colour) in series.iter().zip(SERIES) {
        let points = values.iter().enumerate().filter(|(_, v)| v.is_finite());
        let dots = points.map(|(i, &v)| Circle::new((i as f32 + 1.0, v), 3, colour.filled()));
        chart
            .draw_series(dots)?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 3, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_of_colours_falls_from_its_end_to_minus_its_end() {
        let words: Vec<String> = bar_values(2.0).iter().map(|(_, v)| short(*v)).collect();
        assert_eq!(words, ["2.000", "1.000", "0", "-1.000", "-2.000"]);
        let shares: Vec<f64> = bar_values(2.0).iter().map(|(share, _)| *share).collect();
        assert!(shares.windows(2).all(|two| two[0] < two[1]), "{shares:?}");
        let tops: Vec<u32> = shares.iter().map(|&share| label_top(share, 200)).collect();
        assert_eq!(tops, [0, 42, 92, 142, 186]);
        assert_eq!(label_top(1.0, 9), 0);
    }

    #[test]
    fn runs_end_where_nothing_is() {
        assert_eq!(runs(&[0.0, 0.5, 0.1, 0.0, 0.0, 0.4]), [1..3, 5..6]);
        assert_eq!(runs(&[0.2, 0.8]).first(), Some(&(0..2)));
        assert!(runs(&[0.0, f32::NAN]).is_empty());
    }

    #[test]
    fn panels_are_as_wide_as_their_titles() {
        let narrow = || Content::Picture(RgbImage::new(9, 30));
        let title = "a title that is much wider than its picture";
        let panel = Panel::new(title, "", narrow());
        assert!(panel.width() >= text_width(title, TITLE_POINTS));
        let [alone, both] = [1, 2].map(|n| {
            let row = (0..n).map(|_| Panel::new(title, "", narrow())).collect();
            let page = sheet(&[row], &[]).unwrap();
            image::load_from_memory(&page).unwrap().width()
        });
        assert!(both >= alone + panel.width());
        let noted = Panel::new("", title, narrow());
        assert!(noted.width() >= text_width(title, NOTE_POINTS));
        assert_eq!(Panel::new("", "", narrow()).width(), 9);
    }

    #[test]
    fn numbers_on_scales_are_short() {
        for (value, wanted) in [
            (0.0, "0"),
            (0.01, "0.010"),
            (-0.009, "-9.0e-3"),
            (-999.5, "-999.500"),
            (1000.0, "1.0e3"),
        ] {
            assert_eq!(short(value), wanted);
        }
    }

    #[test]
    fn each_line_of_a_chart_has_a_colour_of_its_own() {
        let both = |values: [Vec<f32>; 2]| {
            let names = ["before", "after"].map(String::from);
            names.into_iter().zip(values).collect::<Vec<_>>()
        };
        let shares = [20, 120].map(|from| {
            let here = |i: usize| f32::from(u8::from((from..from + 30).contains(&i))) / 30.0;
            (0..BINS).map(here).collect()
        });
        let heights = [vec![0.25; 40], vec![0.75; 40]];
        let contents = [
            Content::Histograms(both(shares)),
            Content::Channels {
                series: both(heights),
                what: "Hoyer",
            },
        ];
        for (content, across) in contents.into_iter().zip([true, false]) {
            let page = sheet(&[vec![Panel::new("", "", content)]], &[]).unwrap();
            let page = image::load_from_memory(&page).unwrap().to_rgb8();
            // Without the legend, in the upper right corner.
            let middle = |i: usize| {
                let at = page.enumerate_pixels().filter(|(x, y, pixel)| {
                    let in_legend = *x > page.width() * 3 / 4 && *y < page.height() / 2;
                    pixel.0 == series_colour(i) && !in_legend
                });
                let at: Vec<u32> = at.map(|(x, y, _)| if across { x } else { y }).collect();
                assert!(at.len() > 50, "{i}: {} pixels", at.len());
                at.iter().sum::<u32>() / at.len() as u32
            };
            // The first to the left of the second, or below it.
            assert_eq!(middle(0) < middle(1), across);
        }
        let all: std::collections::BTreeSet<[u8; 3]> =
            (0..SERIES.len()).map(series_colour).collect();
        assert_eq!(
            (all.len(), series_colour(SERIES.len())),
            (8, series_colour(0))
        );
    }
}
