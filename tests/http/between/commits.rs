//! A layer that commits a transaction: its failure is not recorded, and a disconnect does not cancel it.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum_idem::Idempotency;
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::testing::{Fault, FaultStore, Operation};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{App, Commit, LONG, routes, start, start_with, unit_of_work};
use crate::support::{self, Server, eventually, post as keyed, post_bytes};

#[tokio::test]
async fn a_commit_that_fails_is_not_recorded_and_the_retry_runs_again() {
    let setup = start().await;
    let books = &setup.app.books;
    books.next_commit(Commit::Fails(StatusCode::INTERNAL_SERVER_ERROR));
    let first = setup.post("/book").await;
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::INTERNAL_SERVER_ERROR, "the commit failed")
    );
    assert!(setup.stored().await.is_none(), "the key is free");
    let retry = setup.post("/book").await;
    assert_eq!(
        (retry.text(), retry.is_replay()),
        ("run 2, attempt 1", false)
    );
    let replay = setup.post("/book").await;
    assert_eq!(
        (replay.text(), replay.is_replay()),
        ("run 2, attempt 1", true)
    );
    assert_eq!(books.rows(), ["row 2"]);
    assert_eq!(books.rolled_back(), 1);
}

/// A serialization failure is a 409 in many services, and 4xx is recorded by default.
#[tokio::test]
async fn a_success_that_a_layer_turns_into_a_recordable_failure_is_neither_replayed_nor_run_again()
{
    let setup = start().await;
    setup
        .app
        .books
        .next_commit(Commit::Fails(StatusCode::CONFLICT));
    assert_eq!(setup.post("/book").await.text(), "the commit failed");
    let retry = setup.post("/book").await;
    assert_eq!(retry.code(), "idempotency_response_not_kept");
    assert_eq!(setup.app.runs.started(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_disconnects_cause_forty_commits_and_forty_replays() {
    let setup = start().await;
    let (server, runs) = (setup.server, &setup.app.runs);
    for key in 0..40 {
        let stream = server
            .write(post_bytes("/slow", &key.to_string(), ""))
            .await;
        runs.until_started(key + 1).await;
        drop(stream);
    }
    runs.open(40);
    runs.until_finished(40).await;
    setup.drained().await;
    for key in 0..40 {
        let retry = server.post("/slow", &key.to_string(), "").await;
        assert!(retry.status == 201 && retry.is_replay(), "{retry:?}");
    }
    assert_eq!((runs.started(), setup.app.books.rows().len()), (40, 40));
    assert_eq!(setup.app.books.rolled_back(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_commit_loses_nothing() {
    let setup = start().await;
    let books = &setup.app.books;
    books.next_commit(Commit::Waits);
    let stream = setup.server.write(post_bytes("/book", "k", "")).await;
    books.until_commit_waits().await;
    let duplicate = setup.post("/book").await;
    assert_eq!(duplicate.code(), "idempotency_key_in_flight");
    drop(stream);
    for _ in 0..20 {
        // The server sees the close by the time that it has responded to others.
        assert_eq!(
            setup.post("/book").await.code(),
            "idempotency_key_in_flight"
        );
    }
    books.open();
    setup.drained().await;
    assert!(setup.post("/book").await.is_replay());
    assert_eq!(books.rows(), ["row 1"]);
}

#[tokio::test]
async fn an_http_2_reset_during_the_commit_loses_nothing() {
    let setup = start().await;
    let books = &setup.app.books;
    books.next_commit(Commit::Waits);
    let mut connection = setup.server.http2().await;
    let mut request = keyed("/book", "k", "");
    *request.uri_mut() = "http://localhost/book".parse().expect("a URI");
    let answer = tokio::spawn(connection.send_request(request));
    books.until_commit_waits().await;
    answer.abort();
    assert!(answer.await.is_err());
    for _ in 0..20 {
        assert_eq!(
            setup.post("/book").await.code(),
            "idempotency_key_in_flight"
        );
    }
    books.open();
    setup.drained().await;
    assert!(setup.post("/book").await.is_replay());
    assert!(!connection.is_closed());
    assert_eq!(books.rows(), ["row 1"]);
}

/// The retry must not find a record of a commit that fails when nobody waits for it.
#[tokio::test]
async fn a_commit_that_fails_in_the_background_is_not_recorded() {
    let setup = start().await;
    let (runs, books) = (&setup.app.runs, &setup.app.books);
    books.next_commit(Commit::Fails(StatusCode::INTERNAL_SERVER_ERROR));
    let stream = setup.server.write(post_bytes("/slow", "k", "")).await;
    runs.until_started(1).await;
    drop(stream);
    for _ in 0..20 {
        assert_eq!(
            setup.post("/slow").await.code(),
            "idempotency_key_in_flight"
        );
    }
    runs.open(2);
    setup.drained().await;
    assert_eq!(books.rolled_back(), 1);
    assert!(!setup.post("/slow").await.is_replay());
    assert_eq!((runs.started(), books.rows().len()), (2, 1));
}

#[tokio::test]
async fn no_byte_of_the_response_leaves_before_layers_and_store_are_done() {
    let store = FaultStore::new(MemoryStore::default());
    let pause = Duration::from_millis(300);
    store.script(Operation::Complete, [Fault::DelayReply(pause)]);
    let idem = Idempotency::builder().store(store.clone()).build();
    let setup = start_with(idem, |router| router).await;
    setup.app.books.next_commit(Commit::Waits);
    let server = setup.server;
    let first = tokio::spawn(async move { server.post("/book", "k", "").await });
    setup.app.books.until_commit_waits().await;
    assert_eq!(
        store.calls(Operation::Complete),
        0,
        "a record before the commit"
    );
    setup.app.books.open();
    eventually("the record is written", || {
        store.calls(Operation::Complete) == 1
    })
    .await;
    assert!(!first.is_finished(), "a response before the record");
    assert_eq!(first.await.expect("no panic").status, 201);
    assert!(setup.post("/book").await.is_replay());
}

#[tokio::test]
async fn a_record_that_is_late_is_marked_behind_layers_too() {
    let store = FaultStore::new(MemoryStore::default());
    store.script(Operation::Complete, [Fault::ErrBefore]);
    let idem = Idempotency::builder().store(store.clone()).build();
    let setup = start_with(idem, |router| router).await;
    let first = setup.post("/book").await;
    assert!(first.status == 201 && first.is_unrecorded(), "{first:?}");
    setup.drained().await;
    assert!(setup.post("/book").await.is_replay());
}

/// The handler has ended at its first poll, so nothing has renewed the lease before.
#[tokio::test(start_paused = true)]
async fn a_layer_may_take_longer_than_the_lease() {
    let lease = Duration::from_secs(30);
    let idem = Idempotency::builder().lease(lease).build();
    let app = App::default();
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(idem.clone());
    app.books.next_commit(Commit::Waits);
    let post = || support::exchange(router.clone(), keyed("/book", "k", ""));
    let first = tokio::spawn(post());
    app.books.until_commit_waits().await;
    for _ in 0..10 {
        tokio::time::sleep(lease).await;
        assert_eq!(post().await.code(), "idempotency_key_in_flight");
    }
    app.books.open();
    assert_eq!(first.await.expect("no panic").status, 201);
    assert!(post().await.is_replay());
    assert_eq!(app.runs.started(), 1);
}

/// The unit of work waits in the background, and the server itself has shut down.
#[tokio::test]
async fn drain_waits_for_layers_in_the_background_after_a_graceful_shutdown() {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = |app: &App| -> Router {
        routes()
            .with_state(app.clone())
            .layer(from_fn_with_state(app.books.clone(), unit_of_work))
            .layer(idem.clone())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let server = Server(listener.local_addr().expect("an address"));
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router(&app)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serving.into_future());
    app.books.next_commit(Commit::Waits);
    let stream = server.write(post_bytes("/book", "k", "")).await;
    app.books.until_commit_waits().await;
    drop(stream);
    stop.send(()).expect("it serves");
    serving.await.expect("no panic").expect("it serves");
    assert_eq!(idem.drain(Duration::from_millis(20)).await, 1);
    app.books.open();
    assert_eq!(idem.drain(LONG).await, 0);
    let again = Server::start(router(&app)).await;
    assert!(again.post("/book", "k", "").await.is_replay());
    assert_eq!(app.books.rows(), ["row 1"]);
}

/// It is unknown whether the commit succeeded.
#[test]
fn a_runtime_that_shuts_down_during_the_commit_leaves_the_outcome_unknown() {
    let (app, idem) = (App::default(), Idempotency::in_memory());
    let router = routes()
        .with_state(app.clone())
        .layer(from_fn_with_state(app.books.clone(), unit_of_work))
        .layer(idem.clone());
    for (leaves, key) in [(false, "stays"), (true, "leaves")] {
        app.books.next_commit(Commit::Waits);
        let first = tokio::runtime::Builder::new_multi_thread();
        let first = { first }.enable_all().build().expect("a runtime");
        first.block_on(async {
            let server = Server::start(router.clone()).await;
            let stream = server.write(post_bytes("/book", key, "")).await;
            app.books.until_commit_waits().await;
            if leaves {
                drop(stream);
                server.post("/book", key, "").await;
            } else {
                std::mem::forget(stream);
            }
        });
        first.shutdown_timeout(LONG);
        app.books
            .0
            .waiting
            .store(0, std::sync::atomic::Ordering::SeqCst);
        let second = tokio::runtime::Builder::new_current_thread();
        let second = { second }.enable_all().build().expect("a runtime");
        let retry = second.block_on(async {
            let id = idem.record_id(&axum_idem::Scope::new(), key);
            let entry = idem.look_up(id).await.expect("memory does not fail");
            assert!(
                matches!(entry, Some(Entry::Unknown { .. })),
                "{key}: {entry:?}"
            );
            Server::start(router.clone())
                .await
                .post("/book", key, "")
                .await
        });
        assert!(retry.text().ends_with("attempt 2") && !retry.is_replay());
    }
    assert_eq!(app.books.rolled_back(), 2);
}
