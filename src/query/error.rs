//! What can go wrong between a statement and its rows, said in one line.

use super::output::OutputError;
use crate::base::{Classify, RetryClass};
use deltalake::arrow::datatypes::DataType;
use deltalake::arrow::error::ArrowError;
use deltalake::datafusion::common::{DataFusionError, SchemaError};
use std::fmt::Write as _;

/// Why a statement gave no (complete) answer. Messages name tables and columns, never a value out of the lake.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not SQL.
    #[error("syntax error{}: {message}", at(.line, .column))]
    Syntax {
        /// Counted from 1, over the whole text; `None` where the parser cannot say.
        line: Option<u64>,
        /// Counted from 1.
        column: Option<u64>,
        /// What was expected and what stood there.
        message: String,
    },
    /// The text holds no statement at all.
    #[error("no statement to run: the text is empty or only a comment")]
    NoStatement,
    /// Q1: the statement would change something.
    #[error("read-only: {statement} is not possible here; only SELECT, EXPLAIN, DESCRIBE and SHOW are")]
    ReadOnly {
        /// The statement's leading words.
        statement: String,
    },
    /// A name that is no table of the lake.
    #[error("no table {name:?}{}; tables: {}", did_you_mean(.similar), listed(.tables))]
    UnknownTable {
        /// As written.
        name: String,
        /// Close names, closest first.
        similar: Vec<String>,
        /// Every table of the engine.
        tables: Vec<String>,
    },
    /// A name that is no column of the tables in the statement.
    #[error("no column {name:?}{}; columns: {}", did_you_mean(.similar), listed(.columns))]
    UnknownColumn {
        /// As written.
        name: String,
        /// Close names, closest first.
        similar: Vec<String>,
        /// The columns that are visible at that place.
        columns: Vec<String>,
    },
    /// The statement is SQL, but asks for something that does not fit: types, functions, grouping.
    #[error("{0}")]
    Invalid(String),
    /// The statement needs more memory than it was given, and spilling does not help it.
    #[error("the statement needs more than {} of memory: narrow the time range, or raise --memory-limit", bytes(.limit_bytes))]
    OutOfMemory {
        /// The engine's limit.
        limit_bytes: usize,
    },
    /// The lake could not be read.
    #[error("reading the lake failed: {0}; check that its storage is reachable and run the statement again")]
    Lake(String),
    /// A value of the lake does not fit what the statement makes of it.
    #[error("the statement fails on a value of the lake: {0}; TRY_CAST and NULLIF give NULL instead")]
    Value(String),
    /// Anything else while rows were computed.
    #[error("the statement failed: {0}")]
    Execution(String),
    /// The engine could not be set up.
    #[error("the query engine does not start: {0}")]
    Setup(String),
    /// The rows could not be written out.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl Classify for QueryError {
    fn retry_class(&self) -> RetryClass {
        match self {
            Self::Lake(_) => RetryClass::Transient,
            _ => RetryClass::Definite,
        }
    }
}

impl QueryError {
    /// Sorts an error of DataFusion by its root, whatever was wrapped around it.
    pub(super) fn from_datafusion(error: &DataFusionError, limit_bytes: usize) -> Self {
        let root = error.find_root();
        match root {
            DataFusionError::SQL(parser, _) => Self::syntax(&parser.to_string()),
            DataFusionError::SchemaError(schema, _) => Self::from_schema(schema),
            DataFusionError::ResourcesExhausted(_) => Self::OutOfMemory { limit_bytes },
            DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
                Self::Lake(one_line(&root.message()))
            }
            DataFusionError::ArrowError(arrow, _) => Self::from_arrow(arrow),
            DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => {
                Self::Invalid(one_line(message))
            }
            other => Self::Execution(without_values(&other.message())),
        }
    }

    /// "sql parser error: Expected: …, found: … at Line: 1, Column: 8": the parser has no other place for the position.
    pub(super) fn syntax(text: &str) -> Self {
        let text = one_line(text);
        let text = text.strip_prefix("sql parser error: ").unwrap_or(&text);
        let (message, position) = match text.rsplit_once(" at Line: ") {
            Some((message, position)) => (message, position.split_once(", Column: ")),
            None => (text, None),
        };
        let number = |digits: &str| digits.trim_end_matches('.').parse().ok();
        let line = position.and_then(|(line, _)| number(line));
        let column = position.and_then(|(_, column)| number(column));
        Self::Syntax { line, column, message: message.replace("Expected: ", "expected ").replace("found: ", "found ") }
    }

    fn from_schema(error: &SchemaError) -> Self {
        match error {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let columns: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
                let similar = similar(&field.name, &columns);
                Self::UnknownColumn { name: field.name.clone(), similar, columns }
            }
            other => Self::Invalid(one_line(&other.to_string())),
        }
    }

    /// Arrow's messages quote the value; what it was to become is all that may be said.
    fn from_arrow(error: &ArrowError) -> Self {
        let reason = match error {
            ArrowError::DivideByZero => "division by zero".to_owned(),
            ArrowError::ArithmeticOverflow(_) => "a number is out of range".to_owned(),
            ArrowError::CastError(text) | ArrowError::ParseError(text) => match target_type(text) {
                Some(target) => format!("it cannot be cast to {target}"),
                None => "it cannot be cast".to_owned(),
            },
            ArrowError::IoError(..) | ArrowError::ParquetError(_) => {
                return Self::Lake("a file is not readable".into());
            }
            ArrowError::MemoryError(_) => return Self::Execution("out of memory".into()),
            _ => return Self::Execution("the engine could not compute a column of the answer".into()),
        };
        Self::Value(reason)
    }
}

/// The type at the end of "Cannot cast string '…' to value of Int32 type", if it is one: the value may hold the same words.
fn target_type(text: &str) -> Option<DataType> {
    let (_, target) = text.rsplit_once(" to value of ")?;
    target.trim().trim_end_matches(" type").parse().ok()
}

/// The beginning of a sentence, up to where it may quote a value: functions write theirs with and without quotation marks.
fn without_values(message: &str) -> String {
    let may_open_a_value =
        |letter: char| !(letter.is_ascii_alphabetic() || letter == ' ' || letter == '_' || letter == ',');
    let line = one_line(message);
    match line.find(may_open_a_value) {
        None => line,
        Some(end) => {
            let words = line.get(..end).unwrap_or_default().trim_end();
            format!("{words} … (what follows is not shown, because it may hold a value of the lake)")
        }
    }
}

/// Names that a person may have meant, closest first.
pub(super) fn similar(name: &str, known: &[String]) -> Vec<String> {
    use deltalake::datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
    const CLOSE_ENOUGH: f64 = 0.6;
    const AT_MOST: usize = 3;
    let name = name.to_lowercase();
    let closeness = |other: &String| {
        let other = other.to_lowercase();
        let contained = name.len() > 2 && (other.contains(&name) || name.contains(&other));
        if contained { 0.9 } else { normalized_levenshtein(&name, &other) }
    };
    let mut scored: Vec<(f64, &String)> = known.iter().map(|other| (closeness(other), other)).collect();
    scored.retain(|(score, _)| *score >= CLOSE_ENOUGH);
    scored.sort_by(|left, right| right.0.total_cmp(&left.0).then_with(|| left.1.cmp(right.1)));
    scored.dedup_by(|left, right| left.1 == right.1);
    scored.into_iter().take(AT_MOST).map(|(_, other)| other.clone()).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn at(line: &Option<u64>, column: &Option<u64>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(" at line {line}, column {column}"),
        _ => String::new(),
    }
}

fn did_you_mean(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!(", did you mean {}?", similar.join(" or ")) }
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 40;
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        let _ = write!(text, " and {} more", names.len() - SHOWN);
    }
    text
}

fn bytes(limit_bytes: &usize) -> bytesize::ByteSize {
    bytesize::ByteSize::b(u64::try_from(*limit_bytes).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_keeps_its_position() {
        let error = QueryError::syntax("sql parser error: Expected: an expression, found: FROM at Line: 2, Column: 8");
        assert_eq!(error.to_string(), "syntax error at line 2, column 8: expected an expression, found FROM");
        let error = QueryError::syntax("sql parser error: recursion limit exceeded");
        assert_eq!(error.to_string(), "syntax error: recursion limit exceeded");
    }

    #[test]
    fn a_cast_error_does_not_quote_the_value() {
        let arrow = ArrowError::CastError("Cannot cast string 'hunter2' to value of Int32 type".into());
        let error = QueryError::from_datafusion(&DataFusionError::ArrowError(Box::new(arrow), None), 0).to_string();
        assert!(!error.contains("hunter2") && error.contains("Int32"), "{error}");
    }

    #[test]
    fn no_error_of_a_function_quotes_the_value() {
        for message in [
            "Error parsing timestamp from 'canary': error parsing date",
            "Error parsing timestamp from 'it's canary' using format '%Y'",
            "Month value \"canary\" is out of range",
            "Failed to decode value: canary",
            "Number 4711 canary",
        ] {
            let error = DataFusionError::Execution(message.to_owned());
            let text = QueryError::from_datafusion(&error, 0).to_string();
            assert!(!text.contains("canary") && !text.contains("4711"), "{text}");
        }
        for message in ["Cannot cast string 'x to value of canary' to bool", "Cannot cast value canary"] {
            let arrow = ArrowError::CastError(message.to_owned());
            let error = QueryError::from_datafusion(&DataFusionError::ArrowError(Box::new(arrow), None), 0).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn close_names_are_suggested_and_far_ones_are_not() {
        let known = ["security_event", "security_event_hook_results", "statistics_daily_users"].map(String::from);
        assert_eq!(similar("securty_event", &known)[0], "security_event");
        assert_eq!(similar("event", &known).len(), 2);
        assert!(similar("orders", &known).is_empty());
    }
}
