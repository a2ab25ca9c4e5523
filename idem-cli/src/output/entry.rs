//! Shows records.

use std::fmt::Write as _;
use std::io::Write;
use std::time::SystemTime;

use axum_idem::RecordId;
use axum_idem::store::{Entry, Origin, Record, State, Summary};
use serde_json::{Map, Value, json};

use super::table::Table;
use super::text::print_json;
use super::time::{age, short, timestamp};
use crate::failure::Failure;

/// The name of a state, in tables and in JSON.
pub(crate) fn state_name(state: &State) -> &'static str {
    match state {
        State::InFlight { .. } => "in-flight",
        State::Unknown { .. } => "unknown",
        State::Recorded { .. } => "recorded",
        State::Unreadable(_) => "unreadable",
        _ => "other",
    }
}

/// One record of a listing.
pub(crate) fn summary_json(summary: &Summary) -> Value {
    let mut object = common(summary.id, &summary.origin, summary.created_at);
    object.insert("state".into(), state_name(&summary.state).into());
    match &summary.state {
        State::InFlight {
            fence,
            attempt,
            lease_left,
        } => {
            object.insert("fence".into(), json!(fence));
            object.insert("attempt".into(), json!(attempt));
            object.insert("lease_left_ms".into(), millis(*lease_left));
        }
        State::Unknown {
            fence,
            attempt,
            retained_for,
        } => {
            object.insert("fence".into(), json!(fence));
            object.insert("attempt".into(), json!(attempt));
            object.insert("retained_for_ms".into(), millis(*retained_for));
        }
        State::Recorded {
            status,
            is_kept,
            bytes,
            settled_at,
            expires_in,
        } => {
            object.insert("status".into(), json!(status.as_u16()));
            object.insert("response_is_kept".into(), json!(is_kept));
            object.insert("record_bytes".into(), json!(bytes));
            object.insert("settled_at".into(), json!(timestamp(*settled_at)));
            object.insert("expires_in_ms".into(), millis(*expires_in));
        }
        State::Unreadable(error) => {
            object.insert("error".into(), json!(error.to_string()));
        }
        _ => {}
    }
    Value::Object(object)
}

pub(crate) fn summary_table() -> Table {
    Table::new([
        "RECORD", "STATE", "AGE", "ENDS IN", "STATUS", "ATTEMPT", "ENDPOINT", "LABEL",
    ])
}

pub(crate) fn summary_row(table: &mut Table, summary: &Summary) {
    let (ends_in, status, attempt) = match &summary.state {
        State::InFlight {
            attempt,
            lease_left,
            ..
        } => (short(*lease_left), String::new(), attempt.to_string()),
        State::Unknown {
            attempt,
            retained_for,
            ..
        } => (short(*retained_for), String::new(), attempt.to_string()),
        State::Recorded {
            status, expires_in, ..
        } => (
            short(*expires_in),
            status.as_u16().to_string(),
            String::new(),
        ),
        _ => Default::default(),
    };
    table.row([
        summary.id.short().to_string(),
        state_name(&summary.state).to_owned(),
        age(summary.created_at),
        ends_in,
        status,
        attempt,
        summary.origin.endpoint().to_owned(),
        summary.origin.label().unwrap_or_default().to_owned(),
    ]);
}

/// One record with everything that is known. `with_body` shows the values of the headers and the body.
pub(crate) fn print(
    out: &mut impl Write,
    id: RecordId,
    entry: &Entry,
    with_body: bool,
    as_json: bool,
) -> Result<(), Failure> {
    let summary = entry.clone().summary(id);
    let retry = next_retry(entry);
    if as_json {
        let mut value = summary_json(&summary);
        if let Value::Object(object) = &mut value {
            object.insert("retry_gets".into(), json!(retry));
            if let Entry::Recorded { record, .. } = entry {
                object.insert("response".into(), response_json(record, with_body));
            }
        }
        print_json(out, &value)?;
        return Ok(());
    }
    let mut table = Table::plain();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("record", id.to_string());
    row("in the log", id.short().to_string());
    row("scope id", id.scope_id().to_string());
    row("state", state_name(&summary.state).to_owned());
    row("endpoint", summary.origin.endpoint().to_owned());
    if let Some(label) = summary.origin.label() {
        row("label", label.to_owned());
    }
    if let Some(trace) = summary.origin.trace_id() {
        row("first trace", trace.to_string());
    }
    row("created", when(summary.created_at));
    match entry {
        Entry::InFlight {
            fence,
            attempt,
            lease_left,
            ..
        } => {
            row("attempt", format!("{attempt}, fence {fence}"));
            row("lease ends in", short(*lease_left));
        }
        Entry::Unknown {
            fence,
            attempt,
            retained_for,
            ..
        } => {
            row("attempt", format!("{attempt}, fence {fence}"));
            row("remembered for", short(*retained_for));
        }
        Entry::Recorded {
            record,
            expires_in,
            settled_at,
            ..
        } => {
            row("settled", when(*settled_at));
            row("expires in", short(*expires_in));
            row("status", record.status().to_string());
            for (name, value) in &record.headers() {
                let value = if with_body {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                } else {
                    "(hidden)".to_owned()
                };
                row("header", format!("{name}: {value}"));
            }
            let body = record.body();
            row("body", format!("{} bytes", body.len()));
            if with_body && !body.is_empty() {
                row("", String::from_utf8_lossy(&body).into_owned());
            }
        }
        _ => {}
    }
    row("a retry gets", retry.to_owned());
    table.print(out)?;
    Ok(())
}

/// The response to the next request with the same key and the same content.
fn next_retry(entry: &Entry) -> &'static str {
    match entry {
        Entry::InFlight { .. } => {
            "409 idempotency_key_in_flight; with `in_flight = wait(…)`, the retry waits for the response first"
        }
        Entry::Unknown { .. } => {
            "409 idempotency_outcome_unknown with `on_unknown = hold`; with `rerun`, the handler runs again"
        }
        Entry::Recorded { record, .. } if record.is_kept() => "a replay of the response",
        Entry::Recorded { .. } => {
            "409 idempotency_response_not_kept, because the response was too long or a stream"
        }
        _ => "unknown to this version of the program",
    }
}

fn common(id: RecordId, origin: &Origin, created_at: SystemTime) -> Map<String, Value> {
    let object = json!({
        "id": id.to_string(),
        "short_id": id.short().to_string(),
        "scope_id": id.scope_id().to_string(),
        "endpoint": origin.endpoint(),
        "label": origin.label(),
        "first_trace_id": origin.trace_id().map(|id| id.to_string()),
        "created_at": timestamp(created_at),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn response_json(record: &Record, with_body: bool) -> Value {
    let headers = record.headers();
    let body = record.body();
    let mut response = json!({
        "status": record.status().as_u16(),
        "is_kept": record.is_kept(),
        "body_bytes": body.len(),
    });
    if with_body {
        let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
        };
        response["headers"] = headers.iter().map(pair).collect();
        match std::str::from_utf8(&body) {
            Ok(text) => response["body"] = json!(text),
            Err(_) => response["body_hex"] = json!(hex(&body)),
        }
    } else {
        let names = headers.keys().map(|name| json!(name.as_str()));
        response["header_names"] = names.collect();
    }
    response
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        // A string takes everything.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn when(at: SystemTime) -> String {
    format!("{} ({} ago)", timestamp(at), age(at))
}

fn millis(duration: std::time::Duration) -> Value {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json!(millis)
}
