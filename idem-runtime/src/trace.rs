//! One event for each decision, and the decision on the handler's span.

use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use crate::request::record_id::RecordId;

/// The target of every event.
pub(crate) const TARGET: &str = "axum_idem";

/// What was decided about a request, or how its attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The handler runs, for the first time or again after a lapse.
    Fresh,
    /// A record answered.
    Replayed,
    /// The key was used with another request.
    Mismatch,
    /// The first request still runs.
    InFlight,
    /// The first request was cut off.
    Unknown,
    /// The store has no room.
    Full,
    /// The scope holds its share of the store.
    OverShare,
    /// The handler runs without protection.
    Bypassed,
    /// Key, scope or body were not good.
    Refused,
    /// The store did not answer.
    StoreError,
    /// The attempt ended without a record, and the key is free.
    Released,
    /// The answer is in the store.
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

/// Reports a decision, here and as the field `outcome` of the current span, where it has one.
pub(crate) fn decided(endpoint: &'static str, id: Option<&RecordId>, outcome: Outcome) {
    if is_anybody_listening() {
        Span::current().record("outcome", outcome.as_str());
        report(endpoint, id, outcome);
    }
}

/// The current span, where anybody listens.
pub(crate) fn current_span() -> Span {
    if is_anybody_listening() {
        Span::current()
    } else {
        Span::none()
    }
}

/// To look for a span or a subscriber costs more than to ask whether there is one.
fn is_anybody_listening() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Reports how an attempt ended.
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
    fn an_outcome_reads_in_a_message_as_in_its_field() {
        assert_eq!(Outcome::Recorded.to_string(), "recorded");
        assert_eq!(Outcome::InFlight.to_string(), "in_flight");
    }
}
