//! Checks whether the server and its settings keep the rules of the store.

use std::time::SystemTime;

use sqlx::postgres::PgRow;
use sqlx::{Error, Row};
use tokio::time::timeout_at;

use super::failure::store_error;
use super::{Inner, only};
use crate::store::{Finding, StoreError};

/// A server whose clock differs by more than this shows other times than the logs.
const CLOCK_TOLERANCE_MILLIS: i64 = 2_000;

const LOOK: &str = "SELECT
    current_setting('server_version'),
    current_setting('fsync'),
    current_setting('full_page_writes'),
    current_setting('synchronous_standby_names'),
    (SELECT count(*) FROM pg_stat_replication),
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
    current_setting('autovacuum'),
    current_setting('max_connections')::bigint,
    (SELECT count(*) FROM pg_stat_activity)";

/// What the server has replied.
struct Facts {
    version: String,
    fsync: String,
    full_page_writes: String,
    standby_names: String,
    replicas: i64,
    /// How far the clock of the server is ahead of the clock of this process.
    clock_ahead_millis: i64,
    is_superuser: bool,
    autovacuum: String,
    max_connections: i64,
    connections: i64,
}

impl Inner {
    pub(super) async fn diagnose(&self) -> Result<Vec<Finding>, StoreError> {
        let deadline = tokio::time::Instant::now() + self.patience();
        let mut leased = self.connections.acquire(deadline).await?;
        let session = leased.session();
        let is_direct = session.process.is_some();
        let asked_at = millis_now();
        let rows = timeout_at(deadline, session.run(sqlx::query(LOOK))).await;
        let rows = rows.map_err(|_| StoreError::TimedOut)?;
        let rows = rows.map_err(|error| store_error(error, &self.table))?;
        let replied_at = millis_now();
        leased.keep();
        let here = asked_at + (replied_at - asked_at) / 2;
        let facts = Facts::read(only(&rows)?, here);
        let facts = facts.map_err(|error| store_error(error, &self.table))?;
        let mut findings = facts.findings();
        if !is_direct {
            findings.push(Finding::warning(
                "pooler",
                "there is a pooler in between, so each transition costs four round trips to it; \
                 connect directly where that is too slow",
            ));
        }
        Ok(findings)
    }
}

impl Facts {
    fn read(row: &PgRow, here: i64) -> Result<Self, Error> {
        Ok(Self {
            version: row.try_get(0)?,
            fsync: row.try_get(1)?,
            full_page_writes: row.try_get(2)?,
            standby_names: row.try_get(3)?,
            replicas: row.try_get(4)?,
            clock_ahead_millis: row.try_get::<i64, _>(5)?.saturating_sub(here),
            is_superuser: row.try_get::<Option<bool>, _>(6)?.unwrap_or(false),
            autovacuum: row.try_get(7)?,
            max_connections: row.try_get(8)?,
            connections: row.try_get(9)?,
        })
    }

    fn findings(&self) -> Vec<Finding> {
        vec![
            Finding::good("version", format!("PostgreSQL {}", self.version)),
            self.durability(),
            self.replication(),
            self.clock(),
            if self.is_superuser {
                Finding::warning(
                    "rights",
                    "the role is a superuser; use a role that may only select, insert, update and \
                     delete in the table, and execute its function",
                )
            } else {
                Finding::good(
                    "rights",
                    "the role is no superuser, and has the rights it needs",
                )
            },
            if self.autovacuum == "on" {
                Finding::good("vacuum", "autovacuum is on")
            } else {
                Finding::warning(
                    "vacuum",
                    "autovacuum is off, so the table grows with each request; turn it on",
                )
            },
            self.connections(),
        ]
    }

    fn durability(&self) -> Finding {
        if self.fsync != "on" {
            let message = "`fsync` is off, so a crash of the server may undo claims and damage the \
                 database; turn it on";
            Finding::bad("durability", message)
        } else if self.full_page_writes != "on" {
            let message = "`full_page_writes` is off, so a crash may damage the table, unless the \
                 file system writes whole pages; turn it on";
            Finding::warning("durability", message)
        } else {
            Finding::good("durability", "each commit waits for the disk")
        }
    }

    fn replication(&self) -> Finding {
        let replicas = self.replicas;
        if !self.standby_names.is_empty() {
            Finding::good("replication", "commits wait for synchronous standbys")
        } else if replicas > 0 {
            let message = format!(
                "{replicas} replicas are asynchronous, so a failover may lose the last claims and \
                 records; set `synchronous_standby_names`"
            );
            Finding::warning("replication", message)
        } else {
            Finding::good("replication", "there is no replica")
        }
    }

    fn clock(&self) -> Finding {
        let ahead = self.clock_ahead_millis;
        if ahead.abs() <= CLOCK_TOLERANCE_MILLIS {
            return Finding::good("clock", "the clocks of the server and this machine agree");
        }
        let message = format!(
            "the clock of the server differs by {ahead} ms from this machine, so its times do not \
             match the logs; synchronize both clocks"
        );
        Finding::warning("clock", message)
    }

    fn connections(&self) -> Finding {
        let (open, max) = (self.connections, self.max_connections);
        let message = format!("{open} of {max} connections of the server are open");
        if open.saturating_mul(10) < max.saturating_mul(8) {
            Finding::good("connections", message)
        } else {
            let what_to_do = "raise `max_connections` of the server, or lower that of its clients";
            Finding::warning("connections", format!("{message}; {what_to_do}"))
        }
    }
}

/// Milliseconds since 1970 by the clock of this machine.
fn millis_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Severity;

    fn fit() -> Facts {
        Facts {
            version: "15.14".to_owned(),
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            standby_names: String::new(),
            replicas: 0,
            clock_ahead_millis: -2_000,
            is_superuser: false,
            autovacuum: "on".to_owned(),
            max_connections: 100,
            connections: 79,
        }
    }

    fn worst(facts: &Facts) -> Option<(Severity, &'static str)> {
        let findings = facts.findings();
        let worst = findings.iter().max_by_key(|finding| finding.severity)?;
        Some((worst.severity, worst.subject))
    }

    #[test]
    fn each_unfit_setting_is_reported() {
        assert_eq!(worst(&fit()).map(|it| it.0), Some(Severity::Good));
        for (change, expected) in [
            (
                (|facts| facts.fsync = "off".to_owned()) as fn(&mut Facts),
                (Severity::Bad, "durability"),
            ),
            (
                |facts| facts.full_page_writes = "off".to_owned(),
                (Severity::Warning, "durability"),
            ),
            (
                |facts| facts.replicas = 1,
                (Severity::Warning, "replication"),
            ),
            (
                |facts| facts.clock_ahead_millis = 2_001,
                (Severity::Warning, "clock"),
            ),
            (
                |facts| facts.is_superuser = true,
                (Severity::Warning, "rights"),
            ),
            (
                |facts| facts.autovacuum = "off".to_owned(),
                (Severity::Warning, "vacuum"),
            ),
            (
                |facts| facts.connections = 80,
                (Severity::Warning, "connections"),
            ),
        ] {
            let mut facts = fit();
            change(&mut facts);
            assert_eq!(worst(&facts), Some(expected));
        }
    }
}
