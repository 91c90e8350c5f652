//! A table's columns in the lake: names, types, and which of them get statistics.
//!
//! The mapping is the type table of the reader profile (L4): what Athena, Spark, Trino, DuckDB and ClickHouse all read.

use super::error::LakeError;
use crate::base::{ColumnType, PartitionBy, TableName, TableShape};
use crate::buffer::arrow_schema;
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Every name that a partition column can have, whatever the partitioning: a table may go from months to days.
const PARTITION_COLUMNS: [&str; 3] = ["year", "month", "day"];

/// What every column begins with that says something about a row, and not of it.
const OWN_COLUMNS: &str = "lakebed_";

/// What a table of the lake looks like: derived from its source, or the lake's own columns, which are those and whatever the source
/// had earlier ([`super::evolution`]).
#[derive(Debug)]
pub(super) struct LakeSchema {
    /// The source table.
    pub(super) table: TableName,
    /// The columns stored in files: without the partition columns.
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
            let (table, column) = (shape.table.clone(), column.lake_name.clone());
            if !is_plain_name(&column) {
                return Err(LakeError::ColumnName { table, column });
            }
            if PARTITION_COLUMNS.contains(&column.as_str()) || column.starts_with(OWN_COLUMNS) {
                return Err(LakeError::ReservedColumn { table, column });
            }
        }
        let data = shape.columns.iter().map(|column| DeltaField {
            name: column.lake_name.clone(),
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

    /// The columns of a table as its log alone has them, for who knows no source: `fields`, partition columns among them. Those named in
    /// `listed` get statistics, as far as their values have an order that every reader shares. Which columns hardly repeat is not
    /// in the log; it decides about the size of files alone, and is guessed: the column that `dates` the rows, and what has no
    /// statistics because nobody compares it. An error names what is not written here.
    pub(super) fn of_log(
        table: TableName,
        (fields, partitions): (&[DeltaField], &[String]),
        listed: &BTreeSet<&str>,
        dates: Option<&str>,
    ) -> Result<Self, String> {
        let mut kinds = [PartitionBy::Day, PartitionBy::Month].into_iter();
        let Some(partition_by) = kinds.find(|by| partitions.iter().eq(by.columns().iter())) else {
            return Err(format!("the partition columns {}", partitions.join(", ")));
        };
        let rule_of = |field: &DeltaField| field.metadata.keys().find(|key| key.starts_with("delta.")).cloned();
        if let Some((field, rule)) = fields.iter().find_map(|field| Some((field, rule_of(field)?))) {
            return Err(format!("{} ({rule})", field.name));
        }
        let unknown = Self { partition_columns: partition_by.columns(), partition_by, ..Self::unknown(table) };
        let mut schema = unknown.with_fields(fields, listed)?;
        let arrow = Arc::clone(&schema.arrow);
        schema.statistics.retain(|index| arrow.fields().get(*index).is_some_and(|field| is_ordered(field.data_type())));
        let hardly_repeats = |index: &usize| {
            let Some(field) = arrow.fields().get(*index) else { return false };
            let is_document = matches!(field.data_type(), DataType::Utf8 | DataType::Binary);
            dates == Some(field.name().as_str()) || is_document && !schema.statistics.contains(index)
        };
        schema.distinct = (0..arrow.fields().len()).filter(hardly_repeats).collect();
        Ok(schema)
    }

    /// The columns of a table that keeps more of them than its source has: `fields` of the Delta log, partition columns among them. Of
    /// columns that the source does not have, those named in `statistics` get some.
    pub(super) fn with_fields(&self, fields: &[DeltaField], statistics: &BTreeSet<&str>) -> Result<Self, String> {
        let is_partition = |field: &&DeltaField| self.partition_columns.contains(&field.name.as_str());
        let (partitions, data): (Vec<&DeltaField>, Vec<&DeltaField>) = fields.iter().partition(is_partition);
        let mut arrow = Vec::with_capacity(data.len());
        for field in &data {
            let kind = arrow_type(&field.data_type).ok_or_else(|| format!("{} ({})", field.name, field.data_type))?;
            arrow.push(Field::new(&field.name, kind, field.nullable));
        }
        let own = |index: usize| data.get(index).and_then(|field| self.arrow.index_of(&field.name).ok());
        let has_statistics = |index: &usize| match own(*index) {
            Some(own) => self.statistics.contains(&own),
            None => data.get(*index).is_some_and(|field| statistics.contains(field.name.as_str())),
        };
        Ok(Self {
            table: self.table.clone(),
            arrow: Arc::new(Schema::new(arrow)),
            statistics: (0..data.len()).filter(has_statistics).collect(),
            distinct: (0..data.len())
                .filter(|index| own(*index).is_some_and(|own| self.distinct.contains(&own)))
                .collect(),
            fields: data.into_iter().chain(partitions).cloned().collect(),
            partition_columns: self.partition_columns,
            partition_by: self.partition_by,
        })
    }

    /// The part of it that has these names, in its own order; None when that is all of it.
    pub(super) fn only(&self, names: &Schema) -> Option<Self> {
        let kept: Vec<usize> = (0..self.arrow.fields().len())
            .filter(|index| names.index_of(self.arrow.field(*index).name()).is_ok())
            .collect();
        if kept.len() == self.arrow.fields().len() {
            return None;
        }
        let place = |indexes: &[usize]| (0..kept.len()).filter(|new| indexes.contains(&kept[*new])).collect();
        let arrow = kept.iter().map(|index| Arc::clone(&self.arrow.fields()[*index])).collect::<Vec<_>>();
        let is_kept = |field: &&DeltaField| {
            names.index_of(&field.name).is_ok() || self.partition_columns.contains(&field.name.as_str())
        };
        Some(Self {
            table: self.table.clone(),
            statistics: place(&self.statistics),
            distinct: place(&self.distinct),
            arrow: Arc::new(Schema::new(arrow)),
            fields: self.fields.iter().filter(is_kept).cloned().collect(),
            partition_columns: self.partition_columns,
            partition_by: self.partition_by,
        })
    }

    /// `metaData.schemaString`.
    pub(super) fn schema_string(&self) -> String {
        schema_string(&self.fields)
    }

    /// `delta.dataSkippingStatsColumns`.
    pub(super) fn statistics_columns(&self) -> String {
        let names: Vec<&str> = self.statistics.iter().filter_map(|index| self.column_name(*index)).collect();
        names.join(",")
    }

    pub(super) fn column_name(&self, index: usize) -> Option<&str> {
        self.arrow.fields().get(index).map(|field| field.name().as_str())
    }
}

/// `metaData.schemaString` of these fields.
pub(super) fn schema_string(fields: &[DeltaField]) -> String {
    let fields = fields.iter().map(|field| {
        let DeltaField { name, data_type, nullable, metadata } = field;
        json!({ "name": name, "type": data_type, "nullable": nullable, "metadata": metadata })
    });
    json!({ "type": "struct", "fields": fields.collect::<Vec<_>>() }).to_string()
}

/// The Arrow type of a field of the reader profile; None for any other.
pub(super) fn arrow_type(data_type: &Value) -> Option<DataType> {
    let name = data_type.as_str()?;
    Some(match name {
        "boolean" => DataType::Boolean,
        "byte" => DataType::Int8,
        "short" => DataType::Int16,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "binary" => DataType::Binary,
        "string" => DataType::Utf8,
        _ => {
            let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
            DataType::Decimal128(precision.trim().parse().ok()?, scale.trim().parse().ok()?)
        }
    })
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

/// Whether a listed column's bounds mean the same to every reader; see [`has_statistics`].
fn is_ordered(data_type: &DataType) -> bool {
    use DataType::{Date32, Int8, Int16, Int32, Int64, Timestamp, Utf8};
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | Date32 | Timestamp(_, _) | Utf8)
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
    fn the_log_alone_tells_columns_and_statistics() {
        let own = LakeSchema::of(&security_event()).unwrap();
        let partitions = ["year", "month", "day"].map(str::to_owned);
        let listed = own.statistics_columns();
        let listed: BTreeSet<&str> = listed.split(',').chain(["detail_of_nobody"]).collect();
        let of_log = |fields: &[DeltaField], partitions: &[String]| {
            LakeSchema::of_log(own.table.clone(), (fields, partitions), &listed, Some("created_at"))
        };
        let found = of_log(&own.fields, &partitions).unwrap();
        assert_eq!((&found.fields, &found.statistics), (&own.fields, &own.statistics));
        let types = |schema: &LakeSchema| {
            schema
                .arrow
                .fields()
                .iter()
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(types(&found), types(&own));
        assert_eq!(found.partition_by, PartitionBy::Day);
        let names =
            |indexes: &[usize]| indexes.iter().filter_map(|index| found.column_name(*index)).collect::<Vec<_>>();
        assert_eq!(names(&found.distinct), ["detail", "created_at"]);
        assert!(of_log(&own.fields, &partitions[1..]).unwrap_err().contains("the partition columns month, day"));
        let mut ruled = own.fields.clone();
        ruled[2].metadata.insert("delta.invariants".to_owned(), Value::Null);
        assert!(of_log(&ruled, &partitions).unwrap_err().contains("description (delta.invariants)"));
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
}
