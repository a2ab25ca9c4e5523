//! The log of changes.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, Once};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum_idem::console::Console;
use axum_idem::store::MemoryStore;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Idempotency, Scope};
use serde_json::json;
use tower::ServiceExt;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::service::access;

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
    let idem = Idempotency::builder().store(store).build();
    let id = idem.record_id(&Scope::new(), "k");
    let router: Router = Console::new(idem, access).router();
    for _ in 0..2 {
        let request = Request::post(format!("/api/records/{id}/forget"))
            .header("x-operator", "admin")
            .header("content-type", "application/json")
            .header("sec-fetch-site", "same-origin")
            .body(Body::from(json!({ "reason": "ticket 512" }).to_string()));
        let sent = router.clone().oneshot(request.expect("a request"));
        let log = Log::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        let reply = sent.with_subscriber(subscriber).await.expect("infallible");
        assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
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
