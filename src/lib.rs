//! decorr: neural networks with network deconvolution on any GPU, through wgpu and WGSL.
pub mod autodiff;
pub mod bench;
pub mod data;
mod drawing;
pub mod error;
pub mod figures;
pub mod files;
pub mod gpu;
pub mod graph;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod passes;
pub mod program;
pub mod shape;
pub mod train;

pub use error::{Error, Result};
