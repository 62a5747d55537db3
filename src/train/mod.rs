//! Training: configuration, the step's graph, the loop, and what is written.

pub mod checkpoint;
mod config;
mod curves;
mod evaluate;
mod metrics;
mod run;
mod step;

pub use config::{
    AugmentName, LossName, ModelName, NormName, OptimizerName, ScheduleName, TrainConfig,
    TrainOptions, data_name_parser,
};
pub use curves::draw_curves;
pub use evaluate::{Evaluation, Evaluator, evaluate_checkpoint};
pub use metrics::{MetricsWriter, Record, Split, read_metrics};
pub use run::{Event, Progress, Summary, train};
pub use step::{evaluation_step, training_step};
