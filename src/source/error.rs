//! What can go wrong while asking the source server, and who has to act.

use crate::base::{Classify, RetryClass, TableName};
use std::fmt;
use tokio_postgres::error::SqlState;

/// An error of the control plane. Each message is one line with its remedy and holds no cell value and no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The server refused a statement. Only its primary message is kept: DETAIL may quote values.
    #[error("{doing}: the server says: {message} (SQLSTATE {}){}", state.code(), remedy(state))]
    Server {
        /// What was being done.
        doing: String,
        /// The SQLSTATE.
        state: SqlState,
        /// The server's primary message.
        message: String,
    },
    /// The connection broke, or the server's answer was cut off.
    #[error(
        "{doing}: the connection to the server was lost; try again, and look into the server's log if it happens again"
    )]
    ConnectionLost {
        /// What was being done.
        doing: String,
        /// The driver's own error.
        source: tokio_postgres::Error,
    },
    /// A catalog answered in a form that this version does not know.
    #[error(
        "{doing}: unexpected answer from the catalogs; use a supported server, PostgreSQL 14 to 18, or report this with the server's version"
    )]
    UnexpectedAnswer {
        /// What was being done.
        doing: String,
        /// The driver's own error, where there is one.
        source: Option<tokio_postgres::Error>,
    },
    /// No such table.
    #[error(
        "table {table} does not exist in this database{}; correct name in [[table]] of the pipeline file",
        close_names(close)
    )]
    TableMissing {
        /// As configured.
        table: TableName,
        /// Existing tables with a similar name, the closest first.
        close: Vec<TableName>,
    },
    /// A view, a foreign table, a sequence.
    #[error(
        "{table} is {kind}, not a table; only tables are replicated: name a table in [[table]] of the pipeline file"
    )]
    NotATable {
        /// As configured.
        table: TableName,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// A partition was named instead of its root.
    #[error("{table} is a partition of {root}: rows are published under the root; set name = \"{root}\" in [[table]]")]
    IsPartition {
        /// As configured.
        table: TableName,
        /// The partitioned table at the top.
        root: TableName,
    },
    /// UNLOGGED or temporary: never in the WAL.
    #[error(
        "table {table} is not written to the WAL, so it cannot be followed; make it permanent: ALTER TABLE … SET LOGGED"
    )]
    NotLogged {
        /// As configured.
        table: TableName,
    },
    /// Without one, a row of the lake could not be told from another.
    #[error("table {table} has no primary key; add one: {remedy}")]
    NoPrimaryKey {
        /// As configured.
        table: TableName,
        /// The statement that adds one, with a column to fill in.
        remedy: String,
    },
    /// A key column that is never sent.
    #[error("column {column} of {table}'s primary key is generated and not published; use a key of ordinary columns")]
    KeyNotPublished {
        /// As configured.
        table: TableName,
        /// The generated column.
        column: String,
    },
    /// The column that should date a row is not there.
    #[error("table {table} has no column {column}{}; correct partition_column in [[table]]", close_columns(close))]
    PartitionColumnMissing {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
        /// The columns that could date a row.
        close: Vec<String>,
    },
    /// The column that should date a row has no date.
    #[error(
        "column {column} of {table} cannot date a row; name a date, timestamp or timestamptz with partition_column in [[table]]"
    )]
    PartitionColumnType {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
    },
    /// A column that should be kept as text is not there.
    #[error(
        "table {table} has no column {column} (there is {}); correct text_columns in [[table]]", existing.join(", ")
    )]
    TextColumnMissing {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
        /// The columns that there are.
        existing: Vec<String>,
    },
    /// Two columns of the table would be one in the lake.
    #[error("columns {columns} of {table} would both be {lake_name} in the lake; correct lake_columns in [[table]]")]
    OneLakeColumn {
        /// As configured.
        table: TableName,
        /// In the source.
        columns: String,
        /// In the lake.
        lake_name: String,
    },
    /// A column that names rows, or dates them, is not described any more.
    #[error(
        "column {column} of {table} was dropped or renamed, and it {role}; if it was renamed, let it keep its name in the lake: lake_columns = {{ … = \"{column}\" }} in its [[table]]{}, else set the table up anew in an empty lake folder",
        partition_column_remedy(role)
    )]
    KeyColumnGone {
        /// As configured.
        table: TableName,
        /// In the lake.
        column: String,
        /// What it is needed for.
        role: ColumnRole,
    },
    /// The column that dates a row has a type without a day.
    #[error(
        "column {column} of {table} dates the rows, and its new type has no day; change it back, or set the table up anew in an empty lake folder"
    )]
    DatingColumnRetyped {
        /// As configured.
        table: TableName,
        /// In the source.
        column: String,
    },
    /// A text has no day.
    #[error(
        "column {column} of {table} dates the rows, so it cannot be kept as text; remove it from text_columns in [[table]]"
    )]
    TextPartitionColumn {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
    },
    /// Only a `timestamptz` is cut into days in a zone.
    #[error(
        "column {column} of {table} has no time zone, so time_zone = \"{zone}\" would change nothing; remove it from [[table]], or use a timestamptz column"
    )]
    ZoneWithoutMeaning {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
        /// As configured.
        zone: &'static str,
    },
    /// A row without a date has no day to go to.
    #[error("column {column} of {table} may be NULL, and such a row has no day; make it NOT NULL: {remedy}")]
    PartitionColumnNullable {
        /// As configured.
        table: TableName,
        /// As configured.
        column: String,
        /// The statement that mends it.
        remedy: String,
    },
    /// A file of `sql/` and the program disagree about a placeholder.
    #[error("{file}: placeholder :{name} has no value; this is a fault of lakebed, report it")]
    UnknownPlaceholder {
        /// The file.
        file: &'static str,
        /// The placeholder's name.
        name: String,
    },
    /// The server accepted a step and yet it is not in force, as GRANT does without the grant option.
    #[error(
        "not in force after it was applied: {steps}; run init with --admin-url of a superuser or of the tables' owner"
    )]
    NotInForce {
        /// The steps.
        steps: String,
    },
}

impl SourceError {
    /// The driver's error, sorted.
    pub(super) fn from_driver(doing: &str, error: tokio_postgres::Error) -> Self {
        let doing = doing.to_owned();
        if let Some(server) = error.as_db_error() {
            let mut message = one_line(server.message());
            // The objects that depend on one are named there alone; no other class's detail is kept, for it may quote values.
            if *server.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST
                && let Some(detail) = server.detail()
            {
                message = format!("{message}: {}", one_line(detail));
            }
            return Self::Server { doing, state: server.code().clone(), message };
        }
        let lost =
            error.is_closed() || std::error::Error::source(&error).is_some_and(|cause| cause.is::<std::io::Error>());
        if lost {
            Self::ConnectionLost { doing, source: error }
        } else {
            Self::UnexpectedAnswer { doing, source: Some(error) }
        }
    }

    /// Whether the server refused for want of a right (SQLSTATE 42501).
    pub fn is_insufficient_privilege(&self) -> bool {
        matches!(self, Self::Server { state, .. } if *state == SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Whether one of `init`'s own functions refused, because things are not as they have to be (SQLSTATE 55000).
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Server { state, .. } if *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
    }

    /// Whether a named object was not there (SQLSTATE 42P01, 3F000, 42883).
    pub fn is_undefined_object(&self) -> bool {
        let undefined = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_FUNCTION];
        matches!(self, Self::Server { state, .. } if undefined.contains(state))
    }
}

impl SourceError {
    /// Whether somebody locked a table for longer than was waited, or both waited for each other (SQLSTATE 55P03, 40P01).
    pub fn is_lock_conflict(&self) -> bool {
        let conflicts = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        matches!(self, Self::Server { state, .. } if conflicts.contains(state))
    }

    /// Whether the statement was ended by somebody's word (SQLSTATE 57014).
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Server { state, .. } if *state == SqlState::QUERY_CANCELED)
    }

    /// Whether a named column was not there (SQLSTATE 42703).
    pub fn is_undefined_column(&self) -> bool {
        matches!(self, Self::Server { state, .. } if *state == SqlState::UNDEFINED_COLUMN)
    }
}

/// By SQLSTATE (PostgreSQL's manual, appendix A), never by text.
impl Classify for SourceError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::ConnectionLost { .. } => RetryClass::Transient,
            Self::Server { state, .. } if passes(state) => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}

/// Connection and resource trouble, shutdown and start-up, serialisation, deadlock, locks.
fn passes(state: &SqlState) -> bool {
    const STATES: [SqlState; 7] = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::OBJECT_IN_USE,
    ];
    STATES.contains(state) || state.code().starts_with("08") || state.code().starts_with("53")
}

fn remedy(state: &SqlState) -> &'static str {
    if *state == SqlState::INSUFFICIENT_PRIVILEGE {
        "; connect as the owner or an administrator, or let `lakebed init --admin-url …` grant it"
    } else if [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_FUNCTION].contains(state) {
        "; run `lakebed init` again, which installs what this version needs"
    } else if passes(state) {
        "; try again"
    } else {
        "; look into the server's log"
    }
}

/// What a column is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnRole {
    /// It names rows.
    NamesRows,
    /// It dates them.
    DatesRows,
}

impl fmt::Display for ColumnRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NamesRows => "names the rows",
            Self::DatesRows => "dates the rows",
        })
    }
}

fn partition_column_remedy(role: &ColumnRole) -> &'static str {
    match role {
        ColumnRole::NamesRows => "",
        ColumnRole::DatesRows => ", with the new name as partition_column",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn close_names(close: &[TableName]) -> String {
    close_columns(&close.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn close_columns(close: &[String]) -> String {
    if close.is_empty() { String::new() } else { format!(" (there is {})", close.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> SourceError {
        SourceError::Server { doing: "reading".into(), state: SqlState::from_code(code), message: "no".into() }
    }

    #[test]
    fn the_sqlstate_decides_whether_trying_again_can_help() {
        for code in ["08006", "53300", "57P01", "57P03", "40001", "40P01", "55P03", "55006"] {
            assert_eq!(refused(code).retry_class(), RetryClass::Transient, "{code}");
        }
        for code in ["42501", "42P01", "22023", "28P01", "0A000"] {
            assert_eq!(refused(code).retry_class(), RetryClass::Definite, "{code}");
        }
    }

    /// `check` shows what follows the first "; " as the remedy.
    #[test]
    fn a_wrong_table_names_its_remedy() {
        let (table, column) = (TableName::new("public", "t"), "at".to_owned());
        let errors = [
            SourceError::PartitionColumnType { table: table.clone(), column: column.clone() },
            SourceError::PartitionColumnMissing { table: table.clone(), column: column.clone(), close: Vec::new() },
            SourceError::TextColumnMissing {
                table: table.clone(),
                column: column.clone(),
                existing: vec!["at".into()],
            },
            SourceError::TextPartitionColumn { table: table.clone(), column: column.clone() },
            SourceError::NotATable { table: table.clone(), kind: "a view" },
            SourceError::KeyNotPublished { table: table.clone(), column },
            SourceError::NotLogged { table },
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.split_once("; ").is_some_and(|(_, remedy)| !remedy.is_empty()), "{text}");
        }
    }

    #[test]
    fn a_message_is_one_line_and_suggests() {
        let error = SourceError::TableMissing {
            table: TableName::new("public", "security_events"),
            close: vec![TableName::new("public", "security_event")],
        };
        assert_eq!(
            error.to_string(),
            "table public.security_events does not exist in this database (there is public.security_event); \
             correct name in [[table]] of the pipeline file"
        );
        assert_eq!(one_line("a\n  b"), "a b");
    }
}
