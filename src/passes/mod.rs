//! From a graph as written to a plan: each pass is a small function. [`Passes`] says which may be left out; copies of old
//! values, lifetimes and the memory plan are always needed.
//!
//! Unstable: may change in any release.

mod common_subexpr;
mod dead_code;
mod epilogue;
mod fuse;
mod in_place;
mod joined_pairs;
mod liveness;
mod memory_plan;
mod old_values;
mod select_variant;
mod updates;

pub use common_subexpr::common_subexpr;
pub use dead_code::dead_code;
pub use epilogue::epilogue;
pub use fuse::fuse;
pub(crate) use in_place::{InPlace, in_place};
pub(crate) use joined_pairs::{JoinedPair, as_elementwise, as_sum, joined_pairs};
pub use liveness::{Lifetime, liveness, storage_roots};
pub(crate) use memory_plan::largest_live_set;
pub use memory_plan::{MemoryPlan, Request, memory_plan};
pub(crate) use old_values::old_values;
pub use select_variant::check_variant;
pub(crate) use select_variant::select_variant;
pub(crate) use updates::{MadeStates, Runs, Update, UpdateInput, storage_of, updates};

use crate::Result;
use crate::graph::NodeList;

/// Which passes run. Results do not depend on it, but for rounding where fusion lets a compiler
/// contract a multiplication and an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Drop nodes that nothing needs.
    pub dead_code: bool,
    /// Compute equal expressions once.
    pub common_subexpr: bool,
    /// Add to a product, and take `ReLU` of it, in its own kernel.
    pub epilogue: bool,
    /// Merge element-wise chains into one kernel.
    pub fuse: bool,
    /// Write updates of states over the old value.
    pub in_place: bool,
    /// Compute two sums, or two element-wise nodes, over the same tensors in one dispatch.
    pub join_pairs: bool,
    /// Write several states, and small ones of many layers, in one dispatch. Needs `in_place`.
    pub join_updates: bool,
    /// Reuse memory of tensors that are dead.
    pub reuse_memory: bool,
}

impl Default for Passes {
    fn default() -> Self {
        Self::ALL
    }
}

impl Passes {
    /// Every pass.
    pub const ALL: Self = Self {
        dead_code: true,
        common_subexpr: true,
        epilogue: true,
        fuse: true,
        in_place: true,
        join_pairs: true,
        join_updates: true,
        reuse_memory: true,
    };

    /// None of them: every node is dispatched as written into memory of its own.
    pub const NONE: Self = Self {
        dead_code: false,
        common_subexpr: false,
        epilogue: false,
        fuse: false,
        in_place: false,
        join_pairs: false,
        join_updates: false,
        reuse_memory: false,
    };
}

/// The passes from graph to graph, in order.
///
/// # Errors
/// Those of a pass: bugs of this crate.
pub fn optimise(graph: &NodeList, passes: Passes) -> Result<NodeList> {
    let mut graph = graph.clone();
    if passes.dead_code {
        graph = dead_code(&graph)?;
    }
    if passes.common_subexpr {
        graph = common_subexpr(&graph)?;
    }
    if passes.epilogue {
        graph = epilogue(&graph)?;
    }
    if passes.fuse {
        graph = fuse(&graph)?;
    }
    Ok(graph)
}
