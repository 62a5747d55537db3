//! Learning rates over time. Computed on the host in f64 and given to the step as one number.

/// How the learning rate goes on from its base value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Cosine annealing without restarts:
    /// `eta_min` + (base - `eta_min`) * (1 + cos(pi t / `t_max`)) / 2.
    Cosine {
        /// Step at which `eta_min` is reached.
        t_max: u64,
        /// Lowest learning rate.
        eta_min: f32,
    },
    /// Multiplied by `gamma` every `step_size` steps.
    StepLr {
        /// In steps.
        step_size: u64,
        /// Factor.
        gamma: f32,
    },
}

impl Schedule {
    /// The learning rate used in step `t` (from 0).
    pub fn lr(&self, base_lr: f32, t: u64) -> f32 {
        match *self {
            Self::Constant => base_lr,
            Self::Cosine { t_max, eta_min } => {
                let (base, low) = (f64::from(base_lr), f64::from(eta_min));
                let share = t.min(t_max) as f64 / t_max.max(1) as f64;
                let cosine = (std::f64::consts::PI * share).cos();
                (low + (base - low) * (1.0 + cosine) / 2.0) as f32
            }
            Self::StepLr { step_size, gamma } => {
                let drops = t / step_size.max(1);
                (f64::from(base_lr) * f64::from(gamma).powf(drops as f64)) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_falls_to_its_end_and_stays_there() {
        let schedule = Schedule::Cosine {
            t_max: 8,
            eta_min: 0.2,
        };
        let rates: Vec<f32> = (0..40).map(|t| schedule.lr(1.0, t)).collect();
        assert_eq!((rates[0], rates[4], rates[8]), (1.0, 0.6, 0.2));
        assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
        assert!(rates[8..].iter().all(|&rate| rate == 0.2), "{rates:?}");
    }

    #[test]
    fn step_schedule_drops_in_time() {
        let schedule = Schedule::StepLr {
            step_size: 10,
            gamma: 0.1,
        };
        assert_eq!(schedule.lr(1.0, 9), 1.0);
        assert!((schedule.lr(1.0, 10) - 0.1).abs() < 1e-7);
        assert!((schedule.lr(1.0, 25) - 0.01).abs() < 1e-8);
    }
}
