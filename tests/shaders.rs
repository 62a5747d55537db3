//! Every shader file as it stands: naga accepts it, it stays within WebGPU's default limits, and it
//! can be said in the languages of DX12 and Metal.

mod support;

use std::path::{Path, PathBuf};

use decorr::gpu::wgsl;

fn shaders() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let entries = std::fs::read_dir(dir).expect("the folder shaders");
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.expect("a readable folder").path())
        .filter(|p| p.extension().is_some_and(|e| e == "wgsl"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn naga_accepts_every_shader_within_default_limits() {
    let paths = shaders();
    assert!(paths.len() >= 10, "only {} shaders found", paths.len());
    let mut entries = 0;
    for path in &paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let source = std::fs::read_to_string(path).expect("a readable shader");
        let text = wgsl::expand(&name, &source, &[]).unwrap_or_else(|e| panic!("{e}"));
        let module = wgsl::validate(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        let mut layouter = naga::proc::Layouter::default();
        layouter
            .update(module.to_ctx())
            .expect("a valid module has layouts");
        let mut workgroup_bytes = 0;
        for (_, variable) in module.global_variables.iter() {
            if variable.space == naga::AddressSpace::WorkGroup {
                workgroup_bytes += layouter[variable.ty].size;
            }
        }
        assert!(
            workgroup_bytes <= 16 << 10,
            "{name}: {workgroup_bytes} bytes of workgroup memory"
        );
        for entry in &module.entry_points {
            entries += 1;
            let invocations: u32 = entry.workgroup_size.iter().product();
            assert!(
                invocations <= 256,
                "{name}: {} has {invocations}",
                entry.name
            );
        }
    }
    support::report(&format!("{} shaders, {entries} entry points", paths.len()));
}

/// What wgpu does on Windows and macOS before the driver sees a shader, done here, so that a
/// construct without a translation is found on any machine.
#[test]
fn every_shader_translates_to_hlsl_and_msl() {
    use naga::back::{hlsl, msl};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    for path in &shaders() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let source = std::fs::read_to_string(path).expect("a readable shader");
        let text = wgsl::expand(&name, &source, &[]).unwrap_or_else(|e| panic!("{e}"));
        let module = wgsl::validate(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        let info = Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP)
            .validate(&module)
            .expect("validated above");

        // Subgroup operations need shader model 6 and Metal 2.1; the rest runs on the oldest.
        let subgroup = name.ends_with("_subgroup");
        let shader_model = match subgroup {
            true => hlsl::ShaderModel::V6_0,
            false => hlsl::ShaderModel::V5_1,
        };
        let options = hlsl::Options {
            shader_model,
            ..hlsl::Options::default()
        };
        let mut text = String::new();
        let pipeline = hlsl::PipelineOptions::default();
        hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{name} as HLSL: {e}"));

        let options = msl::Options {
            lang_version: if subgroup { (2, 1) } else { (1, 2) },
            ..msl::Options::default()
        };
        msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|e| panic!("{name} as MSL: {e}"));
    }
}

/// An op's shader has the op's stem: whoever looks for one finds the other.
#[test]
fn every_shader_has_a_file_of_the_same_name_in_src_ops() {
    let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    for path in shaders() {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Variants of a kernel are told apart by what follows the op's name.
        let found = stem
            .match_indices('_')
            .map(|(i, _)| &stem[..i])
            .chain([stem.as_str()])
            .any(|name| ops.join(format!("{name}.rs")).is_file());
        assert!(found, "no src/ops/{stem}.rs");
    }
}
