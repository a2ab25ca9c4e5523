//! A request with a key, up to its claim and the extraction of its last argument.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;

use crate::admission::Keyed;
use crate::attempt::Attempt;
use crate::claiming::{Claiming, Verdict};
use crate::decision::Decision;
use crate::deferred::{Extraction, Pending};
use crate::fingerprint::Fingerprint;
use crate::idempotency::Idempotency;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::record_id::RecordId;
use crate::request_body::BodyReader;
use crate::running::{BoxFuture, Running};
use crate::store::{Holder, StoreError};
use crate::trace::{self, Outcome};

/// A request whose record is known by name, on its way to a claim.
pub(crate) struct Identified {
    pub(crate) policy: &'static Policy,
    pub(crate) idem: Idempotency,
    pub(crate) id: RecordId,
}

impl Identified {
    /// Where the body is there and the store answers at once, this waits for nothing.
    pub(crate) fn admit<T: Send + 'static>(self, mut pending: Box<dyn Pending<T>>) -> Admitting<T> {
        let request = pending.request_mut();
        let mut reader = match BodyReader::new(request) {
            Ok(reader) => reader,
            Err(problem) => return Admitting::refused(self.refuse(Outcome::Refused, problem)),
        };
        let Some(body) = reader.read_now() else {
            return Admitting::deciding(async move {
                let body = reader.read(self.idem.body_timeout()).await;
                self.admit_whole(pending, body)
            });
        };
        self.admit_whole(pending, body)
    }

    fn admit_whole<T: Send + 'static>(
        self,
        mut pending: Box<dyn Pending<T>>,
        body: Result<Bytes, Problem>,
    ) -> Admitting<T> {
        let body = match body {
            Ok(body) => body,
            Err(problem) => return Admitting::refused(self.refuse(Outcome::Refused, problem)),
        };
        let request = pending.request_mut();
        let fingerprint = self
            .idem
            .fingerprint(request, &body, self.policy.fingerprint);
        let claiming = Claiming::new(self.policy, &self.idem, self.id, fingerprint);
        match claiming.ask(&self.idem) {
            Ok(verdict) => self.conclude(pending, body, fingerprint, verdict),
            Err(asked) => Admitting::deciding(async move {
                let verdict = claiming.settle(&self.idem, asked).await;
                self.conclude(pending, body, fingerprint, verdict)
            }),
        }
    }

    fn conclude<T: Send + 'static>(
        self,
        mut pending: Box<dyn Pending<T>>,
        body: Bytes,
        fingerprint: Fingerprint,
        verdict: Result<Verdict, StoreError>,
    ) -> Admitting<T> {
        let request = pending.request_mut();
        match self.lease(request, fingerprint, verdict) {
            Ok(lease) => {
                *request.body_mut() = Body::from(body);
                Admitting::Extracting {
                    lease,
                    extraction: pending.extract(),
                }
            }
            Err(answer) => Admitting::refused(answer),
        }
    }

    /// Acts on the store's word: the handler runs, or this is the answer.
    #[expect(
        clippy::result_large_err,
        reason = "the refusal is the answer itself, and moves once"
    )]
    fn lease(
        self,
        request: &mut Request,
        fingerprint: Fingerprint,
        verdict: Result<Verdict, StoreError>,
    ) -> Result<Lease, Response> {
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
                    return Ok(Lease::Degraded);
                }
                return Err(self.refuse(Outcome::StoreError, Problem::store_unavailable()));
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
                let attempt = Attempt::of(request.extensions_mut());
                attempt.claimed(holder, number);
                let running = Running::new(
                    self.policy,
                    self.idem,
                    holder,
                    fingerprint,
                    verdict.asked_at,
                    attempt,
                );
                return Ok(Lease::Held(running));
            }
            Decision::Replay(record) => {
                self.decided(outcome);
                return Err(self.idem.replay(&record));
            }
            Decision::Mismatch => Problem::key_reused(),
            Decision::InFlight => Problem::key_in_flight(),
            Decision::Unknown => Problem::outcome_unknown(),
            Decision::Full => Problem::capacity(),
        };
        Err(self.refuse(outcome, problem))
    }

    fn refuse(&self, outcome: Outcome, problem: Problem) -> Response {
        self.decided(outcome);
        self.idem.refuse(problem)
    }

    fn decided(&self, outcome: Outcome) {
        trace::decided(self.policy.endpoint, Some(&self.id), outcome);
    }
}

/// A request from its claim to the start of its handler, or to the answer that it gets instead.
pub(crate) enum Admitting<T> {
    /// Without a key: there is nothing to wait for.
    Extracted(Option<T>),
    Keyed(Option<(Keyed, Box<dyn Pending<T>>)>),
    /// Waits for the body or for the store.
    Deciding(Pin<Box<dyn Future<Output = Self> + Send>>),
    Extracting {
        lease: Lease,
        extraction: Extraction<T>,
    },
    /// Settles what the body extractor refused.
    Rejecting(BoxFuture<Response>),
    Refused(Option<Response>),
    Running(Lease),
}

impl<T: Send + 'static> Admitting<T> {
    pub(crate) fn refused(response: Response) -> Self {
        Self::Refused(Some(response))
    }

    fn deciding(next: impl Future<Output = Self> + Send + 'static) -> Self {
        Self::Deciding(Box::pin(next))
    }

    /// The last argument, once: when the handler is to begin.
    pub(crate) fn poll_argument(&mut self, cx: &mut Context<'_>) -> Option<T> {
        loop {
            *self = match self {
                Self::Extracted(argument) => {
                    let argument = argument.take();
                    *self = Self::Running(Lease::Unprotected);
                    return argument;
                }
                Self::Keyed(keyed) => {
                    let (keyed, mut pending) = keyed.take()?;
                    match keyed.identify(pending.request_mut()) {
                        Ok(identified) => identified.admit(pending),
                        Err(refusal) => Self::refused(refusal),
                    }
                }
                Self::Deciding(next) => match next.as_mut().poll(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => return None,
                },
                Self::Extracting { lease, extraction } => match extraction.as_mut().poll(cx) {
                    Poll::Ready(Ok(argument)) => {
                        *self = Self::Running(lease.take());
                        return Some(argument);
                    }
                    Poll::Ready(Err(rejection)) => {
                        Self::Rejecting(Box::pin(lease.take().reject(rejection)))
                    }
                    Poll::Pending => return None,
                },
                Self::Rejecting(rejected) => match rejected.as_mut().poll(cx) {
                    Poll::Ready(response) => Self::refused(response),
                    Poll::Pending => return None,
                },
                Self::Refused(_) | Self::Running(_) => return None,
            }
        }
    }

    /// The lease that the handler runs under, if it does.
    pub(crate) fn lease(&mut self) -> Option<&mut Running> {
        match self {
            Self::Running(Lease::Held(running)) => Some(running),
            _ => None,
        }
    }

    /// The answer to the request, from `unprotected` where the handler runs so.
    pub(crate) fn poll_answer(
        &mut self,
        unprotected: Option<Pin<&mut dyn Future<Output = Response>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Response> {
        match (self, unprotected) {
            (Self::Running(Lease::Held(running)), _) => Pin::new(running).poll(cx),
            (Self::Running(lease), Some(handler)) => {
                handler.poll(cx).map(|response| lease.mark(response))
            }
            (Self::Refused(response), _) => match response.take() {
                Some(response) => Poll::Ready(response),
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}
