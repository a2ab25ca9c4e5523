//! Layers between the `Idempotency` layer and the handler finish before the record is written.

mod cancelled;
mod commits;
mod panics;
mod places;
mod responses;
mod several;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, FromRef, Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{Attempt, Idempotency, Scope, idempotent};
use tokio::sync::Semaphore;

use crate::support::{Answer, Runs, Server, eventually};

/// Longer than any test waits for a drain.
const LONG: Duration = Duration::from_secs(30);

/// How one unit of work ends. Each commits unless a test says otherwise.
#[derive(Clone, Copy, Debug)]
enum Commit {
    /// Waits at the gate before the commit.
    Waits,
    /// Rolls back and responds with this status.
    Fails(StatusCode),
    /// Commits and then panics.
    Panics,
}

/// A database whose transactions a layer commits.
#[derive(Clone, Default)]
struct Books(Arc<Shelf>);

struct Shelf {
    rows: Mutex<Vec<String>>,
    plans: Mutex<VecDeque<Commit>>,
    waiting: AtomicUsize,
    rolled_back: AtomicUsize,
    gate: Semaphore,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            plans: Mutex::default(),
            waiting: AtomicUsize::new(0),
            rolled_back: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }
}

impl Books {
    fn next_commit(&self, commit: Commit) {
        self.0.plans.lock().expect("no panic").push_back(commit);
    }

    fn rows(&self) -> Vec<String> {
        self.0.rows.lock().expect("no panic").clone()
    }

    fn rolled_back(&self) -> usize {
        self.0.rolled_back.load(Ordering::SeqCst)
    }

    fn open(&self) {
        self.0.gate.add_permits(1);
    }

    async fn until_commit_waits(&self) {
        eventually("a commit waits", || {
            self.0.waiting.load(Ordering::SeqCst) > 0
        })
        .await;
    }
}

/// The rows of one transaction. Dropped, it rolls back.
#[derive(Clone)]
struct Unit(Arc<Transaction>);

struct Transaction {
    books: Books,
    rows: Mutex<Vec<String>>,
}

impl Unit {
    fn begin(books: &Books) -> Self {
        Self(Arc::new(Transaction {
            books: books.clone(),
            rows: Mutex::default(),
        }))
    }

    fn insert(&self, row: String) {
        self.0.rows.lock().expect("no panic").push(row);
    }

    async fn commit(&self) -> Result<(), StatusCode> {
        let shelf = &self.0.books.0;
        let plan = shelf.plans.lock().expect("no panic").pop_front();
        match plan {
            Some(Commit::Fails(status)) => return Err(status),
            Some(Commit::Waits) => {
                shelf.waiting.fetch_add(1, Ordering::SeqCst);
                shelf.gate.acquire().await.expect("open").forget();
                shelf.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            Some(Commit::Panics) | None => {}
        }
        let rows = std::mem::take(&mut *self.0.rows.lock().expect("no panic"));
        shelf.rows.lock().expect("no panic").extend(rows);
        assert!(
            !matches!(plan, Some(Commit::Panics)),
            "the layer panics after its commit"
        );
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let is_open = self.rows.get_mut().is_ok_and(|rows| !rows.is_empty());
        if is_open {
            self.books.0.rolled_back.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Begins a transaction, and commits it when the handler succeeds.
async fn unit_of_work(State(books): State<Books>, mut request: Request, next: Next) -> Response {
    let unit = Unit::begin(&books);
    request.extensions_mut().insert(unit.clone());
    let response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        return response;
    }
    match unit.commit().await {
        Ok(()) => response,
        Err(status) => (status, "the commit failed").into_response(),
    }
}

#[derive(Clone, Default)]
struct App {
    runs: Runs,
    books: Books,
}

impl FromRef<App> for Runs {
    fn from_ref(app: &App) -> Self {
        app.runs.clone()
    }
}

#[idempotent(scope = global)]
async fn book(
    State(runs): State<Runs>,
    Extension(unit): Extension<Unit>,
    attempt: Attempt,
) -> (StatusCode, String) {
    let run = runs.count();
    unit.insert(format!("row {run}"));
    let text = format!("run {run}, attempt {}", attempt.number());
    (StatusCode::CREATED, text)
}

#[idempotent(scope = global, on_unknown = hold)]
async fn book_or_hold(
    State(runs): State<Runs>,
    Extension(unit): Extension<Unit>,
) -> (StatusCode, String) {
    let run = runs.count();
    unit.insert(format!("row {run}"));
    (StatusCode::CREATED, format!("run {run}"))
}

#[idempotent(scope = global)]
async fn slow(State(runs): State<Runs>, Extension(unit): Extension<Unit>) -> (StatusCode, String) {
    unit.insert("row".to_owned());
    let run = runs.pass().await;
    (StatusCode::CREATED, format!("run {run}"))
}

/// Responds with this status.
#[idempotent(scope = global)]
async fn status(State(runs): State<Runs>, Path(code): Path<u16>) -> (StatusCode, String) {
    let status = StatusCode::from_u16(code).expect("a status");
    (status, format!("run {}", runs.count()))
}

fn routes() -> Router<App> {
    Router::new()
        .route("/book", post(book))
        .route("/hold", post(book_or_hold))
        .route("/slow", post(slow))
        .route("/status/{code}", post(status))
}

struct Setup {
    server: Server,
    app: App,
    idem: Idempotency,
}

/// A service whose unit of work is below the `Idempotency` layer.
async fn start() -> Setup {
    start_with(Idempotency::in_memory(), |router| router).await
}

/// With what `above` adds between the unit of work and the `Idempotency` layer.
async fn start_with(idem: Idempotency, above: impl FnOnce(Router) -> Router) -> Setup {
    let app = App::default();
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work));
    let server = Server::start(above(router).layer(idem.clone())).await;
    Setup { server, app, idem }
}

impl Setup {
    async fn post(&self, path: &str) -> Answer {
        self.server.post(path, "k", "").await
    }

    async fn drained(&self) {
        assert_eq!(self.idem.drain(LONG).await, 0);
    }

    async fn stored(&self) -> Option<Entry> {
        let id = self.idem.record_id(&Scope::new(), "k");
        self.idem.look_up(id).await.expect("memory does not fail")
    }
}
