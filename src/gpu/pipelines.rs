//! Compute pipelines, made once for every different WGSL text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Gpu;
use super::wgsl::{self, Interface};
use crate::Result;

/// A compiled entry point.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) interface: Interface,
}

/// More than any few networks have. A program that makes network after network without end forgets all at this number
/// and begins anew; programs keep the pipelines that they run.
const MOST: usize = 4096;

type Pipelines = HashMap<(String, &'static str), Arc<Pipeline>>;

/// A device's pipelines by WGSL text and entry point: networks have most of their kernels in common, and drivers take
/// milliseconds to make one.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    pipelines: Mutex<Pipelines>,
}

impl PipelineCache {
    /// The pipeline of `entry` in expanded WGSL `source`.
    ///
    /// # Errors
    /// [`Error::Shader`] if naga or the driver refuses it.
    pub(crate) fn get(
        &self,
        gpu: &Gpu,
        label: &str,
        source: String,
        entry: &'static str,
    ) -> Result<Arc<Pipeline>> {
        let key = (source, entry);
        if let Some(pipeline) = self.pipelines().get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let module = wgsl::validate(label, &key.0)?;
        let interface = Interface::of(&module, entry)?;
        let make = || {
            let source = wgpu::ShaderSource::Wgsl(key.0.as_str().into());
            let module = wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source,
            };
            let module = gpu.device.create_shader_module(module);
            let pipeline = wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it; zeroing it first costs
                    // time everywhere and hangs some GL drivers' compilers.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            };
            let pipeline = gpu.device.create_compute_pipeline(&pipeline);
            let layout = pipeline.get_bind_group_layout(0);
            Pipeline {
                pipeline,
                layout,
                interface,
            }
        };
        let made = gpu.watch(make).map_err(|error| error.of_shader(label));
        let pipeline = Arc::new(made?);
        let mut pipelines = self.pipelines();
        if pipelines.len() >= MOST {
            pipelines.clear();
        }
        pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Not locked while a pipeline is made: threads make theirs side by side. A panic elsewhere leaves the map whole.
    fn pipelines(&self) -> MutexGuard<'_, Pipelines> {
        let pipelines = self.pipelines.lock();
        pipelines.unwrap_or_else(PoisonError::into_inner)
    }
}
