//! What the tests of commits on PostgreSQL and on SQLite share.

pub(crate) mod bank;
pub(crate) mod chaos;
pub(crate) mod ends;
