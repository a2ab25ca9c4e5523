//! Measures many callers: the rate of one primary, and the bytes of a write in memory and in the log.

use std::time::Instant;

use axum_idem::store::{PostgresStore, RedisStore, Store};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use super::measure::process::{move_to, seconds_run};
use super::measure::{float, line, median, ratios, setting, shown};
use super::serving::{backends, redis_itself};
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::{RedisServer, cluster};
use test_support::transitions::{first_sight, id, record, short_lived};

const CALLERS: u64 = 64;

/// Calls of each caller in one round.
const CALLS: u64 = 25;

/// Records whose memory and log are measured.
const RECORDS: u64 = 20_000;

/// Records that expire and are removed by a sweep.
const SWEPT: u64 = 5_000;

pub(crate) async fn run() {
    redis().await;
    shards().await;
    for (name, fsync) in [("not flushed", "fsync=off"), ("flushed", "fsync=on")] {
        postgres(name, fsync).await;
    }
}

/// The rates and the server's processor time of one kind of call, round by round.
#[derive(Default)]
struct Rounds {
    rates: Vec<f64>,
    server: Vec<f64>,
}

impl Rounds {
    /// Runs one round: each caller makes its next call as soon as it has a reply.
    async fn add<F>(&mut self, server: &[u32], caller: impl Fn(u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let run = || server.iter().copied().map(seconds_run).sum::<f64>();
        let (begun, ran) = (Instant::now(), run());
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            callers.spawn(caller(number));
        }
        while let Some(called) = callers.join_next().await {
            called.expect("no panic");
        }
        self.rates
            .push(float(CALLERS * CALLS) / begun.elapsed().as_secs_f64());
        self.server.push(run() - ran);
    }

    /// Prints these rounds as a ratio to the `raw` rounds.
    fn print(&self, raw: &Self) {
        line("", &["calls a second", "rate / raw", "server time / raw"]);
        line("raw", &[format!("{:.0}", median(&raw.rates))]);
        line(
            "claim and complete",
            &[
                format!("{:.0}", median(&self.rates)),
                shown(ratios(&self.rates, &raw.rates)),
                shown(ratios(&self.server, &raw.server)),
            ],
        );
    }
}

/// Returns the keys of one caller in one round. No other caller uses them.
fn keys(round: u64, caller: u64) -> impl Iterator<Item = u64> {
    let from = (round * CALLERS + caller) * CALLS;
    from..from + CALLS
}

/// The number of connections that the callers share, like the clones of a store.
const CONNECTIONS: u64 = 4;

async fn redis() {
    move_to(0);
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    move_to(1);
    let (mut stores, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        stores.push(
            RedisStore::connect(server.url())
                .await
                .expect("Redis works"),
        );
        raws.push(raw_redis(&server.url()).await);
    }
    let processes = redis_itself(&server);
    let (mut ours, mut raw) = (Rounds::default(), Rounds::default());
    for round in 0..setting("ROUNDS", 60) {
        let set = |caller: u64| {
            let mut connection = of(&raws, caller);
            async move {
                for key in keys(round, caller) {
                    let (key, value) = (format!("raw:{}", id(key)), record());
                    let set = connection.set_ex(key, &value.as_bytes()[..], 86_400);
                    let () = set.await.expect("Redis works");
                }
            }
        };
        raw.add(&processes, set).await;
        let run_first = |caller: u64| first_sights(of(&stores, caller), keys(round, caller));
        ours.add(&processes, run_first).await;
    }
    println!(
        "Redis, append-only file, {CALLERS} callers; raw is `SET key value EX` of the same size"
    );
    ours.print(&raw);

    // A rewrite makes the log shorter.
    server.command(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]);
    while number(&server, "aof_rewrite_in_progress") > 0 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let used = || number(&server, "used_memory");
    let log = || number(&server, "aof_current_size");
    let (used_before, log_before) = (used(), log());
    let from = 1 << 40;
    fill(&stores[0], from).await;
    let each = |after: u64, before: u64| float(after - before) / float(RECORDS);
    let memory = each(used(), used_before);
    let logged = each(log(), log_before);
    let key = format!("idem:{}", id(from));
    let usage = server.command(&["MEMORY", "USAGE", &key]);
    println!(
        "bytes a record: {memory:.0} of memory ({usage} by `MEMORY USAGE`), {logged:.0} of log"
    );
    a_day("memory", memory);
    a_day("log, before it is rewritten,", logged);
    println!();
}

fn of<T: Clone>(all: &[T], caller: u64) -> T {
    let nth = usize::try_from(caller).expect("a small number") % all.len();
    all[nth].clone()
}

async fn raw_redis(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a valid address");
    let connected = client.get_multiplexed_async_connection().await;
    connected.expect("Redis works")
}

fn number(server: &RedisServer, field: &str) -> u64 {
    let value = server.info(field).expect("a field of INFO");
    value.parse().expect("a number")
}

async fn first_sights(store: impl Store, keys: impl Iterator<Item = u64>) {
    for key in keys {
        first_sight(&store, key).await;
    }
}

/// Writes `RECORDS` records into a store. The first key is `from`.
async fn fill(store: &(impl Store + Clone), from: u64) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let begin = from + RECORDS * caller / CALLERS;
        let end = from + RECORDS * (caller + 1) / CALLERS;
        callers.spawn(first_sights(store.clone(), begin..end));
    }
    while let Some(filled) = callers.join_next().await {
        filled.expect("no panic");
    }
}

/// Prints the bytes of a day of writes at two rates, from the bytes of one write.
fn a_day(of: &str, each: f64) {
    const SECONDS: f64 = 86_400.0;
    let gigabytes = |rate: f64| rate * SECONDS * each / 1e9;
    let [low, high] = [1e3, 1e5].map(gigabytes);
    println!("a day's {of} at 1,000 writes a second: {low:.0} GB; at 100,000: {high:.0} GB");
}

/// Prints how evenly the nodes of a cluster share the records.
async fn shards() {
    move_to(0);
    let nodes = cluster();
    let urls = nodes.iter().map(RedisServer::url);
    let store = RedisStore::builder().cluster(urls).connect().await;
    fill(&store.expect("a cluster"), 0).await;
    let sizes = nodes.iter().map(|node| node.command(&["DBSIZE"]));
    let sizes: Vec<String> = sizes.collect();
    println!(
        "Redis cluster of three, {RECORDS} records: {} on each node\n",
        sizes.join(", ")
    );
}

async fn postgres(name: &str, fsync: &str) {
    move_to(0);
    let server = PostgresServer::with(&[fsync, "autovacuum=off", "max_wal_size=8GB"]);
    move_to(1);
    let connections = 16;
    let store = PostgresStore::builder()
        .url(server.url())
        .max_connections(connections)
        .no_sweeper()
        .connect()
        .await
        .expect("PostgreSQL works");
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .test_before_acquire(false)
        .connect(&server.url())
        .await
        .expect("PostgreSQL works");
    server.command("CREATE TABLE raw (id bytea PRIMARY KEY, value bytea NOT NULL)");
    let (mut ours, mut raw) = (Rounds::default(), Rounds::default());
    for round in 0..setting("ROUNDS", 60) {
        let processes = backends(&server);
        raw.add(&processes, |caller| {
            inserts(pool.clone(), keys(round, caller))
        })
        .await;
        let run_first = |caller| first_sights(store.clone(), keys(round, caller));
        ours.add(&processes, run_first).await;
    }
    println!("PostgreSQL, log {name}, {CALLERS} callers; raw is an `INSERT` of the same size");
    ours.print(&raw);
    if fsync == "fsync=on" {
        leftovers(&server, &store).await;
    }
    println!();
}

async fn inserts(pool: PgPool, keys: impl Iterator<Item = u64>) {
    for key in keys {
        let (id, record) = (id(key), record());
        let inserted = sqlx::query("INSERT INTO raw VALUES ($1, $2)")
            .bind(&id.as_bytes()[..])
            .bind(&record.as_bytes()[..])
            .execute(&pool);
        inserted.await.expect("PostgreSQL works");
    }
}

/// Prints the bytes that writes leave in the table and in the log.
async fn leftovers(server: &PostgresServer, store: &PostgresStore) {
    let count = |what: &str| -> f64 {
        let answer = server.command(&format!("SELECT {what}"));
        answer.parse().expect("a number")
    };
    let from = 1 << 40;
    fill(store, from).await;
    server.command("VACUUM idem_records");
    server.command("CHECKPOINT");
    let position = || count("pg_current_wal_lsn() - '0/0'");
    let before = position();
    fill(store, from + RECORDS).await;
    let log = (position() - before) / float(RECORDS);
    // Without dead rows and free space, whose part depends on how often the table is vacuumed.
    server.command("VACUUM FULL idem_records");
    let rows = count("count(*) FROM idem_records");
    let whole = count("pg_total_relation_size('idem_records')") / rows;
    let indexes = count("pg_indexes_size('idem_records')") / rows;
    println!(
        "bytes a record: {whole:.0} of table and indexes ({indexes:.0} of them indexes), {log:.0} of log"
    );
    a_day("table and indexes", whole);
    a_day("log", log);
    for n in 0..SWEPT {
        short_lived(store, from + 2 * RECORDS + n).await;
    }
    let begun = Instant::now();
    let swept = store.sweep().await.expect("PostgreSQL works");
    let rate = float(swept) / begun.elapsed().as_secs_f64();
    println!("one sweeper removes {rate:.0} expired records a second");
}
