//! The statements that list, count and forget many rows for an operator.
//!
//! A page reads a window of rows in the order of an index, and lets through those that the query asks for. So no
//! page reads more rows than its window, however rare the rows are, and a page may be empty and have
//! others behind it.

use std::sync::Arc;

use super::sql::{
    NOW, Query as Statement, SETTLED, VERSION, WRITES, is_shown, micros_since_1970, record_row,
};
use super::table::Table;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{Count, Query, StateKind, Stats, StoreError, Summary};

/// The maximum number of rows that are counted. Above it, the store returns the server's estimate.
const COUNTED: u64 = 10_000;

/// The statements for operators.
#[derive(Debug)]
pub(super) struct Listings {
    /// In the order of the primary key.
    pub(super) list: Arc<str>,
    /// In the order of the index of claims.
    pub(super) list_claims: Arc<str>,
    /// Through the index of short ids.
    pub(super) list_short: Arc<str>,
    pub(super) stats: Arc<str>,
    pub(super) forget_scope: Arc<str>,
    /// Removes the records whose claims `forget_scope` has removed before it could see the records.
    pub(super) forget_late: Arc<str>,
}

/// The state of a row at the time `now`, as `row::summary` reads it.
const IN_FLIGHT: i32 = 1;
const UNKNOWN: i32 = 2;
const RECORDED: i32 = 3;
const UNREADABLE: i32 = 4;

impl Listings {
    pub(super) fn new(table: &Table) -> Self {
        let name = table.quoted();
        let in_order = |rows: &str| format!("SELECT * FROM {rows} ORDER BY id LIMIT $3 + 1");
        let of_window = |window: &str| list(&name, window);
        let window = |condition: &str| {
            format!(
                "(SELECT id, version, fence, attempt, leased_until, expires_at, created_at,
                    settled_at, trace_id, endpoint, label, record IS NULL AS is_claim,
                    substr(record, 1, 42) AS head, octet_length(record) AS bytes
                FROM {name} WHERE id >= $1 AND id <= {last}{condition}",
                last = record_row("$2"),
            )
        };
        Self {
            list: of_window(&in_order(&format!("{}) AS r", window("")))).into(),
            list_claims: of_window(&in_order(&format!(
                "{}) AS r",
                window(" AND record IS NULL")
            )))
            .into(),
            // Without `OFFSET 0`, the server may prefer the order of the primary key and read all rows.
            list_short: of_window(&in_order(&format!(
                "{} OFFSET 0) AS r",
                window(" AND substr(id, 17, 6) = $7")
            )))
            .into(),
            stats: stats(&name).into(),
            forget_scope: forget_scope(&name, "").into(),
            forget_late: forget_scope(
                &name,
                &format!(
                    " AND octet_length(id) > 32
                    AND NOT EXISTS (SELECT FROM {name} c WHERE c.id = substr(l.id, 1, 32))"
                ),
            )
            .into(),
        }
    }

    /// The statements that take the parameters of a page.
    pub(super) fn all(&self) -> [&Arc<str>; 3] {
        [&self.list, &self.list_claims, &self.list_short]
    }
}

/// Locks the rows in the order of their ids, so that two calls do not lock each other out. Writes even if no
/// row is left, because the removal that a repeated statement confirms may not have reached a standby.
fn forget_scope(table: &str, condition: &str) -> String {
    format!(
        "WITH done AS (
            DELETE FROM {table} r WHERE id = ANY (ARRAY(
                SELECT id FROM {table} l WHERE id >= $1 AND id <= {last}{condition}
                ORDER BY id LIMIT $3 FOR UPDATE
            )) RETURNING expires_at > clock_timestamp() AND {shown} AS was_there
        )
        SELECT count(*), count(*) FILTER (WHERE was_there),
            CASE current_setting('synchronous_commit')
                WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END,
            {WRITES}
        FROM done",
        last = record_row("$2"),
        shown = is_shown(table, "r", "record"),
    )
}

/// `$1` and `$2` first and last id, `$3` the window, and filters that are `NULL` when they are not set: `$4`
/// endpoint, `$5` age in milliseconds, `$6` state, `$7` short id.
///
/// The window has one row more when that is the record row of its last claim, because the two are one entry.
/// The last row of a window that others follow comes back once more, with 0 for its state, so that it is
/// known where the next page begins.
fn list(table: &str, window: &str) -> String {
    let created_at = micros_since_1970("created_at");
    let settled_at = micros_since_1970("settled_at");
    let shown = is_shown(table, "shown", "head");
    format!(
        "WITH {NOW},
        read AS MATERIALIZED (
            SELECT *, row_number() OVER (ORDER BY id) AS number FROM ({window}) AS window_
        ),
        part AS MATERIALIZED (SELECT * FROM read WHERE number <= $3 OR octet_length(id) > 32)
        SELECT substr(id, 1, 32), state, version, fence, attempt,
            floor(extract(epoch FROM CASE state WHEN {IN_FLIGHT} THEN leased_until ELSE expires_at END
                - now) * 1000)::bigint AS millis_left,
            {created_at} AS created_at, {settled_at} AS settled_at, trace_id, endpoint, label, head, bytes
        FROM (
            SELECT *, CASE WHEN version <> {VERSION} THEN {UNREADABLE}
                WHEN NOT is_claim THEN {RECORDED}
                WHEN leased_until > now THEN {IN_FLIGHT} ELSE {UNKNOWN} END AS state
            FROM part, clock
        ) AS shown
        WHERE expires_at > now
            AND ($4::text IS NULL OR endpoint = $4)
            AND ($5::bigint IS NULL OR created_at <= now - $5 * interval '1 millisecond')
            AND ($6::integer IS NULL OR state = $6)
            AND ($7::bytea IS NULL OR substr(id, 17, 6) = $7)
            AND {shown}
        UNION ALL
        (SELECT substr(id, 1, 32), 0, version, fence, attempt, 0, 0, NULL, NULL, '', NULL, NULL, NULL
        FROM part WHERE (SELECT count(*) FROM read) > $3 ORDER BY id DESC LIMIT 1)"
    )
}

/// Counts claims by their index, and records by the primary key up to a limit. Beyond it, the estimate is that of the
/// server's last `ANALYZE`.
fn stats(table: &str) -> String {
    let most = COUNTED + 1;
    let shown = is_shown(table, "r", "record");
    // The schema may come from the server, which allows any name.
    let literal = table.replace('\'', "''");
    format!(
        "WITH {NOW},
        claims AS MATERIALIZED (
            SELECT leased_until, expires_at, {shown} AS is_shown
            FROM {table} r WHERE record IS NULL LIMIT {most}
        ),
        records AS MATERIALIZED (
            SELECT expires_at FROM {table} WHERE record <> {SETTLED} ORDER BY id LIMIT {most}
        ),
        parts AS MATERIALIZED (
            SELECT '{literal}'::regclass AS part
            UNION SELECT relid FROM pg_partition_tree('{literal}')
        )
        SELECT
            (SELECT count(*) FROM claims),
            (SELECT count(*) FROM claims, clock WHERE is_shown AND leased_until > now),
            (SELECT count(*) FROM claims, clock
                WHERE is_shown AND leased_until <= now AND expires_at > now),
            (SELECT count(*) FROM records),
            (SELECT count(*) FROM records, clock WHERE expires_at > now),
            (SELECT sum(greatest(c.reltuples, 0))::bigint
                FROM parts JOIN pg_catalog.pg_class c ON c.oid = part),
            (SELECT sum(pg_total_relation_size(part))::bigint FROM parts)"
    )
}

/// The first and the last id that a query can find. `None` when there is none.
pub(super) fn range(query: &Query) -> Result<Option<(RecordId, RecordId)>, StoreError> {
    let (first, last) = match query.scope {
        Some(scope) => of_scope(scope),
        None => (
            RecordId::from_bytes([0; 32]),
            RecordId::from_bytes([0xff; 32]),
        ),
    };
    let Some(after) = &query.after else {
        return Ok(Some((first, last)));
    };
    let next = successor(after.record_id()?);
    Ok(next
        .map(|next| (first.max(next), last))
        .filter(|(first, last)| first <= last))
}

fn of_scope(scope: ScopeId) -> (RecordId, RecordId) {
    (
        RecordId::from_halves(scope, [0; 16]),
        RecordId::from_halves(scope, [0xff; 16]),
    )
}

/// The id behind an id. `None` for the last one.
fn successor(id: RecordId) -> Option<RecordId> {
    let mut bytes = *id.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte > 0 {
            return Some(RecordId::from_bytes(bytes));
        }
    }
    None
}

fn state_number(state: StateKind) -> i32 {
    match state {
        StateKind::InFlight => IN_FLIGHT,
        StateKind::Unknown => UNKNOWN,
        StateKind::Recorded => RECORDED,
        StateKind::Unreadable => UNREADABLE,
    }
}

/// Binds a query to a statement that `list` made.
pub(super) fn listing(
    statement: Statement,
    query: &Query,
    (first, last): (RecordId, RecordId),
    window: usize,
    table: &Table,
) -> Statement {
    let age = query.older_than.map(crate::store::millis::millis);
    let endpoint = query.endpoint.as_deref().map(|it| table.text(it));
    statement
        .bind(first.as_bytes().to_vec())
        .bind(last.as_bytes().to_vec())
        .bind(i64::try_from(window).unwrap_or(i64::MAX))
        .bind(endpoint)
        .bind(age)
        .bind(query.state.map(state_number))
        .bind(query.short.map(|short| short.as_bytes().to_vec()))
}

/// Binds a scope and a limit to the statement that removes its rows.
pub(super) fn forgetting(statement: Statement, scope: ScopeId, batch: i64) -> Statement {
    let (first, last) = of_scope(scope);
    statement
        .bind(first.as_bytes().to_vec())
        .bind(last.as_bytes().to_vec())
        .bind(batch)
}

/// A row of a listing: `None` for the last one of a full window.
pub(super) type Listed = (RecordId, Option<Summary>);

/// What the statement counted.
pub(super) struct Counted {
    pub(super) claims: u64,
    pub(super) in_flight: u64,
    pub(super) unknown: u64,
    pub(super) records: u64,
    pub(super) live_records: u64,
    pub(super) estimated_rows: u64,
    pub(super) bytes: u64,
}

impl Counted {
    pub(super) fn stats(&self) -> Stats {
        let of_claims = |value| {
            if self.claims > COUNTED {
                Count::at_least(value)
            } else {
                Count::exact(value)
            }
        };
        let estimate = self.estimated_rows.saturating_sub(self.claims);
        let recorded = if self.records <= COUNTED {
            Count::exact(self.live_records)
        } else if estimate > COUNTED {
            Count::estimate(estimate)
        } else {
            Count::at_least(self.live_records)
        };
        Stats {
            in_flight: of_claims(self.in_flight),
            unknown: of_claims(self.unknown),
            recorded,
            bytes: Some(self.bytes),
            max_bytes: None,
        }
    }
}

/// What `row::summary` makes of the number of a state.
pub(super) fn kind_of(state: i32) -> Option<StateKind> {
    match state {
        IN_FLIGHT => Some(StateKind::InFlight),
        UNKNOWN => Some(StateKind::Unknown),
        RECORDED => Some(StateKind::Recorded),
        UNREADABLE => Some(StateKind::Unreadable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Cursor;

    #[test]
    fn a_schema_name_with_an_apostrophe_is_escaped() {
        let stats = stats("\"o'brien\".\"idem_records\"");
        assert!(stats.contains("'\"o''brien\".\"idem_records\"'::regclass"));
        assert!(stats.contains("pg_partition_tree('\"o''brien\".\"idem_records\"')"));
    }

    #[test]
    fn a_page_begins_behind_its_cursor() {
        let id = |last| {
            let mut bytes = [7; 32];
            bytes[31] = last;
            RecordId::from_bytes(bytes)
        };
        assert_eq!(successor(id(1)), Some(id(2)));
        let mut carried = *id(0).as_bytes();
        carried[30] += 1;
        assert_eq!(successor(id(0xff)), Some(RecordId::from_bytes(carried)));
        assert_eq!(successor(RecordId::from_bytes([0xff; 32])), None);

        let of_scope = Query::all().scope(id(0).scope_id());
        let after = |id| of_scope.clone().after(Cursor::of_record(id));
        let (_, last) = super::of_scope(id(0).scope_id());
        let found = range(&after(id(1))).expect("a cursor of this store");
        assert_eq!(found, Some((id(2), last)));
        assert_eq!(range(&after(last)).expect("a cursor of this store"), None);
        let other = of_scope.after(Cursor::from_bytes([1]));
        assert!(matches!(range(&other), Err(StoreError::InvalidCursor)));
    }

    #[test]
    fn a_count_says_how_far_it_can_be_trusted() {
        let mut counted = Counted {
            claims: 5,
            in_flight: 2,
            unknown: 3,
            records: 10,
            live_records: 9,
            estimated_rows: 0,
            bytes: 1,
        };
        assert_eq!(counted.stats().recorded, Count::exact(9));
        assert_eq!(counted.stats().unknown, Count::exact(3));
        counted.records = COUNTED + 1;
        assert_eq!(counted.stats().recorded, Count::at_least(9));
        counted.estimated_rows = 1_000_000;
        assert_eq!(counted.stats().recorded, Count::estimate(999_995));
        counted.claims = COUNTED + 1;
        assert_eq!(counted.stats().in_flight, Count::at_least(2));
    }
}
