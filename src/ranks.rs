//! The processes that train one network together, its *ranks*: one trait, which says how they exchange numbers, with two
//! implementations. [`OneProcess`] is a run as ever. With the feature `mpi`, [`start`] gives the ranks of `mpirun`.
//!
//! Sums are added in the order of the ranks, whoever is first, so the same run gives the same bits.

#[cfg(feature = "mpi")]
mod mpi;
mod one;

use std::fmt::Debug;
use std::sync::Arc;

pub use one::OneProcess;

use crate::Result;

/// How the processes of a run exchange numbers. All of them call the same methods in the same order.
pub trait Ranks: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Begins to add `values` up over the ranks, number by number. Does not wait. `what` names the exchange in errors.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] if the exchange has ended.
    fn begin_sum(&self, what: &str, values: Vec<f32>) -> Result<()>;

    /// The oldest sum that was begun and not taken; waits for it.
    ///
    /// # Errors
    /// [`crate::Error::Ranks`] naming exchange and rank, if a rank does not answer.
    fn take_sum(&self) -> Result<Sum>;

    /// What each rank gives, in their order. No sum may be under way. Waits for all, ten times as long as for a sum: ranks come
    /// here from reading data, compiling and writing files.
    ///
    /// # Errors
    /// As [`Ranks::take_sum`].
    fn gather(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Ends all processes of the run with a code that is not 0. Of one process there is nothing to end.
    fn abort(&self);

    /// A sum, waited for. No other may be under way.
    ///
    /// # Errors
    /// As [`Ranks::take_sum`].
    fn sum(&self, what: &str, values: Vec<f32>) -> Result<Vec<f32>> {
        self.begin_sum(what, values)?;
        Ok(self.take_sum()?.values)
    }
}

/// What [`Ranks::take_sum`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    /// In the memory that was given.
    pub values: Vec<f32>,
    /// How long the exchange took, from when its turn came.
    pub seconds: f64,
}

/// The ranks that this process is one of: those of `mpirun`, if decorr has the feature `mpi` and was started by one. A rank that
/// the others wait for longer than `patience` seconds ends the run. To be called once.
///
/// # Errors
/// [`crate::Error::Ranks`] if MPI cannot be started; [`crate::Error::Config`] if decorr has not the feature, and a launcher says that
/// there are several processes.
pub fn start(patience: u64) -> Result<Arc<dyn Ranks>> {
    #[cfg(feature = "mpi")]
    if mpi::is_launched() {
        return Ok(Arc::new(mpi::Mpi::start(patience)?));
    }
    let _ = patience;
    refuse_several(|name| std::env::var(name).ok())?;
    Ok(Arc::new(OneProcess::default()))
}

/// Each of several processes would train the whole.
fn refuse_several(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let size = variable(name).and_then(|size| size.parse().ok());
        if let Some(size @ 2_u64..) = size {
            return Err(crate::Error::Config(format!(
                "mpirun started {size} processes ({name}), but decorr was built without the feature `mpi`: build it with \
                 cargo build --release --features mpi"
            )));
        }
    }
    Ok(())
}

/// Refuses ranks that are not alike: every one gives the same lines of names and values, and they must be equal.
///
/// # Errors
/// [`crate::Error::Config`] naming two ranks, what differs and both values; as [`Ranks::gather`].
pub(crate) fn check_alike(ranks: &dyn Ranks, mine: &[(String, String)]) -> Result<()> {
    let text = serde_json::to_vec(mine).map_err(|e| crate::Error::bug(e.to_string()))?;
    let mut all = Vec::new();
    for bytes in ranks.gather("the ranks' options and data", text)? {
        let of_rank: Vec<(String, String)> =
            serde_json::from_slice(&bytes).map_err(|e| crate::Error::Ranks(e.to_string()))?;
        all.push(of_rank);
    }
    match first_difference(&all) {
        Some(message) => Err(crate::Error::Config(message)),
        None => Ok(()),
    }
}

/// Of rank 0 and another.
fn first_difference(all: &[Vec<(String, String)>]) -> Option<String> {
    let (first, others) = all.split_first()?;
    for (rank, other) in (1..).zip(others) {
        let lists = [(0, first, rank, other), (rank, other, 0, first)];
        for (a, of_a, b, of_b) in lists {
            for (what, value) in of_a {
                let there = of_b.iter().find(|(name, _)| name == what);
                let there = there.map_or("none", |(_, value)| value);
                if there != value {
                    return Some(format!(
                        "the ranks of a run must be alike, but {what} of rank {a} is {value}, of rank {b} {there}"
                    ));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_need_the_feature() {
        let of = |name: &'static str, value: &'static str| {
            let variable = move |asked: &str| (asked == name).then(|| value.to_string());
            refuse_several(variable).map_err(|e| e.to_string())
        };
        for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
            let wanted = format!(
                "mpirun started 4 processes ({name}), but decorr was built without the feature `mpi`: build it with cargo build \
                 --release --features mpi"
            );
            assert_eq!(of(name, "4"), Err(wanted));
            for one in ["1", "", "many"] {
                assert_eq!(of(name, one), Ok(()));
            }
        }
        assert_eq!(of("HOME", "4"), Ok(()));
    }

    #[test]
    fn ranks_that_differ_are_named_with_both_values() {
        let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let owned = |&(a, b): &(&str, &str)| (a.to_string(), b.to_string());
            pairs.iter().map(owned).collect()
        };
        let (a, b) = (
            of(&[("`lr`", "1"), ("data", "x")]),
            of(&[("`lr`", "2"), ("data", "x")]),
        );
        assert_eq!(first_difference(&[a.clone(), a.clone(), a.clone()]), None);
        let found = first_difference(&[a.clone(), a.clone(), b]).unwrap();
        assert!(
            found.ends_with("`lr` of rank 0 is 1, of rank 2 2"),
            "{found}"
        );
        let more = of(&[("`lr`", "1"), ("data", "x"), ("`steps`", "3")]);
        let found = first_difference(&[a, more]).unwrap();
        assert!(
            found.ends_with("`steps` of rank 1 is 3, of rank 0 none"),
            "{found}"
        );
    }

    #[test]
    fn one_process_gives_what_it_was_given_in_order() {
        let one = OneProcess::default();
        assert_eq!((one.rank(), one.size()), (0, 1));
        one.begin_sum("a", vec![1.0, 2.0]).unwrap();
        one.begin_sum("b", vec![3.0]).unwrap();
        assert_eq!(one.take_sum().unwrap().values, [1.0, 2.0]);
        assert_eq!(one.take_sum().unwrap().values, [3.0]);
        assert!(one.take_sum().is_err());
        assert_eq!(one.gather("c", vec![7]).unwrap(), [[7]]);
        check_alike(&one, &[("a".into(), "b".into())]).unwrap();
    }
}
