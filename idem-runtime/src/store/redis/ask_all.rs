//! Asks all Sentinels, or some nodes of a cluster, at the same time, and detects outdated replies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::access::{self, Access};
use super::failure::{ConnectError, Failure};

/// How long one Sentinel or one cluster node may take to say which server is the primary.
const LIMIT: Duration = Duration::from_secs(2);

/// How long to wait for the others after the first reply. A server that hangs costs no more than
/// this.
const GRACE: Duration = Duration::from_millis(100);

/// The epoch of the newest known failover.
///
/// A primary or a Sentinel that was frozen may reply first, without knowing that the primary was
/// replaced. Its epoch is older, and the store must not go back to the old primary.
#[derive(Debug, Default)]
pub(super) struct Newest(AtomicU64);

impl Newest {
    /// Whether to use a reply with this epoch. An older epoch is accepted only when all servers
    /// replied, which means that the servers were set up again.
    pub(super) fn accepts(&self, epoch: u64, everybody_replied: bool) -> bool {
        if epoch < self.0.load(Ordering::Relaxed) && !everybody_replied {
            return false;
        }
        self.0.store(epoch, Ordering::Relaxed);
        true
    }
}

/// The error when all replies were outdated.
pub(super) fn outdated() -> Failure {
    Failure::Unserved("all replies are older than the last failover of redis".into())
}

/// Asks all servers at the same time, so that a server that hangs does not delay the others.
/// Returns the replies, and whether all servers replied.
///
/// # Errors
///
/// The last failure, when no server replied.
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
    fn an_outdated_epoch_is_accepted_only_when_all_servers_replied() {
        let newest = Newest::default();
        assert!(newest.accepts(7, false));
        assert!(newest.accepts(7, false));
        assert!(!newest.accepts(6, false));
        assert!(newest.accepts(8, false));
        assert!(!newest.accepts(7, false));
        // A cluster that was set up again starts with a low epoch.
        assert!(newest.accepts(1, true));
        assert!(newest.accepts(2, false));
    }
}
