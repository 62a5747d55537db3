//! `decorr devices`.

use decorr::Result;
use decorr::gpu::{AdapterChoice, AdapterSummary, Gpu, list_adapters};

use super::print;

pub(super) fn run() -> Result<()> {
    let adapters = list_adapters();
    // With none, opening says what to install.
    let chosen = Gpu::open(&AdapterChoice::default())?;
    for (i, adapter) in adapters.iter().enumerate() {
        lines(i, adapter).iter().for_each(print);
    }
    print(format_args!("used by default: {}", chosen.describe()));
    Ok(())
}

fn lines(number: usize, a: &AdapterSummary) -> [String; 4] {
    let mib = |bytes: u64| bytes >> 20;
    let features: Vec<String> = a
        .features
        .iter()
        .map(|(name, has)| format!("{name} {}", if *has { "yes" } else { "no" }))
        .collect();
    [
        format!("{number}: {}", a.name),
        format!(
            "   type {:?}, backend {}, driver {}",
            a.device_type, a.backend, a.driver
        ),
        format!(
            "   limits: {} MiB a binding, {} MiB a buffer, {} KiB of workgroup memory",
            mib(a.max_binding_bytes),
            mib(a.max_buffer_bytes),
            a.workgroup_bytes >> 10
        ),
        format!("   optional features: {}", features.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_an_adapter_stand_with_their_units() {
        let adapter = AdapterSummary {
            name: "A".into(),
            device_type: wgpu::DeviceType::Cpu,
            backend: wgpu::Backend::Vulkan,
            driver: "D 1".into(),
            max_binding_bytes: 128 << 20,
            max_buffer_bytes: 2048 << 20,
            workgroup_bytes: 32 << 10,
            features: vec![("one", true), ("two", false)],
        };
        let wanted = [
            "3: A",
            "   type Cpu, backend vulkan, driver D 1",
            "   limits: 128 MiB a binding, 2048 MiB a buffer, 32 KiB of workgroup memory",
            "   optional features: one yes, two no",
        ];
        assert_eq!(lines(3, &adapter), wanted);
    }
}
