//! What the client knows about an operation when it has the response.

use http::Extensions;

/// The facts about one operation, in the extensions of its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) key: Option<String>,
    pub(crate) tries: u32,
    pub(crate) is_replay: bool,
}

/// What a response of this client tells about its operation.
///
/// Responses of other clients have no key, no tries, and are no replays.
pub trait ResponseExt: sealed::HasExtensions {
    /// Returns whether the response is the recorded response of an earlier request with the same key.
    fn replayed(&self) -> bool {
        of(self).is_some_and(|exchange| exchange.is_replay)
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
