//! Leaving out the rows of rolled-back subtransactions from a file that is uploaded already.
//!
//! The file is read back a row group at a time, so that memory holds one row group, the rows of one batch and the new file.

use super::encoder::{EncodedFile, Encoder};
use super::error::LakeError;
use super::staged::StagedFile;
use super::target::{Target, widened};
use bytes::{Buf, Bytes};
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::logstore::object_store::path::Path;
use deltalake::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use deltalake::parquet::errors::{ParquetError, Result as ParquetResult};
use deltalake::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use deltalake::parquet::file::reader::{ChunkReader, Length};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a file's end that are fetched for its footer; a footer that is larger is fetched again, whole.
const FOOTER_BYTES: u64 = 64 << 10;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 2_048;

/// The rows `live` of a staged file, encoded anew in the same order, as the target encodes; statistics are those of these rows.
pub(super) async fn keep_live_rows(
    target: &Target,
    file: &StagedFile,
    live: &[Range<u64>],
) -> Result<EncodedFile, LakeError> {
    let path = Path::from(file.path.as_str());
    let metadata = footer(target, &path, file).await?;
    let _turn = target.encoder_turn().await;
    let encoding = target.encoding.clone();
    let mut encoder = target.beside_the_reactor(move || Encoder::new(&encoding)).await?;
    let mut first = 0;
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let selected = part_of(live, first..first + rows);
        first += rows;
        if selected.is_empty() {
            continue;
        }
        let extent = group.columns().iter().map(|column| column.byte_range());
        let start = extent.clone().map(|(start, _)| start).min().unwrap_or(0);
        let end = extent.map(|(start, length)| start.saturating_add(length)).max().unwrap_or(start);
        let group = RowGroup { start, bytes: target.get_range(&path, start..end).await? };
        let (metadata, schema) = (metadata.clone(), target.encoding.schema.arrow.clone());
        let copy = move || copy_rows(encoder, &schema, group, metadata, (index, rows), &selected);
        encoder = target.beside_the_reactor(copy).await?;
    }
    if first != file.rows {
        return Err(target.unfit(format!("a staged file holds {first} rows where {} were written", file.rows)));
    }
    let encoding = target.encoding.clone();
    target.beside_the_reactor(move || encoder.finish(&encoding.schema)).await
}

async fn footer(target: &Target, path: &Path, file: &StagedFile) -> Result<ArrowReaderMetadata, LakeError> {
    let size_bytes = file.size_bytes;
    let mut wanted = FOOTER_BYTES;
    loop {
        let fetched = wanted.min(size_bytes);
        let tail = target.get_range(path, size_bytes - fetched..size_bytes).await?;
        let schema = file.encoding.schema.arrow.clone();
        let parsed = target
            .beside_the_reactor(move || {
                Ok(match parse_footer(&tail, size_bytes)? {
                    Footer::Needs(bytes) => Err(bytes),
                    Footer::Parsed(metadata) => {
                        let options = ArrowReaderOptions::new().with_schema(schema);
                        Ok(ArrowReaderMetadata::try_new(metadata, options)?)
                    }
                })
            })
            .await?;
        match parsed {
            Ok(metadata) => return Ok(metadata),
            // The parser asks for more than it was given, and never for more than there is.
            Err(bytes) if bytes > fetched => wanted = bytes,
            Err(_) => return Err(target.unfit("the footer of a staged file is not readable".to_owned())),
        }
    }
}

enum Footer {
    Parsed(Arc<ParquetMetaData>),
    Needs(u64),
}

fn parse_footer(tail: &Bytes, size_bytes: u64) -> ParquetResult<Footer> {
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(tail, size_bytes) {
        Ok(()) => Ok(Footer::Parsed(Arc::new(reader.finish()?))),
        Err(ParquetError::NeedMoreData(bytes)) => Ok(Footer::Needs(bytes as u64)),
        Err(error) => Err(error),
    }
}

/// What of `live` lies in the row group `rows`, counted from its first row.
fn part_of(live: &[Range<u64>], rows: Range<u64>) -> Vec<Range<usize>> {
    let begin = live.partition_point(|range| range.end <= rows.start);
    let inside = live.iter().skip(begin).take_while(|range| range.start < rows.end);
    let index = |row: u64| usize::try_from(row.clamp(rows.start, rows.end) - rows.start).unwrap_or(usize::MAX);
    inside.map(|range| index(range.start)..index(range.end)).collect()
}

fn copy_rows(
    mut encoder: Encoder,
    schema: &SchemaRef,
    group: RowGroup,
    metadata: ArrowReaderMetadata,
    (index, rows): (usize, u64),
    selected: &[Range<usize>],
) -> ParquetResult<Encoder> {
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    let selection = RowSelection::from_consecutive_ranges(selected.iter().cloned(), rows);
    let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(group, metadata)
        .with_row_groups(vec![index])
        .with_row_selection(selection)
        .with_batch_size(BATCH_ROWS)
        .build()?;
    for batch in batches {
        encoder.write(&widened(&batch?, schema)?)?;
    }
    Ok(encoder)
}

/// The bytes of one row group, addressed by their place in the whole file.
struct RowGroup {
    start: u64,
    bytes: Bytes,
}

impl RowGroup {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let offset = start.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        match offset.filter(|offset| *offset <= self.bytes.len()) {
            Some(offset) => Ok(self.bytes.slice(offset..)),
            None => Err(ParquetError::EOF("a page lies outside its row group".to_owned())),
        }
    }
}

impl Length for RowGroup {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for RowGroup {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let rest = self.from(start)?;
        if length > rest.len() {
            return Err(ParquetError::EOF("a page ends outside its row group".to_owned()));
        }
        Ok(rest.slice(..length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_are_cut_at_the_edges_of_row_groups() {
        let one = |range: Range<usize>| Vec::from_iter([range]);
        let live = [2..5, 7..20, 30..31];
        assert!(part_of(&live, 0..2).is_empty());
        assert_eq!(part_of(&live, 0..10), [2..5, 7..10]);
        assert_eq!(part_of(&live, 10..20), one(0..10));
        assert!(part_of(&live, 20..30).is_empty());
        assert_eq!(part_of(&live, 20..40), one(10..11));
    }
}
