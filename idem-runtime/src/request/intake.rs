//! The request before its handler runs.

use axum::extract::Request;
use http::header::{self, AsHeaderName, HeaderMap};

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

    /// Adds the `Authorization` header to the scope, unless an earlier part is missing.
    pub(crate) fn add_token_to_scope(&mut self) {
        if let Ok(scope) = &mut self.scope {
            match only_value(self.request.headers(), header::AUTHORIZATION) {
                Some(token) => scope.add_token(token),
                None => self.scope = Err(ScopeMissing::Token),
            }
        }
    }

    /// Adds the value of a header to the scope, unless an earlier part is missing.
    pub(crate) fn add_header_to_scope(&mut self, name: &'static str) {
        if let Ok(scope) = &mut self.scope {
            match only_value(self.request.headers(), name) {
                Some(value) => scope.add_header(name, value),
                None => self.scope = Err(ScopeMissing::Header),
            }
        }
    }
}

/// Returns the value of a header that is present once and not empty.
fn only_value(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}
