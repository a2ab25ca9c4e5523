//! Reads the complete body of a request with a key before the key is claimed.

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

/// The reason why a body could not be read completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The body is longer than the service allows.
    TooLarge,
    /// The body ended early.
    Incomplete,
    /// The body stalled for longer than the service allows.
    Stalled,
}

/// Reads the complete body of one request.
///
/// Two limits apply. The first is the `DefaultBodyLimit` of axum, which is 2 MB by default. It also applies
/// to extractors such as `Request`, which would otherwise skip the limit. The second is
/// `max_request_body` of the service, which also applies when the limit of axum is disabled.
#[derive(Debug)]
pub(crate) struct BodyReader {
    body: Body,
    /// How many bytes may still come.
    left: usize,
    first: Bytes,
    /// Empty while there is only one frame.
    whole: BytesMut,
    wait: Wait,
}

/// The state of waiting for the next frame.
#[derive(Debug)]
enum Wait {
    NotYet,
    /// hyper starts to read a body at the first poll, so a frame that has already arrived comes
    /// with the next poll. A timer for this poll would be created and dropped for every request.
    ForOnePoll,
    Timed(Pin<Box<Sleep>>),
}

impl BodyReader {
    /// Takes the body out of its request, to read at most `max` bytes.
    pub(crate) fn new(request: &mut Request, max: usize) -> Result<Self, BodyError> {
        let announced = request.body().size_hint().lower();
        *request = mem::take(request).with_limited_body();
        let body = mem::take(request.body_mut());
        // A limit appears as the upper bound. A body that announces more is refused before it is
        // read.
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

    /// Continues to read, and fails if a frame takes longer than `stall`. Must not be polled again
    /// after `Ready`.
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

    /// Returns `Ready` when the next frame is late.
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

    /// Adds a frame, and returns whether more frames may follow.
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

    /// Returns a reader with a limit of four bytes.
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
    async fn a_body_in_any_number_of_frames_is_read_completely() {
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
    async fn a_body_over_the_limit_and_an_incomplete_body_have_different_errors() {
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

    /// A timer would need a runtime, and this test has no runtime.
    #[test]
    fn a_frame_at_the_second_poll_needs_no_timer() {
        let mut polls = 0;
        let asked_twice = stream::poll_fn(move |_| {
            polls += 1;
            match polls {
                1 => Poll::Pending,
                2 => Poll::Ready(Some(Ok::<_, axum::Error>(Frame::data(Bytes::from("abcd"))))),
                _ => Poll::Ready(None),
            }
        });
        let mut reader =
            reader(Body::new(StreamBody::new(asked_twice))).expect("the body is short");
        let woken = Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        assert!(reader.poll(Duration::MAX, &mut cx).is_pending());
        assert!(
            woken.0.load(Ordering::Relaxed),
            "the reader asks for another poll"
        );
        let Poll::Ready(Ok(body)) = reader.poll(Duration::MAX, &mut cx) else {
            panic!("the body has arrived");
        };
        assert_eq!(body, "abcd");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_read_and_a_stalled_body_fails() {
        let stall = Duration::from_secs(1);
        let slow = |pause: Duration| {
            let frames = stream::iter(["a", "b", "c"]).then(move |data| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, axum::Error>(Frame::data(Bytes::from(data)))
            });
            reader(Body::new(StreamBody::new(Box::pin(frames)))).expect("the body is short")
        };
        assert_eq!(read(slow(stall / 2), stall).await, Ok("abc".into()));
        let stalled = Err(BodyError::Stalled);
        assert_eq!(read(slow(stall * 2), stall).await, stalled);
    }
}
