//! Replaying a program, and its results some steps later.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Input, OutputCopy, Placed, Program};
use crate::{Error, Result};

/// What a step read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    /// Number of the step, from 0.
    pub step: u64,
    /// Values by output name, row-major.
    pub values: BTreeMap<String, Vec<f32>>,
}

impl Outputs {
    /// The output `name`, which is one number.
    ///
    /// # Errors
    /// [`Error::Graph`] if there is no such output, [`Error::Shape`] if it has more numbers.
    pub fn scalar(&self, name: &str) -> Result<f32> {
        match self.values.get(name).map(Vec::as_slice) {
            Some(&[value]) => Ok(value),
            Some(values) => {
                let message = format!("{name} has {} numbers, not one", values.len());
                Err(Error::shape("scalar", message))
            }
            None => {
                let names: Vec<&str> = self.values.keys().map(String::as_str).collect();
                let names = names.join(", ");
                let message = format!("no output is called {name}; there are: {names}");
                Err(Error::graph("scalar", message))
            }
        }
    }
}

impl Program {
    /// Submits one step and returns its number. Waits only if the GPU is a whole ring of steps
    /// behind. `inputs` gives every input of the graph its values, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] if an input has another size, [`Error::Graph`] if one is missing or unknown; what the device
    /// reported.
    pub fn step(&mut self, inputs: &[(&str, &[f32])]) -> Result<u64> {
        self.step_with(&of_values(inputs))
    }

    /// As [`Program::step`], with inputs that are numbers, bytes or on the device.
    ///
    /// # Errors
    /// As [`Program::record`].
    pub fn step_with(&mut self, inputs: &[(&str, Input<'_>)]) -> Result<u64> {
        let inputs = self.locate(inputs)?;
        if !self.readback.has_room() {
            let done = self.take(true)?;
            self.finished.extend(done);
        }
        let gpu = Arc::clone(&self.gpu);
        gpu.watch(|| self.submit(&inputs))?
    }

    fn submit(&mut self, inputs: &[(Placed, Input<'_>)]) -> Result<u64> {
        let gpu = Arc::clone(&self.gpu);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        self.write_inputs(&mut encoder, inputs)?;
        let mut encoder = self.pieces(encoder)?;
        if let Some(target) = self.readback.target() {
            for output in &self.outputs {
                let size = output.len as u64 * 4;
                let (from, to) = (output.source_offset, output.target_offset);
                encoder.copy_buffer_to_buffer(&output.source, from, target, to, size);
            }
        }
        let submission = gpu.queue.submit([encoder.finish()]);
        self.pieces_submitted(&submission)?;
        let step = self.next_step;
        self.next_step += 1;
        self.upload.submitted(&gpu, &submission)?;
        self.readback.submitted(&gpu, step, &submission)?;
        Ok(step)
    }

    /// Writes what is the host's and records the copies of all to where the kernels read them.
    pub(super) fn write_inputs(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: &[(Placed, Input<'_>)],
    ) -> Result<()> {
        let of_host = inputs
            .iter()
            .filter_map(|(placed, input)| Some((placed.offset_bytes, input.of_host()?)));
        let parts: Vec<_> = of_host.collect();
        self.upload
            .write(&self.gpu, encoder, &self.input_buffer, &parts)?;
        for &(placed, input) in inputs {
            if let Input::Buffer(buffer, from) = input {
                self.copy_input(encoder, placed, buffer, from);
            }
        }
        Ok(())
    }

    /// Records the copy of an input from a buffer to its place.
    pub(super) fn copy_input(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        placed: Placed,
        from: &wgpu::Buffer,
        offset: u64,
    ) {
        let (target, bytes) = (&self.input_buffer, placed.len as u64 * 4);
        encoder.copy_buffer_to_buffer(from, offset, target, placed.offset_bytes, bytes);
    }

    /// Records these dispatches.
    pub(super) fn dispatch(&self, encoder: &mut wgpu::CommandEncoder, which: Range<usize>) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for dispatch in &self.dispatches[which] {
            let [x, y, z] = dispatch.workgroups;
            pass.set_pipeline(&dispatch.pipeline.pipeline);
            pass.set_bind_group(0, &dispatch.bind_group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Results of steps that are done, oldest first. Does not wait.
    ///
    /// # Errors
    /// What the device reported.
    pub fn collect(&mut self) -> Result<Vec<Outputs>> {
        while let Some(outputs) = self.take(false)? {
            self.finished.push(outputs);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// As [`Program::collect`], of the steps before `step`, for which it waits: how many there are does not depend on time.
    ///
    /// # Errors
    /// What the device reported.
    pub(crate) fn finish_before(&mut self, step: u64) -> Result<Vec<Outputs>> {
        while self.readback.oldest().is_some_and(|oldest| oldest < step) {
            let outputs = self.take(true)?;
            self.finished.extend(outputs);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Waits for all steps under way and returns their results, oldest first.
    ///
    /// # Errors
    /// What the device reported.
    pub fn finish(&mut self) -> Result<Vec<Outputs>> {
        while let Some(outputs) = self.take(true)? {
            self.finished.push(outputs);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    /// Steps submitted so far: the number of the next one.
    pub fn steps_done(&self) -> u64 {
        self.next_step
    }

    /// One step, waited for. Results of earlier steps stay for [`Program::collect`].
    ///
    /// # Errors
    /// As [`Program::step`].
    pub fn run(&mut self, inputs: &[(&str, &[f32])]) -> Result<Outputs> {
        self.step(inputs)?;
        self.finished = self.finish()?;
        self.finished
            .pop()
            .ok_or_else(|| Error::DeviceLost("the step left no result".into()))
    }

    /// Where the inputs given are in the input buffer.
    pub(super) fn locate<'a>(
        &self,
        inputs: &[(&str, Input<'a>)],
    ) -> Result<Vec<(Placed, Input<'a>)>> {
        let mut located = Vec::with_capacity(inputs.len());
        for &(name, input) in inputs {
            let placed = self.inputs.get(name).copied().ok_or_else(|| {
                let known: Vec<&str> = self.inputs.keys().map(String::as_str).collect();
                let message = format!("no input is called {name}; there are {known:?}");
                Error::graph("step", message)
            })?;
            input.check(name, placed.len)?;
            if inputs[..located.len()]
                .iter()
                .any(|(other, _)| *other == name)
            {
                return Err(Error::graph("step", format!("input {name} is given twice")));
            }
            located.push((placed, input));
        }
        let is_given = |name: &str| inputs.iter().any(|(other, _)| *other == name);
        match self.inputs.keys().find(|name| !is_given(name)) {
            Some(missing) => Err(Error::graph("step", format!("input {missing} is missing"))),
            None => Ok(located),
        }
    }

    fn take(&mut self, wait: bool) -> Result<Option<Outputs>> {
        let outputs = &self.outputs;
        self.readback.take(&self.gpu, wait, |step, data| {
            read_outputs(outputs, step, data)
        })
    }
}

/// Inputs that are numbers of the host.
pub(super) fn of_values<'a>(inputs: &[(&'a str, &'a [f32])]) -> Vec<(&'a str, Input<'a>)> {
    let input = |&(name, values)| (name, Input::Values(values));
    inputs.iter().map(input).collect()
}

fn read_outputs(outputs: &[OutputCopy], step: u64, data: &[f32]) -> Outputs {
    let values = outputs
        .iter()
        .map(|output| {
            let first = (output.target_offset / 4) as usize;
            let values = data[first..first + output.len].to_vec();
            (output.name.clone(), values)
        })
        .collect();
    Outputs { step, values }
}

#[cfg(test)]
mod tests {
    use crate::Error;
    use crate::gpu::{AdapterChoice, Gpu};
    use crate::graph::{Graph, Init};
    use crate::program::{CompileOptions, Program, Store};

    /// A GPU that goes away (driver reset, cable pulled) must end in errors, not in a panic.
    #[test]
    fn a_lost_device_is_an_error() {
        let choice = AdapterChoice {
            adapter: std::env::var("DECORR_ADAPTER").ok(),
            backend: std::env::var("DECORR_BACKEND").ok(),
        };
        let gpu = Gpu::open(&choice).unwrap();
        let g = Graph::new();
        let x = g.input("x", [4]);
        let w = g.parameter("w", [4], Init::Constant(1.0));
        g.output("y", x * w);
        let mut store = Store::new(&gpu, 1);
        let mut program = Program::compile(&g, &mut store, CompileOptions::default()).unwrap();
        let inputs: [(&str, &[f32]); 1] = [("x", &[1.0, 2.0, 3.0, 4.0])];
        assert_eq!(program.run(&inputs).unwrap().values["y"], inputs[0].1);
        program.step(&inputs).unwrap();
        gpu.device.destroy();
        let errors = [
            program.run(&inputs).unwrap_err(),
            program.run(&inputs).unwrap_err(),
            store.read("w").unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, Error::DeviceLost(_)), "{error:?}");
        }
    }
}
