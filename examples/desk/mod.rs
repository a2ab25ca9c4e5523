//! A small trading desk with its trades and its users.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use serde::{Deserialize, Serialize};

/// All booked trades.
#[derive(Clone, Debug, Default)]
pub(crate) struct TradingDesk {
    trades: Arc<Mutex<Vec<Trade>>>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trade {
    id: usize,
    account: String,
    #[serde(flatten)]
    order: Order,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    symbol: String,
    side: Side,
    quantity: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Buy,
    Sell,
}

#[derive(Debug)]
pub(crate) enum TradeError {
    NothingToTrade,
}

impl IntoResponse for TradeError {
    fn into_response(self) -> Response {
        let Self::NothingToTrade = self;
        (StatusCode::UNPROCESSABLE_ENTITY, "the quantity is zero").into_response()
    }
}

impl TradingDesk {
    fn book(&self, account: String, order: Order) -> Result<Trade, TradeError> {
        if order.quantity == 0 {
            return Err(TradeError::NothingToTrade);
        }
        let mut trades = self.trades.lock().unwrap_or_else(PoisonError::into_inner);
        let id = trades.len() + 1;
        let trade = Trade { id, account, order };
        trades.push(trade.clone());
        Ok(trade)
    }

    fn of_account(&self, account: &str) -> Vec<Trade> {
        let trades = self.trades.lock().unwrap_or_else(PoisonError::into_inner);
        trades
            .iter()
            .filter(|trade| trade.account == account)
            .cloned()
            .collect()
    }
}

/// The owner of a bearer token. The part before the dot names the account, and the rest changes with
/// every refresh. `alice.1` and `alice.2` both belong to Alice.
#[derive(Clone, Debug)]
pub(crate) struct User {
    account: String,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = (StatusCode, &'static str);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let token = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let account = token
            .and_then(|token| token.split('.').next())
            .filter(|account| !account.is_empty());
        account
            .map(|account| Self {
                account: account.into(),
            })
            .ok_or((StatusCode::UNAUTHORIZED, "send `Authorization: Bearer …`"))
    }
}

/// The key belongs to the token, so every retry must send the same token.
#[idempotent(ttl = "24h", scope = token)]
async fn place_trade(
    State(desk): State<TradingDesk>,
    Path(account): Path<String>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Trade>), TradeError> {
    let trade = desk.book(account, order)?;
    Ok((StatusCode::CREATED, Json(trade)))
}

/// Without the attribute: reading is safe to retry.
async fn list_trades(
    State(desk): State<TradingDesk>,
    Path(account): Path<String>,
) -> Json<Vec<Trade>> {
    Json(desk.of_account(&account))
}

/// Takes three seconds. When the client disconnects meanwhile, the trade is still booked, and a retry
/// gets the response.
#[idempotent(ttl = "24h", scope = token, in_flight = wait("10s"))]
async fn place_slow_trade(
    State(desk): State<TradingDesk>,
    Path(account): Path<String>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Trade>), TradeError> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    let trade = desk.book(account, order)?;
    Ok((StatusCode::CREATED, Json(trade)))
}

/// The key belongs to the account of the token, so it also works after a token refresh.
#[idempotent(ttl = "24h", scope = user.account)]
async fn place_own_trade(
    State(desk): State<TradingDesk>,
    user: User,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Trade>), TradeError> {
    let trade = desk.book(user.account, order)?;
    Ok((StatusCode::CREATED, Json(trade)))
}

async fn list_own_trades(State(desk): State<TradingDesk>, user: User) -> Json<Vec<Trade>> {
    Json(desk.of_account(&user.account))
}

pub(crate) fn router(idem: Idempotency) -> Router {
    Router::new()
        .route("/accounts/{id}/trades", post(place_trade).get(list_trades))
        .route("/accounts/{id}/slow-trades", post(place_slow_trade))
        .route("/me/trades", post(place_own_trade).get(list_own_trades))
        .layer(idem)
        .with_state(TradingDesk::default())
}
