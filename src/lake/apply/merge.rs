//! New versions of rows out of what was sent and what was not: the unchanged columns are those of the version before.

use super::data_file::{DataFile, adapt};
use super::steps::{Patch, Round};
use super::view::{FileRow, View};
use super::walk::{Merged, Place, Walked};
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
use std::collections::btree_map::IntoIter;
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
    let there = walked.merged.iter().enumerate().filter(|(_, merged)| merged.is_there());
    let mut rows = MergedRows::of(view, round, walked, there.map(|(index, _)| index), schema)?;
    while let Some((versions, batch)) = rows.next().await? {
        let mut by_partition: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
        for (row, version) in (0..).zip(versions) {
            if let Some(partition) = walked.partition(view, round, Place::Merged(version)) {
                by_partition.entry(partition).or_default().push(row);
            }
        }
        for (partition, numbers) in by_partition {
            let taken = take_record_batch(&batch, &UInt64Array::from(numbers));
            let rows = taken.map_err(|error| out.target().unfit(error.to_string()))?;
            out.write(PartitionBatch { partition, rows, xids: None, eras: None }).await?;
        }
    }
    Ok(())
}

/// A row of a file, and the version that goes back to it.
type Wanted = (u32, usize);

/// Versions that patches made, put together.
pub(super) struct MergedRows<'a> {
    view: &'a View,
    walked: &'a Walked,
    schema: &'a SchemaRef,
    sent: Option<Sent<'a>>,
    /// By the file of the rows that they go back to.
    files: IntoIter<usize, Vec<Wanted>>,
    open: Option<(&'a DataFile, SelectedRows, Vec<Wanted>)>,
}

impl<'a> MergedRows<'a> {
    /// Versions by their number, with the columns of `schema`.
    pub(super) fn of(
        view: &'a View,
        round: &'a Round,
        walked: &'a Walked,
        versions: impl Iterator<Item = usize>,
        schema: &'a SchemaRef,
    ) -> Result<Self, LakeError> {
        let mut files: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        for version in versions {
            let FileRow { file, row } = first_image(&walked.merged, version);
            files.entry(file).or_default().push((row, version));
        }
        let sent = if files.is_empty() { None } else { Some(Sent::new(round, schema)) };
        let sent = sent.transpose().map_err(|error| view.unfit(&error))?;
        Ok(Self { view, walked, schema, sent, files: files.into_iter(), open: None })
    }

    /// The next versions and their numbers; None behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<usize>, RecordBatch)>, LakeError> {
        loop {
            let Some((file, rows, wanted)) = &mut self.open else {
                let Some((file, mut wanted)) = self.files.next() else { return Ok(None) };
                let Some(file) = self.view.files.get(file) else { continue };
                wanted.sort_unstable();
                let numbers: Vec<u32> = wanted.iter().map(|(row, _)| *row).collect();
                let rows = SelectedRows::open(&file.data, &numbers).await?;
                self.open = Some((&file.data, rows, wanted));
                continue;
            };
            let (Some((numbers, batch)), Some(sent)) = (rows.next().await?, &self.sent) else {
                self.open = None;
                continue;
            };
            let images = file.adapt(&batch, self.schema)?;
            let here = wanted.partition_point(|(row, _)| numbers.last().is_some_and(|last| row <= last));
            let these = wanted.drain(..here);
            let these = these.filter_map(|(row, version)| Some((numbers.binary_search(&row).ok()?, version)));
            let these: Vec<(usize, usize)> = these.collect();
            let merged = sent.merge(&these, &images, self.walked).map_err(|error| file.failed(error.into()))?;
            return Ok(Some((these.into_iter().map(|(_, version)| version).collect(), merged)));
        }
    }
}

/// The row of a file that a version goes back to.
fn first_image(all: &[Merged], version: usize) -> FileRow {
    let mut image = all[version].image;
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

    /// New versions: `these` has the row of `images` and the number of each.
    fn merge(
        &self,
        these: &[(usize, usize)],
        images: &RecordBatch,
        walked: &Walked,
    ) -> Result<RecordBatch, ArrowError> {
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
        RecordBatch::try_new(self.schema.clone(), columns)
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
    pub(super) async fn open(file: &DataFile, numbers: &[u32]) -> Result<Self, LakeError> {
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
