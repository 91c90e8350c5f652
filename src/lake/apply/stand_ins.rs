//! Rows of the lake in the place of ones that a transaction inserted, while the transaction goes on in the next round.

use super::view::FileRow;
use roaring::RoaringBitmap;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The transaction deleted each of these rows and inserted it again. Its changes before the second find what else was there, and if it
/// changes the row once more, a deletion is what it did first.
#[derive(Default)]
pub(super) struct StandIns {
    transaction: Option<usize>,
    /// By file, in the order of the rows: the row, and the era of what it stands for.
    rows: BTreeMap<usize, Vec<(u32, u32)>>,
}

impl StandIns {
    /// Adds rows of one transaction, with the eras of what they stand for. Those of an earlier transaction are rows like any other now:
    /// every change from here on is behind their eras.
    pub(super) fn add(&mut self, transaction: usize, rows: Vec<(FileRow, u32)>) {
        if self.transaction.replace(transaction) != Some(transaction) {
            self.rows.clear();
        }
        let mut touched: Vec<usize> = rows.iter().map(|(place, _)| place.file).collect();
        for (FileRow { file, row }, era) in rows {
            self.rows.entry(file).or_default().push((row, era));
        }
        touched.sort_unstable();
        touched.dedup();
        for file in touched {
            let Some(rows) = self.rows.get_mut(&file) else { continue };
            // A row that was added again counts as what it stands for now, which is the later.
            rows.sort_unstable_by_key(|(row, era)| (*row, Reverse(*era)));
            rows.dedup_by_key(|(row, _)| *row);
        }
    }

    /// The era of what a row stands for, if it does so for this transaction.
    pub(super) fn since(&self, transaction: usize, place: FileRow) -> Option<u32> {
        self.era(place).filter(|_| self.transaction == Some(transaction))
    }

    /// The era of what a row stands for.
    pub(super) fn era(&self, FileRow { file, row }: FileRow) -> Option<u32> {
        let rows = self.rows.get(&file)?;
        let found = rows.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        rows.get(found).map(|(_, era)| *era)
    }

    /// The rows of a file that stand for what is there since `ordinal` or before, and those that came after it.
    pub(super) fn split(&self, file: usize, ordinal: u32) -> (Vec<u32>, RoaringBitmap) {
        let (mut before, mut after) = (Vec::new(), RoaringBitmap::new());
        for (row, era) in self.rows.get(&file).into_iter().flatten() {
            if *era <= ordinal {
                before.push(*row);
            } else {
                after.insert(*row);
            }
        }
        (before, after)
    }
}
