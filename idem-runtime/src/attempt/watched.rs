//! A response body that reports when a layer panics while the layer holds the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::attempt::work::Work;
use crate::service::slot::Slot;
use crate::settings::policy::OnUnknown;

pin_project! {
    /// A body that notifies its slot when a panic drops it.
    ///
    /// Another layer may catch the panic. Then only a value that the panic drops can report the panic.
    struct Watched<B> {
        #[pin]
        body: B,
        slot: Arc<Slot>,
    }

    impl<B> PinnedDrop for Watched<B> {
        fn drop(this: Pin<&mut Self>) {
            if thread::panicking() {
                this.slot.panicked();
            }
        }
    }
}

impl Work {
    /// The body of a response for the layers above. An endpoint that reruns unknown outcomes needs no watch.
    pub(super) fn watched<B>(&self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        match &self.slot {
            Some(slot) if self.policy.on_unknown == OnUnknown::Hold => Body::new(Watched {
                body,
                slot: slot.clone(),
            }),
            _ => Body::new(body),
        }
    }
}

impl<B: HttpBody> HttpBody for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
