//! Tests operator calls on a failing store. They return the error and can be repeated.

use std::time::Duration;

use axum::http::Response;
use axum_idem::Scope;
use axum_idem::store::StoreError;
use axum_idem::testing::Fault::{DropReply, ErrAfter, ErrBefore, Hang, Undecodable};
use axum_idem::testing::Operation::{Forget, LookUp, Resolve};

use super::start;

#[tokio::test]
async fn operator_calls_return_store_errors() {
    let setup = start().await;
    let id = setup.idem.record_id(&Scope::new(), "k");
    setup.server.post("/count", "k", "").await;

    setup.store.script(LookUp, [ErrBefore, Hang, Undecodable]);
    let looked_up = setup.idem.look_up(id).await;
    assert!(matches!(looked_up, Err(StoreError::Unavailable(_))));
    let looked_up = setup.idem.look_up(id).await;
    assert!(matches!(looked_up, Err(StoreError::TimedOut)));
    let looked_up = setup.idem.look_up(id).await;
    assert!(matches!(looked_up, Err(StoreError::Undecodable(_))));
    assert!(matches!(setup.idem.look_up(id).await, Ok(Some(_))));

    setup.store.script(Forget, [ErrBefore, ErrAfter, DropReply]);
    for _ in 0..3 {
        assert!(setup.idem.forget(id).await.is_err());
    }
    assert!(matches!(setup.idem.forget(id).await, Ok(false)));
    assert_eq!(setup.server.post("/count", "k", "").await.text(), "2");
}

#[tokio::test]
async fn a_failed_resolve_can_be_repeated() {
    let setup = start().await;
    let id = setup.idem.record_id(&Scope::new(), "k");
    assert_eq!(setup.server.post("/panics", "k", "").await.status, 500);
    setup.store.script(Resolve, [ErrBefore]);
    let ttl = Duration::from_secs(3600);
    let answer = || Response::new("by hand".into());
    assert!(setup.idem.resolve(id, answer(), ttl).await.is_err());
    assert!(
        setup
            .idem
            .resolve(id, answer(), ttl)
            .await
            .expect("the store works")
    );
    let replay = setup.server.post("/panics", "k", "").await;
    assert!(replay.is_replay());
    assert_eq!(replay.text(), "by hand");
    assert_eq!(setup.runs.started(), 1);
}
