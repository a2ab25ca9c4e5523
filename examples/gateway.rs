//! A payment gateway whose card network times out.
//!
//! ```sh
//! cargo run --example gateway
//! ```
//!
//! When the network does not respond in time, the gateway does not know whether the card was charged. It
//! says so with [`OutcomeUnknown`] or with `unknown = [504]`, and there are two ways to go on:
//!
//! - `/payments` holds the key (`on_unknown = hold`). Retries get 409 until the reconciler has listed the key
//!   and asked the network about its payment. The reconciler resolves the key with the response that the
//!   client should have got. A real gateway runs the reconciler every minute.
//! - `/instant-payments` runs again (`on_unknown = rerun`). The retry charges under the same derived key, so
//!   the network returns the receipt of the first charge.
//!
//! A network that never responds ends in the same way, after `max_run`.
//!
//! **Each environment needs a store of its own**, or at least a table, file or prefix. A listing contains the records of
//! all namespaces of a store. The reconciler of a sandbox would list payments of production too, find no charge for
//! them in the network of the sandbox, and resolve them as not charged.

#[path = "common/books.rs"]
mod books;

use std::collections::{HashMap, HashSet};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::{Query, State as KeyState, StateKind, StoreError};
use axum_idem::{Attempt, Idempotency, OutcomeUnknown, RecordId, idempotent};
use http_body_util::BodyExt;
use tower::ServiceExt;

use books::Books;

const TTL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// The endpoint whose keys are held, as the store knows it.
const PAY: &str = concat!(module_path!(), "::pay");

#[tokio::main]
async fn main() -> Result<(), StoreError> {
    for line in story().await? {
        println!("{line}");
    }
    Ok(())
}

/// A payment is at most one charge, whichever endpoint it takes and wherever the network fails.
pub(crate) async fn story() -> Result<Vec<String>, StoreError> {
    let gateway = Gateway {
        idem: Idempotency::in_memory(),
        network: Network::default(),
    };
    let client = Client(gateway.router());
    let mut lines = Vec::new();

    gateway.network.lose_next(Lost::Reply);
    lines.push(client.pay("/payments", "charged").await);
    lines.push(client.pay("/payments", "charged").await);
    gateway.network.lose_next(Lost::Request);
    lines.push(client.pay("/payments", "not-charged").await);
    lines.push(format!(
        "reconciled {} payments",
        gateway.reconcile().await?
    ));
    lines.push(client.pay("/payments", "charged").await);
    lines.push(client.pay("/payments", "not-charged").await);

    gateway.network.lose_next(Lost::Reply);
    lines.push(client.pay("/instant-payments", "instant").await);
    lines.push(client.pay("/instant-payments", "instant").await);
    lines.push(client.pay("/instant-payments", "instant").await);

    lines.push(format!("{} charges", gateway.network.charges()));
    Ok(lines)
}

#[derive(Clone)]
struct Gateway {
    idem: Idempotency,
    network: Network,
}

impl Gateway {
    fn router(&self) -> Router {
        Router::new()
            .route("/payments", post(pay))
            .route("/instant-payments", post(pay_instantly))
            .layer(self.idem.clone())
            .with_state(self.clone())
    }

    /// Resolves each payment whose outcome is unknown, also those of processes that have died. Returns how many
    /// there were. A page may be empty although more follow.
    async fn reconcile(&self) -> Result<usize, StoreError> {
        let mut query = Query::all().state(StateKind::Unknown).endpoint(PAY);
        let mut resolved = 0;
        loop {
            let page = self.idem.list(query.clone()).await?;
            for payment in page.entries {
                let KeyState::Unknown { fence, .. } = payment.state else {
                    continue;
                };
                let outcome = match self.network.find_or_cancel(payment.id) {
                    Some(receipt) => paid(receipt),
                    None => not_charged(),
                };
                // `false` for a payment that was settled, or that another attempt has run, in the meantime.
                let resolving = self.idem.resolve_attempt(payment.id, fence, outcome, TTL);
                resolved += usize::from(resolving.await?);
            }
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(resolved),
            }
        }
    }
}

/// The proxy in front of this service authenticates the merchant, and sets `x-merchant` itself. A header that a client may
/// set would let one merchant get the responses of another one.
#[idempotent(scope = header("x-merchant"), on_unknown = hold, max_run = "30s")]
async fn pay(State(gateway): State<Gateway>, attempt: Attempt) -> Response {
    // The reconciler finds the charge by the id of the record.
    let charge_key = attempt.derive_key("charge");
    let Ok(receipt) = gateway.network.charge(&charge_key, attempt.record_id()) else {
        let reason = "the card network did not respond in time";
        return (StatusCode::GATEWAY_TIMEOUT, OutcomeUnknown, reason).into_response();
    };
    paid(receipt).map(Body::from)
}

#[idempotent(scope = header("x-merchant"), unknown = [504], on_unknown = rerun, max_run = "30s")]
async fn pay_instantly(State(gateway): State<Gateway>, attempt: Attempt) -> Response {
    // The same key in every attempt at this payment.
    let charge_key = attempt.derive_key("charge");
    match gateway.network.charge(&charge_key, attempt.record_id()) {
        Ok(receipt) => paid(receipt).map(Body::from),
        Err(TimedOut) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}

fn paid(receipt: Receipt) -> axum::http::Response<Bytes> {
    let mut response =
        axum::http::Response::new(format!("paid, receipt {}", receipt.number).into());
    *response.status_mut() = StatusCode::CREATED;
    response
}

fn not_charged() -> axum::http::Response<Bytes> {
    let text = Bytes::from_static(b"not charged; pay again under a new key");
    let mut response = axum::http::Response::new(text);
    *response.status_mut() = StatusCode::PAYMENT_REQUIRED;
    response
}

/// A card network, which is safe to retry itself: one key is one charge.
#[derive(Clone, Default)]
struct Network(Books<Cards>);

#[derive(Default)]
struct Cards {
    charges: HashMap<String, Receipt>,
    /// The charges by the reference that the merchant has sent.
    references: HashMap<RecordId, Receipt>,
    canceled: HashSet<RecordId>,
    lost: Option<Lost>,
}

#[derive(Clone, Copy, Debug)]
struct Receipt {
    number: usize,
}

/// The message that the network loses during the next call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Request,
    Reply,
}

struct TimedOut;

impl Network {
    fn charge(&self, key: &str, reference: Option<RecordId>) -> Result<Receipt, TimedOut> {
        self.0.open(|cards| {
            let lost = cards.lost.take();
            let is_canceled = reference.is_some_and(|it| cards.canceled.contains(&it));
            if lost == Some(Lost::Request) || is_canceled {
                return Err(TimedOut);
            }
            let number = cards.charges.len() + 1;
            let charge = cards.charges.entry(key.to_owned());
            let receipt = *charge.or_insert(Receipt { number });
            cards.references.extend(reference.map(|it| (it, receipt)));
            lost.map_or(Ok(receipt), |_| Err(TimedOut))
        })
    }

    /// The receipt of the charge with this reference. Without a charge, none is made with this reference from now
    /// on, even if a call is still under way.
    fn find_or_cancel(&self, reference: RecordId) -> Option<Receipt> {
        self.0.open(|cards| {
            let found = cards.references.get(&reference).copied();
            if found.is_none() {
                cards.canceled.insert(reference);
            }
            found
        })
    }

    fn lose_next(&self, lost: Lost) {
        self.0.open(|cards| cards.lost = Some(lost));
    }

    fn charges(&self) -> usize {
        self.0.open(|cards| cards.charges.len())
    }
}

struct Client(Router);

impl Client {
    /// Tries a payment once, and returns the result in one line.
    async fn pay(&self, path: &str, key: &str) -> String {
        let request = Request::post(path)
            .header("x-merchant", "1")
            .header("idempotency-key", key)
            .body(Body::empty())
            .expect("a request");
        let Ok(response) = self.0.clone().oneshot(request).await;
        let status = response.status().as_u16();
        let is_replay = response.headers().contains_key("idempotency-replayed");
        let code = response.headers().get("content-type").cloned();
        let body = response.into_body().collect().await.expect("a body");
        let mut text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        if code.is_some_and(|kind| kind == "application/problem+json") {
            let problem: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            problem["code"]
                .as_str()
                .expect("a code")
                .clone_into(&mut text);
        }
        let replay = if is_replay { " (replay)" } else { "" };
        format!("{path} {key}: {status} {text}{replay}")
    }
}
