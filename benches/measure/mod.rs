//! Code that the benches share: contenders, measurement in turn, and statistics.
#![allow(dead_code, reason = "each bench uses a part of this module")]

pub(crate) mod compact;
pub(crate) mod contenders;
pub(crate) mod loopback;
pub(crate) mod memory;
pub(crate) mod minimum;
pub(crate) mod paths;
pub(crate) mod process;
#[cfg(feature = "metrics")]
pub(crate) mod recorder;
pub(crate) mod wire;

use std::env;
use std::fmt::Display;

/// Returns the lower quartile, the median and the upper quartile.
pub(crate) fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

/// Returns the quartiles of the ratios between two measurements, round by round.
pub(crate) fn ratios(own: &[f64], other: &[f64]) -> [f64; 3] {
    quartiles(
        own.iter()
            .zip(other)
            .map(|(own, other)| own / other)
            .collect(),
    )
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quartiles(values.to_vec())[1]
}

/// Formats a median and its quartiles for the tables.
pub(crate) fn shown([low, median, high]: [f64; 3]) -> String {
    format!("{median:.2} ({low:.2} to {high:.2})")
}

/// Reads a number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Prints a line of a table: a name and columns of equal width.
pub(crate) fn line(name: &str, columns: &[impl Display]) {
    print!("{name:<34}");
    for column in columns {
        print!(" {column:>22}");
    }
    println!();
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
