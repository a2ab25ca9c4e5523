//! Polls a future so many times, and no more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How a request is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its future is dropped; what it left to the runtime goes on.
    Disconnect,
    /// Its runtime is dropped, and then its future.
    Shutdown,
    /// Nothing is dropped and nothing runs any more.
    Kill,
}

impl Cut {
    pub(crate) const ALL: [Self; 3] = [Self::Disconnect, Self::Shutdown, Self::Kill];
}

/// Resolves to nothing when `future` has waited for the `waits`th time, before it goes on.
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
