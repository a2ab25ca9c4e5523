//! Sends a statement until its result is certain.

use std::sync::Arc;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
use tokio::time::{Instant, timeout_at};

use super::failure::{Remedy, remedy, store_error};
use super::session::Session;
use super::sql::Query;
use super::{Inner, only, row};
use crate::store::StoreError;

/// How often a statement is sent when it loses races or its connection breaks.
const TRIES: usize = 12;

/// Commits that take longer than this, and longer than a quarter of the store's timeout, may have
/// waited for a standby until somebody canceled the wait. The quarter is for standbys that are
/// always slow.
const QUICK_COMMIT: Duration = Duration::from_millis(250);

/// Whether an earlier try may have taken effect before the try that returned the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    First,
    Repeated,
}

impl Inner {
    /// Sends a statement until its result is certain, as long as the errors are transient.
    ///
    /// `read` gets the rows, and whether an earlier try may have taken effect. When `read` returns
    /// `None`, the statement is sent again.
    pub(super) async fn send<T>(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow], Tries) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        self.send_and_confirm(deadline, statement, bind, read, |_| true)
            .await
    }

    /// Like `send`. A result for which `wrote` is false needs no confirmation, however long it
    /// took.
    pub(super) async fn send_and_confirm<T>(
        &self,
        deadline: Instant,
        statement: &Arc<str>,
        bind: impl Fn(Query) -> Query,
        read: impl Fn(&[PgRow], Tries) -> Result<Option<T>, StoreError>,
        wrote: impl Fn(&T) -> bool,
    ) -> Result<T, StoreError> {
        let mut last = StoreError::Unavailable(
            "gave up because other processes kept changing this record".into(),
        );
        let mut tries = Tries::First;
        for _ in 0..TRIES {
            let mut leased = self.connections.acquire(deadline).await?;
            let session = leased.session();
            let query = bind(sqlx::query(AssertSqlSafe(statement.clone())));
            let asked_at = Instant::now();
            let Ok(rows) = timeout_at(deadline, session.run(query)).await else {
                return Err(StoreError::TimedOut);
            };
            let error = match rows {
                Ok(rows) => {
                    let is_slow = self.is_slow(asked_at);
                    let result = read(&rows, tries);
                    let may_wait = is_slow && matches!(&result, Ok(Some(result)) if wrote(result));
                    let is_unsure = may_wait && self.waits_for_standbys(deadline, session).await?;
                    leased.keep();
                    if is_unsure {
                        tries = Tries::Repeated;
                        last = StoreError::TimedOut;
                        continue;
                    }
                    if let Some(result) = result? {
                        return Ok(result);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let remedy = remedy(&error);
            last = store_error(error, &self.table);
            match remedy {
                Remedy::Again => leased.keep(),
                Remedy::Elsewhere => {
                    tries = Tries::Repeated;
                    leased.close(&last);
                }
                Remedy::OtherServer => {
                    if !leased.leave(&last) {
                        return Err(last);
                    }
                }
                Remedy::Report => {
                    leased.keep();
                    return Err(last);
                }
            }
        }
        Err(last)
    }

    /// Whether commits wait for synchronous standbys.
    ///
    /// An operator can cancel that wait. The server then acknowledges a commit that no standby has,
    /// with a warning that sqlx does not pass on. So a slow commit only counts after the statement
    /// was sent again and its commit was quick: that commit follows the first commit in the log.
    pub(super) async fn waits_for_standbys(
        &self,
        deadline: Instant,
        session: &mut Session,
    ) -> Result<bool, StoreError> {
        let look = "SELECT current_setting('synchronous_standby_names') <> ''";
        let look = session.run(sqlx::query(look));
        let Ok(rows) = timeout_at(deadline, look).await else {
            return Err(StoreError::TimedOut);
        };
        let rows = rows.map_err(|error| store_error(error, &self.table))?;
        row::done(only(&rows)?)
    }

    /// Whether a commit that began then may have waited for a standby, see [`QUICK_COMMIT`].
    pub(super) fn is_slow(&self, asked_at: Instant) -> bool {
        asked_at.elapsed() > QUICK_COMMIT.max(self.timeout / 4)
    }
}
