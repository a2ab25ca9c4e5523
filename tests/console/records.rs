//! Listing, showing and changing records.

use axum::http::StatusCode;
use axum_idem::Idempotency;
use axum_idem::store::Entry;
use bytes::Bytes;
use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn records_are_listed_by_state_and_endpoint_without_secrets() {
    let service = Service::new();
    service.prepare().await;
    let unknown = service
        .get("reader", "/ops/idem/api/records?state=unknown")
        .await;
    let unknown = unknown.json();
    assert_eq!(unknown["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(unknown["records"][0]["id"], service.id("SECRET-unknown"));
    assert_eq!(unknown["next"], json!(null));
    let endpoint = "console%3A%3Aservice%3A%3Apay";
    let of_endpoint = format!("/ops/idem/api/records?state=recorded&endpoint={endpoint}");
    let recorded = service.get("reader", &of_endpoint).await.json();
    assert_eq!(recorded["records"][0]["id"], service.id("SECRET-recorded"));
    let other = service
        .get("reader", "/ops/idem/api/records?endpoint=other")
        .await;
    assert_eq!(other.json()["records"], json!([]));
    for wrong in ["state=x", "after=x", "short=x", "key=1"] {
        let path = format!("/ops/idem/api/records?{wrong}");
        assert_eq!(
            service.get("reader", &path).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    let overview = service.get("reader", "/ops/idem/api/overview").await.json();
    assert_eq!(overview["access"], "read_only");
    assert_eq!(overview["stats"]["unknown"], "1");
    for path in [
        "/ops/idem/api/overview".to_owned(),
        "/ops/idem/api/records".to_owned(),
        format!("/ops/idem/api/records/{}", service.id("SECRET-recorded")),
    ] {
        let reply = service.get("reader", &path).await;
        assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
        assert!(!reply.text.contains("SECRET"), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn a_response_is_shown_when_asked_for_and_after_redaction() {
    let service = Service::with(|console| {
        console.redact(|endpoint, body| {
            assert!(endpoint.ends_with("::pay"));
            let text = String::from_utf8_lossy(&body).replace("SECRET", "…");
            Bytes::from(text)
        })
    });
    service.prepare().await;
    let id = service.id("SECRET-recorded");
    let path = format!("/ops/idem/api/records/{id}/response");
    let response = service.get("reader", &path).await.json();
    assert_eq!(response["status"], 201);
    assert_eq!(response["body"], "…-body of run 1");
    assert!(response["headers"].to_string().contains("x-customer"));
    let none = format!(
        "/ops/idem/api/records/{}/response",
        service.id("SECRET-unknown")
    );
    assert_eq!(
        service.get("reader", &none).await.status,
        StatusCode::NOT_FOUND
    );
}

/// Whoever has the cookie is the customer.
#[tokio::test]
async fn the_value_of_a_recorded_cookie_is_not_shown() {
    let builder = Idempotency::builder().record_set_cookie();
    let service = Service::of(builder, |console| console);
    service.prepare().await;
    let id = service.id("SECRET-recorded");
    let path = format!("/ops/idem/api/records/{id}/response");
    let shown = service.get("admin", &path).await;
    assert!(shown.text.contains("set-cookie: (hidden)"), "{shown:?}");
    assert!(!shown.text.contains("SECRET-cookie"), "{shown:?}");
}

#[tokio::test]
async fn a_key_is_found_by_its_scope() {
    let service = Service::new();
    service.prepare().await;
    let scope = json!([{ "kind": "token", "value": "Bearer alice" }]);
    let sent = json!({ "scope": scope, "key": "SECRET-unknown" });
    let found = service.change("reader", "/ops/idem/api/find", &sent).await;
    assert_eq!(found.json()["id"], service.id("SECRET-unknown"));
    assert!(!found.text.contains("SECRET"), "{found:?}");
    for sent in [
        json!({ "scope": scope, "key": "other" }),
        json!({ "scope": [], "key": "SECRET-unknown" }),
        json!({ "scope": [{ "kind": "value", "value": "Bearer alice" }], "key": "SECRET-unknown" }),
    ] {
        let missing = service.change("reader", "/ops/idem/api/find", &sent).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{sent}");
    }
}

pub(crate) fn resolution(fence: &str) -> serde_json::Value {
    json!({
        "fence": fence,
        "status": 201,
        "headers": "content-type: text/plain",
        "body": "booked",
        "ttl_seconds": 3600,
        "reason": "the bank has booked it",
    })
}

#[tokio::test]
async fn resolving_a_key_makes_the_retry_succeed() {
    let service = Service::new();
    service.prepare().await;
    let held = service.pay("SECRET-unknown", "unknown").await;
    assert_eq!(held, StatusCode::CONFLICT);
    let path = format!(
        "/ops/idem/api/records/{}/resolve",
        service.id("SECRET-unknown")
    );
    let fence = service.fence("SECRET-unknown").await;
    for (name, value) in [
        ("fence", json!(null)),
        ("fence", json!("x")),
        ("status", json!(99)),
        ("ttl_seconds", json!(0)),
        ("headers", json!("no colon")),
        ("reason", json!(" ")),
        ("reason", json!(null)),
    ] {
        let mut wrong = resolution(&fence);
        wrong[name] = value;
        let refused = service.change("admin", &path, &wrong).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let resolved = service.change("admin", &path, &resolution(&fence)).await;
    assert_eq!(resolved.status, StatusCode::OK, "{resolved:?}");
    let retry = service.pay("SECRET-unknown", "unknown").await;
    assert_eq!(retry, StatusCode::CREATED);
    let again = service.change("admin", &path, &resolution(&fence)).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(service.runs.count(), 3, "the handler ran twice before");
}

/// The operator has looked at the first attempt, and knows nothing about the second one.
#[tokio::test]
async fn a_decision_about_an_earlier_attempt_changes_nothing() {
    let service = Service::new();
    service.prepare().await;
    let fence = service.fence("SECRET-unknown").await;
    let id = service.id("SECRET-unknown");
    let record_id = id.parse().expect("an id");
    let forgotten = service.idem.forget(record_id).await;
    assert!(forgotten.expect("the store works"));
    let again = service.pay("SECRET-unknown", "unknown").await;
    assert_eq!(again, StatusCode::OK);
    let path = format!("/ops/idem/api/records/{id}/resolve");
    let refused = service.change("admin", &path, &resolution(&fence)).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    assert!(refused.text.contains("another attempt"), "{refused:?}");
    let entry = service.idem.look_up(record_id).await;
    let is_unknown = matches!(entry, Ok(Some(Entry::Unknown { .. })));
    assert!(is_unknown, "{entry:?}");
}

/// The operator has learned what the first attempt did, and meanwhile a retry has run the handler again.
#[tokio::test]
async fn a_key_that_has_changed_since_it_was_shown_is_not_forgotten() {
    let service = Service::new();
    service.prepare().await;
    let id = service.id("SECRET-unknown");
    let record_id: axum_idem::RecordId = id.parse().expect("an id");
    let path = format!("/ops/idem/api/records/{id}/forget");
    let forget = async |version: &str| {
        let sent = json!({ "version": version, "reason": "the bank has booked nothing" });
        service.change("admin", &path, &sent).await
    };
    let unknown = service.version("SECRET-unknown").await;
    let forgotten = service.idem.forget(record_id).await;
    assert!(forgotten.expect("the store works"));
    for (body, status) in [("unknown", StatusCode::OK), ("1", StatusCode::CREATED)] {
        service
            .idem
            .forget(record_id)
            .await
            .expect("the store works");
        assert_eq!(service.pay("SECRET-unknown", body).await, status);
        let refused = forget(&unknown).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
        assert!(refused.text.contains("has changed"), "{refused:?}");
        let entry = service.idem.look_up(record_id).await;
        assert!(entry.expect("the store works").is_some());
    }
    let sent = json!({ "reason": "test" });
    let without = service.change("admin", &path, &sent).await;
    assert_eq!(without.status, StatusCode::BAD_REQUEST, "{without:?}");
    let recorded = service.version("SECRET-unknown").await;
    assert_eq!(forget(&recorded).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reader_cannot_change_anything() {
    let service = Service::new();
    service.prepare().await;
    let fence = service.fence("SECRET-unknown").await;
    let version = service.version("SECRET-recorded").await;
    for (operator, expected) in [
        ("reader", StatusCode::FORBIDDEN),
        ("nobody", StatusCode::FORBIDDEN),
        ("admin", StatusCode::OK),
    ] {
        let path = format!(
            "/ops/idem/api/records/{}/resolve",
            service.id("SECRET-unknown")
        );
        let resolution = resolution(&fence);
        let resolved = service.change(operator, &path, &resolution).await;
        assert_eq!(resolved.status, expected, "{operator}: {resolved:?}");
        let path = format!(
            "/ops/idem/api/records/{}/forget",
            service.id("SECRET-recorded")
        );
        let sent = json!({ "version": version, "reason": "test" });
        let forgotten = service.change(operator, &path, &sent).await;
        assert_eq!(forgotten.status, expected, "{operator}: {forgotten:?}");
        let id = service.id("SECRET-recorded").parse().expect("an id");
        let entry = service.idem.look_up(id).await.expect("it is looked up");
        assert_eq!(entry.is_some(), expected != StatusCode::OK, "{operator}");
    }
}

/// A browser adds the login to requests that another site makes it send.
#[tokio::test]
async fn another_site_cannot_send_a_change() {
    let service = Service::new();
    service.prepare().await;
    let id = service.id("SECRET-recorded");
    let path = format!("/ops/idem/api/records/{id}/forget");
    let body = r#"{"reason": "test"}"#;
    let json_type = ("content-type", "application/json");
    let site = |site| ("sec-fetch-site", site);
    let form_type = ("content-type", "application/x-www-form-urlencoded");
    for (headers, status) in [
        (vec![json_type], StatusCode::FORBIDDEN),
        (vec![json_type, site("cross-site")], StatusCode::FORBIDDEN),
        (vec![json_type, site("same-site")], StatusCode::FORBIDDEN),
        (vec![json_type, site("none")], StatusCode::FORBIDDEN),
        (vec![form_type, site("cross-site")], StatusCode::FORBIDDEN),
        (
            vec![site("same-origin")],
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
        (
            vec![("content-type", "text/plain"), site("same-origin")],
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ),
    ] {
        let headers = [&headers[..], &[("x-operator", "admin")]].concat();
        let reply = service.post(&path, &headers, body).await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    let id = id.parse().expect("an id");
    let entry = service.idem.look_up(id).await.expect("it is looked up");
    assert!(entry.is_some(), "another site has forgotten the record");
}
