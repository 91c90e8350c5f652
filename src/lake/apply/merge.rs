//! New versions of rows out of what was sent and what was not: the unchanged columns are those of the version before.

use super::data_file::adapt;
use super::steps::{Patch, Round};
use super::view::View;
use super::walk::{FileRow, Merged, Place, Walked};
use crate::base::Partition;
use crate::buffer::{PartitionBatch, change_batch};
use crate::lake::error::LakeError;
use crate::lake::writer::TableWriter;
use deltalake::arrow::array::{Array, AsArray, RecordBatch, UInt64Array, new_null_array};
use deltalake::arrow::compute::{interleave, take_record_batch};
use deltalake::arrow::datatypes::{Schema, SchemaRef};
use deltalake::arrow::error::ArrowError;
use deltalake::parquet::arrow::arrow_reader::RowSelection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Columns of a batch of patches before the table's.
pub(super) const PATCH_COLUMNS: usize = 3;

/// Writes every version that a round's patches made and that is still there.
pub(super) async fn write_merged(
    view: &View,
    round: &Round,
    walked: &Walked,
    schema: &SchemaRef,
    out: &mut TableWriter,
) -> Result<(), LakeError> {
    let mut by_file: BTreeMap<usize, Vec<(u32, usize)>> = BTreeMap::new();
    for (index, merged) in walked.merged.iter().enumerate().filter(|(_, merged)| merged.is_there) {
        let FileRow { file, row } = first_image(&walked.merged, merged);
        by_file.entry(file).or_default().push((row, index));
    }
    if by_file.is_empty() {
        return Ok(());
    }
    let unfit = |error: ArrowError| out.target().unfit(error.to_string());
    let sent = Sent::new(round, schema).map_err(unfit)?;
    for (file, mut wanted) in by_file {
        wanted.sort_unstable();
        let Some(file) = view.files.get(file) else { continue };
        let numbers: Vec<u32> = wanted.iter().map(|(row, _)| *row).collect();
        let mut rows = SelectedRows::open(&file.data, &numbers).await?;
        let mut wanted = wanted.as_slice();
        while let Some((numbers, batch)) = rows.next().await? {
            let images = file.data.adapt(&batch, schema)?;
            let here = wanted.partition_point(|(row, _)| numbers.last().is_some_and(|last| row <= last));
            let (these, rest) = wanted.split_at(here);
            wanted = rest;
            let these = these.iter().filter_map(|(row, merged)| Some((numbers.binary_search(row).ok()?, *merged)));
            let these: Vec<(usize, usize)> = these.collect();
            for part in sent.merge(&these, &images, walked).map_err(|error| file.data.failed(error.into()))? {
                out.write(part).await?;
            }
        }
    }
    Ok(())
}

/// The row of a file that a version goes back to.
fn first_image(all: &[Merged], merged: &Merged) -> FileRow {
    let mut image = merged.image;
    loop {
        match image {
            Place::File(place) => return place,
            // A version's image is an earlier one, so this ends.
            Place::Merged(earlier) => image = all[earlier].image,
        }
    }
}

/// What was sent of the new versions, in the table's columns.
struct Sent<'a> {
    round: &'a Round,
    schema: &'a SchemaRef,
    /// Batch by batch.
    batches: Vec<RecordBatch>,
    /// For each batch and column of the table: its place among the batch's own, None where that had no such column.
    places: Vec<Vec<Option<usize>>>,
}

impl<'a> Sent<'a> {
    fn new(round: &'a Round, schema: &'a SchemaRef) -> Result<Self, ArrowError> {
        let nullable = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let nullable: SchemaRef = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let mut batches = Vec::with_capacity(round.patch_batches.len());
        let mut places = Vec::with_capacity(round.patch_batches.len());
        for batch in &round.patch_batches {
            batches.push(adapt(batch, &nullable)?);
            let own = batch.schema();
            let place = |name: &str| own.index_of(name).ok().and_then(|index| index.checked_sub(PATCH_COLUMNS));
            places.push(schema.fields().iter().map(|field| place(field.name())).collect());
        }
        Ok(Self { round, schema, batches, places })
    }

    /// New versions (`these` has the row of `images` and the version), by partition.
    fn merge(
        &self,
        these: &[(usize, usize)],
        images: &RecordBatch,
        walked: &Walked,
    ) -> Result<Vec<PartitionBatch>, ArrowError> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for column in 0..self.schema.fields().len() {
            let image = images.column(column);
            let missing = new_null_array(image.data_type(), 1);
            let mut arrays: Vec<&dyn Array> = vec![image.as_ref(), missing.as_ref()];
            arrays.extend(self.batches.iter().map(|batch| batch.column(column).as_ref()));
            let source = |(image, merged): &(usize, usize)| self.source(*merged, column, *image, &walked.merged);
            let sources: Vec<(usize, usize)> = these.iter().map(source).collect();
            columns.push(interleave(&arrays, &sources)?);
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let mut by_partition: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
        for (row, (_, merged)) in (0..).zip(these) {
            let patch = walked.merged.get(*merged).and_then(|merged| self.round.patches.get(merged.patch));
            if let Some(patch) = patch {
                by_partition.entry(patch.partition).or_default().push(row);
            }
        }
        let part = |(partition, rows_of): (Partition, Vec<u64>)| {
            let rows = take_record_batch(&rows, &UInt64Array::from(rows_of))?;
            Ok(PartitionBatch { partition, rows, xids: None, eras: None })
        };
        by_partition.into_iter().map(part).collect()
    }

    /// Which of the arrays of [`Self::merge`] has a version's value of a column, and in which row.
    fn source(&self, merged: usize, column: usize, image: usize, all: &[Merged]) -> (usize, usize) {
        let (image, missing) = ((0, image), (1, 0));
        let mut place = Place::Merged(merged);
        while let Place::Merged(merged) = place {
            let Some(Patch { batch, row, .. }) =
                all.get(merged).and_then(|merged| self.round.patches.get(merged.patch))
            else {
                return image;
            };
            match self.places.get(*batch).and_then(|places| *places.get(column)?) {
                None => return missing,
                Some(own) if !self.is_unchanged(*batch, *row, own) => return (2 + batch, *row),
                Some(_) => place = all[merged].image,
            }
        }
        image
    }

    fn is_unchanged(&self, batch: usize, row: usize, own: usize) -> bool {
        let batch = self.round.patch_batches.get(batch);
        let column = batch.and_then(|batch| batch.column_by_name(change_batch::UNCHANGED)?.as_binary_opt::<i32>());
        let byte = column.and_then(|column| column.value(row).get(own / 8).copied()).unwrap_or(0);
        byte & (1 << (own % 8)) != 0
    }
}

/// Some rows of a file, with their numbers.
pub(super) struct SelectedRows {
    rows: super::data_file::Rows,
    /// Numbers of the rows that were not read yet.
    numbers: Vec<u32>,
    read: usize,
}

impl SelectedRows {
    /// `numbers` ascend, and may repeat.
    pub(super) async fn open(file: &super::data_file::DataFile, numbers: &[u32]) -> Result<Self, LakeError> {
        let mut numbers = numbers.to_vec();
        numbers.dedup();
        let ranges = numbers.iter().map(|row| *row as usize..*row as usize + 1);
        let end = numbers.last().map_or(0, |row| *row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, end);
        Ok(Self { rows: file.rows(None, Some(selection)).await?, numbers, read: 0 })
    }

    /// The next rows and their numbers; None behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<u32>, RecordBatch)>, LakeError> {
        let Some(batch) = self.rows.next().await? else { return Ok(None) };
        let end = (self.read + batch.num_rows()).min(self.numbers.len());
        let numbers = self.numbers.get(self.read..end).unwrap_or_default().to_vec();
        self.read = end;
        Ok(Some((numbers, batch)))
    }
}
