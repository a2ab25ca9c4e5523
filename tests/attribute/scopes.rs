//! Tests every form of the scope.

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

struct Limits {
    shard: u32,
    tenant: String,
    max: u32,
}

static LIMITS: Limits = Limits {
    shard: 49,
    tenant: String::new(),
    max: 7,
};

fn length_of(tenant: &str) -> usize {
    tenant.len()
}

/// In the body, the variables are references.
#[idempotent(scope = (length_of(tenant), *shard, tenant))]
async fn by_fields_of_a_static(
    State(Limits { tenant, shard, .. }): State<&'static Limits>,
    body: String,
) -> String {
    let shard: &u32 = shard;
    format!("{} {shard} {body}", length_of(tenant))
}

/// In the body, the variable is a value.
#[idempotent(scope = (max, max + 1))]
async fn by_a_value_of_a_static(
    State(&Limits { max, .. }): State<&'static Limits>,
    body: String,
) -> String {
    let max: u32 = max;
    format!("{max} {body}")
}

#[idempotent(scope = format!("{type} {}", r#type.len()))]
async fn by_a_raw_name(
    Path(r#type): Path<String>,
    (User { r#name, .. }, ()): (User, ()),
    body: String,
) -> String {
    format!("{type} {name} {body}")
}

#[tokio::test]
async fn fields_of_a_static_state_have_the_types_of_the_body() {
    let answer = by_fields_of_a_static(State(&LIMITS), String::new().into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = by_a_value_of_a_static(State(&LIMITS), String::new().into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_scope_captures_a_raw_name_by_its_text() {
    let user = User {
        id: Id(1),
        name: "a".to_owned(),
    };
    let answer = by_a_raw_name(Path("b".to_owned()), (user, ()), String::new().into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn arguments_shadow_the_built_in_scope_names() {
    let answer = every_name_is_an_argument(str::to_owned, Id(7).into()).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[expect(non_upper_case_globals, reason = "Rust allows it")]
static region: &str = "eu";

/// Names that the scope expression binds are different from the arguments of the same names.
#[idempotent(scope = user.name.chars().filter(|body| body.is_alphabetic()).count())]
async fn binds_by_closure(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = format!("{body}", body = user.id))]
async fn binds_by_format(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = match user.name.get(3..) { Some(body) => body.len(), None => 0 })]
async fn binds_by_match(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = match user { User { id, .. } if id.0 > 3 => id, User { id, .. } => id })]
async fn binds_by_match_and_copies(user: User, _body: String) -> String {
    user.name
}

#[idempotent(scope = if let Some(body) = user.name.get(3..) { body.len() } else { 0 })]
async fn binds_by_if_let(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = { static token: u8 = 1; let body = user.id; format!("{body} {token}") })]
#[expect(non_upper_case_globals, reason = "Rust allows it")]
async fn binds_by_let_and_static(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = (user.id, region))]
async fn lower_case_static(user: User, body: String) -> String {
    format!("{} {body}", user.name)
}

#[idempotent(scope = ID)]
#[expect(non_snake_case, reason = "Rust allows it")]
async fn upper_case_variable(Path(ID): Path<u64>, _body: String) -> String {
    ID.to_string()
}

/// The type of `id` is `u64`, whatever else the pattern binds.
#[idempotent(scope = u64::from_be(id))]
async fn all_of_a_pair(Path((id, _name)): Path<(u64, String)>, _body: String) -> String {
    id.to_string()
}

#[idempotent(scope = u64::from_be(id))]
async fn one_of_a_pair(Path((id, _)): Path<(u64, String)>, _body: String) -> String {
    id.to_string()
}

#[idempotent(scope = (id + 1, format!("{id:03}/{}", u64::from_be(id)), { let id = id; id }))]
async fn the_first_of_a_pair(Path((id, ..)): Path<(u64, String)>, _body: String) -> String {
    id.to_string()
}

#[idempotent(scope = u64::from_be(id))]
async fn one_of_the_last(Path((id, _)): Path<(u64, String)>) -> String {
    id.to_string()
}

#[idempotent(scope = Id(id))]
async fn by_value(User { id: Id(id), .. }: User, _body: String) -> String {
    id.to_string()
}

async fn post_as(router: &Router, user: &str, path: &str, body: &'static str) -> Answer {
    let mut request = request(path, path, body);
    let user = user.parse().expect("a header value");
    request.headers_mut().insert("x-user", user);
    send(router, request).await
}

#[tokio::test]
async fn equal_keys_in_different_scopes_are_separate() {
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
async fn an_argument_named_token_is_the_scope() {
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

#[tokio::test]
async fn a_scope_expression_may_bind_its_own_names() {
    let router = Router::new()
        .route("/closure", post(binds_by_closure))
        .route("/format", post(binds_by_format))
        .route("/match", post(binds_by_match))
        .route("/copy", post(binds_by_match_and_copies))
        .route("/if", post(binds_by_if_let))
        .route("/let", post(binds_by_let_and_static))
        .route("/static", post(lower_case_static))
        .layer(Idempotency::in_memory());
    for path in [
        "/closure", "/format", "/match", "/copy", "/if", "/let", "/static",
    ] {
        for user in ["ann@one", "robert@two"] {
            let first = post_as(&router, user, path, "x").await;
            assert_eq!(
                (first.status, first.replayed),
                (StatusCode::OK, false),
                "{path}"
            );
            let again = post_as(&router, user, path, "x").await;
            assert_eq!((again.body, again.replayed), (first.body, true), "{path}");
        }
    }
}

#[tokio::test]
async fn the_type_of_a_variable_does_not_depend_on_the_rest_of_its_pattern() {
    let router = Router::new()
        .route("/all/{id}/{name}", post(all_of_a_pair))
        .route("/one/{id}/{name}", post(one_of_a_pair))
        .route("/first/{id}/{name}", post(the_first_of_a_pair))
        .route("/last/{id}/{name}", post(one_of_the_last))
        .route("/upper/{id}", post(upper_case_variable))
        .route("/value", post(by_value))
        .layer(Idempotency::in_memory());
    for path in [
        "/all/7/a",
        "/one/7/a",
        "/first/7/a",
        "/last/7/a",
        "/upper/7",
    ] {
        let answer = send(&router, request(path, path, "x")).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (StatusCode::OK, "7"),
            "{path}"
        );
        // The same key in another scope is a different operation.
        let other = path.replace('7', "8");
        let answer = send(&router, request(&other, path, "x")).await;
        assert_eq!(
            (answer.status, &*answer.body),
            (StatusCode::OK, "8"),
            "{path}"
        );
    }
    let answer = post_as(&router, "ann", "/value", "x").await;
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, "3"));
}
