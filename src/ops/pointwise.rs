//! The one kernel of all element-wise ops: WGSL generated from a [`Pointwise`] program.
//!
//! Bound: bytes of all inputs and the output, once each; the arithmetic is free beside them.

use std::borrow::Cow;
use std::fmt::Write;

use crate::graph::op::{Dispatch, Grid, Kernel, Lowered, Params, Slot, word};
use crate::graph::pointwise::{Joint, Pointwise};
use crate::shape::{Broadcast, Shape};
use crate::{Error, Result};

const SOURCE: &str = include_str!("../../shaders/pointwise.wgsl");

/// Inputs one kernel can read: WebGPU's default of 8 storage buffers, less the output.
pub const MAX_INPUTS: usize = 7;

/// Elements an invocation handles at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// Four, from an index that is a multiple of four.
    Four,
    /// One, from any index; all four lanes carry it.
    One,
}

/// Dispatches `program` over a tensor of the shape `output`, which is written over the input `in_place` if there is one.
pub(crate) fn lower(
    program: &Pointwise,
    inputs: &[&Shape],
    output: &Shape,
    in_place: Option<usize>,
) -> Result<Lowered> {
    let overwritten: Vec<_> = in_place.iter().map(|&k| (k, "y".to_string())).collect();
    let operands = Operands::new(inputs, output, Width::Four, &overwritten)?;
    let mut generated = operands.bindings.clone();
    let binding = operands.slots.len() + 1;
    let _ = writeln!(
        generated,
        "@group(0) @binding({binding}) var<storage, read_write> y: array<vec4<f32>>;"
    );
    generated.push_str(&operands.value(program));
    generated.push_str("\nfn store(v: u32) {\n    y[v] = value(v * 4u);\n}\n");
    let mut bindings = operands.slots;
    bindings.push(Slot::Output);
    dispatch(&generated, operands.maps, bindings, output.len())
}

/// Dispatches `joint` over a tensor of `len` elements. `shared` says of each input whether it is one
/// number; the others are of that size. Result j, where `in_place` has a number, is written over that
/// input. Bindings are inputs first; result j is `Slot::Input(shared.len() + j)`.
pub(crate) fn lower_joint(
    joint: &Joint,
    shared: &[bool],
    in_place: &[Option<usize>],
    len: usize,
) -> Result<Lowered> {
    let (domain, one) = (Shape::from([len]), Shape::default());
    let inputs: Vec<&Shape> = shared
        .iter()
        .map(|&s| if s { &one } else { &domain })
        .collect();
    let outputs = |(j, k): (usize, &Option<usize>)| k.map(|k| (k, format!("y{j}")));
    let overwritten: Vec<(usize, String)> =
        in_place.iter().enumerate().filter_map(outputs).collect();
    let operands = Operands::new(&inputs, &domain, Width::Four, &overwritten)?;
    let (mut generated, mut bindings) = (operands.bindings, operands.slots);
    let (body, results) = joint.wgsl();
    let mut stores = String::new();
    for (j, result) in results.iter().enumerate() {
        bindings.push(Slot::Input(shared.len() + j));
        let _ = writeln!(
            generated,
            "@group(0) @binding({}) var<storage, read_write> y{j}: array<vec4<f32>>;",
            bindings.len()
        );
        let _ = writeln!(stores, "    y{j}[v] = {result};");
    }
    let _ = write!(
        generated,
        "\nfn store(v: u32) {{\n    let i = v * 4u;\n{}{body}{stores}}}\n",
        operands.loads
    );
    dispatch(&generated, operands.maps, bindings, len)
}

fn dispatch(generated: &str, maps: Vec<u32>, bindings: Vec<Slot>, len: usize) -> Result<Lowered> {
    let vectors = len.div_ceil(4);
    Ok(Dispatch {
        kernel: Kernel {
            name: "pointwise",
            source: Cow::Owned(insert_generated(SOURCE, generated)),
            entry: "main",
            constants: vec![],
        },
        params: Params::new().with("vectors", vectors)?.with("maps", maps)?,
        bindings,
        grid: Grid::Invocations(vectors),
    }
    .into())
}

/// Replaces what stands between the markers of a shader.
pub(crate) fn insert_generated(source: &str, generated: &str) -> String {
    let (open, close) = ("// <generated>\n", "// </generated>\n");
    match (source.split_once(open), source.split_once(close)) {
        (Some((before, _)), Some((_, after))) => format!("{before}{generated}{after}"),
        _ => source.to_string(),
    }
}

/// The generated part of a kernel that reads the inputs of a [`Pointwise`] program.
pub(crate) struct Operands {
    /// WGSL bindings of the inputs, from binding 1.
    pub(crate) bindings: String,
    /// WGSL statements `let x0 = ...;` of the elements from index `i` on.
    pub(crate) loads: String,
    /// The inputs in binding order.
    pub(crate) slots: Vec<Slot>,
    /// Words of `maps: array<vec4<u32>, 8>`.
    pub(crate) maps: Vec<u32>,
}

impl Operands {
    /// `domain` is what the program's index runs over. Inputs in `overwritten` have no binding of their
    /// own but are read from the variable beside them.
    pub(crate) fn new(
        inputs: &[&Shape],
        domain: &Shape,
        width: Width,
        overwritten: &[(usize, String)],
    ) -> Result<Self> {
        if inputs.len() > MAX_INPUTS {
            return Err(Error::Limit(format!(
                "an element-wise kernel of {} inputs; {MAX_INPUTS} fit the default limits",
                inputs.len()
            )));
        }
        let (mut bindings, mut loads) = (String::new(), String::new());
        let (mut slots, mut maps) = (Vec::new(), Vec::new());
        for (k, shape) in inputs.iter().enumerate() {
            let broadcast = shape.broadcast_to(domain).ok_or_else(|| {
                Error::shape("pointwise", format!("{shape} does not repeat to {domain}"))
            })?;
            let name = if let Some((_, name)) = overwritten.iter().find(|(i, _)| *i == k) {
                name.clone()
            } else {
                slots.push(Slot::Input(k));
                let element = element_type(broadcast, width);
                let _ = writeln!(
                    bindings,
                    "@group(0) @binding({}) var<storage, read_write> in{k}: array<{element}>;",
                    slots.len()
                );
                format!("in{k}")
            };
            let load = load(&name, k, broadcast, width);
            let _ = writeln!(loads, "    let x{k} = {load};");
            if let Broadcast::Run { inner, len } = broadcast {
                maps.extend([word(inner)?, word(len)?, 0, 0]);
            } else {
                maps.extend([1, 1, 0, 0]);
            }
        }
        maps.resize(8 * 4, 0);
        Ok(Self {
            bindings,
            loads,
            slots,
            maps,
        })
    }

    /// WGSL `fn value(i: u32) -> vec4<f32>` of `program`.
    fn value(&self, program: &Pointwise) -> String {
        let (loads, (body, result)) = (&self.loads, program.wgsl());
        format!("\nfn value(i: u32) -> vec4<f32> {{\n{loads}{body}    return {result};\n}}\n")
    }
}

/// True if four neighbours of the domain are four neighbours of the operand.
fn is_vector(broadcast: Broadcast) -> bool {
    match broadcast {
        Broadcast::Same => true,
        Broadcast::Scalar => false,
        Broadcast::Run { inner, len } => inner == 1 && len % 4 == 0,
    }
}

fn element_type(broadcast: Broadcast, width: Width) -> &'static str {
    if width == Width::Four && is_vector(broadcast) {
        "vec4<f32>"
    } else {
        "f32"
    }
}

fn load(name: &str, k: usize, broadcast: Broadcast, width: Width) -> String {
    let at = |i: &str| format!("{name}[({i} / params.maps[{k}].x) % params.maps[{k}].y]");
    match (broadcast, width) {
        (Broadcast::Same, Width::Four) => format!("{name}[i / 4u]"),
        (Broadcast::Same, Width::One) => format!("vec4<f32>({name}[i])"),
        (Broadcast::Scalar, _) => format!("vec4<f32>({name}[0])"),
        (Broadcast::Run { .. }, Width::Four) if is_vector(broadcast) => {
            format!("{name}[(i % params.maps[{k}].y) / 4u]")
        }
        (Broadcast::Run { inner, .. }, Width::Four) if inner % 4 != 0 => {
            let lanes: Vec<String> = (0..4).map(|j| at(&format!("(i + {j}u)"))).collect();
            format!("vec4<f32>({})", lanes.join(", "))
        }
        (Broadcast::Run { .. }, _) => format!("vec4<f32>({})", at("i")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_part_replaces_the_example() {
        let text = insert_generated("a\n// <generated>\nold\n// </generated>\nb\n", "new\n");
        assert_eq!(text, "a\nnew\nb\n");
    }

    #[test]
    fn a_kernel_of_more_inputs_than_bindings_is_refused() {
        let x = Shape::from([5]);
        let of = |inputs: &[&Shape]| Operands::new(inputs, &x, Width::One, &[]);
        assert!(of(&[&x; MAX_INPUTS]).is_ok());
        let text = of(&[&x; MAX_INPUTS + 1]).err().unwrap().to_string();
        let wanted = "limit exceeded: an element-wise kernel of 8 inputs; 7 fit the default limits";
        assert_eq!(text, wanted);
    }
}
