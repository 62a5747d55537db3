//! WGSL as it stands in shaders/ made into what the driver gets.
//!
//! Unstable: may change in any release.
//!
//! Two mechanisms, both by whole lines: `#import name` puts in `shaders/shared/name.wgsl`, and
//! `const NAME: u32 = ...;` takes another value (unlike `override`, also good for array lengths).

use std::fmt::Write;

use crate::{Error, Result};

const SHARED: &[(&str, &str)] = &[
    (
        "contraction",
        include_str!("../../shaders/shared/contraction.wgsl"),
    ),
    ("grid", include_str!("../../shaders/shared/grid.wgsl")),
    ("nan", include_str!("../../shaders/shared/nan.wgsl")),
    ("pool2d", include_str!("../../shaders/shared/pool2d.wgsl")),
];

/// Puts in imports and constants.
///
/// # Errors
/// [`Error::Shader`] for an import or a constant that does not exist.
pub fn expand(name: &str, source: &str, constants: &[(&'static str, u32)]) -> Result<String> {
    let fail = |message: String| Error::Shader {
        name: name.to_string(),
        message,
    };
    let mut lines = Vec::new();
    for line in source.lines() {
        match line.strip_prefix("#import ") {
            None => lines.push(line),
            Some(import) => {
                let shared = SHARED.iter().find(|(stem, _)| *stem == import.trim());
                let (_, shared) =
                    shared.ok_or_else(|| fail(format!("shaders/shared has no {import}")))?;
                lines.extend(shared.lines());
            }
        }
    }
    let mut text = String::with_capacity(source.len());
    let mut set = vec![false; constants.len()];
    for line in lines {
        let constant = constants
            .iter()
            .position(|(key, _)| line.starts_with(&format!("const {key}: u32 = ")));
        if let Some(i) = constant {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "const {}: u32 = {}u;", constants[i].0, constants[i].1);
            set[i] = true;
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    match set.iter().position(|done| !done) {
        Some(i) => Err(fail(format!(
            "no line `const {}: u32 = ...;`",
            constants[i].0
        ))),
        None => Ok(text),
    }
}

/// Parses and validates WGSL with naga, under the capabilities of plain WebGPU and
/// subgroups (the device refuses those where it has none).
///
/// # Errors
/// [`Error::Shader`] with naga's report.
pub fn validate(name: &str, source: &str) -> Result<naga::Module> {
    let fail = |message: String| Error::Shader {
        name: name.to_string(),
        message,
    };
    let module =
        naga::front::wgsl::parse_str(source).map_err(|e| fail(e.emit_to_string(source)))?;
    naga::valid::Validator::new(
        naga::valid::ValidationFlags::all(),
        naga::valid::Capabilities::SUBGROUP,
    )
    .validate(&module)
    .map_err(|e| fail(e.emit_to_string(source)))?;
    Ok(module)
}

/// What the host must know of an entry point, as naga read it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Invocations of a workgroup.
    pub invocations: usize,
    /// Size of the uniform struct at binding 0.
    params_bytes: usize,
    members: Vec<Member>,
}

/// A member of the uniform struct.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    offset: usize,
    size: usize,
}

impl Interface {
    /// Of `entry` in a valid module.
    ///
    /// # Errors
    /// [`Error::Bug`] if there is no such entry point, or no uniform struct at binding 0.
    pub fn of(module: &naga::Module, entry: &str) -> Result<Self> {
        let point = module.entry_points.iter().find(|e| e.name == entry);
        let point = point.ok_or_else(|| Error::bug(format!("no entry point is called {entry}")))?;
        let mut variables = module.global_variables.iter().map(|(_, variable)| variable);
        let uniform = variables.find(|v| v.space == naga::AddressSpace::Uniform);
        match uniform.map(|v| &module.types[v.ty].inner) {
            Some(naga::TypeInner::Struct { members, span }) => Ok(Self {
                invocations: point.workgroup_size.iter().product::<u32>() as usize,
                params_bytes: (*span as usize).next_multiple_of(16),
                members: members
                    .iter()
                    .map(|member| Member {
                        name: member.name.clone().unwrap_or_default(),
                        offset: member.offset as usize,
                        size: module.types[member.ty].inner.size(module.to_ctx()) as usize,
                    })
                    .collect(),
            }),
            _ => Err(Error::bug(format!("{entry} has no uniform struct"))),
        }
    }

    /// The bytes of the uniform struct with these values. Members whose names begin with `_` fill it up and are zero.
    /// `label` is for messages.
    ///
    /// # Errors
    /// [`Error::Bug`] for a name that the struct lacks, one that it has and `values` lack, and a value of another size.
    pub fn pack<'a>(
        &self,
        label: &str,
        values: impl Iterator<Item = (&'a str, &'a [u32])>,
    ) -> Result<Vec<u8>> {
        let fail = |what: String| Err(Error::bug(format!("{label}: params{what}")));
        let mut bytes = vec![0; self.params_bytes];
        let is_filling = |member: &&Member| member.name.starts_with('_');
        let mut missing: Vec<&Member> = self.members.iter().collect();
        missing.retain(|member| !is_filling(member));
        for (name, words) in values {
            let Some(i) = missing.iter().position(|member| member.name == name) else {
                return fail(format!(" has no {name}"));
            };
            let Member { offset, size, .. } = *missing.swap_remove(i);
            let value: &[u8] = bytemuck::cast_slice(words);
            if value.len() != size {
                return fail(format!(".{name} has {size} bytes, not {}", value.len()));
            }
            bytes[offset..offset + size].copy_from_slice(value);
        }
        match missing.first() {
            Some(member) => fail(format!(".{} has no value", member.name)),
            None => Ok(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_and_constants_are_put_in_or_refused() {
        let source = "#import grid\nconst K: u32 = 1u;\nfn f() {}\n";
        let text = expand("t", source, &[("K", 7)]).unwrap();
        assert!(text.contains("fn linear_workgroup") && text.contains("const K: u32 = 7u;"));
        assert!(expand("t", source, &[("L", 7)]).is_err());
        assert!(expand("t", "#import nothing\n", &[]).is_err());
    }

    #[test]
    fn params_are_set_by_name_and_all_of_them() {
        let source =
            "struct Params { a: f32, b: vec3<u32>, c: u32, _0: u32, d: array<vec4<u32>, 2> }
            @group(0) @binding(0) var<uniform> params: Params;
            @compute @workgroup_size(8, 4) fn main() { _ = params.a; }";
        let module = validate("t", source).unwrap();
        assert!(Interface::of(&module, "other").is_err());
        let interface = Interface::of(&module, "main").unwrap();
        assert_eq!(interface.invocations, 32);
        let pack = |values: &[(&'static str, &[u32])]| interface.pack("t", values.iter().copied());
        let all: [(&str, &[u32]); 4] =
            [("c", &[5]), ("d", &[7; 8]), ("b", &[2, 3, 4]), ("a", &[1])];
        // A vector of three lies at a multiple of 16, and what follows it in its fourth word.
        let mut expected = vec![1, 0, 0, 0, 2, 3, 4, 5, 0, 0, 0, 0];
        expected.extend([7; 8]);
        let bytes = pack(&all).unwrap();
        assert_eq!(bytemuck::cast_slice::<u8, u32>(&bytes), expected);
        for (values, wanted) in [
            (&[&all[..], &[("e", &[1])]].concat(), "has no e"),
            (&[&all[..], &[("a", &[1])]].concat(), "has no a"),
            (&all[1..].to_vec(), "c has no value"),
            (
                &[&all[..3], &[("a", &[1, 2])]].concat(),
                "has 4 bytes, not 8",
            ),
        ] {
            let error = pack(values).unwrap_err();
            assert!(
                matches!(&error, Error::Bug(text) if text.contains(wanted)),
                "{error}"
            );
        }
    }

    #[test]
    fn invalid_wgsl_is_an_error_not_a_panic() {
        assert!(validate("t", "fn f( {").is_err());
        assert!(validate("t", "fn f() -> u32 { return 1.5; }").is_err());
    }
}
