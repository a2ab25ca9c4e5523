//! What `open` checks and creates.

use std::path::Path;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::time::Instant;

use super::failure::{is_busy, is_wrong_statement, open_error, store_error};
use super::table::{Statements, VERSION};
use crate::store::StoreError;

/// SQLite 3.7.0 to 3.51.2 can corrupt a file whose log several connections reset at once.
const OLDEST: [u32; 3] = [3, 51, 3];

/// Opens the first connection, and creates what is missing if `migrate` is set.
pub(super) async fn open(
    options: &SqliteConnectOptions,
    statements: &Statements,
    migrate: bool,
    patience: Duration,
) -> Result<SqliteConnection, StoreError> {
    let path = options.get_filename();
    if path.is_dir() {
        return Err(unfit(format!(
            "{} is a directory; choose a file",
            path.display()
        )));
    }
    let deadline = Instant::now() + patience;
    let mut connection = loop {
        match prepare(options, statements, migrate, path).await {
            // The change to WAL does not wait for other connections.
            Err(Failed::Sqlite(error)) if is_busy(&error) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(Failed::Sqlite(error)) => return Err(open_error(error, path)),
            Err(Failed::Unfit(error)) => return Err(error),
            Ok(connection) => break connection,
        }
    };
    check_columns(&mut connection, statements, path).await?;
    Ok(connection)
}

enum Failed {
    Sqlite(sqlx::Error),
    Unfit(StoreError),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

async fn prepare(
    options: &SqliteConnectOptions,
    statements: &Statements,
    migrate: bool,
    path: &Path,
) -> Result<SqliteConnection, Failed> {
    let options = options.clone().create_if_missing(migrate);
    let mut connection = options.connect().await?;
    let version: String = text(&mut connection, "SELECT sqlite_version()").await?;
    check_engine(&version).map_err(Failed::Unfit)?;
    if !migrate {
        check_tables(&mut connection, statements, path).await?;
    }
    let mode = text(&mut connection, "PRAGMA journal_mode").await?;
    if mode != "wal" {
        return Err(Failed::Unfit(unfit(format!(
            "{} cannot use a write-ahead log: its journal mode is {mode:?}; use a file on a local disk, \
             not an in-memory database",
            path.display()
        ))));
    }
    if migrate {
        create(&mut connection, statements, path).await?;
    }
    Ok(connection)
}

/// Creates the tables, unless they have another version.
async fn create(
    connection: &mut SqliteConnection,
    statements: &Statements,
    path: &Path,
) -> Result<(), Failed> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found = found(&mut transaction, &[&statements.meta]).await?;
    if found > 0 {
        check_version(&mut transaction, statements, path).await?;
    }
    let create = sqlx::raw_sql(AssertSqlSafe(statements.definition()));
    if let Err(error) = create.execute(&mut *transaction).await {
        // An index names a column that the table does not have.
        return Err(if is_wrong_statement(&error) {
            Failed::Unfit(of_another(&error, statements, path))
        } else {
            Failed::Sqlite(error)
        });
    }
    transaction.commit().await?;
    Ok(())
}

/// Checks that the tables are there, and changes nothing.
async fn check_tables(
    connection: &mut SqliteConnection,
    statements: &Statements,
    path: &Path,
) -> Result<(), Failed> {
    let tables = [&*statements.table, &*statements.meta];
    if found(connection, &tables).await? < 2 {
        return Err(Failed::Unfit(unfit(format!(
            "{} has no tables {} and {}; check the name of the table, or create them with the SQL of `schema_sql`",
            path.display(),
            statements.table,
            statements.meta,
        ))));
    }
    check_version(connection, statements, path).await
}

/// How many of these tables exist. SQLite ignores the case of names.
async fn found(connection: &mut SqliteConnection, tables: &[&str]) -> Result<i64, sqlx::Error> {
    let mut all = 0;
    for table in tables {
        let find =
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        let find = sqlx::query(find).bind(table.trim_matches('"').to_owned());
        all += find
            .fetch_one(&mut *connection)
            .await?
            .try_get::<i64, _>(0)?;
    }
    Ok(all)
}

async fn check_version(
    connection: &mut SqliteConnection,
    statements: &Statements,
    path: &Path,
) -> Result<(), Failed> {
    let read = format!("SELECT max(version) FROM {}", statements.meta);
    let row = sqlx::query(AssertSqlSafe(read)).fetch_one(connection);
    let version: Option<i64> = row.await?.try_get(0)?;
    if version == Some(VERSION) {
        return Ok(());
    }
    let version = version.map_or("none".to_owned(), |version| version.to_string());
    Err(Failed::Unfit(unfit(format!(
        "the table {} in {} has version {version}, and this library writes version {VERSION}; \
         use the library that wrote the table, or choose another table or file",
        statements.table,
        path.display()
    ))))
}

/// These statements name every column and every index, so a table of somebody else and a missing index are noticed
/// before the first request.
async fn check_columns(
    connection: &mut SqliteConnection,
    statements: &Statements,
    path: &Path,
) -> Result<(), StoreError> {
    for statement in [
        &statements.look_up,
        &statements.sweep,
        &statements.list_claims,
        &statements.list_short,
        &statements.record,
    ] {
        let explain = format!("EXPLAIN {statement}");
        let explain = sqlx::query(AssertSqlSafe(explain)).persistent(false);
        if let Err(error) = explain.fetch_all(&mut *connection).await {
            return Err(if is_wrong_statement(&error) {
                of_another(&error, statements, path)
            } else {
                store_error(error)
            });
        }
    }
    Ok(())
}

/// The file of the database, as SQLite names it to each connection: an absolute path without symbolic links.
pub(super) async fn file(connection: &mut SqliteConnection) -> Result<Vec<u8>, StoreError> {
    let file = "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'";
    let row = sqlx::query(file).fetch_one(connection).await;
    row.and_then(|row| row.try_get(0)).map_err(store_error)
}

fn of_another(error: &sqlx::Error, statements: &Statements, path: &Path) -> StoreError {
    let message = error.as_database_error().map(DatabaseError::message);
    // `schema_sql` cannot add the index of a constraint to an existing table.
    let missing = message
        .and_then(|message| message.strip_prefix("no such index: "))
        .filter(|index| !index.starts_with("sqlite_autoindex_"));
    if let Some(index) = missing {
        return unfit(format!(
            "the table {} in {} has no index {index:?}; create it with the SQL of `schema_sql`, which is safe to run again",
            statements.table,
            path.display(),
        ));
    }
    unfit(format!(
        "the table {} in {} is not one of this store: {error}; choose another name",
        statements.table,
        path.display(),
    ))
}

async fn text(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<String, sqlx::Error> {
    sqlx::query(statement)
        .fetch_one(connection)
        .await?
        .try_get(0)
}

fn check_engine(version: &str) -> Result<(), StoreError> {
    let mut parts = [0; 3];
    for (part, text) in parts.iter_mut().zip(version.split('.')) {
        *part = text.parse().unwrap_or_default();
    }
    if parts >= OLDEST {
        return Ok(());
    }
    Err(unfit(format!(
        "SQLite {version} can corrupt a file that several connections write; build with `libsqlite3-sys` \
         0.37 or newer and its feature `bundled`, which contains SQLite 3.51.3"
    )))
}

fn unfit(why: String) -> StoreError {
    StoreError::Unfit(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_can_corrupt_a_file_is_refused() {
        for version in ["3.7.0", "3.40.1", "3.51.2", "2.9.9", "unreadable"] {
            let refused = check_engine(version).expect_err(version).to_string();
            assert!(
                refused.contains(version) && refused.contains("0.37"),
                "{refused}"
            );
        }
        for version in ["3.51.3", "3.52.0", "4.0.0", "3.51.10"] {
            assert!(check_engine(version).is_ok(), "{version}");
        }
    }
}
