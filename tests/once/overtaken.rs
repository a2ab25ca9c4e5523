//! An attempt and the attempt that takes over from it: of the two, one commits.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum_idem::{Attempt, Idempotency, idempotent};

use crate::bank::{Bank, LEASE, Paid, Service, key, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;

pub(crate) const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// Records, and waits for the test before it commits.
#[idempotent(scope = token, transactional)]
pub(crate) async fn slow(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", attempt.number());
    Bank::pay(&mut tx, &run).await?;
    let response = attempt
        .record_in(&mut *tx, (StatusCode::CREATED, run))
        .await;
    let response = bank.note(response)?;
    if attempt.number() == 1 {
        bank.runs.pass().await;
        if body.starts_with("undone") {
            tx.rollback().await?;
            return Ok(response);
        }
    }
    tx.commit().await?;
    Ok(response)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_is_overtaken_before_its_commit_has_no_effect() {
    let postgres = PostgresServer::start();
    for level in LEVELS {
        let bank = Bank::open(&postgres.url()).await.isolated(level);
        let service = Service::start(bank, store(&postgres.url()).await).await;
        let server = service.server;
        let overtaken =
            tokio::spawn(async move { server.post("/gated", &key(level), level).await });
        service.bank.runs.until_started(1).await;
        lapse(&postgres);
        let second = tokio::spawn(async move { server.post("/gated", &key(level), level).await });
        service.bank.runs.until_started(2).await;
        // The second attempt waits in front of the gate, behind the first one.
        service.bank.runs.open(2);
        let responses = [
            overtaken.await.expect("no panic"),
            second.await.expect("no panic"),
        ];
        let mut results = service.bank.results();
        results.sort();
        assert_eq!(results, ["Ok", "Overtaken"], "{level}: {responses:?}");
        let replay = service.server.post("/gated", &key(level), level).await;
        assert!(replay.is_replay(), "{level}: {replay:?}");
        assert!(
            service
                .bank
                .payments()
                .await
                .contains(&replay.text().to_owned())
        );
        for response in responses {
            let is_of_the_winner =
                response.status == StatusCode::CREATED && response.body == replay.body;
            // The other attempt may not have committed yet.
            assert!(
                is_of_the_winner
                    || ["idempotency_overtaken", "idempotency_key_in_flight"]
                        .contains(&response.code().as_str()),
                "{response:?}"
            );
        }
    }
    let bank = Bank::open(&postgres.url()).await;
    assert_eq!(bank.payments().await.len(), LEVELS.len());
}

/// The second attempt waits for the row of the first one, and then for its end.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_over_during_a_commit_waits_for_its_end() {
    let postgres = PostgresServer::start();
    for level in LEVELS {
        for undone in [false, true] {
            let bank = Bank::open(&postgres.url()).await.isolated(level);
            let settings = Idempotency::builder().store(store(&postgres.url()).await);
            let more = Router::new().route("/slow", post(slow));
            let service = Service::with(bank, settings.lease(LEASE), more).await;
            let body = if undone {
                format!("undone {level}")
            } else {
                level.to_owned()
            };
            let (server, text) = (service.server, body.clone());
            let post = move || {
                let text = text.clone();
                tokio::spawn(async move { server.post("/slow", &key(&text), &text).await })
            };
            let first = post();
            service.bank.runs.until_started(1).await;
            lapse(&postgres);
            let second = post();
            eventually_async("the second attempt waits", async || {
                let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE wait_event_type = 'Lock' AND query LIKE '%_commit_v3%'";
                (postgres.command(waiting) == "1").then_some(())
            })
            .await;
            service.bank.runs.open(1);
            let first = first.await.expect("no panic");
            let second = second.await.expect("no panic");
            let payments = service.bank.payments().await;
            let of_this = payments.iter().filter(|run| run.starts_with(&body));
            let of_this: Vec<_> = of_this.collect();
            let winner = if undone {
                format!("{body} 2")
            } else {
                format!("{body} 1")
            };
            assert_eq!(of_this, [&winner], "{level}: {first:?}, {second:?}");
            let expected = if undone { "Ok" } else { "Overtaken" };
            // Under SERIALIZABLE, the server may report a serialization failure for the second attempt.
            let second_result = service.bank.results().pop().expect("a result");
            assert!(
                second_result == expected || !undone && second_result == "Database",
                "{level}: {second_result}"
            );
            let replay = service.server.post("/slow", &key(&body), &body).await;
            assert!(
                replay.is_replay() && replay.text() == winner,
                "{level}: {replay:?}"
            );
        }
    }
}

/// The claim of the late attempt was granted before the commit of the first one was visible.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_takes_over_before_the_commit_is_visible_is_overtaken() {
    let postgres = PostgresServer::start();
    let url = postgres.url();
    // An older snapshot still sees the claim of the first attempt.
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let first = Bank::open(&url).await.isolated(level);
        let first = Service::start(first, store(&url).await).await;
        let second = Service::start(Bank::open(&url).await, store(&url).await).await;
        let post = |server: crate::support::Server| {
            tokio::spawn(async move { server.post("/gated", &key(level), level).await })
        };
        let committed = post(first.server);
        first.bank.runs.until_started(1).await;
        lapse(&postgres);
        let overtaken = post(second.server);
        second.bank.runs.until_started(1).await;
        first.bank.runs.open(1);
        let committed = committed.await.expect("no panic");
        assert_eq!(first.bank.results(), ["Ok"], "{committed:?}");
        second.bank.runs.open(1);
        let overtaken = overtaken.await.expect("no panic");
        assert_eq!(second.bank.results(), ["Overtaken"], "{overtaken:?}");
        let replay = second.server.post("/gated", &key(level), level).await;
        assert!(
            replay.is_replay() && replay.body == committed.body,
            "{replay:?}"
        );
    }
    let bank = Bank::open(&url).await;
    assert_eq!(
        bank.payments().await,
        ["REPEATABLE READ 1", "SERIALIZABLE 1"]
    );
}

/// An operator forgets the key while its handler runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_attempt_has_no_effect() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::start(bank, store(&postgres.url()).await).await;
    let server = service.server;
    let forgotten = tokio::spawn(async move { server.post("/gated", "k", "x").await });
    service.bank.runs.until_started(1).await;
    assert!(
        service
            .idem
            .forget(service.id("k"))
            .await
            .expect("forgotten")
    );
    service.bank.runs.open(1);
    assert_eq!(
        forgotten.await.expect("no panic").code(),
        "idempotency_overtaken"
    );
    assert_eq!(service.bank.results(), ["Overtaken"]);
    service.bank.runs.open(1);
    let next = service.server.post("/gated", "k", "x").await;
    assert_eq!(
        (next.status, next.is_replay()),
        (StatusCode::CREATED, false)
    );
    assert_eq!(service.bank.payments().await, ["x 1"]);
}
