//! Our own messages in the WAL.

use super::SourceError;
use super::read::{position, read_one};
use crate::base::Lsn;
use tokio_postgres::Client;

/// Writes a **non-transactional** logical message and returns its position; it is flushed when this returns.
///
/// `pg_logical_emit_message` alone leaves an idle server with an unflushed, hence unsent, tail. A transaction that has an id
/// flushes everything before its commit record, the message included.
///
/// # Errors
/// As any statement; a standby refuses to write.
pub async fn emit_message(client: &Client, prefix: &str, content: &str) -> Result<Lsn, SourceError> {
    const SQL: &str = "
        SELECT pg_logical_emit_message(false, $1::text, $2::text) AS position, pg_current_xact_id()::text,
               set_config('synchronous_commit', 'local', true)";
    let row = read_one(client, "writing a marker into the WAL", SQL, &[&prefix, &content]).await?;
    Ok(position(&row, "position")?.unwrap_or(Lsn::ZERO))
}
