//! Receivers of webhooks: what happens to a delivery that is sent again.

use std::time::Duration;

use axum_idem::Idempotency;
use http::{Method, StatusCode};

use crate::examples::webhooks::{self, Secrets, now};
use crate::support::{Answer, Server, exchange, request};

const PUSH: &str = r#"{"action": "opened"}"#;
const CHARGE: &str = r#"{"id": "evt_1", "type": "charge.succeeded"}"#;

const GITHUB_SECRET: &str = "of GitHub";
const STRIPE_SECRET: &str = "of Stripe";

async fn start() -> Server {
    start_with(GITHUB_SECRET, STRIPE_SECRET).await
}

async fn start_with(github: &str, stripe: &str) -> Server {
    let secrets = Secrets {
        github: github.into(),
        stripe: stripe.into(),
    };
    Server::start(webhooks::router(&Idempotency::in_memory(), &secrets)).await
}

fn sign(body: &[u8]) -> String {
    webhooks::sign(GITHUB_SECRET, body)
}

fn sign_event(time: u64, body: &[u8]) -> String {
    webhooks::sign_event(STRIPE_SECRET, time, body)
}

async fn github(server: Server, id: &str, signature: &str) -> Answer {
    let headers = [
        ("x-github-delivery", id),
        ("x-hub-signature-256", signature),
        ("content-type", "application/json"),
    ];
    server
        .send(request(Method::POST, "/github", headers, PUSH))
        .await
}

async fn stripe(server: Server, signature: &str, body: &str) -> Answer {
    let headers = [("stripe-signature", signature)];
    server
        .send(request(Method::POST, "/stripe", headers, body))
        .await
}

async fn effects(server: Server) -> String {
    let answer = server.send(request(Method::GET, "/effects", [], "")).await;
    answer.text().to_owned()
}

#[tokio::test]
async fn a_delivery_of_github_takes_effect_once() {
    let server = start().await;
    let signature = format!("sha256={}", sign(PUSH.as_bytes()));
    for is_replay in [false, true] {
        let answer = github(server, "d-1", &signature).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        assert_eq!(answer.is_replay(), is_replay);
    }
    assert_eq!(effects(server).await, r#"["GitHub: opened"]"#);
}

/// GitHub redelivers for 3 days, and Stripe resends for 30 days.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_sent_again_after_a_month_takes_effect_once() {
    let secrets = Secrets {
        github: GITHUB_SECRET.into(),
        stripe: STRIPE_SECRET.into(),
    };
    let router = webhooks::router(&Idempotency::in_memory(), &secrets);
    let of_github = format!("sha256={}", sign(PUSH.as_bytes()));
    for is_replay in [false, true] {
        let headers = [
            ("x-github-delivery", "d-1"),
            ("x-hub-signature-256", &of_github),
            ("content-type", "application/json"),
        ];
        let push = request(Method::POST, "/github", headers, PUSH);
        let time = now();
        let of_stripe = format!("t={time},v1={}", sign_event(time, CHARGE.as_bytes()));
        let headers = [("stripe-signature", &*of_stripe)];
        let charge = request(Method::POST, "/stripe", headers, CHARGE);
        for delivery in [push, charge] {
            let answer = exchange(router.clone(), delivery).await;
            assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
            assert_eq!(answer.is_replay(), is_replay);
        }
        tokio::time::advance(Duration::from_secs(30 * 24 * 60 * 60)).await;
    }
}

#[tokio::test]
async fn an_event_of_stripe_takes_effect_once() {
    let server = start().await;
    // Stripe signs each try anew.
    for age in [60, 0] {
        let time = now() - age;
        let signature = format!("t={time},v1={}", sign_event(time, CHARGE.as_bytes()));
        let answer = stripe(server, &signature, CHARGE).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        assert_eq!(answer.is_replay(), age == 0);
    }
    assert_eq!(effects(server).await, r#"["Stripe: charge.succeeded"]"#);
}

/// Stripe counts the deliveries that are still to come in the event itself.
#[tokio::test]
async fn an_event_of_stripe_with_other_text_takes_effect_once() {
    let server = start().await;
    for pending in [2, 1] {
        let event = CHARGE.replacen('{', &format!("{{\"pending_webhooks\": {pending}, "), 1);
        let time = now();
        let signature = format!("t={time},v1={}", sign_event(time, event.as_bytes()));
        let answer = stripe(server, &signature, &event).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
        assert_eq!(answer.is_replay(), pending == 1);
    }
    assert_eq!(effects(server).await, r#"["Stripe: charge.succeeded"]"#);
}

/// While a secret is rotated, Stripe signs with the old and the new secret.
#[tokio::test]
async fn an_event_of_stripe_needs_one_valid_signature_of_several() {
    let server = start().await;
    let time = now();
    let good = sign_event(time, CHARGE.as_bytes());
    let other = sign_event(time, PUSH.as_bytes());
    for (signatures, status) in [
        (format!("v1={other}"), StatusCode::UNAUTHORIZED),
        (format!("v1={other},v1=zz"), StatusCode::UNAUTHORIZED),
        // A signature of another scheme, with the right digits.
        (format!("v1={other},v0={good}"), StatusCode::UNAUTHORIZED),
        (format!("v1={other},v1={good}"), StatusCode::NO_CONTENT),
        (
            format!("v1=zz,v0={other},v1={good}"),
            StatusCode::NO_CONTENT,
        ),
        (format!("v1={good},v1={other}"), StatusCode::NO_CONTENT),
    ] {
        let answer = stripe(server, &format!("t={time},{signatures}"), CHARGE).await;
        assert_eq!(answer.status, status, "{signatures}");
    }
    assert_eq!(effects(server).await, r#"["Stripe: charge.succeeded"]"#);
}

/// GitHub signs the body only. So a signed delivery under a new id is a new delivery.
#[tokio::test]
async fn a_signed_delivery_of_github_under_a_new_id_takes_effect_again() {
    let server = start().await;
    let signature = format!("sha256={}", sign(PUSH.as_bytes()));
    for id in ["d-1", "d-2"] {
        let answer = github(server, id, &signature).await;
        assert!(answer.status.is_success() && !answer.is_replay(), "{id}");
    }
    assert_eq!(
        effects(server).await,
        r#"["GitHub: opened","GitHub: opened"]"#
    );
}

/// A replay needs a valid signature too.
#[tokio::test]
async fn a_wrong_signature_is_refused_before_the_key_is_read() {
    let server = start().await;
    let good = format!("sha256={}", sign(PUSH.as_bytes()));
    for bad in [&good[..good.len() - 2], "sha256=zz", "sha256=ä", ""] {
        let answer = github(server, "d-1", bad).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert_eq!(
        github(server, "d-1", &good).await.status,
        StatusCode::NO_CONTENT
    );
    let answer = github(server, "d-1", "sha256=00").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);

    let old = now() - 3600;
    let signature = format!("t={old},v1={}", sign_event(old, CHARGE.as_bytes()));
    let answer = stripe(server, &signature, CHARGE).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(effects(server).await, r#"["GitHub: opened"]"#);
}

/// The example of GitHub's documentation, "Validating webhook deliveries". Its body is not JSON, so a request
/// with a valid signature reaches the handler and is rejected there.
#[tokio::test]
async fn the_signature_that_github_documents_is_valid() {
    let server = start_with("It's a Secret to Everybody", STRIPE_SECRET).await;
    let documented = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let send = async |body: &str| {
        let signature = format!("sha256={documented}");
        let headers = [
            ("x-github-delivery", "d-1"),
            ("x-hub-signature-256", &*signature),
            ("content-type", "application/json"),
        ];
        let delivery = request(Method::POST, "/github", headers, body);
        server.send(delivery).await.status
    };
    assert_eq!(send("Hello, World!").await, StatusCode::BAD_REQUEST);
    assert_eq!(send("Hello, World?").await, StatusCode::UNAUTHORIZED);
}

/// `printf '1700000000.BODY' | openssl dgst -sha256 -hmac whsec_published` printed this signature. The event is
/// refused only because of its age.
#[tokio::test]
async fn a_signature_that_another_program_made_by_the_rules_of_stripe_is_valid() {
    let server = start_with(GITHUB_SECRET, "whsec_published").await;
    let digits = "f80247372fda50dc22676532b741bf074a15ec1c5bd5beb0c23a93c6a83ee1d5";
    for (time, status) in [
        ("1700000000", StatusCode::BAD_REQUEST),
        ("1700000001", StatusCode::UNAUTHORIZED),
    ] {
        let answer = stripe(server, &format!("t={time},v1={digits}"), CHARGE).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(effects(server).await, "[]");
}
