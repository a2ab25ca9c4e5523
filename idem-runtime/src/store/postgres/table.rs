//! The one table, named by identifiers that are nothing else.

use super::claiming;
use crate::store::StoreError;

/// PostgreSQL cuts names at 63 bytes; the index's is longer than the table's.
const LONGEST: usize = 50;

/// A table's name, checked and quoted.
#[derive(Clone, Debug)]
pub(super) struct Table {
    schema: Option<String>,
    name: String,
}

impl Table {
    /// # Errors
    ///
    /// When a name is not letters, digits and underscores, begins with a digit, or is longer than
    /// 50.
    pub(super) fn new(schema: Option<String>, name: String) -> Result<Self, StoreError> {
        for name in schema.iter().chain([&name]) {
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
        Ok(Self { schema, name })
    }

    /// As it stands in a statement.
    pub(super) fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".\"{}\"", self.name),
            None => format!("\"{}\"", self.name),
        }
    }

    /// The function that claims, as it stands in a statement. Its number is that of its body.
    pub(super) fn claim(&self) -> String {
        let name = format!("{}_claim_v1", self.name);
        Self {
            schema: self.schema.clone(),
            name,
        }
        .quoted()
    }

    /// What creates it and its function, safe to run again.
    pub(super) fn definition(&self) -> Vec<String> {
        let schema = self
            .schema
            .iter()
            .map(|schema| format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""));
        let (table, name) = (self.quoted(), &self.name);
        let rest = [
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
            format!("CREATE INDEX IF NOT EXISTS \"{name}_expires_at\" ON {table} (expires_at)"),
            claiming::definition(self),
        ];
        schema.chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_nothing_but_a_name() {
        for name in ["idem_records", "_x", "Trades2"] {
            assert!(Table::new(None, name.to_owned()).is_ok(), "{name}");
        }
        let long = "x".repeat(51);
        for name in [
            "", "2x", "x; drop", "x\"y", "x.y", "größe", "x-y", "x\0", &long,
        ] {
            assert!(Table::new(None, name.to_owned()).is_err(), "{name}");
            let schema = Some(name.to_owned());
            assert!(Table::new(schema, "x".to_owned()).is_err(), "{name}");
        }
    }
}
