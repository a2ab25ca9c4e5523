//! A response body that reports when a layer panics while the layer holds the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use crate::attempt::work::Work;
use crate::service::slot::Slot;
use crate::settings::policy::OnUnknown;

/// A body that notifies its slot when a panic drops it.
///
/// Another layer may catch the panic. Then only a value that the panic drops can report the panic.
struct Watched {
    body: Body,
    slot: Arc<Slot>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if thread::panicking() {
            self.slot.panicked();
        }
    }
}

impl Work {
    /// The body of a response for the layers above. An endpoint that reruns unknown outcomes needs no watch.
    pub(super) fn watched(&self, body: Body) -> Body {
        match &self.slot {
            Some(slot) if self.policy.on_unknown == OnUnknown::Hold => Body::new(Watched {
                body,
                slot: slot.clone(),
            }),
            _ => body,
        }
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
