//! What becomes of the rows that a round of changes names: every change in its order, on the row that its key names at that time.

use super::Segment;
use super::steps::{Change, Named, Round, Transaction};
use super::view::{Label, View, ViewFile};
use crate::base::Lsn;
use crate::buffer::{Operation, change_batch};
use crate::lake::error::LakeError;
use deltalake::arrow::array::{Array, AsArray};
use deltalake::arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::BTreeMap;

/// Characters shown of one key value.
const VALUE_CHARACTERS_MAX: usize = 64;

/// A row of a file of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileRow {
    pub(super) file: usize,
    pub(super) row: u32,
}

/// Where a version of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(super) is_there: bool,
}

/// A row that a transaction deleted, and the last row that it inserted under the same key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) from: FileRow,
    pub(super) label: Label,
    pub(super) to: FileRow,
}

/// The outcome of a round.
#[derive(Default)]
pub(super) struct Walked {
    pub(super) merged: Vec<Merged>,
    pub(super) moved: Vec<Moved>,
    /// Changes that found no row.
    pub(super) unmatched: u64,
}

/// A version of a row, and its era.
type Version = (i64, Place);

/// Versions of the rows that a round names, by the number of their key.
pub(super) struct Versions(Vec<Vec<Version>>);

impl Versions {
    /// Finds them in the files that can hold them.
    pub(super) async fn find(view: &View, round: &Round) -> Result<Self, LakeError> {
        let mut by_partition: BTreeMap<_, Vec<&Named>> = BTreeMap::new();
        for named in &round.named {
            by_partition.entry(named.partition).or_default().push(named);
        }
        let mut versions = vec![Vec::new(); round.keys.len()];
        for (index, file) in view.files.iter().enumerate() {
            let wanted = [Some(file.partition), None];
            let mut wanted = wanted.iter().filter_map(|partition| by_partition.get(partition)).flatten();
            if wanted.any(|named| may_hold(file, round, named)) {
                scan(index, file, round, &mut versions).await?;
            }
        }
        versions.iter_mut().for_each(|found| found.sort_by_key(|(era, _)| *era));
        Ok(Self(versions))
    }
}

fn may_hold(file: &ViewFile, round: &Round, named: &Named) -> bool {
    let mut columns = round.identity.fields().iter().zip(round.key_columns(named));
    columns.all(|(field, values)| file.bounds.may_hold(field.name(), values, named.row))
}

/// Notes every row of a file whose key the round knows.
async fn scan(index: usize, file: &ViewFile, round: &Round, versions: &mut [Vec<Version>]) -> Result<(), LakeError> {
    let names: Vec<&str> = round.identity.fields().iter().map(|field| field.name().as_str()).collect();
    let mut rows = file.data.rows(Some(&names), None).await?;
    let mut eras = file.era_ends().into_iter().peekable();
    let mut first = 0_u64;
    while let Some(batch) = rows.next().await? {
        let keys = file.data.adapt(&batch, &round.identity)?;
        let found = round.keys.find(keys.columns()).map_err(|error| file.data.failed(error.into()))?;
        for (row, key) in (first..).zip(found) {
            let Some(key) = key else { continue };
            while eras.next_if(|(end, _)| *end <= row).is_some() {}
            let era = eras.peek().map_or(0, |(_, era)| *era);
            let row = row_number(file, row)?;
            if !file.dead.contains(row)
                && let Some(found) = versions.get_mut(key)
            {
                found.push((era, Place::File(FileRow { file: index, row })));
            }
        }
        first += batch.num_rows() as u64;
    }
    Ok(())
}

/// Rows of a file are numbered with 32 bits.
pub(super) fn row_number(file: &ViewFile, row: u64) -> Result<u32, LakeError> {
    u32::try_from(row).map_err(|_| LakeError::DataFile {
        location: file.data.target.location.clone(),
        path: file.data.path.to_string(),
        reason: "it has more than 4,294,967,295 rows".to_owned(),
    })
}

/// Goes through the changes in order; rows that go are noted in the view.
pub(super) fn walk(
    view: &mut View,
    round: &Round,
    versions: Versions,
    transactions: &[Transaction],
    segment: &Segment,
) -> Result<Walked, LakeError> {
    let Versions(mut versions) = versions;
    let mut walked = Walked::default();
    let ends = Ends { transactions, goes_on: round.goes_on };
    for (index, change) in round.changes.iter().enumerate() {
        let label = (change.transaction, change.operation);
        let era = i64::from(change.ordinal);
        let found = versions.get_mut(change.key).map(std::mem::take).unwrap_or_default();
        let (gone, rest): (Vec<Version>, Vec<Version>) = found.into_iter().partition(|(known, _)| *known <= era);
        let again = ends.row_of_the_same(&rest, change);
        if let Some(versions) = versions.get_mut(change.key) {
            *versions = rest;
        }
        for (_, place) in &gone {
            match place {
                Place::Merged(merged) => walked.merged[*merged].is_there = false,
                Place::File(place) => {
                    let Some(file) = view.files.get_mut(place.file) else { continue };
                    file.dead.insert(place.row, label);
                    walked.moved.extend(again.map(|to| Moved { from: *place, label, to }));
                }
            }
        }
        let image = gone.last().map(|(_, place)| *place);
        walked.unmatched += u64::from(image.is_none());
        let Some(patch) = change.patch else { continue };
        let image = image.ok_or_else(|| no_earlier_row(round, index, patch, transactions, segment))?;
        let merged = walked.merged.len();
        walked.merged.push(Merged { patch, image, is_there: true });
        if let Some(versions) = round.patches.get(patch).and_then(|patch| versions.get_mut(patch.key?)) {
            let after = versions.partition_point(|(known, _)| *known <= era);
            versions.insert(after, (era + 1, Place::Merged(merged)));
        }
    }
    Ok(walked)
}

/// Where the transactions end.
struct Ends<'a> {
    transactions: &'a [Transaction],
    /// The last one goes on behind the round.
    goes_on: bool,
}

impl Ends<'_> {
    /// The last row that the transaction of a DELETE inserts under the same key afterwards.
    fn row_of_the_same(&self, rest: &[Version], change: &Change) -> Option<FileRow> {
        if change.operation != Operation::Delete {
            return None;
        }
        let is_last = change.transaction + 1 == self.transactions.len();
        let end = match self.transactions.get(change.transaction)? {
            _ if is_last && self.goes_on => i64::MAX,
            transaction => i64::from(transaction.last_ordinal) + 1,
        };
        let last = rest.partition_point(|(era, _)| *era <= end).checked_sub(1)?;
        match rest.get(last)? {
            (_, Place::File(to)) => Some(*to),
            (_, Place::Merged(_)) => None,
        }
    }
}

/// D3: what was not sent is filled from the row's earlier image or not at all.
fn no_earlier_row(
    round: &Round,
    change: usize,
    patch: usize,
    transactions: &[Transaction],
    segment: &Segment,
) -> LakeError {
    let commit_lsn = round.changes.get(change).and_then(|change| transactions.get(change.transaction));
    let column = round.patches.get(patch).and_then(|patch| {
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
