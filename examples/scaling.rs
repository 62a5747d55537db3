//! How fast many GPUs would train: the model of docs/scaling.md.
//!
//! ```sh
//! cargo run --release --example scaling -- [TFLOP/s of a GPU] [GB/s between GPU and host]
//! ```
//!
//! A step computes three times the operations of an evaluation. Gradients go to the host, over the network and back, in
//! buckets, while the backward pass runs, which is two thirds of the step. What does not fit into it shows, and so does the
//! last bucket.

use decorr::Result;
use decorr::models::{Form, Norm, Summary, summaries};

/// Between processes: seconds of a message whatever its length, and bytes a second.
#[derive(Clone, Copy, Debug)]
struct Network {
    message: f64,
    bytes_per_second: f64,
}

/// Bytes of a bucket, as in src/program/exchange.rs.
fn bucket_bytes(ranks: usize) -> f64 {
    f64::from(1 << 20).max(ranks as f64 * f64::from(1 << 16))
}

impl Network {
    /// Seconds of a sum over the ranks: each sends 2 (N - 1) messages of an N-th part.
    fn sum(self, bytes: f64, ranks: usize) -> f64 {
        let messages = 2.0 * (ranks as f64 - 1.0);
        messages * (self.message + bytes / ranks as f64 / self.bytes_per_second)
    }
}

/// Seconds of a step that computes for `compute` and exchanges `bytes`, which pass the host at `host` bytes a second.
fn step(compute: f64, bytes: f64, host: f64, network: Network, ranks: usize) -> f64 {
    if ranks == 1 {
        return compute;
    }
    let bucket = bucket_bytes(ranks).min(bytes);
    let one = network.sum(bucket, ranks) + 2.0 * bucket / host;
    // Copies of one bucket run beside the exchange of another.
    let all = (bytes / bucket * network.sum(bucket, ranks)).max(2.0 * bytes / host);
    compute + one.max(all - compute * 2.0 / 3.0)
}

fn number(place: usize, default: f64) -> f64 {
    let given = std::env::args().nth(place);
    given.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> Result<()> {
    let (tflops, host) = (number(1, 10.0), 1e9 * number(2, 12.0));
    println!(
        "{tflops} TFLOP/s a GPU, {} GB/s to and from the host, 20 us a message",
        host / 1e9
    );
    println!("| network | images a GPU | MB | Gbit/s | step alone, ms | 2 | 8 | 64 | 256 | 1024 |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (name, form, images) in [
        ("vgg11", Form::Cifar, 128),
        ("resnet18", Form::Imagenet, 64),
        ("resnet50", Form::Imagenet, 32),
    ] {
        let all = summaries(Some(form), Some(Norm::Deconv))?;
        for Summary {
            parameters, flops, ..
        } in all.into_iter().filter(|s| s.name == name)
        {
            let (bytes, images) = (4.0 * parameters as f64, f64::from(images));
            let compute = 3.0 * flops as f64 * images / (tflops * 1e12);
            for gbit in [1.0, 10.0, 100.0] {
                let network = Network {
                    message: 20e-6,
                    bytes_per_second: gbit * 1e9 / 8.0,
                };
                let efficiency = [2, 8, 64, 256, 1024].map(|ranks| {
                    let step = step(compute, bytes, host, network, ranks);
                    format!("{:.2}", compute / step)
                });
                println!(
                    "| {name} | {images} | {:.0} | {gbit} | {:.1} | {} |",
                    bytes / 1e6,
                    1e3 * compute,
                    efficiency.join(" | ")
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks, bytes of a sum and its milliseconds by `decorr bench --scaling` on the machine of docs/scaling.md.
    const MEASURED: &[(usize, f64, f64)] = &[
        (2, 65_536.0, 0.0665),
        (2, 1_048_576.0, 0.601),
        (2, 16_777_216.0, 25.5),
        (4, 65_536.0, 0.162),
        (4, 1_048_576.0, 1.26),
        (4, 16_777_216.0, 60.9),
    ];

    /// Message and bandwidth that fit the measured points best, by the logarithms of their ratios.
    fn fitted() -> Network {
        let error = |network: &Network| -> f64 {
            let of = |&(ranks, bytes, ms): &(usize, f64, f64)| {
                (1e3 * network.sum(bytes, ranks) / ms).ln().powi(2)
            };
            MEASURED.iter().map(of).sum()
        };
        let steps = |least: f64, most: f64| {
            let ratio = most / least;
            (0..=100).map(move |i| least * ratio.powf(f64::from(i) / 100.0))
        };
        let all = steps(1e-7, 1e-1).flat_map(|message| {
            steps(1e7, 1e11).map(move |bytes_per_second| Network {
                message,
                bytes_per_second,
            })
        });
        all.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap()
    }

    /// Two numbers explain sums of three lengths on two and four ranks within a factor of three.
    #[test]
    fn the_model_is_near_what_was_measured() {
        let network = fitted();
        for &(ranks, bytes, ms) in MEASURED {
            let ratio = 1e3 * network.sum(bytes, ranks) / ms;
            println!(
                "{ranks} ranks, {bytes} bytes: {ms} ms, the model {ratio:.2} times that, {network:?}"
            );
            assert!(
                (1.0 / 3.0..3.0).contains(&ratio),
                "{ranks} {bytes}: {ratio}"
            );
        }
    }

    #[test]
    fn what_fits_into_the_backward_pass_is_hidden_but_for_the_last_bucket() {
        let network = Network {
            message: 0.0,
            bytes_per_second: 1e9,
        };
        let bucket = f64::from(1 << 20);
        let shown = |compute: f64, bytes: f64| step(compute, bytes, 1e12, network, 2) - compute;
        let one = bucket / 1e9 + 2.0 * bucket / 1e12;
        assert!((shown(3.0, 100.0 * bucket) - one).abs() < 1e-9);
        let all = 1e4 * bucket / 1e9;
        assert!((shown(3.0, 1e4 * bucket) - (all - 2.0)).abs() < 1e-6);
        assert_eq!(step(3.0, 1e9, 1e12, network, 1), 3.0);
    }
}
