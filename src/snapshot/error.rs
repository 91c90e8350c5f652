//! What keeps a copy from being made.

use crate::base::{Classify, Partition, RetryClass, TableName};
use crate::buffer::BufferError;
use crate::connect::{ConnectError, ServerError};
use crate::decode::DecodeError;
use crate::lake::LakeError;
use crate::source::SourceError;
use crate::wal::WalError;

/// The days of the batch are still marked, and nothing else has happened.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No snapshot.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The server.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A row that the lake cannot hold.
    #[error(
        "a row that exists already cannot be copied: {source}; skip does not help here: change the row, or name the column in text_columns of its [[table]] and set the table up anew"
    )]
    Row {
        /// The table, the row and the rule.
        source: BufferError,
    },
    /// What came is no COPY.
    #[error("the copy of {table} cannot be read: {source}")]
    Decode {
        /// The table.
        table: TableName,
        /// The rule.
        source: DecodeError,
    },
    /// 53400: the temporary slot that gives a snapshot its position finds no place.
    #[error(
        "no replication slot is free for the copy's snapshot ({server}): raise max_replication_slots and restart the server, or drop a slot that nobody uses"
    )]
    NoFreeSlot {
        /// What the server said.
        server: ServerError,
    },
    /// 53300: the same for its connection.
    #[error(
        "no connection is free for the copy's snapshot ({server}): raise max_wal_senders or max_connections and restart the server, or end a connection that nobody needs"
    )]
    NoFreeSender {
        /// What the server said.
        server: ServerError,
    },
    /// A partition of another kind.
    #[error("partition {partition} of {table} is a foreign table, whose rows nobody sends; detach it")]
    ForeignLeaf {
        /// The table.
        table: TableName,
        /// The leaf.
        partition: TableName,
    },
    /// Whoever copies there copies too few.
    #[error(
        "row-level security hides rows of {tables} from this login, so a copy of them would not be whole; ALTER ROLE … BYPASSRLS for the login, or ALTER TABLE … DISABLE ROW LEVEL SECURITY"
    )]
    RowSecurity {
        /// The tables.
        tables: String,
    },
    /// No partition of the lake can hold it.
    #[error(
        "{table} has rows whose {column} is infinity, before year 1 or after year 9999, and no day of the lake can hold them; give them another date, or delete them"
    )]
    Undatable {
        /// The table.
        table: TableName,
        /// The column that dates its rows.
        column: String,
    },
    /// What a snapshot sees of a table that was rewritten is not what was there.
    #[error(
        "a partition of {table} was rewritten, emptied, altered or dropped while it was copied; its days are copied again"
    )]
    Rewritten {
        /// The table.
        table: TableName,
    },
    /// The same, before anything was copied: rows that nobody saw may be of days that nobody marks.
    #[error(
        "a partition of {table} was rewritten, emptied, altered or dropped while its days were listed; run the command again"
    )]
    ChangedWhileListed {
        /// The table.
        table: TableName,
    },
    /// Somebody holds a table for long.
    #[error("a partition of {table} is locked by somebody else for more than {seconds} s; its days are copied again")]
    Locked {
        /// The table.
        table: TableName,
        /// How long was waited.
        seconds: u64,
    },
    /// The server does not end a COPY that it was told to end.
    #[error("the server went on sending rows of {table} that it was told to keep; its days are copied again")]
    NotEnded {
        /// The table.
        table: TableName,
    },
    /// A row of a day that was not asked for.
    #[error(
        "the copy of {table} brought a row of {partition}, which is not copied; report this as a defect of lakebed"
    )]
    Stray {
        /// The table.
        table: TableName,
        /// The day.
        partition: Partition,
    },
    /// Whoever asked for it does not want it any more.
    #[error(
        "the copy was given up, because its days are to be copied anew or a table's columns have changed; they are copied again"
    )]
    GivenUp,
    /// A table of the archive may hold rows of the days, and is taken for nobody's partition.
    #[error(
        "{partition} may hold days of {table} that are to be copied, but {reason}; they stay marked until it is settled"
    )]
    LeftAlone {
        /// The table.
        table: TableName,
        /// What waits in the archive.
        partition: TableName,
        /// Why it is left alone.
        reason: String,
    },
    /// All that could be copied is; for whoever waits for the end.
    #[error("{reason} (every other day is copied; lakebed run and lakebed snapshot try these again)")]
    OthersCopied {
        /// What stands against the first of those days that could not.
        reason: String,
    },
    /// A task of the copy panicked.
    #[error("a session that copies stopped with a panic; report this as a defect of lakebed, and start it again")]
    Panicked,
}

impl Classify for SnapshotError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Connect(error) => error.retry_class(),
            Self::Wal(error) => error.retry_class(),
            Self::Source(error) => error.retry_class(),
            Self::Lake(error) => error.retry_class(),
            Self::NoFreeSlot { .. }
            | Self::NoFreeSender { .. }
            | Self::Rewritten { .. }
            | Self::ChangedWhileListed { .. }
            | Self::Locked { .. }
            | Self::GivenUp
            | Self::NotEnded { .. } => RetryClass::Transient,
            Self::Row { .. }
            | Self::Decode { .. }
            | Self::ForeignLeaf { .. }
            | Self::RowSecurity { .. }
            | Self::Undatable { .. }
            | Self::Stray { .. }
            | Self::LeftAlone { .. }
            | Self::OthersCopied { .. }
            | Self::Panicked => RetryClass::Definite,
        }
    }
}
