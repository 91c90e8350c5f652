//! What is written down about the archive: receipts, proofs, findings and the guide's queue. The tables are read here and written through
//! the functions of `sql/12`.

use super::SourceError;
use super::quote_identifier;
use super::read::{execute, field, read, read_one};
use crate::base::TableName;
use chrono::NaiveDate;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// What one receipt says to the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// Its place in the chain.
    pub sequence: i64,
    /// `dropped`.
    pub kind: String,
    /// What the rows were dropped with: `archive.security_event_p2026_01_02`.
    pub partition: String,
    /// `pg_class.oid` of what was dropped.
    pub relation_oid: Option<u32>,
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
    /// Its text has the hash that goes into the chain. What is said here is from the text.
    pub is_intact: bool,
}

/// A receipt as it was hashed, for whoever keeps the chain elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptText {
    /// Its place in the chain.
    pub sequence: i64,
    /// The text.
    pub content: String,
    /// SHA-256 of the text, in hexadecimal.
    pub hash: String,
}

/// How a day's last balance went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// First day.
    pub lower: NaiveDate,
    /// The day behind the last.
    pub upper: NaiveDate,
    /// Whether it balanced.
    pub balanced: bool,
    /// Tells the files of the lake that were read from any others.
    pub lake_files: String,
    /// When, as RFC 3339 has it.
    pub proved_at: String,
}

/// What was found and is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFinding {
    /// `unbalanced`, `name_taken`, …
    pub kind: String,
    /// The table.
    pub table: String,
    /// The detached table, or the days.
    pub partition: String,
    /// What is wrong.
    pub reason: String,
    /// When it was found first, as RFC 3339 has it.
    pub found_at: String,
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
        "SELECT sequence, said ->> 'kind' AS kind, said ->> 'partition_name' AS partition_name,
                (said ->> 'relation_oid')::int8::oid AS relation_oid, said ->> 'lower_bound' AS lower_bound,
                said ->> 'upper_bound' AS upper_bound, (said ->> 'rows')::int8 AS rows, said ->> 'digest' AS digest,
                (said ->> 'digest_rule')::int4 AS digest_rule, said ->> 'columns' AS columns,
                hash = encode(sha256(convert_to(content, 'UTF8')), 'hex') AS is_intact
         FROM (SELECT *, content::jsonb AS said FROM {}.receipt) AS receipt WHERE table_name = $1::text AND lower_bound < $3::text::date AND upper_bound > $2::text::date ORDER BY sequence",
        quote_identifier(archive)
    );
    let (lower, upper) = (days.0.to_string(), days.1.to_string());
    let parameters: [&(dyn ToSql + Sync); 3] = [&table.to_string(), &lower, &upper];
    let rows = read(client, "reading the receipts", &sql, &parameters).await?;
    rows.iter().map(receipt).collect()
}

fn date(row: &Row, name: &str) -> Result<NaiveDate, SourceError> {
    let unexpected = || SourceError::UnexpectedAnswer { doing: format!("reading {name}"), source: None };
    field::<String>(row, name)?.parse::<NaiveDate>().map_err(|_| unexpected())
}

fn receipt(row: &Row) -> Result<Receipt, SourceError> {
    let unexpected = || SourceError::UnexpectedAnswer { doing: "reading the receipts".to_owned(), source: None };
    Ok(Receipt {
        sequence: field(row, "sequence")?,
        kind: field(row, "kind")?,
        partition: field(row, "partition_name")?,
        relation_oid: field(row, "relation_oid")?,
        lower: date(row, "lower_bound")?,
        upper: date(row, "upper_bound")?,
        rows: field(row, "rows")?,
        digest: field(row, "digest")?,
        digest_rule: field(row, "digest_rule")?,
        columns: serde_json::from_str(&field::<String>(row, "columns")?).map_err(|_| unexpected())?,
        is_intact: field(row, "is_intact")?,
    })
}

/// Keeps what did not balance, or counts it again where it is known. `partition` is a detached table's name, or some days of the table.
///
/// # Errors
/// As any statement.
pub async fn note_finding(
    client: &Client,
    archive: &str,
    kind: &str,
    (table, partition): (&TableName, &str),
    reason: &str,
    evidence: &Value,
) -> Result<(), SourceError> {
    let sql = format!(
        "SELECT {}.lakebed_note($1::text, $2::text, $3::text, $4::text, $5::text::jsonb)",
        quote_identifier(archive)
    );
    let (table, evidence) = (table.to_string(), evidence.to_string());
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
    partition: &str,
) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_resolve($1::text, $2::text)", quote_identifier(archive));
    read(client, "settling a finding", &sql, &[&table.to_string(), &partition]).await.map(|_| ())
}

/// The receipts behind a place in the chain, in its order, so many at most.
///
/// # Errors
/// As any statement.
pub async fn receipt_texts(
    client: &Client,
    archive: &str,
    behind: i64,
    at_most: i64,
) -> Result<Vec<ReceiptText>, SourceError> {
    let sql = format!(
        "SELECT sequence, content, hash FROM {}.receipt WHERE sequence > $1::int8 ORDER BY sequence LIMIT $2::int8",
        quote_identifier(archive)
    );
    let rows = read(client, "reading the chain of receipts", &sql, &[&behind, &at_most]).await?;
    let text = |row: &Row| {
        Ok(ReceiptText {
            sequence: field(row, "sequence")?,
            content: field(row, "content")?,
            hash: field(row, "hash")?,
        })
    };
    rows.iter().map(text).collect()
}

/// Writes a receipt down again that this database has lost. False if it was there.
///
/// # Errors
/// SQLSTATE 55000 where it is not the next link of the chain.
pub async fn restore_receipt(client: &Client, archive: &str, content: &str) -> Result<bool, SourceError> {
    let sql = format!("SELECT {}.lakebed_restore($1::text) AS missing", quote_identifier(archive));
    field(&read_one(client, "restoring a receipt", &sql, &[&content]).await?, "missing")
}

/// Writes the receipt of an erasure down, if it is not there.
///
/// # Errors
/// SQLSTATE 55000 for a receipt that is none of an erasure.
pub async fn adjust(client: &Client, archive: &str, receipt: &Value) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_adjust($1::text::jsonb)", quote_identifier(archive));
    read(client, "writing the receipt of an erasure", &sql, &[&receipt.to_string()]).await.map(|_| ())
}

/// Settles what was found of detached tables that are gone, whoever dropped them.
///
/// # Errors
/// As any statement.
pub async fn settle_gone(client: &Client, archive: &str) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_settle()", quote_identifier(archive));
    read(client, "settling findings", &sql, &[]).await.map(|_| ())
}

/// Keeps how a day's balance went; `proof` has the keys of the table's columns.
///
/// # Errors
/// As any statement.
pub async fn keep_proof(client: &Client, archive: &str, proof: &Value) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_prove($1::text::jsonb)", quote_identifier(archive));
    read(client, "keeping a proof", &sql, &[&proof.to_string()]).await.map(|_| ())
}

/// The last proof of every day of a table, by the pipeline of a slot.
///
/// # Errors
/// SQLSTATE 42P01 where `init` has not made the table yet.
pub async fn proofs(client: &Client, archive: &str, slot: &str, table: &TableName) -> Result<Vec<Proof>, SourceError> {
    let sql = format!(
        "SELECT lower_bound::text AS lower_bound, upper_bound::text AS upper_bound, balanced, lake_files,
                to_char(proved_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS proved_at
         FROM {}.proof WHERE slot_name = $1::text AND table_name = $2::text ORDER BY proof.lower_bound",
        quote_identifier(archive)
    );
    let rows = read(client, "reading the proofs", &sql, &[&slot, &table.to_string()]).await?;
    let proof = |row: &Row| {
        Ok(Proof {
            lower: date(row, "lower_bound")?,
            upper: date(row, "upper_bound")?,
            balanced: field(row, "balanced")?,
            lake_files: field(row, "lake_files")?,
            proved_at: field(row, "proved_at")?,
        })
    };
    rows.iter().map(proof).collect()
}

/// What was found and is not settled, the oldest first.
///
/// # Errors
/// As any statement.
pub async fn open_findings(client: &Client, archive: &str) -> Result<Vec<OpenFinding>, SourceError> {
    let sql = format!(
        "SELECT kind, table_name, partition_name, reason,
                to_char(found_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS found_at
         FROM {}.finding WHERE resolved_at IS NULL ORDER BY id",
        quote_identifier(archive)
    );
    let rows = read(client, "reading the findings", &sql, &[]).await?;
    let finding = |row: &Row| {
        Ok(OpenFinding {
            kind: field(row, "kind")?,
            table: field(row, "table_name")?,
            partition: field(row, "partition_name")?,
            reason: field(row, "reason")?,
            found_at: field(row, "found_at")?,
        })
    };
    rows.iter().map(finding).collect()
}

/// The tables that the guide's functions asked for, the first first.
///
/// # Errors
/// As any statement.
pub async fn queued(client: &Client, archive: &str) -> Result<Vec<TableName>, SourceError> {
    let sql = format!("SELECT schema_name, table_name FROM {}.queue ORDER BY requested_at", quote_identifier(archive));
    let rows = read(client, "reading the archive's queue", &sql, &[]).await?;
    rows.iter()
        .map(|row| Ok(TableName { schema: field(row, "schema_name")?, name: field(row, "table_name")? }))
        .collect()
}

/// A table of the queue was looked at.
///
/// # Errors
/// As any statement.
pub async fn served(client: &Client, archive: &str, table: &TableName) -> Result<(), SourceError> {
    let sql = format!("SELECT {}.lakebed_served($1::text, $2::text)", quote_identifier(archive));
    read(client, "clearing the archive's queue", &sql, &[&table.schema, &table.name]).await.map(|_| ())
}

/// Hears from now on when the guide's functions ask for something.
///
/// # Errors
/// As any statement.
pub async fn listen_for_requests(client: &Client) -> Result<(), SourceError> {
    execute(client, "listening for the archive's functions", "LISTEN lakebed_archive").await
}

/// Asks for nothing, so that a lost session is noticed.
///
/// # Errors
/// As any statement.
pub async fn still_there(client: &Client) -> Result<(), SourceError> {
    execute(client, "asking whether the session is there", "").await
}
