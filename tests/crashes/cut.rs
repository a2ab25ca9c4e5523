//! Polls a future a given number of times and then stops.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How a request is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The request's future is dropped. Its background tasks continue.
    Disconnect,
    /// The tokio runtime is dropped, and then the request's future.
    Shutdown,
    /// Nothing is dropped, and nothing runs any more, as after `kill -9`.
    Kill,
}

impl Cut {
    pub(crate) const ALL: [Self; 3] = [Self::Disconnect, Self::Shutdown, Self::Kill];
}

/// Resolves to `None` when `future` is pending for the `waits`th time.
pub(crate) struct Waiting<'f, F> {
    pub(crate) future: &'f mut Pin<Box<F>>,
    pub(crate) waits: usize,
}

impl<F: Future> Future for Waiting<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        self.waits -= 1;
        if self.waits == 0 {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}
