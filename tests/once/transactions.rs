//! The transactions that can hold a record, and those that cannot.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::store::{
    Bind, Claim, Claimed, Entry, MemoryStore, NearCache, PostgresStore, Query, StateKind,
    Store as _,
};
use axum_idem::{Attempt, CommitError, Fingerprint, Idempotency, RecordId, idempotent};
use sqlx::{Acquire, AssertSqlSafe};

use crate::bank::{Bank, BankError, LEASE, Paid, Service, is_unknown, key, lapse, store};
use crate::servers::postgres::PostgresServer;
use crate::support::request;

const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_response_is_replayed_at_every_isolation_level() {
    let postgres = PostgresServer::start();
    for level in LEVELS {
        let bank = Bank::open(&postgres.url()).await.isolated(level);
        let service = Service::start(bank, store(&postgres.url()).await).await;
        for path in ["/pay", "/plain"] {
            let key = &key(&format!("{level} {path}"));
            let first = service.server.post(path, key, key).await;
            assert_eq!(
                (first.status, first.is_replay()),
                (StatusCode::CREATED, false)
            );
            let again = service.server.post(path, key, key).await;
            assert!(again.is_replay(), "{again:?}");
            assert_eq!(again.body, first.body);
            let other = service.server.post(path, key, "another body").await;
            assert_eq!(other.code(), "idempotency_key_reused");
            assert!(matches!(
                service.entry(key).await,
                Some(Entry::Recorded { .. })
            ));
        }
    }
    let bank = Bank::open(&postgres.url()).await;
    assert_eq!(bank.payments().await.len(), 6);
}

/// A renewal rewrites the claim after the snapshot of the transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_lease_does_not_fail_the_commit_of_an_older_snapshot() {
    let postgres = PostgresServer::start();
    for level in LEVELS {
        let bank = Bank::open(&postgres.url()).await.isolated(level);
        let service = Service::start(bank, store(&postgres.url()).await).await;
        let server = service.server;
        let request = tokio::spawn(async move { server.post("/gated", &key(level), level).await });
        service.bank.runs.until_started(1).await;
        let renewed = postgres.command(
            "UPDATE idem_records SET leased_until = leased_until + interval '1 s' WHERE record IS NULL
             RETURNING 1",
        );
        assert!(renewed.contains("UPDATE 1"), "{renewed}");
        service.bank.runs.open(1);
        assert_eq!(request.await.expect("no panic").status, StatusCode::CREATED);
        assert_eq!(service.bank.results(), ["Ok"], "{level}");
        postgres.command("TRUNCATE idem_records");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_transaction_is_committed() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::start(bank, store(&postgres.url()).await).await;
    for _ in 0..2 {
        let request = request(axum::http::Method::POST, "/pay", [], "x");
        assert_eq!(
            service.server.send(request).await.status,
            StatusCode::CREATED
        );
    }
    assert_eq!(service.bank.payments().await.len(), 2);
    assert_eq!(postgres.command("SELECT count(*) FROM idem_records"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_of_one_connection_is_enough() {
    let postgres = PostgresServer::start();
    let bank = Bank::with_connections(&postgres.url(), 1).await;
    let store = PostgresStore::from_pool(bank.pool.clone()).await;
    let service = Service::start(bank, store.expect("postgres is there")).await;
    for key in ["a", "b", "a"] {
        let response = service.server.post("/pay", key, key).await;
        assert_eq!(response.status, StatusCode::CREATED);
    }
    assert_eq!(service.bank.payments().await, ["a 1", "b 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_transactions_is_refused_before_the_handler_runs() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::start(bank, NearCache::new(MemoryStore::default())).await;
    let refused = service.server.post("/pay", "k", "x").await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused.code(), "idempotency_not_transactional");
    assert_eq!(service.bank.runs.started(), 0);
    // Without the flag, the handler runs and its commit is refused.
    let refused = service.server.post("/plain", "k", "x").await;
    assert_eq!(refused.code(), "idempotency_not_transactional");
    assert_eq!(service.bank.results(), ["Unsupported"]);
    assert!(service.bank.payments().await.is_empty());
    assert!(service.entry("k").await.is_none(), "the key is released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_near_cache_passes_the_commit_through() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let near = NearCache::new(store(&postgres.url()).await);
    let service = Service::start(bank, near.clone()).await;
    let first = service.server.post("/pay", "k", "x").await;
    assert_eq!(first.status, StatusCode::CREATED);
    for _ in 0..2 {
        assert!(service.server.post("/pay", "k", "x").await.is_replay());
    }
    assert!(near.bytes() > 0, "the replay is cached");
    assert!(
        service
            .idem
            .forget(service.id("k"))
            .await
            .expect("forgotten")
    );
    let again = service.server.post("/pay", "k", "x").await;
    assert!(!again.is_replay(), "the key was forgotten");
    assert_eq!(service.bank.payments().await, ["x 1", "x 2"]);
}

#[idempotent(scope = token, record_body = none)]
async fn pay_for_a_receipt(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt.commit(tx, (StatusCode::CREATED, run)).await;
    Ok(bank.note(response)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_receipt_has_no_body() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let route = Router::new().route("/receipt", post(pay_for_a_receipt));
    let service = Service::with(bank, settings.lease(LEASE), route).await;
    let first = service.server.post("/receipt", "k", "x").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x 1"));
    let again = service.server.post("/receipt", "k", "x").await;
    assert!(again.is_replay());
    assert_eq!((again.status, again.text()), (StatusCode::CREATED, ""));
    assert_eq!(again.headers["idempotency-receipt"], "true");
    assert_eq!(service.bank.payments().await, ["x 1"]);
}

#[cfg(feature = "seal")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_store_commits_a_sealed_response() {
    use axum_idem::store::{DecodeError, Keys, Sealed, Store, StoreError};

    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let plain = store(&postgres.url()).await;
    let sealed = Sealed::around(plain.clone(), Keys::new().primary(1, [1; 32]));
    let service = Service::start(bank, sealed).await;
    let first = service.server.post("/pay", "k", "x").await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert!(service.server.post("/pay", "k", "x").await.is_replay());
    assert_eq!(service.bank.payments().await, ["x 1"]);
    // Another key finds the record, and it is sealed.
    let other = Sealed::around(plain, Keys::new().primary(2, [2; 32]));
    let found = other.look_up(service.id("k")).await;
    let missing = StoreError::Undecodable(DecodeError::MissingKey(1));
    assert_eq!(
        format!("{:?}", found.expect_err("no key")),
        format!("{missing:?}")
    );
}

/// With a table of the same name and without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_another_database_is_refused() {
    let postgres = PostgresServer::start();
    postgres.command("CREATE DATABASE other");
    let other = postgres.url().replace("///postgres?", "///other?");
    let bank = Bank::open(&other).await;
    let service = Service::start(bank, store(&postgres.url()).await).await;
    for count in [1, 2] {
        let refused = service.server.post("/pay", "k", "x").await;
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(refused.code(), "idempotency_not_transactional");
        assert_eq!(service.bank.results(), vec!["OtherDatabase"; count]);
        assert!(service.entry("k").await.is_none(), "the key is released");
        // From now on, the other database has a table of the same name.
        drop(store(&other).await);
    }
    assert!(service.bank.payments().await.is_empty());
    let text = CommitError::OtherDatabase.to_string();
    assert!(
        text.contains("begin the transaction in the handler"),
        "{text}"
    );
}

/// Runs its transaction again after a serialization failure.
#[idempotent(scope = token)]
async fn retried(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    loop {
        match paid_after_a_rival(&bank, &attempt, &body).await {
            Err(error) if is_serialization_failure(&error) => {}
            done => return done,
        }
    }
}

/// In its first run, another transaction reads and writes the same rows.
async fn paid_after_a_rival(bank: &Bank, attempt: &Attempt, body: &str) -> Paid {
    let run = format!("{body} {}", bank.runs.count());
    let mut tx = bank.begin().await?;
    let count = "SELECT count(*) FROM payments";
    let _: i64 = sqlx::query_scalar(count).fetch_one(&mut *tx).await?;
    if bank.runs.started() == 1 {
        let mut rival = bank.begin().await?;
        let insert = "INSERT INTO payments (run) SELECT 'rival ' || count(*) FROM payments";
        sqlx::query(insert).execute(&mut *rival).await?;
        rival.commit().await?;
    }
    Bank::pay(&mut tx, &run).await?;
    let response = bank.note(
        attempt
            .record_in(&mut *tx, (StatusCode::CREATED, run))
            .await,
    )?;
    tx.commit().await?;
    Ok(response)
}

fn is_serialization_failure(error: &BankError) -> bool {
    let (BankError::Database(error) | BankError::Commit(CommitError::Database(error))) = error
    else {
        return false;
    };
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("40001"))
}

/// Fails in a savepoint, and records in the next one.
#[idempotent(scope = token)]
async fn in_a_savepoint(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let mut undone = tx.begin().await?;
    Bank::pay(&mut undone, "undone").await?;
    let record = attempt.record_in(&mut *undone, (StatusCode::ACCEPTED, "undone"));
    bank.note(record.await)?;
    undone.rollback().await?;
    let mut savepoint = tx.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut savepoint, &run).await?;
    // Releases the savepoint.
    let response = attempt.commit(savepoint, (StatusCode::CREATED, run)).await;
    let response = bank.note(response)?;
    if body == "commit" {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(response)
}

/// As a driver that the library does not know.
#[idempotent(scope = token, transactional)]
async fn prepared(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let run = format!("{body} {}", bank.runs.count());
    let prepared = attempt.prepare((StatusCode::CREATED, run.clone())).await?;
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &run).await?;
    let mut statement = sqlx::query(AssertSqlSafe(prepared.sql().to_owned()));
    for bind in prepared.binds() {
        statement = match bind {
            Bind::Bytes(bytes) => statement.bind(bytes.to_vec()),
            Bind::Integer(number) => statement.bind(*number),
            _ => unreachable!("a bind of PostgreSQL"),
        };
    }
    statement.execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(prepared.into_response())
}

async fn start(bank: Bank, url: &str) -> Service {
    let more = Router::new()
        .route("/retried", post(retried))
        .route("/savepoint", post(in_a_savepoint))
        .route("/prepared", post(prepared));
    let settings = Idempotency::builder().store(store(url).await).lease(LEASE);
    Service::with(bank, settings, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_run_again_records_its_last_run() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await.isolated("SERIALIZABLE");
    let service = start(bank, &postgres.url()).await;
    let first = service.server.post("/retried", "k", "x").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x 2"));
    let again = service.server.post("/retried", "k", "x").await;
    assert!(again.is_replay() && again.text() == "x 2", "{again:?}");
    assert_eq!(service.bank.payments().await, ["rival 0", "x 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_in_a_savepoint_counts_when_the_outer_transaction_commits() {
    let postgres = PostgresServer::start();
    let service = start(Bank::open(&postgres.url()).await, &postgres.url()).await;
    let first = service.server.post("/savepoint", "k", "commit").await;
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::CREATED, "commit 1")
    );
    assert!(
        service
            .server
            .post("/savepoint", "k", "commit")
            .await
            .is_replay()
    );
    assert_eq!(service.bank.payments().await, ["commit 1"]);

    let undone = service.server.post("/savepoint", "u", "roll back").await;
    assert_eq!(undone.status, StatusCode::CREATED, "the handler said so");
    assert!(is_unknown(service.entry("u").await.as_ref()));
    assert_eq!(service.bank.payments().await, ["commit 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_driver_executes_the_prepared_statement() {
    let postgres = PostgresServer::start();
    let service = start(Bank::open(&postgres.url()).await, &postgres.url()).await;
    let first = service.server.post("/prepared", "k", "x").await;
    assert_eq!((first.status, first.text()), (StatusCode::CREATED, "x 1"));
    assert!(service.server.post("/prepared", "k", "x").await.is_replay());
    let unkeyed = request(axum::http::Method::POST, "/prepared", [], "y");
    assert_eq!(
        service.server.send(unkeyed).await.status,
        StatusCode::CREATED
    );
    assert_eq!(service.bank.payments().await, ["x 1", "y 2"]);
}

/// A record row has its own expiry, and its claim goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_record_is_replaced_before_it_is_swept() {
    let postgres = PostgresServer::start();
    let store = store(&postgres.url()).await;
    let service = Service::start(Bank::open(&postgres.url()).await, store.clone()).await;
    for run in ["x 1", "x 2", "x 3"] {
        let first = service.server.post("/pay", "k", "x").await;
        assert_eq!((first.status, first.text()), (StatusCode::CREATED, run));
        assert!(service.server.post("/pay", "k", "x").await.is_replay());
        postgres.command(
            "UPDATE idem_records SET expires_at = clock_timestamp() WHERE record IS NOT NULL",
        );
        assert!(service.entry("k").await.is_none(), "the record has expired");
        let page = service.idem.list(Query::all()).await.expect("a page");
        assert!(page.entries.is_empty(), "{page:?}");
        if run == "x 2" {
            // The claim stays, and its record row with it.
            assert_eq!(store.sweep().await.expect("swept"), 0);
            lapse(&postgres);
            for _ in ["the record", "its claim"] {
                assert_eq!(store.sweep().await.expect("swept"), 1);
            }
        }
    }
    assert_eq!(service.bank.payments().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_one_entry_for_a_committed_key() {
    let postgres = PostgresServer::start();
    let store = store(&postgres.url()).await;
    let service = Service::start(Bank::open(&postgres.url()).await, store.clone()).await;
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        service.server.post("/pay", key, key).await;
    }
    for sweeps in 0..2 {
        for limit in [1, 2, 3, 10] {
            let mut seen = Vec::new();
            let mut query = Query::all().limit(limit);
            loop {
                let page = service.idem.list(query.clone()).await.expect("a page");
                seen.extend(
                    page.entries
                        .iter()
                        .map(|entry| (entry.id, entry.state.kind())),
                );
                match page.next {
                    Some(next) => query = query.after(next),
                    None => break,
                }
            }
            let mut expected = keys.map(|key| (service.id(key), StateKind::Recorded));
            expected.sort_by_key(|(id, _)| *id);
            assert_eq!(seen, expected, "{limit} in a page, after {sweeps} sweeps");
        }
        let stats = service.idem.stats().await.expect("stats");
        let counts = [stats.in_flight, stats.unknown, stats.recorded].map(|count| count.value);
        assert_eq!(counts, [0, 0, 5]);
        lapse(&postgres);
        assert_eq!(store.sweep().await.expect("swept"), 0);
        // Settled claims are no longer in the index of claims.
        let claims = "SELECT count(*) FROM idem_records WHERE record IS NULL";
        assert_eq!(postgres.command(claims), "0");
    }
    assert!(
        service
            .idem
            .forget(service.id("a"))
            .await
            .expect("forgotten")
    );
    assert!(!service.idem.forget(service.id("a")).await.expect("asked"));
    let scope = axum_idem::Scope::new().token("Bearer alice");
    service.server.post("/pay", "f", "f").await;
    let forgotten = service.idem.forget_scope(&scope).await.expect("forgotten");
    assert_eq!(forgotten, 5, "an entry counts once");
    assert_eq!(postgres.command("SELECT count(*) FROM idem_records"), "0");
}

/// Leases of a minute, because the server is down for a moment.
async fn claimed(store: &PostgresStore, id: u8, is_transactional: bool) -> RecordId {
    let id = RecordId::from_bytes([id; 32]);
    let mut claim = Claim::new(id, Fingerprint::from_bytes([7; 32]), LEASE, LEASE);
    claim.is_transactional = is_transactional;
    let claimed = store.claim(claim).await.expect("postgres is there");
    assert!(matches!(claimed, Claimed::Fresh { .. }), "{claimed:?}");
    id
}

/// The log is flushed by commits only. A flush also writes everything before it.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_claim_of_a_transaction_may_be_lost_in_a_crash() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10s"];
    let mut postgres = PostgresServer::with(&settings);
    let service = Service::start(
        Bank::open(&postgres.url()).await,
        store(&postgres.url()).await,
    )
    .await;
    let paid = service.server.post("/pay", "k", "x").await;
    assert_eq!(paid.status, StatusCode::CREATED);
    let lost = claimed(&store(&postgres.url()).await, 1, true).await;
    postgres.kill();
    postgres.start_again();
    let store = store(&postgres.url()).await;
    assert!(
        store
            .look_up(lost)
            .await
            .expect("postgres is back")
            .is_none()
    );
    let replay = service.server.post("/pay", "k", "x").await;
    assert!(replay.is_replay() && replay.body == paid.body, "{replay:?}");
    assert_eq!(service.bank.payments().await, ["x 1"]);

    let kept = claimed(&store, 2, false).await;
    postgres.kill();
    postgres.start_again();
    let found = crate::bank::store(&postgres.url())
        .await
        .look_up(kept)
        .await;
    assert!(
        matches!(found, Ok(Some(Entry::InFlight { .. }))),
        "{found:?}"
    );
}
