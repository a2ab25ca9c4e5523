//! Settings of the store: which server and table, and how long a transition may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use super::connections::{self, Connections};
use super::failure::unavailable;
use super::probe::probe;
use super::statements::Statements;
use super::table::Name;
use super::{Inner, PostgresStore, patience, setup, sweeper};
use crate::store::StoreError;

/// One day. Beyond some years the arithmetic of clocks gives up.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Settings of a [`PostgresStore`].
#[derive(Clone)]
#[must_use]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "postgres")]
pub struct PostgresStoreBuilder {
    server: Server,
    max_connections: u32,
    schema: Option<String>,
    table: String,
    timeout: Duration,
    sweep_every: Option<Duration>,
}

#[derive(Clone)]
enum Server {
    Url(String),
    Pool(PgPool),
}

impl PostgresStore {
    /// Connects to a server, such as `postgres://user:password@host/database`.
    ///
    /// # Errors
    ///
    /// As [`PostgresStoreBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, StoreError> {
        Self::builder().url(url).connect().await
    }

    /// Connects to the server of the service's pool, as [`PostgresStoreBuilder::pool`] says.
    ///
    /// # Errors
    ///
    /// As [`PostgresStoreBuilder::connect`].
    pub async fn from_pool(pool: PgPool) -> Result<Self, StoreError> {
        Self::builder().pool(pool).connect().await
    }

    /// Settings that differ from the defaults.
    pub fn builder() -> PostgresStoreBuilder {
        PostgresStoreBuilder::new()
    }
}

impl PostgresStoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            server: Server::Url("postgres://".to_owned()),
            max_connections: 10,
            schema: None,
            table: "idem_records".to_owned(),
            timeout: Duration::from_secs(2),
            sweep_every: Some(Duration::from_secs(60)),
        }
    }

    /// `postgres://user:password@host:port/database`, with what sqlx takes behind `?`. What is left
    /// out comes from the `PG…` variables of the environment, as for `psql`. TLS needs the feature
    /// `postgres-tls`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.server = Server::Url(url.into());
        self
    }

    /// The server, database and user of the service's pool.
    ///
    /// The store takes no connection out of the pool: it opens up to
    /// [`max_connections`](Self::max_connections) of its own, with the connect options that the pool
    /// has at that moment. So handlers that hold every connection of the pool do not keep the store
    /// from renewing their leases, a `SET` in a handler does not reach the store, and a server that
    /// stalls does not take the pool's connections away from the handlers.
    ///
    /// Hooks of the pool, such as `after_connect`, do not run for the store's connections. A role or a
    /// `search_path` that a hook sets belongs into the connect options, or into
    /// [`schema`](Self::schema).
    pub fn pool(mut self, pool: PgPool) -> Self {
        self.server = Server::Pool(pool);
        self
    }

    /// How many connections the store opens at most; 10 by default. One more may be open for a moment
    /// after a timeout, to ask the server whether the statement still runs.
    ///
    /// A connection whose statement timed out counts until the server has ended the statement. While
    /// statements wait for a synchronous standby that is gone, the store reports errors instead of
    /// opening more connections.
    pub fn max_connections(mut self, number: u32) -> Self {
        self.max_connections = number;
        self
    }

    /// The schema of the table, created if it is missing. By default the schema in which the
    /// `search_path` finds the table when the store connects, or else the first of the `search_path`.
    /// Up to 50 letters, digits and underscores.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// The table, created if it is missing; `idem_records` by default. Up to 50 letters, digits
    /// and underscores.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How long one transition may take, including the wait for a connection; 2 seconds by default.
    /// It is also the `statement_timeout` of the store's sessions, so that the server cancels what
    /// waits for a lock. A batch of the sweeper and a step of [`connect`](Self::connect) may take five
    /// times as long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often expired rows are removed in the background, until the last clone of the store is
    /// dropped; every minute by default.
    pub fn sweep_every(mut self, pause: Duration) -> Self {
        self.sweep_every = Some(pause);
        self
    }

    /// Leaves removing expired rows to calls of [`PostgresStore::sweep`].
    pub fn no_sweeper(mut self) -> Self {
        self.sweep_every = None;
        self
    }

    /// Connects, checks whether the server takes writes, and creates the table and its function if one
    /// is missing, which any number of processes may do at once. Then it tries every statement of the
    /// store on a probe, in a transaction that it rolls back. [`PostgresStore`] lists the rights that
    /// this takes.
    ///
    /// Each step takes at most five times the [`timeout`](Self::timeout).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for an invalid name, a replica, a read-only session, an unlogged table, a
    /// table without a primary key, a missing right, and a trigger that skips writes;
    /// [`StoreError::Unavailable`] or [`StoreError::TimedOut`] when the server cannot be reached or
    /// refuses. The message says what is wrong, and the SQL that creates or grants what is missing.
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        let name = Name::new(self.schema, self.table)?;
        let server = match self.server {
            Server::Pool(pool) => connections::Server::OfPool(pool),
            Server::Url(url) => {
                let options = url.parse().map_err(unavailable)?;
                connections::Server::Options(Box::new(options))
            }
        };
        let timeout = self.timeout.min(LONGEST_TIMEOUT);
        let connections = Connections::new(server, self.max_connections, timeout);
        let limit = patience(timeout);
        let mut leased = connections.acquire(Instant::now() + limit).await?;
        let session = leased.session();
        let table = within(limit, setup::resolve(session, name, limit)).await?;
        within(limit, setup::migrate(session, &table, limit)).await?;
        let statements = Statements::new(&table);
        within(limit, probe(session, &statements, &table, limit)).await?;
        leased.keep();
        let inner = Arc::new(Inner {
            connections,
            statements,
            table,
            timeout,
        });
        if let Some(pause) = self.sweep_every {
            sweeper::start(&inner, pause);
        }
        Ok(PostgresStore(inner))
    }
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let step = tokio::time::timeout(limit, step).await;
    step.unwrap_or(Err(StoreError::TimedOut))
}

/// The address and its password stay out.
impl fmt::Debug for PostgresStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStoreBuilder")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("timeout", &self.timeout)
            .field("sweep_every", &self.sweep_every)
            .finish_non_exhaustive()
    }
}
