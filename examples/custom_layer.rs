//! A layer of your own, from ops: a gated linear unit, sigmoid(x W1) * (x W2). Its gradient needs
//! no line of code, and its element-wise part becomes one kernel.
//!
//! `cargo run --release --example custom_layer` trains it on x1 * x2 and prints the kernels and
//! the falling loss.

use decorr::Result;
use decorr::autodiff::gradients;
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::graph::{Graph, TensorId};
use decorr::nn::Linear;
use decorr::ops::{mean_to, mul, sigmoid, square, sub};
use decorr::optim::{Adam, Optimizer, update};
use decorr::program::{CompileOptions, Program, Store};

/// Plain configuration; `forward` appends nodes, with parameters named by scope.
struct GatedLinear {
    in_features: usize,
    out_features: usize,
}

impl GatedLinear {
    fn forward(&self, g: &mut Graph, x: TensorId) -> Result<TensorId> {
        let linear = Linear::new(self.in_features, self.out_features);
        let gate = g.scope("gate", |g| linear.forward(g, x))?;
        let value = g.scope("value", |g| linear.forward(g, x))?;
        let gate = sigmoid(g, gate)?;
        mul(g, gate, value)
    }
}

fn main() -> Result<()> {
    const ROWS: usize = 256;
    let mut g = Graph::new();
    let x = g.input("x", [ROWS, 2]);
    let target = g.input("target", [ROWS, 1]);
    let lr = g.input("lr", [1]);
    let hidden = GatedLinear {
        in_features: 2,
        out_features: 32,
    };
    let h = g.scope("hidden", |g| hidden.forward(g, x))?;
    let y = g.scope("last", |g| Linear::new(32, 1).forward(g, h))?;
    let error = sub(&mut g, y, target)?;
    let squared = square(&mut g, error)?;
    let loss = mean_to(&mut g, squared, [1])?;
    let parameters = g.parameters();
    let grads = gradients(&mut g, loss, &parameters)?;
    let adam = Optimizer::Adam(Adam::default());
    update(&mut g, &adam, &parameters, &grads, lr)?;
    g.output("loss", loss);

    let gpu = Gpu::open(&AdapterChoice::default())?;
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
