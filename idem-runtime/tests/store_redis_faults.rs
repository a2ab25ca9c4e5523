//! The Redis store when the server is full, forgetful, or holds what it cannot read.
#![cfg(feature = "redis")]

use test_support::servers;

use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, DecodeError, Entry, NearCache, RedisStore, Settled, Store, StoreError,
};
use idem_runtime::{RecordId, Scope};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};
use servers::redis::RedisServer;

async fn connect(server: &RedisServer) -> RedisStore {
    let builder = RedisStore::builder().url(server.url());
    // A test machine may be busy.
    let store = builder.timeout(Duration::from_secs(10)).connect().await;
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
async fn a_replay_from_the_near_cache_costs_none() {
    let server = RedisServer::start();
    let store = NearCache::new(connect(&server).await);
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    replay(&store, "k").await;
    let before = server.round_trips();
    assert_eq!(replay(&store, "k").await, record(b"{}"));
    assert_eq!(server.round_trips(), before);
}

#[tokio::test]
async fn a_connection_that_stands_serves_every_transition() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let connections = || -> u64 {
        let received = server.info("total_connections_received");
        received.and_then(|it| it.parse().ok()).expect("a number")
    };
    let before = connections();
    let holder = win(&store, claim("k")).await;
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    assert_eq!(replay(&store, "k").await, record(b"{}"));
    assert_eq!(connections() - before, 1, "it is the one that asks");
}

#[tokio::test]
async fn it_signs_in_as_it_is_told() {
    let server = RedisServer::start();
    server.command(&[
        "ACL", "SETUSER", "desk", "on", ">secret", "~*", "&*", "+@all",
    ]);
    let builder = RedisStore::builder().url(server.url()).username("desk");
    let builder = builder.timeout(Duration::from_secs(10));
    let refused = builder.clone().password("wrong").connect().await.err();
    assert!(
        matches!(refused, Some(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let builder = builder.password("secret").database(3);
    let store = builder.connect().await.expect("the password is right");
    win(&store, claim("k")).await;
    let clients = server.command(&["CLIENT", "LIST"]);
    let is_the_store = |client: &str| client.contains(" user=desk ") && client.contains(" db=3 ");
    assert!(clients.lines().any(is_the_store), "{clients}");
    assert_eq!(server.command(&["-n", "3", "DBSIZE"]), "1");
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

    let before = server.round_trips();
    let claimed = store.claim(claim("new")).await;
    assert!(matches!(claimed, Ok(Claimed::Full)), "{claimed:?}");
    // A script that the server knows is not sent again.
    assert_eq!(server.round_trips() - before, 1);
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
    assert!(
        server.has_on_disk("PUBLICBODY"),
        "the record was looked for in the wrong place"
    );
    for secret in ["SECRETTOKEN", "SECRETSCOPE", "SECRETKEY", "Bearer"] {
        assert!(!server.has_on_disk(secret), "{secret} is stored");
    }
}

/// A line that breaks while the policy is asked for is no server that keeps it to itself.
#[tokio::test]
async fn a_server_that_goes_while_it_is_looked_at_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 4 << 10];
            while let Ok(len @ 1..) = stream.read(&mut asked).await {
                let asked = String::from_utf8_lossy(&asked[..len]);
                if asked.contains("INFO\r\n$6\r\nmemory") {
                    break;
                }
                // Whatever a client says of itself is fine.
                let commands = asked.matches('*').count();
                let answer = "+OK\r\n".repeat(commands);
                stream.write_all(answer.as_bytes()).await.expect("it reads");
            }
        }
    });
    let error = RedisStore::connect(format!("redis://{address}")).await;
    assert!(
        matches!(error, Err(StoreError::Unavailable(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_wait_for_replicas_comes_on_top_of_the_time_for_one_transition() {
    let server = RedisServer::start();
    let store = RedisStore::builder()
        .url(server.url())
        .timeout(Duration::from_secs(1))
        .min_replicas(1, Duration::from_millis(1_500))
        .connect()
        .await
        .expect("redis is there");
    // The server learns the script by the first one.
    assert!(store.claim(claim("first")).await.is_err());
    let claimed = store.claim(claim("k")).await;
    assert!(
        matches!(claimed, Err(StoreError::Unavailable(_))),
        "{claimed:?}"
    );
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
