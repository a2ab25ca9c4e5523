//! Finds the processes of a server that serve its clients.

use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

pub(crate) fn redis_itself(server: &RedisServer) -> Vec<u32> {
    let process = server.info("process_id").expect("a number");
    vec![process.parse().expect("a number")]
}

/// Returns the process of each current connection.
pub(crate) fn backends(server: &PostgresServer) -> Vec<u32> {
    let processes = server.command(
        "SELECT pid FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    let processes = processes.lines().map(str::parse);
    processes
        .map(|process| process.expect("a number"))
        .collect()
}
