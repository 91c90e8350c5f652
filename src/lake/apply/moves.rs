//! Rows that one transaction deletes and inserts again unchanged, as partman does when it empties the default partition: the lake's row
//! stays where it is.

use super::merge::SelectedRows;
use super::view::{View, ViewFile};
use super::walk::{FileRow, Moved};
use crate::lake::error::LakeError;
use deltalake::arrow::datatypes::{Schema, SchemaRef};
use deltalake::arrow::row::{RowConverter, SortField};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The columns of a row in one number.
type RowDigest = [u8; 32];

/// Takes back what nets to nothing: the lake's row goes on in the place of the one that was inserted, and shares its fate. What it has in a
/// column that the table no longer has stays with it.
pub(super) async fn take_back(view: &mut View, moved: Vec<Moved>, schema: &SchemaRef) -> Result<u64, LakeError> {
    // A row that goes to another partition cannot be equal.
    let partition = |place: FileRow| view.files.get(place.file).map(|file| file.partition);
    let moved: Vec<Moved> = moved.into_iter().filter(|moved| partition(moved.from) == partition(moved.to)).collect();
    let equal = equal(view, &moved, schema).await?;
    // Rows of the segment that a row of the lake stands for.
    let mut stands_for: HashMap<FileRow, FileRow> = HashMap::new();
    let mut taken_back = 0;
    for (index, Moved { from, label, to }) in moved.into_iter().enumerate() {
        let is_in_the_lake = view.files.get(from.file).is_some_and(ViewFile::is_in_the_lake);
        let origin = if is_in_the_lake { Some(from) } else { stands_for.get(&from).copied() };
        let Some(origin) = origin.filter(|_| equal.contains(&index)) else { continue };
        let fate = view.files.get(to.file).and_then(|file| file.dead.label_of(to.row));
        // At the transaction's end the row was not there, or not this one.
        if fate.is_some_and(|(transaction, _)| transaction == label.0) {
            continue;
        }
        taken_back += 1;
        stands_for.insert(to, origin);
        if let Some(file) = view.files.get_mut(origin.file) {
            file.dead.remove(origin.row, label);
            if let Some(label) = fate {
                file.dead.insert(origin.row, label);
            }
        }
        if let Some(file) = view.files.get_mut(to.file) {
            file.dead.insert(to.row, label);
        }
    }
    Ok(taken_back)
}

/// Which of the moves, by their place, left the row as it was: in every column that the inserted row has.
async fn equal(view: &View, moved: &[Moved], schema: &SchemaRef) -> Result<HashSet<usize>, LakeError> {
    let mut by_file: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, moved) in moved.iter().enumerate() {
        by_file.entry(moved.to.file).or_default().push(index);
    }
    let mut equal = HashSet::new();
    for (to, indexes) in by_file {
        let Some(file) = view.files.get(to) else { continue };
        let sent = file.data.columns().await?;
        let fields = schema.fields().iter().filter(|field| sent.contains(field.name())).cloned();
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let these = || indexes.iter().filter_map(|index| Some((*index, moved.get(*index)?)));
        let digests = digests(view, these().flat_map(|(_, moved)| [moved.from, moved.to]), &columns).await?;
        equal.extend(
            these().filter(|(_, moved)| digests.get(&moved.from) == digests.get(&moved.to)).map(|(index, _)| index),
        );
    }
    Ok(equal)
}

async fn digests(
    view: &View,
    places: impl Iterator<Item = FileRow>,
    schema: &SchemaRef,
) -> Result<HashMap<FileRow, RowDigest>, LakeError> {
    let mut by_file: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for FileRow { file, row } in places {
        by_file.entry(file).or_default().push(row);
    }
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let mut found = HashMap::new();
    let mut converter: Option<RowConverter> = None;
    for (index, mut numbers) in by_file {
        let Some(file) = view.files.get(index) else { continue };
        let failed = |error: deltalake::arrow::error::ArrowError| file.data.failed(error.into());
        let converter = match &mut converter {
            Some(converter) => converter,
            none => none.insert(RowConverter::new(Vec::clone(&fields)).map_err(failed)?),
        };
        numbers.sort_unstable();
        let mut rows = SelectedRows::open(&file.data, &numbers).await?;
        while let Some((numbers, batch)) = rows.next().await? {
            let batch = file.data.adapt(&batch, schema)?;
            let rows = converter.convert_columns(batch.columns()).map_err(failed)?;
            for (row, bytes) in numbers.into_iter().zip(rows.iter()) {
                found.insert(FileRow { file: index, row }, Sha256::digest(bytes.as_ref()).into());
            }
        }
    }
    Ok(found)
}
