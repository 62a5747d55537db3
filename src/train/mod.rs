//! Training: the step's graph, the loop, and what is written.

mod step;

pub use step::{evaluation_step, training_step};
