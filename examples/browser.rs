//! Sells tea to a page of another origin. The page keeps the key of an order, and sends the order again
//! after it was offline.
//!
//! The API and the page have different ports, so they are two origins. A browser lets the page send the key,
//! and read whether a response is a replay, only if the API allows both:
//!
//! | the page needs | the API has |
//! |---|---|
//! | to send `Idempotency-Key` | `Dialect::request_headers()` in `CorsLayer::allow_headers` |
//! | to read `Idempotency-Replayed` and `Retry-After` | `Dialect::response_headers()` in `CorsLayer::expose_headers` |
//! | one key for all tries of an order | `examples/browser/page.js`: the key and the body are in the session storage before the first try |
//!
//! `tests/services/browser` runs the page in Chromium.
//!
//! ```sh
//! cargo run --example browser      # then open http://127.0.0.1:3010
//! # The browser asks before it sends the key: 200.
//! curl -i -X OPTIONS localhost:3009/orders -H 'Origin: http://127.0.0.1:3010' -H 'Access-Control-Request-Method: POST' -H 'Access-Control-Request-Headers: authorization,content-type,idempotency-key'
//! # The page orders tea. Run the command twice.
//! curl -i localhost:3009/orders -H 'Origin: http://127.0.0.1:3010' -H 'Authorization: Bearer alice' -H 'Idempotency-Key: 0d9c3b5e-tea' -H 'Content-Type: application/json' -d '{"tea": "Assam", "grams": 100}'
//! # What was ordered.
//! curl localhost:3009/orders -H 'Authorization: Bearer alice'
//! ```

mod common;

use std::error::Error;

use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use axum_idem::{Dialect, Idempotency, idempotent};
use serde::{Deserialize, Serialize};
use tower_http::cors::CorsLayer;

use common::{Bearer, Books, add};

/// `PORT` and `PAGE_PORT` choose other ports. If browsers reach the API through a proxy, `API_ADDRESS` is the
/// address of the proxy, such as `https://api.example`.
#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let api_listener = common::listen("PORT", 3009).await?;
    let page_listener = common::listen("PAGE_PORT", 3010).await?;
    let origin = format!("http://{}", page_listener.local_addr()?);
    let address = format!("http://{}", api_listener.local_addr()?);
    let address = std::env::var("API_ADDRESS").unwrap_or(address);
    println!("the page is at {origin}");

    let page = page(&address)?;
    tokio::spawn(async move { axum::serve(page_listener, page).await });
    let store = common::store::from_environment().await?;
    let idem = Idempotency::builder().store(store).build();
    let api = api(&idem, &Dialect::default(), origin.parse()?);
    let source = include_str!("browser.rs").replace("http://127.0.0.1:3010", &origin);
    common::serve_on(api_listener, &source, 3009, api, &[&idem]).await?;
    Ok(())
}

/// The API. Pages of `origin` may use it; `dialect` is the dialect of `idem`.
pub(crate) fn api(idem: &Idempotency, dialect: &Dialect, origin: HeaderValue) -> Router {
    let mut request_headers = dialect.request_headers();
    request_headers.extend([AUTHORIZATION, CONTENT_TYPE]);
    let cors = CorsLayer::new()
        .allow_origin([origin])
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(request_headers)
        .expose_headers(dialect.response_headers());
    Router::new()
        .route("/orders", get(list).post(order))
        .layer(idem.clone())
        .layer(cors)
        .with_state(Books::<Vec<Order>>::default())
}

/// A real service verifies the token, and uses the id of the customer as the scope. The page stops its retries
/// before the `ttl` has passed.
#[idempotent(scope = customer.0, ttl = "24h", required)]
async fn order(
    customer: Bearer,
    State(orders): State<Books<Vec<Order>>>,
    Json(wanted): Json<Wanted>,
) -> (StatusCode, Json<Order>) {
    let order = orders.open(|orders| {
        add(orders, |number| Order {
            number,
            customer: customer.0,
            wanted,
        })
    });
    (StatusCode::CREATED, Json(order))
}

async fn list(customer: Bearer, State(orders): State<Books<Vec<Order>>>) -> Json<Vec<Order>> {
    let is_own = |order: &&Order| order.customer == customer.0;
    Json(orders.open(|orders| orders.iter().filter(is_own).cloned().collect()))
}

#[derive(Clone, Debug, Serialize)]
struct Order {
    number: usize,
    #[serde(skip)]
    customer: String,
    #[serde(flatten)]
    wanted: Wanted,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Wanted {
    tea: String,
    grams: u32,
}

/// The files of the page. The page may connect to the API at `address`, and runs no inline code.
pub(crate) fn page(address: &str) -> Result<Router, Box<dyn Error>> {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src {address}; \
         base-uri 'none'; form-action 'none'"
    );
    let policy = HeaderValue::try_from(policy)?;
    let html = Html(include_str!("browser/page.html").replace("API_ADDRESS", address));
    let script = (
        [(CONTENT_TYPE, "text/javascript")],
        include_str!("browser/page.js"),
    );
    let style = (
        [(CONTENT_TYPE, "text/css")],
        include_str!("browser/page.css"),
    );
    Ok(Router::new()
        .route(
            "/",
            get(async move || ([(CONTENT_SECURITY_POLICY, policy)], html)),
        )
        .route("/page.js", get(async move || script))
        .route("/page.css", get(async move || style)))
}
