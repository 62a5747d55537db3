//! A layer of your own, from ops: a gated linear unit, sigmoid(x W1) * (x W2). Its gradient needs
//! no line of code, and its element-wise part becomes one kernel.
//!
//! `cargo run --release --example custom_layer` trains it on x1 * x2 and prints the kernels and
//! the falling loss.

use decorr::prelude::*;

/// Plain configuration; `forward` appends nodes, with parameters named by scope.
struct GatedLinear {
    in_features: usize,
    out_features: usize,
}

impl Layer for GatedLinear {
    fn forward<'g>(&self, x: Tensor<'g>, mode: Mode) -> Tensor<'g> {
        let linear = Linear::new(self.in_features, self.out_features);
        let gate = x.graph().scope("gate", || linear.forward(x, mode));
        let value = x.graph().scope("value", || linear.forward(x, mode));
        gate.sigmoid() * value
    }
}

fn main() -> Result<()> {
    const ROWS: usize = 256;
    let g = Graph::new();
    let x = g.input("x", [ROWS, 2]);
    let target = g.input("target", [ROWS, 1]);
    let lr = g.input("lr", [1]);
    let hidden = GatedLinear {
        in_features: 2,
        out_features: 32,
    };
    let h = g.scope("hidden", || hidden.forward(x, Mode::Train));
    let y = g.scope("last", || Linear::new(32, 1).forward(h, Mode::Train));
    let loss = (y - target).square().mean_to([1]);
    let parameters = g.parameters();
    let grads = gradients(loss, &parameters);
    Optimizer::from(Adam::default()).update(&parameters, &grads, lr);
    g.output("loss", loss);

    let gpu = Gpu::best()?;
    let mut store = Store::new(&gpu, 1);
    let mut program = Program::compile(&g, &mut store, CompileOptions::default())?;
    print!("{}", program.describe());
    let at = |i: usize| (i * 7919 % 1009) as f32 / 504.5 - 1.0;
    let points: Vec<f32> = (0..2 * ROWS).map(at).collect();
    let products: Vec<f32> = points.chunks(2).map(|p| p[0] * p[1]).collect();
    for step in 0..=300 {
        let inputs = [
            ("x", points.as_slice()),
            ("target", &products),
            ("lr", &[0.02]),
        ];
        let outputs = program.run(&inputs)?;
        if step % 100 == 0 {
            println!("step {step}: loss {:.6}", outputs.scalar("loss")?);
        }
    }
    Ok(())
}
