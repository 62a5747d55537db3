// NaN and negative numbers by their bits: compilers may take `x != x` for false, and `select(x, 0, x < 0)` for
// max(x, 0), which need not keep a NaN.

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn are_nan(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

// Below 0, -infinity too; not -0 and no NaN.
fn is_negative(x: f32) -> bool {
    return bitcast<u32>(x) - 0x80000001u < 0x7f800000u;
}

fn are_negative(x: vec4<f32>) -> vec4<bool> {
    return bitcast<vec4<u32>>(x) - vec4<u32>(0x80000001u) < vec4<u32>(0x7f800000u);
}
