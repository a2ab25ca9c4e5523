//! The error of an operation that has no response.

use std::error::Error;
use std::fmt;

type BoxError = Box<dyn Error + Send + Sync>;

/// Why an operation has no response. Its text contains the key, so that a log leads to the operation.
///
/// When the reason is [`Reason::Transport`], [`Reason::TimedOut`], [`Reason::Redirect`] or [`Reason::Middleware`], nobody
/// knows whether the operation happened. Repeat the operation with the key that [`key`](Self::key) returns: the client
/// has sent the operation with no other key.
#[derive(Debug)]
pub struct Failure {
    reason: Reason,
    key: Option<String>,
    tries: u32,
    source: Option<BoxError>,
}

/// The kind of a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The body cannot be sent twice, because it is a stream. Nothing was sent.
    BodyNotRepeatable,
    /// The [`KeyStore`](crate::KeyStore) failed. Nothing was sent.
    KeyStore,
    /// The request names its [`Operation`](crate::Operation), but the client has no key store. Nothing was sent.
    NoKeyStore,
    /// The key cannot be the value of a header. Nothing was sent.
    InvalidKey,
    /// The last try failed on the network. The deadline does not permit another try, or the request cannot be
    /// repeated.
    Transport,
    /// The last try took too long, and the deadline does not permit another try.
    TimedOut,
    /// The redirects are not followed: there are more than 10, a target is not a web address, or a request with a key is
    /// redirected to another origin (scheme, host or port). Nothing was sent to the other origin. The first origin got the
    /// request and the key, and may have run the operation before it redirected.
    Redirect,
    /// Another middleware of the client failed.
    Middleware,
}

impl Failure {
    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            key: None,
            tries: 0,
            source: None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[cfg(any(feature = "reqwest-middleware", feature = "tower"))]
    pub(crate) fn of_operation(mut self, key: Option<&str>, tries: u32) -> Self {
        self.key = key.map(str::to_owned);
        self.tries = tries;
        self
    }

    /// Returns the failure in an error of a [`ClientBuilder`](crate::ClientBuilder).
    #[cfg(feature = "reqwest-middleware")]
    #[must_use]
    pub fn of(error: &reqwest_middleware::Error) -> Option<&Self> {
        match error {
            reqwest_middleware::Error::Middleware(error) => error.downcast_ref(),
            reqwest_middleware::Error::Reqwest(_) => None,
        }
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Returns the key of the operation, as the client sent it. `None` for a read, and when nothing was sent.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns how often the request was sent.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::BodyNotRepeatable => {
                "the body cannot be sent twice, so the request is not safe to retry; send bytes instead of a stream"
            }
            Reason::KeyStore => "the key store failed, so the request was not sent",
            Reason::NoKeyStore => {
                "the request names its operation, but the client has no key store; call `ClientBuilder::key_store`"
            }
            Reason::InvalidKey => "the idempotency key cannot be the value of a header",
            Reason::Transport => "no response was received",
            Reason::TimedOut => "no response was received in time",
            Reason::Redirect => {
                "the redirects cannot be followed: too many, to another origin, or to no web address"
            }
            Reason::Middleware => "a middleware of the client failed",
        })?;
        if self.tries > 0 {
            write!(f, ", after {} tries", self.tries)?;
        }
        if let Some(key) = &self.key {
            write!(f, " (idempotency key {key})")?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
