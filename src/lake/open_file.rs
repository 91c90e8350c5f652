//! The rows of one partition on their way into one file: unencoded first, then in an encoder.

use super::encoder::{EncodedFile, Encoder, Encoding};
use crate::base::{Runs, XidSet};
use crate::buffer::PartitionBatch;
use deltalake::arrow::error::ArrowError;
use deltalake::parquet::errors::ParquetError;

/// A file that grows.
#[derive(Default)]
pub(super) struct OpenFile {
    /// Arrived after everything in the encoder.
    waiting: Vec<PartitionBatch>,
    waiting_bytes: usize,
    encoder: Option<Encoder>,
    /// Of the rows in the encoder.
    xids: Option<Runs>,
    /// Of the rows in the encoder; None as long as all of them came before the first change.
    eras: Option<Runs>,
    encoded_rows: u64,
}

/// A file's bytes, and whose rows they are.
pub(super) struct FinishedFile {
    pub(super) encoded: EncodedFile,
    pub(super) xids: Option<Runs>,
    pub(super) eras: Option<Runs>,
}

impl OpenFile {
    /// Adds rows behind all others, or says why they do not belong there.
    pub(super) fn push(&mut self, batch: PartitionBatch) -> Result<(), &'static str> {
        if batch.xids.as_ref().is_some_and(|xids| xids.rows() != batch.rows.num_rows() as u64) {
            return Err("their transaction ids are of another number of rows");
        }
        if self.has_xids().is_some_and(|with| with != batch.xids.is_some()) {
            return Err("some have transaction ids, others do not");
        }
        self.waiting_bytes += memory_of(&batch);
        self.waiting.push(batch);
        Ok(())
    }

    /// Whether the rows so far carry transaction ids; None without rows.
    fn has_xids(&self) -> Option<bool> {
        match self.waiting.last() {
            Some(batch) => Some(batch.xids.is_some()),
            None => self.encoder.as_ref().map(|_| self.xids.is_some()),
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.encoder.is_none()
    }

    /// Drops what is not encoded yet and belongs to a (sub)transaction that was rolled back.
    pub(super) fn drop_waiting(&mut self, aborted: &XidSet) -> Result<(), ArrowError> {
        let kept = self.waiting.drain(..).map(|batch| batch.without(aborted)).collect::<Result<Vec<_>, _>>()?;
        self.waiting = kept.into_iter().filter(|batch| batch.rows.num_rows() > 0).collect();
        self.waiting_bytes = self.waiting.iter().map(memory_of).sum();
        Ok(())
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
        let encoded = self.encoder.as_ref().map_or(0, Encoder::memory_bytes);
        self.waiting_bytes + encoded + memory_of_runs(&self.xids) + memory_of_runs(&self.eras)
    }

    /// Memory that [`Self::seal`] turns into far fewer encoded bytes.
    pub(super) fn loose_bytes(&self) -> usize {
        self.waiting_bytes + self.encoder.as_ref().map_or(0, Encoder::loose_bytes)
    }

    /// Encodes everything and ends the row group.
    pub(super) fn seal(&mut self, encoding: &Encoding) -> Result<(), ParquetError> {
        self.encode_waiting(encoding)?;
        self.encoder.as_mut().map_or(Ok(()), Encoder::seal)
    }

    pub(super) fn encode_waiting(&mut self, encoding: &Encoding) -> Result<(), ParquetError> {
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => Encoder::new(encoding)?,
        };
        for batch in self.waiting.drain(..) {
            encoder.write(&batch.rows)?;
            let (before, rows) = (self.encoded_rows, batch.rows.num_rows() as u64);
            self.encoded_rows += rows;
            match (&batch.eras, &mut self.eras) {
                (None, None) => {}
                (None, Some(eras)) => eras.push(0, rows),
                (Some(following), eras) => eras.get_or_insert_with(|| Runs::of(0, before)).extend(following),
            }
            if let Some(following) = &batch.xids {
                self.xids.get_or_insert_default().extend(following);
            }
        }
        self.waiting_bytes = 0;
        self.encoder = Some(encoder);
        Ok(())
    }

    /// The file's bytes; None for a file without an encoder, which [`Self::encode_waiting`] leaves none.
    pub(super) fn finish(mut self, encoding: &Encoding) -> Result<Option<FinishedFile>, ParquetError> {
        self.encode_waiting(encoding)?;
        let Some(encoder) = self.encoder else { return Ok(None) };
        Ok(Some(FinishedFile { encoded: encoder.finish(&encoding.schema)?, xids: self.xids, eras: self.eras }))
    }
}

fn memory_of(batch: &PartitionBatch) -> usize {
    batch.rows.get_array_memory_size() + memory_of_runs(&batch.xids) + memory_of_runs(&batch.eras)
}

fn memory_of_runs(runs: &Option<Runs>) -> usize {
    runs.as_ref().map_or(0, Runs::memory_bytes)
}
