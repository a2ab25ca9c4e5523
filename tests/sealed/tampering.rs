//! Somebody changes the record of a key in the store. Each request with the key is refused, and its handler does not run.

use std::time::Duration;

use axum::http::StatusCode;
use axum_idem::RecordId;
use axum_idem::store::{Entry, Keys, PostgresStore, RedisStore, SqliteStore, Store};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use crate::needles::{BODY, HEADER};
use crate::servers::postgres::PostgresServer;
use crate::servers::redis::RedisServer;
use crate::service::{Desk, Service, keys};

/// The bytes of the record that the store holds.
async fn stored(store: &impl Store, id: RecordId) -> Vec<u8> {
    match store.look_up(id).await {
        Ok(Some(Entry::Recorded { record, .. })) => record.as_bytes().to_vec(),
        other => panic!("there is no record: {other:?}"),
    }
}

/// The service refuses the key, and its handler does not run.
async fn is_refused(service: &Service, key: &str, what: &str) {
    let runs = service.desk.runs.started();
    let refused = service.post("/issue", key).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
    assert_eq!(refused.code(), "idempotency_store_unavailable", "{what}");
    let shows = |part| refused.text().contains(part);
    assert!(!shows(BODY) && !shows(HEADER), "{what}: {refused:?}");
    assert_eq!(service.desk.runs.started(), runs, "{what}: the handler ran");
}

/// `overwrite` replaces the bytes of a record. It gets them and their replacement.
async fn every_change_is_refused(
    store: impl Store + Clone,
    overwrite: impl AsyncFn(RecordId, &[u8], &[u8]),
) {
    let service = Service::sealed(store.clone(), keys(), Desk::default());
    let (first, second) = ("first", "second");
    for key in [first, second] {
        assert_eq!(service.post("/issue", key).await.text(), BODY);
    }
    let id = |key| service.idem.record_id(&Service::scope(), key);
    let (record, other) = (
        stored(&store, id(first)).await,
        stored(&store, id(second)).await,
    );
    let mut now = record.clone();
    let mut put = async |bytes: Vec<u8>| {
        overwrite(id(first), &now, &bytes).await;
        now = bytes;
    };
    for bit in 0..record.len() * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(flipped).await;
        is_refused(&service, first, &format!("bit {bit}")).await;
    }
    for len in 0..record.len() {
        put(record[..len].to_vec()).await;
        is_refused(&service, first, &format!("the first {len} bytes")).await;
        // The length in the head fits the cut.
        if let Some(body) = len.checked_sub(42) {
            let mut cut = record[..len].to_vec();
            let body = u32::try_from(body).expect("a short record");
            cut[38..42].copy_from_slice(&body.to_le_bytes());
            put(cut).await;
            is_refused(&service, first, &format!("cut to {len} bytes")).await;
        }
    }
    put([&record[..], b"x"].concat()).await;
    is_refused(&service, first, "longer").await;
    for version in [0, 2, 255] {
        put([&[version], &record[1..]].concat()).await;
        is_refused(&service, first, "another version").await;
    }
    // Two records of one caller, each of which is right in its place.
    put(other.clone()).await;
    is_refused(&service, first, "the record of another key").await;
    overwrite(id(second), &other, &record).await;
    is_refused(&service, second, "the record of another key").await;
    put(record).await;
    for (keys, what) in [
        (Keys::new().primary(1, [2; 32]), "another key of that id"),
        (Keys::new().primary(2, [1; 32]), "no key of that id"),
    ] {
        let other = Service::sealed(store.clone(), keys, Desk::default());
        is_refused(&other, first, what).await;
    }
    let again = service.post("/issue", first).await;
    assert!(again.is_replay() && again.text() == BODY, "{again:?}");
    assert_eq!(service.desk.runs.started(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_in_redis_is_never_replayed_and_never_runs() {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await;
    let store = store.expect("Redis accepts connections");
    let client = redis::Client::open(server.url()).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    let connection = connection.expect("Redis accepts connections");
    every_change_is_refused(store, async |id, old, new| {
        let (mut connection, key) = (connection.clone(), format!("idem:{id}"));
        // Other fields come before the record.
        let value: Option<Vec<u8>> = redis::cmd("GET")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("Redis replies");
        let value = value.expect("the record is there");
        let head = value.strip_suffix(old).expect("the record is at the end");
        let value = [head, new].concat();
        redis::cmd("SET")
            .arg(&key)
            .arg(value)
            .arg("KEEPTTL")
            .exec_async(&mut connection)
            .await
            .expect("Redis replies");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_in_postgres_is_never_replayed_and_never_runs() {
    let server = PostgresServer::start();
    let store = PostgresStore::connect(server.url()).await;
    let store = store.expect("PostgreSQL accepts connections");
    let pool = PgPool::connect(&server.url()).await;
    let pool = pool.expect("PostgreSQL accepts connections");
    every_change_is_refused(store, async |id, _, new| {
        let update = sqlx::query("UPDATE idem_records SET record = $1 WHERE id = $2")
            .bind(new.to_vec())
            .bind(id.as_bytes().to_vec());
        let updated = update.execute(&pool).await.expect("it can be written");
        assert_eq!(updated.rows_affected(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_record_in_sqlite_is_never_replayed_and_never_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .busy_timeout(Duration::from_secs(20))
        .pragma("synchronous", "OFF");
    let pool = SqlitePool::connect_with(options).await;
    let pool = pool.expect("the file opens");
    every_change_is_refused(store, async |id, _, new| {
        let update = sqlx::query("UPDATE idem_records SET record = ?1 WHERE id = ?2")
            .bind(new.to_vec())
            .bind(id.as_bytes().to_vec());
        let updated = update.execute(&pool).await.expect("it can be written");
        assert_eq!(updated.rows_affected(), 1);
    })
    .await;
}
