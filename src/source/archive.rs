//! A detached table from the freeze to its end: the calls of `sql/11`, whose functions alone may lock, rename and drop (R2, R3).

use super::SourceError;
use super::quote_identifier;
use super::read::{execute, field, read, read_one, unhurried};
use serde_json::Value;
use tokio_postgres::{Client, Row};

/// How long the freeze waits for whoever uses the table: whoever queues behind us waits as long.
const LOCK_TIMEOUT: &str = "2s";

/// Begins the transaction in which a detached table is counted and dropped, READ COMMITTED, and locks the table against every writer.
/// No statement in it runs into a timeout of its own, and none before this one has taken a snapshot.
///
/// # Errors
/// SQLSTATE 55P03 where somebody holds the table, 55000 where it is no detached partition of the root, 42501 for whoever is not the
/// pipeline's login.
pub async fn freeze(client: &Client, archive: &str, relation: u32, root: u32) -> Result<(), SourceError> {
    let doing = "freezing a detached table";
    let begin =
        format!("BEGIN ISOLATION LEVEL READ COMMITTED; {}; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", unhurried(true));
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

/// Writes the receipt and drops the table, which [`freeze`] has locked in this very transaction; both are there once [`commit_drop`] was
/// heard. Returns the receipt's place in the chain.
///
/// # Errors
/// SQLSTATE 55000 where the function refuses.
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
    field(&row, "sequence")
}

/// Ends the transaction that dropped.
///
/// # Errors
/// As any statement; the receipt says then which way it went.
pub async fn commit_drop(client: &Client) -> Result<(), SourceError> {
    execute(client, "dropping a balanced table", "COMMIT").await
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

/// Whether a relation is still there.
///
/// # Errors
/// As any statement.
pub async fn relation_exists(client: &Client, relation: u32) -> Result<bool, SourceError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = $1::oid) AS present";
    field(&read_one(client, "looking for a table", SQL, &[&relation]).await?, "present")
}

/// Gives a waiting table another name, because a partition of its own name is attached again. Returns the new name.
///
/// # Errors
/// SQLSTATE 55000 where no such partition is attached, 55P03 where somebody uses the table.
pub async fn rename_waiting(client: &Client, archive: &str, relation: u32, root: u32) -> Result<String, SourceError> {
    let doing = "renaming a waiting table";
    let sql = format!("SELECT {}.lakebed_rename($1::oid, $2::oid) AS new_name", quote_identifier(archive));
    execute(client, doing, &format!("SET lock_timeout = '{LOCK_TIMEOUT}'")).await?;
    let renamed = read_one(client, doing, &sql, &[&relation, &root]).await;
    execute(client, doing, "SET lock_timeout = '10s'").await?;
    field(&renamed?, "new_name")
}

/// Which of these relations show the asking role only the rows that a policy lets through (row-level security): whoever counts there counts
/// too few.
///
/// # Errors
/// As any statement.
pub async fn hidden_by_policies(client: &Client, relations: &[u32]) -> Result<Vec<String>, SourceError> {
    const SQL: &str = "
        SELECT format('%s.%s', n.nspname, c.relname) AS name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY ($1::oid[]) AND row_security_active(c.oid) ORDER BY 1";
    let rows = read(client, "looking for row-level security", SQL, &[&relations]).await?;
    rows.iter().map(|row| field(row, "name")).collect()
}

/// Begins to count, in a transaction of its own or, where a table is frozen, in a part of the one that holds the lock: the locks of what is
/// counted beside it must not outlive the statement, for the parent's default partition is among them.
///
/// # Errors
/// As any statement.
pub async fn begin_counting(client: &Client, frozen: bool, pins: &str) -> Result<(), SourceError> {
    let begin = match frozen {
        true => "SAVEPOINT counting".to_owned(),
        false => format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}", unhurried(true)),
    };
    execute(client, "beginning to count", &format!("{begin}; {pins}")).await
}

/// Ends what [`begin_counting`] began; every lock but the frozen table's is given back.
///
/// # Errors
/// As any statement.
pub async fn end_counting(client: &Client, frozen: bool) -> Result<(), SourceError> {
    let end = if frozen { "ROLLBACK TO SAVEPOINT counting; RELEASE SAVEPOINT counting" } else { "ROLLBACK" };
    execute(client, "ending a count", end).await
}

/// Tells a table's columns, by name, type and modifier, from any others.
///
/// # Errors
/// As any statement.
pub async fn columns_signature(client: &Client, relation: u32) -> Result<String, SourceError> {
    const SQL: &str = "
        SELECT coalesce(string_agg(format('%s %s %s %s', attnum, attname, atttypid, atttypmod), ',' ORDER BY attnum), '') AS signature
        FROM pg_catalog.pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped";
    field(&read_one(client, "reading a table's columns", SQL, &[&relation]).await?, "signature")
}

/// The process that serves a session.
///
/// # Errors
/// As any statement.
pub async fn backend(client: &Client) -> Result<i32, SourceError> {
    field(&read_one(client, "asking for the session's process", "SELECT pg_backend_pid() AS pid", &[]).await?, "pid")
}

/// Whether somebody waits for a lock that this process holds, on any table but one.
///
/// # Errors
/// As any statement.
pub async fn is_waited_for(client: &Client, process: i32, except: u32) -> Result<bool, SourceError> {
    const SQL: &str = "
        SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE NOT granted AND locktype = 'relation' AND relation <> $2::oid
                       AND $1::int4 = ANY (pg_blocking_pids(pid))) AS waits";
    field(&read_one(client, "looking for those who wait", SQL, &[&process, &except]).await?, "waits")
}

/// Ends the statement that a process of the same role is at.
///
/// # Errors
/// As any statement.
pub async fn cancel(client: &Client, process: i32) -> Result<(), SourceError> {
    read(client, "ending a count", "SELECT pg_cancel_backend($1::int4)", &[&process]).await.map(|_| ())
}
