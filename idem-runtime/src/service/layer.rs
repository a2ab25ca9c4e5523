//! The layer that makes an [`Idempotency`] available to the handlers below.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::response::problem::Problem;
use crate::service::idempotency::Idempotency;

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
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    inner: S,
    idem: Idempotency,
}

impl<S, B> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response: IntoResponse>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = IdempotencyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(idem) = self.idem.for_request(request.headers()) {
            request.extensions_mut().insert(idem);
        } else if let Some(outer) = request.extensions_mut().get_mut::<Idempotency>() {
            *outer = self.idem.clone();
        }
        IdempotencyFuture {
            inner: self.inner.call(request),
            idem: self.idem.clone(),
        }
    }
}

pin_project! {
    /// The future of [`IdempotencyService`].
    #[derive(Debug)]
    pub struct IdempotencyFuture<F> {
        #[pin]
        inner: F,
        idem: Idempotency,
    }
}

impl<F, R, E> Future for IdempotencyFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: IntoResponse,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        this.inner.poll(cx).map_ok(|response| {
            let mut response = response.into_response();
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                response = this.idem.refuse(problem);
            }
            response
        })
    }
}
