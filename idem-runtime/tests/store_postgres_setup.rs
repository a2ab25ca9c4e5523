//! How the PostgreSQL store connects: its table, its rights, and poolers in between.
#![cfg(feature = "postgres")]

use std::time::Duration;

use futures_util::future::join_all;
use idem_runtime::store::{
    Claimed, PostgresStore, PostgresStoreBuilder, Settled, Store, StoreError,
};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use test_support::servers::asking::{HOUR, claim, complete, record, replay, win};
use test_support::servers::pgbouncer::PgBouncer;
use test_support::servers::postgres::PostgresServer;
use test_support::servers::wire::Wire;
use test_support::servers::{eventually_async, free_port};

fn builder(url: impl Into<String>) -> PostgresStoreBuilder {
    let builder = PostgresStore::builder().url(url).no_sweeper();
    // A test machine may be busy.
    builder.timeout(Duration::from_secs(20))
}

async fn connect(server: &PostgresServer) -> PostgresStore {
    let store = builder(server.url()).connect().await;
    store.expect("postgres is there")
}

/// The error of a store that does not connect.
async fn refusal(builder: PostgresStoreBuilder) -> StoreError {
    match builder.connect().await {
        Ok(store) => panic!("connected: {store:?}"),
        Err(error) => error,
    }
}

fn assert_says(error: &StoreError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

fn guest_of(server: &PostgresServer) -> PostgresStoreBuilder {
    builder(server.url().replace("user=desk", "user=guest"))
}

/// The situation of a service with a schema for each tenant: both schemas have the table.
#[tokio::test]
async fn a_changed_search_path_does_not_change_the_table() {
    let server = PostgresServer::start();
    let elsewhere = builder(server.url()).schema("tenant_b").connect().await;
    elsewhere.expect("postgres is there");
    let store = connect(&server).await;
    win(&store, claim("k")).await;
    server.command("ALTER ROLE desk SET search_path = tenant_b");
    server.command(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'axum-idem'",
    );
    let duplicate = store.claim(claim("k")).await;
    assert!(
        matches!(duplicate, Ok(Claimed::InFlight { .. })),
        "{duplicate:?}"
    );
}

#[tokio::test]
async fn each_failure_to_connect_has_its_own_message() {
    let brief = Duration::from_millis(100);
    let nobody = format!("postgres://desk:SECRET@127.0.0.1:{}/", free_port());
    let error = refusal(builder(nobody).timeout(brief)).await;
    assert_says(&error, &["connection was refused"]);

    let error = refusal(builder("postgres:///?host=/nowhere").timeout(brief)).await;
    assert_says(&error, &["connection was refused"]);

    let error = refusal(builder("SECRET")).await;
    assert_says(&error, &["address of PostgreSQL cannot be read"]);
    assert!(!error.to_string().contains("SECRET"), "{error}");

    let server = PostgresServer::start();
    server.command("CREATE ROLE guest LOGIN PASSWORD 'right'");
    server.ask_for_password_of("guest");
    let url = server.url().replace("user=desk", "user=guest");
    let error = refusal(builder(format!("{url}&password=SECRET"))).await;
    assert_says(&error, &["password authentication failed", "pg_hba.conf"]);
    assert!(
        !format!("{error} {error:?}").contains("SECRET"),
        "{error:?}"
    );

    let elsewhere = server.url().replace("///postgres", "///nowhere");
    let error = refusal(builder(elsewhere)).await;
    assert_says(
        &error,
        &["\"nowhere\" does not exist", "create the database"],
    );
}

#[tokio::test]
async fn a_role_that_may_not_create_gets_the_sql_to_run() {
    let server = PostgresServer::start();
    server.command("CREATE ROLE guest LOGIN");
    let error = refusal(guest_of(&server)).await;
    let parts = [
        "permission denied for schema public",
        "CREATE TABLE IF NOT EXISTS \"public\".\"idem_records\"",
        "CREATE OR REPLACE FUNCTION \"public\".\"idem_records_claim_v5\"",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"public\".\"idem_records\" TO \"guest\"",
    ];
    assert_says(&error, &parts);
    // The SQL in the message is sufficient.
    let text = error.to_string();
    let (_, script) = text.split_once("run:\n").expect("SQL");
    server.command(script);
    let store = guest_of(&server).connect().await;
    win(&store.expect("it need not create"), claim("k")).await;
}

/// For services whose database is changed by a migration tool alone.
#[tokio::test]
async fn a_store_that_may_not_migrate_names_what_is_missing() {
    let server = PostgresServer::start();
    let fixed = || builder(server.url()).migrate(false);
    let error = refusal(fixed()).await;
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
    let parts = [
        "the table \"public\".\"idem_records\"",
        "the function \"public\".\"idem_records_claim_v5\"",
        "the function \"public\".\"idem_records_commit_v3\"",
        "the index idem_records_claims",
        "are missing",
        "CREATE TABLE IF NOT EXISTS",
    ];
    assert_says(&error, &parts);
    let nothing = "SELECT to_regclass('idem_records') IS NULL";
    assert_eq!(server.command(nothing), "t", "it has created something");

    let sql = fixed().schema_sql().expect("the default names are fine");
    server.command(&sql);
    server.command("CREATE ROLE guest LOGIN");
    server.command("GRANT SELECT, INSERT, UPDATE, DELETE ON idem_records TO guest");
    let store = guest_of(&server).migrate(false).connect().await;
    win(&store.expect("it need not create"), claim("k")).await;

    for (object, named) in [
        (
            "INDEX idem_records_claims",
            "the index idem_records_claims is missing",
        ),
        (
            "INDEX idem_records_short",
            "the index idem_records_short is missing",
        ),
        ("FUNCTION idem_records_claim_v5", "_claim_v5\" is missing"),
        ("FUNCTION idem_records_commit_v3", "_commit_v3\" is missing"),
    ] {
        server.command(&format!("DROP {object}"));
        assert_says(&refusal(fixed()).await, &[named]);
        server.command(&sql);
        fixed().connect().await.expect("nothing is missing");
    }
    server.command("ALTER TABLE idem_records DROP COLUMN label");
    assert_says(&refusal(fixed()).await, &["no column label"]);
    assert_says(&refusal(builder(server.url())).await, &["no column label"]);
}

#[tokio::test]
async fn a_missing_right_is_named_at_connect() {
    let server = PostgresServer::start();
    connect(&server).await;
    server.command("CREATE ROLE guest LOGIN");
    server.command("REVOKE EXECUTE ON FUNCTION idem_records_claim_v5 FROM PUBLIC");
    let table = "ON idem_records TO guest";
    let grants = [
        (
            "EXECUTE the function",
            "GRANT EXECUTE ON FUNCTION idem_records_claim_v5 TO guest".into(),
        ),
        ("SELECT from the table", format!("GRANT SELECT {table}")),
        ("INSERT into the table", format!("GRANT INSERT {table}")),
        ("UPDATE the table", format!("GRANT UPDATE {table}")),
        ("DELETE from the table", format!("GRANT DELETE {table}")),
    ];
    for (right, grant) in grants {
        let error = refusal(guest_of(&server)).await;
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
        assert_says(&error, &[right, "GRANT USAGE ON SCHEMA"]);
        server.command(&grant);
    }
    let store = guest_of(&server).connect().await;
    win(&store.expect("nothing is missing"), claim("k")).await;
}

#[tokio::test]
async fn errors_after_connect_contain_the_sql_to_run() {
    let server = PostgresServer::start();
    connect(&server).await;
    server.command("CREATE ROLE guest LOGIN");
    server.command("GRANT SELECT, INSERT, UPDATE, DELETE ON idem_records TO guest");
    let store = guest_of(&server).connect().await.expect("it may");
    server.command("REVOKE INSERT ON idem_records FROM guest");
    let error = store.claim(claim("k")).await.expect_err("it may not");
    assert_says(
        &error,
        &["permission denied", "GRANT SELECT, INSERT, UPDATE, DELETE"],
    );
    server.command("DROP FUNCTION idem_records_claim_v5");
    let error = store.claim(claim("k")).await.expect_err("no function");
    assert_says(&error, &["does not exist", "CREATE OR REPLACE FUNCTION"]);
    server.command("DROP TABLE idem_records");
    let error = store.look_up(claim("k").id).await.expect_err("no table");
    assert_says(&error, &["does not exist", "CREATE TABLE IF NOT EXISTS"]);
}

#[tokio::test]
async fn an_unsafe_table_is_refused() {
    let server = PostgresServer::start();
    connect(&server).await;
    let refused = async |spoil: &str, repair: &str, says: &str| {
        server.command(spoil);
        let error = refusal(builder(server.url())).await;
        assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
        assert_says(&error, &[says]);
        server.command(repair);
    };
    refused(
        "ALTER TABLE idem_records SET UNLOGGED",
        "ALTER TABLE idem_records SET LOGGED",
        "is unlogged",
    )
    .await;
    refused(
        "ALTER TABLE idem_records DROP CONSTRAINT idem_records_pkey",
        "ALTER TABLE idem_records ADD PRIMARY KEY (id)",
        "no primary key",
    )
    .await;
    server.command(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    );
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let create = format!(
            "CREATE TRIGGER skip BEFORE {event} ON idem_records
             FOR EACH ROW EXECUTE FUNCTION skip()"
        );
        let drop = "DROP TRIGGER skip ON idem_records";
        refused(&create, drop, "has no effect").await;
    }
    server.command("ALTER TABLE idem_records ADD COLUMN note text");
    connect(&server).await;
    assert_eq!(server.command("SELECT count(*) FROM idem_records"), "0");
}

/// Two processes whose prepared statements and settings would collide in one session of the server.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_in_either_mode_is_supported() {
    for mode in ["transaction", "session"] {
        let server = PostgresServer::start();
        let bouncer = PgBouncer::in_front_of(&server, mode);
        let one = builder(bouncer.url()).max_connections(2).connect().await;
        let one = one.expect("pgbouncer is there");
        let two = builder(bouncer.url()).max_connections(2).connect().await;
        let two = two.expect("pgbouncer is there");
        let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let lives = names.iter().map(async |name| {
            let claims = [claim(name), claim(name)];
            let ours = claims.clone();
            let [first, second] = claims;
            let claimed = join_all([one.claim(first), two.claim(second)]).await;
            let mut won = Vec::new();
            for (claimed, claim) in claimed.into_iter().zip(ours) {
                if let Claimed::Fresh { .. } = claimed.expect("pgbouncer is there") {
                    won.push(claim);
                }
            }
            assert_eq!(won.len(), 1, "{name}");
            // The other process recognizes the same claim, too.
            let holder = win(&two, won.remove(0)).await;
            let renewed = one.renew(holder, HOUR).await.expect("pgbouncer is there");
            assert_eq!(renewed, Settled::Done);
            let completed = two.complete(holder, record(name.as_bytes()), HOUR).await;
            assert_eq!(completed.expect("pgbouncer is there"), Settled::Done);
            assert_eq!(replay(&one, name).await, record(name.as_bytes()));
            assert!(two.forget(holder.id).await.expect("pgbouncer is there"));
            let holder = win(&one, claim(name)).await;
            let released = two.release(holder).await.expect("pgbouncer is there");
            assert_eq!(released, Settled::Done);
        });
        join_all(lives).await;
        assert_eq!(one.sweep().await.expect("pgbouncer is there"), 0);
        // A session setting of the store would affect every client of the pooler.
        assert_eq!(statement_timeout(&bouncer).await, "0");
    }
}

/// A server session that stays in a transaction is not available to other clients of the pooler.
#[tokio::test]
async fn a_failed_statement_leaves_no_transaction_open_in_a_pooler() {
    let server = PostgresServer::start();
    let bouncer = PgBouncer::in_front_of(&server, "transaction");
    let store = builder(bouncer.url()).connect().await;
    let store = store.expect("pgbouncer is there");
    server.command("DROP FUNCTION idem_records_claim_v5");
    store
        .claim(claim("k"))
        .await
        .expect_err("the function is gone");
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(server.command(open), "0");
}

/// `Supavisor` starts its sessions with its own name, which has the same length as the store's
/// name.
#[tokio::test]
async fn a_pooler_with_its_own_application_name_is_detected() {
    let server = PostgresServer::start();
    let wire = Wire::to(server.socket_folder()).await;
    wire.rename("axum-idem", "Supavisor");
    let store = builder(wire.url()).max_connections(1).connect().await;
    let store = store.expect("postgres is there");
    win(&store, claim("k")).await;
    let last = "SELECT query FROM pg_stat_activity WHERE application_name = 'Supavisor'";
    assert_eq!(server.command(last), "COMMIT");
}

#[tokio::test]
async fn a_schema_name_with_dollar_signs_is_refused() {
    let server = PostgresServer::start();
    server.command("CREATE SCHEMA \"a$$b\"");
    server.command("ALTER ROLE desk SET search_path = \"a$$b\"");
    let error = refusal(builder(server.url())).await;
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
    assert_says(&error, &["a$$b", "`$$`", "`schema`"]);
}

/// The `statement_timeout` that another client sees.
async fn statement_timeout(bouncer: &PgBouncer) -> String {
    let options: PgConnectOptions = bouncer.url().parse().expect("a URL");
    let options = options.extra_float_digits(None);
    let mut connection = options.connect().await.expect("pgbouncer is there");
    let look = sqlx::raw_sql("SHOW statement_timeout");
    let row = look.fetch_one(&mut connection).await;
    row.expect("pgbouncer is there").get(0)
}

/// A session keeps the plans that it made while the table was small. The server makes new ones only after an `ANALYZE`.
#[tokio::test]
async fn plans_that_were_made_for_a_small_table_do_not_read_a_large_one() {
    let server = PostgresServer::with(&["autovacuum=off", "plan_cache_mode=force_generic_plan"]);
    drop(connect(&server).await);
    sessions_end(&server).await;
    let store = connect(&server).await;
    for n in 0..3 {
        complete(&store, &format!("small {n}")).await;
    }
    server.command("VACUUM ANALYZE idem_records");
    let mut pool = PgConnection::connect(&server.url())
        .await
        .expect("postgres is there");
    for size in ["small", "large"] {
        if size == "large" {
            server.command(
                "SET enable_seqscan = off;
                INSERT INTO idem_records SELECT sha256(int8send(n)), 1, r.leased_until, r.expires_at, r.created_at,
                    r.settled_at, r.retention_ms, 1, r.version, r.fingerprint, r.owner, NULL, '', NULL, r.record
                FROM generate_series(1, 3000) n, (SELECT * FROM idem_records ORDER BY id LIMIT 1) r",
            );
            server.command("SELECT pg_stat_reset_single_table_counters('idem_records'::regclass)");
        }
        let name = format!("analyzed {size}");
        let holder = win(&store, claim(&name)).await;
        assert_eq!(
            store.renew(holder, HOUR).await.expect("renewed"),
            Settled::Done
        );
        let commit = "SELECT idem_records_commit_v3($1, $2, $3, '\\x00', 1000)";
        let mut tx = pool.begin().await.expect("begun");
        sqlx::query(commit)
            .bind(holder.id.as_bytes().to_vec())
            .bind(holder.owner.as_bytes().to_vec())
            .bind(i64::try_from(holder.fence).expect("a fence"))
            .execute(&mut *tx)
            .await
            .expect("recorded");
        tx.rollback().await.expect("rolled back");
        let completed = store.complete(holder, record(b"{}"), HOUR).await;
        assert_eq!(completed.expect("the store works"), Settled::Done);
        replay(&store, &name).await;
        assert!(store.look_up(holder.id).await.expect("read").is_some());
        if size == "small" {
            // Reads up to 10,000 rows.
            store.stats().await.expect("counted");
        }
        assert!(store.forget(holder.id).await.expect("forgotten"));
    }
    // A session reports its counters at its end.
    drop(store);
    pool.close().await.expect("closed");
    sessions_end(&server).await;
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'idem_records'";
    assert_eq!(server.command(scans), "0");
    let read = "SELECT idx_tup_read < 1000 FROM pg_stat_user_indexes
        WHERE indexrelname = 'idem_records_pkey'";
    assert_eq!(server.command(read), "t");
}

async fn sessions_end(server: &PostgresServer) {
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    eventually_async("the sessions end", async || {
        (server.command(others) == "0").then_some(())
    })
    .await;
}
