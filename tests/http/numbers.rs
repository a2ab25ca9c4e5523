//! `fingerprint = json`: which numbers are the same in a retry.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::routing::post;
use axum_idem::{Idempotency, idempotent};

use crate::support::{Answer, KEY, Runs, Server, request};

#[idempotent(scope = global, fingerprint = json)]
async fn whole(State(runs): State<Runs>, _: String) -> String {
    runs.count().to_string()
}

#[idempotent(scope = global, fingerprint = json("/order/amount", "/order/items/1"))]
async fn parts(State(runs): State<Runs>, _: String) -> String {
    runs.count().to_string()
}

async fn start() -> (Server, Runs) {
    let runs = Runs::default();
    let router = Router::new()
        .route("/whole", post(whole))
        .route("/parts", post(parts))
        .layer(Idempotency::in_memory())
        .with_state(runs.clone());
    (Server::start(router).await, runs)
}

async fn send(server: Server, path: &str, key: &str, body: &str) -> Answer {
    let headers = [(KEY, key), ("content-type", "application/json")];
    server
        .send(request(Method::POST, path, headers, body))
        .await
}

/// Bodies in which the number is alone, in an array, in an object, and deeply nested.
fn bodies(number: &str) -> [String; 4] {
    let nested = format!("{}{number}{}", "[{\"a\":".repeat(40), "}]".repeat(40));
    [
        number.to_owned(),
        format!("[0, {number}, \"x\"]"),
        format!("{{\"amount\": {number}, \"currency\": \"EUR\"}}"),
        nested,
    ]
}

const SAME: [(&str, &str); 14] = [
    ("1", "1.0"),
    ("1", "10e-1"),
    ("100", "1e2"),
    ("100", "1E+2"),
    ("0", "-0"),
    ("0", "-0.000e+17"),
    ("0", "0e999999999999999999999999"),
    ("-12.5", "-125e-1"),
    ("0.1", "1e-1"),
    ("9007199254740993", "9007199254740993.0"),
    ("9007199254740993", "9.007199254740993e15"),
    ("1E+400", "10e399"),
    ("1e-400", "0.1e-399"),
    ("1e999999999999999999", "1.0E+999999999999999999"),
];

const DIFFERENT: [(&str, &str); 14] = [
    ("1", "-1"),
    ("1", "\"1\""),
    ("1", "10"),
    ("1", "true"),
    ("0", "null"),
    // Equal as doubles.
    ("9007199254740993", "9007199254740992"),
    ("0.1", "0.1000000000000000055511151231257827"),
    ("1", "1.00000000000000000000000000001"),
    ("1e400", "1e401"),
    ("1e400", "-1e400"),
    ("1e-400", "0"),
    ("1e-400", "1e-401"),
    ("1e999999999999999999", "1e999999999999999998"),
    ("1e99999999999999999999", "1e99999999999999999998"),
];

#[tokio::test]
async fn spellings_of_one_number_are_one_request_and_different_numbers_are_not() {
    let (server, runs) = start().await;
    let mut keys = 0;
    let pairs = SAME.map(|pair| (pair, true)).into_iter();
    for ((one, other), is_same) in pairs.chain(DIFFERENT.map(|pair| (pair, false))) {
        for (first, second) in bodies(one).iter().zip(&bodies(other)) {
            keys += 1;
            let key = keys.to_string();
            let answer = send(server, "/whole", &key, first).await;
            assert!(answer.status.is_success(), "{first}: {answer:?}");
            let answer = send(server, "/whole", &key, second).await;
            if is_same {
                assert!(answer.is_replay(), "{first} and {second}: {answer:?}");
            } else {
                let code = answer.code();
                assert_eq!(code, "idempotency_key_reused", "{first} and {second}");
            }
        }
    }
    assert_eq!(runs.started(), keys);
}

#[tokio::test]
async fn numbers_at_pointers_are_compared_by_value_too() {
    let (server, runs) = start().await;
    let body = |amount: &str, item: &str, other: &str| {
        format!(
            "{{\"order\": {{\"items\": [{other}, {item}], \"amount\": {amount}}}, \"at\": {other}}}"
        )
    };
    send(server, "/parts", "k", &body("100", "9007199254740993", "1")).await;
    let same = body("1e2", "9007199254740993.00", "2");
    assert!(send(server, "/parts", "k", &same).await.is_replay());
    for different in [
        body("1e3", "9007199254740993", "1"),
        body("100", "9007199254740992", "1"),
    ] {
        let answer = send(server, "/parts", "k", &different).await;
        assert_eq!(answer.code(), "idempotency_key_reused", "{different}");
    }
    assert_eq!(runs.started(), 1);
}

/// The name of a member is a text, also when it looks like a number.
#[tokio::test]
async fn the_names_of_members_are_not_numbers() {
    let (server, _) = start().await;
    for (at, (one, other)) in SAME.iter().enumerate() {
        let body = |name: &str| format!("{{\"{name}\": 1}}");
        let key = at.to_string();
        send(server, "/whole", &key, &body(one)).await;
        let answer = send(server, "/whole", &key, &body(other)).await;
        assert_eq!(answer.code(), "idempotency_key_reused", "{one} and {other}");
    }
}

/// Two spellings of a value must not only meet because a number has no form: then the bytes would count, and the
/// second body would be a mismatch. The digits fill most of the body that a service accepts.
#[tokio::test]
async fn a_number_may_have_as_many_digits_as_the_body() {
    let (server, runs) = start().await;
    let digits = "7".repeat(1 << 20);
    let zeros = "0".repeat(1 << 19);
    let pairs = [
        (format!("{digits}.0"), digits.clone()),
        (format!("1{zeros}"), format!("1e{}", zeros.len())),
        (format!("0.{zeros}1"), format!("1e-{}", zeros.len() + 1)),
        (format!("1e{zeros}7"), "10000000".to_owned()),
        (format!("0e{digits}"), "0".to_owned()),
    ];
    for (at, (one, other)) in pairs.iter().enumerate() {
        let key = at.to_string();
        send(server, "/whole", &key, one).await;
        let answer = send(server, "/whole", &key, other).await;
        assert!(answer.is_replay(), "pair {at}: {answer:?}");
    }
    let mut longer = digits.clone();
    write!(longer, "7").expect("written");
    let answer = send(server, "/whole", "0", &longer).await;
    assert_eq!(answer.code(), "idempotency_key_reused");
    assert_eq!(runs.started(), pairs.len());
}
