//! From painted states to textures of the window, on the device.

use std::collections::BTreeMap;
use std::sync::Arc;

use decorr::Result;
use decorr::figures::View;
use decorr::gpu::Gpu;
use decorr::program::Store;
use eframe::egui::{self, TextureId, Vec2};
use eframe::egui_wgpu::RenderState;

/// Textures by name, each with the size of the last view that it was given.
pub(crate) struct Painter {
    gpu: Arc<Gpu>,
    state: RenderState,
    canvases: BTreeMap<String, Canvas>,
}

/// A texture that egui knows.
struct Canvas {
    texture: wgpu::Texture,
    id: TextureId,
    size: [usize; 2],
}

impl Painter {
    pub(crate) fn new(gpu: Arc<Gpu>, state: RenderState) -> Self {
        Self {
            gpu,
            state,
            canvases: BTreeMap::new(),
        }
    }

    /// Copies views of `store` to textures called `prefix` and their names, after what was submitted.
    pub(crate) fn copy(&mut self, prefix: &str, store: &Store, views: &[View]) -> Result<()> {
        let device = self.gpu.device().clone();
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for view in views {
            let name = format!("{prefix}{}", view.name);
            let canvas = self.canvas(&name, [view.width, view.height]);
            let size = canvas.texture.size();
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo {
                    buffer: store.buffer(&view.name)?,
                    layout: wgpu::TexelCopyBufferLayout {
                        offset: 0,
                        bytes_per_row: Some(view.row() as u32 * 4),
                        rows_per_image: None,
                    },
                },
                canvas.texture.as_image_copy(),
                size,
            );
        }
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Frees the textures whose name begins with `prefix`.
    pub(crate) fn forget(&mut self, prefix: &str) {
        let mut renderer = self.state.renderer.write();
        self.canvases.retain(|name, canvas| {
            let goes = name.starts_with(prefix);
            if goes {
                renderer.free_texture(&canvas.id);
            }
            !goes
        });
    }

    fn canvas(&mut self, name: &str, size: [usize; 2]) -> &Canvas {
        let old = self.canvases.remove(name);
        let canvas = match old {
            Some(canvas) if canvas.size == size => canvas,
            old => {
                let mut renderer = self.state.renderer.write();
                if let Some(old) = old {
                    renderer.free_texture(&old.id);
                }
                let device = self.gpu.device();
                let texture = device.create_texture(&wgpu::TextureDescriptor {
                    label: Some(name),
                    size: wgpu::Extent3d {
                        width: size[0] as u32,
                        height: size[1] as u32,
                        depth_or_array_layers: 1,
                    },
                    mip_level_count: 1,
                    sample_count: 1,
                    dimension: wgpu::TextureDimension::D2,
                    format: wgpu::TextureFormat::Rgba8Unorm,
                    usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
                    view_formats: &[],
                });
                let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
                let filter = wgpu::FilterMode::Linear;
                let id = renderer.register_native_texture(device, &view, filter);
                Canvas { texture, id, size }
            }
        };
        self.canvases.entry(name.to_string()).or_insert(canvas)
    }

    /// Shows the texture `name` as large as fits `most`; where it is, if it is there.
    pub(crate) fn show(&self, ui: &mut egui::Ui, name: &str, most: Vec2) -> Option<egui::Rect> {
        let canvas = self.canvases.get(name)?;
        let size = Vec2::new(canvas.size[0] as f32, canvas.size[1] as f32);
        let scale = (most.x / size.x).min(most.y / size.y);
        let image = egui::Image::new((canvas.id, size * scale));
        Some(ui.add(image).rect)
    }
}
