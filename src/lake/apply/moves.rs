//! Rows that one transaction deletes and inserts again unchanged, as partman does when it empties the default partition: the lake's row
//! stays where it is.

use super::merge::SelectedRows;
use super::view::View;
use super::walk::{FileRow, Moved};
use crate::lake::error::LakeError;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::arrow::row::{RowConverter, SortField};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

/// Every column of a row in one number.
type RowDigest = [u8; 32];

/// Takes back what nets to nothing.
pub(super) async fn take_back(view: &mut View, moved: Vec<Moved>, schema: &SchemaRef) -> Result<u64, LakeError> {
    // A row that goes to another partition cannot be equal.
    let partition = |place: FileRow| view.files.get(place.file).map(|file| file.partition);
    let moved: Vec<Moved> = moved.into_iter().filter(|moved| partition(moved.from) == partition(moved.to)).collect();
    let digests = digests(view, moved.iter().flat_map(|moved| [moved.from, moved.to]), schema).await?;
    let mut taken_back = 0;
    for Moved { from, label, to } in moved {
        if digests.get(&from) != digests.get(&to) {
            continue;
        }
        taken_back += 1;
        if let Some(file) = view.files.get_mut(from.file) {
            file.dead.remove(from.row, label);
        }
        if let Some(file) = view.files.get_mut(to.file) {
            file.dead.insert(to.row, label);
        }
    }
    Ok(taken_back)
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
