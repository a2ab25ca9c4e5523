//! The request before its handler runs.

use axum::extract::Request;

use crate::request::scope::{Scope, ScopeMissing};

/// A request, and the facts about it that are known before its handler runs.
pub(crate) struct Intake {
    pub(crate) request: Request,
    pub(crate) scope: Result<Scope, ScopeMissing>,
    /// The key that the endpoint chooses.
    pub(crate) own_key: Option<OwnKey>,
}

/// Where an endpoint with `key = …` has its key.
pub(crate) enum OwnKey {
    /// In this header.
    Header(&'static str),
    /// Here, unless the request has none.
    Value(Option<Box<str>>),
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
