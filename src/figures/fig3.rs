//! Figure 3: an image, its zero-mean size, the deconvolved image, its size. With a blur also the story
//! of Figure 1.

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;

use super::fig2::write_figure;
use super::picture::Picture;
use super::scene::{Numbers, Scene, SceneOptions};
use super::sheet::{Content, Panel, sheet};
use super::views::{SIDE, find};
use crate::gpu::Gpu;
use crate::{Error, Result};

/// Figure 3 of one image.
#[derive(Clone, Debug)]
pub struct Fig3 {
    /// The panels: file stem, title, picture with as many pixels as the image.
    pub panels: Vec<(String, String, RgbImage)>,
    /// Figures.
    pub numbers: Numbers,
    /// The page, a PNG file.
    pub sheet: Vec<u8>,
}

/// The views of a scene that are the image in one way or another, in the order of the figure.
const PANELS: [&str; 5] = [
    "original",
    "a_input",
    "b_zero_mean_abs",
    "c_deconvolved",
    "d_deconvolved_abs",
];

/// Computes Figure 3 of `input`. (a) is stretched from its least to its largest value, (b) and (d) from 0,
/// (c) symmetrically, so that grey is 0; in (c) and (d) the outermost thousandth of the values is cut.
///
/// # Errors
/// [`Error::Config`] for options that make no sense, [`Error::Limit`] for an image that does not
/// fit the device, and what the device reported.
pub fn fig3(gpu: &Arc<Gpu>, input: &Picture, options: SceneOptions) -> Result<Fig3> {
    let mut scene = Scene::new(gpu, input, options, None)?;
    let (panels, numbers) = run(&mut scene, &options)?;
    let small = SceneOptions {
        side: Some(SIDE),
        ..options
    };
    let mut scene = Scene::new(gpu, input, small, Some(&scene))?;
    let (for_sheet, _) = run(&mut scene, &small)?;
    let sheet = page(for_sheet, &numbers, &options)?;
    Ok(Fig3 {
        panels,
        numbers,
        sheet,
    })
}

type Panels = Vec<(String, String, RgbImage)>;

fn run(scene: &mut Scene, options: &SceneOptions) -> Result<(Panels, Numbers)> {
    scene.step(options)?;
    let numbers = scene.take(true)?;
    let numbers = numbers.ok_or_else(|| Error::DeviceLost("the step left no result".into()))?;
    let mut panels = Vec::new();
    for name in PANELS {
        if let Ok(view) = find(scene.views(), name) {
            let picture = view.read(scene.store())?;
            panels.push((view.name.clone(), view.title.clone(), picture));
        }
    }
    Ok((panels, numbers))
}

/// All panels in two columns, the histograms, and the figures as a caption.
fn page(panels: Panels, numbers: &Numbers, options: &SceneOptions) -> Result<Vec<u8>> {
    let mut rows: Vec<Vec<Panel>> = Vec::new();
    let mut picture_panels = panels.into_iter().map(|(name, title, picture)| {
        let is_original = name == "original";
        (is_original, Panel::new(title, Content::Picture(picture)))
    });
    let mut row = Vec::new();
    for (is_original, panel) in &mut picture_panels {
        row.push(panel);
        if is_original || row.len() == 2 {
            rows.push(std::mem::take(&mut row));
        }
    }
    let [before, after] = numbers.histograms.clone();
    let series = vec![("before".to_string(), before), ("after".to_string(), after)];
    let title = "values before and after deconvolution";
    let chart = Panel::new(title, Content::Histograms(series));
    match rows.first_mut() {
        Some(first) if first.len() == 1 => first.push(chart),
        _ => rows.push(vec![chart]),
    }
    let mut caption = Vec::new();
    for (name, before, after) in numbers.report.rows() {
        caption.push(format!("{name}: {before} before, {after} after"));
    }
    let blur = match options.blur > 0.0 {
        true => format!(", blurred by a Gaussian of {} pixels", options.blur),
        false => String::new(),
    };
    caption.push(format!(
        "k {}, block {}, eps {:e}, n_iter {}{blur}",
        options.kernel_size, options.block, options.eps, options.n_iter
    ));
    sheet(&rows, &caption)
}

impl Fig3 {
    /// Writes the panels and the page `fig3.png` into `dir`, which is made; returns the names of the
    /// files.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn write(&self, dir: &Path) -> Result<Vec<String>> {
        write_figure(dir, &self.panels, "fig3.png", &self.sheet)
    }
}
