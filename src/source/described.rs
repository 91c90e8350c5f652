//! A table as the stream describes it, and what becomes of a [`TableShape`] when that is no longer what it was.
//!
//! The stream has names, type oids and modifiers, as they were when the rows were written; the catalog has them as they are now. So types
//! that are fixed for ever are known without asking, and of all others the server is asked what they are.

use super::error::ColumnRole;
use super::read::{field, letter, read};
use super::table::refuse_two_of_a_name;
use super::{ReplicaIdentity, SourceError, TableRules};
use crate::base::{ColumnType, SourceColumn, TableShape};
use tokio_postgres::Client;

/// Oids below are built in and mean the same on every server (`FirstGenbkiObjectId` in PostgreSQL's transam.h).
const BUILT_IN_BELOW: u32 = 10_000;

/// A column of a RELATION message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedColumn {
    /// `pg_attribute.attname`.
    pub name: String,
    /// `pg_attribute.atttypid`.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
    /// Part of the replica identity.
    pub is_key: bool,
}

/// A RELATION message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTable {
    /// In the order of a row's values.
    pub columns: Vec<DescribedColumn>,
    /// As declared.
    pub identity: ReplicaIdentity,
}

impl DescribedTable {
    /// Whether rows are read and named just as `shape` says. What the root of a partitioned table declares is not what its leaves send, so
    /// there only the columns count.
    pub fn is(&self, shape: &TableShape, is_partitioned: bool) -> bool {
        let known = |column: &DescribedColumn| shape.columns.iter().any(|known| is_same(known, column));
        let same_columns = self.columns.len() == shape.columns.len() && self.columns.iter().all(known);
        same_columns
            && (is_partitioned || self.identity(&shape.columns).is_none_or(|named| same(&named, &shape.identity)))
    }

    /// Indexes into `columns` of what the message says names a row; None where it names none, or the whole row.
    fn identity(&self, columns: &[SourceColumn]) -> Option<Vec<usize>> {
        match self.identity {
            ReplicaIdentity::Default | ReplicaIdentity::Index => {}
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => return None,
        }
        let place = |name: &String| columns.iter().position(|column| column.name == *name);
        let named: Vec<usize> =
            self.columns.iter().filter(|column| column.is_key).filter_map(|column| place(&column.name)).collect();
        Some(named).filter(|named| !named.is_empty())
    }

    /// The shape that this describes, from the one that was known. `client` is asked for types that only this server has; without it,
    /// they are whatever text the server sends. `found` are the columns that the catalog had at the start, which the pipeline file was
    /// written for.
    ///
    /// # Errors
    /// Definite ones for a column that names or dates the rows and is gone, or that dates them and has no day any more; as any
    /// statement.
    pub async fn shape(
        &self,
        (known, found): (&TableShape, &TableShape),
        rules: &TableRules,
        is_partitioned: bool,
        client: Option<&Client>,
    ) -> Result<TableShape, SourceError> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let mut candidates = known.columns.iter().chain(&found.columns);
            columns.push(match candidates.find(|known| is_same(known, column)) {
                Some(known) => known.clone(),
                None => named_by(rules, found, of_the_server(client, column, rules).await?),
            });
        }
        self.put_together(columns, known, is_partitioned)
    }

    fn put_together(
        &self,
        columns: Vec<SourceColumn>,
        known: &TableShape,
        is_partitioned: bool,
    ) -> Result<TableShape, SourceError> {
        let table = &known.table;
        refuse_two_of_a_name(table, &columns)?;
        let place = |index: &usize, role: ColumnRole| {
            let column = known.columns.get(*index).map(|column| column.lake_name.clone()).unwrap_or_default();
            let found = columns.iter().position(|new| new.lake_name == column);
            found.ok_or_else(|| SourceError::KeyColumnGone { table: table.clone(), column, role })
        };
        let places = |indexes: &[usize]| {
            indexes.iter().map(|index| place(index, ColumnRole::NamesRows)).collect::<Result<Vec<_>, SourceError>>()
        };
        let partition_column = place(&known.partition_column, ColumnRole::DatesRows)?;
        let key = places(&known.key)?;
        if let Some(column) = columns.get(partition_column)
            && !column.column_type.can_date_a_row()
        {
            return Err(SourceError::DatingColumnRetyped { table: table.clone(), column: column.name.clone() });
        }
        let own = if is_partitioned { None } else { self.identity(&columns) };
        let identity = match own {
            // In the key's own order where it is the key.
            Some(named) if same(&named, &key) => key.clone(),
            Some(named) => named,
            None => places(&known.identity)?,
        };
        Ok(TableShape { columns, partition_column, key, identity, ..known.clone() })
    }
}

/// A column of which the stream says nothing else than what is known.
fn is_same(known: &SourceColumn, column: &DescribedColumn) -> bool {
    known.name == column.name && known.type_oid == column.type_oid && known.type_modifier == column.type_modifier
}

/// A column under its name in the lake. One of a name that has another there got it for the type that it has now: values from before the
/// change of type go on where they are.
fn named_by(rules: &TableRules, found: &TableShape, column: SourceColumn) -> SourceColumn {
    let today = found.columns.iter().find(|today| today.name == column.name);
    match today {
        Some(today) if !is_alike(today.column_type, column.column_type) => column,
        _ => SourceColumn { lake_name: rules.lake_name(&column.name), ..column },
    }
}

/// Whether values of both can be of one column of the lake, if not in this order of types.
fn is_alike(one: ColumnType, other: ColumnType) -> bool {
    use ColumnType::{Decimal, Float4, Float8, Int2, Int4, Int8, Timestamp, TimestampTz};
    let is_number = |kind| matches!(kind, Int2 | Int4 | Int8 | Decimal { .. });
    let is_text = |kind: ColumnType| kind.as_text() == kind;
    one == other
        || is_number(one) && is_number(other)
        || is_text(one) && is_text(other)
        || matches!(
            (one, other),
            (Float4 | Float8, Float4 | Float8) | (Timestamp | TimestampTz, Timestamp | TimestampTz)
        )
}

/// Whether both hold the same columns, in whatever order.
fn same(one: &[usize], other: &[usize]) -> bool {
    one.len() == other.len() && one.iter().all(|column| other.contains(column))
}

/// A new column is nullable, whatever the source says: the rows before it have no value.
async fn of_the_server(
    client: Option<&Client>,
    column: &DescribedColumn,
    rules: &TableRules,
) -> Result<SourceColumn, SourceError> {
    let DescribedColumn { name, type_oid, type_modifier, .. } = column.clone();
    let mut column_type = match client.filter(|_| type_oid >= BUILT_IN_BELOW) {
        Some(client) => own_type(client, type_oid, type_modifier).await?,
        None => ColumnType::from_catalog(type_oid, 'b', type_modifier),
    };
    if rules.text_columns.contains(&name) {
        column_type = column_type.as_text();
    }
    Ok(SourceColumn { lake_name: name.clone(), name, type_oid, type_modifier, column_type, nullable: true })
}

/// An enum, a domain, or what an extension brought. One that was dropped since is whatever text the server sends for it.
async fn own_type(client: &Client, type_oid: u32, type_modifier: i32) -> Result<ColumnType, SourceError> {
    const SQL: &str = "
        WITH RECURSIVE resolved AS (
            SELECT $1::oid AS base, $2::int4 AS modifier
            UNION ALL
            SELECT t.typbasetype, t.typtypmod
            FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.base AND t.typtype = 'd')
        SELECT r.base, r.modifier, t.typtype::text AS kind
        FROM resolved r JOIN pg_catalog.pg_type t ON t.oid = r.base AND t.typtype <> 'd'";
    let rows = read(client, "reading the type of a new column", SQL, &[&type_oid, &type_modifier]).await?;
    let Some(row) = rows.first() else { return Ok(ColumnType::ServerText) };
    Ok(ColumnType::from_catalog(field(row, "base")?, letter(row, "kind")?, field(row, "modifier")?))
}

/// Those of some new columns that rows had which were there before: a default that the server fills in without telling the stream.
///
/// # Errors
/// As any statement.
pub async fn columns_with_default(
    client: &Client,
    table_oid: u32,
    columns: &[String],
) -> Result<Vec<String>, SourceError> {
    // A default that was computed for each row has rewritten the table, so no missing value is noted.
    const SQL: &str = "
        WITH RECURSIVE tree (oid) AS (
            SELECT $1::oid UNION ALL SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
        SELECT DISTINCT a.attname::text AS name
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid IN (SELECT oid FROM tree)
          AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text = ANY ($2::text[])
          AND (a.atthasmissing OR a.attidentity <> '' OR a.attgenerated <> ''
               OR pg_get_expr(d.adbin, d.adrelid) NOT LIKE 'NULL%')
        ORDER BY 1";
    let rows = read(client, "looking for defaults of new columns", SQL, &[&table_oid, &columns]).await?;
    rows.iter().map(|row| field(row, "name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PartitionBy, TableName};

    fn column(name: &str, type_oid: u32, column_type: ColumnType) -> SourceColumn {
        let (name, lake_name) = (name.to_owned(), name.to_owned());
        SourceColumn { name, lake_name, type_oid, type_modifier: -1, column_type, nullable: false }
    }

    fn known() -> TableShape {
        TableShape {
            table: TableName::new("public", "event"),
            columns: vec![
                column("id", 20, ColumnType::Int8),
                column("at", 1114, ColumnType::Timestamp),
                column("note", 25, ColumnType::Text),
            ],
            partition_column: 1,
            partition_by: PartitionBy::Day,
            time_zone: chrono_tz::UTC,
            key: vec![0, 1],
            identity: vec![0, 1],
            identity_is_ambiguous: false,
        }
    }

    fn described(columns: &[(&str, u32, bool)]) -> DescribedTable {
        let column = |(name, type_oid, is_key): &(&str, u32, bool)| DescribedColumn {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            type_modifier: -1,
            is_key: *is_key,
        };
        DescribedTable { columns: columns.iter().map(column).collect(), identity: ReplicaIdentity::Default }
    }

    fn put_together(described: &DescribedTable, columns: Vec<SourceColumn>) -> Result<TableShape, String> {
        described.put_together(columns, &known(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_columns_in_any_order_are_the_same_shape() {
        let turned = described(&[("note", 25, false), ("at", 1114, true), ("id", 20, true)]);
        assert!(turned.is(&known(), false));
        assert!(!described(&[("id", 20, true), ("at", 1114, true)]).is(&known(), false), "one is gone");
        assert!(
            !described(&[("id", 23, true), ("at", 1114, true), ("note", 25, false)]).is(&known(), false),
            "retyped"
        );
        let other_key = described(&[("id", 20, true), ("at", 1114, false), ("note", 25, false)]);
        assert!(!other_key.is(&known(), false));
        assert!(other_key.is(&known(), true), "leaves have an identity of their own");
        let whole = DescribedTable { identity: ReplicaIdentity::Full, ..other_key };
        assert!(whole.is(&known(), false), "the whole row names itself");
    }

    #[test]
    fn indexes_follow_their_columns_by_the_lakes_name() {
        let mut columns = vec![column("note", 25, ColumnType::Text), column("created", 1114, ColumnType::Timestamp)];
        columns.push(column("id", 20, ColumnType::Int8));
        columns[1].lake_name = "at".to_owned();
        let relation = described(&[("note", 25, false), ("created", 1114, true), ("id", 20, true)]);
        let shape = put_together(&relation, columns).unwrap();
        assert_eq!((shape.partition_column, shape.key, shape.identity), (1, vec![2, 1], vec![2, 1]));
        let by_id = described(&[("id", 20, true), ("at", 1114, false), ("note", 25, false)]);
        assert_eq!(put_together(&by_id, known().columns).unwrap().identity, [0]);
    }

    #[test]
    fn another_name_in_the_lake_is_for_the_type_of_today() {
        let rules = TableRules {
            table: known().table,
            partition_column: "at".to_owned(),
            partition_by: PartitionBy::Day,
            time_zone: chrono_tz::UTC,
            text_columns: Vec::new(),
            lake_columns: [("note".to_owned(), "note__v2".to_owned())].into(),
        };
        let named = |kind| named_by(&rules, &known(), column("note", 0, kind)).lake_name;
        assert_eq!(named(ColumnType::Text), "note__v2");
        assert_eq!(named(ColumnType::Uuid), "note__v2", "a string, too");
        assert_eq!(named(ColumnType::Int4), "note", "from before");
        assert_eq!(named_by(&rules, &known(), column("id", 0, ColumnType::Int4)).lake_name, "id");
    }

    #[test]
    fn a_column_that_names_or_dates_the_rows_cannot_go_without_a_word() {
        let relation = described(&[("id", 20, true), ("note", 25, false)]);
        let text = put_together(&relation, vec![known().columns[0].clone(), known().columns[2].clone()]).unwrap_err();
        assert!(text.contains("column at of public.event was dropped or renamed, and it dates the rows"), "{text}");
        assert!(text.contains("lake_columns = { … = \"at\" }") && text.contains("as partition_column"), "{text}");
        let text = put_together(&relation, known().columns[1..].to_vec()).unwrap_err();
        assert!(text.contains("column id of public.event was dropped or renamed, and it names the rows"), "{text}");
        let mut columns = known().columns;
        columns[1].column_type = ColumnType::Text;
        let text = put_together(&relation, columns).unwrap_err();
        assert!(text.contains("its new type has no day"), "{text}");
        let mut columns = known().columns;
        columns[2].lake_name = "id".to_owned();
        let text = put_together(&relation, columns).unwrap_err();
        assert!(text.contains("columns id and note of public.event would both be id in the lake"), "{text}");
    }
}
