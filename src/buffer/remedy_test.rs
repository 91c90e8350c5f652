//! Every reason to refuse a row or a relation, with its remedy. That no cell is shown is tested where rows are refused.

use super::row_key_test::refused_cell;
use super::{BufferError, RowKey, SchemaChange};
use crate::base::TableName;
use crate::base::remedies::{Case, assert_line, assert_remedies, every_variant};
use crate::decode::DecodeError;
use crate::decode::value::ValueError;
use deltalake::arrow::error::ArrowError;

fn table() -> TableName {
    TableName::new("public", "event")
}

fn key() -> RowKey {
    refused_cell().key
}

pub(crate) fn every() -> Vec<Case<BufferError>> {
    let cell = || Box::new(refused_cell());
    let change = SchemaChange::Added { column: "extra".to_owned() };
    every_variant!(BufferError {
        Definite ["public.event", "column extra was added", "set the table up anew in an empty lake folder"]
            SchemaChanged { table: table(), change };
        Definite ["public.event", "name another partition_column"] PartitionColumn { table: table() };
        Definite ["public.event", "report this with the server's version"] NotBound { table: table() };
        Definite ["public.event", "row of 2 columns for a table of 3", "report this with the server's version"]
            ColumnCount { table: table(), expected: 3, found: 2 };
        Definite ["public.event.amount of row id=7", "set the table up anew in an empty lake folder"]
            NullNotAllowed { cell: cell() };
        Definite ["public.event.amount of row id=7", "declare the column NOT NULL", "step over the transaction with `lakebed skip`"]
            NoPartition { cell: cell() };
        Definite ["public.event.amount of row id=7", "report this with the server's version"] Unchanged { cell: cell() };
        Definite ["public.event.amount of row id=7", "NaN", "text_columns", "`lakebed skip`", "on_error = \"park\""]
            Value { cell: cell(), dates_the_row: false, source: ValueError::DecimalNotFinite };
        Definite ["public.event", "report this with the server's version"] Decode { table: table(), source: DecodeError::Empty };
        Definite ["public.event", "row id=7", "2000000000 bytes", "1 GiB", "`lakebed skip`", "on_error = \"park\""]
            RowTooLarge { table: table(), key: key(), bytes: 2_000_000_000 };
        Definite ["public.event", "named by id, and not by number", "make those of all partitions equal", "`lakebed skip`", "on_error = \"park\""]
            IdentityDiffers { table: table(), sent: "id".to_owned(), expected: "number".to_owned() };
        Definite ["public.event", "row id=7", "replica identities differ", "make them equal", "`lakebed skip`", "on_error = \"park\""]
            IdentityAmbiguous { table: table(), key: key() };
        Definite ["public.event", "4294967295 changes", "`lakebed skip`", "on_error = \"park\""]
            TooManyChanges { table: table() };
        Definite ["public.event", "report this as a defect of lakebed"]
            Arrow { table: table(), source: ArrowError::ComputeError("lengths differ".to_owned()) };
    })
}

#[test]
fn every_refusal_names_the_row_and_a_remedy() {
    assert_remedies(&every());
}

#[test]
fn every_change_of_a_schema_is_named() {
    let column = || "extra".to_owned();
    let changes = [
        SchemaChange::Renamed { now: TableName::new("public", "events") },
        SchemaChange::Added { column: column() },
        SchemaChange::Dropped { column: column() },
        SchemaChange::Retyped { column: column() },
    ];
    for change in changes {
        let words: &[&str] = match &change {
            SchemaChange::Renamed { .. } => &["now named public.events"],
            SchemaChange::Added { .. } => &["column extra was added"],
            SchemaChange::Dropped { .. } => &["column extra was dropped, renamed or left out of the publication"],
            SchemaChange::Retyped { .. } => &["column extra changed its type"],
        };
        let message = BufferError::SchemaChanged { table: table(), change }.to_string();
        assert_line(&message, words);
        assert_line(&message, &["set the table up anew in an empty lake folder"]);
    }
}
