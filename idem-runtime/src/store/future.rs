//! The future that a store's methods return.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::StoreError;

/// The future that the methods of a store return: either a result that is ready, or a boxed future.
///
/// A result that is ready needs no allocation.
#[must_use = "a store does nothing until its future is awaited"]
pub struct StoreFuture<T>(State<T>);

enum State<T> {
    Ready(Option<Result<T, StoreError>>),
    Pending(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>),
}

impl<T> StoreFuture<T> {
    /// A result that is ready.
    pub const fn ready(result: Result<T, StoreError>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// A result that another future computes.
    pub fn new(pending: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Self {
        Self(State::Pending(Box::pin(pending)))
    }

    /// Applies `change` to the result unless the result is an error. Runs at once when the result
    /// is ready.
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> StoreFuture<U>
    where
        T: Send + 'static,
        U: Send + 'static,
    {
        match self.try_now() {
            Ok(result) => StoreFuture::ready(result.map(change)),
            Err(pending) => StoreFuture::new(async move { pending.await.map(change) }),
        }
    }

    /// The result, when it is ready and was not taken.
    pub(crate) fn peek(&self) -> Option<&Result<T, StoreError>> {
        match &self.0 {
            State::Ready(result) => result.as_ref(),
            State::Pending(_) => None,
        }
    }

    /// The result, when it is ready. Otherwise returns the future.
    pub(crate) fn try_now(self) -> Result<Result<T, StoreError>, Self> {
        match self.0 {
            State::Ready(Some(result)) => Ok(result),
            state => Err(Self(state)),
        }
    }
}

/// No field is structurally pinned: a ready result is moved out, and a pending future is boxed.
impl<T> Unpin for StoreFuture<T> {}

impl<T> Future for StoreFuture<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().expect("polled after completion")),
            State::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for StoreFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreFuture")
    }
}
