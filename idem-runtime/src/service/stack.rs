//! The layers between the [`Idempotency`] layer and the handler, for one request with a key.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tracing::Instrument;

use crate::service::background::Background;
use crate::service::idempotency::Idempotency;
use crate::service::slot::{Finished, Slot};

pub(super) type Layers<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

/// Everything below the [`Idempotency`] layer, for one request with a key.
///
/// Completes when the attempt is settled. Dropped earlier, it goes on in the background together with
/// the handler, so that a layer still commits when the client has disconnected. Dropped there too, or by a
/// panic, the outcome of the attempt is unknown.
pub(super) struct Stack<E: Send + 'static> {
    stage: Stage<E>,
    slot: Arc<Slot>,
    idem: Idempotency,
    /// Set while layers are polled: still set in `drop`, it tells of a panic.
    is_polling: bool,
    /// Set at the first `Pending`.
    background: Option<Background>,
    in_background: bool,
}

enum Stage<E> {
    Running(Layers<E>),
    /// The error takes the place of the response.
    Settling(Finished, Option<E>),
    Ended,
}

impl<E: Send + 'static> Stack<E> {
    pub(super) fn new(layers: Layers<E>, slot: Arc<Slot>, idem: Idempotency) -> Self {
        Self {
            stage: Stage::Running(layers),
            slot,
            idem,
            is_polling: false,
            background: None,
            in_background: false,
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, E>> {
        if let Stage::Running(layers) = &mut self.stage {
            let left = ready!(layers.as_mut().poll(cx));
            // What the layers hold is dropped here, before the attempt is settled.
            self.stage = Stage::Ended;
            let left = left.map(|response| self.idem.render(response));
            let has_panicked = self.slot.has_panicked();
            let Some(finished) = self.slot.leave() else {
                return Poll::Ready(left);
            };
            let (response, error) = match left {
                Ok(response) => (response, None),
                // The layer above makes a response of it, and that tells of a failure.
                Err(error) => (
                    StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                    Some(error),
                ),
            };
            self.stage = Stage::Settling(finished.leave(response, has_panicked), error);
        }
        let Stage::Settling(finished, error) = &mut self.stage else {
            panic!("polled after completion");
        };
        let response = ready!(Pin::new(finished).poll(cx));
        let error = error.take();
        self.stage = Stage::Ended;
        Poll::Ready(error.map_or(Ok(response), Err))
    }

    /// Whether an attempt depends on the layers, so that they may not just be dropped.
    fn is_engaged(&self) -> bool {
        match &self.stage {
            Stage::Running(_) => self.slot.is_engaged_or_ends(),
            Stage::Settling(..) => true,
            Stage::Ended => false,
        }
    }
}

/// The layers are pinned in their box, and the error is never pinned.
impl<E: Send + 'static> Unpin for Stack<E> {}

impl<E: Send + 'static> Future for Stack<E> {
    type Output = Result<Response, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_polling = true;
        let polled = self.poll_stage(cx);
        self.is_polling = false;
        if polled.is_pending() {
            if self.background.is_none() {
                self.background = Background::of_this_task();
            }
            self.slot.keep();
        }
        polled
    }
}

impl<E: Send + 'static> Drop for Stack<E> {
    fn drop(&mut self) {
        if !self.is_engaged() {
            return;
        }
        let is_cut_off = self.is_polling || self.in_background;
        let background = self.background.take().or_else(Background::of_this_task);
        let Some(Background { runtime, span }) = background.filter(|_| !is_cut_off) else {
            // Before the layers are dropped, so that a handler below them does not go on alone.
            self.slot.cut_off();
            return;
        };
        let stack = Self {
            stage: mem::replace(&mut self.stage, Stage::Ended),
            slot: self.slot.clone(),
            idem: self.idem.clone(),
            is_polling: false,
            background: None,
            in_background: true,
        };
        // Its response has nobody to go to. The attempt makes `drain` wait, also before the task starts.
        runtime.spawn(async { drop(stack.await) }.instrument(span));
    }
}
