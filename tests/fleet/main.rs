//! Two processes behind one store: races, kills, stops and restarts.

mod kills;
mod member;

use std::time::Duration;

use test_support::{http as support, servers};

use member::{Fleet, Member};
use servers::postgres::PostgresServer;
use servers::redis::RedisServer;
use support::{Answer, eventually};

const LEASE: Duration = Duration::from_millis(1_500);

/// The stores that every promise is held against.
enum Backend {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Backend {
    fn all() -> [Self; 2] {
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        [
            Self::Redis(RedisServer::with(&durable)),
            Self::Postgres(PostgresServer::start()),
        ]
    }

    fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Postgres(server) => server.url(),
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Redis(server) => server.kill(),
            Self::Postgres(server) => server.kill(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Redis(server) => server.start_again(),
            Self::Postgres(server) => server.start_again(),
        }
    }
}

/// Not a test of its own: the other tests start it as a process that they can kill.
#[tokio::test]
async fn member_of_a_fleet() {
    member::serve_if_asked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_equal_requests_to_both_one_runs() {
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
                status => panic!("{status}"),
            }
        }
        for server in servers {
            assert!(server.post("/work", "k", "{}").await.is_replay());
        }
        assert_eq!(fleet.runs(), ["attempt 1"]);
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
async fn when_the_process_that_runs_it_is_killed_the_other_one_reruns_after_the_lease() {
    for backend in Backend::all() {
        let mut fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let lost =
            tokio::spawn(async move { one.write(support::post_bytes("/work", "k", "{}")).await });
        let _stream = lost.await.expect("no panic");
        eventually("it runs", || fleet.runs().len() == 1).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn when_the_process_that_runs_it_is_killed_the_other_one_holds_the_key_where_told_so() {
    for backend in Backend::all() {
        let mut fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let _stream = one.write(support::post_bytes("/held", "k", "{}")).await;
        eventually("it runs", || fleet.runs().len() == 1).await;
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

/// Stopped for longer than its lease, a process does not know that it was overtaken.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_for_three_leases_cannot_overwrite_the_new_answer() {
    for backend in Backend::all() {
        let fleet = Fleet::start(&backend.url(), LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let overtaken = tokio::spawn(async move { one.post("/work", "k", "{}").await });
        eventually("it runs", || fleet.runs().len() == 1).await;
        fleet.one.stop();
        fleet.open_gate();
        let retry = async || other.post("/work", "k", "{}").await;
        let answer = until(retry, |answer| answer.status == 200).await;
        assert_eq!(answer.text(), "attempt 2");
        tokio::time::sleep(2 * LEASE).await;
        fleet.one.go_on();
        // Its answer goes to its own client only.
        let overtaken = overtaken.await.expect("no panic");
        assert_eq!(
            (overtaken.text(), overtaken.is_replay()),
            ("attempt 1", false)
        );
        for server in [one, other] {
            let replay = server.post("/work", "k", "{}").await;
            assert_eq!((replay.text(), replay.is_replay()), ("attempt 2", true));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_every_process_replays_what_was_recorded() {
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

/// What runs outlives its store: the answer is recorded when that is back, and nobody else runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_restarts_under_a_run_loses_nothing_of_it() {
    for mut backend in Backend::all() {
        // Long enough for a busy machine to start the store again.
        let fleet = Fleet::start(&backend.url(), 20 * LEASE).await;
        let (one, other) = (fleet.one.server, fleet.other.server);
        let before = tokio::spawn(async move { one.post("/effect", "before", "").await });
        assert_eq!(before.await.expect("no panic").status, 200);
        let first = tokio::spawn(async move { one.post("/work", "k", "{}").await });
        eventually("it runs", || fleet.runs().len() == 2).await;
        backend.kill();
        assert_eq!(other.post("/work", "k", "{}").await.status, 503);
        backend.start_again();
        // Its claim is where it was.
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

/// The first answer that is not about the store.
async fn until_served(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
    }
}

/// What was acknowledged before the store died is never run again; what comes meanwhile is refused.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_down_requests_are_refused_and_afterwards_served() {
    for mut backend in Backend::all() {
        let fleet = Fleet::start(&backend.url(), LEASE).await;
        fleet.open_gate();
        let server = fleet.one.server;
        let mut answered = Vec::new();
        let mut next = 0..;
        let mut send = async |answered: &mut Vec<String>| {
            let key = format!("key-{}", next.next().expect("endless"));
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
        while send(&mut answered).await != 200 {}
        for key in &answered {
            assert!(server.post("/work", key, "{}").await.is_replay(), "{key}");
        }
        let mut runs = fleet.runs_of_each_key();
        runs.retain(|key, _| answered.contains(key));
        assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    }
}
