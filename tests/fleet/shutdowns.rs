//! Tests what a process that gets SIGTERM does with handlers whose clients have left.

use std::time::Duration;

use crate::member::{Fleet, Member};
use crate::support::{PATIENCE, eventually, post_bytes};
use crate::{Backend, LEASE};

/// Starts a run whose client leaves, and terminates its process. Returns when the process accepts no connections.
async fn terminated_during_a_run(backend: &Backend, drain: Duration) -> Fleet {
    // No lease ends during a test, even on a busy machine.
    let fleet = Fleet::that_drains(&backend.url(), 100 * LEASE, drain).await;
    let stream = fleet.one.server.write(post_bytes("/work", "k", "{}")).await;
    eventually("the handler runs", || fleet.runs().len() == 1).await;
    drop(stream);
    fleet.one.terminate().await;
    fleet
}

/// The graceful shutdown of axum alone does not wait for a handler without a connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_drains_ends_after_its_handlers_without_clients() {
    for backend in Backend::all() {
        let mut fleet = terminated_during_a_run(&backend, PATIENCE).await;
        let other = fleet.other.server;
        let retry = other.post("/work", "k", "{}").await;
        assert_eq!(retry.code(), "idempotency_key_in_flight");
        assert!(!fleet.one.has_ended(), "{}", backend.url());
        fleet.open_gate();
        assert_eq!(fleet.one.ended().await, 0);
        let retry = other.post("/work", "k", "{}").await;
        assert_eq!((retry.text(), retry.is_replay()), ("attempt 1", true));
        assert_eq!(fleet.runs(), ["attempt 1"]);
    }
}

/// The handler may have had its effect, so its key is not released.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_before_its_handlers_leaves_their_claims_to_their_leases() {
    for backend in Backend::servers() {
        let mut fleet = terminated_during_a_run(&backend, Duration::from_millis(200)).await;
        assert_eq!(fleet.one.ended().await, 1);
        // A retry that ran the handler again would respond.
        fleet.open_gate();
        let again = Member::start(&backend.url(), 100 * LEASE, &fleet.folder).await;
        for server in [fleet.other.server, again.server] {
            let retry = server.post("/work", "k", "{}").await;
            assert_eq!(retry.code(), "idempotency_key_in_flight");
        }
        assert_eq!(fleet.runs(), ["attempt 1"]);
    }
}
