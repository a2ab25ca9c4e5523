//! Checks whether the file and its settings keep the rules of the store.

use sqlx::sqlite::SqliteConnection;

use super::Inner;
use super::row::column;
use super::transition::{Failed, query};
use super::writer::used_bytes;
use crate::store::{Finding, StoreError};

/// A highest fence that is later than the clock by more than this shows that the clock has gone back.
const CLOCK_TOLERANCE_MICROS: i64 = 5_000_000;

impl Inner {
    pub(super) async fn diagnose(&self) -> Result<Vec<Finding>, StoreError> {
        let read = async |connection: &mut SqliteConnection, now| {
            let version = text(connection, "SELECT sqlite_version()").await?;
            let mode = text(connection, "PRAGMA journal_mode").await?;
            let synchronous: i64 = column(
                &sqlx::query("PRAGMA synchronous")
                    .fetch_one(&mut *connection)
                    .await?,
                0,
            )?;
            let damage = text(connection, "PRAGMA quick_check(1)").await?;
            let last_fence: i64 = column(
                &query(&self.statements.last_fence)
                    .fetch_one(&mut *connection)
                    .await?,
                0,
            )?;
            let used = used_bytes(connection).await?;
            Ok::<_, Failed>(vec![
                Finding::good("version", format!("SQLite {version}")),
                journal(&mode),
                durability(synchronous),
                integrity(&damage),
                clock(last_fence, now),
                Finding::fill(used, self.max_bytes),
            ])
        };
        Ok(self.readers.read(read).await?)
    }
}

async fn text(connection: &mut SqliteConnection, sql: &'static str) -> Result<String, Failed> {
    let row = sqlx::query(sql).fetch_one(connection).await?;
    column(&row, 0).map_err(Failed::Row)
}

fn journal(mode: &str) -> Finding {
    if mode == "wal" {
        return Finding::good("journal", "the journal mode is WAL");
    }
    let message = format!("the journal mode is {mode:?}; the store needs WAL");
    Finding::bad("journal", message)
}

/// The file does not store the setting, so each process has its own.
fn durability(synchronous: i64) -> Finding {
    if synchronous >= 2 {
        Finding::good(
            "durability",
            "each commit of this process waits for the disk",
        )
    } else {
        let message = "commits of this process do not wait for the disk, so a loss of power may undo them; \
             use `synchronous(SqliteSynchronous::Full)`";
        Finding::warning("durability", message)
    }
}

fn integrity(damage: &str) -> Finding {
    if damage == "ok" {
        return Finding::good("integrity", "the file is not damaged");
    }
    let message = format!("the file is damaged: {damage}; restore a backup");
    Finding::bad("integrity", message)
}

fn clock(last_fence: i64, now: i64) -> Finding {
    let ahead = last_fence.saturating_sub(now);
    if ahead <= CLOCK_TOLERANCE_MICROS {
        return Finding::good("clock", "the clock has not gone back");
    }
    let message = format!(
        "the clock is {} s behind the last claim, so leases and records last that much longer; \
         synchronize the clock",
        ahead / 1_000_000
    );
    Finding::warning("clock", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Severity;

    #[test]
    fn an_unfit_setting_is_not_reported_as_good() {
        assert_eq!(journal("wal").severity, Severity::Good);
        assert_eq!(journal("delete").severity, Severity::Bad);
        assert_eq!(durability(2).severity, Severity::Good);
        assert_eq!(durability(1).severity, Severity::Warning);
        for level in [1, 2] {
            let message = durability(level).message;
            assert!(message.contains("of this process"), "{message}");
        }
        assert_eq!(integrity("ok").severity, Severity::Good);
        assert_eq!(integrity("row 7 missing").severity, Severity::Bad);
        assert_eq!(clock(7_000_000, 2_000_000).severity, Severity::Good);
        assert_eq!(clock(7_000_001, 2_000_000).severity, Severity::Warning);
        assert_eq!(clock(0, i64::MAX).severity, Severity::Good);
    }
}
