//! A configured table: from the catalog to a [`TableShape`], or to the definite error that says what to mend.

use super::identity::{Identity, identity};
use super::read::{field, letter, read};
use super::{SourceError, qualified, suggest};
use crate::base::{ColumnType, PartitionBy, SourceColumn, TableName, TableShape};
use std::collections::BTreeMap;
use tokio_postgres::{Client, Row};

/// What the pipeline file says about a table.
#[derive(Clone, Debug)]
pub struct TableRules {
    /// The root's name.
    pub table: TableName,
    /// The column that dates a row.
    pub partition_column: String,
    /// Day or month.
    pub partition_by: PartitionBy,
    /// The zone of a `timestamptz` partition column.
    pub time_zone: chrono_tz::Tz,
    /// Columns that become lake strings of the server's text, whatever their type.
    pub text_columns: Vec<String>,
    /// Columns that have another name in the lake.
    pub lake_columns: BTreeMap<String, String>,
}

impl TableRules {
    /// What the lake calls a column.
    pub(super) fn lake_name(&self, column: &str) -> String {
        self.lake_columns.get(column).cloned().unwrap_or_else(|| column.to_owned())
    }
}

/// What UPDATE and DELETE carry of the old row (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// The whole row.
    Full,
    /// A named unique index.
    Index,
    /// Nothing: the server refuses UPDATE and DELETE of a published table.
    Nothing,
}

impl ReplicaIdentity {
    pub(super) fn from_letter(letter: char) -> Self {
        match letter {
            'f' => Self::Full,
            'i' => Self::Index,
            'n' => Self::Nothing,
            _ => Self::Default,
        }
    }
}

/// How PostgreSQL itself partitions a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    /// `pg_partitioned_table.partstrat`: r(ange), l(ist), h(ash).
    pub strategy: char,
    /// The key's columns in order; `None` is an expression.
    pub key: Vec<Option<String>>,
}

/// A table as the catalog describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableFacts {
    /// `pg_class.oid` of the root.
    pub oid: u32,
    /// The owner.
    pub owner: String,
    /// What decides how rows are stored.
    pub shape: TableShape,
    /// Of the root; leaves have their own.
    pub replica_identity: ReplicaIdentity,
    /// `None` for a plain table.
    pub partitioning: Option<Partitioning>,
    /// ENABLE ROW LEVEL SECURITY.
    pub row_security_enabled: bool,
    /// FORCE ROW LEVEL SECURITY: the owner is filtered too.
    pub row_security_forced: bool,
}

/// Reads a table's facts. `generated_published` says whether the publication sends stored generated columns (server 18's
/// `publish_generated_columns`); without that, pgoutput leaves them out and so does the shape.
///
/// # Errors
/// Definite ones for a missing table, a table that cannot be followed, no primary key, a partition column that is missing, no
/// date, nullable, or to be kept as text, and a text column that is missing.
pub async fn table(client: &Client, rules: &TableRules, generated_published: bool) -> Result<TableFacts, SourceError> {
    let relation = find(client, &rules.table).await?;
    let oid: u32 = field(&relation, "oid")?;
    refuse_what_is_not_followed(client, &rules.table, &relation, oid).await?;
    let columns = columns(client, oid, generated_published).await?;
    let key = primary_key(client, oid).await?;
    let strategy: Option<String> = field(&relation, "strategy")?;
    let partitioning = match strategy.and_then(|text| text.chars().next()) {
        Some(strategy) => Some(Partitioning { strategy, key: field(&relation, "partition_key")? }),
        None => None,
    };
    let mut shape = shape(rules, columns, &key)?;
    let Identity { columns, is_ambiguous } = identity(client, oid, &shape.columns, &shape.key).await?;
    (shape.identity, shape.identity_is_ambiguous) = (columns, is_ambiguous);
    Ok(TableFacts {
        oid,
        owner: field(&relation, "owner")?,
        shape,
        replica_identity: ReplicaIdentity::from_letter(letter(&relation, "identity")?),
        partitioning,
        row_security_enabled: field(&relation, "row_security")?,
        row_security_forced: field(&relation, "row_security_forced")?,
    })
}

async fn find(client: &Client, table: &TableName) -> Result<Row, SourceError> {
    const SQL: &str = "
        SELECT c.oid, c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relispartition AS is_partition,
               c.relreplident::text AS identity, c.relrowsecurity AS row_security,
               c.relforcerowsecurity AS row_security_forced, pg_get_userbyid(c.relowner)::text AS owner,
               p.partstrat::text AS strategy,
               ARRAY(SELECT a.attname::text FROM unnest(p.partattrs::int2[]) WITH ORDINALITY AS k(attnum, place)
                     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND k.attnum > 0
                     ORDER BY k.place) AS partition_key
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid
        WHERE n.nspname = $1::text AND c.relname = $2::text";
    let found = read(client, &format!("looking for table {table}"), SQL, &[&table.schema, &table.name]).await?;
    match found.into_iter().next() {
        Some(row) => Ok(row),
        None => Err(missing(client, table).await?),
    }
}

async fn missing(client: &Client, table: &TableName) -> Result<SourceError, SourceError> {
    const SQL: &str = "
        SELECT n.nspname::text AS schema_name, c.relname::text AS table_name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT LIKE 'pg\\_%'
          AND n.nspname <> 'information_schema' ORDER BY 1, 2 LIMIT 10000";
    let rows = read(client, "listing tables", SQL, &[]).await?;
    let name = |row: &Row| Ok(TableName { schema: field(row, "schema_name")?, name: field(row, "table_name")? });
    let existing = rows.iter().map(name).collect::<Result<Vec<_>, SourceError>>()?;
    Ok(SourceError::TableMissing { table: table.clone(), close: suggest::close_tables(table, existing) })
}

async fn refuse_what_is_not_followed(
    client: &Client,
    table: &TableName,
    relation: &Row,
    oid: u32,
) -> Result<(), SourceError> {
    let table = table.clone();
    let kind = match letter(relation, "kind")? {
        'r' | 'p' => None,
        'v' => Some("a view"),
        'm' => Some("a materialized view"),
        'f' => Some("a foreign table"),
        _ => Some("something else"),
    };
    if let Some(kind) = kind {
        return Err(SourceError::NotATable { table, kind });
    }
    if letter(relation, "persistence")? != 'p' {
        return Err(SourceError::NotLogged { table });
    }
    if !field::<bool>(relation, "is_partition")? {
        return Ok(());
    }
    const SQL: &str = "
        SELECT n.nspname::text AS schema_name, c.relname::text AS table_name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_partition_root($1::oid::regclass)";
    let root = super::read::read_one(client, "looking for the partition's root", SQL, &[&oid]).await?;
    let root = TableName { schema: field(&root, "schema_name")?, name: field(&root, "table_name")? };
    Err(SourceError::IsPartition { table, root })
}

/// A domain's chain ends at its base type; the modifier in force is the innermost domain's (`getBaseTypeAndTypmod` in
/// PostgreSQL's lsyscache.c). The column keeps its own oid and modifier, which are what a RELATION message carries.
async fn columns(client: &Client, oid: u32, generated_published: bool) -> Result<Vec<SourceColumn>, SourceError> {
    const SQL: &str = "
        WITH RECURSIVE resolved AS (
            SELECT attnum, attname, atttypid, atttypmod, attnotnull, atttypid AS base, atttypmod AS modifier
            FROM pg_catalog.pg_attribute
            WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped
              AND (attgenerated = '' OR (attgenerated = 's' AND $2::bool))
            UNION ALL
            SELECT r.attnum, r.attname, r.atttypid, r.atttypmod, r.attnotnull, t.typbasetype, t.typtypmod
            FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.base AND t.typtype = 'd')
        SELECT r.attname::text AS name, r.atttypid AS type_oid, r.atttypmod AS type_modifier, r.attnotnull AS required,
               r.base, r.modifier, t.typtype::text AS kind
        FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.base AND t.typtype <> 'd' ORDER BY r.attnum";
    let rows = read(client, "reading the table's columns", SQL, &[&oid, &generated_published]).await?;
    let column = |row: &Row| {
        Ok(SourceColumn {
            name: field(row, "name")?,
            lake_name: field(row, "name")?,
            type_oid: field(row, "type_oid")?,
            type_modifier: field(row, "type_modifier")?,
            column_type: ColumnType::from_catalog(field(row, "base")?, letter(row, "kind")?, field(row, "modifier")?),
            nullable: !field::<bool>(row, "required")?,
        })
    };
    rows.iter().map(column).collect()
}

async fn primary_key(client: &Client, oid: u32) -> Result<Vec<String>, SourceError> {
    const SQL: &str = "
        SELECT a.attname::text AS name
        FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = $1::oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place";
    let rows = read(client, "reading the table's primary key", SQL, &[&oid]).await?;
    rows.iter().map(|row| field(row, "name")).collect()
}

fn shape(rules: &TableRules, mut columns: Vec<SourceColumn>, key: &[String]) -> Result<TableShape, SourceError> {
    let TableRules { table, partition_column: wanted, .. } = rules;
    keep_as_text(rules, &mut columns)?;
    columns.iter_mut().for_each(|column| column.lake_name = rules.lake_name(&column.name));
    refuse_two_of_a_name(table, &columns)?;
    let partition_column = partition_column(table, wanted, &columns)?;
    let cut_in_a_zone =
        columns.get(partition_column).is_some_and(|column| column.column_type == ColumnType::TimestampTz);
    if !cut_in_a_zone && !is_utc(rules.time_zone) {
        let (column, zone) = (wanted.clone(), rules.time_zone.name());
        return Err(SourceError::ZoneWithoutMeaning { table: table.clone(), column, zone });
    }
    if key.is_empty() {
        let wanted = super::quote_identifier(wanted);
        let remedy = format!("ALTER TABLE {} ADD PRIMARY KEY (id, {wanted})", qualified(table));
        return Err(SourceError::NoPrimaryKey { table: table.clone(), remedy });
    }
    let place = |name: &String| {
        let unpublished = || SourceError::KeyNotPublished { table: table.clone(), column: name.clone() };
        columns.iter().position(|column| column.name == *name).ok_or_else(unpublished)
    };
    let key = key.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    Ok(TableShape {
        table: table.clone(),
        identity: key.clone(),
        identity_is_ambiguous: false,
        partition_column,
        partition_by: rules.partition_by,
        time_zone: rules.time_zone,
        key,
        columns,
    })
}

/// Turns the columns that the pipeline file names into lake strings. Types and modifiers stay: they are what a RELATION carries.
fn keep_as_text(rules: &TableRules, columns: &mut [SourceColumn]) -> Result<(), SourceError> {
    for name in &rules.text_columns {
        let (table, column) = (rules.table.clone(), name.clone());
        if *name == rules.partition_column {
            return Err(SourceError::TextPartitionColumn { table, column });
        }
        match columns.iter_mut().find(|column| column.name == *name) {
            Some(found) => found.column_type = found.column_type.as_text(),
            None => {
                let existing = columns.iter().map(|column| column.name.clone()).collect();
                return Err(SourceError::TextColumnMissing { table, column, existing });
            }
        }
    }
    Ok(())
}

/// Columns that would be one in the lake.
pub(super) fn refuse_two_of_a_name(table: &TableName, columns: &[SourceColumn]) -> Result<(), SourceError> {
    for (place, column) in columns.iter().enumerate() {
        if let Some(other) = columns.iter().take(place).find(|other| other.lake_name == column.lake_name) {
            let (table, columns) = (table.clone(), format!("{} and {}", other.name, column.name));
            return Err(SourceError::OneLakeColumn { table, columns, lake_name: column.lake_name.clone() });
        }
    }
    Ok(())
}

/// UTC under any of its names.
fn is_utc(zone: chrono_tz::Tz) -> bool {
    use chrono_tz::Tz;
    matches!(zone, Tz::UTC | Tz::UCT | Tz::Zulu | Tz::Etc__UTC | Tz::Etc__UCT | Tz::Etc__Zulu)
}

fn partition_column(table: &TableName, wanted: &str, columns: &[SourceColumn]) -> Result<usize, SourceError> {
    let (table, column) = (table.clone(), wanted.to_owned());
    let Some((place, found)) = columns.iter().enumerate().find(|(_, column)| column.name == wanted) else {
        let dated = columns.iter().filter(|column| column.column_type.can_date_a_row());
        let close = dated.map(|column| column.name.clone()).collect();
        return Err(SourceError::PartitionColumnMissing { table, column, close });
    };
    if !found.column_type.can_date_a_row() {
        return Err(SourceError::PartitionColumnType { table, column });
    }
    if found.nullable {
        let target = super::quote_identifier(wanted);
        let remedy = format!("ALTER TABLE {} ALTER COLUMN {target} SET NOT NULL", qualified(&table));
        return Err(SourceError::PartitionColumnNullable { table, column, remedy });
    }
    Ok(place)
}
