//! A table's columns in the lake: names, types, and which of them get statistics.
//!
//! The mapping is the type table of the reader profile (L4): what Athena, Spark, Trino, DuckDB and ClickHouse all read.

use super::error::LakeError;
use crate::base::{ColumnType, PartitionBy, TableName, TableShape};
use crate::buffer::arrow_schema;
use deltalake::arrow::datatypes::{Schema, SchemaRef};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Every name that a partition column can have, whatever the partitioning: a table may go from months to days.
const PARTITION_COLUMNS: [&str; 3] = ["year", "month", "day"];

/// What every column begins with that says something about a row, and not of it.
const OWN_COLUMNS: &str = "lakebed_";

/// What a table of the lake looks like, derived from its source.
#[derive(Debug)]
pub(super) struct LakeSchema {
    /// The source table.
    pub(super) table: TableName,
    /// The columns stored in files: the source's, without the partition columns.
    pub(super) arrow: SchemaRef,
    /// All columns as the Delta log has them, partition columns last.
    pub(super) fields: Vec<DeltaField>,
    /// Partition columns, outermost first.
    pub(super) partition_columns: &'static [&'static str],
    /// Day or month.
    pub(super) partition_by: PartitionBy,
    /// Indexes into `arrow` of the columns with statistics.
    pub(super) statistics: Vec<usize>,
    /// Indexes into `arrow` of columns whose values hardly repeat, so that a dictionary is wasted on them.
    pub(super) distinct: Vec<usize>,
}

/// A field of a struct type as `metaData.schemaString` has it (Delta protocol, "Schema Serialization Format").
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct DeltaField {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) data_type: Value,
    pub(super) nullable: bool,
    #[serde(default)]
    pub(super) metadata: Map<String, Value>,
}

/// The whole `schemaString`.
#[derive(Debug, Deserialize)]
pub(super) struct DeltaStruct {
    pub(super) fields: Vec<DeltaField>,
}

impl LakeSchema {
    /// The lake's columns for a source table, or the column that cannot be one.
    pub(super) fn of(shape: &TableShape) -> Result<Self, LakeError> {
        for column in &shape.columns {
            let (table, column) = (shape.table.clone(), column.name.clone());
            if !is_plain_name(&column) {
                return Err(LakeError::ColumnName { table, column });
            }
            if PARTITION_COLUMNS.contains(&column.as_str()) || column.starts_with(OWN_COLUMNS) {
                return Err(LakeError::ReservedColumn { table, column });
            }
        }
        let data = shape.columns.iter().map(|column| DeltaField {
            name: column.name.clone(),
            data_type: Value::String(delta_type(column.column_type)),
            nullable: column.nullable,
            metadata: Map::new(),
        });
        let partition_columns = shape.partition_by.columns();
        let partitions = partition_columns.iter().map(|name| DeltaField {
            name: (*name).to_owned(),
            data_type: Value::String("string".to_owned()),
            nullable: true,
            metadata: Map::new(),
        });
        let fields = data.chain(partitions).collect();
        let statistics = (0..shape.columns.len()).filter(|index| has_statistics(shape, *index)).collect();
        let distinct = (0..shape.columns.len()).filter(|index| is_distinct(shape, *index)).collect();
        let table = shape.table.clone();
        let partition_by = shape.partition_by;
        Ok(Self { table, arrow: arrow_schema(shape), fields, partition_columns, partition_by, statistics, distinct })
    }

    /// No columns at all: of a table that is only to be parked.
    pub(super) fn unknown(table: TableName) -> Self {
        let arrow = Arc::new(Schema::empty());
        let partition_by = PartitionBy::default();
        Self {
            table,
            arrow,
            fields: Vec::new(),
            partition_columns: &[],
            partition_by,
            statistics: Vec::new(),
            distinct: Vec::new(),
        }
    }

    /// `metaData.schemaString`.
    pub(super) fn schema_string(&self) -> String {
        let fields = self.fields.iter().map(|field| {
            let DeltaField { name, data_type, nullable, metadata } = field;
            json!({ "name": name, "type": data_type, "nullable": nullable, "metadata": metadata })
        });
        json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() }).to_string()
    }

    /// `delta.dataSkippingStatsColumns`.
    pub(super) fn statistics_columns(&self) -> String {
        let names: Vec<&str> = self.statistics.iter().filter_map(|index| self.column_name(*index)).collect();
        names.join(",")
    }

    pub(super) fn column_name(&self, index: usize) -> Option<&str> {
        self.arrow.fields().get(index).map(|field| field.name().as_str())
    }

    /// Compares with a table's own schema: None when rows of the source fit it, else the columns that differ and how.
    pub(super) fn difference(&self, found: &[DeltaField], found_partitions: &[String]) -> Option<String> {
        let mut differences = Vec::new();
        for expected in &self.fields {
            match found.iter().find(|field| field.name == expected.name) {
                None => differences.push(format!("{} (missing in the lake)", expected.name)),
                Some(field) => differences.extend(difference_of(expected, field)),
            }
        }
        let extra = found.iter().filter(|field| !self.fields.iter().any(|expected| expected.name == field.name));
        differences.extend(extra.map(|field| format!("{} (missing in the source)", field.name)));
        if differences.is_empty()
            && !self.fields.iter().map(|field| &field.name).eq(found.iter().map(|field| &field.name))
        {
            differences.push("the order of its columns".to_owned());
        }
        if !found_partitions.iter().eq(self.partition_columns.iter()) {
            let expected = self.partition_columns.join(", ");
            differences.push(format!("its partition columns ({} instead of {expected})", found_partitions.join(", ")));
        }
        if differences.is_empty() { None } else { Some(differences.join(", ")) }
    }
}

fn difference_of(expected: &DeltaField, found: &DeltaField) -> Option<String> {
    let name = &expected.name;
    if expected.data_type != found.data_type {
        let text = |kind: &Value| kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
        return Some(format!("{name} ({} instead of {})", text(&found.data_type), text(&expected.data_type)));
    }
    if expected.nullable && !found.nullable {
        return Some(format!("{name} (not null in the lake)"));
    }
    // Invariants, generated columns and column mapping are written as field metadata with this prefix.
    let rule = found.metadata.keys().find(|key| key.starts_with("delta."));
    rule.map(|rule| format!("{name} (carries {rule})"))
}

/// The Delta primitive type of a column (Delta protocol, "Primitive Types").
pub(super) fn delta_type(column_type: ColumnType) -> String {
    let name = match column_type {
        ColumnType::Bool => "boolean",
        ColumnType::Int2 => "short",
        ColumnType::Int4 => "integer",
        ColumnType::Int8 => "long",
        ColumnType::Float4 => "float",
        ColumnType::Float8 => "double",
        ColumnType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
        ColumnType::Date => "date",
        ColumnType::Timestamp | ColumnType::TimestampTz => "timestamp",
        ColumnType::Bytea => "binary",
        ColumnType::Numeric
        | ColumnType::Time
        | ColumnType::Uuid
        | ColumnType::Inet
        | ColumnType::Cidr
        | ColumnType::MacAddr
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Text
        | ColumnType::ServerText => "string",
    };
    name.to_owned()
}

/// Decimal statistics pass through a double in readers and lose digits, binary and boolean columns may not be listed, NaN
/// has no place in an order, and nobody compares documents. Everything else pays for its few bytes.
fn has_statistics(shape: &TableShape, index: usize) -> bool {
    let Some(column) = shape.columns.get(index) else { return false };
    match column.column_type {
        ColumnType::Int2
        | ColumnType::Int4
        | ColumnType::Int8
        | ColumnType::Date
        | ColumnType::Timestamp
        | ColumnType::TimestampTz
        | ColumnType::Uuid
        | ColumnType::Inet
        | ColumnType::Text => true,
        ColumnType::Time | ColumnType::Cidr | ColumnType::MacAddr | ColumnType::Numeric => shape.key.contains(&index),
        _ => false,
    }
}

fn is_distinct(shape: &TableShape, index: usize) -> bool {
    let Some(column) = shape.columns.get(index) else { return false };
    match column.column_type {
        ColumnType::Json | ColumnType::Jsonb | ColumnType::Bytea | ColumnType::ServerText => true,
        ColumnType::Uuid => shape.key.first() == Some(&index),
        ColumnType::Timestamp | ColumnType::TimestampTz => index == shape.partition_column,
        _ => false,
    }
}

/// Hive-style engines fold case and choke on the rest.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{column, every_type, security_event};
    use super::*;

    #[test]
    fn names_that_some_reader_refuses_are_refused_here() {
        for name in ["Id", "naïve", "a b", "", "a-b"] {
            let mut shape = security_event();
            shape.columns.push(column(name, ColumnType::Text, true));
            assert!(matches!(LakeSchema::of(&shape), Err(LakeError::ColumnName { .. })), "{name:?}");
        }
        for name in PARTITION_COLUMNS.into_iter().chain(["lakebed_operation", "lakebed_"]) {
            let mut shape = security_event();
            shape.columns.push(column(name, ColumnType::Text, true));
            assert!(matches!(LakeSchema::of(&shape), Err(LakeError::ReservedColumn { .. })), "{name:?}");
        }
    }

    #[test]
    fn statistics_leave_out_what_readers_get_wrong() {
        let schema = LakeSchema::of(&every_type()).unwrap();
        assert_eq!(
            schema.statistics_columns(),
            "id,small_number,number,big_number,on_date,at_time,at_time_zone,address,label"
        );
        let schema = LakeSchema::of(&security_event()).unwrap();
        assert!(!schema.statistics_columns().contains("detail"));
    }

    #[test]
    fn a_difference_names_the_column() {
        let schema = LakeSchema::of(&security_event()).unwrap();
        let partitions: Vec<String> = schema.partition_columns.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(schema.difference(&schema.fields, &partitions), None);
        let mut found = schema.fields.clone();
        found[0].data_type = Value::String("long".to_owned());
        found[1].nullable = true;
        found[8].nullable = false;
        found.remove(2);
        let text = schema.difference(&found, &partitions[..2]).unwrap();
        assert!(text.contains("id (long instead of string)"), "{text}");
        assert!(text.contains("description (missing in the lake)"), "{text}");
        assert!(text.contains("user_name (not null in the lake)"), "{text}");
        assert!(text.contains("partition columns (year, month instead of year, month, day)"), "{text}");
        assert!(!text.contains("type ("), "{text}");
    }
}
