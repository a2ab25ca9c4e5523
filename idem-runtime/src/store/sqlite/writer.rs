//! The writer: a thread that puts all waiting transitions into one transaction.
//!
//! A commit waits for the disk, and transitions that arrive meanwhile go into the next transaction. So
//! many callers share one wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::clock::{ReadClock, micros, now};
use super::failure::{is_busy, is_full, store_error};
use super::group::Outcomes;
use super::instance::Instance;
use super::reserve::Reserve;
use super::room::Reservations;
use super::row::{column, number};
use super::table::Statements;
use super::transition::{BATCH, Failed, Outcome, Shared, Transition, held, query};
use crate::store::observer::{SQLITE, StoreObserver};
use crate::store::{Claimed, Holder, StoreError};

/// How many transitions one transaction has at most.
const GROUP: usize = 256;

/// How many transitions wait before their callers wait to hand them over.
const QUEUE: usize = 1_024;

/// The number of parts of the `busy_timeout`. SQLite waits for the write lock for one part. Then the writer replies to the
/// callers whose time is over, and tries again for the others. So no caller waits much longer than `busy_timeout`.
pub(super) const WAITS: u32 = 8;

/// A transition, and its caller.
pub(super) struct Job {
    transition: Transition,
    caller: Caller,
}

struct Caller {
    reply: oneshot::Sender<Result<Outcome, StoreError>>,
    /// The caller waits for the write lock until this time.
    until: Instant,
}

impl Caller {
    /// The caller may have gone.
    fn reply(self, outcome: Result<Outcome, StoreError>) {
        let _ = self.reply.send(outcome);
    }
}

/// The handle of the writer. The thread ends when the last handle is dropped.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    runtime: Handle,
    busy_timeout: Duration,
}

pub(super) struct Settings {
    /// SQLite's own timeout in these options is one part of `busy_timeout`: see [`WAITS`].
    pub(super) options: SqliteConnectOptions,
    pub(super) statements: Arc<Statements>,
    pub(super) clock: Arc<ReadClock>,
    pub(super) instance: Arc<Instance>,
    pub(super) busy_timeout: Duration,
    pub(super) sweep_every: Option<Duration>,
    pub(super) max_bytes: Option<u64>,
    pub(super) observer: Arc<StoreObserver>,
}

impl Writer {
    /// Starts the thread. `connection` was opened with the options of the settings.
    pub(super) fn start(
        connection: SqliteConnection,
        settings: Settings,
    ) -> Result<Self, StoreError> {
        let unavailable = |error: std::io::Error| StoreError::Unavailable(Box::new(error));
        // A runtime of its own lets the writer outlive the runtime that opened the store, and ignore a
        // paused clock.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(unavailable)?;
        let handle = runtime.handle().clone();
        let (sender, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("axum-idem-sqlite".to_owned());
        let busy_timeout = settings.busy_timeout;
        let mut running = Running {
            connection: Some(connection),
            reserve: Reserve::of_database(settings.options.get_filename()),
            reservations: Reservations::default(),
            settings,
        };
        thread
            .spawn(move || runtime.block_on(running.run(jobs)))
            .map_err(unavailable)?;
        Ok(Self {
            jobs: sender,
            runtime: handle,
            busy_timeout,
        })
    }

    /// Runs a function that uses the disk in another thread than the writer. Returns `None` when the writer has
    /// stopped.
    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        function: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.runtime.spawn_blocking(function).await.ok()
    }

    /// Runs a transition, and returns when its transaction is on the disk.
    pub(super) async fn run(&self, transition: Transition) -> Result<Outcome, StoreError> {
        let stopped = || StoreError::Unavailable("the writer of the store has stopped".into());
        let (reply, result) = oneshot::channel();
        let until = Instant::now() + self.busy_timeout;
        let caller = Caller { reply, until };
        let job = Job { transition, caller };
        self.jobs.send(job).await.map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

struct Running {
    connection: Option<SqliteConnection>,
    reserve: Reserve,
    reservations: Reservations,
    settings: Settings,
}

impl Running {
    async fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let pause = self.settings.sweep_every;
        let mut sweep_at = pause.map(|pause| Instant::now() + pause);
        loop {
            let job = match sweep_at {
                Some(at) => {
                    let pause = at.saturating_duration_since(Instant::now());
                    timeout(pause, jobs.recv()).await
                }
                None => Ok(jobs.recv().await),
            };
            let is_busy = match job {
                Ok(Some(first)) => self.group(first, &mut jobs).await,
                Ok(None) => break,
                Err(_) => false,
            };
            // Requests do not keep the sweeper waiting for ever.
            if let (Some(at), Some(pause)) = (sweep_at, pause)
                && Instant::now() >= at
            {
                // A sweep that waits for the lock too would delay the next group a second time.
                let is_rest = !is_busy && self.sweep().await;
                sweep_at = Some(Instant::now() + if is_rest { Duration::ZERO } else { pause });
            }
        }
        let has_claims = self.has_claims().await;
        self.settings.instance.clone().end(has_claims);
        if let Some(connection) = self.connection.take() {
            // Closing moves the log into the file. A failure leaves the log, which the next open reads.
            let _ = connection.close().await;
        }
    }

    /// Whether a claim of this store is in flight. When that is unknown, there may be one.
    async fn has_claims(&mut self) -> bool {
        let Some(connection) = &mut self.connection else {
            return true;
        };
        let statement = &self.settings.statements.has_claims;
        let (instance, now) = (&self.settings.instance, now());
        let found = query(statement).bind(instance.number()).bind(now);
        let found = found.fetch_one(connection).await;
        let in_table = found.map_or(true, |row| column(&row, 0).unwrap_or(true));
        in_table || instance.held_until(instance.number()) > now
    }

    /// Removes a batch of expired rows. Returns whether there may be more.
    async fn sweep(&mut self) -> bool {
        let until = Instant::now() + self.settings.busy_timeout;
        let swept = self.transact_until(&[Transition::Sweep], until).await;
        let removed = swept
            .map_err(store_error)
            .and_then(|mut outcomes| outcomes.pop().unwrap_or(Ok(Outcome::Done(false))));
        match removed {
            Ok(outcome) => {
                let (removed, _) = outcome.removed();
                tracing::debug!(target: crate::trace::TARGET, removed, "expired rows were removed");
                if removed > 0 {
                    let observer = &self.settings.observer;
                    observer.report(&|observer| observer.swept(SQLITE, removed));
                }
                removed >= u64::from(BATCH)
            }
            Err(error) => {
                tracing::warn!(
                    target: crate::trace::TARGET,
                    error = &error as &dyn std::error::Error,
                    "expired rows could not be removed; the next sweep tries again"
                );
                false
            }
        }
    }

    /// Runs a job, together with all jobs that wait. Returns whether another connection held the write lock for too long.
    async fn group(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>) -> bool {
        let mut group = vec![first];
        let mut was_busy = false;
        loop {
            while group.len() < GROUP {
                let Ok(job) = jobs.try_recv() else { break };
                group.push(job);
            }
            // Nobody waits for the result of a closed channel, and a late claim would hold a key in vain.
            group.retain(|job| !job.caller.reply.is_closed());
            let is_claim = |job: &Job| matches!(job.transition, Transition::Claim(_));
            if group.iter().any(is_claim) && !self.reserve.is_filled() {
                let claims;
                (claims, group) = group.into_iter().partition(is_claim);
                for Job { caller, .. } in claims {
                    caller.reply(Ok(Outcome::Claimed(Claimed::Full)));
                }
            }
            let Some(until) = group.iter().map(|job| job.caller.until).min() else {
                return was_busy;
            };
            let (callers, transitions): (Vec<_>, Vec<_>) = group
                .drain(..)
                .map(|job| (job.caller, job.transition))
                .unzip();
            match self.transact_until(&transitions, until).await {
                Ok(outcomes) => {
                    for (caller, outcome) in callers.into_iter().zip(outcomes) {
                        caller.reply(outcome);
                    }
                    return was_busy;
                }
                // Another connection holds the lock, so each transition would also fail alone.
                Err(error) if is_busy(&error) => {
                    was_busy = true;
                    for (caller, transition) in callers.into_iter().zip(transitions) {
                        if Instant::now() < caller.until {
                            group.push(Job { transition, caller });
                            continue;
                        }
                        caller.reply(match transition {
                            Transition::Renew(holder, lease) => self.extend(&holder, lease).await,
                            _ => Err(StoreError::Busy),
                        });
                    }
                }
                // One of them may be the cause. The transaction was rolled back, so each can run alone.
                Err(error) => {
                    tracing::debug!(
                        target: crate::trace::TARGET,
                        error = &error as &dyn std::error::Error,
                        "a group of transitions failed; each of them runs alone"
                    );
                    for (caller, transition) in callers.into_iter().zip(transitions) {
                        let outcome = self.alone(&transition, caller.until).await;
                        caller.reply(outcome);
                    }
                    return was_busy;
                }
            }
        }
    }

    /// Renews a lease of this store without a write to the database. The lease must hold until this is done.
    async fn extend(&mut self, holder: &Holder, lease: Duration) -> Result<Outcome, StoreError> {
        let (settings, connection) = (&self.settings, self.connection.as_mut());
        let connection = connection.ok_or(StoreError::TimedOut)?;
        let begun = now();
        let held = held(connection, &settings.statements, holder.id).await?;
        let held = held.map(|held| held.extended(&settings.instance, begun));
        let Some(held) = held.filter(|held| held.is_held_by(holder, begun)) else {
            return Ok(Outcome::Done(false));
        };
        let is_extended = held.instance == settings.instance.number()
            && settings
                .instance
                .hold_until(begun.saturating_add(micros(lease)))
            && held.leased_until > now();
        if is_extended {
            Ok(Outcome::Done(true))
        } else {
            Err(StoreError::Busy)
        }
    }

    /// Runs a transition in a transaction of its own. On a full disk, a claim is refused before its handler runs,
    /// and any other transition gets the reserve.
    async fn alone(
        &mut self,
        transition: &Transition,
        until: Instant,
    ) -> Result<Outcome, StoreError> {
        let alone = std::slice::from_ref(transition);
        let mut result = self.transact_until(alone, until).await;
        if result.as_ref().is_err_and(is_full) {
            if matches!(transition, Transition::Claim(_)) {
                return Ok(Outcome::Claimed(Claimed::Full));
            }
            if self.reserve.free().is_ok() {
                result = self.transact_until(alone, until).await;
            }
        }
        let mut outcomes = result.map_err(store_error)?;
        outcomes.pop().unwrap_or(Err(StoreError::TimedOut))
    }

    /// Tries a transaction again until this time while another connection holds the write lock.
    async fn transact_until(
        &mut self,
        transitions: &[Transition],
        until: Instant,
    ) -> Result<Vec<Result<Outcome, StoreError>>, sqlx::Error> {
        loop {
            match self.transact(transitions).await {
                Err(error) if is_busy(&error) && Instant::now() < until => {
                    // SQLite does not wait for some locks.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                result => return result,
            }
        }
    }

    /// Runs transitions in one transaction, and returns one result for each. After an error none of
    /// them took effect.
    async fn transact(
        &mut self,
        transitions: &[Transition],
    ) -> Result<Vec<Result<Outcome, StoreError>>, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.settings.options.connect().await?,
        };
        let outcomes = self.commit(&mut connection, transitions).await;
        match &outcomes {
            // After some errors, such as a full disk, SQLite has rolled back and sqlx does not know. So the next
            // transaction gets a new connection.
            Err(error) if !is_busy(error) => {
                self.reservations.forget();
                tracing::warn!(
                    target: crate::trace::TARGET,
                    error = error as &dyn std::error::Error,
                    "a transaction failed; the store opens the file again"
                );
            }
            _ => self.connection = Some(connection),
        }
        outcomes
    }

    async fn commit(
        &mut self,
        connection: &mut SqliteConnection,
        transitions: &[Transition],
    ) -> Result<Vec<Result<Outcome, StoreError>>, sqlx::Error> {
        let (settings, reservations) = (&self.settings, &mut self.reservations);
        let statements = &*settings.statements;
        if settings.max_bytes.is_some() {
            reservations.count_before(connection, statements).await?;
        }
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let _stopped = settings.clock.stop();
        let result = async {
            let row = query(&statements.last_fence).fetch_one(&mut *transaction);
            let last_fence = column(&row.await?, 0)?;
            let mut room = None;
            if let Some(max_bytes) = settings.max_bytes {
                reservations
                    .count_within(&mut transaction, statements)
                    .await?;
                let used = used_bytes(&mut transaction).await?;
                let taken = room.insert(reservations.room(used, max_bytes)).taken;
                let observer = &settings.observer;
                observer.report(&|observer| observer.store_filled(SQLITE, taken, max_bytes));
            }
            let mut shared = Shared {
                statements,
                last_fence,
                instance: &settings.instance,
                room,
            };
            // Transitions that wait at the same time may run in any order.
            let mut decided: Outcomes = transitions.iter().map(|_| None).collect();
            let connection = &mut *transaction;
            shared
                .insert_claims(connection, transitions, &mut decided)
                .await?;
            shared
                .complete_claims(connection, transitions, &mut decided)
                .await?;
            let mut outcomes = Vec::with_capacity(transitions.len());
            for (transition, decided) in transitions.iter().zip(decided) {
                let outcome = match decided {
                    Some(outcome) => Ok(outcome),
                    None => shared.apply(connection, transition).await,
                };
                match outcome {
                    Ok(outcome) => outcomes.push(Ok(outcome)),
                    Err(Failed::Row(error)) => outcomes.push(Err(error)),
                    Err(failed @ Failed::Database(_)) => return Err(failed),
                }
            }
            if shared.last_fence != last_fence {
                let set = query(&statements.set_last_fence).bind(shared.last_fence);
                set.execute(&mut *transaction).await?;
            }
            Ok((outcomes, shared.room))
        };
        let (outcomes, room) = match result.await {
            Ok(committed) => committed,
            Err(failed) => {
                drop(transaction);
                return Err(match failed {
                    Failed::Database(error) => error,
                    Failed::Row(error) => sqlx::Error::Decode(Box::new(error)),
                });
            }
        };
        transaction.commit().await?;
        if let Some(room) = &room {
            reservations.keep(room);
        }
        Ok(outcomes)
    }
}

/// How many bytes of the file hold data.
pub(super) async fn used_bytes(connection: &mut SqliteConnection) -> Result<u64, Failed> {
    let pages = "SELECT (c.page_count - f.freelist_count) * s.page_size
        FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s";
    let row = sqlx::query(pages).fetch_one(connection).await?;
    Ok(number(&row, 0)?)
}

#[cfg(test)]
mod tests;
