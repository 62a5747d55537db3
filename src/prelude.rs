//! What a program that builds and trains networks needs, by `use decorr::prelude::*;`.

use std::sync::Arc;

pub use crate::autodiff::gradients;
pub use crate::data::{DataSet, Images};
pub use crate::gpu::{AdapterChoice, Gpu};
pub use crate::graph::{Graph, Init, Tensor};
pub use crate::models::{Model, Norm};
pub use crate::nn::{
    AvgPool2d, BatchNorm, ChannelDeconv, Conv2d, DeconvConv2d, DeconvLinear, DeconvOptions,
    Dropout, Flatten, GlobalAvgPool, Layer, Linear, Loss, MaxPool2d, Mode, Relu, RowLoss,
    Sequential, Sigmoid, cross_entropy, half_squared_error, logistic,
};
pub use crate::ops::Pool2d;
pub use crate::optim::{Adam, Optimizer, Schedule, Sgd};
pub use crate::program::{CompileOptions, Outputs, Program, Store};
pub use crate::train::{Evaluation, Predictor, StepResult, Trainer, TrainerOptions};
pub use crate::{Error, Result};

impl Gpu {
    /// Opens the fastest real GPU there is, else a software adapter: [`Gpu::open`] with the default choice.
    ///
    /// # Errors
    /// [`Error::Adapter`], with what to install, if there is none or it refuses.
    pub fn best() -> Result<Arc<Self>> {
        Self::open(&AdapterChoice::default())
    }
}
