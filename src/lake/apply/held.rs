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
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

/// An entry in one number.
type EntryDigest = [u8; 16];

/// The journal's entries of one partition that are ahead of the table.
pub(super) struct Held {
    /// What the table records: entries of transactions before it are none of this flush.
    since: Lsn,
    /// How often each is there, of the partition that was asked for last.
    entries: Option<(Partition, HashMap<EntryDigest, u32>)>,
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
        let mut is_missing = |digest: EntryDigest| match entries.get_mut(&digest).filter(|count| **count > 0) {
            None => true,
            Some(count) => {
                *count -= 1;
                false
            }
        };
        let unfit = |error: ArrowError| journal.target().unfit(error.to_string());
        let digests = digests(&rows).map_err(unfit)?;
        let missing: BooleanArray = digests.map(|digest| Some(is_missing(digest))).collect();
        filter_record_batch(&rows, &missing).map_err(unfit)
    }
}

async fn read(journal: &Journal, partition: Partition, since: Lsn) -> Result<HashMap<EntryDigest, u32>, LakeError> {
    let schema = journal.schema();
    let mut entries = HashMap::new();
    for file in journal.files_of(partition).await? {
        let path = Path::parse(file.object_path()).unwrap_or_else(|_| Path::from(file.object_path()));
        let data = DataFile { target: Arc::clone(journal.target()), path, size_bytes: file.size_bytes };
        let failed = |error: ArrowError| data.failed(error.into());
        let mut rows = data.rows(None, None).await?;
        while let Some(batch) = rows.next().await? {
            let batch = data.adapt(&batch, &schema)?;
            let ahead = filter_record_batch(&batch, &is_ahead(&batch, since)).map_err(failed)?;
            digests(&ahead).map_err(failed)?.for_each(|digest| *entries.entry(digest).or_default() += 1);
        }
    }
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
