//! A detached table from the freeze to its end, and the receipts: the calls of `sql/11`, whose functions alone may lock and drop (R2, R3).

use super::SourceError;
use super::quote_identifier;
use super::read::{execute, field, read, read_one};
use crate::base::TableName;
use chrono::NaiveDate;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// How long the freeze waits for whoever uses the table: whoever queues behind us waits as long.
const LOCK_TIMEOUT: &str = "2s";

/// What one receipt says to the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// Its place in the chain.
    pub sequence: i64,
    /// `dropped`.
    pub kind: String,
    /// What the rows were dropped with: `archive.security_event_p2026_01_02`.
    pub partition: String,
    /// First day.
    pub lower: NaiveDate,
    /// The day behind the last.
    pub upper: NaiveDate,
    /// Rows.
    pub rows: i64,
    /// Their digest.
    pub digest: String,
    /// The rule that it was made by.
    pub digest_rule: i32,
    /// The columns that it binds.
    pub columns: Value,
}

/// Begins the transaction in which a detached table is counted and dropped, READ COMMITTED, and locks the table against every writer.
/// No statement in it runs into a timeout of its own, and none before this one has taken a snapshot.
///
/// # Errors
/// SQLSTATE 55P03 where somebody holds the table, 55000 where it is no detached partition of the root, 42501 for whoever is not the
/// pipeline's login.
pub async fn freeze(client: &Client, archive: &str, relation: u32, root: u32) -> Result<(), SourceError> {
    let doing = "freezing a detached table";
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL statement_timeout = 0; \
         SET LOCAL idle_in_transaction_session_timeout = 0"
    );
    execute(client, doing, &begin).await?;
    let sql = format!("SELECT {}.lakebed_freeze($1::oid, $2::oid)", quote_identifier(archive));
    read(client, doing, &sql, &[&relation, &root]).await.map(|_| ())
}

/// Ends that transaction without a trace.
///
/// # Errors
/// As any statement.
pub async fn thaw(client: &Client) -> Result<(), SourceError> {
    execute(client, "letting go of a detached table", "ROLLBACK").await
}

/// Writes the receipt and drops the table, which [`freeze`] has locked in this very transaction, and commits. Returns the receipt's place
/// in the chain.
///
/// # Errors
/// SQLSTATE 55000 where the function refuses; after an error of the commit the receipt says which way it went.
pub async fn drop_frozen(
    client: &Client,
    archive: &str,
    relation: u32,
    root: u32,
    receipt: &Value,
) -> Result<i64, SourceError> {
    let doing = "dropping a balanced table";
    let sql =
        format!("SELECT sequence FROM {}.lakebed_drop($1::oid, $2::oid, $3::text::jsonb)", quote_identifier(archive));
    let row = read_one(client, doing, &sql, &[&relation, &root, &receipt.to_string()]).await?;
    execute(client, doing, "COMMIT").await?;
    field(&row, "sequence")
}

/// The receipts of a table that touch these days, in the order of the chain.
///
/// # Errors
/// SQLSTATE 42P01 where `init` has not installed them yet.
pub async fn receipts(
    client: &Client,
    archive: &str,
    table: &TableName,
    days: (NaiveDate, NaiveDate),
) -> Result<Vec<Receipt>, SourceError> {
    let sql = format!(
        "SELECT sequence, kind, partition_name, lower_bound::text AS lower_bound, upper_bound::text AS upper_bound, rows, digest, digest_rule, columns::text AS columns
         FROM {}.receipt WHERE table_name = $1::text AND lower_bound < $3::text::date AND upper_bound > $2::text::date ORDER BY sequence",
        quote_identifier(archive)
    );
    let (lower, upper) = (days.0.to_string(), days.1.to_string());
    let parameters: [&(dyn ToSql + Sync); 3] = [&table.to_string(), &lower, &upper];
    let rows = read(client, "reading the receipts", &sql, &parameters).await?;
    let unexpected = || SourceError::UnexpectedAnswer { doing: "reading the receipts".to_owned(), source: None };
    let date = |row: &Row, name: &str| field::<String>(row, name)?.parse::<NaiveDate>().map_err(|_| unexpected());
    let receipt = |row: &Row| {
        Ok(Receipt {
            sequence: field(row, "sequence")?,
            kind: field(row, "kind")?,
            partition: field(row, "partition_name")?,
            lower: date(row, "lower_bound")?,
            upper: date(row, "upper_bound")?,
            rows: field(row, "rows")?,
            digest: field(row, "digest")?,
            digest_rule: field(row, "digest_rule")?,
            columns: serde_json::from_str(&field::<String>(row, "columns")?).map_err(|_| unexpected())?,
        })
    };
    rows.iter().map(receipt).collect()
}

/// Keeps what did not balance, or counts it again where it is known.
///
/// # Errors
/// As any statement.
pub async fn note_finding(
    client: &Client,
    archive: &str,
    kind: &str,
    (table, partition): (&TableName, &TableName),
    reason: &str,
    evidence: &Value,
) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT {}.lakebed_note($1::text, $2::text, $3::text, $4::text, $5::text::jsonb)",
        quote_identifier(archive)
    );
    let (table, partition, evidence) = (table.to_string(), partition.to_string(), evidence.to_string());
    let parameters: [&(dyn ToSql + Sync); 5] = [&kind, &table, &partition, &reason, &evidence];
    read(client, "keeping a finding", &sql, &parameters).await.map(|_| ())
}

/// What was found of a partition is settled.
///
/// # Errors
/// As any statement.
pub async fn resolve_findings(
    client: &Client,
    archive: &str,
    table: &TableName,
    partition: &TableName,
) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_resolve($1::text, $2::text)", quote_identifier(archive));
    let (table, partition) = (table.to_string(), partition.to_string());
    read(client, "settling a finding", &sql, &[&table, &partition]).await.map(|_| ())
}

/// Runs a digest's query: one row a part, with its label, rows and lanes. The caller has pinned what the texts depend on.
///
/// # Errors
/// As any statement.
pub async fn labelled_sums(
    client: &Client,
    doing: &str,
    sql: &str,
) -> Result<Vec<(String, i64, [i128; 2])>, SourceError> {
    let unexpected = || SourceError::UnexpectedAnswer { doing: doing.to_owned(), source: None };
    let lane = |row: &Row, name: &str| field::<String>(row, name)?.parse::<i128>().map_err(|_| unexpected());
    let rows = read(client, doing, sql, &[]).await?;
    rows.iter()
        .map(|row| Ok((field(row, "part")?, field(row, "rows")?, [lane(row, "lane1")?, lane(row, "lane2")?])))
        .collect()
}

/// Sets what output texts depend on, for the transaction that counts.
///
/// # Errors
/// As any statement.
pub async fn run_pins(client: &Client, pins: &str) -> Result<(), SourceError> {
    execute(client, "preparing to count", pins).await
}

/// Whether a relation is still there.
///
/// # Errors
/// As any statement.
pub async fn relation_exists(client: &Client, relation: u32) -> Result<bool, SourceError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = $1::oid) AS present";
    field(&read_one(client, "looking for a table", SQL, &[&relation]).await?, "present")
}
