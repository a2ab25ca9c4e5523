//! A merchant of the Universal Commerce Protocol: checkout sessions that a platform can safely retry.
//!
//! The idempotency tests of the protocol's conformance suite pass against this example:
//! `examples/ucp-conformance` runs them. The rules are in the protocol's specification "Message Signatures",
//! section "Replay Protection".
//!
//! | rule | how this example does it |
//! |---|---|
//! | a key has 128 random bits | `Dialect::ucp()` refuses keys of less than 22 characters |
//! | a key belongs to a platform and an operation | `scope = (platform.profile, uri.path())` |
//! | a key is kept for 24 hours, better 48 | `ttl = "48h"` |
//! | a retry has the same bytes in its body, and headers do not count | the default, and `Dialect::ucp()` |
//! | a retry gets the first response | the default |
//! | a different body is 409 | the default |
//! | when the store fails, the request is refused with 503 | the default |
//!
//! ```sh
//! cargo run --example ucp
//! STORE=sqlite://ucp.db cargo run --example ucp --features sqlite  # keeps the records in a file
//! # Open a session. Run the command twice.
//! curl -i localhost:3007/shopping/checkout-sessions -H 'UCP-Agent: profile="https://platform.example/profile"' -H 'Idempotency-Key: 550e8400-e29b-41d4-a716-446655440000' -H 'Content-Type: application/json' -d '{"currency": "USD", "line_items": [{"item": {"id": "bouquet_roses"}, "quantity": 1}]}'
//! # Another body under the same key: 409.
//! curl -i localhost:3007/shopping/checkout-sessions -H 'UCP-Agent: profile="https://platform.example/profile"' -H 'Idempotency-Key: 550e8400-e29b-41d4-a716-446655440000' -H 'Content-Type: application/json' -d '{"currency": "EUR", "line_items": [{"item": {"id": "bouquet_roses"}, "quantity": 1}]}'
//! # A key that can be guessed: 400.
//! curl -i localhost:3007/shopping/checkout-sessions -H 'UCP-Agent: profile="https://platform.example/profile"' -H 'Idempotency-Key: 1' -H 'Content-Type: application/json' -d '{"currency": "USD", "line_items": []}'
//! ```

mod common;

use std::error::Error;

use axum::extract::{FromRequestParts, OriginalUri, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Dialect, Idempotency, idempotent};
use serde::Deserialize;
use serde_json::{Value, json};

use common::{Books, add};

const VERSION: &str = "2026-01-11";

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let idem = keys(common::store::from_environment().await?);
    common::serve(include_str!("ucp.rs"), 3007, router(&idem), &[&idem]).await?;
    Ok(())
}

pub(crate) fn keys(store: impl Store) -> Idempotency {
    let idem = Idempotency::builder().store(store);
    idem.dialect(Dialect::ucp()).build()
}

pub(crate) fn router(idem: &Idempotency) -> Router {
    let sessions = Router::new()
        .route("/checkout-sessions", post(create))
        .route("/checkout-sessions/{id}", get(read).put(update))
        .route("/checkout-sessions/{id}/complete", post(complete))
        .route("/checkout-sessions/{id}/cancel", post(cancel))
        .layer(idem.clone())
        .with_state(Books::<Vec<Session>>::default());
    Router::new()
        .route("/.well-known/ucp", get(discover))
        .nest("/shopping", sessions)
}

/// Tells platforms where the checkout is.
async fn discover(headers: HeaderMap) -> Json<Value> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let endpoint = format!("http://{}/shopping", host.unwrap_or("localhost:3007"));
    Json(json!({
        "ucp": {
            "version": VERSION,
            "services": { "dev.ucp.shopping": {
                "version": VERSION,
                "spec": "https://ucp.dev/specs/shopping",
                "rest": { "schema": "https://ucp.dev/services/shopping/openapi.json", "endpoint": endpoint },
            } },
            "capabilities": [{
                "name": "dev.ucp.shopping.checkout",
                "version": VERSION,
                "spec": "https://ucp.dev/specs/shopping/checkout",
                "schema": "https://ucp.dev/schemas/shopping/checkout.json",
            }],
        },
    }))
}

#[idempotent(ttl = "48h", scope = (platform.profile, uri.path()))]
async fn create(
    platform: Platform,
    OriginalUri(uri): OriginalUri,
    State(sessions): State<Books<Vec<Session>>>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    order.check()?;
    let session = sessions.open(|sessions| {
        add(sessions, |number| Session {
            id: format!("checkout_{number}"),
            platform: platform.profile,
            status: "ready_for_complete",
            order,
        })
    });
    Ok((StatusCode::CREATED, Json(session.render())))
}

#[idempotent(ttl = "48h", scope = (platform.profile, uri.path()))]
async fn update(
    platform: Platform,
    OriginalUri(uri): OriginalUri,
    State(sessions): State<Books<Vec<Session>>>,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> Result<Json<Value>, Refusal> {
    order.check()?;
    sessions.open(|sessions| {
        let session = open_session(sessions, &platform, &id)?;
        session.order.currency = order.currency;
        session.order.line_items = order.line_items;
        session.order.fulfillment = order.fulfillment.or(session.order.fulfillment.take());
        Ok(Json(session.render()))
    })
}

#[idempotent(ttl = "48h", scope = (platform.profile, uri.path()))]
async fn complete(
    platform: Platform,
    OriginalUri(uri): OriginalUri,
    State(sessions): State<Books<Vec<Session>>>,
    Path(id): Path<String>,
    Json(Payment { payment_data: _ }): Json<Payment>,
) -> Result<Json<Value>, Refusal> {
    sessions.open(|sessions| end(sessions, &platform, &id, "completed"))
}

#[idempotent(ttl = "48h", scope = (platform.profile, uri.path()))]
async fn cancel(
    platform: Platform,
    OriginalUri(uri): OriginalUri,
    State(sessions): State<Books<Vec<Session>>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    sessions.open(|sessions| end(sessions, &platform, &id, "canceled"))
}

async fn read(
    platform: Platform,
    State(sessions): State<Books<Vec<Session>>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refusal> {
    sessions.open(|sessions| Ok(Json(session(sessions, &platform, &id)?.render())))
}

type Refusal = (StatusCode, &'static str);

fn session<'a>(
    sessions: &'a mut [Session],
    platform: &Platform,
    id: &str,
) -> Result<&'a mut Session, Refusal> {
    let mut own = sessions
        .iter_mut()
        .filter(|it| it.platform == platform.profile);
    let session = own.find(|session| session.id == id);
    session.ok_or((StatusCode::NOT_FOUND, "there is no such session"))
}

fn open_session<'a>(
    sessions: &'a mut [Session],
    platform: &Platform,
    id: &str,
) -> Result<&'a mut Session, Refusal> {
    let session = session(sessions, platform, id)?;
    if session.status == "ready_for_complete" {
        return Ok(session);
    }
    Err((StatusCode::CONFLICT, "the session is completed or canceled"))
}

fn end(
    sessions: &mut [Session],
    platform: &Platform,
    id: &str,
    status: &'static str,
) -> Result<Json<Value>, Refusal> {
    let session = open_session(sessions, platform, id)?;
    session.status = status;
    Ok(Json(session.render()))
}

/// The caller, identified by the address of its profile. A real merchant verifies the signature of the
/// request with the keys in that profile.
#[derive(Debug)]
pub(crate) struct Platform {
    profile: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Platform {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let agent = parts.headers.get("ucp-agent");
        let profile = agent.and_then(|agent| {
            let (_, profile) = agent.to_str().ok()?.split_once("profile=\"")?;
            profile.split_once('"').map(|(profile, _)| profile.into())
        });
        profile
            .map(|profile| Self { profile })
            .ok_or((StatusCode::UNAUTHORIZED, "send `UCP-Agent: profile=\"…\"`"))
    }
}

#[derive(Clone, Debug)]
struct Session {
    id: String,
    platform: String,
    status: &'static str,
    order: Order,
}

#[derive(Clone, Debug, Deserialize)]
struct Order {
    currency: String,
    line_items: Vec<LineItem>,
    fulfillment: Option<Fulfillment>,
}

#[derive(Clone, Debug, Deserialize)]
struct LineItem {
    item: Item,
    /// A product with the price of any item fits into 64 bits.
    quantity: u32,
}

#[derive(Clone, Debug, Deserialize)]
struct Item {
    id: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Fulfillment {
    methods: Vec<Method>,
}

#[derive(Clone, Debug, Deserialize)]
struct Method {
    #[serde(default)]
    destinations: Vec<Value>,
    selected_destination_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Payment {
    #[expect(dead_code, reason = "this merchant takes no money")]
    payment_data: Value,
}

/// Title and price in cents.
fn product(id: &str) -> Option<(&'static str, u64)> {
    Some(match id {
        "bouquet_roses" => ("Bouquet of Red Roses", 3_500),
        "pot_ceramic" => ("Ceramic Pot", 1_500),
        "orchid_white" => ("White Orchid", 4_500),
        _ => return None,
    })
}

impl Order {
    fn check(&self) -> Result<(), Refusal> {
        let exists = |line: &LineItem| product(&line.item.id).is_some();
        if self.line_items.iter().all(exists) {
            return Ok(());
        }
        Err((StatusCode::BAD_REQUEST, "there is no such product"))
    }
}

impl Session {
    fn render(&self) -> Value {
        let mut total = 0;
        let mut lines = Vec::new();
        for (at, LineItem { item, quantity }) in self.order.line_items.iter().enumerate() {
            let (title, price) = product(&item.id).unwrap_or_default();
            let amount = price * u64::from(*quantity);
            total += amount;
            lines.push(json!({
                "id": line_id(at),
                "item": { "id": item.id, "title": title, "price": price },
                "quantity": quantity,
                "totals": totals(amount),
            }));
        }
        let fulfillment = self.order.fulfillment.as_ref();
        let methods = fulfillment.map(|it| it.methods.iter().map(|method| self.method(method)));
        json!({
            "ucp": { "version": VERSION, "capabilities": [] },
            "id": self.id,
            "status": self.status,
            "currency": self.order.currency,
            "line_items": lines,
            "totals": totals(total),
            "links": [],
            "payment": { "handlers": [], "instruments": [] },
            "fulfillment": { "methods": methods.into_iter().flatten().collect::<Vec<_>>() },
        })
    }

    fn method(&self, method: &Method) -> Value {
        let lines: Vec<_> = (0..self.order.line_items.len()).map(line_id).collect();
        json!({
            "id": "shipping",
            "type": "shipping",
            "line_item_ids": lines,
            "destinations": method.destinations,
            "selected_destination_id": method.selected_destination_id,
            "groups": [{
                "id": "all",
                "line_item_ids": lines,
                "options": [{ "id": "std-ship", "title": "Standard", "totals": totals(0) }],
                "selected_option_id": "std-ship",
            }],
        })
    }
}

fn line_id(at: usize) -> String {
    format!("line_{}", at + 1)
}

fn totals(amount: u64) -> Value {
    json!([{ "type": "subtotal", "amount": amount }, { "type": "total", "amount": amount }])
}
