//! The leaves of a root, and the tables that partman detached from it.

use super::read::{field, letter, read};
use super::table::ReplicaIdentity;
use super::{LeafBound, SourceError};
use crate::base::{TableName, TableShape};
use tokio_postgres::{Client, Row};

/// One leaf partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// Its owner: whoever ran partman when it was made.
    pub owner: String,
    /// What bounds the days of its rows: its own bound, or that of the partition above it that is cut by the column which dates them.
    pub bound: LeafBound,
    /// Its own replica identity; the root's does not reach it.
    pub replica_identity: ReplicaIdentity,
    /// A foreign table cannot be published.
    pub foreign: bool,
}

/// The leaves of a table's root in name order; none for a plain table. A bound on anything but the column that dates the rows, be it of a
/// partition below or above, is [`LeafBound::Other`]; what is cut twice by that column has the inner bound where both sides of it are bounded.
/// Nothing is locked: pg_partition_tree() would lock the root and then every
/// leaf, and run into a deadlock with a DETACH, which goes the other way.
///
/// # Errors
/// As any statement.
pub async fn leaves(client: &Client, root_oid: u32, shape: &TableShape) -> Result<Vec<Leaf>, SourceError> {
    // pg_get_expr() would open, and lock, the relation whose oid it is given; a bound has no column to look up there.
    const SQL: &str = "
        WITH RECURSIVE tree (oid, bound) AS (
            SELECT $1::oid, ''::text COLLATE \"C\"
            UNION ALL
            SELECT child.oid, CASE WHEN dated.partrelid IS NULL OR (tree.bound <> '' AND own.bound ~ 'MINVALUE|MAXVALUE')
                                   THEN tree.bound ELSE own.bound END COLLATE \"C\"
            FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
            JOIN pg_catalog.pg_class child ON child.oid = i.inhrelid
            CROSS JOIN LATERAL (SELECT coalesce(pg_get_expr(child.relpartbound, 0::oid), '')) AS own (bound)
            LEFT JOIN (pg_catalog.pg_partitioned_table dated JOIN pg_catalog.pg_attribute key
                       ON key.attrelid = dated.partrelid AND key.attnum = dated.partattrs[0] AND key.attname = $2::text)
                ON dated.partrelid = tree.oid AND dated.partstrat = 'r' AND dated.partnatts = 1)
        SELECT c.oid, n.nspname::text AS schema_name, c.relname::text AS table_name, c.relkind::text AS kind,
               c.relreplident::text AS identity, pg_get_userbyid(c.relowner)::text AS owner,
               tree.bound
        FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind <> 'p' AND c.oid <> $1::oid ORDER BY 2, 3";
    let dated_by = shape.columns.get(shape.partition_column).map_or("", |column| column.name.as_str());
    let rows = read(client, "reading the table's leaves", SQL, &[&root_oid, &dated_by]).await?;
    let leaf = |row: &Row| {
        Ok(Leaf {
            oid: field(row, "oid")?,
            table: name(row)?,
            owner: field(row, "owner")?,
            bound: LeafBound::parse(&field::<String>(row, "bound")?),
            replica_identity: ReplicaIdentity::from_letter(letter(row, "identity")?),
            foreign: letter(row, "kind")? == 'f',
        })
    };
    rows.iter().map(leaf).collect()
}

/// A table in the archive schema with a name that partman gives to partitions of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachedTable {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// Whether it has the very same columns as the root, by name, type and modifier.
    pub same_columns: bool,
}

/// Tables in `archive` with a name that partman gives to partitions of the root. The name alone decides nothing (R5): those that were
/// leaves of it have its columns, unless these have changed since. `sql/04_table.sql` has the same rule.
///
/// # Errors
/// As any statement.
pub async fn detached_tables(client: &Client, root_oid: u32, archive: &str) -> Result<Vec<DetachedTable>, SourceError> {
    const SQL: &str = r"
        SELECT c.oid, n.nspname::text AS schema_name, c.relname::text AS table_name, coalesce(
              (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname)
               FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
            = (SELECT pg_catalog.array_agg((attname, atttypid, atttypmod)::text ORDER BY attname)
               FROM pg_catalog.pg_attribute WHERE attrelid = root.oid AND attnum > 0 AND NOT attisdropped), false) AS same_columns
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_class root ON root.oid = $1::oid
        CROSS JOIN LATERAL pg_catalog.regexp_replace(c.relname::text, '_p[0-9][0-9wq_]*$', '') AS stem
        WHERE n.nspname = $2::text AND c.relkind = 'r' AND NOT c.relispartition AND stem <> c.relname::text
          AND (stem = root.relname::text
               OR (pg_catalog.octet_length(c.relname::text) = 63 AND pg_catalog.starts_with(root.relname::text, stem)))
        ORDER BY 3";
    let rows = read(client, "looking for detached tables", SQL, &[&root_oid, &archive]).await?;
    let detached = |row: &Row| {
        Ok(DetachedTable { oid: field(row, "oid")?, table: name(row)?, same_columns: field(row, "same_columns")? })
    };
    rows.iter().map(detached).collect()
}

fn name(row: &Row) -> Result<TableName, SourceError> {
    Ok(TableName { schema: field(row, "schema_name")?, name: field(row, "table_name")? })
}
