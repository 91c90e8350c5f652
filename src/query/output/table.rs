//! An aligned table, as psql prints it.

use super::OutputError;
use super::csv::push_plain;
use super::value;
use super::width::width;
use deltalake::arrow::datatypes::Schema;
use deltalake::arrow::record_batch::RecordBatch;
use std::io::Write;

/// Rows and bytes that are held back to measure the columns. Later rows keep to the widths found, and where a value is wider
/// its line is longer.
const MEASURED_ROWS: usize = 1_000;
const MEASURED_BYTES: usize = 4 << 20;
/// Neither empty nor a likely string.
const NULL: &str = "<null>";

/// A table whose columns are measured on its first rows.
pub(super) struct Layout {
    columns: Vec<Column>,
    held: Vec<Vec<String>>,
    held_bytes: usize,
    header_written: bool,
    rows: u64,
}

struct Column {
    name: String,
    to_the_right: bool,
    width: usize,
}

impl Layout {
    pub(super) fn new(schema: &Schema) -> Self {
        let column = |field: &deltalake::arrow::datatypes::FieldRef| {
            let name = printable(field.name());
            Column { width: width(&name), name, to_the_right: value::is_number(field.data_type()) }
        };
        let columns = schema.fields().iter().map(column).collect();
        Self { columns, held: Vec::new(), held_bytes: 0, header_written: false, rows: 0 }
    }

    pub(super) fn rows(&mut self, out: &mut impl Write, batch: &RecordBatch) -> Result<(), OutputError> {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(self.columns.len());
            for (position, array) in batch.columns().iter().enumerate() {
                cells.push(if value::is_null(array.as_ref(), row) {
                    NULL.to_owned()
                } else {
                    let mut text = String::new();
                    push_plain(&mut text, array.as_ref(), row)
                        .map_err(|_| OutputError::unprintable(batch.schema_ref(), position))?;
                    printable(&text)
                });
            }
            self.rows += 1;
            if self.header_written {
                self.write_row(out, &cells)?;
            } else {
                self.hold(out, cells)?;
            }
        }
        Ok(())
    }

    fn hold(&mut self, out: &mut impl Write, cells: Vec<String>) -> Result<(), OutputError> {
        for (column, cell) in self.columns.iter_mut().zip(&cells) {
            column.width = column.width.max(width(cell));
        }
        self.held_bytes += cells.iter().map(String::len).sum::<usize>();
        self.held.push(cells);
        let full = self.held.len() >= MEASURED_ROWS || self.held_bytes >= MEASURED_BYTES;
        if full { self.release(out) } else { Ok(()) }
    }

    /// Fixes the widths and writes what was held back.
    pub(super) fn release(&mut self, out: &mut impl Write) -> Result<(), OutputError> {
        if !self.header_written {
            self.header_written = true;
            self.write_header(out)?;
        }
        for cells in std::mem::take(&mut self.held) {
            self.write_row(out, &cells)?;
        }
        self.held_bytes = 0;
        Ok(())
    }

    /// Writes the rest and the count that says the answer is complete.
    pub(super) fn end(&mut self, out: &mut impl Write) -> Result<(), OutputError> {
        self.release(out)?;
        let noun = if self.rows == 1 { "row" } else { "rows" };
        Ok(writeln!(out, "({} {noun})", self.rows)?)
    }

    fn write_header(&self, out: &mut impl Write) -> Result<(), OutputError> {
        let mut line = String::new();
        for (position, column) in self.columns.iter().enumerate() {
            line.push_str(if position > 0 { " | " } else { " " });
            let space = column.width.saturating_sub(width(&column.name));
            pad(&mut line, space / 2);
            line.push_str(&column.name);
            pad(&mut line, space - space / 2);
        }
        let mut rule = String::new();
        for (position, column) in self.columns.iter().enumerate() {
            rule.push_str(if position > 0 { "+" } else { "" });
            rule.extend(std::iter::repeat_n('-', column.width + 2));
        }
        Ok(writeln!(out, "{}\n{rule}", line.trim_end())?)
    }

    fn write_row(&self, out: &mut impl Write, cells: &[String]) -> Result<(), OutputError> {
        let mut line = String::new();
        for (position, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            line.push_str(if position > 0 { " | " } else { " " });
            let space = column.width.saturating_sub(width(cell));
            if column.to_the_right {
                pad(&mut line, space);
            }
            line.push_str(cell);
            if !column.to_the_right && position + 1 < self.columns.len() {
                pad(&mut line, space);
            }
        }
        line.push('\n');
        Ok(out.write_all(line.as_bytes())?)
    }
}

fn pad(line: &mut String, spaces: usize) {
    line.extend(std::iter::repeat_n(' ', spaces));
}

/// One line, and nothing that a terminal would obey: a row's user agent was written by a stranger.
fn printable(text: &str) -> String {
    let obeyed = |letter: char| letter.is_control() || is_bidirectional(letter);
    if !text.contains(obeyed) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if obeyed(letter) {
            safe.extend(letter.escape_default());
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Letters that only turn the direction of what follows them.
fn is_bidirectional(letter: char) -> bool {
    matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}
