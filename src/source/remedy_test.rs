//! Every error of the control plane, with its remedy.

use super::{ColumnRole, SourceError};
use crate::base::TableName;
use crate::base::remedies::{Case, assert_remedies, every_variant};
use tokio_postgres::error::SqlState;

/// The driver makes its errors itself; this is the one kind that it makes without a server.
fn driver_error() -> tokio_postgres::Error {
    "port=x".parse::<tokio_postgres::Config>().unwrap_err()
}

pub(crate) fn every() -> Vec<Case<SourceError>> {
    let doing = || "reading the slot".to_owned();
    let table = || TableName::new("public", "event");
    let (column, steps) = (|| "at".to_owned(), "SELECT on public.event".to_owned());
    let remedy = || "ALTER TABLE public.event DO IT".to_owned();
    let (root, close) = (TableName::new("public", "events"), vec![TableName::new("public", "events")]);
    every_variant!(SourceError {
        Definite ["reading the slot", "no (SQLSTATE 42601)", "look into the server's log"]
            Server { doing: doing(), state: SqlState::SYNTAX_ERROR, message: "no".to_owned() };
        Transient ["reading the slot", "try again"] ConnectionLost { doing: doing(), source: driver_error() };
        Definite ["reading the slot", "use a supported server, PostgreSQL 14 to 18, or report this"]
            UnexpectedAnswer { doing: doing(), source: None };
        Definite ["table public.event does not exist", "(there is public.events)", "correct name in [[table]]"]
            TableMissing { table: table(), close };
        Definite ["public.event is a view", "name a table in [[table]]"] NotATable { table: table(), kind: "a view" };
        Definite ["public.event is a partition of public.events", "set name = \"public.events\" in [[table]]"]
            IsPartition { table: table(), root };
        Definite ["columns a and b of public.event", "both be a in the lake", "correct lake_columns in [[table]]"]
            OneLakeColumn { table: table(), columns: "a and b".to_owned(), lake_name: "a".to_owned() };
        Definite ["column at of public.event", "it dates the rows", "lake_columns = { … = \"at\" }", "as partition_column", "anew"]
            KeyColumnGone { table: table(), column: "at".to_owned(), role: ColumnRole::DatesRows };
        Definite ["column at of public.event", "its new type has no day", "change it back", "anew"]
            DatingColumnRetyped { table: table(), column: "at".to_owned() };
        Definite ["public.event", "make it permanent: ALTER TABLE … SET LOGGED"] NotLogged { table: table() };
        Definite ["public.event has no primary key", "add one: ALTER TABLE public.event DO IT"]
            NoPrimaryKey { table: table(), remedy: remedy() };
        Definite ["column at of public.event", "use a key of ordinary columns"]
            KeyNotPublished { table: table(), column: column() };
        Definite ["public.event has no column at", "correct partition_column in [[table]]"]
            PartitionColumnMissing { table: table(), column: column(), close: Vec::new() };
        Definite ["column at of public.event", "name a date, timestamp or timestamptz with partition_column in [[table]]"]
            PartitionColumnType { table: table(), column: column() };
        Definite ["public.event has no column at", "(there is id)", "correct text_columns in [[table]]"]
            TextColumnMissing { table: table(), column: column(), existing: vec!["id".to_owned()] };
        Definite ["column at of public.event", "remove it from text_columns in [[table]]"]
            TextPartitionColumn { table: table(), column: column() };
        Definite ["column at of public.event", "\"Asia/Tokyo\"", "remove it from [[table]], or use a timestamptz column"]
            ZoneWithoutMeaning { table: table(), column: column(), zone: "Asia/Tokyo" };
        Definite ["column at of public.event", "make it NOT NULL: ALTER TABLE public.event DO IT"]
            PartitionColumnNullable { table: table(), column: column(), remedy: remedy() };
        Definite ["roles.sql", ":login", "a fault of lakebed, report it"]
            UnknownPlaceholder { file: "roles.sql", name: "login".to_owned() };
        Definite ["SELECT on public.event", "run init with --admin-url of a superuser or of the tables' owner"]
            NotInForce { steps };
    })
}

/// What the server itself refuses, by its code.
pub(crate) fn every_state() -> Vec<Case<SourceError>> {
    use crate::base::RetryClass::{Definite, Transient};
    let cases: [(SqlState, _, &'static [&'static str]); 4] = [
        (
            SqlState::INSUFFICIENT_PRIVILEGE,
            Definite,
            &["SQLSTATE 42501", "or let `lakebed init --admin-url …` grant it"],
        ),
        (SqlState::UNDEFINED_FUNCTION, Definite, &["SQLSTATE 42883", "run `lakebed init` again"]),
        (SqlState::LOCK_NOT_AVAILABLE, Transient, &["SQLSTATE 55P03", "try again"]),
        (SqlState::TOO_MANY_CONNECTIONS, Transient, &["SQLSTATE 53300", "try again"]),
    ];
    let case = |(state, class, words)| {
        let error = SourceError::Server { doing: "reading the slot".to_owned(), state, message: "no".to_owned() };
        Case { error, class, words }
    };
    cases.into_iter().map(case).collect()
}

#[test]
fn every_error_of_the_control_plane_names_a_remedy() {
    assert_remedies(&every());
    assert_remedies(&every_state());
}

/// `check` shows what follows the first "; " as the remedy.
#[test]
fn every_remedy_follows_a_semicolon_or_is_a_statement() {
    for case in every().into_iter().chain(every_state()) {
        let message = case.error.to_string();
        assert!(message.contains("; ") || message.contains(": "), "{message}");
    }
}
