//! Counts an attempt as running.

use super::{Observing, Place};

/// A running attempt. Reports the start of the attempt, and its stop when it is dropped.
#[derive(Debug)]
pub(crate) struct RunningAttempt {
    observing: Observing,
    endpoint: &'static str,
    place: Place,
}

impl RunningAttempt {
    pub(crate) fn start(observing: &Observing, endpoint: &'static str) -> Self {
        observing.report(|observer| observer.attempt_started(endpoint));
        Self {
            observing: observing.clone(),
            endpoint,
            place: Place::Request,
        }
    }

    /// The attempt runs in the background from now on. Reported once.
    pub(crate) fn detach(&mut self) {
        if self.place == Place::Request {
            self.place = Place::Background;
            let endpoint = self.endpoint;
            self.observing
                .report(|observer| observer.attempt_detached(endpoint));
        }
    }
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        let (endpoint, place) = (self.endpoint, self.place);
        self.observing
            .report(|observer| observer.attempt_stopped(endpoint, place));
    }
}
