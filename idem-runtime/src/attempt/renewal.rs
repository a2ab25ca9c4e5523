//! The task of a heartbeat: renews the lease, and ends a run that reaches its limit.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::attempt::handle::Attempt;
use crate::observe::Outcome;
use crate::service::background::{self, Background};
use crate::service::deadline;
use crate::service::idempotency::{Idempotency, within};
use crate::store::{Holder, Settled};
use crate::trace::Event;

/// The claim whose lease is renewed.
#[derive(Clone)]
pub(crate) struct Leaseholder {
    pub(crate) endpoint: &'static str,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    /// Receives the loss of the lease while its handler runs.
    pub(crate) attempt: Option<Attempt>,
}

pub(super) struct Beat {
    pub(super) of: Leaseholder,
    pub(super) background: Background,
    pub(super) pulse: Mutex<Pulse>,
    /// Whether the handler has run for as long as it may.
    pub(super) is_over: AtomicBool,
}

pub(super) struct Pulse {
    pub(super) held_until: Instant,
    /// When the first renewal is due.
    pub(super) due: Instant,
    /// As in `Heartbeat`.
    pub(super) run_until: Option<Instant>,
    /// The task that polls the handler, to wake when the handler has run for as long as it may.
    pub(super) poller: Option<Waker>,
    pub(super) task: Task,
    /// Whether the handler still runs.
    pub(super) is_running: bool,
}

pub(super) enum Task {
    NotStarted,
    Started(AbortHandle),
    Ended,
}

/// The timer wakes this even if nobody polls the request.
impl Wake for Beat {
    fn wake(self: Arc<Self>) {
        let mut pulse = self.pulse();
        if matches!(pulse.task, Task::NotStarted) {
            let Background { runtime, span } = &self.background;
            let renewing = background::spawn(runtime, span.clone(), None, self.clone().run());
            pulse.task = Task::Started(renewing.abort_handle());
        }
    }
}

impl Beat {
    pub(super) fn pulse(&self) -> MutexGuard<'_, Pulse> {
        // No code panics while it holds the lock.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) {
        let task = std::mem::replace(&mut self.pulse().task, Task::Ended);
        if let Task::Started(task) = task {
            task.abort();
        }
    }

    /// Renews the lease, until the handler has run for as long as it may.
    async fn run(self: Arc<Self>) {
        let Some(run_until) = self.pulse().run_until else {
            return self.renew().await;
        };
        let mut renewing = pin!(self.renew());
        let is_lost = timeout_at(run_until, renewing.as_mut()).await.is_ok();
        if is_lost {
            // The handler has the same time as before, to notice the loss or to end.
            sleep_until(run_until).await;
        }
        if !self.end_run() && !is_lost {
            renewing.await;
        }
    }

    /// Ends the run of the handler, unless the handler has responded.
    fn end_run(&self) -> bool {
        let poller = {
            let mut pulse = self.pulse();
            if pulse.run_until.is_none() {
                return false;
            }
            self.is_over.store(true, Ordering::Release);
            pulse.poller.take()
        };
        Event {
            endpoint: Some(self.of.endpoint),
            record: Some(&self.of.holder.id),
            ..Event::default()
        }
        .error(
            "an attempt has run for as long as `max_run` allows and is ended; if its handler had begun and has \
             committed no response, its outcome is unknown",
        );
        if let Some(attempt) = &self.of.attempt {
            attempt.lose();
        }
        if let Some(poller) = poller {
            poller.wake();
        }
        true
    }

    async fn renew(&self) {
        let Leaseholder { idem, holder, .. } = &self.of;
        let lease = idem.settings().lease;
        let mut due = self.pulse().due;
        loop {
            sleep_until(due).await;
            let asked_at = Instant::now();
            let held_for = self.pulse().held_until.saturating_duration_since(asked_at);
            let renewal = idem.store().renew(*holder, lease);
            let limit = longest_try(lease, held_for).min(idem.settings().store_timeout);
            match within(limit, renewal).await {
                Ok(Settled::Done) => {
                    self.pulse().held_until = deadline::after(asked_at, lease);
                    due = deadline::after(asked_at, lease / 3);
                }
                Ok(Settled::Lost) => return self.lost().await,
                Err(error) => {
                    Event {
                        record: Some(&holder.id),
                        error: Some(&error),
                        ..Event::default()
                    }
                    .warn("a lease could not be renewed; the renewal is retried");
                    let now = Instant::now();
                    let is_held = now < self.pulse().held_until;
                    due = deadline::after(now, if is_held { lease / 20 } else { lease / 3 });
                }
            }
        }
    }

    async fn lost(&self) {
        let Some(attempt) = &self.of.attempt else {
            return;
        };
        // The lease also ends when the handler has committed its response and does more work.
        if let Ok(Some(commits)) = attempt.commits()
            && commits.has_recorded().await
        {
            return;
        }
        if self.pulse().is_running {
            Event {
                endpoint: Some(self.of.endpoint),
                record: Some(&self.of.holder.id),
                outcome: Some(Outcome::Overtaken),
                ..Event::default()
            }
            .info(
                "the lease was lost while the handler runs; its response is not recorded, and its client \
                 gets the response of the attempt that has taken over",
            );
            attempt.overtake();
        }
    }
}

/// Returns how long one renewal may take: a third of the lease, and at most half of the time that
/// is left. So a renewal that hangs leaves time for another renewal. After the lease has lapsed,
/// only the first limit applies.
fn longest_try(lease: Duration, held_for: Duration) -> Duration {
    let third = lease / 3;
    if held_for.is_zero() {
        third
    } else {
        third.min(held_for / 2)
    }
}
