//! Why a row or a relation is refused.

use super::RowKey;
use crate::base::{Classify, RetryClass, TableName};
use crate::decode::DecodeError;
use crate::decode::value::ValueError;
use deltalake::arrow::error::ArrowError;

/// A row cannot be stored as it is. It is named by its key; no other cell's value is ever held.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The source table no longer looks like the lake's.
    #[error("{table}: {change}, which is not followed; undo that, or set the table up anew in an empty lake folder")]
    SchemaChanged {
        /// The table.
        table: TableName,
        /// What differs.
        change: SchemaChange,
    },
    /// The configured column cannot date a row.
    #[error("{table}: its partition column is not a date, timestamp or timestamptz; name another partition_column")]
    PartitionColumn {
        /// The table.
        table: TableName,
    },
    /// A row before the RELATION that describes it.
    #[error("{table}: the server sent a row before it described the table; report this with the server's version")]
    NotBound {
        /// The table.
        table: TableName,
    },
    /// A row with another number of columns than its RELATION.
    #[error(
        "{table}: the server sent a row of {found} columns for a table of {expected}; report this with the server's version"
    )]
    ColumnCount {
        /// The table.
        table: TableName,
        /// Columns of the RELATION.
        expected: usize,
        /// Columns of the row.
        found: usize,
    },
    /// NULL where the lake's column is required.
    #[error("{cell}: it is NULL although the column was NOT NULL; set the table up anew in an empty lake folder")]
    NullNotAllowed {
        /// Where.
        cell: Box<RefusedCell>,
    },
    /// NULL in the column that dates a row.
    #[error(
        "{cell}: NULL in the partition column belongs to no day; declare the column NOT NULL, and step over the transaction with `lakebed skip`"
    )]
    NoPartition {
        /// Where.
        cell: Box<RefusedCell>,
    },
    /// The mark of an unchanged TOASTed value, which only an UPDATE may carry.
    #[error("{cell}: the server left the value out; report this with the server's version")]
    Unchanged {
        /// Where.
        cell: Box<RefusedCell>,
    },
    /// A value that cannot be stored exactly.
    #[error("{cell}: {source}; {}", source.remedy(*dates_the_row))]
    Value {
        /// Where.
        cell: Box<RefusedCell>,
        /// Whether it is the partition column, which has another remedy.
        dates_the_row: bool,
        /// The rule.
        source: ValueError,
    },
    /// A tuple that is not one.
    #[error("{table}: {source}")]
    Decode {
        /// The table.
        table: TableName,
        /// The rule.
        source: DecodeError,
    },
    /// A row that 32-bit offsets cannot hold.
    #[error(
        "{table}: {key} has {bytes} bytes and the limit is 1 GiB; step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
    )]
    RowTooLarge {
        /// The table.
        table: TableName,
        /// The row.
        key: RowKey,
        /// Size on the wire.
        bytes: usize,
    },
    /// An UPDATE or DELETE names its row by other columns than the pipeline found at its start.
    #[error(
        "{table}: a changed row is named by {sent}, and not by {expected} as the table was found at start: the replica identity was changed, or a partition has another; make those of all partitions equal (ALTER TABLE … REPLICA IDENTITY …) and start again, and step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
    )]
    IdentityDiffers {
        /// The table.
        table: TableName,
        /// The columns that came.
        sent: String,
        /// The identity's.
        expected: String,
    },
    /// An UPDATE without the row as it was, where partitions name their rows in different ways.
    #[error(
        "{table}: an UPDATE of {key} does not say which row it was, because the partitions' replica identities differ; make them equal (ALTER TABLE … REPLICA IDENTITY …) and start again, step over the transaction with `lakebed skip`, or let the table wait with on_error = \"park\""
    )]
    IdentityAmbiguous {
        /// The table.
        table: TableName,
        /// The row as it is now.
        key: RowKey,
    },
    /// The changes' numbers are used up.
    #[error(
        "{table}: more than 4294967295 changes in one transaction; step over it with `lakebed skip` and set the table up anew, or let the table wait with on_error = \"park\""
    )]
    TooManyChanges {
        /// The table.
        table: TableName,
    },
    /// Arrow refused the finished columns: a defect here.
    #[error("{table}: the buffered rows do not form an Arrow batch ({source}); report this as a defect of lakebed")]
    Arrow {
        /// The table.
        table: TableName,
        /// Arrow's reason.
        source: ArrowError,
    },
}

impl Classify for BufferError {
    /// The stream brings the same bytes again, so always definite.
    fn retry_class(&self) -> RetryClass {
        RetryClass::Definite
    }
}

/// Where a value stands that was refused: `public.event.expires_at of row id=7`. Its value is not among it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCell {
    /// The table.
    pub table: TableName,
    /// The column.
    pub column: String,
    /// The row.
    pub key: RowKey,
}

impl std::fmt::Display for RefusedCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} of {}", self.table, self.column, self.key)
    }
}

/// How a RELATION differs from the shape that the table was set up with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaChange {
    /// Another schema or table name.
    #[error("the source table is now named {now}")]
    Renamed {
        /// The new name.
        now: TableName,
    },
    /// A column that the shape lacks.
    #[error("column {} was added", one_line(column))]
    Added {
        /// The column.
        column: String,
    },
    /// A column that is no longer sent.
    #[error("column {} was dropped, renamed or left out of the publication", one_line(column))]
    Dropped {
        /// The column.
        column: String,
    },
    /// Another type or type modifier.
    #[error("column {} changed its type", one_line(column))]
    Retyped {
        /// The column.
        column: String,
    },
}

/// A name may hold a line break; a message may not.
fn one_line(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
