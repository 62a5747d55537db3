//! Training: configuration, the step's graph, the loop, and what is written.

#[cfg(feature = "draw")]
mod axis;
pub mod checkpoint;
mod config;
#[cfg(feature = "draw")]
mod curve_options;
#[cfg(feature = "draw")]
mod curves;
mod evaluate;
mod export;
mod fitting;
mod fold;
mod foreign;
mod graphs;
mod init;
mod interface;
pub mod isometry;
#[cfg(feature = "draw")]
mod lines;
#[cfg(feature = "draw")]
mod live;
mod metrics;
mod options;
#[cfg(feature = "draw")]
mod points;
mod prediction;
mod predictor;
mod presets;
mod resume;
mod run;
mod run_info;
mod stepper;
mod sweep;
mod tensorboard;
mod trained;
mod trainer;

pub use crate::models::Norm;
pub use config::TrainConfig;
#[cfg(feature = "draw")]
pub use curve_options::{CurveOptions, Line, XAxis, YAxis};
#[cfg(feature = "draw")]
pub use curves::draw_curves;
pub use evaluate::{Evaluation, evaluate_checkpoint};
pub use export::export;
pub use graphs::{
    ImageInput, accumulation_step, evaluation_step, prediction_step, training_step, update_step,
};
pub use isometry::isometry;
#[cfg(feature = "draw")]
pub use lines::{running_mean, smoothing, steps_per_epoch};
#[cfg(feature = "draw")]
pub use live::{Live, LiveRun};
pub use metrics::{Record, Split, read_metrics};
#[cfg(feature = "cli")]
pub use options::data_name_parser;
pub use options::{AugmentName, LossName, OptimizerName, ScheduleName, TrainOptions};
#[cfg(feature = "draw")]
pub use points::{Points, draw_points};
pub use prediction::{Guess, Prediction};
pub use predictor::Predictor;
pub use presets::preset;
pub use resume::Saved;
pub use run::{Event, Outcome, Progress, Start, train, train_among};
pub use run_info::RunInfo;
pub use stepper::StepResult;
pub use sweep::{Ended, NO_RESULT, Planned, Vary, combinations, run_all};
pub use trained::Trained;
pub use trainer::{Trainer, TrainerOptions};
