//! Days that hold rows in the lake and none in the source: TRUNCATE of a single partition is not in the stream, so the tables themselves
//! are looked at.

use crate::lake::DaySummary;
use chrono::{Months, NaiveDate};
use std::ops::Range;

/// The days (or months) of the lake that hold rows although all of them lie in partitions of the source that hold none; `empty` has the
/// days of each of those. A DELETE that is on its way to the lake looks the same for a moment.
pub(super) fn emptied(days: &[DaySummary], empty: &[Range<NaiveDate>]) -> Vec<String> {
    let holds_rows = days.iter().filter(|day| day.rows != Some(0));
    let emptied = holds_rows.filter(|day| {
        let Some(of_the_lake) = dates(day) else { return false };
        empty.iter().any(|empty| empty.start <= of_the_lake.start && of_the_lake.end <= empty.end)
    });
    emptied.map(name).collect()
}

/// A day as it is shown: `2026-01-02`, or `2026-01` for a month.
pub(super) fn name(day: &DaySummary) -> String {
    day.partition.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("-")
}

fn dates(day: &DaySummary) -> Option<Range<NaiveDate>> {
    let numbers: Vec<u32> = day.partition.iter().map(|(_, value)| value.parse().ok()).collect::<Option<_>>()?;
    let date = |year: u32, month, day| NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
    match numbers[..] {
        [year, month, day] => date(year, month, day).and_then(|first| Some(first..first.succ_opt()?)),
        [year, month] => date(year, month, 1).and_then(|first| Some(first..first.checked_add_months(Months::new(1))?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(values: &[&str], rows: Option<u64>) -> DaySummary {
        let names = ["year", "month", "day"].iter().map(|name| (*name).to_owned());
        let partition = names.zip(values.iter().map(|value| (*value).to_owned())).collect();
        DaySummary { partition, rows, files: 1, bytes: 1 }
    }

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn d3_a_day_whose_partition_is_empty_is_noticed() {
        let days = [
            day(&["2026", "01", "30"], Some(3)),
            day(&["2026", "01", "31"], Some(3)),
            day(&["2026", "02", "01"], None),
            day(&["2026", "02", "02"], Some(0)),
        ];
        let one = date("2026-01-31")..date("2026-02-01");
        assert_eq!(emptied(&days, std::slice::from_ref(&one)), ["2026-01-31"]);
        let february = date("2026-02-01")..date("2026-03-01");
        assert_eq!(
            emptied(&days, &[one, february]),
            ["2026-01-31", "2026-02-01"],
            "a count that is not known may be any"
        );
        assert_eq!(emptied(&days, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_month_is_noticed_when_all_of_it_is_empty() {
        let days = [day(&["2025", "12"], Some(3)), day(&["2026", "01"], Some(3))];
        assert_eq!(emptied(&days, &[date("2025-12-01")..date("2026-01-01")]), ["2025-12"]);
        assert_eq!(emptied(&days, &[date("2025-12-01")..date("2025-12-31")]), Vec::<String>::new());
    }
}
