//! The states of a request that may need a claim.
//!
//! Compiled once for all handlers.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use axum::response::Response;

use crate::attempt::handling::{BoxFuture, BoxHandler};
use crate::attempt::running::Running;
use crate::claim::claiming::{self, ClaimOutcome, Claiming};
use crate::claim::unprotected::Unprotected;
use crate::handler::protection::Protection;
use crate::request::intake::Intake;
use crate::service::idempotency::Idempotency;
use crate::settings::policy::{KeySource, Policy};

/// The call of a handler, whose last argument is not extracted yet.
pub(crate) trait Call {
    /// Returns the request. Its last argument has not been extracted.
    fn intake(&mut self) -> &mut Intake;

    /// Begins to extract the last argument.
    fn extract(&mut self);

    /// Polls the extraction. Returns the future of the handler, or the rejection.
    fn poll_extraction(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxHandler, Response>>;

    /// Drops the extraction before its end.
    fn stop_extraction(&mut self);
}

/// The states of a request that may need a claim.
///
/// The owner drops the [`Call`] before the state. A state releases the key when it is dropped, and then a retry may run.
pub(crate) enum Guarded {
    /// The claim phase was skipped.
    Skipped(Option<ClaimOutcome>),
    Claiming(Claiming),
    Extracting(Protection),
    /// Settles the attempt after a rejection by the body extractor.
    Rejecting(BoxFuture<Response>),
    Running(Running),
    /// The handler runs without a lease.
    Unprotected(BoxHandler, Unprotected),
    /// A placeholder while the state changes.
    Ended,
}

impl Guarded {
    /// Returns the first state of a request. Calls `find` once for the settings of the service, which are `None` without
    /// a layer. With `is_undecided`, the request may have no key.
    pub(crate) fn new(
        policy: &'static Policy,
        intake: &mut Intake,
        is_undecided: bool,
        find: &mut dyn FnMut(&Request) -> Option<Idempotency>,
    ) -> Self {
        let idem = find(&intake.request);
        let may_have_key = match policy.key_source {
            KeySource::Service => {
                !is_undecided || Idempotency::concerns(&intake.request, idem.as_ref())
            }
            KeySource::Endpoint | KeySource::EndpointArgument => {
                idem.is_some() || !intake.request.method().is_safe()
            }
        };
        if !may_have_key {
            return Self::Skipped(Some(claiming::unkeyed(policy, idem.as_ref(), intake)));
        }
        let Some(idem) = idem else {
            return Self::Skipped(Some(claiming::not_installed(policy)));
        };
        let slot = Idempotency::slot_of(&intake.request).cloned();
        Self::Claiming(Claiming::new(policy, idem, slot))
    }

    /// Polls for the response.
    pub(crate) fn poll(&mut self, call: &mut dyn Call, cx: &mut Context<'_>) -> Poll<Response> {
        loop {
            let outcome = match self {
                Self::Skipped(outcome) => outcome.take().expect("taken once"),
                Self::Claiming(claiming) => ready!(claiming.poll(call.intake(), cx)),
                Self::Extracting(Protection::Leased(running)) if running.is_over() => {
                    // A retry may run as soon as the key is released.
                    call.stop_extraction();
                    if let Self::Extracting(Protection::Leased(running)) = self.take() {
                        *self = Self::Running(running.time_out());
                    }
                    continue;
                }
                Self::Extracting(protection) => {
                    let Poll::Ready(extracted) = call.poll_extraction(cx) else {
                        protection.keep(cx);
                        return Poll::Pending;
                    };
                    let Self::Extracting(protection) = self.take() else {
                        unreachable!("the state is `Extracting`");
                    };
                    *self = match (extracted, protection) {
                        (Err(rejection), protection) => {
                            Self::Rejecting(Box::pin(protection.reject(rejection)))
                        }
                        (Ok(handler), Protection::Leased(mut running)) => {
                            running.handle(handler);
                            Self::Running(running)
                        }
                        (Ok(handler), Protection::None(why)) => Self::Unprotected(handler, why),
                    };
                    continue;
                }
                Self::Rejecting(rejected) => return rejected.as_mut().poll(cx),
                Self::Running(running) => return Pin::new(running).poll(cx),
                Self::Unprotected(handler, why) => {
                    let polled = handler.as_mut().poll_response(cx);
                    return polled.map(|response| why.mark(response));
                }
                Self::Ended => panic!("polled after completion"),
            };
            *self = match outcome {
                ClaimOutcome::Won(won) => {
                    let running = Running::new(won, call.intake().request.extensions_mut());
                    call.extract();
                    Self::Extracting(Protection::Leased(running))
                }
                ClaimOutcome::Unprotected(why) => {
                    call.extract();
                    Self::Extracting(Protection::None(why))
                }
                ClaimOutcome::Respond(response) => {
                    *self = Self::Ended;
                    return Poll::Ready(response);
                }
            };
        }
    }

    fn take(&mut self) -> Self {
        mem::replace(self, Self::Ended)
    }
}
