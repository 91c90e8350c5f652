//! What a copy asks of its sessions: an imported snapshot, how large tables are, and locks that are held for one statement at a time.
//!
//! A lock that a copy holds is one that partman's DETACH waits for while it holds the root's, and then every insert waits. So whatever
//! reads a table stands in a part of the transaction that is rolled back afterwards, which gives its locks back.

use super::read::{execute, field, read, unhurried};
use super::{SourceError, quote_literal};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyOutStream, Row, SimpleQueryMessage};

/// How long a statement waits for whoever locks its table; whoever queues behind it waits as long.
const LOCK_TIMEOUT: &str = "2s";

/// What the texts of values depend on, as the stream pins it, and a policy that would hide rows is an error.
const PINS: &str = "SET search_path = ''; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
                    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET xmloption = 'content'; \
                    SET standard_conforming_strings = on; SET row_security = off; SET jit = off; \
                    SET max_parallel_workers_per_gather = 0";

/// Prepares a session for copying, before it begins a transaction.
///
/// # Errors
/// As any statement.
pub async fn prepare_copying(client: &Client) -> Result<(), SourceError> {
    let doing = "preparing a session that copies";
    execute(client, doing, &format!("{PINS}; SET lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    execute(client, doing, &unhurried(false)).await?;
    // As in the stream: bytes that nobody checked are refused here, with the row's key.
    let encoding = read(client, doing, "SHOW server_encoding", &[]).await?;
    if encoding.first().is_some_and(|row| field::<String>(row, "server_encoding").is_ok_and(|name| name == "SQL_ASCII"))
    {
        execute(client, doing, "SET client_encoding = 'SQL_ASCII'").await?;
    }
    Ok(())
}

/// Begins a transaction that sees what another session exported, and writes nothing.
///
/// # Errors
/// As any statement; SQLSTATE 22023 or 42704 where the exporting session has gone on.
pub async fn import_snapshot(client: &Client, snapshot: &str) -> Result<(), SourceError> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let sql = format!("{begin}; SET TRANSACTION SNAPSHOT {}", quote_literal(snapshot));
    execute(client, "importing a snapshot", &sql).await
}

/// A part of a transaction that leaves no lock behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brief {
    /// A savepoint of the transaction that the session is in.
    Savepoint,
    /// A transaction of its own.
    Transaction,
}

impl Brief {
    /// Begins it, within the transaction that the session is in, if it is in one; with the pins that the answers' forms depend on.
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin(client: &Client) -> Result<Self, SourceError> {
        const PINS: &str = "SET LOCAL search_path = ''; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; \
                            SET LOCAL row_security = off; SET LOCAL statement_timeout = 0";
        let doing = "beginning to look at a table";
        let begin = |first: &str| format!("{first}; {PINS}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
        match execute(client, doing, &begin("SAVEPOINT lakebed_brief")).await {
            Ok(()) => Ok(Self::Savepoint),
            Err(SourceError::Server { state, .. }) if state == SqlState::NO_ACTIVE_SQL_TRANSACTION => {
                execute(client, doing, &begin("BEGIN READ ONLY")).await?;
                Ok(Self::Transaction)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends it, also after a statement of it has failed.
    ///
    /// # Errors
    /// As any statement.
    pub async fn end(self, client: &Client) -> Result<(), SourceError> {
        let end = match self {
            Self::Savepoint => "ROLLBACK TO SAVEPOINT lakebed_brief; RELEASE SAVEPOINT lakebed_brief",
            Self::Transaction => "ROLLBACK",
        };
        execute(client, "ending a look at a table", end).await
    }
}

/// How large a table is, and what tells whether it was rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Blocks of rows now; TOAST is not counted.
    pub blocks: u32,
    /// With everything but indexes, now.
    pub bytes: u64,
    /// `pg_class.relfilenode` and the columns, as the session's snapshot sees them. Another one is a table that was rewritten, emptied, or
    /// given other columns.
    pub signature: String,
}

/// The extents of those relations that the session's snapshot knows, by oid. One that was dropped since has no blocks. If that is enough
/// (`rough`), the size of one that somebody has locked against everybody is that of its last VACUUM or ANALYZE, at least a block, and not
/// waited for.
///
/// # Errors
/// As any statement; SQLSTATE 55P03 where somebody locks one of them.
pub async fn extents(client: &Client, relations: &[u32], rough: bool) -> Result<Vec<Extent>, SourceError> {
    const SQL: &str = "
        WITH shut AS MATERIALIZED (
            SELECT relation FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted AND mode = 'AccessExclusiveLock'
               AND relation = ANY ($1::oid[]) AND pid IS DISTINCT FROM pg_backend_pid() AND $2::bool),
        block AS MATERIALIZED (SELECT current_setting('block_size')::int8 AS bytes)
        SELECT c.oid, CASE WHEN c.oid IN (SELECT relation FROM shut) THEN greatest(c.relpages, 1)::int8
                           ELSE coalesce(pg_relation_size(c.oid::regclass), 0) / block.bytes END AS blocks,
               CASE WHEN c.oid IN (SELECT relation FROM shut) THEN greatest(c.relpages, 1) * block.bytes
                    ELSE coalesce(pg_table_size(c.oid::regclass), 0) END AS bytes, format('%s: %s', c.relfilenode,
                   (SELECT string_agg(format('%s %s %s %s', attnum, attname, atttypid, atttypmod), ',' ORDER BY attnum)
                    FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)) AS signature
        FROM pg_catalog.pg_class c CROSS JOIN block WHERE c.oid = ANY ($1::oid[]) ORDER BY 1";
    let rows = read(client, "reading the sizes of tables", SQL, &[&relations, &rough]).await?;
    let extent = |row: &Row| {
        Ok(Extent {
            oid: field(row, "oid")?,
            blocks: u32::try_from(field::<i64>(row, "blocks")?).unwrap_or(u32::MAX),
            bytes: u64::try_from(field::<i64>(row, "bytes")?).unwrap_or(0),
            signature: field(row, "signature")?,
        })
    };
    rows.iter().map(extent).collect()
}

/// What [`extents`] says of these relations in [`Extent::signature`] alone; none for one that is gone.
///
/// # Errors
/// As any statement.
pub async fn signatures(client: &Client, relations: &[u32]) -> Result<Vec<(u32, String)>, SourceError> {
    const SQL: &str = "
        SELECT c.oid, format('%s: %s', c.relfilenode,
                   (SELECT string_agg(format('%s %s %s %s', attnum, attname, atttypid, atttypmod), ',' ORDER BY attnum)
                    FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)) AS signature
        FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1::oid[]) ORDER BY 1";
    let rows = read(client, "looking whether tables were rewritten", SQL, &[&relations]).await?;
    rows.iter().map(|row| Ok((field(row, "oid")?, field(row, "signature")?))).collect()
}

/// Begins to read a relation in a part of the transaction, and returns its name as it is now, quoted and qualified; None where it is gone.
/// [`still_named`] says afterwards whether what was read under the name was this relation, and ends the part.
///
/// # Errors
/// As any statement.
pub async fn begin_range(client: &Client, relation: u32) -> Result<Option<String>, SourceError> {
    let doing = "looking for a table that is copied";
    // The row is the snapshot's, the name is today's: the name's cache is refreshed by the lock on the catalog, which this part takes anew.
    let name = format!("SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.oid = {relation}");
    let found = first_value(client, doing, &format!("SAVEPOINT lakebed_range; {name}")).await?;
    Ok(found.filter(|name| *name != relation.to_string()))
}

/// Whether a relation still has this name, under the lock that reading it took: then it is the relation that was read. Ends the part of
/// the transaction, and with it the lock.
///
/// # Errors
/// As any statement; the part is not ended then.
pub async fn still_named(client: &Client, relation: u32, name: &str) -> Result<bool, SourceError> {
    let asked = format!("SELECT {relation}::oid::regclass::text");
    let found = first_value(client, "looking at a table that was copied", &asked).await?;
    leave_range(client).await?;
    Ok(found.as_deref() == Some(name))
}

/// Ends what [`begin_range`] began, also after a statement of it has failed.
///
/// # Errors
/// As any statement.
pub async fn leave_range(client: &Client) -> Result<(), SourceError> {
    let end = "ROLLBACK TO SAVEPOINT lakebed_range; RELEASE SAVEPOINT lakebed_range";
    execute(client, "giving back a table that was copied", end).await
}

/// The texts of an expression's values over some rows of a relation, each once. `name` is quoted.
///
/// # Errors
/// As any statement.
pub async fn days_in(
    client: &Client,
    expression: &str,
    name: &str,
    condition: &str,
) -> Result<Vec<String>, SourceError> {
    let sql = format!("SELECT DISTINCT ({expression})::text AS day FROM ONLY {name} WHERE {condition}");
    let rows = read(client, "looking which days a table has rows of", &sql, &[]).await?;
    rows.iter().map(|row| Ok(field::<Option<String>>(row, "day")?.unwrap_or_default())).collect()
}

/// Begins a COPY … TO STDOUT; waits for the table's lock, and no longer than the session's lock_timeout.
///
/// # Errors
/// As any statement; SQLSTATE 42P01 where the name is no table's any more, 42703 where a column is gone.
pub async fn copy_out(client: &Client, sql: &str) -> Result<CopyOutStream, SourceError> {
    client.copy_out(sql).await.map_err(copy_failed)
}

/// What ended a COPY between its rows.
pub fn copy_failed(error: tokio_postgres::Error) -> SourceError {
    SourceError::from_driver("copying a table", error)
}

/// Which of some processes hold a lock on a table that somebody else waits for.
///
/// # Errors
/// As any statement.
pub async fn waited_for(client: &Client, processes: &[i32]) -> Result<Vec<i32>, SourceError> {
    const SQL: &str = "
        SELECT DISTINCT holder FROM pg_catalog.pg_locks l CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS holder
        WHERE NOT l.granted AND l.locktype = 'relation' AND holder = ANY ($1::int4[]) AND l.pid <> ALL ($1::int4[])";
    let rows = read(client, "looking for those who wait", SQL, &[&processes]).await?;
    rows.iter().map(|row| field(row, "holder")).collect()
}

/// The processes whose transactions a slot that is being created waits for.
///
/// # Errors
/// As any statement.
pub async fn slot_waits_for(client: &Client, slot: &str) -> Result<Vec<i32>, SourceError> {
    const SQL: &str = "
        SELECT DISTINCT holder FROM pg_catalog.pg_replication_slots s
        CROSS JOIN LATERAL unnest(pg_blocking_pids(s.active_pid)) AS holder
        WHERE s.slot_name = $1::text AND s.active_pid IS NOT NULL ORDER BY 1";
    let rows = read(client, "looking for what a new slot waits for", SQL, &[&slot]).await?;
    rows.iter().map(|row| field(row, "holder")).collect()
}

/// Whether a copy is on its way: a temporary slot whose name begins so is there or being made, or a session of this login copies a table out.
///
/// # Errors
/// As any statement.
pub async fn is_copying(client: &Client, prefix: &str) -> Result<bool, SourceError> {
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE temporary AND starts_with(slot_name::text, $1::text))
            OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity
                       WHERE usename = current_user AND datname = current_database() AND state = 'active'
                         AND starts_with(query, 'COPY ')) AS copies";
    let rows = read(client, "looking whether somebody copies", SQL, &[&prefix]).await?;
    rows.first().map_or(Ok(false), |row| field(row, "copies"))
}

/// Ends the sessions that hold temporary slots whose names begin so, also those that still wait to be created; returns how many.
///
/// # Errors
/// As any statement; SQLSTATE 42501 where one is another login's.
pub async fn end_temporary_slots(client: &Client, prefix: &str) -> Result<usize, SourceError> {
    const SQL: &str = "
        SELECT pg_catalog.pg_terminate_backend(s.active_pid) FROM pg_catalog.pg_replication_slots s
        WHERE s.temporary AND s.active_pid IS NOT NULL AND starts_with(s.slot_name::text, $1::text)";
    Ok(read(client, "ending temporary slots that were left behind", SQL, &[&prefix]).await?.len())
}

async fn first_value(client: &Client, doing: &str, sql: &str) -> Result<Option<String>, SourceError> {
    let messages = client.simple_query(sql).await.map_err(|error| SourceError::from_driver(doing, error))?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.and_then(|row| row.get(0).map(str::to_owned)))
}
