//! WGSL as it stands in shaders/ made into what the driver gets.
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
    fn invalid_wgsl_is_an_error_not_a_panic() {
        assert!(validate("t", "fn f( {").is_err());
        assert!(validate("t", "fn f() -> u32 { return 1.5; }").is_err());
    }
}
