//! Figures 2, 3 and 9 of the photograph that comes with the program.

use std::sync::Arc;

use decorr::Result;
use decorr::figures::{
    Fig2Options, Fig9Options, NETWORK_SIDE, Picture, SceneOptions, WhitenOptions, fig2, fig3, fig9,
};
use decorr::gpu::Gpu;
use decorr::train::{TrainOptions, Trained};
use serde_json::Value;

const PHOTOGRAPH: &[u8] = include_bytes!("../../../assets/astronaut.png");
const VGG11: &[u8] = include_bytes!("../../../assets/vgg11-cifar10.safetensors");

/// Which.
#[derive(Clone, Copy, Debug)]
pub(super) enum PictureOf {
    Fig2,
    Fig3,
    Fig9,
}

/// A page of pictures, a PNG file, what it is of, and the numbers behind it.
pub(super) struct Drawn {
    pub(super) png: Vec<u8>,
    pub(super) about: String,
    pub(super) numbers: Value,
}

impl PictureOf {
    /// # Errors
    /// What the device reported.
    pub(super) fn draw(self, gpu: &Arc<Gpu>) -> Result<Drawn> {
        let photograph = Picture::decode("astronaut.png".as_ref(), PHOTOGRAPH)?;
        match self {
            Self::Fig2 => {
                let options = Fig2Options {
                    kernel_size: 3,
                    block: 3,
                    statistics: WhitenOptions::default(),
                };
                let figure = fig2(gpu, [Ok(photograph)], None, options)?;
                let r = &figure.report;
                let about = format!(
                    "3 x 3 patches of one photograph: the largest correlation is {:.3} before and {:.3} after. The paper's figure is \
                     of ImageNet.",
                    r.max_correlation_before, r.max_correlation_after
                );
                Drawn::new(figure.sheet, about, r)
            }
            Self::Fig3 => {
                let figure = fig3(gpu, &photograph, SceneOptions::default())?;
                let about = "One photograph, deconvolved in 3 x 3 patches of all colours.".into();
                Drawn::new(figure.sheet, about, &figure.numbers.report)
            }
            Self::Fig9 => {
                let file = "vgg11-cifar10.safetensors".as_ref();
                let trained = Trained::decode(file, VGG11, TrainOptions::default())?;
                let picture = trained.prepare(&photograph, NETWORK_SIDE)?;
                let figure = fig9(gpu, &picture, &trained, Fig9Options::default())?;
                let r = &figure.report;
                let about = format!(
                    "A VGG-11 a quarter as wide as the paper's, trained on CIFAR-10, given one photograph. {} of {} channels are sparser \
                     after by Hoyer's measure, whose mean goes from {:.3} to {:.3}. The paper's network was trained on ImageNet.",
                    r.sparser_channels, r.live_channels, r.mean_hoyer[0], r.mean_hoyer[1]
                );
                Drawn::new(figure.sheet, about, r)
            }
        }
    }
}

impl Drawn {
    fn new(png: Vec<u8>, about: String, numbers: &impl serde::Serialize) -> Result<Self> {
        let numbers =
            serde_json::to_value(numbers).map_err(|e| decorr::Error::bug(e.to_string()))?;
        Ok(Self {
            png,
            about,
            numbers,
        })
    }
}
