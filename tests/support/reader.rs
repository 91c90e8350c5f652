//! What the lake holds, as a reader that is not ours sees it.

use super::{DATABASE, Site};
use lakebed::demo::Cluster;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// The Python with DuckDB; `scripts/test` names it.
fn python() -> String {
    std::env::var("LAKEBED_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Panics unless table and lake are equal row by row and column by column; the number of rows otherwise.
pub async fn assert_lake_equals_source(site: &Site, table: &str, partition_column: &str, partition_by: &str) -> u64 {
    assert_text_columns_equal_source(site, table, partition_column, partition_by, &[]).await
}

/// The same for a table of which the lake keeps some columns as text.
pub async fn assert_text_columns_equal_source(
    site: &Site,
    table: &str,
    partition_column: &str,
    partition_by: &str,
    text_columns: &[&str],
) -> u64 {
    assert_equal(site, table, (partition_column, partition_by), text_columns, &[]).await
}

/// The same for a table whose columns changed: `besides` are those that only the lake has, or whose values are not compared.
pub async fn assert_changed_lake_equals_source(
    site: &Site,
    table: &str,
    partition_column: &str,
    partition_by: &str,
    besides: &[&str],
) -> u64 {
    assert_equal(site, table, (partition_column, partition_by), &[], besides).await
}

async fn assert_equal(
    site: &Site,
    table: &str,
    partition: (&str, &str),
    text_columns: &[&str],
    besides: &[&str],
) -> u64 {
    let folder = site.lake().join(table.rsplit('.').next().unwrap());
    let rows = rows_of(table);
    compare_with(&site.cluster, site.folder(), &folder, (table, &rows), partition, (text_columns, besides))
        .await
        .unwrap_or_else(|difference| panic!("{table}: {difference}"))
}

/// Compares a table of [`DATABASE`] with the Delta table in a folder, row by row and column by column: the number of rows, or the
/// first difference. `scratch` holds the export meanwhile; `partition` is the column and its unit.
pub async fn compare(
    cluster: &Cluster,
    scratch: &Path,
    folder: &Path,
    table: &str,
    partition: (&str, &str),
) -> Result<u64, String> {
    compare_with(cluster, scratch, folder, (table, &rows_of(table)), partition, (&[], &[])).await
}

/// The same where partitions of the table wait in schema `archive`: their rows are the source's, too. Detached tables are known by
/// their names, as partman gives them.
pub async fn compare_with_archive(
    cluster: &Cluster,
    scratch: &Path,
    folder: &Path,
    table: &str,
    partition: (&str, &str),
) -> Result<u64, String> {
    let name = table.rsplit('.').next().unwrap();
    let columns = format!(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    );
    let columns = value(cluster, &columns).await;
    let detached = format!(
        "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
         WHERE nspname = 'archive' AND relkind = 'r' AND relname ~ '^{name}_p[0-9]'"
    );
    let detached = cluster.query(DATABASE, &detached).await.unwrap().into_iter().flatten().flatten();
    let all = std::iter::once(table.to_owned()).chain(detached);
    let rows = all.map(|table| format!("SELECT {columns} FROM {table}")).collect::<Vec<_>>().join(" UNION ALL ");
    compare_with(cluster, scratch, folder, (table, &rows), partition, (&[], &[])).await
}

fn rows_of(table: &str) -> String {
    format!("SELECT * FROM {table}")
}

/// The same where the lake keeps columns that the source has dropped.
pub async fn compare_without(
    retired: &[String],
    cluster: &Cluster,
    scratch: &Path,
    folder: &Path,
    table: &str,
    partition: (&str, &str),
) -> Result<u64, String> {
    let retired: Vec<&str> = retired.iter().map(String::as_str).collect();
    compare_with(cluster, scratch, folder, (table, &rows_of(table)), partition, (&[], &retired)).await
}

/// `rows` is the query of the source's side.
async fn compare_with(
    cluster: &Cluster,
    scratch: &Path,
    folder: &Path,
    (table, rows): (&str, &str),
    partition: (&str, &str),
    (text_columns, besides): (&[&str], &[&str]),
) -> Result<u64, String> {
    let text_columns = text_columns.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let columns = value(
        cluster,
        &format!(
            "WITH RECURSIVE base (attnum, attname, type, modifier) AS (
                 SELECT attnum, attname, atttypid, atttypmod FROM pg_attribute
                 WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
                 UNION ALL
                 SELECT attnum, attname, t.typbasetype, t.typtypmod FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype = 'd')
             SELECT json_agg(json_build_array(attname, CASE WHEN attname = ANY (ARRAY[{text_columns}]::name[])
                        THEN 'text' ELSE format_type(type, modifier) END) ORDER BY attnum)::text
             FROM base JOIN pg_type t ON t.oid = base.type WHERE t.typtype <> 'd'"
        ),
    )
    .await;
    let key = value(
        cluster,
        &format!(
            "SELECT string_agg(a.attname, ',' ORDER BY k.place) FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
             JOIN pg_attribute a ON a.attnum = k.number WHERE i.indrelid = '{table}'::regclass AND i.indisprimary AND a.attrelid = i.indrelid"
        ),
    )
    .await;
    let export = scratch.join(format!("{table}-{}.csv", rand::random::<u32>()));
    export_rows(cluster, rows, &export).await;
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/compare.py"))
        .arg(folder)
        .arg(&export)
        .args(["--columns", &columns, "--key", &key])
        .args(["--partition-column", partition.0, "--partition-by", partition.1])
        .args(["--besides", &besides.join(",")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{printed}{}", String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::remove_file(export).unwrap();
    let rows = printed.trim().strip_prefix("equal rows=").and_then(|rest| rest.split(' ').next());
    Ok(rows.unwrap().parse().unwrap())
}

/// The one value of a query.
async fn value(cluster: &Cluster, sql: &str) -> String {
    cluster.query(DATABASE, sql).await.unwrap().remove(0).remove(0).unwrap_or_default()
}

/// PostgreSQL's own export, in its own output text.
async fn export_rows(cluster: &Cluster, rows: &str, to: &Path) {
    let psql = cluster.bin_dir().join("psql");
    let psql = if psql.exists() { psql } else { "/usr/bin/psql".into() };
    let sql = format!("COPY ({rows}) TO STDOUT (FORMAT csv)");
    let output = Command::new(psql)
        .args(["--no-psqlrc", "--quiet", "--output"])
        .arg(to)
        .args(["-c", &sql])
        .arg(cluster.admin_url(DATABASE))
        .env("PGOPTIONS", "-c timezone=UTC -c datestyle=ISO -c bytea_output=hex -c extra_float_digits=3")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Rows of a table in the lake, through our own query verb.
pub async fn lake_rows(site: &Site, table: &str) -> u64 {
    let sql = format!("SELECT count(*) AS n FROM {table}");
    let printed = site.lakebed(&["query", "--format", "csv", "-c", &sql]).await.succeeded().stdout;
    printed.lines().nth(1).unwrap().parse().unwrap()
}

/// How a column is read by [`delta_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Text,
    /// Microseconds since 1970 of a timestamp.
    Micros,
    /// SHA-256 of a text, in hexadecimal digits.
    Digest,
}

/// Some columns of every row of the Delta table in a folder, as text; NULL for a column that it does not have, no row where there is no
/// table.
pub async fn delta_rows(folder: &Path, columns: &[(&str, Value)]) -> Vec<Vec<Option<String>>> {
    let pairs: Vec<(&str, &str)> = columns
        .iter()
        .map(|(name, value)| match value {
            Value::Text => (*name, "text"),
            Value::Micros => (*name, "micros"),
            Value::Digest => (*name, "digest"),
        })
        .collect();
    let output = Command::new(python())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/rows.py"))
        .arg(folder)
        .arg(serde_json::to_string(&pairs).unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
