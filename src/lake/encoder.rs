//! One open Parquet file: rows in, compressed pages in memory, bytes and statistics out. CPU work, no IO.

use super::chunks::Chunks;
use super::schema::LakeSchema;
use super::statistics::file_statistics;
use deltalake::arrow::record_batch::RecordBatch;
use deltalake::logstore::object_store::PutPayload;
use deltalake::parquet::arrow::ArrowWriter;
use deltalake::parquet::arrow::arrow_writer::ArrowWriterOptions;
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::errors::ParquetError;
use deltalake::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use deltalake::parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Rows of a row group at most: small enough that closing one (which copies its pages) adds little to the memory, large
/// enough that readers skip and read ahead well.
const ROW_GROUP_ROWS: usize = 131_072;

/// Encoded bytes of a row group at most, for wide rows.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// What a column's zstd contexts hold at the levels used here; the encoder's own account leaves them out.
const CODEC_BYTES_PER_COLUMN: usize = 640 << 10;

/// Bytes of a string bound in the footer: 32 characters of any script fit.
const FOOTER_BOUND_BYTES: usize = 128;

/// How the files of a table are encoded.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) schema: Arc<LakeSchema>,
    properties: WriterProperties,
}

/// A finished file.
#[derive(Debug)]
pub(super) struct EncodedFile {
    pub(super) payload: PutPayload,
    pub(super) rows: u64,
    pub(super) statistics: String,
}

impl Encoding {
    /// zstd at `level`, and only encodings that every Parquet reader has known for ten years.
    pub(super) fn new(schema: Arc<LakeSchema>, level: i32) -> Result<Self, ParquetError> {
        let mut builder = WriterProperties::builder()
            .set_created_by(concat!("lakebed version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_statistics_truncate_length(Some(FOOTER_BOUND_BYTES));
        for name in schema.statistics.iter().filter_map(|index| schema.column_name(*index)) {
            builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::Page);
        }
        for name in schema.distinct.iter().filter_map(|index| schema.column_name(*index)) {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(name), false);
        }
        Ok(Self { schema, properties: builder.build() })
    }

    /// Whether both write the same values alike; that a column takes NULL or not makes no difference to a reader.
    pub(super) fn has_types_of(&self, other: &Encoding) -> bool {
        let (own, other) = (self.schema.arrow.fields(), other.schema.arrow.fields());
        own.len() == other.len() && own.iter().zip(other).all(|(own, other)| own.data_type() == other.data_type())
    }
}

/// A file being encoded.
pub(super) struct Encoder {
    writer: ArrowWriter<Chunks>,
    rows: u64,
    columns: usize,
}

impl Encoder {
    pub(super) fn new(encoding: &Encoding) -> Result<Self, ParquetError> {
        let options = ArrowWriterOptions::new()
            .with_properties(encoding.properties.clone())
            // Parquet's own types say everything; the Arrow schema would only repeat it in every footer.
            .with_skip_arrow_metadata(true);
        let arrow = encoding.schema.arrow.clone();
        let columns = arrow.fields().len();
        Ok(Self { writer: ArrowWriter::try_new_with_options(Chunks::default(), arrow, options)?, rows: 0, columns })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        self.writer.write(rows)?;
        self.rows += rows.num_rows() as u64;
        Ok(())
    }

    /// Size of the file if it were finished now, roughly.
    pub(super) fn encoded_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Memory held, compression contexts included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.writer.inner().memory_bytes() + self.loose_bytes()
    }

    /// The part of it that [`Self::seal`] turns into far fewer encoded bytes: pages that still grow, and a compression context for
    /// each column.
    pub(super) fn loose_bytes(&self) -> usize {
        let contexts = if self.writer.in_progress_rows() > 0 { self.columns * CODEC_BYTES_PER_COLUMN } else { 0 };
        self.writer.memory_size() + contexts
    }

    /// Ends the row group. What is held afterwards is the file's bytes and nothing else.
    pub(super) fn seal(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()?;
        self.writer.inner_mut().trim();
        Ok(())
    }

    pub(super) fn finish(mut self, schema: &LakeSchema) -> Result<EncodedFile, ParquetError> {
        let metadata = self.writer.finish()?;
        let statistics = file_statistics(schema, &metadata, self.rows);
        let payload = std::mem::take(self.writer.inner_mut()).into_payload();
        Ok(EncodedFile { payload, rows: self.rows, statistics })
    }
}
