//! Checkpoints: safetensors with PyTorch's names and layouts (OIHW).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::foreign;
use super::options::TrainOptions;
use crate::files::write_atomically;
use crate::graph::Role;
use crate::nn::part_of_weight;
use crate::program::Store;
use crate::{Error, Result};

/// A tensor on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// The entry of the file's metadata that holds ours, as a JSON object.
const METADATA: &str = "decorr";
/// The entry of ours that holds the names of the classes, a JSON array.
pub(super) const CLASS_NAMES: &str = "classes";
/// Larger files are no checkpoints: the largest of a network here is below 1 GiB, and its momenta are as much again.
const MAX_BYTES: u64 = 8 << 30;
/// So much is read before a file is believed to be one.
const HEAD: u64 = 1 << 16;
/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// What a model is made of: parameters and running statistics.
pub const MODEL: [Role; 2] = [Role::Parameter, Role::Statistic];

/// Tensors by name.
pub type Tensors = BTreeMap<String, HostTensor>;

/// Writes a checkpoint: whole, or not at all.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn save(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let fail = |e: safetensors::SafeTensorError| Error::checkpoint(path, e.to_string());
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let bytes = bytemuck::cast_slice(&tensor.data);
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(fail)?;
        views.push((name.as_str(), view));
    }
    // PyTorch's batch norm counts its batches, and `strict=True` asks for the count; here nothing needs it.
    let step: i64 = metadata
        .get("step")
        .and_then(|step| step.parse().ok())
        .unwrap_or(0);
    let count = step.to_le_bytes();
    let norms = tensors
        .keys()
        .filter_map(|name| name.strip_suffix("running_var"));
    let counts: Vec<String> = norms
        .map(|layer| format!("{layer}num_batches_tracked"))
        .collect();
    for name in &counts {
        views.push((
            name.as_str(),
            TensorView::new(Dtype::I64, vec![], &count).map_err(fail)?,
        ));
    }
    // One entry holds all: the library writes entries in random order, and the same run is to
    // give the same bytes.
    let text =
        serde_json::to_string(metadata).map_err(|e| Error::checkpoint(path, e.to_string()))?;
    // Without its feature `std`, safetensors has a HashMap of its own.
    let entry = [(METADATA.to_string(), text)].into_iter().collect();
    let bytes = safetensors::serialize(views, Some(entry)).map_err(fail)?;
    write_atomically(path, &bytes)
}

/// The file that `path` names: itself, or of the folder of a run its model.safetensors.
///
/// # Errors
/// [`Error::Checkpoint`] for a folder without one.
pub(crate) fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let file = path.join("model.safetensors");
    match file.exists() {
        true => Ok(file),
        false => Err(Error::checkpoint(
            path,
            "is a folder without a model.safetensors: name the folder of a run of `decorr train` that was saved, or a file",
        )),
    }
}

/// Reads a checkpoint and its metadata, empty for a file that decorr did not write. Numbers become f32, names those of
/// torchvision today; batch norms' `num_batches_tracked` are passed over.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] saying what is damaged, or which tensors have values that are not finite.
pub fn load(path: &Path) -> Result<(Tensors, BTreeMap<String, String>)> {
    decode(path, &read(path)?)
}

/// The bytes of a file that begins as a checkpoint does: others may have any size, or no end.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if it does not, or is too large.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let fail = |message: String| Err(Error::checkpoint(path, message));
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    let mut read = |most: u64, bytes: &mut Vec<u8>| {
        let read = file.by_ref().take(most).read_to_end(bytes);
        read.map_err(|e| Error::io(path, e))
    };
    if read(HEAD, &mut bytes)? < HEAD as usize {
        return Ok(bytes);
    }
    if let Some(advice) = foreign::advice(path, &bytes) {
        return fail(advice);
    }
    let header = bytes
        .first_chunk()
        .map_or(0, |len| u64::from_le_bytes(*len));
    if !(2..=MAX_HEADER).contains(&header) || bytes.get(8) != Some(&b'{') {
        return fail("is no safetensors file or damaged: it does not begin with a header".into());
    }
    read(MAX_BYTES - HEAD + 1, &mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return fail(format!(
            "has more than {} GiB: that is none of a network here",
            MAX_BYTES >> 30
        ));
    }
    Ok(bytes)
}

/// As [`load`], from the bytes of a file; `path` is for messages.
///
/// # Errors
/// [`Error::Checkpoint`] saying what is damaged.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<(Tensors, BTreeMap<String, String>)> {
    let fail = |message: String| Error::checkpoint(path, message);
    if let Some(advice) = foreign::advice(path, bytes) {
        return Err(fail(advice));
    }
    let damaged = |e| fail(format!("is no safetensors file or damaged: {e}"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        // They would be commands to a terminal.
        if name.contains(char::is_control) {
            let name = name.escape_debug();
            return Err(fail(format!("has a tensor whose name is none: \"{name}\"")));
        }
        if foreign::is_count(&name, view.dtype()) {
            continue;
        }
        let Some(data) = foreign::values(&view) else {
            let dtype = view.dtype();
            return Err(fail(format!(
                "tensor {name} has type {dtype:?}; F16, BF16, F32 and F64 are read"
            )));
        };
        let shape = view.shape().to_vec();
        tensors.insert(name, HostTensor { shape, data });
    }
    let tensors = foreign::renamed(tensors).map_err(fail)?;
    foreign::refuse_senseless(path, &tensors)?;
    let entries = header.metadata().clone().unwrap_or_default();
    let metadata = match entries.get(METADATA) {
        Some(text) => serde_json::from_str(text)
            .map_err(|e| fail(format!("its metadata `{METADATA}` is damaged: {e}")))?,
        None => BTreeMap::new(),
    };
    Ok((tensors, metadata))
}

/// The options of the run that wrote a checkpoint with this metadata; `None` if decorr did not.
///
/// # Errors
/// [`Error::Checkpoint`] if they cannot be read.
pub fn written_options(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<TrainOptions>> {
    let read = |text: &String| {
        toml::from_str(text)
            .map_err(|e| Error::checkpoint(path, format!("its `config` is damaged: {e}")))
    };
    metadata.get("config").map(read).transpose()
}

/// What commands and `Trainer::save` say in a file that training goes on from, beside what all files say.
pub(super) const OF_STATE: [&str; 2] = ["seconds", "seed"];

/// Whether a file with such metadata has what training goes on from: states of the optimiser, too.
pub(super) fn is_state(metadata: &BTreeMap<String, String>) -> bool {
    OF_STATE.iter().any(|key| metadata.contains_key(*key))
}

/// The names of the classes in the order of their numbers, if the metadata has them.
///
/// # Errors
/// [`Error::Checkpoint`] if they cannot be read.
pub(super) fn class_names(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<Vec<String>>> {
    let read = |text: &String| {
        serde_json::from_str(text)
            .map_err(|e| Error::checkpoint(path, format!("its `{CLASS_NAMES}` are damaged: {e}")))
    };
    metadata.get(CLASS_NAMES).map(read).transpose()
}

/// The states of a store that have one of `roles`, weights that are kept in parts whole. Waits for
/// the GPU.
///
/// # Errors
/// What the device reported.
pub fn from_store(store: &Store, roles: &[Role]) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, whole) in wholes(store, roles) {
        let mut data = Vec::with_capacity(whole.shape.iter().product());
        for (part, _) in &whole.parts {
            data.extend(store.read(part)?);
        }
        let shape = whole.shape;
        tensors.insert(name, HostTensor { shape, data });
    }
    Ok(tensors)
}

/// Writes tensors into the store, whose states of `roles` they must be, one to one.
///
/// # Errors
/// [`Error::Checkpoint`] naming every tensor that is missing, left over or of another shape.
pub fn to_store(path: &Path, tensors: &Tensors, store: &Store, roles: &[Role]) -> Result<()> {
    let wanted = wholes(store, roles);
    let unknown = tensors.keys().filter(|n| !wanted.contains_key(*n));
    let unknown: Vec<String> = unknown
        .map(|name| format!("{name} is unknown to the model"))
        .collect();
    write(path, tensors, store, wanted, unknown)
}

/// Writes those tensors into the store that are its states of `roles`, and passes over others: for a
/// part of a network.
///
/// # Errors
/// [`Error::Checkpoint`] naming every state that is missing or of another shape.
pub(crate) fn part_to_store(
    path: &Path,
    tensors: &Tensors,
    store: &Store,
    roles: &[Role],
) -> Result<()> {
    write(path, tensors, store, wholes(store, roles), Vec::new())
}

/// What `--init` did with the tensors of a file.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Of the model, taken from the file.
    pub(super) taken: usize,
    /// Of the model's last layer, which has another number of classes in the file.
    pub(super) anew: Vec<String>,
    /// Of the model, and not in the file.
    pub(super) missing: Vec<String>,
    /// In the file, and not of the model.
    pub(super) unused: Vec<String>,
}

/// Gives the store's parameters and running statistics the values of those tensors that have their names, for a training
/// that begins with another network. The layer `last` keeps its own first values where its shape is another.
///
/// # Errors
/// [`Error::Checkpoint`] naming every other tensor of another shape, or if none has the name of a parameter.
pub(super) fn begin_with(
    path: &Path,
    tensors: &Tensors,
    store: &Store,
    last: Option<&str>,
) -> Result<Begun> {
    let mut wanted = wholes(store, &MODEL);
    let is_unused = |name: &&String| !wanted.contains_key(*name);
    let mut begun = Begun {
        unused: tensors.keys().filter(is_unused).cloned().collect(),
        ..Begun::default()
    };
    wanted.retain(|name, whole| {
        let is_of_last = name.rsplit_once('.').map(|(layer, _)| layer) == last;
        match tensors.get(name) {
            Some(tensor) if tensor.shape != whole.shape && is_of_last => {
                begun.anew.push(name.clone());
                false
            }
            Some(_) => true,
            None => {
                begun.missing.push(name.clone());
                false
            }
        }
    });
    begun.taken = wanted.len();
    if wanted.is_empty() {
        let message =
            "has no tensor of this network: name the `model`, `form` and `norm` that it is of";
        return Err(Error::checkpoint(path, message));
    }
    write(path, tensors, store, wanted, Vec::new())?;
    Ok(begun)
}

fn write(
    path: &Path,
    tensors: &Tensors,
    store: &Store,
    wanted: BTreeMap<String, Whole>,
    unknown: Vec<String>,
) -> Result<()> {
    let mut problems = Vec::new();
    for (name, whole) in &wanted {
        match tensors.get(name) {
            None => problems.push(format!("{name} {:?} is missing", whole.shape)),
            Some(tensor) if tensor.shape != whole.shape => {
                problems.push(format!(
                    "{name} is {:?}, not {:?}",
                    tensor.shape, whole.shape
                ));
            }
            Some(_) => {}
        }
    }
    problems.extend(unknown);
    if !problems.is_empty() {
        let message = format!("does not fit the model: {}", foreign::first_of(&problems));
        return Err(Error::checkpoint(path, message));
    }
    for (name, whole) in &wanted {
        let mut rest = tensors[name].data.as_slice();
        for (part, len) in &whole.parts {
            let (values, after) = rest.split_at(*len);
            store.write(part, values)?;
            rest = after;
        }
    }
    Ok(())
}

/// A tensor of a checkpoint, and the states that hold it in parts along its first dimension: names
/// and numbers of values.
#[derive(Default)]
struct Whole {
    shape: Vec<usize>,
    parts: Vec<(String, usize)>,
}

fn wholes(store: &Store, roles: &[Role]) -> BTreeMap<String, Whole> {
    let mut pieces: BTreeMap<(&str, usize), (&str, &[usize])> = BTreeMap::new();
    for (name, shape, role) in store.states() {
        if roles.contains(&role) {
            let key = part_of_weight(name).unwrap_or((name, 0));
            pieces.insert(key, (name, shape.dims()));
        }
    }
    let mut wholes: BTreeMap<String, Whole> = BTreeMap::new();
    for ((whole, part), (name, shape)) in pieces {
        let entry = wholes.entry(whole.to_string()).or_default();
        match part {
            0 => entry.shape = shape.to_vec(),
            _ => entry.shape[0] += shape[0],
        }
        let len = shape.iter().product();
        entry.parts.push((name.to_string(), len));
    }
    wholes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Tensors, BTreeMap<String, String>) {
        let tensor = |shape: &[usize], data: &[f32]| HostTensor {
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let tensors = Tensors::from([
            (
                "fc.weight".into(),
                tensor(&[2, 2], &[1.0, -2.5, f32::MIN_POSITIVE, 0.0]),
            ),
            ("count".into(), tensor(&[], &[7.0])),
        ]);
        let metadata = BTreeMap::from([("model".to_string(), "cnn".to_string())]);
        (tensors, metadata)
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let (tensors, metadata) = example();
        save(&path, &tensors, &metadata).unwrap();
        assert_eq!(load(&path).unwrap(), (tensors, metadata));
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary left"
        );
    }

    /// Headers of every length, those that begin as a pickle does among them.
    #[test]
    fn headers_of_any_length_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let tensors = Tensors::from([(
            "w".to_string(),
            HostTensor {
                shape: vec![2],
                data: vec![1.0, 2.0],
            },
        )]);
        let mut like_a_pickle = 0;
        for len in (0..1600).step_by(8) {
            let metadata = BTreeMap::from([("config".to_string(), "x".repeat(len))]);
            save(&path, &tensors, &metadata).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            like_a_pickle += usize::from(matches!(bytes[..], [0x80, 2..=5, ..]));
            assert_eq!(decode(&path, &bytes).unwrap(), (tensors.clone(), metadata));
        }
        assert!(like_a_pickle >= 4, "{like_a_pickle}");
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let (tensors, metadata) = example();
        save(&path, &tensors, &metadata).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut absurd = whole.clone();
        absurd[..8].fill(0xff);
        for bytes in [&whole[..whole.len() - 1], &whole[..20], b"PNG", &absurd] {
            std::fs::write(&path, bytes).unwrap();
            let text = load(&path).unwrap_err().to_string();
            assert!(text.contains("model.safetensors"), "{text}");
        }
        // What begins with no header is not read beyond its first 64 KiB.
        let head = |len: u64, first: u8| [&len.to_le_bytes()[..], &[first; 70_000]].concat();
        let [no_object, longer, empty] =
            [head(100, b'['), head(MAX_HEADER + 1, b'{'), head(1, b'{')];
        for bytes in [no_object, longer, empty] {
            std::fs::write(&path, bytes).unwrap();
            let text = load(&path).unwrap_err().to_string();
            assert!(
                text.ends_with(
                    "is no safetensors file or damaged: it does not begin with a header"
                ),
                "{text}"
            );
        }
    }

    /// PyTorch's batch norms count their batches: here that is the number of steps.
    #[test]
    fn batch_norms_count_the_steps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let one = HostTensor {
            shape: vec![1],
            data: vec![1.0],
        };
        let names = ["a.bn.running_mean", "a.bn.running_var", "fc.weight"];
        let tensors = Tensors::from(names.map(|name| (name.to_string(), one.clone())));
        for (metadata, wanted) in [(&[("seconds", "7"), ("step", "12")][..], 12_i64), (&[], 0)] {
            let entry = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
            save(&path, &tensors, &metadata.iter().map(entry).collect()).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let all = file.tensors().into_iter();
            let counts: Vec<_> = all
                .filter(|(_, view)| view.dtype() != Dtype::F32)
                .map(|(name, view)| (name, view.dtype(), view.data().to_vec()))
                .collect();
            let name = "a.bn.num_batches_tracked".to_string();
            let wanted = (name, Dtype::I64, wanted.to_le_bytes().to_vec());
            assert_eq!(counts, [wanted]);
        }
    }
}
