//! What becomes of the rows that a round of changes names: every change in its order, on the row that its key names at that time.

use super::Segment;
use super::steps::{Change, Named, Round, Transaction};
use super::versions::{Version, Versions};
use super::view::{FileRow, Label, View};
use crate::base::{Lsn, Partition};
use crate::buffer::{Operation, change_batch};
use crate::lake::error::LakeError;
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::BTreeMap;

/// Characters shown of one key value.
const VALUE_CHARACTERS_MAX: usize = 64;

/// Where a version of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    File(FileRow),
    /// Index into [`Walked::merged`].
    Merged(usize),
}

/// A version of a row that a patch made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merged {
    /// Index into the round's patches.
    pub(super) patch: usize,
    /// The version before it, which has what the patch lacks.
    pub(super) image: Place,
    /// Why it went, if it did.
    pub(super) fate: Option<Label>,
    /// A row of the lake is in its place.
    pub(super) is_stood_for: bool,
}

impl Merged {
    pub(super) fn is_there(&self) -> bool {
        self.fate.is_none() && !self.is_stood_for
    }
}

/// A row that a transaction deleted, and the row under the same key at the transaction's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) from: Place,
    pub(super) label: Label,
    pub(super) to: Place,
    /// Of `to`.
    pub(super) era: i64,
}

/// The outcome of a round.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) merged: Vec<Merged>,
    pub(super) moved: Vec<Moved>,
    /// Changes that found no row.
    pub(super) unmatched: u64,
    /// The last transaction, if it goes on behind the round.
    pub(super) goes_on: Option<usize>,
}

impl Walked {
    /// Where a version lies.
    pub(super) fn partition(&self, view: &View, round: &Round, place: Place) -> Option<Partition> {
        match place {
            Place::File(place) => view.files.get(place.file).map(|file| file.partition),
            Place::Merged(version) => round.patches.get(self.merged.get(version)?.patch).map(|patch| patch.partition),
        }
    }

    /// Why a version went, if it did.
    pub(super) fn fate(&self, view: &View, place: Place) -> Option<Label> {
        match place {
            Place::File(place) => view.files.get(place.file)?.dead.label_of(place.row),
            Place::Merged(version) => self.merged.get(version)?.fate,
        }
    }
}

/// Goes through the changes in order; rows that go are noted in the view.
pub(super) fn walk(
    view: &mut View,
    round: &Round,
    versions: Versions,
    transactions: &[Transaction],
    segment: &Segment,
) -> Result<Walked, LakeError> {
    let Versions(versions) = versions;
    let mut walk = Walk { view, round, versions, deleted: BTreeMap::new(), walked: Walked::default() };
    let mut last: Option<&Change> = None;
    for (index, change) in round.changes.iter().enumerate() {
        if let Some(last) = last.filter(|last| last.transaction != change.transaction) {
            walk.end_transaction(segment.changes.last_ordinal(last.ordinal));
        }
        if !walk.change(change) {
            return Err(no_earlier_row(round, index, transactions, segment));
        }
        last = Some(change);
    }
    if let Some(last) = last {
        let end = segment.changes.last_ordinal(last.ordinal);
        walk.end_transaction(end);
        walk.walked.goes_on = (end > last.ordinal).then_some(last.transaction);
    }
    Ok(walk.walked)
}

struct Walk<'a> {
    view: &'a mut View,
    round: &'a Round,
    /// By the number of their key, in the order of their eras.
    versions: Vec<Vec<Version>>,
    /// Rows that the transaction deleted, by the number of their key.
    deleted: BTreeMap<usize, Vec<(Place, Label)>>,
    walked: Walked,
}

impl Walk<'_> {
    /// False when a patch has no row that it can be laid upon.
    fn change(&mut self, change: &Change) -> bool {
        let era = i64::from(change.ordinal);
        let mut found = self.versions.get_mut(change.key).map(std::mem::take).unwrap_or_default();
        // One row goes for one change. Further ones under the key are archived: PostgreSQL has dropped them with their partition, its key does
        // not cover them any more, and so the row that it changes is the newest.
        let known = found.partition_point(|(known, _)| *known <= era);
        let image = known.checked_sub(1).map(|newest| found.remove(newest).1);
        let comes_again = found.len() > known.saturating_sub(1);
        if let Some(versions) = self.versions.get_mut(change.key) {
            *versions = found;
        }
        if let Some(place) = image {
            self.goes(place, change, comes_again);
        }
        self.walked.unmatched += u64::from(image.is_none());
        let Some(patch) = change.patch else { return true };
        let Some(image) = image else { return false };
        let merged = self.walked.merged.len();
        self.walked.merged.push(Merged { patch, image, fate: None, is_stood_for: false });
        if let Some(versions) = self.round.patches.get(patch).and_then(|patch| self.versions.get_mut(patch.key?)) {
            let after = versions.partition_point(|(known, _)| *known <= era);
            versions.insert(after, (era + 1, Place::Merged(merged)));
        }
        true
    }

    /// A row that is deleted for good, as nearly all are, is not kept in mind.
    fn goes(&mut self, place: Place, change: &Change, comes_again: bool) {
        let mut label = (change.transaction, change.operation);
        match place {
            Place::Merged(version) => self.walked.merged[version].fate = Some(label),
            Place::File(row) => label = self.view.goes(row, label),
        }
        // A stand-in is changed in its own place.
        if label.1 == Operation::Delete && (comes_again || change.patch.is_some()) {
            self.deleted.entry(change.key).or_default().push((place, label));
        }
    }

    /// A transaction ends, or the round does: what it deleted may be there again. Rows that it inserts behind its last change still belong
    /// to it: its end takes a number of its own.
    fn end_transaction(&mut self, last_ordinal: u32) {
        let end = i64::from(last_ordinal) + 1;
        for (key, deleted) in std::mem::take(&mut self.deleted) {
            let versions = self.versions.get(key).map_or(&[][..], Vec::as_slice);
            let last = versions.partition_point(|(era, _)| *era <= end).checked_sub(1);
            let Some((era, to)) = last.and_then(|last| versions.get(last)).copied() else { continue };
            let moved = deleted.into_iter().map(|(from, label)| Moved { from, label, to, era });
            self.walked.moved.extend(moved);
        }
    }
}

/// D3: what was not sent is filled from the row's earlier image or not at all.
fn no_earlier_row(round: &Round, change: usize, transactions: &[Transaction], segment: &Segment) -> LakeError {
    let commit_lsn = round.changes.get(change).and_then(|change| transactions.get(change.transaction));
    let column = round.changes.get(change).and_then(|change| {
        let patch = round.patches.get(change.patch?)?;
        let batch = round.patch_batches.get(patch.batch)?;
        let unchanged = batch.column_by_name(change_batch::UNCHANGED)?.as_binary_opt::<i32>()?.value(patch.row);
        let first = (0..unchanged.len() * 8).find(|bit| unchanged[bit / 8] & (1 << (bit % 8)) != 0)?;
        Some(batch.schema().fields().get(super::merge::PATCH_COLUMNS + first)?.name().clone())
    });
    LakeError::NoEarlierRow {
        table: segment.table.clone(),
        column: column.unwrap_or_default(),
        key: round.named.get(change).map(|named| key_text(round, named)).unwrap_or_default(),
        commit_lsn: commit_lsn.map_or(Lsn::ZERO, |transaction| transaction.commit_lsn),
    }
}

/// A row's key for a message, as the buffer's `RowKey` shows it: cut, and on one line.
fn key_text(round: &Round, named: &Named) -> String {
    let mut text = String::from("row ");
    for (place, (field, values)) in round.identity.fields().iter().zip(round.key_columns(named)).enumerate() {
        if place > 0 {
            text.push_str(", ");
        }
        let options = FormatOptions::default();
        let value = match ArrayFormatter::try_new(values.as_ref(), &options) {
            Ok(formatter) if !values.is_null(named.row) => formatter.value(named.row).to_string(),
            _ => "?".to_owned(),
        };
        let shown: String = value.chars().take(VALUE_CHARACTERS_MAX).flat_map(char::escape_debug).collect();
        text.push_str(&format!("{}={shown}", field.name()));
    }
    text
}
