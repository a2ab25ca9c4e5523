//! A service with the console, and its records.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::console::{Access, Console};
use axum_idem::{Idempotency, IdempotencyBuilder, OutcomeUnknown, Scope, idempotent};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::support::{self, Runs};

#[idempotent(scope = token, on_unknown = hold)]
async fn pay(State(runs): State<Runs>, body: String) -> Response {
    let run = runs.count();
    if body == "unknown" {
        return (OutcomeUnknown, ()).into_response();
    }
    let headers = [
        ("x-customer", "SECRET-header"),
        ("set-cookie", "session=SECRET-cookie"),
    ];
    (
        StatusCode::CREATED,
        headers,
        format!("SECRET-body of run {run}"),
    )
        .into_response()
}

/// The tests' login: a header.
pub(crate) fn access(parts: &Parts) -> Access {
    match parts
        .headers
        .get("x-operator")
        .map(http::HeaderValue::as_bytes)
    {
        Some(b"reader") => Access::ReadOnly,
        Some(b"admin") => Access::Full,
        _ => Access::Denied,
    }
}

pub(crate) struct Service {
    pub(crate) router: Router,
    pub(crate) idem: Idempotency,
    pub(crate) runs: Runs,
}

/// What the console has replied.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Service {
    pub(crate) fn new() -> Self {
        Self::with(|console| console)
    }

    pub(crate) fn with(settings: impl FnOnce(Console) -> Console) -> Self {
        Self::of(Idempotency::builder(), settings)
    }

    pub(crate) fn of(
        builder: IdempotencyBuilder,
        settings: impl FnOnce(Console) -> Console,
    ) -> Self {
        let (idem, runs) = (
            builder
                .label(|_, _| Some("<img src=x onerror=alert(1)>".to_owned()))
                .build(),
            Runs::default(),
        );
        let console = settings(Console::new(idem.clone(), access));
        let router = Router::new()
            .route("/pay", post(pay))
            .layer(idem.clone())
            .with_state(runs.clone())
            .nest("/ops/idem", console.clone().router())
            .nest_service("/slash/idem", console.router());
        Self { router, idem, runs }
    }

    /// Sends a request of a customer.
    pub(crate) async fn pay(&self, key: &str, body: &str) -> StatusCode {
        let request = support::post("/pay", key, body).map(Body::new);
        let sent = self.router.clone().oneshot(request).await;
        sent.expect("infallible").status()
    }

    /// One record in each state that a request leaves.
    pub(crate) async fn prepare(&self) {
        assert_eq!(self.pay("SECRET-recorded", "1").await, StatusCode::CREATED);
        assert_eq!(self.pay("SECRET-unknown", "unknown").await, StatusCode::OK);
    }

    pub(crate) fn id(&self, key: &str) -> String {
        let scope = Scope::new().token("Bearer alice");
        self.idem.record_id(&scope, key).to_string()
    }

    /// What the page sends back when an operator forgets a key.
    pub(crate) async fn version(&self, key: &str) -> String {
        let path = format!("/ops/idem/api/records/{}", self.id(key));
        let shown = self.get("reader", &path).await.json();
        shown["version"].as_str().expect("a version").to_owned()
    }

    /// The fence that the console shows for an unknown key.
    pub(crate) async fn fence(&self, key: &str) -> String {
        let path = format!("/ops/idem/api/records/{}", self.id(key));
        let shown = self.get("reader", &path).await.json();
        shown["fence"].as_str().expect("a fence").to_owned()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let sent = self.router.clone().oneshot(request).await;
        let (head, body) = sent.expect("infallible").into_parts();
        let body: Bytes = body.collect().await.expect("a body").to_bytes();
        Reply {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    pub(crate) async fn get(&self, operator: &str, path: &str) -> Reply {
        let request = Request::get(path).header("x-operator", operator);
        self.send(request.body(Body::empty()).expect("a request"))
            .await
    }

    /// Sends a change as the page does.
    pub(crate) async fn change(&self, operator: &str, path: &str, body: &Value) -> Reply {
        let headers = [
            ("x-operator", operator),
            ("content-type", "application/json"),
            ("sec-fetch-site", "same-origin"),
        ];
        self.post(path, &headers, &body.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(Method::POST).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Body::from(body.to_owned());
        self.send(request.body(body).expect("a request")).await
    }
}
