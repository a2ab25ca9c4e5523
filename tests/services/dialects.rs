//! Tests that a dialect changes how a service responds, but not what it records.

use axum::Router;
use axum::routing::post;
use axum_idem::store::MemoryStore;
use axum_idem::{Dialect, Idempotency, KeySyntax, idempotent};
use http::{Method, StatusCode};

use crate::support::{Answer, Runs, Server, request};

#[idempotent(scope = global)]
async fn count(axum::Extension(runs): axum::Extension<Runs>, body: String) -> (StatusCode, String) {
    (
        StatusCode::CREATED,
        format!("run {} of {body}", runs.count()),
    )
}

/// A dialect, its key header with the value for the key `k-1`, and its replay header.
struct Speaker {
    dialect: Dialect,
    key: (&'static str, &'static str),
    mark: Option<&'static str>,
    mismatch: StatusCode,
}

fn speakers() -> [Speaker; 5] {
    let conflict = StatusCode::CONFLICT;
    [
        Speaker {
            dialect: Dialect::default(),
            key: ("idempotency-key", "k-1"),
            mark: Some("idempotency-replayed"),
            mismatch: conflict,
        },
        Speaker {
            dialect: Dialect::ietf(),
            key: ("idempotency-key", "\"k-1\""),
            mark: Some("idempotency-replayed"),
            mismatch: StatusCode::UNPROCESSABLE_ENTITY,
        },
        Speaker {
            dialect: Dialect::stripe(),
            key: ("idempotency-key", "k-1"),
            mark: Some("idempotent-replayed"),
            mismatch: conflict,
        },
        Speaker {
            dialect: Dialect::default()
                .key_syntax(KeySyntax::Raw)
                .no_replay_header(),
            key: ("idempotency-key", "k-1"),
            mark: None,
            mismatch: conflict,
        },
        Speaker {
            dialect: Dialect::default()
                .key_header("X-Request-Key")
                .max_key_len(3)
                .replay_header("X-Replay")
                .mismatch(StatusCode::BAD_REQUEST),
            key: ("x-request-key", "k-1"),
            mark: Some("x-replay"),
            mismatch: StatusCode::BAD_REQUEST,
        },
    ]
}

impl Speaker {
    async fn send(&self, store: &MemoryStore, runs: &Runs, body: &str) -> Answer {
        let idem = Idempotency::builder().store(store.clone());
        let router = Router::new()
            .route("/count", post(count))
            .layer(idem.dialect(self.dialect.clone()).build())
            .layer(axum::Extension(runs.clone()));
        let server = Server::start(router).await;
        server
            .send(request(Method::POST, "/count", [self.key], body))
            .await
    }
}

#[tokio::test]
async fn a_record_of_one_dialect_is_replayed_under_another() {
    for writer in speakers() {
        let (store, runs) = (MemoryStore::builder().build(), Runs::default());
        let first = writer.send(&store, &runs, "a").await;
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        for reader in speakers() {
            let replay = reader.send(&store, &runs, "a").await;
            assert_eq!((replay.status, &replay.body), (first.status, &first.body));
            for mark in ["idempotency-replayed", "idempotent-replayed", "x-replay"] {
                assert_eq!(replay.headers.contains_key(mark), reader.mark == Some(mark));
            }
            let reused = reader.send(&store, &runs, "b").await;
            assert_eq!(reused.status, reader.mismatch, "{reused:?}");
        }
        assert_eq!(runs.finished(), 1);
    }
}

/// By default, reformatted JSON is a different body. `fingerprint = json` ignores the formatting.
#[tokio::test]
async fn row_16_a_json_fingerprint_ignores_formatting() {
    #[idempotent(scope = global, fingerprint = json)]
    async fn create(axum::Extension(runs): axum::Extension<Runs>, _: axum::body::Bytes) -> String {
        runs.count().to_string()
    }

    let runs = Runs::default();
    let router = Router::new()
        .route("/", post(create))
        .layer(Idempotency::in_memory())
        .layer(axum::Extension(runs.clone()));
    let server = Server::start(router).await;
    for body in [r#"{"a": 1, "b": [2, 3]}"#, r#"{"b":[2,3],"a":1}"#] {
        assert_eq!(server.post("/", "row-16", body).await.text(), "1");
    }
    let other = server.post("/", "row-16", r#"{"b":[3,2],"a":1}"#).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(runs.finished(), 1);
}
