//! A merchant of the Agentic Commerce Protocol: checkout sessions that an agent can safely retry.
//!
//! The clauses are those of section 6 of the protocol's RFC "Agentic Checkout".
//!
//! | clause | what the protocol demands | how this example does it |
//! |---|---|---|
//! | 3.1 | the key is in every response to a `POST` | `Dialect::acp()` |
//! | 6.1 | a key is required, has at most 255 characters, and belongs to the caller and the path | `required`, `Dialect::acp()`, `scope = (agent.id, uri.path())` |
//! | 6.2 | bodies are compared as JSON values, and headers do not count | `fingerprint = json`, `Dialect::acp()` |
//! | 6.3 | a retry gets the first response, marked `Idempotent-Replayed: true` | `Dialect::acp()` |
//! | 6.4 | codes and statuses of refusals | `Dialect::acp()` |
//! | 6.5 | a 5xx response is not recorded | the default |
//! | 6.6 | a key is kept for 24 hours | `ttl = "24h"` |
//!
//! ```sh
//! cargo run --example acp
//! STORE=sqlite://acp.db cargo run --example acp --features sqlite  # keeps the records in a file
//! # Open a session. Run the command twice.
//! curl -i localhost:3006/checkout_sessions -H 'Authorization: Bearer acp_alice' -H 'Idempotency-Key: 6f1c-create' -H 'Content-Type: application/json' -d '{"items": [{"id": "rose", "quantity": 2}]}'
//! # The same value in another spelling is a retry too.
//! curl -i localhost:3006/checkout_sessions -H 'Authorization: Bearer acp_alice' -H 'Idempotency-Key: 6f1c-create' -H 'Content-Type: application/json' -d '{"items": [{"quantity": 2.0, "id": "rose"}]}'
//! # Complete the session. Run the command twice.
//! curl -i localhost:3006/checkout_sessions/1/complete -H 'Authorization: Bearer acp_alice' -H 'Idempotency-Key: 6f1c-complete' -H 'Content-Type: application/json' -d '{"payment_data": {"token": "tok_visa"}}'
//! # Without a key: 400.
//! curl -i localhost:3006/checkout_sessions -H 'Authorization: Bearer acp_alice' -H 'Content-Type: application/json' -d '{"items": []}'
//! ```

mod common;

use std::error::Error;

use axum::extract::{FromRequestParts, OriginalUri, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Dialect, Idempotency, idempotent};
use serde::{Deserialize, Serialize};
use serde_json::json;

use common::{Bearer, Books, add};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let idem = keys(common::store::from_environment().await?);
    common::serve(include_str!("acp.rs"), 3006, router(&idem), &[&idem]).await?;
    Ok(())
}

pub(crate) fn keys(store: impl Store) -> Idempotency {
    let idem = Idempotency::builder().store(store);
    idem.dialect(Dialect::acp()).build()
}

pub(crate) fn router(idem: &Idempotency) -> Router {
    Router::new()
        .route("/checkout_sessions", post(create))
        .route("/checkout_sessions/{id}", post(update).get(read))
        .route("/checkout_sessions/{id}/complete", post(complete))
        .route("/checkout_sessions/{id}/cancel", post(cancel))
        .layer(idem.clone())
        .with_state(Books::<Shop>::default())
}

#[idempotent(ttl = "24h", required, fingerprint = json, scope = (agent.id, uri.path()))]
async fn create(
    agent: Agent,
    OriginalUri(uri): OriginalUri,
    State(shop): State<Books<Shop>>,
    Json(Cart { items }): Json<Cart>,
) -> (StatusCode, Json<Session>) {
    let session = shop.open(|shop| {
        add(&mut shop.sessions, |id| Session {
            id,
            agent: agent.id,
            status: Status::Open,
            items,
        })
    });
    (StatusCode::CREATED, Json(session))
}

#[idempotent(ttl = "24h", required, fingerprint = json, scope = (agent.id, uri.path()))]
async fn update(
    agent: Agent,
    OriginalUri(uri): OriginalUri,
    State(shop): State<Books<Shop>>,
    Path(id): Path<usize>,
    Json(Cart { items }): Json<Cart>,
) -> Result<Json<Session>, Refusal> {
    shop.open(|shop| {
        let session = shop.open_session(&agent, id)?;
        session.items = items;
        Ok(Json(session.clone()))
    })
}

#[idempotent(ttl = "24h", required, fingerprint = json, scope = (agent.id, uri.path()))]
async fn complete(
    agent: Agent,
    OriginalUri(uri): OriginalUri,
    State(shop): State<Books<Shop>>,
    Path(id): Path<usize>,
    Json(Completion { payment_data }): Json<Completion>,
) -> Result<Json<Session>, Refusal> {
    shop.open(|shop| {
        shop.open_session(&agent, id)?;
        shop.charge(&payment_data)?;
        let session = shop.open_session(&agent, id)?;
        session.status = Status::Completed;
        Ok(Json(session.clone()))
    })
}

#[idempotent(ttl = "24h", required, fingerprint = json, scope = (agent.id, uri.path()))]
async fn cancel(
    agent: Agent,
    OriginalUri(uri): OriginalUri,
    State(shop): State<Books<Shop>>,
    Path(id): Path<usize>,
) -> Result<Json<Session>, Refusal> {
    shop.open(|shop| {
        let session = shop.open_session(&agent, id)?;
        session.status = Status::Canceled;
        Ok(Json(session.clone()))
    })
}

async fn read(
    agent: Agent,
    State(shop): State<Books<Shop>>,
    Path(id): Path<usize>,
) -> Result<Json<Session>, Refusal> {
    shop.open(|shop| shop.session(&agent, id).cloned().map(Json))
}

/// The caller, identified by a token that does not change.
#[derive(Debug)]
pub(crate) struct Agent {
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Agent {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Bearer(token) = Bearer::from_request_parts(parts, state).await?;
        let id = token.strip_prefix("acp_").map(str::to_owned);
        id.map(|id| Self { id })
            .ok_or((StatusCode::UNAUTHORIZED, "not a token of the merchant"))
    }
}

#[derive(Debug, Default)]
struct Shop {
    sessions: Vec<Session>,
    charges: usize,
}

impl Shop {
    fn session(&mut self, agent: &Agent, id: usize) -> Result<&mut Session, Refusal> {
        let mut own = self.sessions.iter_mut().filter(|it| it.agent == agent.id);
        own.find(|session| session.id == id)
            .ok_or(Refusal::new(StatusCode::NOT_FOUND, "not_found"))
    }

    fn open_session(&mut self, agent: &Agent, id: usize) -> Result<&mut Session, Refusal> {
        let session = self.session(agent, id)?;
        if session.status == Status::Open {
            return Ok(session);
        }
        Err(Refusal::new(StatusCode::CONFLICT, "session_closed"))
    }

    /// The token `tok_unavailable` acts like a payment provider that cannot be reached.
    fn charge(&mut self, payment: &Payment) -> Result<(), Refusal> {
        self.charges += 1;
        match payment.token.as_str() {
            "tok_unavailable" => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "provider_unavailable",
            )),
            "tok_declined" => Err(Refusal::new(
                StatusCode::PAYMENT_REQUIRED,
                "payment_declined",
            )),
            _ => Ok(()),
        }
    }
}

/// The flat error of the protocol.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str) -> Self {
        Self { status, code }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let kind = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            _ => "invalid_request",
        };
        let message = self.code.replace('_', " ");
        let error = json!({ "type": kind, "code": self.code, "message": message });
        (self.status, Json(error)).into_response()
    }
}

#[derive(Clone, Debug, Serialize)]
struct Session {
    id: usize,
    #[serde(skip)]
    agent: String,
    status: Status,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    #[serde(rename = "ready_for_payment")]
    Open,
    Completed,
    Canceled,
}

#[derive(Debug, Deserialize)]
struct Cart {
    items: Vec<Item>,
}

/// A quantity may be written `2.0`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Item {
    id: String,
    quantity: f64,
}

#[derive(Debug, Deserialize)]
struct Completion {
    payment_data: Payment,
}

#[derive(Debug, Deserialize)]
struct Payment {
    token: String,
}
