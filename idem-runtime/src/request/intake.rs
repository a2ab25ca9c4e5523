//! The request before its handler runs.

use axum::extract::Request;

use crate::request::own_key::OwnKey;
use crate::request::scope::{Scope, ScopeMissing};

/// A request, and the facts about it that are known before its handler runs.
pub(crate) struct Intake {
    pub(crate) request: Request,
    pub(crate) scope: Result<Scope, ScopeMissing>,
    /// The key that the endpoint chooses.
    pub(crate) own_key: Option<OwnKey>,
}

impl Intake {
    pub(crate) fn new(request: Request) -> Self {
        Self {
            request,
            scope: Ok(Scope::new()),
            own_key: None,
        }
    }
}
