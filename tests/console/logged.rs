//! The log of changes.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};

use axum::http::StatusCode;
use axum_idem::store::MemoryStore;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, RecordId};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::service::Service;

/// Notes the events of the library.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).expect("a string takes everything");
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "axum_idem" {
            event.record(&mut Fields(&mut self.0.lock().expect("no panic")));
        }
    }
}

/// With only one subscriber of one thread, `tracing` lets other threads turn an event off for the whole process.
fn keep_events_on() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ignores = tracing_subscriber::registry();
        tracing::subscriber::set_global_default(ignores).expect("no other global subscriber");
    });
}

/// The store may have applied a change although its reply was lost.
#[tokio::test(start_paused = true)]
async fn a_change_is_logged_also_when_the_store_fails() {
    keep_events_on();
    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Forget, [Fault::ErrAfter, Fault::DropReply]);
    let service = Service::of(Idempotency::builder().store(store), |console| console);
    service.prepare().await;
    for key in ["SECRET-recorded", "SECRET-unknown"] {
        let version = service.version(key).await;
        let id: RecordId = service.id(key).parse().expect("an id");
        let path = format!("/ops/idem/api/records/{id}/forget");
        let sent = json!({ "version": version, "reason": "ticket 512" });
        let sent = service.change("admin", &path, &sent);
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        let reply = sent.with_subscriber(subscriber).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        let log = log.0.lock().expect("no panic");
        for part in [
            "action=\"forget\"",
            "ticket 512",
            &id.short().to_string(),
            "error=",
        ] {
            assert!(log.contains(part), "{part}: {log}");
        }
        assert!(!log.contains("is_done"), "nobody knows: {log}");
    }
}
