//! Prepares a request for its claim: checks whether it has a key, and reads its scope.

use std::fmt;
use std::marker::PhantomData;

use axum::extract::Request;
use axum::response::Response;

use crate::handler::deferred::{Deferred, DeferredState};
use crate::handler::guarded::Guarded;
use crate::handler::own_key::{KeyChosen, KeyPart};
use crate::handler::run::{HandlerOutput, Run, Way};
use crate::observe::Outcome;
use crate::request::intake::Intake;
use crate::request::own_key::OwnKey;
use crate::request::scope::{Scope, ScopeValue};
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
        Admission::of(self, body, &mut |request| self.installed(request))
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
        let mut runtime = Some(runtime);
        Admission::of(self, body, &mut |_| {
            let runtime = runtime.take()?;
            Some(runtime().as_idempotency().without_slot())
        })
    }

    /// Returns the settings of the layer.
    fn installed(&self, request: &Request) -> Option<Idempotency> {
        let idem: Option<&Idempotency> = request.extensions().get();
        let idem = idem.map(Idempotency::without_slot);
        // The layer puts its settings only into requests with a key in the header of the service.
        idem.or_else(|| {
            (self.key_source != KeySource::Service)
                .then(current::get)
                .flatten()
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
        find: &mut dyn FnMut(&Request) -> Option<Idempotency>,
    ) -> Self {
        Self(match body.0 {
            DeferredState::Extracted(argument) => {
                trace::decided(policy.endpoint, None, Outcome::Bypassed);
                Way::Open(argument)
            }
            DeferredState::Pending(mut pending) => {
                let guarded = Guarded::new(policy, pending.intake(), LAZY, find);
                Way::Guarded(guarded, pending)
            }
            #[cfg(feature = "testing")]
            DeferredState::Observed(argument, observer) => Way::Observed(argument, observer),
        })
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
}

/// Without bounds, so that a type that is not `Send` is reported once, by `run`.
impl<T> Admission<T> {
    /// Implements `key = header("…")`.
    pub fn key_header(mut self, name: &'static str) -> Self {
        if let Some(intake) = self.intake() {
            intake.own_key = Some(OwnKey::in_header(name));
        }
        self
    }

    /// Implements `key = expression`. Calls `read` immediately.
    pub fn key(mut self, read: impl FnOnce(KeyPart) -> KeyChosen) -> Self {
        if let Some(intake) = self.intake() {
            let KeyChosen(key) = read(KeyPart(()));
            intake.own_key = Some(OwnKey::of_value(key));
        }
        self
    }

    /// Implements `scope = global`: adds nothing to the scope.
    pub fn global(self) -> Self {
        self
    }

    /// Implements `scope = token`: adds the `Authorization` header.
    pub fn token(mut self) -> Self {
        if let Some(intake) = self.intake() {
            intake.add_token_to_scope();
        }
        self
    }

    /// Implements `scope = header("…")`: adds the value of that header.
    pub fn header(mut self, name: &'static str) -> Self {
        if let Some(intake) = self.intake() {
            intake.add_header_to_scope(name);
        }
        self
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
    pub fn value(mut self, read: impl for<'a> Fn(ScopePart<'a>) -> ScopeAdded<'a>) -> Self {
        if let Some(Intake {
            scope: Ok(scope), ..
        }) = self.intake()
        {
            let ScopeAdded(PhantomData) = read(ScopePart(scope));
        }
        self
    }

    /// Returns the request, if it will be claimed.
    fn intake(&mut self) -> Option<&mut Intake> {
        match &mut self.0 {
            Way::Guarded(Guarded::Claiming(_), pending) => Some(pending.intake()),
            _ => None,
        }
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
    use crate::request::scope::ScopeMissing;

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
            Way::Guarded(Guarded::Claiming(_), mut pending) => Some(pending.intake().scope.clone()),
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
