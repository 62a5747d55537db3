//! decorr on a host's device: whose errors are whose, inputs and outputs that stay there, steps in the host's encoder.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use decorr::Error;
use decorr::gpu::{Gpu, choose_adapter, device_descriptor};
use decorr::graph::{Graph, Init, Role};
use decorr::program::{CompileOptions, Input, Program, Store};
use decorr::wgpu::{self, BufferUsages};
use wgpu::util::DeviceExt;

fn host_device(
    change: impl FnOnce(&mut wgpu::DeviceDescriptor<'_>),
) -> (wgpu::Adapter, wgpu::Device, wgpu::Queue) {
    let (_, adapter) = choose_adapter(&support::choice()).unwrap();
    let mut descriptor = device_descriptor(&adapter);
    change(&mut descriptor);
    let opened = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = opened.unwrap();
    (adapter, device, queue)
}

/// A host's device with the number of errors that its own handler has heard of.
fn counting_host() -> (Arc<Gpu>, Arc<AtomicUsize>) {
    let (adapter, device, queue) = host_device(|_| {});
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    device.on_uncaptured_error(Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    (Gpu::from_wgpu(&adapter, device, queue).unwrap(), heard)
}

/// On a device of decorr's own nobody else hears of them.
#[test]
fn errors_of_others_on_a_device_of_ours_are_told_once() {
    let gpu = Gpu::open(&support::choice()).unwrap();
    gpu.check().unwrap();
    let usage = BufferUsages::MAP_READ | BufferUsages::MAP_WRITE;
    for size in [16, 32] {
        let _ = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("of another"),
            size,
            usage,
            mapped_at_creation: false,
        });
    }
    let error = gpu.check().unwrap_err().to_string();
    assert!(error.contains("of another"), "{error}");
    gpu.check().unwrap();
}

/// total += x * w; the output is 2 x + total.
fn program(gpu: &Arc<Gpu>) -> (Program, Store) {
    let g = Graph::new();
    let x = g.input("x", [5]);
    let w = g.input("w", [1]);
    let total = g.parameter("total", [5], Init::Constant(0.0));
    total.assign(total + x * w);
    g.output("y", 2.0 * x + total);
    g.output("sum", x.sum_to([1]));
    let mut store = Store::new(gpu, 1);
    let program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    (program, store)
}

const X: [f32; 5] = [1.0, -2.0, 3.0, 0.5, 4.0];

fn buffer_of(gpu: &Gpu, values: &[f32], usage: BufferUsages) -> wgpu::Buffer {
    gpu.device()
        .create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("host"),
            contents: bytemuck::cast_slice(values),
            usage,
        })
}

/// What lies at `offset` of a buffer, by the host's own means.
fn read(gpu: &Gpu, buffer: &wgpu::Buffer, offset: u64, len: usize) -> Vec<f32> {
    let size = 4 * len as u64;
    let copy = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("read"),
        size,
        usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, offset, &copy, 0, size);
    gpu.queue().submit([encoder.finish()]);
    copy.map_async(wgpu::MapMode::Read, .., |_| {});
    gpu.wait(None).unwrap();
    let view = copy.get_mapped_range(..).unwrap();
    bytemuck::cast_slice(&view).to_vec()
}

#[test]
fn each_hears_of_its_own_errors() {
    let (gpu, heard) = counting_host();
    let bad = wgpu::BufferDescriptor {
        label: Some("mine"),
        size: 16,
        // No such pair.
        usage: BufferUsages::MAP_READ | BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    // The host's error goes to the host's handler, and decorr's next calls are none the worse for it.
    let _ = gpu.device().create_buffer(&bad);
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    let (mut program, store) = program(&gpu);
    let outputs = program.run(&[("x", &X), ("w", &[2.0])]).unwrap();
    assert_eq!(outputs.values["y"], X.map(|x| 2.0 * x));
    assert_eq!(store.read("total").unwrap(), X.map(|x| 2.0 * x));
    // decorr's error goes to decorr's caller, and the host hears nothing of it.
    let error = gpu.buffer("wrong", 16, bad.usage).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, Error::Config(_)) && text.contains("MAP_READ | STORAGE"),
        "{text}"
    );
    gpu.check().unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    // Nor does it come up in a scope of the host's.
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    gpu.buffer("wrong", 16, bad.usage).unwrap_err();
    assert!(pollster::block_on(scope.pop()).is_none());
}

#[test]
fn a_device_that_allows_too_little_is_refused_by_the_name_of_the_limit() {
    type Change = fn(&mut wgpu::Limits);
    let lower: [(&str, Change); 3] = [
        ("max_storage_buffers_per_shader_stage 4", |l| {
            l.max_storage_buffers_per_shader_stage = 4;
        }),
        ("max_compute_invocations_per_workgroup 128", |l| {
            l.max_compute_invocations_per_workgroup = 128;
        }),
        ("max_compute_workgroup_storage_size 8192", |l| {
            l.max_compute_workgroup_storage_size = 8192;
        }),
    ];
    for (wanted, change) in lower {
        let (adapter, device, queue) = host_device(|d| change(&mut d.required_limits));
        let error = Gpu::from_wgpu(&adapter, device, queue).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Adapter(_)), "{text}");
        assert!(
            text.contains(wanted) && text.contains("device_descriptor"),
            "{text}"
        );
    }
}

/// What is asked for a device: the adapter's own sizes, where they are more than wgpu's defaults, and what makes decorr faster.
#[test]
fn the_device_that_is_asked_for_holds_what_the_adapter_does() {
    let (_, adapter) = choose_adapter(&support::choice()).unwrap();
    let (asked, offered) = (device_descriptor(&adapter), adapter.limits());
    let sizes = |l: &wgpu::Limits| (l.max_buffer_size, l.max_storage_buffer_binding_size);
    assert_eq!(sizes(&asked.required_limits), sizes(&offered));
    let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP;
    assert_eq!(asked.required_features, adapter.features() & wanted);
    let gpu = Gpu::open(&support::choice()).unwrap();
    assert_eq!(sizes(gpu.limits()), sizes(&offered));
}

#[test]
fn a_device_with_the_default_limits_of_wgpu_is_enough() {
    let (adapter, device, queue) = host_device(|d| {
        d.required_features = wgpu::Features::empty();
        d.required_limits = wgpu::Limits::default().or_worse_values_from(&d.required_limits);
    });
    let gpu = Gpu::from_wgpu(&adapter, device, queue).unwrap();
    let outputs = program(&gpu).0.run(&[("x", &X), ("w", &[2.0])]).unwrap();
    assert_eq!(outputs.scalar("sum").unwrap(), 6.5);
}

#[test]
fn recorded_steps_take_buffers_and_values_and_leave_outputs_on_the_device() {
    let (gpu, heard) = counting_host();
    let (mut program, store) = program(&gpu);
    // x begins at the third number.
    let numbers: Vec<f32> = [9.0, 9.0].into_iter().chain(X).collect();
    let host = buffer_of(
        &gpu,
        &numbers,
        BufferUsages::COPY_SRC | BufferUsages::STORAGE,
    );
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    // Two steps in one encoder, each with a value of its own.
    for w in [2.0, 0.5] {
        let inputs = [("x", Input::Buffer(&host, 8)), ("w", Input::Values(&[w]))];
        program.record(&mut encoder, &inputs).unwrap();
    }
    // Nothing happens before the host submits.
    assert_eq!(store.read("total").unwrap(), [0.0; 5]);
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(store.read("total").unwrap(), X.map(|x| 2.5 * x));
    let y = program.output_on_device("y").unwrap();
    assert_eq!(y.shape.dims(), [5]);
    assert_eq!(
        y.offset % u64::from(gpu.limits().min_storage_buffer_offset_alignment),
        0
    );
    assert!(
        y.buffer
            .usage()
            .contains(BufferUsages::STORAGE | BufferUsages::COPY_SRC)
    );
    // The total that the second step begins with.
    let expected = X.map(|x| 2.0 * x + 2.0 * x);
    assert_eq!(read(&gpu, &y.buffer, y.offset, 5), expected);
    let sum = program.output_on_device("sum").unwrap();
    assert_eq!(read(&gpu, &sum.buffer, sum.offset, 1), [6.5]);
    // Both lie in one buffer, so that one of them does not begin it.
    assert!(y.offset > 0 || sum.offset > 0);
    for output in [y, sum] {
        let wgpu::BindingResource::Buffer(bound) = output.binding() else {
            panic!("a binding of no buffer");
        };
        assert_eq!(*bound.buffer, output.buffer);
        assert_eq!(bound.offset, output.offset);
        let bytes = bound.size.map(std::num::NonZero::get);
        assert_eq!(bytes, Some(output.shape.size_bytes()));
    }
    // Steps of either kind go on from each other.
    assert_eq!(program.steps_done(), 0);
    let outputs = program.run(&[("x", &X), ("w", &[0.0])]).unwrap();
    assert_eq!(outputs.values["y"], X.map(|x| 4.5 * x));
    assert_eq!(heard.load(Ordering::SeqCst), 0);
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_anything_is_recorded() {
    let (gpu, heard) = counting_host();
    let (program, _store) = program(&gpu);
    let host = buffer_of(&gpu, &X, BufferUsages::COPY_SRC);
    let mute = buffer_of(&gpu, &X, BufferUsages::STORAGE);
    let wide = buffer_of(&gpu, &[0.0; 6], BufferUsages::COPY_SRC);
    let w = ("w", Input::Values(&[1.0]));
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let mut refused = |inputs: &[(&str, Input<'_>)], wanted: &str| {
        let error = program.record(&mut encoder, inputs).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    };
    refused(&[w], "input x is missing");
    refused(&[w, w], "input w is given twice");
    refused(&[w, ("x", Input::Buffer(&host, 4))], "from 4 of 20");
    refused(&[w, ("x", Input::Buffer(&host, u64::MAX - 3))], "of 20");
    refused(&[w, ("x", Input::Buffer(&wide, 2))], "from 2 of 24");
    refused(&[w, ("x", Input::Buffer(&mute, 0))], "COPY_SRC");
    refused(&[w, ("x", Input::Values(&X[1..]))], "5 values, not 4");
    refused(&[w, ("z", Input::Values(&X))], "no input is called z");
    let error = program.output_on_device("z").unwrap_err().to_string();
    assert!(error.contains("y, sum"), "{error}");
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(heard.load(Ordering::SeqCst), 0);
}

/// 35 bytes are nine words, of which the last has one byte too many.
#[test]
fn inputs_of_bytes_are_uploaded_recorded_or_on_the_device() {
    let (gpu, heard) = counting_host();
    let g = Graph::new();
    let per_channel = |name: &str, values: [f32; 5]| {
        let init = Init::Values(values.to_vec().into());
        g.state(name, [1, 5, 1, 1], Role::Scratch, init)
    };
    let mean = per_channel("mean", [0.0, 0.25, 0.5, 0.75, 1.0]);
    let std = per_channel("std", [1.0, 0.5, 0.25, 2.0, 4.0]);
    g.output(
        "y",
        g.input("x", [9]).unpack_pixels(mean, std, [1, 5, 7, 1]) * g.input("w", [1]),
    );
    let mut store = Store::new(&gpu, 1);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    let bytes: Vec<u8> = (0..35).map(|i| (i * 73 + 5) as u8).collect();
    let wanted: Vec<f32> = (0..35)
        .map(|i| {
            let (c, v) = (i / 7, f64::from(bytes[i]) / 255.0);
            ((v - 0.25 * c as f64) / [1.0, 0.5, 0.25, 2.0, 4.0][c] * 3.0) as f32
        })
        .collect();
    let near = |y: &[f32]| {
        assert_eq!(y.len(), 35);
        let far = y.iter().zip(&wanted).find(|(a, b)| (*a - *b).abs() > 1e-5);
        assert_eq!(far, None, "{y:?}");
    };
    let w = ("w", Input::Values(&[3.0]));
    let padded = [&bytes[..], &[99]].concat();
    let host = buffer_of(
        &gpu,
        &bytemuck::pod_collect_to_vec::<u8, f32>(&padded),
        BufferUsages::COPY_SRC,
    );
    for x in [
        Input::Bytes(&bytes),
        Input::Bytes(&padded),
        Input::Buffer(&host, 0),
    ] {
        program.step_with(&[("x", x), w]).unwrap();
        near(&program.finish().unwrap()[0].values["y"]);
        // What the last one left must not be taken for this one's.
        let zeros = Input::Bytes(&[0; 35]);
        program.step_with(&[("x", zeros), w]).unwrap();
        assert_eq!(program.finish().unwrap()[0].values["y"][0], 0.0);
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        program.record(&mut encoder, &[("x", x), w]).unwrap();
        gpu.queue().submit([encoder.finish()]);
        let y = program.output_on_device("y").unwrap();
        near(&read(&gpu, &y.buffer, y.offset, 35));
    }
    for len in [32, 37] {
        let error = program.step_with(&[("x", Input::Bytes(&vec![0; len])), w]);
        let error = error.unwrap_err().to_string();
        let wanted = format!("x has 36 bytes, not {len}");
        assert!(error.contains(&wanted), "{error}");
    }
    assert_eq!(heard.load(Ordering::SeqCst), 0);
}

/// Upload buffers are used in turn: what a whole word left there is not the end of three bytes that follow.
#[test]
fn the_last_word_of_bytes_is_filled_up_with_zeros() {
    let (gpu, _) = counting_host();
    let g = Graph::new();
    g.output("y", g.input("x", [1]).reshape([1, 1]));
    let mut store = Store::new(&gpu, 1);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
    for (input, wanted) in [
        (Input::Values(&[1.0]), 0x3f80_0000),
        (Input::Bytes(&[0, 0, 0x80]), 0x0080_0000),
    ] {
        for _ in 0..8 {
            program.step_with(&[("x", input)]).unwrap();
            let y = program.finish().unwrap()[0].values["y"][0];
            assert_eq!(y.to_bits(), wanted);
        }
    }
}

/// The host is told by its own callback; decorr's calls end in an error.
#[test]
fn a_lost_device_of_a_host_is_an_error() {
    let (gpu, heard) = counting_host();
    let (mut program, store) = program(&gpu);
    program.run(&[("x", &X), ("w", &[2.0])]).unwrap();
    gpu.device().destroy();
    let errors = [
        store.read("total").unwrap_err(),
        gpu.check().unwrap_err(),
        program.run(&[("x", &X), ("w", &[2.0])]).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::DeviceLost(_)), "{error:?}");
    }
    assert_eq!(heard.load(Ordering::SeqCst), 0, "the host's handler");
}
