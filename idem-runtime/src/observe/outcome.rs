//! The decision about a request, or the end of an attempt.

use std::fmt;

/// The decision about a request with a key, or the end of an attempt.
///
/// `Display` writes the word that logs and metrics use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The handler runs: for the first time, or again after an attempt that left no record.
    Fresh,
    /// The response was replayed from a record.
    Replayed,
    /// The key was used with a different request.
    Mismatch,
    /// The first request still runs.
    InFlight,
    /// As a decision: the outcome of an earlier attempt is unknown, and the key is held for an operator. As the
    /// end of an attempt: nobody knows whether its effect happened.
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
    /// Another attempt has taken over, so this attempt settled nothing.
    Overtaken,
}

impl Outcome {
    /// The word that logs and metrics use, such as `in_flight`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
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
            Self::Overtaken => "overtaken",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
