//! A moment that several sessions share: reading under an exported snapshot, and waiting for the transactions that were there before.

use super::SourceError;
use super::quote_literal;
use super::read::{execute, field, read_one};
use tokio_postgres::Client;

/// Begins a transaction that sees what the exported snapshot sees, for as long as it takes. The session that exported it must still be
/// idle.
///
/// # Errors
/// As any statement; a snapshot that is gone.
pub async fn begin_under(client: &Client, snapshot: &str) -> Result<(), SourceError> {
    let name = quote_literal(snapshot);
    // What is read may be a large table.
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {name}; SET LOCAL statement_timeout = 0"
    );
    execute(client, "reading under the slot's snapshot", &sql).await
}

/// Begins a transaction that sees what is committed now, for as long as it takes.
///
/// # Errors
/// As any statement.
pub async fn begin_now(client: &Client) -> Result<(), SourceError> {
    let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0";
    execute(client, "reading what the tables hold", sql).await
}

/// Ends either.
///
/// # Errors
/// As any statement.
pub async fn end_reading(client: &Client) -> Result<(), SourceError> {
    execute(client, "reading what the tables hold", "COMMIT").await
}

/// The first transaction number that nobody had when this was asked.
///
/// # Errors
/// As any statement.
pub async fn next_transaction(client: &Client) -> Result<u64, SourceError> {
    transaction(client, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text AS xid").await
}

/// The oldest transaction that writes and runs now; where none does, the next one.
///
/// # Errors
/// As any statement.
pub async fn oldest_transaction(client: &Client) -> Result<u64, SourceError> {
    transaction(client, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xid").await
}

async fn transaction(client: &Client, sql: &str) -> Result<u64, SourceError> {
    let doing = "looking which transactions run";
    let text: String = field(&read_one(client, doing, sql, &[]).await?, "xid")?;
    text.parse().map_err(|_| SourceError::UnexpectedAnswer { doing: doing.to_owned(), source: None })
}
