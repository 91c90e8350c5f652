//! What can go wrong around a throw-away server, its customer and its tour.

use crate::base::{Classify, RetryClass};
use std::path::{Path, PathBuf};

/// An error of this room; each is one line that names the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A program or an operating system user that the machine lacks.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What was looked for.
        what: String,
        /// How to get it.
        remedy: String,
    },
    /// A file or folder could not be made, written, read or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program could not be started or failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Which program.
        program: String,
        /// Its own last line, or the system's reason.
        message: String,
    },
    /// PostgreSQL ended by itself, or never took a connection.
    #[error("PostgreSQL {what}: {message}")]
    Server {
        /// What it did.
        what: &'static str,
        /// The last line that explains it.
        message: String,
    },
    /// A statement or a connection of the demo's own failed.
    #[error("PostgreSQL refused to {action}: {message}")]
    Sql {
        /// What was tried.
        action: &'static str,
        /// Server's message with its SQLSTATE, or the driver's.
        message: String,
    },
    /// A folder that was named by the user may not be used.
    #[error("{} {reason}", path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A verb of lakebed, run as a child, failed.
    #[error("`lakebed {verb}` {outcome}: {message}")]
    Verb {
        /// The verb.
        verb: &'static str,
        /// How it ended.
        outcome: String,
        /// Its last line on standard error.
        message: String,
    },
    /// The lake did not reach the source's state in time.
    #[error("the lake stands at {lake} of {source_rows} rows and did not move for {waited_seconds} s; see {}", log.display())]
    Behind {
        /// Rows written to PostgreSQL.
        source_rows: u64,
        /// Rows in the lake.
        lake: u64,
        /// How long nothing moved.
        waited_seconds: u64,
        /// Log of the running pipeline.
        log: PathBuf,
    },
    /// Source and lake hold different numbers of rows.
    #[error("{table}: {source_rows} rows were written but the lake holds {lake}")]
    Unequal {
        /// Table's name.
        table: &'static str,
        /// Rows written.
        source_rows: u64,
        /// Rows in the lake.
        lake: u64,
    },
    /// partman's retention, the receipts or the lake say something else than that the oldest days were archived.
    #[error("the archive is not as it should be: {reason}")]
    Archive {
        /// What is wrong.
        reason: String,
    },
    /// An answer of a verb was not of the expected form.
    #[error("cannot read the answer of `lakebed {verb}`: {message}")]
    Answer {
        /// The verb.
        verb: &'static str,
        /// What was wrong; never a cell's value.
        message: &'static str,
    },
    /// SIGINT or SIGTERM.
    #[error("stopped by a signal; everything that was started has been stopped")]
    Interrupted,
}

impl DemoError {
    /// For `map_err` of a file operation.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DemoError {
        let path = path.to_owned();
        move |source| DemoError::File { action, path, source }
    }

    /// For `map_err` of a statement; keeps the server's message and SQLSTATE, which the driver's own text hides.
    pub(super) fn sql(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> DemoError {
        move |error| {
            let message = match error.as_db_error() {
                Some(server) => format!("{} (SQLSTATE {})", server.message(), server.code().code()),
                None => error.to_string(),
            };
            DemoError::Sql { action, message }
        }
    }
}

impl Classify for DemoError {
    fn retry_class(&self) -> RetryClass {
        match self {
            DemoError::Behind { .. } | DemoError::Interrupted => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}
