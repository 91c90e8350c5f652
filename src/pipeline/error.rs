//! Why a pipeline stops, with the place in the WAL where that helps.

use super::lineage::LineageError;
use crate::base::{Classify, Lsn, RetryClass, TableName};
use crate::buffer::BufferError;
use crate::connect::{ConnectError, SettingsError};
use crate::decode::DecodeError;
use crate::lake::LakeError;
use crate::reconcile::ReconcileError;
use crate::snapshot::SnapshotError;
use crate::source::SourceError;
use crate::wal::WalError;

/// Any end of a pipeline but the orderly one.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages are the documentation; fields are what they name
pub enum PipelineError {
    #[error("[source].url is not usable: {0}")]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(
        "the server sent what is not pgoutput at WAL position {at}: {error}; nothing was acknowledged from there on: report it with the server's version"
    )]
    Decode { at: Lsn, error: DecodeError },
    #[error(
        "{error} (transaction that commits at WAL position {at}; what was committed before it is kept, nothing was acknowledged from there on)"
    )]
    Row { at: Lsn, error: BufferError },
    #[error(
        "{error} (transaction that commits at WAL position {at}; what was committed before it is kept, nothing was acknowledged from there on)"
    )]
    Columns { at: Lsn, error: Box<SourceError> },
    #[error(
        "{table}: the binary form of values of column {column} is not decoded here; the stream starts again and asks for text"
    )]
    BinaryNotUnderstood { table: TableName, column: String },
    #[error(
        "the stream broke pgoutput's order at WAL position {at}: {what}; nothing was acknowledged from there on: restart, and report it if it happens again"
    )]
    Order { at: Lsn, what: &'static str },
    #[error(
        "TRUNCATE of {table} in the transaction that commits at WAL position {at} would empty the lake's table; what was committed before it is kept, nothing was acknowledged from there on: set truncate = \"apply\" in its [[table]] if that is meant, step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
    )]
    Truncate { table: TableName, at: Lsn },
    #[error(
        "PostgreSQL at {endpoint} has wal_level = {found}: set wal_level = logical in postgresql.conf and restart the server"
    )]
    WalLevel { endpoint: String, found: String },
    #[error("PostgreSQL at {endpoint} is version {found}: lakebed needs 14 or later")]
    ServerVersion { endpoint: String, found: u32 },
    #[error("publication \"{publication}\" does not exist in database \"{database}\": run `lakebed init`")]
    NoPublication { publication: String, database: String },
    #[error("publication \"{publication}\" {problem}: run `lakebed init`, or correct it with ALTER PUBLICATION")]
    PublicationDiffers { publication: String, problem: String },
    #[error(
        "{table} was dropped and made again (WAL position {at}): its former rows are gone from the database and still in the lake; what was committed before is kept: set truncate = \"apply\" in its [[table]] if the lake is to forget them, too, set the table up anew in an empty lake folder, or let it wait with on_error = \"park\""
    )]
    Recreated { table: TableName, at: Lsn },
    #[error(
        "publication \"{publication}\" does not publish {table} any more, so its changes are not sent: take it out of the pipeline file, or add it again with ALTER PUBLICATION … ADD TABLE; what was written to it meanwhile is missing in the lake then, and stays so unless the lake table is set up anew"
    )]
    NoLongerPublished { table: TableName, publication: String },
    #[error(
        "replication slot \"{slot}\" does not exist on {endpoint}: run `lakebed init --snapshot`, which copies what the tables hold already; if the slot existed before, rows since then are missing: `lakebed init --from-now` accepts that gap, and `lakebed repair --execute` copies what it left out"
    )]
    NoSlot { slot: String, endpoint: String },
    #[error(transparent)]
    Lineage(#[from] LineageError),
    #[error(
        "a (sub)transaction of the transaction that commits at WAL position {at} cannot be taken, like more than ten thousand before it; nothing was acknowledged from there on: step over it with `lakebed skip`"
    )]
    FurtherRefused { at: Lsn },
    #[error(
        "the server sent rows of {table}, which publication \"{publication}\" did not name when the pipeline started, in the transaction that commits at WAL position {at}: if it is a partition, the publication lacks publish_via_partition_root, and if it is new, restart lakebed; nothing was acknowledged from there on"
    )]
    UnknownRelation { table: TableName, publication: String, at: Lsn },
    #[error(
        "PostgreSQL ended the stream: it shuts down or was told to; start lakebed again when it is back, nothing unacknowledged is lost"
    )]
    ServerStopped,
    #[error("{problem}")]
    SlotUnusable { problem: String },
    #[error("replication slot \"{slot}\" is in use by {holder}: stop that one first; one slot serves one consumer")]
    SlotHeld { slot: String, holder: String },
    #[error("the {stage} stage ended before its work was done: restart lakebed; nothing unacknowledged is lost")]
    StageGone { stage: &'static str },
    #[error("the {stage} stage panicked: this is a defect of lakebed; restart it, nothing unacknowledged is lost")]
    StagePanicked { stage: &'static str },
}

impl PipelineError {
    /// Whether somebody else uses the slot, as it was seen at the start or heard from the server.
    pub fn is_another_consumer(&self) -> bool {
        matches!(self, Self::SlotHeld { .. } | Self::Wal(WalError::SlotInUse { .. }))
    }

    /// Whether what the server sent is the reason, and not the connection or the lake: everything before it is sound then.
    pub(super) fn is_about_the_streams_content(&self) -> bool {
        match self {
            // A defect of ours: the rows that Arrow refused are no longer in the buffer, so nothing may be committed over them.
            Self::Row { error: BufferError::Arrow { .. }, .. } => false,
            Self::Row { .. }
            | Self::Columns { .. }
            | Self::Recreated { .. }
            | Self::Truncate { .. }
            | Self::UnknownRelation { .. } => true,
            Self::Decode { .. } | Self::Order { .. } | Self::FurtherRefused { .. } => true,
            _ => false,
        }
    }
}

impl Classify for PipelineError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Connect(error) => error.retry_class(),
            Self::Source(error) => error.retry_class(),
            Self::Wal(error) => error.retry_class(),
            Self::Lake(error) => error.retry_class(),
            Self::Reconcile(error) => error.retry_class(),
            Self::Snapshot(error) => error.retry_class(),
            Self::Lineage(error) => error.retry_class(),
            Self::BinaryNotUnderstood { .. } => RetryClass::Transient,
            Self::SlotHeld { .. } | Self::ServerStopped | Self::StageGone { .. } | Self::StagePanicked { .. } => {
                RetryClass::Transient
            }
            _ => RetryClass::Definite,
        }
    }
}
