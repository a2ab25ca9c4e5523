//! Settings of the store: which servers, and the time limit of a transition.

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

/// Connections to each server when writes wait for replicas, because `WAIT` blocks a connection.
const LANES_WITH_REPLICAS: usize = 8;

/// The minimum time limit for opening a connection. A transition waits no longer than its own
/// timeout, and a later transition uses the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a [`RedisStore`].
#[derive(Clone)]
#[must_use]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
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

    /// Connects to one server: `redis://user:password@host:port/database`, `rediss://` for TLS (feature
    /// `redis-tls`), or `redis+unix:///path` for a Unix socket. `redis://127.0.0.1/` by default.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.topology = Topology::One(url.into());
        self
    }

    /// Connects to the primary that these Sentinels name for `service`. The store asks all Sentinels at the
    /// same time, and asks again when the primary fails. It uses the reply that knows the newest
    /// failover.
    ///
    /// The user and the password in these addresses are for the Sentinels.
    /// [`username`](Self::username), [`password`](Self::password) and [`database`](Self::database)
    /// are for the primary. With `rediss://`, the connection to the primary uses TLS as well.
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

    /// Connects to a cluster. The store finds all nodes through any of these nodes.
    pub fn cluster<I>(mut self, nodes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.topology = Topology::Cluster(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the user name, in place of the user name in the address.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Sets the password, in place of the password in the address.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets the number of the database, in place of the number in the address. A cluster has only database 0.
    pub fn database(mut self, number: i64) -> Self {
        self.database = Some(number);
        self
    }

    /// Sets the prefix of the keys; `idem:` by default. The record id follows the prefix.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Limits the time of one transition, including the wait for a connection; 1 second by default, 100 years at most. The
    /// timeout of [`min_replicas`](Self::min_replicas) is added.
    ///
    /// When a server does not respond within the limit, the store stops using that connection. With
    /// Sentinels or on a cluster it looks for a new primary; otherwise it opens a new connection.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Counts a claim or a record as written only when this many replicas have it. Waits up to
    /// `timeout`, in whole milliseconds, for their acknowledgement.
    ///
    /// The store sends `WAIT` after each write on the same connection. Without the acknowledgement
    /// the transition is an error, so a request gets 503 before its handler runs. The primary keeps
    /// the write. This setting reduces what a failover can lose, but does not exclude a loss: a
    /// replica that has not acknowledged may be promoted. When `count` is the number of all replicas, the setting also
    /// [keeps two primaries](RedisStore#two-primaries) from granting the same key.
    pub fn min_replicas(mut self, count: usize, timeout: Duration) -> Self {
        self.replicas = Some(Replicas { count, timeout });
        self
    }

    /// Trusts the certificate authority with this certificate, in PEM, instead of the system's
    /// authorities. Applies to every server with a `rediss://` address, including Sentinels and the
    /// primary that they name.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Finds the servers, connects, and checks the servers: see
    /// [`RedisStore`](RedisStore#checks).
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] when the server is a replica, when its `maxmemory-policy` is not
    /// `noeviction`, or when it refuses a command that the store needs. [`StoreError::Unavailable`]
    /// or [`StoreError::TimedOut`] when the server cannot be reached.
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
            fill: Arc::default(),
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
    /// When there is no address, or an address cannot be parsed.
    fn accesses(&self, urls: &[String], of: &str) -> Result<Vec<Access>, Failure> {
        if urls.is_empty() {
            let why = format!("no address was given; pass the address of at least {of}");
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

/// Omits addresses, because they contain passwords.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}
