//! What a network looks like while it learns: its first kernels, and what a convolution is given.

use super::views::{SIDE, View, channels_view, weights_view};
use crate::graph::{Graph, Init, Role};
use crate::models::Model;
use crate::nn::Mode;
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Paints the parameters of a store that other programs train.
#[derive(Debug)]
pub struct Inspector {
    program: Program,
    views: Vec<View>,
}

impl Inspector {
    /// For the `layer`-th convolution, from 1, of the network whose parameters are in `store`, given `image`
    /// of `shape` [C, H, W], normalised as in training.
    ///
    /// # Errors
    /// [`Error::Config`] if it has fewer convolutions, [`Error::Shape`] if the image is too small.
    pub fn new(
        store: &mut Store,
        model: &Model,
        layer: usize,
        shape: [usize; 3],
        image: &[f32],
    ) -> Result<Self> {
        let g = Graph::new();
        let [c, h, w] = shape;
        let nothing = Init::Constant(0.0);
        let x = g.state("inspected", [1, c, h, w], Role::Scratch, nothing);
        let first = model.conv_input(x, Mode::Eval, 1)?.name;
        let input = g.shared(|| model.conv_input(x, Mode::Eval, layer))?;
        let weight = g.list().states().get(&format!("{first}.weight")).copied();
        let weight = weight.ok_or_else(|| Error::bug(format!("{first} has no weight")))?;
        let weight = g.tensor(weight);
        let kernels = "kernels of convolution 1";
        let title = format!("input of convolution {layer}");
        let views = vec![
            weights_view("first_kernels", kernels, weight, SIDE / 2),
            // The store keeps those of other layers, which have other sizes.
            channels_view(&format!("features{layer}"), &title, input.x, SIDE),
        ];
        let program = Program::compile(&g, store, CompileOptions::default())?;
        store.write("inspected", image)?;
        Ok(Self { program, views })
    }

    /// Submits the painting of what the parameters are by then; waits for nothing.
    ///
    /// # Errors
    /// What the device reported.
    pub fn paint(&mut self) -> Result<()> {
        self.program.step(&[])?;
        self.program.collect()?;
        Ok(())
    }

    /// What it paints into the store: kernels, features.
    pub fn views(&self) -> &[View] {
        &self.views
    }
}
