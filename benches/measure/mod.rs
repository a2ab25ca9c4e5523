//! What the benches share: contenders that are measured in turn, and what is made of their times.
#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod contenders;
pub(crate) mod loopback;
pub(crate) mod memory;
pub(crate) mod minimum;
pub(crate) mod paths;
pub(crate) mod process;
pub(crate) mod wire;

use std::env;
use std::fmt::Display;

/// The lower quartile, the median and the upper one.
pub(crate) fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[values.len() * quarter / 4])
}

/// The quartiles of one round after another, each against the same round of another.
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

/// A median and its quartiles, as every table shows them.
pub(crate) fn shown([low, median, high]: [f64; 3]) -> String {
    format!("{median:.2} ({low:.2} to {high:.2})")
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Prints a line of a table: a name, and columns of one width.
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
