//! Rows as text: an aligned table for people, CSV and JSON for programs.
//!
//! Rows go out batch by batch; only the table holds some back, to measure its columns. NULL and the empty string look
//! different in every format (but for CSV of one column, see `csv`), and every value is exact: all digits, all microseconds.
//! What a value looks like is decided in `value` once for all formats.

mod csv;
mod json;
mod table;
mod value;
mod width;

use deltalake::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use deltalake::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

/// What answers look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns and a count of rows, as psql prints them; NULL is `<null>`, control characters are escaped.
    #[default]
    Table,
    /// RFC 4180 with a header line and, as PostgreSQL writes it, line feeds; NULL is nothing at all, '' is `""`, and so is the NULL
    /// of an answer of one column. An empty line sets answers apart.
    Csv,
    /// An array of objects, one row a line; numbers with all their digits, timestamps in UTC, binary as hexadecimal text.
    Json,
}

/// Why rows did not reach their reader.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader went away, as `head` does: no reason to complain.
    #[error("the output was closed")]
    Closed,
    /// A JSON object has each name once; a reader would keep one of the two.
    #[error("the answer has two columns {column:?}, which JSON cannot hold: name one of them otherwise with AS")]
    SameName {
        /// The name.
        column: String,
    },
    /// A file system or terminal refused the text.
    #[error("writing the answer failed: {0}")]
    Io(io::Error),
    /// A value that has no text in the calendar or in its type.
    #[error("column {column:?} holds a value that cannot be written as {data_type}")]
    Unprintable {
        /// The answer's column.
        column: String,
        /// Its Arrow type.
        data_type: String,
    },
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Io(error) }
    }
}

impl OutputError {
    fn unprintable(schema: &Schema, position: usize) -> Self {
        let field = schema.fields().get(position);
        let describe = |part: fn(&Field) -> String| field.map(|field| part(field)).unwrap_or_default();
        Self::Unprintable {
            column: describe(|field| field.name().clone()),
            data_type: describe(|field| field.data_type().to_string()),
        }
    }
}

/// Writes answers, one after the other: [`Self::begin`], [`Self::rows`] for each batch, [`Self::end`].
pub struct ResultWriter<W: Write> {
    out: BufWriter<W>,
    format: Format,
    answer: Option<Answer>,
    answers: u64,
    rows: u64,
}

/// The answer that is being written.
enum Answer {
    Table(table::Layout),
    Csv,
    Json { rows: u64 },
}

impl<W: Write> ResultWriter<W> {
    /// A writer of any number of answers to `out`.
    pub fn new(format: Format, out: W) -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, out), format, answer: None, answers: 0, rows: 0 }
    }

    /// Opens an answer with these columns. Answers are set apart by an empty line in table and CSV.
    pub fn begin(&mut self, schema: &Schema) -> Result<(), OutputError> {
        if self.answers > 0 && self.format != Format::Json {
            self.out.write_all(b"\n")?;
        }
        self.answers += 1;
        self.answer = Some(match self.format {
            Format::Table => Answer::Table(table::Layout::new(schema)),
            Format::Csv => {
                csv::write_header(&mut self.out, schema)?;
                Answer::Csv
            }
            Format::Json => {
                json::check_names(schema)?;
                self.out.write_all(b"[")?;
                Answer::Json { rows: 0 }
            }
        });
        Ok(())
    }

    /// Writes the rows of one batch, and hands them on at once.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<(), OutputError> {
        let batch = &without_dictionaries(batch)?;
        match &mut self.answer {
            Some(Answer::Table(layout)) => layout.rows(&mut self.out, batch)?,
            Some(Answer::Csv) => csv::write_rows(&mut self.out, batch)?,
            Some(Answer::Json { rows }) => *rows = json::write_rows(&mut self.out, batch, *rows)?,
            None => return Ok(()),
        }
        self.rows = self.rows.saturating_add(u64::try_from(batch.num_rows()).unwrap_or(u64::MAX));
        self.out.flush()?;
        Ok(())
    }

    /// Closes the answer: it is complete.
    pub fn end(&mut self) -> Result<(), OutputError> {
        match self.answer.take() {
            Some(Answer::Table(mut layout)) => layout.end(&mut self.out)?,
            Some(Answer::Json { rows: 0 }) => self.out.write_all(b"]\n")?,
            Some(Answer::Json { .. }) => self.out.write_all(b"\n]\n")?,
            Some(Answer::Csv) | None => {}
        }
        self.out.flush()?;
        Ok(())
    }

    /// The rows written in all. An answer that was not ended broke off: its rows are shown, without the closing that would
    /// call it complete.
    pub fn finish(mut self) -> Result<u64, OutputError> {
        match self.answer.take() {
            Some(Answer::Table(mut layout)) => layout.release(&mut self.out)?,
            Some(Answer::Json { .. }) => self.out.write_all(b"\n")?,
            Some(Answer::Csv) | None => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// A dictionary is looked up a batch at a time, not a cell at a time.
fn without_dictionaries(batch: &RecordBatch) -> Result<RecordBatch, OutputError> {
    let is_dictionary = |field: &FieldRef| matches!(field.data_type(), DataType::Dictionary(..));
    if !batch.schema_ref().fields().iter().any(is_dictionary) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (position, (field, column)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
        let unpacked = match field.data_type() {
            DataType::Dictionary(_, values) => deltalake::arrow::compute::cast(column, values),
            _ => Ok(Arc::clone(column)),
        };
        let unpacked = unpacked.map_err(|_| OutputError::unprintable(batch.schema_ref(), position))?;
        fields.push(Field::new(field.name(), unpacked.data_type().clone(), true));
        columns.push(unpacked);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|error| OutputError::Io(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
