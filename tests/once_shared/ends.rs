//! The ways in which a commit and its handler can end, on every database.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use axum_idem::{Attempt, CommitError, DoNotRecord, idempotent};

use super::bank::{Bank, Paid, Payments, Service};
use crate::support;

/// Commits, and then does what the body says.
#[idempotent(scope = token, transactional)]
async fn and_then<DB: Payments>(
    State(bank): State<Bank<DB>>,
    attempt: Attempt,
    body: String,
) -> Paid {
    let mut tx = bank.begin().await?;
    let run = format!("{body} {}", bank.runs.count());
    Bank::<DB>::pay(&mut tx, &run).await?;
    let response = match body.as_str() {
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "not_recorded" => (DoNotRecord, run).into_response(),
        "no_account" => (StatusCode::UNPROCESSABLE_ENTITY, run).into_response(),
        _ => (StatusCode::CREATED, run).into_response(),
    };
    let response = bank.note(attempt.commit(tx, response).await)?;
    match body.as_str() {
        "panic" => panic!("after the commit"),
        "error" => Err(CommitError::from(sqlx::Error::RowNotFound))?,
        "fail" => Ok(StatusCode::SERVICE_UNAVAILABLE.into_response()),
        "refuse" => Ok((StatusCode::NOT_FOUND, DoNotRecord, "").into_response()),
        "again" => {
            let mut tx = bank.begin().await?;
            Bank::<DB>::pay(&mut tx, "a second payment").await?;
            let second = attempt.commit(tx, StatusCode::OK).await;
            Ok(bank.note(second)?)
        }
        _ => Ok(response),
    }
}

/// Breaks a constraint that is checked at the commit, in the first run.
#[idempotent(scope = token, transactional)]
async fn deferred<DB: Payments>(
    State(bank): State<Bank<DB>>,
    attempt: Attempt,
    body: String,
) -> Paid {
    let mut tx = bank.begin().await?;
    Bank::<DB>::pay(&mut tx, &body).await?;
    if bank.runs.count() == 1 {
        DB::break_constraint(&mut tx).await?;
    }
    let response = attempt.commit(tx, (StatusCode::CREATED, body)).await;
    Ok(bank.note(response)?)
}

pub(crate) fn routes<DB: Payments>() -> Router<Bank<DB>> {
    Router::new()
        .route("/and_then", post(and_then::<DB>))
        .route("/deferred", post(deferred::<DB>))
}

pub(crate) async fn a_committed_response_is_replayed<DB: Payments>(service: Service<DB>) {
    let bodies = ["succeed", "fail", "refuse", "panic", "again", "error"];
    for (run, body) in bodies.into_iter().enumerate() {
        let request = support::post("/and_then", body, body);
        let first = service.server.try_send(request).await;
        assert_eq!(first.is_err(), body == "panic", "{first:?}");
        if let ("again" | "error", Ok(first)) = (body, first) {
            assert_eq!(first.code(), "idempotency_commit_failed");
            assert!(
                first.text().contains("a response was committed"),
                "{first:?}"
            );
        }
        let replay = service.server.post("/and_then", body, body).await;
        let expected = format!("{body} {}", run + 1);
        assert!(
            replay.is_replay() && replay.text() == expected,
            "{replay:?}"
        );
        assert_eq!(replay.status, StatusCode::CREATED);
    }
    let results = service.bank.results();
    assert_eq!(
        results,
        ["Ok", "Ok", "Ok", "Ok", "Ok", "AlreadyRecorded", "Ok"]
    );
    assert_eq!(
        service.bank.payments().await,
        [
            "succeed 1",
            "fail 2",
            "refuse 3",
            "panic 4",
            "again 5",
            "error 6"
        ]
    );
}

pub(crate) async fn a_response_that_is_not_recorded_is_rolled_back<DB: Payments>(
    service: Service<DB>,
) {
    for (body, status) in [("unavailable", 503), ("not_recorded", 200)] {
        for _ in 0..2 {
            let response = service.server.post("/and_then", body, body).await;
            assert_eq!(
                (response.status.as_u16(), response.is_replay()),
                (status, false)
            );
            assert!(service.entry(body).await.is_none(), "the key is free");
        }
    }
    assert_eq!(service.bank.take_results(), ["Ok"; 4]);
    assert!(service.bank.payments().await.is_empty());
    for is_replay in [false, true] {
        let recorded = service.server.post("/and_then", "k", "no_account").await;
        assert_eq!(
            (recorded.status, recorded.is_replay()),
            (StatusCode::UNPROCESSABLE_ENTITY, is_replay)
        );
    }
    assert_eq!(service.bank.payments().await.len(), 1);
}

pub(crate) async fn a_broken_constraint_releases_the_key<DB: Payments>(service: Service<DB>) {
    let failed = service.server.post("/deferred", "k", "x").await;
    assert_eq!(failed.code(), "idempotency_commit_failed", "{failed:?}");
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(service.bank.take_results(), ["Database"]);
    assert!(service.entry("k").await.is_none(), "the key is free");
    assert!(service.bank.payments().await.is_empty());
    let next = service.server.post("/deferred", "k", "x").await;
    assert_eq!(
        (next.status, next.is_replay()),
        (StatusCode::CREATED, false)
    );
    assert_eq!(service.bank.payments().await, ["x"]);
}
