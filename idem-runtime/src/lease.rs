//! The claimer's right to run and to settle.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue};
use pin_project_lite::pin_project;

use crate::running::{BoxFuture, Running};

const DEGRADED: HeaderName = HeaderName::from_static("idempotency-degraded");

/// The claimer's right to run and to settle; or none, where a request runs without protection.
///
/// Dropped before it is settled, it gives the key back: nothing of the handler ran.
#[must_use = "a lease that is dropped gives the key back"]
pub struct Lease(Kind);

enum Kind {
    Unprotected,
    /// Without protection although the request has a key, since the store did not answer.
    Degraded,
    Held(Running),
}

impl Lease {
    pub(crate) fn unprotected() -> Self {
        Self(Kind::Unprotected)
    }

    pub(crate) fn degraded() -> Self {
        Self(Kind::Degraded)
    }

    pub(crate) fn held(running: Running) -> Self {
        Self(Kind::Held(running))
    }

    /// Runs the handler and settles its answer, whatever becomes of the request meanwhile.
    pub fn settle<F>(self, handler: F) -> Settle<F>
    where
        F: Future<Output: IntoResponse> + Send + 'static,
    {
        let mut lease = self;
        let handler = if lease.is_held() {
            lease.begin(Box::pin(Responding { handler }));
            None
        } else {
            Some(handler)
        };
        Settle { handler, lease }
    }

    fn is_held(&self) -> bool {
        matches!(self.0, Kind::Held(_))
    }

    fn begin(&mut self, handler: BoxFuture<Response>) {
        if let Kind::Held(running) = &mut self.0 {
            running.handle(handler);
        }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        match &mut self.0 {
            Kind::Held(running) => Pin::new(running).poll(cx),
            Kind::Unprotected | Kind::Degraded => Poll::Pending,
        }
    }

    /// The answer of a handler that ran without protection; it says so where the request has a key.
    fn mark(&self, mut response: Response) -> Response {
        if matches!(self.0, Kind::Degraded) {
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(DEGRADED, value);
        }
        response
    }

    /// Settles the answer of the body extractor, which refused before the handler began.
    pub(crate) async fn reject(self, rejection: Response) -> Response {
        match self.0 {
            Kind::Held(running) => running.reject(rejection).await,
            Kind::Unprotected | Kind::Degraded => rejection,
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Unprotected => "Lease(unprotected)",
            Kind::Degraded => "Lease(degraded)",
            Kind::Held(_) => "Lease(held)",
        })
    }
}

pin_project! {
    /// The future of [`Lease::settle`].
    ///
    /// For each handler it is compiled anew: whatever is the same for all of them is [`Lease`]'s.
    #[must_use = "the handler does not run until it is awaited"]
    pub struct Settle<F> {
        // `None` where it runs under the lease.
        #[pin]
        handler: Option<F>,
        lease: Lease,
    }
}

impl<F> Future for Settle<F>
where
    F: Future<Output: IntoResponse>,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let settle = self.project();
        match settle.handler.as_pin_mut() {
            Some(handler) => {
                let answer = ready!(handler.poll(cx));
                Poll::Ready(settle.lease.mark(answer.into_response()))
            }
            None => settle.lease.poll_held(cx),
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

impl<F> fmt::Debug for Settle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settle")
    }
}
