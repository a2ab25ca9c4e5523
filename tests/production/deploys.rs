//! What a deploy may change: two versions of a service share a store, and a client retries across the deploy.

use std::convert::Infallible;

use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::{MethodRouter, post, put};
use axum_idem::store::{Entry, MemoryStore};
use axum_idem::{
    Attempt, Dialect, FingerprintDigest, Idempotency, IdempotencyBuilder, OutcomeUnknown, RecordId,
    Scope, idempotent,
};
use http::Method;
use test_support::http::{Answer, KEY, Runs, exchange, request};

/// The caller. Each test has one.
struct User {
    id: u64,
    tenant: u64,
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { id: 7, tenant: 3 })
    }
}

/// One version of the handler.
macro_rules! version {
    ($name:ident($user:ident), $($arguments:tt)*) => {
        #[idempotent($($arguments)*)]
        async fn $name(
            attempt: Attempt,
            $user: User,
            State(runs): State<Runs>,
            body: String,
        ) -> Result<(StatusCode, String), (StatusCode, OutcomeUnknown, &'static str)> {
            let _ = $user;
            let run = runs.count();
            match body.as_str() {
                "gone" => Ok((StatusCode::GONE, format!("run {run}"))),
                "unknown" if attempt.number() == 1 => {
                    Err((StatusCode::GATEWAY_TIMEOUT, OutcomeUnknown, "no reply"))
                }
                _ => Ok((StatusCode::CREATED, format!("run {run}"))),
            }
        }
    };
}

version!(first(user), scope = user.id);
version!(same_text(user), scope = user.id.to_string());
version!(other_ttl(user), scope = user.id, ttl = "1h");
version!(other_record(user), scope = user.id, record = [2xx]);
version!(waits(user), scope = user.id, in_flight = wait("2s"));
version!(holds(user), scope = user.id, on_unknown = hold);
version!(required(user), scope = user.id, required);
version!(receipt(user), scope = user.id, record_body = none);
version!(short_run(user), scope = user.id, max_run = "10s");
version!(by_tenant(user), scope = (user.tenant, user.id));
version!(by_token(user), scope = token);
version!(json(user), scope = user.id, fingerprint = json);
version!(no_body(user), scope = user.id, fingerprint = none);

/// One version of the service on a store that other versions share.
struct Version {
    router: Router,
    idem: Idempotency,
    runs: Runs,
}

type Handler = MethodRouter<Runs>;

fn version(
    store: &MemoryStore,
    path: &str,
    handler: Handler,
    settings: impl FnOnce(IdempotencyBuilder) -> IdempotencyBuilder,
) -> Version {
    let idem = settings(Idempotency::builder().store(store.clone())).build();
    let runs = Runs::default();
    let router = Router::new()
        .route(path, handler)
        .layer(idem.clone())
        .with_state(runs.clone());
    Version { router, idem, runs }
}

fn of(store: &MemoryStore, handler: Handler) -> Version {
    version(store, "/pay", handler, |builder| builder)
}

impl Version {
    async fn send(&self, method: Method, path: &str, body: &str) -> Answer {
        let headers = [
            (KEY, "k"),
            ("authorization", "Bearer alice"),
            ("content-type", "application/json"),
        ];
        exchange(self.router.clone(), request(method, path, headers, body)).await
    }

    async fn pay(&self, body: &str) -> Answer {
        self.send(Method::POST, "/pay", body).await
    }

    fn id(&self) -> RecordId {
        self.idem.record_id(&Scope::new().value(7), "k")
    }
}

const BODY: &str = r#"{"cents": 100}"#;

/// What a retry gets that crosses the deploy.
#[derive(Debug, PartialEq)]
enum Retry {
    Replay,
    Reused,
    RunsAgain,
}

fn retry(answer: &Answer, at: &Version) -> Retry {
    match answer.status {
        StatusCode::CREATED if answer.is_replay() => Retry::Replay,
        StatusCode::CREATED => {
            assert_eq!(at.runs.count(), 2, "the handler ran once");
            Retry::RunsAgain
        }
        StatusCode::CONFLICT => {
            assert_eq!(answer.code(), "idempotency_key_reused");
            Retry::Reused
        }
        _ => panic!("{answer:?}"),
    }
}

type Start = fn(&MemoryStore) -> Version;

/// Sends the first request to the version before the deploy, and a retry to the version after it. Then the same the
/// other way round, as when the deploy is rolled back.
async fn crosses(what: &str, expected: Retry, before: Start, after: Start) {
    for (from, to) in [(before, after), (after, before)] {
        let store = MemoryStore::default();
        let (from, to) = (from(&store), to(&store));
        let booked = from.pay(BODY).await;
        assert_eq!(booked.status, StatusCode::CREATED, "{what}: {booked:?}");
        let answer = to.pay(BODY).await;
        assert_eq!(retry(&answer, &to), expected, "{what}: {answer:?}");
    }
}

fn before(store: &MemoryStore) -> Version {
    of(store, post(first))
}

#[tokio::test]
async fn a_change_of_policy_or_handler_replays() {
    let changes: [(&str, Start); 9] = [
        ("the text of the scope stays", |store| {
            of(store, post(same_text))
        }),
        ("ttl", |store| of(store, post(other_ttl))),
        ("record", |store| of(store, post(other_record))),
        ("in_flight", |store| of(store, post(waits))),
        ("on_unknown", |store| of(store, post(holds))),
        ("required", |store| of(store, post(required))),
        ("max_run", |store| of(store, post(short_run))),
        ("the names of other headers and statuses", |store| {
            version(store, "/pay", post(first), |builder| {
                let dialect = Dialect::default().mismatch(StatusCode::UNPROCESSABLE_ENTITY);
                builder.dialect(dialect)
            })
        }),
        ("lease and timeouts", |store| {
            version(store, "/pay", post(first), |builder| {
                let second = std::time::Duration::from_secs(1);
                builder.lease(second * 60).store_timeout(second)
            })
        }),
    ];
    for (what, after) in changes {
        crosses(what, Retry::Replay, before, after).await;
    }
}

#[tokio::test]
async fn a_change_of_scope_namespace_or_secret_runs_again() {
    let changes: [(&str, Start); 4] = [
        ("scope", |store| of(store, post(by_tenant))),
        ("scope to token", |store| of(store, post(by_token))),
        ("namespace", |store| {
            version(store, "/pay", post(first), |it| it.namespace("blue"))
        }),
        ("id_secret", |store| {
            version(store, "/pay", post(first), |it| it.id_secret([7; 32]))
        }),
    ];
    for (what, after) in changes {
        crosses(what, Retry::RunsAgain, before, after).await;
    }
    // Another store has none of the records.
    crosses("store", Retry::RunsAgain, before, |_| {
        before(&MemoryStore::default())
    })
    .await;
}

/// A request whose key is in the old header has no key for the new version.
#[tokio::test]
async fn a_change_of_the_key_header_runs_again() {
    let store = MemoryStore::default();
    let renamed = version(&store, "/pay", post(first), |builder| {
        builder.dialect(Dialect::default().key_header("x-request-key"))
    });
    assert_eq!(before(&store).pay(BODY).await.status, StatusCode::CREATED);
    let answer = renamed.pay(BODY).await;
    assert_eq!(retry(&answer, &renamed), Retry::RunsAgain);
}

#[tokio::test]
async fn a_change_of_the_fingerprint_refuses_the_retry() {
    let changes: [(&str, Start); 4] = [
        ("fingerprint = json", |store| of(store, post(json))),
        ("fingerprint = none", |store| of(store, post(no_body))),
        ("the digest", |store| {
            version(store, "/pay", post(first), |builder| {
                builder.fingerprint_digest(FingerprintDigest::Blake3)
            })
        }),
        ("the content type no longer counts", |store| {
            version(store, "/pay", post(first), |builder| {
                builder.dialect(Dialect::default().ignore_content_type())
            })
        }),
    ];
    for (what, after) in changes {
        crosses(what, Retry::Reused, before, after).await;
    }
}

#[tokio::test]
async fn a_moved_endpoint_refuses_the_retry_and_its_alias_replays() {
    let store = MemoryStore::default();
    let old = before(&store);
    assert_eq!(old.pay(BODY).await.status, StatusCode::CREATED);

    let moved = version(&store, "/v1/pay", post(first), |builder| builder);
    let answer = moved.send(Method::POST, "/v1/pay", BODY).await;
    assert_eq!(retry(&answer, &moved), Retry::Reused);
    let put = version(&store, "/pay", put(first), |builder| builder);
    let answer = put.send(Method::PUT, "/pay", BODY).await;
    assert_eq!(retry(&answer, &put), Retry::Reused);

    // An alias of the old path, and another handler at it.
    let alias = of(&store, post(same_text));
    let answer = alias.pay(BODY).await;
    assert_eq!(retry(&answer, &alias), Retry::Replay);
}

#[tokio::test]
async fn a_record_keeps_the_ttl_status_and_body_with_which_it_was_recorded() {
    let store = MemoryStore::default();
    let old = before(&store);
    assert_eq!(old.pay("gone").await.status, StatusCode::GONE);
    // The new version would record neither this status nor a body, and keep a record for an hour.
    for handler in [post(other_record), post(receipt), post(other_ttl)] {
        let new = of(&store, handler);
        let answer = new.pay("gone").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::GONE, "run 1"));
        assert!(answer.is_replay());
        let entry = new.idem.look_up(new.id()).await.expect("memory is there");
        let Some(Entry::Recorded { expires_in, .. }) = entry else {
            panic!("{entry:?}");
        };
        assert!(expires_in > std::time::Duration::from_hours(23));
    }
}

/// The version that gets the retry decides, whichever version ran before.
#[tokio::test]
async fn the_version_of_the_retry_decides_about_an_unknown_outcome() {
    let store = MemoryStore::default();
    let (reruns, holds) = (of(&store, post(first)), of(&store, post(holds)));
    let first_try = reruns.pay("unknown").await;
    assert_eq!(first_try.status, StatusCode::GATEWAY_TIMEOUT);
    let held = holds.pay("unknown").await;
    assert_eq!(held.code(), "idempotency_outcome_unknown");
    let rerun = reruns.pay("unknown").await;
    assert_eq!(rerun.status, StatusCode::CREATED);
    assert!(holds.pay("unknown").await.is_replay());
}

#[idempotent(scope = user.id)]
async fn slow(user: User, State(runs): State<Runs>) -> (StatusCode, String) {
    let run = runs.pass().await;
    (StatusCode::CREATED, format!("run {run}"))
}

/// A blue-green deploy: both versions serve at once.
#[tokio::test]
async fn a_request_in_flight_at_the_old_version_is_not_run_by_the_new_one() {
    let store = MemoryStore::default();
    let blue = of(&store, post(slow));
    let green = of(&store, post(waits));
    let router = blue.router.clone();
    let headers = [(KEY, "k"), ("content-type", "application/json")];
    let sent = request(Method::POST, "/pay", headers, BODY);
    let running = tokio::spawn(exchange(router, sent));
    blue.runs.until_started(1).await;

    let rejects = of(&store, post(first));
    assert_eq!(rejects.pay(BODY).await.code(), "idempotency_key_in_flight");
    let (waited, ()) = tokio::join!(green.pay(BODY), async { blue.runs.open(1) });
    assert!(waited.is_replay(), "{waited:?}");
    assert_eq!(running.await.expect("no panic").text(), waited.text());
    // The old version is stopped after its runs have ended.
    assert_eq!(blue.idem.drain(std::time::Duration::from_secs(30)).await, 0);
    assert!(green.pay(BODY).await.is_replay());
}
