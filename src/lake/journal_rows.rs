//! What the journal says of a row: its columns, and rows of the table in them.
//!
//! `lakebed_operation` (`update`, `delete`, `truncate` or `gap`), `lakebed_commit_lsn` and `lakebed_commit_time` of the
//! transaction, `lakebed_xid`, then the table's own columns as the row was before, all of them nullable: a gap has none.

use super::error::LakeError;
use super::schema::{DeltaField, LakeSchema, delta_type};
use super::table::LakeTable;
use crate::base::{ColumnType, Lsn};
use crate::buffer::Operation;
use crate::buffer::change_batch::{COMMIT_LSN, COMMIT_TIME, OPERATION, XID};
use deltalake::arrow::array::{Array, ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};
use deltalake::arrow::compute::cast;
use deltalake::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::arrow::record_batch::RecordBatch;
use serde_json::{Map, Value};
use std::sync::Arc;

/// What happened to a row, and in which transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// A patch is an update to everybody else.
    pub operation: Operation,
    /// LSN of the commit record.
    pub commit_lsn: Lsn,
    /// Microseconds since 1970.
    pub commit_time_micros: i64,
    /// The top-level transaction's id.
    pub xid: u32,
}

/// The journal's columns: its own, then the table's. [`LakeSchema::table`] stays the source table, for messages.
pub(super) fn columns_beside(table: &LakeSchema) -> LakeSchema {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let own = [
        (OPERATION, ColumnType::Text, DataType::Utf8, false),
        (COMMIT_LSN, ColumnType::Text, DataType::Utf8, false),
        (COMMIT_TIME, ColumnType::TimestampTz, timestamp, false),
        (XID, ColumnType::Int8, DataType::Int64, true),
    ];
    let own_fields = own.iter().map(|(name, column_type, _, nullable)| DeltaField {
        name: (*name).to_owned(),
        data_type: Value::String(delta_type(*column_type)),
        nullable: *nullable,
        metadata: Map::new(),
    });
    let fields = table.fields.iter().map(|field| DeltaField { nullable: true, ..field.clone() });
    let own_columns = own.iter().map(|(name, _, data_type, nullable)| Field::new(*name, data_type.clone(), *nullable));
    let columns = table.arrow.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let moved = |indexes: &[usize]| indexes.iter().map(|index| index + own.len()).collect::<Vec<_>>();
    LakeSchema {
        table: table.table.clone(),
        arrow: Arc::new(Schema::new(own_columns.chain(columns).collect::<Vec<_>>())),
        fields: own_fields.chain(fields).collect(),
        partition_columns: table.partition_columns,
        partition_by: table.partition_by,
        statistics: (0..own.len()).chain(moved(&table.statistics)).collect(),
        distinct: moved(&table.distinct),
    }
}

/// Old rows as the journal has them: `old` holds any of the table's columns, by name, and what else it holds is left out. One entry
/// a row.
pub(super) fn rows_of(
    table: &LakeTable,
    old: &RecordBatch,
    entries: &[JournalEntry],
) -> Result<RecordBatch, LakeError> {
    let refuse = |reason: String| LakeError::Batch { location: table.location().to_owned(), reason };
    if entries.len() != old.num_rows() {
        return Err(refuse(format!("{} entries for {} rows", entries.len(), old.num_rows())));
    }
    let operation = entries.iter().map(|entry| Some(name_of(entry.operation))).collect::<StringArray>();
    let lsn = entries.iter().map(|entry| Some(entry.commit_lsn.to_string())).collect::<StringArray>();
    let time = entries.iter().map(|entry| entry.commit_time_micros);
    let xid = Int64Array::from_iter_values(entries.iter().map(|entry| i64::from(entry.xid)));
    let own = own_columns(operation, lsn, TimestampMicrosecondArray::from_iter_values(time), xid);
    let schema = &table.schema.arrow;
    let mut columns = Vec::from(own);
    for field in schema.fields().iter().skip(columns.len()) {
        let column = match old.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), entries.len()),
            Some(found) => fitted(found, field.data_type())
                .ok_or_else(|| refuse(format!("column {} is {}", field.name(), found.data_type())))?,
        };
        columns.push(column);
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| refuse(error.to_string()))
}

/// The one row of a stretch that was not followed.
pub(super) fn gap_row(schema: &SchemaRef, until: Lsn, recorded_micros: i64) -> Result<RecordBatch, String> {
    let text = |text: String| StringArray::from(vec![text]);
    let time = TimestampMicrosecondArray::from_iter_values([recorded_micros]);
    let own = own_columns(text("gap".to_owned()), text(until.to_string()), time, Int64Array::from(vec![None]));
    let table = schema.fields().iter().skip(own.len()).map(|field| new_null_array(field.data_type(), 1));
    let columns = own.iter().cloned().chain(table).collect();
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| error.to_string())
}

fn own_columns(
    operation: StringArray,
    commit_lsn: StringArray,
    commit_time: TimestampMicrosecondArray,
    xid: Int64Array,
) -> [ArrayRef; 4] {
    [Arc::new(operation), Arc::new(commit_lsn), Arc::new(commit_time.with_timezone("UTC")), Arc::new(xid)]
}

fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Delete => "delete",
        Operation::Update | Operation::Patch => "update",
        Operation::Truncate => "truncate",
    }
}

/// A column read from a file may be laid out in another way; its values stay what they are.
fn fitted(column: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Timestamp, Utf8, Utf8View};
    let found = column.data_type();
    if found == wanted {
        return Some(Arc::clone(column));
    }
    let same_values = match (found, wanted) {
        (Utf8View | LargeUtf8, Utf8) | (BinaryView | LargeBinary, Binary) => true,
        (Timestamp(TimeUnit::Microsecond, Some(_)), Timestamp(TimeUnit::Microsecond, Some(_))) => true,
        (DataType::Dictionary(_, values), wanted) => **values == *wanted,
        _ => false,
    };
    if same_values { cast(column, wanted).ok() } else { None }
}
