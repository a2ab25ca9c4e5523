//! Rule 1 when two threads start at the same moment.
//!
//! Two tasks of a runtime start some microseconds apart, so they seldom meet in a short gap between
//! a read and a write. A thread that spins until another thread arrives starts within a fraction of
//! a microsecond.

use std::hint::spin_loop;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::super::handles::Handles;
use super::super::subject::Subject;
use super::super::violation::{Under, Violation, broken};
use super::rivals::{Meeting, Outcome, RULE, claims};
use crate::store::{Holder, StoreError, StoreFuture};

/// The number of pairs of each kind in a round.
const PAIRS: usize = 40;
/// The time limit for preparing the pairs of one kind, and the time limit for their races.
const BUDGET: Duration = Duration::from_millis(400);
/// The number of threads that run the pairs.
const THREADS: usize = 8;
/// How often a thread checks for the other thread before it checks the clock.
const LOOKS: u32 = 1_000;

type Ended = Result<Outcome, StoreError>;

pub(super) async fn run(
    subject: &Subject,
    handles: &Handles,
    rounds: usize,
) -> Result<(), Violation> {
    let mut prepared = Vec::new();
    for meeting in Meeting::ALL {
        let mut held = Vec::new();
        // The system clock, because a test may have paused the clock of tokio.
        let begun_at = std::time::Instant::now();
        while held.len() < rounds * PAIRS && begun_at.elapsed() < BUDGET {
            held.push(meeting.prepare(subject).await?);
        }
        prepared.push((meeting, held));
    }
    subject.pass(Instant::now(), subject.tick * 2).await;
    for (meeting, held) in prepared {
        let held: Arc<[_]> = held.into();
        for (rival, claim) in race(handles, meeting, held.clone()).await? {
            meeting.judge(&rival.under(RULE)?, &claim.under(RULE)?)?;
        }
        // There are many ids, and the store may have little room.
        for holder in held.iter() {
            subject.store.forget(holder.id).await.under(RULE)?;
        }
    }
    Ok(())
}

/// Lets threads meet in pairs, one id after the other, and returns the results of each pair.
async fn race(
    handles: &Handles,
    meeting: Meeting,
    held: Arc<[Holder]>,
) -> Result<Vec<(Ended, Ended)>, Violation> {
    let course = Arc::new(Course {
        arrived: held.iter().map(|_| AtomicBool::new(false)).collect(),
        held,
        ticket: AtomicUsize::new(0),
        ends_at: std::time::Instant::now() + BUDGET,
    });
    let runtime = Handle::current();
    let threads = iter::repeat_with(|| {
        let (course, runtime) = (course.clone(), runtime.clone());
        let (first, second) = (handles.first.clone(), handles.second.clone());
        tokio::task::spawn_blocking(move || {
            let rival = |held| meeting.rival(&first, held);
            let claim = |held| claims(&second, held);
            runtime.block_on(course.run(rival, claim))
        })
    });
    let threads: Vec<_> = threads.take(THREADS).collect();
    let mut pairs: Vec<_> = course.held.iter().map(|_| (None, None)).collect();
    for thread in threads {
        let Ok(ended) = thread.await else {
            return broken(RULE, "a transition panicked");
        };
        for (number, role, ended) in ended {
            match role {
                Role::Rival => pairs[number].0 = Some(ended),
                Role::Claim => pairs[number].1 = Some(ended),
            }
        }
    }
    let whole = |(rival, claim): (Option<_>, Option<_>)| rival.zip(claim);
    Ok(pairs.into_iter().filter_map(whole).collect())
}

#[derive(Clone, Copy)]
enum Role {
    Rival,
    Claim,
}

/// The ids on which threads meet, one after the other.
///
/// There are more than two threads, and any running thread takes the next part. So no thread has to
/// wait for a thread without a processor, and pairs meet even on a busy machine.
struct Course {
    held: Arc<[Holder]>,
    /// Whether the second thread of a pair has arrived.
    arrived: Box<[AtomicBool]>,
    /// The number of the next part. Each id has two parts.
    ticket: AtomicUsize,
    ends_at: std::time::Instant,
}

impl Course {
    async fn run(
        &self,
        rival: impl Fn(Holder) -> StoreFuture<Outcome>,
        claim: impl Fn(Holder) -> StoreFuture<Outcome>,
    ) -> Vec<(usize, Role, Ended)> {
        let mut all = Vec::new();
        loop {
            let ticket = self.ticket.fetch_add(1, Ordering::AcqRel);
            let number = ticket / 2;
            let Some(held) = self.held.get(number) else {
                return all;
            };
            let (role, ended) = if ticket.is_multiple_of(2) {
                if !self.is_met(number) {
                    return all;
                }
                (Role::Rival, rival(*held))
            } else {
                self.arrived[number].store(true, Ordering::Release);
                (Role::Claim, claim(*held))
            };
            all.push((number, role, ended.await));
        }
    }

    /// Waits for the second thread of a pair. Returns `false` when the time is over.
    fn is_met(&self, number: usize) -> bool {
        let mut looks = 0_u32;
        while !self.arrived[number].load(Ordering::Acquire) {
            spin_loop();
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS) && std::time::Instant::now() >= self.ends_at {
                return false;
            }
        }
        true
    }
}
