//! decorr inside of a host program that has its own wgpu device, as a game engine or a viewer has: the host draws a picture
//! into a buffer of its own, decorr deconvolves it, a shader of the host's turns the result into colours. All of it is one
//! command buffer of the host's, and no number passes through the CPU until the picture is saved.
//!
//! `cargo run --release --example shared_device` writes `shared_device.png`.

use std::path::Path;

use decorr::gpu::{AdapterChoice, Gpu, choose_adapter, device_descriptor};
use decorr::graph::Graph;
use decorr::ops::{CovGrad, Window};
use decorr::program::{CompileOptions, Input, Program, Store};
use decorr::wgpu::{self, BufferUsages};
use decorr::{Error, Result};

const SIDE: usize = 128;
const PIXELS: usize = SIDE * SIDE;

/// Two shaders of the host's: waves as a picture of one channel, and numbers as grey pixels, 0 in the middle.
const HOST_WGSL: &str = "
const SIDE = 128u;
@group(0) @binding(0) var<storage, read> numbers: array<f32>;
@group(0) @binding(1) var<storage, read_write> written: array<u32>;

@compute @workgroup_size(64)
fn waves(@builtin(global_invocation_id) id: vec3<u32>) {
    let place = vec2<f32>(f32(id.x % SIDE), f32(id.x / SIDE));
    let from_centre = length(place - vec2<f32>(64.0));
    written[id.x] = bitcast<u32>(sin(0.3 * from_centre) + step(20.0, from_centre));
}

@compute @workgroup_size(64)
fn colours(@builtin(global_invocation_id) id: vec3<u32>) {
    let grey = clamp(0.5 + 0.15 * numbers[id.x], 0.0, 1.0);
    written[id.x] = pack4x8unorm(vec4<f32>(vec3<f32>(grey), 1.0));
}
";

/// The picture less its mean, every pixel decorrelated from its 8 neighbours (section 3.1): the middle rows of D on
/// each patch.
fn deconvolution() -> Graph {
    let g = Graph::new();
    let image = g.input("image", [1, 1, SIDE, SIDE]);
    let window = Window {
        kernel_size: [3, 3],
        stride: 1,
        padding: 1,
        dilation: 1,
    };
    let patches = image.im2col(window);
    let centred = (patches - patches.mean_to([1, 9])).reshape([1, PIXELS, 9]);
    let deconv = centred
        .covariance(1e-5)
        .newton_schulz(5, CovGrad::Symmetric);
    let middle = deconv.slice(2, 4, 1, 1);
    g.output("deconvolved", centred.matmul(middle));
    g
}

fn main() -> Result<()> {
    draw(Path::new("shared_device.png"))
}

fn draw(path: &Path) -> Result<()> {
    // The host's own device, with its own wishes; decorr's are a good start.
    let (_, adapter) = choose_adapter(&AdapterChoice::default())?;
    let (device, queue) = pollster::block_on(adapter.request_device(&device_descriptor(&adapter)))
        .map_err(|e| Error::Adapter(e.to_string()))?;
    let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone())?;
    let mut store = Store::new(&gpu, 1);
    let program = Program::compile(&deconvolution(), &mut store, CompileOptions::default())?;

    let buffer = |label, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: 4 * PIXELS as u64,
            usage,
            mapped_at_creation: false,
        })
    };
    let picture = buffer("picture", BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let shown = buffer("shown", BufferUsages::STORAGE | BufferUsages::COPY_SRC);
    let read = buffer("read", BufferUsages::MAP_READ | BufferUsages::COPY_DST);
    let result = program.output_on_device("deconvolved")?;

    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let bindings = [(1, picture.as_entire_binding())];
    host_pass(&device, &mut encoder, "waves", &bindings);
    program.record(&mut encoder, &[("image", Input::Buffer(&picture, 0))])?;
    let bindings = [(0, result.binding()), (1, shown.as_entire_binding())];
    host_pass(&device, &mut encoder, "colours", &bindings);
    encoder.copy_buffer_to_buffer(&shown, 0, &read, 0, read.size());
    queue.submit([encoder.finish()]);

    // To look at it: the only way through the CPU.
    read.map_async(wgpu::MapMode::Read, .., |_| {});
    gpu.wait(None)?;
    let view = read.get_mapped_range(..);
    let pixels = view.map_err(|e| Error::DeviceLost(e.to_string()))?.to_vec();
    let saved = image::save_buffer(
        path,
        &pixels,
        SIDE as u32,
        SIDE as u32,
        image::ColorType::Rgba8,
    );
    saved.map_err(|e| Error::data(path, e.to_string()))?;
    println!(
        "deconvolved on {}; wrote {}",
        gpu.describe(),
        path.display()
    );
    Ok(())
}

/// The host's own work: `entry` of its shader, a thread for each pixel.
fn host_pass(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    entry: &str,
    bindings: &[(u32, wgpu::BindingResource<'_>)],
) {
    let source = wgpu::ShaderSource::Wgsl(HOST_WGSL.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let entries = bindings
        .iter()
        .map(|(binding, resource)| wgpu::BindGroupEntry {
            binding: *binding,
            resource: resource.clone(),
        });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(entry),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries.collect::<Vec<_>>(),
    });
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(PIXELS as u32 / 64, 1, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The edge of the disc stands out from the smooth waves around it.
    #[test]
    fn the_picture_is_deconvolved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("picture.png");
        draw(&path).unwrap();
        let picture = image::open(&path).unwrap().into_luma8();
        assert_eq!(picture.dimensions(), (SIDE as u32, SIDE as u32));
        let contrast = |x: std::ops::Range<u32>| {
            let row: Vec<u8> = x.map(|x| picture.get_pixel(x, 64).0[0]).collect();
            row.iter().max().unwrap() - row.iter().min().unwrap()
        };
        let (waves, edge) = (contrast(95..110), contrast(80..90));
        assert!(edge > 2 * waves.max(1), "edge {edge}, waves {waves}");
    }
}
