//! Tests the differences between editions: when temporaries are dropped, and what a closure captures.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

use crate::support::{post as request, runs_once};

#[derive(Clone, Default)]
struct App {
    counter: Arc<Mutex<u32>>,
    #[expect(dead_code, reason = "a pattern with `..` ignores this field")]
    rest: String,
}

struct Ledger {
    entries: Mutex<Vec<String>>,
    #[expect(dead_code, reason = "a pattern with `..` ignores this field")]
    rest: String,
}

impl<S: Sync> FromRequestParts<S> for Ledger {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            entries: Mutex::new(vec!["first".to_owned()]),
            rest: String::new(),
        })
    }
}

#[idempotent(scope = token)]
async fn guard_in_the_tail(State(App { counter, .. }): State<App>, _body: String) -> String {
    counter
        .lock()
        .expect("the lock is not poisoned")
        .to_string()
}

#[idempotent(scope = token)]
async fn guards_of_two(
    State(App { counter, .. }): State<App>,
    Ledger { entries, .. }: Ledger,
    _body: String,
) -> String {
    format!(
        "{} {}",
        counter.lock().expect("the lock is not poisoned"),
        entries.lock().expect("the lock is not poisoned").len()
    )
}

#[idempotent(scope = token)]
async fn guard_of_the_last_argument(Ledger { entries, .. }: Ledger) -> String {
    entries.lock().expect("the lock is not poisoned").concat()
}

#[idempotent(scope = counter.lock().expect("the lock is not poisoned"))]
async fn guard_in_the_scope(State(App { counter, .. }): State<App>, _body: String) -> String {
    match counter
        .lock()
        .expect("the lock is not poisoned")
        .checked_add(1)
    {
        Some(next) => next.to_string(),
        None => String::new(),
    }
}

#[idempotent(scope = entries.lock().expect("the lock is not poisoned").join("/"))]
async fn guard_of_the_last_argument_in_the_scope(Ledger { entries, .. }: Ledger) -> String {
    entries.lock().expect("the lock is not poisoned").concat()
}

#[tokio::test]
async fn temporaries_of_the_last_expression_may_borrow_from_the_arguments() {
    let router = Router::new()
        .route("/tail", post(guard_in_the_tail))
        .route("/two", post(guards_of_two))
        .route("/last", post(guard_of_the_last_argument))
        .route("/scope", post(guard_in_the_scope))
        .route("/last_scope", post(guard_of_the_last_argument_in_the_scope))
        .with_state(App::default())
        .layer(Idempotency::in_memory());
    for (path, expected) in [
        ("/tail", "0"),
        ("/two", "0 1"),
        ("/last", "first"),
        ("/scope", "1"),
        ("/last_scope", "first"),
    ] {
        let answer = runs_once(&router, || request(path, path, "x")).await;
        assert_eq!(answer.body, expected, "{path}");
    }
}

#[derive(Clone)]
struct Pair(String, Vec<u8>);

impl<S: Sync> FromRequestParts<S> for Pair {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self("pair".to_owned(), vec![1]))
    }
}

#[idempotent(scope = token)]
async fn head_by_mutable_reference(
    Pair(ref mut name, ref mut numbers): Pair,
    ref mut whole: Pair,
    _body: String,
) -> String {
    name.push('!');
    numbers.push(2);
    whole.1.push(3);
    format!("{name} {numbers:?} {:?}", whole.1)
}

#[idempotent(scope = name)]
async fn last_by_mutable_reference_in_the_scope(Pair(ref mut name, _): Pair) -> String {
    name.push('!');
    name.clone()
}

#[idempotent(scope = token)]
async fn last_by_mutable_reference(Pair(ref mut name, ..): Pair) -> String {
    name.push('!');
    name.clone()
}

#[idempotent(scope = token)]
#[expect(clippy::toplevel_ref_arg, reason = "Rust allows it")]
async fn body_by_mutable_reference(ref mut body: String) -> String {
    body.push('!');
    body.clone()
}

#[tokio::test]
async fn arguments_may_be_bound_by_mutable_reference() {
    let router = Router::new()
        .route("/head", post(head_by_mutable_reference))
        .route("/scope", post(last_by_mutable_reference_in_the_scope))
        .route("/last", post(last_by_mutable_reference))
        .route("/body", post(body_by_mutable_reference))
        .layer(Idempotency::in_memory());
    for (path, expected) in [
        ("/head", "pair! [1, 2] [1, 3]"),
        ("/scope", "pair!"),
        ("/last", "pair!"),
        ("/body", "x!"),
    ] {
        let answer = runs_once(&router, || request(path, path, "x")).await;
        assert_eq!(answer.body, expected, "{path}");
    }
}
