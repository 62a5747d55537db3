//! Weights as other programs write them, evaluated: types of numbers, prefixes, counters, and what is refused by name.

mod support;

use std::collections::HashMap;
use std::path::Path;

use decorr::train::{Evaluation, Norm, TrainOptions, evaluate_checkpoint};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A tensor as it lies in a file.
#[derive(Clone)]
struct Raw {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn raw(name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> Raw {
    let bytes = values.iter().flat_map(|&v| match dtype {
        Dtype::F64 => f64::from(v).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    });
    Raw {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
        bytes: bytes.collect(),
    }
}

/// Weights of `--model linear` on the built-in images, `[10, 784]` and `[10]`.
fn linear(dtype: Dtype, prefix: &str, change: impl Fn(&mut [f32])) -> Vec<Raw> {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut weight: Vec<f32> = (0..7840)
        .map(|_| (rng.random::<f32>() - 0.5) / 10.0)
        .collect();
    change(&mut weight);
    vec![
        raw(&format!("{prefix}fc.weight"), dtype, &[10, 784], &weight),
        raw(&format!("{prefix}fc.bias"), dtype, &[10], &[0.1; 10]),
    ]
}

fn write(path: &Path, tensors: &[Raw]) {
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|t| {
            (
                t.name.as_str(),
                TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap(),
            )
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn evaluated(path: &Path, model: &str, norm: Norm) -> decorr::Result<Evaluation> {
    let options = TrainOptions {
        model: Some(model.into()),
        norm: Some(norm),
        test_images: Some(200),
        ..TrainOptions::default()
    };
    evaluate_checkpoint(&support::gpu(), path, options, |_| ())
}

#[test]
fn types_and_prefixes_change_nothing_but_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("linear.safetensors");
    let loss = |tensors: &[Raw]| {
        write(&path, tensors);
        evaluated(&path, "linear", Norm::None).unwrap().loss
    };
    let plain = loss(&linear(Dtype::F32, "", |_| ()));
    for prefix in ["module.", "_orig_mod.", "module._orig_mod."] {
        assert_eq!(loss(&linear(Dtype::F32, prefix, |_| ())), plain, "{prefix}");
    }
    assert_eq!(loss(&linear(Dtype::F64, "", |_| ())), plain);
    for (dtype, digits) in [(Dtype::F16, 11), (Dtype::BF16, 8)] {
        let rounded = loss(&linear(dtype, "", |_| ()));
        let error = (rounded - plain).abs() / plain;
        assert!(
            error > 0.0 && error < 0.5f64.powi(digits),
            "{dtype:?}: {rounded}, {plain}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("linear.safetensors");
    let refusal = || {
        evaluated(&path, "linear", Norm::None)
            .unwrap_err()
            .to_string()
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        write(&path, &linear(Dtype::F32, "module.", |w| w[17] = value));
        let text = refusal();
        assert!(
            text.contains("fc.weight") && text.contains("not finite"),
            "{text}"
        );
        assert!(text.contains("linear.safetensors"), "{text}");
    }
    let mut integers = linear(Dtype::F32, "", |_| ());
    integers[1].dtype = Dtype::I32;
    write(&path, &integers);
    let text = refusal();
    assert!(text.contains("fc.bias") && text.contains("I32"), "{text}");
    // What a terminal would take for a command.
    let mut coloured = linear(Dtype::F32, "", |_| ());
    coloured[1].name = "fc\u{1b}[31m.bias".into();
    write(&path, &coloured);
    let text = refusal();
    assert!(text.contains(r"fc\u{1b}[31m.bias"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    for bytes in [
        &b"PK\x03\x04archive/data.pkl"[..],
        b"\x80\x02}q\x00.",
        b"\x80\x03}q\x00.\0\0\0",
        b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}.",
        b"\x80\x05\x95\x0b\0\0\0\0\0\0\0}.",
    ] {
        let pth = dir.path().join("resnet.pth");
        std::fs::write(&pth, bytes).unwrap();
        let text = evaluated(&pth, "linear", Norm::None)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("torch.load") && text.contains("resnet.safetensors"),
            "{text}"
        );
    }
}

/// A network of another size: five tensors, and how many more.
#[test]
fn long_lists_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("linear.safetensors");
    write(&path, &linear(Dtype::F32, "", |_| ()));
    let text = evaluated(&path, "cnn", Norm::Batch)
        .unwrap_err()
        .to_string();
    assert!(text.contains(" more") && text.len() < 500, "{text}");
}

/// The smallest network with a batch norm: its counter may be any integer; a negative variance is refused.
#[test]
fn batch_norms_counters_and_variances() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cnn.safetensors");
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut tensors = Vec::new();
    let mut add = |name: &str, shape: &[usize], center: f32| {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| center + (rng.random::<f32>() - 0.5) / 5.0)
            .collect();
        tensors.push(raw(name, Dtype::F32, shape, &values));
    };
    let mut before = 1;
    for (layer, channels) in [(1, 32), (2, 64), (3, 128)] {
        add(
            &format!("conv{layer}.weight"),
            &[channels, before, 3, 3],
            0.0,
        );
        add(&format!("norm{layer}.weight"), &[channels], 1.0);
        add(&format!("norm{layer}.bias"), &[channels], 0.0);
        add(&format!("norm{layer}.running_mean"), &[channels], 0.0);
        add(&format!("norm{layer}.running_var"), &[channels], 1.0);
        before = channels;
    }
    add("fc.weight", &[10, 128 * 9], 0.0);
    add("fc.bias", &[10], 0.0);
    write(&path, &tensors);
    let plain = evaluated(&path, "cnn", Norm::Batch).unwrap();
    for (dtype, bytes) in [(Dtype::I64, 8), (Dtype::I32, 4), (Dtype::U8, 1)] {
        let mut with_count = tensors.clone();
        with_count.push(Raw {
            name: "norm2.num_batches_tracked".into(),
            dtype,
            shape: vec![],
            bytes: vec![1; bytes],
        });
        write(&path, &with_count);
        assert_eq!(
            evaluated(&path, "cnn", Norm::Batch).unwrap(),
            plain,
            "{dtype:?}"
        );
    }
    let variance = tensors
        .iter()
        .position(|t| t.name == "norm3.running_var")
        .unwrap();
    tensors[variance].bytes[4..8].copy_from_slice(&(-0.25f32).to_le_bytes());
    write(&path, &tensors);
    let text = evaluated(&path, "cnn", Norm::Batch)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("norm3.running_var") && text.contains("-0.25 at 1"),
        "{text}"
    );
}
