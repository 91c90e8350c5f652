//! Why a row or a relation is refused.

use crate::base::{Classify, RetryClass, TableName};
use crate::decode::DecodeError;
use crate::decode::value::ValueError;
use deltalake::arrow::error::ArrowError;

/// A row cannot be stored as it is. Never holds a cell value.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// The source table no longer looks like the lake's.
    #[error("{table}: {change}, and schema changes are not followed; set the table up anew in an empty lake folder")]
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
    #[error(
        "{table}.{column}: a row holds NULL although the column was NOT NULL; set the table up anew in an empty lake folder"
    )]
    NullNotAllowed {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// NULL in the column that dates a row.
    #[error(
        "{table}.{column}: a row holds NULL in the partition column and belongs to no day; declare the column NOT NULL"
    )]
    NoPartition {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// The mark of an unchanged TOASTed value, which only an UPDATE may carry.
    #[error("{table}.{column}: the server left a value out of a new row; report this with the server's version")]
    Unchanged {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A value that cannot be stored exactly.
    #[error("{table}.{column}: {source}")]
    Value {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
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
    #[error("{table}: a row of {bytes} bytes is over the limit of 1 GiB; take the table out of the pipeline file")]
    RowTooLarge {
        /// The table.
        table: TableName,
        /// Size on the wire.
        bytes: usize,
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
    #[error("column {column} was added")]
    Added {
        /// The column.
        column: String,
    },
    /// A column that is no longer sent.
    #[error("column {column} was dropped, renamed or left out of the publication")]
    Dropped {
        /// The column.
        column: String,
    },
    /// Another type or type modifier.
    #[error("column {column} changed its type")]
    Retyped {
        /// The column.
        column: String,
    },
}
