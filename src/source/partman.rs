//! What pg_partman does with a table. Versions 4 and 5 keep the same columns in `part_config`, in a schema of the installer's choice.

use super::read::{field, read};
use super::{SourceError, quote_identifier};
use crate::base::TableName;
use serde_json::Value;
use tokio_postgres::Client;

/// pg_partman in this database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartmanFacts {
    /// The extension's schema.
    pub schema: String,
    /// The extension's version: `4.7.2`.
    pub version: String,
    /// What is configured for the table; `None` when partman does not manage it.
    pub config: Option<PartmanConfig>,
}

/// A row of `part_config`, the columns that decide whether the archive works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartmanConfig {
    /// The column partman partitions by.
    pub control: String,
    /// `daily` (4) or `1 day` (5).
    pub interval: String,
    /// Partitions made ahead.
    pub premake: i64,
    /// How long rows stay; `None` is for ever.
    pub retention: Option<String>,
    /// Where a retired partition goes; `None` drops or leaves it.
    pub retention_schema: Option<String>,
    /// Whether a retired partition's table is kept.
    pub retention_keep_table: bool,
    /// Whether new partitions are made although no rows arrive.
    pub infinite_time_partitions: bool,
}

/// What partman knows of a table; `None` when the extension is not in this database.
///
/// # Errors
/// SQLSTATE 42501 when the asking role may not read `part_config`.
pub async fn partman(client: &Client, table: &TableName) -> Result<Option<PartmanFacts>, SourceError> {
    const EXTENSION: &str = "
        SELECT n.nspname::text AS schema_name, e.extversion AS version FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_partman'";
    let Some(row) = read(client, "looking for pg_partman", EXTENSION, &[]).await?.into_iter().next() else {
        return Ok(None);
    };
    let schema: String = field(&row, "schema_name")?;
    let sql = format!(
        "SELECT to_jsonb(c)::text AS config FROM {}.part_config c WHERE c.parent_table = $1::text",
        quote_identifier(&schema)
    );
    let rows = read(client, "reading partman's configuration", &sql, &[&table.to_string()]).await?;
    let config = match rows.first() {
        None => None,
        Some(row) => Some(parse(&field::<String>(row, "config")?)?),
    };
    Ok(Some(PartmanFacts { schema, version: field(&row, "version")?, config }))
}

/// Another partitioned table of the same name, in another schema, whose partitions partman moves into the same archive schema: a
/// detached table's name does not say which of them it was of.
///
/// # Errors
/// As [`partman`].
pub async fn rival_root(client: &Client, table: &TableName, archive: &str) -> Result<Option<TableName>, SourceError> {
    const SQL: &str = "
        SELECT n.nspname::text AS schema_name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'p' AND NOT c.relispartition AND c.relname = $2::text AND n.nspname <> $1::text ORDER BY 1";
    for row in read(client, "looking for tables of the same name", SQL, &[&table.schema, &table.name]).await? {
        let other = TableName::new(field::<String>(&row, "schema_name")?, table.name.clone());
        let config = partman(client, &other).await?.and_then(|facts| facts.config);
        if config.is_some_and(|config| config.retention_schema.as_deref() == Some(archive)) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn parse(text: &str) -> Result<PartmanConfig, SourceError> {
    let unexpected = || SourceError::UnexpectedAnswer { doing: "reading partman's configuration".into(), source: None };
    let row: Value = serde_json::from_str(text).map_err(|_| unexpected())?;
    let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::to_owned);
    let flag = |key: &str| row.get(key).and_then(Value::as_bool);
    Ok(PartmanConfig {
        control: text("control").ok_or_else(unexpected)?,
        interval: text("partition_interval").ok_or_else(unexpected)?,
        premake: row.get("premake").and_then(Value::as_i64).ok_or_else(unexpected)?,
        retention: text("retention"),
        retention_schema: text("retention_schema"),
        retention_keep_table: flag("retention_keep_table").unwrap_or(true),
        infinite_time_partitions: flag("infinite_time_partitions").unwrap_or(false),
    })
}
