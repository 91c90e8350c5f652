//! What keeps a partition from being judged.

use crate::base::{Classify, RetryClass, TableName};
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
            Self::NotFollowed { .. } | Self::Behind { .. } | Self::NotQuiet { .. } => RetryClass::Transient,
            Self::StandsStill { .. } | Self::OtherColumns { .. } | Self::ForeignLeaf { .. } => RetryClass::Definite,
        }
    }
}
