//! A message of our own in the WAL.

use super::SourceError;
use super::read::read;
use tokio_postgres::Client;

/// Writes a logical message that is not transactional: it stands in the WAL behind every commit before this call, and comes back
/// through a stream with `messages 'true'` at that place (PostgreSQL's manual, 9.28.6).
///
/// # Errors
/// As any statement; a standby refuses it.
pub async fn emit_message(client: &Client, prefix: &str, content: &str) -> Result<(), SourceError> {
    const SQL: &str = "SELECT pg_catalog.pg_logical_emit_message(false, $1::text, $2::text)";
    read(client, "writing a message into the WAL", SQL, &[&prefix, &content]).await.map(drop)
}
