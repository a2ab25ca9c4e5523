//! Lists, counts and forgets many keys for an operator, with `SCAN` on each primary in turn.
//!
//! `SCAN` returns every key that is there all the while, in an order that only the server knows. It may return a key
//! twice after its table has shrunk. So a cursor also contains the last ids that were listed, and a page leaves them
//! out; see `position.rs`. The order belongs to one process of the server: after a restart or a failover the cursor is
//! not valid any more.

use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, InfoDict, Pipeline, RedisError, Value};
use tokio::time::Instant;

use super::Inner;
use super::failure::Failure;
use super::form::{self, Shown};
use super::position::Position;
use super::reply::Reply;
use super::script;
use super::server::{Request, Server};
use crate::request::hex;
use crate::request::record_id::RecordId;
use crate::request::scope_id::ScopeId;
use crate::store::{Count, Page, Query, StateKind, Stats, StoreError, Summary};

/// How many keys one `SCAN` looks at, at most.
const SCANNED: usize = 1_000;

/// How many times a page scans. So a page looks at no more than about 20,000 keys, and at fewer when its limit is small.
const SCANS: usize = 20;

/// How many times `forget_scope` scans all primaries, at most.
const PASSES: usize = 3;

/// How many keys are read at the same time.
const AT_ONCE: usize = 64;

/// One primary while it is scanned.
struct Scanned {
    /// The scan has a connection of its own, so that each scan checks that the server is still a primary.
    connection: MultiplexedConnection,
    /// Identifies the process of the server. 1 when the server does not report its run id.
    process: u64,
    now: SystemTime,
}

impl Scanned {
    async fn begin(server: &Server, deadline: Instant) -> Result<Self, StoreError> {
        let asked = async {
            let mut connection = server.open().await?;
            let mut all = Pipeline::with_capacity(2);
            all.add_command(redis::cmd("TIME"));
            let mut info = redis::cmd("INFO");
            info.arg("server");
            all.add_command(info);
            let mut replies = connection
                .send_packed_commands(&all, 0, 2)
                .await?
                .into_iter();
            let (time, info) = (replies.next(), replies.next());
            let time = time.unwrap_or(Value::Nil).extract_error()?;
            let (seconds, micros): (u64, u64) =
                redis::from_redis_value(time).map_err(RedisError::from)?;
            let run_id = info
                .and_then(|info| redis::from_redis_value::<InfoDict>(info).ok())
                .and_then(|info| info.get::<String>("run_id"));
            Ok::<_, Failure>(Self {
                connection,
                process: run_id.as_deref().map_or(1, process_number),
                now: form::time(seconds.saturating_mul(1_000_000).saturating_add(micros)),
            })
        };
        in_time(deadline, asked).await
    }

    /// The next keys, and the server's cursor behind them.
    async fn scan(
        &mut self,
        scan: u64,
        pattern: &str,
        count: usize,
        deadline: Instant,
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        let mut command = redis::cmd("SCAN");
        command
            .arg(scan)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(count);
        in_time(deadline, ask(&mut self.connection, &command)).await
    }
}

async fn ask<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<T, Failure> {
    let value = connection.req_packed_command(command).await?;
    let reply = redis::from_redis_value(value.extract_error()?);
    Ok(reply.map_err(RedisError::from)?)
}

async fn in_time<T>(
    deadline: Instant,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout_at(deadline, asked).await {
        Ok(reply) => Ok(reply?),
        Err(_) => Err(StoreError::TimedOut),
    }
}

/// The first 8 bytes of a run id, which is 40 hexadecimal digits.
fn process_number(run_id: &str) -> u64 {
    let digits = run_id.as_bytes().get(..16).unwrap_or_default();
    hex::read(digits).map_or(1, u64::from_be_bytes).max(1)
}

/// A text that a pattern of `SCAN` matches literally.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

impl Inner {
    /// Connects to a primary. After a failure, the store looks for another primary.
    async fn begin(&self, server: &Server, deadline: Instant) -> Result<Scanned, StoreError> {
        let begun = Scanned::begin(server, deadline).await;
        begun.inspect_err(|_| self.servers.look_again())
    }

    /// Scans a part of a primary. After a failure, the store looks for another primary.
    async fn scan(
        &self,
        scanned: &mut Scanned,
        at: u64,
        pattern: &str,
        count: usize,
        deadline: Instant,
    ) -> Result<(u64, Vec<Vec<u8>>), StoreError> {
        let found = scanned.scan(at, pattern, count, deadline).await;
        found.inspect_err(|_| self.servers.look_again())
    }

    /// The keys that a query can find, as a pattern.
    fn pattern(&self, query: &Query) -> String {
        let mut pattern = escaped(&self.prefix);
        match query.scope {
            Some(scope) => pattern.push_str(&scope.to_string()),
            None => pattern.push_str(&"?".repeat(32)),
        }
        match query.short {
            Some(short) => {
                pattern.push_str(&short.to_string());
                pattern.push_str(&"?".repeat(20));
            }
            None => pattern.push_str(&"?".repeat(32)),
        }
        pattern
    }

    fn id_of(&self, key: &[u8]) -> Option<RecordId> {
        let digits = key.strip_prefix(self.prefix.as_bytes())?;
        hex::read(digits).map(RecordId::from_bytes)
    }

    /// Returns the entries under the ids, in the order of the ids. Omits entries that no longer exist.
    async fn shown(
        &self,
        ids: Vec<RecordId>,
        deadline: Instant,
    ) -> Result<Vec<(RecordId, Shown)>, StoreError> {
        let mut all = stream::iter(ids)
            .map(|id| async move {
                let request = Request {
                    transition: &script::SUMMARY,
                    key: &self.key(id),
                    arguments: &[],
                    expires: false,
                    replicas: None,
                    deadline,
                };
                let sent = self.servers.send(&request).await?;
                Ok::<_, StoreError>((id, Reply::summary(&sent.value)?))
            })
            .buffered(AT_ONCE);
        let mut shown = Vec::new();
        while let Some(next) = all.next().await {
            let (id, found) = next?;
            shown.extend(found.map(|found| (id, found)));
        }
        Ok(shown)
    }

    pub(super) async fn list(&self, query: Query) -> Result<Page, StoreError> {
        let begun = Instant::now();
        let deadline = self.deadline();
        let (limit, pattern) = (query.page_len(), self.pattern(&query));
        let map = self.servers.map();
        let division = map.division();
        let mut at = match &query.after {
            Some(cursor) => Position::read(cursor)?,
            None => Position::first(division),
        };
        if at.division != division {
            // Slots have moved. The next primary in the order of the slots may not be the next one of this listing.
            return Err(StoreError::InvalidCursor);
        }
        let mut entries = Vec::new();
        let mut scans = 0;
        // Every page makes progress, even when a connection takes so long to open that no time is left. Otherwise the next
        // page would begin at the same place, for ever.
        let mut has_progressed = false;
        let is_late = || begun.elapsed() > self.timeout / 2;
        // Begins with about as many keys as the page holds, because a cursor contains the keys that a scan found and
        // that no page has listed.
        let mut count = limit.clamp(10, SCANNED);
        loop {
            let Some((slot, server)) = map.at_slot(at.slot) else {
                return Ok(Page::new(entries, None));
            };
            if slot != at.slot {
                if at.process.is_some() {
                    // The slots of the primary that was being scanned have moved.
                    return Err(StoreError::InvalidCursor);
                }
                at.go_to(slot);
            }
            if has_progressed && is_late() {
                return Ok(Page::new(entries, Some(at.cursor())));
            }
            let mut scanned = self.begin(&server, deadline).await?;
            if at.process.is_some_and(|process| process != scanned.process) {
                return Err(StoreError::InvalidCursor);
            }
            at.process = Some(scanned.process);
            loop {
                let wanted = (limit - entries.len()).min(at.pending.len());
                let ids: Vec<_> = at.pending.drain(..wanted).collect();
                for (id, shown) in self.shown(ids, deadline).await? {
                    let entry = Summary::new(id, shown.origin, shown.created_at, shown.state);
                    if query.matches(&entry, scanned.now) {
                        at.note(&id);
                        entries.push(entry);
                    }
                }
                has_progressed |= wanted > 0;
                if entries.len() == limit || scans == SCANS || (has_progressed && is_late()) {
                    return Ok(Page::new(entries, Some(at.cursor())));
                }
                if !at.pending.is_empty() {
                    continue;
                }
                if at.is_done {
                    break;
                }
                scans += 1;
                has_progressed = true;
                let (next, keys) = self
                    .scan(&mut scanned, at.scan, &pattern, count, deadline)
                    .await?;
                at.scan = next;
                at.is_done = next == 0;
                if keys.is_empty() {
                    count = (count * 2).min(SCANNED);
                }
                for id in keys.iter().filter_map(|key| self.id_of(key)) {
                    if query.matches_id(&id) && !at.was_listed(&id) && !at.pending.contains(&id) {
                        at.pending.push_back(id);
                    }
                }
            }
            has_progressed = true;
            match slot.checked_add(1) {
                Some(next) => at.go_to(next),
                None => return Ok(Page::new(entries, None)),
            }
        }
    }

    /// Counts for half of the timeout, and says where it stopped to count.
    pub(super) async fn stats(&self) -> Result<Stats, StoreError> {
        let begun = Instant::now();
        let deadline = self.deadline();
        let pattern = self.pattern(&Query::all());
        let (mut in_flight, mut unknown, mut recorded) = (0, 0, 0);
        let (mut bytes, mut max_bytes) = (Some(0), Some(0));
        let mut is_whole = true;
        for (server, _) in self.servers.in_charge() {
            let mut scanned = self.begin(&server, deadline).await?;
            let mut info = redis::cmd("INFO");
            info.arg("memory");
            let memory: Result<InfoDict, _> =
                in_time(deadline, ask(&mut scanned.connection, &info)).await;
            let field = |name| memory.as_ref().ok()?.get::<u64>(name);
            bytes = bytes
                .zip(field("used_memory"))
                .map(|(sum, more)| sum + more);
            let limit = field("maxmemory").filter(|limit| *limit > 0);
            max_bytes = max_bytes.zip(limit).map(|(sum, more)| sum + more);
            let mut scan = 0;
            loop {
                if begun.elapsed() > self.timeout / 2 {
                    is_whole = false;
                    break;
                }
                let (next, keys) = self
                    .scan(&mut scanned, scan, &pattern, SCANNED, deadline)
                    .await?;
                let ids = keys.iter().filter_map(|key| self.id_of(key)).collect();
                for (_, shown) in self.shown(ids, deadline).await? {
                    match shown.state.kind() {
                        StateKind::InFlight => in_flight += 1,
                        StateKind::Unknown => unknown += 1,
                        StateKind::Recorded => recorded += 1,
                        StateKind::Unreadable => {}
                    }
                }
                scan = next;
                if scan == 0 {
                    break;
                }
            }
        }
        let count = if is_whole {
            Count::estimate
        } else {
            Count::at_least
        };
        Ok(Stats {
            in_flight: count(in_flight),
            unknown: count(unknown),
            recorded: count(recorded),
            bytes,
            max_bytes,
        })
    }

    /// Scans again after a pass that removed something, because a slot that moves or a failover during a pass may hide
    /// records from it.
    pub(super) async fn forget_scope(&self, scope: ScopeId) -> Result<u64, StoreError> {
        let pattern = self.pattern(&Query::all().scope(scope));
        let mut forgotten = 0;
        for _ in 0..PASSES {
            let removed = self.forget_matching(&pattern).await?;
            forgotten += removed;
            if removed == 0 {
                break;
            }
        }
        Ok(forgotten)
    }

    /// Makes one pass over all primaries. Returns how many records and claims it removed.
    async fn forget_matching(&self, pattern: &str) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (server, _) in self.servers.in_charge() {
            let mut scanned = self.begin(&server, self.deadline()).await?;
            let mut scan = 0;
            loop {
                let deadline = self.deadline();
                let (next, keys) = self
                    .scan(&mut scanned, scan, pattern, SCANNED, deadline)
                    .await?;
                for id in keys.iter().filter_map(|key| self.id_of(key)) {
                    removed += u64::from(self.forget(id).await?);
                }
                scan = next;
                if scan == 0 {
                    break;
                }
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_its_text_literally() {
        assert_eq!(escaped("idem:"), "idem:");
        assert_eq!(escaped(r"a*[b]?\"), r"a\*\[b\]\?\\");
    }
}
