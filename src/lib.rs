//! decorr: neural networks with network deconvolution on any GPU, through wgpu and WGSL.
//!
//! A [`graph::Graph`] is a list of ops with static shapes. Formulas of [`graph::Tensor`]s append to it, by operators and
//! methods; [`autodiff::gradients`] appends the nodes of the gradient, [`optim::Optimizer::update`] those of the update:
//! a whole training step is one graph. [`program::Program::compile`] makes kernels, memory and a list of dispatches of
//! it, once; a step replays them. A mistake in a formula is an error there, with layer, file and line. Layers are in
//! [`nn`], networks in [`models`]. [`train::Trainer`] trains a network of your own on data of your own, without a graph
//! in sight, and [`prelude`] has what such a program needs. `docs/architecture.md` has the way of the data as a picture.
//!
//! A step of a deconvolved linear layer (paper section 3.3: with decorrelated inputs, one step of
//! length 1 solves a linear regression):
//!
//! ```
//! use decorr::prelude::*;
//!
//! # fn main() -> decorr::Result<()> {
//! let g = Graph::new();
//! let x = g.input("x", [8, 2]);
//! let target = g.input("target", [8, 1]);
//! let lr = g.input("lr", [1]);
//! let layer = DeconvLinear::new(2, 1).options(DeconvOptions::default().n_iter(15));
//! let y = layer.forward(x, Mode::Train);
//! let loss = 0.5 * (y - target).square().mean_to([1]);
//! let parameters = g.parameters();
//! let grads = gradients(loss, &parameters);
//! Optimizer::from(Sgd::default()).update(&parameters, &grads, lr);
//! g.output("loss", loss);
//!
//! let gpu = Gpu::best()?;
//! let mut step = Program::compile(&g, &mut Store::new(&gpu, 1), CompileOptions::default())?;
//! // Two features that are nearly the same; the target is their difference.
//! let x: Vec<f32> = (0..8).flat_map(|i| [i as f32, i as f32 + (i % 3) as f32]).collect();
//! let target: Vec<f32> = x.chunks(2).map(|row| row[1] - row[0]).collect();
//! let inputs = [("x", x.as_slice()), ("target", &target), ("lr", &[1.0])];
//! step.run(&inputs)?;
//! assert!(step.run(&inputs)?.scalar("loss")? < 1e-3);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! All but the last are on by default. A program that trains on data of its own needs none: `default-features = false`.
//!
//! | feature | what |
//! |---|---|
//! | `cli` | [`train::TrainOptions`] and the names in it as arguments of clap; the program `decorr` needs it, and all others |
//! | `fetch` | [`data::fetch`]: downloads data sets |
//! | `pictures` | [`Picture`]; folders of pictures as data sets; predictions of pictures by [`train::Trained`] |
//! | `draw` | [`train::draw_curves`] and the curves.png of a run; with `pictures` also [`figures`] and [`mod@bench`] |
//! | `builtin-data` | 6 800 images of Fashion-MNIST in the library |
//! | `mpi` | off by default: one training over many machines, see [`ranks`] |
//!
//! # What may change
//!
//! Modules and items whose docs say "Unstable: may change in any release." are public for decorr's own programs and tests, and
//! for ops of your own: [`mod@bench`], [`figures`], [`files`], [`gpu::wgsl`], [`graph::op`], [`graph::pointwise`],
//! [`graph::tiles`], [`graph::NodeList`], [`ops`], [`passes`], [`ranks`], [`self_check`], [`mod@train::isometry`],
//! [`train::Live`] and [`tune`]. All else, [`prelude`] first, changes only with the second number of the version, and the changelog says how.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The modules of tests/support name the crate as the tests there do.
#[cfg(test)]
extern crate self as decorr;

pub mod autodiff;
#[cfg(all(feature = "draw", feature = "pictures"))]
pub mod bench;
pub mod data;
#[cfg(feature = "pictures")]
mod decode;
#[cfg(feature = "draw")]
mod drawing;
pub mod error;
#[cfg(all(feature = "draw", feature = "pictures"))]
pub mod figures;
pub mod files;
pub mod gpu;
pub mod graph;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod passes;
#[cfg(feature = "pictures")]
mod picture;
pub mod prelude;
pub mod program;
pub mod ranks;
pub mod self_check;
pub mod shape;
pub mod train;
pub mod tune;

/// README's program is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use error::{Error, Result};
#[cfg(feature = "pictures")]
pub use picture::Picture;
/// The version of wgpu that [`gpu::Gpu::from_wgpu`] takes devices of.
pub use wgpu;
