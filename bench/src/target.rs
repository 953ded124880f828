//! Targets: what a figure of a scenario must reach.

use crate::figures::Figures;
use serde::Serialize;

/// A figure held against what is asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub figure: &'static str,
    pub wanted: String,
    pub value: f64,
    /// Whether that is enough.
    pub met: bool,
}

/// A bound on one figure.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    figure: &'static str,
    at_least: bool,
    value: f64,
}

impl Target {
    /// The figure must not be smaller.
    pub fn at_least(figure: &'static str, value: f64) -> Self {
        Self {
            figure,
            at_least: true,
            value,
        }
    }

    /// The figure must not be larger.
    pub fn at_most(figure: &'static str, value: f64) -> Self {
        Self {
            figure,
            at_least: false,
            value,
        }
    }

    /// Compares the figure with the target; `None` when the scenario has no such figure.
    pub fn check(self, figures: &Figures) -> Option<Check> {
        let value = figures.get(self.figure)?;
        let met = if self.at_least {
            value >= self.value
        } else {
            value <= self.value
        };
        Some(Check {
            figure: self.figure,
            wanted: format!("{} {}", if self.at_least { ">=" } else { "<=" }, self.value),
            value,
            met,
        })
    }
}
