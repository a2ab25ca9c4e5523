//! Reads the body of a response in order to record it.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::request::headers;

/// Returns the length that a response announces for its body.
///
/// A 204 and a 304 have no body. A `Content-Length` in such a response is the length of another
/// response (RFC 9110, section 8.6).
pub(crate) fn announced_len(response: &Response) -> Option<u64> {
    if matches!(
        response.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) {
        return None;
    }
    let value = headers::find(response.headers(), &header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Returns whether the body cannot be recorded, before the body is read. That is the case if the
/// body is too long, is endless, or differs from the announced length.
pub(crate) fn cannot_be_kept(response: &Response, announced: Option<u64>, limit: usize) -> bool {
    let content_type = headers::find(response.headers(), &header::CONTENT_TYPE);
    let is_event_stream = content_type.is_some_and(is_event_stream);
    let hint = response.body().size_hint();
    let len = hint.exact().or(announced).unwrap_or(0);
    let differs = announced.is_some_and(|announced| announced != len);
    is_event_stream || differs || hint.lower().max(len) > limit as u64
}

fn is_event_stream(content_type: &HeaderValue) -> bool {
    const MIME: &[u8] = b"text/event-stream";
    // The length is compared first, because most content types are shorter.
    let value = content_type.as_bytes().trim_ascii_start();
    value
        .split_at_checked(MIME.len())
        .is_some_and(|(mime, rest)| {
            let rest = rest.trim_ascii_start();
            mime.eq_ignore_ascii_case(MIME) && (rest.is_empty() || rest.starts_with(b";"))
        })
}

/// The frames that were read, in order. Most bodies have one frame, which needs no queue.
#[derive(Debug, Default)]
struct Read {
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    rest: VecDeque<Result<Frame<Bytes>, axum::Error>>,
}

impl Read {
    fn push(&mut self, frame: Result<Frame<Bytes>, axum::Error>) {
        if self.is_empty() {
            self.first = Some(frame);
        } else {
            self.rest.push_back(frame);
        }
    }

    fn pop(&mut self) -> Option<Result<Frame<Bytes>, axum::Error>> {
        self.first.take().or_else(|| self.rest.pop_front())
    }

    /// The data of the next frame.
    fn pop_data(&mut self) -> Bytes {
        match self.pop() {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty()
    }

    /// The length of the data in bytes.
    fn len(&self) -> u64 {
        let mut len = self.first.as_ref().map_or(0, data_len);
        for frame in &self.rest {
            len += data_len(frame);
        }
        len
    }
}

fn data_len(frame: &Result<Frame<Bytes>, axum::Error>) -> u64 {
    let data = frame.as_ref().ok().and_then(Frame::data_ref);
    data.map_or(0, |data| data.len() as u64)
}

/// How long a body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a body of known length.
    pub(crate) known: Duration,
    /// For a body of unknown length, which may be endless.
    pub(crate) unknown: Duration,
}

/// Reads a complete body of at most `limit` bytes.
#[derive(Debug)]
pub(crate) struct Collector {
    read: Read,
    len: usize,
    /// The length that the response announces.
    announced: Option<u64>,
    limit: usize,
    patience: Patience,
    /// Set when the body is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The result of reading a body.
pub(crate) enum Collected {
    /// The complete body.
    Whole(Bytes),
    /// The body is too long, took too long, has trailers, failed, or has not the announced length. The contained
    /// body yields the same frames as the original body.
    NotKept(Body),
}

impl Collector {
    pub(crate) fn new(announced: Option<u64>, limit: usize, patience: Patience) -> Self {
        Self {
            read: Read::default(),
            len: 0,
            announced,
            limit,
            patience,
            timer: None,
        }
    }

    /// Continues to read. After `Ready`, `body` is empty.
    pub(crate) fn poll(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Collected> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                ready!(self.wait(body, cx));
                return Poll::Ready(Collected::NotKept(self.partly_read(Some(mem::take(body)))));
            };
            match frame {
                None if self.announced.is_some_and(|len| len != self.len as u64) => {
                    return Poll::Ready(Collected::NotKept(self.partly_read(None)));
                }
                None => return Poll::Ready(Collected::Whole(self.join())),
                Some(frame) => {
                    let data_len = frame
                        .as_ref()
                        .ok()
                        .and_then(Frame::data_ref)
                        .map(Bytes::len);
                    self.read.push(frame);
                    match data_len {
                        Some(len) if self.len + len <= self.limit => self.len += len,
                        _ => {
                            let rest = mem::take(body);
                            return Poll::Ready(Collected::NotKept(self.partly_read(Some(rest))));
                        }
                    }
                }
            }
        }
    }

    /// Is ready when the body has been read for too long.
    fn wait(&mut self, body: &Body, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            let is_known = self.announced.is_some() || body.size_hint().exact().is_some();
            let Patience { known, unknown } = self.patience;
            Box::pin(sleep(if is_known { known } else { unknown }))
        });
        timer.as_mut().poll(cx)
    }

    fn join(&mut self) -> Bytes {
        let len = self.len;
        let first = self.read.pop_data();
        if first.len() == len {
            return first;
        }
        let mut whole = BytesMut::with_capacity(len);
        whole.extend_from_slice(&first);
        while !self.read.is_empty() {
            whole.extend_from_slice(&self.read.pop_data());
        }
        whole.freeze()
    }

    fn partly_read(&mut self, rest: Option<Body>) -> Body {
        Body::new(PartlyRead {
            read: mem::take(&mut self.read),
            rest,
        })
    }
}

/// A body that was partly read. It yields the frames that were read, and then the rest.
struct PartlyRead {
    read: Read,
    /// `None` if the body ended with another length than announced. The length of this body then
    /// stays unknown, as before. The server detects the wrong length as it does for a request
    /// without a key, and aborts the response.
    rest: Option<Body>,
}

impl HttpBody for PartlyRead {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match (self.read.pop(), &mut self.rest) {
            (Some(frame), _) => Poll::Ready(Some(frame)),
            (None, Some(rest)) => Pin::new(rest).poll_frame(cx),
            (None, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(rest) = &self.rest else {
            return SizeHint::default();
        };
        let read = self.read.len();
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::Instant;

    async fn collect(body: Body, limit: usize) -> Collected {
        collect_announced(body, None, limit).await
    }

    async fn collect_announced(mut body: Body, announced: Option<u64>, limit: usize) -> Collected {
        let mut collector = Collector::new(announced, limit, PATIENCE);
        std::future::poll_fn(|cx| collector.poll(&mut body, cx)).await
    }

    const PATIENCE: Patience = Patience {
        known: Duration::from_secs(900),
        unknown: Duration::from_secs(30),
    };

    type TestFrame = Result<Frame<Bytes>, &'static str>;

    fn frames(frames: Vec<TestFrame>) -> Body {
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "used together with frames that fail"
    )]
    fn data(text: &'static str) -> TestFrame {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_collected() {
        for body in [
            Body::from("abcd"),
            frames(vec![data("ab"), data(""), data("cd")]),
        ] {
            let Collected::Whole(whole) = collect(body, 4).await else {
                panic!("the body fits");
            };
            assert_eq!(whole, "abcd");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_returned_unchanged() {
        let body = frames(vec![data("ab"), data("cd"), data("ef")]);
        let Collected::NotKept(body) = collect(body, 3).await else {
            panic!("the body is too long");
        };
        assert_eq!(body.collect().await.expect("no error").to_bytes(), "abcdef");
        let by_one = frames(vec![data("abc"), data("d"), data("e")]);
        assert!(matches!(collect(by_one, 4).await, Collected::NotKept(_)));
    }

    /// A body whose length is known.
    struct Sized(VecDeque<&'static str>);

    impl HttpBody for Sized {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            let text = self.0.pop_front();
            Poll::Ready(text.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.iter().map(|text| text.len() as u64).sum())
        }
    }

    #[tokio::test]
    async fn a_returned_body_reports_its_length_and_its_end() {
        let body = Body::new(Sized(["ab", "cd", "efg"].into()));
        let Collected::NotKept(mut body) = collect(body, 3).await else {
            panic!("the body is too long");
        };
        for left in [7, 5, 3] {
            assert_eq!(body.size_hint().exact(), Some(left));
            assert!(!body.is_end_stream(), "{left} bytes are left");
            assert!(body.frame().await.is_some());
        }
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
        // The rest of a stream of unknown length can have any length.
        let body = frames(vec![data("ab"), data("cd"), data("efg")]);
        let Collected::NotKept(body) = collect(body, 3).await else {
            panic!("the body is too long");
        };
        let hint = body.size_hint();
        assert_eq!((hint.lower(), hint.upper()), (4, None));
    }

    #[test]
    fn a_body_that_cannot_be_recorded_is_not_read() {
        let json = "application/json";
        for (content_type, length, known, is_too_long) in [
            (json, None, Some("abcd"), false),
            (json, None, Some("abcde"), true),
            (json, Some("4"), Some("abcd"), false),
            (json, Some("3"), Some("abcd"), true),
            (json, Some("9"), Some("abcd"), true),
            (json, None, None, false),
            (json, Some("4"), None, false),
            (json, Some("5"), None, true),
            (json, Some("much"), None, false),
            ("text/event-stream", None, Some(""), true),
            ("Text/Event-Stream ; charset=utf-8", None, None, true),
            ("text/event-streams", None, None, false),
            ("text/plain;text/event-stream", None, None, false),
        ] {
            let body = known.map_or_else(|| frames(vec![]), Body::from);
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            if let Some(length) = length {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            assert_eq!(
                cannot_be_kept(&response, announced_len(&response), 4),
                is_too_long,
                "{content_type}, {length:?}, {known:?}"
            );
        }
        assert!(!cannot_be_kept(&Response::default(), None, 0));
    }

    /// The length belongs to the response that a `GET` request gets.
    #[test]
    fn a_response_without_a_body_announces_no_length() {
        for (status, announced) in [(200, Some(10)), (404, Some(10)), (204, None), (304, None)] {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from_static("10"));
            assert_eq!(announced_len(&response), announced, "{status}");
        }
    }

    #[tokio::test]
    async fn a_body_of_another_length_than_announced_is_returned_without_a_length() {
        for announced in [0, 3, 5, 9] {
            let body = frames(vec![data("ab"), data("cd")]);
            let Collected::NotKept(body) = collect_announced(body, Some(announced), 9).await else {
                panic!("the body has four bytes, not {announced}");
            };
            let hint = body.size_hint();
            assert_eq!((hint.lower(), hint.upper()), (0, None));
            assert!(!body.is_end_stream());
            assert_eq!(body.collect().await.expect("no error").to_bytes(), "abcd");
        }
        let body = frames(vec![data("ab"), data("cd")]);
        let collected = collect_announced(body, Some(4), 9).await;
        assert!(matches!(collected, Collected::Whole(whole) if whole == "abcd"));
    }

    #[tokio::test]
    async fn a_failure_reaches_the_client_after_the_frames_before_it() {
        let Collected::NotKept(mut body) =
            collect(frames(vec![data("ab"), Err("broken")]), 9).await
        else {
            panic!("the body failed");
        };
        let first = body.frame().await.expect("a frame").expect("no error yet");
        assert_eq!(first.into_data().expect("data"), "ab");
        assert!(body.frame().await.expect("a frame").is_err());
    }

    /// An endless body is passed on after its time, and nothing of what was read is lost.
    #[tokio::test(start_paused = true)]
    async fn a_body_of_unknown_length_that_takes_too_long_is_passed_on() {
        let begun = Instant::now();
        let endless = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            Some((data("ab"), ()))
        });
        let body = Body::new(StreamBody::new(Box::pin(endless)));
        let Collected::NotKept(mut body) = collect(body, 1_000).await else {
            panic!("it does not end");
        };
        assert_eq!(begun.elapsed(), PATIENCE.unknown);
        for _ in 0..6 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            assert_eq!(frame.into_data().expect("data"), "ab");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_known_length_has_more_time() {
        let slow = |pause| {
            let frames = stream::iter(["ab", "cd"]).then(move |text| async move {
                tokio::time::sleep(pause).await;
                data(text)
            });
            Body::new(StreamBody::new(Box::pin(frames)))
        };
        let collected = collect_announced(slow(PATIENCE.known / 3), Some(4), 9).await;
        assert!(matches!(collected, Collected::Whole(whole) if whole == "abcd"));
        let collected = collect_announced(slow(PATIENCE.known), Some(4), 9).await;
        assert!(matches!(collected, Collected::NotKept(_)));
    }

    #[tokio::test]
    async fn a_body_with_trailers_is_returned_with_them() {
        let trailers = Ok(Frame::trailers(HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("7"),
        )])));
        let Collected::NotKept(body) = collect(frames(vec![data("ab"), trailers]), 9).await else {
            panic!("the body has trailers");
        };
        let all = body.collect().await.expect("no error");
        assert_eq!(all.trailers().expect("trailers")["x-sum"], "7");
        assert_eq!(all.to_bytes(), "ab");
    }
}
