//! How to reach one server: its address, the sign-in, and the trusted certificate authority.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisResult,
};

#[derive(Clone)]
pub(super) struct Access {
    info: ConnectionInfo,
    #[cfg(feature = "redis-tls")]
    root_certificate: Option<Vec<u8>>,
}

impl Access {
    pub(super) fn new(
        url: &str,
        #[cfg(feature = "redis-tls")] root_certificate: Option<Vec<u8>>,
    ) -> RedisResult<Self> {
        Ok(Self {
            info: url.into_connection_info()?,
            #[cfg(feature = "redis-tls")]
            root_certificate,
        })
    }

    pub(super) fn sign_in(&self) -> &RedisConnectionInfo {
        self.info.redis_settings()
    }

    pub(super) fn with_sign_in(mut self, sign_in: RedisConnectionInfo) -> Self {
        self.info = self.info.set_redis_settings(sign_in);
        self
    }

    pub(super) fn address(&self) -> &ConnectionAddr {
        self.info.addr()
    }

    /// The host of the address. Empty for a Unix socket.
    pub(super) fn host(&self) -> &str {
        match self.address() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => "",
        }
    }

    /// Another server of the same deployment, with TLS when this server uses TLS. An empty host
    /// means the host of this server.
    pub(super) fn for_server(&self, host: &str, port: u16) -> Self {
        let host = if host.is_empty() { self.host() } else { host }.to_owned();
        let address = match self.address() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        let mut other = self.clone();
        other.info = other.info.set_addr(address);
        other
    }

    pub(super) fn client(&self) -> RedisResult<Client> {
        #[cfg(feature = "redis-tls")]
        if matches!(self.address(), ConnectionAddr::TcpTls { .. })
            && let Some(pem) = &self.root_certificate
        {
            let certificates = redis::TlsCertificates {
                client_tls: None,
                root_cert: Some(pem.clone()),
            };
            return Client::build_with_tls(self.info.clone(), certificates);
        }
        Client::open(self.info.clone())
    }
}

/// Connects without a time limit of the client, because the callers have their own limits.
pub(super) async fn connect(client: &Client) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}
