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
    pub(super) fn new<T, H, F>(way: Way<T>, handler: H) -> Self
    where
        T: Send + 'static,
        H: FnOnce(T) -> F + Send + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        Self(match way {
            Way::Open(argument) => begin(handler, argument),
            Way::Guarded(guarded, pending) => Box::pin(GuardedRun {
                call: Waiting {
                    argument: Argument::Pending(pending),
                    handler: Some(handler),
                },
                guarded,
            }),
            #[cfg(feature = "testing")]
            Way::Observed(argument, observer) => begin_observed(handler(argument), observer),
        })
    }
}

impl Future for Run {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.0.as_mut().poll_response(cx)
    }
}

/// Creates the future of the handler.
///
/// Not inlined, because it has two callers and is compiled again for each handler.
#[inline(never)]
fn begin<T, H, F>(handler: H, argument: T) -> BoxHandler
where
    H: FnOnce(T) -> F,
    F: Future<Output: HandlerOutput> + Send + 'static,
{
    Box::pin(handler(argument))
}

/// Passes the return value of the handler to `observer`.
#[cfg(feature = "testing")]
fn begin_observed<F>(handler: F, observer: Observer) -> BoxHandler
where
    F: Future<Output: HandlerOutput> + Send + 'static,
{
    Box::pin(async move {
        let mut returned = Some(handler.await);
        observer(&mut returned, std::any::type_name::<F::Output>());
        match returned {
            Some(returned) => returned.into_response(),
            None => Response::default(),
        }
    })
}

/// A request that may need a claim, with its call. Drops the call first.
///
/// Compiled once for each handler. Code that is the same for all handlers is in [`Guarded`].
struct GuardedRun<T, H> {
    call: Waiting<T, H>,
    guarded: Guarded,
}

impl<T, H> Future for GuardedRun<T, H>
where
    Waiting<T, H>: Call,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let Self { call, guarded } = self.get_mut();
        guarded.poll(call, cx)
    }
}

// The extraction and the future of the handler have boxes of their own.
impl<T, H> Unpin for GuardedRun<T, H> {}

/// A handler that waits for its last argument.
struct Waiting<T, H> {
    argument: Argument<T>,
    // `None` after the handler has started.
    handler: Option<H>,
}

/// The last argument of a handler.
enum Argument<T> {
    Pending(Box<dyn PendingExtraction<T>>),
    Extracting(Extraction<T>),
    Gone,
}

impl<T> Argument<T> {
    fn extract(&mut self) {
        if let Self::Pending(pending) = self.take() {
            *self = Self::Extracting(pending.extract());
        }
    }

    /// Drops the extraction when it ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Response>> {
        let extracted = match self {
            Self::Extracting(Extraction::Running(extraction)) => {
                ready!(extraction.as_mut().poll(cx))
            }
            Self::Extracting(Extraction::Done(argument)) => match argument.take() {
                Some(argument) => Ok(argument),
                None => ended(),
            },
            Self::Pending(_) | Self::Gone => ended(),
        };
        *self = Self::Gone;
        Poll::Ready(extracted)
    }

    fn take(&mut self) -> Self {
        mem::replace(self, Self::Gone)
    }
}

impl<T, H, F> Call for Waiting<T, H>
where
    H: FnOnce(T) -> F,
    F: Future<Output: HandlerOutput> + Send + 'static,
{
    fn intake(&mut self) -> &mut Intake {
        match &mut self.argument {
            Argument::Pending(pending) => pending.intake(),
            Argument::Extracting(_) | Argument::Gone => ended(),
        }
    }

    fn extract(&mut self) {
        self.argument.extract();
    }

    fn poll_extraction(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxHandler, Response>> {
        let argument = match ready!(self.argument.poll(cx)) {
            Ok(argument) => argument,
            Err(rejection) => return Poll::Ready(Err(rejection)),
        };
        match self.handler.take() {
            Some(handler) => Poll::Ready(Ok(begin(handler, argument))),
            None => ended(),
        }
    }

    fn stop_extraction(&mut self) {
        self.argument = Argument::Gone;
    }
}
