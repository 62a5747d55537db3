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
    /// Bytes of the host, four to a number of the input from the lowest byte on; the last number is filled up with zeros.
    /// They are no numbers before an op, such as [`crate::graph::Tensor::unpack_pixels`], makes some of them.
    Bytes(&'a [u8]),
    /// On the device, row-major f32 from `offset` (bytes, a multiple of 4) on, in a buffer with the usage `COPY_SRC`.
    Buffer(&'a wgpu::Buffer, u64),
}

impl<'a> Input<'a> {
    /// What is to be uploaded.
    pub(super) fn of_host(self) -> Option<&'a [u8]> {
        match self {
            Self::Values(values) => Some(bytemuck::cast_slice(values)),
            Self::Bytes(bytes) => Some(bytes),
            Self::Buffer(..) => None,
        }
    }

    /// Refuses it for an input `name` of `len` numbers that it does not fit.
    pub(super) fn check(self, name: &str, len: usize) -> Result<()> {
        let bytes = len as u64 * 4;
        let message = match self {
            Self::Values(values) if values.len() != len => {
                format!("{name} has {len} values, not {}", values.len())
            }
            Self::Bytes(given) if given.len().div_ceil(4) != len => {
                format!("{name} has {bytes} bytes, not {}", given.len())
            }
            Self::Buffer(buffer, offset)
                if !offset.is_multiple_of(4)
                    || offset
                        .checked_add(bytes)
                        .is_none_or(|end| end > buffer.size()) =>
            {
                let size = buffer.size();
                format!("{name} takes {bytes} bytes and not those from {offset} of {size}")
            }
            Self::Buffer(buffer, _) if !buffer.usage().contains(BufferUsages::COPY_SRC) => {
                let message = format!("the buffer of {name} lacks the usage COPY_SRC");
                return Err(Error::graph("step", message));
            }
            _ => return Ok(()),
        };
        Err(Error::shape("step", message))
    }
}

/// Where an output is after a step. The next step of any program of the same workspace, as those of one store are,
/// writes over it.
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
    /// The step is not counted in [`Program::steps_done`]. A buffer of another device is refused by wgpu, where the host
    /// submits. A whole program is `examples/shared_device.rs`; in short:
    ///
    /// ```no_run
    /// # use decorr::{Result, prelude::*, wgpu};
    /// # use decorr::program::Input;
    /// # fn host(adapter: wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue, picture: wgpu::Buffer) -> Result<()> {
    /// let gpu = Gpu::from_wgpu(&adapter, device.clone(), queue.clone())?;
    /// let g = Graph::new();
    /// let x = g.input("picture", [1, 3, 64, 64]);
    /// g.output("features", ChannelDeconv::new(3, 3).forward(x, Mode::Train));
    /// let program = Program::compile(&g, &mut Store::new(&gpu, 1), CompileOptions::default())?;
    ///
    /// let mut encoder = device.create_command_encoder(&Default::default());
    /// program.record(&mut encoder, &[("picture", Input::Buffer(&picture, 0))])?;
    /// let features = program.output_on_device("features")?;
    /// // ... a pass of the host's that binds features.binding() ...
    /// queue.submit([encoder.finish()]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] if an input has another size or lies past the end of its buffer, [`Error::Graph`] if one is missing
    /// or unknown or its buffer lacks `COPY_SRC`; what the device reported.
    pub fn record(&self, encoder: &mut CommandEncoder, inputs: &[(&str, Input<'_>)]) -> Result<()> {
        self.refuse_exchanges("record")?;
        let inputs = self.locate(inputs)?;
        self.gpu.watch(|| {
            for (placed, input) in inputs {
                if let Some(contents) = input.of_host() {
                    let descriptor = wgpu::util::BufferInitDescriptor {
                        label: Some("input"),
                        contents,
                        usage: BufferUsages::COPY_SRC,
                    };
                    // Its size is rounded up to whole words.
                    let staged = self.gpu.device.create_buffer_init(&descriptor);
                    self.copy_input(encoder, placed, &staged, 0);
                } else if let Input::Buffer(buffer, from) = input {
                    self.copy_input(encoder, placed, buffer, from);
                }
            }
            self.dispatch(encoder, 0..self.dispatches.len());
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
