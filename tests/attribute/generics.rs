//! Generics, `where` clauses, functions of an `impl` block.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{post as request, runs_once};

trait Repository: Clone + Sync {
    fn save(&self, text: &str) -> impl Future<Output = usize> + Send;
}

#[derive(Clone, Default)]
struct Memory(Arc<AtomicUsize>);

impl Repository for Memory {
    async fn save(&self, text: &str) -> usize {
        tokio::task::yield_now().await;
        self.0.fetch_add(text.len(), Ordering::SeqCst) + text.len()
    }
}

#[idempotent(scope = token)]
async fn bounded<R: Repository>(State(repository): State<R>, body: String) -> String {
    repository.save(&body).await.to_string()
}

#[idempotent(scope = token)]
async fn with_where<R, const BASE: usize>(
    State(repository): State<R>,
    body: String,
) -> Result<String, ()>
where
    R: Repository + Send + 'static,
{
    Ok((BASE + repository.save(&body).await).to_string())
}

#[idempotent(scope = token)]
async fn last_is_generic<T>(Json(body): Json<T>) -> Json<T>
where
    T: DeserializeOwned + Serialize,
{
    Json(body)
}

#[idempotent(scope = token)]
async fn opaque_and_generic<T: DeserializeOwned + Serialize>(
    Json(body): Json<T>,
) -> Result<Json<(T, impl Serialize)>, ()> {
    Ok(Json((body, 1)))
}

#[idempotent(scope = id)]
async fn scope_is_generic<I>(Path(id): Path<I>, body: String) -> String
where
    I: std::fmt::Display + DeserializeOwned,
{
    format!("{id} {body}")
}

struct Trades;

impl Trades {
    const NAME: &'static str = "trades";

    #[idempotent(scope = token)]
    async fn place(body: String) -> Result<String, Self> {
        if body.is_empty() {
            return Err(Self);
        }
        Ok(format!("{} {body}", Self::NAME))
    }

    #[idempotent(scope = token)]
    pub(crate) async fn opaque(body: String) -> Result<impl IntoResponse, Self> {
        Ok(body)
    }

    fn router() -> Router {
        Router::new()
            .route("/place", post(Self::place))
            .route("/opaque", post(Self::opaque))
    }
}

impl IntoResponse for Trades {
    fn into_response(self) -> axum::response::Response {
        Self::NAME.into_response()
    }
}

struct Service<R>(PhantomData<R>);

struct Failed<R>(PhantomData<R>);

impl<R> IntoResponse for Failed<R> {
    fn into_response(self) -> axum::response::Response {
        ().into_response()
    }
}

impl<R: Repository + Send + 'static> Service<R> {
    #[idempotent(scope = token)]
    async fn save(State(repository): State<R>, body: String) -> String {
        repository.save(&body).await.to_string()
    }

    #[idempotent(scope = token)]
    async fn opaque(
        State(repository): State<R>,
        body: String,
    ) -> Result<impl IntoResponse, Failed<R>> {
        if body.is_empty() {
            return Err(Failed(PhantomData));
        }
        Ok(repository.save(&body).await.to_string())
    }
}

#[tokio::test]
async fn generic_handlers_run_once() {
    let router = Router::new()
        .route("/bounded", post(bounded::<Memory>))
        .route("/where", post(with_where::<Memory, 100>))
        .route("/last", post(last_is_generic::<u8>))
        .route("/opaque", post(opaque_and_generic::<u8>))
        .route("/scope/{id}", post(scope_is_generic::<u8>))
        .route("/service", post(Service::<Memory>::save))
        .route("/service/opaque", post(Service::<Memory>::opaque))
        .with_state(Memory::default())
        .nest("/trades", Trades::router())
        .layer(Idempotency::in_memory());
    for (path, body, expected) in [
        ("/bounded", "ab", "2"),
        ("/where", "ab", "104"),
        ("/last", "7", "7"),
        ("/opaque", "7", "[7,1]"),
        ("/scope/9", "x", "9 x"),
        ("/service", "abc", "7"),
        ("/service/opaque", "abc", "10"),
        ("/service/opaque", "", ""),
        ("/trades/place", "x", "trades x"),
        ("/trades/place", "", "trades"),
        ("/trades/opaque", "x", "x"),
    ] {
        let key = format!("{path}{body}");
        let answer = runs_once(&router, || request(path, &key, body)).await;
        assert_eq!(answer.body, expected, "{path}");
    }
}
