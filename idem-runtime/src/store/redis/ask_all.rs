//! Asks all Sentinels, or some nodes of a cluster, at once, and detects outdated replies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::access::{self, Access};
use super::failure::{ConnectError, Failure};

/// How long one Sentinel, or one node of a cluster, is given to say who is in charge.
const LIMIT: Duration = Duration::from_secs(2);

/// How long the others are given after the first reply. One that hangs costs no more than this.
const GRACE: Duration = Duration::from_millis(100);

/// The epoch of the newest failover that is known.
///
/// A primary that stood still, or a Sentinel, may be the first to reply and not know that it was
/// replaced. What it says is older, and must not lead the store back.
#[derive(Debug, Default)]
pub(super) struct Newest(AtomicU64);

impl Newest {
    /// Whether to believe an opinion of this epoch. An older one only when everybody was heard: the
    /// servers have been set up anew.
    pub(super) fn accepts(&self, epoch: u64, everybody_replied: bool) -> bool {
        if epoch < self.0.load(Ordering::Relaxed) && !everybody_replied {
            return false;
        }
        self.0.store(epoch, Ordering::Relaxed);
        true
    }
}

/// The words when only outdated opinions were heard.
pub(super) fn outdated() -> Failure {
    Failure::Unserved("those who reply do not know of the last failover of redis".into())
}

/// Asks all at once, so that one that hangs holds up nobody. Returns the replies, and whether everybody
/// replied.
///
/// # Errors
///
/// The last failure, when nobody replied.
pub(super) async fn ask_all<T, F>(
    accesses: impl IntoIterator<Item = Access>,
    ask: impl Fn(Access, MultiplexedConnection) -> F,
) -> Result<(Vec<T>, bool), Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let ask = &ask;
    let mut asked: FuturesUnordered<_> = accesses
        .into_iter()
        .map(|access| async move {
            let client = access.client()?;
            match access::connect(&client).await {
                Ok(connection) => ask(access, connection).await,
                Err(error) => {
                    let address = access.address().to_string().into();
                    Err(Failure::Connect(ConnectError::new(&address, error).into()))
                }
            }
        })
        .collect();
    let count = asked.len();
    let mut replies = Vec::with_capacity(count);
    let mut failure = Failure::TimedOut;
    let mut until = Instant::now() + LIMIT;
    while let Ok(Some(reply)) = tokio::time::timeout_at(until, asked.next()).await {
        match reply {
            Ok(reply) => {
                replies.push(reply);
                until = until.min(Instant::now() + GRACE);
            }
            Err(error) => failure = error,
        }
    }
    if replies.is_empty() {
        return Err(failure);
    }
    let everybody_replied = replies.len() == count;
    Ok((replies, everybody_replied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_stood_still_does_not_lead_back() {
        let newest = Newest::default();
        assert!(newest.accepts(7, false));
        assert!(newest.accepts(7, false));
        assert!(!newest.accepts(6, false));
        assert!(newest.accepts(8, false));
        assert!(!newest.accepts(7, false));
        // A cluster that was set up anew counts from the start.
        assert!(newest.accepts(1, true));
        assert!(newest.accepts(2, false));
    }
}
