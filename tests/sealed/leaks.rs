//! Reads every byte of the files, the network and the logs of a service and its servers. A service without a seal, an
//! id secret and discretion proves that the search would find what it looks for.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{Response, StatusCode};
use axum_idem::store::{
    Entry, Keys, MemoryStore, PostgresStore, Query, RedisStore, SqliteStore, Store,
};
use bytes::Bytes;
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::sync::Mutex;

use crate::needles::{
    BODY, FINGERPRINT, HEADER, KEY, Needles, RECORD_ID, REQUEST, RESOLVED, TOKEN, WORKSPACE,
};
use crate::servers::files_in;
use crate::servers::postgres::PostgresServer;
use crate::servers::redis::RedisServer;
use crate::service::{Desk, Service, keys};
use crate::trail::{Tap, Upstream, begin_log, logged};

/// The log belongs to the whole process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

const HOUR: Duration = Duration::from_secs(3600);

/// Takes every path that stores or reads a response.
async fn use_all(service: &Service, another_key: &Service) {
    for path in ["/issue", "/committed"] {
        let key = Service::key(path);
        let first = service.post(path, &key).await;
        assert_eq!((first.status, first.text()), (StatusCode::CREATED, BODY));
        let again = service.post(path, &key).await;
        assert!(again.is_replay() && again.text() == BODY, "{again:?}");
        assert_eq!(again.headers["x-issued"], HEADER);
        let other = service.send(path, &key, "another request").await;
        assert_eq!(other.code(), "idempotency_key_reused");
    }
    let key = Service::key("doubt");
    assert_eq!(service.post("/doubt", &key).await.status, 201);
    let id = service.idem.record_id(&Service::scope(), &key);
    let resolved = Response::new(Bytes::from(RESOLVED));
    let resolved = service.idem.resolve(id, resolved, HOUR).await;
    assert!(resolved.expect("the store works"));
    assert_eq!(service.post("/doubt", &key).await.text(), RESOLVED);
    let found = service.idem.look_up(id).await.expect("the store works");
    assert!(matches!(found, Some(Entry::Recorded { .. })), "{found:?}");
    let page = service.idem.list(Query::all()).await;
    assert_eq!(page.expect("the store works").entries.len(), 3);
    // The log of an error, and the `Debug` output.
    let key = Service::key("/issue");
    let refused = another_key.post("/issue", &key).await;
    let id = another_key.idem.record_id(&Service::scope(), &key);
    let failed = another_key.idem.look_up(id).await;
    tracing::warn!(?failed, idem = ?another_key.idem, "{:?}", refused.status);
}

/// The secrets, with the record id and the fingerprint that the first request has without an id secret.
async fn needles() -> Needles {
    let service = Service::open(MemoryStore::default(), Desk::default());
    let key = Service::key("/issue");
    service.post("/issue", &key).await;
    let id = service.idem.record_id(&Service::scope(), &key);
    let Ok(Some(Entry::Recorded { record, .. })) = service.idem.look_up(id).await else {
        panic!("there is no record");
    };
    Needles::new(id, record.fingerprint())
}

/// Whether the service hides what it can, or shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Sealed,
}

/// Uses a service on this store, and looks for its secrets. `trail` returns the bytes of the files and of the network.
async fn leaves(
    way: Way,
    store: impl Store + Clone,
    desk: Desk,
    trail: impl AsyncFn() -> [Vec<u8>; 2],
) {
    let needles = needles().await;
    begin_log();
    match way {
        Way::Open => {
            let desk = Desk {
                tells: true,
                ..desk
            };
            let service = Service::open(store.clone(), desk.clone());
            use_all(&service, &Service::open(store, desk)).await;
        }
        Way::Sealed => {
            let service = Service::sealed(store.clone(), keys(), desk.clone());
            let other = Keys::new().primary(2, [2; 32]);
            use_all(&service, &Service::sealed(store, other, desk)).await;
        }
    }
    let [files, network] = trail().await;
    let log = logged();
    assert!(!files.is_empty() && !log.is_empty());
    for (place, bytes) in [("files", files), ("network", network), ("log", log)] {
        let found = needles.found_in(&bytes);
        let expected: BTreeSet<_> = match (way, place) {
            (Way::Sealed, _) => BTreeSet::new(),
            // A file is not behind a network.
            (Way::Open, "network") if bytes.is_empty() => BTreeSet::new(),
            (Way::Open, "log") => [BODY, HEADER, REQUEST, KEY, TOKEN, WORKSPACE].into(),
            (Way::Open, _) => [
                BODY,
                HEADER,
                RESOLVED,
                KEY,
                TOKEN,
                WORKSPACE,
                RECORD_ID,
                FINGERPRINT,
            ]
            .into(),
        };
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(missing.is_empty(), "the {place}: nothing of {missing:?}");
        let is_hidden = way == Way::Open || found.is_empty();
        assert!(is_hidden, "the {place}: {found:?}");
    }
}

async fn redis(way: Way) {
    let _alone = ALONE.lock().await;
    let server = RedisServer::with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        // Compression could hide a secret.
        "--rdbcompression",
        "no",
        "--loglevel",
        "debug",
        "--slowlog-log-slower-than",
        "0",
    ]);
    let tap = Tap::to(Upstream::Port(server.port)).await;
    let url = format!("redis://127.0.0.1:{}/", tap.port);
    let store = RedisStore::connect(url).await;
    let store = store.expect("Redis accepts connections");
    leaves(way, store, Desk::default(), async || {
        server.command(&["SAVE"]);
        let slow = server.command(&["SLOWLOG", "GET", "-1"]).into_bytes();
        [[files_in(server.folder()), slow].concat(), tap.seen()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_an_open_service_shows_everything() {
    redis(Way::Open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_a_sealed_service_shows_no_response_key_token_or_scope() {
    redis(Way::Sealed).await;
}

async fn postgres(way: Way) {
    let _alone = ALONE.lock().await;
    // The server logs each statement with its parameters.
    let server = PostgresServer::with(&["log_statement=all", "log_min_duration_statement=0"]);
    let socket = server.socket_folder().join(".s.PGSQL.5432");
    let tap = Tap::to(Upstream::Socket(socket)).await;
    let url = format!(
        "postgres://desk@127.0.0.1:{}/postgres?sslmode=disable",
        tap.port
    );
    let store = PostgresStore::connect(url.clone()).await;
    let pool = PgPool::connect(&url).await;
    let desk = Desk {
        postgres: Some(pool.expect("PostgreSQL accepts connections")),
        ..Desk::default()
    };
    let store = store.expect("PostgreSQL accepts connections");
    leaves(way, store, desk, async || {
        server.command("CHECKPOINT");
        let dump = server.command("SELECT * FROM idem_records").into_bytes();
        [
            [files_in(server.socket_folder()), dump].concat(),
            tap.seen(),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_of_an_open_service_shows_everything() {
    postgres(Way::Open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_of_a_sealed_service_shows_no_response_key_token_or_scope() {
    postgres(Way::Sealed).await;
}

async fn sqlite(way: Way) {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let options = SqliteConnectOptions::new().filename(&path);
    let pool = SqlitePool::connect_with(options.busy_timeout(Duration::from_secs(20))).await;
    let desk = Desk {
        sqlite: Some(pool.expect("the file opens")),
        ..Desk::default()
    };
    // SQLite's own log is a file beside the first one.
    leaves(way, store, desk, async || {
        [files_in(folder.path()), Vec::new()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_open_service_shows_everything() {
    sqlite(Way::Open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_sealed_service_shows_no_response_key_token_or_scope() {
    sqlite(Way::Sealed).await;
}
