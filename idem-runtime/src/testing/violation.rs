//! A violation of a rule, and the checks that report it.

use std::fmt::Debug;

use crate::store::{Settled, StoreError};

/// A rule that a store breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store breaks rule {rule} of `Store`: {what}")]
pub struct Violation {
    rule: u8,
    what: String,
}

impl Violation {
    /// Returns the number of the rule in the docs of [`Store`](crate::store::Store).
    #[must_use]
    pub fn rule(&self) -> u8 {
        self.rule
    }
}

/// Turns an error of the store into a violation of a rule.
pub(super) trait Under<T> {
    fn under(self, rule: u8) -> Result<T, Violation>;
}

impl<T> Under<T> for Result<T, StoreError> {
    fn under(self, rule: u8) -> Result<T, Violation> {
        self.map_err(|error| Violation {
            rule,
            what: format!("the store failed: {error:?}"),
        })
    }
}

pub(super) fn broken<T>(rule: u8, what: impl Into<String>) -> Result<T, Violation> {
    let what = what.into();
    Err(Violation { rule, what })
}

pub(super) fn ensure(
    rule: u8,
    holds: bool,
    what: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { broken(rule, what()) }
}

/// Checks whether a transition took effect, as expected.
pub(super) fn settled(
    rule: u8,
    expected: Settled,
    result: Result<Settled, StoreError>,
) -> Result<(), Violation> {
    same(rule, "a transition", &expected, &result.under(rule)?)
}

pub(super) fn same<T: PartialEq + Debug>(
    rule: u8,
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), Violation> {
    ensure(rule, expected == found, || {
        format!("{what} gave {found:?} instead of {expected:?}")
    })
}
