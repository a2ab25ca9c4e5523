//! A service whose responses, keys and scopes are secrets.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::{Keys, Sealed, Store};
use axum_idem::{
    Attempt, CommitError, Idempotency, OnStoreError, OutcomeUnknown, Scope, idempotent,
};
use sqlx::{PgPool, SqlitePool};

use crate::needles::{BODY, HEADER, KEY, REQUEST, TOKEN, WORKSPACE};
use crate::support::{Answer, KEY as KEY_HEADER, Runs, exchange, request};

/// What the handlers use.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    pub(crate) runs: Runs,
    /// Where the response of `/committed` is recorded, when the store supports it.
    pub(crate) postgres: Option<PgPool>,
    pub(crate) sqlite: Option<SqlitePool>,
    /// Whether the handlers log what they know, to prove that a log is searched.
    pub(crate) tells: bool,
}

impl Desk {
    fn run(&self, headers: &HeaderMap, order: &str) -> impl IntoResponse + use<> {
        self.runs.count();
        if self.tells {
            tracing::trace!(?headers, order, "response: {BODY} {HEADER}");
        }
        (StatusCode::CREATED, [("x-issued", HEADER)], BODY)
    }
}

#[idempotent(scope = (token, header("x-workspace")))]
async fn issue(
    State(desk): State<Desk>,
    headers: HeaderMap,
    order: String,
) -> impl IntoResponse + use<> {
    desk.run(&headers, &order)
}

/// Records its response in a transaction of its own.
#[idempotent(scope = (token, header("x-workspace")))]
async fn committed(
    State(desk): State<Desk>,
    headers: HeaderMap,
    attempt: Attempt,
    order: String,
) -> Result<Response, CommitError> {
    let response = desk.run(&headers, &order);
    if let Some(pool) = &desk.postgres {
        let tx = pool.begin().await.expect("PostgreSQL accepts connections");
        attempt.commit(tx, response).await
    } else if let Some(pool) = &desk.sqlite {
        let tx = pool.begin_with("BEGIN IMMEDIATE").await;
        attempt.commit(tx.expect("the file opens"), response).await
    } else {
        Ok(response.into_response())
    }
}

#[idempotent(scope = (token, header("x-workspace")), on_unknown = hold)]
async fn doubt(
    State(desk): State<Desk>,
    headers: HeaderMap,
    order: String,
) -> impl IntoResponse + use<> {
    (OutcomeUnknown, desk.run(&headers, &order))
}

/// One process of the service.
pub(crate) struct Service {
    router: Router,
    pub(crate) idem: Idempotency,
    pub(crate) desk: Desk,
}

pub(crate) fn keys() -> Keys {
    Keys::new().primary(1, [1; 32])
}

impl Service {
    /// As the documentation recommends it.
    pub(crate) fn sealed(store: impl Store, keys: Keys, desk: Desk) -> Self {
        let builder = Idempotency::builder()
            .store(Sealed::around(store, keys))
            .id_secret([9; 32])
            // Also a service that fails open must not run a handler because of a record.
            .on_store_error(OnStoreError::FailOpen);
        Self::with(builder.namespace("shop").build(), desk)
    }

    /// Without any of it. The label shows what the other service hides.
    pub(crate) fn open(store: impl Store, desk: Desk) -> Self {
        let builder = Idempotency::builder().store(store).label(|request, key| {
            let workspace = request.headers().get("x-workspace")?.to_str().ok()?;
            let token = request.headers().get("authorization")?.to_str().ok()?;
            Some(format!("{key} {token} {workspace}"))
        });
        Self::with(builder.namespace("shop").build(), desk)
    }

    fn with(idem: Idempotency, desk: Desk) -> Self {
        let router = Router::new()
            .route("/issue", post(issue))
            .route("/committed", post(committed))
            .route("/doubt", post(doubt))
            .layer(idem.clone())
            .with_state(desk.clone());
        Self { router, idem, desk }
    }

    pub(crate) async fn post(&self, path: &str, key: &str) -> Answer {
        self.send(path, key, REQUEST).await
    }

    pub(crate) async fn send(&self, path: &str, key: &str, body: &str) -> Answer {
        let headers = [
            (KEY_HEADER, key),
            ("authorization", TOKEN),
            ("x-workspace", WORKSPACE),
        ];
        let request = request(Method::POST, path, headers, body);
        exchange(self.router.clone(), request).await
    }

    pub(crate) fn scope() -> Scope {
        Scope::new().token(TOKEN).header("x-workspace", WORKSPACE)
    }

    /// A key of the client that is as secret as the first one.
    pub(crate) fn key(name: &str) -> String {
        format!("{KEY}-{name}")
    }
}
