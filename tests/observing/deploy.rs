//! The dashboard, the alerts and the documents name metrics and alerts that exist.
//!
//! `deploy/check` evaluates them with a real Prometheus, which the gate does not need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).expect("a readable file")
}

/// The names of metrics in a text, without the endings of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| {
        let ends = [
            "_total", "_seconds", "_bytes", "_running", "_bucket", "_count",
        ];
        word.starts_with("idempotency_") && ends.iter().any(|end| word.ends_with(end))
    };
    let base = |word: &str| {
        let word = word.strip_suffix("_bucket").unwrap_or(word);
        word.strip_suffix("_seconds_count").map_or_else(
            || word.to_owned(),
            |histogram| format!("{histogram}_seconds"),
        )
    };
    words.filter(is_metric).map(base).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let documented = names(&read("idem-runtime/src/metrics/mod.rs"));
    let registered = names(&read("idem-runtime/src/metrics/names.rs"));
    assert_eq!(documented, registered);
    assert_eq!(names(&read("deploy/grafana/axum-idem.json")), registered);
    let alerts = names(&read("deploy/prometheus/alerts.yml"));
    assert!(
        !alerts.is_empty() && alerts.is_subset(&registered),
        "{alerts:?}"
    );
}

#[test]
fn the_dashboard_has_no_fixed_data_source() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/axum-idem.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
}

#[test]
fn each_alert_says_what_to_do_and_has_a_test() {
    let (alerts, document) = (
        read("deploy/prometheus/alerts.yml"),
        read("docs/operations.md"),
    );
    let tests = read("deploy/prometheus/alerts_test.yml");
    let names: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    let section = document
        .split("\n## ")
        .find(|it| it.starts_with("Alerts\n"));
    let section = section.expect("a section about alerts").lines();
    let documented = section.filter_map(|line| line.strip_prefix("### "));
    let documented: BTreeSet<_> = documented.collect();
    assert_eq!(documented, names.iter().copied().collect());
    for name in names {
        let anchor = format!("operations.md#{}\n", name.to_lowercase());
        assert!(alerts.contains(&anchor), "{name} has no runbook");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
        let quiet = format!("alertname: {name}, exp_alerts: []");
        assert!(tests.contains(&quiet), "{name} is not tested to be quiet");
    }
}
