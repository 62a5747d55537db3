//! An image on the device with the program of a figure.

use super::limits::refuse_large;
use crate::Result;
use crate::graph::{Graph, Init, Role, Tensor};
use crate::picture::Picture;
use crate::program::{CompileOptions, Program, Store};
use crate::train::Trained;

/// A compiled graph of an image, and what was built beside it.
#[derive(Debug)]
pub(super) struct Opened<T> {
    pub(super) store: Store,
    pub(super) program: Program,
    pub(super) built: T,
}

/// The image of a graph: the state `image` [1, C, H, W].
pub(super) fn image(g: &Graph, [c, h, w]: [usize; 3], pixels: Init) -> Tensor<'_> {
    g.state("image", [1, c, h, w], Role::Scratch, pixels)
}

impl<T> Opened<T> {
    /// Compiles what `build` makes of the image, and writes `picture` and the parameters of `trained` into `store`. `k` is
    /// the side of the patches of pixels.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] for an image that does not fit the device, and those of `build`.
    pub(super) fn new(
        mut store: Store,
        picture: &Picture,
        k: usize,
        trained: Option<&Trained>,
        build: impl FnOnce(Tensor<'_>) -> Result<T>,
    ) -> Result<Self> {
        refuse_large(store.gpu(), picture, k)?;
        let graph = Graph::new();
        let size = [picture.channels, picture.height, picture.width];
        let built = build(image(&graph, size, Init::Constant(0.0)))?;
        let program = Program::compile(&graph, &mut store, CompileOptions::default())?;
        store.write("image", &picture.data)?;
        if let Some(trained) = trained {
            trained.fill(&store)?;
        }
        Ok(Self {
            store,
            program,
            built,
        })
    }
}
