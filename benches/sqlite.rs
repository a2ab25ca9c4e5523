//! What one SQLite file carries, next to raw statements of the same driver on the same disk.
//!
//! ```sh
//! cargo bench --bench sqlite --features sqlite
//! ```
//!
//! `IDEM_BENCH_FOLDER` names a folder on the disk to measure.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_idem::store::{Claim, Claimed, Holder, Record, SqliteStore, Store};
use axum_idem::{Fingerprint, RecordId};
use http::{HeaderMap, StatusCode};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinHandle;

const CALLERS: u64 = 64;
const HOUR: Duration = Duration::from_secs(3600);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn id(number: u64) -> RecordId {
    // Spreads the ids over the whole range, as digests do.
    let mut random = fastrand::Rng::with_seed(number);
    RecordId::from_bytes(std::array::from_fn(|_| random.u8(..)))
}

fn fingerprint() -> Fingerprint {
    Fingerprint::from_bytes([7; 32])
}

fn record() -> Record {
    Record::answer(
        fingerprint(),
        StatusCode::CREATED,
        &HeaderMap::new(),
        &[b'x'; 256],
    )
    .expect("it is small")
}

async fn raw(path: &Path) -> Outcome<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = options.connect().await?;
    let create = "CREATE TABLE IF NOT EXISTS raw (id BLOB NOT NULL UNIQUE, record BLOB NOT NULL)";
    sqlx::query(create).execute(&mut connection).await?;
    Ok(connection)
}

/// Inserts `groups` times `group` rows, and returns how many rows a second.
async fn raw_inserts(path: &Path, groups: u64, group: u64) -> Outcome<f64> {
    let mut connection = raw(path).await?;
    let record = record();
    let begun = Instant::now();
    for at in 0..groups {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for row in 0..group {
            sqlx::query("INSERT INTO raw (id, record) VALUES (?1, ?2)")
                .bind(id(at * group + row).as_bytes().to_vec())
                .bind(record.as_bytes().to_vec())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    Ok(a_second(groups * group, begun))
}

/// Exact enough for a rate.
#[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
fn a_second(count: u64, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn first_sight(store: &SqliteStore, number: u64) -> Outcome<()> {
    let claim = Claim::new(id(number), fingerprint(), HOUR, HOUR);
    let (id, owner) = (claim.id, claim.owner);
    let Claimed::Fresh { fence, .. } = store.claim(claim).await? else {
        return Err("the claim did not win".into());
    };
    let _ = store
        .complete(Holder { id, owner, fence }, record(), HOUR)
        .await?;
    Ok(())
}

/// First requests of 64 callers. Each claims and completes, so each has two transitions.
async fn first_sights(store: &Arc<SqliteStore>, each: u64) -> Outcome<f64> {
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0..each {
                    first_sight(&store, caller * each + at).await?;
                }
                Outcome::Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok(a_second(CALLERS * each, begun))
}

async fn replays(store: &SqliteStore, count: u64) -> Outcome<Duration> {
    let begun = Instant::now();
    for at in 0..count {
        let claim = Claim::new(id(at), fingerprint(), HOUR, HOUR);
        let Claimed::Recorded { .. } = store.claim(claim).await? else {
            return Err("there is no record".into());
        };
    }
    Ok(begun.elapsed() / u32::try_from(count)?)
}

async fn raw_selects(path: &Path, count: u64) -> Outcome<Duration> {
    let mut connection = raw(path).await?;
    let begun = Instant::now();
    for at in 0..count {
        sqlx::query("SELECT record FROM raw WHERE id = ?1")
            .bind(id(at).as_bytes().to_vec())
            .fetch_one(&mut connection)
            .await?;
    }
    Ok(begun.elapsed() / u32::try_from(count)?)
}

/// The 99th percentile of a claim while a handler holds the write lock for 100 ms, again and again.
async fn beside_a_writer(store: &SqliteStore, path: &Path, claims: u64) -> Outcome<Duration> {
    let mut handler = raw(path).await?;
    let busy: JoinHandle<Outcome<()>> = tokio::spawn(async move {
        loop {
            let transaction = handler.begin_with("BEGIN IMMEDIATE").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            transaction.commit().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut times = Vec::new();
    for at in 0..claims {
        let claim = Claim::new(id(u64::MAX - at), fingerprint(), HOUR, HOUR);
        let begun = Instant::now();
        store.claim(claim).await?;
        times.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    busy.abort();
    times.sort_unstable();
    Ok(times[times.len() * 99 / 100])
}

/// A store whose log is copied into the file after this many pages. SQLite's own default is 1,000, and 0 is never.
async fn with_checkpoints(path: &Path, pages: &'static str) -> Outcome<Arc<SqliteStore>> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .pragma("wal_autocheckpoint", pages);
    let pool = SqlitePoolOptions::new().connect_lazy_with(options);
    Ok(Arc::new(SqliteStore::builder().pool(pool).open().await?))
}

/// The times of the claims of one caller, sorted. Each is one commit.
async fn claims(store: &SqliteStore, count: u64) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for at in 0..count {
        let claim = Claim::new(id(u64::MAX / 2 - at), fingerprint(), HOUR, HOUR);
        let begun = Instant::now();
        store.claim(claim).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// What copying the log into the file costs.
async fn checkpoints(folder: &Path) -> Outcome<()> {
    let (with, without) = (folder.join("with.db"), folder.join("without.db"));
    let store = with_checkpoints(&with, "1000").await?;
    let rate = first_sights(&store, 50).await?;
    let never = first_sights(&with_checkpoints(&without, "0").await?, 50).await?;
    let times = claims(&store, 2_000).await?;
    println!("first sights without checkpoints {never:6.0} a second");
    println!("  with, to without            {:9.2}", rate / never);
    println!(
        "one commit, median            {:9.1?}",
        times[times.len() / 2]
    );
    println!(
        "one commit, slowest of 1,000  {:9.1?}",
        times[times.len() * 999 / 1000]
    );
    Ok(())
}

/// The size of a record, and how fast expired rows are removed.
async fn size_and_sweep(folder: &Path) -> Outcome<()> {
    let path = folder.join("sweep.db");
    let store = SqliteStore::builder().path(&path).no_sweeper();
    let store = Arc::new(store.open().await?);
    let rows = CALLERS * 100;
    first_sights(&store, 100).await?;
    let bytes = store.stats().await?.bytes.ok_or("the store counts bytes")?;
    println!("bytes a record                {:9}", bytes / rows);
    let mut connection = raw(&path).await?;
    let expire = "UPDATE idem_records SET expires_at = 1";
    sqlx::query(expire).execute(&mut connection).await?;
    let begun = Instant::now();
    let removed = store.sweep().await?;
    println!(
        "the sweeper removes           {:9.0} rows a second",
        a_second(removed, begun)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder =
        std::env::var_os("IDEM_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let (raw, path) = (folder.path().join("raw.db"), folder.path().join("idem.db"));
    let single = raw_inserts(&raw, 500, 1).await?;
    let batched = raw_inserts(&folder.path().join("batched.db"), 100, CALLERS).await?;
    let store = Arc::new(SqliteStore::open(&path).await?);
    let first = first_sights(&store, 50).await?;
    println!("raw single durable inserts    {single:9.0} a second");
    println!("raw inserts, 64 to a commit   {batched:9.0} a second");
    println!("first sights, 64 callers      {first:9.0} a second");
    println!("  to single inserts           {:9.2}", first / single);
    println!("  to batched inserts          {:9.2}", first / batched);
    let select = raw_selects(&raw, 500).await?;
    let replay = replays(&store, 500).await?;
    println!("raw select by key             {select:9.1?}");
    println!("replay                        {replay:9.1?}");
    println!(
        "  to a select                 {:9.2}",
        replay.as_secs_f64() / select.as_secs_f64()
    );
    let slow = beside_a_writer(&store, &path, 300).await?;
    println!("claim beside a writer, p99    {slow:9.1?}");
    checkpoints(folder.path()).await?;
    size_and_sweep(folder.path()).await
}
