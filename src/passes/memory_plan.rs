//! Offsets in a few large arenas, reused as soon as a tensor is dead.

use super::Lifetime;
use crate::{Error, Result};

/// Memory that a tensor needs.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes.
    pub size_bytes: u64,
    /// When.
    pub lifetime: Lifetime,
}

/// Where each request goes, and how large the arenas are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Arena and offset in bytes of each request, in the order of the requests.
    pub places: Vec<(usize, u64)>,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
}

/// Largest first, each at the lowest offset of the first arena where it meets no other that is
/// alive at the same time. `alignment` and `max_arena` in bytes; with `reuse` off, no two share.
///
/// # Errors
/// [`Error::Limit`] if one request is larger than an arena may be.
pub fn memory_plan(
    requests: &[Request],
    alignment: u64,
    max_arena: u64,
    reuse: bool,
) -> Result<MemoryPlan> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].size_bytes), i));
    let mut plan = MemoryPlan {
        places: vec![(0, 0); requests.len()],
        arenas: Vec::new(),
    };
    // Placed requests of each arena, by offset: (offset, end, lifetime).
    let mut placed: Vec<Vec<(u64, u64, Lifetime)>> = Vec::new();
    for i in order {
        let Request {
            size_bytes,
            lifetime,
        } = requests[i];
        let size = size_bytes.max(1).next_multiple_of(alignment);
        if size > max_arena {
            return Err(Error::Limit(format!(
                "a tensor of {size_bytes} bytes; the device allows buffers of {max_arena}"
            )));
        }
        let mut arena = 0;
        let offset = loop {
            if arena == placed.len() {
                placed.push(Vec::new());
                plan.arenas.push(0);
            }
            if let Some(offset) = lowest_gap(&placed[arena], size, lifetime, max_arena, reuse) {
                break offset;
            }
            arena += 1;
        };
        let list = &mut placed[arena];
        let at = list.partition_point(|&(o, _, _)| o <= offset);
        list.insert(at, (offset, offset + size, lifetime));
        plan.places[i] = (arena, offset);
        plan.arenas[arena] = plan.arenas[arena].max(offset + size);
    }
    Ok(plan)
}

fn lowest_gap(
    placed: &[(u64, u64, Lifetime)],
    size: u64,
    lifetime: Lifetime,
    max_arena: u64,
    reuse: bool,
) -> Option<u64> {
    let mut offset = 0;
    for &(start, end, other) in placed {
        let apart = lifetime.last < other.first || other.last < lifetime.first;
        if apart && reuse {
            continue;
        }
        if offset + size <= start {
            break;
        }
        offset = offset.max(end);
    }
    (offset + size <= max_arena).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(size_bytes: u64, first: usize, last: usize) -> Request {
        let lifetime = Lifetime { first, last };
        Request {
            size_bytes,
            lifetime,
        }
    }

    #[test]
    fn memory_of_the_dead_is_reused() {
        let requests = [request(100, 0, 1), request(100, 1, 2), request(100, 2, 3)];
        let plan = memory_plan(&requests, 256, 1 << 20, true).unwrap();
        assert_eq!(plan.arenas, [512]);
        let apart = memory_plan(&requests, 256, 1 << 20, false).unwrap();
        assert_eq!(apart.arenas, [768]);
    }

    #[test]
    fn arenas_stay_within_the_limit() {
        let requests = [request(600, 0, 5), request(600, 0, 5)];
        let plan = memory_plan(&requests, 256, 1024, true).unwrap();
        assert_eq!(plan.arenas, [768, 768]);
        assert!(memory_plan(&[request(2000, 0, 0)], 256, 1024, true).is_err());
    }
}
