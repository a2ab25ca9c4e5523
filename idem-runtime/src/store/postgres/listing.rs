//! Lists, counts and forgets many rows for an operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::PgRow;
use tokio::time::Instant;

use super::listings::{Listed, forgetting, listing, range};
use super::{Inner, only, row};
use crate::request::scope_id::ScopeId;
use crate::store::{Cursor, Page, Query, StateKind, Stats, StoreError};

/// How many rows a page reads when a filter has no index of its own.
const WINDOW: usize = 1_000;

/// How many rows one statement of `forget_scope` removes, unless so many take longer than the timeout.
const BATCH: i64 = 1_000;

impl Inner {
    pub(super) async fn list(&self, query: Query) -> Result<Page, StoreError> {
        let Some(range) = range(&query)? else {
            return Ok(Page::default());
        };
        let listings = &self.statements.listings;
        let limit = query.page_len();
        let is_of_claims = matches!(query.state, Some(StateKind::InFlight | StateKind::Unknown));
        let (statement, has_index) = match query.short {
            Some(_) => (&listings.list_short, true),
            None if is_of_claims => (&listings.list_claims, false),
            None => (&listings.list, query.state.is_none()),
        };
        let is_indexed = has_index && query.endpoint.is_none() && query.older_than.is_none();
        let window = if is_indexed { limit } else { limit.max(WINDOW) };
        let bind = |statement| listing(statement, &query, range, window, &self.table);
        let read = |rows: &[PgRow], _| {
            let read = rows.iter().map(row::summary);
            read.collect::<Result<Vec<_>, _>>().map(Some)
        };
        let rows = self.send(self.deadline(), statement, bind, read).await?;
        Ok(page(rows, limit))
    }

    pub(super) async fn stats(&self) -> Result<Stats, StoreError> {
        let read = |rows: &[PgRow], _| row::stats(only(rows)?).map(Some);
        let statement = &self.statements.listings.stats;
        let found = self
            .send(self.deadline(), statement, |query| query, read)
            .await?;
        Ok(found.stats())
    }

    /// The removal of a claim waits for the transactions that have recorded under it. Their records are removed at
    /// the end. Each of them belongs to an entry that was counted before.
    pub(super) async fn forget_scope(&self, scope: ScopeId) -> Result<u64, StoreError> {
        let listings = &self.statements.listings;
        let forgotten = self.forget_rows(&listings.forget_scope, scope).await?;
        self.forget_rows(&listings.forget_late, scope).await?;
        Ok(forgotten)
    }

    async fn forget_rows(&self, statement: &Arc<str>, scope: ScopeId) -> Result<u64, StoreError> {
        let forgotten = AtomicU64::new(0);
        let mut batch = BATCH;
        loop {
            let deadline = Instant::now() + self.patience();
            let bind = |query| forgetting(query, scope, batch);
            let read = |rows: &[PgRow], _| {
                let (removed, were_there) = row::counts(only(rows)?)?;
                // Counted here, because a slow statement is sent again, and its repetition removes other rows.
                forgotten.fetch_add(were_there, Ordering::Relaxed);
                Ok(Some(removed))
            };
            match self.send(deadline, statement, bind, read).await {
                Ok(removed) if removed < batch.unsigned_abs() => {
                    return Ok(forgotten.load(Ordering::Relaxed));
                }
                Ok(_) => {}
                // The server cancels a statement that takes longer than the timeout of the store.
                Err(StoreError::TimedOut) if batch > 1 => batch = (batch / 8).max(1),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The entries among the rows, and where the next page begins.
fn page(rows: Vec<Listed>, limit: usize) -> Page {
    let mut entries = Vec::new();
    let mut window_end = None;
    for (id, entry) in rows {
        match entry {
            Some(entry) => entries.push(entry),
            None => window_end = Some(id),
        }
    }
    entries.sort_by_key(|entry| entry.id);
    if entries.len() > limit {
        entries.truncate(limit);
        window_end = entries.last().map(|entry| entry.id);
    }
    Page::new(entries, window_end.map(Cursor::of_record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::record_id::RecordId;
    use crate::store::Summary;

    #[test]
    fn a_page_ends_at_its_limit_or_at_the_end_of_its_window() {
        use crate::store::{Origin, State};
        use std::time::{Duration, SystemTime};
        let id = |n| RecordId::from_bytes([n; 32]);
        let entry = |n| {
            let state = State::InFlight {
                fence: 1,
                attempt: 1,
                lease_left: Duration::ZERO,
            };
            let entry = Summary::new(id(n), Origin::default(), SystemTime::UNIX_EPOCH, state);
            (id(n), Some(entry))
        };
        let ids = |page: &Page| page.entries.iter().map(|it| it.id).collect::<Vec<_>>();
        let cut = page(vec![entry(3), entry(1), entry(2), (id(9), None)], 2);
        assert_eq!(ids(&cut), [id(1), id(2)]);
        assert_eq!(cut.next, Some(Cursor::of_record(id(2))));
        let sparse = page(vec![entry(1), (id(9), None)], 2);
        assert_eq!(sparse.next, Some(Cursor::of_record(id(9))));
        let last = page(vec![entry(1), entry(2)], 2);
        assert_eq!((ids(&last), last.next), (vec![id(1), id(2)], None));
    }
}
