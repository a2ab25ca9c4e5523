//! The layer that makes an [`Idempotency`] available to the handlers below.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Request};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::service::current::Current;
use crate::service::idempotency::Idempotency;
use crate::service::stack::Stack;

impl<S> Layer<S> for Idempotency {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            inner,
            idem: self.clone(),
        }
    }
}

/// Middleware that makes an [`Idempotency`] available to the handlers below.
///
/// With the default key header, a request without a key passes unchanged. Its extensions are not
/// touched, because an insertion costs as much as the rest of the layer. If such a request is
/// refused, the layer renders the problem in the response.
///
/// For a request with a key, the layers below this layer finish before the record is written. The
/// response of the handler is recorded only if the response that leaves this layer has a status that the
/// endpoint records. When the client disconnects, these layers continue in the background together with
/// the handler.
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    inner: S,
    idem: Idempotency,
}

impl<S, B> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response: IntoResponse>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = IdempotencyFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some((idem, slot)) = self.idem.for_request(&request) {
            request.extensions_mut().insert(idem);
            if let Some(slot) = slot {
                let echo = self.idem.echoed(&request).map(Box::new);
                let layers = Box::pin(Responding {
                    layers: self.inner.call(request),
                });
                return IdempotencyFuture {
                    way: Way::Keyed {
                        stack: Stack::new(layers, slot, self.idem.clone()),
                        echo,
                    },
                };
            }
        } else if let Some(outer) = request.extensions_mut().get_mut::<Idempotency>() {
            *outer = self.idem.clone();
        }
        IdempotencyFuture {
            way: Way::Open {
                layers: self.inner.call(request),
                idem: Some(self.idem.clone()),
            },
        }
    }
}

pin_project! {
    /// The future of [`IdempotencyService`].
    ///
    /// When a client disconnects, this future is dropped. If the handler of a request with a key has begun,
    /// the work then continues in the background.
    pub struct IdempotencyFuture<F, E>
    where
        E: Send,
        E: 'static,
    {
        #[pin]
        way: Way<F, E>,
    }
}

pin_project! {
    #[project = WayProjection]
    enum Way<F, E>
    where
        E: Send,
        E: 'static,
    {
        /// A request without a slot. Nothing continues in the background when this is dropped.
        Open { #[pin] layers: F, idem: Option<Idempotency> },
        /// `echo` is the key header that the response gets. It is boxed, because few services want it.
        Keyed {
            stack: Stack<E>,
            echo: Option<Box<(HeaderName, HeaderValue)>>,
        },
    }
}

impl<F, R, E> Future for IdempotencyFuture<F, E>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
    E: Send + 'static,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().way.project() {
            WayProjection::Open { layers, idem } => {
                let current = Current::enter(idem);
                let polled = layers.poll(cx);
                drop(current);
                polled.map_ok(|response| {
                    let response = response.into_response();
                    match idem {
                        Some(idem) => idem.render(response),
                        None => response,
                    }
                })
            }
            WayProjection::Keyed { stack, echo } => {
                Pin::new(stack).poll(cx).map_ok(|mut response| {
                    if let Some(echo) = echo.take() {
                        response.headers_mut().insert(echo.0, echo.1);
                    }
                    response
                })
            }
        }
    }
}

impl<F, E: Send + 'static> fmt::Debug for IdempotencyFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// Runs the layers below, and converts their result into a response.
    struct Responding<F> {
        #[pin]
        layers: F,
    }
}

impl<F, R, E> Future for Responding<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.project().layers.poll(cx);
        polled.map_ok(IntoResponse::into_response)
    }
}
