//! What a listing costs the PostgreSQL server: no page reads more rows than its window.
//!
//! `IDEM_ROWS` sets how many rows the table has. This prints the plans of each query for ten million:
//!
//! ```sh
//! IDEM_ROWS=10000000 cargo test -p idem-runtime --all-features --test store_postgres_listing -- --nocapture
//! ```
#![cfg(feature = "postgres")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use idem_runtime::store::{Page, PostgresStore, Query, StateKind, Store};
use idem_runtime::{RecordId, ScopeId};

use test_support::servers::asking::{claim, record, win};
use test_support::servers::postgres::PostgresServer;

const ROWS: u64 = 30_000;

/// The most rows that a page reads, of any query.
const WINDOW: u64 = 1_000;

/// Scopes, of which each has the same number of rows.
const SCOPES: u64 = 10;

fn rows() -> u64 {
    let rows = std::env::var("IDEM_ROWS").ok();
    rows.map_or(ROWS, |rows| rows.parse().expect("a number"))
}

/// A server that logs the plan of every statement, with the rows that each step has read.
fn explaining() -> PostgresServer {
    PostgresServer::with(&[
        "session_preload_libraries=auto_explain",
        "auto_explain.log_min_duration=0",
        "auto_explain.log_analyze=on",
        "auto_explain.log_timing=off",
        // As for a disk without moving parts. The default makes the server read small tables as a whole.
        "random_page_cost=1.1",
    ])
}

async fn connect(server: &PostgresServer) -> PostgresStore {
    let store = PostgresStore::builder().url(server.url()).no_sweeper();
    let store = store.timeout(Duration::from_secs(60)).connect().await;
    store.expect("postgres is there")
}

/// Of 1,000 rows, one is unknown and one is in flight. All others are records.
fn fill(server: &PostgresServer, rows: u64) {
    let mut hex = String::new();
    for byte in record(b"{}").as_bytes() {
        write!(hex, "{byte:02x}").expect("a string grows");
    }
    // In parts, so that no statement takes longer than a connection is kept open.
    for first in (0..rows).step_by(1_000_000) {
        let last = rows.min(first + 1_000_000) - 1;
        server.command(&format!(
            "SET auto_explain.log_min_duration = -1;
            INSERT INTO idem_records (id, fence, leased_until, expires_at, created_at, settled_at,
                retention_ms, attempt, version, fingerprint, owner, endpoint, record)
            SELECT decode(md5((n % {SCOPES})::text) || md5(n::text), 'hex'), n,
                now() + CASE n % 1000 WHEN 2 THEN interval '1 day' ELSE interval '-1 hour' END,
                now() + interval '2 days', now() - n * interval '1 ms',
                CASE WHEN n % 1000 > 2 THEN now() END, 86400000, 1, 3,
                decode(md5(n::text), 'hex'), decode(md5(n::text), 'hex'),
                CASE n % 10000 WHEN 7 THEN 'rare' ELSE 'desk::place_trade' END,
                CASE WHEN n % 1000 NOT IN (1, 2) THEN decode('{hex}', 'hex') END
            FROM generate_series({first}, {last}) AS n",
        ));
    }
    // Alone, because it cannot be part of a transaction.
    server.command("VACUUM ANALYZE idem_records");
}

fn md5(server: &PostgresServer, text: &str) -> [u8; 16] {
    let digits = server.command(&format!("SELECT md5('{text}')"));
    let scope: ScopeId = digits.parse().expect("32 digits");
    *scope.as_bytes()
}

/// The plans of the listings that were logged behind `from`.
fn plans(server: &PostgresServer, from: usize) -> String {
    let log = server.log();
    let mut plans = String::new();
    for plan in log[from..].split(" LOG:  duration:").skip(1) {
        if plan.contains("part AS MATERIALIZED") || plan.contains("FOR UPDATE") {
            let (_, plan) = plan.split_once("->").unwrap_or_default();
            plans.push_str(plan);
        }
    }
    plans
}

/// The primary key also tells whether a record row has settled a claim.
fn uses_only(indexes: &[String], index: &str) -> bool {
    let is_expected = |it: &String| it == index || it == "idem_records_pkey";
    indexes.iter().any(|it| it == index) && indexes.iter().all(is_expected)
}

/// How many rows the scans of a plan read in the table, and with which indexes.
fn scanned(plans: &str) -> (u64, Vec<String>) {
    let number = |line: &str, before: &str| {
        let (_, rest) = line.split_once(before)?;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse::<u64>().ok()
    };
    let (mut rows, mut indexes) = (0, Vec::new());
    let mut is_of_table = false;
    for line in plans.lines() {
        let is_scan = line.contains("Scan") && line.contains("idem_records");
        if let Some((_, index)) = line.split_once("Bitmap Index Scan on ") {
            // The rows are those of the scan above it.
            indexes.extend(index.split(' ').next().map(str::to_owned));
        } else if is_scan {
            assert!(!line.contains("Seq Scan"), "{plans}");
            rows += number(line, "(actual rows=").unwrap_or_default();
            if let Some((_, index)) = line.split_once(" using ") {
                indexes.extend(index.split(' ').next().map(str::to_owned));
            }
        }
        if line.contains("->") {
            is_of_table = line.contains("idem_records");
        }
        if is_of_table && line.contains("Rows Removed by Filter") {
            rows += number(line, "Filter: ").unwrap_or_default();
        }
    }
    (rows, indexes)
}

#[tokio::test]
async fn no_page_reads_more_rows_than_its_window() {
    let server = explaining();
    let store = connect(&server).await;
    let rows = rows();
    let begun = Instant::now();
    fill(&server, rows);
    println!("{rows} rows filled in {:.0?}", begun.elapsed());

    let scope = ScopeId::from_bytes(md5(&server, "3"));
    let mut id = [0; 32];
    id[..16].copy_from_slice(scope.as_bytes());
    id[16..].copy_from_slice(&md5(&server, "20003"));
    let short = RecordId::from_bytes(id).short();
    let unknown = || Query::all().state(StateKind::Unknown);
    for (what, query, index, finds) in [
        ("unknown", unknown(), "idem_records_claims", true),
        (
            "in flight",
            Query::all().state(StateKind::InFlight),
            "idem_records_claims",
            false,
        ),
        (
            "unknown of a scope",
            unknown().scope(ScopeId::from_bytes(md5(&server, "1"))),
            "idem_records_claims",
            true,
        ),
        (
            "unknown of an endpoint",
            unknown().endpoint("rare"),
            "idem_records_claims",
            false,
        ),
        (
            "unknown for long",
            unknown().older_than(Duration::from_secs(86_400)),
            "idem_records_claims",
            false,
        ),
        ("all", Query::all(), "idem_records_pkey", true),
        (
            "a scope",
            Query::all().scope(scope),
            "idem_records_pkey",
            true,
        ),
        (
            "short id",
            Query::all().short(short),
            "idem_records_short",
            true,
        ),
        (
            "rare endpoint",
            Query::all().endpoint("rare"),
            "idem_records_pkey",
            false,
        ),
        (
            "recorded",
            Query::all().state(StateKind::Recorded),
            "idem_records_pkey",
            true,
        ),
    ] {
        let mut query = query;
        for page in ["first", "second"] {
            let logged = server.log().len();
            let asked_at = Instant::now();
            let Page { entries, next, .. } =
                store.list(query.clone()).await.expect("postgres is there");
            let took = asked_at.elapsed();
            let plans = plans(&server, logged);
            let (read, indexes) = scanned(&plans);
            println!(
                "{what}, {page} page: {} entries, {read} rows read by {indexes:?} in {took:.1?}\n{plans}",
                entries.len()
            );
            assert!(read <= WINDOW + 1, "{what}: {read} rows\n{plans}");
            assert!(uses_only(&indexes, index), "{what}: {indexes:?}\n{plans}");
            if page == "first" && finds {
                assert!(!entries.is_empty(), "{what}");
            }
            let Some(next) = next else { break };
            query = query.after(next);
        }
    }

    let logged = server.log().len();
    let stats = store.stats().await.expect("postgres is there");
    println!("{stats:?}\n{}", &server.log()[logged..]);
    assert!(
        stats.unknown.value >= (rows / 1_000).min(5_000) - 1,
        "{stats:?}"
    );
    assert!(stats.recorded.value > rows / 2, "{stats:?}");

    let logged = server.log().len();
    let forgotten = store.forget_scope(scope).await.expect("postgres is there");
    assert_eq!(forgotten, rows / SCOPES);
    let first = plans(&server, logged);
    println!("{}", first.get(..2_000).unwrap_or(&first));
}

/// A label that the database cannot store as it is must not fail the claim.
#[tokio::test]
async fn a_label_fits_into_a_database_of_any_encoding() {
    let server = PostgresServer::start();
    server.command(
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    for (url, expected) in [
        (server.url(), "größe 日本"),
        (server.url().replace("/postgres?", "/latin?"), "gr??e ??"),
    ] {
        let store = PostgresStore::builder().url(url).no_sweeper();
        let store = store.timeout(Duration::from_secs(60)).connect().await;
        let store = store.expect("postgres is there");
        let mut labelled = claim("k");
        let label = "grö\0ße 日本";
        labelled.origin = labelled.origin.with_label(Some(label.into()));
        let id = win(&store, labelled).await.id;
        let entry = store.look_up(id).await.expect("postgres is there");
        let entry = entry.expect("it is claimed");
        assert_eq!(entry.origin().label(), Some(expected));
    }
}
