//! Runs one attempt from its claim until it is settled, even if its request is dropped.
//!
//! hyper drops the future of a handler when the client disconnects. An attempt is polled in the
//! task of the request. If it is dropped there before its end, it continues in a separate task.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use http::response::Parts;
use http::{Extensions, StatusCode};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::attempt::background::Background;
use crate::attempt::commit::Commits;
use crate::attempt::handle::{Attempt, ClaimFacts};
use crate::attempt::heartbeat::{Heartbeat, Leaseholder};
use crate::attempt::settle::{self, FirstTry, Settler};
use crate::attempt::settlement::Settlement;
use crate::request::fingerprint::Fingerprint;
use crate::response::collect::{self, Collected, Collector};
use crate::response::degraded;
use crate::response::do_not_record::DoNotRecord;
use crate::response::kept_headers::KeptHeaders;
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::settings::policy::Policy;
use crate::store::{Holder, Record, Settled};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

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
}

/// One attempt, from its claim until it is settled.
///
/// Resolves to the response of the handler when the store has confirmed the record. If it is
/// dropped earlier, it continues in the background. If it is dropped there too, because the runtime
/// shuts down, the outcome is unknown.
pub(crate) struct Running {
    /// `None` after the attempt is settled.
    work: Option<Box<Work>>,
    in_background: bool,
}

struct Work {
    policy: &'static Policy,
    idem: Idempotency,
    holder: Holder,
    /// Whether a try at the claim was given up and may still reach the store.
    has_stragglers: bool,
    fingerprint: Fingerprint,
    stage: Stage,
    /// The status of the response. When it is set, the work of the handler is done.
    answered: Option<StatusCode>,
    /// Set while user code is polled. If it is still set in `drop`, user code has panicked.
    is_polling: bool,
    heartbeat: Heartbeat,
    /// The attempt that the handler sees.
    attempt: Attempt,
    /// Set at the first `Pending`.
    background: Option<Background>,
    /// Makes `drain` wait for this attempt.
    _tracked: TaskTrackerToken,
}

enum Stage {
    /// The body extractor runs. The handler has not started.
    Claimed,
    Handling(BoxFuture<Response>),
    Reading {
        parts: Parts,
        body: Body,
        collector: Collector,
    },
    Settling(BoxFuture<FirstTry>, Response),
    Settled(Response),
    Ended,
}

impl Running {
    /// Makes the attempt available to the extractors and the handler of its request.
    pub(crate) fn new(won: Won, request: &mut Extensions) -> Self {
        let facts = ClaimFacts {
            holder: won.holder,
            fingerprint: won.fingerprint,
            number: won.number,
        };
        let attempt = Attempt::claim(request, facts);
        attempt.allow_commits(Commits::new(
            won.policy,
            won.idem.clone(),
            won.holder,
            won.fingerprint,
        ));
        let work = Work {
            policy: won.policy,
            holder: won.holder,
            has_stragglers: won.has_stragglers,
            fingerprint: won.fingerprint,
            stage: Stage::Claimed,
            answered: None,
            is_polling: false,
            heartbeat: Heartbeat::new(won.asked_at, won.idem.settings().lease),
            attempt,
            background: None,
            _tracked: won.idem.attempts().token(),
            idem: won.idem,
        };
        Self {
            work: Some(Box::new(work)),
            in_background: false,
        }
    }

    /// Renews the lease while the body extractor waits, before the handler starts.
    pub(crate) fn keep(&mut self) {
        if let Some(work) = &mut self.work {
            work.keep();
        }
    }

    /// Starts the handler.
    pub(crate) fn handle(&mut self, handler: BoxFuture<Response>) {
        if let Some(work) = &mut self.work {
            work.stage = Stage::Handling(handler);
        }
    }

    /// Ends the attempt with the rejection of the body extractor.
    pub(crate) fn reject(mut self, rejection: Response) -> Self {
        if let Some(work) = &mut self.work {
            work.stage = if work.policy.record_rejections {
                work.answered(rejection)
            } else {
                let settlement = work.give_back();
                work.settling(settlement, rejection)
            };
        }
        self
    }
}

impl Future for Running {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let work = self.work.as_mut().expect("polled after completion");
        work.is_polling = true;
        let polled = work.poll(cx);
        work.is_polling = false;
        let response = ready!(polled);
        self.work = None;
        Poll::Ready(response)
    }
}

impl Work {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        while let Poll::Ready(next) = self.poll_stage(cx) {
            match next {
                Stage::Settled(response) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(response);
                }
                next => self.stage = next,
            }
        }
        self.keep();
        Poll::Pending
    }

    /// Starts to renew the lease, and remembers how to continue in the background. Called at the
    /// first `Pending`, because the future cannot be dropped halfway before that.
    fn keep(&mut self) {
        if self.background.is_none() {
            self.background = Background::of_this_task();
        }
        if let Some(background) = &self.background
            // The settler has the lease by then.
            && !matches!(self.stage, Stage::Settling(..))
        {
            self.heartbeat.arm(background, || Leaseholder {
                endpoint: self.policy.endpoint,
                idem: self.idem.clone(),
                holder: self.holder,
                attempt: Some(self.attempt.clone()),
            });
        }
    }

    /// Returns the stage that follows the current stage, when the current stage has finished.
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Stage> {
        match &mut self.stage {
            Stage::Handling(handler) => {
                let response = ready!(handler.as_mut().poll(cx));
                // Drops the arguments of the handler before the body of its response is read.
                self.stage = Stage::Ended;
                Poll::Ready(self.answered(response))
            }
            Stage::Reading {
                body, collector, ..
            } => {
                let collected = ready!(collector.poll(body, cx));
                Poll::Ready(self.collected(collected))
            }
            Stage::Settling(settled, _) => {
                let first_try = ready!(settled.as_mut().poll(cx));
                Poll::Ready(match mem::replace(&mut self.stage, Stage::Ended) {
                    Stage::Settling(_, response) => settled_with(first_try, response),
                    other => other,
                })
            }
            Stage::Settled(_) => Poll::Ready(mem::replace(&mut self.stage, Stage::Ended)),
            Stage::Claimed | Stage::Ended => Poll::Pending,
        }
    }

    /// Decides whether the response of the handler is recorded, and whether its body must be read
    /// for that.
    fn answered(&mut self, mut response: Response) -> Stage {
        self.answered = Some(response.status());
        if let Some(settlement) = self.attempt.settled_by_handler() {
            return self.settling(settlement, response);
        }
        let is_opted_out = response.extensions_mut().remove::<DoNotRecord>().is_some();
        if is_opted_out || !self.policy.record.contains(response.status()) {
            return self.settling(Settlement::Release, response);
        }
        let limit = self.idem.settings().max_recorded_body;
        let announced = collect::announced_len(&response);
        if collect::cannot_be_kept(&response, announced, limit) {
            let settlement = self.not_kept(response.status());
            return self.settling(settlement, response);
        }
        let (parts, body) = response.into_parts();
        Stage::Reading {
            parts,
            body,
            collector: Collector::new(announced, limit),
        }
    }

    /// Continues when the body of the response has been read, or as much of it as can be recorded.
    fn collected(&mut self, collected: Collected) -> Stage {
        let Stage::Reading { parts, .. } = mem::replace(&mut self.stage, Stage::Ended) else {
            return Stage::Ended;
        };
        match collected {
            Collected::Whole(body) => {
                let headers =
                    KeptHeaders::new(&parts.headers, self.idem.settings().record_set_cookie);
                let record =
                    Record::answer_with(self.fingerprint, parts.status, || headers.iter(), &body);
                let settlement = record.map_or_else(
                    || self.not_kept(parts.status),
                    |record| self.complete(record),
                );
                self.settling(settlement, Response::from_parts(parts, Body::from(body)))
            }
            Collected::NotKept(body) => {
                let settlement = self.not_kept(parts.status);
                self.settling(settlement, Response::from_parts(parts, body))
            }
        }
    }

    fn give_back(&self) -> Settlement {
        Settlement::give_back(self.attempt.number())
    }

    fn complete(&self, record: Record) -> Settlement {
        Settlement::Complete {
            record,
            ttl: self.policy.ttl,
        }
    }

    fn not_kept(&self, status: StatusCode) -> Settlement {
        self.complete(Record::not_kept(self.fingerprint, status))
    }

    /// Settles the attempt. The response is sent when the store has confirmed that, or has failed
    /// to do so in time.
    fn settling(&mut self, settlement: Settlement, response: Response) -> Stage {
        match self.settle(settlement) {
            Ok(first_try) => settled_with(first_try, response),
            Err(pending) => Stage::Settling(pending, response),
        }
    }

    /// Settles the attempt when no request waits for that.
    fn settle_unattended(&mut self, settlement: Settlement) {
        if let Err(pending) = self.settle(settlement)
            && let Some(Background { runtime, span }) = self.background()
        {
            let pending = pending.instrument(span);
            self.idem.attempts().spawn_on(pending, &runtime);
        }
    }

    /// Settles the attempt in the store. Returns a future if the store does not reply immediately.
    fn settle(&mut self, settlement: Settlement) -> Result<FirstTry, BoxFuture<FirstTry>> {
        // What the handler has committed is the outcome, whatever it has returned.
        let settlement = self.attempt.settled_by_handler().unwrap_or(settlement);
        let reply = settlement.apply(&self.idem, self.holder);
        match reply.try_now() {
            // If the claim has a straggler, the settler must look for the straggler after a
            // release.
            Ok(Ok(Settled::Done)) if !self.has_stragglers => {
                settle::report(
                    self.policy.endpoint,
                    self.holder,
                    &settlement,
                    Settled::Done,
                );
                Ok(FirstTry::Over)
            }
            Ok(Ok(settled)) => Ok(self.settler().conclude(&settlement, settled, None)),
            Ok(Err(error)) => Ok(self.settler().try_again(settlement, None, &error)),
            Err(reply) => Err(Box::pin(self.settler().settle(settlement, reply))),
        }
    }

    fn settler(&mut self) -> Settler {
        Settler {
            endpoint: self.policy.endpoint,
            idem: self.idem.clone(),
            holder: self.holder,
            attempt: self.attempt.number(),
            heartbeat: self.heartbeat.hand_over(),
            expires_at: deadline::after(Instant::now(), self.policy.ttl),
            has_stragglers: self.has_stragglers,
            background: self.background(),
        }
    }

    fn background(&self) -> Option<Background> {
        self.background.clone().or_else(Background::of_this_task)
    }

    /// Ends an attempt that was interrupted by a panic or by the shutdown of its runtime.
    fn cut_off(&mut self) {
        if let Some(status) = self.answered {
            // The work is done, so a retry must not run it again, although the response is lost.
            let settlement = self.not_kept(status);
            self.settle_unattended(settlement);
        } else {
            self.settle_unattended(Settlement::Abandon);
        }
    }
}

fn settled_with(first_try: FirstTry, response: Response) -> Stage {
    Stage::Settled(match first_try {
        FirstTry::Over => response,
        FirstTry::Unrecorded => degraded::unrecorded(response),
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut work) = self.work.take() else {
            return;
        };
        if work.is_polling {
            work.cut_off();
            return;
        }
        match work.stage {
            Stage::Ended => {}
            Stage::Claimed => {
                let settlement = work.give_back();
                work.settle_unattended(settlement);
            }
            _ if self.in_background => work.cut_off(),
            _ => {
                let Some(Background { runtime, span }) = work.background() else {
                    return;
                };
                let running = Self {
                    work: Some(work),
                    in_background: true,
                };
                // Nobody is left to receive the response.
                runtime.spawn(async { drop(running.await) }.instrument(span));
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
    async fn a_claim_that_arrives_after_an_immediate_release_is_given_back() {
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
        };
        Running::new(won, &mut Extensions::new())
            .reject(Response::default())
            .await;
        let released = idem.store().look_up(id).await;
        assert!(matches!(released, Ok(None)), "{released:?}");
        let late = idem.store().claim(claim).await;
        assert!(matches!(late, Ok(Claimed::Fresh { .. })), "{late:?}");
        assert_eq!(idem.drain(Duration::MAX).await, 0);
        let given_back = idem.store().look_up(id).await;
        assert!(matches!(given_back, Ok(None)), "{given_back:?}");
    }
}
