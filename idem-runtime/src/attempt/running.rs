//! Runs one attempt from its claim until it is settled, even if its request is dropped.
//!
//! hyper drops the future of a handler when the client disconnects. An attempt is polled in the
//! task of the request. If it is dropped there before its end, it continues in a separate task.

use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::response::Parts;
use http::{Extensions, HeaderMap, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::attempt::commit_error;
use crate::attempt::commits::Commits;
use crate::attempt::ending::Ending;
use crate::attempt::handle::{Attempt, ClaimFacts};
use crate::attempt::heartbeat::{Heartbeat, Leaseholder};
use crate::attempt::overtaken;
use crate::attempt::settle::{self, FirstTry, Settler};
use crate::attempt::settlement::Settlement;
use crate::observe::Place;
use crate::request::fingerprint::Fingerprint;
use crate::response::collect::{self, Collected, Collector, Patience};
use crate::response::degraded;
use crate::response::outcome_unknown::OutcomeUnknown;
use crate::response::problem::Problem;
use crate::service::background::{self, Background};
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::permits::Permit;
use crate::service::slot::{Slot, Unsettled};
use crate::settings::policy::Policy;
use crate::store::{Holder, Record, Settled};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The future of a handler. Each handler has its own type.
pub(crate) type BoxHandler = Pin<Box<dyn Handling>>;

/// A future whose output is converted into a response. Implemented by the future of the handler itself,
/// because a wrapper would be compiled once for each handler.
pub(crate) trait Handling: Send {
    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response>;
}

impl<F> Handling for F
where
    F: Future<Output: IntoResponse> + Send,
{
    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.poll(cx).map(IntoResponse::into_response)
    }
}

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

pub(super) struct Work {
    pub(super) policy: &'static Policy,
    pub(super) idem: Idempotency,
    pub(super) holder: Holder,
    /// Whether a try at the claim was given up and may still reach the store.
    has_stragglers: bool,
    pub(super) fingerprint: Fingerprint,
    pub(super) stage: Stage,
    /// The slot of the request, until the handler begins.
    pub(super) offered: Option<Arc<Slot>>,
    /// Where the attempt waits for the layers above its handler. `None` if the attempt does not wait.
    pub(super) slot: Option<Arc<Slot>>,
    /// The status of the response. When it is set, the work of the handler is done.
    pub(super) answered: Option<StatusCode>,
    /// Set while user code is polled. If it is still set in `drop`, user code has panicked.
    is_polling: bool,
    heartbeat: Heartbeat,
    /// The attempt that the handler sees.
    pub(super) attempt: Attempt,
    /// Set at the first `Pending`.
    background: Option<Background>,
    /// Counts as a running attempt until the attempt is settled, or until the first try at that has
    /// failed.
    #[expect(dead_code, reason = "held for its drop")]
    permit: Option<Permit>,
    /// The place that was last reported to the observer: in the request or in the background.
    pub(super) place: Place,
    /// Makes `drain` wait for this attempt.
    _tracked: TaskTrackerToken,
}

pub(super) enum Stage {
    /// The body extractor runs. The handler has not started.
    Claimed,
    Handling(BoxHandler),
    /// In a box, because few bodies are waited for.
    Reading(Box<Reading>),
    /// The handler has responded, and its response goes to the layers above.
    Responded(Settlement, Response),
    /// Waits in its slot.
    Waiting(Settlement),
    Settling(BoxFuture<FirstTry>, Response),
    /// Asks for the record of the attempt that has taken over.
    Overtaken(BoxFuture<Response>),
    Settled(Response),
    Ended,
}

/// A response whose body is read.
pub(super) struct Reading {
    parts: Parts,
    body: Body,
    collector: Collector,
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
            answered: None,
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
            work.stage = work.settling(work.give_back(), response);
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
                    None => work.give_back(),
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

impl Work {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        self.follow_layers();
        while let Poll::Ready(next) = self.poll_stage(cx) {
            match next {
                Stage::Settled(response) => {
                    self.stage = Stage::Ended;
                    return Poll::Ready(response);
                }
                Stage::Responded(settlement, response) => {
                    self.stage = Stage::Waiting(settlement);
                    return Poll::Ready(response);
                }
                next => self.stage = next,
            }
        }
        self.keep();
        self.heartbeat.watch(cx);
        Poll::Pending
    }

    /// Starts to renew the lease, and remembers how to continue in the background. Called at the
    /// first `Pending`, because the future cannot be dropped halfway before that.
    pub(super) fn keep(&mut self) {
        if self.background.is_none() {
            self.background = Background::of_this_task();
        }
        if let Some(background) = &self.background
            // The settler has the lease by then.
            && !matches!(self.stage, Stage::Settling(..))
        {
            self.heartbeat.arm(background, &|| Leaseholder {
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
            Stage::Handling(_) if self.heartbeat.is_over() => Poll::Ready(self.ran_too_long()),
            Stage::Handling(handler) => {
                let response = ready!(handler.as_mut().poll_response(cx));
                // Drops the arguments of the handler before the body of its response is read.
                self.stage = Stage::Ended;
                Poll::Ready(self.answered(response, cx))
            }
            Stage::Reading(reading) => {
                let collected = ready!(reading.collector.poll(&mut reading.body, cx));
                Poll::Ready(match mem::replace(&mut self.stage, Stage::Ended) {
                    Stage::Reading(reading) => self.collected(reading.parts, collected),
                    other => other,
                })
            }
            Stage::Settling(settled, _) => {
                let first_try = ready!(settled.as_mut().poll(cx));
                Poll::Ready(match mem::replace(&mut self.stage, Stage::Ended) {
                    Stage::Settling(_, response) => self.settled(first_try, response),
                    other => other,
                })
            }
            Stage::Overtaken(response) => response.as_mut().poll(cx).map(Stage::Settled),
            Stage::Settled(_) | Stage::Responded(..) => {
                Poll::Ready(mem::replace(&mut self.stage, Stage::Ended))
            }
            Stage::Claimed | Stage::Waiting(_) | Stage::Ended => {
                panic!("polled while the attempt has nothing to wait for")
            }
        }
    }

    /// Decides whether the response of the handler is recorded, and whether its body must be read
    /// for that.
    fn answered(&mut self, mut response: Response, cx: &mut Context<'_>) -> Stage {
        self.heartbeat.lift_limit();
        let by_handler = self.settled_by_handler();
        commit_error::name_record(&mut response, self.holder.id, by_handler.as_ref());
        let ending = Ending::of(self.policy, &mut response);
        let settlement = match ending {
            _ if by_handler.is_some() => by_handler,
            Ending::Unknown => return self.settling(Settlement::Abandon, response),
            Ending::Released => Some(Settlement::Release),
            Ending::Recorded => None,
        };
        self.answered = Some(response.status());
        if let Some(settlement) = settlement {
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let settings = self.idem.settings();
        if !self.policy.records_body {
            let settlement = self.record(response.status(), response.headers(), &Bytes::new());
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let limit = settings.max_recorded_body;
        let announced = collect::announced_len(&response);
        if collect::cannot_be_kept(&response, announced, limit) {
            let settlement = self.not_kept(response.status());
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let (parts, mut body) = response.into_parts();
        let patience = Patience {
            known: self.policy.max_run.unwrap_or(settings.max_run),
            unknown: settings.response_timeout,
        };
        let mut collector = Collector::new(announced, limit, patience);
        // Most bodies are complete already. Measured: a stage for them takes 400 instructions.
        match collector.poll(&mut body, cx) {
            Poll::Ready(collected) => self.collected(parts, collected),
            Poll::Pending => Stage::Reading(Box::new(Reading {
                parts,
                body,
                collector,
            })),
        }
    }

    /// The handler has run for as long as it may. Drops it before its key becomes unknown, because a
    /// retry may run as soon as the key is unknown.
    fn ran_too_long(&mut self) -> Stage {
        self.stage = Stage::Ended;
        let problem = Problem::run_timeout().about(Some(self.holder.id));
        let response = self.idem.refuse(problem);
        self.settling(Settlement::Abandon, response)
    }

    /// Continues when the body of the response has been read, or as much of it as can be recorded.
    fn collected(&mut self, parts: Parts, collected: Collected) -> Stage {
        match collected {
            Collected::Whole(body) => {
                let settlement = self.record(parts.status, &parts.headers, &body);
                let body = self.watched(Full::from(body));
                self.settling(settlement, Response::from_parts(parts, body))
            }
            Collected::NotKept(body) => {
                let settlement = self.not_kept(parts.status);
                let body = self.watched(body);
                self.settling(settlement, Response::from_parts(parts, body))
            }
        }
    }

    /// Returns how the attempt is settled when its handler may have recorded the response itself.
    fn settled_by_handler(&self) -> Option<Settlement> {
        self.attempt.commits().ok()??.settlement()
    }

    fn give_back(&self) -> Settlement {
        Settlement::give_back(self.attempt.number())
    }

    fn record(&self, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Settlement {
        let recording = self.idem.settings().recording(self.policy);
        self.complete(recording.record(self.fingerprint, status, headers, body))
    }

    fn complete(&self, record: Record) -> Settlement {
        Settlement::Complete {
            record,
            ttl: self.policy.ttl,
        }
    }

    pub(super) fn not_kept(&self, status: StatusCode) -> Settlement {
        self.complete(Record::not_kept(self.fingerprint, status))
    }

    /// Settles the attempt. The response is sent when the store has confirmed that, or has failed
    /// to do so in time. If layers above the handler may still change the outcome, the response goes to
    /// these layers first.
    ///
    /// An attempt that was overtaken settles nothing. Its layers get the response of the attempt that has
    /// taken over.
    pub(super) fn settling(&mut self, mut settlement: Settlement, response: Response) -> Stage {
        if self.slot.is_some() {
            if !self.attempt.is_overtaken() {
                return Stage::Responded(settlement, response);
            }
            // The layers have not finished, so the response must not be recorded under a later claim of
            // this process either.
            self.withdraw();
            self.answered = None;
            settlement = Settlement::Abandon;
        }
        match self.settle(settlement) {
            Ok(first_try) => self.settled(first_try, response),
            Err(pending) => Stage::Settling(pending, response),
        }
    }

    fn settled(&self, first_try: FirstTry, response: Response) -> Stage {
        match first_try {
            FirstTry::Over => Stage::Settled(response),
            FirstTry::Unrecorded => Stage::Settled(degraded::unrecorded(response)),
            FirstTry::Unconfirmed => Stage::Settled(degraded::unconfirmed(response)),
            FirstTry::Overtaken => {
                let (idem, id, fingerprint) = (self.idem.clone(), self.holder.id, self.fingerprint);
                let response = overtaken::response(idem, id, fingerprint, response);
                Stage::Overtaken(Box::pin(response))
            }
        }
    }

    /// Settles the attempt when no request waits for that.
    pub(super) fn settle_unattended(&mut self, settlement: Settlement) {
        if let Err(pending) = self.settle(settlement)
            && let Some(Background { runtime, span }) = self.background()
        {
            let tracked = Some(self.idem.attempts().token());
            background::spawn(&runtime, span, tracked, async { _ = pending.await });
        }
    }

    /// Settles the attempt in the store. Returns a future if the store does not reply immediately.
    fn settle(&mut self, settlement: Settlement) -> Result<FirstTry, BoxFuture<FirstTry>> {
        // What the handler has committed is the outcome, whatever it has returned.
        let settlement = self.settled_by_handler().unwrap_or(settlement);
        let reply = settlement.apply(&self.idem, self.holder);
        match reply.try_now() {
            // If the claim has a straggler, the settler must look for the straggler after a
            // release.
            Ok(Ok(Settled::Done)) if !self.has_stragglers => {
                let settled = Settled::Done;
                settle::report(
                    self.policy.endpoint,
                    &self.idem,
                    self.holder,
                    self.heartbeat.claimed_at(),
                    &settlement,
                    settled,
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
    pub(super) fn cut_off(&mut self) {
        if matches!(self.stage, Stage::Handling(_)) {
            // Drops the arguments of the handler before a retry may run.
            self.stage = Stage::Ended;
        }
        if let Some(status) = self.answered {
            // The work is done, so a retry must not run it again, although the response is lost.
            let settlement = self.not_kept(status);
            self.settle_unattended(settlement);
        } else {
            self.settle_unattended(Settlement::Abandon);
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
            work.answered = None;
        }
        work.withdraw();
        if work.is_polling {
            work.cut_off();
            return;
        }
        match work.stage {
            Stage::Ended | Stage::Overtaken(_) => {}
            Stage::Claimed => {
                let settlement = work.give_back();
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
        let given_back = idem.store().look_up(id).await;
        assert!(matches!(given_back, Ok(None)), "{given_back:?}");
    }
}
