//! The ways in which a commit and its handler can end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::testing::{Fault, FaultStore, Operation};
use axum_idem::{Attempt, DoNotRecord, Idempotency, idempotent};
use futures_util::stream;

use sqlx::Acquire as _;

use crate::bank::{Bank, BankError, LEASE, Paid, Service, is_unknown, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;
use crate::servers::wire::Wire;

/// Commits, and then does what the body says.
#[idempotent(scope = token, transactional)]
async fn and_then(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let committed = (StatusCode::CREATED, run).into_response();
    bank.tell(attempt.commit(tx, committed).await)?;
    match body.as_str() {
        "panic" => panic!("after the commit"),
        "fail" => Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        "refuse" => Ok((StatusCode::NOT_FOUND, DoNotRecord, "").into_response()),
        _ => {
            let mut tx = bank.begin().await?;
            Bank::pay(&mut tx, "a second payment").await?;
            let second = attempt.commit(tx, StatusCode::OK).await;
            Ok(bank.tell(second)?)
        }
    }
}

/// Commits a response of the kind that the body says.
#[idempotent(scope = token, transactional)]
async fn responding(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response: Response = match body.as_str() {
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "not_recorded" => (DoNotRecord, run).into_response(),
        "medium" => "x".repeat(LONG).into_response(),
        "long" => "x".repeat(2 << 20).into_response(),
        "stream" => {
            let parts = stream::iter(0..3_u8).map_ok_bytes();
            (
                [("content-type", "text/event-stream")],
                Body::from_stream(parts),
            )
                .into_response()
        }
        _ => (StatusCode::UNPROCESSABLE_ENTITY, run).into_response(),
    };
    Ok(bank.tell(attempt.commit(tx, response).await)?)
}

trait Parts {
    fn map_ok_bytes(self) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> + Send;
}

impl<S: stream::Stream<Item = u8> + Send> Parts for S {
    fn map_ok_bytes(self) -> impl stream::Stream<Item = Result<Bytes, std::io::Error>> + Send {
        stream::StreamExt::map(self, |part| Ok(Bytes::from(part.to_string())))
    }
}

/// Longer than what is sent in one message with the commit.
const LONG: usize = 64 << 10;

/// Breaks a constraint that is checked at the commit.
#[idempotent(scope = token, transactional)]
async fn deferred(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::pay(&mut tx, &body).await?;
    if bank.runs.count() == 1 {
        Bank::pay(&mut tx, &body).await?;
    }
    let response = attempt.commit(tx, (StatusCode::CREATED, body)).await;
    Ok(bank.tell(response)?)
}

/// Drops the commit after as many polls as the body says. Its first word says which way the commit goes.
#[idempotent(scope = token, transactional)]
async fn dropped(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let polls: usize = body
        .trim_matches(|it: char| !it.is_numeric())
        .parse()
        .unwrap_or_default();
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    if !bank.is_first(&body) {
        return Ok(attempt.commit(tx, (StatusCode::CREATED, run)).await?);
    }
    let (kind, _) = body.split_once('-').unwrap_or_default();
    let padding = if kind == "long" { LONG } else { 0 };
    let mut status = StatusCode::CREATED;
    match kind {
        "unrecorded" => status = StatusCode::SERVICE_UNAVAILABLE,
        "overtaken" => {
            let take_over = "UPDATE idem_records SET fence = fence + 1, attempt = 2
                WHERE record IS NULL AND leased_until > now()";
            sqlx::query(take_over).execute(&bank.pool).await?;
        }
        "broken" => Bank::pay(&mut tx, &run).await?,
        _ => {}
    }
    let response = (status, run + &" ".repeat(padding));
    let dropped = match kind {
        "savepoint" => {
            let savepoint = tx.begin().await?;
            let dropped = after(polls, attempt.commit(savepoint, response)).await;
            if let Some(Ok(_)) = &dropped {
                tx.commit().await?;
            }
            dropped
        }
        "recorded" => {
            let dropped = after(polls, attempt.record_in(&mut *tx, response)).await;
            if let Some(Ok(_)) = &dropped {
                tx.commit().await?;
            }
            dropped
        }
        _ => after(polls, attempt.commit(tx, response)).await,
    };
    match dropped {
        Some(committed) => Ok(committed?),
        None => Err(BankError::Database(sqlx::Error::WorkerCrashed)),
    }
}

/// Whether the last commit ended with an unknown outcome.
fn bank_told_unknown(service: &Service) -> bool {
    service
        .bank
        .take_told()
        .last()
        .is_some_and(|told| told == "OutcomeUnknown")
}

/// Polls a future at most so often.
async fn after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

async fn start(bank: Bank, settings: axum_idem::IdempotencyBuilder) -> Service {
    let more = Router::new()
        .route("/and_then", post(and_then))
        .route("/responding", post(responding))
        .route("/deferred", post(deferred))
        .route("/dropped", post(dropped));
    Service::with(bank, settings.lease(LEASE), more).await
}

async fn on(postgres: &PostgresServer) -> Service {
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    start(Bank::open(&postgres.url()).await, settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_replayed_whatever_the_handler_returns() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    for (run, body) in ["fail", "refuse", "panic", "again"].into_iter().enumerate() {
        let request = crate::support::post("/and_then", body, body);
        let first = service.server.try_send(request).await;
        assert_eq!(first.is_err(), body == "panic", "{first:?}");
        let replay = service.server.post("/and_then", body, body).await;
        let expected = format!("{body} {}", run + 1);
        assert!(
            replay.is_replay() && replay.text() == expected,
            "{replay:?}"
        );
        assert_eq!(replay.status, StatusCode::CREATED);
    }
    let told = service.bank.told();
    assert_eq!(told, ["Ok", "Ok", "Ok", "Ok", "AlreadyRecorded"]);
    assert_eq!(
        service.bank.payments().await,
        ["fail 1", "refuse 2", "panic 3", "again 4"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_recorded_is_rolled_back_and_releases_the_key() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    for (body, status) in [("unavailable", 503), ("not_recorded", 200)] {
        for _ in 0..2 {
            let response = service.server.post("/responding", body, body).await;
            assert_eq!(
                (response.status.as_u16(), response.is_replay()),
                (status, false)
            );
            assert!(service.entry(body).await.is_none(), "the key is free");
        }
    }
    assert_eq!(service.bank.told(), ["Ok"; 4]);
    assert!(service.bank.payments().await.is_empty());
    let recorded = service
        .server
        .post("/responding", "k", "no such account")
        .await;
    assert_eq!(recorded.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        service
            .server
            .post("/responding", "k", "no such account")
            .await
            .is_replay()
    );
    assert_eq!(service.bank.payments().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_cannot_be_kept_is_committed_as_not_kept() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    for (body, bytes) in [("long", 2 << 20), ("stream", 3)] {
        let first = service.server.post("/responding", body, body).await;
        assert_eq!((first.status, first.body.len()), (StatusCode::OK, bytes));
        let again = service.server.post("/responding", body, body).await;
        assert_eq!(again.code(), "idempotency_response_not_kept");
    }
    assert_eq!(service.bank.payments().await, ["long 1", "stream 2"]);
    let first = service.server.post("/responding", "m", "medium").await;
    let again = service.server.post("/responding", "m", "medium").await;
    assert!(again.is_replay() && again.body == first.body && first.body.len() == LONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_breaks_a_deferred_constraint_releases_the_key() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let failed = service.server.post("/deferred", "k", "x").await;
    assert_eq!(failed.code(), "idempotency_commit_failed");
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(service.bank.told(), ["Database"]);
    assert!(service.entry("k").await.is_none(), "the key is free");
    assert!(service.bank.payments().await.is_empty());
    let next = service.server.post("/deferred", "k", "x").await;
    assert_eq!(
        (next.status, next.is_replay()),
        (StatusCode::CREATED, false)
    );
    assert_eq!(service.bank.payments().await, ["x"]);
}

/// Every await of the commit, from the first to the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_dropped_half_way_has_one_effect() {
    let postgres = PostgresServer::start();
    let service = on(&postgres).await;
    let mut dropped = 0;
    let kinds = [
        "short",
        "long",
        "unrecorded",
        "overtaken",
        "broken",
        "savepoint",
        "recorded",
    ];
    for (kind, polls) in kinds
        .into_iter()
        .flat_map(|kind| (0..7_u32).map(move |at| (kind, at)))
    {
        let key = &format!("{kind}-{polls}");
        let first = service.server.post("/dropped", key, key).await;
        let entry = service.entry(key).await;
        let is_recorded = matches!(entry, Some(Entry::Recorded { .. }));
        // A key is free only when the transaction cannot have been committed.
        let may_be_free = polls == 0 || ["unrecorded", "broken"].contains(&kind);
        let is_other = kind == "overtaken" && matches!(entry, Some(Entry::InFlight { .. }));
        assert!(
            is_recorded || is_unknown(entry.as_ref()) || is_other || entry.is_none() && may_be_free,
            "{kind} after {polls} polls: {entry:?}"
        );
        lapse(&postgres);
        dropped += u32::from(polls > 0 && first.status == StatusCode::INTERNAL_SERVER_ERROR);
        // The rollback of a dropped transaction may still be on its way.
        let retry = eventually_async("the key is settled", async || {
            let retry = service.server.post("/dropped", key, key).await;
            (retry.status == StatusCode::CREATED).then_some(retry)
        })
        .await;
        assert!(!is_recorded || retry.is_replay(), "{first:?}, {retry:?}");
        let again = service.server.post("/dropped", key, key).await;
        assert!(again.is_replay() && again.body == retry.body, "{again:?}");
        let payments = service.bank.payments().await;
        let prefix = format!("{key} ");
        let of_key = payments.iter().filter(|run| run.starts_with(&prefix));
        assert_eq!(of_key.count(), 1, "after {polls} polls: {payments:?}");
    }
    assert!(
        dropped > 7,
        "only {dropped} commits were dropped before their end"
    );
}

/// The reply to each message of the handler's session, the one to its COMMIT included.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_found() {
    let postgres = PostgresServer::start();
    let wire = Wire::to(postgres.socket_folder()).await;
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let service = start(bank, settings).await;
    let mut found = 0;
    for reply in 1..12 {
        let key = &reply.to_string();
        // A connection of the pool, so that the replies are those of the handler.
        drop(service.bank.pool.acquire().await.expect("connected"));
        wire.lose_reply(reply);
        let first = service.server.post("/pay", key, key).await;
        let was_lost = wire.has_lost();
        wire.lose_reply(0);
        let told = service.bank.told();
        let is_committed = first.status == StatusCode::CREATED;
        let entry = service.entry(key).await;
        if is_committed {
            assert!(
                matches!(entry, Some(Entry::Recorded { .. })),
                "{reply}: {entry:?}"
            );
            found += u32::from(was_lost);
        } else {
            assert!(was_lost, "{reply}: {first:?}, {told:?}");
        }
        let retry = service.server.post("/pay", key, key).await;
        assert_eq!(
            retry.status,
            StatusCode::CREATED,
            "{reply}: {first:?}, {told:?}"
        );
        assert_eq!(retry.is_replay(), is_committed, "{reply}: {first:?}");
    }
    assert!(found > 0, "no reply to a commit was lost");
    assert_eq!(service.bank.payments().await.len(), 11);
}

/// The server commits, and then neither the handler nor the store can be told.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_looked_for_is_never_released() {
    let postgres = PostgresServer::start();
    let wire = Wire::to(postgres.socket_folder()).await;
    let faults = FaultStore::new(store(&postgres.url()).await);
    let settings = Idempotency::builder().store(faults.clone());
    let settings = settings.store_timeout(Duration::from_millis(200));
    let bank = Bank::with_connections(&wire.url(), 1).await;
    let service = start(bank, settings).await;
    let mut unknown = 0;
    for reply in 1..12 {
        let key = &reply.to_string();
        drop(service.bank.pool.acquire().await.expect("connected"));
        faults.script(Operation::CommitState, vec![Fault::ErrBefore; 1_000]);
        wire.lose_reply(reply);
        let first = service.server.post("/pay", key, key).await;
        wire.lose_reply(0);
        faults.heal();
        let is_unknown = bank_told_unknown(&service);
        if is_unknown {
            assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(first.code(), "idempotency_outcome_unknown");
            unknown += 1;
            let entry = service.entry(key).await;
            assert!(entry.is_some(), "the key was released");
        }
        lapse(&postgres);
        let retry = service.server.post("/pay", key, key).await;
        assert_eq!(retry.status, StatusCode::CREATED, "{reply}: {first:?}");
        assert!(service.server.post("/pay", key, key).await.is_replay());
    }
    assert!(unknown > 0, "no reply to a commit was lost");
    assert_eq!(service.bank.payments().await.len(), 11);
}
