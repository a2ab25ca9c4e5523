//! How a record gets into the transaction of a handler.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The databases whose transactions can hold a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionKind {
    /// PostgreSQL.
    Postgres,
    /// `SQLite`.
    Sqlite,
}

/// The statement that writes the record of an attempt inside the handler's own transaction.
///
/// The statement fails when the attempt no longer holds its claim, and when another attempt has recorded
/// a response. A failed statement must not be followed by a `COMMIT`.
#[derive(Clone)]
pub struct RecordStatement {
    kind: TransactionKind,
    sql: Arc<str>,
    binds: Vec<Bind>,
}

/// A parameter of a [`RecordStatement`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind {
    /// A `bytea` in PostgreSQL, a `BLOB` in `SQLite`.
    Bytes(Bytes),
    /// A `bigint` in PostgreSQL, an `INTEGER` in `SQLite`.
    Integer(i64),
}

/// The outcome of an attempt that may have recorded its response in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitState {
    /// The transaction of this attempt was committed.
    Mine,
    /// Another attempt has recorded a response.
    Others,
    /// Nothing was committed, and the attempt still holds its claim.
    Held,
    /// Nothing was committed, and the attempt no longer holds its claim.
    Gone,
}

impl RecordStatement {
    /// A statement for one kind of database. `sql` has one placeholder for each element of `binds`.
    #[must_use]
    pub fn new(kind: TransactionKind, sql: Arc<str>, binds: Vec<Bind>) -> Self {
        Self { kind, sql, binds }
    }

    /// The database that understands the statement.
    #[must_use]
    pub fn kind(&self) -> TransactionKind {
        self.kind
    }

    /// The SQL.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The parameters, in the order of their placeholders.
    #[must_use]
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }
}

impl Bind {
    /// The bytes. `None` for a number.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Integer(_) => None,
        }
    }

    /// The number. `None` for bytes.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Bytes(_) => None,
            Self::Integer(number) => Some(*number),
        }
    }
}

/// Omits the parameters, because the record may contain secrets.
impl fmt::Debug for RecordStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStatement")
            .field("kind", &self.kind)
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

/// Omits the bytes, because the record may contain secrets.
impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Integer(number) => write!(f, "Integer({number})"),
        }
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use drivers::{RecordFailure, sealed};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use drivers::{TransactionConnection, TransactionDatabase};

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod drivers {
    /// A database of sqlx in whose transactions a handler can commit:
    /// [`Attempt::commit`](crate::Attempt::commit).
    ///
    /// Sealed: the crate implements the trait for the databases of its stores.
    #[diagnostic::on_unimplemented(
        message = "a transaction of `{Self}` cannot hold the record of an attempt",
        label = "no store of axum-idem uses this database",
        note = "commit in the database of the store, or use `Attempt::derive_key` for effects elsewhere"
    )]
    pub trait TransactionDatabase: sealed::Database {}

    impl<DB: sealed::Database> TransactionDatabase for DB {}

    /// A connection of sqlx on which a handler runs its transaction:
    /// [`Attempt::record_in`](crate::Attempt::record_in).
    ///
    /// Sealed. A `Transaction` and a `PoolConnection` dereference to such a connection: pass `&mut *tx`.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not the connection of a transaction",
        label = "not a connection",
        note = "pass `&mut *tx` for a `Transaction` of sqlx"
    )]
    pub trait TransactionConnection: sealed::Connection {}

    impl<C: sealed::Connection> TransactionConnection for C {}

    /// Why a record could not be written in the transaction of a handler.
    #[derive(Debug)]
    pub enum RecordFailure {
        /// The transaction sees the claim or the record of another attempt. Nothing was committed.
        NotHeld,
        /// The transaction sees no claim and no record of the key. Nothing was committed.
        NotSeen,
        /// A record of the same id exists. Nothing was committed.
        Duplicate,
        /// The connection has no open transaction. Nothing was recorded.
        NoTransaction,
        /// The database of the transaction is not that of the store. Nothing was committed.
        NoTable,
        /// The database reported an error. Nothing was committed.
        Failed(sqlx::Error),
        /// `COMMIT` was sent, and its outcome is not known.
        Unsure(sqlx::Error),
    }

    /// The parts of the traits that only this crate can implement and call.
    pub(crate) mod sealed {
        use std::pin::Pin;

        use sqlx_core::transaction::TransactionManager as _;

        use super::RecordFailure;
        use crate::store::{RecordStatement, TransactionKind};

        /// The future of a statement.
        pub(crate) type Written<'c> = Future<'c, ()>;

        /// The future of a commit. Returns whether the commit has waited for standbys. An operator can cancel such
        /// a wait, and `COMMIT` then succeeds although no standby has the record.
        pub(crate) type Committed<'c> = Future<'c, bool>;

        type Future<'c, T> =
            Pin<Box<dyn std::future::Future<Output = Result<T, RecordFailure>> + Send + 'c>>;

        /// Writes records.
        pub trait Database: sqlx::Database {
            /// The kind of store that this database belongs to.
            const KIND: TransactionKind;

            /// Runs the statement.
            fn record<'c>(
                connection: &'c mut Self::Connection,
                statement: &'c RecordStatement,
            ) -> Written<'c>;

            /// Runs the statement and commits.
            fn commit<'c>(
                transaction: sqlx::Transaction<'c, Self>,
                statement: &'c RecordStatement,
            ) -> Committed<'c>;

            /// Commits a transaction without a record.
            fn commit_alone(transaction: sqlx::Transaction<'_, Self>) -> Written<'_>;
        }

        /// Whether the innermost transaction of a connection is a savepoint.
        pub(crate) fn is_nested<DB: sqlx::Database>(connection: &DB::Connection) -> bool {
            DB::TransactionManager::get_transaction_depth(connection) > 1
        }

        /// The connection of a transaction.
        pub trait Connection: Send {
            /// Its database.
            type Database: Database;

            /// The connection, under the type that sqlx names.
            fn connection(&mut self) -> &mut <Self::Database as sqlx::Database>::Connection;
        }
    }
}
