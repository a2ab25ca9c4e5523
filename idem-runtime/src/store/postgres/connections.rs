//! The store's own connections: at most so many at the server, each used for one statement at a time.
//!
//! Not a pool of sqlx, for three reasons. Its connections are asked whether they live after each use,
//! which is a second round trip for each transition. It reports every failure to connect as a timeout.
//! And handlers that hold all connections of a shared pool would keep the store from renewing their
//! leases, so that a retry runs a second time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Error, PgPool};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::failure::{is_transient_at_connect, unavailable};
use super::session::Session;
use crate::store::StoreError;

/// A connection that was idle for longer is pinged before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// How long a ping may take: a quarter of what is left of the deadline, and at most this. The rest is
/// for a new connection, because a balancer may have dropped the idle one without a word.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// A connection that was idle for longer, or open for longer, is closed.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// While a server refuses, one connection is opened in this time.
const OUTAGE_PAUSE: Duration = Duration::from_millis(250);

/// How long after a statement was cut off the server is first asked whether it still runs, and how
/// often at least.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// How long a statement that was cut off is waited for behind a pooler, which knows whether it runs
/// and does not say so.
const POOLER_PATIENCE: Duration = Duration::from_secs(5 * 60);

pub(super) struct Connections {
    server: Server,
    statement_timeout: Duration,
    max: u32,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    outage: Mutex<Option<Outage>>,
    /// Held while the server is asked about a statement that was cut off, so that this takes one
    /// connection at a time.
    looking: tokio::sync::Mutex<()>,
}

/// Where connections are opened.
pub(super) enum Server {
    Options(Box<PgConnectOptions>),
    /// Asked each time, because a service may change the password of its pool.
    OfPool(PgPool),
}

struct Idle {
    session: Session,
    since: Instant,
}

/// The last connections were of no use.
struct Outage {
    reason: String,
    next_try: Instant,
}

/// A connection for one statement.
///
/// Dropped without [`keep`](Self::keep) or [`close`](Self::close), as when a statement is cut off,
/// the connection still counts until the server has ended the statement. Otherwise each timeout
/// would leave a session behind, until nobody can log in.
pub(super) struct Leased {
    /// `None` once it was kept or closed.
    session: Option<Session>,
    is_new: bool,
    home: Arc<Connections>,
    room: Option<OwnedSemaphorePermit>,
}

impl Connections {
    pub(super) fn new(server: Server, max: u32, statement_timeout: Duration) -> Arc<Self> {
        let max = max.max(1);
        let room = usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            server,
            statement_timeout,
            max,
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            idle: Mutex::default(),
            outage: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        })
    }

    /// # Errors
    ///
    /// When every connection is in use, or none can be opened, until the deadline.
    pub(super) async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Leased, StoreError> {
        let room = match self.room.clone().try_acquire_owned() {
            Ok(room) => room,
            Err(_) => match timeout_at(deadline, self.room.clone().acquire_owned()).await {
                Ok(Ok(room)) => room,
                _ => return Err(self.exhausted()),
            },
        };
        let lease = |session, is_new| Leased {
            session: Some(session),
            is_new,
            home: self.clone(),
            room: Some(room),
        };
        while let Some(Idle { mut session, since }) = self.take() {
            if since.elapsed() < TRUSTED_IDLE {
                return Ok(lease(session, false));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(PING_LIMIT.min(left / 4), session.connection.ping()).await {
                Ok(Ok(())) => return Ok(lease(session, false)),
                Ok(Err(_)) => {}
                // The others have probably been dropped, too.
                Err(_) => self.idle().clear(),
            }
        }
        let session = self.open(deadline).await?;
        Ok(lease(session, true))
    }

    /// Opens a connection, and tries again until the deadline while the server restarts.
    async fn open(&self, deadline: Instant) -> Result<Session, StoreError> {
        loop {
            if let Err((next_try, reason)) = self.may_try() {
                if next_try >= deadline {
                    return Err(StoreError::Unavailable(reason.into()));
                }
                sleep_until(next_try).await;
                continue;
            }
            let opening = Session::open(self.server.options(), self.statement_timeout);
            let error = match timeout_at(deadline, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => error,
                Err(_) => {
                    self.failed("connecting to PostgreSQL took too long".to_owned());
                    return Err(StoreError::TimedOut);
                }
            };
            let is_transient = is_transient_at_connect(&error);
            let error = unavailable(error);
            self.failed(reason(&error));
            if !is_transient {
                return Err(error);
            }
        }
    }

    /// # Errors
    ///
    /// During an outage, when the next connection may be tried, and why not now.
    fn may_try(&self) -> Result<(), (Instant, String)> {
        let mut outage = self.outage();
        let Some(outage) = &mut *outage else {
            return Ok(());
        };
        let now = Instant::now();
        if now < outage.next_try {
            return Err((outage.next_try, outage.reason.clone()));
        }
        outage.next_try = now + OUTAGE_PAUSE;
        Ok(())
    }

    /// Begins an outage, or prolongs it.
    fn failed(&self, reason: String) {
        let next_try = Instant::now() + OUTAGE_PAUSE;
        *self.outage() = Some(Outage { reason, next_try });
    }

    fn is_out(&self) -> bool {
        let outage = self.outage();
        outage
            .as_ref()
            .is_some_and(|outage| Instant::now() < outage.next_try)
    }

    fn take(&self) -> Option<Idle> {
        self.idle().pop()
    }

    fn keep(&self, session: Session) {
        let now = Instant::now();
        let mut idle = self.idle();
        idle.retain(|idle| now.duration_since(idle.since) <= MAX_IDLE);
        if now.duration_since(session.opened) <= MAX_AGE {
            idle.push(Idle {
                session,
                since: now,
            });
        }
    }

    /// Waits until the server has ended the statement of a session, and closes it. The session is not
    /// used again: the next statement would find the reply to this one, or its transaction.
    async fn wait_for_end(&self, mut session: Session) {
        let give_up_at = Instant::now() + POOLER_PATIENCE;
        let mut pause = FIRST_LOOK;
        loop {
            // Reads to the end of what the server sends. An error is the end of the statement, too.
            if timeout(pause, session.connection.ping()).await.is_ok() {
                return;
            }
            let goes_on = match session.process {
                Some(process) => self.still_runs(process).await,
                None => Instant::now() < give_up_at,
            };
            if !goes_on {
                return;
            }
            pause = LAST_LOOK.min(pause * 2);
        }
    }

    /// Whether a process of the server is at work. True where the server cannot be asked, because it
    /// may be.
    async fn still_runs(&self, process: i32) -> bool {
        let _alone = self.looking.lock().await;
        let look = async {
            let mut session = Session::open(self.server.options(), self.statement_timeout).await?;
            let look = "SELECT EXISTS (
                SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'
            )";
            sqlx::query_scalar(look)
                .bind(process)
                .fetch_one(&mut session.connection)
                .await
        };
        let runs: Result<Result<bool, Error>, _> = timeout(FIRST_LOOK * 5, look).await;
        !matches!(runs, Ok(Ok(false)))
    }

    fn exhausted(&self) -> StoreError {
        let words = format!(
            "all {} connections of the store are in use; raise `max_connections`, or look for a lock \
             or a missing standby that its statements wait for",
            self.max
        );
        StoreError::Unavailable(words.into())
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn options(&self) -> PgConnectOptions {
        match self {
            Self::Options(options) => (**options).clone(),
            Self::OfPool(pool) => (*pool.connect_options()).clone(),
        }
    }
}

impl Leased {
    pub(super) fn session(&mut self) -> &mut Session {
        self.session
            .as_mut()
            .expect("it was neither kept nor closed")
    }

    /// To be used again.
    pub(super) fn keep(mut self) {
        if self.is_new {
            *self.home.outage() = None;
        }
        self.put_back();
    }

    fn put_back(&mut self) {
        // Before the permit is released, so that whoever waits for it finds the connection.
        if let Some(session) = self.session.take() {
            self.home.keep(session);
        }
    }

    /// Closes a connection that is broken, and the idle ones with it: a restart or a failover broke
    /// them as well, and each would cost a try.
    pub(super) fn close(mut self, error: &StoreError) {
        self.session = None;
        if self.is_new {
            self.home.failed(reason(error));
        }
        self.home.idle().clear();
    }

    /// After an error that another server may not have. False while that was tried a moment ago: then
    /// the connection is kept, because opening others would only load the server.
    pub(super) fn leave(mut self, error: &StoreError) -> bool {
        if self.is_new {
            self.home.failed(reason(error));
        }
        if self.home.is_out() {
            self.put_back();
            return false;
        }
        self.session = None;
        self.home.idle().clear();
        true
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // Without a runtime there is no process left that could open more.
        if let Ok(runtime) = Handle::try_current() {
            let (home, room) = (self.home.clone(), self.room.take());
            runtime.spawn(async move {
                home.wait_for_end(session).await;
                drop(room);
            });
        }
    }
}

/// What an outage says to those who come too early.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(source) => source.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::str::FromStr;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    /// Two columns of text, a process and an empty setting, and the end of the statement.
    const HELLO: &[u8] = b"T\0\0\0\x2e\0\x02\
        p\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
        t\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
        D\0\0\0\x0f\0\x02\0\0\0\x017\0\0\0\0\
        C\0\0\0\x0dSELECT 1\0";

    /// Speaks as much of PostgreSQL as it takes to connect and to be pinged.
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
                    // It ends when its client goes.
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

    /// Reads what is left of a message whose length, which counts itself, is read.
    async fn skip(stream: &mut TcpStream, length: u32) -> io::Result<()> {
        let mut rest = stream.take(u64::from(length).saturating_sub(4));
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        Ok(())
    }

    async fn acquire(connections: &Arc<Connections>) -> Leased {
        let deadline = Instant::now() + Duration::from_secs(20);
        let leased = connections.acquire(deadline).await;
        leased.expect("the server is there")
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

    /// As behind a balancer that forgot idle connections: no reply, and no end of the connection.
    #[tokio::test]
    async fn idle_connections_that_were_dropped_silently_cost_no_transition() {
        let (server, connections) = FakeServer::start().await;
        let (first, second) = (acquire(&connections).await, acquire(&connections).await);
        first.keep();
        second.keep();
        stand_idle(&connections, TRUSTED_IDLE + SECOND);
        server.dark_to.store(2, Ordering::SeqCst);
        acquire(&connections).await.keep();
        assert_eq!(server.counts(), (3, 1), "one ping for all of them");
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

    /// A server that refuses writes would otherwise get new sessions for every claim.
    #[tokio::test]
    async fn a_new_connection_of_no_use_is_kept_instead_of_opening_others() {
        let (server, connections) = FakeServer::start().await;
        acquire(&connections).await.keep();
        let reused = acquire(&connections).await;
        assert!(
            reused.leave(&StoreError::TimedOut),
            "another is worth a try"
        );
        let new = acquire(&connections).await;
        assert!(!new.leave(&StoreError::TimedOut), "two say the same");
        let kept = acquire(&connections).await;
        assert!(!kept.leave(&StoreError::TimedOut), "that was a moment ago");
        assert_eq!(server.counts(), (2, 0));
    }
}
