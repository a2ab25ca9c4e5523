//! Statements of the store that PostgreSQL cancels because of a conflict with another transaction.

use axum::http::StatusCode;

use crate::bank::{Bank, Service, store};
use crate::servers::postgres::PostgresServer;

/// Serialization failure, and deadlock.
const CONFLICTS: [&str; 2] = ["40001", "40P01"];

/// Numbers the writes of the store from 1 on, and cancels each whose number `n` fulfills the condition. A sequence also
/// counts writes that are rolled back.
fn cancel_writes(postgres: &PostgresServer, code: &str, condition: &str) {
    postgres.command(&format!(
        "CREATE SEQUENCE IF NOT EXISTS writes;
        ALTER SEQUENCE writes RESTART;
        CREATE OR REPLACE FUNCTION cancel() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE n bigint := nextval('writes'); BEGIN
            IF {condition} THEN
                RAISE EXCEPTION 'canceled by the test' USING ERRCODE = '{code}';
            END IF;
            RETURN coalesce(NEW, OLD);
        END $$;
        CREATE OR REPLACE TRIGGER cancel BEFORE INSERT OR UPDATE OR DELETE ON idem_records
            FOR EACH ROW EXECUTE FUNCTION cancel()"
    ));
}

fn writes(postgres: &PostgresServer) -> u32 {
    let writes = postgres.command("SELECT last_value FROM writes");
    writes.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_the_store_that_is_canceled_once_is_repeated() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::start(bank, store(&postgres.url()).await).await;
    for code in CONFLICTS {
        // The claim, and the record.
        for canceled in 1..=2 {
            let key = &format!("{code}-{canceled}");
            cancel_writes(&postgres, code, &format!("n = {canceled}"));
            let first = service.server.post("/unmanaged", key, key).await;
            assert_eq!(first.status, StatusCode::CREATED, "{key}: {first:?}");
            assert!(!first.is_unrecorded(), "{key}");
            assert_eq!(writes(&postgres), 3, "{key}");
            let replay = service.server.post("/unmanaged", key, key).await;
            assert!(replay.is_replay() && replay.body == first.body, "{key}");
        }
    }
    assert_eq!(service.bank.runs.started(), 2 * CONFLICTS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_always_canceled_is_refused_and_its_key_stays_free() {
    let postgres = PostgresServer::start();
    let bank = Bank::open(&postgres.url()).await;
    let service = Service::start(bank, store(&postgres.url()).await).await;
    for code in CONFLICTS {
        cancel_writes(&postgres, code, "true");
        let refused = service.server.post("/unmanaged", code, code).await;
        assert_eq!(refused.status, 503, "{code}");
        assert_eq!(refused.code(), "idempotency_store_unavailable", "{code}");
        assert!(refused.headers.contains_key("retry-after"), "{code}");
        assert!(service.entry(code).await.is_none(), "{code}");
        cancel_writes(&postgres, code, "false");
        let retry = service.server.post("/unmanaged", code, code).await;
        assert_eq!(retry.status, StatusCode::CREATED, "{code}: {retry:?}");
        assert!(!retry.is_replay(), "{code}");
    }
    assert_eq!(service.bank.runs.started(), CONFLICTS.len());
}
