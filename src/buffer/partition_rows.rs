//! The rows of one partition while they arrive.

use super::PartitionBatch;
use super::column::{ColumnBuilder, Scratch};
use super::refusal::Refusal;
use super::schema::takes_null;
use super::values::Values;
use crate::base::{Partition, Runs, SourceColumn, TableShape};
use crate::decode::Datum;
use crate::decode::value::Encoded;
use deltalake::arrow::array::Array;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// One column's builder, and whether it takes NULL.
struct Column {
    values: ColumnBuilder,
    nullable: bool,
}

/// An open partition: a builder for each column of the shape.
pub(super) struct PartitionRows {
    partition: Partition,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
    bytes_per_row: usize,
    /// The last transaction that added a row, and the rows that were there before it.
    transaction: u64,
    rows_before: usize,
    /// Of rows that belong to a transaction in progress.
    xids: Option<Runs>,
    /// Once changes have come before a row.
    eras: Option<Runs>,
}

impl PartitionRows {
    pub(super) fn new(partition: Partition, shape: &TableShape) -> Self {
        let open = |(index, column): (usize, &SourceColumn)| Column {
            values: ColumnBuilder::new(column.column_type),
            nullable: takes_null(shape, index),
        };
        let columns: Vec<Column> = shape.columns.iter().enumerate().map(open).collect();
        // A bit of validity for each value, rounded up.
        let validity = columns.len().div_ceil(8);
        let bytes_per_row = validity + columns.iter().map(|column| column.values.bytes_per_row()).sum::<usize>();
        let bytes = size_of::<Self>() + columns.len() * size_of::<Column>();
        Self {
            partition,
            columns,
            rows: 0,
            bytes,
            bytes_per_row,
            transaction: 0,
            rows_before: 0,
            xids: None,
            eras: None,
        }
    }

    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    #[inline]
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Content, offsets and the builders themselves; while they grow, Arrow's buffers may hold up to twice their content.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notes which (sub)transaction the row belongs to that was just appended.
    #[inline]
    pub(super) fn belongs_to(&mut self, xid: u32) {
        self.xids.get_or_insert_default().push(xid, 1);
    }

    /// Notes how many changes came before the row that was just appended; not called while there are none.
    pub(super) fn came_in(&mut self, era: u32) {
        let before = self.rows.saturating_sub(1) as u64;
        self.eras.get_or_insert_with(|| Runs::of(0, before)).push(era, 1);
    }

    /// Notes that the next row belongs to this transaction.
    #[inline]
    pub(super) fn enter(&mut self, transaction: u64) {
        if self.transaction != transaction {
            self.transaction = transaction;
            self.rows_before = self.rows;
        }
    }

    /// Rows of transactions before this one.
    pub(super) fn rows_before(&self, transaction: u64) -> usize {
        if self.transaction == transaction { self.rows_before } else { self.rows }
    }

    /// Decodes a row into the builders; `order` gives each value's column. Returns the bytes that it added.
    ///
    /// After a refusal some columns are one value longer; [`Self::finish`] cuts them, and nothing may be appended before that.
    #[inline]
    pub(super) fn append<'a>(
        &mut self,
        values: &impl Values<'a>,
        order: &[usize],
        scratch: &mut Scratch,
    ) -> Result<usize, Refusal> {
        let mut added = self.bytes_per_row;
        for (datum, &index) in values.columns().zip(order) {
            let column = self.columns.get_mut(index).ok_or(Refusal::ColumnCount)?;
            let encoded = match datum.map_err(Refusal::Decode)? {
                Datum::Text(bytes) => Encoded::Text(bytes),
                Datum::Binary(bytes) => Encoded::Binary(bytes),
                Datum::Null if column.nullable => {
                    column.values.append_null();
                    continue;
                }
                Datum::Null => return Err(Refusal::Null { column: index }),
                Datum::Unchanged => return Err(Refusal::Unchanged { column: index }),
            };
            added +=
                column.values.append(encoded, scratch).map_err(|source| Refusal::Value { column: index, source })?;
        }
        self.rows += 1;
        self.bytes += added;
        Ok(added)
    }

    /// The complete rows as Arrow.
    pub(super) fn finish(mut self, schema: &SchemaRef) -> Result<PartitionBatch, ArrowError> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let array = column.values.finish();
            arrays.push(if array.len() > self.rows { array.slice(0, self.rows) } else { array });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let rows = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
        Ok(PartitionBatch { partition: self.partition, rows, xids: self.xids, eras: self.eras })
    }
}
