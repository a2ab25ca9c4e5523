//! Runs one request: claims the key, extracts the last argument, runs the handler.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};

use crate::attempt::handling::{BoxFuture, BoxHandler};
use crate::attempt::running::Running;
use crate::claim::claiming::{ClaimOutcome, Claiming};
use crate::claim::unprotected::Unprotected;
#[cfg(feature = "testing")]
use crate::handler::deferred::Observer;
use crate::handler::deferred::{Extraction, PendingExtraction};
use crate::handler::protection::Protection;

const ENDED: &str = "polled after completion";

/// How a request reaches its handler.
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost each request with a key one more allocation"
)]
pub(crate) enum Way<T> {
    /// The request has no key, so there is nothing to wait for.
    Open(T),
    Guarded(Guarded<T>),
}

/// The return type of a handler: any type that implements `IntoResponse`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the response of a handler, because it does not implement `IntoResponse`",
    label = "not `IntoResponse`",
    note = "wrap it, as in `Json<Trade>`, or implement `IntoResponse` for it"
)]
pub trait HandlerOutput: IntoResponse {}

impl<T: IntoResponse> HandlerOutput for T {}

/// The future of [`Admission::run`](crate::handler::admission::Admission::run), in a box.
///
/// The box hides the types of the handler from axum and tower. They would be part of the name of every type and
/// function that axum and tower have for the handler, and the compiler would prove for each of them that the states
/// below are `Send`. `benches/compile_time.sh` measures what that costs.
pub(super) struct Run(BoxHandler);

impl Run {
    // Inlined into every handler, it would contain `begin` once more.
    #[inline(never)]
    pub(super) fn new<T: Send + 'static>(way: Way<T>, handler: &mut dyn Begin<T>) -> Self {
        Self(match way {
            Way::Open(argument) => handler.begin(argument),
            Way::Guarded(guarded) => handler.guard(guarded),
        })
    }
}

impl Future for Run {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.0.as_mut().poll_response(cx)
    }
}

/// A request that may need a claim, with its handler.
///
/// Compiled once for each handler. Code that is the same for all handlers is in other types.
struct GuardedRun<T, H> {
    guarded: Guarded<T>,
    // `None` after the handler has started.
    handler: Option<H>,
}

impl<T, H> Future for GuardedRun<T, H>
where
    T: Send + 'static,
    Option<H>: Begin<T>,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let run = self.get_mut();
        run.guarded.poll(&mut run.handler, cx)
    }
}

// `handler` is called by value, and its future has a box of its own.
impl<T, H> Unpin for GuardedRun<T, H> {}

/// The states of a request that may need a claim.
pub(crate) enum Guarded<T> {
    Claiming {
        claiming: Claiming,
        pending: Option<Box<dyn PendingExtraction<T>>>,
    },
    /// `extraction` is dropped first, because a retry may run as soon as `protection` gives the key back.
    Extracting {
        extraction: Extraction<T>,
        protection: Protection,
    },
    /// Settles the attempt after a rejection by the body extractor.
    Rejecting(BoxFuture<Response>),
    Responded(Option<Response>),
    Running(Running),
    /// The handler runs without a lease.
    Unprotected(BoxHandler, Unprotected),
    /// A unit test calls the handler and wants its return value.
    #[cfg(feature = "testing")]
    Observed(Option<(T, Observer)>),
    /// A placeholder while the state changes.
    Ended,
}

impl<T: Send + 'static> Guarded<T> {
    /// Returns the state after the claim phase, or after a claim phase that was skipped.
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
            ClaimOutcome::Respond(response) => Self::Responded(Some(response)),
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

    /// Polls for the response. Calls `begin` to create the future of the handler when the request
    /// is admitted.
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
                        unreachable!("the state is `Extracting`");
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
                    Self::Responded(Some(ready!(rejected.as_mut().poll(cx))))
                }
                Self::Running(running) => return Pin::new(running).poll(cx),
                Self::Unprotected(handler, why) => {
                    let why = *why;
                    let polled = handler.as_mut().poll_response(cx);
                    return polled.map(|response| why.mark(response));
                }
                #[cfg(feature = "testing")]
                Self::Observed(call) => {
                    let (argument, observer) = call.take().expect(ENDED);
                    let handler = begin.begin_observed(argument, observer);
                    Self::Unprotected(handler, Unprotected::Unkeyed)
                }
                Self::Responded(response) => {
                    return Poll::Ready(response.take().expect(ENDED));
                }
                Self::Ended => ended(),
            }
        }
    }
}

fn ended() -> ! {
    panic!("{ENDED}")
}

/// A handler that has not started. Each method takes the handler, so only one of them can be called.
pub(crate) trait Begin<T> {
    /// Creates the future of the handler from its last argument.
    fn begin(&mut self, argument: T) -> BoxHandler;

    /// Lets the handler wait for a claim.
    fn guard(&mut self, guarded: Guarded<T>) -> BoxHandler;

    /// Like `begin`, and passes the return value of the handler to `observer`.
    #[cfg(feature = "testing")]
    fn begin_observed(&mut self, argument: T, observer: Observer) -> BoxHandler;
}

impl<T, H, F> Begin<T> for Option<H>
where
    T: Send + 'static,
    H: FnOnce(T) -> F + Send + 'static,
    F: Future<Output: HandlerOutput> + Send + 'static,
{
    fn begin(&mut self, argument: T) -> BoxHandler {
        match self.take() {
            Some(handler) => Box::pin(handler(argument)),
            None => ended(),
        }
    }

    fn guard(&mut self, guarded: Guarded<T>) -> BoxHandler {
        Box::pin(GuardedRun {
            guarded,
            handler: self.take(),
        })
    }

    #[cfg(feature = "testing")]
    fn begin_observed(&mut self, argument: T, observer: Observer) -> BoxHandler {
        match self.take() {
            Some(handler) => {
                let handler = handler(argument);
                Box::pin(async move {
                    let mut returned = Some(handler.await);
                    observer(&mut returned, std::any::type_name::<F::Output>());
                    match returned {
                        Some(returned) => returned.into_response(),
                        None => Response::default(),
                    }
                })
            }
            None => ended(),
        }
    }
}
