//! The work of one attempt: the stages from its claim until the claim is settled.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::response::Parts;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::attempt::commits::Commits;
use crate::attempt::handle::Attempt;
use crate::attempt::handling::{BoxFuture, BoxHandler};
use crate::attempt::heartbeat::Heartbeat;
use crate::attempt::overtaken;
use crate::attempt::renewal::Leaseholder;
use crate::attempt::settle::{self, FirstTry, Settler};
use crate::attempt::settlement::Settlement;
use crate::observe::Place;
use crate::request::fingerprint::Fingerprint;
use crate::response::collect::Collector;
use crate::response::degraded;
use crate::response::problem::Problem;
use crate::service::background::{self, Background};
use crate::service::deadline;
use crate::service::idempotency::Idempotency;
use crate::service::permits::Permit;
use crate::service::slot::Slot;
use crate::settings::policy::Policy;
use crate::store::{Holder, Settled};

pub(super) struct Work {
    pub(super) policy: &'static Policy,
    pub(super) idem: Idempotency,
    pub(super) holder: Holder,
    /// Whether a try at the claim was given up and may still reach the store.
    pub(super) has_stragglers: bool,
    pub(super) fingerprint: Fingerprint,
    pub(super) stage: Stage,
    /// The slot of the request, until the handler begins.
    pub(super) offered: Option<Arc<Slot>>,
    /// Where the attempt waits for the layers above its handler. `None` if the attempt does not wait.
    pub(super) slot: Option<Arc<Slot>>,
    /// The status of the response. When it is set, the work of the handler is done.
    pub(super) status: Option<StatusCode>,
    /// Set while user code is polled. If it is still set in `drop`, user code has panicked.
    pub(super) is_polling: bool,
    pub(super) heartbeat: Heartbeat,
    /// The attempt that the handler sees.
    pub(super) attempt: Attempt,
    /// Set at the first `Pending`.
    pub(super) background: Option<Background>,
    /// Counts as a running attempt until the attempt is settled, or until the first try at that has
    /// failed.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) permit: Option<Permit>,
    /// The place that was last reported to the observer: in the request or in the background.
    pub(super) place: Place,
    /// Makes `drain` wait for this attempt.
    pub(super) _tracked: TaskTrackerToken,
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
    pub(super) parts: Parts,
    pub(super) body: Body,
    pub(super) collector: Collector,
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
            // The settler has the lease by then, or another attempt.
            && !matches!(self.stage, Stage::Settling(..) | Stage::Overtaken(_))
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
                Poll::Ready(self.responded(response, cx))
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

    /// The handler has run for as long as it may. Drops it before its key becomes unknown, because a
    /// retry may run as soon as the key is unknown.
    fn ran_too_long(&mut self) -> Stage {
        self.stage = Stage::Ended;
        let problem = Problem::run_timeout().about(Some(self.holder.id));
        let response = self.idem.refuse(problem);
        self.settling(Settlement::Abandon, response)
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
            // The layers have not finished, so a later claim of this process must not be settled with this response.
            self.withdraw();
            self.status = None;
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
        let commits = self.attempt.commits().ok().flatten();
        let settlement = commits.and_then(Commits::close).unwrap_or(settlement);
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

    pub(super) fn background(&self) -> Option<Background> {
        self.background.clone().or_else(Background::of_this_task)
    }

    /// Ends an attempt that was interrupted by a panic or by the shutdown of its runtime.
    pub(super) fn cut_off(&mut self) {
        if matches!(self.stage, Stage::Handling(_)) {
            // Drops the arguments of the handler before a retry may run.
            self.stage = Stage::Ended;
        }
        if let Some(status) = self.status {
            // The work is done, so a retry must not run it again, although the response is lost.
            let settlement = self.not_kept(status);
            self.settle_unattended(settlement);
        } else {
            self.settle_unattended(Settlement::Abandon);
        }
    }
}
