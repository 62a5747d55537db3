//! The command `decorr`.

fn main() {
    let gpu = decorr::gpu::Gpu::open(&Default::default()).expect("gpu");
    let options = decorr::bench::Options {
        filter: std::env::args().nth(1).unwrap_or_default(),
        rounds: 3,
        variants: None,
    };
    let report = decorr::bench::run(&gpu, &options, |s| eprintln!("{s}")).expect("bench");
    print!("{}", report.table());
}
