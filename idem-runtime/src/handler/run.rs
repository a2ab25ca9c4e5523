//! Runs the handler of a request that is admitted.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;

use crate::attempt::running::BoxFuture;
use crate::handler::admission::{Admission, Entrance};
use crate::handler::guarded::Admitting;

impl<T: Send + 'static> Admission<T> {
    /// Runs `handler` where the request is admitted, and settles its answer whatever becomes of the
    /// request meanwhile.
    pub fn run<H, F>(self, handler: H) -> impl Future<Output = Response>
    where
        H: FnOnce(T) -> F,
        F: Future<Output: Answer> + Send + 'static,
    {
        match self.0 {
            Entrance::Open(argument) => Run::Open {
                handler: Responding {
                    handler: handler(argument),
                },
            },
            Entrance::Guarded(admitting) => Run::Guarded {
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
        Open {
            #[pin]
            handler: Responding<F>,
        },
        Guarded {
            admitting: Admitting<T>,
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
            RunProjection::Guarded { admitting, handler } => admitting.poll(handler, cx),
        }
    }
}

/// Makes the handler's future of its last argument, once.
pub(crate) trait Begin<T> {
    fn begin(&mut self, argument: T) -> Option<BoxFuture<Response>>;
}

impl<T, H, F> Begin<T> for Option<H>
where
    H: FnOnce(T) -> F,
    F: Future<Output: Answer> + Send + 'static,
{
    #[expect(
        clippy::question_mark,
        reason = "it would be compiled anew for each handler"
    )]
    fn begin(&mut self, argument: T) -> Option<BoxFuture<Response>> {
        let Some(handler) = self.take() else {
            return None;
        };
        Some(Box::pin(Responding {
            handler: handler(argument),
        }))
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
