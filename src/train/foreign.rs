//! State dicts as other programs write them: types of numbers, prefixes and older names, to ours.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::checkpoint::Tensors;
use crate::{Error, Result};

/// What wrappers put before every name: `DataParallel` and `DistributedDataParallel`, and `torch.compile`.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// The values of a tensor as f32; `None` for types that hold no weights.
pub(super) fn values(view: &TensorView<'_>) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (values, _) = bytes.as_chunks::<N>();
        values.iter().map(|&bytes| value(bytes)).collect()
    }
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
        _ => return None,
    })
}

/// Whether a tensor is a batch norm's count of batches, an integer that nothing here needs.
pub(super) fn is_count(name: &str, dtype: Dtype) -> bool {
    let is_integer = matches!(
        dtype,
        Dtype::I64
            | Dtype::I32
            | Dtype::I16
            | Dtype::I8
            | Dtype::U64
            | Dtype::U32
            | Dtype::U16
            | Dtype::U8
    );
    is_integer && name.ends_with("num_batches_tracked")
}

/// The tensors under the names of torchvision today.
///
/// # Errors
/// Two names that are one today.
pub(super) fn renamed(mut tensors: Tensors) -> Result<Tensors, String> {
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|p| !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(*p)))
    {
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (name[prefix.len()..].to_string(), tensor))
            .collect();
    }
    let mut all = Tensors::new();
    for (name, mut tensor) in tensors {
        let todays = densenet_of_2017(&name).or_else(|| timm_vgg(&name, &mut tensor.shape));
        let todays = todays.unwrap_or_else(|| name.clone());
        if all.contains_key(&todays) {
            return Err(format!("has {todays} twice: once as {name}"));
        }
        all.insert(todays, tensor);
    }
    Ok(all)
}

/// `...denselayer1.norm.1.weight` of the weights of 2017 is `...denselayer1.norm1.weight`.
fn densenet_of_2017(name: &str) -> Option<String> {
    let (layer, tensor) = name.rsplit_once('.')?;
    let (layer, number) = layer.rsplit_once('.')?;
    let (place, kind) = layer.rsplit_once('.')?;
    let is_layer = place.rsplit('.').next()?.starts_with("denselayer");
    let is_known = matches!(kind, "norm" | "conv") && matches!(number, "1" | "2");
    (is_layer && is_known).then(|| format!("{place}.{kind}{number}.{tensor}"))
}

/// timm has the first two linear layers of VGG as convolutions over all that is left of the image: `shape` becomes
/// that of a linear layer.
fn timm_vgg(name: &str, shape: &mut Vec<usize>) -> Option<String> {
    let (layer, kind) = name.rsplit_once('.')?;
    let ours = match layer {
        "pre_logits.fc1" => "classifier.0",
        "pre_logits.fc2" => "classifier.3",
        "head.fc" => "classifier.6",
        _ => return None,
    };
    if let [outputs, inputs @ ..] = shape.as_slice()
        && inputs.len() > 1
    {
        *shape = vec![*outputs, inputs.iter().product()];
    }
    Some(format!("{ours}.{kind}"))
}

/// Refuses numbers that no training leaves behind: they would make every result NaN, or look plausible.
///
/// # Errors
/// [`Error::Checkpoint`] naming the tensors.
pub(super) fn refuse_senseless(path: &Path, tensors: &Tensors) -> Result<()> {
    let mut problems = Vec::new();
    for (name, tensor) in tensors {
        if let Some(first) = tensor.data.iter().position(|v| !v.is_finite()) {
            let (all, value) = (tensor.data.len(), tensor.data[first]);
            let count = tensor.data.iter().filter(|v| !v.is_finite()).count();
            problems.push(format!(
                "{count} of the {all} values of {name} are not finite, the first is {value} at {first}"
            ));
        } else if name.ends_with("running_var")
            && let Some(first) = tensor.data.iter().position(|&v| v < 0.0)
        {
            let value = tensor.data[first];
            problems.push(format!(
                "{name} holds a negative variance, {value} at {first}"
            ));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::checkpoint(path, first_of(&problems))),
    }
}

/// Five of `problems`, and how many there are beside them.
pub(super) fn first_of(problems: &[String]) -> String {
    const SHOWN: usize = 5;
    let text = problems[..problems.len().min(SHOWN)].join("; ");
    match problems.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

/// What is to be done with a file that `torch.save` wrote.
pub(super) fn advice(path: &Path, bytes: &[u8]) -> Option<String> {
    let is_zip = bytes.starts_with(b"PK\x03\x04");
    // A safetensors header of 640 bytes, say, begins with 0x80 0x02 too, and goes on with JSON.
    let is_pickle = matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{');
    if !is_zip && !is_pickle {
        return None;
    }
    let from = path.display();
    let to = path.with_extension("safetensors");
    Some(format!(
        "is a file of torch.save, which is not read. Convert it: python -c \"import torch; from safetensors.torch import \
         save_file; d = torch.load('{from}', map_location='cpu', weights_only=True); d = d.get('state_dict', d); \
         save_file({{k: v.contiguous() for k, v in d.items()}}, '{}')\"",
        to.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::checkpoint::HostTensor;

    fn tensor(shape: &[usize]) -> HostTensor {
        HostTensor {
            shape: shape.to_vec(),
            data: vec![0.5; shape.iter().product()],
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        let tensors = names.iter().map(|n| ((*n).to_string(), tensor(&[1])));
        renamed(tensors.collect()).unwrap().into_keys().collect()
    }

    #[test]
    fn prefixes_go_where_every_name_has_them() {
        assert_eq!(names(&["module.a", "module.b"]), ["a", "b"]);
        assert_eq!(names(&["module._orig_mod.a"]), ["a"]);
        assert_eq!(
            names(&["_orig_mod.module.a", "_orig_mod.module.module.b"]),
            ["a", "module.b"]
        );
        assert_eq!(names(&["module.a", "b"]), ["b", "module.a"]);
    }

    #[test]
    fn older_names_are_todays() {
        assert_eq!(
            names(&["features.denseblock1.denselayer2.norm.1.running_var"]),
            ["features.denseblock1.denselayer2.norm1.running_var"]
        );
        assert_eq!(
            names(&["features.norm.1.weight"]),
            ["features.norm.1.weight"]
        );
        let timm = [
            ("pre_logits.fc1.weight".to_string(), tensor(&[4, 3, 7, 7])),
            ("head.fc.bias".to_string(), tensor(&[10])),
        ];
        let todays = Tensors::from([
            ("classifier.0.weight".to_string(), tensor(&[4, 147])),
            ("classifier.6.bias".to_string(), tensor(&[10])),
        ]);
        assert_eq!(renamed(timm.clone().into()).unwrap(), todays);
        for (old, new) in [
            ("pre_logits.fc1.bias", "classifier.0.bias"),
            ("pre_logits.fc2.weight", "classifier.3.weight"),
            ("head.fc.weight", "classifier.6.weight"),
            ("head.fc1.weight", "head.fc1.weight"),
        ] {
            assert_eq!(names(&[old]), [new]);
        }
        let both = timm.into_iter().chain(todays);
        let text = renamed(both.collect()).unwrap_err();
        assert!(text.contains("twice: once as"), "{text}");
    }

    #[test]
    fn numbers_of_every_width() {
        let of =
            |dtype, bytes: &[u8], len| values(&TensorView::new(dtype, vec![len], bytes).unwrap());
        assert_eq!(
            of(Dtype::F16, &[0x00, 0x3c, 0x01, 0x00], 2),
            Some(vec![1.0, 2f32.powi(-24)])
        );
        assert_eq!(of(Dtype::BF16, &[0xc0, 0x3f], 1), Some(vec![1.5]));
        assert_eq!(
            of(Dtype::F64, &(-0.1f64).to_le_bytes(), 1),
            Some(vec![-0.1])
        );
        assert_eq!(of(Dtype::I32, &[0; 4], 1), None);
    }

    #[test]
    fn senseless_numbers_are_named() {
        let mut tensors = Tensors::from([("bn.running_var".to_string(), tensor(&[3]))]);
        assert!(refuse_senseless(Path::new("f"), &tensors).is_ok());
        tensors.get_mut("bn.running_var").unwrap().data[1] = -1e-9;
        let text = refuse_senseless(Path::new("f"), &tensors)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("bn.running_var") && text.contains("negative"),
            "{text}"
        );
        let mut bad = tensor(&[4]);
        (bad.data[2], bad.data[3]) = (f32::NEG_INFINITY, f32::NAN);
        let alone = Tensors::from([("fc.weight".to_string(), bad)]);
        let text = refuse_senseless(Path::new("f"), &alone)
            .unwrap_err()
            .to_string();
        let wanted = "2 of the 4 values of fc.weight are not finite, the first is -inf at 2";
        assert!(text.ends_with(wanted), "{text}");
        for n in 0..9 {
            let mut bad = tensor(&[2]);
            bad.data[1] = if n % 2 == 0 { f32::NAN } else { f32::INFINITY };
            tensors.insert(format!("w{n}"), bad);
        }
        let text = refuse_senseless(Path::new("f"), &tensors)
            .unwrap_err()
            .to_string();
        assert!(text.contains("w2") && text.contains("and 5 more"), "{text}");
    }
}
