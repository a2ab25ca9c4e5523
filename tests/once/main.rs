//! A response that commits in the transaction of its handler, on a real PostgreSQL.

mod bank;
mod chaos;
mod conflicts;
mod cuts;
mod duplicates;
mod ends;
mod forgotten;
mod late;
mod overtaken;
mod refusals;
mod replies;
#[path = "../once_shared/mod.rs"]
mod shared;
mod standbys;
mod transactions;

use test_support::{http as support, servers};
