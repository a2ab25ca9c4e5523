//! Which errors are transient, and the messages of the other errors.

use std::borrow::Cow;
use std::io;

use sqlx::Error;

use super::table::Table;
use crate::store::StoreError;

/// How to react to an error, by its `SQLSTATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Send the statement again, because it had no effect.
    Again,
    /// Send the statement on another connection, because this connection is broken.
    Elsewhere,
    /// The server accepts no writes, for example after a failover. Another connection may reach a
    /// server that does.
    OtherServer,
    /// Report the error.
    Report,
}

pub(super) fn remedy(error: &Error) -> Remedy {
    match error {
        // After a message that sqlx does not understand, the position in the stream is unknown.
        Error::Io(_) | Error::WorkerCrashed | Error::Protocol(_) => Remedy::Elsewhere,
        Error::Database(error) => match error.code().as_deref() {
            // Serialization failure, deadlock, and a race on a unique index.
            Some("40001" | "40P01" | "23505") => Remedy::Again,
            // The server shuts down, crashed, is starting, or closed an idle session.
            Some("57P01" | "57P02" | "57P03" | "57P05") => Remedy::Elsewhere,
            Some("25006") => Remedy::OtherServer,
            _ => Remedy::Report,
        },
        _ => Remedy::Report,
    }
}

/// Whether a connection that could not be opened may succeed a moment later, because the server
/// restarts or has no free connection.
pub(super) fn is_transient_at_connect(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Database(error) => matches!(error.code().as_deref(), Some("57P03" | "53300")),
        _ => false,
    }
}

/// An error of the server or the connection, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Failure {
    advice: String,
    source: Error,
}

/// Converts the error of a statement.
///
/// An error is never taken for a result.
pub(super) fn store_error(error: Error, table: &Table) -> StoreError {
    let Some(code) = code(&error) else {
        return unavailable(error);
    };
    match &*code {
        // Canceled by `statement_timeout`, by `lock_timeout`, or by an operator.
        "57014" | "55P03" => StoreError::TimedOut,
        "42P01" | "42883" | "3F000" => {
            let script = table.script_with_schema();
            advise(error, |error| {
                format!("{error}; connect again to create it, or run:\n{script}")
            })
        }
        "42501" => {
            let grants = table.grants();
            advise(error, |error| {
                format!("{error}; have the owner run:\n{grants}")
            })
        }
        "25006" => advise(error, |error| {
            format!("{error}; connect to the primary, in a session that may write")
        }),
        _ => unavailable(error),
    }
}

/// Converts the error of a statement that creates the table or its function.
pub(super) fn migration_error(error: Error, table: &Table) -> StoreError {
    match code(&error).as_deref() {
        Some("57014" | "55P03") => StoreError::TimedOut,
        Some("42501") => {
            let (role, script) = (table.quoted_role(), table.script_with_schema());
            advise(error, |error| {
                format!(
                    "{error}; the role {role} may not create the missing objects; have an owner \
                     run:\n{script}\n{grants}",
                    grants = table.grants()
                )
            })
        }
        _ => unavailable(error),
    }
}

/// Converts an error that no statement caused: of a login, or of the connection.
pub(super) fn unavailable(error: Error) -> StoreError {
    let advice: Cow<'_, str> = match (&error, code(&error).as_deref()) {
        (Error::Io(error), _) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "the connection was refused; is PostgreSQL running at this address?".into()
            }
            kind => format!("the connection to PostgreSQL failed: {kind}").into(),
        },
        (Error::Configuration(_), _) => "the address of PostgreSQL cannot be read; write \
             `postgres://user:password@host:port/database`"
            .into(),
        (_, Some("28P01" | "28000")) => {
            format!("{error}; check the user, the password and `pg_hba.conf`").into()
        }
        (_, Some("3D000")) => format!("{error}; create the database").into(),
        (_, Some("53300")) => {
            format!("{error}; raise `max_connections` of the server, or lower that of its clients")
                .into()
        }
        _ => return StoreError::Unavailable(Box::new(error)),
    };
    let advice = advice.into_owned();
    advise(error, |_| advice)
}

fn advise(error: Error, advice: impl FnOnce(&str) -> String) -> StoreError {
    let message = match &error {
        Error::Database(error) => error.message(),
        _ => "",
    };
    let advice = advice(message);
    StoreError::Unavailable(Box::new(Failure {
        advice,
        source: error,
    }))
}

pub(super) fn code(error: &Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code()
}
