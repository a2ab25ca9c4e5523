//! The Redis store when connections break, stall, idle or lead to a server that refuses.
#![cfg(feature = "redis")]

use test_support::listing::listing;
use test_support::servers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use idem_runtime::store::{Claim, Claimed, Holder, Query, RedisStore, Settled, Store, StoreError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use servers::asking::{FINGERPRINT, HOUR, claim, complete, id, record, replay, win};
use servers::redis::RedisServer;
use servers::{eventually, eventually_async};

/// A proxy that can lose one command or one reply. It then closes the connection.
struct Cutter {
    address: SocketAddr,
    state: Arc<Cuts>,
}

#[derive(Default)]
struct Cuts {
    /// Which coming reply is lost, counted from 1. 0 loses none.
    replies: AtomicUsize,
    /// Which coming command is lost before the server receives it, counted from 1. 0 loses none.
    commands: AtomicUsize,
    /// Whether new connections wait.
    holds_new: watch::Sender<bool>,
    /// How many milliseconds pass before the server gets a new connection.
    delays_new: AtomicU64,
}

impl Cutter {
    async fn before(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Cuts::default());
        let (port, passing) = (server.port, state.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = passing.clone();
                tokio::spawn(async move { passing.pass(client, port).await });
            }
        });
        Self { address, state }
    }

    fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Loses the next reply.
    fn cut(&self) {
        self.cut_after(0);
    }

    /// Lets this number of replies pass, and loses the next reply.
    fn cut_after(&self, replies: usize) {
        self.state.replies.store(replies + 1, Ordering::SeqCst);
    }

    /// Loses the command after this number of commands.
    fn cut_before(&self, commands: usize) {
        self.state.commands.store(commands + 1, Ordering::SeqCst);
    }

    fn has_cut(&self) -> bool {
        let Cuts {
            replies, commands, ..
        } = &*self.state;
        [replies, commands].map(|it| it.load(Ordering::SeqCst)) == [0, 0]
    }

    async fn until_cut(&self) {
        eventually_async("the cut", async || self.has_cut().then_some(())).await;
    }

    /// Holds new connections, or lets them in.
    fn hold_new(&self, holds: bool) {
        self.state.holds_new.send_replace(holds);
    }

    /// Delays new connections, as a slow network does while it shakes hands.
    fn delay_new(&self, millis: u64) {
        self.state.delays_new.store(millis, Ordering::SeqCst);
    }
}

impl Cuts {
    async fn pass(&self, client: TcpStream, port: u16) {
        let mut holds_new = self.holds_new.subscribe();
        // The sender lives as long as this state.
        let _ = holds_new.wait_for(|holds| !holds).await;
        let delay = self.delays_new.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let server = TcpStream::connect(("127.0.0.1", port)).await;
        let (from_server, to_server) = server.expect("redis is there").into_split();
        let (from_client, to_client) = client.into_split();
        tokio::select! {
            () = pass_until_cut(from_client, to_server, &self.commands) => {}
            () = pass_until_cut(from_server, to_client, &self.replies) => {}
        }
    }
}

async fn pass_until_cut(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, cuts: &AtomicUsize) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut bytes).await {
        let cut = cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        if cut == Ok(1) || to.write_all(&bytes[..len]).await.is_err() {
            break;
        }
    }
}

async fn connect(url: String) -> RedisStore {
    // A test machine may be busy.
    let builder = RedisStore::builder().timeout(Duration::from_secs(10));
    builder.url(url).connect().await.expect("redis is there")
}

#[tokio::test]
async fn a_transition_reports_its_effect_after_a_lost_reply() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let store = connect(cutter.url()).await;

    cutter.cut();
    let holder = win(&store, claim("released")).await;
    assert!(cutter.has_cut());
    cutter.cut();
    let released = store.release(holder).await;
    assert_eq!(released.expect("redis is there"), Settled::Done);
    assert!(cutter.has_cut());
    let entry = store.look_up(holder.id).await.expect("redis is there");
    assert!(entry.is_none(), "{entry:?}");
    // The next claim is a first attempt.
    match store.claim(claim("released")).await {
        Ok(Claimed::Fresh { fence, attempt: 1 }) => assert!(fence > holder.fence),
        other => panic!("a released key is free: {other:?}"),
    }
    let late = store.release(holder).await;
    assert_eq!(late.expect("redis is there"), Settled::Lost);

    let holder = win(&store, claim("completed")).await;
    cutter.cut();
    let completed = store.complete(holder, record(b"{}"), HOUR).await;
    assert_eq!(completed.expect("redis is there"), Settled::Done);
    assert!(cutter.has_cut());

    let holder = win(&store, claim("resolved")).await;
    let abandoned = store.abandon(holder).await;
    assert_eq!(abandoned.expect("redis is there"), Settled::Done);
    cutter.cut();
    let resolved = store.resolve(holder.id, holder.fence, record(b"by hand"), HOUR);
    assert_eq!(resolved.await.expect("redis is there"), Settled::Done);
    assert!(cutter.has_cut());
    assert_eq!(replay(&store, "resolved").await, record(b"by hand"));
    let another = store.resolve(holder.id, holder.fence, record(b"another"), HOUR);
    assert_eq!(another.await.expect("redis is there"), Settled::Lost);
}

/// The first round trip of `forget` reads the entry, and the second removes the entry.
#[tokio::test]
async fn forget_reports_its_effect_after_a_lost_reply() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let store = connect(cutter.url()).await;
    for replies in [0, 1] {
        complete(&store, "forgotten").await;
        cutter.cut_after(replies);
        let was_there = store.forget(id("forgotten")).await;
        assert!(cutter.has_cut());
        assert!(was_there.expect("redis is there"), "{replies}");
        let entry = store.look_up(id("forgotten")).await;
        assert!(entry.expect("redis is there").is_none());
    }
    assert!(!store.forget(id("forgotten")).await.expect("redis is there"));
}

/// Claims with a lease that ends immediately.
async fn win_for_a_moment(store: &RedisStore, name: &str) -> Holder {
    win(
        store,
        Claim::new(id(name), FINGERPRINT, Duration::from_millis(1), HOUR),
    )
    .await
}

/// Takes over a claim when its lease has ended.
async fn take_over(store: &RedisStore, name: &str) {
    eventually_async("a takeover", async || {
        let claimed = store.claim(claim(name)).await;
        matches!(claimed, Ok(Claimed::Fresh { attempt: 2, .. })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_repeated_release_reports_its_effect_after_a_new_claim() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let (store, other) = (connect(cutter.url()).await, connect(server.url()).await);
    for name in ["claimed since", "completed since"] {
        let holder = win(&store, claim(name)).await;
        cutter.hold_new(true);
        cutter.cut();
        let releasing = store.release(holder);
        let releasing = tokio::spawn(releasing);
        cutter.until_cut().await;
        let since = win(&other, claim(name)).await;
        if name == "completed since" {
            let completed = other.complete(since, record(b"{}"), HOUR).await;
            assert_eq!(completed.expect("redis is there"), Settled::Done);
        }
        cutter.hold_new(false);
        let released = releasing.await.expect("no panic");
        assert_eq!(released.expect("sent again"), Settled::Done, "{name}");
        let entry = other.look_up(since.id).await.expect("redis is there");
        assert!(entry.is_some(), "the later claim stays");
    }

    let holder = win_for_a_moment(&store, "taken over").await;
    take_over(&other, "taken over").await;
    cutter.cut();
    let released = store.release(holder).await;
    assert!(cutter.has_cut());
    assert_eq!(released.expect("sent again"), Settled::Lost);
}

#[tokio::test]
async fn a_repeated_removal_does_not_remove_a_later_claim() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let (store, other) = (connect(cutter.url()).await, connect(server.url()).await);
    complete(&store, "k").await;
    cutter.hold_new(true);
    cutter.cut_after(1);
    let forgetting = tokio::spawn(store.forget(id("k")));
    cutter.until_cut().await;
    let holder = win(&other, claim("k")).await;
    cutter.hold_new(false);
    assert!(forgetting.await.expect("no panic").expect("sent again"));
    let renewed = other.renew(holder, HOUR).await;
    assert_eq!(renewed.expect("redis is there"), Settled::Done);
}

/// The command is lost, not its reply, and another attempt takes over the claim before the store
/// sends the command again.
#[tokio::test]
async fn a_removal_that_is_sent_again_removes_a_takeover() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let (store, other) = (connect(cutter.url()).await, connect(server.url()).await);
    // The server caches the scripts.
    complete(&store, "warm").await;
    assert!(store.forget(id("warm")).await.expect("redis is there"));
    win_for_a_moment(&store, "k").await;
    cutter.hold_new(true);
    cutter.cut_before(1);
    let forgetting = tokio::spawn(store.forget(id("k")));
    cutter.until_cut().await;
    take_over(&other, "k").await;
    cutter.hold_new(false);
    assert!(forgetting.await.expect("no panic").expect("sent again"));
    let entry = other.look_up(id("k")).await.expect("redis is there");
    assert!(entry.is_none(), "{entry:?}");
}

/// A server that was frozen still executes earlier commands. Nobody waits for that claim any more,
/// and it would hold the key.
#[tokio::test]
async fn a_claim_executed_after_its_deadline_has_no_effect() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(1)).connect().await;
    let store = store.expect("redis is there");
    complete(&store, "warm").await;
    let before = evaluations(&server);

    server.stall();
    let error = store.claim(claim("k")).await.expect_err("redis hangs");
    assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    server.go_on();
    eventually("the late claim", || {
        (evaluations(&server) > before).then_some(())
    });
    assert_eq!(
        server.command(&["EXISTS", &format!("idem:{}", id("k"))]),
        "0"
    );
    win(&connect(server.url()).await, claim("k")).await;
}

/// The number of scripts that the server has executed for clients.
fn evaluations(server: &RedisServer) -> u64 {
    let stats = server.command(&["INFO", "commandstats"]);
    let calls = stats.lines().find_map(|line| {
        let (calls, _) = line
            .strip_prefix("cmdstat_evalsha:calls=")?
            .split_once(',')?;
        calls.parse().ok()
    });
    calls.unwrap_or_default()
}

/// The number of connections that the server has accepted, including those of `redis-cli`.
fn connections(server: &RedisServer) -> u64 {
    let received = server.info("total_connections_received");
    received.and_then(|it| it.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_demoted_server_gets_few_new_connections() {
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    complete(&store, "k").await;
    // No server listens there.
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let before = connections(&server);
    for n in 0..100 {
        let refused = store.claim(claim(&n.to_string())).await;
        let error = refused.expect_err("a replica accepts no writes");
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
    }
    let made = connections(&server) - before;
    assert!(made < 20, "{made} connections for 100 claims");

    server.command(&["REPLICAOF", "NO", "ONE"]);
    eventually_won(&store, "back").await;
    assert!(store.forget(id("k")).await.expect("redis is there"));
}

/// A process without claims has no transition that would replace a broken connection.
#[tokio::test]
async fn operators_reach_a_restarted_server_without_any_claim() {
    let mut server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    complete(&connect(server.url()).await, "k").await;
    let store = connect(server.url()).await;
    assert_eq!(listing(&store).await.len(), 1);
    server.kill();
    let error = store.stats().await.expect_err("redis is gone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    server.start_again();
    assert_eq!(listing(&store).await.len(), 1);
    let stats = store.stats().await.expect("redis is back");
    assert_eq!(stats.recorded.value, 1);
    let scope = id("k").scope_id();
    assert_eq!(store.forget_scope(scope).await.expect("redis is back"), 1);
    assert!(listing(&store).await.is_empty());
}

/// A server that has become a replica may miss the newest records.
#[tokio::test]
async fn operators_get_an_error_from_a_demoted_server() {
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    assert!(listing(&store).await.is_empty());
    // No server listens there.
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let listed = store.list(Query::all()).await;
    assert!(matches!(listed, Err(StoreError::Unfit(_))), "{listed:?}");
    let counted = store.stats().await;
    assert!(matches!(counted, Err(StoreError::Unfit(_))), "{counted:?}");
    let scope = id("k").scope_id();
    let forgotten = store.forget_scope(scope).await;
    assert!(
        matches!(forgotten, Err(StoreError::Unfit(_))),
        "{forgotten:?}"
    );
}

/// A cursor contains the keys that a scan found and no page has listed. It travels in URLs and headers.
#[tokio::test]
async fn operators_get_short_cursors() {
    let server = RedisServer::start();
    let store = connect(server.url()).await;
    let names: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    join_all(names.iter().map(|name| complete(&store, name))).await;
    let mut query = Query::all().scope(id("0").scope_id()).limit(10);
    let mut listed = BTreeSet::new();
    loop {
        let page = store.list(query.clone()).await.expect("redis is there");
        listed.extend(page.entries.iter().map(|entry| entry.id));
        let Some(next) = page.next else { break };
        assert!(next.as_bytes().len() < 4_096, "{}", next.as_bytes().len());
        query = query.after(next);
    }
    assert_eq!(listed.len(), 300);
}

/// Each page opens a connection, which takes longer here than the time after which a page ends.
#[tokio::test]
async fn a_listing_over_slow_connections_completes() {
    let server = RedisServer::start();
    let cutter = Cutter::before(&server).await;
    let builder = RedisStore::builder().timeout(Duration::from_secs(4));
    let store = builder.url(cutter.url()).connect().await;
    let store = store.expect("redis is there");
    let names: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    join_all(names.iter().map(|name| complete(&store, name))).await;
    cutter.delay_new(2_200);
    let mut query = Query::all();
    let mut listed = BTreeSet::new();
    for _ in 0..4 {
        let page = store.list(query.clone()).await.expect("redis is there");
        listed.extend(page.entries.iter().map(|entry| entry.id));
        let Some(next) = page.next else {
            assert_eq!(listed.len(), 30);
            return;
        };
        query = query.after(next);
    }
    panic!("{} records on four pages, and no end", listed.len());
}

async fn eventually_won(store: &RedisStore, name: &str) {
    eventually_async("a claim", async || {
        let claimed = store.claim(claim(name)).await;
        matches!(claimed, Ok(Claimed::Fresh { .. })).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_connection_is_reported_before_the_timeout() {
    let mut server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_secs(3600)).connect().await;
    let store = store.expect("redis is there");
    complete(&store, "k").await;
    server.kill();
    for _ in 0..10 {
        let error = store.claim(claim("k")).await.expect_err("nobody listens");
        assert!(error.to_string().contains("refuses connections"), "{error}");
    }
    server.start_again();
    eventually_won(&store, "back").await;
}

/// Tests a store with one connection, and a store with eight.
#[tokio::test]
async fn closed_idle_connections_cause_no_error() {
    let server = RedisServer::with(&["--timeout", "1"]);
    let one = connect(server.url()).await;
    let builder = RedisStore::builder().timeout(Duration::from_secs(10));
    let eight = builder
        .url(server.url())
        .min_replicas(0, Duration::from_secs(1));
    let eight = eight.connect().await.expect("redis is there");
    for round in 0..2 {
        for n in 0..8 {
            complete(&one, &format!("one {round} {n}")).await;
            complete(&eight, &format!("eight {round} {n}")).await;
        }
        eventually("the end of the idle connections", || {
            (server.info("connected_clients")? == "1").then_some(())
        });
    }
    replay(&one, "one 0 0").await;
    replay(&eight, "eight 0 0").await;
}

/// The transition waits only for its own timeout, but the connection attempt continues.
#[tokio::test]
async fn a_connection_that_takes_longer_than_one_transition_serves_the_next() {
    let server = RedisServer::start();
    let builder = RedisStore::builder().url(server.url());
    let store = builder.timeout(Duration::from_millis(200)).connect().await;
    let store = store.expect("redis is there");
    complete(&store, "k").await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    server.stall();
    for _ in 0..3 {
        let error = store.claim(claim("k")).await.expect_err("redis hangs");
        assert!(matches!(error, StoreError::TimedOut), "{error:?}");
    }
    server.go_on();
    eventually_async("a replay", async || {
        let claimed = store.claim(claim("k")).await;
        matches!(claimed, Ok(Claimed::Recorded { .. })).then_some(())
    })
    .await;
}

/// The server's clock was set forward, so all claims seem to be late.
#[tokio::test]
async fn a_late_claim_is_repeated_with_the_current_server_clock() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(wrong_clock(client));
        }
    });
    let store = RedisStore::builder().url(url).connect().await;
    let store = store.expect("the fake server replies to everything");
    win(&store, claim("k")).await;
}

/// With `min_replicas` the store has several connections, each with its own reading of the clock.
#[tokio::test]
async fn a_late_claim_is_repeated_over_the_connection_that_has_read_the_clock() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("redis://{}/", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(wrong_clock(client));
        }
    });
    let builder = RedisStore::builder().url(url);
    let builder = builder.min_replicas(1, Duration::from_millis(100));
    let store = builder.connect().await;
    let store = store.expect("the fake server replies to everything");
    for name in 0..20 {
        win(&store, claim(&name.to_string())).await;
    }
}

/// Replies like a server whose clock shows 1 second when a connection opens, and 9 seconds at every
/// claim.
async fn wrong_clock(client: TcpStream) {
    const CLAIMED_AT: u64 = 9_000_000;
    let mut client = BufStream::new(client);
    while let Some(command) = read_command(&mut client).await {
        let name = command[0].to_ascii_uppercase();
        let mut reply = match &name[..] {
            b"TIME" => b"*2\r\n$1\r\n1\r\n$1\r\n0\r\n".to_vec(),
            b"WAIT" => b":1".to_vec(),
            b"INFO" => b"$11\r\nrole:master\r\n".to_vec(),
            b"EVALSHA" if command.len() == 10 => {
                let deadline = String::from_utf8_lossy(&command[9]);
                let is_late = deadline.parse::<u64>().expect("a number") < CLAIMED_AT;
                // Replies `TOO_LATE`, or `FRESH`.
                let mut reply = if is_late {
                    b"$9\r\n\x06".to_vec()
                } else {
                    b"$13\r\n\x01".to_vec()
                };
                reply.extend_from_slice(&CLAIMED_AT.to_le_bytes());
                if !is_late {
                    reply.extend_from_slice(&1_u32.to_le_bytes());
                }
                reply
            }
            _ => b"+OK".to_vec(),
        };
        if !reply.ends_with(b"\r\n") {
            reply.extend_from_slice(b"\r\n");
        }
        let sent = client.write_all(&reply).await;
        if sent.is_err() || client.flush().await.is_err() {
            return;
        }
    }
}

/// The next command. `None` when the connection was closed.
async fn read_command(client: &mut BufStream<TcpStream>) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    for _ in 0..number(client).await? {
        let mut part = vec![0; number(client).await? + 2];
        client.read_exact(&mut part).await.ok()?;
        part.truncate(part.len() - 2);
        parts.push(part);
    }
    Some(parts)
}

/// Reads a line such as `*3` or `$11`.
async fn number(client: &mut BufStream<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).await.ok()?;
    line.get(1..)?.trim_end().parse().ok()
}
