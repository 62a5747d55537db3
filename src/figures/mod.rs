//! The paper's figures as pictures: tensors in, images out. What is shown was computed, and painted, on
//! the GPU.
//!
//! Needs the features `draw` and `pictures`. Unstable: may change in any release.

mod axes;
mod blur;
mod decorrelate;
mod fig2;
mod fig3;
mod fig9;
mod inspector;
mod limits;
mod measures;
mod opened;
mod scene;
mod sheet;
mod views;

pub use crate::picture::Picture;
pub use blur::MAX_BLUR;
pub use decorrelate::WhitenOptions;
pub use fig2::{Fig2, Fig2Options, Fig2Report, fig2};
pub use fig3::{Fig3, fig3};
pub use fig9::{Fig9, Fig9Options, Fig9Report, fig9};
pub use inspector::Inspector;
pub use measures::{BINS, Fig3Report, Measures, SIGMAS, Sparsity, in_digits};
pub use scene::{Numbers, Scene, SceneOptions};
pub(crate) use scene::{inputs as scene_inputs, random_scene};
pub use sheet::{NamedPicture, runs, series_colour, short};
pub use views::View;

/// Images are scaled down to this before they go into a network, unless told otherwise.
pub const NETWORK_SIDE: usize = 448;
