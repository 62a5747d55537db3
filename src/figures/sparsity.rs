//! How sparse values are. All in f64.

/// Fourth moment over the squared variance, minus 3: 0 for a normal distribution, large for values
/// that are mostly near zero. NaN if all are equal.
pub fn excess_kurtosis(values: &[f32]) -> f64 {
    let (mean, variance) = moments(values);
    let fourth = mean_of(values, |v| (v - mean).powi(4));
    fourth / (variance * variance) - 3.0
}

/// Hoyer's measure (sqrt(n) - L1 / L2) / (sqrt(n) - 1): 0 if all are equally large, 1 if one alone
/// is not zero. NaN if all are zero.
pub fn hoyer(values: &[f32]) -> f64 {
    let root = (values.len() as f64).sqrt();
    let l1 = mean_of(values, f64::abs) * values.len() as f64;
    let l2 = (mean_of(values, |v| v * v) * values.len() as f64).sqrt();
    (root - l1 / l2) / (root - 1.0)
}

/// Share of values whose size is under a tenth of the standard deviation.
pub fn near_zero(values: &[f32]) -> f64 {
    let (_, variance) = moments(values);
    let bound = 0.1 * variance.sqrt();
    mean_of(values, |v| f64::from(u8::from(v.abs() < bound)))
}

fn moments(values: &[f32]) -> (f64, f64) {
    let mean = mean_of(values, |v| v);
    (mean, mean_of(values, |v| (v - mean) * (v - mean)))
}

fn mean_of(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let two = [1.0, -1.0, 1.0, -1.0];
        assert!((excess_kurtosis(&two) + 2.0).abs() < 1e-12);
        assert!(hoyer(&two).abs() < 1e-12);
        assert_eq!(near_zero(&two), 0.0);
        let spike = [0.0, 0.0, 0.0, 2.0];
        assert!((hoyer(&spike) - 1.0).abs() < 1e-12);
        assert_eq!(near_zero(&spike), 0.75);
        assert!(excess_kurtosis(&[0.5; 3]).is_nan());
    }
}
