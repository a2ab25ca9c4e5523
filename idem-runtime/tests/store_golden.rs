//! The next version must read these stored bytes. A change needs a new version number.

#[cfg(any(feature = "redis", feature = "postgres"))]
use test_support::servers;

#[cfg(feature = "redis")]
mod redis_form {
    use std::time::{Duration, SystemTime};

    use idem_runtime::TraceId;
    use idem_runtime::store::{Claimed, Entry, OnUnknown, Origin, RedisStore, Settled, Store};

    use crate::servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};
    use crate::servers::redis::RedisServer;

    const FENCE: u64 = 0x0102_0304_0506;

    fn value(kind: u8, rest: &[u8]) -> Vec<u8> {
        let mut value = vec![2, kind];
        value.extend_from_slice(&[0xaa; 16]);
        value.extend_from_slice(&[6, 5, 4, 3, 2, 1, 0, 0]);
        value.extend_from_slice(rest);
        value
    }

    fn claim_value(retention: [u8; 8]) -> Vec<u8> {
        let mut rest = CREATED.to_le_bytes().to_vec();
        rest.extend_from_slice(&[2, 0, 0, 0]);
        rest.extend_from_slice(FINGERPRINT.as_bytes());
        rest.extend_from_slice(&retention);
        rest.extend_from_slice(&origin_bytes());
        value(b'C', &rest)
    }

    /// Microseconds since 1970.
    const CREATED: u64 = 1_700_000_000_000_001;

    fn origin_bytes() -> Vec<u8> {
        let mut bytes = vec![0xbb; 16];
        bytes.extend_from_slice(b"\x03pay\x06inv-91");
        bytes
    }

    fn origin() -> Origin {
        Origin::new("pay")
            .with_trace_id(TraceId::from_bytes([0xbb; 16]))
            .with_label(Some("inv-91".into()))
    }

    fn created_at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(CREATED)
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
    async fn version_2_is_read() {
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
                origin: found,
                created_at: at,
                ..
            }) => {
                assert_eq!((found, at), (origin(), created_at()));
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
        let mut rest = CREATED.to_le_bytes().to_vec();
        rest.extend_from_slice(&(CREATED + 1).to_le_bytes());
        rest.extend_from_slice(&[27, 0]);
        rest.extend_from_slice(&origin_bytes());
        rest.extend_from_slice(kept.as_bytes());
        set(&server, "kept", value(b'R', &rest), 900_000).await;
        assert_eq!(replay(&store, "kept").await, kept);
        let entry = store.look_up(id("kept")).await.expect("redis is there");
        let Some(Entry::Recorded {
            origin: found,
            created_at: at,
            settled_at,
            ..
        }) = entry
        else {
            panic!("no record: {entry:?}");
        };
        assert_eq!((found, at), (origin(), created_at()));
        assert_eq!(settled_at, at + Duration::from_micros(1));
    }

    #[tokio::test]
    async fn version_2_is_written() {
        let server = RedisServer::start();
        let store = RedisStore::connect(server.url())
            .await
            .expect("it is there");
        let mut of_origin = claim("k");
        of_origin.origin = origin();
        let holder = win(&store, of_origin).await;
        let mut head = vec![2, b'C'];
        head.extend_from_slice(holder.owner.as_bytes());
        head.extend_from_slice(&holder.fence.to_le_bytes());
        // A new claim takes the time of creation for its fence.
        head.extend_from_slice(&holder.fence.to_le_bytes());
        let mut expected = head.clone();
        expected.extend_from_slice(&[1, 0, 0, 0]);
        expected.extend_from_slice(FINGERPRINT.as_bytes());
        expected.extend_from_slice(&3_600_000_u64.to_le_bytes());
        expected.extend_from_slice(&origin_bytes());
        assert_eq!(get(&server, "k").await, expected);

        let completed = store.complete(holder, record(b"{}"), HOUR).await;
        assert_eq!(completed.expect("redis is there"), Settled::Done);
        head[1] = b'R';
        let value = get(&server, "k").await;
        let (before, settled) = value.split_at(34);
        assert_eq!(before, head);
        let (settled, after) = settled.split_at(8);
        let settled = u64::from_le_bytes(settled.try_into().expect("8 bytes"));
        assert!((holder.fence..holder.fence + 60_000_000).contains(&settled));
        let expected = [&[27, 0], &origin_bytes()[..], record(b"{}").as_bytes()].concat();
        assert_eq!(after, expected);
    }
}

#[cfg(feature = "postgres")]
mod postgres_form {
    use std::time::{Duration, SystemTime};

    use idem_runtime::TraceId;
    use idem_runtime::store::{
        Claimed, DecodeError, Entry, OnUnknown, Origin, PostgresStore, Store, StoreError,
    };

    use crate::servers::asking::{claim, id, record, replay};
    use crate::servers::postgres::PostgresServer;

    /// The table and the rows as version 3 of the library wrote them.
    const TABLE: &str = "CREATE TABLE idem_records (
        id bytea PRIMARY KEY,
        fence bigint NOT NULL,
        leased_until timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        settled_at timestamptz,
        retention_ms bigint NOT NULL,
        attempt integer NOT NULL,
        version smallint NOT NULL,
        fingerprint bytea NOT NULL,
        owner bytea NOT NULL,
        trace_id bytea,
        endpoint text NOT NULL,
        label text,
        record bytea
    )";

    #[tokio::test]
    async fn version_3_is_read() {
        let server = PostgresServer::start();
        server.command(TABLE);
        let insert_as = |name: &str, suffix: &str, leased: &str, record: &str| {
            server.command(&format!(
                "INSERT INTO idem_records VALUES ('\\x{}{suffix}', 41, now() + interval '{leased}',
                    now() + interval '600 s', to_timestamp(1700000000), to_timestamp(1700000001),
                    600000, 2, 3, '\\x{}', '\\x{}', '\\x{}', 'pay', 'inv-91', {record})",
                id(name),
                "07".repeat(32),
                "aa".repeat(16),
                "bb".repeat(16),
            ));
        };
        let insert = |name: &str, leased: &str, record: &str| insert_as(name, "", leased, record);
        let kept = record(b"{}");
        let hex: String = kept
            .as_bytes()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        insert("held", "300 s", "NULL");
        insert("lapsed", "-1 s", "NULL");
        insert("kept", "-1 s", &format!("'\\x{hex}'"));
        // A handler's transaction has written the record beside its claim.
        insert("committed", "300 s", "NULL");
        insert_as("committed", "01", "300 s", &format!("'\\x{hex}'"));

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
        assert_eq!(replay(&store, "committed").await, kept);
        let entry = store.look_up(id("kept")).await.expect("postgres is there");
        let Some(Entry::Recorded {
            origin,
            created_at,
            settled_at,
            ..
        }) = entry
        else {
            panic!("no record: {entry:?}");
        };
        let expected = Origin::new("pay")
            .with_trace_id(TraceId::from_bytes([0xbb; 16]))
            .with_label(Some("inv-91".into()));
        assert_eq!(origin, expected);
        let seconds = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(created_at, seconds(1_700_000_000));
        assert_eq!(settled_at, seconds(1_700_000_001));
    }

    /// An older library would not see the record row of a claim, and would run the handler again. The version of
    /// the row makes every version of the library refuse the rows of the others.
    #[tokio::test]
    async fn rows_of_other_versions_are_refused_and_kept() {
        let server = PostgresServer::start();
        let store = PostgresStore::connect(server.url()).await;
        let store = store.expect("it is there");
        for version in [1_u8, 2, 4] {
            let name = &format!("version {version}");
            let Ok(Claimed::Fresh { .. }) = store.claim(claim(name)).await else {
                panic!("no other claim exists");
            };
            let change = format!(
                "UPDATE idem_records SET version = {version}, leased_until = now() WHERE version = 3"
            );
            assert!(server.command(&change).contains("UPDATE 1"));
            let refused = |error: &StoreError| matches!(error, StoreError::Undecodable(DecodeError::Version(it)) if *it == version);
            let claimed = store.claim(claim(name)).await.expect_err("another version");
            assert!(refused(&claimed), "{claimed:?}");
            let found = store.look_up(id(name)).await.expect_err("another version");
            assert!(refused(&found), "{found:?}");
        }
    }

    #[tokio::test]
    async fn the_table_has_the_columns_of_version_3() {
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

    /// The file that the package contains is what the library executes.
    #[test]
    fn the_published_schema_is_that_of_the_store() {
        let published = include_str!("../schema/postgres.sql");
        let sql = PostgresStore::builder()
            .schema_sql()
            .expect("the default names are fine");
        let published = published.split_once("\n\n").map_or("", |(_, sql)| sql);
        assert_eq!(published, sql);
    }
}

#[cfg(feature = "sqlite")]
mod sqlite_form {
    use std::time::{Duration, SystemTime};

    use idem_runtime::TraceId;
    use idem_runtime::store::{Claimed, Entry, OnUnknown, Origin, Settled, SqliteStore, Store};
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{AssertSqlSafe, ConnectOptions, Row};

    use test_support::servers::asking::{FINGERPRINT, HOUR, claim, id, record, replay, win};

    /// The tables as version 1 of the library wrote them.
    const TABLES: &str = include_str!("../schema/sqlite.sql");

    fn micros(time: SystemTime) -> u128 {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_micros()
    }

    #[tokio::test]
    async fn version_1_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("idem.db");
        let options = SqliteConnectOptions::new().filename(&path);
        let options = options.create_if_missing(true);
        let mut connection = options.connect().await.expect("the file opens");
        let kept = record(b"{}");
        let hex: String = kept
            .as_bytes()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let now = SystemTime::now();
        let (past, future) = (
            micros(now - Duration::from_secs(1)),
            micros(now + Duration::from_secs(300)),
        );
        let insert = |name: &str, leased: u128, record: &str| {
            format!(
                "INSERT INTO idem_records VALUES (x'{}', 1, 41, 2, {leased}, {future}, 600000000,
                    x'{}', x'{}', 77, 1700000000000001, 1700000000000002, x'{}', 'pay', 'inv-91', {record});",
                id(name),
                "07".repeat(32),
                "aa".repeat(16),
                "bb".repeat(16),
            )
        };
        let rows = [
            TABLES.to_owned(),
            insert("held", future, "NULL"),
            insert("lapsed", past, "NULL"),
            insert("kept", past, &format!("x'{hex}'")),
        ];
        let write = sqlx::raw_sql(AssertSqlSafe(rows.concat())).execute(&mut connection);
        write.await.expect("the tables are valid");

        let store = SqliteStore::open(&path).await.expect("the file opens");
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
                    fence: 42..,
                    attempt: 3
                })
            ),
            "{claimed:?}"
        );
        assert_eq!(replay(&store, "kept").await, kept);
        let entry = store.look_up(id("kept")).await.expect("it is readable");
        let Some(Entry::Recorded {
            origin,
            created_at,
            settled_at,
            ..
        }) = entry
        else {
            panic!("no record: {entry:?}");
        };
        let expected = Origin::new("pay")
            .with_trace_id(TraceId::from_bytes([0xbb; 16]))
            .with_label(Some("inv-91".into()));
        assert_eq!(origin, expected);
        let since = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        assert_eq!(created_at, since(1_700_000_000_000_001));
        assert_eq!(settled_at, since(1_700_000_000_000_002));
    }

    #[tokio::test]
    async fn version_1_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("idem.db");
        let store = SqliteStore::open(&path).await.expect("the file opens");
        let mut of_origin = claim("k");
        of_origin.origin = Origin::new("pay")
            .with_trace_id(TraceId::from_bytes([0xbb; 16]))
            .with_label(Some("inv-91".into()));
        let holder = win(&store, of_origin).await;
        let settled = store.complete(holder, record(b"{}"), HOUR).await;
        assert_eq!(settled.expect("the store works"), Settled::Done);
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.expect("the file opens");
        let read = "SELECT id || fingerprint || owner || trace_id || record, version || ' ' || attempt
                || ' ' || (expires_at - settled_at) || ' ' || retention_us || ' ' || (created_at = fence)
                || ' ' || (instance > 0) || ' ' || endpoint || ' ' || label, fence FROM idem_records";
        let row = sqlx::query(read)
            .fetch_one(&mut connection)
            .await
            .expect("a row");
        let bytes: Vec<u8> = row.try_get(0).expect("bytes");
        let (id, kept) = (id("k"), record(b"{}"));
        let expected = [
            id.as_bytes(),
            &FINGERPRINT.as_bytes()[..],
            holder.owner.as_bytes(),
            &[0xbb; 16],
            kept.as_bytes(),
        ];
        assert_eq!(bytes, expected.concat());
        let text: String = row.try_get(1).expect("a text");
        // A new claim takes the time of creation for its fence.
        assert_eq!(text, "1 1 3600000000 3600000000 1 1 pay inv-91");
        let fence: i64 = row.try_get(2).expect("a number");
        assert_eq!(u64::try_from(fence), Ok(holder.fence));
    }
}
