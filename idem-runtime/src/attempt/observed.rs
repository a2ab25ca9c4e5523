//! Reports to the observer of the service that an attempt runs, and where.

use crate::attempt::work::Work;
use crate::observe::{Observer, Place};

impl Work {
    pub(super) fn started(&self) {
        self.observe(&|observer| observer.attempt_started(self.policy.endpoint));
    }

    /// Reports once that the attempt runs in the background from now on.
    pub(super) fn detached(&mut self) {
        if self.place == Place::Request {
            self.place = Place::Background;
            self.observe(&|observer| observer.attempt_detached(self.policy.endpoint));
        }
    }

    /// The layers above the handler may have moved to the background, and the attempt with them.
    pub(super) fn follow_layers(&mut self) {
        if self
            .slot
            .as_ref()
            .is_some_and(|slot| slot.is_in_background())
        {
            self.detached();
        }
    }

    fn observe(&self, report: &dyn Fn(&dyn Observer)) {
        if let Some(observing) = self.idem.observing() {
            observing.report(report);
        }
    }
}

/// An attempt runs as long as its permit is held.
impl Drop for Work {
    fn drop(&mut self) {
        self.observe(&|observer| observer.attempt_stopped(self.policy.endpoint, self.place));
    }
}
