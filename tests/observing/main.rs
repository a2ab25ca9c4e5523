//! Tests what an observer, the metrics and the log report, and that they never contain a secret.

mod deploy;
mod exported;
mod levels;
mod reports;
mod service;

use test_support::http as support;
