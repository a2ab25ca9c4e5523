//! Renews a lease while its attempt runs, and ends a run that reaches its limit.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::attempt::handle::Attempt;
use crate::observe::Outcome;
use crate::service::background::{self, Background};
use crate::service::deadline;
use crate::service::idempotency::{Idempotency, within};
use crate::store::{Holder, Settled};
use crate::trace::Event;

/// Renews a lease after each third of its length. Starts at the first `Pending` of the attempt, and
/// stops when it is dropped.
///
/// The renewals run in a separate task, so that a request that nobody polls keeps its lease. The
/// first renewal starts the task. Until then there is only a timer. A handler that returns at its
/// first poll needs no timer either.
///
/// The same task ends a run that reaches its limit. The task stops the renewals, and wakes the task that
/// polls the handler.
pub(crate) struct Heartbeat {
    claimed_at: Instant,
    lease: Duration,
    /// When the handler must have responded. `None` when nothing runs, or after it has responded.
    run_until: Option<Instant>,
    armed: Option<Armed>,
}

struct Armed {
    beat: Arc<Beat>,
    /// Wakes `beat` when the first renewal is due. Polled once, and stored until the attempt ends.
    _timer: Pin<Box<Sleep>>,
}

/// The claim whose lease is renewed.
#[derive(Clone)]
pub(crate) struct Leaseholder {
    pub(crate) endpoint: &'static str,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    /// Receives the loss of the lease while its handler runs.
    pub(crate) attempt: Option<Attempt>,
}

struct Beat {
    of: Leaseholder,
    background: Background,
    pulse: Mutex<Pulse>,
    /// Whether the handler has run for as long as it may.
    is_over: AtomicBool,
}

struct Pulse {
    held_until: Instant,
    /// When the first renewal is due.
    due: Instant,
    /// As in [`Heartbeat`].
    run_until: Option<Instant>,
    /// The task that polls the handler, to wake when the handler has run for as long as it may.
    poller: Option<Waker>,
    task: Task,
    /// Whether the handler still runs.
    is_running: bool,
}

enum Task {
    NotStarted,
    Started(AbortHandle),
    Ended,
}

impl Heartbeat {
    pub(crate) const fn new(claimed_at: Instant, lease: Duration) -> Self {
        Self {
            claimed_at,
            lease,
            run_until: None,
            armed: None,
        }
    }

    /// When the claim was sent.
    pub(crate) const fn claimed_at(&self) -> Instant {
        self.claimed_at
    }

    /// Lets the handler run for no longer than `max_run` after the claim.
    pub(crate) fn limit_run(mut self, max_run: Duration) -> Self {
        self.run_until = Some(deadline::after(self.claimed_at, max_run));
        self
    }

    /// Ends the limit because the handler has responded.
    ///
    /// When that happens at the very moment of the limit, the renewals have ended. The next call of `arm`
    /// then starts them again, because the response is still to be recorded.
    pub(crate) fn lift_limit(&mut self) {
        self.run_until = None;
        let Some(armed) = &self.armed else {
            return;
        };
        let mut pulse = armed.beat.pulse();
        pulse.run_until = None;
        let renewed_at = pulse.held_until.checked_sub(self.lease);
        drop(pulse);
        if armed.beat.is_over.load(Ordering::Acquire) {
            self.claimed_at = renewed_at.unwrap_or(self.claimed_at);
            self.armed = None;
        }
    }

    /// Whether the handler has run for as long as it may.
    pub(crate) fn is_over(&self) -> bool {
        let armed = self.armed.as_ref();
        armed.is_some_and(|armed| armed.beat.is_over.load(Ordering::Acquire))
    }

    /// Wakes the task of `cx` when the handler has run for as long as it may.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let (Some(_), Some(armed)) = (self.run_until, &self.armed) else {
            return;
        };
        let mut pulse = armed.beat.pulse();
        if armed.beat.is_over.load(Ordering::Acquire) {
            cx.waker().wake_by_ref();
        } else {
            match &mut pulse.poller {
                Some(poller) => poller.clone_from(cx.waker()),
                None => pulse.poller = Some(cx.waker().clone()),
            }
        }
    }

    /// Returns when the lease ends if it is not renewed again.
    pub(crate) fn held_until(&self) -> Instant {
        match &self.armed {
            Some(armed) => armed.beat.pulse().held_until,
            None => deadline::after(self.claimed_at, self.lease),
        }
    }

    /// Returns whether the lease holds for at least `span` if it is not renewed again.
    pub(crate) fn outlasts(&self, span: Duration) -> bool {
        self.held_until() >= deadline::after(Instant::now(), span)
    }

    /// Starts to renew the lease, unless the renewals have already started.
    ///
    /// # Panics
    ///
    /// If the runtime has no timers.
    pub(crate) fn arm(&mut self, background: &Background, of: &dyn Fn() -> Leaseholder) {
        if self.armed.is_some() {
            return;
        }
        let due = deadline::after(self.claimed_at, self.lease / 3);
        let beat = Arc::new(Beat {
            of: of(),
            background: background.clone(),
            pulse: Mutex::new(Pulse {
                held_until: self.held_until(),
                due,
                run_until: self.run_until,
                poller: None,
                task: Task::NotStarted,
                is_running: true,
            }),
            is_over: AtomicBool::new(false),
        });
        let first = self.run_until.map_or(due, |until| due.min(until));
        let mut timer = Box::pin(sleep_until(first));
        let waker = Waker::from(beat.clone());
        if timer
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            waker.wake();
        }
        self.armed = Some(Armed {
            beat,
            _timer: timer,
        });
    }

    /// Moves the lease to the code that settles the attempt. From now on, the loss of the lease is
    /// not reported to the handler.
    pub(crate) fn hand_over(&mut self) -> Self {
        self.lift_limit();
        if let Some(armed) = &self.armed {
            armed.beat.pulse().is_running = false;
        }
        Self {
            armed: self.armed.take(),
            ..*self
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(armed) = self.armed.take() {
            armed.beat.end();
        }
    }
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
    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        // No code panics while it holds the lock.
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
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

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::request::fingerprint::Fingerprint;
    use crate::request::record_id::RecordId;
    use crate::store::{Claim, Claimed, Entry, MemoryStore};
    use crate::testing::Fault::{self, ErrBefore, Hang};
    use crate::testing::{FaultStore, Operation};

    const LEASE: Duration = Duration::from_secs(30);

    struct Setup {
        idem: Idempotency,
        store: FaultStore<MemoryStore>,
        holder: Holder,
        heartbeat: Heartbeat,
    }

    /// Starts to renew a lease although nobody polls a request.
    async fn armed(faults: impl IntoIterator<Item = Fault>) -> Setup {
        armed_with(faults, 100 * LEASE).await
    }

    /// As `armed`, for a handler that may run for this long.
    async fn limited(max_run: Duration) -> Setup {
        armed_with([], max_run).await
    }

    async fn armed_with(faults: impl IntoIterator<Item = Fault>, max_run: Duration) -> Setup {
        let store = FaultStore::new(MemoryStore::default());
        store.script(Operation::Renew, faults);
        let idem = Idempotency::builder().store(store.clone());
        let idem = idem.lease(LEASE).store_timeout(LEASE).build();
        let id = RecordId::from_bytes([1; 32]);
        let claim = Claim::new(id, Fingerprint::from_bytes([7; 32]), LEASE, 20 * LEASE);
        let owner = claim.owner;
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("no other claim exists");
        };
        let holder = Holder { id, owner, fence };
        let mut setup = Setup {
            idem,
            store,
            holder,
            heartbeat: Heartbeat::new(Instant::now(), LEASE).limit_run(max_run),
        };
        setup.arm();
        setup
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Woken {
        fn is_woken(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Setup {
        fn arm(&mut self) {
            let background = Background::of_this_task().expect("a runtime");
            self.heartbeat.arm(&background, &|| Leaseholder {
                endpoint: "place_trade",
                idem: self.idem.clone(),
                holder: self.holder,
                attempt: None,
            });
        }

        async fn lease_left(&self) -> Option<Duration> {
            match self.idem.store().look_up(self.holder.id).await {
                Ok(Some(Entry::InFlight { lease_left, .. })) => Some(lease_left),
                _ => None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_after_each_third_of_its_length() {
        let setup = armed([]).await;
        let moment = Duration::from_millis(100);
        tokio::time::sleep(moment).await;
        for (pass, renewals, left) in [(9, 0, 21), (1, 1, 30), (9, 1, 21), (1, 2, 30), (10, 3, 30)]
        {
            tokio::time::sleep(Duration::from_secs(pass)).await;
            assert_eq!(setup.store.calls(Operation::Renew), renewals);
            let lease_left = setup.lease_left().await.expect("the lease is held");
            let left = Duration::from_secs(left);
            assert!(
                lease_left <= left && lease_left + 2 * moment > left,
                "{lease_left:?} of {left:?}"
            );
        }
        drop(setup.heartbeat);
        tokio::time::sleep(LEASE).await;
        assert_eq!(
            setup.store.calls(Operation::Renew),
            3,
            "the renewals continue after the end"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_of_a_run_the_renewals_end_and_its_poller_is_woken() {
        let mut setup = limited(LEASE).await;
        let waker = Arc::new(Woken::default());
        setup
            .heartbeat
            .watch(&Context::from_waker(&waker.clone().into()));
        tokio::time::sleep(LEASE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!setup.heartbeat.is_over() && !waker.is_woken());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(setup.heartbeat.is_over() && waker.is_woken());
        let renewals = setup.store.calls(Operation::Renew);
        tokio::time::sleep(LEASE).await;
        assert_eq!(setup.store.calls(Operation::Renew), renewals);
        assert!(setup.lease_left().await.is_none());
        // A task that polls after the limit is woken immediately.
        let late = Arc::new(Woken::default());
        setup
            .heartbeat
            .watch(&Context::from_waker(&late.clone().into()));
        assert!(late.is_woken());
        setup.heartbeat.lift_limit();
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_responds_in_time_keeps_its_lease_beyond_the_limit() {
        let mut setup = limited(LEASE).await;
        tokio::time::sleep(LEASE / 2).await;
        setup.heartbeat.lift_limit();
        tokio::time::sleep(5 * LEASE).await;
        assert!(setup.lease_left().await.is_some() && !setup.heartbeat.is_over());
    }

    /// The limit passes between the poll that ends the handler and the call that lifts the limit.
    #[tokio::test(start_paused = true)]
    async fn a_handler_that_responds_at_its_limit_keeps_its_lease() {
        let mut setup = limited(LEASE / 2).await;
        tokio::time::sleep(LEASE / 2 + Duration::from_millis(2)).await;
        assert!(setup.heartbeat.is_over());
        setup.heartbeat.lift_limit();
        assert!(!setup.heartbeat.is_over());
        let left = setup.lease_left().await.expect("it is held");
        assert!(!setup.heartbeat.outlasts(left + Duration::from_millis(2)));
        setup.arm();
        tokio::time::sleep(5 * LEASE).await;
        assert!(setup.lease_left().await.is_some());
    }

    /// Three renewals fit into a lease, even if the first two fail or never return.
    #[tokio::test(start_paused = true)]
    async fn a_lease_survives_two_renewals_that_fail_or_hang() {
        for faults in [[ErrBefore, ErrBefore], [Hang, Hang], [ErrBefore, Hang]] {
            let setup = armed(faults).await;
            let begun = Instant::now();
            while begun.elapsed() < 2 * LEASE {
                assert!(
                    setup.lease_left().await.is_some(),
                    "{faults:?}: the lease lapsed"
                );
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            assert!(setup.heartbeat.outlasts(LEASE / 2), "{faults:?}");
        }
    }

    /// The reply may take long, and the lease counts from the call, not from the reply.
    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_counts_from_the_call_to_the_store() {
        let setup = armed([Fault::DelayReply(Duration::from_secs(9))]).await;
        tokio::time::sleep(Duration::from_millis(19_500)).await;
        let left = setup.lease_left().await.expect("the lease is held");
        assert!(setup.heartbeat.outlasts(Duration::from_secs(20)));
        assert!(!setup.heartbeat.outlasts(left + Duration::from_millis(1)));
    }

    /// A lapsed lease that no other attempt took over is renewed. Until then the store is not
    /// flooded with renewals.
    #[tokio::test(start_paused = true)]
    async fn a_lapsed_lease_is_renewed_when_the_store_recovers() {
        let setup = armed([ErrBefore; 30]).await;
        tokio::time::sleep(5 * LEASE).await;
        assert!(setup.lease_left().await.is_none());
        assert!(setup.store.calls(Operation::Renew) < 30);
        setup.store.heal();
        tokio::time::sleep(LEASE / 2).await;
        assert!(setup.lease_left().await.is_some());
    }
}
