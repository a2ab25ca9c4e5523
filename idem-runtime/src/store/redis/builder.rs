//! Which Redis, and how long it is waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, IntoConnectionInfo, RedisConnectionInfo};
use tokio::time::Instant;

use super::link::{Failure, Finder, Lane, Link, Replicas};
use super::{Inner, RedisStore};
use crate::store::StoreError;

/// A connection stands still while it waits for replicas; this many do not all.
const LANES_WITH_REPLICAS: usize = 8;

/// Settings of a [`RedisStore`].
#[derive(Clone)]
#[must_use]
// The module has this cfg as well. Here it also reaches the documentation of the facade.
#[cfg(feature = "redis")]
pub struct RedisStoreBuilder {
    servers: Servers,
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
enum Servers {
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
            servers: Servers::One("redis://127.0.0.1/".to_owned()),
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
        self.servers = Servers::One(url.into());
        self
    }

    /// The primary that these Sentinels name for `service`, asked anew at every connection. What
    /// stands in their addresses is for the Sentinels; [`username`](Self::username),
    /// [`password`](Self::password) and [`database`](Self::database) are for the primary.
    pub fn sentinel<I>(mut self, service: impl Into<String>, sentinels: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers = Servers::Sentinel {
            service: service.into(),
            sentinels: sentinels.into_iter().map(Into::into).collect(),
        };
        self
    }

    /// A cluster, found by way of any of these nodes.
    pub fn cluster<I>(mut self, nodes: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.servers = Servers::Cluster(nodes.into_iter().map(Into::into).collect());
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

    /// How long one transition may take, a new connection included; 1 second by default. The time
    /// that replicas are waited for comes on top.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Counts a claim or a record as written only when this many replicas have it, and gives them
    /// `timeout` to say so; whole milliseconds.
    ///
    /// Sent as `WAIT` on the connection that wrote. Without the acknowledgement the transition is
    /// an error, so that a request gets 503 before its handler has run; the write itself stands on
    /// the primary. It narrows what a failover can lose, and does not close it: Sentinel may
    /// promote a replica that has not acknowledged. Not for a cluster; there, set
    /// `min-replicas-to-write` on the nodes.
    pub fn min_replicas(mut self, count: usize, timeout: Duration) -> Self {
        self.replicas = Some(Replicas { count, timeout });
        self
    }

    /// Trusts the authority with this certificate, in PEM, in place of the system's. For one server
    /// and for a cluster; Sentinels and what they name are held against the system's.
    #[cfg(feature = "redis-tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Connects, and looks whether the server is fit to keep claims.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unfit`] when the settings do not go together or the server's
    /// `maxmemory-policy` is another than `noeviction`; [`StoreError::Unavailable`] or
    /// [`StoreError::TimedOut`] when it cannot be reached. A server that does not tell its policy
    /// is warned about in the log.
    pub async fn connect(self) -> Result<RedisStore, StoreError> {
        #[cfg(feature = "redis-tls")]
        super::tls::ensure_cryptography();
        let timeout = self.timeout + self.replicas.map_or(Duration::ZERO, |it| it.timeout);
        let deadline = Instant::now() + timeout;
        let link = self.link().await?;
        link.check(deadline).await?;
        Ok(RedisStore(Arc::new(Inner {
            link,
            prefix: self.prefix,
            timeout,
            replicas: self.replicas,
        })))
    }

    async fn link(&self) -> Result<Link, Failure> {
        let finder = match &self.servers {
            Servers::One(url) => {
                let info = url.as_str().into_connection_info()?;
                let settings = self.sign_in(info.redis_settings().clone());
                let info = info.set_redis_settings(settings);
                #[cfg(feature = "redis-tls")]
                if let Some(certificates) = self.certificates() {
                    let client = Client::build_with_tls(info, certificates)?;
                    return Ok(self.primary(Finder::Address(Box::new(client))));
                }
                Finder::Address(Box::new(Client::open(info)?))
            }
            Servers::Sentinel { service, sentinels } => {
                let settings = self.sign_in(RedisConnectionInfo::default());
                let primary =
                    SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
                let client = SentinelClient::build(
                    sentinels.clone(),
                    service.clone(),
                    Some(primary),
                    SentinelServerType::Master,
                )?;
                Finder::Sentinel(Box::new(tokio::sync::Mutex::new(client)))
            }
            Servers::Cluster(nodes) => return self.cluster_link(nodes).await,
        };
        Ok(self.primary(finder))
    }

    fn primary(&self, finder: Finder) -> Link {
        let lanes = self.replicas.map_or(1, |_| LANES_WITH_REPLICAS);
        Link::Primary {
            finder,
            lanes: std::iter::repeat_with(Lane::default).take(lanes).collect(),
            next: AtomicUsize::new(0),
        }
    }

    async fn cluster_link(&self, nodes: &[String]) -> Result<Link, Failure> {
        if self.replicas.is_some() {
            return Err(Failure::Store(StoreError::Unfit(
                "`min_replicas` is not for a cluster; set `min-replicas-to-write` on its nodes"
                    .into(),
            )));
        }
        let mut builder = ClusterClient::builder(nodes.to_vec())
            .connection_timeout(self.timeout)
            .response_timeout(self.timeout);
        if let Some(username) = &self.username {
            builder = builder.username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.password(password);
        }
        #[cfg(feature = "redis-tls")]
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        let connected = builder.build()?;
        let connection = connected.get_async_connection().await?;
        Ok(Link::Cluster(connection))
    }

    #[cfg(feature = "redis-tls")]
    fn certificates(&self) -> Option<redis::TlsCertificates> {
        let root_cert = Some(self.root_certificate.clone()?);
        Some(redis::TlsCertificates {
            client_tls: None,
            root_cert,
        })
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
