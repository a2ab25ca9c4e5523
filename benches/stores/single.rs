//! Measures one caller: how often it waits for the store, and how long.

use std::time::{Duration, Instant};

use axum_idem::store::{NearCache, PostgresStore, RedisStore, Store};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use sqlx::{Connection, PgConnection};

use super::measure::process::seconds_run;
use super::measure::{float, line, median, ratios, setting, shown};
use super::proxy::Proxy;
use super::serving::{backends, redis_itself};
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;
use test_support::transitions::{first_sight, id, record, replay};

/// Calls of one kind in one round.
const CALLS: u64 = 100;

/// Keys of the counted calls. They are larger than all keys of the timed calls.
const COUNTED: u64 = 1 << 40;

/// Keys that are recorded before the measurement.
const RECORDED: u64 = 100;

pub(crate) async fn run() {
    let server = RedisServer::start();
    let proxy = Proxy::before_redis(server.port).await;
    let store = RedisStore::connect(&proxy.url).await.expect("Redis works");
    count("Redis", &proxy, store).await;
    let store = RedisStore::connect(server.url())
        .await
        .expect("Redis works");
    let raw = RawRedis::connect(&server.url()).await;
    time("Redis, ratio to GET", raw, &store, || redis_itself(&server)).await;
    drop(server);

    let server = PostgresServer::start();
    let proxy = Proxy::before_postgres(&server.url());
    let store = PostgresStore::connect(&proxy.url)
        .await
        .expect("PostgreSQL works");
    count("PostgreSQL", &proxy, store).await;
    for (name, settings) in [
        (
            "PostgreSQL, log not flushed, ratio to SELECT 1",
            ["fsync=off", "synchronous_commit=off"],
        ),
        (
            "PostgreSQL, log flushed, ratio to SELECT 1",
            ["fsync=on", "synchronous_commit=on"],
        ),
    ] {
        let server = PostgresServer::with(&settings);
        let store = PostgresStore::connect(server.url())
            .await
            .expect("PostgreSQL works");
        let raw = RawPostgres::connect(&server).await;
        time(name, raw, &store, || backends(&server)).await;
    }
}

async fn count(name: &str, proxy: &Proxy, store: impl Store + Clone) {
    // After these calls the server knows all scripts and statements.
    first_sight(&store, COUNTED).await;
    replay(&store, COUNTED).await;
    let near = NearCache::new(store.clone());
    let begun = proxy.round_trips();
    first_sight(&store, COUNTED + 1).await;
    let first = proxy.round_trips() - begun;
    replay(&near, COUNTED + 1).await;
    let replayed = proxy.round_trips() - begun - first;
    replay(&near, COUNTED + 1).await;
    let near = proxy.round_trips() - begun - first - replayed;
    println!("{name}, round trips: first {first}, replay {replayed}, near {near}");
}

/// Direct calls without the rules of a store: the cheapest call, and the fewest calls for a replay and
/// for a new key.
trait Raw {
    const READ: &str;
    const WRITE: &str;

    async fn call(&mut self);
    async fn read(&mut self);
    async fn write(&mut self, n: u64);
}

struct RawRedis {
    connection: MultiplexedConnection,
    script: redis::Script,
}

impl RawRedis {
    async fn connect(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a valid address");
        let connected = client.get_multiplexed_async_connection().await;
        let mut raw = Self {
            connection: connected.expect("Redis works"),
            script: redis::Script::new("return redis.call('GET', KEYS[1])"),
        };
        raw.set("raw", record().as_bytes()).await;
        raw
    }

    async fn set(&mut self, key: &str, value: &[u8]) {
        let () = self.connection.set(key, value).await.expect("Redis works");
    }
}

impl Raw for RawRedis {
    const READ: &str = "a script with one GET";
    const WRITE: &str = "two SETs";

    async fn call(&mut self) {
        let value: Vec<u8> = self.connection.get("raw").await.expect("Redis works");
        assert!(!value.is_empty());
    }

    async fn read(&mut self) {
        let mut script = self.script.prepare_invoke();
        let read = script.key("raw").invoke_async(&mut self.connection);
        let value: Vec<u8> = read.await.expect("Redis works");
        assert!(!value.is_empty());
    }

    async fn write(&mut self, n: u64) {
        let key = format!("raw:{}", id(n));
        self.set(&key, id(n).as_bytes()).await;
        self.set(&key, record().as_bytes()).await;
    }
}

struct RawPostgres(PgConnection);

impl RawPostgres {
    async fn connect(server: &PostgresServer) -> Self {
        server.command("CREATE TABLE raw (id bytea PRIMARY KEY, value bytea)");
        let connected = PgConnection::connect(&server.url()).await;
        let mut raw = Self(connected.expect("PostgreSQL works"));
        raw.write(COUNTED).await;
        raw
    }
}

impl Raw for RawPostgres {
    const READ: &str = "a SELECT of one row";
    const WRITE: &str = "an INSERT and an UPDATE";

    async fn call(&mut self) {
        let one = sqlx::query_scalar("SELECT 1").fetch_one(&mut self.0);
        let one: i32 = one.await.expect("PostgreSQL works");
        assert_eq!(one, 1);
    }

    async fn read(&mut self) {
        let row = sqlx::query_scalar("SELECT value FROM raw WHERE id = $1")
            .bind(&id(COUNTED).as_bytes()[..])
            .fetch_one(&mut self.0)
            .await;
        let value: Vec<u8> = row.expect("PostgreSQL works");
        assert!(!value.is_empty());
    }

    async fn write(&mut self, n: u64) {
        let (id, record) = (id(n), record());
        sqlx::query("INSERT INTO raw VALUES ($1, NULL)")
            .bind(&id.as_bytes()[..])
            .execute(&mut self.0)
            .await
            .expect("PostgreSQL works");
        sqlx::query("UPDATE raw SET value = $2 WHERE id = $1")
            .bind(&id.as_bytes()[..])
            .bind(&record.as_bytes()[..])
            .execute(&mut self.0)
            .await
            .expect("PostgreSQL works");
    }
}

/// The seconds and the processor seconds, round by round.
type Times = [Vec<f64>; 2];

/// `server` returns the processes that serve the connections. It is called when all connections exist.
async fn time<R: Raw>(name: &str, mut raw: R, store: &impl Store, server: impl Fn() -> Vec<u32>) {
    for n in 0..RECORDED {
        first_sight(store, n).await;
        raw.call().await;
    }
    let mut times: [Times; 5] = Default::default();
    let mut processes = server();
    processes.push(std::process::id());
    let run = || processes.iter().copied().map(seconds_run).sum::<f64>();
    for round in 1..=setting("ROUNDS", 200) {
        let keys = round * CALLS..(round + 1) * CALLS;
        let mut marks = vec![(Instant::now(), run())];
        for _ in keys.clone() {
            raw.call().await;
        }
        marks.push((Instant::now(), run()));
        for n in keys.clone() {
            replay(store, n % RECORDED).await;
        }
        marks.push((Instant::now(), run()));
        for n in keys.clone() {
            first_sight(store, n).await;
        }
        marks.push((Instant::now(), run()));
        for _ in keys.clone() {
            raw.read().await;
        }
        marks.push((Instant::now(), run()));
        for n in keys {
            raw.write(n).await;
        }
        marks.push((Instant::now(), run()));
        for ([elapsed, ran], marks) in times.iter_mut().zip(marks.windows(2)) {
            elapsed.push((marks[1].0 - marks[0].0).as_secs_f64());
            ran.push(marks[1].1 - marks[0].1);
        }
    }
    let [called, replayed, first, read, written] = &times;
    let each = Duration::from_secs_f64(median(&called[0]) / float(CALLS));
    println!("\n{name}, which takes {each:.1?}");
    line("", &["time", "processor time"]);
    for (name, own) in [
        ("claim and complete", first),
        (R::WRITE, written),
        ("replay", replayed),
        (R::READ, read),
    ] {
        line(name, &[0, 1].map(|of| shown(ratios(&own[of], &called[of]))));
    }
}
