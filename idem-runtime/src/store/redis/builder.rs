//! Which Redis, and how long it is waited for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisConnectionInfo, RedisResult};

use super::access::Access;
use super::ask_all::Newest;
use super::cluster::Nodes;
use super::failure::Failure;
use super::locator::Locator;
use super::probe;
use super::sentinel::Sentinels;
use super::server::Replicas;
use super::servers::Servers;
use super::{Inner, RedisStore};
use crate::store::StoreError;
use crate::store::millis::bounded;

/// Connections to each server when writes wait for replicas, because each is blocked while it waits.
const LANES_WITH_REPLICAS: usize = 8;

/// The least time for a connection to one server. A transition waits no longer than its own timeout,
/// and the next one finds the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a [`RedisStore`].
#[derive(Clone)]
#[must_use]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "redis")]
pub struct RedisStoreBuilder {
    topology: Topology,
    username: Option<String>,
    password: Option<String>,
    database: Option<i64>,
    prefix: String,
    timeout: Duration,
    replicas: Option<Replicas>,
    #[cfg(feature = "redis-tls")]
    root_certificate: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Topology {
    One(String),
    Sentinel {
        service: String,
        sentinels: Vec<String>,
    },
    Cluster(Vec<String>),
}

impl RedisStoreBuilder {
    pub(super) fn new() -> Self {
        Self {
            topology: Topology::One("redis://127.0.0.1/".to_owned()),
            username: None,
            password: None,
            database: None,
            prefix: "idem:".to_owned(),
            timeout: Duration::from_secs(1),
            replicas: None,
            #[cfg(feature = "redis-tls")]
            root_certificate: None,
        }
    }

    /// One server: `redis://user:password@host:port/database`, `rediss://` for TLS (feature
    /// `redis-tls`), `redis+unix:///path` for a socket. `redis://127.0.0.1/` by default.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.topology = Topology::One(url.into());
        self
    }

    /// The primary that these Sentinels name for `service`. All of them are asked at once, and again when
    /// the primary fails; the one with the newest failover is believed.
    ///
    /// The user and the password in their addresses are for the Sentinels;
    /// [`username`](Self::username), [`password`](Self::password) and [`database`](Self::database) are
    /// for the primary. With `rediss://` the primary is reached by TLS as well.
    pub fn sentinel<I>(mut self, service: impl Into<String>, sentinels: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.topology = Topology::Sentinel {
            service: service.into(),
            sentinels: sentinels.into_iter().map(Into::into).collect(),
        };
        self
    }

    /// A cluster, found through any of these nodes.
    pub fn cluster<I>(mut self, nodes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.topology = Topology::Cluster(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// The user to sign in as, in place of the address's.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// The password to sign in with, in place of the address's.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The number of the database, in place of the address's. A cluster has only 0.
    pub fn database(mut self, number: i64) -> Self {
        self.database = Some(number);
        self
    }

    /// What the names of the keys begin with; `idem:` by default. The rest is the record id.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long one transition may take, including the wait for a connection; 1 second by default. The
    /// time for replicas comes on top. 100 years at most.
    ///
    /// A server that does not respond within it is left: with Sentinels or on a cluster for its
    /// successor, else for a new connection.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Counts a claim or a record as written only when this many replicas have it, and waits up to
    /// `timeout` for their acknowledgement; whole milliseconds.
    ///
    /// The store sends `WAIT` behind each write on the connection that wrote, on a cluster to the node
    /// of the key. Without the acknowledgement the transition is an error, so a request gets 503 before
    /// its handler runs; the primary keeps the write. It narrows what a failover can lose, and does
    /// not close it: a replica may be promoted that has not acknowledged. The number of all replicas
    /// also [keeps two primaries](RedisStore#two-primaries) from granting the same key.
    pub fn min_replicas(mut self, count: usize, timeout: Duration) -> Self {
        self.replicas = Some(Replicas { count, timeout });
        self
    }

    /// Trusts the authority with this certificate, in PEM, in place of the system's. For every server
    /// with a `rediss://` address, Sentinels and the primary that they name included.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Finds the servers, connects, and checks that they are fit to keep claims: see
    /// [`RedisStore`](RedisStore#what-is-checked-when).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] when the server is a replica, when its `maxmemory-policy` is another than
    /// `noeviction`, or when it refuses a command that the store needs; [`StoreError::Unavailable`] or
    /// [`StoreError::TimedOut`] when it cannot be reached.
    pub async fn connect(self) -> Result<RedisStore, StoreError> {
        #[cfg(feature = "redis-tls")]
        super::tls::ensure_cryptography();
        let locator = self.locator()?;
        let connect_timeout = bounded(self.timeout.max(CONNECT_TIMEOUT));
        let lanes = self.replicas.map_or(1, |_| LANES_WITH_REPLICAS);
        let servers = Servers::connect(locator, connect_timeout, lanes).await?;
        let is_cluster = matches!(self.topology, Topology::Cluster(_));
        let probes = servers.in_charge().into_iter().map(|(server, serves)| {
            let (prefix, waits) = (&self.prefix, self.replicas.is_some());
            async move {
                let mut connection = server.connection().await?;
                let probed = probe::probe(&mut connection, prefix, serves, waits, is_cluster);
                match tokio::time::timeout(connect_timeout, probed).await {
                    Ok(probed) => probed,
                    Err(_) => Err(Failure::TimedOut),
                }
            }
        });
        futures_util::future::try_join_all(probes).await?;
        servers.check_replicas().await?;
        let for_replicas = self.replicas.map_or(Duration::ZERO, |it| it.timeout);
        Ok(RedisStore(Arc::new(Inner {
            servers,
            prefix: self.prefix,
            timeout: bounded(self.timeout.saturating_add(for_replicas)),
            replicas: self.replicas,
        })))
    }

    fn locator(&self) -> Result<Locator, Failure> {
        match &self.topology {
            Topology::One(url) => {
                let access = self.access(url)?;
                let sign_in = self.sign_in(access.sign_in().clone());
                Ok(Locator::Fixed(access.with_sign_in(sign_in)))
            }
            Topology::Sentinel { service, sentinels } => {
                let asked = self.accesses(sentinels, "a Sentinel")?;
                let sign_in = self.sign_in(RedisConnectionInfo::default());
                Ok(Locator::Sentinel(Sentinels {
                    service: service.clone(),
                    primary: asked[0].clone().with_sign_in(sign_in),
                    asked,
                    newest: Newest::default(),
                }))
            }
            Topology::Cluster(nodes) => {
                let nodes = self.accesses(nodes, "a node of the cluster")?;
                let sign_in = self.sign_in(nodes[0].sign_in().clone());
                let with_sign_in = |node: Access| node.with_sign_in(sign_in.clone());
                let nodes: Vec<_> = nodes.into_iter().map(with_sign_in).collect();
                Ok(Locator::Cluster(Nodes::new(nodes)))
            }
        }
    }

    /// # Errors
    ///
    /// When there is no address, or one cannot be read.
    fn accesses(&self, urls: &[String], of: &str) -> Result<Vec<Access>, Failure> {
        if urls.is_empty() {
            let why = format!("there is no address; give that of {of} at least");
            return Err(Failure::Unfit(why.into()));
        }
        let accesses = urls.iter().map(|url| self.access(url));
        Ok(accesses.collect::<RedisResult<_>>()?)
    }

    fn access(&self, url: &str) -> RedisResult<Access> {
        Access::new(
            url,
            #[cfg(feature = "redis-tls")]
            self.root_certificate.clone(),
        )
    }

    fn sign_in(&self, mut settings: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        if let Some(database) = self.database {
            settings = settings.set_db(database);
        }
        settings
    }
}

/// Addresses and passwords stay out.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
