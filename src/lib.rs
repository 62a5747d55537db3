//! decorr: neural networks with network deconvolution on any GPU, through wgpu and WGSL.
pub mod error;
pub use error::{Error, Result};
