//! The errors of SQLite, with advice.

use sqlx::Error;

use crate::store::{DecodeError, StoreError};

/// Primary result codes of SQLite.
const ERROR: u32 = 1;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const CONSTRAINT: u32 = 19;
const NOTADB: u32 = 26;

/// The primary result code of an error.
fn code(error: &Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    // An extended code has the primary code in its lowest byte.
    Some(code & 0xff)
}

/// Whether the tables do not fit the statement.
pub(super) fn is_wrong_statement(error: &Error) -> bool {
    code(error) == Some(ERROR)
}

/// Whether another connection holds the lock.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether a `COMMIT` with this error was refused, so that the transaction was rolled back or can be. After other
/// errors, such as that of a sync, a crash can make the transaction appear.
pub(super) fn is_refused_commit(error: &Error) -> bool {
    matches!(code(error), Some(ERROR | BUSY | LOCKED | FULL | CONSTRAINT))
}

/// Whether there is no room on the disk, or below `max_page_count`.
pub(super) fn is_full(error: &Error) -> bool {
    code(error) == Some(FULL)
}

/// An error of SQLite, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Failure {
    advice: &'static str,
    source: Error,
}

/// Converts an error of a statement or of a connection.
pub(super) fn store_error(error: Error) -> StoreError {
    let advice = match code(&error) {
        Some(BUSY | LOCKED) => return StoreError::Busy,
        Some(FULL) => "the disk is full, or the database has reached its `max_page_count`",
        Some(READONLY) => "the database cannot be written",
        Some(IOERR) => "the disk reported an error",
        Some(CORRUPT | NOTADB) => "the file is damaged or is no SQLite database",
        Some(CANTOPEN) => "the database file cannot be opened; was it moved or removed?",
        _ => return StoreError::Unavailable(Box::new(error)),
    };
    StoreError::Unavailable(Box::new(Failure {
        advice,
        source: error,
    }))
}

/// Converts an error of the start, which the caller corrects in its settings.
pub(super) fn open_error(error: Error, path: &std::path::Path) -> StoreError {
    let path = path.display();
    let why = match code(&error) {
        Some(NOTADB | CORRUPT) => format!(
            "{path} is not an SQLite database, or it is damaged; choose another path, or restore the \
             file from a backup"
        ),
        Some(READONLY) => format!(
            "{path} cannot be written; make the file and its folder writable for this process, because \
             the store writes `-wal` and `-shm` files beside it"
        ),
        Some(CANTOPEN) => format!(
            "{path} cannot be opened or created; check that its folder exists and is writable for this \
             process"
        ),
        _ => return store_error(error),
    };
    StoreError::Unfit(why.into())
}

pub(super) fn damaged<E>(_: E) -> StoreError {
    StoreError::Undecodable(DecodeError::Damaged)
}
