//! Commands about the store as a whole: stats, sweep, schema and doctor.

use std::io::{Write, stdout};

use axum_idem::Idempotency;
use axum_idem::store::{
    Count, DecodeError, Finding, PostgresStore, Precision, Severity, SqliteStore, State, Store,
};
use serde_json::{Value, json};

use crate::arguments::{Database, Shared};
use crate::failure::Failure;
use crate::output::progress::Progress;
use crate::output::table::Table;
use crate::output::text::print_json;
use crate::records::recorded_sample;
use crate::sealing::KEYS;
use crate::stores::Opened;

pub(crate) async fn stats(idem: &Idempotency, json: bool) -> Result<(), Failure> {
    let mut progress = Progress::begin();
    let stats = progress.during("counting", idem.stats()).await?;
    drop(progress);
    let mut out = stdout().lock();
    let counts = [
        ("in_flight", "in flight", stats.in_flight),
        ("unknown", "unknown", stats.unknown),
        ("recorded", "recorded", stats.recorded),
    ];
    if json {
        let mut value = json!({ "bytes": stats.bytes, "max_bytes": stats.max_bytes });
        for (name, _, count) in counts {
            value[name] = count_json(count);
        }
        print_json(&mut out, &value)?;
        return Ok(());
    }
    let mut table = Table::plain();
    for (_, name, count) in counts {
        let text = match count.precision {
            Precision::Exact => count.value.to_string(),
            Precision::AtLeast => format!("{} or more", count.value),
            _ => format!("about {}", count.value),
        };
        table.row([name.to_owned(), text]);
    }
    if let Some(bytes) = stats.bytes {
        let of = stats.max_bytes.map(|max_bytes| format!(" of {max_bytes}"));
        table.row([
            "bytes".to_owned(),
            format!("{bytes}{}", of.unwrap_or_default()),
        ]);
    }
    table.print(&mut out)?;
    Ok(())
}

fn count_json(count: Count) -> Value {
    let precision = match count.precision {
        Precision::Exact => "exact",
        Precision::AtLeast => "at_least",
        _ => "estimate",
    };
    json!({ "value": count.value, "precision": precision })
}

pub(crate) async fn sweep(store: &dyn Store, json: bool) -> Result<(), Failure> {
    let mut removed = 0;
    let mut progress = Progress::begin();
    loop {
        match store.remove_expired().await? {
            0 => break,
            batch => removed += batch,
        }
        progress.show(&format!("{removed} expired records removed"));
    }
    drop(progress);
    let mut out = stdout().lock();
    if json {
        print_json(&mut out, &json!({ "removed": removed }))?;
    } else if store.name() == "redis" {
        writeln!(out, "nothing to do: Redis removes expired records itself")?;
    } else {
        writeln!(out, "{removed} expired records were removed")?;
    }
    Ok(())
}

pub(crate) fn schema(database: Database, shared: &Shared) -> Result<(), Failure> {
    let sql = match database {
        Database::Postgres => {
            let mut builder = PostgresStore::builder();
            if let Some(table) = &shared.table {
                builder = builder.table(table);
            }
            if let Some(schema) = &shared.schema {
                builder = builder.schema(schema);
            }
            builder.schema_sql()
        }
        Database::Sqlite => {
            let mut builder = SqliteStore::builder();
            if let Some(table) = &shared.table {
                builder = builder.table(table);
            }
            builder.schema_sql()
        }
    };
    let sql = sql.map_err(|error| Failure::Usage(error.to_string()))?;
    let mut out = stdout().lock();
    writeln!(out, "{}", sql.trim_end())?;
    Ok(())
}

pub(crate) async fn doctor(opened: &Opened, json: bool) -> Result<(), Failure> {
    let store = &opened.store;
    let mut progress = Progress::begin();
    let mut findings = progress.during("checking", store.diagnose()).await?;
    findings.extend(seal(opened).await?);
    drop(progress);
    report(Some(store.name()), &findings, json)
}

/// Reports a store that its own checks refuse to open, as `doctor` reports its findings.
pub(crate) fn refused(why: &str, json: bool) -> Result<(), Failure> {
    report(None, &[Finding::bad("setup", why.to_owned())], json)
}

/// Prints the findings. The exit code is the verdict, also when the output cannot be written.
fn report(store: Option<&str>, findings: &[Finding], json: bool) -> Result<(), Failure> {
    let worst = findings.iter().map(|finding| finding.severity).max();
    let is_fit = worst < Some(Severity::Bad);
    let printed = print_findings(store, findings, is_fit, json);
    if is_fit { printed } else { Err(Failure::Unfit) }
}

fn print_findings(
    store: Option<&str>,
    findings: &[Finding],
    is_fit: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let mut table = Table::plain();
    let mut all = Vec::new();
    for finding in findings {
        let severity = match finding.severity {
            Severity::Good => "good",
            Severity::Warning => "warning",
            _ => "bad",
        };
        all.push(json!({
            "severity": severity,
            "subject": finding.subject,
            "message": finding.message,
        }));
        table.row([
            severity.to_owned(),
            finding.subject.to_owned(),
            finding.message.clone().into_owned(),
        ]);
    }
    if json {
        let value = json!({ "store": store, "is_fit": is_fit, "findings": all });
        print_json(&mut out, &value)?;
    } else {
        table.print(&mut out)?;
    }
    Ok(())
}

/// Whether the records of a sample open. `None` when nothing is sealed and there are no keys.
async fn seal(opened: &Opened) -> Result<Option<Finding>, Failure> {
    let sample = recorded_sample(&opened.idem).await?;
    let unreadable = sample.iter().filter_map(|entry| match entry.state {
        State::Unreadable(error) => Some(error),
        _ => None,
    });
    let unreadable: Vec<_> = unreadable.collect();
    let (count, all) = (unreadable.len(), sample.len());
    Ok(match unreadable.first() {
        Some(DecodeError::Sealed) => Some(Finding::warning(
            "seal",
            format!(
                "records are sealed; with {KEYS} or `--seal-keys-file`, `doctor` opens some of them"
            ),
        )),
        Some(error) => Some(Finding::bad(
            "seal",
            format!("{count} of {all} records cannot be replayed: {error}"),
        )),
        None if opened.primary.is_some() => Some(Finding::good(
            "seal",
            format!("each of {all} records opens"),
        )),
        None => None,
    })
}
