//! Panels with titles, scales and captions on one page, as a PNG file.

use image::RgbImage;
use plotters::prelude::*;

use super::measures::{BINS, SIGMAS};
use crate::Result;
use crate::drawing::{Area, Drawn, draw_png};

const GAP: u32 = 18;
const TITLE: u32 = 32;
const LINE: u32 = 26;
/// Width of what stands beside a heat map: its bar and the bar's labels.
const BAR_WIDTH: u32 = 100;
/// Of a chart.
const CHART: [u32; 2] = [480, 320];
/// Before and after.
const SERIES: [RGBColor; 2] = [RGBColor(70, 70, 70), RGBColor(200, 60, 30)];

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
    /// A figure in [0, 1] for each channel, with names.
    Channels(Vec<(String, Vec<f32>)>),
}

/// A part of a page.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) content: Content,
}

impl Panel {
    pub(super) fn new(title: impl Into<String>, content: Content) -> Self {
        Self {
            title: title.into(),
            content,
        }
    }

    fn size(&self) -> [u32; 2] {
        match &self.content {
            Content::Picture(picture) => [picture.width(), picture.height()],
            Content::HeatMap { picture, .. } => [picture.width() + BAR_WIDTH, picture.height()],
            Content::Histograms(_) => CHART,
            Content::Channels(_) => [2 * CHART[0], CHART[1] / 2 + 40],
        }
    }
}

/// A page of rows of panels, under it the lines of a caption.
///
/// # Errors
/// Those of the encoder.
pub(super) fn sheet(rows: &[Vec<Panel>], caption: &[String]) -> Result<Vec<u8>> {
    let width_of = |row: &Vec<Panel>| row.iter().map(|p| p.size()[0] + GAP).sum::<u32>() + GAP;
    let height_of = |row: &Vec<Panel>| row.iter().map(|p| p.size()[1]).max().unwrap_or(0);
    let longest = caption.iter().map(|line| line.chars().count()).max();
    let width = rows.iter().map(width_of).max().unwrap_or(0);
    let width = width.max(longest.unwrap_or(0) as u32 * 9 + 2 * GAP);
    let body: u32 = rows.iter().map(|row| height_of(row) + TITLE + GAP).sum();
    let height = body + caption.len() as u32 * LINE + GAP;
    let mut canvas = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    let mut places = Vec::new();
    let mut y = 0;
    for row in rows {
        let mut x = GAP;
        for panel in row {
            place(&mut canvas, panel, [x, y + TITLE]);
            places.push((panel, [x, y]));
            x += panel.size()[0] + GAP;
        }
        y += height_of(row) + TITLE + GAP;
    }
    draw_png(canvas, |root| {
        for (panel, [x, y]) in places {
            write(root, &panel.title, [x, y + 8], 21.0)?;
            match &panel.content {
                Content::Picture(_) => {}
                Content::HeatMap {
                    picture,
                    blocks,
                    end,
                    ..
                } => {
                    let size = [picture.width(), picture.height()];
                    block_lines(root, [x, y + TITLE], size, *blocks)?;
                    bar_labels(root, [x + size[0] + GAP + 20, y + TITLE], size[1], *end)?;
                }
                Content::Histograms(series) => {
                    histograms(&part_of(root, panel, [x, y + TITLE]), series)?;
                }
                Content::Channels(series) => {
                    channels(&part_of(root, panel, [x, y + TITLE]), series)?;
                }
            }
        }
        for (i, line) in (0..).zip(caption) {
            write(root, line, [GAP, body + i * LINE], 19.0)?;
        }
        Ok(())
    })
}

fn part_of<'a>(root: &Area<'a>, panel: &Panel, [x, y]: [u32; 2]) -> Area<'a> {
    let [width, height] = panel.size();
    root.clone().shrink((x, y), (width, height))
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
        Content::Histograms(_) | Content::Channels(_) => {}
    }
}

fn write(root: &Area<'_>, text: &str, [x, y]: [u32; 2], points: f64) -> Drawn {
    let style = ("sans-serif", points).into_text_style(root);
    Ok(root.draw_text(text, &style, (x as i32, y as i32))?)
}

/// A frame, and lines between the channels.
fn block_lines(root: &Area<'_>, at: [u32; 2], size: [u32; 2], blocks: usize) -> Drawn {
    let [x, y] = at.map(|v| v as i32);
    let [w, h] = size.map(|v| v as i32);
    // More lines than this would hide what they divide.
    let blocks = if blocks > 24 { 1 } else { blocks as i32 };
    for i in 0..=blocks {
        let (dx, dy) = (i * w / blocks, i * h / blocks);
        root.draw(&PathElement::new([(x + dx, y), (x + dx, y + h)], BLACK))?;
        root.draw(&PathElement::new([(x, y + dy), (x + w, y + dy)], BLACK))?;
    }
    Ok(())
}

fn bar_labels(root: &Area<'_>, [x, y]: [u32; 2], height: u32, end: f32) -> Drawn {
    let height = height.min(256);
    for (share, value) in [
        (0.0, end),
        (0.25, end / 2.0),
        (0.5, 0.0),
        (0.75, -end / 2.0),
        (1.0, -end),
    ] {
        let down = (share * f64::from(height)) as u32;
        write(root, &short(value), [x, (y + down).saturating_sub(8)], 15.0)?;
    }
    Ok(())
}

/// Three digits.
fn short(value: f32) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (0.01..1000.0).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Shares on a log scale over standard deviations.
fn histograms(part: &Area<'_>, series: &[(String, Vec<f32>)]) -> Drawn {
    let shares = series.iter().flat_map(|(_, shares)| shares.iter());
    let least = shares.filter(|&&v| v > 0.0).fold(1f32, |a, &b| a.min(b));
    let mut chart = ChartBuilder::on(part)
        .margin(4)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(-SIGMAS..SIGMAS, (least.max(1e-9) * 0.7..1.0f32).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("value in standard deviations")
        .y_desc("share of values")
        .y_label_formatter(&|v| format!("{v:.0e}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((name, shares), colour) in series.iter().zip(SERIES) {
        let width = 2.0 * SIGMAS / BINS as f32;
        let at = |i: usize| -SIGMAS + (i as f32 + 0.5) * width;
        let points = shares.iter().enumerate().filter(|(_, v)| **v > 0.0);
        let line: Vec<(f32, f32)> = points.map(|(i, &v)| (at(i), v)).collect();
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}

/// One figure a channel.
fn channels(part: &Area<'_>, series: &[(String, Vec<f32>)]) -> Drawn {
    let count = series
        .iter()
        .map(|(_, values)| values.len())
        .max()
        .unwrap_or(1);
    let mut chart = ChartBuilder::on(part)
        .margin(4)
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(-1f32..1.12 * count as f32, 0f32..1f32)?;
    chart
        .configure_mesh()
        .x_desc("channel")
        .label_style(("sans-serif", 14))
        .x_label_formatter(&|v| format!("{v:.0}"))
        .draw()?;
    for ((name, values), colour) in series.iter().zip(SERIES) {
        let points = values.iter().enumerate().filter(|(_, v)| v.is_finite());
        let dots = points.map(|(i, &v)| Circle::new((i as f32, v), 3, colour.filled()));
        chart
            .draw_series(dots)?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 8, y), 3, colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .label_font(("sans-serif", 15))
        .draw()?;
    Ok(())
}
