//! What can go wrong between a batch of rows and the lake, and whether trying again can help.

use super::store_fault::StoreFault;
use crate::base::{Classify, Lsn, RetryClass, TableName};
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::object_store::Error as ObjectStoreError;
use std::io;

/// An operation on the lake failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// `[lake].url` or `[lake.options]` cannot be used at all.
    #[error("the lake location {location} cannot be used: {reason}; correct [lake].url or [lake.options]")]
    Location {
        /// The URL without secrets.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store refused or failed an operation.
    #[error("cannot {doing} {location}: {fault}{detail}")]
    Store {
        /// The operation, as a verb phrase.
        doing: &'static str,
        /// The URL without secrets.
        location: String,
        /// What the store's error means.
        fault: StoreFault,
        /// The store's own words in parentheses, or nothing.
        detail: String,
    },
    /// Two writers could overwrite each other's commits.
    #[error(
        "the store at {location} overwrites an object that was to be created only if absent; use a store with conditional \
         writes (on S3-compatible ones: allow_unsafe_rename off, conditional_put = \"etag\")"
    )]
    NoPutIfAbsent {
        /// The URL without secrets.
        location: String,
    },
    /// There is no Delta log.
    #[error(
        "there is no Delta table at {location}; `lakebed init --snapshot` creates it and copies what the source has already"
    )]
    Missing {
        /// The table's URL.
        location: String,
    },
    /// Days that PostgreSQL has dropped are to be replaced by what it has of them.
    #[error(
        "{days} of {table} were dropped from PostgreSQL with a receipt, so only the lake has their rows, which a copy would lose; leave \
         these days out of a repair"
    )]
    OnlyHere {
        /// The source table.
        table: TableName,
        /// The days.
        days: String,
    },
    /// A source column's name is outside what every reader of the lake accepts.
    #[error(
        "column {column:?} of {table} cannot be a column of the lake: only lower-case a-z, 0-9 and _ are; rename it or leave \
         the table out"
    )]
    ColumnName {
        /// The source table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A source column has a name that the lake needs itself.
    #[error(
        "column {column:?} of {table} has a name that the lake keeps for itself (year, month and day are its folders, lakebed_… \
         what it says about changes); rename it or leave the table out"
    )]
    ReservedColumn {
        /// The source table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// The lake's table has another schema than the source's.
    #[error(
        "the Delta table at {location} differs from {table} in {columns}; give a column whose type changed another name in the lake, \
         lake_columns = {{ … = \"…__v2\" }} in its [[table]], move the Delta table away or choose another [lake].url"
    )]
    SchemaDiffers {
        /// The table's URL.
        location: String,
        /// The source table.
        table: TableName,
        /// The columns, and how they differ.
        columns: String,
    },
    /// A column that the lake does not have names or dates the rows: those that are there have no value in it.
    #[error(
        "the Delta table at {location} has no column {column}, which names or dates the rows of {table}; if it was renamed, let it keep its name there: lake_columns = {{ {column} = \"…\" }} in its [[table]], else set the table up anew in an empty lake folder"
    )]
    KeyColumnMissing {
        /// The table's URL.
        location: String,
        /// The source table.
        table: TableName,
        /// The column, by its name in the lake.
        column: String,
    },
    /// The table was upgraded beyond the profile that is written here.
    #[error(
        "the Delta table at {location} needs {found}, but lakebed writes reader version 1 and writer version 2 without table \
         features; move the table away or choose another [lake].url"
    )]
    UnsupportedProtocol {
        /// The table's URL.
        location: String,
        /// Versions and features found.
        found: String,
    },
    /// Another system, pipeline or epoch feeds the same table.
    #[error(
        "the Delta table at {location} is fed by {found}, not by {expected}; give every pipeline its own [lake].url, or move \
         the table away"
    )]
    ForeignProgress {
        /// The table's URL.
        location: String,
        /// The recorded application id.
        found: String,
        /// The application id of this pipeline.
        expected: String,
    },
    /// A Delta table without any record of progress.
    #[error("the Delta table at {location} was not written by lakebed: choose another [lake].url or move it away")]
    NotLakebed {
        /// The table's URL.
        location: String,
    },
    /// The position was committed before (L1).
    #[error(
        "the Delta table at {location} already holds everything up to {recorded}, so {at} cannot be committed again; restart lakebed, and report it if it happens again"
    )]
    AlreadyRecorded {
        /// The table's URL.
        location: String,
        /// The position in the log.
        recorded: Lsn,
        /// The position that was refused.
        at: Lsn,
    },
    /// A position beyond 2^63 - 1 does not fit Delta's transaction version.
    #[error(
        "WAL position {at} does not fit the transaction version of a Delta table; this is a fault of lakebed, report it"
    )]
    PositionTooLarge {
        /// The position.
        at: Lsn,
    },
    /// Somebody else commits with this pipeline's application id.
    #[error(
        "version {version} of the Delta table at {location} was committed by another lakebed process with the same pipeline; \
         stop the other one, then start again"
    )]
    SecondWriter {
        /// The table's URL.
        location: String,
        /// The version that the other process wrote.
        version: u64,
    },
    /// A commit of somebody who is gone came between: the rows held here may be in the lake already.
    #[error(
        "version {version} of the Delta table at {location} was committed by an attempt that had been given up; its rows are read \
         again from what the table records"
    )]
    Overtaken {
        /// The table's URL.
        location: String,
        /// The version that landed late, or the newest one.
        version: u64,
    },
    /// The pipeline file puts rows into other folders than those that are there.
    #[error(
        "rows of {table} are kept in the Delta table at {location} by another rule than [[table]] says: {rules}; correct [[table]], \
         or begin another Delta table elsewhere"
    )]
    FolderRuleDiffers {
        /// The table's URL.
        location: String,
        /// The source table.
        table: TableName,
        /// Each rule, as it is and as it is asked for.
        rules: String,
    },
    /// The table stands still.
    #[error(
        "the Delta table at {location} is parked since {since}: it takes no rows until its missing days were copied again"
    )]
    Parked {
        /// The table's URL.
        location: String,
        /// The position since which rows are missing.
        since: Lsn,
    },
    /// A table property lets the recorded position expire.
    #[error(
        "the Delta table at {location} sets delta.setTransactionRetentionDuration, so its recorded position would expire and rows \
         would be written twice; run ALTER TABLE … UNSET TBLPROPERTIES ('delta.setTransactionRetentionDuration')"
    )]
    ProgressExpires {
        /// The table's URL.
        location: String,
    },
    /// An earlier commit of this handle did not end in a known state.
    #[error(
        "an earlier commit to the Delta table at {location} has an unknown outcome; open the table again to learn it"
    )]
    InDoubt {
        /// The table's URL.
        location: String,
    },
    /// Other writers were faster every time.
    #[error(
        "other writers of the Delta table at {location} took every version tried: start lakebed again when they are done"
    )]
    Contended {
        /// The table's URL.
        location: String,
    },
    /// A rewrite was planned on a file that another program has removed since.
    #[error(
        "version {version} of the Delta table at {location} removed files that were being rewritten; the rewrite is planned anew"
    )]
    FilesMoved {
        /// The table's URL.
        location: String,
        /// The version that removed them.
        version: u64,
    },
    /// Log entries that were needed are gone, because a checkpoint stands for them and for later ones.
    #[error(
        "the Delta log at {location} was cleaned up beyond version {version} while that was in use; it is read again from its newest \
         checkpoint"
    )]
    Expired {
        /// The table's URL.
        location: String,
        /// The version that was in use.
        version: u64,
    },
    /// Somebody's condition cannot be applied to rows of the table.
    #[error("rows of the Delta table at {location} cannot be judged: {reason}; correct --where")]
    Unjudged {
        /// The table's URL.
        location: String,
        /// What is wrong with the condition, without any value of a row.
        reason: String,
    },
    /// A data file that the log names cannot be read.
    #[error(
        "file {path} of the Delta table at {location} cannot be read: {reason}; restore it from a copy or an object version, because          the log names it"
    )]
    DataFile {
        /// The table's URL.
        location: String,
        /// Below the table's root.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An UPDATE left a TOASTed value out, and the row that still has it is not in the lake.
    #[error(
        "{table}: an UPDATE at {commit_lsn} leaves out the unchanged value of column {column}, and {key} is not in the lake, so the value          is not known; step over the transaction with `lakebed skip --lsn {commit_lsn}`, or begin with a lake that has every row"
    )]
    NoEarlierRow {
        /// The source table.
        table: TableName,
        /// The first column that was left out.
        column: String,
        /// The row, by its key.
        key: String,
        /// The transaction.
        commit_lsn: Lsn,
    },
    /// The log does not follow the Delta protocol.
    #[error("the Delta log at {location} cannot be read: {reason}; restore it or move the table away")]
    Log {
        /// The table's URL.
        location: String,
        /// The rule that is broken, and where.
        reason: String,
    },
    /// A record of lakebed beside the tables cannot be read.
    #[error(
        "the record at {location} cannot be read: {reason}; restore it, because without it nobody can tell whether changes are missing"
    )]
    Record {
        /// The folder's URL.
        location: String,
        /// Which object, and what is wrong with it.
        reason: String,
    },
    /// A batch does not have the table's columns.
    #[error("rows for the Delta table at {location} do not fit it: {reason}; this is a fault of lakebed, report it")]
    Batch {
        /// The table's URL.
        location: String,
        /// What does not fit.
        reason: String,
    },
    /// Parquet encoding failed.
    #[error(
        "rows for the Delta table at {location} could not be encoded: {reason}; this is a fault of lakebed, report it"
    )]
    Encode {
        /// The table's URL.
        location: String,
        /// The encoder's words.
        reason: String,
    },
    /// A write was cancelled or failed half-way, so that the writer's files are incomplete.
    #[error("the files being written to {location} are incomplete after an interrupted write; open a new writer")]
    WriterBroken {
        /// The table's URL.
        location: String,
    },
    /// Another process, or another task of this one, works on the table, and nobody waits for it any more.
    #[error(
        "the Delta table at {location} is locked by {by} (at work: {what}); wait until it is done, or stop it: a lock without its \
         process ends by itself"
    )]
    LockHeld {
        /// The table's URL.
        location: String,
        /// The process.
        by: String,
        /// What it does.
        what: String,
    },
    /// The lock was not renewed in time, and somebody else follows.
    #[error(
        "the lock of the Delta table at {location} went to {by}, because it was not renewed in time; what was begun is given up and \
         planned again"
    )]
    LockLost {
        /// The table's URL.
        location: String,
        /// The process that has it.
        by: String,
    },
    /// Leftover files were looked for before a commit of this process, when another one may still commit them.
    #[error(
        "leftover files at {location} cannot be told from those of a running process before this one has committed; this is a \
         fault of lakebed, report it"
    )]
    NotFenced {
        /// The table's URL.
        location: String,
    },
}

impl Classify for LakeError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Store { fault, .. } => fault.retry_class(),
            Self::InDoubt { .. }
            | Self::Overtaken { .. }
            | Self::Contended { .. }
            | Self::FilesMoved { .. }
            | Self::Expired { .. }
            | Self::LockHeld { .. }
            | Self::LockLost { .. }
            | Self::WriterBroken { .. } => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}

impl LakeError {
    pub(super) fn store(doing: &'static str, location: &str, error: &ObjectStoreError) -> Self {
        let fault = StoreFault::of(error);
        let detail = match fault {
            StoreFault::Unreachable | StoreFault::Unsupported | StoreFault::Condition => {
                format!(" ({})", one_line_without_queries(&error.to_string()))
            }
            _ => String::new(),
        };
        Self::Store { doing, location: location.to_owned(), fault, detail }
    }

    pub(super) fn io(doing: &'static str, location: &str, error: &io::Error) -> Self {
        let detail = format!(" ({})", error.kind());
        Self::Store { doing, location: location.to_owned(), fault: StoreFault::of_io(error), detail }
    }

    pub(super) fn delta(doing: &'static str, location: &str, error: DeltaTableError) -> Self {
        match error {
            DeltaTableError::ObjectStore { source } => Self::store(doing, location, &source),
            other => Self::Log { location: location.to_owned(), reason: one_line_without_queries(&other.to_string()) },
        }
    }

    pub(super) fn transaction(location: &str, error: &TransactionError) -> Self {
        match error {
            TransactionError::ObjectStore { source } => Self::store("commit to", location, source),
            other => Self::Store {
                doing: "commit to",
                location: location.to_owned(),
                fault: StoreFault::Unreachable,
                detail: format!(" ({})", one_line_without_queries(&other.to_string())),
            },
        }
    }
}

/// A signed URL carries its signature in the query, so no query reaches a message.
pub(super) fn one_line_without_queries(text: &str) -> String {
    let words = text.split_whitespace().map(|word| match word.split_once('?') {
        Some((before, after)) if !after.is_empty() => before,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_never_reaches_a_message() {
        let error = ObjectStoreError::Generic {
            store: "Azure",
            source: "PUT https://account.example/box/key?sv=1&sig=SECRET\n timed out".into(),
        };
        let message = LakeError::store("write to", "az://box", &error).to_string();
        assert!(!message.contains("SECRET") && !message.contains('\n'), "{message}");
        assert!(message.contains("timed out"), "{message}");
    }
}
