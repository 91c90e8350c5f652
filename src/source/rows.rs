//! Whether a table holds rows already.

use super::read::{execute, field, read_one};
use super::{Leaf, SourceError, qualified};
use crate::base::TableName;
use tokio_postgres::Client;

/// Leaves asked in one statement.
const LEAVES_AT_ONCE: usize = 64;

/// Whether any of the leaves (or the plain table, where there are none) holds a row.
///
/// Row-level security stands on the root only, so the leaves are read directly, and with `row_security = off`: a policy that
/// would hide rows is then an error instead of a silent "empty".
///
/// # Errors
/// SQLSTATE 42501 where a policy would filter or SELECT is missing.
pub async fn holds_rows(client: &Client, table: &TableName, leaves: &[Leaf]) -> Result<bool, SourceError> {
    let names: Vec<String> = match leaves {
        [] => vec![qualified(table)],
        leaves => leaves.iter().filter(|leaf| !leaf.foreign).map(|leaf| qualified(&leaf.table)).collect(),
    };
    let doing = format!("looking whether {table} holds rows");
    execute(client, &doing, "SET row_security = off").await?;
    let result = any_holds(client, &doing, &names).await;
    execute(client, &doing, "RESET row_security").await?;
    result
}

/// The leaves that hold no row; foreign ones are not asked.
///
/// # Errors
/// As [`holds_rows`].
pub async fn empty_leaves<'a>(client: &Client, leaves: &'a [Leaf]) -> Result<Vec<&'a Leaf>, SourceError> {
    let doing = "looking which partitions hold no row";
    execute(client, doing, "SET row_security = off").await?;
    let result = which_are_empty(client, doing, leaves).await;
    execute(client, doing, "RESET row_security").await?;
    result
}

async fn which_are_empty<'a>(client: &Client, doing: &str, leaves: &'a [Leaf]) -> Result<Vec<&'a Leaf>, SourceError> {
    let mut empty = Vec::new();
    let leaves: Vec<&Leaf> = leaves.iter().filter(|leaf| !leaf.foreign).collect();
    for leaves in leaves.chunks(LEAVES_AT_ONCE) {
        let held = |leaf: &&Leaf| format!("EXISTS (SELECT FROM ONLY {})", qualified(&leaf.table));
        let sql = format!("SELECT ARRAY[{}] AS held", leaves.iter().map(held).collect::<Vec<_>>().join(", "));
        let held: Vec<bool> = field(&read_one(client, doing, &sql, &[]).await?, "held")?;
        empty.extend(leaves.iter().zip(held).filter(|(_, held)| !held).map(|(leaf, _)| *leaf));
    }
    Ok(empty)
}

async fn any_holds(client: &Client, doing: &str, names: &[String]) -> Result<bool, SourceError> {
    for names in names.chunks(LEAVES_AT_ONCE) {
        let parts: Vec<String> = names.iter().map(|name| format!("EXISTS (SELECT FROM ONLY {name})")).collect();
        let sql = format!("SELECT {} AS held", parts.join(" OR "));
        if field::<bool>(&read_one(client, doing, &sql, &[]).await?, "held")? {
            return Ok(true);
        }
    }
    Ok(false)
}
