//! Which days are copied next: together in one snapshot, and so few that it is held briefly.

use super::SnapshotError;
use super::places::{Kind, Place, Sizes, SourceTable, last_day, places};
use crate::base::{DaySet, Partition, PartitionBy};
use chrono::{Datelike, NaiveDate};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Days of one table that are copied in one batch, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The caller's number of the table.
    pub table: usize,
    /// Its days; all of them for a table whose changes do not name their day.
    pub days: DaySet,
    /// What PostgreSQL has of them, about, TOAST included.
    pub bytes: u64,
}

/// What waits of one table: its marked days. Days that share a relation belong together, because it is read only once then; the
/// default partition, which is read for every batch, does not count. A day that PostgreSQL has nothing of waits as well.
///
/// # Errors
/// As [`super::days_with_rows`].
pub async fn waiting(
    client: &Client,
    number: usize,
    table: &SourceTable,
    marked: &DaySet,
) -> Result<Vec<Waiting>, SnapshotError> {
    if marked.is_empty() {
        return Ok(Vec::new());
    }
    let places = places(client, table, marked, Sizes::Rough).await?;
    if marked.is_whole() || !table.shape().changes_name_their_day() {
        let bytes = places.iter().map(|place| place.extent.bytes).sum();
        return Ok(vec![Waiting { table: number, days: DaySet::whole(), bytes }]);
    }
    let groups = groups(&marked.days().collect::<Vec<_>>(), &places);
    Ok(groups.into_iter().map(|(days, bytes)| Waiting { table: number, days, bytes }).collect())
}

/// The days in groups. Whatever relation spans several of them, they are neighbours in this list. Those that only the default partition can
/// have rows of are one group: a row that goes from one of them to another is an UPDATE which need not tell all of its values, and while both
/// days have the same fate, it need not.
fn groups(days: &[Partition], places: &[Place]) -> Vec<(DaySet, u64)> {
    let mut bytes: BTreeMap<Partition, u64> = days.iter().map(|day| (*day, 0)).collect();
    // Whether a day is in one group with the day before it in the list.
    let mut joined = vec![false; days.len()];
    let mut housed = vec![false; days.len()];
    for place in places.iter().filter(|place| !place.is_empty() && place.kind != Kind::Default) {
        let met: Vec<usize> = (0..)
            .zip(days)
            .filter(|(_, day)| place.reach.meets(day.first_day(), last_day(**day)))
            .map(|(index, _)| index)
            .collect();
        let each = place.extent.bytes / spread(place, days, met.len());
        for (place_in_row, index) in met.iter().enumerate() {
            if let Some(size) = days.get(*index).and_then(|day| bytes.get_mut(day)) {
                *size += each;
            }
            if let Some(housed) = housed.get_mut(*index) {
                *housed = true;
            }
            if let Some(joined) = joined.get_mut(*index).filter(|_| place_in_row > 0) {
                *joined = true;
            }
        }
    }
    let (mut groups, mut by_default): (Vec<(DaySet, u64)>, DaySet) = Default::default();
    for ((day, joined), housed) in days.iter().zip(joined).zip(housed) {
        if !housed {
            by_default.insert(*day);
            continue;
        }
        let size = bytes.get(day).copied().unwrap_or(0);
        match groups.last_mut().filter(|_| joined) {
            Some((group, total)) => {
                group.insert(*day);
                *total += size;
            }
            None => groups.push((DaySet::from_iter([*day]), size)),
        }
    }
    groups.reverse();
    if !by_default.is_empty() {
        groups.push((by_default, 0));
    }
    groups
}

/// Over how many partitions of the lake a relation's bytes are spread: those within its bounds, or else the marked ones.
fn spread(place: &Place, days: &[Partition], met: usize) -> u64 {
    let count = match (days.first().map(|day| day.by()), place.reach.first, place.reach.last) {
        (Some(by), Some(first), Some(last)) => partitions_between(by, first, last),
        _ => u64::try_from(met).unwrap_or(u64::MAX),
    };
    count.max(1)
}

fn partitions_between(by: PartitionBy, first: NaiveDate, last: NaiveDate) -> u64 {
    let month = |day: NaiveDate| i64::from(day.year()) * 12 + i64::from(day.month0());
    let steps = match by {
        PartitionBy::Day => (last - first).num_days(),
        PartitionBy::Month => month(last) - month(first),
    };
    u64::try_from(steps.saturating_add(1)).unwrap_or(1)
}

/// What is copied next: groups in the order of their newest days, over all tables, until `batch_bytes` would be exceeded, and at least one. Tables
/// that are copied as a whole come last. At most one entry a table.
pub fn next_batch(mut groups: Vec<Waiting>, batch_bytes: u64) -> Vec<Waiting> {
    // None, of a table as a whole, sorts before every day.
    groups.sort_by_key(|group| std::cmp::Reverse((group.days.days().last(), std::cmp::Reverse(group.table))));
    let mut batch: BTreeMap<usize, Waiting> = BTreeMap::new();
    let mut total = 0_u64;
    for group in groups {
        total = total.saturating_add(group.bytes);
        if total > batch_bytes && !batch.is_empty() {
            break;
        }
        match batch.get_mut(&group.table) {
            Some(taken) => {
                taken.days.extend(&group.days);
                taken.bytes = taken.bytes.saturating_add(group.bytes);
            }
            None => {
                batch.insert(group.table, group);
            }
        }
    }
    batch.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::places::tests::{days, place};
    use proptest::prelude::*;

    fn shown(groups: &[(DaySet, u64)]) -> Vec<String> {
        groups.iter().map(|(days, bytes)| format!("{days}: {}", bytes / 8192)).collect()
    }

    fn list(texts: &[&str]) -> Vec<Partition> {
        days(texts).days().collect()
    }

    #[test]
    fn days_of_one_relation_go_together_and_the_newest_go_first() {
        let marked = list(&["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]);
        let leaves = [
            place(Kind::Bounded, Some(("2026-01-01", "2026-02-01")), 310),
            place(Kind::Bounded, Some(("2026-02-01", "2026-02-02")), 7),
            place(Kind::Detached, Some(("2026-02-01", "2026-02-02")), 3),
            place(Kind::Default, None, 1_000),
        ];
        let expected = ["2026-02-01: 10", "2026-01-30 to 2026-01-31 (2): 20", "2026-02-02: 0"];
        assert_eq!(shown(&groups(&marked, &leaves)), expected);
        let marked = list(&["2025-12-01", "2025-12-24", "2026-02-01"]);
        let expected = ["2026-02-01: 10", "2025-12-01 to 2025-12-24 (2): 0"];
        assert_eq!(shown(&groups(&marked, &leaves)), expected, "days of the default partition go together");
    }

    #[test]
    fn a_plain_table_is_one_group_and_an_empty_leaf_is_no_place() {
        let marked = list(&["2026-01-01", "2026-01-02"]);
        assert_eq!(shown(&groups(&marked, &[place(Kind::Plain, None, 10)])), ["2026-01-01 to 2026-01-02 (2): 10"]);
        let empty = place(Kind::Bounded, Some(("2026-01-01", "2026-02-01")), 0);
        assert_eq!(shown(&groups(&marked, &[empty])), ["2026-01-01 to 2026-01-02 (2): 0"]);
        let months = list(&["2026-01", "2026-02"]);
        let quarter = place(Kind::Bounded, Some(("2026-01-01", "2026-04-01")), 30);
        assert_eq!(shown(&groups(&months, &[quarter])), ["2026-01 to 2026-02 (2): 20"]);
    }

    fn group(table: usize, day: &str, bytes: u64) -> Waiting {
        Waiting { table, days: days(&[day]), bytes }
    }

    #[test]
    fn a_batch_is_filled_from_the_newest_day_on() {
        let whole = Waiting { table: 2, days: DaySet::whole(), bytes: 1 };
        let all = vec![whole.clone(), group(0, "2026-01-01", 5), group(0, "2026-01-03", 5), group(1, "2026-01-02", 5)];
        let shown = |batch: Vec<Waiting>| -> Vec<String> {
            batch.iter().map(|taken| format!("{} {}", taken.table, taken.days)).collect()
        };
        assert_eq!(shown(next_batch(all.clone(), 1)), ["0 2026-01-03"], "at least one");
        assert_eq!(shown(next_batch(all.clone(), 10)), ["0 2026-01-03", "1 2026-01-02"]);
        assert_eq!(shown(next_batch(all.clone(), 15)), ["0 2026-01-01 to 2026-01-03 (2)", "1 2026-01-02"]);
        assert_eq!(next_batch(all, 100).len(), 3);
        assert_eq!(next_batch(vec![whole.clone()], 0), [whole]);
        assert!(next_batch(Vec::new(), 100).is_empty());
    }

    proptest! {
        #[test]
        fn every_day_is_copied_once(sizes in proptest::collection::vec((0_usize..3, 0_u64..9), 0..30), limit in 0_u64..40) {
            let day = |number: usize| PartitionBy::Day.partition_of(NaiveDate::from_num_days_from_ce_opt(739_000 + i32::try_from(number).unwrap()).unwrap());
            let mut left: Vec<Waiting> = sizes.iter().enumerate().map(|(number, (table, bytes))| {
                Waiting { table: *table, days: DaySet::from_iter([day(number)]), bytes: *bytes }
            }).collect();
            let mut copied = 0;
            while !left.is_empty() {
                let batch = next_batch(left.clone(), limit);
                prop_assert!(!batch.is_empty());
                for taken in &batch {
                    copied += taken.days.days().count();
                    left.retain(|group| group.table != taken.table || !group.days.days().all(|day| taken.days.contains(day)));
                }
            }
            prop_assert_eq!(copied, sizes.len());
        }
    }
}
