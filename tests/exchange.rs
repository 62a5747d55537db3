//! Steps that exchange values with other ranks, without MPI: the ranks are threads of the test.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use decorr::data::{DataSet, Images};
use decorr::graph::{Graph, Init, Role};
use decorr::passes::Passes;
use decorr::prelude::*;
use decorr::ranks::{Ranks, Sum};

/// A rank that is a thread.
#[derive(Debug)]
struct Thread {
    rank: usize,
    size: usize,
    begun: Mutex<u64>,
    taken: Mutex<u64>,
    all: Arc<All>,
}

/// What they share: what each gave, by the number of the exchange.
#[derive(Debug, Default)]
struct All {
    given: Mutex<BTreeMap<u64, Vec<Option<Vec<u8>>>>>,
    more: Condvar,
}

impl Thread {
    fn all(size: usize) -> Vec<Arc<dyn Ranks>> {
        let all = Arc::new(All::default());
        let one = |rank| -> Arc<dyn Ranks> {
            Arc::new(Self {
                rank,
                size,
                begun: Mutex::default(),
                taken: Mutex::default(),
                all: Arc::clone(&all),
            })
        };
        (0..size).map(one).collect()
    }

    fn give(&self, bytes: Vec<u8>) {
        let mut number = self.begun.lock().unwrap();
        let mut given = self.all.given.lock().unwrap();
        given
            .entry(*number)
            .or_insert_with(|| vec![None; self.size])[self.rank] = Some(bytes);
        *number += 1;
        self.all.more.notify_all();
    }

    fn take(&self) -> Vec<Vec<u8>> {
        let mut number = self.taken.lock().unwrap();
        let given = self.all.given.lock().unwrap();
        let lacks = |given: &mut BTreeMap<u64, Vec<Option<Vec<u8>>>>| {
            given
                .get(&number)
                .is_none_or(|all| all.iter().any(Option::is_none))
        };
        let given = self.all.more.wait_while(given, lacks).unwrap();
        let all = given[&number].iter().flatten().cloned().collect();
        *number += 1;
        all
    }
}

impl Ranks for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn begin_sum(&self, _: &str, values: Vec<f32>) -> Result<()> {
        self.give(bytemuck::cast_slice(&values).to_vec());
        Ok(())
    }

    fn take_sum(&self) -> Result<Sum> {
        let all = self.take();
        let mut values: Vec<f32> = vec![0.0; all[0].len() / 4];
        for share in all {
            let share: Vec<f32> = bytemuck::pod_collect_to_vec(&share);
            assert_eq!(share.len(), values.len());
            values.iter_mut().zip(share).for_each(|(sum, v)| *sum += v);
        }
        Ok(Sum {
            values,
            seconds: 0.25,
        })
    }

    fn gather(&self, _: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.give(bytes);
        Ok(self.take())
    }

    fn abort(&self) {}
}

/// What `work` gives on each of so many ranks.
fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Ranks>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ranks = Thread::all(size).into_iter();
        let threads: Vec<_> = ranks.map(|rank| scope.spawn(|| work(rank))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Of inputs, states, computed tensors and views; one after the other; as outputs, as the next value of a state and on the
/// way to others.
#[test]
fn a_step_takes_means_over_ranks_wherever_they_stand() {
    for passes in [Passes::ALL, Passes::NONE] {
        let all = on_ranks(3, |ranks| {
            let gpu = support::gpu();
            let g = Graph::new();
            let x = g.input("x", [4]);
            let w = g.state("w", [4], Role::Statistic, Init::Constant(2.0));
            let v = g.state("v", [2, 2], Role::Statistic, Init::Constant(1.0));
            let product = x * w;
            let mean = product.rank_mean();
            let again = (mean - x).square().rank_mean();
            g.output("mean", mean);
            g.output("product", product);
            g.output("again", again);
            g.output("of the input", x.rank_mean().rank_mean());
            g.output("of the state", w.reshape([2, 2]).rank_mean());
            // Written over the old value, which was read before.
            w.assign((w * x).rank_mean());
            v.assign(v + mean.reshape([2, 2]));
            let mut store = Store::new(&gpu, 1);
            let rank = ranks.rank() as f32;
            store.set_ranks(ranks);
            let options = CompileOptions {
                passes,
                ..CompileOptions::default()
            };
            let mut program = Program::compile(&g, &mut store, options).unwrap();
            let x: Vec<f32> = (0..4).map(|i| i as f32 + rank).collect();
            let mut outputs = Vec::new();
            for _ in 0..3 {
                outputs.push(program.run(&[("x", &x)]).unwrap().values);
            }
            let times = program.exchange_times();
            assert!(times.seconds > 0.0 && times.bytes > 0, "{times:?}");
            let refused = program.profile(&[("x", &x)]).unwrap_err().to_string();
            assert!(
                refused.contains("ranks") || refused.contains("timestamp"),
                "{refused}"
            );
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            assert!(program.record(&mut encoder, &[]).is_err());
            (
                x,
                outputs,
                store.read("w").unwrap(),
                store.read("v").unwrap(),
            )
        });
        let mean = |of: &dyn Fn(usize) -> f32| (0..3).map(of).sum::<f32>() / 3.0;
        let (mut w, mut v) = ([2.0_f32; 4], [1.0_f32; 4]);
        for step in 0..3 {
            let old = w;
            for i in 0..4 {
                let x = |r: usize| all[r].0[i];
                let product = mean(&|r| x(r) * old[i]);
                let again = mean(&|r| (product - x(r)).powi(2));
                for (r, (_, outputs, _, _)) in all.iter().enumerate() {
                    let found = |name: &str| outputs[step][name][i];
                    let close = |name: &str, wanted: f32| {
                        let error = (found(name) - wanted).abs();
                        assert!(
                            error <= 1e-5 * wanted.abs().max(1.0),
                            "{name} of {r}: {error}"
                        );
                    };
                    close("mean", product);
                    close("product", x(r) * old[i]);
                    close("again", again);
                    close("of the input", mean(&x));
                    close("of the state", old[i]);
                }
                (w[i], v[i]) = (product, v[i] + product);
            }
        }
        for (_, _, of_w, of_v) in &all {
            assert_eq!((of_w, of_v), (&all[0].2, &all[0].3));
            for i in 0..4 {
                assert!((of_w[i] - w[i]).abs() <= 1e-4 * w[i].abs().max(1.0));
                assert!((of_v[i] - v[i]).abs() <= 1e-4 * v[i].abs().max(1.0));
            }
        }
    }
}

/// Images of 3 x 6 x 6 that are no noise, in 4 classes.
fn images(count: usize) -> Images {
    let len = count * 3 * 36;
    let value = |i: usize| ((i * 37 + (i / 36) * 11 + (i / 108) * 53) % 251) as u8;
    Images::new(
        (0..len).map(value).collect::<Vec<u8>>(),
        [3, 6, 6],
        (0..count).map(|i| (i * 7 % 4) as u16).collect(),
        4,
    )
    .unwrap()
}

fn deconv(refresh: usize) -> DeconvOptions {
    DeconvOptions::default()
        .block(4)
        .sampling_stride(1)
        .eps(1e-2)
        .refresh(refresh)
}

/// Two convolutions and a linear layer with this norm.
fn network(norm: &str) -> Sequential {
    match norm {
        "batch" => Sequential::new()
            .add("conv1", Conv2d::new(3, 8, 3).padding(1))
            .add("norm1", BatchNorm::new(8))
            .add("relu1", Relu)
            .add("conv2", Conv2d::new(8, 8, 3).stride(2))
            .add("norm2", BatchNorm::new(8))
            .add("flatten", Flatten)
            .add("fc", Linear::new(32, 4)),
        "channel" => Sequential::new()
            .add("norm1", ChannelDeconv::new(3, 2).options(deconv(1)))
            .add("conv1", Conv2d::new(3, 8, 3).padding(1))
            .add("relu1", Relu)
            .add("norm2", ChannelDeconv::new(8, 4).options(deconv(1)))
            .add("conv2", Conv2d::new(8, 8, 3).stride(2))
            .add("flatten", Flatten)
            .add("fc", Linear::new(32, 4)),
        _ => {
            let options = deconv(if norm == "refresh" { 2 } else { 1 });
            Sequential::new()
                .add(
                    "conv1",
                    DeconvConv2d::new(3, 8, 3).padding(1).options(options),
                )
                .add("relu1", Relu)
                .add(
                    "conv2",
                    DeconvConv2d::new(8, 8, 3).stride(2).options(options),
                )
                .add("flatten", Flatten)
                .add(
                    "drop",
                    Dropout {
                        p: if norm == "dropout" { 0.25 } else { 0.0 },
                    },
                )
                .add("fc", DeconvLinear::new(32, 4).options(options.block(8)))
        }
    }
}

/// Images of the test: the last batch has 7, all of them the first rank's.
const TEST: usize = 31;

/// Results of five steps, an evaluation, and all states but the running ones; then those.
type Trained = (Vec<StepResult>, Evaluation, [BTreeMap<String, Vec<f32>>; 2]);

fn train(norm: &str, options: TrainerOptions) -> Trained {
    let set = DataSet::new(images(48), images(TEST), &[0.5; 3], &[0.25; 3]).unwrap();
    let mut options = options.batch_size(24).lr(0.05);
    if norm == "refresh" {
        let mode = |step: u64| match step % 2 {
            0 => Mode::Train,
            _ => Mode::Between,
        };
        options = options.modes(&[Mode::Train, Mode::Between], mode);
    }
    let mut trainer = Trainer::new(&support::gpu(), network(norm), set, options).unwrap();
    let results = (0..5).map(|_| trainer.step().unwrap()).collect();
    let evaluation = trainer.evaluate().unwrap();
    let store = trainer.store();
    let [mut others, mut running] = [BTreeMap::new(), BTreeMap::new()];
    for (name, _, role) in store.states().filter(|(_, _, role)| *role != Role::Scratch) {
        let values = store.read(name).unwrap();
        match role == Role::Statistic || name.contains("refresh_") {
            true => running.insert(name.to_string(), values),
            false => others.insert(name.to_string(), values),
        };
    }
    (results, evaluation, [others, running])
}

/// The largest difference, as a share of the largest value of the tensor.
fn difference(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> (f32, String) {
    assert!(a.keys().eq(b.keys()));
    let of = |(name, values): (&String, &Vec<f32>)| {
        let largest = values.iter().fold(1e-3_f32, |most, v| most.max(v.abs()));
        let differences = values.iter().zip(&b[name]).map(|(x, y)| (x - y).abs());
        let most = differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most });
        (most / largest, name.clone())
    };
    let by_size = |a: &(f32, String), b: &(f32, String)| a.0.total_cmp(&b.0);
    a.iter().map(of).max_by(by_size).unwrap()
}

/// Each rank has the images, the statistics and the gradients of a part of an accumulated batch. (Not with old Ds: those of
/// the parts are overwritten by the last part's, each rank keeps its own.)
#[test]
fn ranks_are_the_parts_of_a_batch() {
    for (norm, size) in [
        ("deconv", 2),
        ("deconv", 4),
        ("batch", 2),
        ("channel", 2),
        ("dropout", 3),
    ] {
        let (results, _, [one, _]) = train(norm, TrainerOptions::default().accumulate(size));
        let all = on_ranks(size, |ranks| {
            train(norm, TrainerOptions::default().ranks(ranks, false))
        });
        for (rank, (of_rank, evaluation, [states, running])) in all.iter().enumerate() {
            let (most, name) = difference(&one, states);
            support::report(&format!(
                "{norm}, {size} ranks, rank {rank}: {most:e} in {name}"
            ));
            assert!(most < 1e-5, "{norm} {size}: {name} {most:e}");
            for (a, b) in results.iter().zip(of_rank) {
                assert!((a.loss - b.loss).abs() < 1e-5 && (a.top1 - b.top1).abs() < 1e-5);
            }
            // One network in the end.
            assert_eq!(
                (states, running, evaluation),
                (&all[0].2[0], &all[0].2[1], &all[0].1)
            );
        }
    }
}

/// With the statistics of all ranks it is the training of one process on the whole batch.
#[test]
fn ranks_with_statistics_of_all_are_one_process() {
    for norm in ["deconv", "batch", "channel", "refresh"] {
        let (results, evaluation, [one, running]) = train(norm, TrainerOptions::default());
        for size in [2, 3] {
            let all = on_ranks(size, |ranks| {
                train(norm, TrainerOptions::default().ranks(ranks, true))
            });
            for (of_rank, of_test, [states, of_running]) in &all {
                let (most, name) = difference(&one, states);
                let (most_running, of) = difference(&running, of_running);
                support::report(&format!(
                    "{norm}, {size} ranks: {most:e} in {name}, {most_running:e} in {of}"
                ));
                assert!(
                    most < 2e-4 && most_running < 2e-4,
                    "{norm}: {name} {most:e}, {of} {most_running:e}"
                );
                for (a, b) in results.iter().zip(of_rank) {
                    assert!((a.loss - b.loss).abs() < 1e-4, "{a:?} {b:?}");
                }
                assert!((evaluation.loss - of_test.loss).abs() < 1e-3 * evaluation.loss);
                assert_eq!((evaluation.top1, TEST), (of_test.top1, of_test.images));
            }
        }
        // And not that of the parts: the test would not see a mode without effect.
        let parts = on_ranks(2, |ranks| {
            train(norm, TrainerOptions::default().ranks(ranks, false))
        });
        assert!(difference(&one, &parts[0].2[0]).0 > 1e-3, "{norm}");
    }
}

/// Rounding, order of threads, time: none shows.
#[test]
fn the_same_run_gives_the_same_bits() {
    let run = || {
        on_ranks(3, |ranks| {
            train("deconv", TrainerOptions::default().ranks(ranks, false))
        })
    };
    let (a, b) = (run(), run());
    assert!(a == b);
}

#[test]
fn a_batch_that_ranks_cannot_share_is_refused() {
    let errors = on_ranks(2, |ranks| {
        let set = DataSet::new(images(48), images(48), &[0.5; 3], &[0.25; 3]).unwrap();
        let options = TrainerOptions::default()
            .ranks(ranks, false)
            .batch_size(12)
            .accumulate(4);
        Trainer::new(&support::gpu(), network("batch"), set, options)
            .unwrap_err()
            .to_string()
    });
    for error in errors {
        assert!(
            error.contains("12 images") && error.contains("2 ranks"),
            "{error}"
        );
    }
}
