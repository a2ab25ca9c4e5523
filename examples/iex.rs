//! `IEXExchanger`, an exchange. Placing, confirming and cancelling an order each take effect once.
//!
//! | row | what the exchange documents | how this example does it |
//! |---|---|---|
//! | 2, 14 | listed endpoints accept keys: orders, confirm, cancel, webhooks | the attribute on these handlers only |
//! | 5 | a key belongs to the caller | `scope = trader.id` |
//! | 6 | weak keys such as `123`, `test` and `random` are refused | `Dialect::key_rule` |
//! | 8 | a replay has the header `Idempotency-Replayed: true` | the default |
//! | 9, 10 | a different body or endpoint under the same key is a conflict | the default |
//! | 15 | a key names one business operation | `order-42`, `order-42-confirm`, `order-42-cancel` |
//!
//! ```sh
//! cargo run --example iex
//! STORE=sqlite://iex.db cargo run --example iex --features sqlite  # keeps the records in a file
//! # Place an order, and confirm it. Run each command twice.
//! curl -i localhost:3004/v1/orders -H 'Authorization: Bearer iex_alice' -H 'Idempotency-Key: order-42-place' -H 'Content-Type: application/json' -d '{"pair": "BTC-USD", "side": "buy", "amount": "0.5"}'
//! curl -i -X POST localhost:3004/v1/orders/1/confirm -H 'Authorization: Bearer iex_alice' -H 'Idempotency-Key: order-42-confirm'
//! # The key of the confirmation cannot cancel: 409.
//! curl -i -X POST localhost:3004/v1/orders/1/cancel -H 'Authorization: Bearer iex_alice' -H 'Idempotency-Key: order-42-confirm'
//! # A weak key is refused before the handler runs: 400.
//! curl -i localhost:3004/v1/orders -H 'Authorization: Bearer iex_alice' -H 'Idempotency-Key: test' -H 'Content-Type: application/json' -d '{"pair": "BTC-USD", "side": "buy", "amount": "0.5"}'
//! # Add a webhook, and list the orders and webhooks.
//! curl -i localhost:3004/v1/webhooks -H 'Authorization: Bearer iex_alice' -H 'Idempotency-Key: hook-orders-1' -H 'Content-Type: application/json' -d '{"url": "https://example.com/hook"}'
//! curl localhost:3004/v1/orders -H 'Authorization: Bearer iex_alice'
//! curl localhost:3004/v1/webhooks -H 'Authorization: Bearer iex_alice'
//! ```

mod common;

use std::error::Error;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Dialect, Idempotency, idempotent};
use serde::{Deserialize, Serialize};

use common::{Bearer, Books, add};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let idem = keys(common::store::from_environment().await?);
    common::serve(include_str!("iex.rs"), 3004, router(&idem), &[&idem]).await?;
    Ok(())
}

pub(crate) fn keys(store: impl Store) -> Idempotency {
    let dialect = Dialect::default().key_rule(names_one_operation);
    let idem = Idempotency::builder().store(store).dialect(dialect);
    idem.build()
}

/// Refuses keys that a different operation could also have. A number may be a counter that restarts,
/// and people type these words to try a request.
fn names_one_operation(key: &str) -> bool {
    const WEAK_WORDS: [&str; 5] = ["test", "random", "key", "order", "abc"];
    let is_weak_word = WEAK_WORDS.iter().any(|weak| key.eq_ignore_ascii_case(weak));
    !is_weak_word && !key.bytes().all(|byte| byte.is_ascii_digit())
}

pub(crate) fn router(idem: &Idempotency) -> Router {
    Router::new()
        .route("/v1/orders", post(place_order).get(list_orders))
        .route("/v1/orders/{id}/confirm", post(confirm_order))
        .route("/v1/orders/{id}/cancel", post(cancel_order))
        .route("/v1/webhooks", post(add_webhook).get(list_webhooks))
        .route("/v1/quotes", post(ask_quote))
        .layer(idem.clone())
        .with_state(Books::<Exchange>::default())
}

#[idempotent(ttl = "24h", scope = trader.id)]
async fn place_order(
    State(books): State<Books<Exchange>>,
    trader: Trader,
    Json(terms): Json<Terms>,
) -> (StatusCode, Json<Order>) {
    let (trader, status) = (trader.id, Status::Placed);
    let order = books.open(|exchange| {
        add(&mut exchange.orders, |id| Order {
            id,
            trader,
            terms,
            status,
        })
    });
    (StatusCode::CREATED, Json(order))
}

/// A retry gets the confirmation again, and not an error for a second confirmation.
#[idempotent(ttl = "24h", scope = trader.id)]
async fn confirm_order(
    State(books): State<Books<Exchange>>,
    trader: Trader,
    Path(id): Path<usize>,
) -> Result<Json<Order>, (StatusCode, &'static str)> {
    books.open(|exchange| exchange.move_on(&trader, id, Status::Confirmed))
}

#[idempotent(ttl = "24h", scope = trader.id)]
async fn cancel_order(
    State(books): State<Books<Exchange>>,
    trader: Trader,
    Path(id): Path<usize>,
) -> Result<Json<Order>, (StatusCode, &'static str)> {
    books.open(|exchange| exchange.move_on(&trader, id, Status::Cancelled))
}

#[idempotent(ttl = "24h", scope = trader.id)]
async fn add_webhook(
    State(books): State<Books<Exchange>>,
    trader: Trader,
    Json(Hook { url }): Json<Hook>,
) -> (StatusCode, Json<Webhook>) {
    let trader = trader.id;
    let webhook =
        books.open(|exchange| add(&mut exchange.webhooks, |id| Webhook { id, trader, url }));
    (StatusCode::CREATED, Json(webhook))
}

/// Not in the list, so a key has no effect here: each request gets a new quote.
async fn ask_quote(
    State(books): State<Books<Exchange>>,
    _: Trader,
    Json(terms): Json<Terms>,
) -> Json<Quote> {
    let number = books.open(|exchange| {
        exchange.quotes += 1;
        exchange.quotes
    });
    Json(Quote { number, terms })
}

async fn list_orders(State(books): State<Books<Exchange>>, trader: Trader) -> Json<Vec<Order>> {
    let mut orders = books.open(|exchange| exchange.orders.clone());
    orders.retain(|order| order.trader == trader.id);
    Json(orders)
}

async fn list_webhooks(State(books): State<Books<Exchange>>, trader: Trader) -> Json<Vec<Webhook>> {
    let mut webhooks = books.open(|exchange| exchange.webhooks.clone());
    webhooks.retain(|webhook| webhook.trader == trader.id);
    Json(webhooks)
}

/// The caller, identified by an API key that does not change.
#[derive(Debug)]
pub(crate) struct Trader {
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Trader {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Bearer(token) = Bearer::from_request_parts(parts, state).await?;
        let id = token.strip_prefix("iex_").map(str::to_owned);
        id.map(|id| Self { id })
            .ok_or((StatusCode::UNAUTHORIZED, "not a key of the exchange"))
    }
}

#[derive(Debug, Default)]
struct Exchange {
    orders: Vec<Order>,
    webhooks: Vec<Webhook>,
    quotes: usize,
}

impl Exchange {
    fn move_on(
        &mut self,
        trader: &Trader,
        id: usize,
        status: Status,
    ) -> Result<Json<Order>, (StatusCode, &'static str)> {
        let mut own = self
            .orders
            .iter_mut()
            .filter(|order| order.trader == trader.id);
        let order = own.find(|order| order.id == id);
        let order = order.ok_or((StatusCode::NOT_FOUND, "there is no such order"))?;
        if order.status != Status::Placed {
            return Err((
                StatusCode::CONFLICT,
                "the order is already confirmed or cancelled",
            ));
        }
        order.status = status;
        Ok(Json(order.clone()))
    }
}

#[derive(Clone, Debug, Serialize)]
struct Order {
    id: usize,
    trader: String,
    #[serde(flatten)]
    terms: Terms,
    status: Status,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Terms {
    pair: String,
    side: String,
    amount: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Placed,
    Confirmed,
    Cancelled,
}

#[derive(Debug, Deserialize)]
struct Hook {
    url: String,
}

#[derive(Clone, Debug, Serialize)]
struct Webhook {
    id: usize,
    trader: String,
    url: String,
}

#[derive(Debug, Serialize)]
struct Quote {
    number: usize,
    #[serde(flatten)]
    terms: Terms,
}
