//! Old images that the journal holds already although the table's own commit did not follow: a process died between the two, or another
//! program rewrote a file of the table meanwhile. Whoever makes the flush again may cut it elsewhere, so that some old images are there and
//! others are not: each is looked for.

use super::data_file::DataFile;
use crate::base::{Lsn, Partition};
use crate::buffer::change_batch::COMMIT_LSN;
use crate::lake::error::LakeError;
use crate::lake::journal::Journal;
use deltalake::arrow::array::{AsArray, BooleanArray, RecordBatch};
use deltalake::arrow::compute::filter_record_batch;
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::row::{RowConverter, SortField};
use deltalake::logstore::object_store::path::Path;
use roaring::RoaringBitmap;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// An entry in one number: short, because a day can have millions, and long enough that two of them do not meet.
type EntryDigest = [u8; 12];

/// The journal's entries of one partition that are ahead of the table.
pub(super) struct Held {
    /// What the table records: entries of transactions before it are none of this flush.
    since: Lsn,
    /// Those of the partition that was asked for last.
    entries: Option<(Partition, Entries)>,
}

/// Entries in the order of their digests, and which of them stand for a row already.
#[derive(Default)]
struct Entries {
    digests: Vec<EntryDigest>,
    used: RoaringBitmap,
}

impl Entries {
    /// Whether there is one that stands for no row so far; it does from now on.
    fn take(&mut self, digest: &EntryDigest) -> bool {
        let first = self.digests.partition_point(|known| known < digest);
        let end = self.digests.partition_point(|known| known <= digest);
        let (Ok(first), Ok(end)) = (u32::try_from(first), u32::try_from(end)) else { return false };
        // Those that are used are the first of their kind.
        let used = u32::try_from(self.used.range_cardinality(first..end)).unwrap_or(u32::MAX);
        used < end - first && self.used.insert(first + used)
    }
}

impl Held {
    /// For a table that records this position.
    pub(super) fn ahead_of(since: Lsn) -> Self {
        Self { since, entries: None }
    }

    /// The rest of the rows of one partition, without those that the journal holds; each of its entries stands for one row. Partitions are
    /// to be asked for one after the other.
    pub(super) async fn without(
        &mut self,
        journal: &Journal,
        partition: Partition,
        rows: RecordBatch,
    ) -> Result<RecordBatch, LakeError> {
        let entries = match &mut self.entries {
            Some((known, entries)) if *known == partition => entries,
            entries => &mut entries.insert((partition, read(journal, partition, self.since).await?)).1,
        };
        let unfit = |error: ArrowError| journal.target().unfit(error.to_string());
        let digests = digests(&rows).map_err(unfit)?;
        let missing: BooleanArray = digests.map(|digest| Some(!entries.take(&digest))).collect();
        filter_record_batch(&rows, &missing).map_err(unfit)
    }
}

async fn read(journal: &Journal, partition: Partition, since: Lsn) -> Result<Entries, LakeError> {
    let schema = journal.schema();
    let mut entries = Entries::default();
    for file in journal.files_of(partition).await? {
        let path = Path::parse(file.object_path()).unwrap_or_else(|_| Path::from(file.object_path()));
        let data = DataFile { target: Arc::clone(journal.target()), path, size_bytes: file.size_bytes };
        let failed = |error: ArrowError| data.failed(error.into());
        let mut rows = data.rows(None, None).await?;
        while let Some(batch) = rows.next().await? {
            let batch = data.adapt(&batch, &schema)?;
            let ahead = filter_record_batch(&batch, &is_ahead(&batch, since)).map_err(failed)?;
            entries.digests.extend(digests(&ahead).map_err(failed)?);
        }
    }
    entries.digests.sort_unstable();
    Ok(entries)
}

fn is_ahead(entries: &RecordBatch, since: Lsn) -> BooleanArray {
    let lsns = entries.column_by_name(COMMIT_LSN).and_then(|column| column.as_string_opt::<i32>());
    let is_ahead = |text: Option<&str>| text.and_then(|text| text.parse::<Lsn>().ok()).is_some_and(|lsn| lsn >= since);
    lsns.map(|lsns| lsns.iter().map(|text| Some(is_ahead(text))).collect())
        .unwrap_or_else(|| BooleanArray::from(vec![false; entries.num_rows()]))
}

fn digests(rows: &RecordBatch) -> Result<impl Iterator<Item = EntryDigest>, ArrowError> {
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let bytes = RowConverter::new(fields)?.convert_columns(rows.columns())?;
    let digest = |row: usize| {
        let mut short = EntryDigest::default();
        let whole = Sha256::digest(bytes.row(row).as_ref());
        short.iter_mut().zip(whole).for_each(|(short, byte)| *short = byte);
        short
    };
    Ok((0..bytes.num_rows()).map(digest).collect::<Vec<_>>().into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_an_entry_stands_for_one_row() {
        let digest = |byte: u8| EntryDigest::from([byte; 12]);
        let mut entries = Entries { digests: [1, 3, 3, 5].map(digest).to_vec(), used: RoaringBitmap::new() };
        let taken = [3, 1, 3, 3, 1, 4, 5, 0].map(|byte| entries.take(&digest(byte)));
        assert_eq!(taken, [true, true, true, false, false, false, true, false]);
    }
}
