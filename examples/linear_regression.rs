//! Linear regression, plain and on deconvolved inputs: with those, one step of length 1 solves it
//! (paper section 3.3).
//!
//! `cargo run --release --example linear_regression` prints both losses over five steps.

use decorr::Result;
use decorr::autodiff::gradients;
use decorr::gpu::{AdapterChoice, Gpu};
use decorr::graph::{Graph, Init};
use decorr::nn::{DeconvLinear, DeconvOptions, Linear, Mode};
use decorr::ops::{mean_to, scale, square, sub};
use decorr::optim::{Optimizer, Sgd, update};
use decorr::program::{CompileOptions, Program, Store};

const ROWS: usize = 512;

fn main() -> Result<()> {
    let gpu = Gpu::open(&AdapterChoice::default())?;
    // Three features that are almost the same, and a target that needs their differences.
    let noise = |i: usize| {
        (
            (i * 7919 % 1009) as f32 / 1009.0 - 0.5,
            (i * 104_729 % 997) as f32 / 997.0 - 0.5,
        )
    };
    let x: Vec<f32> = (0..ROWS)
        .flat_map(|i| {
            [
                noise(i).0,
                noise(i).0 + 0.1 * noise(i).1,
                noise(i).0 - 0.1 * noise(i).1,
            ]
        })
        .collect();
    let y: Vec<f32> = x.chunks(3).map(|r| 5.0 * (r[1] - r[2]) + r[0]).collect();

    for (name, deconv, lr) in [("plain", false, 1.0), ("deconvolved", true, 1.0)] {
        let mut g = Graph::new();
        let inputs = g.input("x", [ROWS, 3]);
        let target = g.input("y", [ROWS, 1]);
        let lr_input = g.input("lr", [1]);
        g.parameter("weight", [1, 3], Init::Constant(0.0))?;
        let options = DeconvOptions {
            eps: 1e-7,
            n_iter: 20,
            ..DeconvOptions::default()
        };
        let layer = DeconvLinear {
            in_features: 3,
            out_features: 1,
            bias: true,
            options,
        };
        let prediction = match deconv {
            true => layer.forward(&mut g, inputs, Mode::Train)?,
            false => Linear {
                in_features: 3,
                out_features: 1,
                bias: true,
            }
            .forward(&mut g, inputs)?,
        };
        let error = sub(&mut g, prediction, target)?;
        let squared = square(&mut g, error)?;
        let mean = mean_to(&mut g, squared, [1])?;
        let loss = scale(&mut g, mean, 0.5)?;
        let parameters = g.parameters();
        let grads = gradients(&mut g, loss, &parameters)?;
        update(
            &mut g,
            &Optimizer::Sgd(Sgd::default()),
            &parameters,
            &grads,
            lr_input,
        )?;
        g.output("loss", loss);
        let mut program =
            Program::compile(&g, &mut Store::new(&gpu, 1), CompileOptions::default())?;
        for step in 0..5 {
            let outputs = program.run(&[("x", &x), ("y", &y), ("lr", &[lr])])?;
            println!("{name:<12} step {step}: loss {:.6}", outputs.scalar("loss"));
        }
    }
    Ok(())
}
