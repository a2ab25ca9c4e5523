//! What four public APIs document about their idempotency keys, row by row.
//!
//! Each row is a behaviour that the service's example shows on the wire; the tests start that
//! example's own router and are named after the row. A dash means that the service's documentation
//! is silent. The option behind each cell stands at the head of the example.
//!
//! | row | behaviour | Yoshi | Aleta | Phantom | `IEXExchanger` |
//! |---|---|---|---|---|---|
//! | 1 | the header is `Idempotency-Key` | yes | yes | yes | yes |
//! | 2 | methods that take it | `POST` | all writes | all writes | `POST` |
//! | 3 | reads ignore it | yes | yes | yes | yes |
//! | 4 | it is optional | yes | yes | yes | yes |
//! | 5 | whose key it is | the account's | the workspace's, by environment | the token's | the caller's |
//! | 6 | which keys are taken | – | 255 bytes of anything | 128 characters | not `123`, `test`, `random` |
//! | 7 | the same request again gets the kept answer | yes | verbatim | yes | yes |
//! | 8 | how that is marked | – | not | `Idempotent-Replay` | `Idempotency-Replayed` |
//! | 9 | another body | 409 | 409 | 409 and its code | 409 |
//! | 10 | another endpoint | – | – | 409 | 409 |
//! | 11 | which answers are kept | – | the full response | 2xx and 4xx | – |
//! | 12 | 24 hours, then a new key | yes | yes | yes | – |
//! | 13 | survives a failover | – | yes | – | – |
//! | 14 | which endpoints | a table | all writes | all writes | a list |
//! | 15 | what clients do | in `tests/client` | in `tests/client` | a stable upstream id | one operation, one key |
//! | 16 | the same JSON written otherwise | – | another body | another body | – |
//! | 17 | one effect for each key | yes | yes | yes | yes |
#![expect(
    clippy::duplicate_mod,
    reason = "each example brings what they share along"
)]

mod aleta;
mod dialects;
mod examples;
mod gateway;
mod iex;
mod phantom;
mod rows;
mod yoshi;

use test_support::http as support;
