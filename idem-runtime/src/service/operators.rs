//! The operations for the operators of a service.

use std::time::Duration;

use crate::request::record_id::RecordId;
use crate::request::scope::Scope;
use crate::response::kept_headers::KeptHeaders;
use crate::service::idempotency::Idempotency;
use crate::service::settings::LONGEST;
use crate::store::{DecodeError, Entry, Record, Settled, StoreError};

impl Idempotency {
    /// Returns the id of the record for `key` in `scope`, in the namespace of this service.
    ///
    /// Pass the key without the quotes of the header.
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::{Idempotency, Scope};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let idem = Idempotency::in_memory();
    /// let id = idem.record_id(&Scope::new().value("user-7"), "8e03978e");
    /// assert!(idem.look_up(id).await?.is_none());
    /// # Ok::<(), axum_idem::store::StoreError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn record_id(&self, scope: &Scope, key: &str) -> RecordId {
        self.inner.settings.namespace.record_id(scope, key)
    }

    /// Returns the entry that the store holds under `id`. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the store fails, does not reply in time, or holds an entry that cannot be decoded.
    pub async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        match self.in_time(self.inner.store.look_up(id)).await? {
            Some(Entry::Recorded { record, .. }) if record.is_sealed() => {
                Err(StoreError::Undecodable(DecodeError::Sealed))
            }
            entry => Ok(entry),
        }
    }

    /// Removes the entry that the store holds under `id`, and returns whether there was an entry.
    ///
    /// The next request with this key runs the handler. This also applies to a claim in flight: its
    /// handler continues, but its response is no longer recorded. If this process holds a record that the store did
    /// not accept in time, that record is removed too.
    ///
    /// There is one exception. An equal request may run after this call and end with an unknown outcome. A retry of
    /// that request may then reach the process of the first handler, within a lease after the first handler has
    /// responded. That retry gets the response of the first handler, and nothing runs again.
    ///
    /// # Errors
    ///
    /// If the store fails or does not reply in time.
    pub async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let unwritten = self.inner.unwritten.forget(&id);
        let was_stored = self.in_time(self.inner.store.forget(id)).await?;
        let was_unwritten = unwritten.confirm();
        Ok(was_stored || was_unwritten)
    }

    /// Records `response` for a key whose outcome is unknown. Retries get this response for `ttl`
    /// from now. Returns whether the call took effect.
    ///
    /// The call resolves the attempt that is unknown now. With `on_unknown = rerun`, this may be a later
    /// attempt than the one that the caller has checked. To resolve only the attempt that was shown or listed, use
    /// [`resolve_attempt`](Self::resolve_attempt).
    ///
    /// The call has no effect on a key whose outcome is not unknown. It also has no effect if this
    /// process holds a record of the key that is not written yet.
    ///
    /// `Set-Cookie` and hop-by-hop headers are left out, as in the response of a handler. To run
    /// the handler again instead, [`forget`](Self::forget) the key.
    ///
    /// # Errors
    ///
    /// If the store fails, does not reply in time, or holds an entry that cannot be decoded.
    pub async fn resolve(
        &self,
        id: RecordId,
        response: http::Response<bytes::Bytes>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.resolve_unknown(id, None, response, ttl).await
    }

    /// Records `response` as [`resolve`](Self::resolve) does, but only for the attempt with this fence. Returns whether
    /// the call took effect.
    ///
    /// `fence` comes from the [`Entry::Unknown`] or the [`State::Unknown`](crate::store::State::Unknown) on which the
    /// decision is based. A retry may have run the handler again meanwhile, and ended with an unknown outcome too. The
    /// decision says nothing about that attempt, so the call then has no effect, and the outcome stays unknown.
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use std::time::Duration;
    ///
    /// use axum::body::Bytes;
    /// use axum::http::Response;
    /// use axum_idem::store::{Query, State, StateKind, StoreError};
    /// use axum_idem::{Idempotency, RecordId};
    ///
    /// /// What the other service says about a payment.
    /// async fn outcome_of(_payment: RecordId) -> Response<Bytes> {
    ///     Response::new("paid".into())
    /// }
    ///
    /// async fn reconcile(idem: &Idempotency) -> Result<(), StoreError> {
    ///     let page = idem.list(Query::all().state(StateKind::Unknown)).await?;
    ///     for payment in page.entries {
    ///         if let State::Unknown { fence, .. } = payment.state {
    ///             let outcome = outcome_of(payment.id).await;
    ///             let ttl = Duration::from_secs(24 * 60 * 60);
    ///             idem.resolve_attempt(payment.id, fence, outcome, ttl).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # let idem = Idempotency::in_memory();
    /// # tokio::runtime::Runtime::new().unwrap().block_on(reconcile(&idem)).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If the store fails, does not reply in time, or holds an entry that cannot be decoded.
    pub async fn resolve_attempt(
        &self,
        id: RecordId,
        fence: u64,
        response: http::Response<bytes::Bytes>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        self.resolve_unknown(id, Some(fence), response, ttl).await
    }

    async fn resolve_unknown(
        &self,
        id: RecordId,
        seen: Option<u64>,
        response: http::Response<bytes::Bytes>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let Some(Entry::Unknown {
            fingerprint, fence, ..
        }) = self.look_up(id).await?
        else {
            return Ok(false);
        };
        if seen.is_some_and(|seen| seen != fence) {
            // The decision is about an earlier attempt.
            return Ok(false);
        }
        if self.inner.unwritten.find(&id).is_some() {
            // This process knows the outcome, and writes the record as soon as possible.
            return Ok(false);
        }
        let headers = KeptHeaders::new(response.headers(), self.inner.settings.record_set_cookie);
        let record = Record::response_with(
            fingerprint,
            response.status(),
            || headers.iter(),
            response.body(),
        )
        .unwrap_or_else(|| Record::not_kept(fingerprint, response.status()));
        let settled = self
            .in_time(
                self.inner
                    .store
                    .resolve(id, fence, record, ttl.min(LONGEST)),
            )
            .await?;
        Ok(settled == Settled::Done)
    }

    /// Returns the number of attempts that run now, in requests and in the background.
    ///
    /// An attempt counts from its claim until its response is recorded or its key is released, or until the first
    /// try to do so has failed. Requests without a key do not count.
    /// [`max_running`](crate::IdempotencyBuilder::max_running) limits the number.
    ///
    /// # Examples
    ///
    /// ```
    /// # extern crate idem_runtime as axum_idem;
    /// use axum_idem::Idempotency;
    ///
    /// assert_eq!(Idempotency::in_memory().running(), 0);
    /// ```
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.permits.taken()
    }

    /// Waits until no handler runs under a claim and every attempt is settled, or until `timeout`
    /// has passed. Returns the number of attempts and background tasks that are left.
    ///
    /// `drain` also waits for records that the store did not accept in time, and for claims whose reply was
    /// lost. The engine keeps trying to settle both while the store is unavailable.
    ///
    /// A handler whose client has disconnected continues in the background. The graceful shutdown
    /// of axum does not wait for this handler, so call `drain` after the shutdown:
    ///
    /// ```no_run
    /// # extern crate idem_runtime as axum_idem;
    /// # use std::time::Duration;
    /// # async fn main_(listener: tokio::net::TcpListener, router: axum::Router, idem: axum_idem::Idempotency) {
    /// axum::serve(listener, router)
    ///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap() })
    ///     .await
    ///     .unwrap();
    /// idem.drain(Duration::from_secs(30)).await;
    /// # }
    /// ```
    ///
    /// At the deadline, the remaining claims are not released, because their work may be half done.
    /// They end with their leases. If the process exits at this time, records that are not in the store yet
    /// are lost. Cancel-safe.
    pub async fn drain(&self, timeout: Duration) -> usize {
        let attempts = &self.inner.attempts;
        attempts.close();
        if tokio::time::timeout(timeout.min(LONGEST), attempts.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                target: crate::trace::TARGET,
                running = attempts.len(),
                "attempts still run or are not settled at the deadline of the drain; their claims end with their leases"
            );
        }
        attempts.len()
    }
}
