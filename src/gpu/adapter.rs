//! Which adapters there are and which one is used.

use wgpu::{Backend, Backends, DeviceType, Features};

use crate::{Error, Result};

/// Features that are used where an adapter has them.
pub(super) const OPTIONAL_FEATURES: &[(&str, Features)] = &[
    ("timestamp-query", Features::TIMESTAMP_QUERY),
    ("subgroup", Features::SUBGROUP),
];

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct AdapterChoice {
    /// Number from `decorr devices`, or part of the adapter's name. The default is the fastest
    /// real GPU, else a software adapter.
    pub adapter: Option<String>,
    /// Only this backend: vulkan, metal, dx12 or gl.
    pub backend: Option<String>,
}

/// One line of `decorr devices`.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// The adapter's own name.
    pub name: String,
    /// Discrete, integrated, virtual or CPU.
    pub device_type: DeviceType,
    /// Vulkan, Metal, DX12 or GL.
    pub backend: Backend,
    /// Driver and its version.
    pub driver: String,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Memory of a workgroup in bytes.
    pub workgroup_bytes: u32,
    /// Optional features that decorr uses, with whether the adapter has them.
    pub features: Vec<(&'static str, bool)>,
}

/// All adapters, in the order that `--adapter INDEX` counts.
pub fn list_adapters() -> Vec<AdapterSummary> {
    let (_, adapters) = enumerate(Backends::all());
    adapters.iter().map(summarise).collect()
}

/// `vulkan`, `metal`, `dx12` or `gl`.
///
/// # Errors
/// [`Error::Config`] with the names that exist.
fn parse_backend(name: &str) -> Result<Backends> {
    match name.to_ascii_lowercase().as_str() {
        "vulkan" | "vk" => Ok(Backends::VULKAN),
        "metal" => Ok(Backends::METAL),
        "dx12" => Ok(Backends::DX12),
        "gl" if cfg!(feature = "gl") => Ok(Backends::GL),
        "gl" => Err(Error::Config(
            "OpenGL is not in this build: its feature `gl` is off".into(),
        )),
        _ => Err(Error::Config(format!(
            "no backend is called {name:?}; there are vulkan, metal, dx12 and gl"
        ))),
    }
}

/// The adapter that `choice` means.
///
/// # Errors
/// [`Error::Adapter`] with what to install, or with the adapters that there are.
pub(super) fn choose(choice: &AdapterChoice) -> Result<(wgpu::Instance, wgpu::Adapter)> {
    let backends = match &choice.backend {
        // As a variable that is set to nothing.
        Some(name) if name.is_empty() => Backends::all(),
        Some(name) => parse_backend(name)?,
        None => Backends::all(),
    };
    let (mut instance, adapters) = enumerate(backends);
    if adapters.is_empty() {
        return Err(Error::Adapter(nothing_found(choice)));
    }
    let chosen = match &choice.adapter {
        None => adapters
            .into_iter()
            .min_by_key(|a| preference(&a.get_info())),
        Some(wanted) => match wanted.parse::<usize>() {
            // Numbers count over all backends, as `decorr devices` prints them.
            Ok(index) => {
                let (of_all, adapters) = enumerate(Backends::all());
                instance = of_all;
                let mut adapters = adapters.into_iter();
                let chosen = adapters.nth(index);
                chosen.filter(|a| backends.contains(a.get_info().backend.into()))
            }
            Err(_) => {
                let wanted = wanted.to_lowercase();
                adapters
                    .into_iter()
                    .filter(|a| a.get_info().name.to_lowercase().contains(&wanted))
                    .min_by_key(|a| preference(&a.get_info()))
            }
        },
    };
    chosen.map(|adapter| (instance, adapter)).ok_or_else(|| {
        let wanted = choice.adapter.as_deref().unwrap_or_default();
        let names: Vec<String> = list_adapters()
            .iter()
            .enumerate()
            .map(|(i, a)| format!("  {i}: {} ({})", a.name, a.backend))
            .collect();
        Error::Adapter(format!(
            "no adapter is called {wanted:?}{}; there are\n{}",
            choice
                .backend
                .as_ref()
                .map(|b| format!(" on backend {b}"))
                .unwrap_or_default(),
            names.join("\n")
        ))
    })
}

/// Smaller is better: discrete before integrated before virtual before software; the platform's
/// first-class APIs before GL, which lacks much.
fn preference(info: &wgpu::AdapterInfo) -> (u32, u32) {
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    let backend = match info.backend {
        Backend::Vulkan | Backend::Metal => 0,
        Backend::Dx12 => 1,
        _ => 2,
    };
    // A GL adapter of a real GPU is slower than its Vulkan one but faster than software.
    (kind, backend)
}

fn enumerate(backends: Backends) -> (wgpu::Instance, Vec<wgpu::Adapter>) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // Validation layers only on request (WGPU_VALIDATION=1): old ones refuse naga's debug info.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    // Say that memory is out, where the driver can tell, before the system swaps or kills.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(95);
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.retain(|a| {
        let downlevel = a.get_downlevel_capabilities();
        let computes = downlevel
            .flags
            .contains(wgpu::DownlevelFlags::COMPUTE_SHADERS);
        computes && a.limits().max_storage_buffers_per_shader_stage >= 8
    });
    (instance, adapters)
}

fn summarise(adapter: &wgpu::Adapter) -> AdapterSummary {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let features = adapter.features();
    AdapterSummary {
        name: info.name,
        device_type: info.device_type,
        backend: info.backend,
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_string(),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        features: OPTIONAL_FEATURES
            .iter()
            .map(|&(name, feature)| (name, features.contains(feature)))
            .collect(),
    }
}

fn nothing_found(choice: &AdapterChoice) -> String {
    let asked = match &choice.backend {
        Some(backend) => format!("no GPU adapter was found on backend {backend}."),
        None => "no GPU adapter was found.".to_string(),
    };
    format!(
        "{asked} What to install:\n\
         \x20 Debian, Ubuntu: sudo apt install mesa-vulkan-drivers libvulkan1\n\
         \x20 Fedora:         sudo dnf install mesa-vulkan-drivers vulkan-loader\n\
         \x20 Arch:           sudo pacman -S vulkan-icd-loader and vulkan-radeon, vulkan-intel,\n\
         \x20                 nvidia-utils or, without a GPU, vulkan-swrast\n\
         \x20 NVIDIA:         the vendor's driver, which brings its Vulkan driver along\n\
         \x20 Windows:        a current graphics driver (DirectX 12 or Vulkan)\n\
         \x20 macOS:          nothing; Metal is part of the system\n\
         `scripts/setup` does it on Linux; `decorr devices` shows what is there."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_adapter_says_what_to_install() {
        let text = nothing_found(&AdapterChoice {
            adapter: None,
            backend: Some("metal".into()),
        });
        assert!(text.contains("backend metal") && text.contains("mesa-vulkan-drivers"));
    }

    #[test]
    fn unknown_backend_lists_the_known() {
        let error = parse_backend("cuda").unwrap_err().to_string();
        assert!(error.contains("vulkan") && error.contains("cuda"));
        for name in ["Vulkan", "VK", "vulkan"] {
            assert_eq!(parse_backend(name).ok(), Some(Backends::VULKAN), "{name}");
        }
        assert_eq!(parse_backend("METAL").ok(), Some(Backends::METAL));
        assert_eq!(parse_backend("Dx12").ok(), Some(Backends::DX12));
    }

    /// With what was asked for, and the numbers and names that would do.
    #[test]
    fn an_adapter_that_is_not_there_is_named_beside_those_that_are() {
        let listed = list_adapters();
        let first = &listed[0];
        let choice = |backend: Option<String>| AdapterChoice {
            adapter: Some("no such gpu".into()),
            backend,
        };
        let text = |choice| choose(&choice).unwrap_err().to_string();
        let there = format!("; there are\n  0: {} ({})", first.name, first.backend);
        let plain = text(choice(None));
        let wanted = format!("no adapter is called \"no such gpu\"{there}");
        assert!(plain.contains(&wanted), "{plain}");
        let of_backend = text(choice(Some(first.backend.to_string())));
        let wanted = format!("\"no such gpu\" on backend {}{there}", first.backend);
        assert!(of_backend.contains(&wanted), "{of_backend}");
        // A part of the name is enough, in any case of letters.
        let part = first.name[..first.name.len() / 2].to_uppercase();
        // A variable that is set to nothing names no backend.
        for backend in [None, Some(String::new())] {
            let found = choose(&AdapterChoice {
                adapter: Some(part.clone()),
                backend,
            });
            assert!(found.is_ok(), "{found:?}");
        }
    }

    /// From the first choice to the last.
    #[test]
    fn real_gpus_come_before_software_and_own_interfaces_before_gl() {
        use Backend::{Dx12, Gl, Metal, Vulkan};
        use DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
        let order = [
            (DiscreteGpu, Vulkan),
            (DiscreteGpu, Dx12),
            (DiscreteGpu, Gl),
            (IntegratedGpu, Metal),
            (IntegratedGpu, Gl),
            (VirtualGpu, Vulkan),
            (Other, Vulkan),
            (Cpu, Vulkan),
            (Cpu, Gl),
        ];
        let places =
            order.map(|(kind, backend)| preference(&wgpu::AdapterInfo::new(kind, backend)));
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }

    /// A number counts over all backends, and another backend that is named refuses it.
    #[test]
    fn a_number_of_another_backend_is_refused() {
        let listed = list_adapters();
        for (index, line) in listed.iter().enumerate() {
            for backend in listed.iter().map(|l| l.backend.to_string()) {
                let choice = AdapterChoice {
                    adapter: Some(index.to_string()),
                    backend: Some(backend.clone()),
                };
                let is_its_own = line.backend.to_string() == backend;
                assert_eq!(choose(&choice).is_ok(), is_its_own, "{index} {backend}");
            }
        }
    }

    /// What is listed is what the adapter says.
    #[test]
    fn a_summary_has_the_adapters_own_numbers() {
        let (_, adapters) = enumerate(Backends::all());
        for (adapter, line) in adapters.iter().zip(list_adapters()) {
            let limits = adapter.limits();
            assert_eq!(line.max_buffer_bytes, limits.max_buffer_size);
            assert_eq!(
                line.max_binding_bytes,
                limits.max_storage_buffer_binding_size
            );
            assert_eq!(
                line.workgroup_bytes,
                limits.max_compute_workgroup_storage_size
            );
            let has = |name| line.features.contains(&(name, true));
            let features = adapter.features();
            assert_eq!(has("subgroup"), features.contains(Features::SUBGROUP));
            assert_eq!(
                has("timestamp-query"),
                features.contains(Features::TIMESTAMP_QUERY)
            );
        }
    }
}
