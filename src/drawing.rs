//! Drawing with lines and text, to PNG and SVG.

use std::sync::{LazyLock, Once};

use ab_glyph::{Font, FontRef, OutlinedGlyph, Rect, ScaleFont, point};
use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::{FontStyle, RGBColor, WHITE};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use crate::{Error, Result};

/// Colours of what is drawn side by side: Okabe and Ito's, which the colour-blind tell apart, without those that
/// are hard to see on black or on white.
pub(crate) const SERIES: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    // Not theirs: a dark red.
    RGBColor(120, 30, 50),
];

/// What is drawn on, into pixels.
pub(crate) type Area<'a> = DrawingArea<Pixels<'a>, Shift>;
/// What drawing on it gives.
pub(crate) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// `canvas` with what `draw` puts on it, as a PNG file. Text is to be in "sans-serif".
///
/// # Errors
/// What `draw` reports.
pub(crate) fn draw_png(canvas: RgbImage, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<Vec<u8>> {
    let size = canvas.dimensions();
    let mut pixels = canvas.into_raw();
    draw_on(Pixels(BitMapBackend::with_buffer(&mut pixels, size)), draw)?;
    let canvas = RgbImage::from_raw(size.0, size.1, pixels)
        .ok_or_else(|| Error::bug("a drawing has another size than its picture"))?;
    encode_png(&canvas)
}

/// What `draw` puts on white of `size`, as an SVG file. Its text is the viewer's "sans-serif".
///
/// # Errors
/// What `draw` reports.
pub(crate) fn draw_svg(
    size: (u32, u32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<Vec<u8>> {
    let mut text = String::new();
    draw_on(SVGBackend::with_string(&mut text, size), |area| {
        area.fill(&WHITE)?;
        draw(area)
    })?;
    Ok(text.into_bytes())
}

fn draw_on<B: DrawingBackend>(
    backend: B,
    draw: impl FnOnce(&DrawingArea<B, Shift>) -> Drawn,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    register_font();
    let area = backend.into_drawing_area();
    draw(&area)
        .and_then(|()| Ok(area.present()?))
        .map_err(|e| Error::Config(format!("drawing: {e}")))
}

/// Pixels that `text` in "sans-serif" of so many `points` is wide.
#[cfg(feature = "pictures")]
pub(crate) fn text_width(text: &str, points: f64) -> u32 {
    // Only without the font, and then drawing says so.
    lay_out(text, points).map_or(0, |laid| laid.width)
}

/// A picture as a PNG file.
///
/// # Errors
/// None but those of the encoder.
pub(crate) fn encode_png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|e| Error::Config(format!("encoding a picture: {e}")))?;
    Ok(bytes.into_inner())
}

const FONT: &[u8] = epaint_default_fonts::UBUNTU_LIGHT;

/// Makes the font known to plotters, which brings none of its own.
fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It fails for a broken font only; then drawing text says so.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, FONT);
    });
}

/// A line of text as outlines, the baseline at 0.
struct LaidOut {
    letters: Vec<OutlinedGlyph>,
    width: u32,
}

/// `None` only if the font is broken. Letters stand at parts of pixels: to the nearest pixel, those of small text stand visibly too
/// close here and too far apart there.
fn lay_out(text: &str, size: f64) -> Option<LaidOut> {
    static PARSED: LazyLock<Option<FontRef<'static>>> =
        LazyLock::new(|| FontRef::try_from_slice(FONT).ok());
    let font = PARSED.as_ref()?.as_scaled(size as f32);
    let (mut x, mut before) = (0.0, None);
    let mut letters = Vec::new();
    for c in text.chars() {
        let mut glyph = font.scaled_glyph(c);
        x += before.map_or(0.0, |before| font.kern(before, glyph.id));
        before = Some(glyph.id);
        glyph.position = point(x, 0.0);
        x += font.h_advance(glyph.id);
        letters.extend(font.outline_glyph(glyph));
    }
    let width = x.ceil() as u32;
    Some(LaidOut { letters, width })
}

/// Height of text of `size`, from which plotters counts when it centres or lifts it.
fn text_height(size: f64) -> i32 {
    (size / 1.24) as i32
}

/// plotters' pixels, but for text: plotters puts every letter at a whole pixel and leaves out the room to its left.
pub(crate) struct Pixels<'a>(BitMapBackend<'a>);

type PixelError<'a> = <BitMapBackend<'a> as DrawingBackend>::ErrorType;
type Done<'a, T = ()> = std::result::Result<T, DrawingErrorKind<PixelError<'a>>>;

impl<'a> DrawingBackend for Pixels<'a> {
    type ErrorType = PixelError<'a>;

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Done<'a> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Done<'a> {
        self.0.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, colour: BackendColor) -> Done<'a> {
        self.0.draw_pixel(at, colour)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Done<'a> {
        self.0.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Done<'a> {
        self.0.draw_rect(upper_left, bottom_right, style, fill)
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Done<'a> {
        let laid = laid_out(text, style)?;
        let right = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -(laid.width as i32) / 2,
            HPos::Right => -(laid.width as i32),
        };
        let down = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -text_height(style.size()) / 2,
            VPos::Bottom => -text_height(style.size()),
        };
        let baseline = (style.size() / 2.0).ceil() as i32;
        let mut drawn = Ok(());
        for letter in &laid.letters {
            let Rect { min, .. } = letter.px_bounds();
            letter.draw(|x, y, coverage| {
                let x = right + min.x as i32 + x as i32;
                let y = down + baseline + min.y as i32 + y as i32;
                let (x, y) = style.transform().transform(x, y);
                let (x, y) = (at.0 + x, at.1 + y);
                // Beyond an edge nothing is drawn.
                if drawn.is_ok() {
                    let colour = style.color().mix(f64::from(coverage.min(1.0)));
                    drawn = self.0.draw_pixel((x, y), colour);
                }
            });
        }
        drawn
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Done<'a, (u32, u32)> {
        let width = laid_out(text, style)?.width;
        Ok((width, text_height(style.size()) as u32))
    }
}

fn laid_out<'a>(text: &str, style: &impl BackendTextStyle) -> Done<'a, LaidOut> {
    lay_out(text, style.size())
        .ok_or_else(|| DrawingErrorKind::FontError("the font is broken".into()))
}

#[cfg(test)]
mod tests {
    use plotters::style::text_anchor::Pos;
    use plotters::style::{BLACK, IntoTextStyle};

    use super::*;

    /// How dark `text` makes each column of a picture; it begins at the tenth.
    fn darkness(text: &str) -> Vec<f64> {
        let canvas = RgbImage::from_pixel(200, 40, image::Rgb([255; 3]));
        let file = draw_png(canvas, |area| {
            let style = ("sans-serif", 15).into_text_style(area).color(&BLACK);
            Ok(area.draw_text(text, &style, (10, 10))?)
        });
        let picture = image::load_from_memory(&file.unwrap()).unwrap().into_rgb8();
        let dark = |x| {
            (0..40)
                .map(|y| 255.0 - f64::from(picture.get_pixel(x, y).0[0]))
                .sum()
        };
        (0..200).map(dark).collect()
    }

    /// Strokes that are all the same are as far apart as the font has them, to a small part of a pixel.
    #[test]
    fn letters_are_spaced_evenly() {
        let columns = darkness("l l l l l l l l l l l l");
        let places: Vec<(f64, f64)> = (0..).map(f64::from).zip(columns).collect();
        let strokes = places
            .split(|place| place.1 == 0.0)
            .filter(|stroke| !stroke.is_empty());
        let middles = strokes.map(|stroke| {
            let weighted: f64 = stroke.iter().map(|(x, dark)| x * dark).sum();
            weighted / stroke.iter().map(|place| place.1).sum::<f64>()
        });
        let middles: Vec<f64> = middles.collect();
        assert_eq!(middles.len(), 12);
        let gaps = middles.windows(2).map(|two| two[1] - two[0]);
        let wanted = (middles[11] - middles[0]) / 11.0;
        let worst = gaps.map(|gap| (gap - wanted).abs()).fold(0.0, f64::max);
        assert!(worst < 0.1, "{worst}: {middles:?}");
        // Such text needs parts of pixels.
        assert!((wanted - wanted.round()).abs() > 0.1, "{wanted}");
    }

    #[test]
    fn text_is_as_wide_as_it_is_laid_out() {
        let width = |text: &str| lay_out(text, 15.0).unwrap().width as usize;
        let last = darkness("deconvolved").iter().rposition(|&dark| dark > 0.0);
        assert!(last.unwrap().abs_diff(10 + width("deconvolved")) <= 2);
        assert_eq!(width(""), 0);
        // 16 letters are wider than 16 times one rounded down.
        assert!((width("llllllllllllllll") as f64) < 16.0 * width("l") as f64);
    }

    /// Numbers of axes end at their ticks, and titles are in the middle.
    #[test]
    fn text_begins_ends_or_is_centred_at_its_place() {
        let ends = |h_pos: HPos, v_pos: VPos| {
            let canvas = RgbImage::from_pixel(200, 80, image::Rgb([255; 3]));
            let file = draw_png(canvas, |area| {
                let style = ("sans-serif", 15).into_text_style(area).color(&BLACK);
                let style = style.pos(Pos::new(h_pos, v_pos));
                Ok(area.draw_text("HHHHHHHH", &style, (100, 40))?)
            });
            let picture = image::load_from_memory(&file.unwrap()).unwrap().into_rgb8();
            let dark = picture.enumerate_pixels().filter(|(_, _, p)| p.0[0] < 128);
            let (xs, ys): (Vec<u32>, Vec<u32>) = dark.map(|(x, y, _)| (x, y)).unzip();
            let ends = |all: &[u32]| [*all.iter().min().unwrap(), *all.iter().max().unwrap()];
            (ends(&xs), ends(&ys))
        };
        let middle = |[low, high]: [u32; 2]| (low + high).abs_diff(2 * 100);
        let ([left, _], [top, _]) = ends(HPos::Left, VPos::Top);
        assert!(
            (100..103).contains(&left) && (38..45).contains(&top),
            "{left} {top}"
        );
        let (across, down) = ends(HPos::Center, VPos::Center);
        assert!(
            middle(across) <= 4 && down[0] < 40 && down[1] > 40,
            "{across:?} {down:?}"
        );
        let ([_, right], [_, bottom]) = ends(HPos::Right, VPos::Bottom);
        assert!(
            (96..=100).contains(&right) && (34..=42).contains(&bottom),
            "{right} {bottom}"
        );
    }

    #[test]
    fn svg_is_text_that_xml_can_hold() {
        let file = draw_svg((200, 40), |area| {
            let style = ("sans-serif", 15).into_text_style(area);
            Ok(area.draw_text("a<b & \"c\"", &style, (10, 10))?)
        });
        let text = String::from_utf8(file.unwrap()).unwrap();
        assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("a&lt;b &amp; &quot;c&quot;"), "{text}");
    }

    #[test]
    fn text_may_reach_beyond_every_edge() {
        let canvas = RgbImage::from_pixel(20, 12, image::Rgb([255; 3]));
        let file = draw_png(canvas, |area| {
            let style = ("sans-serif", 15).into_text_style(area).color(&BLACK);
            for at in [(-40, -6), (12, 6)] {
                area.draw_text("HHHHHHHH", &style, at)?;
            }
            Ok(())
        });
        let picture = image::load_from_memory(&file.unwrap()).unwrap().into_rgb8();
        let is_dark = |xs: std::ops::Range<u32>| {
            let mut places = xs.flat_map(|x| (0..12).map(move |y| (x, y)));
            places.any(|(x, y)| picture.get_pixel(x, y).0[0] < 128)
        };
        assert!(is_dark(0..10) && is_dark(13..20));
    }
}
