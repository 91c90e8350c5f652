//! The two things that every catalog read does: ask with a name for errors, and take a typed field.

use super::SourceError;
use tokio_postgres::types::{FromSql, PgLsn, ToSql};
use tokio_postgres::{Client, Row};

use crate::base::Lsn;

/// Pins what the answers' forms depend on: an empty `search_path` (names come back qualified, and nothing in a writable schema can
/// stand in for a catalog function, CVE-2018-1058), UTC, ISO dates, and no endless wait for a lock.
///
/// # Errors
/// As any statement.
pub async fn prepare_session(client: &Client) -> Result<(), SourceError> {
    const PINS: &str = "SET search_path = ''; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET lock_timeout = '10s'; \
                        SET statement_timeout = '60s'; SET standard_conforming_strings = on";
    execute(client, "preparing the session", PINS).await
}

/// No timeout of the server's ends what follows in a session, or, where `local`, in its transaction; and where the server can tell, a
/// statement whose client has died ends at once instead of holding its locks to its end (14 and later, not on every platform).
pub(super) fn unhurried(local: bool) -> String {
    format!(
        "DO $lakebed$ BEGIN
            PERFORM pg_catalog.set_config(name, '0', {local}) FROM pg_catalog.pg_settings WHERE name IN
                ('statement_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout');
            BEGIN
                PERFORM pg_catalog.set_config('client_connection_check_interval', '2s', {local});
            EXCEPTION WHEN invalid_parameter_value THEN NULL;
            END;
        END $lakebed$"
    )
}

pub(super) async fn execute(client: &Client, doing: &str, sql: &str) -> Result<(), SourceError> {
    client.batch_execute(sql).await.map_err(|error| SourceError::from_driver(doing, error))
}

pub(super) async fn read(
    client: &Client,
    doing: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, SourceError> {
    client.query(sql, parameters).await.map_err(|error| SourceError::from_driver(doing, error))
}

/// Exactly one row.
pub(super) async fn read_one(
    client: &Client,
    doing: &str,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Row, SourceError> {
    let first = read(client, doing, sql, parameters).await?.into_iter().next();
    first.ok_or_else(|| SourceError::UnexpectedAnswer { doing: doing.to_owned(), source: None })
}

pub(super) fn field<'r, T: FromSql<'r>>(row: &'r Row, name: &str) -> Result<T, SourceError> {
    row.try_get(name).map_err(|error| SourceError::from_driver(&format!("reading {name}"), error))
}

/// A value of PostgreSQL's one-byte type "char", selected `::text`.
pub(super) fn letter(row: &Row, name: &str) -> Result<char, SourceError> {
    Ok(field::<String>(row, name)?.chars().next().unwrap_or(' '))
}

pub(super) fn position(row: &Row, name: &str) -> Result<Option<Lsn>, SourceError> {
    Ok(field::<Option<PgLsn>>(row, name)?.map(|value| Lsn(u64::from(value))))
}

/// A count or size, selected `::int8`; the catalogs' own -1 for "none" and negative differences become `None`.
pub(super) fn unsigned(row: &Row, name: &str) -> Result<Option<u64>, SourceError> {
    Ok(field::<Option<i64>>(row, name)?.and_then(|value| u64::try_from(value).ok()))
}
