//! Drawing with lines and text, to PNG.

use std::sync::Once;

use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::{BitMapBackend, DrawingArea, IntoDrawingArea};
use plotters::style::{FontStyle, IntoFont, RGBColor};

use crate::{Error, Result};

/// Colours of what is drawn side by side: Okabe and Ito's, which the colour-blind tell apart, without those that
/// are hard to see on black or on white.
pub(crate) const SERIES: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
/// What drawing on it gives.
pub(crate) type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// `canvas` with what `draw` puts on it, as a PNG file. Text is to be in "sans-serif".
///
/// # Errors
/// What `draw` reports.
pub(crate) fn draw_png(canvas: RgbImage, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<Vec<u8>> {
    register_font();
    let size = canvas.dimensions();
    let mut pixels = canvas.into_raw();
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        draw(&area)
            .and_then(|()| Ok(area.present()?))
            .map_err(|e| Error::Config(format!("drawing: {e}")))?;
    }
    let canvas = RgbImage::from_raw(size.0, size.1, pixels)
        .ok_or_else(|| Error::bug("a drawing has another size than its picture"))?;
    encode_png(&canvas)
}

/// Pixels that `text` in "sans-serif" of so many `points` is wide.
#[cfg(feature = "pictures")]
pub(crate) fn text_width(text: &str, points: f64) -> u32 {
    register_font();
    let size = ("sans-serif", points).into_font().box_size(text);
    // Only without the font, and then drawing says so.
    size.map_or(0, |(width, _)| width)
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

/// Makes the font known to plotters, which brings none of its own.
fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // It fails for a broken font only; then drawing text says so.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, font);
    });
}
