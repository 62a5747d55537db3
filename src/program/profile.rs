//! Time of each kernel by timestamp queries.

use wgpu::BufferUsages;

use super::Program;
use super::step::of_values;
use crate::Result;
use crate::gpu::read_back;

/// Queries of one set (WebGPU's limit is 4096).
const MAX_QUERIES: usize = 4096;

/// What one dispatch took.
#[derive(Clone, Debug)]
pub struct KernelTime {
    /// Tensor and kernel: "conv1.cov (contraction)".
    pub label: String,
    /// Name of the op.
    pub op: &'static str,
    /// Entry point of the kernel.
    pub entry: &'static str,
    /// Shape of the tensor.
    pub shape: String,
    /// Seconds after the first kernel of the step began.
    pub start: f64,
    /// Seconds on the GPU.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written, every tensor counted once.
    pub bytes: u64,
}

impl KernelTime {
    /// Name of the tensor, and of the kernel.
    pub fn names(&self) -> (&str, &str) {
        let (tensor, kernel) = self.label.split_once(" (").unwrap_or((&self.label, ""));
        (tensor, kernel.trim_end_matches(')'))
    }
}

impl Program {
    /// The least time of each kernel in five steps, after one that warms up. When they begin is that of
    /// the first of the five.
    ///
    /// # Errors
    /// As [`Program::profile`].
    pub fn fastest_profile(&mut self, inputs: &[(&str, &[f32])]) -> Result<Vec<KernelTime>> {
        self.profile(inputs)?;
        let mut least = self.profile(inputs)?;
        for _ in 0..4 {
            keep_the_least(&mut least, &self.profile(inputs)?);
        }
        Ok(least)
    }

    /// Runs one step with a pass of its own for every dispatch and returns what each took.
    ///
    /// # Errors
    /// [`crate::Error::Adapter`] if the adapter has no timestamps; as [`Program::step`].
    pub fn profile(&mut self, inputs: &[(&str, &[f32])]) -> Result<Vec<KernelTime>> {
        self.gpu.need_timestamps()?;
        self.refuse_exchanges("profile")?;
        let gpu = std::sync::Arc::clone(&self.gpu);
        gpu.watch(|| self.timed_step(inputs))?
    }

    fn timed_step(&mut self, inputs: &[(&str, &[f32])]) -> Result<Vec<KernelTime>> {
        let inputs = self.locate(&of_values(inputs))?;
        let gpu = std::sync::Arc::clone(&self.gpu);
        let mut times = Vec::new();
        let mut first_stamp = None;
        let mut first_encoder = Some(gpu.device.create_command_encoder(&Default::default()));
        if let Some(encoder) = &mut first_encoder {
            self.write_inputs(encoder, &inputs)?;
        }
        for chunk in self.dispatches.chunks(MAX_QUERIES / 2) {
            let count = 2 * chunk.len();
            let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("kernel times"),
                ty: wgpu::QueryType::Timestamp,
                count: count as u32,
            });
            let size = count as u64 * 8;
            let resolve_usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
            let resolved = gpu.buffer("kernel times", size, resolve_usage)?;
            let read_usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
            let read = gpu.buffer("kernel times read", size, read_usage)?;
            let is_first = first_encoder.is_some();
            let mut encoder = first_encoder
                .take()
                .unwrap_or_else(|| gpu.device.create_command_encoder(&Default::default()));
            for (i, dispatch) in (0u32..).zip(chunk) {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(&dispatch.label),
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(2 * i),
                        end_of_pass_write_index: Some(2 * i + 1),
                    }),
                });
                let [x, y, z] = dispatch.workgroups;
                pass.set_pipeline(&dispatch.pipeline.pipeline);
                pass.set_bind_group(0, &dispatch.bind_group, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
            encoder.resolve_query_set(&queries, 0..count as u32, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &read, 0, size);
            let submission = gpu.queue.submit([encoder.finish()]);
            if is_first {
                self.upload.submitted(&gpu, &submission)?;
            }
            let stamps: Vec<u64> =
                read_back(&gpu, read, submission, |b| bytemuck::cast_slice(b).to_vec())?;
            let period = gpu.queue.get_timestamp_period();
            for (dispatch, pair) in chunk.iter().zip(stamps.chunks(2)) {
                let first = *first_stamp.get_or_insert(pair[0]);
                let [start, seconds] = start_and_length([pair[0], pair[1]], first, period);
                times.push(KernelTime {
                    label: dispatch.label.clone(),
                    op: dispatch.op,
                    entry: dispatch.entry,
                    shape: dispatch.shape.clone(),
                    start,
                    seconds,
                    flops: dispatch.cost.flops,
                    bytes: dispatch.cost.bytes,
                });
            }
        }
        Ok(times)
    }
}

/// Of every kernel the shorter of two times.
fn keep_the_least(least: &mut [KernelTime], new: &[KernelTime]) {
    for (least, new) in least.iter_mut().zip(new) {
        least.seconds = least.seconds.min(new.seconds);
    }
}

/// Seconds from the stamp `first` to the first of two, and between them. A stamp is `period` nanoseconds.
fn start_and_length([begin, end]: [u64; 2], first: u64, period: f32) -> [f64; 2] {
    let seconds = |ticks: u64| ticks as f64 * f64::from(period) * 1e-9;
    [
        seconds(begin.saturating_sub(first)),
        seconds(end.saturating_sub(begin)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_nanoseconds_times_the_period() {
        let times = start_and_length([3_000_000_000, 5_000_000_000], 1_000_000_000, 0.5);
        assert_eq!(times, [1.0, 1.0]);
        assert_eq!(start_and_length([5, 3], 9, 1.0), [0.0, 0.0]);
    }

    #[test]
    fn the_shorter_time_is_kept() {
        let time = |seconds| KernelTime {
            label: String::new(),
            op: "",
            entry: "",
            shape: String::new(),
            start: 0.0,
            seconds,
            flops: 0,
            bytes: 0,
        };
        let mut least = [time(2.0), time(1.0)];
        keep_the_least(&mut least, &[time(1.5), time(3.0)]);
        assert_eq!([least[0].seconds, least[1].seconds], [1.5, 1.0]);
    }
}
