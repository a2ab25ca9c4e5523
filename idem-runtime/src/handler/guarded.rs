//! A guarded request, from its decision to the start of its handler and on to its answer.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::Response;

use crate::attempt::running::{BoxFuture, Running};
use crate::claim::claiming::{Decided, Deciding};
use crate::handler::deferred::{Extraction, Pending};
use crate::handler::protection::{Lease, Unprotected};
use crate::handler::run::Begin;

/// A guarded request on its way to its handler, or to the answer that it gets instead.
pub(crate) enum Admitting<T> {
    Deciding {
        deciding: Deciding,
        pending: Option<Box<dyn Pending<T>>>,
    },
    Extracting {
        lease: Lease,
        extraction: Extraction<T>,
    },
    /// Settles what the body extractor refused.
    Rejecting(BoxFuture<Response>),
    Answered(Option<Response>),
    Running(Running),
    /// Without a lease.
    Unprotected(BoxFuture<Response>, Unprotected),
    /// The handler has its argument.
    Admitted,
}

impl<T: Send + 'static> Admitting<T> {
    /// Acts on what was decided about a request.
    pub(crate) fn decided(decided: Decided, pending: Box<dyn Pending<T>>) -> Self {
        match decided {
            Decided::Run(lease) => Self::Extracting {
                lease,
                extraction: pending.extract(),
            },
            Decided::Answer(answer) => Self::Answered(Some(answer)),
        }
    }

    /// The answer to the request, from the handler that `begin` makes where it is admitted.
    pub(crate) fn poll(
        &mut self,
        begin: &mut dyn Begin<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Response> {
        loop {
            *self = match self {
                Self::Deciding { deciding, pending } => {
                    let Some(intake) = pending.as_mut().map(|pending| pending.intake()) else {
                        return Poll::Pending;
                    };
                    let decided = ready!(deciding.poll(intake, cx));
                    let Some(pending) = pending.take() else {
                        return Poll::Pending;
                    };
                    Self::decided(decided, pending)
                }
                Self::Extracting { lease, extraction } => match extraction.poll(cx) {
                    Poll::Ready(extracted) => {
                        let Self::Extracting { lease, .. } = mem::replace(self, Self::Admitted)
                        else {
                            return Poll::Pending;
                        };
                        match extracted {
                            Ok(argument) => {
                                let Some(handler) = begin.begin(argument) else {
                                    return Poll::Pending;
                                };
                                match lease {
                                    Lease::Held(mut running) => {
                                        running.handle(handler);
                                        Self::Running(running)
                                    }
                                    Lease::None(why) => Self::Unprotected(handler, why),
                                }
                            }
                            Err(rejection) => Self::Rejecting(Box::pin(lease.reject(rejection))),
                        }
                    }
                    Poll::Pending => {
                        lease.keep();
                        return Poll::Pending;
                    }
                },
                Self::Rejecting(rejected) => {
                    Self::Answered(Some(ready!(rejected.as_mut().poll(cx))))
                }
                Self::Running(running) => return Pin::new(running).poll(cx),
                Self::Unprotected(handler, why) => {
                    let why = *why;
                    return handler.as_mut().poll(cx).map(|response| why.mark(response));
                }
                Self::Answered(response) => {
                    return response.take().map_or(Poll::Pending, Poll::Ready);
                }
                Self::Admitted => return Poll::Pending,
            }
        }
    }
}
