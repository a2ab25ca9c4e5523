//! Tests the return types of handlers, and how their bodies produce them.

use std::convert::Infallible;
use std::fmt;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use futures_util::Stream;
use serde::Serialize;

use crate::support::{post as request, runs_once, send};

#[derive(Debug)]
struct Refused(StatusCode);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.to_string()).into_response()
    }
}

impl From<std::num::ParseIntError> for Refused {
    fn from(_: std::num::ParseIntError) -> Self {
        Self(StatusCode::BAD_REQUEST)
    }
}

#[idempotent(scope = token)]
async fn something(body: String) -> impl IntoResponse {
    (StatusCode::CREATED, [(header::LOCATION, "/1")], body)
}

#[idempotent(scope = token)]
async fn question_mark(body: String) -> Result<String, Refused> {
    let number: u64 = body.parse()?;
    Ok((number + 1).to_string())
}

#[idempotent(scope = token)]
async fn question_mark_to_something(body: String) -> Result<impl IntoResponse, Refused> {
    let number: u64 = body.parse()?;
    Ok((StatusCode::CREATED, Json(number)))
}

#[idempotent(scope = token)]
async fn early(body: String) -> Response {
    if body.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    body.into_response()
}

#[idempotent(scope = token)]
async fn inferred(body: String) -> Json<Vec<u16>> {
    if body.is_empty() {
        return Json(Vec::new());
    }
    Json(body.bytes().map(Into::into).collect())
}

#[idempotent(scope = token)]
async fn boxed(body: String) -> Result<Json<Box<dyn erased::Shown>>, Refused> {
    if body.is_empty() {
        return Err(Refused(StatusCode::GONE));
    }
    Ok(Json(Box::new(body)))
}

mod erased {
    use serde::{Serialize, Serializer};

    pub(crate) trait Shown: Send {
        fn text(&self) -> &str;
    }

    impl Shown for String {
        fn text(&self) -> &str {
            self
        }
    }

    impl Serialize for dyn Shown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.text())
        }
    }
}

#[idempotent(scope = token)]
async fn only_a_panic() -> Json<u8> {
    unimplemented!()
}

#[idempotent(scope = token)]
async fn only_a_panic_without_a_type() {
    unimplemented!()
}

/// Only the signature names the error type.
#[idempotent(scope = token)]
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(futures_util::stream::iter([Ok(Event::default().data("1"))]))
}

#[idempotent(scope = token)]
async fn nested(body: String) -> Result<(StatusCode, Json<impl Serialize + use<>>), Refused> {
    Ok((StatusCode::ACCEPTED, Json([body.parse::<i32>()?])))
}

#[idempotent(scope = token)]
async fn nothing(body: String) {
    if body.is_empty() {
        return;
    }
    drop(body);
}

fn router() -> Router {
    Router::new()
        .route("/something", post(something))
        .route("/question_mark", post(question_mark))
        .route("/both", post(question_mark_to_something))
        .route("/early", post(early))
        .route("/inferred", post(inferred))
        .route("/boxed", post(boxed))
        .route("/panic", post(only_a_panic))
        .route("/panic2", post(only_a_panic_without_a_type))
        .route("/events", post(events))
        .route("/nested", post(nested))
        .route("/nothing", post(nothing))
        .layer(Idempotency::in_memory())
}

#[idempotent(scope = token)]
async fn recursive(Path(depth): Path<u8>, body: String) -> Response {
    if depth == 0 {
        return body.into_response();
    }
    Box::pin(recursive(Path(depth - 1), format!("{body}{depth}").into())).await
}

#[tokio::test]
async fn a_handler_may_call_itself() {
    let router = Router::new()
        .route("/{depth}", post(recursive))
        .layer(Idempotency::in_memory());
    let answer = runs_once(&router, || request("/3", "recursive", "x")).await;
    assert_eq!(answer.body, "x321");
}

#[tokio::test]
async fn each_return_type_gives_the_expected_response() {
    let router = router();
    for (path, body, status, expected) in [
        ("/something", "a", StatusCode::CREATED, "a"),
        ("/question_mark", "1", StatusCode::OK, "2"),
        ("/question_mark", "x", StatusCode::BAD_REQUEST, "refused"),
        ("/both", "1", StatusCode::CREATED, "1"),
        ("/both", "x", StatusCode::BAD_REQUEST, "refused"),
        ("/early", "", StatusCode::NO_CONTENT, ""),
        ("/early", "a", StatusCode::OK, "a"),
        ("/inferred", "", StatusCode::OK, "[]"),
        ("/inferred", "a", StatusCode::OK, "[97]"),
        ("/boxed", "", StatusCode::GONE, "refused"),
        ("/boxed", "a", StatusCode::OK, "\"a\""),
        ("/nested", "1", StatusCode::ACCEPTED, "[1]"),
        ("/nothing", "", StatusCode::OK, ""),
    ] {
        let key = format!("{path}{body}");
        let answer = runs_once(&router, || request(path, &key, body)).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (status, expected),
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn an_event_stream_reaches_the_client() {
    let router = router();
    let answer = send(&router, request("/events", "events", "")).await;
    assert_eq!(
        (answer.status, &*answer.body),
        (StatusCode::OK, "data: 1\n\n")
    );
}
