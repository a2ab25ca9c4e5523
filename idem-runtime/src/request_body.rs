//! Reads the body of a keyed request to its end before anything is claimed.

use std::error::Error;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::{BodyExt, LengthLimitError};

use crate::deferred::Intake;
use crate::problem::Problem;

/// The body of one request, while it is read to its end.
///
/// The limit is axum's: `DefaultBodyLimit`, 2 MB where the service sets none. An extractor such as
/// `Request` that would skip that limit does not skip it here.
#[derive(Debug)]
pub(crate) struct BodyReader {
    body: Body,
    first: Bytes,
    /// Empty as long as there is one frame only.
    whole: BytesMut,
}

impl BodyReader {
    /// Takes the body out of its request.
    pub(crate) fn new(intake: &mut Intake) -> Result<Self, Problem> {
        let body = mem::take(intake.request.body_mut());
        // A limit shows as an upper bound: what announces more than it is refused unread.
        let limit = body.size_hint().upper();
        if limit.is_some_and(|limit| intake.announced > limit) {
            return Err(Problem::body_too_large());
        }
        Ok(Self {
            body,
            first: Bytes::new(),
            whole: BytesMut::new(),
        })
    }

    /// Reads on without waiting; gives the body where all of it is there, as most are.
    pub(crate) fn read_now(&mut self) -> Option<Result<Bytes, Problem>> {
        let mut nobody = Context::from_waker(Waker::noop());
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(&mut nobody) else {
                return None;
            };
            match self.push(frame) {
                Ok(true) if self.body.is_end_stream() => return Some(Ok(self.take())),
                Ok(true) => {}
                Ok(false) => return Some(Ok(self.take())),
                Err(problem) => return Some(Err(problem)),
            }
        }
    }

    /// Reads the rest, as long as no frame takes longer than `stall` to come.
    pub(crate) async fn read(mut self, stall: Duration) -> Result<Bytes, Problem> {
        loop {
            let frame = tokio::time::timeout(stall, self.body.frame()).await;
            if !self.push(frame.map_err(|_| Problem::body_timeout())?)? {
                return Ok(self.take());
            }
        }
    }

    /// Adds a frame, and says whether more may follow.
    fn push(&mut self, frame: Option<Result<Frame<Bytes>, axum::Error>>) -> Result<bool, Problem> {
        let data = match frame {
            None => return Ok(false),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if is_over_the_limit(&error) => return Err(Problem::body_too_large()),
            Some(Err(_)) => return Err(Problem::body_incomplete()),
        };
        if self.first.is_empty() {
            self.first = data;
        } else {
            if self.whole.is_empty() {
                self.whole.extend_from_slice(&self.first);
            }
            self.whole.extend_from_slice(&data);
        }
        Ok(true)
    }

    fn take(&mut self) -> Bytes {
        if self.whole.is_empty() {
            mem::take(&mut self.first)
        } else {
            mem::take(&mut self.whole).freeze()
        }
    }
}

fn is_over_the_limit(error: &axum::Error) -> bool {
    let mut source = Some(error as &(dyn Error + 'static));
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return true;
        }
        source = error.source();
    }
    false
}
