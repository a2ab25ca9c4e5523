//! A handler that is interrupted between a charge and its record does not charge twice.
//!
//! ```sh
//! cargo run --example payments
//! ```
//!
//! The first attempt charges at a payment service and panics before it can return a response. The retry
//! runs the handler again, because of `on_unknown = rerun`. The second attempt charges under the same
//! derived key. The payment service knows this key and returns the receipt of the first charge.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

/// An external service. Only the key distinguishes a retry from a second charge.
#[derive(Clone, Default)]
struct PaymentService(Arc<Mutex<HashMap<String, usize>>>);

impl PaymentService {
    fn charge(&self, key: String) -> usize {
        let mut receipts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = receipts.len() + 1;
        *receipts.entry(key).or_insert(next)
    }

    fn charges(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// All callers share their keys, because this example has one caller. With several callers, `scope = global` would give one
/// caller the response of another one who sends the same key: use `scope = token`, or the id of the user.
#[idempotent(scope = global, on_unknown = rerun)]
async fn pay(State(payments): State<PaymentService>, attempt: Attempt) -> String {
    let receipt = payments.charge(attempt.derive_key("charge"));
    assert!(
        attempt.number() > 1,
        "the first attempt panics after the charge"
    );
    format!("attempt {}: paid, receipt {receipt}", attempt.number())
}

#[tokio::main]
pub(crate) async fn main() {
    let payments = PaymentService::default();
    let router = Router::new()
        .route("/payments", post(pay))
        .layer(CatchPanicLayer::new())
        .layer(Idempotency::in_memory())
        .with_state(payments.clone());
    for _ in 0..3 {
        let request = Request::post("/payments").header("idempotency-key", "order-7");
        let request = request.body(Body::empty()).expect("a valid request");
        let Ok(response) = router.clone().oneshot(request).await;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        println!("{status}: {}", String::from_utf8_lossy(&body));
    }
    println!("charges made: {}", payments.charges());
    assert_eq!(payments.charges(), 1);
}
