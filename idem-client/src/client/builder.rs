//! Builds the client.

use std::sync::Arc;

use reqwest::redirect;
use reqwest_middleware::ClientWithMiddleware;

use crate::client::middleware::Retries;
use crate::key::{KeyStore, Keys};
use crate::policy::Policy;

/// Returns a client with the default [`Policy`].
///
/// # Errors
///
/// If `reqwest` cannot be set up, for example because the system has no certificates.
pub fn client() -> reqwest::Result<ClientWithMiddleware> {
    ClientBuilder::default().build()
}

/// Builds a client whose writes are safe to retry, when the server supports keys.
///
/// The client is a [`ClientWithMiddleware`], with the same methods as a `reqwest::Client`. A response to a write is
/// complete when `send` returns it. A response that broke off counts as lost and is retried.
///
/// `send` is not cancel-safe: when its future is dropped, nobody knows whether the operation happened. Repeat it with the
/// same key, which an [`Operation`](crate::Operation) and a [`KeyStore`] keep.
///
/// To add middlewares that see each try, such as tracing, pass the client to
/// `reqwest_middleware::ClientBuilder::from_client`. A middleware that refreshes an expired token and sends the request again
/// belongs there too, because it then sends the same key. Above this client it would start a new operation: see
/// [`ResponseExt::is_outcome_unknown`](crate::ResponseExt::is_outcome_unknown).
#[derive(Debug, Default)]
pub struct ClientBuilder {
    http: reqwest::ClientBuilder,
    policy: Policy,
    keys: Keys,
}

impl ClientBuilder {
    /// Starts with the settings of a `reqwest` client: TLS, proxies, headers and so on. Its timeout applies to each
    /// try.
    ///
    /// Its redirect policy is replaced, because `reqwest` sends the key to other origins. The client follows at most 10
    /// redirects, and only at the origin (scheme, host and port) of the request. A redirect to another origin is not
    /// followed, and nothing is sent there: neither the key nor a default header. A write with a key then fails with
    /// [`Reason::Redirect`](crate::Reason::Redirect), and any other request gets the redirect as its response.
    #[must_use]
    pub fn new(http: reqwest::ClientBuilder) -> Self {
        Self {
            http,
            ..Self::default()
        }
    }

    /// Sets when the client retries, and how long it waits.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the store that keeps the keys of named operations across a crash.
    #[must_use]
    pub fn key_store(mut self, store: impl KeyStore) -> Self {
        self.keys = Keys(Some(Arc::new(store)));
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// If `reqwest` cannot be set up, for example because the system has no certificates.
    pub fn build(self) -> reqwest::Result<ClientWithMiddleware> {
        let http = self.http.redirect(redirect::Policy::none()).build()?;
        let retries = Retries::new(self.policy, self.keys);
        Ok(reqwest_middleware::ClientBuilder::new(http)
            .with(retries)
            .build())
    }
}
