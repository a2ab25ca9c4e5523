//! Reports how full the servers are.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::InfoDict;
use redis::aio::ConnectionLike;
use tokio::time::{Instant, timeout};

use super::failure::Failure;
use super::server::Server;
use super::servers::Servers;
use crate::observe::Observer;
use crate::store::observer::{REDIS, StoreObserver};

/// The time between two reports. Each costs an `INFO memory` for each server.
const BETWEEN_REPORTS: Duration = Duration::from_secs(10);

/// The observer of the store, and when the store last reported how full its servers are.
#[derive(Debug, Default)]
pub(super) struct Fill {
    observer: StoreObserver,
    asked_at: Mutex<Option<Instant>>,
}

impl Fill {
    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.observer.set(observer);
    }

    /// Asks the servers in a separate task, unless the last time was less than ten seconds ago or nobody observes the
    /// store. No transition waits for the replies.
    pub(super) fn report(self: &Arc<Self>, servers: &Arc<Servers>, limit: Duration) {
        if !self.observer.is_set() || !self.is_due(Instant::now()) {
            return;
        }
        let (fill, servers) = (self.clone(), servers.clone());
        tokio::spawn(async move {
            // A server that does not reply is reported by the calls that need it.
            if let Ok(Ok(Some((used, max)))) = timeout(limit, fullest(&servers)).await {
                let report = |observer: &dyn Observer| observer.store_filled(REDIS, used, max);
                fill.observer.report(&report);
            }
        });
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if asked_at.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_REPORTS) {
            return false;
        }
        *asked_at = Some(now);
        true
    }
}

/// The used bytes and the limit of the fullest primary, because each one refuses the keys of its own slots. `None` when
/// no server has a limit.
async fn fullest(servers: &Servers) -> Result<Option<(u64, u64)>, Failure> {
    let mut fullest: Option<(u64, u64)> = None;
    for (server, _) in servers.in_charge() {
        let Some((used, max)) = memory(&server).await? else {
            continue;
        };
        let is_fuller = fullest.is_none_or(|(most, of)| {
            u128::from(used) * u128::from(of) > u128::from(most) * u128::from(max)
        });
        if is_fuller {
            fullest = Some((used, max));
        }
    }
    Ok(fullest)
}

async fn memory(server: &Server) -> Result<Option<(u64, u64)>, Failure> {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let memory = server.connection().await?.req_packed_command(&info).await?;
    let memory: Option<InfoDict> = redis::from_redis_value(memory).ok();
    let field = |name| memory.as_ref()?.get::<u64>(name);
    let limit = field("maxmemory").filter(|limit| *limit > 0);
    Ok(field("used_memory").zip(limit))
}
