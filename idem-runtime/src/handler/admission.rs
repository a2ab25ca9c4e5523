//! Prepares a request for its claim: checks whether it has a key, and reads its scope.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::Request;
use http::header::{self, AsHeaderName, HeaderMap};

use axum::response::Response;

use crate::claim::claiming::{self, Claiming};
use crate::handler::deferred::{Deferred, DeferredState};
use crate::handler::own_key::{KeyChosen, KeyPart};
use crate::handler::run::{Guarded, HandlerOutput, Run, Way};
use crate::observe::Outcome;
use crate::request::intake::Intake;
use crate::request::own_key::OwnKey;
use crate::request::scope::{Scope, ScopeMissing, ScopeValue};
use crate::service::current;
use crate::service::idempotency::{AsIdempotency, Idempotency};
use crate::settings::policy::{KeySource, Policy};
use crate::trace;

impl Policy {
    /// Starts to process a request that came through the [`Idempotency`] layer. A request with a
    /// key is refused when no layer is installed.
    pub fn admit<T, const LAZY: bool>(&'static self, body: Deferred<T, LAZY>) -> Admission<T>
    where
        T: Send + 'static,
    {
        Admission::of(self, body, |request| {
            let idem: Option<&Idempotency> = request.extensions().get();
            let idem = idem.map(Idempotency::without_slot);
            // The layer puts its settings only into requests with a key in the header of the service.
            idem.or_else(|| {
                (self.key_source != KeySource::Service)
                    .then(current::get)
                    .flatten()
            })
        })
    }

    /// Starts to process a request under the [`Idempotency`] that `runtime = …` returns.
    pub fn admit_on<T, R, const LAZY: bool>(
        &'static self,
        body: Deferred<T, LAZY>,
        runtime: impl FnOnce() -> R,
    ) -> Admission<T>
    where
        T: Send + 'static,
        R: AsIdempotency,
    {
        Admission::of(self, body, |_| {
            Some(runtime().as_idempotency().without_slot())
        })
    }
}

/// A request whose scope is being read. Its handler has not started.
#[must_use = "does nothing until `.run(handler)` is called"]
pub struct Admission<T>(pub(crate) Way<T>);

impl<T: Send + 'static> Admission<T> {
    // Inlined, it would be compiled again for each handler. Measured: 0.1 KB.
    #[inline(never)]
    fn of<const LAZY: bool>(
        policy: &'static Policy,
        body: Deferred<T, LAZY>,
        idem: impl FnOnce(&Request) -> Option<Idempotency>,
    ) -> Self {
        let (mut pending, is_lazy) = match body.0 {
            DeferredState::Extracted(argument) => {
                trace::decided(policy.endpoint, None, Outcome::Bypassed);
                return Self(Way::Open(argument));
            }
            DeferredState::Keyed(pending) => (pending, false),
            DeferredState::Undecided(pending) => (pending, true),
            #[cfg(feature = "testing")]
            DeferredState::Observed(argument, observer) => {
                return Self(Way::Guarded(Guarded::Observed(Some((argument, observer)))));
            }
        };
        let intake = pending.intake();
        let idem = idem(&intake.request);
        let may_have_key = match policy.key_source {
            KeySource::Service => !is_lazy || Idempotency::concerns(&intake.request, idem.as_ref()),
            KeySource::Endpoint | KeySource::EndpointArgument => {
                idem.is_some() || !intake.request.method().is_safe()
            }
        };
        if !may_have_key {
            let outcome = claiming::unkeyed(policy, idem.as_ref(), intake);
            return Self(Way::Guarded(Guarded::after(outcome, pending)));
        }
        let Some(idem) = idem else {
            let refused = claiming::not_installed(policy);
            return Self(Way::Guarded(Guarded::after(refused, pending)));
        };
        let slot = Idempotency::slot_of(&intake.request).cloned();
        Self(Way::Guarded(Guarded::Claiming {
            claiming: Claiming::new(policy, idem, slot),
            pending: Some(pending),
        }))
    }

    /// Runs `handler` if the request is admitted. The attempt is settled even if the client
    /// disconnects.
    pub fn run<H, F>(self, handler: H) -> impl Future<Output = Response>
    where
        H: FnOnce(T) -> F + Send + 'static,
        F: Future<Output: HandlerOutput> + Send + 'static,
    {
        Run::new(self.0, &mut Some(handler))
    }

    /// Implements `key = header("…")`.
    pub fn key_header(self, name: &'static str) -> Self {
        self.keyed(|| OwnKey::in_header(name))
    }

    /// Implements `key = expression`. Calls `read` immediately.
    pub fn key(self, read: impl FnOnce(KeyPart) -> KeyChosen) -> Self {
        self.keyed(|| {
            let KeyChosen(key) = read(KeyPart(()));
            OwnKey::of_value(key)
        })
    }

    fn keyed(mut self, key: impl FnOnce() -> OwnKey) -> Self {
        if let Way::Guarded(Guarded::Claiming { pending, .. }) = &mut self.0
            && let Some(pending) = pending
        {
            pending.intake().own_key = Some(key());
        }
        self
    }

    /// Implements `scope = global`: adds nothing to the scope.
    pub fn global(self) -> Self {
        self
    }

    /// Implements `scope = token`: adds the `Authorization` header.
    pub fn token(self) -> Self {
        self.scoped(|scope, headers| {
            let token = only_value(headers, header::AUTHORIZATION);
            scope.add_token(token.ok_or(ScopeMissing::Token)?);
            Ok(())
        })
    }

    /// Implements `scope = header("…")`: adds the value of that header.
    pub fn header(self, name: &'static str) -> Self {
        self.scoped(|scope, headers| {
            let value = only_value(headers, name).ok_or(ScopeMissing::Header)?;
            scope.add_header(name, value);
            Ok(())
        })
    }

    /// Implements `scope = expression`. Calls `read` immediately, and only for a request with a
    /// key.
    ///
    /// The closure must return the result of [`ScopePart::is`], so it cannot return before it adds
    /// its part. Without the part, two callers would share a key.
    ///
    /// # Panics
    ///
    /// If the `Display` implementation of the value returns an error.
    pub fn value(self, read: impl for<'a> Fn(ScopePart<'a>) -> ScopeAdded<'a>) -> Self {
        self.scoped(|scope, _| {
            let ScopeAdded(PhantomData) = read(ScopePart(scope));
            Ok(())
        })
    }

    /// Adds a part to the scope, unless an earlier part is missing.
    fn scoped(
        mut self,
        part: impl FnOnce(&mut Scope, &HeaderMap) -> Result<(), ScopeMissing>,
    ) -> Self {
        if let Way::Guarded(Guarded::Claiming { pending, .. }) = &mut self.0
            && let Some(pending) = pending
        {
            let Intake { request, scope, .. } = pending.intake();
            if let Ok(so_far) = scope
                && let Err(missing) = part(so_far, request.headers())
            {
                *scope = Err(missing);
            }
        }
        self
    }
}

/// The scope of one request, to which an expression adds its value.
#[derive(Debug)]
pub struct ScopePart<'a>(&'a mut Scope);

impl<'a> ScopePart<'a> {
    /// Adds `value` to the scope.
    ///
    /// # Panics
    ///
    /// If the `Display` implementation of the value returns an error.
    pub fn is<V: ScopeValue + ?Sized>(self, value: &V) -> ScopeAdded<'a> {
        value.add_to(self.0);
        ScopeAdded(PhantomData)
    }
}

/// Proof that a [`ScopePart`] was added. Only [`ScopePart::is`] creates this proof, and the mutable
/// borrow ties the proof to its request.
#[derive(Debug)]
pub struct ScopeAdded<'a>(PhantomData<&'a mut Scope>);

fn only_value(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
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
        request.extensions_mut().insert(Idempotency::in_memory());
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
            Way::Guarded(Guarded::Claiming { pending, .. }) => {
                pending.map(|mut pending| pending.intake().scope.clone())
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_request_and_an_operator_build_the_same_scope() {
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
    async fn absent_empty_and_repeated_headers_give_no_scope() {
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
                "the first missing part is reported"
            );
        }
    }

    #[tokio::test]
    async fn a_scope_expression_runs_only_for_a_request_with_a_key() {
        fn read(reads: &Cell<u32>) -> impl for<'a> Fn(ScopePart<'a>) -> ScopeAdded<'a> {
            |part| {
                reads.set(reads.get() + 1);
                part.is("user-7")
            }
        }

        let reads = Cell::new(0);
        assert!(scope(admission(&[]).await.value(read(&reads))).is_none());
        assert_eq!(reads.get(), 0);
        assert!(
            scope(
                admission(&[("idempotency-key", "k")])
                    .await
                    .value(read(&reads))
            )
            .is_some()
        );
        assert_eq!(reads.get(), 1);
    }
}
