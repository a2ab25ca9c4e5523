//! The file of the SQLite store: what `open` refuses, restarts, locks, room and damage.
#![cfg(feature = "sqlite")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, Entry, Holder, OnUnknown, Query, Record, Settled, SqliteStore, Store,
    StoreError,
};
use idem_runtime::{RecordId, Scope};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use tempfile::TempDir;
use test_support::servers::asking::{FINGERPRINT, HOUR, claim, complete, id, record, replay, win};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("idem.db");
    (folder, path)
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    let connection = options.create_if_missing(true).connect().await;
    connection.expect("the file opens")
}

async fn execute(connection: &mut SqliteConnection, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection);
    done.await.expect("the statement is fine");
}

async fn number(connection: &mut SqliteConnection, statement: &str) -> i64 {
    let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(connection);
    row.await.expect("a row").try_get(0).expect("a number")
}

async fn refusal(path: impl AsRef<Path>) -> String {
    match SqliteStore::open(path).await {
        Err(StoreError::Unfit(why)) => why.into(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_path_that_cannot_hold_the_store_is_refused() {
    let (folder, path) = folder();
    let why = refusal(folder.path()).await;
    assert!(why.contains("is a directory"), "{why}");
    let why = refusal(folder.path().join("missing/idem.db")).await;
    assert!(why.contains("check that its folder exists"), "{why}");
    std::fs::write(&path, "a text, and not a database. ".repeat(100)).expect("it is writable");
    let why = refusal(&path).await;
    assert!(why.contains("is not an SQLite database"), "{why}");
    let text = std::fs::read_to_string(&path).expect("it is readable");
    assert!(text.starts_with("a text"), "the file was changed");
}

#[tokio::test]
async fn tables_that_this_version_cannot_use_are_refused() {
    let (_folder, path) = folder();
    drop(SqliteStore::open(&path).await.expect("the file opens"));
    let mut connection = connect(&path).await;
    execute(&mut connection, "UPDATE idem_records_meta SET version = 2").await;
    let why = refusal(&path).await;
    assert!(
        why.contains("version 2") && why.contains("version 1"),
        "{why}"
    );

    execute(
        &mut connection,
        "CREATE TABLE trades (id BLOB, expires_at INTEGER, record BLOB)",
    )
    .await;
    let of_another = SqliteStore::builder().path(&path).table("trades");
    let why = of_another
        .open()
        .await
        .expect_err("the table is of another")
        .to_string();
    assert!(
        why.contains("\"trades\"") && why.contains("not one of this store"),
        "{why}"
    );
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM trades").await,
        0
    );
}

#[tokio::test]
async fn a_database_without_durable_commits_is_refused() {
    let (_folder, path) = folder();
    let off = SqliteStore::builder()
        .path(&path)
        .synchronous(SqliteSynchronous::Off);
    let why = off.open().await.expect_err("it is not durable").to_string();
    assert!(why.contains("synchronous = OFF"), "{why}");

    let memory = SqlitePoolOptions::new().connect_lazy("sqlite::memory:");
    let memory = SqliteStore::builder().pool(memory.expect("an address"));
    let why = memory
        .open()
        .await
        .expect_err("it is not durable")
        .to_string();
    assert!(why.contains("write-ahead log"), "{why}");

    drop(connect(&path).await);
    let read_only = SqliteConnectOptions::new().filename(&path).read_only(true);
    let read_only = SqlitePoolOptions::new().connect_lazy_with(read_only);
    let read_only = SqliteStore::builder().pool(read_only).open().await;
    let why = read_only.expect_err("it cannot be written").to_string();
    assert!(why.contains("cannot be written"), "{why}");
}

#[tokio::test]
async fn many_processes_open_a_new_file_at_once() {
    let (_folder, path) = folder();
    let opens: Vec<_> = (0..16)
        .map(|_| tokio::spawn(SqliteStore::builder().path(&path).open()))
        .collect();
    for (at, store) in opens.into_iter().enumerate() {
        let store = store.await.expect("no panic").expect("the file opens");
        complete(&store, &format!("key-{at}")).await;
    }
}

#[tokio::test]
async fn claims_and_records_survive_a_restart() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    complete(&store, "done").await;
    let held = win(&store, claim("held")).await;
    drop(store);

    let store = SqliteStore::open(&path).await.expect("the file opens");
    assert_eq!(replay(&store, "done").await, record(b"{}"));
    let other = store.claim(claim("held")).await;
    assert!(matches!(other, Ok(Claimed::InFlight { .. })), "{other:?}");
    let done = store.complete(held, record(b"late"), HOUR).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    assert_eq!(replay(&store, "held").await, record(b"late"));
}

/// Makes a claim look as if another store had made it.
async fn give_to(path: &Path, key: &str, instance: i64) {
    let give = "UPDATE idem_records SET instance = ?1 WHERE id = ?2";
    let give = sqlx::query(give).bind(instance);
    let given = give.bind(id(key).as_bytes().to_vec());
    let given = given.execute(&mut connect(path).await).await;
    assert_eq!(given.expect("it can be written").rows_affected(), 1);
}

/// The file that a store locks while it is open.
fn file_of(path: &Path, instance: i64) -> PathBuf {
    let mut file = path.as_os_str().to_owned();
    file.push(format!("-idem_records-instance-{instance:016x}"));
    file.into()
}

/// A store whose process has died leaves a file without a lock.
#[tokio::test]
async fn a_claim_ends_at_once_when_the_lock_of_its_store_is_free() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let (dead, alive, gone) = (0xdead, 0xa11e, 0x90e);
    let claims = [
        ("rerun", dead),
        ("hold", dead),
        ("done", dead),
        ("alive", alive),
        ("gone", gone),
    ];
    let mut holders = Vec::new();
    for (key, instance) in claims {
        holders.push(win(&store, claim(key)).await);
        give_to(&path, key, instance).await;
    }
    let done = store.complete(holders[2], record(b"{}"), HOUR).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    drop(std::fs::File::create(file_of(&path, dead)).expect("it is writable"));
    let lock = std::fs::File::create(file_of(&path, alive)).expect("it is writable");
    lock.try_lock().expect("nobody else has the lock");

    let taken = store.claim(claim("rerun")).await.expect("the store works");
    let is_second =
        matches!(taken, Claimed::Fresh { fence, attempt: 2 } if fence > holders[0].fence);
    assert!(is_second, "{taken:?}");
    let late = store.complete(holders[0], record(b"late"), HOUR).await;
    assert_eq!(late.expect("the store works"), Settled::Lost);
    let mut retry = claim("hold");
    retry.on_unknown = OnUnknown::Hold;
    let met = store.claim(retry).await;
    assert!(matches!(met, Ok(Claimed::Unknown { .. })), "{met:?}");
    assert_eq!(replay(&store, "done").await, record(b"{}"));
    for key in ["alive", "gone"] {
        let met = store.claim(claim(key)).await;
        assert!(
            matches!(met, Ok(Claimed::InFlight { .. })),
            "{key}: {met:?}"
        );
    }
    assert!(!file_of(&path, dead).exists());

    let of_nobody_else = format!(
        "SELECT count(*) FROM idem_records WHERE attempt = 2 AND instance NOT IN (0, {dead}, {alive})"
    );
    let new = number(&mut connect(&path).await, &of_nobody_else).await;
    assert_eq!(new, 1, "the new attempt belongs to this store");
}

#[tokio::test]
async fn a_store_that_opens_ends_the_claims_of_dead_stores_and_a_closed_store_leaves_no_file() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let holder = win(&store, claim("k")).await;
    give_to(&path, "k", 0xdead).await;
    drop(std::fs::File::create(file_of(&path, 0xdead)).expect("it is writable"));
    let other = SqliteStore::open(&path).await.expect("the file opens");
    let entry = other.look_up(holder.id).await.expect("the store works");
    let is_unknown = |left: &Duration| *left <= HOUR && *left > HOUR / 2;
    assert!(
        matches!(&entry, Some(Entry::Unknown { retained_for, .. }) if is_unknown(retained_for)),
        "{entry:?}"
    );
    drop((store, other));
    test_support::servers::eventually("the files are removed", || {
        let files = std::fs::read_dir(folder.path()).expect("it is readable");
        let names = files.map(|file| file.expect("a file").file_name());
        let mut names = names.filter_map(|name| name.into_string().ok());
        (!names.any(|name| name.contains("-instance-"))).then_some(())
    });
}

/// The file says that the store is dead, so it stays until the claims have ended.
#[tokio::test]
async fn a_dead_store_is_found_again_when_its_claims_could_not_be_ended() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path);
    let store = builder.busy_timeout(Duration::from_millis(50)).open().await;
    let store = store.expect("the file opens");
    win(&store, claim("k")).await;
    give_to(&path, "k", 0xdead).await;
    drop(std::fs::File::create(file_of(&path, 0xdead)).expect("it is writable"));

    let mut handler = connect(&path).await;
    execute(&mut handler, "BEGIN IMMEDIATE").await;
    let met = store.claim(claim("k")).await;
    assert!(matches!(met, Ok(Claimed::InFlight { .. })), "{met:?}");
    execute(&mut handler, "COMMIT").await;
    let taken = store.claim(claim("k")).await;
    assert!(
        matches!(taken, Ok(Claimed::Fresh { attempt: 2, .. })),
        "{taken:?}"
    );
}

/// A handler whose transaction is longer than its lease keeps its key, although its store cannot write.
#[tokio::test]
async fn a_lease_is_renewed_while_another_connection_holds_the_write_lock() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path).no_sweeper();
    let builder = builder.busy_timeout(Duration::from_millis(20));
    let store = builder.clone().open().await.expect("the file opens");
    let other = builder.open().await.expect("the file opens");
    // A retention that ends before the renewed lease does.
    let lease = Duration::from_secs(2);
    let short = |key| Claim::new(id(key), FINGERPRINT, lease, Duration::from_millis(1));
    let (held, abandoned) = (
        win(&store, short("held")).await,
        win(&store, short("abandoned")).await,
    );
    let lapsed = Claim::new(id("lapsed"), FINGERPRINT, Duration::from_micros(1), HOUR);
    let lapsed = win(&store, lapsed).await;

    let mut handler = connect(&path).await;
    execute(&mut handler, "BEGIN IMMEDIATE").await;
    let late = store.renew(lapsed, HOUR).await;
    assert!(matches!(late, Err(StoreError::Busy)), "{late:?}");
    let foreign = other.renew(held, HOUR).await;
    assert!(matches!(foreign, Err(StoreError::Busy)), "{foreign:?}");
    for holder in [held, abandoned] {
        let renewed = store.renew(holder, HOUR).await;
        assert_eq!(renewed.expect("the file can be written"), Settled::Done);
    }
    let stranger = Holder {
        fence: held.fence + 1,
        ..held
    };
    let renewed = store.renew(stranger, HOUR).await;
    assert_eq!(renewed.expect("the store can read"), Settled::Lost);
    tokio::time::sleep(lease + Duration::from_millis(10)).await;
    let entry = other.look_up(held.id).await.expect("the store can read");
    assert!(
        matches!(&entry, Some(Entry::InFlight { lease_left, .. }) if *lease_left > HOUR / 2),
        "{entry:?}"
    );
    execute(&mut handler, "COMMIT").await;

    assert_eq!(other.sweep().await.expect("the store works"), 0);
    for store in [&store, &other] {
        for on_unknown in [OnUnknown::Rerun, OnUnknown::Hold] {
            let mut retry = claim("held");
            retry.on_unknown = on_unknown;
            let met = store.claim(retry).await;
            assert!(matches!(met, Ok(Claimed::InFlight { .. })), "{met:?}");
        }
    }
    let resolved = other
        .resolve(held.id, held.fence, record(b"{}"), HOUR)
        .await;
    assert_eq!(resolved.expect("the store works"), Settled::Lost);
    let done = store.complete(held, record(b"{}"), HOUR).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    assert_eq!(replay(&other, "held").await, record(b"{}"));

    let done = store.abandon(abandoned).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    let taken = other.claim(claim("abandoned")).await;
    assert!(matches!(taken, Ok(Claimed::Fresh { .. })), "{taken:?}");
}

/// The pool has one connection, and a handler uses it.
#[tokio::test]
async fn a_pool_of_one_connection_does_not_stop_the_store() {
    let (_folder, path) = folder();
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_lazy_with(options);
    let _used = pool.acquire().await.expect("the file opens");
    let store = SqliteStore::builder().pool(pool.clone()).open().await;
    complete(&store.expect("the file opens"), "k").await;
}

#[tokio::test]
async fn while_another_connection_writes_replays_are_served_and_claims_get_an_error() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path);
    let store = builder.busy_timeout(Duration::from_millis(50)).open().await;
    let store = store.expect("the file opens");
    complete(&store, "done").await;
    let held = win(&store, claim("held")).await;

    let mut handler = connect(&path).await;
    execute(&mut handler, "BEGIN IMMEDIATE").await;
    assert_eq!(replay(&store, "done").await, record(b"{}"));
    let other = store.claim(claim("held")).await;
    assert!(matches!(other, Ok(Claimed::InFlight { .. })), "{other:?}");
    assert!(store.look_up(id("held")).await.expect("it reads").is_some());
    assert_eq!(
        store
            .list(Query::all())
            .await
            .expect("it reads")
            .entries
            .len(),
        2
    );
    let refused = store.claim(claim("new")).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    let refused = store.complete(held, record(b"{}"), HOUR).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");

    execute(&mut handler, "COMMIT").await;
    let done = store.complete(held, record(b"{}"), HOUR).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    complete(&store, "new").await;
}

/// 15 KiB, which with its row is less than a claim reserves.
fn large() -> Record {
    record(&[b'x'; 15 * 1024])
}

async fn is_full(store: &SqliteStore, key: &str) -> bool {
    match store.claim(claim(key)).await.expect("the store works") {
        Claimed::Full => true,
        Claimed::Fresh { .. } => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_full_store_refuses_claims_and_records_the_responses_of_admitted_claims() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path).max_bytes(512 * 1024);
    let store = builder.no_sweeper().open().await.expect("the file opens");
    let mut admitted = Vec::new();
    loop {
        let claim = claim(&format!("key-{}", admitted.len()));
        let (id, owner) = (claim.id, claim.owner);
        match store.claim(claim).await.expect("the store works") {
            Claimed::Fresh { fence, .. } => admitted.push(Holder { id, owner, fence }),
            Claimed::Full => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((16..32).contains(&admitted.len()), "{}", admitted.len());
    for holder in &admitted {
        let done = store.complete(*holder, large(), HOUR).await;
        assert_eq!(done.expect("the store works"), Settled::Done);
    }
    let stats = store.stats().await.expect("the store works");
    assert_eq!(stats.max_bytes, Some(512 * 1024));
    assert!(stats.bytes <= stats.max_bytes, "{stats:?}");
    // The rows of claims took some room that their records do not need.
    let mut others = 0;
    while !is_full(&store, &format!("other-{others}")).await {
        others += 1;
        assert!(others <= 2, "{stats:?}");
    }
    assert_eq!(replay(&store, "key-0").await, large());

    for holder in &admitted[..4] {
        assert!(store.forget(holder.id).await.expect("the store works"));
    }
    win(&store, claim("another")).await;
}

/// A caller whose handlers panic must not fill the store with claims that will never have a record.
#[tokio::test]
async fn an_abandoned_claim_reserves_no_room_until_a_takeover() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path).max_bytes(256 * 1024);
    let store = builder.no_sweeper().open().await.expect("the file opens");
    for at in 0..64 {
        let holder = win(&store, claim(&format!("abandoned-{at}"))).await;
        let done = store.abandon(holder).await.expect("the store works");
        assert_eq!(done, Settled::Done);
    }
    let mut admitted = 0;
    while !is_full(&store, &format!("key-{admitted}")).await {
        admitted += 1;
    }
    assert!(admitted > 4, "{admitted}");
    assert!(
        is_full(&store, "abandoned-0").await,
        "a takeover needs room"
    );
}

/// The engine sends a record again when the first reply comes too late.
#[tokio::test]
async fn a_repeated_completion_with_the_same_record_is_done() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let holder = win(&store, claim("k")).await;
    let mut done = Vec::new();
    for body in [b"first", b"first", b"other"] {
        let settled = store.complete(holder, record(body), HOUR).await;
        done.push(settled.expect("the store works"));
    }
    assert_eq!(done, [Settled::Done, Settled::Done, Settled::Lost]);
    assert_eq!(replay(&store, "k").await, record(b"first"));
}

/// SQLite reports the same error when the disk has no room.
#[tokio::test]
async fn a_claim_that_finds_no_room_in_the_file_gets_full() {
    let (_folder, path) = folder();
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .pragma("max_page_count", "60");
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    let store = SqliteStore::builder()
        .pool(pool)
        .open()
        .await
        .expect("the file opens");
    for at in 0.. {
        assert!(at < 10_000, "the file is never full");
        let claim = claim(&format!("key-{at}"));
        match store.claim(claim).await.expect("a full file is no error") {
            Claimed::Fresh { .. } => {}
            Claimed::Full => break,
            other => panic!("{other:?}"),
        }
    }
    // The claims before are kept, and the store works on.
    assert!(store.forget(id("key-0")).await.expect("the store works"));
    let again = store.claim(claim("key-1")).await;
    assert!(matches!(again, Ok(Claimed::InFlight { .. })), "{again:?}");
}

const SMALL_DISK: &str = "AXUM_IDEM_TEST_SMALL_DISK";

/// Runs this test again in a namespace of its own, on a disk of 16 MiB.
#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_claims_are_refused_and_admitted_claims_are_completed() {
    let test = "on_a_full_disk_claims_are_refused_and_admitted_claims_are_completed";
    if let Ok(disk) = std::env::var(SMALL_DISK) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(fill_the_disk(Path::new(&disk)));
    }
    let may_mount = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .args(["mount", "-t", "tmpfs", "none", "/mnt"])
        .status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine does not let `unshare` mount a small disk");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size=16m none \"${SMALL_DISK}\" && exec \"$@\""
        ))
        .arg("sh")
        .arg(std::env::current_exe().expect("the path of this binary"))
        .args([test, "--exact", "--nocapture"])
        .env(SMALL_DISK, folder.path())
        .status();
    assert!(status.expect("unshare starts").success());
}

async fn fill_the_disk(disk: &Path) {
    let store = SqliteStore::open(disk.join("idem.db")).await;
    let store = store.expect("the file opens");
    let mut admitted = Vec::new();
    for at in 0..32 {
        admitted.push(win(&store, claim(&format!("key-{at}"))).await);
    }
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).expect("the disk has room");
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);

    let mut refused = 0;
    for at in 0..1_000 {
        let claimed = store.claim(claim(&format!("later-{at}"))).await;
        refused = match claimed.expect("a full disk is no error") {
            Claimed::Full => refused + 1,
            Claimed::Fresh { .. } => 0,
            other => panic!("{other:?}"),
        };
    }
    assert!(refused > 100, "{refused} claims were refused in the end");
    for holder in &admitted {
        let done = store.complete(*holder, large(), HOUR).await;
        assert_eq!(done.expect("the reserve has room"), Settled::Done);
    }
    // The reserve is gone, and the room in it may suffice for a claim.
    let claimed = store.claim(claim("another")).await;
    assert!(matches!(claimed, Ok(Claimed::Full)), "{claimed:?}");
    assert_eq!(replay(&store, "key-0").await, large());

    std::fs::remove_file(&filler).expect("the file exists");
    let is_admitted = async || match store.claim(claim("another")).await {
        Ok(Claimed::Full) => None,
        Ok(Claimed::Fresh { .. }) => Some(()),
        other => panic!("{other:?}"),
    };
    test_support::servers::eventually_async("a claim is admitted", is_admitted).await;
}

#[tokio::test]
async fn the_file_does_not_grow_under_steady_load_with_a_short_ttl() {
    let (_folder, path) = folder();
    let store = SqliteStore::builder().path(&path).no_sweeper().open().await;
    let store = store.expect("the file opens");
    let short = Duration::from_micros(1);
    let mut sizes = Vec::new();
    for round in 0..6 {
        for at in 0..50 {
            let claim = Claim::new(id(&format!("{round}-{at}")), FINGERPRINT, HOUR, HOUR);
            let holder = win(&store, claim).await;
            let done = store.complete(holder, large(), short).await;
            assert_eq!(done.expect("the store works"), Settled::Done);
        }
        assert_eq!(store.sweep().await.expect("the store works"), 50);
        let mut connection = connect(&path).await;
        sizes.push(number(&mut connection, "PRAGMA page_count").await);
    }
    let most = sizes[0] + sizes[0] / 10;
    assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
}

/// Readers that are never idle do not keep SQLite from using the log again.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_does_not_grow_under_steady_load_with_readers() {
    let (folder, path) = folder();
    let store = SqliteStore::builder().path(&path).no_sweeper().open().await;
    let store = store.expect("the file opens");
    complete(&store, "read").await;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    replay(&store, "read").await;
                }
            })
        })
        .collect();
    let log = folder.path().join("idem.db-wal");
    let mut longest = 0;
    for round in 0..32 {
        let mut writers = tokio::task::JoinSet::new();
        for at in 0..64 {
            let store = store.clone();
            writers.spawn(async move {
                let holder = win(&store, claim(&format!("{round}-{at}"))).await;
                store
                    .complete(holder, large(), Duration::from_micros(1))
                    .await
            });
        }
        for done in writers.join_all().await {
            assert_eq!(done.expect("the store works"), Settled::Done);
        }
        assert_eq!(store.sweep().await.expect("the store works"), 64);
        longest = longest.max(std::fs::metadata(&log).expect("the log exists").len());
    }
    for reader in readers {
        reader.abort();
    }
    // The records alone have 30 MiB.
    assert!(longest < 12 * 1024 * 1024, "{longest}");
    println!("the longest log had {longest} bytes");
}

#[tokio::test]
async fn the_writer_sweeps_after_each_pause() {
    let (_folder, path) = folder();
    let builder = SqliteStore::builder().path(&path);
    let store = builder.sweep_every(Duration::from_millis(1)).open().await;
    let store = store.expect("the file opens");
    let holder = win(&store, claim("k")).await;
    let done = store.complete(holder, record(b"{}"), Duration::from_micros(1));
    assert_eq!(done.await.expect("the store works"), Settled::Done);
    let mut connection = connect(&path).await;
    test_support::servers::eventually_async("the row is removed", async || {
        let rows = number(&mut connection, "SELECT count(*) FROM idem_records").await;
        (rows == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_fence_grows_although_the_clock_went_back_and_the_row_is_gone() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    // As if a claim had been made in the year 2100.
    let future = 4_102_444_800_000_000_u64;
    let mut connection = connect(&path).await;
    let set = format!("UPDATE idem_records_meta SET fence = {future}");
    execute(&mut connection, &set).await;
    let first = win(&store, claim("k")).await;
    assert!(first.fence > future);
    assert!(store.forget(id("k")).await.expect("the store works"));
    drop(store);
    let store = SqliteStore::open(&path).await.expect("the file opens");
    assert!(win(&store, claim("k")).await.fence > first.fence);
}

/// Neither the key nor the scope is in any of the three files.
#[tokio::test]
async fn the_files_contain_neither_keys_nor_scopes() {
    let (folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    let id = RecordId::new("tests", &Scope::new().value("SECRET-SCOPE"), "SECRET-KEY");
    let holder = win(&store, Claim::new(id, FINGERPRINT, HOUR, HOUR)).await;
    let done = store.complete(holder, record(b"visible"), HOUR).await;
    assert_eq!(done.expect("the store works"), Settled::Done);
    let mut files = Vec::new();
    for file in std::fs::read_dir(folder.path()).expect("it is readable") {
        let path = file.expect("a file").path();
        // Windows does not let anyone read the instance file, because it is locked.
        if std::fs::metadata(&path).expect("the file exists").len() > 0 {
            files.extend(std::fs::read(&path).expect("it is readable"));
        }
    }
    let contains = |text: &[u8]| files.windows(text.len()).any(|part| part == text);
    assert!(contains(b"visible"));
    assert!(!contains(b"SECRET"));
}

/// Damaged records are errors. No claim wins because of them.
#[tokio::test]
async fn random_bytes_in_a_row_are_an_error_and_stay() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    complete(&store, "k").await;
    let whole = record(b"{}").as_bytes().to_vec();
    let mut connection = connect(&path).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..200 {
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        } else {
            // The version, so that the record is never valid by chance.
            bytes[0] = random.u8(2..);
            let at = random.usize(..bytes.len());
            bytes[at] ^= random.u8(1..);
            bytes[0] = bytes[0].max(2);
        }
        let damage = sqlx::query("UPDATE idem_records SET record = ?1").bind(bytes.clone());
        damage
            .execute(&mut connection)
            .await
            .expect("it can be written");
        let claimed = store.claim(claim("k")).await;
        assert!(
            matches!(claimed, Err(StoreError::Undecodable(_))),
            "seed {seed}: {claimed:?}"
        );
        let entry = store.look_up(id("k")).await;
        assert!(
            matches!(entry, Err(StoreError::Undecodable(_))),
            "seed {seed}: {entry:?}"
        );
        let kept = sqlx::query("SELECT record FROM idem_records").fetch_one(&mut connection);
        let kept: Vec<u8> = kept.await.expect("a row").try_get(0).expect("bytes");
        assert_eq!(kept, bytes);
    }
    assert!(store.forget(id("k")).await.expect("the store works"));
    complete(&store, "k").await;
}

/// The power can go at any moment: the file is as it was, and the log ends anywhere. Whatever was acknowledged
/// while the log was no longer than that is there, and the transitions are there in their order.
#[tokio::test]
async fn every_prefix_of_the_log_contains_its_acknowledged_transitions() {
    let (folder, path) = folder();
    let store = SqliteStore::builder().path(&path).no_sweeper().open().await;
    let store = store.expect("the file opens");
    let log = folder.path().join("idem.db-wal");
    let base = std::fs::read(&path).expect("it is readable");
    let length = || std::fs::metadata(&log).expect("the log exists").len();
    let start = length();
    let mut acknowledged = Vec::new();
    for at in 0..6 {
        let holder = win(&store, claim(&format!("key-{at}"))).await;
        acknowledged.push((at, false, length()));
        let done = store.complete(holder, record(b"{}"), HOUR).await;
        assert_eq!(done.expect("the store works"), Settled::Done);
        acknowledged.push((at, true, length()));
    }
    let whole = std::fs::read(&log).expect("it is readable");
    assert_eq!(
        std::fs::read(&path).expect("it is readable"),
        base,
        "no checkpoint ran"
    );

    let cut = |from: u64, to: u64| (from..=to).step_by(1_031);
    for end in cut(start, length()).chain([length()]) {
        let after = tempfile::tempdir().expect("a folder");
        let copy = after.path().join("idem.db");
        std::fs::write(&copy, &base).expect("it is writable");
        let kept = usize::try_from(end).expect("a length");
        std::fs::write(after.path().join("idem.db-wal"), &whole[..kept]).expect("it is writable");
        let store = SqliteStore::open(&copy).await.expect("the file opens");
        let mut last = true;
        for (at, is_recorded, length) in &acknowledged {
            let entry = store.look_up(id(&format!("key-{at}"))).await;
            let is_there = match entry.expect("the entry is readable") {
                Some(Entry::Recorded { .. }) => true,
                Some(Entry::InFlight { .. }) => !is_recorded,
                _ => false,
            };
            assert!(
                is_there || *length > end,
                "cut at {end}: {at} {is_recorded} is lost"
            );
            assert!(
                last || !is_there,
                "cut at {end}: {at} {is_recorded} came before others"
            );
            last = is_there;
        }
    }
}

/// Without the extension, a short retention would end before the process has died, and the claim would be gone.
#[tokio::test]
async fn an_extended_claim_of_a_dead_store_is_unknown_for_its_retention() {
    let (_folder, path) = folder();
    let store = SqliteStore::open(&path).await.expect("the file opens");
    win(&store, claim("k")).await;
    give_to(&path, "k", 0xdead).await;
    // The row knows of a lease that has lapsed two minutes ago, and the retention is one minute.
    let lapse =
        "UPDATE idem_records SET leased_until = leased_until - 3720000000, retention_us = 60000000,
        expires_at = leased_until - 3660000000";
    execute(&mut connect(&path).await, lapse).await;
    // The file of the store has extended it until an hour from now, and then the process has died.
    let file = std::fs::File::create(file_of(&path, 0xdead)).expect("it is writable");
    file.set_modified(std::time::SystemTime::now() + HOUR)
        .expect("it is writable");
    drop(file);

    let mut retry = claim("k");
    retry.on_unknown = OnUnknown::Hold;
    let met = store.claim(retry).await;
    assert!(matches!(met, Ok(Claimed::Unknown { .. })), "{met:?}");
    let entry = store.look_up(id("k")).await.expect("the store works");
    assert!(
        matches!(&entry, Some(Entry::Unknown { retained_for, .. }) if *retained_for <= Duration::from_secs(60)),
        "the lease ends with the process: {entry:?}"
    );
}

#[tokio::test]
async fn without_migration_a_store_opens_its_tables_and_changes_nothing_else() {
    let (folder, path) = folder();
    let open = async |table: &str| {
        let builder = SqliteStore::builder().path(&path).table(table);
        builder.migrate(false).open().await
    };
    let missing = open("keys").await;
    assert!(matches!(missing, Err(StoreError::Unfit(_))), "{missing:?}");
    assert!(!path.exists(), "the file was created");

    let mut other = connect(&path).await;
    execute(&mut other, "CREATE TABLE trades (id INTEGER)").await;
    let before = std::fs::read(&path).expect("it is readable");
    let refused = open("keys").await.expect_err("no tables").to_string();
    assert!(refused.contains("has no tables \"keys\""), "{refused}");
    let sql = SqliteStore::builder().table("keys").schema_sql();
    assert_eq!(std::fs::read(&path).expect("it is readable"), before);
    execute(&mut other, &sql.expect("a name")).await;
    let refused = open("keys").await.expect_err("no WAL").to_string();
    assert!(refused.contains("journal mode is \"delete\""), "{refused}");
    let files = std::fs::read_dir(folder.path()).expect("it is readable");
    assert_eq!(files.count(), 1, "a file was created");

    execute(&mut other, "PRAGMA journal_mode = WAL").await;
    let store = open("Keys").await.expect("the tables are there");
    win(&store, claim("k")).await;
    for index in ["expires_at", "claims", "short"] {
        let drop = format!("DROP INDEX keys_{index}");
        execute(&mut other, &drop).await;
        let refused = open("keys").await.expect_err("no index").to_string();
        let index = format!("has no index \"keys_{index}\"; create it");
        assert!(refused.contains(&index), "{refused}");
        let sql = SqliteStore::builder().table("keys").schema_sql();
        execute(&mut other, &sql.expect("a name")).await;
    }
    execute(&mut other, "UPDATE keys_meta SET version = 2").await;
    let refused = open("keys").await.expect_err("another version").to_string();
    assert!(refused.contains("has version 2"), "{refused}");
}
