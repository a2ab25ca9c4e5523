//! The next version must read these stored bytes. A change needs a new version number.

#[cfg(any(feature = "redis", feature = "postgres"))]
use test_support::servers;

#[cfg(feature = "redis")]
mod redis_form {
    use idem_runtime::store::{Claimed, Entry, OnUnknown, RedisStore, Settled, Store};

    use crate::servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};
    use crate::servers::redis::RedisServer;

    const FENCE: u64 = 0x0102_0304_0506;

    fn value(kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut value = vec![1, kind];
        value.extend_from_slice(&[0xaa; 16]);
        value.extend_from_slice(&[6, 5, 4, 3, 2, 1, 0, 0]);
        value.extend_from_slice(rest);
        value
    }

    fn claim_value(retention: [u8; 8]) -> Vec<u8> {
        let mut rest = vec![2, 0, 0, 0];
        rest.extend_from_slice(FINGERPRINT.as_bytes());
        rest.extend_from_slice(&retention);
        value(b'C', &rest)
    }

    async fn set(server: &RedisServer, name: &str, value: Vec<u8>, millis: u64) {
        let client = redis::Client::open(server.url()).expect("an address");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("redis is there");
        redis::cmd("SET")
            .arg(format!("idem:{}", id(name)))
            .arg(value)
            .arg("PX")
            .arg(millis)
            .exec_async(&mut connection)
            .await
            .expect("redis is there");
    }

    async fn get(server: &RedisServer, name: &str) -> Vec<u8> {
        let client = redis::Client::open(server.url()).expect("an address");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .expect("redis is there");
        let mut get = redis::cmd("GET");
        get.arg(format!("idem:{}", id(name)));
        get.query_async(&mut connection)
            .await
            .expect("the value exists")
    }

    #[tokio::test]
    async fn version_1_is_read() {
        let server = RedisServer::start();
        let store = RedisStore::connect(server.url())
            .await
            .expect("it is there");

        // Ten minutes of retention, and five minutes of lease.
        let minutes = [0xc0, 0x27, 9, 0, 0, 0, 0, 0];
        set(&server, "held", claim_value(minutes), 900_000).await;
        match store
            .look_up(id("held"))
            .await
            .expect("the value is readable")
        {
            Some(Entry::InFlight {
                fingerprint,
                fence,
                attempt,
                lease_left,
            }) => {
                assert_eq!((fingerprint, fence, attempt), (FINGERPRINT, FENCE, 2));
                assert!((299..=300).contains(&lease_left.as_millis().div_ceil(1000)));
            }
            entry => panic!("not in flight: {entry:?}"),
        }

        set(&server, "lapsed", claim_value(minutes), 599_000).await;
        let mut hold = claim("lapsed");
        hold.on_unknown = OnUnknown::Hold;
        let claimed = store.claim(hold).await;
        assert!(
            matches!(claimed, Ok(Claimed::Unknown { .. })),
            "{claimed:?}"
        );
        let claimed = store.claim(claim("lapsed")).await;
        assert!(
            matches!(claimed, Ok(Claimed::Fresh { fence, attempt: 3 }) if fence == FENCE + 1),
            "{claimed:?}"
        );

        let kept = record(b"{}");
        set(&server, "kept", value(b'R', kept.as_bytes()), 900_000).await;
        assert_eq!(replay(&store, "kept").await, kept);
    }

    #[tokio::test]
    async fn version_1_is_written() {
        let server = RedisServer::start();
        let store = RedisStore::connect(server.url())
            .await
            .expect("it is there");
        let holder = win(&store, claim("k")).await;
        let mut head = vec![1, b'C'];
        head.extend_from_slice(holder.owner.as_bytes());
        head.extend_from_slice(&holder.fence.to_le_bytes());
        let mut expected = head.clone();
        expected.extend_from_slice(&[1, 0, 0, 0]);
        expected.extend_from_slice(FINGERPRINT.as_bytes());
        expected.extend_from_slice(&3_600_000_u64.to_le_bytes());
        assert_eq!(get(&server, "k").await, expected);

        let completed = store.complete(holder, record(b"{}"), HOUR).await;
        assert_eq!(completed.expect("redis is there"), Settled::Done);
        head[1] = b'R';
        head.extend_from_slice(record(b"{}").as_bytes());
        assert_eq!(get(&server, "k").await, head);
    }
}

#[cfg(feature = "postgres")]
mod postgres_form {
    use idem_runtime::store::{Claimed, OnUnknown, PostgresStore, Store};

    use crate::servers::asking::{claim, id, record, replay};
    use crate::servers::postgres::PostgresServer;

    /// The table and the rows as version 1 of the library wrote them.
    const TABLE: &str = "CREATE TABLE idem_records (
        id bytea PRIMARY KEY,
        version smallint NOT NULL,
        fingerprint bytea NOT NULL,
        owner bytea NOT NULL,
        fence bigint NOT NULL,
        attempt integer NOT NULL,
        leased_until timestamptz NOT NULL,
        retention_ms bigint NOT NULL,
        expires_at timestamptz NOT NULL,
        record bytea
    )";

    #[tokio::test]
    async fn version_1_is_read() {
        let server = PostgresServer::start();
        server.command(TABLE);
        let insert = |name: &str, leased: &str, record: &str| {
            server.command(&format!(
                "INSERT INTO idem_records VALUES ('\\x{}', 1, '\\x{}', '\\x{}', 41, 2,
                    now() + interval '{leased}', 600000, now() + interval '600 s', {record})",
                id(name),
                "07".repeat(32),
                "aa".repeat(16),
            ));
        };
        let kept = record(b"{}");
        let hex: String = kept
            .as_bytes()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        insert("held", "300 s", "NULL");
        insert("lapsed", "-1 s", "NULL");
        insert("kept", "-1 s", &format!("'\\x{hex}'"));

        let store = PostgresStore::connect(server.url())
            .await
            .expect("it is there");
        let claimed = store.claim(claim("held")).await;
        assert!(
            matches!(claimed, Ok(Claimed::InFlight { .. })),
            "{claimed:?}"
        );
        let mut hold = claim("lapsed");
        hold.on_unknown = OnUnknown::Hold;
        let claimed = store.claim(hold).await;
        assert!(
            matches!(claimed, Ok(Claimed::Unknown { .. })),
            "{claimed:?}"
        );
        let claimed = store.claim(claim("lapsed")).await;
        assert!(
            matches!(
                claimed,
                Ok(Claimed::Fresh {
                    fence: 42,
                    attempt: 3
                })
            ),
            "{claimed:?}"
        );
        assert_eq!(replay(&store, "kept").await, kept);
    }

    #[tokio::test]
    async fn the_table_has_the_columns_of_version_1() {
        let server = PostgresServer::start();
        let columns = "SELECT string_agg(concat_ws(' ', column_name, data_type, is_nullable), ', '
            ORDER BY ordinal_position) FROM information_schema.columns
            WHERE table_name = 'idem_records'";
        server.command(TABLE);
        let expected = server.command(columns);
        server.command("DROP TABLE idem_records");
        PostgresStore::connect(server.url())
            .await
            .expect("it is there");
        assert_eq!(server.command(columns), expected);
    }
}
