//! Reads the body of a keyed request to its end before anything is claimed.

use std::error::Error;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::LengthLimitError;
use tokio::time::{Sleep, sleep};

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than the service allows.
    TooLarge,
    /// It ended early.
    Incomplete,
    /// It stalled for longer than the service allows.
    Stalled,
}

/// The body of one request, while it is read to its end.
///
/// Two limits count. One is axum's `DefaultBodyLimit`, 2 MB where the service sets none. An extractor such
/// as `Request` that would skip that limit does not skip it here. The other one is the service's
/// `max_request_body`, which also counts where axum's is off.
#[derive(Debug)]
pub(crate) struct BodyReader {
    body: Body,
    /// How many bytes may still come.
    left: usize,
    first: Bytes,
    /// Empty as long as there is one frame only.
    whole: BytesMut,
    wait: Wait,
}

/// How long the next frame has been waited for.
#[derive(Debug)]
enum Wait {
    NotYet,
    /// hyper reads a body only once it is asked for, so that the frame which lies there already comes
    /// with the next poll: a timer for it would be set and dropped at every request.
    ForOnePoll,
    Timed(Pin<Box<Sleep>>),
}

impl BodyReader {
    /// Takes the body out of its request, to read at most `max` bytes.
    pub(crate) fn new(request: &mut Request, max: usize) -> Result<Self, BodyError> {
        let announced = request.body().size_hint().lower();
        *request = mem::take(request).with_limited_body();
        let body = mem::take(request.body_mut());
        // A limit shows as an upper bound: what announces more than it is refused unread.
        let limit = body.size_hint().upper().unwrap_or(u64::MAX);
        if announced > limit.min(max as u64) {
            return Err(BodyError::TooLarge);
        }
        Ok(Self {
            body,
            left: max,
            first: Bytes::new(),
            whole: BytesMut::new(),
            wait: Wait::NotYet,
        })
    }

    /// Reads on, as long as no frame takes longer than `stall` to come. Not to be polled again once it
    /// is ready.
    pub(crate) fn poll(
        &mut self,
        stall: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, BodyError>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.wait(stall, cx));
                return Poll::Ready(Err(BodyError::Stalled));
            };
            self.wait = Wait::NotYet;
            match self.push(frame) {
                Ok(true) if !self.body.is_end_stream() => {}
                Ok(_) => return Poll::Ready(Ok(self.take())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Is ready when a frame has been waited for too long.
    fn wait(&mut self, stall: Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.wait {
                Wait::NotYet => {
                    self.wait = Wait::ForOnePoll;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Wait::ForOnePoll => self.wait = Wait::Timed(Box::pin(sleep(stall))),
                Wait::Timed(timer) => return timer.as_mut().poll(cx),
            }
        }
    }

    /// Adds a frame, and says whether more may follow.
    fn push(
        &mut self,
        frame: Option<Result<Frame<Bytes>, axum::Error>>,
    ) -> Result<bool, BodyError> {
        let data = match frame {
            None => return Ok(false),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if is_over_the_limit(&error) => return Err(BodyError::TooLarge),
            Some(Err(_)) => return Err(BodyError::Incomplete),
        };
        self.left = self
            .left
            .checked_sub(data.len())
            .ok_or(BodyError::TooLarge)?;
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
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use axum::extract::DefaultBodyLimit;
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    type Frames = Vec<Result<&'static str, &'static str>>;

    /// A body of unknown length.
    fn frames(frames: Frames) -> Body {
        let frames = stream::iter(frames).map(|frame| frame.map(|it| Frame::data(Bytes::from(it))));
        Body::new(StreamBody::new(frames))
    }

    /// For a service that takes four bytes.
    fn reader(body: Body) -> Result<BodyReader, BodyError> {
        let mut request = Request::new(body);
        DefaultBodyLimit::max(4).apply(&mut request);
        BodyReader::new(&mut request, usize::MAX)
    }

    /// For a service that has no limit of axum's, and keeps four bytes.
    fn reader_without_axums_limit(body: Body) -> Result<BodyReader, BodyError> {
        let mut request = Request::new(body);
        DefaultBodyLimit::disable().apply(&mut request);
        BodyReader::new(&mut request, 4)
    }

    async fn read(mut reader: BodyReader, stall: Duration) -> Result<Bytes, BodyError> {
        poll_fn(|cx| reader.poll(stall, cx)).await
    }

    async fn read_whole(body: Body) -> Result<Bytes, BodyError> {
        match reader(body) {
            Ok(reader) => read(reader, Duration::MAX).await,
            Err(error) => Err(error),
        }
    }

    #[tokio::test]
    async fn a_body_is_read_whole_however_it_comes() {
        for (body, whole) in [
            (vec![], ""),
            (vec![Ok("abcd")], "abcd"),
            (vec![Ok("ab"), Ok("cd")], "abcd"),
            (vec![Ok(""), Ok("a"), Ok(""), Ok("b"), Ok("cd")], "abcd"),
        ] {
            assert_eq!(read_whole(frames(body)).await, Ok(whole.into()));
        }
        assert_eq!(read_whole(Body::from("abcd")).await, Ok("abcd".into()));
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_told_from_one_that_was_cut_off() {
        let too_long = Err(BodyError::TooLarge);
        assert_eq!(read_whole(Body::from("abcde")).await, too_long);
        let frames_of = |parts: [_; 2]| read_whole(frames(parts.into()));
        assert_eq!(frames_of([Ok("abc"), Ok("de")]).await, too_long);
        let cut_off = Err(BodyError::Incomplete);
        assert_eq!(frames_of([Ok("abc"), Err("cut off")]).await, cut_off);
    }

    #[tokio::test]
    async fn the_limit_of_the_service_counts_where_axums_is_off() {
        let read_whole = async |body| match reader_without_axums_limit(body) {
            Ok(reader) => read(reader, Duration::MAX).await,
            Err(error) => Err(error),
        };
        let too_long = Err(BodyError::TooLarge);
        assert_eq!(read_whole(Body::from("abcd")).await, Ok("abcd".into()));
        assert_eq!(read_whole(Body::from("abcde")).await, too_long);
        let whole = frames(vec![Ok("abc"), Ok("d")]);
        assert_eq!(read_whole(whole).await, Ok("abcd".into()));
        let long = frames(vec![Ok("abc"), Ok("de")]);
        assert_eq!(read_whole(long).await, too_long);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// To set a timer would take a runtime.
    #[test]
    fn what_comes_with_the_second_poll_is_not_timed() {
        let mut polls = 0;
        let asked_twice = stream::poll_fn(move |_| {
            polls += 1;
            match polls {
                1 => Poll::Pending,
                2 => Poll::Ready(Some(Ok::<_, axum::Error>(Frame::data(Bytes::from("abcd"))))),
                _ => Poll::Ready(None),
            }
        });
        let mut reader = reader(Body::new(StreamBody::new(asked_twice))).expect("it is short");
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        assert!(reader.poll(Duration::MAX, &mut cx).is_pending());
        assert!(woken.0.load(Ordering::Relaxed), "it is polled again");
        let Poll::Ready(Ok(body)) = reader.poll(Duration::MAX, &mut cx) else {
            panic!("it is there");
        };
        assert_eq!(body, "abcd");
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
        assert_eq!(read(slow(stall / 2), stall).await, Ok("abc".into()));
        let stalled = Err(BodyError::Stalled);
        assert_eq!(read(slow(stall * 2), stall).await, stalled);
    }
}
