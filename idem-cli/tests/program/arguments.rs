//! Wrong arguments and stores that cannot be reached.

use crate::harness::Program;

fn run(url: &str, arguments: &[&str]) -> crate::harness::Ran {
    Program::new(url.to_owned()).run(arguments)
}

#[test]
fn a_store_that_cannot_be_opened_is_an_error_without_its_password() {
    for (url, code) in [
        ("mysql://idem:SECRET@127.0.0.1/db", 2),
        ("idem:SECRET@127.0.0.1", 2),
        ("sqlite://no/such/SECRETless.db", 2),
        ("redis://idem:SECRET@127.0.0.1:1/", 1),
        ("postgres://idem:SECRET@127.0.0.1:1/db", 1),
        ("redis+sentinel://127.0.0.1:1", 2),
        ("redis+sentinel://idem:SECRET@127.0.0.1:1/trades?db=x", 2),
        ("redis+sentinel://idem:SECRET@127.0.0.1:1/trades?db=3", 1),
        ("rediss+sentinel://idem:SECRET@127.0.0.1:1/trades", 1),
        ("redis+cluster://idem:SECRET@127.0.0.1:1/3", 2),
        ("rediss+cluster://idem:SECRET@127.0.0.1:1", 1),
    ] {
        let ran = run(url, &["stats", "--timeout", "1s"]);
        assert_eq!(ran.code, code, "{url}: {ran:?}");
        assert!(!ran.stderr.contains("idem:SECRET"), "{url}: {ran:?}");
        assert!(ran.stderr.starts_with("idem: "), "{url}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{url}: {ran:?}");
    }
}

#[test]
fn a_missing_file_is_not_created() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("typo.db");
    let ran = run(&format!("sqlite://{}", path.display()), &["list"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!path.exists());
}

#[test]
fn an_argument_of_another_store_is_refused() {
    for (url, argument) in [
        ("redis://127.0.0.1:1/", "--table"),
        ("redis://127.0.0.1:1/", "--schema"),
        ("postgres://127.0.0.1:1/", "--prefix"),
        ("sqlite://x.db", "--schema"),
    ] {
        let ran = run(url, &["list", argument, "x"]);
        assert_eq!(ran.code, 2, "{url} {argument}: {ran:?}");
        assert!(ran.stderr.contains(argument), "{ran:?}");
    }
}

#[test]
fn keys_are_not_taken_from_arguments() {
    for arguments in [
        &["find", "--scope", "value", "key-1"][..],
        &["find", "--scope", "user-7"],
        &["find"],
        &["show", "key-1"],
        &["list", "--json", "--older-than", "10"],
        &["resolve", &"0".repeat(64), "--status", "99"],
    ] {
        let ran = run("sqlite://x.db", arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
    }
}

#[test]
fn the_schema_is_printed_without_a_store() {
    let ran = run("none", &["schema", "postgres", "--schema", "idem"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains(r#""idem"."idem_records""#), "{ran:?}");
    let ran = run("none", &["schema", "sqlite", "--table", "keys"]);
    assert!(ran.stdout.contains(r#"CREATE TABLE IF NOT EXISTS "keys""#));
    let ran = run("none", &["schema", "sqlite", "--table", "a b"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

/// The help names each exit code.
#[test]
fn the_help_documents_the_exit_codes() {
    let help = run("none", &["--help"]).stdout;
    for code in 0..=6 {
        assert!(help.contains(&format!("\n  {code}  ")), "{code}: {help}");
    }
}

#[test]
fn the_help_documents_the_address_of_sentinels() {
    let help = run("none", &["--help"]).stdout;
    for part in [
        "redis+sentinel://",
        "/SERVICE?db=NUMBER",
        "sentinel_password",
        "rediss",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[tokio::test]
async fn a_mistyped_table_is_not_created_in_a_file_of_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shop.db");
    let store = axum_idem::store::SqliteStore::open(&path).await;
    drop(store.expect("the file opens"));
    let url = format!("sqlite://{}", path.display());
    for (command, code) in [("list", 1), ("stats", 1), ("sweep", 1), ("doctor", 4)] {
        let ran = run(&url, &[command, "--table", "idem_recrods"]);
        assert_eq!(ran.code, code, "{command}: {ran:?}");
        let said = [&ran.stdout[..], &ran.stderr[..]].concat();
        assert!(said.contains("has no tables"), "{command}: {ran:?}");
    }
    assert_eq!(run(&url, &["list"]).code, 0, "the store's own table");

    // A file that is no store keeps its journal mode.
    let other = folder.path().join("other.db");
    std::fs::write(&other, "").expect("it is writable");
    let ran = run(&format!("sqlite://{}", other.display()), &["list"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(std::fs::read(&other).expect("it is readable"), b"");
}
