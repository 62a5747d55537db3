//! A run of one process: sums are what was given.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::{Ranks, Sum};
use crate::{Error, Result};

/// The only rank of its run.
#[derive(Debug, Default)]
pub struct OneProcess {
    begun: Mutex<VecDeque<Vec<f32>>>,
}

impl Ranks for OneProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn begin_sum(&self, _: &str, values: Vec<f32>) -> Result<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.push_back(values);
        Ok(())
    }

    fn take_sum(&self) -> Result<Sum> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let values = begun.pop_front();
        let values = values.ok_or_else(|| Error::bug("a sum is taken that was not begun"))?;
        Ok(Sum {
            values,
            seconds: 0.0,
        })
    }

    fn gather(&self, _: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }

    fn abort(&self) {}
}
