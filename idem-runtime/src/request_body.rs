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

#[cfg(test)]
mod tests {
    use axum::extract::{DefaultBodyLimit, Request};
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;
    use crate::scope::Scope;

    type Frames = Vec<Result<&'static str, &'static str>>;

    /// A body of unknown length.
    fn frames(frames: Frames) -> Body {
        let frames = stream::iter(frames).map(|frame| frame.map(|it| Frame::data(Bytes::from(it))));
        Body::new(StreamBody::new(frames))
    }

    /// For a service that takes four bytes.
    fn reader(body: Body) -> Result<BodyReader, Problem> {
        let mut request = Request::new(body);
        DefaultBodyLimit::max(4).apply(&mut request);
        let mut intake = Intake {
            announced: request.body().size_hint().lower(),
            request,
            scope: Ok(Scope::new()),
        };
        intake.limit_body();
        BodyReader::new(&mut intake)
    }

    async fn read(body: impl Fn() -> Body) -> Result<Bytes, &'static str> {
        let code = |problem: Problem| problem.code();
        let at_once = reader(body()).map_err(code)?.read_now();
        let later = reader(body()).map_err(code)?.read(Duration::MAX).await;
        let (at_once, later) = (at_once.map(|it| it.map_err(code)), later.map_err(code));
        assert_eq!(at_once, Some(later.clone()), "it was all there");
        later
    }

    #[tokio::test]
    async fn a_body_is_read_whole_however_it_comes() {
        for (body, whole) in [
            (vec![], ""),
            (vec![Ok("abcd")], "abcd"),
            (vec![Ok("ab"), Ok("cd")], "abcd"),
            (vec![Ok(""), Ok("a"), Ok(""), Ok("b"), Ok("cd")], "abcd"),
        ] {
            assert_eq!(read(|| frames(body.clone())).await, Ok(whole.into()));
        }
        assert_eq!(read(|| Body::from("abcd")).await, Ok("abcd".into()));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_told_from_one_that_was_cut_off() {
        let too_long = Err("idempotency_body_too_large");
        assert_eq!(read(|| Body::from("abcde")).await, too_long);
        assert_eq!(read(|| frames(vec![Ok("abc"), Ok("de")])).await, too_long);
        let cut_off = Err("idempotency_body_incomplete");
        assert_eq!(
            read(|| frames(vec![Ok("abc"), Err("cut off")])).await,
            cut_off
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_come_as_slowly_as_it_likes_but_not_stall() {
        let stall = Duration::from_secs(1);
        let slow = |pause: Duration| {
            let frames = stream::iter(["a", "b", "c"]).then(move |data| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, axum::Error>(Frame::data(Bytes::from(data)))
            });
            reader(Body::new(StreamBody::new(Box::pin(frames)))).expect("it is short")
        };
        let mut patient = slow(stall / 2);
        assert!(patient.read_now().is_none());
        assert_eq!(patient.read(stall).await.expect("it comes"), "abc");
        let problem = slow(stall * 2).read(stall).await.expect_err("it stalls");
        assert_eq!(problem.code(), "idempotency_body_timeout");
    }
}
