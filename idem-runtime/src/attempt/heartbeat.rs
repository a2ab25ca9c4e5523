//! Starts and stops the renewals of a lease, and limits the run of its handler.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::attempt::renewal::{Beat, Leaseholder, Pulse, Task};
use crate::service::background::Background;
use crate::service::deadline;

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
    /// If the limit has passed just before this call, the renewals have ended. The next `arm` starts them again, because
    /// the response is still to be recorded.
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

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use std::task::Wake;

    use super::*;
    use crate::request::fingerprint::Fingerprint;
    use crate::request::record_id::RecordId;
    use crate::service::idempotency::Idempotency;
    use crate::store::{Claim, Claimed, Entry, Holder, MemoryStore};
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
