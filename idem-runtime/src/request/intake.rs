//! A request that waits for its handler.

use std::mem;

use axum::RequestExt;
use axum::body::HttpBody;
use axum::extract::Request;

use crate::request::scope::{Scope, ScopeMissing};

/// A request, and what is known of it before its handler runs.
pub(crate) struct Intake {
    pub(crate) request: Request,
    /// How many bytes the body announces, at least.
    pub(crate) announced: u64,
    pub(crate) scope: Result<Scope, ScopeMissing>,
}

impl Intake {
    /// `LAZY` requests are limited later, when it is known that they have a key.
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

    /// Holds the body against the limit that the service sets for it. One that has a key is read to
    /// its end, also for an extractor such as `Request`, which would skip that limit.
    pub(crate) fn limit_body(&mut self) {
        self.request = mem::take(&mut self.request).with_limited_body();
    }
}
