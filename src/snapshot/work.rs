//! What is to be read, in pieces: ranges of a relation's blocks, so that neither locks nor memory nor the number of sessions depend on how
//! large a partition is.

use super::places::{Place, last_day};
use crate::base::{DaySet, TableName, TableShape};
use crate::source::quote_identifier;
use chrono::NaiveDate;
use std::sync::Arc;

/// About what a range holds, TOAST included.
const RANGE_BYTES: u64 = 32 << 20;
/// Blocks of a range, whatever they hold.
const RANGE_BLOCKS: std::ops::RangeInclusive<u64> = 16..=8_192;

/// Blocks of a relation: from the first one on, up to another, or to the end, which may have moved since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    from: u32,
    to: Option<u32>,
}

impl Blocks {
    /// A relation of `blocks` in ranges of `step`.
    pub(super) fn cut(blocks: u32, step: u32) -> impl Iterator<Item = Blocks> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let from = next?;
            let range = Blocks::at(from, blocks, step);
            next = range.to;
            Some(range)
        })
    }

    fn at(from: u32, blocks: u32, step: u32) -> Blocks {
        let to = from.checked_add(step.max(1)).filter(|to| *to < blocks);
        Blocks { from, to }
    }

    /// That a row is in one of them.
    pub(super) fn condition(&self) -> String {
        let from = format!("ctid >= '({},0)'::pg_catalog.tid", self.from);
        match self.to {
            Some(to) => format!("{from} AND ctid < '({to},0)'::pg_catalog.tid"),
            None => from,
        }
    }

    /// Both halves; the whole where there is nothing to halve. `blocks` is where the relation ends, as far as is known.
    pub(super) fn halves(self, blocks: u32) -> Vec<Blocks> {
        let end = self.to.unwrap_or(blocks);
        let middle = self.from + end.saturating_sub(self.from) / 2;
        if middle <= self.from {
            return vec![self];
        }
        vec![Blocks { from: self.from, to: Some(middle) }, Blocks { from: middle, to: self.to }]
    }
}

/// A relation that is read for one order.
#[derive(Debug)]
pub(super) struct Relation {
    /// The order's number.
    pub(super) order: usize,
    /// The root, for messages.
    pub(super) table: TableName,
    pub(super) oid: u32,
    pub(super) blocks: u32,
    step: u32,
    /// The last day that it can have rows of; None is the latest of all.
    newest: Option<NaiveDate>,
    /// What is selected.
    columns: Arc<str>,
    /// Which of its rows are wanted.
    filter: Option<String>,
}

impl Relation {
    pub(super) fn new(order: usize, place: &Place, shape: &TableShape, days: &DaySet, columns: &Arc<str>) -> Self {
        let extent = &place.extent;
        let step = u64::from(extent.blocks) * RANGE_BYTES / extent.bytes.max(1);
        let step = u32::try_from(step.clamp(*RANGE_BLOCKS.start(), *RANGE_BLOCKS.end())).unwrap_or(u32::MAX);
        let wanted = days.days().last().map(last_day);
        let newest = place.reach.last.into_iter().chain(wanted).min();
        let filter = place.filter(shape, days);
        let (table, columns) = (shape.table.clone(), Arc::clone(columns));
        Self { order, table, oid: extent.oid, blocks: extent.blocks, step, newest, columns, filter }
    }

    /// The statement that sends some of its rows; `name` is quoted.
    pub(super) fn copy(&self, name: &str, blocks: Blocks) -> String {
        let filter = self.filter.as_ref().map_or_else(String::new, |filter| format!(" AND {filter}"));
        let (columns, blocks) = (&self.columns, blocks.condition());
        format!("COPY (SELECT {columns} FROM ONLY {name} WHERE {blocks}{filter}) TO STDOUT (FORMAT binary)")
    }
}

/// What is selected, by name, for partitions may have their columns in another order; and which of them come as text, because their binary
/// form is not decoded: then it is the type's output text, which a cast is not for every type.
pub(super) fn columns_of(shape: &TableShape) -> (Arc<str>, Arc<[bool]>) {
    let texts: Vec<bool> = shape.columns.iter().map(|column| !column.column_type.binary_is_understood()).collect();
    let columns = shape.columns.iter().zip(&texts).map(|(column, is_text)| {
        let name = quote_identifier(&column.name);
        // IS NOT NULL is another question for a composite value.
        if *is_text { format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END") } else { name }
    });
    (columns.collect::<Vec<_>>().join(", ").into(), texts.into())
}

/// A range that a session reads.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// The relation's number in the queue.
    pub(super) number: usize,
    pub(super) relation: Arc<Relation>,
    pub(super) blocks: Blocks,
}

struct Pending {
    relation: Arc<Relation>,
    /// None when everything was handed out.
    next: Option<u32>,
    begun: bool,
}

/// Everything that nobody has begun to read.
pub(super) struct Queue {
    pending: Vec<Pending>,
}

impl Queue {
    /// The newest days first; relations without a block are left out.
    pub(super) fn new(mut relations: Vec<Relation>) -> Self {
        relations.retain(|relation| relation.blocks > 0);
        relations.sort_by_key(|relation| std::cmp::Reverse(relation.newest.unwrap_or(NaiveDate::MAX)));
        let pending = |relation| Pending { relation: Arc::new(relation), next: Some(0), begun: false };
        Self { pending: relations.into_iter().map(pending).collect() }
    }

    /// How many sessions could be busy at once.
    pub(super) fn ranges(&self) -> usize {
        self.pending.iter().map(|pending| Blocks::cut(pending.relation.blocks, pending.relation.step).count()).sum()
    }

    /// The next range for a session that is at a relation: that relation's, so that a small one becomes one file; else one of a relation that
    /// nobody has begun; else one of that of which most is left.
    pub(super) fn take(&mut self, current: Option<usize>) -> Option<Work> {
        let own = current.filter(|number| self.pending.get(*number).is_some_and(|pending| pending.next.is_some()));
        let fresh = || self.pending.iter().position(|pending| !pending.begun && pending.next.is_some());
        let most_left = || {
            let left = |pending: &Pending| pending.next.map(|next| pending.relation.blocks.saturating_sub(next));
            let open = (0..).zip(&self.pending).filter_map(|(number, pending)| Some((left(pending)?, number)));
            open.max().map(|(_, number): (u32, usize)| number)
        };
        let number = own.or_else(fresh).or_else(most_left)?;
        let pending = self.pending.get_mut(number)?;
        let blocks = Blocks::at(pending.next?, pending.relation.blocks, pending.relation.step);
        pending.begun = true;
        pending.next = blocks.to;
        Some(Work { number, relation: Arc::clone(&pending.relation), blocks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ColumnType, PartitionBy};
    use crate::snapshot::places::Kind;
    use crate::snapshot::places::tests::{days, place, shape};
    use proptest::prelude::*;

    fn relation(order: usize, day: &str, blocks: u32) -> Relation {
        let shape = shape(PartitionBy::Day);
        let upper = crate::snapshot::places::tests::date(day).succ_opt().unwrap().to_string();
        let place = place(Kind::Bounded, Some((day, &upper)), blocks);
        Relation::new(order, &place, &shape, &days(&[day]), &columns_of(&shape).0)
    }

    #[test]
    fn columns_are_named_and_what_is_not_decoded_comes_as_its_output() {
        let mut shape = shape(PartitionBy::Day);
        shape.columns[0].column_type = ColumnType::ServerText;
        let (columns, texts) = columns_of(&shape);
        let expected = "CASE WHEN \"id\" IS DISTINCT FROM NULL THEN format('%s', \"id\") END, \"at\"";
        assert_eq!((&*columns, &*texts), (expected, &[true, false][..]));
    }

    #[test]
    fn the_last_range_has_no_end() {
        let relation = relation(0, "2026-01-02", 10_000);
        let sql: Vec<String> = Blocks::cut(10_000, 4_096).map(|blocks| relation.copy("public.t", blocks)).collect();
        let all = "COPY (SELECT \"id\", \"at\" FROM ONLY public.t WHERE ctid >=";
        assert_eq!(
            sql,
            [
                format!(
                    "{all} '(0,0)'::pg_catalog.tid AND ctid < '(4096,0)'::pg_catalog.tid) TO STDOUT (FORMAT binary)"
                ),
                format!(
                    "{all} '(4096,0)'::pg_catalog.tid AND ctid < '(8192,0)'::pg_catalog.tid) TO STDOUT (FORMAT binary)"
                ),
                format!("{all} '(8192,0)'::pg_catalog.tid) TO STDOUT (FORMAT binary)"),
            ]
        );
    }

    #[test]
    fn a_session_stays_at_its_relation_and_helps_where_most_is_left() {
        let mut queue = Queue::new(vec![
            relation(0, "2026-01-01", 20_000),
            relation(1, "2026-01-03", 5_000),
            relation(2, "2026-01-02", 3_000),
            relation(3, "2026-01-04", 0),
        ]);
        assert_eq!(queue.ranges(), 5 + 2 + 1);
        let mut take = |current| queue.take(current).map(|work| (work.relation.order, work.number, work.blocks.from));
        assert_eq!(take(None), Some((1, 0, 0)), "the newest");
        assert_eq!(take(None), Some((2, 1, 0)), "another session begins at another");
        assert_eq!(take(Some(0)), Some((1, 0, 4_096)));
        assert_eq!(take(Some(1)), Some((0, 2, 0)));
        assert_eq!(take(Some(0)), Some((0, 2, 4_096)), "and helps");
        assert_eq!((0..3).filter_map(|_| take(Some(2))).count(), 3);
        assert_eq!(take(Some(2)), None);
    }

    proptest! {
        #[test]
        fn ranges_and_their_halves_cover_every_block_once(blocks in 1_u32..50_000, step in 1_u32..9_000, deep in 0_usize..6) {
            let mut ranges: Vec<Blocks> = Blocks::cut(blocks, step).collect();
            for _ in 0..deep {
                ranges = ranges.into_iter().flat_map(|range| range.halves(blocks)).collect();
            }
            prop_assert_eq!(ranges[0].from, 0);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, Some(pair[1].from));
                prop_assert!(pair[0].from < pair[1].from);
            }
            prop_assert_eq!(ranges.last().unwrap().to, None);
        }
    }
}
