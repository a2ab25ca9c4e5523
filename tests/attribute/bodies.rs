//! Tests every body extractor as the last argument.

use axum::body::Bytes;
use axum::extract::multipart::Multipart;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Form, Json, Router};
use axum_idem::{Idempotency, idempotent};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};

use crate::support::{post as request, runs_once, send};

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    symbol: String,
}

#[idempotent(scope = token)]
async fn json(Json(order): Json<Order>) -> Json<Order> {
    Json(order)
}

#[idempotent(scope = token)]
async fn form(Form(Order { symbol }): Form<Order>) -> String {
    symbol
}

#[idempotent(scope = token)]
async fn bytes(body: Bytes) -> Bytes {
    body
}

#[idempotent(scope = token)]
async fn string(body: String) -> String {
    body
}

#[idempotent(scope = token)]
async fn multipart(mut parts: Multipart) -> Result<String, StatusCode> {
    let mut names = Vec::new();
    while let Some(field) = parts.next_field().await.map_err(|error| error.status())? {
        names.push(field.name().unwrap_or_default().to_owned());
    }
    Ok(names.join(","))
}

#[idempotent(scope = token)]
async fn whole_request(request: Request) -> Result<String, StatusCode> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let body = body.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
    Ok(format!("{path} {}", body.len()))
}

#[idempotent(scope = token)]
async fn optional(order: Option<Json<Order>>) -> String {
    order.map_or("none".to_owned(), |Json(order)| order.symbol)
}

#[idempotent(scope = token)]
async fn fallible(order: Result<Json<Order>, JsonRejection>) -> Response {
    match order {
        Ok(order) => order.into_response(),
        Err(rejection) => (StatusCode::UNPROCESSABLE_ENTITY, rejection.body_text()).into_response(),
    }
}

struct Shouted(String);

impl<S: Sync> FromRequest<S> for Shouted {
    type Rejection = StatusCode;

    async fn from_request(request: Request, state: &S) -> Result<Self, StatusCode>
    where
        S: Sync,
    {
        let _ = state;
        let body = request.into_body().collect().await;
        let body = body.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
        Ok(Self(String::from_utf8_lossy(&body).to_uppercase()))
    }
}

#[idempotent(scope = token)]
async fn custom(Shouted(body): Shouted) -> String {
    body
}

fn router() -> Router {
    Router::new()
        .route("/json", post(json))
        .route("/form", post(form))
        .route("/bytes", post(bytes))
        .route("/string", post(string))
        .route("/multipart", post(multipart))
        .route("/request", post(whole_request))
        .route("/optional", post(optional))
        .route("/fallible", post(fallible))
        .route("/custom", post(custom))
        .layer(Idempotency::in_memory())
}

#[tokio::test]
async fn each_body_extractor_is_replayed() {
    let router = router();
    let order = r#"{"symbol":"AAPL"}"#;
    for (path, body, expected) in [
        ("/json", order, order),
        ("/bytes", "abc", "abc"),
        ("/string", "abc", "abc"),
        ("/request", "abc", "/request 3"),
        ("/optional", order, "AAPL"),
        ("/fallible", order, order),
        ("/custom", "abc", "ABC"),
    ] {
        let answer = runs_once(&router, || request(path, path, body)).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (StatusCode::OK, expected),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_form_body_is_replayed() {
    let router = router();
    let answer = runs_once(&router, || {
        let mut request = request("/form", "form", "symbol=AAPL");
        let form = header::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        request
    })
    .await;
    assert_eq!(answer.body, "AAPL");
}

#[tokio::test]
async fn a_multipart_body_is_replayed() {
    let router = router();
    let answer = runs_once(&router, || {
        let body = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";
        let mut request = request("/multipart", "multipart", body);
        let multipart = header::HeaderValue::from_static("multipart/form-data; boundary=x");
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, multipart);
        request
    })
    .await;
    assert_eq!(answer.body, "a");
}

#[tokio::test]
async fn the_rejection_of_the_extractor_is_returned() {
    let router = router();
    let answer = send(&router, request("/json", "rejected", "{")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = runs_once(&router, || request("/fallible", "fallible", "{")).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_handler_can_be_called_directly() {
    let order = Json(Order {
        symbol: "AAPL".to_owned(),
    });
    assert_eq!(json(order.into()).await.status(), StatusCode::OK);
}
