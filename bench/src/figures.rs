//! Figures by name, their medians, and the bound of a path.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What one measurement gave, by name. The name ends in the unit where it has one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Adds one; what is no number is left out.
    pub fn set(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.0.insert(name.to_owned(), value);
        }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The median of each figure over several measurements.
    pub fn medians(runs: &[Self]) -> Self {
        let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.0.keys()).collect();
        let mut medians = Self::default();
        for name in names {
            let values = runs.iter().filter_map(|run| run.get(name)).collect();
            if let Some(value) = median(values) {
                medians.set(name, value);
            }
        }
        medians
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(values.len() / 2 - 1)?;
    Some((lower + upper) / 2.0)
}

/// What a path of these parts could reach on the same cores if Eclusa cost nothing: an event needs
/// 1/rate of the machine in each part, and the machine is there once. `None` without parts.
pub fn bound(rates: &[f64]) -> Option<f64> {
    let time: f64 = rates.iter().map(|rate| 1.0 / rate).sum();
    (!rates.is_empty() && time.is_finite()).then(|| 1.0 / time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_sum_of_the_times() {
        let bound_of = bound(&[100_000.0, 50_000.0]).unwrap();
        assert!((bound_of - 33_333.3).abs() < 0.1, "{bound_of}");
        assert_eq!(bound(&[7.0]), Some(7.0));
        assert_eq!(bound(&[]), None);
        assert_eq!(bound(&[0.0, 5.0]), None);
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        let run = |a: f64, b: Option<f64>| {
            let mut figures = Figures::default();
            figures.set("a", a);
            figures.set("b", b.unwrap_or(f64::NAN));
            figures
        };
        let medians = Figures::medians(&[run(1.0, None), run(9.0, Some(4.0)), run(2.0, None)]);
        assert_eq!((medians.get("a"), medians.get("b")), (Some(2.0), Some(4.0)));
    }
}
