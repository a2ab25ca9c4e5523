//! The store's table and its functions, as quoted identifiers with their schema.

use super::{claim_function, commit_function, complete_function};
use crate::store::StoreError;
use crate::store::table_name::{self, LONGEST};

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
            if !table_name::is_valid(name) {
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
    /// Whether the database takes any text. Others take ASCII for sure.
    pub(super) is_utf8: bool,
}

/// The columns of the table, each of which a statement names.
pub(super) const COLUMNS: [&str; 15] = [
    "id",
    "fence",
    "leased_until",
    "expires_at",
    "created_at",
    "settled_at",
    "retention_ms",
    "attempt",
    "version",
    "fingerprint",
    "owner",
    "trace_id",
    "endpoint",
    "label",
    "record",
];

impl Table {
    /// A table whose schema no server has resolved.
    pub(super) fn named(name: Name) -> Self {
        Self {
            schema: name.schema.unwrap_or_else(|| "public".to_owned()),
            name: name.table,
            role: String::new(),
            is_utf8: true,
        }
    }

    /// The table, for use in a statement.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The name of the claim function. Its number changes when the body of the function changes.
    fn claim_name(&self) -> String {
        format!("{}_claim_v5", self.name)
    }

    /// The name of the function that records a response inside a transaction. Its number changes when the
    /// body of the function changes.
    fn commit_name(&self) -> String {
        format!("{}{}", self.name, commit_function::NAME)
    }

    /// The name of the function that records a response. Its number changes when the body of the function
    /// changes.
    fn complete_name(&self) -> String {
        format!("{}{}", self.name, complete_function::NAME)
    }

    /// The names of all functions.
    pub(super) fn functions(&self) -> [String; 3] {
        [self.claim_name(), self.commit_name(), self.complete_name()]
    }

    /// A function with this name, for use in a statement.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}.{}", quote(&self.schema), quote(name))
    }

    /// The function that records a response, for use in a statement.
    pub(super) fn complete(&self) -> String {
        self.function(&self.complete_name())
    }

    /// The function that records a response inside a transaction, for use in a statement.
    pub(super) fn commit(&self) -> String {
        self.function(&self.commit_name())
    }

    /// The claim function, for use in a statement.
    pub(super) fn claim(&self) -> String {
        self.function(&self.claim_name())
    }

    /// A text that the database takes. In a database that is not UTF-8, other characters than ASCII become
    /// question marks, because a claim must not fail for its label.
    pub(super) fn text(&self, text: &str) -> String {
        let ascii = |letter: char| if letter.is_ascii() { letter } else { '?' };
        // PostgreSQL has no zero in a text.
        let letters = text.chars().filter(|letter| *letter != '\0');
        if self.is_utf8 {
            letters.collect()
        } else {
            letters.map(ascii).collect()
        }
    }

    pub(super) fn quoted_role(&self) -> String {
        quote(&self.role)
    }

    pub(super) fn schema_definition(&self) -> String {
        format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.schema))
    }

    /// Statements that create the table and its functions in an existing schema. Safe to run again.
    pub(super) fn definition(&self) -> [String; 7] {
        let table = self.quoted();
        let [expires_at, claims, short] = self.indexes().map(|index| quote(&index));
        [
            format!(
                "CREATE TABLE IF NOT EXISTS {table} (
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
                )"
            ),
            // For the sweeper.
            format!("CREATE INDEX IF NOT EXISTS {expires_at} ON {table} (expires_at)"),
            // For listings of what is in flight or unknown.
            format!("CREATE INDEX IF NOT EXISTS {claims} ON {table} (id) WHERE record IS NULL"),
            // For the twelve digits that logs show.
            format!("CREATE INDEX IF NOT EXISTS {short} ON {table} (substr(id, 17, 6))"),
            claim_function::definition(&self.claim(), &table),
            commit_function::definition(&self.commit(), &table),
            complete_function::definition(&self.complete(), &table),
        ]
    }

    /// The names of the indexes other than the primary key.
    pub(super) fn indexes(&self) -> [String; 3] {
        ["expires_at", "claims", "short"].map(|what| format!("{}_{what}", self.name))
    }

    /// The same, and the SQL that creates the schema.
    pub(super) fn script_with_schema(&self) -> String {
        format!("{};\n{}", self.schema_definition(), self.script())
    }

    /// The complete SQL that creates the table, its indexes and the function in an existing schema, for
    /// an owner to run by hand.
    pub(super) fn script(&self) -> String {
        let statements = self.definition().map(|statement| trimmed(&statement));
        format!("{};\n", statements.join(";\n\n"))
    }

    /// The SQL that grants the store's role its rights, for an owner to run by hand.
    pub(super) fn grants(&self) -> String {
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role};\n\
             GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {table} TO {role};\n\
             GRANT EXECUTE ON FUNCTION {claim}{claim_takes} TO {role};\n\
             GRANT EXECUTE ON FUNCTION {commit}{commit_takes} TO {role};\n\
             GRANT EXECUTE ON FUNCTION {complete}{complete_takes} TO {role};",
            schema = quote(&self.schema),
            table = self.quoted(),
            claim = self.claim(),
            claim_takes = claim_function::TAKES,
            commit = self.commit(),
            commit_takes = commit_function::TAKES,
            complete = self.complete(),
            complete_takes = complete_function::TAKES,
            role = self.quoted_role(),
        )
    }
}

/// A statement without the indentation of its source.
fn trimmed(statement: &str) -> String {
    let indented = |line: &str| line.len() - line.trim_start().len();
    let rest = statement
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty());
    let indent = rest.map(indented).min().unwrap_or_default();
    let line = |line: &str| {
        line.get(indented(line).min(indent)..)
            .unwrap_or_default()
            .to_owned()
    };
    statement.lines().map(line).collect::<Vec<_>>().join("\n")
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
            is_utf8: false,
        };
        assert_eq!(table.quoted(), "\"a\"\"b\".\"t\"");
        assert_eq!(table.text("grö\0ße"), "gr??e");
        let table = Table {
            is_utf8: true,
            ..table
        };
        assert_eq!(table.text("grö\0ße"), "größe");
    }
}
