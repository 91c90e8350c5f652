//! CSV after RFC 4180. NULL is an empty field without quotes and '' an empty field with them, as in PostgreSQL's COPY, so
//! that a reader who cares can tell.
//!
//! In an answer of one column NULL has the quotes, too: without them its line would be empty, which most readers skip (and count
//! one row less), and which here stands between two answers.

use super::OutputError;
use super::json;
use super::value::{self, Custom};
use deltalake::arrow::array::Array;
use deltalake::arrow::datatypes::Schema;
use deltalake::arrow::record_batch::RecordBatch;
use std::io::Write;

pub(super) fn write_header(out: &mut impl Write, schema: &Schema) -> Result<(), OutputError> {
    let mut line = String::new();
    for (position, field) in schema.fields().iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        push_field(&mut line, field.name());
    }
    line.push('\n');
    Ok(out.write_all(line.as_bytes())?)
}

pub(super) fn write_rows(out: &mut impl Write, batch: &RecordBatch) -> Result<(), OutputError> {
    let mut line = String::new();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        line.clear();
        for (position, array) in batch.columns().iter().enumerate() {
            if position > 0 {
                line.push(',');
            }
            if value::is_null(array.as_ref(), row) {
                continue;
            }
            text.clear();
            push_plain(&mut text, array.as_ref(), row)
                .map_err(|_| OutputError::unprintable(batch.schema_ref(), position))?;
            push_field(&mut line, &text);
        }
        if line.is_empty() && batch.num_columns() == 1 {
            push_field(&mut line, "");
        }
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// A value outside JSON: its text, or JSON where it is nested.
pub(super) fn push_plain(out: &mut String, array: &dyn Array, row: usize) -> std::fmt::Result {
    if array.data_type().is_nested() && !json::is_scalar(array.data_type()) {
        json::push_value(out, array, row)
    } else {
        value::push_text(out, array, row, Custom::Plain)
    }
}

fn push_field(line: &mut String, text: &str) {
    let special = |byte: u8| matches!(byte, b',' | b'"' | b'\r' | b'\n');
    let edges = text.starts_with(' ') || text.ends_with(' ');
    if !text.is_empty() && !edges && !text.bytes().any(special) {
        line.push_str(text);
        return;
    }
    line.push('"');
    for (position, part) in text.split('"').enumerate() {
        if position > 0 {
            line.push_str("\"\"");
        }
        line.push_str(part);
    }
    line.push('"');
}
