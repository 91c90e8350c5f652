//! Rows by their keys, as hashes: what tells which rows of a table differ, without their values.

use super::SourceError;
use super::read::{field, read};
use futures::TryStreamExt;
use std::pin::pin;
use tokio_postgres::{Client, Row};

/// What is asked of one key's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDetail {
    /// The hash that the key was chosen by.
    pub key: Vec<u8>,
    /// Whatever the query makes of the key's columns.
    pub message: Vec<u8>,
    /// Whatever it makes of each column.
    pub columns: Vec<String>,
}

/// Runs a query of two columns of 16 bytes each, `key` and `hash`, row by row: only these bytes are held, and a LIMIT of the query bounds
/// them.
///
/// # Errors
/// As any statement; [`SourceError::UnexpectedAnswer`] for other lengths.
pub async fn keyed_hashes(client: &Client, doing: &str, sql: &str) -> Result<Vec<[[u8; 16]; 2]>, SourceError> {
    let failed = |error| SourceError::from_driver(doing, error);
    let no_parameters: [&str; 0] = [];
    let mut rows = pin!(client.query_raw(sql, no_parameters).await.map_err(failed)?);
    let mut hashes = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        hashes.push([bytes(&row, doing, "key")?, bytes(&row, doing, "hash")?]);
    }
    Ok(hashes)
}

/// Runs a query of `key`, `message` and `columns`, whose rows are few.
///
/// # Errors
/// As any statement.
pub async fn key_details(client: &Client, doing: &str, sql: &str) -> Result<Vec<KeyDetail>, SourceError> {
    let detail = |row: &Row| {
        Ok(KeyDetail { key: field(row, "key")?, message: field(row, "message")?, columns: field(row, "columns")? })
    };
    read(client, doing, sql, &[]).await?.iter().map(detail).collect()
}

fn bytes(row: &Row, doing: &str, name: &str) -> Result<[u8; 16], SourceError> {
    let unexpected = || SourceError::UnexpectedAnswer { doing: doing.to_owned(), source: None };
    field::<&[u8]>(row, name)?.try_into().map_err(|_| unexpected())
}
