//! Whose key it is, in every form that a scope can have.

use std::fmt;

use axum::Router;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

use crate::support::{Answer, post as request, send};

struct User {
    id: Id,
    name: String,
}

#[derive(Clone, Copy)]
struct Id(u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let name = parts
            .headers
            .get("x-user")
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let name = name.to_str().map_err(|_| StatusCode::UNAUTHORIZED)?;
        Ok(Self {
            id: Id(name.len() as u64),
            name: name.to_owned(),
        })
    }
}

impl User {
    fn tenant(&self) -> &str {
        self.name.split('@').nth(1).unwrap_or_default()
    }
}

const REGION: &str = "eu";

fn key_of(user: &User) -> String {
    user.name.clone()
}

#[idempotent(scope = user.id)]
async fn by_field(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = user.tenant())]
async fn by_method(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = key_of(&user))]
async fn by_function(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = format!("{}/{name}", user.id.0))]
async fn by_macro(
    user: User,
    State(()): State<()>,
    User { name, .. }: User,
    body: String,
) -> String {
    format!("{} {name} {body}", user.name)
}

#[idempotent(scope = (header("X-User"), REGION, user.id.0 + 1, crate::scopes::key_of(&user)))]
async fn by_tuple(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = user.name)]
async fn by_the_last_argument(user: User) -> String {
    user.name
}

#[idempotent(scope = account)]
async fn by_the_last_arguments_pattern(Path(account): Path<String>) -> String {
    account
}

#[idempotent(scope = name)]
async fn by_the_rest_of_the_last_argument(User { name, .. }: User) -> String {
    name
}

#[idempotent(scope = token)]
async fn token_is_an_argument(Path(token): Path<String>, body: String) -> String {
    format!("{token} {body}")
}

#[idempotent(scope = (header("x"), global))]
async fn every_name_is_an_argument(header: fn(&str) -> String, global: Id) -> String {
    format!("{} {global}", header(""))
}

#[tokio::test]
async fn names_follow_the_scoping_of_rust() {
    let answer = every_name_is_an_argument(str::to_owned, Id(7).into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

async fn post_as(router: &Router, user: &str, path: &str, body: &'static str) -> Answer {
    let mut request = request(path, path, body);
    let user = user.parse().expect("a header");
    request.headers_mut().insert("x-user", user);
    send(router, request).await
}

#[tokio::test]
async fn equal_keys_of_two_callers_never_meet() {
    let router = Router::new()
        .route("/field", post(by_field))
        .route("/method", post(by_method))
        .route("/function", post(by_function))
        .route("/macro", post(by_macro))
        .route("/tuple", post(by_tuple))
        .route("/last", post(by_the_last_argument))
        .route("/rest", post(by_the_rest_of_the_last_argument))
        .layer(Idempotency::in_memory());
    for path in [
        "/field",
        "/method",
        "/function",
        "/macro",
        "/tuple",
        "/last",
        "/rest",
    ] {
        let first = post_as(&router, "ann@one", path, "x").await;
        assert_eq!(
            (first.status, first.replayed),
            (StatusCode::OK, false),
            "{path}"
        );
        let other = post_as(&router, "robert@two", path, "x").await;
        assert_eq!(
            (other.status, other.replayed),
            (StatusCode::OK, false),
            "{path}"
        );
        let again = post_as(&router, "ann@one", path, "x").await;
        assert_eq!((again.body, again.replayed), (first.body, true), "{path}");
    }
}

#[tokio::test]
async fn an_argument_called_token_is_the_scope() {
    let router = Router::new()
        .route("/{token}", post(token_is_an_argument))
        .route("/last/{token}", post(by_the_last_arguments_pattern))
        .layer(Idempotency::in_memory());
    for (path, key) in [("/a", "1"), ("/b", "1"), ("/last/a", "2"), ("/last/b", "2")] {
        let answer = send(&router, request(path, key, "x")).await;
        assert_eq!(
            (answer.status, answer.replayed),
            (StatusCode::OK, false),
            "{path}"
        );
        let again = send(&router, request(path, key, "x")).await;
        assert!(again.replayed, "{path}");
    }
}
