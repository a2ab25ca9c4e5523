//! What the operators of a service can do.

use std::time::Duration;

use crate::request::record_id::RecordId;
use crate::request::scope::Scope;
use crate::response::kept_headers::KeptHeaders;
use crate::service::idempotency::Idempotency;
use crate::service::settings::LONGEST;
use crate::store::{Entry, Record, Settled, StoreError};

impl Idempotency {
    /// The id of the record for `key` in `scope`, in this service's namespace.
    ///
    /// The key is given as its client means it, without quotes.
    ///
    /// ```
    /// use idem_runtime::{Idempotency, Scope};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let idem = Idempotency::in_memory();
    /// let id = idem.record_id(&Scope::new().value("user-7"), "8e03978e");
    /// assert!(idem.look_up(id).await?.is_none());
    /// # Ok::<(), idem_runtime::store::StoreError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn record_id(&self, scope: &Scope, key: &str) -> RecordId {
        RecordId::new(&self.inner.settings.namespace, scope, key)
    }

    /// What the store holds under `id`. Changes nothing.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time or holds what it cannot read.
    pub async fn look_up(&self, id: RecordId) -> Result<Option<Entry>, StoreError> {
        self.in_time(self.inner.store.look_up(id)).await
    }

    /// Removes what the store holds under `id`, and says whether there was anything.
    ///
    /// The next request with this key runs the handler. That is so for a claim in flight too: its
    /// handler runs on and is no longer recorded. A record that this process holds because the store could
    /// not take it in time is removed as well.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time.
    pub async fn forget(&self, id: RecordId) -> Result<bool, StoreError> {
        let unwritten = self.inner.unwritten.forget(&id);
        let was_stored = self.in_time(self.inner.store.forget(id)).await?;
        let was_unwritten = unwritten.confirm();
        Ok(was_stored || was_unwritten)
    }

    /// Settles a key whose outcome is unknown with the answer that its retries are to get, for
    /// `ttl` from now. Says whether it took effect: a key that is not unknown is left alone, and so is one
    /// whose record this process holds and has yet to write.
    ///
    /// Set-Cookie and hop-by-hop headers are left out, as from a handler's answer. To have the key
    /// run again instead, [`forget`](Self::forget) it.
    ///
    /// # Errors
    ///
    /// When the store does not answer in time or holds what it cannot read.
    pub async fn resolve(
        &self,
        id: RecordId,
        answer: http::Response<bytes::Bytes>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let Some(Entry::Unknown {
            fingerprint, fence, ..
        }) = self.look_up(id).await?
        else {
            return Ok(false);
        };
        if self.inner.unwritten.find(&id).is_some() {
            // This process knows the outcome, and writes it as soon as it can.
            return Ok(false);
        }
        let headers = KeptHeaders::new(answer.headers(), self.inner.settings.record_set_cookie);
        let record = Record::answer_with(
            fingerprint,
            answer.status(),
            || headers.iter(),
            answer.body(),
        )
        .unwrap_or_else(|| Record::not_kept(fingerprint, answer.status()));
        let settled = self
            .in_time(
                self.inner
                    .store
                    .resolve(id, fence, record, ttl.min(LONGEST)),
            )
            .await?;
        Ok(settled == Settled::Done)
    }

    /// The number of attempts that run now, in requests and in the background.
    ///
    /// An attempt counts from its claim until its response is recorded or its key is released. Requests
    /// without a key do not count. [`max_running`](crate::IdempotencyBuilder::max_running) limits the
    /// number.
    ///
    /// # Examples
    ///
    /// ```
    /// use idem_runtime::Idempotency;
    ///
    /// assert_eq!(Idempotency::in_memory().running(), 0);
    /// ```
    #[must_use]
    pub fn running(&self) -> usize {
        self.inner.permits.taken()
    }

    /// Waits until no handler runs under a claim any more and everything is settled, or until `timeout`
    /// has passed. Returns how many attempts and background tasks are left.
    ///
    /// That includes records which the store could not take in time, and claims whose reply was lost:
    /// both are tried again while the store is away.
    ///
    /// A handler whose client has gone runs on in the background; axum's graceful shutdown does not
    /// wait for it. Call this behind it:
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn main_(listener: tokio::net::TcpListener, router: axum::Router, idem: idem_runtime::Idempotency) {
    /// axum::serve(listener, router)
    ///     .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap() })
    ///     .await
    ///     .unwrap();
    /// idem.drain(Duration::from_secs(30)).await;
    /// # }
    /// ```
    ///
    /// What is left at the deadline is left to its lease: it is not released, since its work may be half
    /// done. When the process ends then, a record that is not in the store yet is lost. Cancel-safe.
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
                "attempts still run or wait to be settled at the drain's deadline; their claims are left to their leases"
            );
        }
        attempts.len()
    }
}
