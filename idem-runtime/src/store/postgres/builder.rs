//! Which PostgreSQL, and how long it is waited for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use super::connections::Connections;
use super::failure::store_error;
use super::statements::Statements;
use super::table::Table;
use super::{Inner, PostgresStore, setup, sweeper};
use crate::store::StoreError;

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

    /// The service's own pool, with its own settings.
    ///
    /// A handler that holds a connection of the pool while the store asks for one can starve it:
    /// leave room for both. Claims are made outside the handler's transactions. sqlx tries out a
    /// connection that is given back to a pool, so that each transition costs the server a second
    /// round trip, for which nobody waits; connections by [`url`](Self::url) do without.
    pub fn pool(mut self, pool: PgPool) -> Self {
        self.server = Server::Pool(pool);
        self
    }

    /// How many connections a pool made from a URL has at most; 10 by default.
    pub fn max_connections(mut self, number: u32) -> Self {
        self.max_connections = number;
        self
    }

    /// The schema of the table, created where it is missing; the first of the `search_path` by
    /// default. Up to 50 letters, digits and underscores.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// The table, created where it is missing; `idem_records` by default. Up to 50 letters, digits
    /// and underscores.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How long one transition may take, the wait for a connection included; 2 seconds by default.
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

    /// Connects, looks whether the server takes writes, and creates the table and its function where
    /// one is missing, which is safe to do from many processes at once. What rights that takes stands
    /// at [`PostgresStore`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] for a name that is none, a replica or a read-only session;
    /// [`StoreError::Unavailable`] or [`StoreError::TimedOut`] when the server cannot be reached or
    /// refuses.
    pub async fn connect(self) -> Result<PostgresStore, StoreError> {
        let table = Table::new(self.schema, self.table)?;
        let connections = match self.server {
            Server::Pool(pool) => Connections::Shared(pool),
            Server::Url(url) => {
                let pool = PgPoolOptions::new()
                    .max_connections(self.max_connections)
                    .acquire_timeout(self.timeout)
                    .connect(&url);
                Connections::own(pool.await.map_err(store_error)?)
            }
        };
        setup::check(connections.pool()).await?;
        setup::migrate(connections.pool(), &table).await?;
        let inner = Arc::new(Inner {
            statements: Statements::new(&table),
            connections,
            table,
            timeout: self.timeout,
        });
        if let Some(pause) = self.sweep_every {
            sweeper::start(&inner, pause);
        }
        Ok(PostgresStore(inner))
    }
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
