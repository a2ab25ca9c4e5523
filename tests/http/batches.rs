//! Endpoints that split one request into several requests.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Extensions, StatusCode};
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};
use futures_util::future::join_all;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use crate::support::{KEY, Server};

#[idempotent(scope = global)]
async fn item(attempt: Attempt, _: String) -> String {
    attempt.derive_key("charge")
}

/// Extracts its own attempt, and then clones the extensions, including the attempt, for each item.
async fn batch(
    State(items): State<Router>,
    attempt: Attempt,
    extensions: Extensions,
) -> (StatusCode, String) {
    let of_batch = attempt.derive_key("charge");
    // Every item extracts its attempt before the first item claims its key.
    let late_body = || {
        Body::from_stream(stream::once(async {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>("trade")
        }))
    };
    let keys = [Some("a"), Some("b"), None];
    let derived = join_all(keys.map(|key| {
        let mut item = Request::post("/").body(late_body()).expect("a request");
        *item.extensions_mut() = extensions.clone();
        if let Some(key) = key {
            let key = key.parse().expect("a value");
            item.headers_mut().insert(KEY, key);
        }
        let items = items.clone();
        async move {
            let response = items.oneshot(item).await.expect("infallible");
            let body = response.into_body().collect().await.expect("a body");
            String::from_utf8(body.to_bytes().to_vec()).expect("text")
        }
    }));
    let mut derived = derived.await;
    assert_eq!(attempt.derive_key("charge"), of_batch);
    derived.push(of_batch);
    (StatusCode::OK, derived.join("\n"))
}

#[tokio::test]
async fn batch_items_with_shared_extensions_derive_different_keys() {
    let idem = Idempotency::in_memory();
    let items = Router::new().route("/", post(item)).layer(idem);
    let router = Router::new().route("/", post(batch)).with_state(items);
    let server = Server::start(router).await;
    let send = async || {
        let request = Request::post("/").body(Full::default());
        server.send(request.expect("a request")).await
    };
    let (first, second) = (send().await, send().await);
    let [first, second] = [&first, &second].map(|it| it.text().lines().collect::<Vec<_>>());
    assert_eq!(first.len(), 4, "{first:?}");
    for (at, key) in first.iter().enumerate() {
        assert!(!first[..at].contains(key), "{first:?}");
    }
    assert_eq!(first[..2], second[..2], "a retry derives the same keys");
    assert_ne!(
        first[2], second[2],
        "a request without a key cannot be retried"
    );
}
