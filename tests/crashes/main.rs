//! Cuts a request off at every `.await`, on every path through the engine. The promises must hold, and
//! the key must be usable again within a lease.

mod cut;
mod memory;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod on_servers;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod shared_pool;
mod shop;
mod ways;
