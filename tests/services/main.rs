//! Tests what four public APIs document about their idempotency keys, row by row.
//!
//! Each test runs the router of the service's example and is named after a row. A dash means that the
//! documentation of the service does not specify the behaviour. The head of each example names the
//! option for each row.
//!
//! | row | behaviour | Yoshi | Aleta | Phantom | `IEXExchanger` |
//! |---|---|---|---|---|---|
//! | 1 | the header is `Idempotency-Key` | yes | yes | yes | yes |
//! | 2 | methods that accept a key | `POST` | all writes | all writes | `POST` |
//! | 3 | reads ignore the key | yes | yes | yes | yes |
//! | 4 | the key is optional | yes | yes | yes | yes |
//! | 5 | scope of a key | account | workspace and environment | token | caller |
//! | 6 | accepted keys | – | any 255 bytes | 128 characters | not `123`, `test`, `random` |
//! | 7 | a retry gets the recorded response | yes | verbatim | yes | yes |
//! | 8 | replay header | – | none | `Idempotent-Replay` | `Idempotency-Replayed` |
//! | 9 | a different body | 409 | 409 | 409 and its code | 409 |
//! | 10 | a different endpoint | – | – | 409 | 409 |
//! | 11 | recorded responses | – | all, in full | 2xx and 4xx | – |
//! | 12 | a key is free after 24 hours | yes | yes | yes | – |
//! | 13 | a record survives a failover | – | yes | – | – |
//! | 14 | endpoints with keys | a table | all writes | all writes | a list |
//! | 15 | keys that clients choose | in `idem-client/tests` | in `idem-client/tests` | a stable upstream id | one operation, one key |
//! | 16 | reformatted JSON | – | a different body | a different body | – |
//! | 17 | one effect per key | yes | yes | yes | yes |
#![expect(
    clippy::duplicate_mod,
    reason = "each example includes the shared module"
)]

mod acp;
mod aleta;
mod browser;
mod curl_lines;
mod dialects;
mod examples;
mod gateway;
mod iex;
#[cfg(all(feature = "console", feature = "sqlite"))]
mod operators;
mod phantom;
mod process;
mod readme;
#[cfg(feature = "sqlite")]
mod restarts;
mod rows;
mod ucp;
mod webhooks;
mod yoshi;

use test_support::http as support;
