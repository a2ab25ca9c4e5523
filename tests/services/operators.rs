//! An operator finds and resolves the key of a killed process, on the page of the example.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::process::Process;
use crate::support::{Answer, PATIENCE, request};

const PAGE: &str = "/ops/idem";
const KEY: &str = "SECRET-key-of-alice";

async fn send(
    process: &Process,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let sent = request(method, path, headers.iter().copied(), body);
    process.server.send(sent).await
}

/// What the page gets from its service.
async fn ask(process: &Process, path: &str) -> Value {
    let answer = send(process, Method::GET, &format!("{PAGE}/api{path}"), &[], "").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let text = answer.text();
    for secret in [KEY, "alice", "AAPL"] {
        assert!(!text.contains(secret), "{path}: {text}");
    }
    serde_json::from_str(text).expect("JSON")
}

/// The records in this state, when there is one.
async fn records(process: &Process, state: &str) -> Vec<Value> {
    let path = format!("/records?state={state}");
    let look = async {
        loop {
            let listed = ask(process, &path).await;
            match listed["records"].as_array() {
                Some(records) if !records.is_empty() => return records.clone(),
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, look).await;
    found.unwrap_or_else(|_| panic!("there is no record in the state {state}"))
}

/// A trade that takes three seconds.
fn trade() -> Request<Full<Bytes>> {
    let headers = [
        ("authorization", "Bearer alice.1"),
        ("idempotency-key", KEY),
        ("content-type", "application/json"),
    ];
    let order = r#"{"symbol": "AAPL", "side": "buy", "quantity": 10}"#;
    request(Method::POST, "/accounts/7/slow-trades", headers, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_killed_process_is_found_and_resolved_on_the_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trades.db");
    let process = Process::start("trades", Some(&file)).ignore_output();
    let server = process.server;
    let running = tokio::spawn(async move { server.try_send(trade()).await.is_ok() });
    records(&process, "in_flight").await;
    drop(process);
    assert!(!running.await.expect("no panic"), "the handler has ended");

    let process = Process::start("trades", Some(&file)).ignore_output();
    let unknown = records(&process, "unknown").await;
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    let id = unknown[0]["id"].as_str().expect("an id");
    let shown = ask(&process, &format!("/records/{id}")).await;
    assert_eq!(shown["id"], id, "{shown}");

    let headers = [
        ("content-type", "application/json"),
        ("sec-fetch-site", "same-origin"),
    ];
    let resolution = json!({
        "fence": shown["fence"],
        "status": 201,
        "headers": "content-type: text/plain",
        "body": "booked by hand",
        "ttl_seconds": 3600,
        "reason": "the exchange has booked it, ticket 512",
    });
    let path = format!("{PAGE}/api/records/{id}/resolve");
    let resolved = send(
        &process,
        Method::POST,
        &path,
        &headers,
        &resolution.to_string(),
    )
    .await;
    assert_eq!(resolved.status, StatusCode::OK, "{resolved:?}");
    let retry = process.server.send(trade()).await;
    assert_eq!(retry.status, StatusCode::CREATED, "{retry:?}");
    assert!(retry.is_replay(), "{retry:?}");
    assert_eq!(retry.text(), "booked by hand");

    #[cfg(feature = "metrics")]
    {
        let metrics = send(&process, Method::GET, "/metrics", &[], "").await;
        let text = metrics.text();
        assert!(text.contains("idempotency_requests_total"), "{text}");
        assert!(
            !text.contains("SECRET") && !text.contains("alice"),
            "{text}"
        );
    }
}
