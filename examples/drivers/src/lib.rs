//! The checks that every driver has to pass: its handler records its response through `Attempt::prepare`.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum_idem::store::{Entry, PostgresStore};
use axum_idem::{DoNotRecord, Idempotency, Scope};
use sqlx::PgPool;
use test_support::servers::postgres::PostgresServer;
use tower::ServiceExt as _;

/// What the bodies of the requests ask for.
const PAY: &str = "pay";
const ROLL_BACK_ONCE: &str = "roll back once";
const COMPETE_ONCE: &str = "compete once";

/// The state of the service. `P` is the pool of the driver.
#[derive(Clone, Debug)]
pub struct Service<P> {
    pub pool: P,
    rival: PgPool,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl<P> Service<P> {
    fn is_first(&self, what: &str, order: &str) -> bool {
        what == order && self.seen.lock().expect("no panic").insert(order.to_owned())
    }

    /// Whether the handler rolls its transaction back after the record. Only the first time.
    pub fn rolls_back(&self, order: &str) -> bool {
        self.is_first(ROLL_BACK_ONCE, order)
    }

    /// Commits a transaction that makes the handler's transaction fail, which has counted the payments. Only the
    /// first time.
    pub async fn compete(&self, order: &str) -> Result<(), Failure> {
        if !self.is_first(COMPETE_ONCE, order) {
            return Ok(());
        }
        let mut tx = self
            .rival
            .begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")
            .await?;
        let insert = "INSERT INTO payments (run) SELECT 'rival ' || count(*) FROM payments";
        sqlx::query(insert).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// An error of the service. The response is not recorded.
#[derive(Debug)]
pub struct Failure(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let text = self.0.to_string();
        (StatusCode::SERVICE_UNAVAILABLE, DoNotRecord, text).into_response()
    }
}

/// A service on a PostgreSQL of its own.
struct Checks {
    driver: &'static str,
    postgres: PostgresServer,
    router: Router,
    idem: Idempotency,
}

/// Checks the handler of a driver. `connect` gets the address of the database.
///
/// # Errors
///
/// When PostgreSQL cannot be reached.
///
/// # Panics
///
/// When a check fails.
pub async fn check<P>(
    driver: &'static str,
    connect: impl AsyncFnOnce(&str) -> Result<P, Failure>,
    handler: MethodRouter<Service<P>>,
) -> Result<(), Failure>
where
    P: Clone + Send + Sync + 'static,
{
    let postgres = PostgresServer::start();
    postgres.command("CREATE TABLE payments (id bigserial PRIMARY KEY, run text NOT NULL)");
    let url = postgres.url();
    let store = PostgresStore::connect(&url).await?;
    let idem = Idempotency::builder().store(store).build();
    let service = Service {
        pool: connect(&url).await?,
        rival: PgPool::connect(&url).await?,
        seen: Arc::default(),
    };
    let router = Router::new()
        .route("/payments", handler)
        .layer(idem.clone());
    let checks = Checks {
        driver,
        postgres,
        router: router.with_state(service),
        idem,
    };
    checks.a_retry_has_one_effect().await;
    checks.a_rollback_leaves_neither().await;
    checks.a_serialization_failure_runs_again().await;
    Ok(())
}

impl Checks {
    async fn a_retry_has_one_effect(&self) {
        let first = self.send(PAY).await;
        assert_eq!(
            (first.status, first.is_replay),
            (StatusCode::CREATED, false),
            "{first:?}"
        );
        let again = self.send(PAY).await;
        assert_eq!(
            (&again.body, again.is_replay),
            (&first.body, true),
            "{again:?}"
        );
        assert_eq!(self.payments(PAY), "1");
        self.passed("a retry gets the first response, and has no second effect");

        // The row of the record has the key of the claim and one byte.
        let together = "SELECT count(*) FROM payments p JOIN idem_records r ON p.xmin = r.xmin
            WHERE octet_length(r.id) = 33";
        assert_eq!(self.postgres.command(together), "1");
        self.passed("the effect and the record are of the same transaction");
    }

    async fn a_rollback_leaves_neither(&self) {
        let first = self.send(ROLL_BACK_ONCE).await;
        assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE, "{first:?}");
        assert_eq!(self.payments(ROLL_BACK_ONCE), "0");
        let scope = Scope::new().token("Bearer alice");
        let id = self.idem.record_id(&scope, &key(ROLL_BACK_ONCE));
        let entry = self.idem.look_up(id).await;
        assert!(
            matches!(entry, Ok(Some(Entry::Unknown { .. }))),
            "{entry:?}"
        );
        let again = self.send(ROLL_BACK_ONCE).await;
        assert_eq!(
            (again.status, again.is_replay),
            (StatusCode::CREATED, false),
            "{again:?}"
        );
        assert!(self.send(ROLL_BACK_ONCE).await.is_replay);
        assert_eq!(self.payments(ROLL_BACK_ONCE), "1");
        self.passed("a rollback leaves neither, and the retry has one effect");
    }

    async fn a_serialization_failure_runs_again(&self) {
        let first = self.send(COMPETE_ONCE).await;
        assert_eq!(
            (first.status, first.is_replay),
            (StatusCode::CREATED, false),
            "{first:?}"
        );
        let again = self.send(COMPETE_ONCE).await;
        assert_eq!(
            (&again.body, again.is_replay),
            (&first.body, true),
            "{again:?}"
        );
        assert_eq!(self.payments(COMPETE_ONCE), "1");
        assert_eq!(self.payments("rival 2"), "1");
        // The transaction that failed has used a number.
        let skipped = "SELECT max(id) - count(*) FROM payments";
        assert_eq!(
            self.postgres.command(skipped),
            "2",
            "one rollback, and one failure"
        );
        self.passed("after a serialization failure, the next run has one effect");
    }

    fn payments(&self, run: &str) -> String {
        let count = format!("SELECT count(*) FROM payments WHERE run = '{run}'");
        self.postgres.command(&count)
    }

    fn passed(&self, what: &str) {
        println!("ok  {:<15} {what}", self.driver);
    }

    async fn send(&self, order: &str) -> Sent {
        let request = Request::post("/payments")
            .header("authorization", "Bearer alice")
            .header("idempotency-key", key(order))
            .body(Body::from(order.to_owned()))
            .expect("a request");
        let response = self.router.clone().oneshot(request).await;
        let response = response.expect("a router does not fail");
        let is_replay = response.headers().contains_key("idempotency-replayed");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await;
        let body = String::from_utf8(body.expect("a body").to_vec()).expect("UTF-8");
        Sent {
            status,
            is_replay,
            body,
        }
    }
}

#[derive(Debug)]
struct Sent {
    status: StatusCode,
    is_replay: bool,
    body: String,
}

fn key(order: &str) -> String {
    order.replace(' ', "-")
}
