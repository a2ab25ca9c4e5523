//! Connections that come back by themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisResult, ServerErrorKind,
};
use redis::{RedisError, Value};
use tokio::time::Instant;

use super::fitness;
use crate::store::StoreError;

/// The way to the server, or servers, that take writes.
pub(super) enum Link {
    /// One server at a time, over a few connections. With [`Replicas`] each of them stands still while
    /// it waits for the replicas, so there are several.
    Primary {
        finder: Finder,
        lanes: Box<[Lane]>,
        next: AtomicUsize,
    },
    /// Finds the node of a key and reconnects on its own.
    Cluster(ClusterConnection),
}

/// How the server that takes writes is found.
pub(super) enum Finder {
    Address(Box<Client>),
    // Asking a Sentinel needs `&mut`.
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
}

/// How many replicas have to acknowledge a write, and for how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replicas {
    pub(super) count: usize,
    pub(super) timeout: Duration,
}

/// One connection, remade when it breaks.
#[derive(Default)]
pub(super) struct Lane {
    current: Mutex<Option<Current>>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Current {
    number: usize,
    connection: MultiplexedConnection,
}

impl Link {
    /// The answer, and how many replicas acknowledged what was written before it, where that was
    /// asked for: by `WAIT`, right behind the write and on its connection. On another one, `WAIT`
    /// tells about other writes.
    pub(super) async fn send(
        &self,
        command: &Cmd,
        replicas: Option<Replicas>,
        deadline: Instant,
    ) -> Result<(Value, Option<usize>), Failure> {
        match self {
            Self::Primary {
                finder,
                lanes,
                next,
            } => {
                let lane = &lanes[next.fetch_add(1, Ordering::Relaxed) % lanes.len()];
                match lane.send(finder, command, replicas, deadline).await {
                    // The connection was dead before the command was sent on it, as after a
                    // restart, or died under it. Every transition may be sent again: its owner
                    // tells it from another's.
                    Err(Failure::Redis(error)) if error.is_connection_dropped() => {
                        lane.send(finder, command, replicas, deadline).await
                    }
                    answer => answer,
                }
            }
            Self::Cluster(connection) => {
                let mut connection = connection.clone();
                let value = in_time(deadline, connection.req_packed_command(command)).await??;
                Ok((value.extract_error()?, None))
            }
        }
    }

    /// Connects, so that a wrong address is found at the start.
    pub(super) async fn check(&self, deadline: Instant) -> Result<(), Failure> {
        match self {
            Self::Primary { finder, lanes, .. } => {
                for lane in lanes {
                    in_time(deadline, lane.connect(finder)).await??;
                }
                Ok(())
            }
            Self::Cluster(connection) => {
                in_time(deadline, fitness::check(&mut connection.clone())).await?
            }
        }
    }
}

async fn in_time<T>(deadline: Instant, answer: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout_at(deadline, answer)
        .await
        .map_err(|_| Failure::Store(StoreError::TimedOut))
}

impl Lane {
    async fn send(
        &self,
        finder: &Finder,
        command: &Cmd,
        replicas: Option<Replicas>,
        deadline: Instant,
    ) -> Result<(Value, Option<usize>), Failure> {
        let mut current = match self.standing() {
            Some(current) => current,
            // Boxed, for it is long and rare, and every transition would carry the room for it.
            None => in_time(deadline, Box::pin(self.connect(finder))).await??,
        };
        match in_time(deadline, current.send(command, replicas)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                if is_the_connections_end(&error) {
                    self.leave(current.number);
                }
                Err(error.into())
            }
            // It may hang for as long as TCP tries.
            Err(timed_out) => {
                self.leave(current.number);
                Err(timed_out)
            }
        }
    }

    fn standing(&self) -> Option<Current> {
        self.lock().clone()
    }

    /// A new connection. Of any number of callers one connects, and the others get the same.
    async fn connect(&self, finder: &Finder) -> Result<Current, Failure> {
        let _connecting = self.connecting.lock().await;
        if let Some(current) = self.standing() {
            return Ok(current);
        }
        let mut connection = finder.connect().await?;
        // At every connection, for after a failover it is another server's.
        fitness::check(&mut connection).await?;
        let current = Current {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            connection,
        };
        *self.lock() = Some(current.clone());
        Ok(current)
    }

    /// Gives up a connection, unless another has taken its place.
    fn leave(&self, number: usize) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|it| it.number == number) {
            *current = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Current {
    async fn send(
        &mut self,
        command: &Cmd,
        replicas: Option<Replicas>,
    ) -> RedisResult<(Value, Option<usize>)> {
        let Some(replicas) = replicas else {
            let value = self.connection.send_packed_command(command).await?;
            return Ok((value.extract_error()?, None));
        };
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas.count)
            .arg(crate::store::millis::millis(replicas.timeout));
        let mut both = Pipeline::with_capacity(2);
        both.add_command(command.clone()).add_command(wait);
        let answers = self.connection.send_packed_commands(&both, 0, 2).await?;
        let Ok([value, acknowledged]) = <[Value; 2]>::try_from(answers) else {
            return Err((ErrorKind::UnexpectedReturnType, "two answers were expected").into());
        };
        let value = value.extract_error()?;
        let acknowledged = redis::from_redis_value(acknowledged.extract_error()?)?;
        Ok((value, Some(acknowledged)))
    }
}

impl Finder {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        // Time is kept for each transition as a whole.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        match self {
            Self::Address(client) => {
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
            }
            Self::Sentinel(client) => {
                client
                    .lock()
                    .await
                    .get_async_connection_with_config(&config)
                    .await
            }
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Redis(RedisError),
    Store(StoreError),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// Whether to look for the server anew. A server that has become a replica says `READONLY`.
fn is_the_connections_end(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Io
                | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_takes_no_writes_any_more_is_looked_for_anew() {
        let is_the_end = |line: &str| match redis::parse_redis_value(line.as_bytes()) {
            Ok(Value::ServerError(error)) => is_the_connections_end(&error.into()),
            other => panic!("not an error: {other:?}"),
        };
        assert!(is_the_end(
            "-READONLY You can't write against a replica.\r\n"
        ));
        assert!(is_the_end("-MASTERDOWN Link with MASTER is down\r\n"));
        assert!(!is_the_end("-OOM command not allowed\r\n"));
        assert!(!is_the_end("-NOSCRIPT No matching script.\r\n"));
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(is_the_connections_end(&broken.into()));
    }
}
