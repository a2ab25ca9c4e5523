//! The Redis store when the server is full, forgetful, slow, gone, or another.
#![cfg(all(feature = "redis", feature = "testing"))]

mod servers;

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use idem_runtime::store::{
    Claim, Claimed, DecodeError, Entry, Holder, Record, RedisStore, Settled, Store, StoreError,
};
use idem_runtime::testing::Contract;
use idem_runtime::{Fingerprint, RecordId, Scope};

use servers::eventually_async;
use servers::redis::{RedisServer, Sentinel, cluster};

const FINGERPRINT: Fingerprint = Fingerprint::from_bytes([7; 32]);
const HOUR: Duration = Duration::from_secs(3600);

fn id(name: &str) -> RecordId {
    RecordId::new("tests", &Scope::new().value("acme"), name)
}

fn claim(name: &str) -> Claim {
    Claim::new(id(name), FINGERPRINT, HOUR, HOUR)
}

fn record(body: &[u8]) -> Record {
    Record::answer(FINGERPRINT, StatusCode::CREATED, &HeaderMap::new(), body).expect("it fits")
}

/// Claims, and expects to win.
async fn win(store: &RedisStore, claim: Claim) -> Holder {
    let (id, owner) = (claim.id, claim.owner);
    match store.claim(claim).await {
        Ok(Claimed::Fresh { fence, .. }) => Holder { id, owner, fence },
        other => panic!("not won: {other:?}"),
    }
}

async fn replay(store: &RedisStore, name: &str) -> Record {
    match store.claim(claim(name)).await {
        Ok(Claimed::Recorded { record, .. }) => record,
        other => panic!("no replay: {other:?}"),
    }
}

async fn connect(server: &RedisServer) -> RedisStore {
    let store = RedisStore::connect(server.url()).await;
    store.expect("redis is there")
}

#[tokio::test]
async fn a_first_request_costs_two_round_trips_and_a_replay_one() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    // Leaves the scripts in the server's cache.
    let warm = win(&store, claim("warm")).await;
    let _ = store.complete(warm, record(b""), HOUR).await;

    let before = server.round_trips();
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    assert_eq!(server.round_trips() - before, 2);

    let before = server.round_trips();
    assert_eq!(replay(&store, "k").await, record(b"{}"));
    assert_eq!(server.round_trips() - before, 1);
}

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("k")).await;
    server.command(&["SCRIPT", "FLUSH"]);
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    server.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(replay(&store, "k").await, record(b"{}"));
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["volatile-lru", "volatile-ttl", "allkeys-lru"] {
        let server = RedisServer::with(&["--maxmemory-policy", policy]);
        let error = RedisStore::connect(server.url()).await.expect_err(policy);
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
        assert!(error.to_string().contains(policy), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_tell_its_policy_is_taken() {
    let server = RedisServer::with(&["--rename-command", "INFO", ""]);
    let store = connect(&server).await;
    win(&store, claim("k")).await;
}

#[tokio::test]
async fn a_full_server_takes_no_new_key_and_drops_none() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("held")).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);

    let claimed = store.claim(claim("new")).await;
    assert!(matches!(claimed, Ok(Claimed::Full)), "{claimed:?}");
    let renewed = store.renew(holder, HOUR).await;
    assert_eq!(renewed.expect("it needs no memory"), Settled::Done);
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert!(completed.is_err(), "{completed:?}");
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));

    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("there is room"), Settled::Done);
    win(&store, claim("new")).await;
}

#[tokio::test]
async fn a_claim_counts_when_the_replica_has_it() {
    let primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    eventually_async("the replica", async || {
        let state = primary.info("slave0")?;
        state.contains("state=online").then_some(())
    })
    .await;
    let store = RedisStore::builder()
        .url(primary.url())
        .timeout(Duration::from_secs(10))
        .min_replicas(1, Duration::from_millis(200))
        .connect()
        .await
        .expect("redis is there");
    let acknowledged = eventually_async("an acknowledgement", async || {
        let first = claim("acknowledged");
        let (id, owner) = (first.id, first.owner);
        match store.claim(first).await {
            Ok(Claimed::Fresh { fence, .. }) => Some(Holder { id, owner, fence }),
            _ => None,
        }
    })
    .await;

    replica.stall();
    let stalled = claim("stalled");
    for _ in 0..2 {
        // Also when it is asked again, on whichever connection.
        let claimed = store.claim(stalled.clone()).await;
        assert!(claimed.is_err(), "{claimed:?}");
    }
    let completed = store.complete(acknowledged, record(b"{}"), HOUR).await;
    assert!(completed.is_err(), "{completed:?}");

    replica.go_on();
    win(&store, stalled).await;
    let completed = store.complete(acknowledged, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("the replica is back"), Settled::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_every_rule() {
    let nodes = cluster();
    let store = RedisStore::builder()
        .cluster(nodes.iter().map(RedisServer::url))
        .timeout(Duration::from_secs(10))
        .connect()
        .await
        .expect("the cluster is there");
    Contract::of(store).rounds(10).assert().await;
    for node in &nodes {
        assert_ne!(node.command(&["DBSIZE"]), "0", "every node has its share");
    }
}

#[tokio::test]
async fn a_cluster_that_evicts_is_refused() {
    let nodes = cluster();
    nodes[2].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let builder = RedisStore::builder().cluster(nodes.iter().map(RedisServer::url));
    let error = builder.connect().await.expect_err("one node evicts");
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
}

#[tokio::test]
async fn sentinel_leads_to_the_new_primary() {
    let mut primary = RedisServer::start();
    let port = primary.port.to_string();
    let _replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let sentinel = Sentinel::watching(&primary);
    eventually_async("the replica", async || {
        (sentinel.says("num-slaves") == "1").then_some(())
    })
    .await;
    let store = RedisStore::builder()
        .sentinel("trades", [sentinel.url()])
        .connect()
        .await
        .expect("the primary is there");
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    eventually_async("replication", async || {
        (_replica.command(&["DBSIZE"]) == "1").then_some(())
    })
    .await;

    primary.kill();
    let replayed = eventually_async("the failover", async || {
        match store.claim(claim("k")).await {
            Ok(Claimed::Recorded { record, .. }) => Some(record),
            Ok(other) => panic!("the replica had the record: {other:?}"),
            Err(_) => None,
        }
    })
    .await;
    assert_eq!(replayed, record(b"{}"));
    // And it takes writes.
    eventually_async("the new primary", async || {
        store.claim(claim("new")).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_restart_replays_from_the_append_only_file() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connect(&server).await;
    let done = win(&store, claim("done")).await;
    let completed = store.complete(done, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    let held = win(&store, claim("held")).await;

    server.kill();
    let error = store.claim(claim("new")).await.expect_err("redis is gone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");

    server.start_again();
    assert_eq!(replay(&store, "done").await, record(b"{}"));
    let duplicate = store.claim(claim("held")).await;
    assert!(matches!(duplicate, Ok(Claimed::InFlight { .. })));
    let completed = store.complete(held, record(b"late"), HOUR).await;
    assert_eq!(completed.expect("redis is back"), Settled::Done);
    // Another process finds the same.
    assert_eq!(
        replay(&connect(&server).await, "held").await,
        record(b"late")
    );
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_taken_up_again() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_millis(300)).connect().await;
    let store = store.expect("redis is there");
    server.stall();
    let lost = claim("k");
    let asked_at = Instant::now();
    let error = store.claim(lost.clone()).await.expect_err("redis hangs");
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    assert!(asked_at.elapsed() >= Duration::from_millis(300));

    server.go_on();
    // The claim whose answer was lost had been sent, and its owner wins it.
    let holder = eventually_async("an answer", async || {
        match store.claim(lost.clone()).await {
            Ok(Claimed::Fresh { fence, .. }) => Some(Holder {
                id: lost.id,
                owner: lost.owner,
                fence,
            }),
            Ok(other) => panic!("its own claim: {other:?}"),
            Err(_) => None,
        }
    })
    .await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is back"), Settled::Done);
}

#[tokio::test]
async fn a_completion_that_is_repeated_is_done_and_prolongs_nothing() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("k")).await;
    for ttl in [HOUR, 10 * HOUR] {
        let completed = store.complete(holder, record(b"{}"), ttl).await;
        assert_eq!(completed.expect("redis is there"), Settled::Done);
    }
    match store.look_up(holder.id).await {
        Ok(Some(Entry::Recorded { expires_in, .. })) => assert!(expires_in <= HOUR),
        entry => panic!("no record: {entry:?}"),
    }
}

#[tokio::test]
async fn what_is_not_a_record_stays_as_it_is() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let key = format!("idem:{}", id("k"));
    for (write, read) in [
        (vec!["RPUSH", &key, "x"], vec!["LRANGE", &key, "0", "-1"]),
        (vec!["SET", &key, "x"], vec!["GET", &key]),
        // Without an end.
        (vec!["SET", &key, "\u{1}C"], vec!["STRLEN", &key]),
        (
            vec!["SET", &key, "\u{9}R", "PX", "99999"],
            vec!["GET", &key],
        ),
    ] {
        server.command(&write);
        let before = server.command(&read);
        let error = store.claim(claim("k")).await.expect_err("not a record");
        assert!(matches!(error, StoreError::Undecodable(_)), "{error:?}");
        assert_eq!(server.command(&read), before);
        assert!(store.forget(id("k")).await.expect("redis is there"));
    }
    server.command(&["SET", &key, "\u{9}R", "PX", "99999"]);
    let error = store.claim(claim("k")).await.expect_err("another version");
    assert!(matches!(
        error,
        StoreError::Undecodable(DecodeError::Version(9))
    ));
}

#[tokio::test]
async fn keys_and_scopes_are_only_bytes() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.prefix("{p}*\r\nDEL %s '").connect().await;
    let store = store.expect("redis is there");
    let names = [
        "*",
        "a\r\nDEL x",
        "'; drop table idem;--",
        "{tag}",
        "%",
        "",
        "\0",
    ];
    for name in names {
        let holder = win(&store, claim(name)).await;
        let completed = store.complete(holder, record(name.as_bytes()), HOUR).await;
        assert_eq!(completed.expect("redis is there"), Settled::Done);
    }
    for name in names {
        assert_eq!(replay(&store, name).await, record(name.as_bytes()));
    }
    assert_eq!(server.command(&["DBSIZE"]), names.len().to_string());
}

#[tokio::test]
async fn no_key_no_token_and_no_scope_is_ever_stored() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = connect(&server).await;
    let id = RecordId::new(
        "production",
        &Scope::new()
            .value("Bearer SECRETTOKEN")
            .value("SECRETSCOPE"),
        "SECRETKEY",
    );
    let holder = win(&store, Claim::new(id, FINGERPRINT, HOUR, HOUR)).await;
    let completed = store.complete(holder, record(b"PUBLICBODY"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    server.command(&["SAVE"]);
    let bytes = server.bytes_on_disk();
    let holds = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(
        holds("PUBLICBODY"),
        "the record was looked for in the wrong place"
    );
    for secret in ["SECRETTOKEN", "SECRETSCOPE", "SECRETKEY", "Bearer"] {
        assert!(!holds(secret), "{secret} is stored");
    }
}

#[tokio::test]
async fn settings_that_do_not_go_together_are_told() {
    let builder = RedisStore::builder().cluster(["redis://127.0.0.1:1"]);
    let error = builder
        .min_replicas(1, Duration::from_secs(1))
        .connect()
        .await;
    assert!(matches!(error, Err(StoreError::Unfit(_))), "{error:?}");
    let error = RedisStore::connect("redis://user:PASSWORD@127.0.0.1:1").await;
    let error = format!("{:?}", error.expect_err("nobody listens there"));
    assert!(!error.contains("PASSWORD"), "{error}");
    let error = RedisStore::connect("nonsense").await;
    assert!(error.is_err());
}
