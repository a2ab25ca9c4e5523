//! Tests that no argument is dropped before the handler ends, for every pattern and after a disconnect.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use crate::support::{post as request, send};

#[derive(Clone, Default)]
struct Journal {
    entries: Arc<Mutex<Vec<String>>>,
    started: Arc<Notify>,
    go_on: Arc<Notify>,
    ended: Arc<Notify>,
}

impl Journal {
    fn note(&self, entry: &str) {
        self.entries
            .lock()
            .expect("the lock is not poisoned")
            .push(entry.to_owned());
    }

    fn read(&self) -> Vec<String> {
        self.entries
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    /// The body of every handler: reports its start, waits for the test, and reports its end.
    async fn work(&self) {
        self.note("begin");
        self.started.notify_one();
        self.go_on.notified().await;
        self.note("end");
    }
}

/// Stands for a permit, a lock or a transaction: a value that must live as long as the handler.
struct Permit<const N: u8 = 0>(Journal);

impl<const N: u8> Drop for Permit<N> {
    fn drop(&mut self) {
        self.0.note(&format!("drop {N}"));
        self.0.ended.notify_one();
    }
}

impl<const N: u8> FromRequestParts<Journal> for Permit<N> {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, journal: &Journal) -> Result<Self, StatusCode> {
        Ok(Self(journal.clone()))
    }
}

struct Session<const N: u8> {
    id: u64,
    _permit: Permit<N>,
}

impl<const N: u8> FromRequestParts<Journal> for Session<N> {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, journal: &Journal) -> Result<Self, StatusCode> {
        Ok(Self {
            id: 1,
            _permit: Permit(journal.clone()),
        })
    }
}

struct Both<A, B>(A, B);

impl<A, B> FromRequestParts<Journal> for Both<A, B>
where
    A: FromRequestParts<Journal> + Send,
    B: FromRequestParts<Journal> + Send,
{
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, state: &Journal) -> Result<Self, StatusCode> {
        let refused = StatusCode::INTERNAL_SERVER_ERROR;
        let first = A::from_request_parts(parts, state).await;
        let first = first.map_err(|_| refused)?;
        let second = B::from_request_parts(parts, state).await;
        Ok(Self(first, second.map_err(|_| refused)?))
    }
}

#[idempotent(scope = token)]
async fn unnamed(_: Permit, State(journal): State<Journal>) {
    journal.work().await;
}

#[idempotent(scope = token)]
async fn underscored(_permit: Permit, State(journal): State<Journal>) {
    journal.work().await;
}

#[idempotent(scope = token)]
#[expect(
    unused_variables,
    reason = "an unused argument must also live as long as the handler"
)]
async fn named_and_unused(permit: Permit, State(journal): State<Journal>) {
    journal.work().await;
}

#[idempotent(scope = token)]
async fn the_rest_of_a_tuple(
    Both(_, State(journal)): Both<Permit, State<Journal>>,
    State(_): State<Journal>,
) {
    journal.work().await;
}

#[idempotent(scope = id)]
async fn the_rest_of_a_struct(
    Session { id, .. }: Session<0>,
    State(journal): State<Journal>,
    _body: String,
) {
    assert_eq!(id, 1);
    journal.work().await;
}

#[idempotent(scope = token)]
async fn the_last_one(State(journal): State<Journal>, _: Permit) {
    journal.work().await;
}

#[idempotent(scope = token)]
async fn the_rest_of_the_last_one(
    State(journal): State<Journal>,
    Session { id: _, .. }: Session<0>,
) {
    journal.work().await;
}

#[idempotent(scope = id)]
async fn the_last_one_in_the_scope(State(journal): State<Journal>, Session { id, .. }: Session<0>) {
    assert_eq!(id, 1);
    journal.work().await;
}

fn router(journal: &Journal) -> Router {
    Router::new()
        .route("/unnamed", post(unnamed))
        .route("/underscored", post(underscored))
        .route("/named", post(named_and_unused))
        .route("/tuple", post(the_rest_of_a_tuple))
        .route("/struct", post(the_rest_of_a_struct))
        .route("/last", post(the_last_one))
        .route("/last_rest", post(the_rest_of_the_last_one))
        .route("/last_scope", post(the_last_one_in_the_scope))
        .with_state(journal.clone())
        .layer(Idempotency::in_memory())
}

const PATHS: [&str; 8] = [
    "/unnamed",
    "/underscored",
    "/named",
    "/tuple",
    "/struct",
    "/last",
    "/last_rest",
    "/last_scope",
];

#[tokio::test]
async fn an_argument_lives_until_the_handler_ends() {
    for path in PATHS {
        let journal = Journal::default();
        journal.go_on.notify_one();
        let answer = send(&router(&journal), request(path, "a", "")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(journal.read(), ["begin", "end", "drop 0"], "{path}");
    }
}

#[tokio::test]
async fn an_argument_lives_until_the_handler_ends_after_a_disconnect() {
    for path in PATHS {
        let journal = Journal::default();
        let answer = tokio::spawn(router(&journal).oneshot(request(path, "a", "")));
        journal.started.notified().await;
        answer.abort();
        answer.await.expect_err("the request was dropped");
        assert_eq!(journal.read(), ["begin"], "{path}");
        journal.go_on.notify_one();
        journal.ended.notified().await;
        assert_eq!(journal.read(), ["begin", "end", "drop 0"], "{path}");
    }
}

#[idempotent(scope = token)]
async fn three(
    State(journal): State<Journal>,
    first: Permit<1>,
    Both(second, third): Both<Permit<2>, Permit<3>>,
    _fourth: Permit<4>,
) {
    let _ = (&first, &second, &third);
    journal.work().await;
}

#[idempotent(scope = token)]
async fn three_of_them_mutable(
    State(journal): State<Journal>,
    first: Permit<1>,
    Both(mut second, third): Both<Permit<2>, Permit<3>>,
    mut _fourth: Permit<4>,
) {
    second.0 = journal.clone();
    _fourth.0 = journal.clone();
    let _ = (&first, &third);
    journal.work().await;
}

#[tokio::test]
async fn arguments_are_dropped_in_the_order_of_a_plain_function() {
    async fn plain(
        _first: Permit<1>,
        Both(_second, _third): Both<Permit<2>, Permit<3>>,
        _: Permit<4>,
    ) {
        tokio::task::yield_now().await;
    }

    let journal = Journal::default();
    let permit = || journal.clone();
    plain(
        Permit(permit()),
        Both(Permit(permit()), Permit(permit())),
        Permit(permit()),
    )
    .await;
    let expected = journal.read();
    assert_eq!(expected.len(), 4);

    for (path, key) in [("/", "order"), ("/mutable", "mutable-order")] {
        let journal = Journal::default();
        journal.go_on.notify_one();
        let router = Router::new()
            .route("/", post(three))
            .route("/mutable", post(three_of_them_mutable))
            .with_state(journal.clone());
        let answer = send(&router, request(path, key, "")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(journal.read()[2..], expected, "{path}");
    }
}
