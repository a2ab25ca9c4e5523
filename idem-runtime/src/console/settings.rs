//! The settings of a console.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use super::access::Access;
use crate::service::idempotency::Idempotency;

/// A console with settings that differ from the defaults.
#[derive(Clone)]
#[must_use]
// The module has the same cfg. The attribute is repeated so that the facade's documentation shows
// it.
#[cfg(feature = "console")]
pub struct Console {
    pub(super) idem: Idempotency,
    pub(super) access: Arc<dyn Fn(&Parts) -> Access + Send + Sync>,
    pub(super) redact: Option<Arc<Redact>>,
    /// Empty: every host.
    pub(super) hosts: Vec<String>,
}

type Redact = dyn Fn(&str, Bytes) -> Bytes + Send + Sync;

impl Console {
    /// A console for the store of `idem`. `access` decides about each request, as in [`router`](super::router).
    pub fn new<F>(idem: Idempotency, access: F) -> Self
    where
        F: Fn(&Parts) -> Access + Send + Sync + 'static,
    {
        Self {
            idem,
            access: Arc::new(access),
            redact: None,
            hosts: Vec::new(),
        }
    }

    /// Serves the console only under these host names, such as `ops.internal` or `127.0.0.1`. Write them without a port, in
    /// upper or lower case. A request to another host gets 421. By default, the console is served under every host.
    ///
    /// Set the hosts if `access` does not read a credential that the browser sends to this host only, for example if
    /// everybody on a loopback address or in a private network may use the console. Otherwise a site can point its own name at the
    /// address of the console (DNS rebinding). To the browser, that site and the console are then one origin, so the site
    /// can read records and change them.
    ///
    /// Behind a proxy, the proxy must forward the host. Otherwise, pass the host that the proxy sends.
    pub fn hosts<I>(mut self, hosts: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.hosts = hosts.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the console is served under the host of the request.
    pub(super) fn serves(&self, parts: &Parts) -> bool {
        // HTTP/2 has the host in the URI.
        let uri = parts.uri.authority().cloned();
        let header = || parts.headers.get(HOST)?.to_str().ok()?.parse().ok();
        let host: Option<Authority> = uri.or_else(header);
        let is_host = |own: &String| {
            host.as_ref()
                .is_some_and(|host| own.eq_ignore_ascii_case(host.host()))
        };
        self.hosts.is_empty() || self.hosts.iter().any(is_host)
    }

    /// Changes the body of a response before an operator sees it, for example to remove personal data. The function
    /// gets the endpoint and the body. The stored record does not change. Headers are shown as they are, except for the
    /// values of `Set-Cookie`, which are always hidden.
    pub fn redact<F>(mut self, redact: F) -> Self
    where
        F: Fn(&str, Bytes) -> Bytes + Send + Sync + 'static,
    {
        self.redact = Some(Arc::new(redact));
        self
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("idem", &self.idem)
            .finish_non_exhaustive()
    }
}
