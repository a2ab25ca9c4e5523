//! Tests two processes behind one store: races, kills, stops, shutdowns and restarts.

mod clients;
#[path = "../../examples/fault_proxy/mod.rs"]
mod fault_proxy;
mod kills;
mod member;
mod shutdowns;

use std::time::Duration;

use test_support::{http as support, servers};

use member::{Fleet, Member};
use servers::postgres::PostgresServer;
use servers::redis::RedisServer;
use support::{Answer, PATIENCE, eventually};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_millis(1_500);

/// The stores that processes can share.
enum Backend {
    Redis(RedisServer),
    Postgres(PostgresServer),
    Sqlite(TempDir),
}

impl Backend {
    fn all() -> [Self; 3] {
        let [redis, postgres] = Self::servers();
        let folder = tempfile::tempdir().expect("a temporary folder");
        [redis, postgres, Self::Sqlite(folder)]
    }

    /// The stores that can fail while their users run.
    fn servers() -> [Self; 2] {
        [Self::redis(), Self::Postgres(PostgresServer::start())]
    }

    /// A Redis that keeps what it has acknowledged.
    fn redis() -> Self {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        Self::Redis(RedisServer::with(&durable))
    }

    fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Postgres(server) => server.url(),
            Self::Sqlite(folder) => format!("sqlite://{}/idem.db", folder.path().display()),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
            // A file does not run.
            Self::Sqlite(_) => {}
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Redis(server) => server.start_again(),
            Self::Postgres(server) => server.start_again(),
            Self::Sqlite(_) => {}
        }
    }
}

/// Not a test. The other tests start this function as a process that they can kill.
#[tokio::test]
async fn member_of_a_fleet() {
    member::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_equal_requests_to_two_processes_run_once() {
    for backend in Backend::all() {
        let fleet = Fleet::start(&backend.url(), LEASE).await;
        fleet.open_gate();
        let servers = [fleet.one.server, fleet.other.server];
        let requests: Vec<_> = (0..200)
            .map(|at| tokio::spawn(async move { servers[at % 2].post("/work", "k", "{}").await }))
            .collect();
        for request in requests {
            let answer = request.await.expect("no panic");
            match answer.status.as_u16() {
                200 => assert_eq!(answer.text(), "attempt 1"),
                409 => assert_eq!(answer.code(), "idempotency_key_in_flight"),
                status => panic!("{status} on {}: {}", backend.url(), answer.text()),
            }
        }
        for server in servers {
            assert!(server.post("/work", "k", "{}").await.is_replay());
        }
        assert_eq!(fleet.runs(), ["attempt 1"]);
    }
}

/// All handlers run at the same time, so no claim waits for the end of a run with another key.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_with_different_keys_run_at_the_same_time() {
    for backend in Backend::all() {
        let fleet = Fleet::start(&backend.url(), 20 * LEASE).await;
        let servers = [fleet.one.server, fleet.other.server];
        let post = |at: usize| async move {
            let answer = servers[at % 2].post("/work", &at.to_string(), "{}").await;
            (answer.status.as_u16(), answer.is_replay())
        };
        let requests: Vec<_> = (0..200).map(|at| tokio::spawn(post(at))).collect();
        eventually("all handlers run", || fleet.runs().len() == 200).await;
        fleet.open_gate();
        for request in requests {
            assert_eq!(request.await.expect("no panic"), (200, false));
        }
        assert!(fleet.runs_of_each_key().values().all(|runs| *runs == 1));
    }
}

async fn until(mut ask: impl AsyncFnMut() -> Answer, is_it: impl Fn(&Answer) -> bool) -> Answer {
    loop {
        let answer = ask().await;
        if is_it(&answer) {
            return answer;
        }
        assert_eq!(answer.code(), "idempotency_key_in_flight");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_another_process_reruns_the_key_after_the_lease() {
    for backend in Backend::servers() {
        let mut fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let lost =
            tokio::spawn(async move { one.write(support::post_bytes("/work", "k", "{}")).await });
        let _stream = lost.await.expect("no panic");
        eventually("the handler runs", || fleet.runs().len() == 1).await;
        fleet.one.kill();
        let retry = async || other.post("/work", "k", "{}").await;
        assert_eq!(retry().await.code(), "idempotency_key_in_flight");
        fleet.open_gate();
        let answer = until(retry, |answer| answer.status == 200).await;
        assert_eq!((answer.text(), answer.is_replay()), ("attempt 2", false));
        assert!(other.post("/work", "k", "{}").await.is_replay());
        assert_eq!(fleet.runs(), ["attempt 1", "attempt 2"]);
    }
}

/// On one machine, the lock of a process tells whether the process has died. A stopped process has its lock.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_a_claim_in_a_file_does_not_wait_for_its_lease() {
    let backend = Backend::Sqlite(tempfile::tempdir().expect("a temporary folder"));
    let (store, long) = (backend.url(), 100 * LEASE);
    let mut fleet = Fleet::start(&store, long).await;
    let (one, other) = (fleet.one.server, fleet.other.server);
    let mut streams = Vec::new();
    for (path, key) in [("/work", "work"), ("/held", "held"), ("/work", "restart")] {
        streams.push(one.write(support::post_bytes(path, key, "{}")).await);
    }
    eventually("the handlers run", || fleet.runs().len() == 3).await;
    for act in [Member::stop, Member::go_on] {
        act(&fleet.one);
        let retry = other.post("/work", "work", "{}").await;
        assert_eq!(retry.code(), "idempotency_key_in_flight");
    }

    fleet.one.kill();
    fleet.open_gate();
    let answer = other.post("/work", "work", "{}").await;
    assert_eq!((answer.text(), answer.is_replay()), ("attempt 2", false));
    let answer = other.post("/held", "held", "{}").await;
    assert_eq!(answer.code(), "idempotency_outcome_unknown");
    fleet.other.kill();
    let again = Member::start(&store, long, &fleet.folder).await;
    let answer = again.server.post("/work", "restart", "{}").await;
    assert_eq!((answer.text(), answer.is_replay()), ("attempt 2", false));
    let runs = [("held", 1), ("restart", 2), ("work", 2)];
    let runs = runs.map(|(key, runs)| (key.to_owned(), runs));
    assert_eq!(fleet.runs_of_each_key(), runs.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_on_unknown_hold_keeps_the_key_in_another_process() {
    for backend in Backend::all() {
        let mut fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let _stream = one.write(support::post_bytes("/held", "k", "{}")).await;
        eventually("the handler runs", || fleet.runs().len() == 1).await;
        fleet.one.kill();
        fleet.open_gate();
        let retry = async || other.post("/held", "k", "{}").await;
        let answer = until(retry, |answer| {
            answer.code() == "idempotency_outcome_unknown"
        })
        .await;
        assert_eq!(answer.status, 409);
        assert_eq!(fleet.runs(), ["attempt 1"]);
    }
}

/// A process that is stopped for longer than its lease does not know that another process took over.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_cannot_overwrite_the_record_of_its_successor() {
    for backend in Backend::all() {
        let fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let overtaken = tokio::spawn(async move { one.post("/work", "k", "{}").await });
        eventually("the handler runs", || fleet.runs().len() == 1).await;
        fleet.one.stop();
        fleet.open_gate();
        let retry = async || other.post("/work", "k", "{}").await;
        let answer = until(retry, |answer| answer.status == 200).await;
        assert_eq!(answer.text(), "attempt 2");
        tokio::time::sleep(2 * LEASE).await;
        fleet.one.go_on();
        // The response of the stopped process is not recorded, so its client gets the record as well.
        let overtaken = overtaken.await.expect("no panic");
        assert_eq!(
            (overtaken.text(), overtaken.is_replay()),
            ("attempt 2", true)
        );
        for server in [one, other] {
            let replay = server.post("/work", "k", "{}").await;
            assert_eq!((replay.text(), replay.is_replay()), ("attempt 2", true));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_restart_of_every_process() {
    for mut backend in Backend::all() {
        let mut fleet = Fleet::start(&backend.url(), LEASE).await;
        fleet.open_gate();
        assert_eq!(
            fleet.one.server.post("/work", "k", "{}").await.text(),
            "attempt 1"
        );
        fleet.one.kill();
        fleet.other.kill();
        backend.kill();
        backend.start_again();
        let again = Member::start(&backend.url(), LEASE, &fleet.folder).await;
        assert!(again.server.post("/work", "k", "{}").await.is_replay());
        assert_eq!(fleet.runs(), ["attempt 1"]);
    }
}

/// The run outlives its store. Its response is recorded when the store is back, and no other run
/// starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_recorded_although_its_store_restarted() {
    for mut backend in Backend::servers() {
        // The lease must last until a busy machine has restarted the store.
        let fleet = Fleet::start(&backend.url(), 20 * LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let before = tokio::spawn(async move { one.post("/effect", "before", "").await });
        assert_eq!(before.await.expect("no panic").status, 200);
        let first = tokio::spawn(async move { one.post("/work", "k", "{}").await });
        eventually("the handler runs", || fleet.runs().len() == 2).await;
        backend.kill();
        assert_eq!(other.post("/work", "k", "{}").await.status, 503);
        backend.start_again();
        // The claim of the run survived the restart.
        let retry = async || other.post("/work", "k", "{}").await;
        assert_eq!(
            until_served(retry).await.code(),
            "idempotency_key_in_flight"
        );
        fleet.open_gate();
        let answer = first.await.expect("no panic");
        assert_eq!((answer.text(), answer.is_replay()), ("attempt 1", false));
        for server in [one, other] {
            assert!(
                until(
                    async || server.post("/work", "k", "{}").await,
                    Answer::is_replay
                )
                .await
                .is_replay()
            );
            assert!(server.post("/effect", "before", "").await.is_replay());
        }
        assert!(fleet.runs_of_each_key().values().all(|runs| *runs == 1));
    }
}

/// Returns the first response other than 503.
async fn until_served(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
    }
}

/// Keys that were acknowledged before the outage never run again. Requests during the outage are
/// refused.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_while_the_store_is_down_and_served_afterwards() {
    for mut backend in Backend::servers() {
        let fleet = Fleet::start(&backend.url(), LEASE).await;
        fleet.open_gate();
        let server = fleet.one.server;
        let mut answered = Vec::new();
        let mut next = 0..;
        let mut send = async |answered: &mut Vec<String>| {
            let key = format!("key-{}", next.next().expect("an endless range"));
            let answer = server.post("/work", &key, "{}").await;
            if answer.status == 200 {
                answered.push(key);
            }
            answer.status.as_u16()
        };
        for _ in 0..50 {
            assert_eq!(send(&mut answered).await, 200);
        }
        backend.kill();
        for _ in 0..3 {
            assert_eq!(send(&mut answered).await, 503);
        }
        backend.start_again();
        // The processes need no restart.
        let until_found = async { while send(&mut answered).await != 200 {} };
        let found = tokio::time::timeout(PATIENCE, until_found).await;
        found.expect("the store is found again");
        for key in &answered {
            assert!(server.post("/work", key, "{}").await.is_replay(), "{key}");
        }
        let mut runs = fleet.runs_of_each_key();
        runs.retain(|key, _| answered.contains(key));
        assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    }
}
