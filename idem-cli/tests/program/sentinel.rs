//! A Redis primary behind a Sentinel, with a password and another database than 0.

use std::time::Duration;

use axum_idem::store::RedisStore;
use test_support::servers::redis::{RedisServer, Sentinel};

use crate::harness::{Program, prepare};

#[tokio::test]
async fn the_program_signs_in_to_a_primary_behind_a_sentinel() {
    let server = RedisServer::start();
    let sentinel = Sentinel::watching(&server);
    // The Sentinel signs in as `default`, who sees no record.
    server.command(&[
        "ACL", "SETUSER", "desk", "on", ">a@b/c", "~*", "&*", "+@all",
    ]);
    server.command(&["ACL", "SETUSER", "default", "-@write", "-@scripting"]);
    let builder = RedisStore::builder()
        .sentinel("trades", [sentinel.url()])
        .username("desk")
        .password("a@b/c")
        .database(3)
        .timeout(Duration::from_secs(20));
    let store = builder.connect().await.expect("the service connects");
    let address = |user_info: &str, database: &str| {
        let host = format!("127.0.0.1:{}", sentinel.port);
        Program::new(format!(
            "redis+sentinel://{user_info}{host}/trades{database}"
        ))
    };
    let program = address("desk:a%40b%2Fc@", "?db=3");
    prepare(&program, &store).await;
    let listed = program.run(&["list", "--json"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert_eq!(listed.json().len(), 3, "{listed:?}");

    let other = address("desk:a%40b%2Fc@", "").run(&["list", "--json"]);
    assert_eq!((other.code, other.json().len()), (0, 0), "{other:?}");
    for user_info in ["", "desk:wrong@"] {
        let refused = address(user_info, "?db=3").run(&["list"]);
        assert_eq!(refused.code, 1, "{user_info}: {refused:?}");
    }
}
