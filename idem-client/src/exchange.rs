//! The facts about an operation, which the client adds to its response.

use http::{Extensions, HeaderMap, Method, StatusCode};

use crate::headers;
use crate::key::Assigned;
use crate::policy::Policy;

/// The facts about one operation, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) key: Option<String>,
    pub(crate) tries: u32,
    pub(crate) is_replay: bool,
    pub(crate) is_receipt: bool,
    pub(crate) is_outcome_unknown: bool,
}

/// What the tries of one operation have told about its outcome.
#[derive(Debug)]
pub(crate) struct Outcome {
    is_write: bool,
    is_open: bool,
}

impl Outcome {
    /// Before the first try. A key from an earlier call may belong to an operation that has happened.
    pub(crate) fn before(method: &Method, assigned: &Assigned) -> Self {
        Self {
            is_write: !method.is_safe(),
            is_open: assigned.was_kept,
        }
    }

    /// Notes a try that may have run the operation and does not report the outcome.
    pub(crate) fn note(&mut self, leaves_open: bool) {
        self.is_open |= leaves_open;
    }
}

impl Exchange {
    pub(crate) fn new(
        policy: &Policy,
        key: Option<String>,
        tries: u32,
        outcome: &Outcome,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Self {
        let is_open = outcome.is_write && outcome.is_open;
        Self {
            is_outcome_unknown: is_open && !policy.reports_outcome(status, headers),
            key,
            tries,
            is_replay: policy.is_replay(headers),
            is_receipt: headers::is_true(headers, &headers::IDEMPOTENCY_RECEIPT),
        }
    }
}

/// The facts about the operation of a response: its key, its tries, whether the response is a replay or a receipt, and
/// whether the operation may have happened although the response does not say so.
///
/// Responses of other clients have no key and no tries, and all other facts are `false`.
pub trait ResponseExt: sealed::HasExtensions {
    /// Returns whether the response is the recorded response of an earlier request with the same key.
    fn replayed(&self) -> bool {
        of(self).is_some_and(|exchange| exchange.is_replay)
    }

    /// Returns whether the response is a replay without its body, because the service does not record the body. The
    /// status and the other headers are those of the first response.
    fn is_receipt(&self) -> bool {
        of(self).is_some_and(|exchange| exchange.is_receipt)
    }

    /// Returns whether the operation may have happened, although this response does not report its outcome.
    ///
    /// An example: the operation happens and its response is lost, then the token of the caller expires, and the retry gets
    /// 401. A request for a *new* operation, with a new key, would have the effect a second time. So repeat this operation
    /// with the same key, for example after a new login:
    ///
    /// ```no_run
    /// # async fn log_in() -> String { String::new() }
    /// # async fn run(client: reqwest_middleware::ClientWithMiddleware, token: &str) -> reqwest_middleware::Result<()> {
    /// use idem_client::{ResponseExt as _, headers::IDEMPOTENCY_KEY};
    ///
    /// let pay = |token: &str| client.post("https://bank.example/payments").bearer_auth(token).body("12.50");
    /// let mut response = pay(token).send().await?;
    /// if response.status() == 401
    ///     && response.is_outcome_unknown()
    ///     && let Some(key) = response.idempotency_key().map(str::to_owned)
    /// {
    ///     let request = pay(&log_in().await).header(IDEMPOTENCY_KEY, key);
    ///     response = request.send().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// | response | returns |
    /// |---|---|
    /// | a success or a replay | `false` |
    /// | 408, 5xx, or 409 with the code `idempotency_key_in_flight`, `idempotency_overtaken`, `idempotency_outcome_unknown` or `idempotency_response_not_kept` | `true` |
    /// | any other response, after an earlier try of this call whose response was lost or is in the row above | `true` |
    /// | any other response, when the [`KeyStore`](crate::KeyStore) had the key from an earlier call | `true` |
    /// | any other response | `false` |
    ///
    /// A 408 or 5xx counts as a try without effect when its code says so, as `idempotency_store_unavailable` does. So does a
    /// connection that `reqwest` could not open.
    ///
    /// The client does not know the earlier calls of a key that the caller sets. When such a call left the outcome unknown, it
    /// remains unknown until a response with this key is a success or a replay.
    fn is_outcome_unknown(&self) -> bool {
        of(self).is_some_and(|exchange| exchange.is_outcome_unknown)
    }

    /// Returns the key of the operation, as the client sent it. `None` for a read.
    fn idempotency_key(&self) -> Option<&str> {
        of(self)?.key.as_deref()
    }

    /// Returns how often the request was sent.
    fn tries(&self) -> u32 {
        of(self).map_or(0, |exchange| exchange.tries)
    }
}

fn of<R: sealed::HasExtensions + ?Sized>(response: &R) -> Option<&Exchange> {
    response.of_response().get()
}

impl<B> ResponseExt for http::Response<B> {}
#[cfg(feature = "reqwest-middleware")]
impl ResponseExt for reqwest::Response {}

mod sealed {
    use super::Extensions;

    pub trait HasExtensions {
        fn of_response(&self) -> &Extensions;
    }

    impl<B> HasExtensions for http::Response<B> {
        fn of_response(&self) -> &Extensions {
            self.extensions()
        }
    }

    #[cfg(feature = "reqwest-middleware")]
    impl HasExtensions for reqwest::Response {
        fn of_response(&self) -> &Extensions {
            self.extensions()
        }
    }
}
