//! What consecutive rows have in common: which (sub)transaction of an open transaction they belong to, or how many changes came before
//! them; and which (sub)transactions were rolled back.
//!
//! A transaction may have 100,000 savepoints and ten million rows, so neither type holds anything per row: rows come in runs of one
//! number, kept at two to three bytes a run, and the ids of savepoints that are rolled back in a loop are neighbours,
//! kept as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a varint of 64 bits at most.
const VARINT_BYTES_MAX: usize = 10;
const CONTINUES: u8 = 0x80;

/// A set of transaction ids, kept as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XidSet {
    /// First to last, both included; ranges neither touch nor overlap.
    ranges: BTreeMap<u32, u32>,
}

impl XidSet {
    /// The ids from 1 to `last`; none for 0.
    pub fn up_to(last: u32) -> Self {
        Self { ranges: (last > 0).then_some((1, last)).into_iter().collect() }
    }

    /// Adds an id.
    pub fn insert(&mut self, xid: u32) {
        if self.contains(xid) {
            return;
        }
        let (mut first, mut last) = (xid, xid);
        if let Some(before) = xid.checked_sub(1)
            && let Some((&start, &end)) = self.ranges.range(..=before).next_back()
            && end == before
        {
            first = start;
        }
        if let Some(after) = xid.checked_add(1)
            && let Some(end) = self.ranges.remove(&after)
        {
            last = end;
        }
        self.ranges.insert(first, last);
    }

    /// Whether the id is in the set.
    #[inline]
    pub fn contains(&self, xid: u32) -> bool {
        self.ranges.range(..=xid).next_back().is_some_and(|(_, &last)| xid <= last)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// First and last id of each stretch of neighbours, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether an id is in this set and not in the other.
    pub fn has_more_than(&self, other: &XidSet) -> bool {
        let covered = |first: u32, last: u32| {
            let around = other.ranges.range(..=first).next_back();
            around.is_some_and(|(_, &end)| last <= end)
        };
        self.ranges.iter().any(|(&first, &last)| !covered(first, last))
    }

    /// Memory held, roughly: what a B-tree takes for a range.
    pub fn memory_bytes(&self) -> usize {
        self.ranges.len() * 16
    }
}

/// One number for each of consecutive rows, in arrival order, as runs: a (sub)transaction's id, or an era.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// For each finished run: its number as a signed difference from the one before (zigzag), then its rows, both as varints.
    encoded: Vec<u8>,
    /// The last id in `encoded`.
    encoded_xid: u32,
    /// The run that still grows.
    last: Option<(u32, u64)>,
    rows: u64,
}

impl Runs {
    /// One run.
    pub fn of(label: u32, rows: u64) -> Self {
        let mut runs = Self::default();
        if rows > 0 {
            runs.push(label, rows);
        }
        runs
    }

    /// Notes that the next `rows` rows belong to `xid`.
    #[inline]
    pub fn push(&mut self, xid: u32, rows: u64) {
        self.rows += rows;
        match &mut self.last {
            Some((last, count)) if *last == xid => *count += rows,
            _ => self.begin_run(xid, rows),
        }
    }

    /// Appends the runs of rows that follow.
    pub fn extend(&mut self, following: &Runs) {
        for (xid, rows) in following.iter() {
            self.push(xid, rows);
        }
    }

    /// Rows noted.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether no row was noted.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.encoded.capacity()
    }

    /// Every run: id and rows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let mut rest = self.encoded.as_slice();
        let mut xid = 0_u32;
        let finished = std::iter::from_fn(move || {
            let difference = take_varint(&mut rest)?;
            let rows = take_varint(&mut rest)?;
            xid = xid.wrapping_add(un_zigzag(difference));
            Some((xid, rows))
        });
        finished.chain(self.last)
    }

    /// The runs of the rows of `ranges` alone, which are ascending and do not overlap.
    pub fn of_rows(&self, ranges: &[Range<u64>]) -> Runs {
        let mut kept = Runs::default();
        let mut wanted = ranges.iter().cloned();
        let mut range = wanted.next();
        let mut start = 0;
        for (label, rows) in self.iter() {
            let end = start + rows;
            while let Some(current) = &range {
                let (from, to) = (current.start.max(start), current.end.min(end));
                if from < to {
                    kept.push(label, to - from);
                }
                if current.end > end {
                    break;
                }
                range = wanted.next();
            }
            start = end;
        }
        kept
    }

    /// Whether a row belongs to one of `aborted`.
    pub fn touches(&self, aborted: &XidSet) -> bool {
        !aborted.is_empty() && self.iter().any(|(xid, rows)| rows > 0 && aborted.contains(xid))
    }

    /// The rows that belong to none of `aborted`, as ascending ranges that do not touch; row 0 is the first noted.
    pub fn live(&self, aborted: &XidSet) -> Vec<Range<u64>> {
        let mut live: Vec<Range<u64>> = Vec::new();
        let mut start = 0;
        for (xid, rows) in self.iter() {
            let range = start..start + rows;
            start = range.end;
            if rows == 0 || aborted.contains(xid) {
                continue;
            }
            match live.last_mut() {
                Some(before) if before.end == range.start => before.end = range.end,
                _ => live.push(range),
            }
        }
        live
    }

    #[cold]
    fn begin_run(&mut self, xid: u32, rows: u64) {
        if let Some((finished, count)) = self.last.replace((xid, rows)) {
            put_varint(zigzag(finished.wrapping_sub(self.encoded_xid)), &mut self.encoded);
            put_varint(count, &mut self.encoded);
            self.encoded_xid = finished;
        }
    }
}

/// Small differences in either direction become small numbers.
fn zigzag(difference: u32) -> u64 {
    let signed = difference.cast_signed();
    u64::from(((signed << 1) ^ (signed >> 31)).cast_unsigned())
}

#[allow(clippy::cast_possible_truncation, reason = "zigzag made it from 32 bits")]
fn un_zigzag(encoded: u64) -> u32 {
    let encoded = encoded as u32;
    (encoded >> 1) ^ (encoded & 1).wrapping_neg()
}

#[allow(clippy::cast_possible_truncation, reason = "the low seven bits are what is meant")]
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= u64::from(CONTINUES) {
        out.push(value as u8 | CONTINUES);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..).step_by(7).take(VARINT_BYTES_MAX) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & !CONTINUES) << shift;
        if byte & CONTINUES == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbours_become_one_range() {
        let mut set = XidSet::default();
        for xid in [5, 7, 6, u32::MAX, 0, 1, 6] {
            set.insert(xid);
        }
        assert_eq!(set.ranges, BTreeMap::from([(0, 1), (5, 7), (u32::MAX, u32::MAX)]));
        assert!(set.contains(6) && !set.contains(4) && !set.contains(8));
    }

    #[test]
    fn a_hundred_thousand_savepoints_take_little() {
        let (mut runs, mut aborted) = (Runs::default(), XidSet::default());
        for xid in 1_000_000..1_100_000 {
            runs.push(xid, 1);
            aborted.insert(xid);
        }
        assert!(runs.memory_bytes() < 300_000, "{}", runs.memory_bytes());
        assert_eq!(aborted.memory_bytes(), 16);
        assert!(runs.live(&aborted).is_empty());
    }

    proptest! {
        #[test]
        fn runs_and_sets_agree_with_plain_lists(
            rows in proptest::collection::vec((prop_oneof![0_u32..20, any::<u32>()], 0_u64..4), 0..60),
            split in 0_usize..60,
            aborted in proptest::collection::vec(prop_oneof![0_u32..20, any::<u32>()], 0..30),
        ) {
            let (mut runs, mut tail) = (Runs::default(), Runs::default());
            for (index, (xid, count)) in rows.iter().enumerate() {
                if index < split { runs.push(*xid, *count) } else { tail.push(*xid, *count) }
            }
            runs.extend(&tail);
            let mut set = XidSet::default();
            aborted.iter().for_each(|xid| set.insert(*xid));
            let plain: BTreeSet<u32> = aborted.iter().copied().collect();
            let each: Vec<u32> = rows.iter().flat_map(|(xid, count)| (0..*count).map(|_| *xid)).collect();
            prop_assert_eq!(runs.rows(), each.len() as u64);
            let expected: Vec<u64> = (0..).zip(&each).filter(|(_, xid)| !plain.contains(xid)).map(|(row, _)| row).collect();
            prop_assert_eq!(runs.touches(&set), expected.len() < each.len());
            let mut all = XidSet::default();
            each.iter().for_each(|xid| all.insert(*xid));
            prop_assert_eq!(all.has_more_than(&set), !expected.is_empty());
            let live = runs.live(&set);
            let kept = runs.of_rows(&live);
            prop_assert_eq!(live.into_iter().flatten().collect::<Vec<_>>(), expected);
            let kept: Vec<u32> = kept.iter().flat_map(|(xid, count)| (0..count).map(move |_| xid)).collect();
            prop_assert_eq!(kept, each.into_iter().filter(|xid| !plain.contains(xid)).collect::<Vec<_>>());
        }
    }
}
