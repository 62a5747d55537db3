//! The window: two tabs on one device, which it shares with the engine.

mod canvas;
mod image_tab;
mod training_tab;

use std::path::Path;
use std::sync::Arc;

use decorr::gpu::{Gpu, choose_adapter, device_descriptor};
use decorr::{Error, Result};
use eframe::egui::{self, Key, KeyboardShortcut, Modifiers};
use eframe::egui_wgpu::{RenderState, WgpuSetup, WgpuSetupExisting};

use canvas::Painter;
use image_tab::{ImageTab, Opened};
use training_tab::TrainingTab;

use crate::options::AdapterArgs;

const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);
const EXPORT: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::S);
const QUIT: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Q);
const IMAGE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Num1);
const TRAINING: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Num2);

/// Opens the window, with the picture at `path` or the one that comes along, and returns when it is
/// closed.
pub(crate) fn open(adapter: &AdapterArgs, path: Option<&Path>) -> Result<()> {
    let opened = Opened::read(path)?;
    // The window's own device, which decorr is given as by any other host.
    let (instance, adapter) = choose_adapter(&adapter.choice())?;
    let device = adapter.request_device(&device_descriptor(&adapter));
    let (device, queue) = pollster::block_on(device).map_err(|e| {
        Error::Adapter(format!("{} cannot be opened: {e}", adapter.get_info().name))
    })?;
    // Errors that nobody else hears of, the toolkit's; wgpu would end the program.
    device.on_uncaptured_error(Arc::new(|error| eprintln!("wgpu: {error}")));
    let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone())?;
    let setup = WgpuSetupExisting {
        instance,
        adapter,
        device,
        queue,
    };
    let mut options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("decorr")
            .with_inner_size([1280.0, 860.0])
            .with_min_inner_size([480.0, 360.0]),
        ..eframe::NativeOptions::default()
    };
    options.wgpu_options.wgpu_setup = WgpuSetup::Existing(setup);
    let result = eframe::run_native(
        "decorr",
        options,
        Box::new(move |context| {
            let state = context.wgpu_render_state.clone();
            let state = state.ok_or("the window has no wgpu")?;
            Ok(Box::new(App::new(gpu, state, opened)))
        }),
    );
    result.map_err(|e| {
        let why = match e {
            // Its own text names lines of its source.
            eframe::Error::Winit(_) | eframe::Error::WinitEventLoop(_) => {
                "there is no display, or it does not answer (on Linux: DISPLAY or WAYLAND_DISPLAY)".into()
            }
            other => other.to_string(),
        };
        Error::Config(format!(
            "the window cannot be opened: {why}. fig2, fig3 and fig9 write files and need no display"
        ))
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tab {
    Image,
    Training,
}

/// A button that writes files. What it was asked for is done a frame later, so that the frame before can say so.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Export {
    None,
    Asked,
    Said,
}

impl Export {
    /// Takes note of a frame; true if it is time.
    fn is_due(&mut self, ctx: &egui::Context) -> bool {
        let (next, due) = match self {
            Self::None => (Self::None, false),
            Self::Asked => (Self::Said, false),
            Self::Said => (Self::None, true),
        };
        if *self == Self::Asked {
            ctx.request_repaint();
        }
        *self = next;
        due
    }
}

/// Refuses a folder without a name.
fn named(folder: &Path) -> Result<()> {
    match folder.to_string_lossy().trim().is_empty() {
        true => Err(Error::Config("name the folder to export to".into())),
        false => Ok(()),
    }
}

/// What went well or not, for people.
fn messages(ui: &mut egui::Ui, message: Option<&str>, error: Option<&str>) {
    if let Some(message) = message {
        ui.label(message);
    }
    if let Some(error) = error {
        ui.label(egui::RichText::new(error).color(ui.visuals().error_fg_color));
    }
}

/// The colour of the `i`-th line, as in the files.
fn line_colour(i: usize) -> egui::Color32 {
    let [r, g, b] = decorr::figures::series_colour(i);
    egui::Color32::from_rgb(r, g, b)
}

struct App {
    tab: Tab,
    painter: Painter,
    image: ImageTab,
    training: TrainingTab,
    title: String,
}

impl App {
    fn new(gpu: Arc<Gpu>, state: RenderState, opened: Opened) -> Self {
        Self {
            tab: Tab::Image,
            painter: Painter::new(Arc::clone(&gpu), state),
            image: ImageTab::new(Arc::clone(&gpu), opened),
            training: TrainingTab::new(gpu),
            title: String::new(),
        }
    }

    fn shortcuts(&mut self, ctx: &egui::Context) {
        let pressed = |shortcut| ctx.input_mut(|i| i.consume_shortcut(&shortcut));
        if pressed(IMAGE) {
            self.tab = Tab::Image;
        }
        if pressed(TRAINING) {
            self.tab = Tab::Training;
        }
        if pressed(OPEN) {
            self.tab = Tab::Image;
            self.image.ask_for_image();
        }
        if pressed(EXPORT) {
            match self.tab {
                Tab::Image => self.image.export = Export::Asked,
                Tab::Training => self.training.export = Export::Asked,
            }
        }
        if pressed(QUIT) {
            ctx.send_viewport_cmd(egui::ViewportCommand::Close);
        }
        let dropped = ctx.input(|i| i.raw.dropped_files.clone());
        if let Some(file) = dropped.first() {
            self.tab = Tab::Image;
            self.image.open(file.path());
        }
    }
}

impl eframe::App for App {
    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.show(ui);
    }
}

impl App {
    fn show(&mut self, ui: &mut egui::Ui) {
        let ctx = ui.ctx().clone();
        self.shortcuts(&ctx);
        egui::Panel::top("tabs").show(ui, |ui| {
            ui.horizontal_wrapped(|ui| {
                for (tab, name, shortcut) in [
                    (Tab::Image, "Image", IMAGE),
                    (Tab::Training, "Training", TRAINING),
                ] {
                    let keys = ctx.format_shortcut(&shortcut);
                    ui.selectable_value(&mut self.tab, tab, name)
                        .on_hover_text(keys);
                }
                ui.separator();
                let mut theme = ui.ctx().options(|o| o.theme_preference);
                for (preference, name) in [
                    (egui::ThemePreference::System, "System"),
                    (egui::ThemePreference::Light, "Light"),
                    (egui::ThemePreference::Dark, "Dark"),
                ] {
                    ui.selectable_value(&mut theme, preference, name);
                }
                ui.ctx().set_theme(theme);
                let speed = match self.tab {
                    Tab::Image => self.image.speed(),
                    Tab::Training => self.training.speed(),
                };
                let corner = egui::Layout::right_to_left(egui::Align::Center);
                // A small window has it on a line of its own.
                match ui.available_size_before_wrap().x > 9.0 * speed.len() as f32 {
                    true => ui.with_layout(corner, |ui| ui.monospace(speed)).inner,
                    false => ui.monospace(speed),
                };
            });
        });
        match self.tab {
            Tab::Image => self.image.ui(ui, &mut self.painter),
            Tab::Training => self.training.ui(ui, &mut self.painter),
        }
        let title = title_of(self.tab, &self.image, &self.training);
        if title != self.title {
            ctx.send_viewport_cmd(egui::ViewportCommand::Title(title.clone()));
            self.title = title;
        }
    }
}

/// Of the window while `tab` is shown.
fn title_of(tab: Tab, image: &ImageTab, training: &TrainingTab) -> String {
    match tab {
        Tab::Image => image.title(),
        Tab::Training => training.title(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use eframe::egui_wgpu::{Renderer, RendererOptions};

    use super::*;

    /// The window without a display: what it would show is looked at as text.
    struct Headless {
        app: App,
        ctx: egui::Context,
    }

    impl Headless {
        fn new() -> Self {
            let choice = decorr::gpu::AdapterChoice {
                adapter: std::env::var("DECORR_ADAPTER").ok(),
                backend: std::env::var("DECORR_BACKEND").ok(),
            };
            let (instance, adapter) = choose_adapter(&choice).unwrap();
            let device = adapter.request_device(&device_descriptor(&adapter));
            let (device, queue) = pollster::block_on(device).unwrap();
            let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone()).unwrap();
            let format = wgpu::TextureFormat::Rgba8Unorm;
            let renderer = Renderer::new(&device, format, RendererOptions::default());
            let state = RenderState {
                available_adapters: vec![adapter.clone()],
                adapter,
                instance,
                device,
                queue,
                target_format: format,
                renderer: Arc::new(egui::mutex::RwLock::new(renderer)),
            };
            Self {
                app: App::new(gpu, state, Opened::read(None).unwrap()),
                ctx: egui::Context::default(),
            }
        }

        /// The texts of a frame in which these keys were pressed.
        fn frame(&mut self, keys: &[(Modifiers, Key)]) -> Vec<String> {
            let event = |&(modifiers, key)| egui::Event::Key {
                key,
                physical_key: None,
                pressed: true,
                repeat: false,
                modifiers,
            };
            let size = egui::vec2(1600.0, 3000.0);
            let input = egui::RawInput {
                screen_rect: Some(egui::Rect::from_min_size(egui::Pos2::ZERO, size)),
                events: keys.iter().map(event).collect(),
                ..egui::RawInput::default()
            };
            let output = self.ctx.run_ui(input, |ui| self.app.show(ui));
            let mut texts = Vec::new();
            output
                .shapes
                .iter()
                .for_each(|clipped| texts_of(&clipped.shape, &mut texts));
            texts
        }

        /// The texts of the first frame that has `wanted`.
        fn until(&mut self, wanted: &str) -> Vec<String> {
            for _ in 0..2000 {
                let texts = self.frame(&[]);
                if texts.iter().any(|text| text.contains(wanted)) {
                    return texts;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            panic!("it never shows {wanted:?}: {:?}", self.frame(&[]));
        }
    }

    fn texts_of(shape: &egui::Shape, texts: &mut Vec<String>) {
        match shape {
            egui::Shape::Vec(shapes) => shapes.iter().for_each(|shape| texts_of(shape, texts)),
            egui::Shape::Text(text) => texts.push(text.galley.text().into()),
            _ => {}
        }
    }

    /// Every text of both tabs, one a line of `shown/*.txt`: `DECORR_UPDATE_TRANSCRIPTS=1` writes them anew. Numbers may differ by
    /// rounding, and what is said of the speed is left out.
    #[test]
    fn it_shows_what_it_showed() {
        let mut window = Headless::new();
        let image = window.until("kurtosis");
        // Another image is shown at once, not when an option changes.
        let path = Path::new("tests/photographs/rocket.jpg");
        window.app.image.open(path);
        let other = window.until("kurtosis");
        let numbers = |texts: &[String]| -> Vec<f64> {
            let texts = texts.iter();
            texts.filter_map(|text| text.parse().ok()).collect()
        };
        assert!(numbers(&other) != numbers(&image), "{other:?}");
        window.frame(&[(Modifiers::COMMAND, Key::Num2)]);
        window.until("means of the last 10 of 0 steps");
        window.frame(&[(Modifiers::NONE, Key::N)]);
        let training = window.until("means of the last 10 of 1 steps");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/visualiser/window/shown");
        for (name, texts) in [("image.txt", image), ("training.txt", training)] {
            let is_fixed = |text: &&String| !text.contains(" on ");
            let new: Vec<String> = texts.iter().filter(is_fixed).cloned().collect();
            let file = dir.join(name);
            if std::env::var_os("DECORR_UPDATE_TRANSCRIPTS").is_some() {
                std::fs::write(&file, new.join("\n")).unwrap();
            }
            let old = std::fs::read_to_string(&file).unwrap();
            let old: Vec<&str> = old.split('\n').collect();
            let are_near = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= 2e-3 * b.abs().max(1.0),
                _ => a == b,
            };
            let differs = old.iter().zip(&new).find(|(old, new)| !are_near(old, new));
            assert!(differs.is_none(), "{name}: {differs:?}");
            assert_eq!(old.len(), new.len(), "{name}");
        }
    }

    #[test]
    fn the_title_and_the_hints_are_those_of_what_is_shown() {
        let gpu = Gpu::open(&decorr::gpu::AdapterChoice::default()).unwrap();
        let image = ImageTab::new(Arc::clone(&gpu), Opened::read(None).unwrap());
        let training = TrainingTab::new(gpu);
        let title = |tab| title_of(tab, &image, &training);
        assert_eq!(title(Tab::Image), image.title());
        assert_eq!(title(Tab::Training), training.title());
        assert_ne!(image.title(), training.title());
        let hint = image_tab::open_hint(&egui::Context::default());
        assert!(hint.contains("+O,"), "{hint}");
    }

    /// The frame between says that files are being written.
    #[test]
    fn files_are_written_a_frame_after_that_is_said() {
        let ctx = egui::Context::default();
        let mut export = Export::Asked;
        let due = [(); 3].map(|()| export.is_due(&ctx));
        assert_eq!(due, [false, true, false]);
        assert!(export == Export::None);
    }

    #[test]
    fn a_folder_to_export_to_has_a_name() {
        for (folder, has_name) in [("", false), ("  ", false), (" a", true), (".", true)] {
            assert_eq!(named(Path::new(folder)).is_ok(), has_name, "{folder:?}");
        }
    }
}
