//! Counts an attempt as running.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Observing, Place};

/// A running attempt. Reports the start of the attempt, and its stop when it is dropped.
#[derive(Debug)]
pub(crate) struct RunningAttempt {
    observing: Observing,
    endpoint: &'static str,
    is_detached: AtomicBool,
}

impl RunningAttempt {
    pub(crate) fn start(observing: &Observing, endpoint: &'static str) -> Self {
        observing.report(|observer| observer.attempt_started(endpoint));
        Self {
            observing: observing.clone(),
            endpoint,
            is_detached: AtomicBool::new(false),
        }
    }

    /// The attempt moves to the background. Reported once.
    pub(crate) fn detach(&self) {
        if !self.is_detached.swap(true, Ordering::Relaxed) {
            let endpoint = self.endpoint;
            self.observing
                .report(|observer| observer.attempt_detached(endpoint));
        }
    }
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        let place = if *self.is_detached.get_mut() {
            Place::Background
        } else {
            Place::Request
        };
        let endpoint = self.endpoint;
        self.observing
            .report(|observer| observer.attempt_stopped(endpoint, place));
    }
}
