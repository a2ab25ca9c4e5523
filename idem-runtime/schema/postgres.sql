-- The table of `PostgresStore` under its default name, in the schema `public`. `PostgresStoreBuilder::schema_sql` prints
-- the same for other names. Safe to run again.

