//! A request that waits for its handler.

use axum::extract::Request;

use crate::request::scope::{Scope, ScopeMissing};

/// A request, and what is known of it before its handler runs.
pub(crate) struct Intake {
    pub(crate) request: Request,
    pub(crate) scope: Result<Scope, ScopeMissing>,
}

impl Intake {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            scope: Ok(Scope::new()),
        }
    }
}
