//! The future of a handler in a box, so that the code of an attempt is compiled once for all handlers.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::{IntoResponse, Response};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The future of a handler. Each handler has its own type.
pub(crate) type BoxHandler = Pin<Box<dyn Handling>>;

/// A future whose output is converted into a response. Implemented by the future of the handler itself,
/// because a wrapper would be compiled once for each handler.
pub(crate) trait Handling: Send {
    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response>;
}

impl<F> Handling for F
where
    F: Future<Output: IntoResponse> + Send,
{
    fn poll_response(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        self.poll(cx).map(IntoResponse::into_response)
    }
}
