//! Phantom, a community bot. A retried call pays or warns a member once.
//!
//! | row | what Phantom documents | how this example does it |
//! |---|---|---|
//! | 2, 3, 14 | every `POST`, `PUT`, `PATCH` and `DELETE` accepts a key, and `GET` and `HEAD` ignore it | the attribute on every write |
//! | 5 | a key belongs to the token | `scope = token` |
//! | 6 | keys of up to 128 characters | `Dialect::max_key_len` |
//! | 8 | a replay has the header `Idempotent-Replay: true` | `Dialect::replay_header` |
//! | 9, 10 | a different method, path or body under the same key gets `idempotency_key_reused` | the default |
//! | 11 | 2xx and 4xx are recorded, and after a 5xx the key can be retried | `record = [2xx, 4xx]` |
//! | 12 | a key is free after 24 hours | `ttl = "24h"` |
//! |  | errors have the form `{"error": {"code", "message"}}` | `render_problem` |
//!
//! ```sh
//! cargo run --example phantom
//! STORE=sqlite://phantom.db cargo run --example phantom --features sqlite  # keeps the records in a file
//! # Pay a prize. Run this twice: the second response has `idempotent-replay: true`, and the wallet contains one prize.
//! curl -i localhost:3003/api/v1/economy/adjust -H 'Authorization: Bearer phk_live_1' -H 'Idempotency-Key: charge-77' -H 'Content-Type: application/json' -d '{"user_id": "123", "delta": 500, "reason": "Tournament prize"}'
//! curl localhost:3003/api/v1/economy/wallet/123 -H 'Authorization: Bearer phk_live_1'
//! # Warn a member once.
//! curl -i localhost:3003/api/v1/cases -H 'Authorization: Bearer phk_live_1' -H 'Idempotency-Key: warn-1' -H 'Content-Type: application/json' -d '{"user_id": "123", "type": "warn", "reason": "Referral spam"}'
//! curl localhost:3003/api/v1/cases -H 'Authorization: Bearer phk_live_1'
//! # Close the economy: a 503 is not recorded. Open the economy, and the same key runs again.
//! curl -i -X PUT localhost:3003/operator/economy/closed
//! curl -i localhost:3003/api/v1/economy/adjust -H 'Authorization: Bearer phk_live_1' -H 'Idempotency-Key: charge-78' -H 'Content-Type: application/json' -d '{"user_id": "123", "delta": 20, "reason": "Refund"}'
//! curl -i -X DELETE localhost:3003/operator/economy/closed
//! ```

mod common;

use std::collections::HashMap;
use std::error::Error;

use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Json, Router};
use axum_idem::store::Store;
use axum_idem::{Dialect, Idempotency, Problem, idempotent};
use serde::{Deserialize, Serialize};
use serde_json::json;

use common::{Bearer, Books, add};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let idem = keys(common::store::from_environment().await?);
    common::serve(include_str!("phantom.rs"), 3003, router(&idem), &[&idem]).await?;
    Ok(())
}

pub(crate) fn keys(store: impl Store) -> Idempotency {
    let dialect = Dialect::default()
        .max_key_len(128)
        .replay_header("Idempotent-Replay")
        .documentation("https://docs.phantombot.gg/integrations/api/idempotency");
    Idempotency::builder()
        .store(store)
        .dialect(dialect)
        .render_problem(as_error)
        .build()
}

/// Renders a problem in the format of all errors of Phantom.
fn as_error(problem: &Problem) -> impl IntoResponse + use<> {
    let body = json!({ "error": { "code": problem.code(), "message": problem.detail() } });
    (problem.status(), Json(body))
}

/// An error with its status, its code and a message for people.
#[derive(Debug)]
struct Refused(StatusCode, &'static str, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, code, message) = self;
        let body = json!({ "error": { "code": code, "message": message } });
        (status, Json(body)).into_response()
    }
}

const NO_SUCH_CASE: Refused = Refused(StatusCode::NOT_FOUND, "not_found", "there is no such case");

/// Any token of Phantom. This example does not check the permissions of a token.
#[derive(Debug)]
struct Token;

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match Bearer::from_request_parts(parts, state).await {
            Ok(Bearer(token)) if token.starts_with("phk_live_") => Ok(Self),
            Ok(_) => Err(Refused(
                StatusCode::UNAUTHORIZED,
                "invalid_token",
                "not a token of Phantom",
            )),
            Err((status, message)) => Err(Refused(status, "missing_token", message)),
        }
    }
}

pub(crate) fn router(idem: &Idempotency) -> Router {
    Router::new()
        .route("/api/v1/economy/adjust", post(adjust))
        .route(
            "/api/v1/economy/wallet/{user_id}",
            get(show_wallet).put(set_wallet),
        )
        .route("/api/v1/cases", post(open_case).get(list_cases))
        .route("/api/v1/cases/{id}", patch(edit_case).delete(delete_case))
        .route(
            "/operator/economy/closed",
            put(close_economy).delete(open_economy),
        )
        .layer(idem.clone())
        .with_state(Books::<Phantom>::default())
}

#[idempotent(ttl = "24h", scope = token, record = [2xx, 4xx])]
async fn adjust(
    State(books): State<Books<Phantom>>,
    _: Token,
    Json(adjustment): Json<Adjustment>,
) -> Result<Json<Wallet>, Refused> {
    let Adjustment { user_id, delta } = adjustment;
    books.open(|phantom| phantom.change_wallet(user_id, |balance| balance + delta))
}

#[idempotent(ttl = "24h", scope = token, record = [2xx, 4xx])]
async fn set_wallet(
    State(books): State<Books<Phantom>>,
    _: Token,
    Path(user_id): Path<String>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Wallet>, Refused> {
    books.open(|phantom| phantom.change_wallet(user_id, |_| wanted.balance))
}

#[idempotent(ttl = "24h", scope = token, record = [2xx, 4xx])]
async fn open_case(
    State(books): State<Books<Phantom>>,
    _: Token,
    Json(opening): Json<Opening>,
) -> Result<(StatusCode, Json<Case>), Refused> {
    if !matches!(opening.kind.as_str(), "warn" | "note") {
        let message = "only warnings and notes can be opened here";
        return Err(Refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_failed",
            message,
        ));
    }
    let case = books.open(|phantom| {
        add(&mut phantom.cases, |id| Case {
            id,
            opening,
            is_deleted: false,
        })
    });
    Ok((StatusCode::CREATED, Json(case)))
}

#[idempotent(ttl = "24h", scope = token, record = [2xx, 4xx])]
async fn edit_case(
    State(books): State<Books<Phantom>>,
    _: Token,
    Path(id): Path<usize>,
    Json(edit): Json<Edit>,
) -> Result<Json<Case>, Refused> {
    books.open(|phantom| {
        let case = phantom.case(id)?;
        case.opening.reason = edit.reason;
        Ok(Json(case.clone()))
    })
}

/// Without the key, a retry of a successful deletion would get 404.
#[idempotent(ttl = "24h", scope = token, record = [2xx, 4xx])]
async fn delete_case(
    State(books): State<Books<Phantom>>,
    _: Token,
    Path(id): Path<usize>,
) -> Result<StatusCode, Refused> {
    books.open(|phantom| {
        phantom.case(id)?.is_deleted = true;
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn show_wallet(
    State(books): State<Books<Phantom>>,
    _: Token,
    Path(user_id): Path<String>,
) -> Json<Wallet> {
    let balance = books.open(|phantom| phantom.balance(&user_id));
    Json(Wallet { user_id, balance })
}

async fn list_cases(State(books): State<Books<Phantom>>, _: Token) -> Json<Vec<Case>> {
    let mut cases = books.open(|phantom| phantom.cases.clone());
    cases.retain(|case| !case.is_deleted);
    Json(cases)
}

/// Makes `adjust` return a 5xx, for trying out this example. Phantom has no such endpoint.
async fn close_economy(State(books): State<Books<Phantom>>) {
    books.open(|phantom| phantom.is_closed = true);
}

async fn open_economy(State(books): State<Books<Phantom>>) {
    books.open(|phantom| phantom.is_closed = false);
}

#[derive(Debug, Default)]
struct Phantom {
    wallets: HashMap<String, i64>,
    cases: Vec<Case>,
    is_closed: bool,
}

impl Phantom {
    fn balance(&self, user_id: &str) -> i64 {
        self.wallets.get(user_id).copied().unwrap_or_default()
    }

    fn case(&mut self, id: usize) -> Result<&mut Case, Refused> {
        let mut cases = self.cases.iter_mut().filter(|case| !case.is_deleted);
        cases.find(|case| case.id == id).ok_or(NO_SUCH_CASE)
    }

    fn change_wallet(
        &mut self,
        user_id: String,
        change: impl FnOnce(i64) -> i64,
    ) -> Result<Json<Wallet>, Refused> {
        if self.is_closed {
            let message = "the economy is closed, try again later";
            return Err(Refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                message,
            ));
        }
        let balance = change(self.balance(&user_id));
        if balance < 0 {
            let message = "the balance would be negative";
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "validation_failed",
                message,
            ));
        }
        self.wallets.insert(user_id.clone(), balance);
        Ok(Json(Wallet { user_id, balance }))
    }
}

#[derive(Debug, Serialize)]
struct Wallet {
    user_id: String,
    balance: i64,
}

#[derive(Debug, Deserialize)]
struct Adjustment {
    user_id: String,
    delta: i64,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    balance: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Case {
    id: usize,
    #[serde(flatten)]
    opening: Opening,
    #[serde(skip)]
    is_deleted: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Opening {
    user_id: String,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Edit {
    reason: String,
}
