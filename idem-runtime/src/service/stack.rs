//! The layers between the [`Idempotency`] layer and the handler, for one request with a key.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use tokio::time::{Sleep, sleep};

use crate::response::problem::Problem;
use crate::service::background::{self, Background};
use crate::service::idempotency::Idempotency;
use crate::service::slot::{Finished, Slot};

pub(super) type Layers<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

/// Everything below the [`Idempotency`] layer, for one request with a key.
///
/// Completes when the attempt is settled. When the client disconnects, the layers continue in the
/// background with the handler, so that a layer still commits. If the layers are dropped there too, or by
/// a panic, the outcome of the attempt is unknown.
pub(super) struct Stack<E: Send + 'static> {
    stage: Stage<E>,
    slot: Arc<Slot>,
    idem: Idempotency,
    /// Set while layers are polled. If it is still set in `drop`, a layer has panicked.
    is_polling: bool,
    /// Set at the first `Pending`.
    background: Option<Background>,
    in_background: bool,
    /// The limit of the layers after the handler has responded. Set when the stack first waits for them.
    limit: Option<Pin<Box<Sleep>>>,
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
            limit: None,
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, E>> {
        if let Stage::Running(layers) = &mut self.stage {
            let polled = layers.as_mut().poll(cx);
            let waits = polled.is_pending() && self.slot.keep();
            if !waits {
                // A layer may call its handler again. Afterwards the layers get the whole limit again.
                self.limit = None;
            }
            let is_late = waits && self.limit(cx).is_ready();
            let left = if is_late {
                Ok(self.idem.refuse(Problem::run_timeout()))
            } else {
                ready!(polled)
            };
            // Drops the values that the layers hold before the attempt is settled.
            self.stage = Stage::Ended;
            let left = left.map(|response| self.idem.render(response));
            // Nobody knows whether layers that are dropped half way have had an effect.
            let has_panicked = is_late || self.slot.has_panicked();
            let Some(finished) = self.slot.leave() else {
                return Poll::Ready(left);
            };
            let (response, error) = match left {
                Ok(response) => (response, None),
                // An error has no status, so it counts as a 500. The layer above converts it into a response.
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

    /// Completes when the layers have run for `max_run` after the handler has responded.
    fn limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let max_run = self.idem.settings().max_run;
        let limit = self.limit.get_or_insert_with(|| Box::pin(sleep(max_run)));
        limit.as_mut().poll(cx)
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
        if polled.is_pending() && self.background.is_none() {
            self.background = Background::of_this_task();
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
            // The slot is cut off before the layers are dropped. Otherwise a handler below them would
            // continue alone.
            self.slot.cut_off();
            return;
        };
        self.slot.detach();
        if let Stage::Settling(finished, _) = &mut self.stage {
            finished.detach();
        }
        let stack = Self {
            stage: mem::replace(&mut self.stage, Stage::Ended),
            slot: self.slot.clone(),
            idem: self.idem.clone(),
            is_polling: false,
            background: None,
            in_background: true,
            limit: self.limit.take(),
        };
        // Nothing waits for the response, so it is dropped. `drain` waits for the attempt, even before
        // the task starts.
        background::spawn(&runtime, span, None, async { drop(stack.await) });
    }
}
