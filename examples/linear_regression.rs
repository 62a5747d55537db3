//! Linear regression on three features that are almost the same. Gradient descent crawls; on
//! deconvolved inputs one step of length 1 solves it (paper section 3.3).
//!
//! `cargo run --release --example linear_regression` prints both losses over five steps.

use decorr::prelude::*;

fn main() -> Result<()> {
    const ROWS: usize = 512;
    // Two sequences without relation to each other; the target needs differences of features.
    let noise = |i: usize, step: usize| (i * step % 1009) as f32 / 1009.0 - 0.5;
    let row = |i| (noise(i, 7919), 0.1 * noise(i, 331));
    let row = |i| [row(i).0, row(i).0 + row(i).1, row(i).0 - row(i).1];
    let x: Vec<f32> = (0..ROWS).flat_map(row).collect();
    let y: Vec<f32> = x.chunks(3).map(|r| 5.0 * (r[1] - r[2]) + r[0]).collect();

    let gpu = Gpu::best()?;
    for deconvolve in [false, true] {
        // The graph: prediction, loss, gradients and the update of the weights, all in one.
        let g = Graph::new();
        let inputs = g.input("x", [ROWS, 3]);
        let target = g.input("y", [ROWS, 1]);
        let lr = g.input("lr", [1]);
        g.preset("weight", [1, 3], Init::Constant(0.0));
        let prediction = if deconvolve {
            let options = DeconvOptions::default().eps(1e-7).n_iter(20);
            let layer = DeconvLinear::new(3, 1).options(options);
            layer.forward(inputs, Mode::Train)
        } else {
            Linear::new(3, 1).forward(inputs, Mode::Train)
        };
        let loss = 0.5 * (prediction - target).square().mean_to([1]);
        let parameters = g.parameters();
        let grads = gradients(loss, &parameters);
        Optimizer::from(Sgd::default()).update(&parameters, &grads, lr);
        g.output("loss", loss);

        // Compiled once, replayed every step.
        let mut store = Store::new(&gpu, 1);
        let mut step = Program::compile(&g, &mut store, CompileOptions::default())?;
        for i in 0..5 {
            let outputs = step.run(&[("x", &x), ("y", &y), ("lr", &[1.0])])?;
            let loss = outputs.scalar("loss")?;
            println!("deconvolve: {deconvolve:<5} step {i} loss {loss:.6}");
        }
    }
    Ok(())
}
