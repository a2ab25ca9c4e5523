//! The metrics of one endpoint.

use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names;
use crate::observe::{AttemptEnd, Decided, Outcome, Place};

/// The decisions about a request.
const DECISIONS: [Outcome; 11] = [
    Outcome::Fresh,
    Outcome::Replayed,
    Outcome::Mismatch,
    Outcome::InFlight,
    Outcome::Unknown,
    Outcome::Full,
    Outcome::Busy,
    Outcome::OverShare,
    Outcome::Bypassed,
    Outcome::Refused,
    Outcome::StoreError,
];

/// The ends of an attempt.
const ENDS: [Outcome; 4] = [
    Outcome::Recorded,
    Outcome::Released,
    Outcome::Unknown,
    Outcome::Overtaken,
];

/// The handles of one endpoint. A handle is registered once, because looking a metric up by its name takes
/// longer than counting.
pub(super) struct Endpoint {
    decisions: [Counter; DECISIONS.len()],
    ends: [Counter; ENDS.len()],
    duration: Histogram,
    wait: Histogram,
    unrecorded: Counter,
    replayed_bytes: Counter,
    recorded_bytes: Counter,
    in_request: Gauge,
    in_background: Gauge,
}

impl Endpoint {
    pub(super) fn register(endpoint: &'static str) -> Self {
        names::describe();
        let running = |place: Place| gauge!(names::RUNNING, "place" => place.as_str());
        Self {
            decisions: DECISIONS.map(|outcome| {
                let outcome = outcome.as_str();
                counter!(names::REQUESTS, "endpoint" => endpoint, "outcome" => outcome)
            }),
            ends: ENDS.map(
                |end| counter!(names::ATTEMPTS, "endpoint" => endpoint, "end" => end.as_str()),
            ),
            duration: histogram!(names::ATTEMPT_DURATION, "endpoint" => endpoint),
            wait: histogram!(names::WAIT_DURATION, "endpoint" => endpoint),
            unrecorded: counter!(names::UNRECORDED, "endpoint" => endpoint),
            replayed_bytes: counter!(names::REPLAYED_BYTES),
            recorded_bytes: counter!(names::RECORDED_BYTES),
            in_request: running(Place::Request),
            in_background: running(Place::Background),
        }
    }

    pub(super) fn decided(&self, decided: &Decided) {
        count(&DECISIONS, &self.decisions, decided.outcome);
        if let Some(bytes) = decided.replayed_bytes {
            self.replayed_bytes.increment(bytes);
        }
    }

    pub(super) fn ended(&self, end: &AttemptEnd) {
        count(&ENDS, &self.ends, end.outcome);
        self.duration.record(end.took);
        if let Some(bytes) = end.recorded_bytes {
            self.recorded_bytes.increment(bytes);
        }
    }

    pub(super) fn waited(&self, waited: Duration) {
        self.wait.record(waited);
    }

    pub(super) fn unrecorded(&self) {
        self.unrecorded.increment(1);
    }

    pub(super) fn running(&self, place: Place, change: f64) {
        match place {
            Place::Request => self.in_request.increment(change),
            Place::Background => self.in_background.increment(change),
        }
    }
}

fn count(outcomes: &[Outcome], counters: &[Counter], outcome: Outcome) {
    let at = outcomes.iter().position(|known| *known == outcome);
    if let Some(counter) = at.and_then(|at| counters.get(at)) {
        counter.increment(1);
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoint")
    }
}
