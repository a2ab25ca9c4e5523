//! The request before its handler runs.

use std::mem;

use axum::RequestExt;
use axum::body::HttpBody;
use axum::extract::Request;

use crate::request::scope::{Scope, ScopeMissing};

/// A request, and the facts about it that are known before its handler runs.
pub(crate) struct Intake {
    pub(crate) request: Request,
    /// The minimum length that the body announces, in bytes.
    pub(crate) announced: u64,
    pub(crate) scope: Result<Scope, ScopeMissing>,
}

impl Intake {
    /// A `LAZY` request gets its body limit later, when it is known to have a key.
    pub(crate) fn new<const LAZY: bool>(request: Request) -> Self {
        Self {
            announced: request.body().size_hint().lower(),
            request: if LAZY {
                request
            } else {
                request.with_limited_body()
            },
            scope: Ok(Scope::new()),
        }
    }

    /// Applies the body limit of the service. The body of a request with a key is read completely,
    /// even for an extractor such as `Request`, which would skip the limit.
    pub(crate) fn limit_body(&mut self) {
        self.request = mem::take(&mut self.request).with_limited_body();
    }
}
