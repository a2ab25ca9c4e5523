//! The store's table and its claim function, as quoted identifiers with their schema.

use super::claim_function;
use crate::store::StoreError;

/// PostgreSQL cuts names at 63 bytes, and the name of the index is longer than that of the table.
const LONGEST: usize = 50;

/// The names that the builder was given, validated.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl Name {
    /// # Errors
    ///
    /// When a name has other characters than letters, digits and underscores, begins with a digit,
    /// or is longer than 50 characters.
    pub(super) fn new(schema: Option<String>, table: String) -> Result<Self, StoreError> {
        for name in schema.iter().chain([&table]) {
            let is_a_name = name.len() <= LONGEST
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name.bytes().next().is_some_and(|it| !it.is_ascii_digit());
            if !is_a_name {
                return Err(StoreError::Unfit(
                    format!(
                        "{name:?} cannot name a schema or table here; use up to {LONGEST} \
                         letters, digits and underscores, the first not a digit"
                    )
                    .into(),
                ));
            }
        }
        Ok(Self { schema, table })
    }
}

/// One table in one schema.
///
/// Every statement names the schema. Otherwise a changed `search_path` could lead to another table,
/// which does not have the existing claims.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// The role of the store's sessions.
    pub(super) role: String,
}

impl Table {
    /// The table, for use in a statement.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The name of the claim function. Its number changes when the body of the function changes.
    pub(super) fn claim_name(&self) -> String {
        format!("{}_claim_v1", self.name)
    }

    /// The claim function, for use in a statement.
    pub(super) fn claim(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.claim_name()))
    }

    pub(super) fn quoted_role(&self) -> String {
        quote(&self.role)
    }

    pub(super) fn schema_definition(&self) -> String {
        format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.schema))
    }

    /// Statements that create the table and its function in an existing schema. Safe to run again.
    pub(super) fn definition(&self) -> [String; 3] {
        let table = self.quoted();
        let index = quote(&format!("{}_expires_at", self.name));
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
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
                )"
            ),
            format!("CREATE INDEX IF NOT EXISTS {index} ON {table} (expires_at)"),
            claim_function::definition(&self.claim(), &table),
        ]
    }

    /// The complete SQL that creates the schema, the table and the function, for an owner to run by
    /// hand.
    pub(super) fn script(&self) -> String {
        let rest = self.definition().join(";\n");
        format!("{};\n{rest};", self.schema_definition())
    }

    /// The SQL that grants the store's role its rights, for an owner to run by hand.
    pub(super) fn grants(&self) -> String {
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role};\n\
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {table} TO {role};\n\
             GRANT EXECUTE ON FUNCTION {claim}{takes} TO {role};",
            schema = quote(&self.schema),
            table = self.quoted(),
            claim = self.claim(),
            takes = claim_function::TAKES,
            role = self.quoted_role(),
        )
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_limited_to_letters_digits_and_underscores() {
        for name in ["idem_records", "_x", "Trades2"] {
            assert!(Name::new(None, name.to_owned()).is_ok(), "{name}");
        }
        let long = "x".repeat(51);
        for name in [
            "", "2x", "x; drop", "x\"y", "x.y", "größe", "x-y", "x\0", &long,
        ] {
            assert!(Name::new(None, name.to_owned()).is_err(), "{name}");
            let schema = Some(name.to_owned());
            assert!(Name::new(schema, "x".to_owned()).is_err(), "{name}");
        }
    }

    /// The schema may come from the server, which allows any name.
    #[test]
    fn a_schema_name_with_quotes_is_escaped() {
        let table = Table {
            schema: "a\"b".to_owned(),
            name: "t".to_owned(),
            role: "r".to_owned(),
        };
        assert_eq!(table.quoted(), "\"a\"\"b\".\"t\"");
    }
}
