//! Lists, counts and forgets many rows for an operator.

use sqlx::sqlite::SqliteConnection;

use super::clock::time;
use super::row::{number, summary};
use super::table::Statements;
use super::transition::{Failed, query};
use super::writer::used_bytes;
use crate::request::record_id::RecordId;
use crate::store::{Count, Cursor, Page, Query, StateKind, Stats, StoreError};

/// How many rows a page reads when a filter has no index.
const WINDOW: usize = 1_000;

/// Up to how many rows are counted.
const COUNTED: u32 = 10_000;

pub(super) async fn list(
    connection: &mut SqliteConnection,
    statements: &Statements,
    wanted: &Query,
    now: i64,
) -> Result<Page, Failed> {
    let after = wanted.after.as_ref().map(Cursor::record_id).transpose()?;
    let after = after.map_or(Vec::new(), |id| id.as_bytes().to_vec());
    let edge = |byte| match wanted.scope {
        Some(scope) => RecordId::from_halves(scope, [byte; 16]),
        None => RecordId::from_bytes([byte; 32]),
    };
    let limit = wanted.page_len();
    let is_of_claims = matches!(wanted.state, Some(StateKind::InFlight | StateKind::Unknown));
    let statement = match wanted.short {
        Some(_) => &statements.list_short,
        None if is_of_claims => &statements.list_claims,
        None => &statements.list,
    };
    // The window is read beyond the limit, because expired rows are in it too.
    let window = limit.max(WINDOW);
    let mut rows = query(statement)
        .bind(edge(0).as_bytes().to_vec())
        .bind(after)
        .bind(edge(0xff).as_bytes().to_vec())
        .bind(u32::try_from(window).unwrap_or(u32::MAX));
    if let Some(short) = wanted.short {
        rows = rows.bind(short.as_bytes().to_vec());
    }
    let rows = rows.fetch_all(connection).await?;
    let mut entries = Vec::new();
    let mut last = None;
    for row in &rows {
        let (id, entry) = summary(row, now)?;
        if let Some(entry) = entry
            && wanted.matches(&entry, time(now))
        {
            if entries.len() == limit {
                return Ok(Page::new(entries, last.map(Cursor::of_record)));
            }
            entries.push(entry);
        }
        last = Some(id);
    }
    let next = last.filter(|_| rows.len() == window);
    Ok(Page::new(entries, next.map(Cursor::of_record)))
}

pub(super) async fn stats(
    connection: &mut SqliteConnection,
    statements: &Statements,
    max_bytes: Option<u64>,
    now: i64,
) -> Result<Stats, Failed> {
    let bytes = used_bytes(connection).await?;
    let counts = query(&statements.stats).bind(now).bind(COUNTED);
    let row = counts.fetch_one(connection).await?;
    let count = |at| -> Result<Count, StoreError> {
        let counted = number(&row, at)?;
        Ok(if counted < u64::from(COUNTED) {
            Count::exact(counted)
        } else {
            Count::at_least(counted)
        })
    };
    Ok(Stats {
        in_flight: count(0)?,
        unknown: count(1)?,
        recorded: count(2)?,
        bytes: Some(bytes),
        max_bytes,
    })
}
