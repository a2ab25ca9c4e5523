//! A request with a key, up to what becomes of it: its body is read, and its record is claimed.

use std::mem;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::attempt::{self, Attempt};
use crate::claiming::{Claiming, Verdict};
use crate::decision::Decision;
use crate::deferred::Intake;
use crate::degraded;
use crate::fingerprint::Fingerprint;
use crate::idempotency::Idempotency;
use crate::key;
use crate::lease::{Lease, Unprotected};
use crate::policy::Policy;
use crate::problem::Problem;
use crate::record_id::RecordId;
use crate::request_body::BodyReader;
use crate::running::{BoxFuture, Running};
use crate::store::{Holder, StoreError};
use crate::trace::{self, Outcome};

/// What becomes of a request.
pub(crate) enum Decided {
    /// Its handler may run.
    Run(Lease),
    /// It does not, for this is the answer.
    Answer(Response),
}

/// Decides what becomes of a request with a key.
///
/// Nothing of it depends on the handler or its arguments, so it is compiled once.
pub(crate) struct Deciding {
    policy: &'static Policy,
    idem: Idempotency,
    stage: Stage,
}

enum Stage {
    Keyed,
    /// Waits for the body.
    Reading {
        id: RecordId,
        body: BodyReader,
    },
    /// Waits for the store.
    Claiming {
        claimed: Claimed,
        verdict: BoxFuture<Result<Verdict, StoreError>>,
    },
}

/// What is claimed, and the body of the request that does.
struct Claimed {
    id: RecordId,
    fingerprint: Fingerprint,
    body: Bytes,
}

impl Claimed {
    fn take(&mut self) -> Self {
        Self {
            body: mem::take(&mut self.body),
            ..*self
        }
    }
}

impl Deciding {
    pub(crate) fn new(policy: &'static Policy, idem: Idempotency) -> Self {
        Self {
            policy,
            idem,
            stage: Stage::Keyed,
        }
    }

    /// Where the body is there and the store answers at once, this waits for nothing.
    pub(crate) fn poll(&mut self, intake: &mut Intake, cx: &mut Context<'_>) -> Poll<Decided> {
        loop {
            let decided = match &mut self.stage {
                Stage::Keyed => self.begin(intake),
                Stage::Reading { id, body } => {
                    let stall = self.idem.body_timeout();
                    let (id, body) = (*id, ready!(body.poll(stall, cx)));
                    self.claim(id, body, intake)
                }
                Stage::Claiming { claimed, verdict } => {
                    let verdict = ready!(verdict.as_mut().poll(cx));
                    let claimed = claimed.take();
                    Some(self.conclude(claimed, verdict, intake))
                }
            };
            if let Some(decided) = decided {
                return Poll::Ready(decided);
            }
        }
    }

    /// Reads the key, and takes the body out of its request.
    fn begin(&mut self, intake: &mut Intake) -> Option<Decided> {
        let id = match self.record_id(intake) {
            Ok(Some(id)) => id,
            // What stands between the layer and the handler has taken the key away.
            Ok(None) => return Some(unkeyed(self.policy, Some(&self.idem), intake)),
            Err(problem) => return Some(self.refuse(None, Outcome::Refused, problem)),
        };
        match BodyReader::new(intake) {
            Ok(body) => {
                self.stage = Stage::Reading { id, body };
                None
            }
            Err(problem) => Some(self.refuse(Some(id), Outcome::Refused, problem)),
        }
    }

    /// Names the record that the request is about.
    fn record_id(&self, intake: &Intake) -> Result<Option<RecordId>, Problem> {
        let headers = intake.request.headers();
        match key::parse(headers, self.idem.dialect()).map_err(Problem::key_invalid)? {
            None => Ok(None),
            Some(key) => match &intake.scope {
                Ok(scope) => Ok(Some(self.idem.record_id(scope, &key))),
                Err(missing) => Err(Problem::scope_missing(*missing)),
            },
        }
    }

    /// Asks the store; gives what is decided where it answers at once.
    fn claim(
        &mut self,
        id: RecordId,
        body: Result<Bytes, Problem>,
        intake: &mut Intake,
    ) -> Option<Decided> {
        let body = match body {
            Ok(body) => body,
            Err(problem) => return Some(self.refuse(Some(id), Outcome::Refused, problem)),
        };
        let fingerprint = self
            .idem
            .fingerprint(&intake.request, &body, self.policy.fingerprint);
        let claiming = Claiming::new(self.policy, &self.idem, id, fingerprint);
        let claimed = Claimed {
            id,
            fingerprint,
            body,
        };
        match claiming.ask(&self.idem) {
            Ok(verdict) => Some(self.conclude(claimed, verdict, intake)),
            Err(asked) => {
                let idem = self.idem.clone();
                let verdict = Box::pin(async move { claiming.settle(&idem, asked).await });
                self.stage = Stage::Claiming { claimed, verdict };
                None
            }
        }
    }

    /// Acts on the store's word.
    fn conclude(
        &self,
        claimed: Claimed,
        verdict: Result<Verdict, StoreError>,
        intake: &mut Intake,
    ) -> Decided {
        let id = Some(claimed.id);
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::error!(
                    target: crate::TARGET,
                    endpoint = self.policy.endpoint,
                    error = &error as &dyn std::error::Error,
                    fails_open = self.idem.fails_open(),
                    "the store could not answer a claim"
                );
                if self.idem.fails_open() {
                    self.decided(id, Outcome::Bypassed);
                    *intake.request.body_mut() = Body::from(claimed.body);
                    return Decided::Run(Lease::None(Unprotected::Degraded));
                }
                return self.refuse(id, Outcome::StoreError, Problem::store_unavailable());
            }
        };
        let outcome = verdict.decision.outcome();
        let problem = match verdict.decision {
            Decision::Run { fence, attempt } => {
                self.decided(id, outcome);
                let holder = Holder {
                    id: claimed.id,
                    owner: verdict.owner,
                    fence,
                };
                *intake.request.body_mut() = Body::from(claimed.body);
                // The last argument may be it, or ask for it, and is extracted after this.
                let known = Attempt::claim(
                    intake.request.extensions_mut(),
                    attempt::Claimed {
                        holder,
                        fingerprint: claimed.fingerprint,
                        number: attempt,
                    },
                );
                return Decided::Run(Lease::Held(Running::new(
                    self.policy,
                    self.idem.clone(),
                    holder,
                    claimed.fingerprint,
                    &verdict,
                    known,
                )));
            }
            Decision::Replay(record) => {
                self.decided(id, outcome);
                return Decided::Answer(self.idem.replay(&record));
            }
            Decision::ReplayUnwritten(record) => {
                self.decided(id, outcome);
                return Decided::Answer(degraded::unrecorded(self.idem.replay(&record)));
            }
            Decision::Mismatch => Problem::key_reused(),
            Decision::InFlight => Problem::key_in_flight(),
            Decision::Unknown => Problem::outcome_unknown(),
            Decision::Full => Problem::capacity(),
        };
        self.refuse(id, outcome, problem)
    }

    fn refuse(&self, id: Option<RecordId>, outcome: Outcome, problem: Problem) -> Decided {
        self.decided(id, outcome);
        Decided::Answer(self.idem.refuse(problem))
    }

    fn decided(&self, id: Option<RecordId>, outcome: Outcome) {
        trace::decided(self.policy.endpoint, id.as_ref(), outcome);
    }
}

/// Decides what becomes of a request without a key: it runs unprotected, unless its endpoint asks
/// for one.
pub(crate) fn unkeyed(
    policy: &'static Policy,
    idem: Option<&Idempotency>,
    intake: &Intake,
) -> Decided {
    if !policy.required || intake.request.method().is_safe() {
        trace::decided(policy.endpoint, None, Outcome::Bypassed);
        return Decided::Run(Lease::None(Unprotected::Unkeyed));
    }
    trace::decided(policy.endpoint, None, Outcome::Refused);
    let problem = Problem::key_missing();
    Decided::Answer(match idem {
        Some(idem) => idem.refuse(problem),
        // A layer above, if there is one, renders it in the service's own way.
        None => problem.into_response(),
    })
}

/// Refuses a request with a key that came through no `Idempotency`: it must not run unprotected.
pub(crate) fn not_installed(policy: &'static Policy) -> Decided {
    tracing::error!(
        target: crate::TARGET,
        endpoint = policy.endpoint,
        "a request with an idempotency key was refused: no `Idempotency` layer saw its key; add \
         `.layer(idempotency)` after the last `.route(…)`, and above it any middleware that sets the \
         key"
    );
    trace::decided(policy.endpoint, None, Outcome::Refused);
    // A layer above that did not see the key renders it in the service's own way.
    Decided::Answer(Problem::not_installed().into_response())
}
