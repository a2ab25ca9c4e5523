//! Lets callers share the transactions of a store.
//!
//! As long as few callers use the store, each of them goes alone and waits for nobody. The callers who come while
//! all lanes are taken wait together. When a lane gets free, the first of them runs one batch for all of them. So
//! a batch grows with the load, and many callers share one round trip and one flush of the disk. Under load, half of the
//! lanes are enough, and the batches are longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a caller waits for its batch to begin. All lanes may be taken by callers that wait for locks. Then the
/// others go alone, so that they wait for nothing but their own locks.
const PATIENCE: Duration = Duration::from_millis(100);

/// A shorter batch waits for more jobs while other lanes are taken.
const SHORTEST: usize = 8;

/// The jobs of one kind, and their results.
pub(super) struct Batcher<J, R> {
    state: Mutex<State<J, R>>,
    /// How many callers or batches run at once.
    lanes: usize,
    /// How many jobs a batch has at most.
    longest: usize,
}

struct State<J, R> {
    taken: usize,
    /// The number of the next caller who waits.
    next: u64,
    waiting: Vec<Waiting<J, R>>,
}

struct Waiting<J, R> {
    number: u64,
    job: J,
    wake: oneshot::Sender<Wake<J, R>>,
}

type Woken<J, R> = oneshot::Receiver<Wake<J, R>>;

enum Wake<J, R> {
    /// Run this batch. The first job is that of the caller.
    Lead(Batch<J, R>),
    /// The result, unless the batch has none for this job.
    Done(Option<R>),
}

struct Batch<J, R> {
    lane: Lane<J, R>,
    jobs: Vec<J>,
    /// The callers of all jobs but the first.
    others: Vec<oneshot::Sender<Wake<J, R>>>,
}

/// A lane is free again when this is dropped.
pub(super) struct Lane<J, R>(Arc<Batcher<J, R>>);

impl<J, R> Batcher<J, R> {
    pub(super) fn new(lanes: usize, longest: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                taken: 0,
                next: 0,
                waiting: Vec::new(),
            }),
            lanes,
            longest,
        })
    }

    /// Takes a free lane, so that the caller can go alone.
    pub(super) fn lane(self: &Arc<Self>) -> Option<Lane<J, R>> {
        self.free_lane(&mut self.lock())
    }

    fn free_lane(self: &Arc<Self>, state: &mut State<J, R>) -> Option<Lane<J, R>> {
        // Those who wait come first.
        let is_free = state.taken < self.lanes && state.waiting.is_empty();
        is_free.then(|| {
            state.taken += 1;
            Lane(self.clone())
        })
    }

    /// Runs a job together with the jobs of other callers. `run` gets these jobs when the caller has to run
    /// the batch, and returns as many results, in the same order.
    ///
    /// Returns `None` when the batch has no result for the job, when the caller that ran it was dropped, or when no
    /// batch began in time. The job may or may not have taken effect then, and the caller has to run it
    /// alone.
    ///
    /// When the future is dropped, the job may or may not take effect. The other jobs of its batch
    /// continue.
    pub(super) async fn run<F>(self: &Arc<Self>, job: J, run: impl FnOnce(Vec<J>) -> F) -> Option<R>
    where
        F: Future<Output = Vec<Option<R>>>,
    {
        let Batch { lane, jobs, others } = match self.enter(job) {
            Ok(batch) => batch,
            Err((number, mut woken)) => {
                let woken = match timeout(PATIENCE, &mut woken).await {
                    Ok(woken) => woken,
                    Err(_) if self.withdraw(number) => return None,
                    // The batch has begun.
                    Err(_) => woken.await,
                };
                match woken {
                    Ok(Wake::Lead(batch)) => batch,
                    Ok(Wake::Done(result)) => return result,
                    Err(_) => return None,
                }
            }
        };
        let mut results = run(jobs).await.into_iter();
        // The next batch begins before the results of this batch are handed out.
        drop(lane);
        let own = results.next().flatten();
        for other in others {
            // A caller that has gone needs no result.
            let _ = other.send(Wake::Done(results.next().flatten()));
        }
        own
    }

    /// A batch of this job alone when a lane is free. Otherwise the job waits under a number.
    fn enter(self: &Arc<Self>, job: J) -> Result<Batch<J, R>, (u64, Woken<J, R>)> {
        let mut state = self.lock();
        if let Some(lane) = self.free_lane(&mut state) {
            return Ok(Batch {
                lane,
                jobs: vec![job],
                others: Vec::new(),
            });
        }
        let (wake, woken) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting.push(Waiting { number, job, wake });
        Err((number, woken))
    }

    /// Takes a job back. Returns false when its batch has begun.
    fn withdraw(&self, number: u64) -> bool {
        let waiting = &mut self.lock().waiting;
        let at = waiting.iter().position(|waiting| waiting.number == number);
        at.map(|at| waiting.remove(at)).is_some()
    }

    /// The jobs of the next batch, that of its leader first. Empty when no batch begins now. The lane is free then, and callers
    /// who wait get one of the other lanes when it becomes free.
    fn next(&self) -> Vec<Waiting<J, R>> {
        let mut state = self.lock();
        // A late claim of a caller that has gone would hold a key in vain.
        state.waiting.retain(|waiting| !waiting.wake.is_closed());
        let len = state.waiting.len().min(self.longest);
        let others = state.taken - 1;
        if len == 0 || len < SHORTEST && others >= self.lanes.div_ceil(2) {
            state.taken = others;
            return Vec::new();
        }
        state.waiting.drain(..len).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J, R> Drop for Lane<J, R> {
    /// Hands the lane to the callers who wait.
    fn drop(&mut self) {
        let mut next = self.0.next().into_iter();
        let Some(leader) = next.next() else {
            return;
        };
        let (mut jobs, mut others) = (vec![leader.job], Vec::new());
        for other in next {
            jobs.push(other.job);
            others.push(other.wake);
        }
        // When the leader leaves at this moment, its batch is dropped: the lane goes to the next batch, and the
        // other callers go alone.
        let _ = leader.wake.send(Wake::Lead(Batch {
            lane: Lane(self.0.clone()),
            jobs,
            others,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{join_all, poll_immediate};

    use super::*;

    /// Returns each job as its own result.
    async fn echo(jobs: Vec<u32>) -> Vec<Option<u32>> {
        jobs.into_iter().map(Some).collect()
    }

    #[tokio::test]
    async fn a_caller_alone_waits_for_nobody() {
        let batcher = Batcher::new(1, 8);
        assert_eq!(poll_immediate(batcher.run(7, echo)).await, Some(Some(7)));
        assert_eq!(poll_immediate(batcher.run(8, echo)).await, Some(Some(8)));
    }

    #[tokio::test]
    async fn callers_who_wait_share_batches_of_limited_length() {
        let batcher = Batcher::new(1, 8);
        let lane = batcher.lane().expect("a free lane");
        assert!(batcher.lane().is_none());
        let began = AtomicUsize::new(0);
        let run = |job| {
            batcher.run(job, |jobs| {
                began.fetch_add(1, Ordering::Relaxed);
                echo(jobs)
            })
        };
        let mut callers: Vec<_> = (0..12).map(|job| Box::pin(run(job))).collect();
        for caller in &mut callers {
            assert!(poll_immediate(caller).await.is_none());
        }
        drop(lane);
        let results = join_all(callers).await;
        assert_eq!(results, (0..12).map(Some).collect::<Vec<_>>());
        assert_eq!(began.into_inner(), 2);
        assert!(batcher.lane().is_some(), "the lane is free again");
    }

    #[tokio::test]
    async fn a_short_batch_waits_for_more_callers_while_half_of_the_lanes_are_taken() {
        let batcher = Batcher::new(4, 8);
        let mut lanes: Vec<_> = (0..4).map(|_| batcher.lane()).collect();
        let mut first = pin!(batcher.run(1, echo));
        assert!(poll_immediate(&mut first).await.is_none());
        for _ in 0..2 {
            lanes.pop();
            assert!(poll_immediate(&mut first).await.is_none());
            assert!(batcher.lane().is_none(), "a caller waits already");
        }
        let mut second = pin!(batcher.run(2, echo));
        assert!(poll_immediate(&mut second).await.is_none());
        lanes.pop();
        assert_eq!(poll_immediate(&mut first).await, Some(Some(1)));
        assert_eq!(second.await, Some(2));
        assert!(batcher.lane().is_some());
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_does_not_run() {
        let batcher = Batcher::new(1, 8);
        let lane = batcher.lane();
        let mut first = Box::pin(batcher.run(1, echo));
        assert!(poll_immediate(&mut first).await.is_none());
        let mut second = pin!(batcher.run(2, async |jobs: Vec<u32>| {
            assert_eq!(jobs, [2]);
            echo(jobs).await
        }));
        assert!(poll_immediate(&mut second).await.is_none());
        drop(first);
        drop(lane);
        assert_eq!(second.await, Some(2));
    }

    #[tokio::test]
    async fn when_a_leader_is_dropped_the_others_get_no_result_and_the_lane_is_free() {
        let batcher = Batcher::new(1, 2);
        let lane = batcher.lane();
        let mut leader = Box::pin(batcher.run(1, async |_| std::future::pending().await));
        let mut follower = pin!(batcher.run(2, echo));
        let mut next = pin!(batcher.run(3, echo));
        assert!(poll_immediate(&mut leader).await.is_none());
        assert!(poll_immediate(&mut follower).await.is_none());
        assert!(poll_immediate(&mut next).await.is_none());
        drop(lane);
        assert!(poll_immediate(&mut leader).await.is_none());
        drop(leader);
        assert_eq!(follower.await, None);
        assert_eq!(next.await, Some(3));
    }

    /// The leader was chosen, but not yet polled.
    #[tokio::test]
    async fn a_leader_that_leaves_before_it_begins_passes_the_lane_on() {
        let batcher = Batcher::new(1, 2);
        let lane = batcher.lane();
        let mut leader = Box::pin(batcher.run(1, echo));
        let mut follower = pin!(batcher.run(2, echo));
        let mut next = pin!(batcher.run(3, echo));
        assert!(poll_immediate(&mut leader).await.is_none());
        assert!(poll_immediate(&mut follower).await.is_none());
        assert!(poll_immediate(&mut next).await.is_none());
        drop(lane);
        drop(leader);
        assert_eq!(follower.await, None);
        assert_eq!(next.await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_goes_alone_when_no_lane_gets_free() {
        let batcher = Batcher::new(1, 8);
        let lane = batcher.lane();
        let alone = timeout(Duration::from_secs(1), batcher.run(1, echo));
        assert_eq!(alone.await, Ok(None));
        drop(lane);
        assert!(batcher.lane().is_some(), "nobody waits");
    }

    /// The job of a batch that has begun may have taken effect.
    #[tokio::test(start_paused = true)]
    async fn a_batch_that_has_begun_may_take_longer() {
        let batcher = Batcher::new(1, 8);
        let lane = batcher.lane();
        let slow = |job| {
            batcher.run(job, async |jobs| {
                tokio::time::sleep(PATIENCE * 3).await;
                echo(jobs).await
            })
        };
        let mut callers = [Box::pin(slow(1)), Box::pin(slow(2))];
        for caller in &mut callers {
            assert!(poll_immediate(caller).await.is_none());
        }
        drop(lane);
        assert_eq!(join_all(callers).await, [Some(1), Some(2)]);
    }

    #[tokio::test]
    async fn a_batch_may_lack_some_results() {
        let batcher = Batcher::new(1, 8);
        let lane = batcher.lane();
        let run = |job| {
            batcher.run(job, async |jobs: Vec<u32>| {
                jobs.into_iter()
                    .map(|job| (job != 1).then_some(job))
                    .collect()
            })
        };
        let mut callers: Vec<_> = (0..3).map(|job| Box::pin(run(job))).collect();
        for caller in &mut callers {
            assert!(poll_immediate(caller).await.is_none());
        }
        drop(lane);
        assert_eq!(join_all(callers).await, [Some(0), None, Some(2)]);
    }
}
