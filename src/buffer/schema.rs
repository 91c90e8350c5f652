//! The Arrow schemas of a table's rows and of its changes.

use super::change_batch::{COMMIT_LSN, COMMIT_TIME, NEW_DAY, OLD_DAY, OPERATION, ORDINAL, UNCHANGED, XID};
use crate::base::{ColumnType, SourceColumn, TableShape};
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

/// The zone of every timestamp column in the lake.
pub(super) const UTC: &str = "UTC";

/// The columns of `shape` in its order and with the lake's names, without the partition columns: those are folders, not data. Types
/// follow the reader profile, so that Delta's schema and the files agree.
pub fn arrow_schema(shape: &TableShape) -> SchemaRef {
    let field = |column: &SourceColumn| Field::new(&column.lake_name, data_type(column.column_type), column.nullable);
    Arc::new(Schema::new(shape.columns.iter().map(field).collect::<Vec<_>>()))
}

/// [`arrow_schema`] for rows as they arrive: DROP NOT NULL is not told in the stream, so NULL may stand everywhere but in the
/// columns that name or date the row.
pub(super) fn row_schema(shape: &TableShape) -> SchemaRef {
    let field = |(index, column): (usize, &SourceColumn)| {
        Field::new(&column.lake_name, data_type(column.column_type), takes_null(shape, index))
    };
    Arc::new(Schema::new(shape.columns.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// Whether a row may have NULL there: only the columns that name or date the row cannot lose their NOT NULL.
pub(super) fn takes_null(shape: &TableShape, index: usize) -> bool {
    let required = index == shape.partition_column || shape.key.contains(&index) || shape.identity.contains(&index);
    !required || shape.columns.get(index).is_some_and(|column| column.nullable)
}

/// The columns of [`super::ChangeBatch::keys`] for this table.
pub fn key_schema(shape: &TableShape) -> SchemaRef {
    let identity = shape.identity.iter().filter_map(|index| shape.columns.get(*index));
    let mut fields = vec![
        Field::new(ORDINAL, DataType::UInt32, false),
        Field::new(OPERATION, DataType::UInt8, false),
        Field::new(COMMIT_LSN, DataType::UInt64, false),
        Field::new(COMMIT_TIME, DataType::Int64, false),
        Field::new(XID, DataType::UInt32, false),
        Field::new(OLD_DAY, DataType::Date32, true),
    ];
    fields.extend(identity.map(|column| Field::new(&column.lake_name, data_type(column.column_type), true)));
    Arc::new(Schema::new(fields))
}

/// The columns of [`super::ChangeBatch::patches`] for this table.
pub fn patch_schema(shape: &TableShape) -> SchemaRef {
    let mut fields = vec![
        Field::new(ORDINAL, DataType::UInt32, false),
        Field::new(NEW_DAY, DataType::Date32, false),
        Field::new(UNCHANGED, DataType::Binary, false),
    ];
    let columns = shape.columns.iter();
    fields.extend(columns.map(|column| Field::new(&column.lake_name, data_type(column.column_type), true)));
    Arc::new(Schema::new(fields))
}

fn data_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Int2 => DataType::Int16,
        ColumnType::Int4 => DataType::Int32,
        ColumnType::Int8 => DataType::Int64,
        ColumnType::Float4 => DataType::Float32,
        ColumnType::Float8 => DataType::Float64,
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp | ColumnType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        ColumnType::Bytea => DataType::Binary,
        ColumnType::Numeric
        | ColumnType::Time
        | ColumnType::Uuid
        | ColumnType::Inet
        | ColumnType::Cidr
        | ColumnType::MacAddr
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Text
        | ColumnType::ServerText => DataType::Utf8,
    }
}
