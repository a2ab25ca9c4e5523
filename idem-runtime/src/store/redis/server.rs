//! One server and its connections, which are opened in separate tasks.
//!
//! `redis::aio::ConnectionManager` also reconnects, but does not fit here for three reasons. `WAIT`
//! has to follow the write on the same connection. The store checks each connection before use,
//! because another server may be behind it after a failover. And the store must stop using a server
//! that hangs at the first timeout, so that no claims queue up there and are executed when the
//! server continues.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::time::Instant;

use super::access::Access;
use super::check;
use super::failure::{ConnectError, Failure, is_unknown_script};
use super::script::Transition;
use crate::store::millis::millis;

/// How long a failed connection attempt is reported before the next attempt. Without the pause,
/// each claim at a replica would open a connection.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// How many replicas must acknowledge a write, and how long to wait for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replicas {
    pub(super) count: usize,
    pub(super) timeout: Duration,
}

/// One transition, to be sent to the primary of its key.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) transition: &'a Transition,
    pub(super) key: &'a str,
    pub(super) arguments: &'a [&'a [u8]],
    /// Whether to pass the deadline, by the server's clock, as the last argument.
    pub(super) expires: bool,
    pub(super) replicas: Option<Replicas>,
    pub(super) deadline: Instant,
}

impl Request<'_> {
    /// Whether fewer replicas acknowledged than the request requires.
    pub(super) fn lacks_replicas(&self, sent: &Sent) -> bool {
        match (self.replicas, sent.acknowledged) {
            (Some(wanted), Some(count)) => count < wanted.count,
            _ => false,
        }
    }
}

/// The reply to a [`Request`].
pub(super) struct Sent {
    pub(super) value: Value,
    /// Whether the transition may have been executed before, with a reply that was lost.
    pub(super) resent: bool,
    /// How many replicas have acknowledged the write, when the request requires replicas.
    pub(super) acknowledged: Option<usize>,
    /// The clock of the server that replied, and when the request was sent.
    pub(super) clock: Arc<Clock>,
    pub(super) at: Instant,
}

pub(super) struct Server {
    access: Access,
    client: Client,
    address: Arc<str>,
    connect_timeout: Duration,
    lanes: Box<[Lane]>,
}

/// One connection, which is opened again after it breaks.
#[derive(Default)]
struct Lane(Mutex<Option<Connecting>>);

/// A connection, or an attempt to open one. The attempt continues when its waiters leave.
#[derive(Clone)]
struct Connecting {
    number: usize,
    outcome: Shared<BoxFuture<'static, Result<Connection, Failed>>>,
}

#[derive(Clone)]
struct Connection {
    multiplexed: MultiplexedConnection,
    clock: Arc<Clock>,
}

#[derive(Clone, Debug)]
struct Failed {
    failure: Failure,
    at: Instant,
}

/// Counts connections, so that a failed transition closes only its own connection.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Server {
    /// # Errors
    ///
    /// When the address cannot be used, for example `rediss://` without TLS.
    pub(super) fn new(
        access: Access,
        connect_timeout: Duration,
        lanes: usize,
    ) -> RedisResult<Self> {
        LazyLock::force(&START);
        Ok(Self {
            client: access.client()?,
            address: access.address().to_string().into(),
            access,
            connect_timeout,
            lanes: std::iter::repeat_with(Lane::default).take(lanes).collect(),
        })
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Sends the request over the connection for this turn, and drops the connection when it fails.
    pub(super) async fn send(
        &self,
        request: &Request<'_>,
        turn: usize,
        is_asking: bool,
    ) -> Result<Sent, Failure> {
        let lane = &self.lanes[turn % self.lanes.len()];
        let (number, mut connection) = match lane.established() {
            Some(established) => established,
            // Boxed because it is rare. Unboxed, it would enlarge the future of every transition.
            None => Box::pin(self.connect(lane, request.deadline)).await?,
        };
        let reply = tokio::time::timeout_at(request.deadline, connection.send(request, is_asking));
        let reply = match reply.await {
            Ok(reply) => reply.map_err(Failure::Redis),
            Err(_) => Err(Failure::TimedOut),
        };
        if reply.as_ref().is_err_and(Failure::ends_connection) {
            lane.leave(number);
        }
        reply
    }

    /// Connects, so that configuration errors are found when the store connects.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, Failure> {
        let no_deadline = Instant::now() + self.connect_timeout * 2;
        let (_, connection) = self.connect(&self.lanes[0], no_deadline).await?;
        Ok(connection.multiplexed)
    }

    /// Opens a connection that no transition shares, and checks the server. A transition may wait for replicas, and
    /// every command behind it on the same connection would wait too.
    pub(super) async fn open(&self) -> Result<MultiplexedConnection, Failure> {
        let (client, address) = (self.client.clone(), self.address.clone());
        let made = make(client, address, self.connect_timeout).await;
        made.map(|it| it.multiplexed)
            .map_err(|failed| failed.failure)
    }

    /// Waits for a connection. All waiters of a lane share one attempt.
    async fn connect(
        &self,
        lane: &Lane,
        deadline: Instant,
    ) -> Result<(usize, Connection), Failure> {
        let connecting = lane.connecting(|| {
            let (client, address) = (self.client.clone(), self.address.clone());
            let connecting = make(client, address, self.connect_timeout);
            let task = tokio::spawn(connecting);
            // The runtime of that task may shut down before this runtime.
            async move { task.await.unwrap_or_else(|_| Err(Failed::interrupted())) }.boxed()
        });
        match tokio::time::timeout_at(deadline, connecting.outcome).await {
            Ok(Ok(connection)) => Ok((connecting.number, connection)),
            Ok(Err(failed)) => Err(failed.failure),
            Err(_) => Err(Failure::TimedOut),
        }
    }
}

/// Opens a connection and checks the server. It has its own time limit, because it continues after
/// the transition that needed it has timed out.
async fn make(client: Client, address: Arc<str>, limit: Duration) -> Result<Connection, Failed> {
    let made = tokio::time::timeout(limit, async {
        let mut multiplexed = super::access::connect(&client).await?;
        let micros = check::check(&mut multiplexed, &address).await?;
        let clock = Arc::new(Clock::default());
        // Uses the later instant. With a slow server a deadline may then be early by that time, but
        // never late. The store sends a claim that is too late again, with a better reading.
        clock.learn(micros, Instant::now());
        Ok::<_, Failure>(Connection { multiplexed, clock })
    });
    let failure = match made.await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(Failure::Redis(error))) => {
            Failure::Connect(Arc::new(ConnectError::new(&address, error)))
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Connect(Arc::new(ConnectError::Silent(address, limit))),
    };
    tracing::debug!(target: crate::trace::TARGET, ?failure, "no connection to redis");
    let at = Instant::now();
    Err(Failed { failure, at })
}

impl Failed {
    fn interrupted() -> Self {
        let error = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        Self {
            failure: Failure::Redis(error.into()),
            at: Instant::now(),
        }
    }

    /// Whether to try again. A refused connection costs the server nothing, so the store tries
    /// again at once and finds a restarted server early.
    fn is_over(&self) -> bool {
        let costs_nothing = match &self.failure {
            Failure::Redis(_) => true,
            Failure::Connect(error) => matches!(**error, ConnectError::Refused(_)),
            _ => false,
        };
        costs_nothing || self.at.elapsed() >= PAUSE
    }
}

impl Lane {
    fn established(&self) -> Option<(usize, Connection)> {
        let current = self.lock();
        let current = current.as_ref()?;
        let connection = current.outcome.peek()?.as_ref().ok()?;
        Some((current.number, connection.clone()))
    }

    /// The running attempt, the failure of a moment ago, or a new attempt.
    fn connecting(
        &self,
        begin: impl FnOnce() -> BoxFuture<'static, Result<Connection, Failed>>,
    ) -> Connecting {
        let mut current = self.lock();
        if let Some(connecting) = &*current {
            // Polled here, because an attempt without waiters would never show its failure.
            let outcome = connecting.outcome.clone().now_or_never();
            if !matches!(outcome, Some(Err(failed)) if failed.is_over()) {
                return connecting.clone();
            }
        }
        let connecting = Connecting {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            outcome: begin().shared(),
        };
        *current = Some(connecting.clone());
        connecting
    }

    /// Drops a connection unless another has replaced it. It closes when its transitions are
    /// finished.
    fn leave(&self, number: usize) {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|it| it.number == number) {
            *current = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connecting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Sends the script by its hash, and by its source when the server does not know the hash.
    async fn send(&mut self, request: &Request<'_>, is_asking: bool) -> RedisResult<Sent> {
        let sent_at = Instant::now();
        let last = request
            .expires
            .then(|| self.clock.at(request.deadline).to_string());
        let last = last.as_ref().map(String::as_bytes);
        let Request {
            transition,
            key,
            arguments,
            ..
        } = *request;
        let by_name = transition.by_name(key, arguments, last);
        let reply = self.execute(by_name, request.replicas, is_asking).await;
        let (value, acknowledged) = match reply {
            Err(error) if is_unknown_script(&error) => {
                let by_source = transition.by_source(key, arguments, last);
                self.execute(by_source, request.replicas, is_asking).await?
            }
            reply => reply?,
        };
        Ok(Sent {
            value,
            resent: false,
            acknowledged,
            clock: self.clock.clone(),
            at: sent_at,
        })
    }

    /// Returns the reply, and how many replicas acknowledged the write before it. `WAIT` must use
    /// the connection of the write: on another connection it would report other writes.
    async fn execute(
        &mut self,
        command: Cmd,
        replicas: Option<Replicas>,
        is_asking: bool,
    ) -> RedisResult<(Value, Option<usize>)> {
        if replicas.is_none() && !is_asking {
            let value = self.multiplexed.send_packed_command(&command).await?;
            return Ok((value.extract_error()?, None));
        }
        let mut all = Pipeline::with_capacity(3);
        if is_asking {
            // Lets the next command access a slot that is being moved to this node.
            all.add_command(redis::cmd("ASKING"));
        }
        all.add_command(command);
        if let Some(replicas) = replicas {
            let mut wait = redis::cmd("WAIT");
            wait.arg(replicas.count).arg(millis(replicas.timeout));
            all.add_command(wait);
        }
        let count = all.len();
        let replies = self.multiplexed.send_packed_commands(&all, 0, count);
        let mut replies = replies.await?.into_iter().skip(usize::from(is_asking));
        let value = replies.next().ok_or_else(too_few)?.extract_error()?;
        let acknowledged = match replicas {
            None => None,
            Some(_) => Some(redis::from_redis_value(
                replies.next().ok_or_else(too_few)?.extract_error()?,
            )?),
        };
        Ok((value, acknowledged))
    }
}

fn too_few() -> RedisError {
    (
        ErrorKind::UnexpectedReturnType,
        "the server sent fewer replies than commands",
    )
        .into()
}

/// The difference between the clock of one server and the clock of this process.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

/// The reference instant for all clocks.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    /// Learns that the server's clock showed this number of microseconds since 1970 at this
    /// instant.
    pub(super) fn learn(&self, micros: u64, at: Instant) {
        let since_start = micros_of(at.saturating_duration_since(*START));
        let at_start = micros.saturating_sub(since_start);
        self.0.store(at_start, Ordering::Relaxed);
    }

    /// What the server's clock will show at this instant.
    fn at(&self, instant: Instant) -> u64 {
        let since_start = micros_of(instant.saturating_duration_since(*START));
        self.0.load(Ordering::Relaxed).saturating_add(since_start)
    }
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_failure_that_nobody_waited_for_is_not_reported() {
        let at = Instant::now().checked_sub(PAUSE * 2);
        let at = at.expect("the machine has been up for longer");
        let failure = Failure::Unfit("the server evicts".into());
        let failed = Failed { failure, at };
        let lane = Lane::default();
        let first = lane.connecting(|| async { Err(failed) }.boxed());
        let second = lane.connecting(|| std::future::pending().boxed());
        assert_ne!(first.number, second.number, "the lane connects again");
        let third = lane.connecting(|| std::future::pending().boxed());
        assert_eq!(second.number, third.number, "one attempt at a time");
    }
}
