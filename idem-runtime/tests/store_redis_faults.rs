//! The Redis store when the server is full, loses its scripts, or holds unreadable values.
#![cfg(feature = "redis")]

use test_support::servers;

use std::time::Duration;

use idem_runtime::store::{
    Claim, Claimed, DecodeError, Entry, NearCache, RedisStore, Settled, Store, StoreError,
};
use idem_runtime::{RecordId, Scope};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use servers::asking::{FINGERPRINT, HOUR, claim, complete, id, record, replay, win};
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
    // Loads the scripts into the server's cache.
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
async fn a_replay_from_the_near_cache_costs_no_round_trip() {
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
async fn one_connection_serves_every_transition() {
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
    assert_eq!(
        connections() - before,
        1,
        "only `redis-cli` opened a connection"
    );
}

#[tokio::test]
async fn the_given_user_password_and_database_are_used() {
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
async fn a_server_without_a_readable_policy_is_accepted() {
    let server = RedisServer::with(&["--rename-command", "INFO", ""]);
    let store = connect(&server).await;
    win(&store, claim("k")).await;
}

#[tokio::test]
async fn a_full_server_refuses_new_keys_and_keeps_the_others() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let holder = win(&store, claim("held")).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);

    let before = server.round_trips();
    let claimed = store.claim(claim("new")).await;
    assert!(matches!(claimed, Ok(Claimed::Full)), "{claimed:?}");
    // A script that the server already knows is not sent again.
    assert_eq!(server.round_trips() - before, 1);
    let renewed = store.renew(holder, HOUR).await;
    assert_eq!(renewed.expect("a renewal needs no memory"), Settled::Done);
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
async fn a_repeated_completion_is_done_and_does_not_extend_the_record() {
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
async fn unreadable_values_are_left_unchanged() {
    let server = RedisServer::start();
    let store = connect(&server).await;
    let key = format!("idem:{}", id("k"));
    for (write, read) in [
        (vec!["RPUSH", &key, "x"], vec!["LRANGE", &key, "0", "-1"]),
        (vec!["SET", &key, "x"], vec!["GET", &key]),
        // A value without an expiry.
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
async fn special_characters_in_keys_and_scopes_are_harmless() {
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
async fn keys_tokens_and_scopes_are_never_stored() {
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
        "the test searched the wrong place"
    );
    for secret in ["SECRETTOKEN", "SECRETSCOPE", "SECRETKEY", "Bearer"] {
        assert!(!server.has_on_disk(secret), "{secret} is stored");
    }
}

/// A connection that breaks while the policy is read does not mean that the server hides its
/// policy.
#[tokio::test]
async fn a_connection_lost_during_the_policy_check_is_an_error() {
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
                // A valid reply to everything that a client says about itself.
                let commands = asked.matches('*').count();
                let reply = "+OK\r\n".repeat(commands);
                stream.write_all(reply.as_bytes()).await.expect("it reads");
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
async fn the_wait_for_replicas_is_added_to_the_timeout() {
    let server = RedisServer::start();
    let store = RedisStore::builder()
        .url(server.url())
        .timeout(Duration::from_secs(1))
        .min_replicas(1, Duration::from_millis(1_500))
        .connect()
        .await
        .expect("redis is there");
    // The first claim loads the script into the server's cache.
    assert!(store.claim(claim("first")).await.is_err());
    let claimed = store.claim(claim("k")).await;
    assert!(
        matches!(claimed, Err(StoreError::Unavailable(_))),
        "{claimed:?}"
    );
}

#[tokio::test]
async fn an_unreachable_server_has_a_clear_message() {
    let refused = RedisStore::connect("redis://user:PASSWORD@127.0.0.1:1/").await;
    let refused = refused.expect_err("nobody listens there");
    assert!(refused.to_string().contains("refuses connections"));
    assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");

    let server = RedisServer::start();
    server.command(&["CONFIG", "SET", "requirepass", "secret"]);
    let builder = RedisStore::builder().url(server.url());
    let wrong = builder.clone().password("PASSWORD").connect().await;
    let none = builder.connect().await;
    for error in [&wrong, &none].map(|it| it.as_ref().expect_err("the password is wrong")) {
        assert!(error.to_string().contains("the password"), "{error}");
    }
    for error in [refused, wrong.expect_err("refused")] {
        let error = format!("{error} {error:?}");
        assert!(!error.contains("PASSWORD"), "{error}");
    }

    for nonsense in ["nonsense", "http://127.0.0.1/"] {
        let error = RedisStore::connect(nonsense).await.expect_err(nonsense);
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_replica_is_refused() {
    let primary = RedisServer::start();
    let port = primary.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    let error = RedisStore::connect(replica.url()).await;
    let error = error.expect_err("a replica accepts no writes");
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
    assert!(error.to_string().contains("is a replica"), "{error}");
}

/// Checks every right that the store needs, and the message when a right is missing.
#[tokio::test]
async fn a_missing_right_is_named_at_connect() {
    const NEEDED: [&str; 9] = [
        "evalsha", "eval", "get", "set", "pttl", "pexpire", "del", "time", "info",
    ];
    let server = RedisServer::start();
    let allow = |rights: &[String]| {
        let mut command = vec![
            "ACL", "SETUSER", "desk", "reset", "on", ">secret", "~idem:*",
        ];
        command.extend(rights.iter().map(String::as_str));
        assert_eq!(server.command(&command), "OK");
    };
    let builder = RedisStore::builder().url(server.url());
    let builder = builder.username("desk").password("secret");

    let all = NEEDED.map(|name| format!("+{name}"));
    allow(&all);
    let store = builder
        .clone()
        .connect()
        .await
        .expect("the user has every right");
    complete(&store, "k").await;
    let holder = win(&store, claim("released")).await;
    let renewed = store.renew(holder, HOUR).await;
    assert_eq!(renewed.expect("the user has the right"), Settled::Done);
    let released = store.release(holder).await;
    assert_eq!(released.expect("the user has the right"), Settled::Done);
    assert!(store.forget(id("k")).await.expect("the user has the right"));
    assert_eq!(server.command(&["KEYS", "idem:probe*"]), "");

    for missing in NEEDED.iter().filter(|name| **name != "info") {
        let rights: Vec<_> = all
            .iter()
            .filter(|it| it[1..] != **missing)
            .cloned()
            .collect();
        allow(&rights);
        let error = builder.clone().connect().await.expect_err(missing);
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
        let name = format!("refuses `{}`", missing.to_uppercase());
        assert!(error.to_string().contains(&name), "{error}");
    }
}

#[tokio::test]
async fn a_renamed_command_is_named_at_connect() {
    for name in ["EVALSHA", "EVAL", "PEXPIRE", "TIME"] {
        let server = RedisServer::with(&["--rename-command", name, "OTHER"]);
        let error = RedisStore::connect(server.url()).await.expect_err(name);
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
        let refused = format!("refuses `{name}`");
        assert!(error.to_string().contains(&refused), "{error}");
    }
}

#[tokio::test]
async fn the_longest_durations_are_accepted() {
    let server = RedisServer::start();
    let store = RedisStore::builder()
        .url(server.url())
        .timeout(Duration::MAX)
        .min_replicas(0, Duration::MAX)
        .connect()
        .await
        .expect("redis is there");
    let mut longest = claim("k");
    (longest.lease, longest.retention) = (Duration::MAX, Duration::MAX);
    let holder = win(&store, longest).await;
    let renewed = store.renew(holder, Duration::MAX).await;
    assert_eq!(renewed.expect("redis is there"), Settled::Done);
    let completed = store.complete(holder, record(b"{}"), Duration::MAX).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    replay(&store, "k").await;
}
