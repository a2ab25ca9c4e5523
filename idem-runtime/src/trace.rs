//! Logs one event for each decision, and records the decision in the span of the handler.

use std::error::Error;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Span};

use crate::observe::Outcome;
pub(crate) use crate::observe::TARGET;
use crate::request::record_id::RecordId;
use crate::request::trace_context::TraceId;

/// The fields of an event above DEBUG.
///
/// Each event macro of `tracing` compiles to 2 kB of machine code, so all these events share three of them.
#[derive(Default)]
pub(crate) struct Event<'a> {
    pub(crate) endpoint: Option<&'static str>,
    pub(crate) record: Option<&'a RecordId>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) error: Option<&'a (dyn Error + 'static)>,
}

macro_rules! log {
    ($event:expr, $macro:ident, $message:expr) => {{
        let Event {
            endpoint,
            record,
            outcome,
            error,
        } = $event;
        tracing::$macro!(
            target: TARGET,
            endpoint,
            outcome = outcome.map(Outcome::as_str),
            record = record.map(RecordId::short).map(tracing::field::display),
            error,
            "{}",
            $message
        );
    }};
}

impl Event<'_> {
    pub(crate) fn error(self, message: &str) {
        log!(self, error, message);
    }

    pub(crate) fn warn(self, message: &str) {
        log!(self, warn, message);
    }

    pub(crate) fn info(self, message: &str) {
        log!(self, info, message);
    }
}

/// Logs a decision, and records the field `outcome` in the current span if the span has this field.
///
/// The level is DEBUG, except for a decision that an operator should see: a key that is held for an operator
/// and a full store are a WARN.
pub(crate) fn decided(endpoint: &'static str, id: Option<&RecordId>, outcome: Outcome) {
    if !is_anybody_listening() {
        return;
    }
    Span::current().record("outcome", outcome.as_str());
    match outcome {
        Outcome::Unknown => {
            Event {
                endpoint: Some(endpoint),
                outcome: Some(outcome),
                record: id,
                ..Event::default()
            }
            .warn(
                "a request was refused, because the outcome of its key is unknown and the key is held for \
                 an operator",
            );
        }
        Outcome::Full => {
            Event {
                endpoint: Some(endpoint),
                outcome: Some(outcome),
                record: id,
                ..Event::default()
            }
            .warn("a request was refused, because the store is full");
        }
        _ => report(endpoint, id, outcome),
    }
}

/// Logs that a handler runs, although an earlier attempt of the same key has left no outcome. At INFO, because the effect of
/// that attempt may have happened, and no metric tells this run from a first run.
pub(crate) fn runs_again(endpoint: &'static str, id: &RecordId) {
    if is_anybody_listening() {
        let outcome = Outcome::Fresh;
        Span::current().record("outcome", outcome.as_str());
        Event {
            endpoint: Some(endpoint),
            outcome: Some(outcome),
            record: Some(id),
            ..Event::default()
        }
        .info("a handler runs again, because the outcome of an earlier attempt is unknown");
    }
}

/// Logs that the store failed to process a claim, and what the request gets.
pub(crate) fn store_failed(
    endpoint: &'static str,
    id: &RecordId,
    outcome: Outcome,
    error: &(dyn Error + 'static),
) {
    if is_anybody_listening() {
        Span::current().record("outcome", outcome.as_str());
        Event {
            endpoint: Some(endpoint),
            outcome: Some(outcome),
            record: Some(id),
            error: Some(error),
        }
        .warn("a key could not be claimed in the store");
    }
}

/// Logs a replay, and links the current span to the trace that made the response: records the fields `outcome`
/// and `first_trace_id`, if the span has them.
pub(crate) fn replayed(endpoint: &'static str, id: &RecordId, first: Option<TraceId>) {
    if !is_anybody_listening() {
        return;
    }
    let outcome = Outcome::Replayed.as_str();
    let first_trace_id = first.map(tracing::field::display);
    let span = Span::current();
    span.record("outcome", outcome);
    if let Some(first) = &first_trace_id {
        span.record("first_trace_id", first);
    }
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        let record = tracing::field::display(id.short());
        tracing::debug!(target: TARGET, endpoint, outcome, record, first_trace_id);
    }
}

/// Returns the current span, or no span if no subscriber is installed.
pub(crate) fn current_span() -> Span {
    if is_anybody_listening() {
        Span::current()
    } else {
        Span::none()
    }
}

/// Checked first, because looking up the span or the subscriber costs more than this check.
fn is_anybody_listening() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}

/// Logs the end of an attempt. An unknown outcome is an INFO.
pub(crate) fn ended(endpoint: &'static str, id: &RecordId, outcome: Outcome) {
    if outcome == Outcome::Unknown {
        Event {
            endpoint: Some(endpoint),
            outcome: Some(outcome),
            record: Some(id),
            ..Event::default()
        }
        .info("an attempt ended, and nobody knows whether its effect happened");
    } else {
        report(endpoint, Some(id), outcome);
    }
}

fn report(endpoint: &'static str, id: Option<&RecordId>, outcome: Outcome) {
    if tracing::enabled!(target: TARGET, Level::DEBUG) {
        let record = id.map(RecordId::short).map(tracing::field::display);
        tracing::debug!(target: TARGET, endpoint, outcome = outcome.as_str(), record);
    }
}
