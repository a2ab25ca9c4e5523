//! Receives webhooks of GitHub and Stripe. A delivery that is sent again takes effect once.
//!
//! | sender | its id of a delivery | how this example reads it |
//! |---|---|---|
//! | GitHub | in the header `X-GitHub-Delivery` | `key = header("x-github-delivery")` |
//! | Stripe | in the body, as the `id` of the event | a middleware verifies the signature over the whole body, and passes the event on as an extension: `key = event.id` |
//!
//! GitHub redelivers for 3 days (GitHub Enterprise Server for 7), and Stripe resends for 30 days after the event. A record must
//! live longer than that, or a delivery that is sent again takes effect again: `ttl = "31d"`.
//!
//! Neither sender knows `Idempotency-Key`. Each request is signed with a secret that both sides know. The
//! middleware verifies the signature first, so a request without a valid signature cannot use up a key.
//!
//! Stripe signs the id and the time. While a secret is rotated, it sends several signatures, and one valid signature is
//! enough. GitHub signs only the body, not the header with the id: whoever holds a signed delivery can send it again
//! under a new id, and it takes effect again. So receive deliveries over TLS only, with certificate verification
//! enabled at GitHub, and keep signatures out of logs.
//!
//! ```sh
//! cargo run --example webhooks     # prints the lines below with valid signatures
//! GITHUB_SECRET=… STRIPE_SECRET=… cargo run --example webhooks     # for real deliveries
//! # A delivery of GitHub. Run the command twice. The signature is that of this body.
//! curl -i localhost:3008/github -H 'X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958' -H 'X-Hub-Signature-256: sha256=GITHUB_SIGNATURE' -H 'Content-Type: application/json' -d '{"action": "opened"}'
//! # An event of Stripe. Run the command twice.
//! curl -i localhost:3008/stripe -H 'Stripe-Signature: t=STRIPE_TIME,v1=STRIPE_SIGNATURE' -d '{"id": "evt_1", "type": "charge.succeeded"}'
//! # What took effect.
//! curl localhost:3008/effects
//! ```

mod common;

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use common::Books;

const MAX_BODY: usize = 1 << 20;

/// Stripe's own libraries refuse older events, so that nobody can send a recorded event again.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let store = common::store::from_environment().await?;
    let idem = Idempotency::builder().store(store).build();
    let secrets = Secrets::from_environment();
    let time = now();
    let source = include_str!("webhooks.rs")
        .replace(
            "GITHUB_SIGNATURE",
            &sign(&secrets.github, br#"{"action": "opened"}"#),
        )
        .replace("STRIPE_TIME", &time.to_string())
        .replace(
            "STRIPE_SIGNATURE",
            &sign_event(
                &secrets.stripe,
                time,
                br#"{"id": "evt_1", "type": "charge.succeeded"}"#,
            ),
        );
    common::serve(&source, 3008, router(&idem, &secrets), &[&idem]).await?;
    Ok(())
}

/// The secrets that GitHub and Stripe share with this service, one for each of them.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) github: Arc<str>,
    pub(crate) stripe: Arc<str>,
}

impl Secrets {
    /// A real service does not start without its secrets. Here, both may be missing. With only one of them, anybody could
    /// sign deliveries of the other sender with the secret of the example.
    fn from_environment() -> Self {
        let of = |name| std::env::var(name).ok();
        let (github, stripe) = match (of("GITHUB_SECRET"), of("STRIPE_SECRET")) {
            (Some(github), Some(stripe)) => (github, stripe),
            (None, None) => ("whsec_example".to_owned(), "whsec_example".to_owned()),
            _ => panic!("set both `GITHUB_SECRET` and `STRIPE_SECRET`, or neither"),
        };
        Self {
            github: github.into(),
            stripe: stripe.into(),
        }
    }
}

pub(crate) fn router(idem: &Idempotency, secrets: &Secrets) -> Router {
    let verify_github = from_fn_with_state(secrets.github.clone(), verify_github);
    let verify_stripe = from_fn_with_state(secrets.stripe.clone(), verify_stripe);
    Router::new()
        .route("/github", post(github).layer(verify_github))
        .route("/stripe", post(stripe).layer(verify_stripe))
        .route("/effects", get(effects))
        .layer(idem.clone())
        .with_state(Books::<Vec<String>>::default())
}

/// GitHub does not sign the id, so the fingerprint of the body stays on: the id of one delivery with the body of another
/// one is refused.
#[idempotent(scope = global, required, ttl = "31d", key = header("x-github-delivery"))]
async fn github(State(effects): State<Books<Vec<String>>>, Json(push): Json<Push>) -> StatusCode {
    effects.open(|effects| effects.push(format!("GitHub: {}", push.action)));
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct Push {
    action: String,
}

/// Everybody who can sign shares the keys, so `scope = global` is right here. The signature covers the id, so an id identifies
/// its event, and the body need not be compared: `fingerprint = none`. Stripe may send an event again with other text, such as
/// another number of `pending_webhooks`, and must not get a 409.
#[idempotent(scope = global, ttl = "31d", key = event.id, fingerprint = none)]
async fn stripe(
    State(effects): State<Books<Vec<String>>>,
    Extension(event): Extension<Event>,
) -> StatusCode {
    effects.open(|effects| effects.push(format!("Stripe: {}", event.kind)));
    StatusCode::NO_CONTENT
}

#[derive(Clone, Debug, Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
}

async fn effects(State(effects): State<Books<Vec<String>>>) -> Json<Vec<String>> {
    Json(effects.open(|effects| effects.clone()))
}

type Refusal = (StatusCode, &'static str);

async fn verify_github(
    State(secret): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (head, body) = read(request).await?;
    let signature = text(head.headers(), "x-hub-signature-256");
    let signature = signature.and_then(|it| it.strip_prefix("sha256="));
    verify(&secret, signature, &[&body])?;
    Ok(next.run(head.map(|()| Body::from(body))).await)
}

async fn verify_stripe(
    State(secret): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let (mut head, body) = read(request).await?;
    let header = text(head.headers(), "stripe-signature").unwrap_or_default();
    let parts = |name| {
        header
            .split(',')
            .filter_map(move |it| it.strip_prefix(name))
    };
    let time = parts("t=").next().unwrap_or_default();
    verify(&secret, parts("v1="), &[time.as_bytes(), b".", &body])?;
    let is_recent = time
        .parse()
        .is_ok_and(|time: u64| now().abs_diff(time) <= TOLERANCE.as_secs());
    if !is_recent {
        return Err((StatusCode::BAD_REQUEST, "the event is too old"));
    }
    let event: Event = serde_json::from_slice(&body)
        .map_err(|_| (StatusCode::BAD_REQUEST, "the body is not an event"))?;
    head.extensions_mut().insert(event);
    Ok(next.run(head.map(|()| Body::from(body))).await)
}

/// The signature covers the whole body, so the body is read first.
async fn read(request: Request) -> Result<(axum::http::Request<()>, Bytes), Refusal> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await;
    let body = body.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"))?;
    Ok((Request::from_parts(head, ()), body))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Checks that one of the signatures is valid, each in constant time.
fn verify<'a>(
    secret: &str,
    signatures: impl IntoIterator<Item = &'a str>,
    parts: &[&[u8]],
) -> Result<(), Refusal> {
    let mac = mac(secret, parts);
    let is_valid = |signature: Vec<u8>| mac.clone().verify_slice(&signature).is_ok();
    let mut signatures = signatures.into_iter().filter_map(from_hex);
    let refusal = (StatusCode::UNAUTHORIZED, "the signature is wrong");
    signatures.any(is_valid).then_some(()).ok_or(refusal)
}

fn mac(secret: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let mut mac = mac.expect("a secret may have any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.len().is_multiple_of(2) && text.is_ascii();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).ok();
    digits.then(|| (0..text.len()).step_by(2).map(byte).collect())?
}

fn hex(mac: Hmac<Sha256>) -> String {
    let mut text = String::new();
    for byte in mac.finalize().into_bytes() {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Signs a delivery as GitHub does.
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    hex(mac(secret, &[body]))
}

/// Signs an event as Stripe does.
pub(crate) fn sign_event(secret: &str, time: u64, body: &[u8]) -> String {
    hex(mac(secret, &[time.to_string().as_bytes(), b".", body]))
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
