//! The store's own connections: a limited number, each used for one statement at a time.
//!
//! This is not a pool of sqlx, for three reasons. sqlx pings a connection after each use, which is
//! a second round trip for each transition. sqlx reports every failure to connect as a timeout. And
//! when handlers hold all connections of a shared pool, the store could not renew their leases, so
//! that a retry would run a second time.

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
use crate::store::observer::{POSTGRES, StoreObserver};

/// A connection that was idle for longer is pinged before use.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// Time limit for the ping of an idle connection, at most a quarter of the time until the deadline.
/// A load balancer may have dropped the connection silently. The rest of the time is for a new
/// connection.
const PING_LIMIT: Duration = Duration::from_secs(1);

/// A connection that was idle or open for longer is closed.
const MAX_IDLE: Duration = Duration::from_secs(10 * 60);
const MAX_AGE: Duration = Duration::from_secs(30 * 60);

/// While a server refuses connections, the store tries one connection in each such interval.
const OUTAGE_PAUSE: Duration = Duration::from_millis(250);

/// When a statement was interrupted, the store asks the server whether the statement still runs:
/// first after `FIRST_LOOK`, and then at least every `LAST_LOOK`.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_secs(5);

/// How long the store waits for an interrupted statement behind a pooler. There the store cannot
/// ask whether the statement still runs.
const POOLER_PATIENCE: Duration = Duration::from_secs(5 * 60);

pub(super) struct Connections {
    server: Server,
    statement_timeout: Duration,
    max: u32,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    outage: Mutex<Option<Outage>>,
    /// Held while the server is asked about an interrupted statement, so that these questions use
    /// only one connection at a time.
    looking: tokio::sync::Mutex<()>,
    pub(super) observer: StoreObserver,
}

/// How to open connections.
pub(super) enum Server {
    Options(Box<PgConnectOptions>),
    /// The options are read each time, because a service may change the password of its pool.
    OfPool(PgPool),
}

struct Idle {
    session: Session,
    since: Instant,
}

/// The most recent connections failed.
struct Outage {
    reason: String,
    next_try: Instant,
}

/// A connection for one statement.
///
/// If a `Leased` is dropped without [`keep`](Self::keep) or [`close`](Self::close), for example
/// because its statement was interrupted, the connection still counts until the server has ended
/// the statement. Otherwise each timeout would leave a session behind, until nobody can log in.
pub(super) struct Leased {
    /// `None` after `keep` or `close`.
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
            observer: StoreObserver::default(),
        })
    }

    /// # Errors
    ///
    /// When every connection is in use, or no connection can be opened, until the deadline.
    pub(super) async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Leased, StoreError> {
        let room = if let Ok(room) = self.room.clone().try_acquire_owned() {
            room
        } else {
            self.room(deadline).await?
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
                // The other idle connections have probably been dropped, too.
                Err(_) => self.idle().clear(),
            }
        }
        let session = self.open(deadline).await?;
        Ok(lease(session, true))
    }

    /// Waits until another statement has ended.
    async fn room(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, StoreError> {
        let began = Instant::now();
        let room = timeout_at(deadline, self.room.clone().acquire_owned()).await;
        let waited = began.elapsed();
        self.observer
            .report(&|observer| observer.connection_awaited(POSTGRES, waited));
        match room {
            Ok(Ok(room)) => Ok(room),
            _ => Err(self.exhausted()),
        }
    }

    /// Opens a connection. While the server restarts, tries again until the deadline.
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
    /// During an outage: when the next connection may be tried, and why not now.
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

    /// Begins or extends an outage.
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

    /// Waits until the server has ended the statement of a session, and closes the session. The
    /// session is not reused, because the next statement would get the reply to this statement, or
    /// run in its transaction.
    async fn wait_for_end(&self, mut session: Session) {
        let give_up_at = Instant::now() + POOLER_PATIENCE;
        let mut pause = FIRST_LOOK;
        loop {
            // The ping completes after the interrupted statement. An error means that the statement
            // has ended, too.
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

    /// Whether a server process is running a statement. True when the server cannot be asked,
    /// because the statement may still run.
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
            .expect("the connection was neither kept nor closed")
    }

    /// Returns the connection for reuse.
    pub(super) fn keep(mut self) {
        if self.is_new {
            *self.home.outage() = None;
        }
        self.put_back();
    }

    fn put_back(&mut self) {
        // This happens before the permit is released, so that the next waiter finds the connection.
        if let Some(session) = self.session.take() {
            self.home.keep(session);
        }
    }

    /// Closes a broken connection and all idle connections: a restart or a failover has broken
    /// those as well, and each of them would waste a try.
    pub(super) fn close(mut self, error: &StoreError) {
        self.session = None;
        if self.is_new {
            self.home.failed(reason(error));
        }
        self.home.idle().clear();
    }

    /// Closes a connection after an error that another server may not have. Returns false when a
    /// new connection was tried a moment ago. In that case the connection is kept, because opening
    /// others would only load the server.
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
        // Without a runtime, this process can open no more connections.
        if let Ok(runtime) = Handle::try_current() {
            let (home, room) = (self.home.clone(), self.room.take());
            runtime.spawn(async move {
                home.wait_for_end(session).await;
                drop(room);
            });
        }
    }
}

/// The reason for an outage, which transitions get until the next try.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(source) => source.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
