//! One connection to the server, with or without a pooler in between.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Error, PgConnection, Postgres, Row, Transaction,
};
use tokio::time::Instant;

use super::sql::Query;

/// Marks the store's sessions on the server.
const APPLICATION: &str = "axum-idem";

/// One connection that the store opened.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) opened: Instant,
    /// The server process of this session. `None` behind a pooler, which may give each transaction
    /// another process.
    pub(super) process: Option<i32>,
    statement_timeout: Duration,
}

impl Session {
    /// Opens a connection whose statements the server cancels after `statement_timeout`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses the login.
    pub(super) async fn open(
        options: PgConnectOptions,
        statement_timeout: Duration,
    ) -> Result<Self, Error> {
        // `PgBouncer` refuses the parameter that sqlx sends for floats, and the store uses no
        // floats.
        let options = options.extra_float_digits(None);
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name(APPLICATION),
        };
        let name = unchanged(options.get_application_name().unwrap_or_default()).to_owned();
        let mut connection = options.connect().await?;
        // Detects a pooler. A pooler opens its own sessions at the server. These sessions have
        // another name, or get the client's name through `SET`. Behind a pooler, a session setting
        // would affect other clients too, and prepared statements would get lost.
        //
        // A session keeps plans that were made while the table was small. They may read the whole table, unless sequential
        // scans are off. The statements expect the isolation level at which each one sees what was committed before.
        let hello = format!(
            "SELECT pg_backend_pid(), CASE WHEN source = 'client' AND left(setting, {}) = '{name}' THEN
                 set_config('statement_timeout', '{}', false)
                 || set_config('enable_seqscan', 'off', false)
                 || set_config('default_transaction_isolation', 'read committed', false) END
             FROM pg_settings WHERE name = 'application_name'",
            name.len(),
            whole_millis(statement_timeout)
        );
        let row = sqlx::raw_sql(AssertSqlSafe(hello))
            .fetch_one(&mut connection)
            .await?;
        let is_direct = row.try_get::<Option<String>, _>(1)?.is_some();
        let process = row.try_get(0)?;
        Ok(Self {
            connection,
            opened: Instant::now(),
            process: is_direct.then_some(process),
            statement_timeout,
        })
    }

    /// Runs one statement in a transaction of its own, and returns once the commit is acknowledged.
    pub(super) async fn run(&mut self, query: Query) -> Result<Vec<PgRow>, Error> {
        if self.process.is_some() {
            // Fetches all rows, because the server acknowledges the commit after the last row.
            return query.fetch_all(&mut self.connection).await;
        }
        Box::pin(self.run_in_transaction(query)).await
    }

    /// A pooler uses one server session for an explicit transaction. Outside of a transaction, an
    /// unnamed prepared statement could get lost.
    async fn run_in_transaction(&mut self, query: Query) -> Result<Vec<PgRow>, Error> {
        let mut transaction = self.begin(self.statement_timeout).await?;
        let query = query.persistent(false);
        match query.fetch_all(&mut *transaction).await {
            Ok(rows) => {
                transaction.commit().await?;
                Ok(rows)
            }
            Err(error) => {
                // A transaction that is dropped ends only when the connection is used again, and
                // until then occupies a server session of the pooler. The rollback may fail on a
                // broken connection, which needs none.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    /// Begins a transaction whose statements may each take up to `limit`.
    pub(super) async fn begin(
        &mut self,
        limit: Duration,
    ) -> Result<Transaction<'_, Postgres>, Error> {
        let limit = whole_millis(limit);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {limit}; \
             SET LOCAL enable_seqscan = off"
        );
        self.connection.begin_with(AssertSqlSafe(begin)).await
    }
}

/// The longest prefix of an application name that the server stores unchanged and that needs no
/// escaping. The server cuts a name at 63 bytes, and replaces bytes that are not ASCII.
fn unchanged(name: &str) -> &str {
    let is_kept = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\'' && byte != b'\\';
    let end = name.bytes().take(63).take_while(|byte| is_kept(*byte));
    &name[..end.count()]
}

/// A timeout as PostgreSQL reads it. At least 1, because 0 would turn the timeout off.
fn whole_millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unchanged_prefix_of_an_application_name_is_compared() {
        assert_eq!(unchanged("axum-idem"), "axum-idem");
        assert_eq!(unchanged("desk's"), "desk");
        assert_eq!(unchanged("größe"), "gr");
        assert_eq!(unchanged(&"x".repeat(70)), "x".repeat(63));
    }

    #[test]
    fn a_timeout_is_never_rounded_to_zero() {
        assert_eq!(whole_millis(Duration::ZERO), 1);
        assert_eq!(whole_millis(Duration::from_millis(1500)), 1500);
        assert_eq!(whole_millis(Duration::MAX), i32::MAX);
    }
}
