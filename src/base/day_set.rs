//! Which days (months) of a table are meant: some of them, or every one that there is and will be.

use super::Partition;
use std::collections::BTreeSet;
use std::fmt;

/// Some partitions of a lake table, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaySet {
    /// Every partition, whatever `days` says: of a table whose changes do not name their day.
    whole: bool,
    days: BTreeSet<Partition>,
}

impl DaySet {
    /// Every day of the table.
    pub fn whole() -> Self {
        Self { whole: true, days: BTreeSet::new() }
    }

    /// Whether every day is meant.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether none is meant.
    pub fn is_empty(&self) -> bool {
        !self.whole && self.days.is_empty()
    }

    /// Whether a day is meant.
    #[inline]
    pub fn contains(&self, day: Partition) -> bool {
        self.whole || self.days.contains(&day)
    }

    /// The days that are named; none where every one is meant.
    pub fn days(&self) -> impl Iterator<Item = Partition> + '_ {
        self.days.iter().copied()
    }

    /// How many, where somebody counts what is done: a table as a whole is one.
    pub fn count(&self) -> u64 {
        if self.whole { 1 } else { self.days.len() as u64 }
    }

    /// Means one more day.
    pub fn insert(&mut self, day: Partition) {
        self.days.insert(day);
    }

    /// Means all of the other's, too.
    pub fn extend(&mut self, other: &DaySet) {
        self.whole |= other.whole;
        self.days.extend(other.days());
    }

    /// Means those of the other no more. Where every day was meant and the other does not mean every one, all are still meant.
    pub fn subtract(&mut self, other: &DaySet) {
        if other.whole {
            *self = Self::default();
        } else {
            self.days.retain(|day| !other.days.contains(day));
        }
    }
}

impl FromIterator<Partition> for DaySet {
    fn from_iter<T: IntoIterator<Item = Partition>>(days: T) -> Self {
        Self { whole: false, days: days.into_iter().collect() }
    }
}

/// For people: `2026-01-02 to 2026-01-05 (3)`, or `all`.
impl fmt::Display for DaySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.whole, self.days.first(), self.days.last()) {
            (true, _, _) => f.write_str("all"),
            (false, Some(first), Some(last)) if first == last => write!(f, "{first}"),
            (false, Some(first), Some(last)) => write!(f, "{first} to {last} ({})", self.days.len()),
            (false, _, _) => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionBy;

    fn day(text: &str) -> Partition {
        PartitionBy::Day.partition_of(text.parse().unwrap())
    }

    #[test]
    fn a_whole_table_is_taken_away_by_a_whole_table_alone() {
        let mut days = DaySet::whole();
        days.insert(day("2026-01-02"));
        days.subtract(&DaySet::from_iter([day("2026-01-02")]));
        assert!(days.is_whole() && days.contains(day("1999-01-01")));
        days.subtract(&DaySet::whole());
        assert!(days.is_empty() && !days.contains(day("2026-01-02")));
    }

    #[test]
    fn people_read_the_first_and_the_last() {
        let some = DaySet::from_iter([day("2026-01-05"), day("2026-01-02")]);
        assert_eq!(some.to_string(), "2026-01-02 to 2026-01-05 (2)");
        assert_eq!(DaySet::from_iter([day("2026-01-05")]).to_string(), "2026-01-05");
        assert_eq!(DaySet::whole().to_string(), "all");
    }
}
