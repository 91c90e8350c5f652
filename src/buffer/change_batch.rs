//! What leaves the buffer besides rows: changes of rows that are elsewhere, in the same flush or in the lake.
//!
//! A change names its row by the table's identity columns. What it does to rows is decided where they are, when the flush is
//! made: the buffer looks nothing up.

use super::batch::keep_rows;
use crate::base::{Lsn, Runs, XidSet};
use deltalake::arrow::array::{ArrowPrimitiveType, AsArray, PrimitiveArray, types::UInt8Type};
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::record_batch::RecordBatch;
use std::ops::Range;
use std::slice::from_ref;

/// The change's number among the table's changes, UInt32; ascending.
pub const ORDINAL: &str = "lakebed_ordinal";
/// [`Operation`] as UInt8.
pub const OPERATION: &str = "lakebed_operation";
/// LSN of the transaction's commit record, UInt64; 0 in a transaction in progress, where the commit tells it.
pub const COMMIT_LSN: &str = "lakebed_commit_lsn";
/// Microseconds since 1970 of the commit, Int64; 0 in a transaction in progress.
pub const COMMIT_TIME: &str = "lakebed_commit_time";
/// The top-level transaction's id, UInt32.
pub const XID: &str = "lakebed_xid";
/// First day of the partition of the row as it was, Date32; NULL where the identity does not tell, and for TRUNCATE.
pub const OLD_DAY: &str = "lakebed_old_day";
/// In a patch: first day of the partition of the row as it becomes, Date32.
pub const NEW_DAY: &str = "lakebed_new_day";
/// In a patch: which columns were not sent, Binary; bit i % 8 of byte i / 8 stands for column i of the table.
pub const UNCHANGED: &str = "lakebed_unchanged";

/// One of these columns of a batch.
///
/// # Errors
/// The batch has no such column of this type.
pub fn column<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>, ArrowError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<T>());
    column.ok_or_else(|| ArrowError::SchemaError(format!("changes have no column {name}")))
}

/// What a change does to the row that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// It is gone.
    Delete = 0,
    /// Another version of it follows among the rows.
    Update = 1,
    /// Another version of it is in `patches`; what was not sent is the old version's.
    Patch = 2,
    /// Every row is gone; it names none.
    Truncate = 3,
}

impl Operation {
    /// The operation of a number in [`OPERATION`].
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Delete,
            1 => Self::Update,
            2 => Self::Patch,
            3 => Self::Truncate,
            _ => return None,
        })
    }
}

/// The transaction that a change came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The top-level transaction's id.
    pub xid: u32,
    /// Position of its commit record; 0 while it is in progress.
    pub commit_lsn: Lsn,
    /// Microseconds since 1970 of its commit; 0 while it is in progress.
    pub commit_time_micros: i64,
}

impl Transaction {
    /// One that has not committed yet.
    pub fn in_progress(xid: u32) -> Self {
        Self { xid, commit_lsn: Lsn::ZERO, commit_time_micros: 0 }
    }
}

/// Changes of one table, in order.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// One row a change: [`ORDINAL`], [`OPERATION`], [`COMMIT_LSN`], [`COMMIT_TIME`], [`XID`], [`OLD_DAY`], then the identity's columns under
    /// their own names and with the types of the table's rows, nullable.
    pub keys: RecordBatch,
    /// One row for each [`Operation::Patch`], in order: [`ORDINAL`], [`NEW_DAY`], [`UNCHANGED`], then the table's columns as in its rows, all
    /// nullable; what was not sent is NULL.
    pub patches: RecordBatch,
    /// Which (sub)transaction each row of `keys` belongs to, for a transaction in progress.
    pub xids: Option<Runs>,
}

impl ChangeBatch {
    /// Changes.
    pub fn len(&self) -> usize {
        self.keys.num_rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch without the changes of (sub)transactions that were rolled back; the ids of those that stay are kept.
    ///
    /// # Errors
    /// Arrow's, which has no reason here.
    pub fn without(self, aborted: &XidSet) -> Result<ChangeBatch, ArrowError> {
        let Some(xids) = self.xids.as_ref().filter(|xids| xids.touches(aborted)) else { return Ok(self) };
        let live = xids.live(aborted);
        let keys = keep_rows(&self.keys, &live)?;
        let patches = keep_rows(&self.patches, &self.patches_of(&live))?;
        Ok(ChangeBatch { keys, patches, xids: Some(xids.of_rows(&live)) })
    }

    /// The rows of `patches` that belong to these rows of `keys`.
    fn patches_of(&self, keys: &[Range<u64>]) -> Vec<Range<u64>> {
        let operations = self.keys.column_by_name(OPERATION).and_then(|column| column.as_primitive_opt::<UInt8Type>());
        let Some(operations) = operations else { return Vec::new() };
        let is_patch = |operation: &u8| *operation == Operation::Patch as u8;
        let (mut ranges, mut key, mut patch) = (Vec::new(), 0, 0);
        let mut rest = operations.values().iter();
        for range in keys {
            let mut count = |until: u64| {
                let taken = usize::try_from(until.saturating_sub(key)).unwrap_or(usize::MAX);
                key = until;
                rest.by_ref().take(taken).copied().filter(is_patch).count() as u64
            };
            patch += count(range.start);
            let start = patch;
            patch += count(range.end);
            ranges.push(start..patch);
        }
        ranges
    }

    /// The first changes with the first patches, and the rest; copies nothing.
    pub(super) fn split_at(self, keys: usize, patches: usize) -> (ChangeBatch, ChangeBatch) {
        let (keys, patches) = (keys.min(self.keys.num_rows()), patches.min(self.patches.num_rows()));
        let part = |from: [usize; 2], to: [usize; 2]| ChangeBatch {
            keys: self.keys.slice(from[0], to[0] - from[0]),
            patches: self.patches.slice(from[1], to[1] - from[1]),
            xids: self.xids.as_ref().map(|xids| xids.of_rows(from_ref(&(from[0] as u64..to[0] as u64)))),
        };
        let all = [self.keys.num_rows(), self.patches.num_rows()];
        (part([0, 0], [keys, patches]), part([keys, patches], all))
    }

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        let arrow = self.keys.get_array_memory_size() + self.patches.get_array_memory_size();
        arrow + self.xids.as_ref().map_or(0, Runs::memory_bytes)
    }
}
