//! `decorr devices`.

use decorr::Result;
use decorr::gpu::{AdapterChoice, Gpu, list_adapters};

use super::print;

pub(super) fn run() -> Result<()> {
    let adapters = list_adapters();
    // With none, opening says what to install.
    let chosen = Gpu::open(&AdapterChoice::default())?;
    let mib = |bytes: u64| bytes >> 20;
    for (i, a) in adapters.iter().enumerate() {
        print(format_args!("{i}: {}", a.name));
        print(format_args!(
            "   type {:?}, backend {}, driver {}",
            a.device_type, a.backend, a.driver
        ));
        print(format_args!(
            "   limits: {} MiB a binding, {} MiB a buffer, {} KiB of workgroup memory",
            mib(a.max_binding_bytes),
            mib(a.max_buffer_bytes),
            a.workgroup_bytes >> 10
        ));
        let features: Vec<String> = a
            .features
            .iter()
            .map(|(name, has)| format!("{name} {}", if *has { "yes" } else { "no" }))
            .collect();
        print(format_args!(
            "   optional features: {}",
            features.join(", ")
        ));
    }
    print(format_args!("used by default: {}", chosen.describe()));
    Ok(())
}
