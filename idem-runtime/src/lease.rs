//! The claimer's right to run and to settle.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue};
use pin_project_lite::pin_project;

use crate::running::Running;

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
        let degraded = matches!(self.0, Kind::Degraded);
        match self.into_running() {
            Some(running) => Settle {
                way: Way::Held {
                    running: running.handle(Box::pin(Responding { handler })),
                },
            },
            None => Settle {
                way: Way::Unprotected {
                    handler: Responding { handler },
                    degraded,
                },
            },
        }
    }

    fn into_running(self) -> Option<Running> {
        match self.0 {
            Kind::Held(running) => Some(running),
            Kind::Unprotected | Kind::Degraded => None,
        }
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
    #[must_use = "the handler does not run until it is awaited"]
    pub struct Settle<F> {
        #[pin]
        way: Way<Responding<F>>,
    }
}

pin_project! {
    #[project = WayProjection]
    enum Way<F> {
        Unprotected {
            #[pin]
            handler: F,
            degraded: bool,
        },
        Held {
            running: Running,
        },
    }
}

pin_project! {
    /// The handler, and its answer as a response. A type of its own and no `async` block, for each
    /// handler is compiled with it.
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

fn mark_degraded(response: &mut Response) {
    let value = HeaderValue::from_static("true");
    response.headers_mut().insert(DEGRADED, value);
}

impl<F> Future for Settle<F>
where
    F: Future<Output: IntoResponse>,
{
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        match self.project().way.project() {
            WayProjection::Unprotected { handler, degraded } => {
                let mut response = ready!(handler.poll(cx));
                if *degraded {
                    mark_degraded(&mut response);
                }
                Poll::Ready(response)
            }
            WayProjection::Held { running } => Pin::new(running).poll(cx),
        }
    }
}

impl<F> fmt::Debug for Settle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settle")
    }
}
