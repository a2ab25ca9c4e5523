//! Asks the nodes of a cluster which node serves which slots.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{InfoDict, Pipeline, Value};

use super::access::Access;
use super::ask_all::{Newest, ask_all, outdated};
use super::failure::Failure;
use super::located::{Located, Place, Shard};

/// How many nodes are asked at once. In a larger cluster, the next call asks other nodes.
const ASKED: usize = 8;

/// The nodes that may be asked: the given addresses, and the nodes that are known by now.
pub(super) struct Nodes {
    given: Vec<Access>,
    known: Mutex<Vec<Access>>,
    turn: AtomicUsize,
    newest: Newest,
}

/// The reply of one node. A node that was cut off or frozen may be outdated.
struct Opinion {
    is_ok: bool,
    /// Grows with every election.
    epoch: u64,
    located: Located,
}

impl Nodes {
    /// Requires at least one address.
    pub(super) fn new(given: Vec<Access>) -> Self {
        Self {
            known: Mutex::new(given.clone()),
            given,
            turn: AtomicUsize::new(0),
            newest: Newest::default(),
        }
    }

    /// The access settings that apply to every node.
    pub(super) fn like(&self) -> &Access {
        &self.given[0]
    }

    /// # Errors
    ///
    /// When no node replies, no node is part of a cluster, or the cluster is down.
    pub(super) async fn locate(&self) -> Result<Located, Failure> {
        let (opinions, everybody) = ask_all(self.asked(), ask).await?;
        // A node that was cut off also counts elections without any votes, so its epoch means
        // nothing.
        let opinions: Vec<_> = opinions.into_iter().filter(|it| it.is_ok).collect();
        let Some(newest) = opinions.iter().map(|it| it.epoch).max() else {
            return Err(Failure::Unserved("the redis cluster is down".into()));
        };
        if !self.newest.accepts(newest, everybody) {
            return Err(outdated());
        }
        let newest: Vec<_> = opinions
            .into_iter()
            .filter(|it| it.epoch == newest)
            .map(|it| it.located)
            .collect();
        // A node learns the epoch slightly before the slots, so the majority of the newest replies
        // counts.
        let votes = |located: &Located| {
            let agreeing = newest.iter().filter(|it| it.shards == located.shards);
            agreeing.count()
        };
        let located = newest.iter().max_by_key(|located| votes(located)).cloned();
        let located = located.filter(|it| !it.shards.is_empty());
        let mut located = located.ok_or_else(|| {
            Failure::Unserved("no node of the redis cluster serves any slot".into())
        })?;
        // The primary learns of a new replica before the other nodes do, so this uses all replies.
        located.replicas = newest.into_iter().flat_map(|it| it.replicas).collect();
        located.replicas.sort();
        located.replicas.dedup();
        self.learn(&located);
        Ok(located)
    }

    /// Some of the nodes. The next call returns others.
    fn asked(&self) -> Vec<Access> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.turn.fetch_add(ASKED, Ordering::Relaxed);
        let turned = (0..known.len().min(ASKED)).map(|n| &known[(first + n) % known.len()]);
        turned.cloned().collect()
    }

    fn learn(&self, located: &Located) {
        let mut all = self.given.clone();
        let primaries = located.shards.iter().map(|it| &it.primary);
        for place in primaries.chain(&located.replicas) {
            let access = self.like().for_server(&place.host, place.port);
            if !all.iter().any(|it| it.address() == access.address()) {
                all.push(access);
            }
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }
}

async fn ask(access: Access, mut connection: MultiplexedConnection) -> Result<Opinion, Failure> {
    let mut all = Pipeline::with_capacity(2);
    for question in ["INFO", "SLOTS"] {
        let mut command = redis::cmd("CLUSTER");
        command.arg(question);
        all.add_command(command);
    }
    let replies = connection.send_packed_commands(&all, 0, 2).await?;
    let Ok([info, slots]) = <[Value; 2]>::try_from(replies) else {
        return Err(Failure::Unserved("a node sent unexpected replies".into()));
    };
    let slots = slots.extract_error()?;
    let info = redis::from_redis_value::<InfoDict>(info.extract_error()?).ok();
    let field = |name| info.as_ref().and_then(|it| it.get::<String>(name));
    Ok(Opinion {
        is_ok: field("cluster_state").is_some_and(|it| it == "ok"),
        epoch: field("cluster_current_epoch")
            .and_then(|it| it.parse().ok())
            .unwrap_or_default(),
        located: located(slots, access.host()),
    })
}

/// Reads `CLUSTER SLOTS`. Each range has its first slot, its last slot, its primary and its
/// replicas.
fn located(slots: Value, own_host: &str) -> Located {
    let mut located = Located::default();
    for range in list(slots) {
        let mut parts = list(range).into_iter();
        let mut number = || match parts.next() {
            Some(Value::Int(number)) => u16::try_from(number).ok(),
            _ => None,
        };
        let (Some(first), Some(last)) = (number(), number()) else {
            continue;
        };
        let mut places = parts.map(|node| place(node, own_host));
        let Some(primary) = places.next().flatten() else {
            continue;
        };
        located.shards.push(Shard {
            first,
            last,
            primary,
        });
        located.replicas.extend(places.flatten());
    }
    // The nodes list the same entries in different orders.
    located.shards.sort();
    located.replicas.sort();
    located.replicas.dedup();
    located
}

/// A node without a host has the host of the node that replied. A `?` means that the host is
/// unknown.
fn place(node: Value, own_host: &str) -> Option<Place> {
    let mut parts = list(node).into_iter();
    let host = match parts.next()? {
        Value::Nil => String::new(),
        host => redis::from_redis_value(host).ok()?,
    };
    let port = match parts.next()? {
        Value::Int(port) => u16::try_from(port).ok()?,
        _ => return None,
    };
    match host.as_str() {
        "?" => None,
        "" => Some(Place {
            host: own_host.to_owned(),
            port,
        }),
        _ => Some(Place { host, port }),
    }
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64) -> Value {
        let id = Value::BulkString(b"e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca".to_vec());
        Value::Array(vec![host, Value::Int(port), id, Value::Array(vec![])])
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn ranges_are_read_with_their_primaries_and_replicas() {
        let range = |first, last, nodes: &[Value]| {
            let mut range = vec![Value::Int(first), Value::Int(last)];
            range.extend_from_slice(nodes);
            Value::Array(range)
        };
        let slots = Value::Array(vec![
            range(5_461, 16_383, &[node(text("10.0.0.2"), 7001)]),
            range(
                0,
                5_460,
                &[node(Value::Nil, 7000), node(text("10.0.0.3"), 7002)],
            ),
            range(1, 2, &[node(text("?"), 7003)]),
            Value::Int(1),
        ]);
        let place = |host: &str, port| Place {
            host: host.to_owned(),
            port,
        };
        let shard = |first, last, primary| Shard {
            first,
            last,
            primary,
        };
        let expected = Located {
            shards: vec![
                shard(0, 5_460, place("asked", 7000)),
                shard(5_461, 16_383, place("10.0.0.2", 7001)),
            ],
            replicas: vec![place("10.0.0.3", 7002)],
        };
        assert_eq!(located(slots, "asked"), expected);
        assert_eq!(located(Value::Nil, "asked"), Located::default());
    }
}
