//! Tests generic handlers, `where` clauses, and associated functions of an `impl` block.

use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{FromRequest, FromRequestParts, Path, State};
use axum::http::Method;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use axum::routing::post;
use axum::{Json, Router};
use axum_idem::{Idempotency, idempotent};
use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{post as request, runs_once, send};

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

#[idempotent(scope = token)]
async fn any_body<T: FromRequest<Memory> + Display>(body: T) -> String {
    body.to_string()
}

#[idempotent(scope = token)]
async fn any_head<T: FromRequestParts<Memory> + Display>(head: T) -> String {
    head.to_string()
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

/// The attribute cannot see the generics of this `impl` block. `Repo` and `Fault` look like ordinary
/// types.
struct Api<Repo, Fault>(PhantomData<(Repo, Fault)>);

trait Source: Clone + Send + Sync + 'static {
    type Error: std::error::Error + Send + Sync + 'static;

    fn events(&self) -> Vec<Result<Event, Self::Error>>;
}

impl Source for Memory {
    type Error = std::fmt::Error;

    fn events(&self) -> Vec<Result<Event, Self::Error>> {
        vec![Ok(
            Event::default().data(self.0.load(Ordering::SeqCst).to_string())
        )]
    }
}

impl<Repo, Fault> Api<Repo, Fault>
where
    Repo: Repository + Source,
    Fault: IntoResponse + Default + Send + Sync + 'static,
{
    #[idempotent(scope = token)]
    async fn associated_error(
        State(repository): State<Repo>,
    ) -> Sse<impl Stream<Item = Result<Event, Repo::Error>>> {
        Sse::new(futures_util::stream::iter(repository.events()))
    }

    /// The body does not name the error type, so only the signature can fix it.
    #[idempotent(scope = token)]
    async fn inferred_error(body: String) -> Sse<impl Stream<Item = Result<Event, Repo::Error>>> {
        Sse::new(futures_util::stream::iter([
            Ok(Event::default().data(body)),
        ]))
    }

    #[idempotent(scope = token)]
    async fn response_and_send(
        State(repository): State<Repo>,
        body: String,
    ) -> Result<impl IntoResponse + Send, Fault> {
        if body.is_empty() {
            return Err(Fault::default());
        }
        Ok(repository.save(&body).await.to_string())
    }

    #[idempotent(scope = token)]
    async fn inferred_beside_the_error(
        body: String,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Repo::Error>> + Send>, Fault> {
        if body.is_empty() {
            Err(Fault::default())?;
        }
        Ok(Sse::new(futures_util::stream::iter([Ok(
            Event::default().data(body)
        )])))
    }

    #[idempotent(scope = token)]
    async fn beside_self(
        body: String,
    ) -> Result<Sse<impl Stream<Item = Result<Event, Unfinished<Self>>>>, Fault> {
        Ok(Sse::new(futures_util::stream::iter([Ok(
            Event::default().data(body)
        )])))
    }
}

struct Unfinished<T>(PhantomData<T>);

impl<T> std::fmt::Debug for Unfinished<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unfinished")
    }
}

impl<T> std::fmt::Display for Unfinished<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unfinished")
    }
}

impl<T> std::error::Error for Unfinished<T> {}

trait Routes<Repo> {
    fn routes() -> Router<Repo>;
}

struct Limited<const MAX: usize>;

impl<const MAX: usize> Limited<MAX> {
    #[idempotent(scope = token)]
    async fn take(body: String) -> Result<impl IntoResponse + Send, TooLong<MAX>> {
        if body.len() > MAX {
            return Err(TooLong);
        }
        Ok(body)
    }

    #[idempotent(scope = token)]
    async fn bytes(body: String) -> Result<Json<impl Serialize + AsRef<[u8]>>, TooLong<MAX>> {
        let bytes = body.into_bytes();
        if bytes.len() > MAX {
            Err(TooLong)
        } else {
            Ok(Json(bytes))
        }
    }
}

struct TooLong<const MAX: usize>;

impl<const MAX: usize> IntoResponse for TooLong<MAX> {
    fn into_response(self) -> axum::response::Response {
        MAX.to_string().into_response()
    }
}

impl<Repo: Repository + Send + 'static, const MAX: usize> Routes<Repo> for Limited<MAX> {
    fn routes() -> Router<Repo> {
        Router::new()
            .route("/take", post(Self::take))
            .route("/bytes", post(Self::bytes))
    }
}

/// The handler defines a function with the same name as a function in the generated code.
#[idempotent(scope = token)]
async fn with_a_name_of_ours() -> Sse<impl Stream<Item = Result<Event, std::fmt::Error>>> {
    fn __idem_returns() -> &'static str {
        "ours"
    }
    Sse::new(futures_util::stream::iter([Ok(
        Event::default().data(__idem_returns())
    )]))
}

#[tokio::test]
async fn an_opaque_return_type_may_name_generics_of_the_impl_block() {
    type Both = Api<Memory, String>;
    let router = Router::new()
        .route("/associated", post(Both::associated_error))
        .route("/inferred", post(Both::inferred_error))
        .route("/response", post(Both::response_and_send))
        .route("/beside", post(Both::inferred_beside_the_error))
        .route("/self", post(Both::beside_self))
        .merge(<Limited<3> as Routes<Memory>>::routes())
        .route("/ours", post(with_a_name_of_ours))
        .with_state(Memory::default())
        .layer(Idempotency::in_memory());
    for (path, body, expected) in [
        ("/associated", "", "data: 0\n\n"),
        ("/inferred", "x", "data: x\n\n"),
        ("/response", "x", "1"),
        ("/response", "", ""),
        ("/beside", "x", "data: x\n\n"),
        ("/beside", "", ""),
        ("/self", "x", "data: x\n\n"),
        ("/take", "abc", "abc"),
        ("/take", "abcd", "3"),
        ("/bytes", "abc", "[97,98,99]"),
        ("/ours", "", "data: ours\n\n"),
    ] {
        let key = format!("{path}{body}");
        // An event stream is not recorded, so this test sends each request once.
        let answer = send(&router, request(path, &key, body)).await;
        assert_eq!(answer.body, expected, "{path}");
    }
}

#[tokio::test]
async fn generic_handlers_are_replayed() {
    let router = Router::new()
        .route("/bounded", post(bounded::<Memory>))
        .route("/where", post(with_where::<Memory, 100>))
        .route("/last", post(last_is_generic::<u8>))
        .route("/opaque", post(opaque_and_generic::<u8>))
        .route("/scope/{id}", post(scope_is_generic::<u8>))
        .route("/any/body", post(any_body::<String>))
        .route("/any/head", post(any_head::<Method>))
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
        ("/any/body", "x", "x"),
        ("/any/head", "x", "POST"),
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
