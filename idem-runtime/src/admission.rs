//! A request's way up to its handler: key, scope, body, claim, extraction.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::attempt::Attempt;
use crate::claiming::{Claiming, Verdict};
use crate::decision::Decision;
use crate::deferred::{Deferred, Extraction, Pending, State};
use crate::dialect::Dialect;
use crate::fingerprint::Fingerprint;
use crate::idempotency::Idempotency;
use crate::key;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::record_id::RecordId;
use crate::request_body::BodyReader;
use crate::running::Running;
use crate::scope::{ScopeMissing, ScopeReader};
use crate::store::{Holder, StoreError};
use crate::trace::{self, Outcome};

/// What `scope = …` stands for. Behind a reference, so that what admits a request is compiled once
/// and not for every handler.
type ReadScope<'s> = &'s dyn for<'r> Fn(ScopeReader<'r>) -> Result<ScopeReader<'r>, ScopeMissing>;

impl Policy {
    /// Decides whether the handler runs, by the [`Idempotency`] that the request came through.
    ///
    /// `scope` is called at once and only for a request with a key, so that nothing which it
    /// borrows is held while the store is asked.
    pub fn admit<T, const LAZY: bool>(
        &'static self,
        body: Deferred<T, LAZY>,
        scope: ReadScope<'_>,
    ) -> Admission<T>
    where
        T: Send + 'static,
    {
        match body.0 {
            State::Extracted(argument) => self.bypass(argument),
            State::Pending(mut pending) => {
                let idem = pending.request_mut().extensions().get().cloned();
                self.admit_request(pending, idem, scope)
            }
        }
    }

    /// Decides whether the handler runs, by the [`Idempotency`] that `runtime = …` gives.
    pub fn admit_on<T, R, const LAZY: bool>(
        &'static self,
        body: Deferred<T, LAZY>,
        runtime: impl FnOnce() -> R,
        scope: ReadScope<'_>,
    ) -> Admission<T>
    where
        T: Send + 'static,
        R: Borrow<Idempotency>,
    {
        match body.0 {
            State::Extracted(argument) => self.bypass(argument),
            State::Pending(pending) => {
                let idem = runtime().borrow().clone();
                self.admit_request(pending, Some(idem), scope)
            }
        }
    }

    fn bypass<T: Send + 'static>(&'static self, argument: T) -> Admission<T> {
        trace::decided(self.endpoint, None, Outcome::Bypassed);
        Admission::ready(Ok((Lease::unprotected(), argument)))
    }

    fn admit_request<T: Send + 'static>(
        &'static self,
        mut pending: Box<dyn Pending<T>>,
        idem: Option<Idempotency>,
        scope: ReadScope<'_>,
    ) -> Admission<T> {
        match self.record_of(pending.request_mut(), idem, scope) {
            Ok(Some((idem, id))) => {
                let keyed = Keyed {
                    policy: self,
                    idem,
                    id,
                };
                keyed.admit(pending)
            }
            Ok(None) => {
                trace::decided(self.endpoint, None, Outcome::Bypassed);
                Admission::pending(
                    async move { Ok((Lease::unprotected(), pending.extract().await?)) },
                )
            }
            Err(refusal) => Admission::ready(Err(refusal)),
        }
    }

    /// Reads from the head of the request which record it is about, if any.
    #[expect(
        clippy::result_large_err,
        reason = "the refusal is the answer itself, and moves once"
    )]
    fn record_of(
        &self,
        request: &Request,
        idem: Option<Idempotency>,
        scope: ReadScope<'_>,
    ) -> Result<Option<(Idempotency, RecordId)>, Response> {
        if request.method().is_safe() {
            return Ok(None);
        }
        let headers = request.headers();
        let has_key = idem.as_ref().map_or_else(
            || headers.contains_key(Dialect::DEFAULT_KEY_HEADER),
            |idem| idem.has_key(headers),
        );
        if !has_key && !self.required {
            return Ok(None);
        }
        let refuse = |problem: Problem| {
            trace::decided(self.endpoint, None, Outcome::Refused);
            problem
        };
        if !has_key {
            let problem = refuse(Problem::key_missing());
            return Err(match idem {
                Some(idem) => idem.refuse(problem),
                // A layer above, if there is one, renders it in the service's own way.
                None => problem.into_response(),
            });
        }
        let idem = idem.unwrap_or_else(Idempotency::process_wide);
        let key = match key::parse(headers, idem.dialect()) {
            Ok(Some(key)) => key,
            Ok(None) => return Ok(None),
            Err(reason) => return Err(idem.refuse(refuse(Problem::key_invalid(reason)))),
        };
        match scope(ScopeReader::new(headers)) {
            Ok(scope) => {
                let id = idem.record_id(&scope.into_scope(), &key);
                Ok(Some((idem, id)))
            }
            Err(missing) => Err(idem.refuse(refuse(Problem::scope_missing(missing)))),
        }
    }
}

/// A request with a key, on its way to a claim.
struct Keyed {
    policy: &'static Policy,
    idem: Idempotency,
    id: RecordId,
}

impl Keyed {
    /// Where the body is there and the store answers at once, this waits for nothing.
    fn admit<T: Send + 'static>(self, mut pending: Box<dyn Pending<T>>) -> Admission<T> {
        let request = pending.request_mut();
        let mut reader = match BodyReader::new(request) {
            Ok(reader) => reader,
            Err(problem) => return Admission::ready(Err(self.refuse(Outcome::Refused, problem))),
        };
        let Some(body) = reader.read_now() else {
            return Admission::pending(async move {
                let body = reader.read(self.idem.body_timeout()).await;
                self.admit_whole(pending, body).await
            });
        };
        self.admit_whole(pending, body)
    }

    fn admit_whole<T: Send + 'static>(
        self,
        mut pending: Box<dyn Pending<T>>,
        body: Result<Bytes, Problem>,
    ) -> Admission<T> {
        let body = match body {
            Ok(body) => body,
            Err(problem) => return Admission::ready(Err(self.refuse(Outcome::Refused, problem))),
        };
        let request = pending.request_mut();
        let fingerprint = Fingerprint::of(request, &body, self.policy.fingerprint);
        *request.body_mut() = Body::from(body);
        let claiming = Claiming::new(self.policy, &self.idem, self.id, fingerprint);
        match claiming.ask(&self.idem) {
            Ok(verdict) => self.conclude(pending, fingerprint, verdict),
            Err(asked) => Admission::pending(async move {
                let verdict = claiming.settle(&self.idem, asked).await;
                self.conclude(pending, fingerprint, verdict).await
            }),
        }
    }

    /// Acts on the store's word.
    fn conclude<T: Send + 'static>(
        self,
        mut pending: Box<dyn Pending<T>>,
        fingerprint: Fingerprint,
        verdict: Result<Verdict, StoreError>,
    ) -> Admission<T> {
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
                    self.decided(Outcome::Bypassed);
                    return Admission::extracting(Lease::degraded(), pending);
                }
                let refusal = self.refuse(Outcome::StoreError, Problem::store_unavailable());
                return Admission::ready(Err(refusal));
            }
        };
        let outcome = verdict.decision.outcome();
        let problem = match verdict.decision {
            Decision::Run {
                fence,
                attempt: number,
            } => {
                self.decided(outcome);
                let holder = Holder {
                    id: self.id,
                    owner: verdict.owner,
                    fence,
                };
                // The last argument may be it, or ask for it, and is extracted after this.
                let attempt = Attempt::of(pending.request_mut().extensions_mut());
                attempt.claimed(holder, number);
                let running = Running::new(
                    self.policy,
                    self.idem,
                    holder,
                    fingerprint,
                    verdict.asked_at,
                    attempt,
                );
                return Admission::extracting(Lease::held(running), pending);
            }
            Decision::Replay(record) => {
                self.decided(outcome);
                return Admission::ready(Err(self.idem.replay(&record)));
            }
            Decision::Mismatch => Problem::key_reused(),
            Decision::InFlight => Problem::key_in_flight(),
            Decision::Unknown => Problem::outcome_unknown(),
            Decision::Full => Problem::capacity(),
        };
        Admission::ready(Err(self.refuse(outcome, problem)))
    }

    fn refuse(&self, outcome: Outcome, problem: Problem) -> Response {
        self.decided(outcome);
        self.idem.refuse(problem)
    }

    fn decided(&self, outcome: Outcome) {
        trace::decided(self.policy.endpoint, Some(&self.id), outcome);
    }
}

/// The future of [`Policy::admit`]: the lease and the last argument, or the answer instead of them.
#[must_use = "nothing is decided until it is awaited"]
pub struct Admission<T>(Progress<T>);

type Admitted<T> = Result<(Lease, T), Response>;

enum Progress<T> {
    Ready(Option<Admitted<T>>),
    Extracting {
        lease: Option<Lease>,
        extraction: Extraction<T>,
    },
    Pending(Pin<Box<dyn Future<Output = Admitted<T>> + Send>>),
}

impl<T: Send + 'static> Admission<T> {
    fn ready(admitted: Admitted<T>) -> Self {
        Self(Progress::Ready(Some(admitted)))
    }

    fn extracting(lease: Lease, pending: Box<dyn Pending<T>>) -> Self {
        Self(Progress::Extracting {
            lease: Some(lease),
            extraction: pending.extract(),
        })
    }

    fn pending(admitted: impl Future<Output = Admitted<T>> + Send + 'static) -> Self {
        Self(Progress::Pending(Box::pin(admitted)))
    }
}

/// Nothing in it is pinned in place: what is ready is moved out, the rest is boxed.
impl<T> Unpin for Admission<T> {}

impl<T: Send + 'static> Future for Admission<T> {
    type Output = Admitted<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                Progress::Ready(admitted) => {
                    return Poll::Ready(admitted.take().expect("polled after completion"));
                }
                Progress::Pending(future) => return future.as_mut().poll(cx),
                Progress::Extracting { lease, extraction } => {
                    let extracted = ready!(extraction.as_mut().poll(cx));
                    let lease = lease.take().expect("polled after completion");
                    match extracted {
                        Ok(argument) => return Poll::Ready(Ok((lease, argument))),
                        Err(rejection) => {
                            let rejected = async move { Err(lease.reject(rejection).await) };
                            self.0 = Progress::Pending(Box::pin(rejected));
                        }
                    }
                }
            }
        }
    }
}

impl<T> fmt::Debug for Admission<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
