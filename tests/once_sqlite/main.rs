//! A response that commits in the transaction of its handler, in a real SQLite file.

mod bank;
mod busy;
mod chaos;
mod ends;
mod observed;
mod overtaken;
mod refusals;
#[path = "../once_shared/mod.rs"]
mod shared;

use test_support::{http as support, servers};
