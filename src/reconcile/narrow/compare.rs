//! Two multisets of rows, told apart by the hashes of their keys.

use super::KEYS_TOLD;
use crate::reconcile::digest::RowSum;

/// As much of a SHA-256 as a digest adds up.
pub(super) type Hash = [u8; 16];

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyedRow {
    pub(super) key: Hash,
    pub(super) row: Hash,
}

impl KeyedRow {
    /// What the row is in a digest.
    pub(super) fn sum(&self) -> RowSum {
        let mut hash = [0; 32];
        hash[..self.row.len()].copy_from_slice(&self.row);
        let mut sum = RowSum::default();
        sum.add_row(&hash);
        sum
    }
}

/// Keys of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// All of them.
    pub(super) total: u64,
    /// Some of them.
    pub(super) keys: Vec<Hash>,
}

impl Found {
    fn add(&mut self, key: Hash) {
        self.total += 1;
        if self.keys.len() < KEYS_TOLD {
            self.keys.push(key);
        }
    }
}

/// Keys whose rows are not the same on both sides. Each is of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// The lake has no such row, or fewer of them.
    pub(super) missing: Found,
    /// Only the lake has such a row.
    pub(super) extra: Found,
    /// The lake has what PostgreSQL has, and more rows with the same key.
    pub(super) doubled: Found,
    /// Each side has a row with this key that the other lacks.
    pub(super) different: Found,
}

impl Compared {
    /// Those that are told.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Hash> {
        [&self.missing, &self.extra, &self.doubled, &self.different].into_iter().flat_map(|found| &found.keys)
    }
}

/// Compares both sides' rows.
pub(super) fn compare(mut source: Vec<KeyedRow>, mut lake: Vec<KeyedRow>) -> Compared {
    source.sort_unstable();
    lake.sort_unstable();
    let (mut in_source, mut in_lake) = (source.as_slice(), lake.as_slice());
    let mut compared = Compared::default();
    while let Some(key) = in_source.first().into_iter().chain(in_lake.first()).map(|row| row.key).min() {
        let (ours, theirs) = (rows_of(&mut in_source, key), rows_of(&mut in_lake, key));
        match (lacks_any(theirs, ours), lacks_any(ours, theirs)) {
            (false, false) => {}
            (true, false) => compared.missing.add(key),
            (true, true) => compared.different.add(key),
            (false, true) if ours.is_empty() => compared.extra.add(key),
            (false, true) => compared.doubled.add(key),
        }
    }
    compared
}

/// Takes the rows of a key from the front.
fn rows_of<'a>(rows: &mut &'a [KeyedRow], key: Hash) -> &'a [KeyedRow] {
    let (those, rest) = rows.split_at(rows.partition_point(|row| row.key == key));
    *rows = rest;
    those
}

/// Whether the first lacks a row of the second; both are sorted.
fn lacks_any(rows: &[KeyedRow], wanted: &[KeyedRow]) -> bool {
    let mut rows = rows.iter();
    wanted.iter().any(|wanted| rows.by_ref().find(|row| *row >= wanted) != Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(pairs: &[(u8, u8)]) -> Vec<KeyedRow> {
        pairs.iter().map(|(key, row)| KeyedRow { key: [*key; 16], row: [*row; 16] }).collect()
    }

    #[track_caller]
    fn assert_kinds(source: &[(u8, u8)], lake: &[(u8, u8)], [missing, extra, doubled, different]: [&[u8]; 4]) {
        let compared = compare(rows(source), rows(lake));
        let found = |keys: &[u8]| Found {
            total: u64::try_from(keys.len()).unwrap(),
            keys: keys.iter().map(|key| [*key; 16]).collect(),
        };
        let expected = Compared {
            missing: found(missing),
            extra: found(extra),
            doubled: found(doubled),
            different: found(different),
        };
        assert_eq!(compared, expected);
    }

    #[test]
    fn the_same_rows_in_any_order_are_of_no_kind() {
        assert_kinds(&[(1, 1), (2, 2), (3, 3), (2, 2)], &[(2, 2), (3, 3), (2, 2), (1, 1)], [&[], &[], &[], &[]]);
        assert_kinds(&[], &[], [&[], &[], &[], &[]]);
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let source = [(1, 1), (2, 2), (4, 4), (5, 5), (9, 9)];
        let lake = [(2, 2), (3, 3), (4, 4), (4, 4), (5, 6), (9, 9)];
        assert_kinds(&source, &lake, [&[1], &[3], &[4], &[5]]);
    }

    #[test]
    fn an_old_version_beside_the_new_one_is_a_doubled_key_and_a_copy_too_few_a_missing_one() {
        assert_kinds(&[(1, 7)], &[(1, 5), (1, 7)], [&[], &[], &[1], &[]]);
        assert_kinds(&[(1, 7)], &[(1, 7), (1, 9)], [&[], &[], &[1], &[]]);
        assert_kinds(&[(1, 7), (1, 7)], &[(1, 7)], [&[1], &[], &[], &[]]);
        assert_kinds(&[(1, 7), (1, 8)], &[(1, 7), (1, 9)], [&[], &[], &[], &[1]]);
    }

    #[test]
    fn all_are_counted_and_a_few_are_kept() {
        let many: Vec<(u8, u8)> = (0..100).map(|n| (n, n)).collect();
        let compared = compare(rows(&many), Vec::new());
        assert_eq!(
            (compared.missing.total, compared.missing.keys.len(), compared.keys().count()),
            (100, KEYS_TOLD, KEYS_TOLD)
        );
    }

    #[test]
    fn rows_add_up_to_the_digest() {
        let (row, mut sum) = (KeyedRow { key: [1; 16], row: [200; 16] }, RowSum::default());
        sum.add_row(&[200; 32]);
        assert_eq!(row.sum(), sum);
    }
}
