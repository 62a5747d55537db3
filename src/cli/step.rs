//! The training step that `describe` and `profile` are about.

use std::sync::Arc;

use clap::Args;
use decorr::data;
use decorr::gpu::Gpu;
use decorr::graph::Graph;
use decorr::graph::op::Variants;
use decorr::models::Model;
use decorr::nn::Mode;
use decorr::train::{TrainConfig, TrainOptions, training_step};
use decorr::{Error, Result};

use super::tune;

/// Which step.
#[derive(Debug, Args)]
pub(super) struct StepArgs {
    #[command(flatten)]
    pub(super) options: TrainOptions,
    /// With --refresh K: a step between two refreshes, not a refresh
    #[arg(long)]
    between: bool,
}

/// A step of what the options of `train` describe, and values for its inputs. Its images are numbers already: `train` unpacks
/// them from bytes by one kernel more.
pub(super) struct Step {
    pub(super) config: TrainConfig,
    pub(super) model: Model,
    pub(super) graph: Graph,
    images: Vec<f32>,
    labels: Vec<f32>,
}

impl Step {
    /// Without a data set, on the images that the network is usually for.
    pub(super) fn new(args: StepArgs, gpu: &Arc<Gpu>) -> Result<Self> {
        let mut options = args.options;
        let data_given = options.data.is_some();
        let measured = options.kernels.take_if(|kernels| kernels == "measured");
        let mut config = TrainConfig::resolve(options)?;
        // Nothing is measured for a description: it would print more kernels than it describes.
        if measured.is_some() {
            config.set_kernels(Variants::Tiled(tune::measured(gpu)?));
        } else if config.kernels.is_none()
            && !gpu.is_software()
            && let Some(tiles) = tune::kept(gpu)
        {
            config.set_kernels(Variants::Tiled(tiles));
        }
        let image_size = config.data_options.image_size;
        let ([c, h, w], classes) = if data_given {
            data::shape(&config.data, config.options.data_dir.as_deref(), image_size)?
        } else {
            let model = config.model(0);
            model.network.usual_images(model.form)
        };
        let model = config.model(classes);
        let mode = match (args.between, model.deconv.refresh) {
            (false, _) => Mode::Train,
            (true, 2..) => Mode::Between,
            (true, _) => {
                let message = "--between needs --norm deconv and --refresh above 1: with 1 no step lies between two refreshes";
                return Err(Error::Config(message.into()));
            }
        };
        if config.accumulate > 1 {
            let message = format!(
                "--accumulate {} is not described: give --batch-size {}, the size of one part",
                config.accumulate,
                config.batch_size / config.accumulate
            );
            return Err(Error::Config(message));
        }
        let shape = [config.batch_size, c, h, w];
        // Before the images are made.
        let size_bytes = shape
            .iter()
            .fold(4, |bytes: u64, &n| bytes.saturating_mul(n as u64));
        let most = gpu.limits().max_storage_buffer_binding_size;
        if size_bytes > most {
            return Err(Error::Limit(format!(
                "the images of a step have {size_bytes} bytes; the device binds at most {most} at once. Take a smaller batch, \
                 or smaller images"
            )));
        }
        let graph = training_step(&model, config.loss, &config.optimizer, shape, mode)?;
        let len: usize = shape.iter().product();
        Ok(Self {
            images: (0..len).map(|i| (i * 37 % 256) as f32 / 255.0).collect(),
            labels: (0..shape[0]).map(|i| (i % classes) as f32).collect(),
            config,
            model,
            graph,
        })
    }

    /// As a program takes them.
    pub(super) fn inputs(&self) -> [(&str, &[f32]); 3] {
        [
            ("images", &self.images),
            ("labels", &self.labels),
            ("lr", &[1e-3]),
        ]
    }
}
