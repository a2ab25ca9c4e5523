//! The ways in which a commit and its handler can end.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_idem::store::Entry;
use axum_idem::{Attempt, Idempotency, idempotent};
use futures_util::stream;

use sqlx::Acquire as _;

use crate::bank::{Bank, BankError, LEASE, Paid, Service, after, is_unknown, lapse, store};
use crate::servers::eventually_async;
use crate::servers::postgres::PostgresServer;
use crate::shared::ends as shared;

/// Commits a response of the kind that the body says.
#[idempotent(scope = token, transactional)]
async fn responding(State(bank): State<Bank>, attempt: Attempt, body: String) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::pay(&mut tx, &run).await?;
    let response: Response = match body.as_str() {
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
        other => panic!("no kind of response: {other}"),
    };
    Ok(bank.note(attempt.commit(tx, response).await)?)
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

async fn on(postgres: &PostgresServer) -> Service {
    let more = shared::routes()
        .route("/responding", post(responding))
        .route("/dropped", post(dropped));
    let settings = Idempotency::builder().store(store(&postgres.url()).await);
    let bank = Bank::open(&postgres.url()).await;
    Service::with(bank, settings.lease(LEASE), more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_response_is_replayed_whatever_the_handler_returns() {
    let postgres = PostgresServer::start();
    shared::a_committed_response_is_replayed(on(&postgres).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_recorded_is_rolled_back_and_releases_the_key() {
    let postgres = PostgresServer::start();
    shared::a_response_that_is_not_recorded_is_rolled_back(on(&postgres).await).await;
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
    shared::a_broken_constraint_releases_the_key(on(&postgres).await).await;
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
