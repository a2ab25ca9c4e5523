//! The contract suite on the PostgreSQL store, with a separate server for each test.
#![cfg(all(feature = "postgres", feature = "testing"))]

use test_support::servers;

use std::sync::Arc;
use std::time::Duration;

use idem_runtime::store::{NearCache, PostgresStore};
use idem_runtime::testing::Contract;

use servers::postgres::PostgresServer;

async fn connect(server: &PostgresServer) -> PostgresStore {
    let builder = PostgresStore::builder().url(server.url());
    // A test machine may be busy.
    let store = builder.timeout(Duration::from_secs(20)).connect().await;
    store.expect("postgres is there")
}

/// Makes an entry unreadable.
fn damaged(contract: Contract, server: &Arc<PostgresServer>) -> Contract {
    let server = server.clone();
    contract.damage_with(move |id| {
        server.command(&format!(
            "UPDATE idem_records SET version = 9 WHERE id = '\\x{id}'"
        ));
        std::future::ready(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_every_rule() {
    let server = Arc::new(PostgresServer::start());
    let (store, other) = (connect(&server).await, connect(&server).await);
    let contract = Contract::of_two(store, other).rounds(50);
    damaged(contract, &server).assert().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_over_postgres_keeps_every_rule() {
    let server = Arc::new(PostgresServer::start());
    let contract = Contract::of(NearCache::new(connect(&server).await)).rounds(5);
    damaged(contract, &server).assert().await;
}

/// Two versions of a service, in the second step of a rotation of its sealing keys.
#[cfg(feature = "seal")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_in_postgres_keeps_every_rule() {
    use idem_runtime::store::{Keys, Sealed};
    let server = Arc::new(PostgresServer::start());
    let (before, after) = (connect(&server).await, connect(&server).await);
    let before = Sealed::around(before, Keys::new().primary(1, [1; 32]).also(2, [2; 32]));
    let after = Sealed::around(after, Keys::new().primary(2, [2; 32]).also(1, [1; 32]));
    let contract = Contract::of_two(before, after);
    damaged(contract.rounds(5), &server).assert().await;
}

/// The sessions of the store set an isolation level of their own.
#[tokio::test(flavor = "multi_thread")]
async fn serializable_sessions_keep_every_rule() {
    let settings = ["default_transaction_isolation=serializable"];
    let server = PostgresServer::with(&settings);
    let contract = Contract::of(connect(&server).await);
    contract.rounds(3).assert().await;
}
