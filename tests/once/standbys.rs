//! Commits that wait for a synchronous standby.

use axum::Router;
use axum::http::StatusCode;
use axum_idem::Idempotency;

use crate::bank::{Bank, LEASE, Service, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;

/// An operator ends the wait of the handler's commit. The row is visible then, although no standby has it. The
/// look-up is a commit of its own, which has to wait too.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_counts_only_when_standbys_have_it() {
    let postgres = PostgresServer::start();
    for ends in ["pg_cancel_backend", "pg_terminate_backend"] {
        let bank = Bank::open(&postgres.url()).await;
        let settings = Idempotency::builder().store(store(&postgres.url()).await);
        let service = Service::with(bank, settings.lease(LEASE), Router::new()).await;
        let server = service.server;
        let first = tokio::spawn(async move { server.post("/gated", ends, ends).await });
        service.bank.runs.until_started(1).await;
        postgres.set("synchronous_standby_names", "gone");
        service.bank.runs.open(1);
        // Longer than a quarter of the timeout of the store.
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'
            AND clock_timestamp() - query_start > interval '1500 ms'";
        eventually_async("a wait for the standby", async || {
            (postgres.command(waits) == "1").then_some(())
        })
        .await;
        let now = postgres.command("SELECT clock_timestamp()");
        postgres.command(&format!(
            "SELECT {ends}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ));
        let waits_again = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'
                AND query_start > '{now}'"
        );
        eventually_async("another wait or the end", async || {
            (first.is_finished() || postgres.command(&waits_again) == "1").then_some(())
        })
        .await;
        assert!(!first.is_finished(), "the commit counts without a standby");
        postgres.reset("synchronous_standby_names");
        let first = first.await.expect("no panic");
        assert_eq!(first.status, StatusCode::CREATED, "{ends}: {first:?}");
        assert!(service.server.post("/gated", ends, ends).await.is_replay());
    }
}
