//! Runs the handler of a request that is admitted.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::admission::{Admission, Entrance};
use crate::admitting::Admitting;
use crate::lease::{Lease, Unprotected};

impl<T: Send + 'static> Admission<T> {
    /// Runs `handler` where the request is admitted, and settles its answer whatever becomes of the
    /// request meanwhile.
    pub fn run<H, F>(self, handler: H) -> impl Future<Output = Response>
    where
        H: FnOnce(T) -> F,
        F: Future<Output: Answer> + Send + 'static,
    {
        match self.0 {
            Entrance::Open(argument) => Run::unprotected(handler(argument), Unprotected::Unkeyed),
            Entrance::Guarded(admitting) => Run::Admitting {
                admitting,
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
    enum Run<T, H, F> {
        Unprotected {
            #[pin]
            handler: Responding<F>,
            why: Unprotected,
        },
        Admitting {
            admitting: Admitting<T>,
            // `None` once it has begun.
            handler: Option<H>,
        },
    }
}

impl<T, H, F> Run<T, H, F> {
    fn unprotected(handler: F, why: Unprotected) -> Self {
        Self::Unprotected {
            handler: Responding { handler },
            why,
        }
    }
}

impl<T, H, F> Future for Run<T, H, F>
where
    T: Send + 'static,
    H: FnOnce(T) -> F,
    F: Future<Output: IntoResponse> + Send + 'static,
{
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        loop {
            match self.as_mut().project() {
                RunProjection::Unprotected { handler, why } => {
                    let why = *why;
                    return handler.poll(cx).map(|response| why.mark(response));
                }
                RunProjection::Admitting { admitting, handler } => {
                    let Some((lease, argument)) = admitting.poll_admitted(cx) else {
                        return admitting.poll_answer(cx);
                    };
                    let Some(handler) = handler.take() else {
                        return Poll::Pending;
                    };
                    let handler = handler(argument);
                    match lease {
                        Lease::Held(running) => {
                            admitting.begin(running, Box::pin(Responding { handler }));
                        }
                        Lease::None(why) => self.set(Self::unprotected(handler, why)),
                    }
                }
            }
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
