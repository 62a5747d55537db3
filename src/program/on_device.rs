//! Steps in a host's encoder, with inputs and outputs that stay on the device.

use wgpu::util::DeviceExt;
use wgpu::{BufferUsages, CommandEncoder};

use super::Program;
use crate::shape::Shape;
use crate::{Error, Result};

/// Values of an input.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Of the host, row-major.
    Values(&'a [f32]),
    /// On the device, row-major f32 from `offset` (bytes, a multiple of 4) on, in a buffer with the usage `COPY_SRC`.
    Buffer(&'a wgpu::Buffer, u64),
}

/// Where an output is after a step. The next step of any program of the same workspace, as those of one store are, writes over it.
#[derive(Clone, Debug)]
pub struct OnDevice {
    /// With the usages `STORAGE` and `COPY_SRC`. Other tensors are in it, too: it is to be read only.
    pub buffer: wgpu::Buffer,
    /// In bytes, a multiple of the device's `min_storage_buffer_offset_alignment`.
    pub offset: u64,
    /// Row-major f32.
    pub shape: Shape,
}

impl OnDevice {
    /// As what a bind group of the host takes.
    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset,
            size: wgpu::BufferSize::new(self.shape.size_bytes()),
        })
    }
}

impl Program {
    /// Records one step into `encoder`, which the host submits. Nothing is read back: [`Program::output_on_device`] says
    /// where outputs are. Host values are copied into a buffer that is made for this step; to make nothing, give all
    /// inputs as buffers.
    ///
    /// The step is not counted in [`Program::steps_done`].
    ///
    /// # Errors
    /// [`Error::Shape`] if an input has another size or lies past the end of its buffer, [`Error::Graph`] if one is missing
    /// or unknown or its buffer lacks `COPY_SRC`; what the device reported.
    pub fn record(&self, encoder: &mut CommandEncoder, inputs: &[(&str, Input<'_>)]) -> Result<()> {
        let mut copies = Vec::with_capacity(inputs.len());
        for &(name, input) in inputs {
            let placed = self.placed(name)?;
            let bytes = placed.len as u64 * 4;
            match input {
                Input::Values(values) => self.check_len(name, values.len())?,
                Input::Buffer(buffer, offset) => {
                    let end = offset.checked_add(bytes);
                    if end.is_none_or(|end| end > buffer.size()) || offset % 4 != 0 {
                        let size = buffer.size();
                        let message = format!(
                            "{name} takes {bytes} bytes and not those from {offset} of {size}"
                        );
                        return Err(Error::shape("record", message));
                    }
                    if !buffer.usage().contains(BufferUsages::COPY_SRC) {
                        let message = format!("the buffer of {name} lacks the usage COPY_SRC");
                        return Err(Error::graph("record", message));
                    }
                }
            }
            copies.push((placed.offset_bytes, bytes, input));
        }
        self.check_missing(inputs.iter().map(|(name, _)| *name))?;
        self.gpu.watch(|| {
            for (to, bytes, input) in copies {
                let target = &self.input_buffer;
                match input {
                    Input::Buffer(buffer, from) => {
                        encoder.copy_buffer_to_buffer(buffer, from, target, to, bytes);
                    }
                    Input::Values(values) => {
                        let descriptor = wgpu::util::BufferInitDescriptor {
                            label: Some("input"),
                            contents: bytemuck::cast_slice(values),
                            usage: BufferUsages::COPY_SRC,
                        };
                        let staged = self.gpu.device.create_buffer_init(&descriptor);
                        encoder.copy_buffer_to_buffer(&staged, 0, target, to, bytes);
                    }
                }
            }
            self.dispatch(encoder);
        })
    }

    /// Where the output `name` is after each step.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is no such output.
    pub fn output_on_device(&self, name: &str) -> Result<OnDevice> {
        let output = self.outputs.iter().find(|output| output.name == name);
        let Some(output) = output else {
            let names: Vec<&str> = self.outputs.iter().map(|o| o.name.as_str()).collect();
            let names = names.join(", ");
            let message = format!("no output is called {name}; there are: {names}");
            return Err(Error::graph("output_on_device", message));
        };
        Ok(OnDevice {
            buffer: output.source.clone(),
            offset: output.source_offset,
            shape: output.shape.clone(),
        })
    }
}
