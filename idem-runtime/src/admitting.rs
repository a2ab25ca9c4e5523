//! A guarded request, from its decision to the start of its handler and on to its answer.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::Response;

use crate::deciding::{Decided, Deciding};
use crate::deferred::{Extraction, Pending};
use crate::lease::Lease;
use crate::running::{BoxFuture, Running};

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

    /// The lease and the last argument, once: when the handler is to begin.
    pub(crate) fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Option<(Lease, T)> {
        loop {
            *self = match self {
                Self::Deciding { deciding, pending } => {
                    match deciding.poll(pending.as_mut()?.intake(), cx) {
                        Poll::Ready(decided) => Self::decided(decided, pending.take()?),
                        Poll::Pending => return None,
                    }
                }
                Self::Extracting { lease, extraction } => match extraction.as_mut().poll(cx) {
                    Poll::Ready(extracted) => {
                        let Self::Extracting { lease, .. } = mem::replace(self, Self::Admitted)
                        else {
                            return None;
                        };
                        match extracted {
                            Ok(argument) => return Some((lease, argument)),
                            Err(rejection) => Self::Rejecting(Box::pin(lease.reject(rejection))),
                        }
                    }
                    Poll::Pending => {
                        lease.keep(cx);
                        return None;
                    }
                },
                Self::Rejecting(rejected) => match rejected.as_mut().poll(cx) {
                    Poll::Ready(response) => Self::Answered(Some(response)),
                    Poll::Pending => return None,
                },
                Self::Answered(_) | Self::Running(_) | Self::Admitted => return None,
            }
        }
    }

    /// Runs the handler under its lease.
    pub(crate) fn begin(&mut self, mut running: Running, handler: BoxFuture<Response>) {
        running.handle(handler);
        *self = Self::Running(running);
    }

    /// The answer to a request whose handler runs under a lease, or does not run.
    pub(crate) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        match self {
            Self::Running(running) => Pin::new(running).poll(cx),
            Self::Answered(response) => match response.take() {
                Some(response) => Poll::Ready(response),
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}
