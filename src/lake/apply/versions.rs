//! The versions of the rows that a round names, found in the files that can hold them.

use super::steps::{Named, Round};
use super::view::{FileRow, View, ViewFile};
use super::walk::Place;
use crate::lake::error::LakeError;
use std::collections::BTreeMap;

/// A version of a row, and its era.
pub(super) type Version = (i64, Place);

/// Versions of the rows that a round names, by the number of their key.
pub(super) struct Versions(pub(super) Vec<Vec<Version>>);

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
                scan(view, index, round, &mut versions).await?;
            }
        }
        // Of rows that the lake holds, the one that came last is the last.
        let written = |place: &Place| match place {
            Place::File(row) => view.files.get(row.file).map_or(i64::MAX, ViewFile::modified_millis),
            Place::Merged(_) => i64::MAX,
        };
        versions.iter_mut().for_each(|found| found.sort_by_key(|(era, place)| (*era, written(place))));
        Ok(Self(versions))
    }
}

fn may_hold(file: &ViewFile, round: &Round, named: &Named) -> bool {
    let mut columns = round.identity.fields().iter().zip(round.key_columns(named));
    columns.all(|(field, values)| file.bounds.may_hold(field.name(), values, named.row))
}

/// Notes every row of a file whose key the round knows.
async fn scan(view: &View, index: usize, round: &Round, versions: &mut [Vec<Version>]) -> Result<(), LakeError> {
    let Some(file) = view.files.get(index) else { return Ok(()) };
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
                let place = FileRow { file: index, row };
                if found.is_empty() {
                    // Nearly every key has one version, and there are very many keys.
                    found.reserve_exact(1);
                }
                found.push((view.stand_ins.era(place).map_or(era, i64::from), Place::File(place)));
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
