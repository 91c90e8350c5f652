//! The rows of one partition on their way into one file: unencoded first, then in an encoder.

use super::encoder::{EncodedFile, Encoder, Encoding};
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::parquet::errors::ParquetError;

/// A file that grows.
#[derive(Default)]
pub(super) struct OpenFile {
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    encoder: Option<Encoder>,
}

impl OpenFile {
    pub(super) fn push(&mut self, rows: RecordBatch) {
        self.waiting_bytes += rows.get_array_memory_size();
        self.waiting.push(rows);
    }

    /// Memory of the rows that wait unencoded.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Size of the file if it were finished now, roughly; the rows that wait left out.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoder.as_ref().map_or(0, Encoder::encoded_bytes)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.waiting_bytes + self.encoder.as_ref().map_or(0, Encoder::memory_bytes)
    }

    pub(super) fn encode_waiting(&mut self, encoding: &Encoding) -> Result<(), ParquetError> {
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new(encoding)?,
        };
        for rows in self.waiting.drain(..) {
            encoder.write(&rows)?;
        }
        self.waiting_bytes = 0;
        self.encoder = Some(encoder);
        Ok(())
    }

    pub(super) fn finish(mut self, encoding: &Encoding) -> Result<Option<EncodedFile>, ParquetError> {
        self.encode_waiting(encoding)?;
        self.encoder.map(|encoder| encoder.finish(&encoding.schema)).transpose()
    }
}
