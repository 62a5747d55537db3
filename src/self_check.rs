//! Whether a GPU computes at all: one small product and its sums against the CPU.
//!
//! Unstable: may change in any release.
//!
//! A driver that accepts kernels and does not run them leaves zeros everywhere, and training would report a loss
//! of 0 and go on.

use std::sync::Arc;

use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::program::{CompileOptions, Program, Store};
use crate::{Error, Result};

/// Rows, columns and terms: beyond one tile, and no multiples of it.
const SIZES: [usize; 3] = [70, 67, 37];

/// Has `gpu` multiply two small matrices and add up the columns; takes a few milliseconds. Software
/// adapters are believed.
///
/// # Errors
/// [`Error::Adapter`] if a number is wrong; what the device reported.
pub fn self_check(gpu: &Arc<Gpu>) -> Result<()> {
    match gpu.is_software() {
        true => Ok(()),
        false => check(gpu),
    }
}

fn check(gpu: &Arc<Gpu>) -> Result<()> {
    let [m, n, k] = SIZES;
    let g = Graph::new();
    let product = g.input("a", [m, k]).matmul(g.input("b", [k, n]));
    g.output("product", product);
    g.output("sums", product.sum_to([1, n]));
    let mut program = Program::compile(&g, &mut Store::new(gpu, 1), CompileOptions::default())?;
    let [a, b] = operands();
    let found = program.run(&[("a", &a), ("b", &b)])?;
    let (product, sums) = expected(&a, &b);
    for (what, found, right) in [
        ("product", &found.values["product"], product),
        ("sum", &found.values["sums"], sums),
    ] {
        judge(gpu.name(), what, found, &right)?;
    }
    Ok(())
}

/// Small whole numbers, of which every sum is exact in any order.
fn operands() -> [Vec<f32>; 2] {
    let [m, n, k] = SIZES;
    let values = |len, factor| (0..len).map(|i| (i * factor % 9) as f32 - 4.0).collect();
    [values(m * k, 5), values(k * n, 7)]
}

/// The product, and the sums of its columns.
fn expected(a: &[f32], b: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [_, n, k] = SIZES;
    let row = |row: &[f32]| -> Vec<f32> {
        let element = |j| row.iter().enumerate().map(|(l, x)| x * b[l * n + j]).sum();
        (0..n).map(element).collect()
    };
    let rows: Vec<Vec<f32>> = a.chunks(k).map(row).collect();
    let sums = (0..n)
        .map(|j| rows.iter().map(|row| row[j]).sum())
        .collect();
    (rows.concat(), sums)
}

fn judge(adapter: &str, what: &str, found: &[f32], right: &[f32]) -> Result<()> {
    let Some(i) = (0..right.len()).find(|&i| found.get(i) != Some(&right[i])) else {
        return Ok(());
    };
    let wrong = found.get(i).copied().unwrap_or(f32::NAN);
    let why = match found.iter().all(|&value| value == 0.0) {
        true => "it computes nothing: every number is 0",
        false => "its numbers are wrong",
    };
    Err(Error::Adapter(format!(
        "{adapter} failed a small test, {why} (element {i} of a {what} is {wrong}, not {}). Its driver may be broken \
         or too old; `decorr devices` lists other adapters and backends, `adapter` and `backend` choose one",
        right[i]
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::AdapterChoice;

    #[test]
    fn an_adapter_that_computes_passes() {
        check(&Gpu::open(&AdapterChoice::default()).unwrap()).unwrap();
    }

    #[test]
    fn zeros_and_wrong_numbers_are_told() {
        let [a, b] = operands();
        let (product, sums) = expected(&a, &b);
        assert!(product.iter().chain(&sums).any(|&v| v != 0.0));
        judge("GPU", "product", &product, &product).unwrap();
        let text = |found: &[f32]| {
            judge("GPU", "product", found, &product)
                .unwrap_err()
                .to_string()
        };
        assert!(text(&vec![0.0; product.len()]).contains("computes nothing"));
        let mut off = product.clone();
        *off.last_mut().unwrap() += 1.0;
        assert!(text(&off).contains("wrong") && text(&off).contains("`adapter`"));
        let (last, wrong, right) = (off.len() - 1, off[off.len() - 1], product[off.len() - 1]);
        let part = format!("(element {last} of a product is {wrong}, not {right})");
        assert!(text(&off).contains(&part), "{}", text(&off));
        assert!(text(&product[1..]).contains("GPU"));
    }
}
