//! The rights in `docs/production.md` are enough, and no fewer are.

use axum_idem::store::{PostgresStore, RedisStore};
use test_support::servers::postgres::PostgresServer;
use test_support::servers::redis::RedisServer;

use crate::harness::{Prepared, Program, prepare};

/// The code block of the document that begins with these words.
fn block(begins: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/production.md");
    let document = std::fs::read_to_string(path).expect("a readable document");
    let mut blocks = document.split("```").skip(1).step_by(2);
    let block = blocks.find_map(|block| {
        let (_, text) = block.split_once('\n')?;
        text.starts_with(begins).then(|| text.to_owned())
    });
    block.unwrap_or_else(|| panic!("no block begins with `{begins}`"))
}

/// Runs each command, and those that change the store.
fn runs_every_command(program: &Program, prepared: &Prepared) {
    let (record, fence) = (&*prepared.unknown.to_string(), &*prepared.fence);
    let resolve = [
        "resolve", record, "--fence", fence, "--status", "201", "--ttl", "1h", "--reason", "test",
    ];
    let forget = ["forget", record, "--yes", "--reason", "test"];
    for (arguments, input) in [
        (&["list"][..], ""),
        (&["list", "--state", "unknown"], ""),
        (&["show", record], ""),
        (
            &["find", "--scope", "value"],
            "SECRET-user\nSECRET-unknown\n",
        ),
        (&["stats"], ""),
        (&["sweep"], ""),
        (&resolve, ""),
        (&forget, ""),
        (
            &[
                "forget-scope",
                "--scope",
                "value",
                "--yes",
                "--reason",
                "test",
            ],
            "SECRET-user\n",
        ),
    ] {
        let ran = program.run_with(arguments, input);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    let doctor = program.run(&["doctor"]);
    assert!(doctor.code == 0 || doctor.code == 4, "{doctor:?}");
}

#[tokio::test]
async fn the_documented_grants_are_enough_on_postgres() {
    let server = PostgresServer::start();
    let owner = Program::new(server.url());
    let schema = owner.run(&["schema", "postgres"]);
    assert_eq!(schema.code, 0, "{schema:?}");
    server.command(&schema.stdout);
    server.command("REVOKE ALL ON SCHEMA public FROM PUBLIC");
    let grants = block("CREATE ROLE shop");
    server.command(&grants);

    let url = server.url().replace("user=desk", "user=shop");
    let builder = PostgresStore::builder().url(&url).migrate(false);
    let store = builder.no_sweeper().connect().await;
    let store = store.expect("the service has every right");
    let program = Program::new(url);
    let prepared = prepare(&program, &store).await;
    runs_every_command(&program, &prepared);

    // The role can create nothing, and each of the grants is needed.
    let can_create = "SELECT has_schema_privilege('shop', 'public', 'CREATE')";
    assert_eq!(server.command(can_create), "f");
    for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
        server.command(&format!("REVOKE {right} ON public.idem_records FROM shop"));
        let ran = program.run(&["stats"]);
        assert_eq!(ran.code, 1, "without {right}: {ran:?}");
        assert!(ran.stderr.contains(right), "without {right}: {ran:?}");
        server.command(&format!("GRANT {right} ON public.idem_records TO shop"));
    }
}

#[tokio::test]
async fn the_documented_users_are_enough_on_redis() {
    let server = RedisServer::start();
    let users = block("ACL SETUSER shop");
    let users: Vec<Vec<&str>> = users
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for user in &users {
        assert_eq!(server.command(user), "OK", "{user:?}");
    }
    let url = |user: &str| {
        let with_password = format!("redis://{user}:secret@");
        server.url().replace("redis://", &with_password)
    };
    let store = RedisStore::connect(url("shop")).await;
    let store = store.expect("the service has every right");
    let operator = Program::new(url("operator"));
    let prepared = prepare(&operator, &store).await;

    // The service lists nothing, so its user may not scan.
    let ran = Program::new(url("shop")).run(&["list"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    runs_every_command(&operator, &prepared);

    // Neither user sees another service, or may do anything else.
    server.command(&["SET", "other:key", "1"]);
    for user in ["shop", "operator"] {
        for command in [
            &["GET", "other:key"][..],
            &["FLUSHALL"],
            &["CONFIG", "SET", "maxmemory", "1"],
            &["KEYS", "*"],
        ] {
            let tried = [&["ACL", "DRYRUN", user][..], command].concat();
            let replied = server.command(&tried);
            assert_ne!(replied, "OK", "{user}: {command:?}");
        }
    }
    let right = &users[1][users[1].len() - 4..];
    assert_eq!(right, ["+scan", "+getrange", "+strlen", "+config|get"]);
    prepare(&operator, &store).await;
    for missing in ["-scan", "-getrange", "-strlen"] {
        server.command(&["ACL", "SETUSER", "operator", missing]);
        let ran = operator.run(&["stats"]);
        assert_eq!(ran.code, 1, "{missing}: {ran:?}");
        let names = ran.stderr.to_lowercase().contains(&missing[1..]);
        assert!(names, "{missing}: {ran:?}");
        let restored = missing.replace('-', "+");
        server.command(&["ACL", "SETUSER", "operator", &restored]);
    }
}
