// Square windows over the planes of NCHW images. Sizes are constants: compilers make
// multiplications of divisions by them, and unroll the loops over a window.
const HEIGHT: u32 = 1u;
const WIDTH: u32 = 1u;
const OUT_H: u32 = 1u;
const OUT_W: u32 = 1u;
const KERNEL_SIZE: u32 = 1u;
const STRIDE: u32 = 1u;
const PADDING: u32 = 0u;

struct Params {
    planes: u32,
    _0: u32,
    _1: u32,
    _2: u32,
}

// The first window that holds a pixel of padded row (or column) `at`, and the last of `count`:
// window * STRIDE <= at < window * STRIDE + KERNEL_SIZE.
fn first_window(at: u32) -> u32 {
    return select(0u, (at - KERNEL_SIZE) / STRIDE + 1u, at >= KERNEL_SIZE);
}

fn last_window(at: u32, count: u32) -> u32 {
    return min(at / STRIDE, count - 1u);
}
