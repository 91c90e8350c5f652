//! What leaves the buffer: rows of one partition, as Arrow.

use crate::base::Partition;
use deltalake::arrow::record_batch::RecordBatch;

/// Rows of one table and one partition, in arrival order, with the table's columns and without the partition columns.
#[derive(Clone, Debug)]
pub struct PartitionBatch {
    /// The partition that every row belongs to.
    pub partition: Partition,
    /// The rows; the schema is [`super::arrow_schema`] of the table's shape.
    pub rows: RecordBatch,
}
