//! The ranks of `mpirun`. A thread of its own makes all calls of MPI, one after the other, so that an exchange runs while the
//! GPU computes; the others give it requests and wait for its answers with a time limit.
//!
//! A long sum is cut into a chunk for each rank. Everybody sends chunk r to rank r, which adds them in the order of the
//! ranks, and sends the sum to everybody. That is as many bytes as a ring all-reduce sends, 2 (N - 1) / N of the vector, and the
//! same bits always; `MPI_Allreduce` promises no order. Every rank has one partner to send to and one to receive from at a time.
//! Of a short one, where the time is that of the messages and not of their bytes, everybody gets all and adds it up.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::Equivalence;
use mpi::point_to_point::send_receive_into;
use mpi::topology::{Communicator, SimpleCommunicator};

use super::{Ranks, Sum};
use crate::{Error, Result};

/// Sums of no more numbers are short.
const SHORT: usize = 1 << 10;

/// A wait for what takes longer than a sum is this much longer.
const LONG: u32 = 10;

/// What launchers set for each process.
const LAUNCHED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"];

/// Whether a launcher of MPI started this process.
pub(super) fn is_launched() -> bool {
    LAUNCHED.iter().any(|name| std::env::var_os(name).is_some())
}

/// One of the processes that MPI started.
#[derive(Debug)]
pub(super) struct Mpi {
    rank: usize,
    size: usize,
    patience: Duration,
    requests: Mutex<Option<Sender<Request>>>,
    answers: Mutex<Receiver<Answer>>,
    now: Arc<Mutex<Now>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Sum(String, Vec<f32>),
    Gather(String, Vec<u8>),
    Abort,
}

#[derive(Debug)]
enum Answer {
    Started([usize; 2]),
    Sum(Sum),
    Gathered(Vec<Vec<u8>>),
}

/// What the thread is at: the exchange, and whom it waits for, if that is one.
#[derive(Debug, Default)]
struct Now {
    what: String,
    rank: Option<usize>,
}

impl Mpi {
    /// Starts MPI.
    pub(super) fn start(patience: u64) -> Result<Self> {
        let (requests, to_do) = channel();
        let (answer, answers) = channel();
        let now = Arc::new(Mutex::new(Now::default()));
        let of_thread = Arc::clone(&now);
        let thread = std::thread::Builder::new()
            .name("mpi".into())
            .spawn(move || work(&to_do, &answer, &of_thread))
            .map_err(|e| Error::io("the thread of MPI", e))?;
        let Ok(Answer::Started([rank, size])) = answers.recv() else {
            return Err(Error::Ranks("MPI could not be started".into()));
        };
        Ok(Self {
            rank,
            size,
            patience: Duration::from_secs(patience),
            requests: Mutex::new(Some(requests)),
            answers: Mutex::new(answers),
            now,
            thread: Some(thread),
        })
    }

    fn request(&self, request: Request) -> Result<()> {
        let sent = lock(&self.requests).as_ref().map(|to| to.send(request));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Ranks(
                "the exchange with the other ranks has ended".into(),
            )),
        }
    }

    fn answer(&self, patience: Duration) -> Result<Answer> {
        lock(&self.answers).recv_timeout(patience).map_err(|error| {
            let now = lock(&self.now);
            let whom = match now.rank {
                Some(rank) => format!("rank {rank} does not answer"),
                None => "another rank does not answer".into(),
            };
            Error::Ranks(match error {
                RecvTimeoutError::Timeout => format!(
                    "{whom}: {} was not exchanged in {patience:?}. `rank_timeout` gives it longer",
                    now.what
                ),
                RecvTimeoutError::Disconnected => {
                    format!("the thread of MPI ended in the exchange of {}", now.what)
                }
            })
        })
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn begin_sum(&self, what: &str, values: Vec<f32>) -> Result<()> {
        self.request(Request::Sum(what.into(), values))
    }

    fn take_sum(&self) -> Result<Sum> {
        match self.answer(self.patience)? {
            Answer::Sum(sum) => Ok(sum),
            other => Err(Error::bug(format!("MPI gave {other:?} and no sum"))),
        }
    }

    fn gather(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.request(Request::Gather(what.into(), bytes))?;
        match self.answer(self.patience * LONG)? {
            Answer::Gathered(all) => Ok(all),
            other => Err(Error::bug(format!(
                "MPI gave {other:?} and not what was gathered"
            ))),
        }
    }

    fn abort(&self) {
        // A thread that waits for a rank cannot do it: launchers end a run of which a process exits without finishing MPI.
        if self.request(Request::Abort).is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(1);
    }
}

impl Drop for Mpi {
    /// Finishes MPI, which waits for all ranks.
    fn drop(&mut self) {
        lock(&self.requests).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread does, until nobody can ask any more.
fn work(to_do: &Receiver<Request>, answer: &Sender<Answer>, now: &Mutex<Now>) {
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
        return;
    };
    let world = universe.world();
    let all = All {
        rank: world.rank() as usize,
        size: world.size() as usize,
        world,
        now,
    };
    let mut next = Answer::Started([all.rank, all.size]);
    while answer.send(next).is_ok() {
        next = match to_do.recv() {
            Ok(Request::Sum(what, mut values)) => {
                let begin = Instant::now();
                all.begin(what);
                all.sum(&mut values);
                let seconds = begin.elapsed().as_secs_f64();
                Answer::Sum(Sum { values, seconds })
            }
            Ok(Request::Gather(what, bytes)) => {
                all.begin(what);
                Answer::Gathered(all.gather(bytes))
            }
            Ok(Request::Abort) => all.world.abort(1),
            Err(_) => return,
        };
    }
}

/// All processes, as the thread sees them.
struct All<'a> {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    now: &'a Mutex<Now>,
}

impl All<'_> {
    fn begin(&self, what: String) {
        *lock(self.now) = Now { what, rank: None };
    }

    /// Puts the sum over the ranks in the place of `values`.
    fn sum(&self, values: &mut Vec<f32>) {
        let (len, size, me) = (values.len(), self.size, self.rank);
        if len <= SHORT {
            let mut of_all = vec![0.0; len * size];
            self.world.all_gather_into(&values[..], &mut of_all[..]);
            add_up(&of_all, values);
            return;
        }
        let chunk = len.div_ceil(size);
        let place = |rank: usize| rank * chunk..(rank + 1) * chunk;
        values.resize(chunk * size, 0.0);
        let mut of_all = vec![0.0; chunk * size];
        of_all[place(me)].copy_from_slice(&values[place(me)]);
        self.pairwise(|to, from| (&values[place(to)], place(from)), &mut of_all);
        let mut sum = vec![0.0; chunk];
        add_up(&of_all, &mut sum);
        values[place(me)].copy_from_slice(&sum);
        self.pairwise(|_, from| (&sum, place(from)), values);
        values.truncate(len);
    }

    /// With every other rank in turn: sends it what `message` says, and puts what another sends where `message` says.
    fn pairwise<'a, T: Equivalence + 'a>(
        &self,
        message: impl Fn(usize, usize) -> (&'a [T], std::ops::Range<usize>),
        into: &mut [T],
    ) {
        for step in 1..self.size {
            let to = (self.rank + step) % self.size;
            let from = (self.rank + self.size - step) % self.size;
            lock(self.now).rank = Some(from);
            let (sent, place) = message(to, from);
            let process = |rank: usize| self.world.process_at_rank(rank as i32);
            send_receive_into(sent, &process(to), &mut into[place], &process(from));
        }
    }

    fn gather(&self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut lens = vec![0_u64; self.size];
        lens[self.rank] = bytes.len() as u64;
        let len = [lens[self.rank]];
        self.pairwise(|_, from| (&len, from..from + 1), &mut lens);
        let longest = lens.iter().max().map_or(0, |&len| len as usize);
        bytes.resize(longest, 0);
        let mut of_all = vec![0_u8; longest * self.size];
        let place = |rank: usize| rank * longest..(rank + 1) * longest;
        of_all[place(self.rank)].copy_from_slice(&bytes);
        self.pairwise(|_, from| (&bytes, place(from)), &mut of_all);
        let one = |(rank, &len)| of_all[place(rank)][..len as usize].to_vec();
        lens.iter().enumerate().map(one).collect()
    }
}

/// The sum of the ranks' shares, which lie one after the other, in their order.
fn add_up(of_all: &[f32], sum: &mut [f32]) {
    for (i, share) in of_all.chunks_exact(sum.len().max(1)).enumerate() {
        match i {
            0 => sum.copy_from_slice(share),
            _ => sum.iter_mut().zip(share).for_each(|(sum, v)| *sum += v),
        }
    }
}
