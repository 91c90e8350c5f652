//! The lake's side: the files of the cut, read again one after another, and hashed as the digest does.

use super::compare::{Hash, KeyedRow};
use super::details::{Detail, Details, Extremes, merge};
use super::hours::Sums;
use super::{Plan, hexadecimal};
use crate::lake::PartitionReader;
use crate::reconcile::ReconcileError;
use crate::reconcile::cut::HashedFile;
use crate::reconcile::digest::{FormError, RowMessages};
use deltalake::arrow::array::RecordBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) struct LakeSide<'a> {
    pub(super) reader: &'a PartitionReader,
    /// Those that the cut has read.
    pub(super) files: &'a [HashedFile],
    pub(super) plan: Arc<Plan>,
}

impl LakeSide<'_> {
    pub(super) async fn hours(&self) -> Result<Sums, ReconcileError> {
        let (plan, mut all) = (Arc::clone(&self.plan), Sums::new());
        let take = move |sums: &mut Sums, rows: &RecordBatch| add_hours(&plan, sums, rows);
        let merge = |sums: Sums| {
            for (hour, sum) in sums {
                let known = all.entry(hour).or_default();
                *known = *known + sum;
            }
        };
        self.each_file(take, merge).await?;
        Ok(all)
    }

    /// Those of these hours.
    pub(super) async fn rows(&self, hours: &Arc<BTreeSet<i64>>) -> Result<Vec<KeyedRow>, ReconcileError> {
        let (plan, hours, mut all) = (Arc::clone(&self.plan), Arc::clone(hours), Vec::new());
        let take = move |found: &mut Vec<KeyedRow>, rows: &RecordBatch| add_rows(&plan, &hours, found, rows);
        self.each_file(take, |found: Vec<KeyedRow>| all.extend(found)).await?;
        Ok(all)
    }

    /// Those of these keys in these hours.
    pub(super) async fn details(
        &self,
        hours: &Arc<BTreeSet<i64>>,
        keys: &Arc<BTreeSet<Hash>>,
    ) -> Result<Details, ReconcileError> {
        let (plan, hours, keys, mut all) =
            (Arc::clone(&self.plan), Arc::clone(hours), Arc::clone(keys), Details::new());
        let take = move |found: &mut Details, rows: &RecordBatch| add_details(&plan, (&hours, &keys), found, rows);
        let merge = |found: Details| found.into_iter().for_each(|(key, detail)| merge(&mut all, key, detail));
        self.each_file(take, merge).await?;
        Ok(all)
    }

    /// A file that cannot be read is left out, whole, as the cut did.
    async fn each_file<T, F>(&self, take: F, mut merge: impl FnMut(T)) -> Result<(), ReconcileError>
    where
        T: Default + Send + 'static,
        F: Fn(&mut T, &RecordBatch) -> Result<(), FormError> + Clone + Send + 'static,
    {
        for file in self.files {
            let read = match self.reader.fetch(&file.file).await {
                Ok(fetched) => fetched.read(T::default(), take.clone()).await,
                Err(fault) => Err(fault),
            };
            match read {
                Ok(found) => merge(found),
                Err(fault) => ReconcileError::of_file(fault).map(drop)?,
            }
        }
        Ok(())
    }
}

fn add_hours(plan: &Plan, sums: &mut Sums, rows: &RecordBatch) -> Result<(), FormError> {
    let mut messages = RowMessages::of(&plan.columns, rows)?;
    for (row, hour) in plan.hours.of(rows)?.into_iter().enumerate() {
        sums.entry(hour).or_default().add_row(&messages.hash(row));
    }
    Ok(())
}

fn add_rows(
    plan: &Plan,
    hours: &BTreeSet<i64>,
    found: &mut Vec<KeyedRow>,
    rows: &RecordBatch,
) -> Result<(), FormError> {
    let mut keys = RowMessages::of(plan.identity(), rows)?;
    let mut messages = RowMessages::of(&plan.columns, rows)?;
    for (row, hour) in plan.hours.of(rows)?.into_iter().enumerate() {
        if hours.contains(&hour) {
            found.push(KeyedRow { key: short(&keys.hash(row)), row: short(&messages.hash(row)) });
        }
    }
    Ok(())
}

fn add_details(
    plan: &Plan,
    (hours, wanted): (&BTreeSet<i64>, &BTreeSet<Hash>),
    found: &mut Details,
    rows: &RecordBatch,
) -> Result<(), FormError> {
    let mut keys = RowMessages::of(plan.identity(), rows)?;
    let each = plan.columns.iter().map(|column| RowMessages::of(std::slice::from_ref(column), rows));
    let mut each = each.collect::<Result<Vec<_>, _>>()?;
    for (row, hour) in plan.hours.of(rows)?.into_iter().enumerate() {
        if !hours.contains(&hour) {
            continue;
        }
        let key = short(&keys.hash(row));
        if wanted.contains(&key) {
            let columns = each.iter_mut().map(|column| hexadecimal(&column.hash(row)));
            let columns = columns.map(|hash| Extremes { least: hash.clone(), greatest: hash }).collect();
            merge(found, key, Detail { message: keys.message(row).to_vec(), columns });
        }
    }
    Ok(())
}

fn short(hash: &[u8; 32]) -> Hash {
    hash.first_chunk().copied().unwrap_or_default()
}
