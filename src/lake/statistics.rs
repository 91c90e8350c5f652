//! File statistics for the log, from what the Parquet encoder counted anyway.
//!
//! A reader skips a file when a predicate lies outside [min, max], so a bound may be too wide but never too narrow: min is
//! rounded down and max up. Timestamps have milliseconds in the log and microseconds here, and strings are cut at 32
//! characters (Delta protocol, "Per-file Statistics").

use super::schema::LakeSchema;
use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};
use deltalake::arrow::datatypes::DataType;
use deltalake::parquet::file::metadata::ParquetMetaData;
use deltalake::parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

/// Characters of a string bound, as Spark writes them.
const STRING_PREFIX_CHARS: usize = 32;

/// Sorts after every ASCII character that could follow.
const ASCII_TIE_BREAKER: char = '\u{7F}';

/// `add.stats` of a file: numRecords, and minValues, maxValues and nullCount of the columns with statistics.
pub(super) fn file_statistics(schema: &LakeSchema, metadata: &ParquetMetaData, rows: u64) -> String {
    let (mut minimums, mut maximums, mut nulls) = (Map::new(), Map::new(), Map::new());
    for index in &schema.statistics {
        let Some(field) = schema.arrow.fields().get(*index) else { continue };
        let Some(column) = ColumnBounds::of(metadata, *index) else { continue };
        nulls.insert(field.name().clone(), json!(column.nulls));
        if let Some(least) = column.least.and_then(|bound| bound.rounded_down(field.data_type())) {
            minimums.insert(field.name().clone(), least);
        }
        if let Some(greatest) = column.greatest.and_then(|bound| bound.rounded_up(field.data_type())) {
            maximums.insert(field.name().clone(), greatest);
        }
    }
    json!({ "numRecords": rows, "minValues": minimums, "maxValues": maximums, "nullCount": nulls }).to_string()
}

/// A physical value that can be a bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Integer(i64),
    Text(String),
}

/// One column over all row groups of a file. A bound is None when every value is NULL or when a row group has none.
#[derive(Debug)]
struct ColumnBounds {
    least: Option<Bound>,
    greatest: Option<Bound>,
    nulls: u64,
}

impl ColumnBounds {
    /// None when some row group did not count its NULLs.
    fn of(metadata: &ParquetMetaData, column: usize) -> Option<Self> {
        let mut bounds = Self { least: None, greatest: None, nulls: 0 };
        let mut complete = true;
        for group in metadata.row_groups() {
            let chunk = group.columns().get(column)?;
            let statistics = chunk.statistics()?;
            let nulls = statistics.null_count_opt()?;
            bounds.nulls += nulls;
            if u64::try_from(chunk.num_values()) == Ok(nulls) {
                continue;
            }
            match group_bounds(statistics) {
                Some((least, greatest)) => {
                    bounds.least = Some(bounds.least.map_or(least.clone(), |known| known.min(least)));
                    bounds.greatest = Some(bounds.greatest.map_or(greatest.clone(), |known| known.max(greatest)));
                }
                None => complete = false,
            }
        }
        if !complete {
            (bounds.least, bounds.greatest) = (None, None);
        }
        Some(bounds)
    }
}

fn group_bounds(statistics: &Statistics) -> Option<(Bound, Bound)> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(|text| Bound::Text(text.to_owned()));
    Some(match statistics {
        Statistics::Int32(values) => {
            (Bound::Integer(i64::from(*values.min_opt()?)), Bound::Integer(i64::from(*values.max_opt()?)))
        }
        Statistics::Int64(values) => (Bound::Integer(*values.min_opt()?), Bound::Integer(*values.max_opt()?)),
        Statistics::ByteArray(values) => (text(values.min_bytes_opt()?)?, text(values.max_bytes_opt()?)?),
        _ => return None,
    })
}

impl Bound {
    fn rounded_down(self, data_type: &DataType) -> Option<Value> {
        match (self, data_type) {
            (Self::Integer(micros), DataType::Timestamp(_, _)) => timestamp(micros.div_euclid(1_000)),
            (Self::Integer(days), DataType::Date32) => date(days),
            (Self::Integer(number), _) => Some(json!(number)),
            (Self::Text(text), _) => Some(Value::String(text.chars().take(STRING_PREFIX_CHARS).collect())),
        }
    }

    fn rounded_up(self, data_type: &DataType) -> Option<Value> {
        match (self, data_type) {
            (Self::Integer(micros), DataType::Timestamp(_, _)) => {
                let partial = i64::from(micros.rem_euclid(1_000) > 0);
                timestamp(micros.div_euclid(1_000) + partial)
            }
            (Self::Integer(days), DataType::Date32) => date(days),
            (Self::Integer(number), _) => Some(json!(number)),
            (Self::Text(text), _) => prefix_rounded_up(&text).map(Value::String),
        }
    }
}

/// `2026-01-02T03:04:05.678Z`; None outside the years that every reader parses.
fn timestamp(millis: i64) -> Option<Value> {
    let time = DateTime::<Utc>::from_timestamp_millis(millis)?;
    let written = (1..=9999).contains(&time.year());
    if written { Some(Value::String(time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())) } else { None }
}

fn date(days: i64) -> Option<Value> {
    let epoch = NaiveDate::default();
    let distance = Days::new(days.unsigned_abs());
    let date = if days < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) }?;
    let written = (1..=9999).contains(&date.year());
    if written { Some(Value::String(date.format("%Y-%m-%d").to_string())) } else { None }
}

/// A string of at most 33 characters that is not less than `text` in code point order, or None when there is none.
fn prefix_rounded_up(text: &str) -> Option<String> {
    let mut rest = text.chars();
    let mut prefix: String = rest.by_ref().take(STRING_PREFIX_CHARS).collect();
    match rest.next() {
        None => {}
        Some(cut) if cut < ASCII_TIE_BREAKER => prefix.push(ASCII_TIE_BREAKER),
        Some(cut) if cut < char::MAX => prefix.push(char::MAX),
        Some(_) => return None,
    }
    Some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::arrow::datatypes::TimeUnit;

    fn timestamps() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    fn micros(text: &str) -> Bound {
        Bound::Integer(DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros())
    }

    #[test]
    fn a_timestamp_bound_is_never_too_narrow() {
        for (value, down, up) in [
            ("2026-01-02T23:59:59.999999Z", "2026-01-02T23:59:59.999Z", "2026-01-03T00:00:00.000Z"),
            ("2026-01-02T00:00:00.000000Z", "2026-01-02T00:00:00.000Z", "2026-01-02T00:00:00.000Z"),
            ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00.000Z"),
            ("1965-06-01T00:00:00.000001Z", "1965-06-01T00:00:00.000Z", "1965-06-01T00:00:00.001Z"),
        ] {
            assert_eq!(micros(value).rounded_down(&timestamps()), Some(json!(down)));
            assert_eq!(micros(value).rounded_up(&timestamps()), Some(json!(up)));
        }
    }

    #[test]
    fn the_last_microsecond_of_the_calendar_has_no_upper_bound() {
        let last = micros("9999-12-31T23:59:59.999999Z");
        assert_eq!(last.clone().rounded_up(&timestamps()), None);
        assert_eq!(last.rounded_down(&timestamps()), Some(json!("9999-12-31T23:59:59.999Z")));
        assert_eq!(micros("0001-01-01T00:00:00Z").rounded_down(&timestamps()), Some(json!("0001-01-01T00:00:00.000Z")));
    }

    #[test]
    fn a_long_string_is_cut_so_that_it_still_covers() {
        for tail in ["a", "\u{7E}", "\u{7F}", "é", "語", "😀", "\u{10FFFE}"] {
            let text = format!("{}{tail}tail", "語".repeat(STRING_PREFIX_CHARS));
            let up = prefix_rounded_up(&text).unwrap();
            assert!(up.as_str() >= text.as_str(), "{tail:?}");
            assert_eq!(up.chars().count(), STRING_PREFIX_CHARS + 1);
        }
        let text = format!("{}\u{10FFFF}", "x".repeat(STRING_PREFIX_CHARS));
        assert_eq!(prefix_rounded_up(&text), None);
        let exact = "x".repeat(STRING_PREFIX_CHARS);
        assert_eq!(prefix_rounded_up(&exact), Some(exact.clone()));
        let down = Bound::Text(format!("{exact}tail")).rounded_down(&DataType::Utf8);
        assert_eq!(down, Some(json!(exact)));
    }

    #[test]
    fn dates_are_written_as_dates() {
        assert_eq!(date(-719_162), Some(json!("0001-01-01")));
        assert_eq!(date(20_455), Some(json!("2026-01-02")));
        assert_eq!(date(2_932_897), None);
    }
}
