//! How sparse values are and how much they correlate, computed on the GPU.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decorrelate::Whitening;
use crate::graph::Tensor;
use crate::shape::Shape;

/// Parts of a histogram.
pub const BINS: usize = 161;
/// A histogram goes from so many standard deviations below zero to as many above.
pub const SIGMAS: f32 = 8.0;

/// Variances below this share of the largest are those of rounding.
const HARDLY_VARIES: f32 = 1e-7;
/// Variances below count as none: those of constant pictures in [0, 1], by rounding.
pub(super) const NO_VARIANCE: f64 = 1e-12;

/// How sparse. Undefined figures (of constant values) are NaN, in JSON null.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sparsity {
    /// Fourth central moment over the squared variance, minus 3: 0 for a normal distribution, large for
    /// values that are mostly near zero.
    pub excess_kurtosis: f64,
    /// Hoyer's measure (sqrt(n) - L1 / L2) / (sqrt(n) - 1): 0 if all are equally large, 1 if one
    /// alone is not zero.
    pub hoyer: f64,
    /// Share of |x| under 0.1 sigma.
    pub near_zero: f64,
}

impl Sparsity {
    /// Of constant values.
    pub(super) const UNDEFINED: Self = Self {
        excess_kurtosis: f64::NAN,
        hoyer: f64::NAN,
        near_zero: f64::NAN,
    };
}

/// How sparse and how correlated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measures {
    /// Over all values.
    #[serde(flatten)]
    pub sparsity: Sparsity,
    /// Largest off-diagonal |correlation| of the patches; undefined, too, of constant ones.
    pub max_correlation: f64,
}

/// Before and after deconvolution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fig3Report {
    /// Of the input.
    pub before: Measures,
    /// Of the deconvolved input.
    pub after: Measures,
    /// Why something is undefined, or means little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<&'static str>,
}

impl Fig3Report {
    /// Nothing is said of what deconvolution made if it is `undefined`, which is why.
    pub(super) fn new(
        before: Measures,
        after: Measures,
        undefined: Option<&'static str>,
        remark: Option<&'static str>,
    ) -> Self {
        let after = match undefined {
            None => after,
            Some(_) => Measures {
                sparsity: Sparsity::UNDEFINED,
                max_correlation: f64::NAN,
            },
        };
        Self {
            before,
            after,
            notice: undefined.or(remark),
        }
    }

    /// What is measured: a name, and the number of either side as text.
    pub fn rows(&self) -> [(&'static str, String, String); 4] {
        let row = |name, digits: usize, of: fn(&Measures) -> f64| {
            let [before, after] = [&self.before, &self.after].map(|m| in_digits(of(m), digits));
            (name, before, after)
        };
        [
            row("excess kurtosis", 3, |m| m.sparsity.excess_kurtosis),
            row("Hoyer's sparsity", 4, |m| m.sparsity.hoyer),
            row("share of |x| under 0.1 sigma", 4, |m| m.sparsity.near_zero),
            row("largest |correlation| in patches", 4, |m| m.max_correlation),
        ]
    }
}

/// Has the sparsity of `x` [1, C, H, W] read back as `name.sparsity`: of all values, or of each channel.
pub(super) fn measure_sparsity<'g>(name: &str, x: Tensor<'g>, per_channel: bool) {
    let to: Shape = match per_channel {
        true => [1, x.size(1), 1, 1].into(),
        false => [1].into(),
    };
    let mean = |value: Tensor<'g>| value.mean_to(to.clone());
    let second = (x - mean(x)).square();
    let fourth = second.square();
    let (magnitude, squared) = (x.abs(), x.square());
    let near_zero = (mean(second).sqrt() * 0.1 - magnitude).greater_than_zero();
    let rows = [second, fourth, magnitude, squared, near_zero];
    let rows = rows.map(|value| mean(value).reshape([1, to.len()]));
    let g = x.graph();
    g.output(&format!("{name}.sparsity"), g.concat(&rows, 0));
}

/// What [`measure_sparsity`] had read back, of `n` values each.
pub(super) fn sparsity(values: &BTreeMap<String, Vec<f32>>, name: &str, n: usize) -> Vec<Sparsity> {
    let moments = values.get(&format!("{name}.sparsity"));
    let moments = moments.map_or(&[][..], Vec::as_slice);
    let count = moments.len() / 5;
    let root = (n as f64).sqrt();
    let of = |i: usize| {
        let at = |row: usize| f64::from(moments[row * count + i]);
        let (variance, fourth, l1, l2) = (at(0), at(1), at(2), at(3).sqrt());
        match variance > NO_VARIANCE {
            true => Sparsity {
                excess_kurtosis: fourth / (variance * variance) - 3.0,
                hoyer: (root - root * l1 / l2) / (root - 1.0),
                near_zero: at(4),
            },
            false => Sparsity::UNDEFINED,
        }
    };
    (0..count).map(of).collect()
}

/// Has the histogram of `x` in its own standard deviations read back as `name.histogram`: shares
/// of [`BINS`] parts of -[`SIGMAS`] to [`SIGMAS`], of which the outermost have what is beyond.
/// What deviates by less than `least_sigma` is rounding: it is at 0.
pub(super) fn measure_histogram(name: &str, x: Tensor<'_>, least_sigma: f32) {
    let g = x.graph();
    let variance = (x - x.mean_to([1])).square().mean_to([1]);
    let sigma = variance.sqrt().maximum(g.constant(least_sigma, [1]));
    let scaled = x / sigma;
    // What lies beyond counts in the outermost parts.
    let end = g.constant(SIGMAS, [1]);
    let (negated, low) = (-scaled, -end);
    let within = (-negated.maximum(low)).maximum(low);
    let shares = within.histogram(BINS, [-SIGMAS, SIGMAS]);
    g.output(&format!("{name}.histogram"), shares);
}

/// Has the largest off-diagonal |correlation| read back, and the largest variance, before deconvolution and after
/// it. Features that hardly varied before correlate with none, before or after: that would be rounding's.
pub(super) fn measure_correlation<'g>(by: &Whitening<'g>) {
    let (g, features) = (by.cov.graph(), by.cov.size(0));
    let diagonal = |cov: Tensor<'g>| {
        let flat = cov.reshape([features * features]);
        let variances = flat.slice(0, 0, features + 1, features);
        let variances = variances.reshape([1, features]);
        (variances, variances.kth_value(&[features - 1]))
    };
    let (variances, largest) = diagonal(by.cov);
    let varies = (variances - largest * HARDLY_VARIES).greater_than_zero();
    let off_diagonal = 1.0 - by.identity;
    for (name, cov) in [("before", by.cov), ("after", by.cov_after)] {
        let (variances, largest) = diagonal(cov);
        g.output(&format!("{name}.largest_variance"), largest);
        g.output(&format!("{name}.least_variance"), variances.kth_value(&[0]));
        // By rounding, that of a constant may come out below 0.
        let variances = variances.maximum(g.constant(0.0, [1]));
        // One after the other: products of two variances would leave float32's range first.
        let deviations = variances.sqrt().maximum(g.constant(1e-30, [1]));
        let row = varies / deviations;
        let column = row.reshape([features, 1]);
        let correlation = cov * row * column * off_diagonal;
        let largest = largest_magnitude(correlation);
        g.output(&format!("{name}.max_correlation"), largest);
    }
}

/// What is to be said of so many patches of so many values each.
pub(super) fn few_patches(count: usize, features: usize) -> Option<&'static str> {
    (count < features)
        .then_some("there are fewer patches than values in one, so that D is mostly that of eps")
}

/// Why there is nothing to be said of what [`measure_correlation`] had read back, if so.
pub(super) fn undefined(values: &BTreeMap<String, Vec<f32>>) -> Option<&'static str> {
    let variance = |name: &str| number(values, &format!("{name}.largest_variance"));
    let (before, after) = (variance("before"), variance("after"));
    if before.is_nan() || before <= NO_VARIANCE {
        return Some("nothing varies here, so that there is nothing to decorrelate");
    }
    // D cov D has eigenvalues from 0 to 1.
    let least = number(values, "after.least_variance");
    if after.is_nan() || after >= 1.5 || least < -0.1 {
        return Some(
            "D did not converge, for float32 has too few digits here: take a larger eps, or fewer n_iter",
        );
    }
    None
}

/// The largest |x|, [1, 1].
pub(super) fn largest_magnitude(x: Tensor<'_>) -> Tensor<'_> {
    let n = x.len();
    x.abs().reshape([1, n]).kth_value(&[n - 1])
}

/// What [`measure_correlation`] had read back for "before" and "after". Where nothing varied before,
/// only rounding correlates after: that is undefined.
pub(super) fn correlations(values: &BTreeMap<String, Vec<f32>>) -> [f64; 2] {
    let varied = number(values, "before.largest_variance") > NO_VARIANCE;
    ["before", "after"].map(|name| match varied {
        // Rounding may take it a little above.
        true => number(values, &format!("{name}.max_correlation")).clamp(0.0, 1.0),
        false => f64::NAN,
    })
}

/// `value` with so many digits, or "undefined".
pub fn in_digits(value: f64, digits: usize) -> String {
    match value.is_finite() {
        true => format!("{value:.digits$}"),
        false => "undefined".to_string(),
    }
}

/// The one number read back as `name`; NaN if there is none.
pub(super) fn number(values: &BTreeMap<String, Vec<f32>>, name: &str) -> f64 {
    let value = values.get(name).and_then(|v| v.first());
    value.map_or(f64::NAN, |&v| f64::from(v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(all: &[(&str, f32)]) -> BTreeMap<String, Vec<f32>> {
        let one = |&(name, value): &(&str, f32)| (name.to_string(), vec![value]);
        all.iter().map(one).collect()
    }

    /// By the largest variance before and after, and the least after.
    #[test]
    fn numbers_that_mean_nothing_are_undefined() {
        let (nothing, wild) = ("nothing varies here", "D did not converge");
        for (before, after, least, wanted) in [
            (0.5, 1.0, 0.9, ""),
            (2e-12, 1.49, -0.09, ""),
            (0.5, 1.5, 0.9, wild),
            (0.5, f32::NAN, 0.9, wild),
            (0.5, 1.0, -0.2, wild),
            (5e-13, 1.0, 0.9, nothing),
            (0.0, f32::NAN, -0.2, nothing),
            (f32::NAN, 1.0, 0.9, nothing),
        ] {
            let values = outputs(&[
                ("before.largest_variance", before),
                ("after.largest_variance", after),
                ("after.least_variance", least),
            ]);
            let said = undefined(&values).unwrap_or_default();
            let is_said = said.is_empty() == wanted.is_empty() && said.starts_with(wanted);
            assert!(is_said, "{before} {after} {least}: {said}");
        }
    }

    #[test]
    fn correlations_are_from_0_to_1_where_something_varies() {
        let of = |variance| {
            let values = outputs(&[
                ("before.largest_variance", variance),
                ("before.max_correlation", 1.01),
                ("after.max_correlation", 0.25),
            ]);
            correlations(&values)
        };
        assert_eq!(of(0.5), [1.0, 0.25]);
        assert!(of(5e-13).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn few_patches_are_fewer_than_values() {
        assert!(few_patches(26, 27).is_some() && few_patches(27, 27).is_none());
    }

    /// Of three values in two channels: 1, 2, 3 less their mean, and nothing.
    #[test]
    fn sparsity_is_of_each_channel() {
        let third = 1.0f32 / 3.0;
        let rows = [
            [2.0 * third, 0.0],
            [2.0 * third, 0.0],
            [2.0 * third, 0.0],
            [2.0 * third, 0.0],
            [third, 1.0],
        ];
        let values = BTreeMap::from([("x.sparsity".to_string(), rows.concat())]);
        let [found, nothing] = sparsity(&values, "x", 3)[..] else {
            panic!("not of two channels");
        };
        // Kurtosis 2/3 over (2/3)^2, less 3; Hoyer (root 3 - 2 / root 2) / (root 3 - 1).
        assert!((found.excess_kurtosis + 1.5).abs() < 1e-6, "{found:?}");
        let hoyer = (3f64.sqrt() - 2f64.sqrt()) / (3f64.sqrt() - 1.0);
        assert!((found.hoyer - hoyer).abs() < 1e-6, "{found:?}");
        assert!((found.near_zero - 1.0 / 3.0).abs() < 1e-6, "{found:?}");
        assert!(nothing.hoyer.is_nan() && nothing.near_zero.is_nan());
        assert_eq!(
            (in_digits(0.25, 3), in_digits(f64::NAN, 3)),
            ("0.250".into(), "undefined".into())
        );
    }
}
