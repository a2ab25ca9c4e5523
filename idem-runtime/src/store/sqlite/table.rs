//! The tables of the store, and its statements.

use std::sync::Arc;

use super::instance::UNLOCKED;
use crate::store::StoreError;
use crate::store::table_name::{self, LONGEST};

/// The version of the tables and of each row. Rows with another version are left unchanged.
pub(super) const VERSION: i64 = 1;

/// The SQL of the tables and indexes, for the default name. The package publishes this file.
const SCHEMA: &str = include_str!("../../../schema/sqlite.sql");

/// The columns that decide a transition, in the order of `Held::read`, and those of a replay.
const HELD: &str = "version, fence, attempt, leased_until, expires_at, retention_us, fingerprint, owner, record, instance,
    created_at, settled_at, trace_id";

/// The columns of a new claim.
const CLAIM: &str =
    "(id, version, fence, attempt, leased_until, expires_at, retention_us, fingerprint,
    owner, instance, created_at, trace_id, endpoint, label)";

/// How many rows a statement for many rows has. SQLite prepares each of them once.
pub(super) const ROWS: [usize; 4] = [1, 4, 16, 64];

/// A statement for each number of rows in [`ROWS`].
#[derive(Debug)]
pub(super) struct ForRows([Arc<str>; ROWS.len()]);

impl ForRows {
    fn new(statement: impl Fn(&str) -> String, row: &str) -> Self {
        Self(ROWS.map(|rows| statement(&vec![row; rows].join(", ")).into()))
    }

    /// The statement for this number of rows, which is one of [`ROWS`].
    pub(super) fn of(&self, rows: usize) -> &Arc<str> {
        let at = ROWS.iter().position(|of| *of == rows);
        &self.0[at.expect("a number of rows that has a statement")]
    }
}

/// Every statement of the store, for one table.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) table: String,
    pub(super) meta: String,
    pub(super) held: Arc<str>,
    pub(super) look_up: Arc<str>,
    pub(super) insert: Arc<str>,
    /// The rows under several ids.
    pub(super) looks: ForRows,
    pub(super) inserts: ForRows,
    pub(super) updates: ForRows,
    pub(super) take_over: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) abandon: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) resolve: Arc<str>,
    pub(super) record: Arc<str>,
    pub(super) delete: Arc<str>,
    pub(super) end_leases: Arc<str>,
    pub(super) has_claims: Arc<str>,
    pub(super) last_fence: Arc<str>,
    pub(super) set_last_fence: Arc<str>,
    pub(super) count_claims: Arc<str>,
    pub(super) sweep: Arc<str>,
    pub(super) count_scope: Arc<str>,
    pub(super) forget_scope: Arc<str>,
    pub(super) list: Arc<str>,
    pub(super) list_claims: Arc<str>,
    pub(super) list_short: Arc<str>,
    pub(super) stats: Arc<str>,
}

impl Statements {
    /// # Errors
    ///
    /// When the name has other characters than letters, digits and underscores, begins with a digit,
    /// begins with `sqlite_`, or is longer than 50 characters.
    pub(super) fn new(name: &str) -> Result<Self, StoreError> {
        let is_reserved = name.to_ascii_lowercase().starts_with("sqlite_");
        if is_reserved || !table_name::is_valid(name) {
            return Err(StoreError::Unfit(
                format!(
                    "{name:?} cannot name a table here; use up to {LONGEST} letters, digits and \
                     underscores, the first not a digit, and do not begin with `sqlite_`"
                )
                .into(),
            ));
        }
        let table = format!("\"{name}\"");
        let meta = format!("\"{name}_meta\"");
        let list = |index: &str, condition: &str| -> Arc<str> {
            format!(
                "SELECT id, version, fence, attempt, leased_until, expires_at, created_at, settled_at,
                    trace_id, endpoint, label, length(record), substr(record, 1, 42)
                FROM {table}{index}
                WHERE id >= ?1 AND id > ?2 AND id <= ?3{condition} ORDER BY id LIMIT ?4"
            )
            .into()
        };
        // Each statement for many rows names its index. After an `ANALYZE` of few rows, SQLite would scan the table, also
        // when the table has grown. A service may run `ANALYZE` on the file that it shares with the store.
        let indexed_by = |what: &str| format!(" INDEXED BY \"{name}_{what}\"");
        // The index of the constraint `UNIQUE`. SQLite gives it this name, and refuses to drop it.
        let by_id = format!(" INDEXED BY \"sqlite_autoindex_{name}_1\"");
        Ok(Self {
            held: format!("SELECT {HELD} FROM {table} WHERE id = ?1").into(),
            look_up: format!(
                "SELECT {HELD}, endpoint, label
                FROM {table} WHERE id = ?1"
            )
            .into(),
            insert: format!("INSERT OR REPLACE INTO {table} {CLAIM} VALUES {}", new_row()).into(),
            looks: ForRows::new(
                |ids| format!("SELECT {HELD}, id FROM {table}{by_id} WHERE id IN ({ids})"),
                "?",
            ),
            inserts: ForRows::new(|rows| inserts(&table, rows), &new_row()),
            updates: ForRows::new(|rows| updates(&table, &by_id, rows), "(?, ?, ?, ?, ?)"),
            take_over: format!(
                "UPDATE {table} SET fence = ?2, attempt = attempt + 1, leased_until = ?3,
                    expires_at = ?4, retention_us = ?5, owner = ?6, instance = ?7 WHERE id = ?1"
            )
            .into(),
            renew: format!("UPDATE {table} SET leased_until = ?2, expires_at = ?3 WHERE id = ?1")
                .into(),
            // Without an instance, only `leased_until` counts, so no instance file can extend the lease.
            abandon: format!(
                "UPDATE {table} SET leased_until = ?2, expires_at = ?3, instance = {UNLOCKED} WHERE id = ?1"
            )
            .into(),
            complete: complete(&table, "owner").into(),
            // Without an owner, so that no attempt takes the record for its own.
            resolve: complete(&table, "zeroblob(16)").into(),
            record: record(name).into(),
            delete: format!("DELETE FROM {table} WHERE id = ?1").into(),
            end_leases: end_leases(&table, &by_id, &indexed_by("claims")).into(),
            has_claims: has_claims(&table, &indexed_by("claims")).into(),
            last_fence: format!("SELECT fence FROM {meta}").into(),
            set_last_fence: format!("UPDATE {meta} SET fence = ?1").into(),
            count_claims: format!(
                "SELECT count(*) FROM {table}{} WHERE record IS NULL
                    AND (leased_until > ?1 OR instance <> {UNLOCKED})",
                indexed_by("claims")
            )
            .into(),
            sweep: format!(
                "DELETE FROM {table}{by_id} WHERE id IN (
                    SELECT id FROM {table}{} WHERE expires_at <= ?1
                    AND (record IS NOT NULL OR instance = {UNLOCKED} OR expires_at <= ?2)
                    ORDER BY expires_at LIMIT ?3)",
                indexed_by("expires_at")
            )
            .into(),
            count_scope: format!(
                "SELECT count(*) FROM (SELECT expires_at FROM {table}{by_id}
                    WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3) WHERE expires_at > ?4"
            )
            .into(),
            forget_scope: format!(
                "DELETE FROM {table}{by_id} WHERE id IN (
                    SELECT id FROM {table}{by_id} WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3)"
            )
            .into(),
            list: list(&by_id, ""),
            list_claims: list(&indexed_by("claims"), " AND record IS NULL"),
            list_short: list(&indexed_by("short"), " AND substr(id, 17, 6) = ?5"),
            // Each count stops at its limit.
            stats: format!(
                "SELECT
                    (SELECT count(*) FROM (SELECT 1 FROM {table}{claims}
                        WHERE record IS NULL AND expires_at > ?1 AND leased_until > ?1 LIMIT ?2)),
                    (SELECT count(*) FROM (SELECT 1 FROM {table}{claims}
                        WHERE record IS NULL AND expires_at > ?1 AND leased_until <= ?1 LIMIT ?2)),
                    (SELECT count(*) FROM (SELECT 1 FROM {table}{expires_at}
                        WHERE record IS NOT NULL AND expires_at > ?1 LIMIT ?2))",
                claims = indexed_by("claims"),
                expires_at = indexed_by("expires_at")
            )
            .into(),
            table,
            meta,
        })
    }

    /// Every statement. A new field does not compile until it is here.
    #[cfg(test)]
    fn all(&self) -> Vec<&str> {
        let Self {
            table: _,
            meta: _,
            held,
            look_up,
            insert,
            looks,
            inserts,
            updates,
            take_over,
            renew,
            abandon,
            complete,
            resolve,
            record,
            delete,
            end_leases,
            has_claims,
            last_fence,
            set_last_fence,
            count_claims,
            sweep,
            count_scope,
            forget_scope,
            list,
            list_claims,
            list_short,
            stats,
        } = self;
        let single = [
            held,
            look_up,
            insert,
            take_over,
            renew,
            abandon,
            complete,
            resolve,
            record,
            delete,
            end_leases,
            has_claims,
            last_fence,
            set_last_fence,
            count_claims,
            sweep,
            count_scope,
            forget_scope,
            list,
            list_claims,
            list_short,
            stats,
        ];
        let for_rows = [looks, inserts, updates].map(|ForRows(statements)| statements);
        let all = single.into_iter().chain(for_rows.into_iter().flatten());
        all.map(|statement| &**statement).collect()
    }

    /// The SQL that creates the tables and the indexes. Safe to run again.
    pub(super) fn definition(&self) -> String {
        let sql = SCHEMA
            .split_once("\n\n")
            .map_or(SCHEMA, |(_comment, sql)| sql);
        // The names of the other table and of the indexes begin with the name of the table.
        sql.replace("\"idem_records", self.table.trim_end_matches('"'))
    }
}

/// The row of a new claim. Its 12 parameters are the columns of [`CLAIM`] without the version and the attempt.
fn new_row() -> String {
    format!("(?, {VERSION}, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
}

/// Inserts the claims whose ids have no row, and returns their fences.
fn inserts(table: &str, rows: &str) -> String {
    format!("INSERT INTO {table} {CLAIM} VALUES {rows} ON CONFLICT (id) DO NOTHING RETURNING fence")
}

/// Completes the claims that their holders hold, and returns the ids. The last two parameters are the time.
///
/// `held.id IN` makes SQLite search the index of the ids. A `+` hides a column of `held` from the join, which would scan
/// that index.
fn updates(table: &str, by_id: &str, rows: &str) -> String {
    format!(
        "WITH done (id, owner, fence, record, expires_at) AS (VALUES {rows})
        UPDATE {table} AS held{by_id} SET record = done.record, settled_at = ?, expires_at = done.expires_at
        FROM done WHERE held.id IN (SELECT id FROM done)
            AND +held.id = done.id
            AND +held.owner = done.owner
            AND +held.fence = done.fence
            AND held.version = {VERSION}
            AND held.record IS NULL
            AND held.expires_at > ?
        RETURNING id"
    )
}

fn complete(table: &str, owner: &str) -> String {
    format!(
        "UPDATE {table} SET record = ?2, settled_at = ?3, expires_at = ?4, owner = {owner} WHERE id = ?1"
    )
}

/// Records a response inside the transaction of a handler. Fails unless the attempt holds its claim: see the trigger
/// in `schema/sqlite.sql`.
///
/// The transaction must write no other file. SQLite commits each file of a transaction by itself, so a crash could
/// keep the record and lose the effect.
fn record(name: &str) -> String {
    format!(
        "INSERT INTO main.\"{name}_commit_v1\"
            (id, owner, fence, record, settled_at, expires_at, is_alone, is_synced)
        SELECT ?1, ?2, ?3, ?4, ?5, ?6,
            NOT EXISTS (SELECT 1 FROM pragma_database_list WHERE
                CASE name WHEN 'main' THEN CAST(file AS BLOB) <> ?7 WHEN 'temp' THEN 0 ELSE file <> '' END),
            (SELECT synchronous >= ?8 FROM pragma_synchronous)"
    )
}

/// Ends the leases of an instance. It has extended them until ?3, and they end now (?2) at the latest.
fn end_leases(table: &str, by_id: &str, claims: &str) -> String {
    format!(
        "UPDATE {table}{by_id} SET leased_until = min(max(leased_until, ?3), ?2),
            expires_at = min(max(leased_until, ?3), ?2) + retention_us, instance = {UNLOCKED}
        WHERE id IN (SELECT id FROM {table}{claims}
            WHERE record IS NULL AND instance = ?1)
        AND version = {VERSION}"
    )
}

/// Whether a claim of an instance is in flight.
fn has_claims(table: &str, claims: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT 1 FROM {table}{claims}
            WHERE record IS NULL AND instance = ?1 AND leased_until > ?2)"
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use sqlx::sqlite::SqliteConnection;
    use sqlx::{AssertSqlSafe, Connection, Row};

    use super::*;
    use crate::request::record_id::RecordId;

    #[test]
    fn the_published_schema_is_written_for_any_name() {
        let of = |name| Statements::new(name).expect("a name").definition();
        let sql = of("keys");
        assert!(!sql.contains("idem_records"), "{sql}");
        assert!(sql.contains("CREATE INDEX IF NOT EXISTS \"keys_short\" ON \"keys\" (substr"));
        assert!(sql.contains(&format!("VALUES (1, {VERSION}, 0)")), "{sql}");
        assert!(SCHEMA.ends_with(&of("idem_records")));
    }

    /// Versions of the library share a file, so another trigger needs another number in the name of the view.
    #[test]
    fn the_text_of_the_trigger_never_changes() {
        let (_, trigger) = SCHEMA.split_once("CREATE VIEW").expect("a view");
        let words: Vec<_> = trigger.split_whitespace().collect();
        let digest = Sha256::digest(words.join(" "));
        assert_eq!(
            RecordId::from_bytes(digest.into()).to_string(),
            "f98c61dcf8ba8f3f9b18fb41d9729f130d72d94b07b865b73f9bff12fb7cfc2f"
        );
    }

    /// A table with this many rows, of which the first `claims` are claims, after `ANALYZE`.
    async fn analyzed(statements: &Statements, rows: usize, claims: usize) -> SqliteConnection {
        let connection = SqliteConnection::connect("sqlite::memory:").await;
        let mut connection = connection.expect("a database");
        let insert = format!(
            "WITH numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {rows})
            INSERT INTO {} {CLAIM}
            SELECT randomblob(32), {VERSION}, n, 1, n, n, 0, x'', x'', n, n, NULL, '', NULL FROM numbers;
            UPDATE {} SET record = x'00' WHERE fence >= {claims}",
            statements.table, statements.table
        );
        for sql in [&statements.definition(), &insert, "ANALYZE"] {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
            sql.execute(&mut connection).await.expect("it runs");
        }
        connection
    }

    async fn plan(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
        let explain = format!("EXPLAIN QUERY PLAN {statement}");
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(connection);
        let rows = rows.await.expect("it is a statement");
        rows.iter().map(|row| row.get("detail")).collect()
    }

    /// SQLite keeps the statistics of a small table until the next `ANALYZE`, while the table grows. A service shares
    /// its file with the store, and its migrations may contain an `ANALYZE`.
    #[tokio::test]
    async fn no_statement_scans_the_table_after_an_analyze_of_few_rows() {
        let statements = Statements::new("keys").expect("a name");
        let mut slow = Vec::new();
        for (rows, claims) in [
            (1, 0),
            (3, 0),
            (3, 3),
            (40, 4),
            (40, 40),
            (200, 4),
            (200, 200),
        ] {
            let mut connection = analyzed(&statements, rows, claims).await;
            for statement in statements.all() {
                for step in plan(&mut connection, statement).await {
                    // Few rows are claims, and some statements read all of them.
                    let is_scan = matches!(step.split(' ').nth(1), Some("keys" | "held"))
                        && step.starts_with("SCAN")
                        && !step.ends_with(" INDEX keys_claims");
                    // Most rows have not expired. The statistics count them up to a limit.
                    let is_walk = step.contains("expires_at>") && *statement != *statements.stats;
                    if is_scan || is_walk {
                        slow.push(format!("{rows} rows, {claims} claims: {step}: {statement}"));
                    }
                }
            }
        }
        assert!(slow.is_empty(), "{}", slow.join("\n"));
    }

    #[test]
    fn names_are_limited_to_letters_digits_and_underscores() {
        for name in ["idem_records", "_x", "Trades2"] {
            assert!(Statements::new(name).is_ok(), "{name}");
        }
        let long = "x".repeat(51);
        for name in [
            "", "2x", "x; drop", "x\"y", "x.y", "größe", "x-y", "x\0", "SQLite_x", &long,
        ] {
            assert!(Statements::new(name).is_err(), "{name}");
        }
    }
}
