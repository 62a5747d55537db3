//! The paper's figures as pictures: tensors in, images out. What is shown was computed on the GPU.

mod fig3;
mod picture;
mod sparsity;

pub use fig3::{Fig3, Fig3Options, Fig3Report, Measures, fig3};
pub use picture::Picture;
pub use sparsity::{excess_kurtosis, hoyer, near_zero};
