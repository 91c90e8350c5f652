//! The days of a table that are not copied yet: PostgreSQL alone has what existed before lakebed came, or what a repair copies again.

use crate::base::DaySet;
use chrono::NaiveDate;
use serde::Serialize;

/// What PostgreSQL has of these days is still to be copied.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum NotCopied {
    Days(Vec<String>),
    /// `all`
    Whole(&'static str),
}

impl NotCopied {
    pub(super) fn of(days: &DaySet) -> Self {
        match days.is_whole() {
            true => Self::Whole("all"),
            false => Self::Days(days.days().map(|day| day.to_string()).collect()),
        }
    }

    /// `not copied yet: 2026-01-02 to 2026-01-05 (4 days)`: days that follow each other are one line.
    pub(super) fn to_text(&self) -> String {
        let days = match self {
            Self::Whole(_) => return "          not copied yet: the whole table\n".to_owned(),
            Self::Days(days) => days,
        };
        let lines = days.chunk_by(|one, other| follows(one, other)).filter_map(|run| {
            Some(match run {
                [one] => format!("          not copied yet: {one}\n"),
                run => format!("          not copied yet: {} to {} ({} days)\n", run.first()?, run.last()?, run.len()),
            })
        });
        lines.collect()
    }
}

/// Whether a day is the one behind another. Months have no days between them: each is a line.
fn follows(one: &str, other: &str) -> bool {
    let date = |text: &str| text.parse::<NaiveDate>().ok();
    date(one).and_then(|day| day.succ_opt()).is_some_and(|next| date(other) == Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PartitionBy;
    use serde_json::json;

    #[test]
    fn days_that_are_not_copied_are_told_in_runs() {
        let partition = |text: &str| PartitionBy::Day.partition_of(text.parse().unwrap());
        let days = ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-05"];
        let some = NotCopied::of(&DaySet::from_iter(days.map(partition)));
        let text = some.to_text();
        assert!(text.contains("          not copied yet: 2026-01-30 to 2026-02-01 (3 days)\n"), "{text}");
        assert!(text.contains("          not copied yet: 2026-02-05\n"), "{text}");
        assert_eq!(serde_json::to_value(&some).unwrap(), json!(days));
    }

    #[test]
    fn a_whole_table_is_told_as_one_and_nothing_is_nothing() {
        let whole = NotCopied::of(&DaySet::whole());
        assert!(whole.to_text().contains("not copied yet: the whole table\n"));
        assert_eq!(serde_json::to_value(&whole).unwrap(), json!("all"));
        let none = NotCopied::of(&DaySet::default());
        assert_eq!((none.to_text(), serde_json::to_value(&none).unwrap()), (String::new(), json!([])));
    }
}
