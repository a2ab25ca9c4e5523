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

#[cfg(test)]
mod tests {
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// An error of the server, with this `SQLSTATE`.
    #[derive(Debug)]
    struct OfServer(&'static str);

    impl fmt::Display for OfServer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.message())
        }
    }

    impl std::error::Error for OfServer {}

    impl DatabaseError for OfServer {
        fn message(&self) -> &'static str {
            "the server refuses"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn of_server(code: &'static str) -> Error {
        Error::Database(Box::new(OfServer(code)))
    }

    fn table() -> Table {
        Table {
            schema: "public".into(),
            name: "idem_records".into(),
            role: "desk".into(),
            is_utf8: true,
        }
    }

    /// An error is never a result, such as "the record exists". This includes a violation of a unique index, after
    /// which the statement is sent again.
    #[test]
    fn each_error_of_the_server_is_an_error_with_its_remedy() {
        for (code, remedy_of_code, is_timeout) in [
            ("40001", Remedy::Again, false),
            ("40P01", Remedy::Again, false),
            ("23505", Remedy::Again, false),
            ("57P01", Remedy::Elsewhere, false),
            ("57P02", Remedy::Elsewhere, false),
            ("57P03", Remedy::Elsewhere, false),
            ("57P05", Remedy::Elsewhere, false),
            ("25006", Remedy::OtherServer, false),
            ("57014", Remedy::Report, true),
            ("55P03", Remedy::Report, true),
            ("23514", Remedy::Report, false),
            ("42501", Remedy::Report, false),
            ("42P01", Remedy::Report, false),
            ("53100", Remedy::Report, false),
            ("53300", Remedy::Report, false),
            ("XX000", Remedy::Report, false),
        ] {
            assert_eq!(remedy(&of_server(code)), remedy_of_code, "{code}");
            match store_error(of_server(code), &table()) {
                StoreError::TimedOut => assert!(is_timeout, "{code}"),
                StoreError::Unavailable(error) => {
                    assert!(!is_timeout, "{code}");
                    let text = error.to_string();
                    assert!(text.contains("the server refuses"), "{code}: {text}");
                }
                error => panic!("{code}: {error:?}"),
            }
        }
    }

    #[test]
    fn an_error_of_the_connection_is_an_error_with_its_remedy() {
        let broken = || Error::Io(io::ErrorKind::BrokenPipe.into());
        let unreadable = || Error::Protocol("not a message".into());
        for (error, expected) in [
            (broken(), Remedy::Elsewhere),
            (unreadable(), Remedy::Elsewhere),
            (Error::WorkerCrashed, Remedy::Elsewhere),
            (Error::RowNotFound, Remedy::Report),
            (Error::PoolTimedOut, Remedy::Report),
        ] {
            assert_eq!(remedy(&error), expected, "{error:?}");
            let error = store_error(error, &table());
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        }
    }
}
