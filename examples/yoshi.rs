//! Yoshi, a paper-trading service. A retried order is placed once.
//!
//! | row | what Yoshi documents | how this example does it |
//! |---|---|---|
//! | 2, 3, 14 | listed `POST` endpoints accept keys, and other endpoints ignore them | the attribute on these handlers only |
//! | 4 | the header is optional | no `required` |
//! | 5 | a key belongs to the account behind the token | `scope = client.account` |
//! | 9 | different parameters under the same key get 409 | [`Dialect::default`](axum_idem::Dialect) |
//! | 12 | after 24 hours the key creates a new resource | `ttl = "24h"` |
//!
//! ```sh
//! cargo run --example yoshi
//! STORE=sqlite://yoshi.db cargo run --example yoshi --features sqlite  # keeps the records in a file
//! # Place a trade. A retry gets the same trade. A different quantity gets 409.
//! curl -i localhost:3001/v1/paper-trading/accounts/1/trades -H 'Authorization: Bearer yoshi_alice_1' -H 'Idempotency-Key: buy-aapl-001' -H 'Content-Type: application/json' -d '{"symbol": "AAPL", "side": "buy", "quantity": 10}'
//! curl -i localhost:3001/v1/paper-trading/accounts/1/trades -H 'Authorization: Bearer yoshi_alice_1' -H 'Idempotency-Key: buy-aapl-001' -H 'Content-Type: application/json' -d '{"symbol": "AAPL", "side": "buy", "quantity": 99}'
//! # A refreshed token of the same user finds the same key.
//! curl -i localhost:3001/v1/paper-trading/accounts/1/trades -H 'Authorization: Bearer yoshi_alice_2' -H 'Idempotency-Key: buy-aapl-001' -H 'Content-Type: application/json' -d '{"symbol": "AAPL", "side": "buy", "quantity": 10}'
//! # List the booked trades.
//! curl localhost:3001/v1/paper-trading/accounts/1/trades -H 'Authorization: Bearer yoshi_alice_1'
//! # Open an account, and propose an action.
//! curl -i localhost:3001/v1/paper-trading/accounts -H 'Authorization: Bearer yoshi_alice_1' -H 'Idempotency-Key: open-001' -H 'Content-Type: application/json' -d '{"name": "Test drive", "starting_cash_balance": "100000"}'
//! curl -i localhost:3001/v1/actions -H 'Authorization: Bearer yoshi_alice_1' -H 'Idempotency-Key: action-001' -H 'Content-Type: application/json' -d '{"kind": "rebalance"}'
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
    common::serve(include_str!("yoshi.rs"), 3001, router(&idem), &[&idem]).await?;
    Ok(())
}

/// The default dialect, with a documentation page that every problem links to.
pub(crate) fn keys(store: impl Store) -> Idempotency {
    let dialect = Dialect::default().documentation("https://docs.yoshi.ai/concepts/idempotency");
    let idem = Idempotency::builder().store(store).dialect(dialect);
    idem.build()
}

pub(crate) fn router(idem: &Idempotency) -> Router {
    Router::new()
        .route(
            "/v1/paper-trading/accounts",
            post(open_account).get(list_accounts),
        )
        .route(
            "/v1/paper-trading/accounts/{id}/trades",
            post(place_trade).get(list_trades),
        )
        .route("/v1/actions", post(propose_action).get(list_actions))
        .route("/v1/actions/{id}/reminders", post(send_reminder))
        .layer(idem.clone())
        .with_state(Books::<Yoshi>::default())
}

#[idempotent(ttl = "24h", scope = client.account)]
async fn place_trade(
    State(books): State<Books<Yoshi>>,
    client: Client,
    Path(portfolio): Path<String>,
    Json(order): Json<Order>,
) -> (StatusCode, Json<Trade>) {
    let owner = client.account;
    let trade = books.open(|yoshi| {
        add(&mut yoshi.trades, |id| Trade {
            id,
            owner,
            portfolio,
            order,
        })
    });
    (StatusCode::CREATED, Json(trade))
}

#[idempotent(ttl = "24h", scope = client.account)]
async fn open_account(
    State(books): State<Books<Yoshi>>,
    client: Client,
    Json(opening): Json<Opening>,
) -> (StatusCode, Json<Portfolio>) {
    let owner = client.account;
    let portfolio =
        books.open(|yoshi| add(&mut yoshi.portfolios, |id| Portfolio { id, owner, opening }));
    (StatusCode::CREATED, Json(portfolio))
}

/// Someone approves the action later, so the status is 202. A 202 is recorded and replayed too.
#[idempotent(ttl = "24h", scope = client.account)]
async fn propose_action(
    State(books): State<Books<Yoshi>>,
    client: Client,
    Json(proposal): Json<Proposal>,
) -> (StatusCode, Json<Action>) {
    let owner = client.account;
    let action = books.open(|yoshi| {
        add(&mut yoshi.actions, |id| Action {
            id,
            owner,
            proposal,
            reminders: 0,
        })
    });
    (StatusCode::ACCEPTED, Json(action))
}

/// Not in Yoshi's list, so a key has no effect here: every request sends a reminder.
async fn send_reminder(
    State(books): State<Books<Yoshi>>,
    client: Client,
    Path(id): Path<usize>,
) -> Result<Json<Action>, StatusCode> {
    books.open(|yoshi| {
        let mut own = yoshi
            .actions
            .iter_mut()
            .filter(|action| action.owner == client.account);
        let action = own
            .find(|action| action.id == id)
            .ok_or(StatusCode::NOT_FOUND)?;
        action.reminders += 1;
        Ok(Json(action.clone()))
    })
}

async fn list_trades(
    State(books): State<Books<Yoshi>>,
    client: Client,
    Path(portfolio): Path<String>,
) -> Json<Vec<Trade>> {
    let mut trades = books.open(|yoshi| yoshi.trades.clone());
    trades.retain(|trade| trade.portfolio == portfolio && trade.owner == client.account);
    Json(trades)
}

async fn list_accounts(State(books): State<Books<Yoshi>>, client: Client) -> Json<Vec<Portfolio>> {
    let mut portfolios = books.open(|yoshi| yoshi.portfolios.clone());
    portfolios.retain(|portfolio| portfolio.owner == client.account);
    Json(portfolios)
}

async fn list_actions(State(books): State<Books<Yoshi>>, client: Client) -> Json<Vec<Action>> {
    let mut actions = books.open(|yoshi| yoshi.actions.clone());
    actions.retain(|action| action.owner == client.account);
    Json(actions)
}

/// The account of a token. `yoshi_alice_1` and the refreshed `yoshi_alice_2` both belong to Alice, so a
/// retry with either token finds the key.
#[derive(Debug)]
pub(crate) struct Client {
    account: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Bearer(token) = Bearer::from_request_parts(parts, state).await?;
        let account = token
            .strip_prefix("yoshi_")
            .and_then(|rest| rest.split('_').next());
        account
            .map(|account| Self {
                account: account.into(),
            })
            .ok_or((StatusCode::UNAUTHORIZED, "not a token of Yoshi"))
    }
}

#[derive(Debug, Default)]
struct Yoshi {
    trades: Vec<Trade>,
    portfolios: Vec<Portfolio>,
    actions: Vec<Action>,
}

#[derive(Clone, Debug, Serialize)]
struct Trade {
    id: usize,
    owner: String,
    portfolio: String,
    #[serde(flatten)]
    order: Order,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    symbol: String,
    side: String,
    quantity: u32,
}

#[derive(Clone, Debug, Serialize)]
struct Portfolio {
    id: usize,
    owner: String,
    #[serde(flatten)]
    opening: Opening,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Opening {
    name: String,
    starting_cash_balance: String,
}

#[derive(Clone, Debug, Serialize)]
struct Action {
    id: usize,
    owner: String,
    #[serde(flatten)]
    proposal: Proposal,
    reminders: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Proposal {
    kind: String,
}
