//! One connection to the server, and whether a pooler is in between.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Error, PgConnection, Postgres, Row, Transaction,
};
use tokio::time::Instant;

use super::sql::Query;

/// Says which sessions of the server are the store's.
const APPLICATION: &str = "axum-idem";

/// One connection that the store opened.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) opened: Instant,
    /// The process of the server, or `None` behind a pooler, which gives each transaction whichever
    /// it has.
    pub(super) process: Option<i32>,
    statement_timeout: Duration,
}

impl Session {
    /// Opens a connection whose statements the server cancels after `statement_timeout`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or refuses the login.
    pub(super) async fn open(
        options: PgConnectOptions,
        statement_timeout: Duration,
    ) -> Result<Self, Error> {
        // `PgBouncer` refuses the parameter that sqlx sends for floats, of which the store has none.
        let options = options.extra_float_digits(None);
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name(APPLICATION),
        };
        let mut connection = options.connect().await?;
        // A pooler sends the client's parameters as `SET` at most: only without one they are those
        // of the server's own startup. What is set for a session is set for other clients too behind
        // a pooler, and prepared statements get lost.
        let hello = format!(
            "SELECT pg_backend_pid(), CASE WHEN source = 'client' THEN
                 set_config('statement_timeout', '{}', false) END
             FROM pg_settings WHERE name = 'application_name'",
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
            // All rows, because the commit is acknowledged behind the last one.
            return query.fetch_all(&mut self.connection).await;
        }
        Box::pin(self.run_in_transaction(query)).await
    }

    /// A pooler keeps to one server for an explicit transaction, and only so long lives an unnamed
    /// prepared statement.
    async fn run_in_transaction(&mut self, query: Query) -> Result<Vec<PgRow>, Error> {
        let mut transaction = self.begin(self.statement_timeout).await?;
        let query = query.persistent(false);
        let rows = query.fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    /// Begins a transaction whose statements may each take up to `limit`.
    pub(super) async fn begin(
        &mut self,
        limit: Duration,
    ) -> Result<Transaction<'_, Postgres>, Error> {
        let limit = whole_millis(limit);
        let begin = format!("BEGIN; SET LOCAL statement_timeout = {limit}");
        self.connection.begin_with(AssertSqlSafe(begin)).await
    }
}

/// As PostgreSQL takes a timeout; 0 would be none at all.
fn whole_millis(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_rounded_to_none() {
        assert_eq!(whole_millis(Duration::ZERO), 1);
        assert_eq!(whole_millis(Duration::from_millis(1500)), 1500);
        assert_eq!(whole_millis(Duration::MAX), i32::MAX);
    }
}
