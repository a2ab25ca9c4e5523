//! Commands that change records: resolve, forget and forget-scope.

use std::fmt;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::time::SystemTime;

use axum_idem::store::{DecodeError, Entry, State, StoreError, Summary};
use axum_idem::{Idempotency, RecordId};
use bytes::Bytes;
use http::Response;
use serde_json::json;

use crate::arguments::{Forget, ForgetScope, Resolve};
use crate::audit::Log;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::text::print_json;
use crate::output::time::timestamp;
use crate::records::{nothing, recorded_sample};
use crate::sealing::KEYS;
use crate::secrets::input;
use crate::stores::Opened;

pub(crate) async fn resolve(opened: &Opened, resolve: &Resolve, json: bool) -> Result<(), Failure> {
    let idem = &opened.idem;
    let mut log = Log::open(&resolve.audit)?;
    refuse_the_wrong_seal(opened).await?;
    let id = resolve.record.find(idem).await?;
    let mut response = Response::new(body(resolve)?);
    *response.status_mut() = resolve.status;
    for (name, value) in &resolve.headers {
        response.headers_mut().append(name, value.clone());
    }
    let fence = match resolve.fence {
        Some(fence) => fence,
        None => confirmed_fence(idem, id, resolve).await?,
    };
    let decision = json!({
        "fence": fence,
        "status": resolve.status.as_u16(),
        "ttl_seconds": resolve.ttl.as_secs(),
        "body_bytes": response.body().len(),
    });
    let call = log.begin("resolve", id.to_string(), decision)?;
    let resolved = idem.resolve_attempt(id, fence, response, resolve.ttl).await;
    let logged = log.end(call, outcome(&resolved));
    let is_done = resolved?;
    logged?;
    if !is_done {
        return Err(unresolved(id, idem.look_up(id).await?.as_ref()));
    }
    let mut out = stdout().lock();
    if json {
        print_json(&mut out, &json!({ "resolved": id.to_string() }))?;
    } else {
        writeln!(out, "resolved {id}: retries get {}", resolve.status)?;
    }
    Ok(())
}

/// Shows the attempt whose outcome is unknown, and returns its fence when the operator confirms. The fence is that of the
/// attempt that was shown: another one may run while the operator reads.
async fn confirmed_fence(
    idem: &Idempotency,
    id: RecordId,
    resolve: &Resolve,
) -> Result<u64, Failure> {
    let entry = idem.look_up(id).await?;
    let Some(Entry::Unknown { fence, attempt, .. }) = entry else {
        return Err(unresolved(id, entry.as_ref()));
    };
    let question = format!(
        "The outcome of attempt {attempt} (fence {fence}) of {id} is unknown. Shall its retries get {}?",
        resolve.status
    );
    confirm(&question, &format!("--fence {fence}"))?;
    Ok(fence)
}

/// Why a decision has no effect on this entry.
fn unresolved(id: RecordId, entry: Option<&Entry>) -> Failure {
    match entry {
        None => nothing(&id.to_string()),
        Some(Entry::Unknown { fence, attempt, .. }) => Failure::Nothing(format!(
            "{id} was not changed, because the fence is not that of its last attempt: attempt {attempt} with fence {fence} has \
             an unknown outcome; find out what that attempt did"
        )),
        Some(_) => Failure::Nothing(format!(
            "{id} was not changed, because its outcome is not unknown; see `idem show {id}`"
        )),
    }
}

/// Refuses to write a response that the service could not open: one that is not sealed when the others are, one that is
/// sealed when the others are not, and one that is sealed with a key that has sealed none of the others. Looks at a sample,
/// because a store may have many records.
async fn refuse_the_wrong_seal(opened: &Opened) -> Result<(), Failure> {
    // The primary key seals the response. Another key that opens records may be unknown to the service.
    let sample = recorded_sample(opened.primary.as_ref().unwrap_or(&opened.idem)).await?;
    let has = |wrong| {
        let is_wrong = |entry: &Summary| entry.state == State::Unreadable(wrong);
        sample.iter().any(is_wrong)
    };
    if opened.primary.is_none() {
        return if has(DecodeError::Sealed) {
            Err(Failure::Usage(format!(
                "nothing was changed, because the store has sealed records, and the service could not replay an unsealed one; \
                 set {KEYS}, or use `--seal-keys-file`"
            )))
        } else {
            Ok(())
        };
    }
    if has(DecodeError::NotSealed) && !opened.reads_unsealed {
        return Err(Failure::Usage(
            "nothing was changed, because the store has records that are not sealed: leave the sealing keys out when the service \
             has no `Sealed` store, and add `--read-unsealed` when it reads unsealed records"
                .into(),
        ));
    }
    let opens = |entry: &Summary| matches!(entry.state, State::Recorded { .. });
    let is_sealed = |entry: &Summary| entry.state != State::Unreadable(DecodeError::NotSealed);
    if sample.iter().any(is_sealed) && !sample.iter().any(opens) {
        return Err(Failure::Usage(
            "nothing was changed, because the primary sealing key opens none of the records that were checked, so the service \
             may not open a response that it seals. Put a key first with which the service has sealed records: after a \
             rotation, that is the old key until there are records under the new key"
                .into(),
        ));
    }
    Ok(())
}

fn body(resolve: &Resolve) -> Result<Bytes, Failure> {
    let Some(path) = &resolve.body_file else {
        return Ok(Bytes::new());
    };
    let read = if path.as_os_str() == "-" {
        let mut body = Vec::new();
        stdin().lock().read_to_end(&mut body).map(|_| body)
    } else {
        std::fs::read(path)
    };
    read.map(Bytes::from)
        .map_err(|error| Failure::Usage(format!("the body cannot be read: {error}")))
}

pub(crate) async fn forget(idem: &Idempotency, forget: &Forget, json: bool) -> Result<(), Failure> {
    let mut log = Log::open(&forget.audit)?;
    let mut ids = Vec::new();
    for record in &forget.records {
        ids.push(record.find(idem).await?);
    }
    ids.sort();
    ids.dedup();
    let mut shown = Vec::new();
    for id in &ids {
        let seen = Seen::of(idem, *id).await?;
        let what = match seen {
            Seen::Nothing => return Err(nothing(&id.to_string())),
            Seen::InFlight(_) => "its handler still runs, and a retry would start a second run",
            Seen::Unknown(_) => "its outcome is unknown, and a retry would run the handler again",
            Seen::Recorded(_) => "it has a response, and a retry would run the handler again",
            Seen::Unreadable => "it cannot be read, and a retry would run the handler",
        };
        let _ = writeln!(stderr(), "{id}: {what}");
        shown.push((*id, seen));
    }
    if !forget.yes {
        confirm(&format!("Forget {} records?", ids.len()), "--yes")?;
        // Another attempt may have run while the operator was asked.
        for (id, seen) in &shown {
            if Seen::of(idem, *id).await? != *seen {
                return Err(Failure::Nothing(format!(
                    "nothing was changed, because {id} has changed since it was shown; see `idem show {id}`"
                )));
            }
        }
    }
    let mut gone = 0;
    for (id, seen) in &shown {
        let call = log.begin(
            "forget",
            id.to_string(),
            json!({ "seen": seen.to_string() }),
        )?;
        let forgotten = idem.forget(*id).await;
        let logged = log.end(call, outcome(&forgotten));
        gone += u64::from(!forgotten?);
        logged?;
    }
    report(ids.len() as u64 - gone, json)?;
    if gone > 0 {
        return Err(Failure::Nothing(format!(
            "{gone} records were already gone"
        )));
    }
    Ok(())
}

/// What an operator has seen of a record. It differs after each attempt and each change.
#[derive(PartialEq)]
enum Seen {
    Nothing,
    /// With the fence.
    InFlight(u64),
    /// With the fence.
    Unknown(u64),
    /// With the time at which it was recorded.
    Recorded(SystemTime),
    /// It can still be forgotten.
    Unreadable,
}

/// As the audit log shows it.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::InFlight(fence) => write!(f, "in flight, fence {fence}"),
            Self::Unknown(fence) => write!(f, "unknown, fence {fence}"),
            Self::Recorded(at) => write!(f, "recorded at {}", timestamp(*at)),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

impl Seen {
    async fn of(idem: &Idempotency, id: RecordId) -> Result<Self, Failure> {
        Ok(match idem.look_up(id).await {
            Ok(None) => Self::Nothing,
            Ok(Some(Entry::InFlight { fence, .. })) => Self::InFlight(fence),
            Ok(Some(Entry::Unknown { fence, .. })) => Self::Unknown(fence),
            Ok(Some(Entry::Recorded { settled_at, .. })) => Self::Recorded(settled_at),
            Ok(Some(other)) => Self::Recorded(other.created_at()),
            Err(StoreError::Undecodable(_)) => Self::Unreadable,
            Err(error) => return Err(error.into()),
        })
    }
}

pub(crate) async fn forget_scope(
    idem: &Idempotency,
    forget: &ForgetScope,
    json: bool,
) -> Result<(), Failure> {
    let mut log = Log::open(&forget.audit)?;
    let scope = input().scope(&forget.scope.parts)?;
    let id = idem.scope_id(&scope);
    if !forget.yes {
        let question = format!(
            "Forget every record of the scope {id}? A retry of any of them runs its handler again."
        );
        confirm(&question, "--yes")?;
    }
    let call = log.begin("forget-scope", id.to_string(), json!({}))?;
    let mut progress = Progress::begin();
    let forgotten = progress
        .during("forgetting the scope", idem.forget_scope(&scope))
        .await;
    drop(progress);
    let result = match &forgotten {
        Ok(count) => format!("{count} records"),
        Err(_) => "failed; some records may have been removed".to_owned(),
    };
    let logged = log.end(call, &result);
    let forgotten = forgotten?;
    logged?;
    report(forgotten, json)?;
    if forgotten == 0 {
        return Err(Failure::Nothing(format!(
            "the scope {id} has no records; check its parts and the namespace"
        )));
    }
    Ok(())
}

fn report(forgotten: u64, json: bool) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if json {
        print_json(&mut out, &json!({ "forgotten": forgotten }))?;
    } else {
        writeln!(out, "{forgotten} records were forgotten")?;
    }
    Ok(())
}

/// What the audit log says about a call.
fn outcome<E>(result: &Result<bool, E>) -> &'static str {
    match result {
        Ok(true) => "done",
        Ok(false) => "no effect",
        Err(_) => "failed; it may have taken effect",
    }
}
