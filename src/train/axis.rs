//! Axes of curves: their numbers, and lines cut at their ends.

/// The value that stands at `v` of an axis.
pub(super) fn unscaled(v: f64, log: bool) -> f64 {
    if log { 10f64.powf(v) } else { v }
}

/// The parts of the line through `points` that lie between `low` and `high`, cut where it crosses these.
pub(super) fn clipped(points: &[(f64, f64)], [low, high]: [f64; 2]) -> Vec<Vec<(f64, f64)>> {
    let inside = |p: &(f64, f64)| (low..=high).contains(&p.1);
    if let [only] = points {
        return Vec::from_iter(inside(only).then(|| vec![*only]));
    }
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    for two in points.windows(2) {
        let (a, b) = (two[0], two[1]);
        // The part of the way from a to b that is inside.
        let share = |border: f64| ((border - a.1) / (b.1 - a.1)).clamp(0.0, 1.0);
        let (from, to) = match (a.1 == b.1, share(low), share(high)) {
            (true, ..) => (0.0, 1.0),
            (false, at_low, at_high) => (at_low.min(at_high), at_low.max(at_high)),
        };
        if (a.1 == b.1 && !inside(&a)) || (from == to) {
            continue;
        }
        let at = |share: f64| {
            (
                a.0 + share * (b.0 - a.0),
                (a.1 + share * (b.1 - a.1)).clamp(low, high),
            )
        };
        match parts.last_mut() {
            Some(part) if from == 0.0 && part.last() == Some(&at(0.0)) => part.push(at(to)),
            _ => parts.push(vec![at(from), at(to)]),
        }
    }
    parts
}

/// Where an axis from `low` to `high` has numbers: some ten round ones; on a logarithmic axis powers of ten, with twice and five
/// times these if they are few.
pub(super) fn ticks([low, high]: [f64; 2], log: bool) -> Vec<f64> {
    if log {
        let decades = |every: i32, digits: &[f64]| -> Vec<f64> {
            let powers =
                (low.floor() as i32..=high.ceil() as i32).filter(|p| p.rem_euclid(every) == 0);
            let all = powers.flat_map(|p| digits.iter().map(move |d| f64::from(p) + d.log10()));
            all.filter(|v| (low..=high).contains(v)).collect()
        };
        let span = high - low;
        if span > 2.5 {
            return decades((span / 10.0).ceil() as i32, &[1.0]);
        }
        let few = decades(1, &[1.0, 2.0, 5.0]);
        if few.len() >= 3 {
            return few;
        }
        let ends = [low, high].map(|v| unscaled(v, true));
        return ticks(ends, false).into_iter().map(f64::log10).collect();
    }
    let rough = (high - low) / 10.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(rough);
    // An axis so narrow that doubles do not tell its ends apart has no ticks.
    let count = ((high / step).floor() - (low / step).ceil()).clamp(-1.0, 100.0);
    let first = (low / step).ceil();
    (0..(count + 1.0) as u32)
        .map(|i| (first + f64::from(i)) * step)
        .collect()
}

/// To three digits.
pub(super) fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// A number for an axis: without zeros at its end, from 1e5 and below 1e-3 with an exponent.
pub(super) fn number(value: f64) -> String {
    let short = |digits: &str| match digits.contains('.') {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string(),
        false => digits.to_string(),
    };
    let size = value.abs();
    if size < 1e-12 {
        return "0".into();
    }
    if (1e-3..1e5).contains(&size) {
        return short(&format!("{value:.4}"));
    }
    let text = format!("{value:.5e}");
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", short(digits)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_border() {
        let at = |points: &[(f64, f64)]| clipped(points, [0.0, 2.0]);
        let inside = [(0.0, 1.0), (1.0, 2.0), (2.0, 0.0)];
        assert_eq!(at(&inside), [inside.to_vec()]);
        let over = [(0.0, 1.0), (1.0, 3.0), (2.0, 1.0)];
        assert_eq!(
            at(&over),
            [[(0.0, 1.0), (0.5, 2.0)], [(1.5, 2.0), (2.0, 1.0)]]
        );
        // From above to below.
        assert_eq!(at(&[(0.0, 4.0), (1.0, -4.0)]), [[(0.25, 2.0), (0.5, 0.0)]]);
        assert!(at(&[(0.0, 3.0), (1.0, 4.0), (2.0, 4.0)]).is_empty());
        assert_eq!(at(&[(1.0, 1.0)]), [[(1.0, 1.0)]]);
        assert!(at(&[(1.0, 3.0)]).is_empty() && at(&[]).is_empty());
        assert_eq!(at(&[(0.0, 1.0), (1.0, 1.0)]), [[(0.0, 1.0), (1.0, 1.0)]]);
    }

    #[test]
    fn axes_have_round_numbers() {
        let words = |axis: [f64; 2], log| -> Vec<String> {
            ticks(axis, log)
                .into_iter()
                .map(|v| number(unscaled(v, log)))
                .collect()
        };
        assert_eq!(
            words([0.1, 1.9], false),
            ["0.2", "0.4", "0.6", "0.8", "1", "1.2", "1.4", "1.6", "1.8"]
        );
        assert_eq!(words([0.0, 1000.0], false).len(), 11);
        assert_eq!(
            words([-1.0, 1.0], true),
            ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
        );
        assert_eq!(words([-2.1, 1.0], true), ["0.01", "0.1", "1", "10"]);
        assert_eq!(words([0.0, 30.0], true).len(), 11);
        // 1.1 to 1.4: neither 1 nor 2 is in it.
        let narrow = words([1.1f64.log10(), 1.4f64.log10()], true);
        assert!(
            narrow.len() > 5 && narrow.contains(&"1.2".to_string()),
            "{narrow:?}"
        );
        assert!(
            ticks([1.0, 1.0], false).len() < 200 && ticks([f64::MIN, f64::MAX], false).len() < 200
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, wanted) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (1200.0, "1200"),
            (0.30000000000000004, "0.3"),
            (1e5, "1e5"),
            (-125000.0, "-1.25e5"),
            (0.0005, "5e-4"),
            (99999.0, "99999"),
        ] {
            assert_eq!(number(value), wanted);
        }
    }
}
