//! The operations for operators that concern many records.

use crate::request::scope::Scope;
use crate::request::scope_id::ScopeId;
use crate::service::idempotency::Idempotency;
use crate::store::{Page, Query, Stats, StoreError};

impl Idempotency {
    /// Returns the id of a scope, in the namespace of this service. The scope id is the first half of each record id
    /// of the scope.
    #[must_use]
    pub fn scope_id(&self, scope: &Scope) -> ScopeId {
        self.inner.settings.namespace.scope_id(scope)
    }

    /// Returns a page of the records in the store that match `query`. Changes nothing.
    ///
    /// A store contains the records of all services that share it, including those of other namespaces. If this
    /// process holds a record that the store did not accept in time, the listing shows the claim that the
    /// store still has.
    ///
    /// ```
    /// use idem_runtime::Idempotency;
    /// use idem_runtime::store::{Query, StateKind};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let idem = Idempotency::in_memory();
    /// let mut query = Query::all().state(StateKind::Unknown);
    /// loop {
    ///     let page = idem.list(query.clone()).await?;
    ///     for entry in &page.entries {
    ///         println!("{} {} {:?}", entry.id, entry.origin.endpoint(), entry.state);
    ///     }
    ///     let Some(next) = page.next else { break };
    ///     query = query.after(next);
    /// }
    /// # Ok::<(), idem_runtime::store::StoreError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// If the store fails, does not reply in time or does not support listing.
    pub async fn list(&self, query: Query) -> Result<Page, StoreError> {
        self.in_time(self.inner.store.list(query)).await
    }

    /// Returns the number of records in the store, and how full the store is. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the store fails, does not reply in time or does not support counting.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.in_time(self.inner.store.stats()).await
    }

    /// Removes all records and claims of a scope, and returns their number. After that, nothing of
    /// this caller remains in the store or in this process, with the exceptions below.
    ///
    /// Every key of the scope is new then, as after [`forget`](Self::forget). Block the caller first, because a
    /// request that arrives meanwhile may leave a record behind. A record that another process holds because the store did
    /// not accept it in time is not removed from that process. The response of a handler that still runs may stay in this
    /// process for `lease` + `store_timeout`.
    ///
    /// The time of a call depends on the number of records, so `store_timeout` does not limit it. When the future is
    /// dropped half way, or ends with an error, a part of the records may be removed. Call the method again then.
    ///
    /// # Errors
    ///
    /// If the store fails or does not support forgetting a scope.
    pub async fn forget_scope(&self, scope: &Scope) -> Result<u64, StoreError> {
        let scope = self.scope_id(scope);
        let mut forgotten = self.forget_unwritten(scope).await?;
        forgotten += self.inner.store.forget_scope(scope).await?;
        // The store may have refused a record in the meantime. Its claim is counted already.
        self.forget_unwritten(scope).await?;
        Ok(forgotten)
    }

    /// Removes the records of a scope that the store did not accept in time.
    async fn forget_unwritten(&self, scope: ScopeId) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for id in self.inner.unwritten.ids_of(scope) {
            forgotten += u64::from(self.forget(id).await?);
        }
        Ok(forgotten)
    }
}
