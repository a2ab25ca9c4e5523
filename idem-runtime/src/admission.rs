//! A request's way up to its handler: key, scope, body, claim, extraction.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};

use crate::attempt::Attempt;
use crate::decision::Decision;
use crate::deferred::{Deferred, Pending, State};
use crate::dialect::Dialect;
use crate::fingerprint::Fingerprint;
use crate::idempotency::Idempotency;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::record_id::RecordId;
use crate::scope::{ScopeMissing, ScopeReader};
use crate::store::Holder;
use crate::trace::{self, Outcome};
use crate::{claiming, key, request_body};

impl Policy {
    /// Decides whether the handler runs, by the [`Idempotency`] that the request came through.
    ///
    /// `scope` is called at once and only for a request with a key, so that nothing which it
    /// borrows is held while the store is asked.
    pub fn admit<T, const LAZY: bool>(
        &'static self,
        body: Deferred<T, LAZY>,
        scope: impl FnOnce(ScopeReader<'_>) -> Result<ScopeReader<'_>, ScopeMissing>,
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
        scope: impl FnOnce(ScopeReader<'_>) -> Result<ScopeReader<'_>, ScopeMissing>,
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

    fn bypass<T>(&'static self, argument: T) -> Admission<T> {
        trace::decided(self.endpoint, None, Outcome::Bypassed);
        Admission::ready(Ok((Lease::unprotected(), argument)))
    }

    fn admit_request<T: Send + 'static>(
        &'static self,
        mut pending: Box<dyn Pending<T>>,
        idem: Option<Idempotency>,
        scope: impl FnOnce(ScopeReader<'_>) -> Result<ScopeReader<'_>, ScopeMissing>,
    ) -> Admission<T> {
        match self.record_of(pending.request_mut(), idem, scope) {
            Ok(Some((idem, id))) => Admission::pending(async move {
                let lease = self.claim(idem, id, pending.request_mut()).await?;
                match pending.extract().await {
                    Ok(argument) => Ok((lease, argument)),
                    Err(rejection) => Err(lease.reject(rejection).await),
                }
            }),
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
        scope: impl FnOnce(ScopeReader<'_>) -> Result<ScopeReader<'_>, ScopeMissing>,
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

    /// Reads the body and claims the record; gives the lease under which the handler may run.
    async fn claim(
        &'static self,
        idem: Idempotency,
        id: RecordId,
        request: &mut Request,
    ) -> Result<Lease, Response> {
        let decided = |outcome| trace::decided(self.endpoint, Some(&id), outcome);
        let body = request_body::read(request, idem.body_timeout())
            .await
            .map_err(|problem| {
                decided(Outcome::Refused);
                idem.refuse(problem)
            })?;
        let fingerprint = Fingerprint::of(request, &body, self.fingerprint);
        *request.body_mut() = Body::from(body);

        let verdict = match claiming::claim(self, &idem, id, fingerprint).await {
            Ok(verdict) => verdict,
            Err(error) => {
                decided(Outcome::StoreError);
                tracing::error!(
                    target: crate::TARGET,
                    endpoint = self.endpoint,
                    error = &error as &dyn std::error::Error,
                    fails_open = idem.fails_open(),
                    "the store could not answer a claim"
                );
                if idem.fails_open() {
                    decided(Outcome::Bypassed);
                    return Ok(Lease::degraded());
                }
                return Err(idem.refuse(Problem::store_unavailable()));
            }
        };
        decided(verdict.decision.outcome());
        let problem = match verdict.decision {
            Decision::Run {
                fence,
                attempt: number,
            } => {
                let holder = Holder {
                    id,
                    owner: verdict.owner,
                    fence,
                };
                // The last argument may be it, or ask for it, and is extracted after this.
                let attempt = Attempt::of(request.extensions_mut());
                attempt.claimed(holder, number);
                return Ok(Lease::held(
                    self,
                    idem,
                    holder,
                    fingerprint,
                    verdict.asked_at,
                    attempt,
                ));
            }
            Decision::Replay(record) => return Err(idem.replay(&record)),
            Decision::Mismatch => Problem::key_reused(),
            Decision::InFlight { .. } => Problem::key_in_flight(),
            Decision::Unknown => Problem::outcome_unknown(),
            Decision::Full => Problem::capacity(),
        };
        Err(idem.refuse(problem))
    }
}

/// The future of [`Policy::admit`]: the lease and the last argument, or the answer instead of them.
#[must_use = "nothing is decided until it is awaited"]
pub struct Admission<T>(Progress<T>);

type Admitted<T> = Result<(Lease, T), Response>;

enum Progress<T> {
    Ready(Option<Admitted<T>>),
    Pending(Pin<Box<dyn Future<Output = Admitted<T>> + Send>>),
}

impl<T> Admission<T> {
    fn ready(admitted: Admitted<T>) -> Self {
        Self(Progress::Ready(Some(admitted)))
    }

    fn pending(admitted: impl Future<Output = Admitted<T>> + Send + 'static) -> Self {
        Self(Progress::Pending(Box::pin(admitted)))
    }
}

/// Nothing in it is pinned in place: what is ready is moved out, the rest is boxed.
impl<T> Unpin for Admission<T> {}

impl<T> Future for Admission<T> {
    type Output = Admitted<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Progress::Ready(admitted) => {
                Poll::Ready(admitted.take().expect("polled after completion"))
            }
            Progress::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Admission<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}
