//! Runs the handler of a request that is admitted.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::admission::Admission;
use crate::admitting::Admitting;

impl<T: Send + 'static> Admission<T> {
    /// Runs `handler` where the request is admitted, and settles its answer whatever becomes of the
    /// request meanwhile.
    pub fn run<H, F>(self, handler: H) -> impl Future<Output = Response>
    where
        H: FnOnce(T) -> F,
        F: Future<Output: Answer> + Send + 'static,
    {
        Run {
            admitting: self.0,
            handler: Some(handler),
            unprotected: None,
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
    struct Run<T, H, F> {
        admitting: Admitting<T>,
        // `None` once it has begun.
        handler: Option<H>,
        // What it became where no lease is held; else the lease has it.
        #[pin]
        unprotected: Option<Responding<F>>,
    }
}

impl<T, H, F> Future for Run<T, H, F>
where
    T: Send + 'static,
    H: FnOnce(T) -> F,
    F: Future<Output: IntoResponse> + Send + 'static,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let mut run = self.project();
        if let Some(argument) = run.admitting.poll_argument(cx)
            && let Some(handler) = run.handler.take()
        {
            let handler = Responding {
                handler: handler(argument),
            };
            match run.admitting.lease() {
                Some(lease) => lease.handle(Box::pin(handler)),
                None => run.unprotected.set(Some(handler)),
            }
        }
        match run.unprotected.as_pin_mut() {
            Some(handler) => run.admitting.poll_answer(Some(handler), cx),
            None => run.admitting.poll_answer(None, cx),
        }
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
