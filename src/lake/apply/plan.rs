//! The plan of a rewrite: which files go, which stand for them, and the old images on their way to the journal.

use super::Segment;
use super::merge::write_merged;
use super::moves::take_back;
use super::old_images::OldImages;
use super::steps::{Step, Steps, Transaction};
use super::versions::{Versions, row_number};
use super::view::{FileRow, Label, Origin, View, ViewFile};
use super::walk::walk;
use crate::base::{DaySet, Partition, TableName};
use crate::buffer::{Operation, PartitionBatch};
use crate::lake::active::{ActiveFile, Wanted};
use crate::lake::error::LakeError;
use crate::lake::log::Log;
use crate::lake::receipt_book::dropped_partitions;
use crate::lake::staged::StagedFile;
use crate::lake::writer::TableWriter;
use crate::ops::fail_points;
use deltalake::arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use deltalake::arrow::compute::{filter_record_batch, take_record_batch};
use deltalake::arrow::datatypes::SchemaRef;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a rewrite will commit, beside the position.
pub(super) struct Plan {
    /// The version that it stands on.
    pub(super) version: u64,
    /// Files of the lake that go.
    pub(super) removed: Vec<ActiveFile>,
    /// Files that stand for them, and the versions that patches made.
    pub(super) added: Vec<StagedFile>,
    /// The segment's own files that hold a row of the table still as they are, by their place there.
    pub(super) kept: Vec<usize>,
    /// Owns `added` until the commit.
    pub(super) writer: TableWriter,
    pub(super) figures: Figures,
}

/// What a plan amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files of the lake that are rewritten.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// Rows of the lake that went, whether or not a new version stands for them.
    pub rows: u64,
    /// Changes of rows that are neither in the lake nor in the segment.
    pub unmatched: u64,
    /// Rows that were deleted and inserted again unchanged.
    pub moved: u64,
}

/// Everything that a plan is made from, the segment aside.
pub(super) struct Planner {
    pub(super) log: Log,
    pub(super) version: u64,
    /// Writes the table's columns of today, retired ones included.
    pub(super) writer: TableWriter,
    pub(super) images: OldImages,
    pub(super) round_bytes: usize,
}

impl Planner {
    /// Plans the rewrite that a segment asks for. The old images are written, not committed.
    ///
    /// # Errors
    /// What stood against it, with the writer, whose files are to be discarded.
    pub(super) async fn plan(mut self, segment: &Segment) -> Result<(Plan, OldImages), Box<(LakeError, TableWriter)>> {
        match self.steps(segment).await {
            Ok(plan) => {
                let (removed, added, kept, figures) = plan;
                let version = self.version;
                Ok((Plan { version, removed, added, kept, writer: self.writer, figures }, self.images))
            }
            Err(error) => Err(Box::new((error, self.writer))),
        }
    }

    async fn steps(
        &mut self,
        segment: &Segment,
    ) -> Result<(Vec<ActiveFile>, Vec<StagedFile>, Vec<usize>, Figures), LakeError> {
        let target = Arc::clone(self.writer.target());
        let schema = target.encoding.schema.arrow.clone();
        let by = target.encoding.schema.partition_by;
        let mut view = View::new(target, self.log.clone(), self.version, &segment.files, &segment.replaces);
        let mut steps = Steps::new(segment, schema.clone(), by, self.round_bytes);
        let mut figures = Figures::default();
        let mut last_ordinal = 0;
        while let Some(step) = steps.next().await? {
            // What an earlier round made may change again.
            for file in self.writer.finish().await? {
                view.add(file, last_ordinal + 1);
            }
            match step {
                Step::Truncate { ordinal, transaction } => {
                    // Days that are not replaced have had theirs at its own time.
                    let kept = if segment.replaces.is_empty() {
                        view.load(&Wanted::All).await?;
                        Kept::Days(dropped_partitions(&self.log.lake, &segment.table, by).await?)
                    } else {
                        Kept::AllOfTheLake
                    };
                    truncate(&mut view, ordinal, (transaction, Operation::Truncate), &kept).await?;
                    last_ordinal = ordinal;
                }
                Step::Round(mut round) => {
                    round.find_patched().map_err(|error| segment.unfit(&error))?;
                    view.load(&round.wanted()).await?;
                    let versions = Versions::find(&view, &round).await?;
                    let mut walked = walk(&mut view, &round, versions, &steps.transactions, segment)?;
                    figures.moved += take_back(&mut view, &round, &mut walked, &schema).await?;
                    write_merged(&view, &round, &walked, &schema, &mut self.writer).await?;
                    figures.unmatched += walked.unmatched;
                    last_ordinal = round.changes.last().map_or(last_ordinal, |change| change.ordinal);
                }
            }
        }
        fail_points::reach("apply.after_scan");
        self.rewrite(view, &segment.table, (&schema, &steps.transactions), figures).await
    }

    /// The lake's files of days that are replaced, which PostgreSQL must still have.
    async fn replaced(&self, view: &View, table: &TableName) -> Result<Vec<ActiveFile>, LakeError> {
        let files = view.replaced_files().await?;
        if !files.is_empty() {
            let dropped = dropped_partitions(&self.log.lake, table, view.partition_by()).await?;
            let only_here: DaySet =
                files.iter().map(|file| file.partition).filter(|day| dropped.contains(day)).collect();
            if !only_here.is_empty() {
                return Err(LakeError::OnlyHere { table: table.clone(), days: only_here.to_string() });
            }
        }
        Ok(files)
    }

    /// Writes every file that holds rows that went without them.
    async fn rewrite(
        &mut self,
        mut view: View,
        table: &TableName,
        (schema, transactions): (&SchemaRef, &[Transaction]),
        mut figures: Figures,
    ) -> Result<(Vec<ActiveFile>, Vec<StagedFile>, Vec<usize>, Figures), LakeError> {
        let (mut removed, mut added, mut kept) = (self.replaced(&view, table).await?, Vec::new(), Vec::new());
        view.files.sort_by_key(|file| file.partition);
        for file in view.files {
            if !file.dead.is_empty() {
                fail_points::reach("apply.before_rewrite");
                let went = self.write_rest(&file, schema, transactions).await?;
                fail_points::reach("apply.after_rewrite");
                if let Origin::Lake(active) = file.origin {
                    figures.files += 1;
                    figures.bytes += active.size_bytes;
                    figures.rows += went;
                    removed.push(active);
                } else if let Origin::Round(file) = file.origin {
                    self.writer.give_up(file).await;
                }
                continue;
            }
            match file.origin {
                Origin::Lake(_) => {}
                Origin::Segment(place) => kept.push(place),
                Origin::Round(file) => added.push(file),
            }
        }
        added.extend(self.writer.finish().await?);
        Ok((removed, added, kept, figures))
    }

    /// The rows of a file that are still there go to the writer, those of the lake that are not to the journal. Returns how many went.
    async fn write_rest(
        &mut self,
        file: &ViewFile,
        schema: &SchemaRef,
        transactions: &[Transaction],
    ) -> Result<u64, LakeError> {
        let failed = |error: deltalake::arrow::error::ArrowError| file.data.failed(error.into());
        let mut rows = file.data.rows(None, None).await?;
        let (mut first, mut went) = (0_u64, 0);
        while let Some(batch) = rows.next().await? {
            let batch = file.data.adapt(&batch, schema)?;
            let end = row_number(file, first + batch.num_rows() as u64)?;
            let start = row_number(file, first)?;
            let here: BooleanArray = (start..end).map(|row| Some(!file.dead.contains(row))).collect();
            let live = filter_record_batch(&batch, &here).map_err(failed)?;
            went += (batch.num_rows() - live.num_rows()) as u64;
            if live.num_rows() > 0 {
                self.writer
                    .write(PartitionBatch { partition: file.partition, rows: live, xids: None, eras: None })
                    .await?;
            }
            if file.is_in_the_lake() {
                for ((number, operation), dead) in file.dead.within(start..end) {
                    let Some(transaction) = transactions.get(number) else { continue };
                    let numbers = UInt32Array::from_iter_values(dead.iter().map(|row| row - start));
                    let old: RecordBatch = take_record_batch(&batch, &numbers).map_err(failed)?;
                    self.images.keep(file.partition, &old, operation, transaction).await?;
                }
            }
            first += batch.num_rows() as u64;
        }
        Ok(went)
    }
}

/// What a TRUNCATE leaves of the lake.
enum Kept {
    /// Days that a receipt says are dropped: PostgreSQL has emptied what it has, and of these the lake alone has any.
    Days(BTreeSet<Partition>),
    /// Everything, so that only the segment's own rows go.
    AllOfTheLake,
}

impl Kept {
    fn has(&self, file: &ViewFile) -> bool {
        let of_the_lake = file.is_in_the_lake();
        match self {
            Self::Days(days) => of_the_lake && days.contains(&file.partition),
            Self::AllOfTheLake => of_the_lake,
        }
    }
}

/// Every row of the era and before goes, but those that are kept.
async fn truncate(view: &mut View, ordinal: u32, label: Label, kept: &Kept) -> Result<(), LakeError> {
    for index in 0..view.files.len() {
        if view.files.get(index).is_some_and(|file| kept.has(file)) {
            continue;
        }
        let (stand_ins, later) = view.stand_ins.split(index, ordinal);
        for row in stand_ins {
            view.goes(FileRow { file: index, row }, label);
        }
        let Some(file) = view.files.get_mut(index) else { continue };
        let rows = match file.bounds.rows() {
            Some(rows) => rows,
            None => file.data.count().await?,
        };
        let mut start = 0;
        for (end, era) in file.era_ends() {
            let end = end.min(rows);
            if era <= i64::from(ordinal) {
                let range = row_number(file, start)?..row_number(file, end)?;
                file.dead.insert_rest(range, &later, label);
            }
            start = end;
        }
    }
    Ok(())
}
