//! The console over HTTP: who may see and change what, and what a browser receives.
//!
//! `tests/console/browser` runs the page in a real Chromium, which the gate does not need.

#[cfg(feature = "testing")]
mod logged;
mod pages;
mod records;
#[cfg(feature = "seal")]
mod sealed;
mod service;

use test_support::http as support;
