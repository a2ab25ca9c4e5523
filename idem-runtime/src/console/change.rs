//! Handles the POST requests of the page: a search by key, and changes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::access::Access;
use super::api::{id_of, shown};
use super::audit::{Change, Decision, Resolution, carry_out};
use super::refusal::Refusal;
use super::settings::Console;
use crate::request::record_id::RecordId;
use crate::request::scope::Scope;
use crate::store::Entry;

pub(super) async fn post(
    console: &Console,
    access: Access,
    path: &str,
    sent: &Value,
) -> Result<Value, Refusal> {
    let words: Vec<&str> = path.split('/').collect();
    match words[..] {
        ["api", "find"] => find(console, sent).await,
        ["api", "records", id, change @ ("resolve" | "forget")] => {
            if access != Access::Full {
                let why = "you may not change records".to_owned();
                return Err(Refusal(StatusCode::FORBIDDEN, why));
            }
            let (id, reason) = (id_of(id)?, text(sent, "reason")?);
            if reason.trim().is_empty() {
                return Err(Refusal::bad("say why"));
            }
            if change == "resolve" {
                resolve(console, id, sent, reason).await
            } else {
                forget(console, id, sent, reason).await
            }
        }
        _ => Err(Refusal(
            StatusCode::NOT_FOUND,
            "there is no such page".to_owned(),
        )),
    }
}

/// Finds the record of a key. A POST, because an URL ends up in logs.
async fn find(console: &Console, sent: &Value) -> Result<Value, Refusal> {
    let parts = sent["scope"].as_array().map(Vec::as_slice);
    let mut scope = Scope::new();
    for part in parts.unwrap_or_default() {
        let value = text(part, "value")?;
        scope = match text(part, "kind")? {
            "token" => scope.token(value),
            "header" => scope.header(text(part, "name")?, value),
            "value" => scope.value(value),
            _ => return Err(Refusal::bad("unknown part of a scope")),
        };
    }
    let id = console.idem.record_id(&scope, text(sent, "key")?);
    shown(console, id).await
}

async fn resolve(
    console: &Console,
    id: RecordId,
    sent: &Value,
    reason: &str,
) -> Result<Value, Refusal> {
    let status = sent["status"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| Refusal::bad("`status` is a number from 200 to 599"))?;
    let ttl = sent["ttl_seconds"]
        .as_u64()
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| Refusal::bad("`ttl_seconds` is a number from 1"))?;
    let body = Bytes::from(text(sent, "body")?.to_owned());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for line in text(sent, "headers")?
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        let (name, value) = header(line)?;
        response.headers_mut().append(name, value);
    }
    // A string, because the numbers of a browser lose digits.
    let fence = text(sent, "fence")?
        .parse()
        .map_err(|_| Refusal::bad("`fence` is the fence of the record"))?;
    let change = Change {
        id,
        reason: reason.to_owned(),
        decision: Decision::Resolve(Resolution {
            fence,
            status: status.as_u16(),
            ttl_seconds: ttl,
            body_bytes: response.body().len(),
        }),
    };
    let (idem, ttl) = (console.idem.clone(), Duration::from_secs(ttl));
    let call = async move { idem.resolve_attempt(id, fence, response, ttl).await };
    if !carry_out(&console.idem, change, call).await? {
        return Err(Refusal(StatusCode::CONFLICT, unresolved(console, id).await));
    }
    Ok(json!({ "done": true }))
}

/// Says why a decision had no effect.
async fn unresolved(console: &Console, id: RecordId) -> String {
    let why = match console.idem.look_up(id).await {
        Ok(Some(Entry::Unknown { .. })) => {
            "another attempt has run since the record was shown, and its outcome is unknown too; open the record again"
        }
        Ok(Some(Entry::InFlight { .. })) => "the handler runs again",
        Ok(None) => "there is no record any more",
        Ok(Some(Entry::Recorded { .. })) | Err(_) => "the outcome is known by now",
    };
    format!("nothing was changed, because {why}")
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), Refusal> {
    let wrong = || Refusal::bad("write each header as `name: value`");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = value.trim().parse().map_err(|_| wrong())?;
    Ok((name, value))
}

/// Forgets what the operator has seen. A `forget` of the store has no fence, so a change in the milliseconds between
/// the look-up and the removal goes unnoticed.
async fn forget(
    console: &Console,
    id: RecordId,
    sent: &Value,
    reason: &str,
) -> Result<Value, Refusal> {
    let version = text(sent, "version")?;
    let now = shown(console, id).await?;
    if now["version"] != version {
        let why = "nothing was changed, because the record has changed since it was shown; open the record again";
        return Err(Refusal(StatusCode::CONFLICT, why.to_owned()));
    }
    let change = Change {
        id,
        reason: reason.to_owned(),
        decision: Decision::Forget {
            seen: version.to_owned(),
        },
    };
    let idem = console.idem.clone();
    let call = async move { idem.forget(id).await };
    if !carry_out(&console.idem, change, call).await? {
        let why = "there is no record any more".to_owned();
        return Err(Refusal(StatusCode::NOT_FOUND, why));
    }
    Ok(json!({ "done": true }))
}

fn text<'a>(sent: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    sent[name]
        .as_str()
        .ok_or_else(|| Refusal::bad(format!("`{name}` is missing")))
}
