//! Several measurements of one thing.

use serde::{Deserialize, Serialize};

/// A median with its neighbours.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spread {
    min: f64,
    /// The middle one.
    pub median: f64,
    max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// `median (min to max)`.
    pub fn text(&self) -> String {
        format!("{:.1} ({:.1} to {:.1})", self.median, self.min, self.max)
    }
}

/// The median of the ratio `a`/`b`, pair by pair.
pub fn ratio(a: &[f64], b: &[f64]) -> f64 {
    Spread::of(a.iter().zip(b).map(|(a, b)| a / b).collect()).median
}
