//! The rows that the changes of a segment can concern: files of the lake and the segment's own, and which of their rows are gone.

use super::data_file::DataFile;
use super::stand_ins::StandIns;
use crate::base::{DaySet, Partition, PartitionBy, Runs};
use crate::buffer::Operation;
use crate::lake::active::{ActiveFile, Wanted};
use crate::lake::bounds::Bounds;
use crate::lake::error::LakeError;
use crate::lake::log::Log;
use crate::lake::staged::StagedFile;
use crate::lake::target::Target;
use deltalake::logstore::object_store::path::Path;
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

/// The era of a row that the lake holds: before everything in the segment.
pub(super) const IN_THE_LAKE: i64 = -1;

/// What made a row go: the number of its transaction, and what it did.
pub(super) type Label = (usize, Operation);

/// A row of a file of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileRow {
    pub(super) file: usize,
    pub(super) row: u32,
}

/// Rows of one file that are gone.
#[derive(Default)]
pub(super) struct Dead {
    all: RoaringBitmap,
    by_label: BTreeMap<Label, RoaringBitmap>,
}

impl Dead {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn contains(&self, row: u32) -> bool {
        self.all.contains(row)
    }

    /// The first reason counts.
    pub(super) fn insert(&mut self, row: u32, label: Label) {
        if self.all.insert(row) {
            self.by_label.entry(label).or_default().insert(row);
        }
    }

    /// All rows that are still there, but these.
    pub(super) fn insert_rest(&mut self, rows: std::ops::Range<u32>, except: &RoaringBitmap, label: Label) {
        let mut rest = RoaringBitmap::new();
        rest.insert_range(rows);
        rest -= &self.all;
        rest -= except;
        self.all |= &rest;
        *self.by_label.entry(label).or_default() |= rest;
    }

    /// Why the row went.
    pub(super) fn label_of(&self, row: u32) -> Option<Label> {
        self.by_label.iter().find(|(_, rows)| rows.contains(row)).map(|(label, _)| *label)
    }

    /// The row was not gone after all.
    pub(super) fn remove(&mut self, row: u32, label: Label) {
        self.all.remove(row);
        if let Some(rows) = self.by_label.get_mut(&label) {
            rows.remove(row);
        }
    }

    /// The rows of each reason within a part of the file.
    pub(super) fn within(&self, rows: std::ops::Range<u32>) -> impl Iterator<Item = (Label, Vec<u32>)> + '_ {
        let part =
            move |(label, dead): (&Label, &RoaringBitmap)| (*label, dead.range(rows.clone()).collect::<Vec<_>>());
        self.by_label.iter().map(part).filter(|(_, dead)| !dead.is_empty())
    }
}

/// Where a file comes from.
pub(super) enum Origin {
    /// The log names it.
    Lake(ActiveFile),
    /// The segment's own, by its place there.
    Segment(usize),
    /// Made by an earlier round.
    Round(StagedFile),
}

/// A file whose rows may be concerned.
pub(super) struct ViewFile {
    pub(super) data: DataFile,
    pub(super) partition: Partition,
    pub(super) bounds: Bounds,
    pub(super) origin: Origin,
    /// None: its rows came before all changes.
    pub(super) eras: Option<Runs>,
    pub(super) dead: Dead,
}

impl ViewFile {
    pub(super) fn is_in_the_lake(&self) -> bool {
        matches!(self.origin, Origin::Lake(_))
    }

    /// When it was written; files of the segment come behind all of the lake's.
    pub(super) fn modified_millis(&self) -> i64 {
        if let Origin::Lake(active) = &self.origin { active.modified_millis } else { i64::MAX }
    }

    /// Rows with their eras, as ends of runs; the era of a lake's row is [`IN_THE_LAKE`].
    pub(super) fn era_ends(&self) -> Vec<(u64, i64)> {
        let Some(eras) = &self.eras else {
            return vec![(u64::MAX, if self.is_in_the_lake() { IN_THE_LAKE } else { 0 })];
        };
        let mut end = 0;
        let ends = eras.iter().map(|(era, rows)| {
            end += rows;
            (end, i64::from(era))
        });
        ends.collect()
    }
}

/// All files that may be concerned; those of the lake come as their partitions are asked for.
pub(super) struct View {
    target: Arc<Target>,
    log: Log,
    version: u64,
    loaded: Wanted,
    /// Days whose files of the lake are nobody's concern any more.
    replaced: DaySet,
    pub(super) files: Vec<ViewFile>,
    pub(super) stand_ins: StandIns,
}

impl View {
    /// The segment's own files, and the lake at `version` without the days that the segment replaces.
    pub(super) fn new(target: Arc<Target>, log: Log, version: u64, own: &[StagedFile], replaced: &DaySet) -> Self {
        let (loaded, stand_ins) = (Wanted::Of(BTreeSet::new()), StandIns::default());
        let replaced = replaced.clone();
        let mut view = Self { target, log, version, loaded, replaced, files: Vec::new(), stand_ins };
        for (place, file) in own.iter().enumerate() {
            let described = view.staged(file, file.eras.clone(), Origin::Segment(place));
            view.files.push(described);
        }
        view
    }

    /// Adds a file that a round made; its rows came after everything so far.
    pub(super) fn add(&mut self, file: StagedFile, era: u32) {
        let eras = Runs::of(era, file.rows);
        let mut described = self.staged(&file, Some(eras), Origin::Segment(0));
        described.origin = Origin::Round(file);
        self.files.push(described);
    }

    /// Whether partitions are days or months.
    pub(super) fn partition_by(&self) -> PartitionBy {
        self.target.encoding.schema.partition_by
    }

    /// The error of rows that do not fit together.
    pub(super) fn unfit(&self, reason: &dyn Display) -> LakeError {
        self.target.unfit(reason.to_string())
    }

    /// A row goes: what counts of a row that stands for one which its transaction inserted is that the transaction deleted it before.
    pub(super) fn goes(&mut self, place: FileRow, (transaction, operation): Label) -> Label {
        let deleted_before = self.stand_ins.since(transaction, place).is_some();
        let label = (transaction, if deleted_before { Operation::Delete } else { operation });
        if let Some(file) = self.files.get_mut(place.file) {
            file.dead.insert(place.row, label);
        }
        label
    }

    fn staged(&self, file: &StagedFile, eras: Option<Runs>, origin: Origin) -> ViewFile {
        let path = Path::from(file.path.as_str());
        ViewFile {
            data: DataFile { target: Arc::clone(&self.target), path, size_bytes: file.size_bytes },
            partition: file.partition,
            bounds: Bounds::of_statistics(Some(&file.statistics)),
            origin,
            eras,
            dead: Dead::default(),
        }
    }

    /// The lake's files of the days that the segment replaces.
    pub(super) async fn replaced_files(&self) -> Result<Vec<ActiveFile>, LakeError> {
        let wanted = match (self.replaced.is_empty(), self.replaced.is_whole()) {
            (true, _) => return Ok(Vec::new()),
            (false, true) => Wanted::All,
            (false, false) => Wanted::Of(self.replaced.days().collect()),
        };
        self.log.active_files(self.version, self.partition_by(), &wanted).await
    }

    /// Sees to it that the lake's files of these partitions are known.
    pub(super) async fn load(&mut self, wanted: &Wanted) -> Result<(), LakeError> {
        let missing = match (&self.loaded, wanted) {
            (Wanted::All, _) => return Ok(()),
            (Wanted::Of(_), Wanted::All) => Wanted::All,
            (Wanted::Of(loaded), Wanted::Of(wanted)) => Wanted::Of(wanted.difference(loaded).copied().collect()),
        };
        if missing == Wanted::Of(BTreeSet::new()) {
            return Ok(());
        }
        let by = self.target.encoding.schema.partition_by;
        let known = match &mut self.loaded {
            Wanted::All => BTreeSet::new(),
            Wanted::Of(loaded) => std::mem::take(loaded),
        };
        for file in self.log.active_files(self.version, by, &missing).await? {
            if known.contains(&file.partition) || self.replaced.contains(file.partition) {
                continue;
            }
            let path = Path::parse(file.object_path()).unwrap_or_else(|_| Path::from(file.object_path()));
            self.files.push(ViewFile {
                data: DataFile { target: Arc::clone(&self.target), path, size_bytes: file.size_bytes },
                partition: file.partition,
                bounds: file.bounds.clone(),
                origin: Origin::Lake(file),
                eras: None,
                dead: Dead::default(),
            });
        }
        self.loaded = match missing {
            Wanted::All => Wanted::All,
            Wanted::Of(missing) => Wanted::Of(known.into_iter().chain(missing).collect()),
        };
        Ok(())
    }
}
