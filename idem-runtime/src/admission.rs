//! A request's way up to its claim: is there a key, and whose is it.

use std::{fmt, mem};

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use crate::admitting::{Admitting, Identified};
use crate::deferred::{Deferred, State};
use crate::idempotency::{AsIdempotency, Idempotency};
use crate::key;
use crate::lease::Lease;
use crate::policy::Policy;
use crate::problem::Problem;
use crate::scope::{Scope, ScopeMissing, ScopeValue};
use crate::trace::{self, Outcome};

impl Policy {
    /// Takes a request in that came through the [`Idempotency`] layer, or through none.
    pub fn admit<T, const LAZY: bool>(&'static self, body: Deferred<T, LAZY>) -> Admission<T>
    where
        T: Send + 'static,
    {
        Admission::of(self, body, |request| request.extensions().get().cloned())
    }

    /// Takes a request in that is under the [`Idempotency`] which `runtime = …` gives.
    pub fn admit_on<T, R, const LAZY: bool>(
        &'static self,
        body: Deferred<T, LAZY>,
        runtime: impl FnOnce() -> R,
    ) -> Admission<T>
    where
        T: Send + 'static,
        R: AsIdempotency,
    {
        Admission::of(self, body, |_| Some(runtime().as_idempotency().clone()))
    }
}

/// A request on its way to its handler, while its scope is read.
#[must_use = "nothing runs until it is told what"]
pub struct Admission<T>(pub(crate) Admitting<T>);

impl<T: Send + 'static> Admission<T> {
    fn of<const LAZY: bool>(
        policy: &'static Policy,
        body: Deferred<T, LAZY>,
        idem: impl FnOnce(&Request) -> Option<Idempotency>,
    ) -> Self {
        let (mut pending, has_key) = match body.0 {
            State::Extracted(argument) => {
                trace::decided(policy.endpoint, None, Outcome::Bypassed);
                return Self(Admitting::Extracted(Some(argument)));
            }
            State::Keyed(pending) => (pending, Some(true)),
            State::Undecided(pending) => (pending, None),
        };
        let request = pending.request_mut();
        let idem = idem(request);
        let has_key = has_key.unwrap_or_else(|| key::concerns(request, idem.as_ref()));
        Self(if has_key {
            let keyed = Keyed {
                policy,
                idem: idem.unwrap_or_else(Idempotency::process_wide),
                scope: Ok(Scope::new()),
            };
            Admitting::Keyed(Some((keyed, pending)))
        } else if policy.required && !request.method().is_safe() {
            trace::decided(policy.endpoint, None, Outcome::Refused);
            let problem = Problem::key_missing();
            Admitting::refused(match idem {
                Some(idem) => idem.refuse(problem),
                // A layer above, if there is one, renders it in the service's own way.
                None => problem.into_response(),
            })
        } else {
            trace::decided(policy.endpoint, None, Outcome::Bypassed);
            Admitting::Extracting {
                lease: Lease::Unprotected,
                extraction: pending.extract(),
            }
        })
    }

    /// `scope = global`.
    pub fn global(self) -> Self {
        self
    }

    /// `scope = token`.
    pub fn token(self) -> Self {
        self.scoped(|scope, headers| {
            let token = only_value(headers, header::AUTHORIZATION.as_str());
            Ok(scope.token(token.ok_or(ScopeMissing::Token)?))
        })
    }

    /// `scope = header("…")`.
    pub fn header(self, name: &'static str) -> Self {
        self.scoped(|scope, headers| {
            let value = only_value(headers, name).ok_or(ScopeMissing::Header)?;
            Ok(scope.header(name, value))
        })
    }

    /// `scope = expression`. It is read at once, and only for a request with a key.
    ///
    /// # Panics
    ///
    /// When the value's own `Display` fails.
    pub fn value(self, read: impl Fn(&mut ScopePart)) -> Self {
        self.scoped(|scope, _| {
            let mut part = ScopePart(scope);
            read(&mut part);
            Ok(part.0)
        })
    }

    /// Adds a part to the scope, unless one before it is missing.
    fn scoped(
        mut self,
        part: impl FnOnce(Scope, &HeaderMap) -> Result<Scope, ScopeMissing>,
    ) -> Self {
        if let Admitting::Keyed(Some((keyed, pending))) = &mut self.0
            && let Ok(scope) = &mut keyed.scope
        {
            keyed.scope = part(mem::take(scope), pending.request_mut().headers());
        }
        self
    }
}

/// A request with a key, while its scope is read.
pub(crate) struct Keyed {
    policy: &'static Policy,
    idem: Idempotency,
    scope: Result<Scope, ScopeMissing>,
}

impl Keyed {
    /// Names the record that the request is about.
    #[expect(
        clippy::result_large_err,
        reason = "the refusal is the answer itself, and moves once"
    )]
    pub(crate) fn identify(self, request: &Request) -> Result<Identified, Response> {
        let id = match key::parse(request.headers(), self.idem.dialect()) {
            Ok(Some(key)) => match &self.scope {
                Ok(scope) => Ok(self.idem.record_id(scope, &key)),
                Err(missing) => Err(Problem::scope_missing(*missing)),
            },
            Ok(None) => Err(Problem::key_missing()),
            Err(reason) => Err(Problem::key_invalid(reason)),
        };
        let Self { policy, idem, .. } = self;
        match id {
            Ok(id) => Ok(Identified { policy, idem, id }),
            Err(problem) => {
                trace::decided(policy.endpoint, None, Outcome::Refused);
                Err(idem.refuse(problem))
            }
        }
    }
}

/// The scope of one request, where an expression adds to it.
#[derive(Debug)]
pub struct ScopePart(Scope);

impl ScopePart {
    /// Adds `value`.
    ///
    /// # Panics
    ///
    /// When the value's own `Display` fails.
    pub fn is<V: ScopeValue + ?Sized>(&mut self, value: &V) {
        self.0 = mem::take(&mut self.0).value(value);
    }
}

fn only_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

impl<T> fmt::Debug for Admission<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::extract::FromRequest;

    use super::*;

    static POLICY: Policy = Policy::new("test");

    async fn admission(headers: &[(&'static str, &'static str)]) -> Admission<()> {
        let mut request = Request::new(axum::body::Body::empty());
        *request.method_mut() = http::Method::POST;
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, value.parse().expect("a value"));
        }
        let body = Deferred::<()>::from_request(request, &()).await;
        POLICY.admit(body.expect("no rejection"))
    }

    fn scope(admission: Admission<()>) -> Option<Result<Scope, ScopeMissing>> {
        match admission.0 {
            Admitting::Keyed(Some((keyed, _))) => Some(keyed.scope),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_request_has_the_scope_that_an_operator_would_write() {
        let headers = [
            ("idempotency-key", "k"),
            ("authorization", "Bearer a"),
            ("x-workspace-id", "acme"),
        ];
        let admission = admission(&headers).await;
        let read = admission
            .token()
            .header("x-workspace-id")
            .value(|part| part.is(&42));
        let written = Scope::new()
            .token("Bearer a")
            .header("X-Workspace-Id", "acme")
            .value(42);
        assert_eq!(scope(read), Some(Ok(written)));
    }

    #[tokio::test]
    async fn absent_empty_and_doubled_headers_are_no_scope() {
        for pairs in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "a"), ("authorization", "a")],
        ] {
            let headers = [&[("idempotency-key", "k")], pairs].concat();
            let token = admission(&headers).await.token();
            assert_eq!(scope(token), Some(Err(ScopeMissing::Token)));
            let header = admission(&headers).await.header("authorization").token();
            assert_eq!(
                scope(header),
                Some(Err(ScopeMissing::Header)),
                "the first that is missing counts"
            );
        }
    }

    #[tokio::test]
    async fn an_expression_is_read_only_for_a_request_with_a_key() {
        let reads = Cell::new(0);
        let read = |part: &mut ScopePart| {
            reads.set(reads.get() + 1);
            part.is("user-7");
        };
        assert!(scope(admission(&[]).await.value(read)).is_none());
        assert_eq!(reads.get(), 0);
        assert!(scope(admission(&[("idempotency-key", "k")]).await.value(read)).is_some());
        assert_eq!(reads.get(), 1);
    }
}
