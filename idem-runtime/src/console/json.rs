//! Records and figures as the page reads them. Times are milliseconds since 1970.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::request::hex;
use crate::request::record_id::RecordId;
use crate::store::{Count, Entry, Page, Precision, Record, State, Stats, Summary};

pub(super) fn listing(page: Page) -> Value {
    json!({
        "records": page.entries.iter().map(summary).collect::<Vec<_>>(),
        "next": page.next.map(|next| next.to_string()),
    })
}

/// One record, with what a retry would get now.
pub(super) fn entry(id: RecordId, entry: &Entry) -> Value {
    let mut value = summary(&entry.clone().summary(id));
    value["retry_gets"] = json!(match entry {
        Entry::InFlight { .. } =>
            "409 idempotency_key_in_flight. With `in_flight = wait(…)`, the retry waits for the response first.",
        Entry::Unknown { .. } =>
            "409 idempotency_outcome_unknown with `on_unknown = hold`. With `rerun`, the handler runs again.",
        Entry::Recorded { record, .. } if record.is_kept() => "A replay of the response.",
        Entry::Recorded { .. } =>
            "409 idempotency_response_not_kept, because the response was too long or a stream.",
    });
    value
}

/// One record that cannot be read.
pub(super) fn unreadable(found: &Summary) -> Value {
    let mut value = summary(found);
    value["retry_gets"] = json!("503, as long as the record cannot be read.");
    value
}

fn summary(summary: &Summary) -> Value {
    let origin = &summary.origin;
    let mut value = json!({
        "id": summary.id.to_string(),
        "short": summary.id.short().to_string(),
        "scope_id": summary.id.scope_id().to_string(),
        "endpoint": origin.endpoint(),
        "label": origin.label(),
        "trace_id": origin.trace_id().map(|id| id.to_string()),
        "created_at": millis_since_1970(summary.created_at),
    });
    // `version` differs after each attempt and each change, so a decision applies to what the operator has seen.
    let (state, more) = match &summary.state {
        State::InFlight {
            fence,
            attempt,
            lease_left,
        } => (
            "in_flight",
            json!({
                "attempt": attempt,
                "version": format!("in_flight {fence}"),
                "ends_in": millis(*lease_left),
            }),
        ),
        State::Unknown {
            fence,
            attempt,
            retained_for,
        } => (
            "unknown",
            json!({
                "attempt": attempt,
                // A string, because the numbers of a browser lose digits.
                "fence": fence.to_string(),
                "version": format!("unknown {fence}"),
                "ends_in": millis(*retained_for),
            }),
        ),
        State::Recorded {
            status,
            is_kept,
            bytes,
            settled_at,
            expires_in,
        } => (
            "recorded",
            json!({
                "status": status.as_u16(),
                "is_kept": is_kept,
                "bytes": bytes,
                "version": version_of_record(*settled_at),
                "settled_at": millis_since_1970(*settled_at),
                "ends_in": millis(*expires_in),
            }),
        ),
        State::Unreadable(error) => (
            "unreadable",
            json!({ "error": error.to_string(), "version": "unreadable" }),
        ),
    };
    value["state"] = json!(state);
    if let Value::Object(more) = more {
        for (name, of_state) in more {
            value[name] = of_state;
        }
    }
    value
}

/// With nanoseconds, because two records may have the same millisecond.
fn version_of_record(settled_at: SystemTime) -> String {
    let since = settled_at.duration_since(SystemTime::UNIX_EPOCH);
    format!("recorded {}", since.unwrap_or_default().as_nanos())
}

/// The headers of a response without the values of cookies, and its body, from which the service may have removed parts.
pub(super) fn response(record: &Record, body: &[u8]) -> Value {
    let headers = record.headers();
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        // With the cookie, an operator could act as the customer.
        let value = if *name == http::header::SET_COOKIE {
            "(hidden)".into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        format!("{name}: {value}")
    };
    let lines: Vec<String> = headers.iter().map(line).collect();
    let (body, is_text) = if let Ok(text) = std::str::from_utf8(body) {
        (text.to_owned(), true)
    } else {
        let mut digits = String::new();
        // A string takes everything.
        let _ = hex::write(&mut digits, body);
        (digits, false)
    };
    json!({
        "status": record.status().as_u16(),
        "headers": lines,
        "body": body,
        "body_is_text": is_text,
    })
}

pub(super) fn stats(stats: &Stats) -> Value {
    json!({
        "in_flight": count(stats.in_flight),
        "unknown": count(stats.unknown),
        "recorded": count(stats.recorded),
        "bytes": stats.bytes,
        "max_bytes": stats.max_bytes,
    })
}

fn count(count: Count) -> Value {
    let prefix = match count.precision {
        Precision::Exact => "",
        Precision::AtLeast => "at least ",
        Precision::Estimate => "about ",
    };
    json!(format!("{prefix}{}", count.value))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn millis_since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}
