//! Commands that change nothing: list, show and find.

use std::io::{Write, stderr, stdout};

use axum_idem::Idempotency;
use axum_idem::store::{Query, StateKind, StoreError, Summary};

use crate::arguments::{Find, List, Show, StateFilter};
use crate::failure::Failure;
use crate::output::entry::{self, summary_json, summary_row, summary_table};
use crate::output::progress::Progress;
use crate::output::text::{print_json, safe_lines};
use crate::records::nothing;
use crate::secrets::input;

pub(crate) async fn list(idem: &Idempotency, list: &List, json: bool) -> Result<(), Failure> {
    let most = if list.all { usize::MAX } else { list.limit };
    let mut query = query(list);
    let mut found: Vec<Summary> = Vec::new();
    let mut listed = 0_usize;
    let mut has_more = false;
    let mut progress = Progress::begin();
    let mut out = stdout().lock();
    while listed < most {
        let page = idem.list(query.clone().limit(most - listed)).await?;
        let room = most - listed;
        has_more = page.entries.len() > room || page.next.is_some();
        for summary in page.entries.into_iter().take(room) {
            listed += 1;
            if json {
                print_json(&mut out, &summary_json(&summary))?;
            } else {
                found.push(summary);
            }
        }
        progress.show(&format!("{listed} records"));
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    drop(progress);
    if !json {
        // Whoever looks for trouble looks for the oldest first.
        found.sort_by_key(|summary| summary.created_at);
        let mut table = summary_table();
        for summary in &found {
            summary_row(&mut table, summary);
        }
        table.print(&mut out)?;
    }
    if has_more {
        let _ = writeln!(
            stderr(),
            "there may be more records; use a filter, `--limit` or `--all`"
        );
    }
    Ok(())
}

fn query(list: &List) -> Query {
    let mut query = Query::all();
    if let Some(state) = list.state {
        query = query.state(match state {
            StateFilter::InFlight => StateKind::InFlight,
            StateFilter::Unknown => StateKind::Unknown,
            StateFilter::Recorded => StateKind::Recorded,
            StateFilter::Unreadable => StateKind::Unreadable,
        });
    }
    if let Some(endpoint) = &list.endpoint {
        query = query.endpoint(endpoint.clone());
    }
    if let Some(scope) = list.scope_id {
        query = query.scope(scope);
    }
    if let Some(age) = list.older_than {
        query = query.older_than(age);
    }
    query
}

pub(crate) async fn show(idem: &Idempotency, show: &Show, json: bool) -> Result<(), Failure> {
    let id = show.record.find(idem).await?;
    match idem.look_up(id).await? {
        Some(entry) => entry::print(&mut stdout().lock(), id, &entry, show.body, json),
        None => Err(nothing(&id.to_string())),
    }
}

pub(crate) async fn find(idem: &Idempotency, find: &Find, json: bool) -> Result<(), Failure> {
    let mut input = input();
    let scope = input.scope(&find.scope.parts)?;
    let keys = input.keys()?;
    let (mut missing, mut unreadable) = (0, 0);
    let mut out = stdout().lock();
    for (number, key) in (1..).zip(&keys) {
        let id = idem.record_id(&scope, key);
        match idem.look_up(id).await {
            Ok(Some(entry)) => entry::print(&mut out, id, &entry, find.body, json)?,
            Ok(None) => {
                missing += 1;
                let _ = writeln!(
                    stderr(),
                    "key {number} has no record; its record would be {id}"
                );
            }
            // The records of the other keys may be readable.
            Err(error @ StoreError::Undecodable(_)) => {
                unreadable += 1;
                let why = Failure::from(error).message().unwrap_or_default();
                let _ = writeln!(
                    stderr(),
                    "key {number} has the record {id}: {}",
                    safe_lines(&why)
                );
            }
            Err(error) => return Err(error.into()),
        }
        if !json && number < keys.len() {
            writeln!(out)?;
        }
    }
    if unreadable > 0 {
        return Err(Failure::Unreadable(format!(
            "{unreadable} of {} keys have a record that cannot be read; {missing} have none",
            keys.len()
        )));
    }
    if missing > 0 {
        return Err(Failure::Nothing(format!(
            "{missing} of {} keys have no record; check the scope, the namespace and the key, which may have expired",
            keys.len()
        )));
    }
    Ok(())
}
