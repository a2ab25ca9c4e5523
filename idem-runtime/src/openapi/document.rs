//! The documents that a service can complete.

use crate::service::idempotency::Idempotency;

/// An OpenAPI document that [`Idempotency::document`] completes: `utoipa::openapi::OpenApi` with the feature `utoipa`,
/// and `aide::openapi::OpenApi` with the feature `aide`.
#[cfg(any(feature = "aide", feature = "utoipa"))]
pub trait ApiDocument: sealed::Complete {}

pub(super) mod sealed {
    use super::Idempotency;

    pub trait Complete {
        /// Documents the marked operations.
        fn complete(&mut self, idem: &Idempotency);
    }
}

impl Idempotency {
    /// Completes the OpenAPI document of a service: it documents the key, the replays and the refusals of annotated operations,
    /// in the dialect of this service.
    ///
    /// The attribute marks an operation for `aide`, and for `utoipa` when it is *above* `#[utoipa::path]`. Each marked
    /// operation gets the key header, the replay header on each response that can be a replay, and each refusal with its
    /// status, codes, `Retry-After` and the schema `IdempotencyProblem`. A response that the service declares for the same
    /// status is kept, and so is a key header that the service declares. Other operations are not changed.
    ///
    /// With `key = header("…")`, the key header is the one that the attribute names. With `key = expression`, there is no key
    /// header. With `record_body = none`, a response that can be a replay also has the header `Idempotency-Receipt`.
    ///
    /// Call this method once, after all paths are in the document:
    ///
    #[cfg_attr(feature = "utoipa", doc = "```")]
    #[cfg_attr(not(feature = "utoipa"), doc = "```ignore")]
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::Idempotency;
    /// use utoipa::OpenApi;
    ///
    /// #[derive(OpenApi)]
    /// struct Api;
    ///
    /// let idem = Idempotency::in_memory();
    /// let mut api = Api::openapi();
    /// idem.document(&mut api);
    /// ```
    ///
    /// With `utoipa-axum`, pass the document that `OpenApiRouter::split_for_parts` returns. With `aide`, pass the document
    /// that `ApiRouter::finish_api` has filled.
    ///
    /// A service with its own `render_problem` gets the statuses and codes without a schema, because the library does not
    /// know its bodies.
    #[cfg(any(feature = "aide", feature = "utoipa"))]
    pub fn document(&self, api: &mut impl ApiDocument) {
        api.complete(self);
    }
}
