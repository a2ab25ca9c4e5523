//! The connections to a server that breaks, hangs or drops them.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
/// Two text columns (a process number and an empty setting), and the end of the statement.
const HELLO: &[u8] = b"T\0\0\0\x2e\0\x02\
    p\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
    t\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
    D\0\0\0\x0f\0\x02\0\0\0\x017\0\0\0\0\
    C\0\0\0\x0dSELECT 1\0";

/// Implements the part of the PostgreSQL protocol that connecting and pinging need.
#[derive(Default)]
struct FakeServer {
    opened: AtomicUsize,
    pinged: AtomicUsize,
    hangs_up: AtomicBool,
    /// The connections opened so far get no more replies.
    dark_to: AtomicUsize,
}

impl FakeServer {
    async fn start() -> (Arc<Self>, Arc<Connections>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let server = Arc::new(Self::default());
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                // The task ends when its client disconnects.
                tokio::spawn(async move { serving.serve(stream).await });
            }
        });
        let url = format!("postgres://desk@127.0.0.1:{port}/?sslmode=disable");
        let options = PgConnectOptions::from_str(&url).expect("a URL");
        let options = Server::Options(Box::new(options));
        (server, Connections::new(options, 2, Duration::from_secs(1)))
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let length = stream.read_u32().await?;
        skip(&mut stream, length).await?;
        let number = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
        stream.write_all(&[WELCOME, READY].concat()).await?;
        loop {
            let kind = stream.read_u8().await?;
            let length = stream.read_u32().await?;
            skip(&mut stream, length).await?;
            if kind == b'Q' {
                stream.write_all(&[HELLO, READY].concat()).await?;
            }
            if kind == b'S' {
                self.pinged.fetch_add(1, Ordering::SeqCst);
                if self.hangs_up.load(Ordering::SeqCst) {
                    return Ok(());
                }
                if number <= self.dark_to.load(Ordering::SeqCst) {
                    continue;
                }
                stream.write_all(READY).await?;
            }
        }
    }

    /// How many connections were opened, and how many pings were sent.
    fn counts(&self) -> (usize, usize) {
        let [opened, pinged] = [&self.opened, &self.pinged].map(|it| it.load(Ordering::SeqCst));
        (opened, pinged)
    }
}

/// Reads the rest of a message. The length includes its own four bytes.
async fn skip(stream: &mut TcpStream, length: u32) -> io::Result<()> {
    let mut rest = stream.take(u64::from(length).saturating_sub(4));
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn acquire(connections: &Arc<Connections>) -> Leased {
    let deadline = Instant::now() + Duration::from_secs(20);
    let leased = connections.acquire(deadline).await;
    leased.expect("the server accepts connections")
}

fn before(time: Instant, ago: Duration) -> Instant {
    let earlier = time.checked_sub(ago);
    earlier.expect("the machine has been up for longer")
}

fn stand_idle(connections: &Connections, time: Duration) {
    for idle in connections.idle().iter_mut() {
        idle.since = before(idle.since, time);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_used_connection_is_reused_without_a_ping() {
    let (server, connections) = FakeServer::start().await;
    for _ in 0..3 {
        acquire(&connections).await.keep();
    }
    assert_eq!(server.counts(), (1, 0));
}

#[tokio::test]
async fn a_broken_connection_closes_the_idle_ones() {
    let (server, connections) = FakeServer::start().await;
    let (first, second) = (acquire(&connections).await, acquire(&connections).await);
    first.keep();
    second.keep();
    let broken = acquire(&connections).await;
    broken.close(&StoreError::TimedOut);
    acquire(&connections).await.keep();
    assert_eq!(server.counts(), (3, 0));
}

#[tokio::test]
async fn an_idle_connection_is_pinged_before_reuse() {
    let (server, connections) = FakeServer::start().await;
    acquire(&connections).await.keep();
    stand_idle(&connections, TRUSTED_IDLE + SECOND);
    acquire(&connections).await.keep();
    assert_eq!(server.counts(), (1, 1));
    server.hangs_up.store(true, Ordering::SeqCst);
    stand_idle(&connections, TRUSTED_IDLE + SECOND);
    acquire(&connections).await.keep();
    assert_eq!(server.counts(), (2, 2));
}

/// A load balancer that dropped idle connections sends no reply and does not close them.
#[tokio::test]
async fn silently_dropped_idle_connections_do_not_fail_a_transition() {
    let (server, connections) = FakeServer::start().await;
    let (first, second) = (acquire(&connections).await, acquire(&connections).await);
    first.keep();
    second.keep();
    stand_idle(&connections, TRUSTED_IDLE + SECOND);
    server.dark_to.store(2, Ordering::SeqCst);
    acquire(&connections).await.keep();
    assert_eq!(server.counts(), (3, 1), "one ping for all idle connections");
}

#[tokio::test]
async fn expired_connections_are_closed() {
    let (_server, connections) = FakeServer::start().await;
    let (first, second) = (acquire(&connections).await, acquire(&connections).await);
    first.keep();
    stand_idle(&connections, MAX_IDLE + SECOND);
    second.keep();
    assert_eq!(connections.idle().len(), 1, "one was idle for too long");

    let mut old = acquire(&connections).await;
    let opened = &mut old.session().opened;
    *opened = before(*opened, MAX_AGE + SECOND);
    old.keep();
    assert_eq!(connections.idle().len(), 0, "one was open for too long");
}

/// Without this rule, a server that refuses writes would get new sessions for every claim.
#[tokio::test]
async fn a_new_connection_to_a_failing_server_is_kept() {
    let (server, connections) = FakeServer::start().await;
    acquire(&connections).await.keep();
    let reused = acquire(&connections).await;
    assert!(
        reused.leave(&StoreError::TimedOut),
        "a new connection may reach another server"
    );
    let new = acquire(&connections).await;
    assert!(
        !new.leave(&StoreError::TimedOut),
        "a new connection failed as well"
    );
    let kept = acquire(&connections).await;
    assert!(
        !kept.leave(&StoreError::TimedOut),
        "a new connection failed a moment ago"
    );
    assert_eq!(server.counts(), (2, 0));
}
