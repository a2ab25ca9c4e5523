//! The console of a service with a sealed store and an id secret.

use axum::http::StatusCode;
use axum_idem::Idempotency;
use axum_idem::store::{Entry, Keys, MemoryStore, Sealed, Store};
use bytes::Bytes;
use serde_json::json;

use crate::records::resolution;
use crate::service::Service;

fn service(memory: &MemoryStore, keys: Keys) -> Service {
    let builder = Idempotency::builder()
        .store(Sealed::around(memory.clone(), keys))
        .id_secret([7; 32]);
    Service::of(builder, |console| {
        console.redact(|_, body| {
            let text = String::from_utf8_lossy(&body).replace("SECRET", "…");
            Bytes::from(text)
        })
    })
}

/// Whether the store below holds a response, and shows something of it.
async fn shows(memory: &MemoryStore, id: &str) -> bool {
    let entry = memory.look_up(id.parse().expect("an id")).await;
    let Ok(Some(Entry::Recorded { record, .. })) = entry else {
        panic!("there is no record: {entry:?}");
    };
    let text = String::from_utf8_lossy(record.as_bytes());
    ["SECRET", "booked", "text/plain", "x-customer"]
        .iter()
        .any(|part| text.contains(part))
}

#[tokio::test]
async fn a_sealed_record_is_listed_shown_and_found() {
    let memory = MemoryStore::default();
    let service = service(&memory, Keys::new().primary(1, [1; 32]));
    service.prepare().await;
    let id = service.id("SECRET-recorded");
    assert!(!shows(&memory, &id).await);
    let list = service.get("reader", "/ops/idem/api/records?state=recorded");
    let listed = &list.await.json()["records"][0];
    assert_eq!(
        (&listed["id"], &listed["status"]),
        (&json!(id), &json!(201))
    );
    let response = format!("/ops/idem/api/records/{id}/response");
    let response = service.get("reader", &response).await.json();
    assert_eq!(response["status"], 201);
    assert_eq!(response["body"], "…-body of run 1");
    let scope = json!([{ "kind": "token", "value": "Bearer alice" }]);
    let sent = json!({ "scope": scope, "key": "SECRET-recorded" });
    let found = service.change("reader", "/ops/idem/api/find", &sent).await;
    assert_eq!(found.json()["id"], id);
    assert_eq!(found.json()["retry_gets"], "A replay of the response.");
}

#[tokio::test]
async fn a_resolved_response_is_sealed() {
    let memory = MemoryStore::default();
    let service = service(&memory, Keys::new().primary(1, [1; 32]));
    service.prepare().await;
    let id = service.id("SECRET-unknown");
    let path = format!("/ops/idem/api/records/{id}/resolve");
    let resolution = resolution(&service.fence("SECRET-unknown").await);
    let resolved = service.change("admin", &path, &resolution).await;
    assert_eq!(resolved.status, StatusCode::OK, "{resolved:?}");
    assert!(!shows(&memory, &id).await);
    let retry = service.pay("SECRET-unknown", "unknown").await;
    assert_eq!(retry, StatusCode::CREATED);
    assert_eq!(service.runs.count(), 3, "the handler ran twice before");
}

#[tokio::test]
async fn a_missing_key_is_named_and_nothing_is_shown() {
    let memory = MemoryStore::default();
    let before = service(&memory, Keys::new().primary(1, [1; 32]));
    before.prepare().await;
    let after = service(&memory, Keys::new().primary(2, [2; 32]));
    let id = before.id("SECRET-recorded");
    let list = after.get("reader", "/ops/idem/api/records?state=recorded");
    let listed = list.await.json()["records"][0].clone();
    assert_eq!(listed["state"], "unreadable");
    let error = listed["error"].as_str().expect("an error");
    assert!(error.contains("key 1"), "{error}");
    for (path, status) in [
        (format!("/ops/idem/api/records/{id}"), StatusCode::OK),
        (
            format!("/ops/idem/api/records/{id}/response"),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        let reply = after.get("reader", &path).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.text.contains("key 1"), "{reply:?}");
        assert!(!reply.text.contains("body of run"), "{reply:?}");
    }
    let scope = json!([{ "kind": "token", "value": "Bearer alice" }]);
    let sent = json!({ "scope": scope, "key": "SECRET-recorded" });
    let found = after.change("reader", "/ops/idem/api/find", &sent).await;
    assert_eq!(found.status, StatusCode::OK, "{found:?}");
    assert_eq!(found.json()["state"], "unreadable");
    assert_eq!(found.json()["id"], id);
    assert!(found.text.contains("key 1"), "{found:?}");

    let before_the_change = before.pay("SECRET-recorded", "1").await;
    assert_eq!(before_the_change, StatusCode::CREATED, "the record stays");

    let sent =
        json!({ "version": after.version("SECRET-recorded").await, "reason": "the key is lost" });
    let path = format!("/ops/idem/api/records/{id}/forget");
    let forgotten = after.change("admin", &path, &sent).await;
    assert_eq!(forgotten.status, StatusCode::OK, "{forgotten:?}");
}
