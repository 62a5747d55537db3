//! Values over an option or a number: the mean of runs at each place, with their least and greatest value.

use std::path::Path;

use super::curves::{Panel, write_panels};
use super::lines::{Curve, Point, held};
use crate::Result;

/// A line of [`draw_points`]: at each place the values of runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// For the legend.
    pub name: String,
    /// Places in order, and the values there.
    pub points: Vec<(f64, Vec<f64>)>,
}

impl Points {
    /// A line for each name, of (name, place, values), with all values of a place together; their places in order.
    pub fn grouped(all: impl IntoIterator<Item = (String, f64, Vec<f64>)>) -> Vec<Self> {
        let mut lines: Vec<Self> = Vec::new();
        for (name, x, values) in all {
            let at = match lines.iter().position(|line| line.name == name) {
                Some(at) => at,
                None => {
                    let points = Vec::new();
                    lines.push(Self { name, points });
                    lines.len() - 1
                }
            };
            let points = &mut lines[at].points;
            match points.iter_mut().find(|(place, _)| *place == x) {
                Some((_, found)) => found.extend(values),
                None => points.push((x, values)),
            }
        }
        for line in &mut lines {
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        lines
    }
}

/// Draws lines through the means of values at each place, with dots, and bars from the least to the greatest value. The x axis is
/// logarithmic if all places are above 0 and the last is ten times the first or more; the y axis is if `log`. The file is SVG if
/// its name ends with .svg, or PNG. Returns sentences about what could not be drawn.
///
/// Needs the feature `draw`.
///
/// # Errors
/// [`crate::Error::Io`] with the path.
pub fn draw_points(
    path: &Path,
    lines: &[Points],
    title: &str,
    [x, y]: [&str; 2],
    log: bool,
) -> Result<Vec<String>> {
    let places = || lines.iter().flat_map(|line| &line.points).map(|p| p.0);
    let first = places().fold(f64::INFINITY, f64::min);
    let last = places().fold(f64::NEG_INFINITY, f64::max);
    let log_x = first > 0.0 && last >= 10.0 * first;
    let scaled = |v: f64, log: bool| if log { v.log10() } else { v };
    let mut notices = Vec::new();
    let mut curves = Vec::new();
    for line in lines {
        let mut mean = Vec::new();
        for (place, values) in &line.points {
            let values: Vec<f64> = values.iter().map(|&v| scaled(v, log)).collect();
            let drawn = values.iter().all(|v| v.is_finite()) && !values.is_empty();
            if !drawn {
                notices.push(format!("{} has no number at {x} {place}", line.name));
                continue;
            }
            mean.push(Point {
                x: scaled(*place, log_x),
                mean: values.iter().sum::<f64>() / values.len() as f64,
                low: values.iter().copied().fold(f64::INFINITY, f64::min),
                high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            });
        }
        let runs = line.points.iter().map(|p| p.1.len()).max().unwrap_or(0);
        curves.push(Curve::through(&line.name, runs, mean));
    }
    let ends = [first, last].map(|v| scaled(v, log_x));
    let room = 0.04 * (ends[1] - ends[0]);
    let ends = match room > 0.0 && room.is_finite() {
        true => [ends[0] - room, ends[1] + room],
        false if first.is_finite() => [ends[0] - 0.5, ends[0] + 0.5],
        false => [0.0, 1.0],
    };
    let panel = Panel {
        axis: held(&curves, log),
        curves,
        alone: false,
        names: [x, y],
        x: (ends, log_x),
        log,
        level: None,
        rises: false,
    };
    write_panels(path, &[panel], title)?;
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_a_name_are_a_line_in_order() {
        let all = [
            ("b", 2.0, 5.0),
            ("a", 9.0, 7.0),
            ("b", 1.0, 4.0),
            ("b", 2.0, 6.0),
        ];
        let lines = Points::grouped(all.map(|(name, x, y)| (name.to_string(), x, vec![y])));
        let names: Vec<&str> = lines.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(lines[0].points, [(1.0, vec![4.0]), (2.0, vec![5.0, 6.0])]);
    }

    /// The height of a line of an SVG file that is an upright line.
    fn upright(line: &str) -> Option<i32> {
        let points = line.split_once("points=\"")?.1.split_once('"')?.0;
        let numbers: Vec<i32> = points
            .split([' ', ','])
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [x, y, same, other] if x == same => Some((y - other).abs()),
            _ => None,
        }
    }

    /// A number of each circle of an SVG file: `cx` or `cy`, its centre.
    fn circles(svg: &str, name: &str) -> Vec<i32> {
        let circles = svg.lines().filter(|line| line.contains("<circle"));
        let place = |line: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split_once('"')?.0.parse().ok()
        };
        circles.filter_map(place).collect()
    }

    /// Powers of ten and whole numbers are evenly spaced, each on its axis, whatever the other axis is.
    #[test]
    fn points_stand_where_the_axis_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points.svg");
        for places in [[1e-4, 1e-3, 1e-2], [1.0, 2.0, 3.0]] {
            for log in [false, true] {
                let values = [0.01, 0.1, if log { 1.0 } else { 0.19 }];
                let points = places.iter().zip(values).map(|(&x, y)| (x, vec![y]));
                let line = Points {
                    name: "deconv".into(),
                    points: points.collect(),
                };
                draw_points(&path, &[line], "t", ["x", "y"], log).unwrap();
                let svg = std::fs::read_to_string(&path).unwrap();
                for (name, least) in [("cx", 250), ("cy", 150)] {
                    let found = circles(&svg, name);
                    let [a, b, c] = found[..] else {
                        panic!("{places:?}: {found:?}")
                    };
                    let even = ((b - a) - (c - b)).abs() <= 1 && (b - a).abs() >= least;
                    assert!(even, "{name}, {places:?}, {log}: {found:?}");
                }
            }
        }
    }

    /// One place is the middle of its axis.
    #[test]
    fn one_place_is_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points.svg");
        let line = |places: &[f64]| Points {
            name: "deconv".into(),
            points: places.iter().map(|&x| (x, vec![0.5])).collect(),
        };
        let centres = |places: &[f64]| {
            draw_points(&path, &[line(places)], "t", ["x", "y"], false).unwrap();
            circles(&std::fs::read_to_string(&path).unwrap(), "cx")
        };
        let (one, three) = (centres(&[7.0]), centres(&[1.0, 2.0, 3.0]));
        assert!((one[0] - three[1]).abs() <= 1, "{one:?} {three:?}");
    }

    /// Ticks are at powers of ten where places are far apart, and at whole numbers where they are not.
    #[test]
    fn the_axis_is_logarithmic_where_places_are_far_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points.svg");
        let draw = |places: &[f64], values: &[f64]| {
            let points = places
                .iter()
                .zip(values)
                .map(|(&x, &y)| (x, vec![y, y + 0.1]));
            let line = Points {
                name: "deconv".into(),
                points: points.collect(),
            };
            let notices = draw_points(
                &path,
                &[line],
                "t",
                ["weight-decay", "top-1 accuracy"],
                false,
            );
            (std::fs::read_to_string(&path).unwrap(), notices.unwrap())
        };
        let (svg, notices) = draw(&[1e-4, 1e-3, 1e-2], &[0.5, 0.6, 0.7]);
        assert!(
            notices.is_empty() && svg.contains("1e-4") && svg.contains("deconv"),
            "{svg}"
        );
        assert!(svg.contains("weight-decay") && svg.contains("top-1 accuracy"));
        // A bar at each place, from the least to the greatest of its values: a quarter of the axis, less its room.
        let upright = svg.lines().filter_map(upright);
        // Without the axis itself and its ticks.
        let bars: Vec<i32> = upright
            .filter(|height| (20..300).contains(height))
            .collect();
        assert!(
            bars.len() == 3 && bars.iter().all(|height| (90..140).contains(height)),
            "{bars:?}"
        );
        let (svg, notices) = draw(&[1.0, 2.0, 3.0], &[0.5, f64::NAN, 0.7]);
        assert_eq!(notices, ["deconv has no number at weight-decay 2"]);
        assert!(svg.contains("\n1.5\n"), "{svg}");
        // No place at all is an empty drawing.
        assert!(draw(&[], &[]).1.is_empty());
    }
}
