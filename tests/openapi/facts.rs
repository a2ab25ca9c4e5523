//! Tests that a documented operation does what its document says.

use axum::body::Body;
use axum_idem::Idempotency;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::{documented, service};

async fn send(
    router: &axum::Router,
    request: http::request::Builder,
    body: &'static str,
) -> (StatusCode, Value) {
    let request = request.body(Body::from(body)).expect("a request");
    let response = router.clone().oneshot(request).await.expect("a response");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body");
    (
        status,
        serde_json::from_slice(&body.to_bytes()).unwrap_or_default(),
    )
}

/// Every refusal that these requests provoke is documented for its operation, with its status and code.
#[tokio::test]
async fn refusals_are_documented_with_status_and_code() {
    let idem = Idempotency::in_memory();
    let api = documented(&idem);
    let (router, _) = service::router().split_for_parts();
    let router = router.layer(idem);
    let post = || Request::post("/orders").header("content-type", "application/json");
    let keyed = || {
        post()
            .header("idempotency-key", "k")
            .header("authorization", "a")
    };
    let order = r#"{"quantity":1}"#;
    assert_eq!(send(&router, keyed(), order).await.0, StatusCode::CREATED);
    let refused = [
        send(&router, post(), order).await,
        send(&router, post().header("idempotency-key", "a,b"), order).await,
        send(&router, post().header("idempotency-key", "k"), order).await,
        send(&router, keyed(), r#"{"quantity":2}"#).await,
    ];
    for (status, problem) in refused {
        let response = &api["paths"]["/orders"]["post"]["responses"][status.as_str()];
        let schema = &response["content"]["application/problem+json"]["schema"];
        let codes = schema["allOf"][1]["properties"]["code"]["enum"].as_array();
        let codes = codes.expect("the codes of the status");
        assert!(codes.contains(&problem["code"]), "{status} {problem}");
        let members = &api["components"]["schemas"]["IdempotencyProblem"];
        for name in members["required"].as_array().expect("required members") {
            let name = name.as_str().expect("a name");
            assert!(!problem[name].is_null(), "{name}");
        }
        for name in problem.as_object().expect("an object").keys() {
            assert!(members["properties"][name].is_object(), "{name}");
        }
    }
}

/// The types that document a handler do not change what it does.
#[tokio::test]
async fn a_handler_in_the_router_of_aide_replays() {
    let (router, _) = crate::aide_service::service();
    let router = router.layer(Idempotency::in_memory());
    let keyed = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path.to_owned());
        let request = request.header("content-type", "application/json");
        request
            .header("idempotency-key", "k")
            .header("authorization", "a")
            .header("x-github-delivery", "d")
    };
    let order = r#"{"quantity":1}"#;
    for (method, path, status) in [
        ("POST", "/orders", 200),
        ("PUT", "/all?after=1", 204),
        ("POST", "/reset", 200),
        ("POST", "/events", 204),
        ("PUT", "/parcels/7", 200),
    ] {
        for is_replay in [false, true] {
            let request = keyed(method, path);
            let request = request.body(Body::from(if path == "/orders" { order } else { "" }));
            let sent = router.clone().oneshot(request.expect("a request")).await;
            let response = sent.expect("a response");
            assert_eq!(response.status(), status, "{path}");
            let has_mark = response.headers().contains_key("idempotency-replayed");
            assert_eq!(has_mark, is_replay, "{path}");
        }
    }
    let large = send(&router, keyed("POST", "/orders"), r#"{"quantity":10}"#).await;
    assert_eq!(large.1["code"], "idempotency_key_reused");
}
