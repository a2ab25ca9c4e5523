//! The log of changes.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum_idem::store::MemoryStore;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, RecordId};
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::instrument::Instrument;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::records::resolution;
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

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "axum_idem" {
            let mut log = self.0.lock().expect("no panic");
            for span in context.event_scope(event).into_iter().flatten() {
                write!(log, "span={} ", span.name()).expect("a string takes everything");
            }
            event.record(&mut Fields(&mut log));
        }
    }
}

impl Log {
    /// Notes the events of this thread, also those of its tasks.
    fn of_this_thread(&self) -> DefaultGuard {
        keep_events_on();
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().expect("no panic"))
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
    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Forget, [Fault::ErrAfter, Fault::DropReply]);
    let service = Service::of(Idempotency::builder().store(store), |console| console);
    service.prepare().await;
    let log = Log::default();
    let _guard = log.of_this_thread();
    for key in ["SECRET-recorded", "SECRET-unknown"] {
        let version = service.version(key).await;
        let id: RecordId = service.id(key).parse().expect("an id");
        let path = format!("/ops/idem/api/records/{id}/forget");
        let sent = json!({ "version": version, "reason": "ticket 512" });
        let reply = service.change("admin", &path, &sent).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        let log = log.take();
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

/// "201 paid" and "402 not charged" are different decisions.
#[tokio::test]
async fn the_log_tells_what_was_decided_in_the_span_of_the_request() {
    let mut service = Service::new();
    service.prepare().await;
    // As docs/operations.md shows it.
    let in_span = middleware::from_fn(async |request: Request, next: Next| {
        let operator = request.headers().get("x-operator").cloned();
        let span = tracing::info_span!("operator", operator = ?operator);
        next.run(request).instrument(span).await
    });
    service.router = service.router.layer(in_span);
    let log = Log::default();
    let _guard = log.of_this_thread();
    let id = service.id("SECRET-unknown");
    let fence = service.fence("SECRET-unknown").await;
    let mut sent = resolution(&fence);
    sent["body"] = json!("SECRET-body");
    let path = format!("/ops/idem/api/records/{id}/resolve");
    let resolved = service.change("admin", &path, &sent).await;
    assert_eq!(resolved.status, StatusCode::OK, "{resolved:?}");
    let resolved = log.take();
    for part in [
        "span=operator ",
        "action=\"resolve\" ",
        &format!("record_id={id} "),
        &format!("fence={fence} "),
        "status=201 ",
        "ttl_seconds=3600 ",
        "body_bytes=11 ",
        "is_done=true ",
    ] {
        assert!(resolved.contains(part), "{part}: {resolved}");
    }
    let version = service.version("SECRET-recorded").await;
    let id = service.id("SECRET-recorded");
    let sent = json!({ "version": version, "reason": "ticket 512" });
    let path = format!("/ops/idem/api/records/{id}/forget");
    let forgotten = service.change("admin", &path, &sent).await;
    assert_eq!(forgotten.status, StatusCode::OK, "{forgotten:?}");
    let forgotten = log.take();
    for part in [format!("record_id={id} "), format!("seen={version:?} ")] {
        assert!(forgotten.contains(&part), "{part}: {forgotten}");
    }
    assert!(!forgotten.contains("status="), "{forgotten}");
    assert!(!(resolved + &forgotten).contains("SECRET"));
}

/// The server drops the future of a request whose client has disconnected, but the store may apply the change.
#[tokio::test(start_paused = true)]
async fn a_change_is_logged_also_when_its_client_disconnects() {
    let store = FaultStore::new(MemoryStore::default());
    let slow = Fault::DelayReply(Duration::from_millis(500));
    store.script(Operation::Forget, [slow]);
    store.script(Operation::Resolve, [slow]);
    let service = Service::of(Idempotency::builder().store(store), |console| console);
    service.prepare().await;
    let version = service.version("SECRET-recorded").await;
    let fence = service.fence("SECRET-unknown").await;
    let log = Log::default();
    let _guard = log.of_this_thread();
    for (key, action, sent) in [
        (
            "SECRET-recorded",
            "forget",
            json!({ "version": version, "reason": "ticket 512" }),
        ),
        ("SECRET-unknown", "resolve", resolution(&fence)),
    ] {
        let path = format!("/ops/idem/api/records/{}/{action}", service.id(key));
        let changing = service.change("admin", &path, &sent);
        let cut_off = tokio::time::timeout(Duration::from_millis(100), changing).await;
        assert!(cut_off.is_err(), "{cut_off:?}");
        assert_eq!(log.take(), "", "the call still runs");
        assert_eq!(service.idem.drain(Duration::from_secs(10)).await, 0);
        let logged = log.take();
        for part in [&format!("action={action:?} "), "is_done=true "] {
            assert!(logged.contains(part), "{part}: {logged}");
        }
    }
}
