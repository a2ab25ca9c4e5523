//! Sends each transition to the primary of its key, and switches when another server becomes the
//! primary.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::access::{self, Access};
use super::check;
use super::failure::Failure;
use super::located::Located;
use super::locator::Locator;
use super::server::{PAUSE, Request, Sent, Server};
use super::slots::{LAST_SLOT, slot};

/// How often a command is sent again because its connection broke.
const RESENDS: u32 = 1;

/// How often cluster nodes may redirect a command.
const HOPS: u32 = 5;

/// The servers of one store.
pub(super) struct Servers {
    locator: Locator,
    connect_timeout: Duration,
    lanes: usize,
    map: watch::Sender<Arc<Map>>,
    /// Known servers: those of the map, and those that a node has named since then.
    known: Mutex<Vec<Arc<Server>>>,
    look: Mutex<Option<JoinHandle<()>>>,
    turn: AtomicUsize,
}

/// Which server is the primary of which slots.
#[derive(Default)]
pub(super) struct Map {
    located: Located,
    /// Sorted by slot.
    shards: Vec<(u16, u16, Arc<Server>)>,
}

impl Map {
    fn server(&self, key: &str) -> Option<&Arc<Server>> {
        if let [(0, LAST_SLOT, server)] = &self.shards[..] {
            return Some(server);
        }
        let slot = slot(key.as_bytes());
        let at = self.shards.partition_point(|(_, last, _)| *last < slot);
        let (first, _, server) = self.shards.get(at)?;
        (*first <= slot).then_some(server)
    }

    /// The first primary of this slot or a later one, and the first of its slots that is not earlier.
    ///
    /// A primary with several ranges of slots is returned for its first range only.
    pub(super) fn at_slot(&self, slot: u16) -> Option<(u16, Arc<Server>)> {
        let mut shards = self.shards.iter().enumerate();
        shards.find_map(|(at, (first, _, server))| {
            (*first >= slot && self.first_range(server) == Some(at))
                .then(|| (*first, server.clone()))
        })
    }

    /// Returns a number that changes when slots move to another primary. If a listing continued after such a move, it could
    /// skip a whole primary.
    ///
    /// The number does not depend on addresses. The nodes may report another name of the same server to another process, and
    /// a promoted replica takes over the slots of its primary.
    pub(super) fn division(&self) -> u64 {
        let mut hasher = Sha256::new();
        for (first, last, server) in &self.shards {
            hasher.update(first.to_le_bytes());
            hasher.update(last.to_le_bytes());
            let number = self.first_range(server).unwrap_or_default();
            hasher.update((number as u64).to_le_bytes());
        }
        let digest = hasher.finalize();
        let (bytes, _) = digest.split_first_chunk().expect("32 bytes");
        u64::from_le_bytes(*bytes)
    }

    /// The place of the first range of this server.
    fn first_range(&self, server: &Arc<Server>) -> Option<usize> {
        let mut servers = self.shards.iter();
        servers.position(|(_, _, it)| Arc::ptr_eq(it, server))
    }

    fn is_in_charge(&self, server: &Arc<Server>, key: &str) -> bool {
        self.server(key).is_some_and(|it| Arc::ptr_eq(it, server))
    }
}

impl Servers {
    /// Finds the servers, and connects to each of them.
    ///
    /// # Errors
    ///
    /// When a server cannot be found or reached, or is unfit.
    pub(super) async fn connect(
        locator: Locator,
        connect_timeout: Duration,
        lanes: usize,
    ) -> Result<Arc<Self>, Failure> {
        let (map, _) = watch::channel(Arc::default());
        let servers = Arc::new(Self {
            locator,
            connect_timeout,
            lanes,
            map,
            known: Mutex::default(),
            look: Mutex::default(),
            turn: AtomicUsize::new(0),
        });
        servers.locate().await?;
        Ok(servers)
    }

    /// The primaries, each with a predicate for its keys.
    pub(super) fn in_charge(&self) -> Vec<(Arc<Server>, impl Fn(&str) -> bool)> {
        let map = self.map.borrow().clone();
        let mut servers: Vec<Arc<Server>> = Vec::new();
        for (_, _, server) in &map.shards {
            if !servers.iter().any(|it| Arc::ptr_eq(it, server)) {
                servers.push(server.clone());
            }
        }
        let with_keys = |server: Arc<Server>| {
            let (map, of) = (map.clone(), server.clone());
            (server, move |key: &str| map.is_in_charge(&of, key))
        };
        servers.into_iter().map(with_keys).collect()
    }

    /// The primaries of all slots at this moment.
    pub(super) fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    /// Sends a request over the next connection.
    pub(super) async fn send(self: &Arc<Self>, request: &Request<'_>) -> Result<Sent, Failure> {
        self.send_in_turn(request, self.next_turn()).await
    }

    /// The turn of the next request. Each turn has its connection among those of a server.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request. Sends it again when its connection broke, or to another server when that
    /// server has become the primary. Every transition may be repeated, because its owner
    /// distinguishes it from others.
    pub(super) async fn send_in_turn(
        self: &Arc<Self>,
        request: &Request<'_>,
        turn: usize,
    ) -> Result<Sent, Failure> {
        let is_fixed = matches!(self.locator, Locator::Fixed(_));
        let mut map = self.map.subscribe();
        let mut passed_on: Option<(Arc<Server>, bool)> = None;
        let (mut resends, mut hops) = (0, 0);
        let mut resent = false;
        loop {
            let in_charge = || Some((map.borrow().server(request.key)?.clone(), false));
            let Some((server, is_asking)) = passed_on.take().or_else(in_charge) else {
                let why = "no node of the redis cluster serves the slot of the key";
                let failure = Failure::Unserved(why.into());
                self.wait_for_another(&mut map, request.deadline, failure)
                    .await?;
                continue;
            };
            let reply = tokio::select! {
                biased;
                // Ignore the reply of a replaced server: its successor may grant the same claim.
                () = replaced(&mut map, &server, request.key), if !is_fixed => {
                    resent = true;
                    continue;
                }
                reply = server.send(request, turn, is_asking) => reply,
                never = self.keep_looking(), if !is_fixed => match never {},
            };
            let failure = match reply {
                Ok(sent) => {
                    if request.lacks_replicas(&sent) {
                        // A primary that lost its replicas may have been replaced.
                        self.look_again();
                    }
                    return Ok(Sent { resent, ..sent });
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::TimedOut) {
                self.look_again();
                return Err(failure);
            }
            if let Failure::Redis(error) = &failure
                && let Some((host, port, is_asking)) = redirection(error)
            {
                hops += 1;
                if hops > HOPS {
                    let why = "the nodes of the redis cluster pass the key on to each other";
                    return Err(Failure::Unserved(why.into()));
                }
                if !is_asking {
                    self.look_again();
                }
                let access = server.access().for_server(host, port);
                passed_on = Some((self.server_at(access)?, is_asking));
                continue;
            }
            if !failure.is_out_of_memory() {
                // The server may have been replaced even though it still replies. A primary that
                // lost its replicas refuses writes, and a restarted server is loading its data.
                self.look_again();
            }
            if failure.is_broken_connection() && resends < RESENDS {
                resends += 1;
                resent = true;
                continue;
            }
            if !failure.may_be_elsewhere() {
                return Err(failure);
            }
            if is_fixed {
                // Another server may have replaced this one at the same address.
                if failure.ends_connection() && resends < RESENDS {
                    resends += 1;
                    continue;
                }
                return Err(failure);
            }
            self.wait_for_another(&mut map, request.deadline, failure)
                .await?;
        }
    }

    /// Waits a moment for another server to become the primary.
    ///
    /// # Errors
    ///
    /// The failure, when the deadline has passed.
    async fn wait_for_another(
        self: &Arc<Self>,
        map: &mut watch::Receiver<Arc<Map>>,
        deadline: Instant,
        failure: Failure,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        if now >= deadline {
            return Err(failure);
        }
        self.look_again();
        // The caller reads the map again, whether it has changed or not.
        let _ = tokio::time::timeout_at(deadline.min(now + PAUSE), map.changed()).await;
        if Instant::now() >= deadline {
            return Err(failure);
        }
        Ok(())
    }

    /// Looks for another primary while a server does not reply. Never ends.
    async fn keep_looking(self: &Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(PAUSE).await;
            self.look_again();
        }
    }

    /// Asks which servers are primaries, in a separate task, so that the result is kept when the
    /// transition ends. There is one look at a time, and a pause after each.
    pub(super) fn look_again(self: &Arc<Self>) {
        if matches!(self.locator, Locator::Fixed(_)) {
            return;
        }
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if look.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        let servers = Arc::clone(self);
        *look = Some(tokio::spawn(async move {
            match servers.locate().await {
                Ok(true) => {
                    // In a separate task, because a replica that hangs must not delay the next
                    // look.
                    let servers = Arc::clone(&servers);
                    tokio::spawn(async move { servers.report_replicas().await });
                }
                Ok(false) => {}
                Err(failure) => {
                    let error = &crate::store::StoreError::from(failure);
                    tracing::debug!(target: crate::trace::TARGET, error = error as &dyn std::error::Error, "no server says which redis server is the primary");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }));
    }

    /// Asks which servers are primaries, and returns whether that has changed.
    async fn locate(&self) -> Result<bool, Failure> {
        let located = match &self.locator {
            Locator::Fixed(access) => {
                let server = self.server_at(access.clone())?;
                let shards = vec![(0, LAST_SLOT, server)];
                let located = Located::default();
                self.map.send_replace(Arc::new(Map { located, shards }));
                return Ok(true);
            }
            Locator::Sentinel(sentinels) => sentinels.locate().await?,
            Locator::Cluster(nodes) => nodes.locate().await?,
        };
        if self.map.borrow().located == located {
            return Ok(false);
        }
        let like = self.locator.like();
        let mut shards = Vec::with_capacity(located.shards.len());
        for shard in &located.shards {
            let access = like.for_server(&shard.primary.host, shard.primary.port);
            shards.push((shard.first, shard.last, self.server_at(access)?));
        }
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|known| shards.iter().any(|(_, _, it)| Arc::ptr_eq(it, known)));
        self.map.send_replace(Arc::new(Map { located, shards }));
        Ok(true)
    }

    fn server_at(&self, access: Access) -> Result<Arc<Server>, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = known
            .iter()
            .find(|it| it.access().address() == access.address())
        {
            return Ok(server.clone());
        }
        let server = Arc::new(Server::new(access, self.connect_timeout, self.lanes)?);
        known.push(server.clone());
        Ok(server)
    }

    /// Checks the replicas that may be promoted. A replica that cannot be reached is skipped; when
    /// it is promoted, the store checks the new connection.
    ///
    /// # Errors
    ///
    /// When a replica evicts.
    pub(super) async fn check_replicas(&self) -> Result<(), Failure> {
        let replicas = self.map.borrow().located.replicas.clone();
        let like = self.locator.like();
        let checks = replicas.iter().map(|place| async move {
            let access = like.for_server(&place.host, place.port);
            let address = access.address().to_string();
            let check = async {
                let mut connection = access::connect(&access.client()?).await?;
                check::check_replica(&mut connection, &address).await
            };
            match tokio::time::timeout(self.connect_timeout, check).await {
                Ok(Err(unfit @ Failure::Unfit(_))) => Err(unfit),
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!(target: crate::trace::TARGET, "a redis replica could not be checked");
                    Ok(())
                }
            }
        });
        futures_util::future::try_join_all(checks).await.map(drop)
    }

    async fn report_replicas(&self) {
        if let Err(failure) = self.check_replicas().await {
            let error = &crate::store::StoreError::from(failure);
            tracing::error!(
                target: crate::trace::TARGET,
                error = error as &dyn std::error::Error,
                "a redis replica is not usable as it is set up; when it is promoted, its keys get 503"
            );
        }
    }
}

/// Completes when another server is the primary of the key.
async fn replaced(map: &mut watch::Receiver<Arc<Map>>, server: &Arc<Server>, key: &str) {
    loop {
        if map.changed().await.is_err() {
            // The sender lives as long as the store.
            std::future::pending::<()>().await;
        }
        if !map.borrow_and_update().is_in_charge(server, key) {
            return;
        }
    }
}

/// The target of a redirection, and whether it applies only to this command.
fn redirection(error: &RedisError) -> Option<(&str, u16, bool)> {
    let is_asking = match error.kind() {
        ErrorKind::Server(ServerErrorKind::Ask) => true,
        ErrorKind::Server(ServerErrorKind::Moved) => false,
        _ => return None,
    };
    let (address, _slot) = error.redirect_node()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?, is_asking))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of ranges of slots, each with the letter of its primary.
    fn map(ranges: &[(u16, u16, char)]) -> Map {
        let server = |letter: char| {
            let url = format!("redis://{letter}.example/");
            let access = Access::new(
                &url,
                #[cfg(feature = "redis-tls")]
                None,
            );
            let access = access.expect("an address");
            Arc::new(Server::new(access, Duration::ZERO, 1).expect("an address"))
        };
        let servers: Vec<_> = ('a'..='c').map(|it| (it, server(it))).collect();
        let of = |letter| servers.iter().find(|(it, _)| *it == letter);
        let shards = ranges.iter().map(|(first, last, letter)| {
            let (_, server) = of(*letter).expect("a server");
            (*first, *last, server.clone())
        });
        Map {
            located: Located::default(),
            shards: shards.collect(),
        }
    }

    /// A page has ended in `b`. Then slots of `a` moved to `c`, whose first range is now behind the listing.
    #[test]
    fn moving_a_slot_changes_the_division() {
        let before = map(&[(0, 5460, 'a'), (5461, 10_922, 'b'), (10_923, 16_383, 'c')]);
        let moved = map(&[
            (0, 100, 'c'),
            (101, 5460, 'a'),
            (5461, 10_922, 'b'),
            (10_923, 16_383, 'c'),
        ]);
        assert_eq!(before.at_slot(5462).map(|(slot, _)| slot), Some(10_923));
        assert!(moved.at_slot(5462).is_none(), "nothing is left to list");
        assert_ne!(before.division(), moved.division());
        // The same ranges, and one of them has moved.
        let other = map(&[(0, 5460, 'a'), (5461, 10_922, 'b'), (10_923, 16_383, 'b')]);
        assert_ne!(before.division(), other.division());
    }

    #[test]
    fn a_promoted_replica_does_not_change_the_division() {
        let before = map(&[(0, 100, 'c'), (101, 5460, 'a'), (5461, 16_383, 'c')]);
        let promoted = map(&[(0, 100, 'c'), (101, 5460, 'b'), (5461, 16_383, 'c')]);
        assert_eq!(before.division(), promoted.division());
    }
}
