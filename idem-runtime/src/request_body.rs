//! Reads the body of a keyed request to its end before anything is claimed.

use std::error::Error;
use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError};

use crate::problem::Problem;

/// Reads the body to its end and leaves a request without one.
///
/// The limit is axum's: `DefaultBodyLimit`, 2 MB where the service sets none. An extractor such as
/// `Request` that would skip that limit does not skip it here.
pub(crate) async fn read(request: &mut Request, stall: Duration) -> Result<Bytes, Problem> {
    let announced = request.body().size_hint().lower();
    let mut body = limited(request);
    // A limit shows as an upper bound: what announces more than it is refused unread.
    if body
        .size_hint()
        .upper()
        .is_some_and(|limit| announced > limit)
    {
        return Err(Problem::body_too_large());
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = next_frame(&mut body, stall).await? {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(first.len() + data.len());
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

fn limited(request: &mut Request) -> Body {
    let whole = std::mem::take(request);
    let (parts, body) = whole.with_limited_body().into_parts();
    *request = Request::from_parts(parts, Body::empty());
    body
}

async fn next_frame(
    body: &mut Body,
    stall: Duration,
) -> Result<Option<http_body::Frame<Bytes>>, Problem> {
    // Most bodies are there already, and need no timer.
    let frame = match futures_util::FutureExt::now_or_never(body.frame()) {
        Some(frame) => frame,
        None => tokio::time::timeout(stall, body.frame())
            .await
            .map_err(|_| Problem::body_timeout())?,
    };
    frame.transpose().map_err(|error| {
        if is_over_the_limit(&error) {
            Problem::body_too_large()
        } else {
            Problem::body_incomplete()
        }
    })
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
