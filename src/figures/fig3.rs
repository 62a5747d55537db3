//! Figure 3: an image, the magnitudes of its zero-mean values, the deconvolved image, its magnitudes. With a blur
//! also Figure 1's story: an image is blurred, which correlates its pixels, and deconvolution takes that back.

use std::path::Path;
use std::sync::Arc;

use super::scene::{Numbers, OF_PAGE, Scene, SceneOptions};
use super::sheet::{Content, NamedPicture, Panel, file_names, sheet, write_figure};
use super::views::{SIDE, find, fitted};
use crate::Result;
use crate::gpu::Gpu;
use crate::nn::resolve_block;
use crate::picture::Picture;

/// Figure 3 of one image.
#[derive(Clone, Debug)]
pub struct Fig3 {
    /// The panels, with as many pixels as the image.
    pub panels: Vec<NamedPicture>,
    /// Numbers.
    pub numbers: Numbers,
    /// The page, a PNG file.
    pub sheet: Vec<u8>,
}

/// The views of a scene that are the image in one way or another, in the order of the figure, and how to
/// read them.
const PANELS: [(&str, &str); 5] = [
    ("original", "the image as it is"),
    ("a_input", "what is deconvolved"),
    ("b_zero_mean_abs", "how far each colour is from its mean"),
    (
        "c_deconvolved",
        "symmetric about grey; the outermost thousandth is cut",
    ),
    (
        "d_deconvolved_abs",
        "black is 0; the outermost thousandth is cut",
    ),
];

/// Computes Figure 3 of `input`. (a) is as it is, (b) and (d) are stretched from 0 to the largest value, (c)
/// symmetrically, so that grey is 0; in (c) and (d) the outermost thousandth of the values is cut.
///
/// # Errors
/// [`crate::Error::Config`] for options that make no sense, [`crate::Error::Limit`] for an image that does not
/// fit the device, and what the device reported.
pub fn fig3(gpu: &Arc<Gpu>, input: &Picture, options: SceneOptions) -> Result<Fig3> {
    let size = [input.height, input.width];
    let is_of_page = fitted(size, SIDE) == size;
    let mut scene = match is_of_page {
        true => Scene::new(gpu, input, options, None)?,
        false => Scene::with_page(gpu, input, options, SIDE)?,
    };
    scene.step(&options)?;
    let numbers = scene.finish()?;
    let panels = panels(&scene, "")?;
    let for_page = match is_of_page {
        true => panels.clone(),
        false => self::panels(&scene, OF_PAGE)?,
    };
    let block = resolve_block(options.block, input.channels);
    let sheet = page(for_page, &numbers, &SceneOptions { block, ..options })?;
    Ok(Fig3 {
        panels,
        numbers,
        sheet,
    })
}

/// Those that `scene` has, of the views whose names end in `of`.
fn panels(scene: &Scene, of: &str) -> Result<Vec<NamedPicture>> {
    let mut panels = Vec::new();
    for (name, _) in PANELS {
        if let Ok(view) = find(scene.views(), &format!("{name}{of}")) {
            panels.push(NamedPicture {
                name: name.into(),
                ..view.named(scene.store())?
            });
        }
    }
    Ok(panels)
}

/// All panels in two columns, the histograms, and the numbers as a caption.
fn page(panels: Vec<NamedPicture>, numbers: &Numbers, options: &SceneOptions) -> Result<Vec<u8>> {
    let mut all: Vec<Panel> = Vec::new();
    for one in panels {
        let note = PANELS.iter().find(|(name, _)| *name == one.name);
        let note = note.map_or("", |(_, note)| note);
        all.push(Panel::new(one.title, note, Content::Picture(one.picture)));
    }
    let [before, after] = numbers.histograms.clone();
    let series = vec![("before".to_string(), before), ("after".to_string(), after)];
    all.push(Panel::new(
        "values before and after deconvolution",
        "on a log scale: sparse values have a high peak and long tails",
        Content::Histograms(series),
    ));
    if options.blur > 0.0 {
        // Beside the original, so that (a) and (b), (c) and (d) face each other.
        let chart = all.len() - 1;
        all[1..=chart].rotate_right(1);
    }
    let mut rows: Vec<Vec<Panel>> = Vec::new();
    for panel in all {
        match rows.last_mut() {
            Some(row) if row.len() < 2 => row.push(panel),
            _ => rows.push(vec![panel]),
        }
    }
    sheet(&rows, &caption(numbers, options))
}

fn caption(numbers: &Numbers, options: &SceneOptions) -> Vec<String> {
    let mut caption = Vec::new();
    for (name, before, after) in numbers.report.rows() {
        caption.push(format!("{name}: {before} before, {after} after"));
    }
    let blur = match options.blur > 0.0 {
        true => format!(", blurred by a Gaussian of {} pixels", options.blur),
        false => String::new(),
    };
    caption.extend(numbers.report.notice.map(String::from));
    caption.push(format!(
        "k {}, block {}, {}{blur}",
        options.kernel_size,
        options.block,
        options.statistics.describe()
    ));
    caption
}

impl Fig3 {
    /// The names of the files that [`Fig3::write`] writes.
    pub fn files(&self) -> Vec<String> {
        file_names(&self.panels, "fig3.png")
    }

    /// Writes the panels and the page `fig3.png` into `dir`, which is made; returns the names of the
    /// files.
    ///
    /// # Errors
    /// [`crate::Error::Io`] with the path.
    pub fn write(&self, dir: &Path) -> Result<Vec<String>> {
        write_figure(dir, &self.panels, "fig3.png", &self.sheet)
    }
}

#[cfg(test)]
mod tests {
    use super::super::measures::{Fig3Report, Measures, Sparsity};
    use super::*;

    #[test]
    fn the_caption_has_each_number_behind_its_name() {
        let side = |at: f64| Measures {
            sparsity: Sparsity {
                excess_kurtosis: at + 0.1,
                hoyer: at + 0.2,
                near_zero: at + 0.3,
            },
            max_correlation: at + 0.4,
        };
        let numbers = Numbers {
            report: Fig3Report::new(side(0.0), side(0.5), None, Some("few")),
            histograms: [Vec::new(), Vec::new()],
            cov_ends: [1.0; 2],
        };
        let mut options = SceneOptions {
            kernel_size: 7,
            block: 1,
            blur: 1.5,
            ..SceneOptions::default()
        };
        let wanted = [
            "excess kurtosis: 0.100 before, 0.600 after",
            "Hoyer's sparsity: 0.2000 before, 0.7000 after",
            "share of |x| under 0.1 sigma: 0.3000 before, 0.8000 after",
            "largest |correlation| in patches: 0.4000 before, 0.9000 after",
            "few",
            "k 7, block 1, eps 1e-5, n_iter 15, blurred by a Gaussian of 1.5 pixels",
        ];
        assert_eq!(caption(&numbers, &options), wanted);
        options.blur = 0.0;
        assert_eq!(
            caption(&numbers, &options)[5],
            "k 7, block 1, eps 1e-5, n_iter 15"
        );
    }
}
