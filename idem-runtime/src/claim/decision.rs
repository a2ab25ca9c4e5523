//! Decides whether a request runs, is replayed, or is refused. No other code decides this.

use crate::observe::Outcome;
use crate::request::fingerprint::Fingerprint;
use crate::store::{Claimed, Record};

/// The decision about a request with a key.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The request holds the claim, so its handler runs.
    Run { fence: u64, attempt: u32 },
    /// The response is replayed from a record.
    Replay(Record),
    /// The response is replayed from a record that this process holds and the store does not have
    /// yet.
    ReplayUnwritten(Record),
    /// The first request still runs.
    InFlight,
    /// The key was used with a different request.
    Mismatch,
    /// The outcome of the first request is unknown, and the endpoint has `on_unknown = hold`.
    Unknown,
    /// The store is full.
    Full,
    /// As many attempts run as the service allows.
    Busy,
    /// The scope holds its share of the store.
    OverShare,
}

impl Decision {
    /// Checks for a mismatch first, so that a reused key is reported even while the first request
    /// runs.
    pub(crate) fn of(claimed: Claimed, fingerprint: Fingerprint) -> Self {
        match claimed {
            Claimed::Fresh { fence, attempt } => Self::Run { fence, attempt },
            Claimed::Recorded { record, .. } if record.fingerprint() == fingerprint => {
                Self::Replay(record)
            }
            Claimed::InFlight {
                fingerprint: first, ..
            } if first == fingerprint => Self::InFlight,
            Claimed::Unknown { fingerprint: first } if first == fingerprint => Self::Unknown,
            Claimed::Full => Self::Full,
            Claimed::OverShare => Self::OverShare,
            Claimed::Recorded { .. } | Claimed::InFlight { .. } | Claimed::Unknown { .. } => {
                Self::Mismatch
            }
        }
    }

    /// Returns the decision for a request whose record the store does not have yet.
    pub(crate) fn of_unwritten(record: Record, fingerprint: Fingerprint) -> Self {
        if record.fingerprint() == fingerprint {
            Self::ReplayUnwritten(record)
        } else {
            Self::Mismatch
        }
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Run { .. } => Outcome::Fresh,
            Self::Replay(_) | Self::ReplayUnwritten(_) => Outcome::Replayed,
            Self::InFlight => Outcome::InFlight,
            Self::Mismatch => Outcome::Mismatch,
            Self::Unknown => Outcome::Unknown,
            Self::Full => Outcome::Full,
            Self::Busy => Outcome::Busy,
            Self::OverShare => Outcome::OverShare,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use http::StatusCode;

    const FIRST: Fingerprint = Fingerprint::from_bytes([1; 32]);
    const OTHER: Fingerprint = Fingerprint::from_bytes([2; 32]);

    fn outcome(claimed: Claimed, fingerprint: Fingerprint) -> Outcome {
        Decision::of(claimed, fingerprint).outcome()
    }

    #[test]
    fn the_state_of_the_first_request_decides_about_the_next_request() {
        let in_flight = || Claimed::InFlight {
            fingerprint: FIRST,
            lease_left: Duration::ZERO,
            changed: None,
        };
        let recorded = || Claimed::Recorded {
            record: Record::not_kept(FIRST, StatusCode::OK),
            expires_in: Duration::ZERO,
        };
        let unknown = || Claimed::Unknown { fingerprint: FIRST };
        assert_eq!(outcome(in_flight(), FIRST), Outcome::InFlight);
        assert_eq!(outcome(recorded(), FIRST), Outcome::Replayed);
        assert_eq!(outcome(unknown(), FIRST), Outcome::Unknown);
        for claimed in [in_flight(), recorded(), unknown()] {
            assert_eq!(outcome(claimed, OTHER), Outcome::Mismatch);
        }
    }

    #[test]
    fn only_a_fresh_claim_runs() {
        let fresh = Claimed::Fresh {
            fence: 1,
            attempt: 1,
        };
        assert_eq!(outcome(fresh, FIRST), Outcome::Fresh);
        assert_eq!(outcome(Claimed::Full, FIRST), Outcome::Full);
        assert_eq!(outcome(Claimed::OverShare, FIRST), Outcome::OverShare);
    }
}
