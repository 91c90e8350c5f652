//! What leaves the buffer: rows of one partition, as Arrow.

use crate::base::{Partition, Runs, XidSet};
use deltalake::arrow::compute::concat_batches;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::record_batch::RecordBatch;
use std::ops::Range;

/// Rows of one table and one partition, in arrival order, with the table's columns and without the partition columns.
#[derive(Clone, Debug)]
pub struct PartitionBatch {
    /// The partition that every row belongs to.
    pub partition: Partition,
    /// The rows; the schema is [`super::arrow_schema`] of the table's shape.
    pub rows: RecordBatch,
    /// Which (sub)transaction each row belongs to, for rows of a transaction in progress; `None` for those of whole transactions.
    pub xids: Option<Runs>,
    /// How many changes of the table had come before each row (its era): a change concerns the rows of its own era and of earlier ones.
    /// `None`: none had come before any of them.
    pub eras: Option<Runs>,
}

impl PartitionBatch {
    /// The batch without the rows of (sub)transactions that were rolled back; the ids of those that stay are kept.
    ///
    /// # Errors
    /// Arrow's, which has no reason here.
    pub fn without(self, aborted: &XidSet) -> Result<PartitionBatch, ArrowError> {
        let Some(xids) = self.xids.as_ref().filter(|xids| xids.touches(aborted)) else { return Ok(self) };
        let live = xids.live(aborted);
        let kept = xids.of_rows(&live);
        let rows = keep_rows(&self.rows, &live)?;
        let eras = self.eras.as_ref().map(|eras| eras.of_rows(&live));
        Ok(PartitionBatch { partition: self.partition, rows, xids: Some(kept), eras })
    }
}

/// The rows of `ranges`, which are ascending and do not overlap.
pub(super) fn keep_rows(rows: &RecordBatch, ranges: &[Range<u64>]) -> Result<RecordBatch, ArrowError> {
    let index = |row: u64| usize::try_from(row).unwrap_or(usize::MAX).min(rows.num_rows());
    let slices: Vec<RecordBatch> =
        ranges.iter().map(|range| rows.slice(index(range.start), index(range.end) - index(range.start))).collect();
    concat_batches(&rows.schema(), &slices)
}
