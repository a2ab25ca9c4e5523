//! Handles the GET requests of the page: figures, listings, and one record.

use std::str::FromStr;

use http::StatusCode;
use serde_json::{Value, json};

use super::access::Access;
use super::json::{entry, listing, response, stats, unreadable};
use super::refusal::Refusal;
use super::settings::Console;
use crate::request::record_id::{RecordId, ShortId};
use crate::store::{Cursor, Entry, Query, StateKind, StoreError};

/// How many records the page lists at once.
const LIMIT: usize = 100;

pub(super) async fn get(
    console: &Console,
    access: Access,
    path: &str,
    query: &str,
) -> Result<Value, Refusal> {
    let words: Vec<&str> = path.split('/').collect();
    match words[..] {
        ["api", "overview"] => overview(console, access).await,
        ["api", "records"] => list(console, query).await,
        ["api", "records", id] => {
            let id = id_of(id)?;
            shown(console, id).await
        }
        ["api", "records", id, "response"] => {
            let id = id_of(id)?;
            let found = look_up(console, id).await?;
            let Entry::Recorded { record, .. } = &found else {
                let why = "there is no response".to_owned();
                return Err(Refusal(StatusCode::NOT_FOUND, why));
            };
            let body = record.body();
            let body = match &console.redact {
                Some(redact) => redact(found.origin().endpoint(), body),
                None => body,
            };
            Ok(response(record, &body))
        }
        _ => Err(Refusal(
            StatusCode::NOT_FOUND,
            "there is no such page".to_owned(),
        )),
    }
}

async fn overview(console: &Console, access: Access) -> Result<Value, Refusal> {
    let counted = match console.idem.stats().await {
        Ok(counted) => stats(&counted),
        Err(StoreError::Unsupported) => Value::Null,
        Err(error) => return Err(failed(&error)),
    };
    Ok(json!({
        "access": access.as_str(),
        "running": console.idem.running(),
        "stats": counted,
    }))
}

async fn list(console: &Console, query: &str) -> Result<Value, Refusal> {
    let mut wanted = Query::all().limit(LIMIT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        wanted = match name {
            "state" => wanted.state(state(&value)?),
            "endpoint" => wanted.endpoint(value),
            "short" => wanted.short(parsed::<ShortId>(&value)?),
            "after" => wanted.after(parsed::<Cursor>(&value)?),
            _ => return Err(Refusal::bad(format!("unknown filter `{name}`"))),
        };
    }
    let page = console.idem.list(wanted).await;
    Ok(listing(page.map_err(|error| failed(&error))?))
}

fn state(name: &str) -> Result<StateKind, Refusal> {
    Ok(match name {
        "in_flight" => StateKind::InFlight,
        "unknown" => StateKind::Unknown,
        "recorded" => StateKind::Recorded,
        "unreadable" => StateKind::Unreadable,
        _ => return Err(Refusal::bad("unknown state")),
    })
}

fn parsed<T: FromStr<Err: ToString>>(value: &str) -> Result<T, Refusal> {
    value
        .parse()
        .map_err(|error: T::Err| Refusal::bad(error.to_string()))
}

/// One record as the page shows it. A record that cannot be read is shown too, because it can be forgotten.
pub(super) async fn shown(console: &Console, id: RecordId) -> Result<Value, Refusal> {
    match console.idem.look_up(id).await {
        Ok(Some(found)) => Ok(entry(id, &found)),
        Ok(None) => Err(missing()),
        Err(StoreError::Undecodable(why)) => {
            // Without a state: a store lists a sealed record as recorded before its wrapper finds that a key is missing.
            let mut wanted = Query::all().scope(id.scope_id()).short(id.short());
            loop {
                let page = console.idem.list(wanted.clone()).await;
                let page = page.map_err(|error| failed(&error))?;
                if let Some(found) = page.entries.iter().find(|found| found.id == id) {
                    return Ok(unreadable(found));
                }
                let Some(next) = page.next else {
                    return Err(failed(&StoreError::Undecodable(why)));
                };
                wanted = wanted.after(next);
            }
        }
        Err(error) => Err(failed(&error)),
    }
}

fn missing() -> Refusal {
    let why = "there is no record; it may have expired".to_owned();
    Refusal(StatusCode::NOT_FOUND, why)
}

pub(super) fn id_of(text: &str) -> Result<RecordId, Refusal> {
    parsed(text)
}

pub(super) async fn look_up(console: &Console, id: RecordId) -> Result<Entry, Refusal> {
    let found = console.idem.look_up(id).await;
    found.map_err(|error| failed(&error))?.ok_or_else(missing)
}

pub(super) fn failed(error: &StoreError) -> Refusal {
    let status = match error {
        StoreError::Unsupported => StatusCode::NOT_IMPLEMENTED,
        StoreError::InvalidCursor => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let why = match error {
        // Names the missing sealing key, for example.
        StoreError::Undecodable(why) => format!("{error}: {why}"),
        _ => error.to_string(),
    };
    Refusal(status, why)
}

/// Decodes `%` and `+` of a query. Bytes that are no text become a replacement character.
fn decoded(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = value
            .get(at + 1..at + 3)
            .filter(|_| *byte == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(escaped) = escaped {
            out.push(escaped);
            at += 3;
        } else {
            out.push(if *byte == b'+' { b' ' } else { *byte });
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        for (value, text) in [
            ("desk%3A%3Apay", "desk::pay"),
            ("a+b", "a b"),
            ("gr%C3%B6%C3%9Fe", "größe"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decoded(value), text, "{value}");
        }
    }
}
