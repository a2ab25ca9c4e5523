//! One request: claim, extract, run the handler.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::attempt::running::{BoxFuture, Running};
use crate::claim::claiming::{ClaimOutcome, Claiming};
use crate::claim::unprotected::Unprotected;
use crate::handler::deferred::{Extraction, PendingExtraction};
use crate::handler::protection::Protection;

const ENDED: &str = "polled after completion";

/// Which way a request goes to its handler.
pub(crate) enum Way<T> {
    /// Without a key: there is nothing to wait for.
    Open(T),
    Guarded(Guarded<T>),
}

impl<T: Send + 'static> Way<T> {
    pub(super) fn run<H, F>(self, handler: H) -> Run<T, H, F>
    where
        H: FnOnce(T) -> F,
        F: Future<Output: Answer> + Send + 'static,
    {
        match self {
            Self::Open(argument) => Run::Open {
                handler: Responding {
                    handler: handler(argument),
                },
            },
            Self::Guarded(guarded) => Run::Guarded {
                guarded,
                handler: Some(handler),
            },
        }
    }
}

/// What a handler can answer: anything that is `IntoResponse`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the answer of a handler, for it is not `IntoResponse`",
    label = "not `IntoResponse`",
    note = "wrap it, as in `Json<Trade>`, or implement `IntoResponse` for it"
)]
pub trait Answer: IntoResponse {}

impl<T: IntoResponse> Answer for T {}

pin_project! {
    /// The future of [`Admission::run`].
    ///
    /// For each handler it is compiled anew: whatever is the same for all of them stands elsewhere.
    #[project = RunProjection]
    pub(super) enum Run<T, H, F> {
        Open {
            #[pin]
            handler: Responding<F>,
        },
        Guarded {
            guarded: Guarded<T>,
            // `None` once it has begun.
            handler: Option<H>,
        },
    }
}

impl<T, H, F> Future for Run<T, H, F>
where
    T: Send + 'static,
    H: FnOnce(T) -> F,
    F: Future<Output: Answer> + Send + 'static,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        match self.project() {
            RunProjection::Open { handler } => handler.poll(cx),
            RunProjection::Guarded { guarded, handler } => guarded.poll(handler, cx),
        }
    }
}

/// A request that may need a claim, on its way to its handler or to the response that it gets instead.
pub(crate) enum Guarded<T> {
    Claiming {
        claiming: Claiming,
        pending: Option<Box<dyn PendingExtraction<T>>>,
    },
    Extracting {
        protection: Protection,
        extraction: Extraction<T>,
    },
    /// Settles what the body extractor refused.
    Rejecting(BoxFuture<Response>),
    Answered(Option<Response>),
    Running(Running),
    /// Without a lease.
    Unprotected(BoxFuture<Response>, Unprotected),
    /// Only while the state changes.
    Ended,
}

impl<T: Send + 'static> Guarded<T> {
    /// Continues after the claim phase, or without one.
    pub(crate) fn after(outcome: ClaimOutcome, mut pending: Box<dyn PendingExtraction<T>>) -> Self {
        match outcome {
            ClaimOutcome::Won(won) => {
                let running = Running::new(won, pending.intake().request.extensions_mut());
                Self::Extracting {
                    protection: Protection::Leased(running),
                    extraction: pending.extract(),
                }
            }
            ClaimOutcome::Unprotected(why) => Self::Extracting {
                protection: Protection::None(why),
                extraction: pending.extract(),
            },
            ClaimOutcome::Answer(answer) => Self::Answered(Some(answer)),
        }
    }

    /// Ends a body extraction that has run for as long as it may. Drops the extractor before the key is
    /// given back, because a retry may run as soon as the key is free.
    fn time_out(&mut self) -> Self {
        match mem::replace(self, Self::Ended) {
            Self::Extracting {
                protection: Protection::Leased(running),
                extraction,
            } => {
                drop(extraction);
                Self::Running(running.time_out())
            }
            other => other,
        }
    }

    /// The response to the request, from the handler that `begin` makes once it is admitted.
    pub(crate) fn poll(
        &mut self,
        begin: &mut dyn Begin<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Response> {
        loop {
            *self = match self {
                Self::Claiming { claiming, pending } => {
                    let waiting = pending.as_mut().expect(ENDED);
                    let outcome = ready!(claiming.poll(waiting.intake(), cx));
                    Self::after(outcome, pending.take().expect(ENDED))
                }
                Self::Extracting {
                    protection: Protection::Leased(running),
                    ..
                } if running.is_over() => self.time_out(),
                Self::Extracting {
                    protection,
                    extraction,
                } => {
                    let Poll::Ready(extracted) = extraction.poll(cx) else {
                        protection.keep(cx);
                        return Poll::Pending;
                    };
                    let Self::Extracting { protection, .. } = mem::replace(self, Self::Ended)
                    else {
                        unreachable!("it is extracting");
                    };
                    match (extracted, protection) {
                        (Err(rejection), protection) => {
                            Self::Rejecting(Box::pin(protection.reject(rejection)))
                        }
                        (Ok(argument), Protection::Leased(mut running)) => {
                            running.handle(begin.begin(argument));
                            Self::Running(running)
                        }
                        (Ok(argument), Protection::None(why)) => {
                            Self::Unprotected(begin.begin(argument), why)
                        }
                    }
                }
                Self::Rejecting(rejected) => {
                    Self::Answered(Some(ready!(rejected.as_mut().poll(cx))))
                }
                Self::Running(running) => return Pin::new(running).poll(cx),
                Self::Unprotected(handler, why) => {
                    let why = *why;
                    return handler.as_mut().poll(cx).map(|response| why.mark(response));
                }
                Self::Answered(response) => {
                    return Poll::Ready(response.take().expect(ENDED));
                }
                Self::Ended => panic!("{ENDED}"),
            }
        }
    }
}

/// Makes the handler's future from its last argument, once.
pub(crate) trait Begin<T> {
    fn begin(&mut self, argument: T) -> BoxFuture<Response>;
}

impl<T, H, F> Begin<T> for Option<H>
where
    H: FnOnce(T) -> F,
    F: Future<Output: Answer> + Send + 'static,
{
    fn begin(&mut self, argument: T) -> BoxFuture<Response> {
        let handler = self.take().expect(ENDED);
        Box::pin(Responding {
            handler: handler(argument),
        })
    }
}

pin_project! {
    /// The handler, and its answer as a response. A type of its own and no `async` block, for it is
    /// compiled anew for each handler.
    struct Responding<F> {
        #[pin]
        handler: F,
    }
}

impl<F> Future for Responding<F>
where
    F: Future<Output: IntoResponse>,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let polled = self.project().handler.poll(cx);
        polled.map(IntoResponse::into_response)
    }
}
