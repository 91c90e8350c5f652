//! Rows that one transaction deletes and inserts again unchanged, as partman does when it empties the default partition: the lake's row
//! stays where it is.

use super::merge::{MergedRows, SelectedRows};
use super::steps::Round;
use super::view::{FileRow, View};
use super::walk::{Moved, Place, Walked};
use crate::lake::error::LakeError;
use deltalake::arrow::array::RecordBatch;
use deltalake::arrow::datatypes::{Schema, SchemaRef};
use deltalake::arrow::error::ArrowError;
use deltalake::arrow::row::{RowConverter, SortField};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The columns of a row in one number.
type RowDigest = [u8; 32];

/// Takes back what nets to nothing: the lake's row goes on in the place of the one that was there at the transaction's end, and shares its
/// fate. What it has in a column that the table no longer has stays with it.
pub(super) async fn take_back(
    view: &mut View,
    round: &Round,
    walked: &mut Walked,
    schema: &SchemaRef,
) -> Result<u64, LakeError> {
    // A row that goes to another partition cannot be equal.
    let stays = |moved: &Moved| walked.partition(view, round, moved.from) == walked.partition(view, round, moved.to);
    let moved: Vec<Moved> = walked.moved.iter().filter(|moved| stays(moved)).copied().collect();
    let equal = equal(view, round, walked, &moved, schema).await?;
    // Versions that a row of the lake stands for.
    let mut stands_for: HashMap<Place, FileRow> = HashMap::new();
    let mut stand_ins = Vec::new();
    let mut taken_back = 0;
    for (index, Moved { from, label, to, era }) in moved.into_iter().enumerate() {
        let Some(origin) = row_of_the_lake(view, from, &stands_for).filter(|_| equal.contains(&index)) else {
            continue;
        };
        if stands_for.contains_key(&to) {
            continue;
        }
        taken_back += 1;
        stands_for.insert(to, origin);
        let fate = walked.fate(view, to);
        if let Some(file) = view.files.get_mut(origin.file) {
            file.dead.remove(origin.row, label);
            if let Some(label) = fate {
                file.dead.insert(origin.row, label);
            }
        }
        match to {
            Place::File(to) => {
                if let Some(file) = view.files.get_mut(to.file) {
                    file.dead.insert(to.row, label);
                }
            }
            Place::Merged(version) => walked.merged[version].is_stood_for = true,
        }
        if fate.is_none() && walked.goes_on == Some(label.0) {
            stand_ins.push((origin, u32::try_from(era).unwrap_or(0)));
        }
    }
    if let Some(transaction) = walked.goes_on {
        view.stand_ins.add(transaction, stand_ins);
    }
    Ok(taken_back)
}

/// The row of the lake that a version is, or that stands for it.
fn row_of_the_lake(view: &View, place: Place, stands_for: &HashMap<Place, FileRow>) -> Option<FileRow> {
    match place {
        Place::File(place) if view.files.get(place.file)?.is_in_the_lake() => Some(place),
        place => stands_for.get(&place).copied(),
    }
}

/// Which of the moves, by their place, left the row as it was: in every column that was sent of the later version.
async fn equal(
    view: &View,
    round: &Round,
    walked: &Walked,
    moved: &[Moved],
    schema: &SchemaRef,
) -> Result<HashSet<usize>, LakeError> {
    let mut by_columns: BTreeMap<BTreeSet<String>, Vec<usize>> = BTreeMap::new();
    let mut columns_of_files: HashMap<usize, BTreeSet<String>> = HashMap::new();
    for (index, moved) in moved.iter().enumerate() {
        let columns = match moved.to {
            Place::Merged(version) => columns_sent(round, walked, version),
            Place::File(FileRow { file, .. }) => match columns_of_files.get(&file) {
                Some(known) => known.clone(),
                None => {
                    let Some(found) = view.files.get(file) else { continue };
                    let found = found.data.columns().await?;
                    columns_of_files.entry(file).or_insert(found).clone()
                }
            },
        };
        by_columns.entry(columns).or_default().push(index);
    }
    let mut equal = HashSet::new();
    for (sent, indexes) in by_columns {
        let fields = schema.fields().iter().filter(|field| sent.contains(field.name())).cloned();
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let these = || indexes.iter().filter_map(|index| Some((*index, moved.get(*index)?)));
        let mut digests = Digests::new(view, &columns)?;
        digests.of(round, walked, these().flat_map(|(_, moved)| [moved.from, moved.to])).await?;
        equal.extend(these().filter(|(_, moved)| digests.are_equal(moved)).map(|(index, _)| index));
    }
    Ok(equal)
}

/// The table's columns that a patch's batch had.
fn columns_sent(round: &Round, walked: &Walked, version: usize) -> BTreeSet<String> {
    let patch = walked.merged.get(version).and_then(|merged| round.patches.get(merged.patch));
    let batch = patch.and_then(|patch| round.patch_batches.get(patch.batch));
    batch
        .iter()
        .flat_map(|batch| batch.schema().fields().clone().iter().map(|field| field.name().clone()).collect::<Vec<_>>())
        .collect()
}

/// Digests of versions in some of the table's columns.
struct Digests<'a> {
    view: &'a View,
    columns: &'a SchemaRef,
    converter: RowConverter,
    found: HashMap<Place, RowDigest>,
}

impl<'a> Digests<'a> {
    fn new(view: &'a View, columns: &'a SchemaRef) -> Result<Self, LakeError> {
        let fields = columns.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| view.unfit(&error))?;
        Ok(Self { view, columns, converter, found: HashMap::new() })
    }

    async fn of(
        &mut self,
        round: &Round,
        walked: &Walked,
        places: impl Iterator<Item = Place>,
    ) -> Result<(), LakeError> {
        let (mut by_file, mut merged) = (BTreeMap::<usize, BTreeSet<u32>>::new(), BTreeSet::new());
        for place in places {
            match place {
                Place::File(FileRow { file, row }) => drop(by_file.entry(file).or_default().insert(row)),
                Place::Merged(version) => drop(merged.insert(version)),
            }
        }
        for (index, numbers) in by_file {
            let Some(file) = self.view.files.get(index) else { continue };
            let numbers: Vec<u32> = numbers.into_iter().collect();
            let mut rows = SelectedRows::open(&file.data, &numbers).await?;
            while let Some((numbers, batch)) = rows.next().await? {
                let batch = file.data.adapt(&batch, self.columns)?;
                self.note(numbers.into_iter().map(|row| Place::File(FileRow { file: index, row })), &batch)?;
            }
        }
        let mut rows = MergedRows::of(self.view, round, walked, merged.into_iter(), self.columns)?;
        while let Some((versions, batch)) = rows.next().await? {
            self.note(versions.into_iter().map(Place::Merged), &batch)?;
        }
        Ok(())
    }

    fn note(&mut self, places: impl Iterator<Item = Place>, rows: &RecordBatch) -> Result<(), LakeError> {
        let unfit = |error: ArrowError| self.view.unfit(&error);
        let rows = self.converter.convert_columns(rows.columns()).map_err(unfit)?;
        let digests = rows.iter().map(|bytes| RowDigest::from(Sha256::digest(bytes.as_ref())));
        self.found.extend(places.zip(digests));
        Ok(())
    }

    fn are_equal(&self, moved: &Moved) -> bool {
        let [from, to] = [moved.from, moved.to].map(|place| self.found.get(&place));
        from.is_some() && from == to
    }
}
