//! Checks whether a server can be used, and creates what is missing.
//!
//! Every step is a transaction of its own, so that a pooler uses one server session for it.
//! `statement_timeout` limits each step.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Error, Row};

use super::failure::{code, migration_error, store_error, unavailable};
use super::session::Session;
use super::sql::Query;
use super::table::{COLUMNS, Name, Table};
use crate::store::StoreError;

/// Which objects exist. Every role may read this from the server's catalog.
struct Found {
    schema: bool,
    table: bool,
    missing_functions: Vec<String>,
    missing_columns: Vec<String>,
    missing_indexes: Vec<String>,
    /// `None` when there is no table.
    is_logged: Option<bool>,
}

/// Resolves a name to the table of one schema, on a server that accepts writes.
///
/// # Errors
///
/// [`StoreError::Unfit`] on a replica, in a read-only session, and without a schema. A replica
/// shows an older state, so a claim on a replica would miss a claim on the primary.
pub(super) async fn resolve(
    session: &mut Session,
    name: Name,
    limit: Duration,
) -> Result<Table, StoreError> {
    // An existing table is used in whichever schema the `search_path` finds it.
    let query = query(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
            current_user::text, getdatabaseencoding()::text,
            coalesce($1, (
                SELECT n.nspname::text
                FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = to_regclass(quote_ident($2))
            ), current_schema()::text)",
    );
    let query = query.bind(name.schema).bind(name.table.clone());
    let row = one_row(session, query, limit).await.map_err(unavailable)?;
    let unfit = |reason: &str| Err(StoreError::Unfit(reason.into()));
    if get(&row, 0)? {
        return unfit("the postgres server is a replica; connect to the primary");
    }
    if get(&row, 1)? {
        return unfit("the postgres session is read-only; unset `default_transaction_read_only`");
    }
    let Some(schema) = get(&row, 4)? else {
        return unfit(
            "no schema in the `search_path` exists; create one, or name one with `schema`",
        );
    };
    let schema: String = schema;
    if schema.contains("$$") {
        // `$$` would end the body of the claim function.
        return Err(StoreError::Unfit(
            format!(
                "the schema {schema:?} has `$$` in its name, which the store cannot use; choose another \
                 one with `schema`"
            )
            .into(),
        ));
    }
    Ok(Table {
        schema,
        name: name.table,
        role: get(&row, 2)?,
        is_utf8: get::<String>(&row, 3)? == "UTF8",
    })
}

/// Creates the table and its functions. Any number of processes may do this at once. Needs no right
/// to create objects that already exist.
///
/// # Errors
///
/// When an object is missing and the role may not create it. [`StoreError::Unfit`] for an unlogged
/// table, because a crash of the server empties it.
pub(super) async fn migrate(
    session: &mut Session,
    table: &Table,
    may_create: bool,
    limit: Duration,
) -> Result<(), StoreError> {
    let row = one_row(session, Found::query(table), limit).await;
    let mut found = Found::read(&row.map_err(unavailable)?)?;
    if found.table && !found.missing_columns.is_empty() {
        return Err(StoreError::Unfit(
            format!(
                "the table {table} has no column {columns}: another version of the library created \
                 it; move it away, or let the owner add what the SQL of `schema_sql` has",
                table = table.quoted(),
                columns = found.missing_columns.join(", "),
            )
            .into(),
        ));
    }
    if !may_create && !found.is_complete() {
        return Err(StoreError::Unfit(
            format!(
                "{missing} missing, and `migrate(false)` creates nothing; have an owner run:\n\
                 {script}\n{grants}",
                missing = found.missing(table),
                script = table.script_with_schema(),
                grants = table.grants(),
            )
            .into(),
        ));
    }
    if !found.is_complete() {
        create(session, table, limit)
            .await
            .map_err(|error| migration_error(error, table))?;
        let row = one_row(session, Found::query(table), limit).await;
        found = Found::read(&row.map_err(unavailable)?)?;
    }
    if found.is_logged == Some(false) {
        return Err(StoreError::Unfit(
            format!(
                "the table {table} is unlogged, so that a crash of the server empties it; run \
                 `ALTER TABLE {table} SET LOGGED`",
                table = table.quoted()
            )
            .into(),
        ));
    }
    Ok(())
}

async fn create(session: &mut Session, table: &Table, limit: Duration) -> Result<(), Error> {
    let mut transaction = session.begin(limit).await?;
    // `IF NOT EXISTS` alone fails when two processes both find nothing.
    let lock = query("SELECT pg_advisory_xact_lock(hashtextextended('axum-idem ' || $1, 0))");
    lock.bind(table.quoted()).execute(&mut *transaction).await?;
    // Another role may have created the function first, and its function must not be replaced.
    let row = Found::query(table).fetch_one(&mut *transaction).await?;
    let found = Found::read_columns(&row)?;
    if !found.schema {
        let statement = AssertSqlSafe(table.schema_definition());
        sqlx::raw_sql(statement).execute(&mut *transaction).await?;
    }
    if !found.is_complete() {
        for statement in table.definition() {
            let statement = AssertSqlSafe(statement);
            sqlx::raw_sql(statement).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}

/// Converts the error of a probed statement, and names the missing rights.
pub(super) async fn probe_error(
    session: &mut Session,
    error: Error,
    table: &Table,
    limit: Duration,
) -> StoreError {
    match code(&error).as_deref() {
        Some("42501") => match missing_rights(session, table, limit).await {
            Ok(missing) if !missing.is_empty() => StoreError::Unfit(
                format!(
                    "the role {role} may not {missing}; have the owner run:\n{grants}",
                    role = table.quoted_role(),
                    missing = missing.join(", "),
                    grants = table.grants()
                )
                .into(),
            ),
            _ => store_error(error, table),
        },
        // No unique index fits `ON CONFLICT (id)`, or only a deferrable one does.
        Some("42P10" | "55000") => StoreError::Unfit(
            format!(
                "the table {table} has no primary key, so that one key could run twice; run \
                 `ALTER TABLE {table} ADD PRIMARY KEY (id)`",
                table = table.quoted()
            )
            .into(),
        ),
        _ => store_error(error, table),
    }
}

async fn missing_rights(
    session: &mut Session,
    table: &Table,
    limit: Duration,
) -> Result<Vec<&'static str>, Error> {
    let query = query(
        "SELECT has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'),
            has_table_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'UPDATE'),
            has_table_privilege(c.oid, 'DELETE'), bool_and(has_function_privilege(p.oid, 'EXECUTE'))
        FROM pg_catalog.pg_namespace n
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
        JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid
        WHERE n.nspname = $1 AND c.relname = $2 AND p.proname = ANY ($3)
        GROUP BY n.oid, c.oid",
    );
    let query = of_table(query, table);
    let row = one_row(session, query, limit).await?;
    let rights = [
        "use the schema",
        "SELECT from the table",
        "INSERT into the table",
        "UPDATE the table",
        "DELETE from the table",
        "EXECUTE the functions",
    ];
    let mut missing = Vec::new();
    for (column, right) in rights.into_iter().enumerate() {
        if !row.try_get::<bool, _>(column)? {
            missing.push(right);
        }
    }
    Ok(missing)
}

impl Found {
    fn query(table: &Table) -> Query {
        // `pg_partition_tree` returns rows only for a partitioned table.
        let query = query(
            "SELECT n.oid IS NOT NULL, c.oid IS NOT NULL,
                ARRAY(SELECT name FROM unnest($3::text[]) AS name WHERE NOT EXISTS (
                    SELECT FROM pg_catalog.pg_proc p
                    WHERE p.pronamespace = n.oid AND p.proname = name
                )),
                ARRAY(SELECT name FROM unnest($4::text[]) AS name WHERE NOT EXISTS (
                    SELECT FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attname = name AND NOT a.attisdropped
                )),
                ARRAY(SELECT name FROM unnest($5::text[]) AS name WHERE NOT EXISTS (
                    SELECT FROM pg_catalog.pg_class i
                    WHERE i.relnamespace = n.oid AND i.relname = name AND i.relkind IN ('i', 'I')
                )),
                c.relpersistence = 'p' AND NOT EXISTS (
                    SELECT FROM pg_partition_tree(c.oid) t
                    JOIN pg_catalog.pg_class part ON part.oid = t.relid
                    WHERE part.relpersistence <> 'p'
                )
            FROM (SELECT) AS one
            LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1
            LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $2",
        );
        of_table(query, table)
            .bind(COLUMNS.map(str::to_owned).to_vec())
            .bind(table.indexes().to_vec())
    }

    fn is_complete(&self) -> bool {
        self.table && self.missing_functions.is_empty() && self.missing_indexes.is_empty()
    }

    /// What is missing, for a message.
    fn missing(&self, table: &Table) -> String {
        let mut missing = Vec::new();
        if !self.schema {
            missing.push(format!("the schema of {}", table.quoted()));
        }
        if !self.table {
            missing.push(format!("the table {}", table.quoted()));
        }
        let functions = self.missing_functions.iter();
        missing.extend(functions.map(|name| format!("the function {}", table.function(name))));
        let indexes = self.missing_indexes.iter();
        missing.extend(indexes.map(|index| format!("the index {index}")));
        let verb = if missing.len() == 1 { "is" } else { "are" };
        format!("{} {verb}", missing.join(", "))
    }

    fn read(row: &PgRow) -> Result<Self, StoreError> {
        Self::read_columns(row).map_err(unavailable)
    }

    fn read_columns(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            missing_functions: row.try_get(2)?,
            missing_columns: row.try_get(3)?,
            missing_indexes: row.try_get(4)?,
            is_logged: row.try_get(5)?,
        })
    }
}

/// A statement that is not kept as a prepared statement.
fn query(statement: &'static str) -> Query {
    sqlx::query(statement).persistent(false)
}

/// Binds `$1` to `$3`.
fn of_table(query: Query, table: &Table) -> Query {
    let query = query.bind(table.schema.clone());
    let query = query.bind(table.name.clone());
    query.bind(table.functions().to_vec())
}

async fn one_row(session: &mut Session, query: Query, limit: Duration) -> Result<PgRow, Error> {
    let mut transaction = session.begin(limit).await?;
    let row = query.fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(row)
}

fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(unavailable)
}
