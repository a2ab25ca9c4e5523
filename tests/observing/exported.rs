//! The metrics as an exporter for Prometheus shows them.

use std::future::Future;
use std::time::Duration;

use axum_idem::metrics::{BUCKETS, Metrics};
use axum_idem::testing::Fault::ErrBefore;
use axum_idem::testing::Operation;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::service::Service;

/// Runs `scene` with a recorder of its own, and returns the exported text.
fn exported(scene: impl Future<Output = ()>) -> String {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in BUCKETS {
        let name = Matcher::Full(name.to_owned());
        builder = builder
            .set_buckets_for_metric(name, buckets)
            .expect("there are buckets");
    }
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&recorder, || runtime.block_on(scene));
    handle.render()
}

/// The value of the only sample whose line begins with this name and contains each label.
fn sample<'a>(text: &'a str, name: &str, labels: &[&str]) -> &'a str {
    let mut lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    let line = lines
        .next()
        .unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"));
    assert_eq!(lines.next(), None, "{name} {labels:?}");
    line.rsplit_once(' ').expect("a value").1
}

#[test]
fn each_metric_is_exported_with_its_labels_and_without_secrets() {
    let text = exported(async {
        let service = Service::new(|builder| builder.observer(Metrics::default()));
        for (key, body) in [
            ("SECRET-k", "1"),
            ("SECRET-k", "1"),
            ("SECRET-k", "SECRET-body"),
            ("SECRET-b", "busy"),
            ("SECRET-u", "unknown"),
            ("SECRET,x", "1"),
        ] {
            service.send("/pay", key, body).await;
        }
        service.send("/hold", "k", "").await;
        service.send("/hold", "k", "").await;
        service.store.script(Operation::Claim, [ErrBefore; 3]);
        service.send("/pay", "SECRET-e", "1").await;
        service.store.script(Operation::Complete, [ErrBefore]);
        service.send("/pay", "SECRET-late", "1").await;
        service.idem.drain(Duration::from_secs(300)).await;
    });
    let pay = "endpoint=\"observing::service::pay\"";
    for (outcome, count) in [
        ("fresh", "4"),
        ("replayed", "1"),
        ("mismatch", "1"),
        ("refused", "1"),
        ("store_error", "1"),
        // Registered before the first one, so that the first one is an increase.
        ("unknown", "0"),
        ("full", "0"),
    ] {
        let outcome_label = format!("outcome=\"{outcome}\"");
        let labels = [pay, &outcome_label];
        assert_eq!(
            sample(&text, "idempotency_requests_total", &labels),
            count,
            "{outcome}"
        );
    }
    for (end, count) in [
        ("recorded", "2"),
        ("released", "1"),
        ("unknown", "1"),
        ("overtaken", "0"),
    ] {
        let end_label = format!("end=\"{end}\"");
        let labels = [pay, &end_label];
        assert_eq!(
            sample(&text, "idempotency_attempts_total", &labels),
            count,
            "{end}"
        );
    }
    let hold = "endpoint=\"observing::service::hold\"";
    let is_held = [hold, "outcome=\"unknown\""];
    assert_eq!(sample(&text, "idempotency_requests_total", &is_held), "1");
    assert_eq!(
        sample(&text, "idempotency_unrecorded_responses_total", &[pay]),
        "1"
    );
    let durations = "idempotency_attempt_duration_seconds_count";
    assert_eq!(sample(&text, durations, &[pay]), "4");
    for place in ["place=\"request\"", "place=\"background\""] {
        assert_eq!(sample(&text, "idempotency_attempts_running", &[place]), "0");
    }
    let store = "store=\"memory\"";
    let shortest = [store, "operation=\"claim\"", "le=\"0.0001\""];
    sample(
        &text,
        "idempotency_store_duration_seconds_bucket",
        &shortest,
    );
    let errors = [store, "operation=\"claim\"", "kind=\"unavailable\""];
    assert_eq!(
        sample(&text, "idempotency_store_errors_total", &errors),
        "3"
    );
    assert_ne!(sample(&text, "idempotency_replayed_bytes_total", &[]), "0");
    assert_ne!(sample(&text, "idempotency_recorded_bytes_total", &[]), "0");
    assert_ne!(sample(&text, "idempotency_store_bytes", &[store]), "0");
    assert_ne!(
        sample(&text, "idempotency_store_limit_bytes", &[store]),
        "0"
    );
    assert!(!text.contains("SECRET"), "{text}");
    // The values of the labels are in quotes. A record id has at least 12 digits, also when it is short.
    for value in text.split('"').skip(1).step_by(2) {
        let runs = value.split(|c: char| !c.is_ascii_hexdigit());
        let longest = runs.map(str::len).max();
        assert!(longest < Some(12), "an id in a label: {value}");
    }
}
