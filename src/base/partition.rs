//! The calendar day (or month) that a row belongs to, and its folder in the lake.

use chrono::{Datelike, NaiveDate};
use std::fmt;
use std::str::FromStr;

/// How a table is cut into partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PartitionBy {
    /// `year=/month=/day=`
    #[default]
    Day,
    /// `year=/month=`: a day folder would say something that the rows do not.
    Month,
}

impl PartitionBy {
    /// The partition columns of the lake table, outermost first.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            PartitionBy::Day => &["year", "month", "day"],
            PartitionBy::Month => &["year", "month"],
        }
    }

    /// The partition that holds `date`.
    pub fn partition_of(self, date: NaiveDate) -> Partition {
        let first = match self {
            PartitionBy::Day => date,
            PartitionBy::Month => date.with_day(1).unwrap_or(date),
        };
        Partition { by: self, first }
    }
}

/// One partition: a day, or a month, of the proleptic Gregorian calendar. Years are 1 to 9999 (delta.md's reader profile).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    first: NaiveDate,
    by: PartitionBy,
}

impl Partition {
    /// The first day of the partition.
    pub fn first_day(self) -> NaiveDate {
        self.first
    }

    /// Day or month.
    pub fn by(self) -> PartitionBy {
        self.by
    }

    /// Column and value of each partition column, outermost first; values are zero-padded strings.
    pub fn values(self) -> Vec<(&'static str, String)> {
        let numbers = [
            format!("{:04}", self.first.year()),
            format!("{:02}", self.first.month()),
            format!("{:02}", self.first.day()),
        ];
        self.by.columns().iter().copied().zip(numbers).collect()
    }

    /// The folder below the table's root: `year=2026/month=01/day=02`.
    pub fn path(self) -> String {
        let parts: Vec<String> = self.values().into_iter().map(|(column, value)| format!("{column}={value}")).collect();
        parts.join("/")
    }
}

/// `2026-01-02`, or `2026-01` for a month.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            PartitionBy::Day => write!(f, "{}", self.first.format("%Y-%m-%d")),
            PartitionBy::Month => write!(f, "{}", self.first.format("%Y-%m")),
        }
    }
}

/// The text is no partition.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("neither a day such as 2026-01-02 nor a month such as 2026-01")]
pub struct ParsePartitionError;

/// What its `Display` writes.
impl FromStr for Partition {
    type Err = ParsePartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (by, day) = match text.len() {
            10 => (PartitionBy::Day, text.parse().ok()),
            7 => (PartitionBy::Month, format!("{text}-01").parse().ok()),
            _ => return Err(ParsePartitionError),
        };
        let partition =
            day.map(|day: NaiveDate| by.partition_of(day)).filter(|partition| partition.to_string() == text);
        partition.ok_or(ParsePartitionError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_as_it_is_written() {
        for text in ["2026-01-02", "2026-01", "0803-12-31"] {
            assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
        }
        for text in ["", "2026", "2026-1-02", "2026-13", "2026-02-30", "+026-01-02", "2026-01-02 "] {
            assert_eq!(text.parse::<Partition>(), Err(ParsePartitionError), "{text}");
        }
    }

    #[test]
    fn folders_are_zero_padded() {
        let date = NaiveDate::from_ymd_opt(803, 1, 2).unwrap();
        assert_eq!(PartitionBy::Day.partition_of(date).path(), "year=0803/month=01/day=02");
        assert_eq!(PartitionBy::Month.partition_of(date).path(), "year=0803/month=01");
        assert_eq!(PartitionBy::Month.partition_of(date).first_day().day(), 1);
    }
}
