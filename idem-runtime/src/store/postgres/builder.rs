//! Settings of the store: the server, the table, and the time limit of a transition.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use super::connections::{self, Connections};
use super::failure::unavailable;
use super::probe::probe;
use super::statements::Statements;
use super::table::{Name, Table};
use super::{Inner, PostgresStore, patience, setup, sweeper};
use crate::store::StoreError;
use crate::store::batch::{Batcher, PATIENCE};

/// One day. Adding durations of many years to an instant would overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How many callers or batches of one kind of transition run at once, at most. With more lanes, fewer callers wait for
/// others, and batches are shorter.
const LANES: usize = 2;

/// How many transitions a batch has at most. Each claim holds a lock of the server until its batch is committed.
const LONGEST_BATCH: usize = 32;

/// Settings of a [`PostgresStore`].
#[derive(Clone)]
#[must_use]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "postgres")]
pub struct PostgresStoreBuilder {
    server: Server,
    max_connections: u32,
    schema: Option<String>,
    table: String,
    timeout: Duration,
    sweep_every: Option<Duration>,
    migrate: bool,
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

    /// Connects to the server of the service's pool. See [`PostgresStoreBuilder::pool`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStoreBuilder::connect`].
    pub async fn from_pool(pool: PgPool) -> Result<Self, StoreError> {
        Self::builder().pool(pool).connect().await
    }

    /// Starts a store with settings that differ from the defaults.
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
            migrate: true,
        }
    }

    /// Sets the address, such as `postgres://user:password@host:port/database`, followed by `?` and
    /// options of sqlx. Missing parts come from the `PG…` environment variables, as in `psql`. TLS
    /// needs the feature `postgres-tls`.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.server = Server::Url(url.into());
        self
    }

    /// Uses the server, the database and the user of the service's pool.
    ///
    /// The store takes no connection out of the pool. It opens up to
    /// [`max_connections`](Self::max_connections) connections of its own, with the pool's connect
    /// options at that time. This has three advantages. When handlers hold every connection of the
    /// pool, the store can still renew their leases. A `SET` in a handler does not affect the
    /// store. A server that stalls does not block the handlers' connections.
    ///
    /// Hooks of the pool, such as `after_connect`, do not run for the store's connections. If a
    /// hook sets a role or a `search_path`, set it in the connect options, or use
    /// [`schema`](Self::schema).
    pub fn pool(mut self, pool: PgPool) -> Self {
        self.server = Server::Pool(pool);
        self
    }

    /// Limits the number of connections that the store opens; 10 by default. After a timeout, one more connection may be
    /// open for a moment, to ask the server whether the statement still runs.
    ///
    /// A connection whose statement timed out counts as used until the server has ended the
    /// statement. While statements wait for a synchronous standby that is gone, the store reports
    /// errors instead of opening more connections.
    pub fn max_connections(mut self, number: u32) -> Self {
        self.max_connections = number;
        self
    }

    /// Sets the schema of the table. The store creates the schema if it is missing. The default is the
    /// schema in which the `search_path` finds the table when the store connects, or else the first
    /// schema of the `search_path`. Up to 50 letters, digits and underscores.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// Sets the name of the table; `idem_records` by default. The store creates the table if it is
    /// missing. Up to 50 letters, digits and underscores.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// Limits the time of one transition, including the wait for a connection; 2 seconds by default.
    /// The limit is also the `statement_timeout` of the store's sessions, so that the server
    /// cancels statements that wait for a lock. A batch of the sweeper and a step of
    /// [`connect`](Self::connect) may take five times as long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how often the sweeper removes expired rows in the background; every minute by default. The
    /// sweeper stops when the last clone of the store is dropped.
    pub fn sweep_every(mut self, pause: Duration) -> Self {
        self.sweep_every = Some(pause);
        self
    }

    /// Turns the sweeper off. Call [`PostgresStore::sweep`] to remove expired rows.
    pub fn no_sweeper(mut self) -> Self {
        self.sweep_every = None;
        self
    }

    /// Sets whether [`connect`](Self::connect) may create the table, its indexes and its functions; `true` by
    /// default. With `false`, `connect` executes no DDL, and its error names the missing objects and contains the
    /// SQL of [`schema_sql`](Self::schema_sql).
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Returns the SQL that creates the table, its indexes and its functions, for a migration tool or an owner of the
    /// database. It is safe to run again. The schema has to exist; without [`schema`](Self::schema) it is
    /// `public`.
    ///
    /// The package contains the SQL with the default names as `schema/postgres.sql`.
    ///
    /// ```
    /// use idem_runtime::store::PostgresStore;
    ///
    /// let sql = PostgresStore::builder().schema("idem").schema_sql()?;
    /// assert!(sql.contains(r#"CREATE TABLE IF NOT EXISTS "idem"."idem_records""#));
    /// # Ok::<(), idem_runtime::store::StoreError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for an invalid name.
    pub fn schema_sql(&self) -> Result<String, StoreError> {
        let name = Name::new(self.schema.clone(), self.table.clone())?;
        Ok(Table::named(name).script())
    }

    /// Connects to the server and checks whether it accepts writes. Creates the table, its
    /// indexes and its functions if one of them is missing; any number of processes may do so at once. Then tries every
    /// statement of the store in a transaction, and rolls that transaction back. [`PostgresStore`]
    /// lists the rights that `connect` needs.
    ///
    /// Each step takes at most five times the [`timeout`](Self::timeout).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for an invalid name, a replica, a read-only session, an unlogged
    /// table, a table without a primary key, a missing right, and a trigger that skips writes.
    /// [`StoreError::Unavailable`] or [`StoreError::TimedOut`] when the server cannot be reached or
    /// refuses. The message says what is wrong, and contains the SQL that creates the missing object or grants the
    /// missing right.
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
        let migrate = setup::migrate(session, &table, self.migrate, limit);
        within(limit, migrate).await?;
        let statements = Statements::new(&table);
        within(limit, probe(session, &statements, &table, limit)).await?;
        leased.keep();
        let lanes = usize::try_from(self.max_connections / 2)
            .unwrap_or(LANES)
            .clamp(1, LANES);
        let patience = PATIENCE.min(timeout / 8);
        let inner = Arc::new(Inner {
            connections,
            statements,
            table,
            timeout,
            replays: Batcher::new(1, LONGEST_BATCH, patience),
            claims: Batcher::new(lanes, LONGEST_BATCH, patience),
            quick_claims: Batcher::new(lanes, LONGEST_BATCH, patience),
            completions: Batcher::new(lanes, LONGEST_BATCH, patience),
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

/// Omits the address, because it contains the password.
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
