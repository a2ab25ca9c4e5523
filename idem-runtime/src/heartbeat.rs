//! Renews a lease while its handler lives.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::idempotency::Idempotency;
use crate::store::{Holder, Settled, StoreError};

/// Renews a lease at a third of its length, as long as it is polled.
///
/// A handler that answers at its first poll costs no timer.
pub(crate) struct Heartbeat {
    held_until: Instant,
    lease: Duration,
    state: State,
}

enum State {
    /// Nobody has waited yet.
    Idle,
    Waiting(Pin<Box<Sleep>>),
    Renewing {
        asked_at: Instant,
        answer: Pin<Box<dyn Future<Output = Result<Settled, StoreError>> + Send>>,
    },
    /// Somebody else holds the claim.
    Lost,
}

impl State {
    fn wait_until(due: Instant) -> Self {
        Self::Waiting(Box::pin(sleep_until(due)))
    }
}

impl Heartbeat {
    pub(crate) fn new(claimed_at: Instant, lease: Duration) -> Self {
        Self {
            held_until: claimed_at + lease,
            lease,
            state: State::Idle,
        }
    }

    /// Until when the lease holds without another renewal.
    pub(crate) fn held_until(&self) -> Instant {
        self.held_until
    }

    /// Renews what is due and arranges to be polled again. Says once when the claim is lost.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        idem: &Idempotency,
        holder: Holder,
        on_loss: impl FnOnce(),
    ) {
        loop {
            let next = match &mut self.state {
                State::Lost => return,
                State::Idle => State::wait_until(self.held_until - self.lease + self.lease / 3),
                State::Waiting(timer) => match timer.as_mut().poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(()) => State::Renewing {
                        asked_at: Instant::now(),
                        answer: {
                            let (idem, renewal) =
                                (idem.clone(), idem.store().renew(holder, self.lease));
                            Box::pin(async move { idem.in_time(renewal).await })
                        },
                    },
                },
                State::Renewing { asked_at, answer } => {
                    let asked_at = *asked_at;
                    match answer.as_mut().poll(cx) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(Settled::Done)) => {
                            self.held_until = asked_at + self.lease;
                            State::wait_until(asked_at + self.lease / 3)
                        }
                        Poll::Ready(Ok(Settled::Lost)) => {
                            self.state = State::Lost;
                            return on_loss();
                        }
                        Poll::Ready(Err(error)) => {
                            tracing::warn!(
                                target: crate::TARGET,
                                record = %holder.id.short(),
                                error = &error as &dyn std::error::Error,
                                "a lease could not be renewed; it is tried again"
                            );
                            State::wait_until(Instant::now() + self.lease / 10)
                        }
                    }
                }
            };
            self.state = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::record_id::RecordId;
    use crate::store::{Claim, Claimed, Entry};

    const LEASE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_at_each_third_of_its_length_and_not_before() {
        let idem = Idempotency::in_memory();
        let id = RecordId::from_bytes([1; 32]);
        let claim = Claim::new(id, Fingerprint::from_bytes([7; 32]), LEASE, LEASE);
        let owner = claim.owner;
        let Ok(Claimed::Fresh { fence, .. }) = idem.store().claim(claim).await else {
            panic!("nobody else claims it");
        };
        let holder = Holder { id, owner, fence };
        let mut heartbeat = Heartbeat::new(Instant::now(), LEASE);
        let mut cx = Context::from_waker(Waker::noop());
        for (pass, left) in [(3, 27), (6, 21), (2, 30), (9, 21), (2, 30)] {
            tokio::time::advance(Duration::from_secs(pass)).await;
            heartbeat.poll(&mut cx, &idem, holder, || panic!("it is held"));
            let entry = idem.store().look_up(id).await;
            let Ok(Some(Entry::InFlight { lease_left, .. })) = entry else {
                panic!("it is held: {entry:?}");
            };
            assert_eq!(lease_left, Duration::from_secs(left));
        }
    }
}
