//! Connections that are used one statement after another.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{Connection, Error, PgConnection, PgPool, Postgres};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A connection that has stood idle for longer is tried out before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);

/// Where the store's connections come from.
pub(super) enum Connections {
    /// The service's pool, which is given back at once what it lends. sqlx then asks the connection
    /// whether it lives: a second round trip, behind each statement.
    Shared(PgPool),
    /// What has served one statement is kept for the next without a question.
    Own(Own),
}

pub(super) struct Own {
    /// Makes the connections, and keeps none.
    pool: PgPool,
    idle: Mutex<Vec<Idle>>,
    room: Semaphore,
}

struct Idle {
    connection: PgConnection,
    made: Instant,
    since: Instant,
}

/// A connection for one statement. An own one that is dropped, as when a statement is cut off, is
/// closed: the next would find the answer to the last.
pub(super) enum Lent<'c> {
    Shared(PoolConnection<Postgres>),
    Own {
        connection: PgConnection,
        made: Instant,
        home: &'c Own,
        _room: SemaphorePermit<'c>,
    },
}

impl Connections {
    /// Takes a pool that nobody else uses.
    pub(super) fn own(pool: PgPool) -> Self {
        let number = pool.options().get_max_connections();
        Self::Own(Own {
            pool,
            idle: Mutex::default(),
            room: Semaphore::new(usize::try_from(number).unwrap_or(Semaphore::MAX_PERMITS)),
        })
    }

    /// What makes the connections.
    pub(super) fn pool(&self) -> &PgPool {
        match self {
            Self::Shared(pool) | Self::Own(Own { pool, .. }) => pool,
        }
    }

    /// # Errors
    ///
    /// When no connection can be made.
    pub(super) async fn acquire(&self) -> Result<Lent<'_>, Error> {
        match self {
            Self::Shared(pool) => pool.acquire().await.map(Lent::Shared),
            Self::Own(own) => own.acquire().await,
        }
    }
}

impl Own {
    async fn acquire(&self) -> Result<Lent<'_>, Error> {
        let room = self.room.acquire().await.map_err(|_| Error::PoolClosed)?;
        let lend = |connection, made| Lent::Own {
            connection,
            made,
            home: self,
            _room: room,
        };
        while let Some(mut kept) = self.take() {
            if kept.since.elapsed() < TRUSTED_IDLE || kept.connection.ping().await.is_ok() {
                return Ok(lend(kept.connection, kept.made));
            }
        }
        let made = self.pool.acquire().await?.detach();
        Ok(lend(made, Instant::now()))
    }

    fn take(&self) -> Option<Idle> {
        self.idle().pop()
    }

    /// Keeps a connection, unless it has had its time.
    fn keep(&self, connection: PgConnection, made: Instant) {
        let now = Instant::now();
        let is_over = |since: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.duration_since(since) > limit)
        };
        let options = self.pool.options();
        let mut idle = self.idle();
        idle.retain(|kept| !is_over(kept.since, options.get_idle_timeout()));
        if !is_over(made, options.get_max_lifetime()) {
            idle.push(Idle {
                connection,
                made,
                since: now,
            });
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent<'_> {
    /// To be used again.
    pub(super) fn give_back(self) {
        match self {
            Self::Shared(connection) => drop(connection),
            // Who waits for the room finds the connection.
            Self::Own {
                connection,
                made,
                home,
                _room,
            } => home.keep(connection, made),
        }
    }

    pub(super) fn close(self) {
        match self {
            Self::Shared(mut connection) => connection.close_on_drop(),
            Self::Own { connection, .. } => drop(connection),
        }
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Shared(connection) => connection,
            Self::Own { connection, .. } => connection,
        }
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Shared(connection) => connection,
            Self::Own { connection, .. } => connection,
        }
    }
}
