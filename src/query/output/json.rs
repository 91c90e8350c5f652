//! JSON (RFC 8259): an array of objects, one row a line.

use super::OutputError;
use super::value::{self, Custom};
use deltalake::arrow::array::{Array, ArrayRef, AsArray};
use deltalake::arrow::datatypes::{DataType, Schema};
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;

/// Refuses an answer whose rows are no JSON objects.
pub(super) fn check_names(schema: &Schema) -> Result<(), OutputError> {
    let mut names = BTreeSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name())) {
        Some(field) => Err(OutputError::SameName { column: field.name().clone() }),
        None => Ok(()),
    }
}

/// Writes the rows behind `rows` earlier ones of the same array; how many there are now.
pub(super) fn write_rows(out: &mut impl Write, batch: &RecordBatch, rows: u64) -> Result<u64, OutputError> {
    let mut names = Vec::with_capacity(batch.num_columns());
    for (position, field) in batch.schema_ref().fields().iter().enumerate() {
        let mut name = String::new();
        push_string(&mut name, field.name()).map_err(|_| OutputError::unprintable(batch.schema_ref(), position))?;
        names.push(name);
    }
    let mut line = String::new();
    let mut written = rows;
    for row in 0..batch.num_rows() {
        line.clear();
        line.push_str(if written == 0 { "\n{" } else { ",\n{" });
        for (position, (name, array)) in names.iter().zip(batch.columns()).enumerate() {
            if position > 0 {
                line.push(',');
            }
            line.push_str(name);
            line.push(':');
            push_value(&mut line, array.as_ref(), row)
                .map_err(|_| OutputError::unprintable(batch.schema_ref(), position))?;
        }
        line.push('}');
        out.write_all(line.as_bytes())?;
        written += 1;
    }
    Ok(written)
}

/// Whether values of the type are not made of others. A dictionary is only a way to store them.
pub(super) fn is_scalar(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_scalar(values),
        other => !other.is_nested(),
    }
}

/// Appends a value, NULL included. Numbers keep all their digits; those that JSON has no number for (NaN, Infinity) are
/// strings.
pub(super) fn push_value(out: &mut String, array: &dyn Array, row: usize) -> fmt::Result {
    if value::is_null(array, row) {
        out.push_str("null");
        return Ok(());
    }
    match array.data_type() {
        DataType::Boolean => value::push_text(out, array, row, Custom::Iso),
        DataType::List(_) => push_list(out, &array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => push_list(out, &array.as_list::<i64>().value(row)),
        DataType::ListView(_) => push_list(out, &array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => push_list(out, &array.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(..) => push_list(out, &array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let members = fields.iter().map(|field| field.name()).zip(array.as_struct().columns());
            push_object(out, members.map(|(name, member)| (name.clone(), member, row)))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = match entries.columns() {
                [keys, values] => (keys, values),
                _ => return Err(fmt::Error),
            };
            let mut members = Vec::with_capacity(keys.len());
            for entry in 0..keys.len() {
                let mut name = String::new();
                value::push_text(&mut name, keys.as_ref(), entry, Custom::Iso)?;
                members.push((name, values, entry));
            }
            push_object(out, members.into_iter())
        }
        data_type => {
            let mut text = String::new();
            value::push_text(&mut text, array, row, Custom::Iso)?;
            let is_finite = text.ends_with(|last: char| last.is_ascii_digit());
            if value::is_number(data_type) && is_finite {
                out.push_str(&text);
                Ok(())
            } else {
                push_string(out, &text)
            }
        }
    }
}

fn push_list(out: &mut String, items: &ArrayRef) -> fmt::Result {
    out.push('[');
    for item in 0..items.len() {
        if item > 0 {
            out.push(',');
        }
        push_value(out, items.as_ref(), item)?;
    }
    out.push(']');
    Ok(())
}

fn push_object<'a>(out: &mut String, members: impl Iterator<Item = (String, &'a ArrayRef, usize)>) -> fmt::Result {
    out.push('{');
    for (position, (name, values, row)) in members.enumerate() {
        if position > 0 {
            out.push(',');
        }
        push_string(out, &name)?;
        out.push(':');
        push_value(out, values.as_ref(), row)?;
    }
    out.push('}');
    Ok(())
}

fn push_string(out: &mut String, text: &str) -> fmt::Result {
    out.push_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?);
    Ok(())
}
