//! Runs the handler of one request.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};

use crate::attempt::handling::BoxHandler;
#[cfg(feature = "testing")]
use crate::handler::deferred::Observer;
use crate::handler::deferred::{Extraction, PendingExtraction};
use crate::handler::guarded::{Call, Guarded};
use crate::request::intake::Intake;

fn ended() -> ! {
    panic!("polled after completion")
}

/// How a request reaches its handler.
#[allow(
    clippy::large_enum_variant,
    reason = "a box would cost each request with a key one more allocation; some features keep it below the limit"
)]
pub(crate) enum Way<T> {
    /// The request has no key, so there is nothing to wait for.
    Open(T),
    Guarded(Guarded, Box<dyn PendingExtraction<T>>),
    /// A unit test calls the handler and wants its return value.
    #[cfg(feature = "testing")]
    Observed(T, Observer),
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
/// of the request are `Send`. `benches/compile_time.sh` measures what that costs.
pub(super) struct Run(BoxHandler);

impl Run {
    // Inlined into every handler, it would contain `begin` once more.
    #[inline(never)]
    pub(super) fn new<T>(way: Way<T>, handler: &mut dyn Begin<T>) -> Self {
        Self(match way {
            Way::Open(argument) => handler.begin(argument),
            Way::Guarded(guarded, pending) => handler.guard(guarded, pending),
            #[cfg(feature = "testing")]
            Way::Observed(argument, observer) => handler.begin_observed(argument, observer),
        })
    }
}

impl Future for Run {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.0.as_mut().poll_response(cx)
    }
}

/// A handler that has not started. Each method takes the handler, so only one of them can be called.
pub(super) trait Begin<T> {
    /// Creates the future of the handler from its last argument.
    fn begin(&mut self, argument: T) -> BoxHandler;

    /// Lets the handler wait for a claim.
    fn guard(&mut self, guarded: Guarded, pending: Box<dyn PendingExtraction<T>>) -> BoxHandler;

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

    fn guard(&mut self, guarded: Guarded, pending: Box<dyn PendingExtraction<T>>) -> BoxHandler {
        Box::pin(GuardedRun {
            argument: Argument::Pending(pending),
            handler: self.take(),
            guarded,
        })
    }

    #[cfg(feature = "testing")]
    fn begin_observed(&mut self, argument: T, observer: Observer) -> BoxHandler {
        let Some(handler) = self.take() else { ended() };
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
}

/// A request that may need a claim, with its handler. Drops the extraction of the argument first.
///
/// Compiled once for each handler. Code that is the same for all handlers is in [`Guarded`].
struct GuardedRun<T, H> {
    argument: Argument<T>,
    // `None` after the handler has started.
    handler: Option<H>,
    guarded: Guarded,
}

impl<T, H> Future for GuardedRun<T, H>
where
    Option<H>: Begin<T>,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let run = self.get_mut();
        let mut call = Waiting {
            argument: &mut run.argument,
            handler: &mut run.handler,
        };
        run.guarded.poll(&mut call, cx)
    }
}

// The extraction and the future of the handler have boxes of their own.
impl<T, H> Unpin for GuardedRun<T, H> {}

/// A handler and the last argument that it waits for.
struct Waiting<'a, T> {
    argument: &'a mut Argument<T>,
    handler: &'a mut dyn Begin<T>,
}

/// The last argument of a handler.
enum Argument<T> {
    Pending(Box<dyn PendingExtraction<T>>),
    Extracting(Extraction<T>),
    Gone,
}

impl<T> Call for Waiting<'_, T> {
    fn intake(&mut self) -> &mut Intake {
        match self.argument {
            Argument::Pending(pending) => pending.intake(),
            Argument::Extracting(_) | Argument::Gone => ended(),
        }
    }

    fn extract(&mut self) {
        if let Argument::Pending(pending) = mem::replace(self.argument, Argument::Gone) {
            *self.argument = Argument::Extracting(pending.extract());
        }
    }

    fn poll_extraction(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxHandler, Response>> {
        let extracted = match self.argument {
            Argument::Extracting(Extraction::Running(extraction)) => {
                ready!(extraction.as_mut().poll(cx))
            }
            Argument::Extracting(Extraction::Done(argument)) => match argument.take() {
                Some(argument) => Ok(argument),
                None => ended(),
            },
            Argument::Pending(_) | Argument::Gone => ended(),
        };
        self.stop_extraction();
        Poll::Ready(match extracted {
            Ok(argument) => Ok(self.handler.begin(argument)),
            Err(rejection) => Err(rejection),
        })
    }

    fn stop_extraction(&mut self) {
        *self.argument = Argument::Gone;
    }
}
