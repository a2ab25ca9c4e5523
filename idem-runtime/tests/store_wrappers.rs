//! Every wrapper of a store passes every method on.
//!
//! A method with a default is easily left out of a wrapper, and the wrapper then says that the store does
//! not support it.
#![cfg(feature = "testing")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use idem_runtime::observe::Observer;
use idem_runtime::store::{
    Claim, Claimed, CommitState, Entry, Finding, Holder, NearCache, Owner, Page, Query, Record,
    RecordStatement, Settled, Stats, Store, StoreError, StoreFuture, TransactionKind,
};
use idem_runtime::testing::FaultStore;
use idem_runtime::{Fingerprint, RecordId, ScopeId};

/// Notes the name of each method that is called.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<&'static str>>>);

impl Noting {
    fn note<T>(&self, method: &'static str) -> StoreFuture<T> {
        self.0.lock().expect("no panic").push(method);
        StoreFuture::ready(Err(StoreError::TimedOut))
    }
}

impl Store for Noting {
    fn claim(&self, _: Claim) -> StoreFuture<Claimed> {
        self.note("claim")
    }

    fn renew(&self, _: Holder, _: Duration) -> StoreFuture<Settled> {
        self.note("renew")
    }

    fn complete(&self, _: Holder, _: Record, _: Duration) -> StoreFuture<Settled> {
        self.note("complete")
    }

    fn release(&self, _: Holder) -> StoreFuture<Settled> {
        self.note("release")
    }

    fn abandon(&self, _: Holder) -> StoreFuture<Settled> {
        self.note("abandon")
    }

    fn look_up(&self, _: RecordId) -> StoreFuture<Option<Entry>> {
        self.note("look_up")
    }

    fn forget(&self, _: RecordId) -> StoreFuture<bool> {
        self.note("forget")
    }

    fn resolve(&self, _: RecordId, _: u64, _: Record, _: Duration) -> StoreFuture<Settled> {
        self.note("resolve")
    }

    fn list(&self, _: Query) -> StoreFuture<Page> {
        self.note("list")
    }

    fn stats(&self) -> StoreFuture<Stats> {
        self.note("stats")
    }

    fn forget_scope(&self, _: ScopeId) -> StoreFuture<u64> {
        self.note("forget_scope")
    }

    fn transactions(&self) -> Option<TransactionKind> {
        drop(self.note::<()>("transactions"));
        None
    }

    fn record_statement(
        &self,
        _: Holder,
        _: Record,
        _: Duration,
    ) -> Result<RecordStatement, StoreError> {
        drop(self.note::<()>("record_statement"));
        Err(StoreError::TimedOut)
    }

    fn commit_state(&self, _: Holder) -> StoreFuture<CommitState> {
        self.note("commit_state")
    }

    fn remove_expired(&self) -> StoreFuture<u64> {
        self.note("remove_expired")
    }

    fn diagnose(&self) -> StoreFuture<Vec<Finding>> {
        self.note("diagnose")
    }

    fn name(&self) -> &'static str {
        drop(self.note::<()>("name"));
        "noting"
    }

    fn observe(&self, _: Arc<dyn Observer>) {
        drop(self.note::<()>("observe"));
    }
}

struct Nobody;

impl Observer for Nobody {}

/// The methods of the trait, from its source.
fn methods() -> Vec<&'static str> {
    let source = include_str!("../src/store/mod.rs");
    let (_, source) = source.split_once("pub trait Store:").expect("the trait");
    let (source, _) = source.split_once("\n}\n").expect("its end");
    let lines = source
        .lines()
        .filter_map(|line| line.strip_prefix("    fn "));
    lines.filter_map(|line| line.split('(').next()).collect()
}

async fn call_every_method(store: impl Store) {
    let id = RecordId::from_bytes([1; 32]);
    let fingerprint = Fingerprint::from_bytes([2; 32]);
    let time = Duration::from_secs(1);
    let holder = Holder {
        id,
        owner: Owner::unique(),
        fence: 1,
    };
    let record = Record::not_kept(fingerprint, StatusCode::OK);
    let _ = store.claim(Claim::new(id, fingerprint, time, time)).await;
    let _ = store.renew(holder, time).await;
    let _ = store.complete(holder, record.clone(), time).await;
    let _ = store.release(holder).await;
    let _ = store.abandon(holder).await;
    let _ = store.look_up(id).await;
    let _ = store.forget(id).await;
    let _ = store.resolve(id, 1, record.clone(), time).await;
    let _ = store.list(Query::all()).await;
    let _ = store.stats().await;
    let _ = store.forget_scope(id.scope_id()).await;
    let _ = store.transactions();
    let _ = store.record_statement(holder, record, time);
    let _ = store.commit_state(holder).await;
    let _ = store.remove_expired().await;
    let _ = store.diagnose().await;
    assert_eq!(store.name(), "noting");
    store.observe(Arc::new(Nobody));
}

#[tokio::test]
async fn every_wrapper_forwards_every_method() {
    let methods = methods();
    assert_eq!(methods.len(), 18, "call the new method above: {methods:?}");
    let noting = Noting::default();
    let called = || std::mem::take(&mut *noting.0.lock().expect("no panic"));
    let dynamic: Arc<dyn Store> = Arc::new(noting.clone());
    let boxed: Box<dyn Store> = Box::new(noting.clone());
    call_every_method(dynamic).await;
    assert_eq!(called(), methods, "Arc<dyn Store>");
    call_every_method(boxed).await;
    assert_eq!(called(), methods, "Box<dyn Store>");
    call_every_method(Arc::new(noting.clone())).await;
    assert_eq!(called(), methods, "Arc");
    call_every_method(NearCache::new(noting.clone())).await;
    assert_eq!(called(), methods, "NearCache");
    #[cfg(feature = "seal")]
    {
        use idem_runtime::store::{Keys, Sealed};
        let keys = Keys::new().primary(1, [1; 32]);
        call_every_method(Sealed::around(noting.clone(), keys)).await;
        assert_eq!(called(), methods, "Sealed");
    }
    call_every_method(FaultStore::new(noting.clone())).await;
    assert_eq!(called(), methods, "FaultStore");
}
