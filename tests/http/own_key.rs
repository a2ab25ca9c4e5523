//! Tests endpoints with `key = …`, such as receivers of webhooks.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Extension, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Extensions, Method, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Dialect, Idempotency, IdempotencyKey, idempotent};
use futures_util::future::join_all;
use serde_json::Value;
use tower::ServiceExt;

use crate::support::{Answer, KEY, Runs, Server, request};

const DELIVERY: &str = "x-github-delivery";

#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn delivered(Extension(runs): Extension<Runs>, Json(event): Json<Value>) -> String {
    format!("{} {}", runs.count(), event["action"])
}

#[idempotent(scope = global, required, key = header("x-github-delivery"))]
async fn required(Extension(runs): Extension<Runs>) -> String {
    runs.count().to_string()
}

/// Returns the key, which is the last argument.
#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn last(_: Extension<Runs>, key: Option<IdempotencyKey>) -> String {
    key.map_or_else(|| "none".to_owned(), |key| key.to_string())
}

/// Runs only with a key.
#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn taken(key: IdempotencyKey, Extension(runs): Extension<Runs>, body: String) -> String {
    format!("{} {key} {body}", runs.count())
}

#[derive(serde::Deserialize)]
struct Event {
    id: u64,
    retry_of: Option<u64>,
}

#[idempotent(scope = global, key = event.id)]
async fn by_value(
    Query(event): Query<Event>,
    key: Option<IdempotencyKey>,
    Extension(runs): Extension<Runs>,
    _: String,
) -> String {
    format!("{} {}", runs.count(), key.expect("a key").as_str())
}

#[idempotent(scope = global, key = event.retry_of)]
async fn by_option(Query(event): Query<Event>, Extension(runs): Extension<Runs>) -> String {
    format!("{} {:?}", runs.count(), event.retry_of)
}

#[idempotent(scope = global, key = format!("{}-{}", event.id, event.retry_of.unwrap_or(0)))]
async fn by_expression(Query(event): Query<Event>, Extension(runs): Extension<Runs>) -> String {
    format!("{} {}", runs.count(), event.id)
}

#[idempotent(scope = global, key = id)]
async fn by_path(Path(id): Path<String>, Extension(runs): Extension<Runs>) -> String {
    format!("{} {id:?}", runs.count())
}

struct Service(Idempotency);

impl<S: Send + Sync> FromRequestParts<S> for Service {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let idem = parts.extensions.get::<Extended>();
        idem.map(|idem| Self(idem.0.clone()))
            .ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

#[derive(Clone)]
struct Extended(Idempotency);

#[idempotent(scope = global, key = header("x-github-delivery"), runtime = service.0)]
async fn on_runtime(service: Service, Extension(runs): Extension<Runs>) -> String {
    drop(service);
    runs.count().to_string()
}

/// Passes its request on, with the key of the item.
#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn batch(_: IdempotencyKey, Extension(runs): Extension<Runs>, request: Request) -> String {
    let (parts, _) = request.into_parts();
    let mut inner = Request::from_parts(parts, axum::body::Body::empty());
    *inner.uri_mut() = "/last".parse().expect("a path");
    let id = "item-1".parse().expect("a value");
    inner.headers_mut().insert(DELIVERY, id);
    let response = routes(&runs).oneshot(inner).await.expect("infallible");
    let body = axum::body::to_bytes(response.into_body(), 100).await;
    String::from_utf8(body.expect("short").into()).expect("UTF-8")
}

/// Clones its extensions, in which its own key is not set, into two items that run at once.
#[idempotent(scope = global, key = header("x-batch"))]
async fn fan_out(
    _: Option<IdempotencyKey>,
    Extension(runs): Extension<Runs>,
    extensions: Extensions,
) -> String {
    let keys = join_all(["a", "b"].map(|id| {
        let item = Request::post("/key").header(DELIVERY, id);
        let mut item = item.body(Body::empty()).expect("a request");
        *item.extensions_mut() = extensions.clone();
        let items = routes(&runs);
        async move {
            let response = items.oneshot(item).await.expect("infallible");
            let body = axum::body::to_bytes(response.into_body(), 100).await;
            String::from_utf8(body.expect("short").into()).expect("UTF-8")
        }
    }));
    keys.await.join(" ")
}

#[idempotent(scope = global, key = header("x-github-delivery"))]
async fn key(key: IdempotencyKey, _: Late, _: String) -> String {
    key.to_string()
}

/// Waits, so that both items have extracted their keys before the first key is known.
struct Late;

impl<S: Send + Sync> FromRequestParts<S> for Late {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        tokio::task::yield_now().await;
        Ok(Self)
    }
}

fn routes(runs: &Runs) -> Router {
    Router::new()
        .route("/fan_out", post(fan_out))
        .route("/key", post(key))
        .route("/delivered", post(delivered).get(delivered))
        .route("/required", post(required))
        .route("/last", post(last).get(last))
        .route("/batch", post(batch))
        .route("/taken", post(taken).get(taken))
        .route("/by_value", post(by_value))
        .route("/by_path/{id}", post(by_path))
        .route("/by_option", post(by_option))
        .route("/by_expression", post(by_expression))
        .route("/on_runtime", post(on_runtime))
        .layer(Extension(runs.clone()))
}

async fn start() -> (Server, Runs) {
    start_with(Dialect::default()).await
}

async fn start_with(dialect: Dialect) -> (Server, Runs) {
    let runs = Runs::default();
    let idem = Idempotency::builder().dialect(dialect).build();
    (Server::start(routes(&runs).layer(idem)).await, runs)
}

async fn deliver(server: Server, path: &str, id: Option<&str>) -> Answer {
    let headers = id.map(|id| (DELIVERY, id));
    let headers = headers
        .into_iter()
        .chain([("content-type", "application/json")]);
    let body = r#"{"action": "opened"}"#;
    server
        .send(request(Method::POST, path, headers, body))
        .await
}

#[tokio::test]
async fn items_with_shared_extensions_get_their_own_keys() {
    let (server, _) = start().await;
    assert_eq!(deliver(server, "/fan_out", None).await.text(), "a b");
}

#[tokio::test]
async fn a_delivery_that_is_sent_again_runs_once() {
    let (server, runs) = start().await;
    let first = deliver(server, "/delivered", Some("d-1")).await;
    let again = deliver(server, "/delivered", Some("d-1")).await;
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::OK, "1 \"opened\"")
    );
    assert!(!first.is_replay() && again.is_replay());
    assert_eq!(again.body, first.body);
    deliver(server, "/delivered", Some("d-2")).await;
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn equal_deliveries_at_once_run_once() {
    let (server, runs) = start().await;
    let all = (0..50).map(|_| deliver(server, "/delivered", Some("d-1")));
    for answer in futures_util::future::join_all(all).await {
        assert!(matches!(answer.status.as_u16(), 200 | 409), "{answer:?}");
    }
    assert_eq!(runs.started(), 1);
}

#[tokio::test]
async fn a_delivery_without_an_id_runs_each_time_or_is_refused() {
    let (server, runs) = start().await;
    for _ in 0..2 {
        let answer = deliver(server, "/delivered", None).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(runs.started(), 2);
    for path in ["/required", "/taken"] {
        let answer = deliver(server, path, None).await;
        assert_eq!(answer.code(), "idempotency_key_missing", "{path}");
    }
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn the_key_header_of_the_service_is_ignored() {
    let (server, runs) = start().await;
    for id in ["d-1", "d-2", "d-2"] {
        let headers = [
            (DELIVERY, id),
            (KEY, "k"),
            ("content-type", "application/json"),
        ];
        let answer = server.send(request(Method::POST, "/delivered", headers, "{}"));
        assert_eq!(answer.await.status, StatusCode::OK);
    }
    assert_eq!(runs.started(), 2);
    // The key of a client is no key of this endpoint.
    for _ in 0..2 {
        let headers = [(KEY, "k"), ("content-type", "application/json")];
        let answer = server.send(request(Method::POST, "/delivered", headers, "{}"));
        assert!(!answer.await.is_replay());
    }
    assert_eq!(runs.started(), 4);
}

#[tokio::test]
async fn a_reused_id_is_a_mismatch() {
    let (server, _) = start().await;
    deliver(server, "/delivered", Some("d-1")).await;
    let headers = [(DELIVERY, "d-1"), ("content-type", "application/json")];
    let other = server.send(request(Method::POST, "/delivered", headers, "{}"));
    assert_eq!(other.await.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn the_rules_of_the_dialect_apply() {
    let dialect = Dialect::ietf()
        .min_key_len(3)
        .max_key_len(8)
        .key_rule(|key| !key.contains('x'));
    let (server, runs) = start_with(dialect).await;
    for bad in ["d", "d-1-d-1-d", "dxd", "", "d,d"] {
        let answer = deliver(server, "/delivered", Some(bad)).await;
        assert_eq!(answer.code(), "idempotency_key_invalid", "{bad}");
    }
    let twice = [(DELIVERY, "d-1"), (DELIVERY, "d-1")];
    let answer = server.send(request(Method::POST, "/delivered", twice, "{}"));
    assert_eq!(answer.await.code(), "idempotency_key_invalid");
    for query in ["id=1", "id=123456789"] {
        let answer = deliver(server, &format!("/by_value?{query}"), None).await;
        assert_eq!(answer.code(), "idempotency_key_invalid", "{query}");
    }
    assert_eq!(runs.started(), 0);
    // A sender does not know that the clients of this service quote their keys.
    let answer = deliver(server, "/delivered", Some("d-1")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// A path is decoded, so the expression can have any character. The key of a header cannot.
#[tokio::test]
async fn the_characters_of_the_dialect_apply_to_an_expression() {
    for (dialect, is_raw) in [
        (Dialect::default(), false),
        (Dialect::ietf(), false),
        (Dialect::stripe(), true),
    ] {
        let (server, runs) = start_with(dialect).await;
        for (path, allowed) in [
            ("/by_path/a%20b,%22c", true),
            ("/by_path/gr%C3%B6%C3%9Fe", is_raw),
            ("/by_path/a%0Ab", false),
            ("/by_path/a%0D%0Aidempotency-key:%20b", false),
            ("/by_path/a%00", false),
        ] {
            let answer = deliver(server, path, None).await;
            if allowed {
                assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
                assert_eq!(deliver(server, path, None).await.body, answer.body);
            } else {
                assert_eq!(answer.code(), "idempotency_key_invalid", "{path}");
            }
        }
        assert_eq!(runs.started(), 1 + usize::from(is_raw));
    }
}

#[tokio::test]
async fn a_key_can_be_a_value_an_option_or_an_expression() {
    let (server, _) = start().await;
    let send = async |path: &str| {
        let answer = deliver(server, path, None).await;
        (answer.text().to_owned(), answer.is_replay())
    };
    assert_eq!(send("/by_value?id=1").await, ("1 1".to_owned(), false));
    assert_eq!(send("/by_value?id=1").await, ("1 1".to_owned(), true));
    assert_eq!(send("/by_value?id=2").await, ("2 2".to_owned(), false));
    assert_eq!(send("/by_option?id=1").await, ("3 None".to_owned(), false));
    assert_eq!(send("/by_option?id=1").await, ("4 None".to_owned(), false));
    let some = "/by_option?id=1&retry_of=7";
    assert_eq!(send(some).await, ("5 Some(7)".to_owned(), false));
    assert_eq!(send(some).await, ("5 Some(7)".to_owned(), true));
    assert_eq!(send("/by_expression?id=1").await, ("6 1".to_owned(), false));
    assert_eq!(send("/by_expression?id=1").await, ("6 1".to_owned(), true));
}

#[tokio::test]
async fn the_key_is_an_argument_of_the_handler() {
    let (server, _) = start().await;
    let last = deliver(server, "/last", Some("d-1")).await;
    assert_eq!(last.text(), "d-1");
    assert_eq!(deliver(server, "/last", None).await.text(), "none");
    let taken = deliver(server, "/taken", Some("\"d-2\"")).await;
    assert_eq!(taken.text(), "1 d-2 {\"action\": \"opened\"}");
}

#[tokio::test]
async fn an_inner_handler_gets_its_own_key() {
    let (server, _) = start().await;
    let answer = deliver(server, "/batch", Some("batch-1")).await;
    assert_eq!(answer.text(), "item-1", "{answer:?}");
}

#[tokio::test]
async fn the_key_of_a_get_is_not_checked() {
    let (server, _) = start().await;
    let get = request(Method::GET, "/last", [(DELIVERY, "a,b")], "");
    let answer = server.send(get).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "none"));
}

/// A safe method is not protected, but the handler still gets its key.
#[tokio::test]
async fn a_get_runs_each_time() {
    let (server, runs) = start().await;
    for run in ["1 d-1 ", "2 d-1 "] {
        let answer = server.send(request(Method::GET, "/taken", [(DELIVERY, "d-1")], ""));
        assert_eq!(answer.await.text(), run);
    }
    let without = server.send(request(Method::GET, "/taken", [], "")).await;
    assert_eq!(without.code(), "idempotency_key_missing");
    assert_eq!(runs.started(), 2);
}

#[tokio::test]
async fn without_a_layer_a_delivery_is_refused_unless_the_endpoint_names_its_runtime() {
    let runs = Runs::default();
    let idem = Idempotency::in_memory();
    let server = Server::start(routes(&runs).layer(Extension(Extended(idem)))).await;
    let answer = deliver(server, "/delivered", Some("d-1")).await;
    assert_eq!(answer.code(), "idempotency_not_installed");
    for is_replay in [false, true] {
        let answer = deliver(server, "/on_runtime", Some("d-1")).await;
        assert_eq!((answer.text(), answer.is_replay()), ("1", is_replay));
    }
    assert_eq!(runs.started(), 1);
}

/// The layers share no record, so the namespace shows which of them the handler found.
#[tokio::test]
async fn the_innermost_layer_provides_the_settings() {
    let store = axum_idem::store::MemoryStore::default();
    let layer = |namespace: &str| {
        let idem = Idempotency::builder().store(store.clone());
        idem.namespace(namespace).build()
    };
    let runs = Runs::default();
    let inner = Router::new().nest("/inner", routes(&runs).layer(layer("inner")));
    let router = inner.merge(routes(&runs)).layer(layer("outer"));
    let server = Server::start(router).await;
    for path in ["/on_outer", "/inner/required", "/required"] {
        deliver(server, path, Some("d-1")).await;
    }
    assert_eq!(runs.started(), 2);
    let again = deliver(server, "/inner/required", Some("d-1")).await;
    assert_eq!((again.text(), again.is_replay()), ("1", true));
}
