//! A small network that learns with batch norm and with deconvolution side by side.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use decorr::Result;
use decorr::data::{Images, Pixels};
use decorr::figures::{self, Fig9Options, Inspector, NETWORK_SIDE, Picture};
use decorr::files::write_atomically;
use decorr::gpu::Gpu;
use decorr::train::{Live, Norm, TrainOptions, running_mean};
use eframe::egui::{self, Key, Modifiers, RichText, Slider, Vec2};
use egui_plot::{GridInput, Legend, Line, Plot, PlotPoints, uniform_grid_spacer};

use super::canvas::Painter;
use super::{EXPORT, Export, line_colour, messages, named};

/// Convolutions of the network.
const LAYERS: usize = 3;
/// Side by side.
const NORMS: [Norm; 2] = [Norm::Batch, Norm::Deconv];
/// Test images to look at.
const IMAGES: usize = 64;

pub(crate) struct TrainingTab {
    gpu: Arc<Gpu>,
    session: Option<Session>,
    runs: bool,
    one_step: bool,
    seed: u64,
    batch_size: usize,
    lr: f32,
    layer: usize,
    image: usize,
    folder: String,
    pub(super) export: Export,
    message: Option<String>,
    error: Option<String>,
}

/// A run under way.
struct Session {
    live: Live,
    /// One for each network, for this layer and image.
    inspectors: Vec<Inspector>,
    inspected: (usize, usize),
    painted: Option<u64>,
    since: Option<Instant>,
    milliseconds: f64,
}

impl TrainingTab {
    pub(crate) fn new(gpu: Arc<Gpu>) -> Self {
        // A CPU takes a quarter of a second for a batch of 128.
        let batch_size = if gpu.is_software() { 32 } else { 128 };
        Self {
            gpu,
            session: None,
            runs: false,
            one_step: false,
            seed: 1,
            batch_size,
            lr: 0.01,
            layer: 2,
            image: 0,
            folder: "pictures".into(),
            export: Export::None,
            message: None,
            error: None,
        }
    }

    pub(crate) fn title(&self) -> String {
        let steps = self.session.as_ref().map_or(0, |s| s.live.done());
        let state = if self.runs { "training" } else { "paused" };
        format!("decorr: {state}, seed {}, {steps} steps", self.seed)
    }

    /// For the corner of the window.
    pub(crate) fn speed(&self) -> String {
        let milliseconds = self.session.as_ref().map_or(0.0, |s| s.milliseconds);
        format!("{milliseconds:.0} ms a step of both on {}", self.gpu.name())
    }

    fn restart(&mut self) {
        self.error = None;
        self.message = None;
        self.session = None;
    }

    /// Writes the curves, the networks, the test image, and what `fig9` writes for these.
    fn write_files(&mut self) {
        self.message = None;
        let Some(session) = &self.session else {
            return;
        };
        match session.write(&self.gpu, Path::new(&self.folder), self.layer, self.image) {
            Ok(names) => {
                self.message = Some(format!("wrote {} in {}", names.join(", "), self.folder));
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn advance(&mut self, ctx: &egui::Context, painter: &mut Painter) -> Result<()> {
        let wanted = self.runs || self.one_step;
        if self.session.is_none() {
            let session = Session::new(&self.gpu, self.seed, self.batch_size, self.lr)?;
            self.session = Some(session);
        }
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        session.live.collect(false)?;
        let is_idle = session.live.done() == session.live.submitted();
        if let (true, Some(since)) = (is_idle, session.since.take()) {
            session.milliseconds = since.elapsed().as_secs_f64() * 1e3;
        } else if !is_idle {
            ctx.request_repaint_after(Duration::from_millis(4));
        }
        if wanted && is_idle {
            session.since = Some(Instant::now());
            session.live.step()?;
            self.one_step = false;
            ctx.request_repaint();
        }
        session.inspect(self.layer, self.image, painter)
    }

    pub(crate) fn ui(&mut self, ui: &mut egui::Ui, painter: &mut Painter) {
        let ctx = ui.ctx().clone();
        if self.export.is_due(&ctx) {
            self.write_files();
        }
        // Whatever has the focus, unless it is a text; Enter presses a button.
        let typing = ctx.text_edit_focused();
        let pressed = |key| !typing && ctx.input_mut(|i| i.consume_key(Modifiers::NONE, key));
        let (space, step, restart) = (pressed(Key::Space), pressed(Key::N), pressed(Key::R));
        egui::Panel::left("training controls")
            .default_size(300.0)
            .show(ui, |ui| {
                egui::ScrollArea::vertical().show(ui, |ui| {
                    self.controls(ui, space, step, restart);
                });
            });
        // A run that failed waits for what the user does next.
        if self.error.is_none()
            && let Err(error) = self.advance(&ctx, painter)
        {
            self.runs = false;
            self.one_step = false;
            self.error = Some(error.to_string());
        }
        egui::CentralPanel::default().show(ui, |ui| {
            egui::ScrollArea::vertical().show(ui, |ui| self.panels(ui, painter));
        });
    }

    fn controls(&mut self, ui: &mut egui::Ui, space: bool, step: bool, restart: bool) {
        ui.label(
            "Three convolutions learn to tell articles of clothing apart (Fashion-MNIST), from the same \
             first weights and the same images: with batch norm, and deconvolved.",
        );
        ui.horizontal(|ui| {
            let name = if self.runs { "Pause" } else { "Train" };
            if ui.button(name).on_hover_text("Space").clicked() || space {
                self.runs = !self.runs;
            }
            if ui.button("Step").on_hover_text("N").clicked() || step {
                self.runs = false;
                self.one_step = true;
            }
            if ui.button("Another seed").on_hover_text("R").clicked() || restart {
                self.seed += 1;
                self.restart();
            }
        });
        let message = match self.export {
            Export::None => self.message.as_deref(),
            _ => Some("writing files …"),
        };
        messages(ui, message, self.error.as_deref());
        ui.separator();
        ui.spacing_mut().slider_width = 150.0;
        ui.add(Slider::new(&mut self.layer, 1..=LAYERS).text("layer"))
            .on_hover_text("convolution whose input is shown");
        ui.add(Slider::new(&mut self.image, 0..=IMAGES - 1).text("test image"));
        let lr = Slider::new(&mut self.lr, 1e-3..=1.0)
            .logarithmic(true)
            .text("lr");
        if ui.add(lr).on_hover_text("begins anew").changed() {
            self.restart();
        }
        let batch = Slider::new(&mut self.batch_size, 8..=256).text("batch size");
        if ui.add(batch).on_hover_text("begins anew").changed() {
            self.restart();
        }
        if let Some(session) = &self.session {
            ui.separator();
            egui::Grid::new("losses").striped(true).show(ui, |ui| {
                for title in ["", "loss", "top1"] {
                    ui.strong(title);
                }
                ui.end_row();
                for run in session.live.runs() {
                    ui.label(run.norm.name());
                    ui.monospace(last_mean(&run.losses));
                    ui.monospace(last_mean(&run.top1));
                    ui.end_row();
                }
            });
            ui.label(format!(
                "means of the last 10 of {} steps",
                session.live.done()
            ));
        }
        ui.separator();
        ui.horizontal(|ui| {
            let export = ui.button("Export");
            if export
                .on_hover_text(format!(
                    "{}: curves, networks, the PNGs of fig9",
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
        let Some(session) = &self.session else {
            return;
        };
        ui.label(RichText::new("training loss (running mean)").strong());
        let plot = Plot::new("losses")
            .height(200.0)
            .legend(Legend::default())
            .allow_scroll(false)
            .include_y(0.0)
            .include_y(2.5)
            .include_x(1.0)
            .include_x(20.0)
            .x_grid_spacer(uniform_grid_spacer(round_steps))
            .y_grid_spacer(uniform_grid_spacer(round_steps))
            .y_axis_formatter(|mark, _| format!("{}", (mark.value as f32 * 1e4).round() / 1e4))
            .x_axis_label("step");
        plot.show(ui, |plot| {
            for (i, run) in session.live.runs().iter().enumerate() {
                let points = run.losses.iter().enumerate();
                let points: Vec<(f64, f64)> = points
                    .map(|(i, &loss)| (i as f64 + 1.0, f64::from(loss)))
                    .collect();
                let points = running_mean(&points, None).into_iter().map(|(x, y)| [x, y]);
                let name = run.norm.name();
                let line = Line::new(name, points.collect::<PlotPoints<'_>>());
                plot.line(line.color(line_colour(i)));
            }
        });
        ui.columns(session.inspectors.len().max(1), |columns| {
            let runs = session.live.runs().iter().zip(&session.inspectors);
            for (ui, (run, inspector)) in columns.iter_mut().zip(runs) {
                let norm = run.norm.name();
                let width = ui.available_width();
                // The kernels are few and small.
                for (view, share) in inspector.views().iter().zip([0.45, 1.0]) {
                    ui.label(RichText::new(format!("{norm}: {}", view.title)).strong());
                    let most = Vec2::splat(share * width.min(480.0));
                    painter.show(ui, &format!("{norm} {}", view.name), most);
                }
            }
        });
    }
}

impl Session {
    fn new(gpu: &Arc<Gpu>, seed: u64, batch_size: usize, lr: f32) -> Result<Self> {
        let live = Live::new(gpu, &options(seed, batch_size, lr), &NORMS)?;
        Ok(Self {
            live,
            inspectors: Vec::new(),
            inspected: (0, 0),
            painted: None,
            since: None,
            milliseconds: 0.0,
        })
    }

    fn write(&self, gpu: &Arc<Gpu>, dir: &Path, layer: usize, image: usize) -> Result<Vec<String>> {
        named(dir)?;
        let mut names = self.live.save(dir)?;
        let picture = self.picture(image)?;
        let name = "test_image.png";
        write_atomically(&dir.join(name), &picture.to_png()?)?;
        names.push(name.into());
        let options = Fig9Options {
            layer,
            ..Fig9Options::default()
        };
        for run in self.live.runs() {
            let norm = run.norm.name();
            let trained = self.live.trained(run)?;
            let picture = trained.prepare(&picture, NETWORK_SIDE)?;
            let figure = figures::fig9(gpu, &picture, &trained, options)?;
            figure.write(&dir.join(norm))?;
            names.push(format!("{norm}/fig9.png"));
        }
        Ok(names)
    }

    /// The test image as its file has it.
    fn picture(&self, image: usize) -> Result<Picture> {
        picture_of(&self.live.data().test, image)
    }

    /// Has the networks painted, if they or what is looked at changed.
    fn inspect(&mut self, layer: usize, image: usize, painter: &mut Painter) -> Result<()> {
        let done = self.live.done();
        if self.inspected != (layer, image) {
            let data = self.live.data();
            let test = &data.test;
            let shape = [test.channels, test.height, test.width];
            let pixels = data.normalise(&test.image(image)?.0);
            self.inspectors.clear();
            for norm in NORMS {
                painter.forget(&format!("{} ", norm.name()));
            }
            for run in self.live.runs_mut() {
                let model = *run.model();
                let inspector = Inspector::new(run.store_mut(), &model, layer, shape, &pixels)?;
                self.inspectors.push(inspector);
            }
            self.inspected = (layer, image);
            self.painted = None;
        }
        if self.painted == Some(done) {
            return Ok(());
        }
        for (run, inspector) in self.live.runs().iter().zip(&mut self.inspectors) {
            inspector.paint()?;
            let prefix = format!("{} ", run.norm.name());
            painter.copy(&prefix, run.store(), inspector.views())?;
        }
        self.painted = Some(done);
        Ok(())
    }
}

/// One of the images as a picture.
fn picture_of(images: &Images, image: usize) -> Result<Picture> {
    let data = match images.image(image)?.0 {
        Pixels::Bytes(bytes) => bytes.iter().map(|&v| f32::from(v) / 255.0).collect(),
        Pixels::Floats(values) => values,
    };
    Ok(Picture {
        channels: images.channels,
        height: images.height,
        width: images.width,
        data,
    })
}

/// Three to eight lines with a label in what is seen, at round numbers, whatever its size.
fn round_steps(input: GridInput) -> [f64; 3] {
    let (low, high) = input.bounds;
    let rough = ((high - low) / 8.0).max(1e-6);
    let power = 10f64.powf(rough.log10().floor());
    let step = [2.0, 5.0, 10.0].map(|n| n * power);
    let step = step.into_iter().find(|s| *s >= rough);
    let step = step.unwrap_or(10.0 * power);
    [step, 5.0 * step, 25.0 * step]
}

/// Of a run.
fn options(seed: u64, batch_size: usize, lr: f32) -> TrainOptions {
    TrainOptions {
        model: Some("cnn".into()),
        block: Some(16),
        lr: Some(lr),
        batch_size: Some(batch_size),
        seed: Some(seed),
        ..TrainOptions::default()
    }
}

/// Of the last ten.
fn last_mean(values: &[f32]) -> String {
    let last = &values[values.len().saturating_sub(10)..];
    match last.is_empty() {
        true => "none yet".to_string(),
        false => format!("{:.4}", last.iter().sum::<f32>() / last.len() as f32),
    }
}

#[cfg(test)]
mod tests {
    use decorr::gpu::AdapterChoice;

    use super::*;

    #[test]
    fn sliders_reach_the_run() {
        let options = options(3, 24, 0.5);
        assert_eq!(
            (options.seed, options.batch_size, options.lr),
            (Some(3), Some(24), Some(0.5))
        );
        assert_eq!(
            (options.model.as_deref(), options.block),
            (Some("cnn"), Some(16))
        );
    }

    #[test]
    fn lines_of_a_plot_are_three_to_eight_at_round_numbers() {
        for (bounds, wanted) in [
            ((0.0, 8.0), 2.0),
            ((1.0, 20.0), 5.0),
            ((0.0, 2.5), 0.5),
            ((0.0, 1e4), 2e3),
        ] {
            let input = GridInput {
                bounds,
                base_step_size: 1.0,
            };
            let steps = round_steps(input);
            for (step, times) in steps.into_iter().zip([1.0, 5.0, 25.0]) {
                assert!(
                    (step / (times * wanted) - 1.0).abs() < 1e-9,
                    "{bounds:?}: {steps:?}"
                );
            }
        }
    }

    #[test]
    fn the_mean_shown_is_of_the_last_ten_or_of_all() {
        assert_eq!(last_mean(&[]), "none yet");
        assert_eq!(last_mean(&[2.0]), "2.0000");
        assert_eq!(last_mean(&[1.0, 2.0, 4.5]), "2.5000");
        let many: Vec<f32> = (0..25).map(|i| i as f32).collect();
        assert_eq!(last_mean(&many), "19.5000");
    }

    #[test]
    fn an_image_is_shown_as_its_file_has_it() {
        let bytes: Vec<u8> = vec![0, 51, 102, 153, 204, 255, 255, 0, 255, 0, 255, 0];
        let of_bytes = Images::new(bytes, [1, 2, 3], vec![0, 1], 2).unwrap();
        let floats = vec![0.5, 0.25];
        let of_floats = Images::new(floats, [1, 1, 2], vec![0], 1).unwrap();
        let picture = picture_of(&of_bytes, 0).unwrap();
        assert_eq!((picture.channels, picture.height, picture.width), (1, 2, 3));
        assert_eq!(picture.data, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        let second = picture_of(&of_bytes, 1).unwrap();
        assert_eq!(second.data, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(picture_of(&of_floats, 0).unwrap().data, [0.5, 0.25]);
        assert!(picture_of(&of_bytes, 2).is_err());
    }

    #[test]
    fn the_title_says_whether_it_trains() {
        let gpu = Gpu::open(&AdapterChoice::default()).unwrap();
        let mut tab = TrainingTab::new(gpu);
        assert_eq!(tab.title(), "decorr: paused, seed 1, 0 steps");
        (tab.runs, tab.seed) = (true, 5);
        assert_eq!(tab.title(), "decorr: training, seed 5, 0 steps");
        let speed = tab.speed();
        assert!(speed.starts_with("0 ms a step of both on "), "{speed}");
    }
}
