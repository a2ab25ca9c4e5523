//! Runs one attempt from its claim until it is settled, even if its request is dropped.
//!
//! hyper drops the future of a handler when the client disconnects. An attempt is polled in the
//! task of the request. If it is dropped there before its end, it continues in a separate task.

use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use http::Extensions;
use tokio::time::Instant;

use crate::attempt::commits::Commits;
use crate::attempt::handle::{Attempt, ClaimFacts};
use crate::attempt::handling::BoxHandler;
use crate::attempt::heartbeat::Heartbeat;
use crate::attempt::settlement::Settlement;
use crate::attempt::work::{Stage, Work};
use crate::observe::Place;
use crate::request::fingerprint::Fingerprint;
use crate::response::outcome_unknown::OutcomeUnknown;
use crate::response::problem::Problem;
use crate::service::background::{self, Background};
use crate::service::idempotency::Idempotency;
use crate::service::permits::Permit;
use crate::service::slot::{Slot, Unsettled};
use crate::settings::policy::Policy;
use crate::store::Holder;

/// A claim that was granted to a request whose handler has not started.
pub(crate) struct Won {
    pub(crate) policy: &'static Policy,
    pub(crate) idem: Idempotency,
    pub(crate) holder: Holder,
    pub(crate) fingerprint: Fingerprint,
    /// The number of the attempt.
    pub(crate) number: u32,
    /// Read before the claim was sent, so that the lease never ends later here than in the store.
    pub(crate) asked_at: Instant,
    /// Whether a try at the claim was given up and may still reach the store.
    pub(crate) has_stragglers: bool,
    /// Where the attempt waits for the layers above its handler.
    pub(crate) slot: Option<Arc<Slot>>,
    /// Counts as a running attempt.
    pub(crate) permit: Option<Permit>,
}

/// One attempt, from its claim until it is settled.
///
/// Resolves to the response of the handler when the store has confirmed the record, or when the attempt
/// waits in its slot for the layers above the handler. If it is dropped earlier, it continues in the
/// background. If it is dropped there too, because the runtime shuts down or the layers are cut off, the
/// outcome is unknown.
pub(crate) struct Running {
    /// `None` after the attempt is settled.
    work: Option<Box<Work>>,
    in_background: bool,
}

impl Running {
    /// Makes the attempt available to the extractors and the handler of its request.
    pub(crate) fn new(won: Won, request: &mut Extensions) -> Self {
        let facts = ClaimFacts {
            holder: won.holder,
            fingerprint: won.fingerprint,
            number: won.number,
        };
        let commits = Commits::new(won.policy, won.idem.clone(), won.holder, won.fingerprint);
        let attempt = Attempt::claim(request, facts, Some(commits));
        let work = Box::new(Work {
            policy: won.policy,
            holder: won.holder,
            has_stragglers: won.has_stragglers,
            fingerprint: won.fingerprint,
            stage: Stage::Claimed,
            offered: won.slot,
            slot: None,
            status: None,
            is_polling: false,
            heartbeat: Heartbeat::new(won.asked_at, won.idem.settings().lease)
                .limit_run(won.policy.max_run.unwrap_or(won.idem.settings().max_run)),
            attempt,
            background: None,
            permit: won.permit,
            place: Place::Request,
            _tracked: won.idem.attempts().token(),
            idem: won.idem,
        });
        work.started();
        Self {
            work: Some(work),
            in_background: false,
        }
    }

    /// Renews the lease while the body extractor waits, before the handler starts. Wakes the task of
    /// `cx` when the attempt reaches its limit.
    pub(crate) fn keep(&mut self, cx: &Context<'_>) {
        if let Some(work) = &mut self.work {
            work.keep();
            work.heartbeat.watch(cx);
        }
    }

    /// Whether the attempt has run for as long as it may.
    pub(crate) fn is_over(&self) -> bool {
        let work = self.work.as_ref();
        work.is_some_and(|work| work.heartbeat.is_over())
    }

    /// Ends the attempt because its body extractor has run for as long as it may.
    pub(crate) fn time_out(mut self) -> Self {
        if let Some(work) = &mut self.work {
            let problem = Problem::extraction_timeout().about(Some(work.holder.id));
            let response = work.idem.refuse(problem);
            work.stage = work.settling(work.without_run(), response);
        }
        self
    }

    /// Starts the handler.
    pub(crate) fn handle(&mut self, handler: BoxHandler) {
        if let Some(work) = &mut self.work {
            work.begin();
            work.stage = Stage::Handling(handler);
        }
    }

    /// Ends the attempt with the rejection of the body extractor.
    pub(crate) fn reject(mut self, mut rejection: Response) -> Self {
        if let Some(work) = &mut self.work {
            // A streamed body may have been cut off, so its rejection may not apply to a retry.
            let is_streamed = work.policy.fingerprint.is_without_body();
            work.stage = if work.policy.record_rejections && !is_streamed {
                work.begin();
                Stage::Handling(Box::pin(future::ready(rejection)))
            } else {
                let marker = rejection.extensions_mut().remove::<OutcomeUnknown>();
                let settlement = match marker {
                    Some(OutcomeUnknown) => Settlement::Abandon,
                    None => work.without_run(),
                };
                work.settling(settlement, rejection)
            };
        }
        self
    }
}

impl Future for Running {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        loop {
            let work = self.work.as_mut().expect("polled after completion");
            work.is_polling = true;
            let polled = work.poll(cx);
            work.is_polling = false;
            let response = ready!(polled);
            match self.work.take().map(Work::wait) {
                None | Some(Ok(())) => return Poll::Ready(response),
                Some(Err(mut alone)) => {
                    alone.leave(response, false);
                    self.work = Some(alone);
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        let is_cut_off = work.is_cut_off_with_layers();
        if is_cut_off && !work.is_polling {
            // Nobody knows whether the layers would have finished.
            work.status = None;
        }
        work.withdraw();
        if work.is_polling {
            work.cut_off();
            return;
        }
        match work.stage {
            Stage::Ended | Stage::Overtaken(_) => {}
            Stage::Claimed => {
                let settlement = work.without_run();
                work.settle_unattended(settlement);
            }
            _ if self.in_background || is_cut_off => work.cut_off(),
            _ => {
                let Some(Background { runtime, span }) = work.background() else {
                    return;
                };
                work.detached();
                let running = Self {
                    work: Some(work),
                    in_background: true,
                };
                // Nobody is left to receive the response.
                background::spawn(&runtime, span, None, async { drop(running.await) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::record_id::RecordId;
    use crate::store::{Claim, Claimed};

    static POLICY: Policy = Policy::new("test");

    /// `MemoryStore` confirms the release immediately, while another try at the claim is on its
    /// way.
    #[tokio::test(start_paused = true)]
    async fn a_claim_that_arrives_after_its_release_is_released() {
        let idem = Idempotency::in_memory();
        let fingerprint = Fingerprint::from_bytes([7; 32]);
        let id = RecordId::from_bytes([1; 32]);
        let lease = idem.settings().lease;
        let claim = Claim::new(id, fingerprint, lease, Duration::from_secs(3600));
        let owner = claim.owner;
        let Ok(Claimed::Fresh { fence, attempt }) = idem.store().claim(claim.clone()).await else {
            panic!("no other claim exists");
        };
        let won = Won {
            policy: &POLICY,
            idem: idem.clone(),
            holder: Holder { id, owner, fence },
            fingerprint,
            number: attempt,
            asked_at: Instant::now(),
            has_stragglers: true,
            slot: None,
            permit: idem.permits().take(),
        };
        Running::new(won, &mut Extensions::new())
            .reject(Response::default())
            .await;
        let released = idem.store().look_up(id).await;
        assert!(matches!(released, Ok(None)), "{released:?}");
        let late = idem.store().claim(claim).await;
        assert!(matches!(late, Ok(Claimed::Fresh { .. })), "{late:?}");
        assert_eq!(idem.drain(Duration::MAX).await, 0);
        let released = idem.store().look_up(id).await;
        assert!(matches!(released, Ok(None)), "{released:?}");
    }
}
