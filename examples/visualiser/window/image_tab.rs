//! An image, its deconvolution, and sliders.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use decorr::figures::{self, Fig2Options, MAX_BLUR, Numbers, Picture, SIGMAS, Scene, SceneOptions};
use decorr::gpu::Gpu;
use decorr::nn::resolve_block;
use decorr::{Error, Result};
use eframe::egui::{self, Color32, RichText, Slider, Stroke, Vec2};
use egui_plot::{Legend, Line, Plot, PlotPoints, uniform_grid_spacer};

use super::canvas::Painter;
use super::{EXPORT, Export, OPEN, line_colour, messages, named};
use crate::files::spare;
use crate::options::{BUNDLED, picture};

/// Until it is looked at again whether a step is done.
const WAIT: Duration = Duration::from_millis(4);
/// Compiled scenes that are kept, so that a slider that comes back finds its own.
const SCENES: usize = 8;
/// Largest side of a painted picture in pixels; the window scales it to fit.
const SIDE: usize = 1024;
/// Largest side of an image: a photograph of a telephone's would fit few devices, and be slow on all.
const MAX_SIDE: usize = 2048;

/// An image to look at.
pub(crate) struct Opened {
    name: String,
    path: Option<PathBuf>,
    picture: Picture,
    /// Columns and rows of the file, if they were too many.
    of: Option<[usize; 2]>,
}

impl Opened {
    /// The one at `path`, or the bundled one, scaled down if it is large.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        if let Some(path) = path
            && !path.is_file()
        {
            // What is none could keep the window waiting for ever.
            return Err(Error::data(path, "is not a file"));
        }
        let whole = picture(path, None, None)?;
        let name = path.and_then(Path::file_name);
        let scaled = whole.scaled_down(MAX_SIDE)?;
        Ok(Self {
            name: name.map_or(BUNDLED.into(), |n| n.to_string_lossy().into_owned()),
            path: path.map(Path::to_path_buf),
            of: ([scaled.width, scaled.height] != [whole.width, whole.height])
                .then_some([whole.width, whole.height]),
            picture: scaled,
        })
    }

    /// Says so if it was scaled down.
    fn notice(&self) -> Option<String> {
        let [width, height] = self.of?;
        let (to_width, to_height) = (self.picture.width, self.picture.height);
        Some(format!(
            "scaled down from {width} x {height} to {to_width} x {to_height}"
        ))
    }
}

pub(crate) struct ImageTab {
    gpu: Arc<Gpu>,
    image: Opened,
    options: SceneOptions,
    /// The one used last stands last.
    scenes: Vec<(SceneOptions, Scene)>,
    /// What was submitted last.
    submitted: Option<SceneOptions>,
    /// When, if its numbers are not there yet.
    waiting_since: Option<Instant>,
    numbers: Option<Numbers>,
    finished: VecDeque<Instant>,
    milliseconds: f64,
    animate: bool,
    path: String,
    folder: String,
    pub(super) export: Export,
    message: Option<String>,
    error: Option<String>,
}

impl ImageTab {
    pub(crate) fn new(gpu: Arc<Gpu>, image: Opened) -> Self {
        let options = SceneOptions {
            side: Some(SIDE),
            ..SceneOptions::default()
        };
        Self {
            gpu,
            message: image.notice(),
            image,
            options,
            scenes: Vec::new(),
            submitted: None,
            waiting_since: None,
            numbers: None,
            finished: VecDeque::new(),
            milliseconds: 0.0,
            animate: false,
            path: String::new(),
            folder: "pictures".into(),
            export: Export::None,
            error: None,
        }
    }

    pub(crate) fn title(&self) -> String {
        let o = &self.options;
        let image = &self.image;
        let of = match image.of {
            Some([width, height]) => format!(" of {width} x {height}"),
            None => String::new(),
        };
        format!(
            "decorr: {} ({} x {}{of}), k {}, block {}, eps {:.1e}, n_iter {}, blur {:.1}",
            image.name,
            image.picture.width,
            image.picture.height,
            o.kernel_size,
            resolve_block(o.block, self.image.picture.channels),
            o.statistics.eps,
            o.statistics.n_iter,
            o.blur
        )
    }

    /// For the corner of the window.
    pub(crate) fn speed(&self) -> String {
        let rate = match (self.finished.front(), self.finished.back()) {
            (Some(first), Some(last)) if self.finished.len() > 2 => {
                let seconds = last.duration_since(*first).as_secs_f64().max(1e-3);
                format!(
                    ", {:.1} images/s",
                    (self.finished.len() - 1) as f64 / seconds
                )
            }
            _ => String::new(),
        };
        format!(
            "{:.1} ms an image{rate} on {}",
            self.milliseconds,
            self.gpu.name()
        )
    }

    pub(crate) fn open(&mut self, path: &Path) {
        self.message = None;
        match Opened::read(Some(path)) {
            Ok(image) => {
                self.message = image.notice();
                self.image = image;
                self.scenes.clear();
                self.submitted = None;
                self.waiting_since = None;
                self.numbers = None;
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    pub(crate) fn ask_for_image(&mut self) {
        let dialog = rfd::FileDialog::new().set_title("Open an image");
        if let Some(path) = dialog.pick_file() {
            self.open(&path);
        }
    }

    /// Writes what `fig2` and `fig3` write for these options.
    fn write_files(&mut self) {
        self.message = None;
        match self.write(Path::new(&self.folder)) {
            Ok(names) => {
                self.message = Some(format!("wrote {} files in {}", names.len(), self.folder));
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn write(&self, folder: &Path) -> Result<Vec<String>> {
        named(folder)?;
        let (fig2, fig3) = for_files(&self.options);
        let fig3 = figures::fig3(&self.gpu, &self.image.picture, fig3)?;
        let picture = [Ok(self.image.picture.clone())];
        let fig2 = figures::fig2(&self.gpu, picture, None, fig2)?;
        let names = [fig3.files(), fig2.files()].concat();
        spare(self.image.path.as_slice(), folder, &names)?;
        fig3.write(folder)?;
        fig2.write(folder)?;
        Ok(names)
    }

    /// Takes what is done and submits what changed: at most one step is under way.
    fn advance(&mut self, ctx: &egui::Context, painter: &mut Painter) -> Result<()> {
        if let (Some(since), Some((_, scene))) = (self.waiting_since, self.scenes.last_mut()) {
            if let Some(numbers) = scene.take()? {
                let now = Instant::now();
                self.numbers = Some(numbers);
                self.milliseconds = now.duration_since(since).as_secs_f64() * 1e3;
                self.finished.push_back(now);
                self.waiting_since = None;
            }
            ctx.request_repaint_after(WAIT);
        }
        let now = Instant::now();
        self.finished
            .retain(|&at| now.duration_since(at) < Duration::from_secs(2));
        if self.animate {
            let seconds = ctx.input(|i| i.time) as f32;
            self.options.blur = 2.0 + 1.9 * (seconds * 1.5).sin();
            ctx.request_repaint();
        }
        if self.waiting_since.is_none() && self.submitted != Some(self.options) {
            self.submit(painter)?;
            ctx.request_repaint_after(WAIT);
        }
        Ok(())
    }

    fn submit(&mut self, painter: &mut Painter) -> Result<()> {
        // Whether it works or not, it is not to be tried again until something changes.
        self.submitted = Some(self.options);
        let found = self
            .scenes
            .iter()
            .position(|(o, _)| o.serves(&self.options));
        let (made_for, mut scene) = match found {
            Some(index) => self.scenes.remove(index),
            None => {
                let like = self.scenes.last().map(|(_, scene)| scene);
                let scene = Scene::new(&self.gpu, &self.image.picture, self.options, like)?;
                (self.options, scene)
            }
        };
        let since = Instant::now();
        scene.step(&self.options)?;
        painter.copy("", scene.store(), scene.views())?;
        self.scenes.push((made_for, scene));
        if self.scenes.len() > SCENES {
            self.scenes.remove(0);
        }
        self.waiting_since = Some(since);
        self.error = None;
        Ok(())
    }

    pub(crate) fn ui(&mut self, ui: &mut egui::Ui, painter: &mut Painter) {
        let ctx = ui.ctx().clone();
        if self.export.is_due(&ctx) {
            self.write_files();
        }
        if let Err(error) = self.advance(&ctx, painter) {
            self.error = Some(error.to_string());
        }
        egui::Panel::left("controls")
            .default_size(300.0)
            .show(ui, |ui| {
                egui::ScrollArea::vertical().show(ui, |ui| self.controls(ui));
            });
        egui::CentralPanel::default().show(ui, |ui| {
            egui::ScrollArea::vertical().show(ui, |ui| self.panels(ui, painter));
        });
    }

    fn controls(&mut self, ui: &mut egui::Ui) {
        self.open_row(ui);
        let message = match self.export {
            Export::None => self.message.as_deref(),
            _ => Some("writing files …"),
        };
        messages(ui, message, self.error.as_deref());
        ui.separator();
        self.sliders(ui);
        ui.separator();
        if let Some(numbers) = &self.numbers {
            measures(ui, numbers);
        }
        ui.separator();
        self.export_row(ui);
    }

    fn open_row(&mut self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            if ui
                .button("Open…")
                .on_hover_text(open_hint(ui.ctx()))
                .clicked()
            {
                self.ask_for_image();
            }
            let field = egui::TextEdit::singleline(&mut self.path)
                .hint_text("or its path, Enter")
                .desired_width(f32::INFINITY);
            let response = ui.add(field);
            if response.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter)) {
                let path = PathBuf::from(self.path.trim());
                self.open(&path);
            }
        });
    }

    fn sliders(&mut self, ui: &mut egui::Ui) {
        let channels = self.image.picture.channels;
        let o = &mut self.options;
        ui.spacing_mut().slider_width = 150.0;
        ui.add(
            Slider::new(&mut o.kernel_size, 1..=15)
                .step_by(2.0)
                .text("k"),
        )
        .on_hover_text("pixels of a patch's side");
        if channels == 3 {
            ui.add(Slider::new(&mut o.block, 1..=3).step_by(2.0).text("block"))
                .on_hover_text("colours decorrelated together");
        }
        ui.add(
            Slider::new(&mut o.statistics.eps, 1e-8..=1.0)
                .logarithmic(true)
                .text("eps")
                .custom_formatter(|value, _| format!("{value:.1e}")),
        )
        .on_hover_text("added to the diagonal of the covariance");
        ui.add(Slider::new(&mut o.statistics.n_iter, 1..=30).text("n_iter"))
            .on_hover_text("Denman-Beavers iterations");
        ui.add(Slider::new(&mut o.blur, 0.0..=MAX_BLUR).text("blur"))
            .on_hover_text("standard deviation in pixels of a Gaussian before");
        let sampling = Slider::new(&mut o.statistics.sampling_stride, 1..=8);
        ui.add(sampling.text("sampling stride"))
            .on_hover_text("the covariance is that of every n-th patch in both directions");
        ui.checkbox(&mut self.animate, "move the blur, to see the speed");
        if ui.button("Defaults").clicked() {
            self.animate = false;
            self.options = SceneOptions {
                side: self.options.side,
                ..SceneOptions::default()
            };
        }
    }

    fn export_row(&mut self, ui: &mut egui::Ui) {
        ui.horizontal(|ui| {
            if ui
                .button("Export")
                .on_hover_text(format!(
                    "{}: the PNGs of fig2 and fig3",
                    ui.ctx().format_shortcut(&EXPORT)
                ))
                .clicked()
            {
                self.export = Export::Asked;
            }
            ui.add(egui::TextEdit::singleline(&mut self.folder).desired_width(f32::INFINITY));
        });
    }

    fn panels(&self, ui: &mut egui::Ui, painter: &Painter) {
        let Some((made_for, scene)) = self.scenes.last() else {
            return;
        };
        let space = ui.spacing().item_spacing.x;
        let available = ui.available_width() + space;
        let columns = (available / 300.0).floor().max(1.0);
        let width_of = |n: f32| available / n - space - 1.0;
        let height = 1.5 * width_of(columns);
        let views: Vec<_> = scene
            .views()
            .iter()
            .filter(|v| !v.title.is_empty())
            .collect();
        for row in views.chunks(columns as usize) {
            // The last row has room for larger ones.
            let width = width_of(row.len() as f32);
            ui.horizontal_top(|ui| {
                for view in row {
                    ui.vertical(|ui| {
                        ui.set_width(width);
                        ui.label(RichText::new(&view.title).strong());
                        let end = match view.name.as_str() {
                            "cov_before" => self.numbers.as_ref().map(|n| n.cov_ends[0]),
                            "cov_after" => self.numbers.as_ref().map(|n| n.cov_ends[1]),
                            _ => None,
                        };
                        match end {
                            Some(end) => {
                                let blocks =
                                    resolve_block(made_for.block, self.image.picture.channels);
                                heat_map(ui, painter, &view.name, width_of(columns), end, blocks);
                            }
                            None => {
                                painter.show(ui, &view.name, Vec2::new(width, height));
                            }
                        }
                    });
                }
            });
            ui.add_space(8.0);
        }
    }
}

/// Options of `fig2` and `fig3` for what the window shows.
fn for_files(o: &SceneOptions) -> (Fig2Options, SceneOptions) {
    let fig2 = Fig2Options {
        kernel_size: o.kernel_size,
        block: o.block,
        statistics: o.statistics,
    };
    (fig2, SceneOptions { side: None, ..*o })
}

/// With lines between channels and a bar of colours.
fn heat_map(ui: &mut egui::Ui, painter: &Painter, name: &str, width: f32, end: f32, blocks: usize) {
    ui.horizontal_top(|ui| {
        let side = width - 76.0;
        if let Some(rect) = painter.show(ui, name, Vec2::splat(side)) {
            let line = Stroke::new(1.0, Color32::BLACK);
            for i in 0..=blocks {
                let share = i as f32 / blocks as f32;
                ui.painter()
                    .vline(rect.left() + share * rect.width(), rect.y_range(), line);
                ui.painter()
                    .hline(rect.x_range(), rect.top() + share * rect.height(), line);
            }
        }
        if let Some(rect) = painter.show(ui, "colour_bar", Vec2::new(14.0, side)) {
            let colour = ui.visuals().text_color();
            let font = egui::TextStyle::Small.resolve(ui.style());
            for (share, value) in [(0.0, end), (0.5, 0.0), (1.0, -end)] {
                let align = match share {
                    0.0 => egui::Align2::LEFT_TOP,
                    1.0 => egui::Align2::LEFT_BOTTOM,
                    _ => egui::Align2::LEFT_CENTER,
                };
                let at = egui::pos2(rect.right() + 3.0, rect.top() + share * rect.height());
                let text = figures::short(value);
                ui.painter().text(at, align, text, font.clone(), colour);
            }
        }
    });
}

fn measures(ui: &mut egui::Ui, numbers: &Numbers) {
    egui::Grid::new("measures").striped(true).show(ui, |ui| {
        ui.label("");
        ui.strong("before");
        ui.strong("after");
        ui.end_row();
        for (name, before, after) in numbers.report.rows() {
            ui.label(name);
            ui.monospace(before);
            ui.monospace(after);
            ui.end_row();
        }
    });
    if let Some(notice) = numbers.report.notice {
        ui.label(notice);
    }
    ui.add_space(6.0);
    histogram(ui, numbers);
}

/// Shares of values on a log scale, over standard deviations.
fn histogram(ui: &mut egui::Ui, numbers: &Numbers) {
    ui.label("values in standard deviations, share on a log scale");
    let plot = Plot::new("histogram")
        .height(170.0)
        .legend(Legend::default())
        .allow_scroll(false)
        .x_grid_spacer(uniform_grid_spacer(|_| [1.0, 5.0, 10.0]))
        .y_grid_spacer(uniform_grid_spacer(|_| [1.0, 2.0, 10.0]))
        .y_axis_formatter(|mark, _| format!("1e{:.0}", mark.value));
    plot.show(ui, |plot| {
        for (i, shares) in numbers.histograms.iter().enumerate() {
            let width = 2.0 * f64::from(SIGMAS) / shares.len() as f64;
            for run in figures::runs(shares) {
                let points = run.map(|bin| {
                    let x = -f64::from(SIGMAS) + (bin as f64 + 0.5) * width;
                    [x, f64::from(shares[bin]).log10()]
                });
                let line = Line::new(["before", "after"][i], points.collect::<PlotPoints<'_>>());
                plot.line(line.color(line_colour(i)));
            }
        }
    });
}

/// How an image is opened without the button.
pub(super) fn open_hint(ctx: &egui::Context) -> String {
    format!("{}, or drop a file", ctx.format_shortcut(&OPEN))
}

#[cfg(test)]
mod tests {
    use decorr::figures::{Fig3Report, Measures, Sparsity, WhitenOptions};
    use decorr::gpu::AdapterChoice;

    use super::*;

    /// Of four images that end a quarter of a second apart, three begin after the first ends.
    #[test]
    fn the_speed_shown_is_of_the_images_between_the_first_and_the_last() {
        let gpu = Gpu::open(&AdapterChoice::default()).unwrap();
        let mut tab = ImageTab::new(gpu, Opened::read(None).unwrap());
        tab.milliseconds = 250.0;
        let begin = Instant::now();
        for i in 0..4 {
            let shown = tab.speed().contains("images/s");
            assert_eq!(shown, i > 2, "after {i} images: {}", tab.speed());
            tab.finished
                .push_back(begin + i * Duration::from_millis(250));
        }
        let speed = tab.speed();
        assert!(
            speed.starts_with("250.0 ms an image, 4.0 images/s on "),
            "{speed}"
        );
    }
    #[test]
    fn the_title_and_the_files_are_of_the_options() {
        let gpu = Gpu::open(&AdapterChoice::default()).unwrap();
        let picture = Picture {
            channels: 3,
            height: 3,
            width: 4,
            data: vec![0.0; 36],
        };
        let image = Opened {
            name: "a.png".into(),
            path: None,
            picture,
            of: Some([40, 30]),
        };
        let notice = image.notice();
        assert_eq!(notice.as_deref(), Some("scaled down from 40 x 30 to 4 x 3"));
        let mut tab = ImageTab::new(gpu, image);
        let statistics = WhitenOptions {
            eps: 0.01,
            n_iter: 7,
            sampling_stride: 2,
        };
        tab.options = SceneOptions {
            kernel_size: 5,
            block: 1,
            statistics,
            blur: 1.5,
            side: Some(64),
        };
        assert_eq!(
            tab.title(),
            "decorr: a.png (4 x 3 of 40 x 30), k 5, block 1, eps 1.0e-2, n_iter 7, blur 1.5"
        );
        let (fig2, fig3) = for_files(&tab.options);
        assert_eq!(
            (fig2.kernel_size, fig2.block, fig2.statistics),
            (5, 1, statistics)
        );
        assert_eq!(
            (fig3.kernel_size, fig3.block, fig3.statistics),
            (5, 1, statistics)
        );
        // Files have all pixels of the image.
        assert_eq!((fig3.blur, fig3.side), (1.5, None));
    }

    /// Numbers of the image before would stand beside the new one; an image that cannot be read changes nothing.
    #[test]
    fn another_image_begins_anew() {
        let gpu = Gpu::open(&AdapterChoice::default()).unwrap();
        let grey = Picture {
            channels: 1,
            height: 2,
            width: 2,
            data: vec![0.5; 4],
        };
        let image = Opened {
            name: "grey.png".into(),
            path: None,
            picture: grey,
            of: None,
        };
        let mut tab = ImageTab::new(gpu, image);
        // One channel is a block of its own, whatever is said.
        let title = tab.title();
        assert!(title.contains("grey.png (2 x 2), k 3, block 1,"), "{title}");
        let side = Measures {
            sparsity: Sparsity {
                excess_kurtosis: 0.0,
                hoyer: 0.0,
                near_zero: 0.0,
            },
            max_correlation: 0.0,
        };
        tab.numbers = Some(Numbers {
            report: Fig3Report {
                before: side,
                after: side,
                notice: None,
            },
            histograms: [Vec::new(), Vec::new()],
            cov_ends: [1.0; 2],
        });
        tab.submitted = Some(tab.options);
        tab.waiting_since = Some(Instant::now());
        tab.open(Path::new("tests/photographs/none.jpg"));
        let error = tab.error.clone().unwrap_or_default();
        assert!(error.contains("none.jpg"), "{error}");
        assert!(tab.numbers.is_some() && tab.image.name == "grey.png");
        tab.open(Path::new("tests/photographs/rocket.jpg"));
        assert_eq!((tab.image.name.as_str(), &tab.error), ("rocket.jpg", &None));
        assert!(tab.image.picture.channels == 3 && tab.image.path.is_some());
        assert!(tab.numbers.is_none() && tab.submitted.is_none());
        assert!(tab.waiting_since.is_none() && tab.scenes.is_empty());
    }
}
