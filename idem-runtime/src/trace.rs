//! Logs one event for each decision, and records the decision in the span of the handler.

use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use crate::request::record_id::RecordId;

/// The target of every event.
pub(crate) const TARGET: &str = "axum_idem";

/// The decision about a request, or the end of its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handler runs: for the first time, or again after an attempt that left no record.
    Fresh,
    /// The response was replayed from a record.
    Replayed,
    /// The key was used with a different request.
    Mismatch,
    /// The first request still runs.
    InFlight,
    /// The outcome of the first request is unknown.
    Unknown,
    /// The store is full.
    Full,
    /// As many attempts run as the service allows.
    Busy,
    /// The scope holds its share of the store.
    OverShare,
    /// The handler runs without protection.
    Bypassed,
    /// The key, the scope or the body was missing or invalid.
    Refused,
    /// The store failed or did not reply in time.
    StoreError,
    /// The attempt ended without a record, and the key is free.
    Released,
    /// The response is in the store.
    Recorded,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Replayed => "replayed",
            Self::Mismatch => "mismatch",
            Self::InFlight => "in_flight",
            Self::Unknown => "unknown",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::OverShare => "over_share",
            Self::Bypassed => "bypassed",
            Self::Refused => "refused",
            Self::StoreError => "store_error",
            Self::Released => "released",
            Self::Recorded => "recorded",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Logs a decision, and records the field `outcome` in the current span if the span has this field.
pub(crate) fn decided(endpoint: &'static str, id: Option<&RecordId>, outcome: Outcome) {
    if is_anybody_listening() {
        Span::current().record("outcome", outcome.as_str());
        report(endpoint, id, outcome);
    }
}

/// Returns the current span, or no span if no subscriber is installed.
pub(crate) fn current_span() -> Span {
    if is_anybody_listening() {
        Span::current()
    } else {
        Span::none()
    }
}

/// Checked first, because looking up the span or the subscriber costs more than this check.
fn is_anybody_listening() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Logs a decision, or the end of an attempt.
pub(crate) fn report(endpoint: &'static str, id: Option<&RecordId>, outcome: Outcome) {
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        let record = id.map(RecordId::short).map(tracing::field::display);
        tracing::debug!(target: TARGET, endpoint, outcome = outcome.as_str(), record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_the_same_text_in_messages_and_fields() {
        assert_eq!(Outcome::Recorded.to_string(), "recorded");
        assert_eq!(Outcome::InFlight.to_string(), "in_flight");
    }
}
