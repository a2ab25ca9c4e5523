//! Lets callers share the transactions of a store.
//!
//! A lane runs one caller or one batch at a time. While a lane is free, a caller goes alone and waits for nobody. While all lanes
//! are taken, callers wait. When a lane becomes free, one batch runs the jobs of all who wait, in a task of its own, so that no
//! caller depends on another. A batch grows with the load, and its callers share one round trip and one flush of the disk.
//!
//! While at least half of the lanes are taken, a batch of fewer than [`SHORTEST`] jobs waits for more, but not longer
//! than [`COMPANY`]. Under load, fewer and longer batches have the higher throughput.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// How long a caller waits for its batch to begin. All lanes may be taken by callers that wait for locks. Then the
/// others go alone, so that they wait for nothing but their own locks.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// How long a short batch waits for more jobs.
const COMPANY: Duration = Duration::from_millis(2);

/// A shorter batch waits for more jobs.
const SHORTEST: usize = 8;

/// The jobs of one kind, and their results.
pub(super) struct Batcher<J, R> {
    state: Mutex<State<J, R>>,
    /// How many callers or batches run at once.
    lanes: usize,
    /// How many jobs a batch has at most.
    longest: usize,
    /// How long a job waits at most until its batch begins.
    patience: Duration,
}

struct State<J, R> {
    /// How many lanes are taken.
    taken: usize,
    /// The number of the next caller who waits.
    next: u64,
    /// The longest waiting first.
    waiting: Vec<Waiting<J, R>>,
}

struct Waiting<J, R> {
    number: u64,
    since: Instant,
    job: J,
    run: Run<J, R>,
    reply: oneshot::Sender<Result<R, NoResult>>,
}

type Run<J, R> = Box<dyn FnOnce(Vec<J>) -> Running<R> + Send>;
type Running<R> = Pin<Box<dyn Future<Output = Results<R>> + Send>>;

/// The results of a batch, in the order of its jobs. A job may have none.
pub(super) type Results<R> = Result<Vec<Option<R>>, NoResult>;

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoResult {
    /// No batch began in time. The job has not run.
    NotBegun,
    /// The batch has ended. The job may or may not have taken effect.
    Ended,
    /// The batch may still run.
    Lost,
}

/// A lane is free again when this is dropped.
pub(super) struct Lane<J: Send + 'static, R: Send + 'static>(Option<Arc<Batcher<J, R>>>);

impl<J: Send + 'static, R: Send + 'static> Batcher<J, R> {
    pub(super) fn new(lanes: usize, longest: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                taken: 0,
                next: 0,
                waiting: Vec::new(),
            }),
            lanes,
            longest,
            patience,
        })
    }

    /// Takes a free lane, so that the caller can go alone. Those who wait come first.
    pub(super) fn lane(self: &Arc<Self>) -> Option<Lane<J, R>> {
        let mut state = self.lock();
        let is_free = state.taken < self.lanes && state.waiting.is_empty();
        is_free.then(|| {
            state.taken += 1;
            Lane(Some(self.clone()))
        })
    }

    /// Runs a job together with the jobs of the callers who wait. One of them passes its `run` to the batch: the function gets
    /// all jobs, and returns as many results, in the same order.
    ///
    /// When the future is dropped before its batch begins, the job does not run. A batch that has begun continues.
    pub(super) async fn run<F>(
        self: &Arc<Self>,
        job: J,
        run: impl FnOnce(Vec<J>) -> F + Send + 'static,
    ) -> Result<R, NoResult>
    where
        F: Future<Output = Results<R>> + Send + 'static,
    {
        let (mut reply, place) = self.line_up(job, Box::new(|jobs| Box::pin(run(jobs))));
        let replied = if let Ok(replied) = timeout(COMPANY, &mut reply).await {
            replied
        } else {
            self.begin(self.lock());
            match timeout(self.patience, &mut reply).await {
                Ok(replied) => replied,
                Err(_) if place.leave() => return Err(NoResult::NotBegun),
                Err(_) => reply.await,
            }
        };
        replied.unwrap_or(Err(NoResult::Lost))
    }

    /// Waits for a batch, or begins one.
    fn line_up(
        self: &Arc<Self>,
        job: J,
        run: Run<J, R>,
    ) -> (oneshot::Receiver<Result<R, NoResult>>, Place<'_, J, R>) {
        let (reply, replied) = oneshot::channel();
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.waiting.push(Waiting {
            number,
            since: Instant::now(),
            job,
            run,
            reply,
        });
        self.begin(state);
        let place = Place {
            batcher: self,
            number,
        };
        (replied, place)
    }

    /// Begins the batches that need not wait. Returns whether there are any.
    fn begin(self: &Arc<Self>, mut state: MutexGuard<'_, State<J, R>>) -> bool {
        let mut batches = Vec::new();
        while state.taken < self.lanes
            && let Some(first) = state.waiting.first()
            && (state.taken < self.lanes.div_ceil(2)
                || state.waiting.len() >= SHORTEST
                || first.since.elapsed() >= COMPANY)
        {
            state.taken += 1;
            let len = state.waiting.len().min(self.longest);
            batches.push(state.waiting.drain(..len).collect());
        }
        drop(state);
        let has_begun = !batches.is_empty();
        for batch in batches {
            self.start(batch);
        }
        has_begun
    }

    /// Runs a batch in a task. Outside of a runtime, the callers lose their results.
    fn start(self: &Arc<Self>, batch: Vec<Waiting<J, R>>) {
        let lane = Lane(Some(self.clone()));
        let (mut jobs, mut replies, mut run) = (Vec::new(), Vec::new(), None);
        for waiting in batch {
            jobs.push(waiting.job);
            replies.push(waiting.reply);
            run.get_or_insert(waiting.run);
        }
        let (Some(run), Ok(runtime)) = (run, Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let results = run(jobs).await;
            // The next batch begins before the results of this batch are handed out.
            drop(lane);
            let (mut results, none) = match results {
                Ok(results) => (results.into_iter(), NoResult::Ended),
                Err(none) => (Vec::new().into_iter(), none),
            };
            for reply in replies {
                // A caller that has gone needs no result.
                let _ = reply.send(results.next().flatten().ok_or(none));
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J: Send + 'static, R: Send + 'static> Lane<J, R> {
    /// Frees the lane. A batch that begins now runs first: its task waits for this thread, on which the caller may go on to
    /// a handler that blocks.
    pub(super) async fn leave(mut self) {
        if self.free() {
            tokio::task::yield_now().await;
        }
    }

    /// Returns whether a batch has begun in the lane.
    fn free(&mut self) -> bool {
        self.0.take().is_some_and(|batcher| {
            let mut state = batcher.lock();
            state.taken -= 1;
            batcher.begin(state)
        })
    }
}

impl<J: Send + 'static, R: Send + 'static> Drop for Lane<J, R> {
    fn drop(&mut self) {
        self.free();
    }
}

/// The place of a caller who waits.
struct Place<'b, J, R> {
    batcher: &'b Batcher<J, R>,
    number: u64,
}

impl<J, R> Place<'_, J, R> {
    /// Takes the job back. Returns false when its batch has begun.
    fn leave(&self) -> bool {
        let state = self.batcher.state.lock();
        let waiting = &mut state.unwrap_or_else(PoisonError::into_inner).waiting;
        let at = waiting.iter().position(|it| it.number == self.number);
        at.map(|at| waiting.remove(at)).is_some()
    }
}

/// A late claim of a caller that has gone would hold a key in vain.
impl<J, R> Drop for Place<'_, J, R> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{join_all, poll_immediate};

    use super::*;

    /// Returns each job as its own result.
    async fn echo(jobs: Vec<u32>) -> Results<u32> {
        Ok(jobs.into_iter().map(Some).collect())
    }

    fn batcher(lanes: usize, longest: usize) -> Arc<Batcher<u32, u32>> {
        Batcher::new(lanes, longest, PATIENCE)
    }

    #[tokio::test]
    async fn a_caller_alone_waits_for_nobody() {
        let batcher = batcher(1, 8);
        assert_eq!(batcher.run(7, echo).await, Ok(7));
        assert_eq!(batcher.run(8, echo).await, Ok(8));
        assert!(batcher.lane().is_some());
    }

    #[tokio::test]
    async fn callers_who_wait_share_batches_of_limited_length() {
        let batcher = batcher(1, 8);
        let lane = batcher.lane().expect("a free lane");
        assert!(batcher.lane().is_none());
        let began = Arc::new(AtomicUsize::new(0));
        let run = |job| {
            let began = began.clone();
            batcher.run(job, move |jobs| {
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
        assert_eq!(results, (0..12).map(Ok).collect::<Vec<_>>());
        assert_eq!(began.load(Ordering::Relaxed), 2);
        assert!(batcher.lane().is_some(), "the lane is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_batch_waits_until_less_than_half_of_the_lanes_are_taken() {
        let batcher = batcher(4, 8);
        let mut lanes: Vec<_> = (0..4).map(|_| batcher.lane()).collect();
        let mut first = pin!(batcher.run(1, echo));
        let mut second = pin!(batcher.run(2, echo));
        assert!(poll_immediate(&mut first).await.is_none());
        assert!(poll_immediate(&mut second).await.is_none());
        for left in [3, 2] {
            lanes.truncate(left);
            tokio::task::yield_now().await;
            assert!(poll_immediate(&mut first).await.is_none());
            assert!(batcher.lane().is_none(), "a caller waits already");
        }
        lanes.truncate(1);
        tokio::task::yield_now().await;
        assert_eq!(poll_immediate(&mut first).await, Some(Ok(1)));
        assert_eq!(poll_immediate(&mut second).await, Some(Ok(2)));
        assert!(batcher.lane().is_some());
    }

    /// One lane may be taken for long. The other lane is enough for everyone.
    #[tokio::test(start_paused = true)]
    async fn enough_callers_take_a_free_lane_at_once() {
        let batcher = batcher(2, 32);
        let (_taken, lane) = (batcher.lane(), batcher.lane());
        let mut callers: Vec<_> = (0..8).map(|job| Box::pin(batcher.run(job, echo))).collect();
        assert!(poll_immediate(&mut callers[0]).await.is_none());
        drop(lane);
        for caller in &mut callers[1..] {
            assert!(poll_immediate(caller).await.is_none());
        }
        tokio::task::yield_now().await;
        for (job, caller) in callers.iter_mut().enumerate() {
            let result = poll_immediate(caller).await;
            assert_eq!(result, Some(Ok(u32::try_from(job).expect("small"))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_batch_does_not_wait_long_for_more_callers() {
        let batcher = batcher(2, 8);
        let (_taken, lane) = (batcher.lane(), batcher.lane());
        let begun = Instant::now();
        let mut alone = pin!(batcher.run(1, echo));
        assert!(poll_immediate(&mut alone).await.is_none());
        drop(lane);
        assert_eq!(alone.await, Ok(1));
        assert!(begun.elapsed() < 2 * COMPANY, "{:?}", begun.elapsed());
        // The caller has waited long enough before the lane gets free.
        let lane = batcher.lane();
        let mut alone = pin!(batcher.run(2, echo));
        let _ = timeout(2 * COMPANY, &mut alone).await;
        let begun = Instant::now();
        drop(lane);
        assert_eq!(alone.await, Ok(2));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_does_not_run() {
        let batcher = batcher(1, 8);
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
        assert_eq!(second.await, Ok(2));
    }

    #[tokio::test]
    async fn a_caller_who_has_gone_keeps_no_lane_from_others() {
        let batcher = batcher(2, 8);
        let (_taken, lane) = (batcher.lane(), batcher.lane());
        let mut gone = Box::pin(batcher.run(1, echo));
        assert!(poll_immediate(&mut gone).await.is_none());
        drop(lane);
        assert!(batcher.lane().is_none(), "a caller waits");
        drop(gone);
        assert!(batcher.lane().is_some());
    }

    #[tokio::test]
    async fn a_batch_goes_on_without_the_caller_that_came_first() {
        let batcher = batcher(1, 2);
        let lane = batcher.lane();
        let (go_on, wait) = oneshot::channel::<()>();
        let mut first = Box::pin(batcher.run(1, async |jobs: Vec<u32>| {
            let _ = wait.await;
            echo(jobs).await
        }));
        let mut second = pin!(batcher.run(2, echo));
        assert!(poll_immediate(&mut first).await.is_none());
        assert!(poll_immediate(&mut second).await.is_none());
        drop(lane);
        tokio::task::yield_now().await;
        drop(first);
        go_on.send(()).expect("the batch waits");
        assert_eq!(second.await, Ok(2));
    }

    /// A handler that blocks its thread begins in the same poll.
    #[tokio::test]
    async fn a_batch_begins_before_the_caller_that_frees_its_lane_goes_on() {
        let batcher = batcher(1, 8);
        let lane = batcher.lane().expect("a free lane");
        let began = Arc::new(AtomicUsize::new(0));
        let count = began.clone();
        let mut caller = pin!(batcher.run(1, async move |jobs| {
            count.fetch_add(1, Ordering::Relaxed);
            echo(jobs).await
        }));
        assert!(poll_immediate(&mut caller).await.is_none());
        lane.leave().await;
        assert_eq!(began.load(Ordering::Relaxed), 1);
        assert_eq!(caller.await, Ok(1));
    }

    #[tokio::test]
    async fn a_batch_that_panics_may_have_taken_effect() {
        let batcher = batcher(1, 8);
        let panics = async |_| panic!("on purpose");
        assert_eq!(batcher.run(1, panics).await, Err(NoResult::Lost));
        assert!(batcher.lane().is_some(), "the lane is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_goes_alone_when_no_lane_gets_free() {
        let batcher = batcher(1, 8);
        let lane = batcher.lane();
        let alone = timeout(Duration::from_secs(1), batcher.run(1, echo));
        assert_eq!(alone.await, Ok(Err(NoResult::NotBegun)));
        drop(lane);
        assert!(batcher.lane().is_some(), "nobody waits");
    }

    /// The job of a batch that has begun may have taken effect.
    #[tokio::test(start_paused = true)]
    async fn a_batch_that_has_begun_may_take_longer() {
        let batcher = batcher(1, 8);
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
        assert_eq!(join_all(callers).await, [Ok(1), Ok(2)]);
    }

    #[tokio::test]
    async fn a_batch_may_lack_some_results() {
        let batcher = batcher(1, 8);
        let lane = batcher.lane();
        let run = |job| {
            batcher.run(job, async |jobs: Vec<u32>| {
                let results = jobs.into_iter();
                Ok(results.map(|job| (job != 1).then_some(job)).collect())
            })
        };
        let mut callers: Vec<_> = (0..3).map(|job| Box::pin(run(job))).collect();
        for caller in &mut callers {
            assert!(poll_immediate(caller).await.is_none());
        }
        drop(lane);
        let results = join_all(callers).await;
        assert_eq!(results, [Ok(0), Err(NoResult::Ended), Ok(2)]);
    }
}
