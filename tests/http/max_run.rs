//! An attempt that runs for too long is ended, and its outcome is unknown.

use std::convert::Infallible;
use std::future::pending;
use std::iter::repeat_n;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Attempt, Idempotency, Scope, idempotent};
use futures_util::stream;
use tokio::time::{Instant, sleep};

use crate::support::{self, Answer, Runs, Server, eventually, post_bytes};

const UNKNOWN: &str = "idempotency_outcome_unknown";
const TIMEOUT: &str = "idempotency_run_timeout";

#[derive(Clone, Default)]
struct Hung {
    runs: Runs,
    dropped: Arc<AtomicUsize>,
    lost: Arc<AtomicUsize>,
}

/// Counts when it is dropped.
struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Hung {
    /// Never ends. Another task watches the attempt meanwhile.
    async fn hang(self, attempt: Attempt) -> StatusCode {
        let _dropped = OnDrop(self.dropped.clone());
        let lost = self.lost.clone();
        tokio::spawn(async move {
            attempt.lost().await;
            lost.fetch_add(1, Ordering::SeqCst);
        });
        self.runs.pass().await;
        StatusCode::CREATED
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    async fn until_lost(&self, attempts: usize) {
        let lost = || self.lost.load(Ordering::SeqCst) == attempts;
        eventually("an attempt is lost", lost).await;
    }
}

#[idempotent(scope = global, on_unknown = hold)]
async fn held(State(hung): State<Hung>, attempt: Attempt) -> StatusCode {
    hung.hang(attempt).await
}

#[idempotent(scope = global)]
async fn reruns(State(hung): State<Hung>, attempt: Attempt) -> (StatusCode, String) {
    let number = attempt.number();
    let status = if number == 1 {
        hung.hang(attempt).await
    } else {
        StatusCode::OK
    };
    (status, format!("attempt {number}"))
}

#[idempotent(scope = global, on_unknown = hold, max_run = "1h")]
async fn patient(State(hung): State<Hung>, attempt: Attempt) -> StatusCode {
    hung.hang(attempt).await
}

/// An extractor that never ends.
struct Endless;

impl FromRequest<Hung> for Endless {
    type Rejection = Infallible;

    async fn from_request(_: Request, hung: &Hung) -> Result<Self, Infallible> {
        let _dropped = OnDrop(hung.dropped.clone());
        hung.runs.pass().await;
        pending().await
    }
}

#[idempotent(scope = global, on_unknown = hold)]
async fn extracts(_: Endless) -> StatusCode {
    StatusCode::CREATED
}

/// Panics once, and then has an extractor that never ends.
struct EndlessLater;

impl FromRequest<Hung> for EndlessLater {
    type Rejection = Infallible;

    async fn from_request(_: Request, hung: &Hung) -> Result<Self, Infallible> {
        if hung.runs.started() > 0 {
            hung.runs.pass().await;
        }
        Ok(Self)
    }
}

#[idempotent(scope = global)]
async fn takes_over(State(hung): State<Hung>, _: EndlessLater) -> StatusCode {
    hung.runs.count();
    std::panic::resume_unwind(Box::new("told to panic"))
}

/// Responds at once, with a body that takes twice as long as a run may.
#[idempotent(scope = global)]
async fn streams(State(hung): State<Hung>) -> Response {
    hung.runs.count();
    let pieces = stream::unfold(0, |piece| async move {
        sleep(MAX_RUN).await;
        (piece < 2).then_some((Ok::<_, Infallible>("piece "), piece + 1))
    });
    (StatusCode::CREATED, Body::from_stream(pieces)).into_response()
}

const MAX_RUN: Duration = Duration::from_millis(100);

struct Setup {
    router: Router,
    hung: Hung,
    idem: Idempotency,
    store: FaultStore<MemoryStore>,
}

fn setup(max_run: Duration) -> Setup {
    let (hung, store) = (Hung::default(), FaultStore::new(MemoryStore::default()));
    let idem = Idempotency::builder().store(store.clone());
    let idem = idem.max_run(max_run).lease(LEASE).build();
    let router = Router::new()
        .route("/held", post(held))
        .route("/reruns", post(reruns))
        .route("/patient", post(patient))
        .route("/extracts", post(extracts))
        .route("/takes-over", post(takes_over))
        .route("/streams", post(streams))
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .layer(idem.clone())
        .with_state(hung.clone());
    Setup {
        router,
        hung,
        idem,
        store,
    }
}

impl Setup {
    async fn post(&self, path: &str) -> Answer {
        support::exchange(self.router.clone(), support::post(path, "k", "")).await
    }

    async fn look_up(&self) -> Option<Entry> {
        let id = self.idem.record_id(&Scope::new(), "k");
        self.idem.look_up(id).await.expect("memory does not fail")
    }
}

const LEASE: Duration = Duration::from_secs(30);
const LONG_RUN: Duration = Duration::from_secs(15 * 60);

#[tokio::test]
async fn a_hung_handler_is_ended_and_its_key_is_held() {
    let Setup {
        router, hung, idem, ..
    } = setup(MAX_RUN);
    let server = Server::start(router).await;
    let response = server.post("/held", "k", "").await;
    assert_eq!(
        (response.status.as_u16(), response.code().as_str()),
        (504, TIMEOUT)
    );
    let problem: serde_json::Value = serde_json::from_str(response.text()).expect("a problem");
    let id = idem.record_id(&Scope::new(), "k");
    assert_eq!(problem["instance"], id.urn());
    assert_eq!((hung.dropped(), idem.running()), (1, 0));
    hung.until_lost(1).await;
    let retry = server.post("/held", "k", "").await;
    assert_eq!(
        (retry.status.as_u16(), retry.code().as_str()),
        (409, UNKNOWN)
    );
    assert_eq!((hung.runs.started(), hung.runs.finished()), (1, 0));
}

#[tokio::test]
async fn a_hung_handler_is_ended_and_runs_again_as_the_next_attempt() {
    let Setup { router, hung, .. } = setup(MAX_RUN);
    let server = Server::start(router).await;
    assert_eq!(server.post("/reruns", "k", "").await.code(), TIMEOUT);
    assert_eq!(hung.dropped(), 1);
    assert_eq!(server.post("/reruns", "k", "").await.text(), "attempt 2");
}

#[tokio::test]
async fn a_hung_handler_whose_client_has_left_is_ended_too() {
    let Setup {
        router, hung, idem, ..
    } = setup(MAX_RUN);
    let server = Server::start(router).await;
    let stream = server.write(post_bytes("/held", "k", "")).await;
    hung.runs.until_started(1).await;
    drop(stream);
    assert_eq!(idem.drain(support::PATIENCE).await, 0);
    assert_eq!((hung.dropped(), idem.running()), (1, 0));
    hung.until_lost(1).await;
    let retry = server.post("/held", "k", "").await;
    assert_eq!(
        (retry.status.as_u16(), retry.code().as_str()),
        (409, UNKNOWN)
    );
    assert_eq!(hung.runs.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_at_its_limit_and_not_before() {
    for max_run in [Duration::from_secs(1), LEASE, LONG_RUN] {
        let setup = setup(max_run);
        let begun = Instant::now();
        assert_eq!(setup.post("/held").await.code(), TIMEOUT, "{max_run:?}");
        let took = begun.elapsed();
        let grace = Duration::from_millis(2);
        assert!(took >= max_run && took <= max_run + grace, "{took:?}");
        let renewals = setup.store.calls(Operation::Renew);
        assert!(matches!(setup.look_up().await, Some(Entry::Unknown { .. })));
        sleep(LEASE).await;
        assert_eq!(setup.store.calls(Operation::Renew), renewals, "{max_run:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_has_fifteen_minutes_by_default() {
    let hung = Hung::default();
    let router = Router::new()
        .route("/held", post(held))
        .layer(Idempotency::in_memory())
        .with_state(hung.clone());
    let begun = Instant::now();
    let response = support::exchange(router, support::post("/held", "k", "")).await;
    assert_eq!(response.code(), TIMEOUT);
    assert_eq!(begun.elapsed().as_secs(), LONG_RUN.as_secs());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_can_choose_its_own_limit() {
    let setup = setup(MAX_RUN);
    let begun = Instant::now();
    assert_eq!(setup.post("/patient").await.code(), TIMEOUT);
    assert_eq!(begun.elapsed().as_secs(), 3600);
}

/// The store hangs, and each renewal waits for its reply.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_does_not_prolong_a_run() {
    let setup = setup(LONG_RUN);
    setup
        .store
        .script(Operation::Renew, repeat_n(Fault::Hang, 10_000));
    let begun = Instant::now();
    assert_eq!(setup.post("/held").await.code(), TIMEOUT);
    assert_eq!(begun.elapsed().as_secs(), LONG_RUN.as_secs());
}

/// Every `abandon` fails, so the outcome becomes unknown when the lease ends.
#[tokio::test(start_paused = true)]
async fn when_the_store_stays_away_the_end_of_the_lease_makes_the_key_unknown() {
    let setup = setup(LONG_RUN);
    setup
        .store
        .script(Operation::Abandon, repeat_n(Fault::ErrBefore, 10_000));
    assert_eq!(setup.post("/held").await.code(), TIMEOUT);
    assert!(matches!(
        setup.look_up().await,
        Some(Entry::InFlight { .. })
    ));
    sleep(LEASE).await;
    assert_eq!(setup.post("/held").await.code(), UNKNOWN);
    assert_eq!(setup.hung.runs.started(), 1);
}

/// Another attempt may hold the key then, and is not disturbed. The client gets the record of that attempt.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_lost_its_lease_is_ended_too() {
    let setup = setup(LONG_RUN);
    setup
        .store
        .script(Operation::Renew, repeat_n(Fault::ErrBefore, 10_000));
    let first = tokio::spawn({
        let router = setup.router.clone();
        async move { support::exchange(router, support::post("/reruns", "k", "")).await }
    });
    sleep(LEASE + Duration::from_secs(1)).await;
    assert_eq!(setup.post("/reruns").await.text(), "attempt 2");
    setup.store.heal();
    assert_eq!(setup.idem.running(), 1);
    setup.hung.until_lost(1).await;
    assert_eq!(setup.hung.dropped(), 0);
    let ended = first.await.expect("it does not panic");
    assert_eq!((ended.text(), ended.is_replay()), ("attempt 2", true));
    assert_eq!((setup.hung.dropped(), setup.idem.running()), (1, 0));
    let replay = setup.post("/reruns").await;
    assert_eq!((replay.text(), replay.is_replay()), ("attempt 2", true));
}

#[tokio::test]
async fn a_hung_body_extractor_releases_the_key() {
    let Setup {
        router, hung, idem, ..
    } = setup(MAX_RUN);
    let server = Server::start(router).await;
    for run in 1..=2 {
        let response = server.post("/extracts", "k", "").await;
        assert_eq!(
            (response.status.as_u16(), response.code().as_str()),
            (504, TIMEOUT)
        );
        assert_eq!((hung.runs.started(), hung.dropped()), (run, run));
        assert_eq!(idem.running(), 0);
        let id = idem.record_id(&Scope::new(), "k");
        assert!(idem.look_up(id).await.expect("memory").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_body_extractor_of_a_takeover_leaves_an_unknown_outcome_unknown() {
    let setup = setup(LONG_RUN);
    assert_eq!(setup.post("/takes-over").await.status, 500);
    assert_eq!(setup.idem.drain(Duration::MAX).await, 0);
    assert_eq!(setup.post("/takes-over").await.code(), TIMEOUT);
    let entry = setup.look_up().await;
    let is_unknown = matches!(entry, Some(Entry::Unknown { attempt: 2, .. }));
    assert!(is_unknown, "{entry:?}");
}

#[tokio::test(start_paused = true)]
async fn a_response_may_take_longer_than_the_run() {
    let setup = setup(MAX_RUN);
    let response = setup.post("/streams").await;
    assert_eq!(response.text(), "piece piece ");
    let replay = setup.post("/streams").await;
    assert_eq!((replay.text(), replay.is_replay()), (response.text(), true));
    assert_eq!(setup.hung.runs.started(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_has_no_limit() {
    let setup = setup(MAX_RUN);
    let request = support::request(axum::http::Method::POST, "/held", [], "");
    let open = support::exchange(setup.router.clone(), request);
    let waited = tokio::time::timeout(LONG_RUN, open).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(setup.hung.runs.started(), 1);
}
