//! Keys that an operator forgets while a transaction has their record.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, Scope, idempotent};

use crate::bank::{Bank, LEASE, Paid, Service, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;

/// Records. The first run then waits for the test before it commits.
#[idempotent(scope = token, transactional)]
async fn slow(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let is_first = bank.is_first(&body);
    let run = if is_first { "first" } else { "later" };
    let run = format!("{body} {run}");
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.record_in(&mut *tx, (StatusCode::CREATED, run));
    let response = response.await?;
    if is_first {
        bank.runs.pass().await;
    }
    tx.commit().await?;
    Ok(response)
}

/// How many sessions wait for a lock.
fn waiting(postgres: &PostgresServer) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    postgres.command(count).parse().expect("a number")
}

/// The record of the transaction would bring the key back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_forgotten_during_a_transaction_stays_forgotten() {
    let postgres = PostgresServer::start();
    for (number, way) in ["forget", "forget_scope", "taken_over"]
        .into_iter()
        .enumerate()
    {
        let settings = Idempotency::builder().store(store(&postgres.url()).await);
        let more = Router::new().route("/slow", post(slow));
        let bank = Bank::open(&postgres.url()).await;
        let service = Service::with(bank, settings.lease(LEASE), more).await;
        let (server, runs) = (service.server, &service.bank.runs);
        let send = || tokio::spawn(async move { server.post("/slow", way, way).await });
        let first = send();
        runs.until_started(1).await;
        let later = (way == "taken_over").then(|| {
            lapse(&postgres);
            send()
        });
        let others = usize::from(later.is_some());
        eventually_async("the later attempt waits", async || {
            (waiting(&postgres) == others).then_some(())
        })
        .await;
        let (idem, id) = (service.idem.clone(), service.id(way));
        let forgotten = tokio::spawn(async move {
            if way == "forget_scope" {
                let scope = Scope::new().token("Bearer alice");
                return idem.forget_scope(&scope).await.map(|entries| entries > 0);
            }
            idem.forget(id).await
        });
        eventually_async("the removal waits", async || {
            (waiting(&postgres) > others || forgotten.is_finished()).then_some(())
        })
        .await;
        runs.open(1);
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED, "{way}: {first:?}");
        if let Some(later) = later {
            later.await.expect("no panic");
        }
        let forgotten = forgotten.await.expect("no panic");
        assert!(forgotten.expect("postgres is there"), "{way}");
        let entry = service.entry(way).await;
        assert!(entry.is_none(), "{way}: {entry:?}");
        let next = service.server.post("/slow", way, way).await;
        assert!(
            !next.is_replay() && next.text() == format!("{way} later"),
            "{way}: {next:?}"
        );
        assert_eq!(service.bank.payments().await.len(), 2 * (number + 1));
    }
}
