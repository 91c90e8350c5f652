//! What leaves the buffer besides rows: changes of rows that are elsewhere, in the same flush or in the lake.
//!
//! A change names its row by the table's identity columns. What it does to rows is decided where they are, when the flush is
//! made: the buffer looks nothing up.

use crate::base::Runs;
use deltalake::arrow::record_batch::RecordBatch;

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

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        let arrow = self.keys.get_array_memory_size() + self.patches.get_array_memory_size();
        arrow + self.xids.as_ref().map_or(0, Runs::memory_bytes)
    }
}
