//! A request that is cut off at every point where it waits, on every branch of its way: what was
//! promised holds, and the key is usable again within a lease.

mod cut;
mod memory;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod on_servers;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod shared_pool;
mod shop;
mod ways;
