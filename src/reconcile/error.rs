//! What keeps a partition from being judged.

use crate::base::{Classify, DaySet, RetryClass, TableName};
use crate::lake::{FileFault, LakeError};
use crate::source::SourceError;

/// No verdict could be had; nothing was dropped.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The server.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Nobody would ever acknowledge the marker.
    #[error(
        "nobody follows replication slot \"{slot}\", so the lake cannot be waited for; start lakebed run and try again"
    )]
    NotFollowed {
        /// The slot.
        slot: String,
    },
    /// The lake is too far behind.
    #[error(
        "the lake has not caught up within {seconds} s: replication slot \"{slot}\" is behind; see its lag in lakebed status and try again"
    )]
    Behind {
        /// The slot.
        slot: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A parked table gets no rows.
    #[error(
        "{table} stands still in the lake, so nothing can be proved; see lakebed status for its reason, and set it up anew"
    )]
    StandsStill {
        /// The table.
        table: TableName,
    },
    /// What the lake has of these days is not complete, and known not to be.
    #[error(
        "{table} is not copied yet ({days}), so nothing of these days can be proved; wait until lakebed run or lakebed snapshot has copied them, see lakebed status"
    )]
    NotCopied {
        /// The table.
        table: TableName,
        /// Those of the days that are not.
        days: DaySet,
    },
    /// Digests over different columns cannot be added up.
    #[error(
        "receipt {sequence} of {table} binds other columns than the table has now, and both are of the same days; balance them by hand"
    )]
    OtherColumns {
        /// The table.
        table: TableName,
        /// The receipt.
        sequence: i64,
    },
    /// The stream changed these days at every attempt.
    #[error("rows of these days of {table} came in at every attempt; try again when they are quiet")]
    NotQuiet {
        /// The table.
        table: TableName,
    },
    /// Whoever counts there counts too few.
    #[error(
        "row-level security hides rows of {tables} from this login, so a count there proves nothing; ALTER ROLE … BYPASSRLS for the login, or ALTER TABLE … DISABLE ROW LEVEL SECURITY"
    )]
    RowSecurity {
        /// The tables.
        tables: String,
    },
    /// Somebody waited for a table that was being counted.
    #[error("the count of {table} gave way to somebody who waited for one of its tables; it is tried again later")]
    GaveWay {
        /// The table.
        table: TableName,
    },
    /// Two histories of one archive.
    #[error(
        "receipt {sequence} of the lake and that of this database are not the same: the database goes on from another copy of itself; nothing is dropped until one of the chains is set aside by hand"
    )]
    ChainForked {
        /// The first that differs.
        sequence: i64,
    },
    /// A receipt of the database was tampered with.
    #[error("{fault}; see the table receipt in the archive schema, and its copy in the lake")]
    ChainFault {
        /// What is wrong.
        fault: super::chain::ChainFault,
    },
    /// The lake's receipts are damaged.
    #[error("the receipts of the lake cannot be read, so nothing is dropped: {fault}; restore the file from a copy")]
    ReceiptsUnreadable {
        /// What is wrong with which file.
        fault: Box<FileFault>,
    },
    /// Digests would leave out what came.
    #[error("the columns of {table} have changed since this round began; try again")]
    Reshaped {
        /// The table.
        table: TableName,
    },
    /// An erasure whose files cannot be read back.
    #[error("an erasure is not at its end: {reason}; nothing is lost, mend that and run lakebed erase again")]
    Erasure {
        /// What is wrong.
        reason: String,
    },
    /// A partition of another kind.
    #[error("partition {partition} of {table} is a foreign table, whose rows nobody sends; detach it")]
    ForeignLeaf {
        /// The table.
        table: TableName,
        /// The leaf.
        partition: TableName,
    },
}

impl ReconcileError {
    /// A fault of the store; one of a file is a finding, and no error.
    pub(super) fn of_file(fault: FileFault) -> Result<FileFault, Self> {
        match fault {
            FileFault::Lake(error) => Err(Self::Lake(error)),
            other => Ok(other),
        }
    }
}

impl Classify for ReconcileError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Source(error) => error.retry_class(),
            Self::Lake(error) => error.retry_class(),
            Self::NotFollowed { .. }
            | Self::Behind { .. }
            | Self::NotQuiet { .. }
            | Self::NotCopied { .. }
            | Self::Reshaped { .. }
            | Self::GaveWay { .. } => RetryClass::Transient,
            Self::StandsStill { .. }
            | Self::OtherColumns { .. }
            | Self::ForeignLeaf { .. }
            | Self::RowSecurity { .. }
            | Self::ChainForked { .. }
            | Self::ChainFault { .. }
            | Self::Erasure { .. }
            | Self::ReceiptsUnreadable { .. } => RetryClass::Definite,
        }
    }
}
