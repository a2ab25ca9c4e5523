//! The attribute adds no warnings and hides no warnings.
#![deny(
    warnings,
    clippy::absolute_paths,
    clippy::shadow_reuse,
    clippy::shadow_unrelated
)]

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum_idem::{Idempotency, idempotent};

static IDEM: LazyLock<Idempotency> = LazyLock::new(Idempotency::in_memory);

pub struct User {
    id: u64,
    name: String,
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = StatusCode;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        Err(StatusCode::UNAUTHORIZED)
    }
}

#[idempotent(scope = id)]
pub async fn only_the_scope_uses_it(User { id, .. }: User, _body: String) {}

#[idempotent(scope = user.id, runtime = IDEM)]
pub async fn only_the_scope_uses_all_of_it(user: User, _body: String) {}

#[idempotent(scope = id)]
#[expect(
    clippy::shadow_unrelated,
    reason = "an error about the last argument needs the name of the argument"
)]
pub async fn only_the_scope_uses_the_last(User { id, .. }: User) {}

#[idempotent(scope = token)]
#[expect(unused_variables)]
pub async fn unused_arguments(State(user): State<u8>, (id, _): (User, User), body: String) {}

#[idempotent(scope = token)]
pub async fn unused_one_by_one(
    #[expect(unused_variables)] user: User,
    #[expect(unused_variables)] Path((id, _)): Path<(u64, u64)>,
    #[expect(unused_variables)] body: String,
) {
}

#[idempotent(scope = token)]
pub async fn needlessly_mutable(
    #[expect(unused_mut)] mut user: User,
    #[expect(unused_mut)] User { mut id, .. }: User,
    #[expect(unused_mut)] mut body: String,
) -> String {
    format!("{id} {} {body}", user.name)
}

#[idempotent(scope = user.id)]
pub async fn assigned_and_not_read_again(
    mut user: User,
    Path((mut id, name)): Path<(u64, String)>,
    State(desk): State<u8>,
    mut body: String,
) -> String {
    user.id += id;
    id = 1;
    body += &format!("{id}{name}{desk}");
    id = 2;
    format!("{body}{id}")
}

#[idempotent(scope = user.id + id)]
pub async fn assigned_last((mut user, Path(id)): (User, Path<u64>)) -> String {
    user.id += 1;
    id.to_string()
}

#[idempotent(scope = token)]
#[expect(unused_assignments)]
pub async fn assigned_for_nothing(body: String) -> String {
    let mut len = body.len();
    let text = format!("{body}{len}");
    len = 1;
    text
}

#[idempotent(scope = token)]
pub async fn names_of_another_style(
    #[expect(non_snake_case)] userName: User,
    #[allow(non_snake_case)] bodyText: String,
) -> String {
    userName.name + &bodyText
}

/// clippy counts no part of the wrapper.
#[idempotent(scope = token)]
pub async fn a_type_that_is_nearly_too_complex(
    Json(order): Json<HashMap<String, Vec<(String, u64)>>>,
) -> String {
    order.len().to_string()
}

/// The compiler finds a handler that nobody mounts.
#[idempotent(scope = token)]
#[expect(dead_code)]
async fn no_route_uses_it(body: String) -> Response {
    body.into_response()
}

/// clippy finds no name of the generated code.
#[idempotent(scope = user.id)]
pub async fn a_plain_response(user: User, body: String) -> Response {
    (user.name + &body).into_response()
}

#[derive(Clone)]
pub struct Audited {
    id: u64,
    #[cfg(any())]
    trace: String,
}

#[idempotent(scope = id)]
pub async fn a_field_that_is_not_there(
    State(Audited {
        id,
        #[cfg(any())]
        trace,
    }): State<Audited>,
    _body: String,
) {
}

#[idempotent(scope = token)]
pub async fn a_member_of_the_same_name(
    #[expect(unused_variables)] name: Path<u64>,
    #[cfg_attr(all(), expect(unused_variables))] id: State<u8>,
    user: User,
    #[cfg_attr(all(), expect(unused_variables))] body: String,
) -> String {
    format!("{} {}", user.name, user.id)
}

pub fn main() {}
