//! Why something that the stream brought cannot be taken, before it is known whether and where its transaction commits.

use super::PipelineError;
use crate::base::{Lsn, TableName};
use crate::buffer::BufferError;
use crate::decode::DecodeError;
use crate::source::SourceError;

/// The reason. It becomes an error at the commit: a transaction in progress may still roll back what cannot be taken.
#[derive(Debug)]
pub(super) enum Cause {
    Row(BufferError),
    /// A TRUNCATE of a table that does not take one.
    Truncate {
        table: TableName,
    },
    /// Another table of the same name, where the old one's rows must stay.
    Recreated {
        table: TableName,
    },
    UnknownRelation {
        table: TableName,
        publication: String,
    },
    Decode(DecodeError),
    /// A table's new columns.
    Source(Box<SourceError>),
    /// One of so many that its own reason was not kept.
    Further,
}

/// A reason and the configured table that it concerns, if it concerns one.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) table: Option<usize>,
    pub(super) cause: Cause,
}

impl Refusal {
    pub(super) fn row(table: usize, error: BufferError) -> Self {
        Self { table: Some(table), cause: Cause::Row(error) }
    }

    /// The error that names the transaction by the position of its commit, which is what `lakebed skip` asks for.
    pub(super) fn at(self, commit_lsn: Lsn) -> PipelineError {
        let at = commit_lsn;
        match self.cause {
            Cause::Row(error) => PipelineError::Row { at, error },
            Cause::Truncate { table } => PipelineError::Truncate { table, at },
            Cause::Recreated { table } => PipelineError::Recreated { table, at },
            Cause::UnknownRelation { table, publication } => PipelineError::UnknownRelation { table, publication, at },
            Cause::Source(error) => PipelineError::Columns { at, error },
            Cause::Decode(error) => PipelineError::Decode { at, error },
            Cause::Further => PipelineError::FurtherRefused { at },
        }
    }
}
