//! The facts about an operation, which the client adds to its response.

use http::{Extensions, HeaderMap};

use crate::headers;
use crate::policy::Policy;

/// The facts about one operation, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) key: Option<String>,
    pub(crate) tries: u32,
    pub(crate) is_replay: bool,
    pub(crate) is_receipt: bool,
}

impl Exchange {
    pub(crate) fn new(
        policy: &Policy,
        key: Option<String>,
        tries: u32,
        headers: &HeaderMap,
    ) -> Self {
        Self {
            key,
            tries,
            is_replay: policy.is_replay(headers),
            is_receipt: headers::is_true(headers, &headers::IDEMPOTENCY_RECEIPT),
        }
    }
}

/// The facts about the operation of a response: its key, its tries, and whether the response is a replay or a receipt.
///
/// Responses of other clients have no key, no tries, and are neither replays nor receipts.
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
