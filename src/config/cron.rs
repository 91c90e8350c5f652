//! The five fields of a cron schedule (crontab(5)).

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// Sunday is 0, and 7 as well.
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Smallest and largest number of a field, and the names that stand for numbers, in order from the smallest.
struct Field {
    first: u8,
    last: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { first: 0, last: 59, names: &[] },
    Field { first: 0, last: 23, names: &[] },
    Field { first: 1, last: 31, names: &[] },
    Field { first: 1, last: 12, names: &MONTHS },
    Field { first: 0, last: 7, names: &WEEKDAYS },
];

/// Whether `text` is minute, hour, day of the month, month and day of the week, each of them a list of `*`, numbers, names and
/// ranges, with or without `/step`.
pub(super) fn is_schedule(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let is_valid = |(field, text): (&Field, &&str)| text.split(',').all(|item| field.accepts(item));
    fields.len() == FIELDS.len() && FIELDS.iter().zip(&fields).all(is_valid)
}

impl Field {
    fn accepts(&self, item: &str) -> bool {
        let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
        let is_range = range == "*" || range.contains('-');
        let step_fits =
            step.is_none_or(|step| is_range && number(step).is_some_and(|step| (1..=self.last).contains(&step)));
        step_fits
            && match range.split_once('-') {
                _ if range == "*" => true,
                Some((first, last)) => {
                    self.value(first).zip(self.value(last)).is_some_and(|(first, last)| first <= last)
                }
                None => self.value(range).is_some(),
            }
    }

    fn value(&self, text: &str) -> Option<u8> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|position| u8::try_from(position).ok()).map(|position| self.first + position);
        named.or_else(|| number(text)).filter(|value| (self.first..=self.last).contains(value))
    }
}

/// Digits alone: `u8`'s own parser takes a plus sign.
fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_one_by_one() {
        for text in ["0 3 * * *", "*/15 0-23/2 1,15 jan-MAR 7", "59 23 31 12 0", "0 3 * * mon-fri"] {
            assert!(is_schedule(text), "{text}");
        }
        for text in [
            "",
            "0 3 * *",
            "0 3 * * * *",
            "60 3 * * *",
            "0 24 * * *",
            "0 3 0 * *",
            "0 3 32 * *",
            "0 3 * 13 *",
            "0 3 * * 8",
            "x 3 * * *",
            "0 3 * * mon-",
            "0 3,, * * *",
            "5-1 3 * * *",
            "*/0 3 * * *",
            "*/ 3 * * *",
            "+1 3 * * *",
            "5/2 3 * * *",
            "0 mon * * *",
            "@daily",
            "999 3 * * *",
            "-1 3 * * *",
        ] {
            assert!(!is_schedule(text), "{text}");
        }
    }
}
