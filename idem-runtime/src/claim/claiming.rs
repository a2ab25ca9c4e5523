//! The claim phase of a request with a key: reads the body, then claims the record.
//!
//! With `fingerprint = none` the body is left to the handler, which reads it as it comes.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::Span;

use crate::attempt::handling::BoxFuture;
use crate::attempt::running::Won;
use crate::claim::ask::{ClaimError, ClaimReply, Reply, StoreClaim};
use crate::claim::decision::Decision;
use crate::claim::unprotected::Unprotected;
use crate::observe::{Decided, Outcome};
use crate::request::body::BodyReader;
use crate::request::chosen_key::ChosenKey;
use crate::request::fingerprint::Fingerprint;
use crate::request::intake::Intake;
use crate::request::key;
use crate::request::record_id::RecordId;
use crate::request::scope::Scope;
use crate::request::trace_context::TraceId;
use crate::response::degraded;
use crate::response::problem::Problem;
use crate::service::background;
use crate::service::idempotency::Idempotency;
use crate::service::slot::{Earlier, Finished, Slot};
use crate::settings::policy::{KeySource, Policy};
use crate::store::{Claimed, Holder, Origin, Record, StoreError};
use crate::trace::{self, Event};

/// The outcome of the claim phase.
pub(crate) enum ClaimOutcome {
    /// The request holds the claim, and its handler may run.
    Won(Won),
    /// The handler may run without a claim.
    Unprotected(Unprotected),
    /// The handler does not run. This is the response.
    Respond(Response),
}

/// Reads the body of a request with a key, and claims its record.
///
/// Does not depend on the type of the handler or of its arguments, so it is compiled once.
pub(crate) struct Claiming {
    policy: &'static Policy,
    idem: Idempotency,
    /// Where the attempt waits for the layers above its handler.
    slot: Option<Arc<Slot>>,
    stage: Stage,
}

enum Stage {
    Keyed,
    /// Waits until the body has arrived.
    Reading {
        named: Named,
        body: BodyReader,
    },
    /// Waits until an earlier attempt of the same request is settled.
    Settling {
        identified: Identified,
        earlier: BoxFuture<()>,
    },
    /// Waits for the reply of the store.
    Asking {
        identified: Identified,
        reply: BoxFuture<Reply>,
    },
}

/// The record that the request identifies, and the label that the service chose for it.
struct Named {
    id: RecordId,
    label: Option<Arc<str>>,
}

impl Named {
    fn take(&mut self) -> Self {
        Self {
            id: self.id,
            label: self.label.take(),
        }
    }
}

/// The record that the request identifies, and the parts of the request that the claim needs.
struct Identified {
    id: RecordId,
    fingerprint: Fingerprint,
    label: Option<Arc<str>>,
    /// `None` when the body was not read.
    body: Option<Bytes>,
}

impl Identified {
    fn take(&mut self) -> Self {
        Self {
            id: self.id,
            fingerprint: self.fingerprint,
            label: self.label.take(),
            body: self.body.take(),
        }
    }

    /// Puts the body back into its request.
    fn restore_body(self, intake: &mut Intake) {
        if let Some(body) = self.body {
            *intake.request.body_mut() = Body::from(body);
        }
    }
}

impl Claiming {
    pub(crate) fn new(policy: &'static Policy, idem: Idempotency, slot: Option<Arc<Slot>>) -> Self {
        Self {
            policy,
            idem,
            slot,
            stage: Stage::Keyed,
        }
    }

    /// Returns the outcome at the first poll if the body has arrived and the store replies
    /// immediately.
    pub(crate) fn poll(&mut self, intake: &mut Intake, cx: &mut Context<'_>) -> Poll<ClaimOutcome> {
        loop {
            let decided = match &mut self.stage {
                Stage::Keyed => self.begin(intake),
                Stage::Reading { named, body } => {
                    let stall = self.idem.settings().body_timeout;
                    match ready!(body.poll(stall, cx)) {
                        Ok(body) => {
                            let named = named.take();
                            self.claim(named, Some(body), intake)
                        }
                        Err(error) => {
                            let id = Some(named.id);
                            Some(self.refuse(id, Outcome::Refused, error.into()))
                        }
                    }
                }
                Stage::Settling {
                    identified,
                    earlier,
                } => {
                    ready!(earlier.as_mut().poll(cx));
                    let identified = identified.take();
                    self.ask(identified, intake)
                }
                Stage::Asking { identified, reply } => {
                    let reply = ready!(reply.as_mut().poll(cx));
                    let identified = identified.take();
                    Some(self.conclude(identified, reply, intake))
                }
            };
            if let Some(decided) = decided {
                return Poll::Ready(decided);
            }
        }
    }

    /// Reads the key, and takes the body out of the request.
    fn begin(&mut self, intake: &mut Intake) -> Option<ClaimOutcome> {
        let named = match self.record_id(intake) {
            Ok(Some(named)) => named,
            // Middleware between the layer and the handler has removed the key.
            Ok(None) => return Some(unkeyed(self.policy, Some(&self.idem), intake)),
            Err(problem) => return Some(self.refuse(None, Outcome::Refused, problem)),
        };
        if self.policy.fingerprint.is_without_body() {
            return self.claim(named, None, intake);
        }
        match BodyReader::new(&mut intake.request, self.idem.settings().max_request_body) {
            Ok(body) => {
                self.stage = Stage::Reading { named, body };
                None
            }
            Err(error) => Some(self.refuse(Some(named.id), Outcome::Refused, error.into())),
        }
    }

    /// Returns the id and the label of the record that the request identifies, or `None` if it has no
    /// key.
    fn record_id(&self, intake: &Intake) -> Result<Option<Named>, Problem> {
        let Some(key) = self.key(intake).map_err(Problem::key_invalid)? else {
            return Ok(None);
        };
        match &intake.scope {
            Ok(scope) => {
                let id = self.idem.record_id(scope, &key);
                let label = self.label(&intake.request, &key, &id);
                Ok(Some(Named { id, label }))
            }
            Err(missing) => Err(Problem::scope_missing(*missing)),
        }
    }

    fn key<'a>(&self, intake: &'a Intake) -> Result<Option<Cow<'a, str>>, &'static str> {
        let dialect = &self.idem.settings().dialect;
        match &intake.own_key {
            None => key::parse(intake.request.headers(), dialect),
            Some(own) => own.read(&intake.request, self.policy.key_source, dialect),
        }
    }

    /// Returns the label that the service chooses for the record.
    fn label(&self, request: &Request, key: &str, id: &RecordId) -> Option<Arc<str>> {
        let label = self.idem.settings().label.as_ref()?;
        if let Ok(label) = label(request, key) {
            return label.map(Arc::from);
        }
        Event {
            endpoint: Some(self.policy.endpoint),
            record: Some(id),
            ..Event::default()
        }
        .error("the label function panicked; the record has no label");
        None
    }

    /// Computes the fingerprint, and sends the claim unless the slot holds the reply. Returns the outcome if
    /// the store replies immediately. Without `body`, the body stays in its request, and the handler reads
    /// the body from there.
    fn claim(
        &mut self,
        named: Named,
        body: Option<Bytes>,
        intake: &mut Intake,
    ) -> Option<ClaimOutcome> {
        let Named { id, label } = named;
        if self.policy.transactional && self.idem.store().transactions().is_none() {
            Event {
                endpoint: Some(self.policy.endpoint),
                record: Some(&id),
                ..Event::default()
            }
            .error(
                "a request was refused, because its endpoint is `transactional` and the store cannot \
                 record a response in a transaction; use `PostgresStore` or `SqliteStore`",
            );
            let refused = self.refuse(Some(id), Outcome::Refused, Problem::not_transactional());
            return Some(refused);
        }
        let fingerprint = self.idem.fingerprint(
            &intake.request,
            body.as_deref().unwrap_or_default(),
            self.policy.fingerprint,
        );
        let identified = Identified {
            id,
            fingerprint,
            label,
            body,
        };
        // A layer has called the handler again.
        match self.slot.as_ref().map(|slot| slot.earlier(id)) {
            None | Some(Earlier::Nothing) => self.ask(identified, intake),
            Some(Earlier::Record(record)) => {
                let claimed = Claimed::Recorded {
                    record,
                    expires_in: self.policy.ttl,
                };
                let reply = ClaimReply::without_claim(Decision::of(claimed, fingerprint));
                Some(self.conclude(identified, Ok(reply), intake))
            }
            Some(Earlier::Unrecorded(finished)) => {
                let has_panicked = self.slot.as_ref().is_some_and(|slot| slot.has_panicked());
                let earlier = Box::pin(settle_earlier(finished, has_panicked));
                self.stage = Stage::Settling {
                    identified,
                    earlier,
                };
                None
            }
        }
    }

    /// Asks the store. Returns the outcome when the store replies at once.
    fn ask(&mut self, mut identified: Identified, intake: &mut Intake) -> Option<ClaimOutcome> {
        let origin = Origin::new(self.policy.endpoint)
            .with_trace_id(TraceId::of_request(intake.request.headers()))
            .with_label(identified.label.take());
        let claim = StoreClaim::new(
            self.policy,
            &self.idem,
            identified.id,
            identified.fingerprint,
            origin,
            intake.scope.as_ref().is_ok_and(Scope::is_global),
        );
        match claim.ask(&self.idem) {
            Ok(reply) => Some(self.conclude(identified, reply, intake)),
            Err(reply) => {
                self.stage = Stage::Asking { identified, reply };
                None
            }
        }
    }

    /// Converts the reply of the store into an outcome.
    fn conclude(
        &mut self,
        identified: Identified,
        reply: Reply,
        intake: &mut Intake,
    ) -> ClaimOutcome {
        let id = Some(identified.id);
        let reply = match reply {
            Ok(reply) => reply,
            Err(ClaimError {
                error,
                is_in_flight,
            }) => {
                // An entry that cannot be decoded, and one that was in flight, show that the key was used
                // before. Without a claim, a transaction would be committed without a record.
                let fails_open = self.idem.fails_open()
                    && !self.policy.transactional
                    && !is_in_flight
                    && !matches!(error, StoreError::Undecodable(_));
                let outcome = if fails_open {
                    Outcome::Bypassed
                } else {
                    Outcome::StoreError
                };
                trace::store_failed(self.policy.endpoint, &identified.id, outcome, &error);
                self.observe(outcome, None);
                if outcome == Outcome::Bypassed {
                    identified.restore_body(intake);
                    return ClaimOutcome::Unprotected(Unprotected::Degraded);
                }
                let problem = Problem::store_unavailable().about(id);
                return ClaimOutcome::Respond(self.idem.refuse(problem));
            }
        };
        let outcome = reply.decision.outcome();
        let problem = match reply.decision {
            Decision::Run { fence, attempt } => {
                if attempt > 1 {
                    trace::runs_again(self.policy.endpoint, &identified.id);
                    self.observe(outcome, None);
                } else {
                    self.decided(id, outcome);
                }
                let holder = Holder {
                    id: identified.id,
                    owner: reply.owner,
                    fence,
                };
                let fingerprint = identified.fingerprint;
                identified.restore_body(intake);
                return ClaimOutcome::Won(Won {
                    policy: self.policy,
                    idem: self.idem.clone(),
                    holder,
                    fingerprint,
                    number: attempt,
                    asked_at: reply.asked_at,
                    has_stragglers: reply.has_stragglers,
                    slot: self.slot.take(),
                    permit: reply.permit,
                });
            }
            Decision::Replay(record) => {
                self.replayed(&identified.id, &record);
                return ClaimOutcome::Respond(self.idem.replay(identified.id, &record));
            }
            Decision::ReplayUnwritten(record) => {
                self.replayed(&identified.id, &record);
                let response = self.idem.replay(identified.id, &record);
                return ClaimOutcome::Respond(degraded::unrecorded(response));
            }
            Decision::Mismatch => Problem::key_reused(),
            Decision::InFlight => Problem::key_in_flight(),
            Decision::Unknown => Problem::outcome_unknown(),
            Decision::Full => Problem::capacity(),
            Decision::Busy => Problem::busy(),
            Decision::OverShare => Problem::share(),
        };
        self.refuse(id, outcome, problem)
    }

    fn refuse(&self, id: Option<RecordId>, outcome: Outcome, problem: Problem) -> ClaimOutcome {
        self.decided(id, outcome);
        ClaimOutcome::Respond(self.idem.refuse(problem.about(id)))
    }

    fn decided(&self, id: Option<RecordId>, outcome: Outcome) {
        trace::decided(self.policy.endpoint, id.as_ref(), outcome);
        self.observe(outcome, None);
    }

    fn replayed(&self, id: &RecordId, record: &Record) {
        trace::replayed(self.policy.endpoint, id, record.first_trace_id());
        self.observe(Outcome::Replayed, Some(record));
    }

    fn observe(&self, outcome: Outcome, replayed: Option<&Record>) {
        if let Some(observing) = self.idem.observing() {
            observing.report(&|observer| {
                observer.decided(&Decided {
                    endpoint: self.policy.endpoint,
                    outcome,
                    replayed_bytes: replayed.map(|record| record.as_bytes().len() as u64),
                });
            });
        }
    }
}

/// Settles what an earlier attempt of the same request has left, also when the client disconnects.
async fn settle_earlier(finished: Finished, has_panicked: bool) {
    let settling = finished.leave(Response::default(), has_panicked);
    match Handle::try_current() {
        // Fails only when the runtime shuts down.
        Ok(runtime) => {
            let settling = async { drop(settling.await) };
            drop(background::spawn(&runtime, Span::none(), None, settling).await);
        }
        Err(_) => drop(settling.await),
    }
}

/// Returns the outcome for a request without a key. The handler runs unprotected, unless the
/// endpoint requires a key.
pub(crate) fn unkeyed(
    policy: &'static Policy,
    idem: Option<&Idempotency>,
    intake: &Intake,
) -> ClaimOutcome {
    let may_run = !policy.required || intake.request.method().is_safe();
    let lacks_argument = || {
        let chosen = intake.request.extensions().get::<ChosenKey>();
        chosen.and_then(ChosenKey::get).is_none()
    };
    if may_run && !(policy.key_source == KeySource::EndpointArgument && lacks_argument()) {
        trace::decided(policy.endpoint, None, Outcome::Bypassed);
        return ClaimOutcome::Unprotected(Unprotected::Unkeyed);
    }
    trace::decided(policy.endpoint, None, Outcome::Refused);
    let problem = Problem::key_missing();
    ClaimOutcome::Respond(match idem {
        Some(idem) => idem.refuse(problem),
        // If a layer is installed above, that layer renders the problem in the format of the
        // service.
        None => problem.into_response(),
    })
}

/// Refuses a request with a key that no `Idempotency` covers. Such a request must not run
/// unprotected.
pub(crate) fn not_installed(policy: &'static Policy) -> ClaimOutcome {
    let why = match policy.key_source {
        KeySource::Service => {
            "a request with an idempotency key was refused, because no `Idempotency` layer saw the key; \
             add `.layer(idempotency)` after the last `.route(…)`, and install middleware that sets the \
             key above that layer"
        }
        KeySource::Endpoint | KeySource::EndpointArgument => {
            "a write was refused, because its endpoint has `key = …` and no `Idempotency` that could check \
             the key; add `.layer(idempotency)` after the last `.route(…)`, or `runtime = …` to the attribute"
        }
    };
    Event {
        endpoint: Some(policy.endpoint),
        ..Event::default()
    }
    .error(why);
    trace::decided(policy.endpoint, None, Outcome::Refused);
    // A layer above that did not see the key renders the problem in the format of the service.
    ClaimOutcome::Respond(Problem::not_installed().into_response())
}
