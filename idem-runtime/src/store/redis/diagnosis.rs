//! Checks whether the servers and their settings keep the rules of the store.

use std::time::SystemTime;

use redis::InfoDict;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::failure::Failure;
use crate::store::{Finding, StoreError};

/// A server whose clock differs by more than this shows other times than the logs.
const CLOCK_TOLERANCE_MICROS: i64 = 2_000_000;

/// What one server has replied. `None` means that the server does not report it.
struct Facts {
    version: Option<String>,
    policy: Option<String>,
    used: Option<u64>,
    max: Option<u64>,
    has_log: Option<bool>,
    log_is_written: bool,
    fsync: Option<String>,
    replicas: u64,
    /// How far the clock of the server is ahead of the clock of this process.
    clock_ahead_micros: Option<i64>,
}

impl Inner {
    pub(super) async fn diagnose(&self) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let servers = self.servers.in_charge();
        let is_one = servers.len() == 1;
        for (number, (server, _)) in (1..).zip(servers) {
            let facts = timeout_at(Instant::now() + self.timeout * 5, async {
                let mut connection = server.open().await?;
                Facts::ask(&mut connection).await
            });
            let facts: Result<_, Failure> = facts.await.map_err(|_| StoreError::TimedOut)?;
            let waits_for = self.replicas.map_or(0, |replicas| replicas.count);
            let of_server = facts?.findings(waits_for);
            findings.extend(of_server.into_iter().map(|mut finding| {
                if !is_one {
                    finding.message = format!("server {number}: {}", finding.message).into();
                }
                finding
            }));
        }
        Ok(findings)
    }
}

impl Facts {
    async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, Failure> {
        let asked_at = micros_now();
        let time: Option<(i64, i64)> = ask(connection, redis::cmd("TIME")).await?;
        let replied_at = micros_now();
        let here = asked_at + (replied_at - asked_at) / 2;
        let mut info = redis::cmd("INFO");
        info.arg("everything");
        let info: Option<InfoDict> = ask(connection, info).await?;
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("appendfsync");
        // Many roles and hosted servers may not read the configuration.
        let config: Option<Vec<String>> = ask(connection, config).await?;
        let text = |name| info.as_ref().and_then(|info| info.get::<String>(name));
        let number = |name| info.as_ref().and_then(|info| info.get::<u64>(name));
        Ok(Self {
            version: text("redis_version"),
            policy: text("maxmemory_policy"),
            used: number("used_memory"),
            max: number("maxmemory"),
            has_log: number("aof_enabled").map(|enabled| enabled == 1),
            log_is_written: text("aof_last_write_status").is_none_or(|status| status == "ok"),
            fsync: config.and_then(|mut pair| pair.pop()),
            replicas: number("connected_slaves").unwrap_or_default(),
            clock_ahead_micros: time.map(|(seconds, micros)| {
                let there = seconds.saturating_mul(1_000_000).saturating_add(micros);
                there.saturating_sub(here)
            }),
        })
    }

    fn findings(&self, waits_for: usize) -> Vec<Finding> {
        vec![
            match &self.version {
                Some(version) => Finding::good("version", format!("Redis {version}")),
                None => Finding::warning("version", "the server does not report its version"),
            },
            self.eviction(),
            self.room(),
            self.durability(),
            self.replication(waits_for),
            self.clock(),
        ]
    }

    fn eviction(&self) -> Finding {
        match self.policy.as_deref() {
            Some("noeviction") => Finding::good("eviction", "`maxmemory-policy` is `noeviction`"),
            Some(policy) => Finding::bad(
                "eviction",
                format!(
                    "`maxmemory-policy` is `{policy}`, so a full server evicts claims, and handlers \
                     run twice; set it to `noeviction`"
                ),
            ),
            None => Finding::warning(
                "eviction",
                "the server does not report its `maxmemory-policy`; make sure that it is `noeviction`",
            ),
        }
    }

    fn room(&self) -> Finding {
        match (self.used, self.max) {
            (Some(used), Some(0)) => Finding::warning(
                "room",
                format!(
                    "{used} bytes are used, without a limit, so the server may be killed when the \
                     machine has no memory left; set `maxmemory`"
                ),
            ),
            (Some(used), max) => Finding::fill(used, max),
            _ => Finding::warning("room", "the server does not report its memory"),
        }
    }

    fn durability(&self) -> Finding {
        match (self.has_log, self.fsync.as_deref()) {
            (Some(true), _) if !self.log_is_written => Finding::bad(
                "durability",
                "the last write to the append-only file failed; look for a full disk",
            ),
            (Some(true), Some("always")) => {
                Finding::good("durability", "each write waits for the disk")
            }
            (Some(true), Some("everysec")) => Finding::warning(
                "durability",
                "a crash of the machine may lose the last second, because `appendfsync` is \
                 `everysec`; a crash of the server alone loses nothing",
            ),
            (Some(true), Some(_)) => Finding::warning(
                "durability",
                "`appendfsync` is `no`, so a crash of the machine may lose the last half minute; set \
                 it to `everysec` or `always`",
            ),
            (Some(true), None) => Finding::warning(
                "durability",
                "there is an append-only file; the role may not read `appendfsync`",
            ),
            (Some(false), _) => Finding::warning(
                "durability",
                "there is no append-only file, so a restart of the server loses claims and records; \
                 set `appendonly yes`",
            ),
            (None, _) => Finding::warning(
                "durability",
                "the server does not report whether it has an append-only file",
            ),
        }
    }

    fn replication(&self, waits_for: usize) -> Finding {
        let replicas = self.replicas;
        if waits_for > 0 {
            let message = format!("writes wait for {waits_for} of {replicas} replicas");
            Finding::good("replication", message)
        } else if replicas > 0 {
            let message = format!(
                "writes wait for none of {replicas} replicas, so a failover may lose the last claims \
                 and records; services should use `min_replicas`"
            );
            Finding::warning("replication", message)
        } else {
            Finding::good("replication", "there is no replica")
        }
    }

    fn clock(&self) -> Finding {
        match self.clock_ahead_micros {
            Some(ahead) if ahead.abs() <= CLOCK_TOLERANCE_MICROS => {
                Finding::good("clock", "the clocks of the server and this machine agree")
            }
            Some(ahead) => Finding::warning(
                "clock",
                format!(
                    "the clock of the server differs by {} ms from this machine, so its times do not \
                     match the logs; synchronize both clocks",
                    ahead / 1_000
                ),
            ),
            None => Finding::warning("clock", "the server does not report its clock"),
        }
    }
}

/// Sends a command. `None` when the server refuses the command, or when its reply has another form.
async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: redis::Cmd,
) -> Result<Option<T>, Failure> {
    match connection.req_packed_command(&command).await {
        Ok(reply) => Ok(redis::from_redis_value(reply).ok()),
        Err(error) if error.code().is_some() => Ok(None),
        Err(error) => Err(Failure::Redis(error)),
    }
}

/// Microseconds since 1970 by the clock of this machine.
fn micros_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Severity;

    fn fit() -> Facts {
        Facts {
            version: Some("7.0.15".to_owned()),
            policy: Some("noeviction".to_owned()),
            used: Some(79),
            max: Some(100),
            has_log: Some(true),
            log_is_written: true,
            fsync: Some("always".to_owned()),
            replicas: 0,
            clock_ahead_micros: Some(-2_000_000),
        }
    }

    fn worst(facts: &Facts) -> Option<(Severity, &'static str)> {
        let findings = facts.findings(0);
        let worst = findings.iter().max_by_key(|finding| finding.severity)?;
        Some((worst.severity, worst.subject))
    }

    #[test]
    fn each_unfit_setting_is_reported() {
        assert_eq!(worst(&fit()).map(|it| it.0), Some(Severity::Good));
        for (change, expected) in [
            (
                (|facts| facts.policy = Some("volatile-lru".to_owned())) as fn(&mut Facts),
                (Severity::Bad, "eviction"),
            ),
            (|facts| facts.policy = None, (Severity::Warning, "eviction")),
            (|facts| facts.used = Some(80), (Severity::Warning, "room")),
            (|facts| facts.max = Some(0), (Severity::Warning, "room")),
            (
                |facts| facts.has_log = Some(false),
                (Severity::Warning, "durability"),
            ),
            (
                |facts| facts.log_is_written = false,
                (Severity::Bad, "durability"),
            ),
            (
                |facts| facts.fsync = Some("everysec".to_owned()),
                (Severity::Warning, "durability"),
            ),
            (
                |facts| facts.replicas = 1,
                (Severity::Warning, "replication"),
            ),
            (
                |facts| facts.clock_ahead_micros = Some(2_000_001),
                (Severity::Warning, "clock"),
            ),
        ] {
            let mut facts = fit();
            change(&mut facts);
            assert_eq!(worst(&facts), Some(expected));
        }
    }
}
