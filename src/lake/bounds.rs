//! What a file's statistics in the log say about the values in it, as far as it helps to leave the file alone.
//!
//! A bound may be too wide, never too narrow, whoever wrote it: other writers cut timestamps to milliseconds, the greatest included, so
//! that one is widened here (Delta protocol, "Per-file Statistics").

use chrono::{DateTime, NaiveDate};
use deltalake::arrow::array::{Array, ArrayRef, AsArray};
use deltalake::arrow::datatypes::{
    DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use serde_json::{Map, Value};

const MICROS_PER_MILLI: i64 = 1_000;

/// Least and greatest value of some columns, as the log has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    rows: Option<u64>,
    least: Map<String, Value>,
    greatest: Map<String, Value>,
}

impl Bounds {
    /// `add.stats`; nothing is known of a file without.
    pub(super) fn of_statistics(text: Option<&str>) -> Self {
        let parsed = text.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or(Value::Null);
        let part = |name: &str| parsed.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        let rows = parsed.get("numRecords").and_then(Value::as_u64);
        Self { rows, least: part("minValues"), greatest: part("maxValues") }
    }

    /// Rows in the file, where the statistics say.
    pub(super) fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Whether the file can hold the value that stands in a row of an array, in the column `name`.
    pub(super) fn may_hold(&self, name: &str, values: &ArrayRef, row: usize) -> bool {
        if values.is_null(row) {
            return true;
        }
        let (least, greatest) = (self.least.get(name), self.greatest.get(name));
        match values.data_type() {
            DataType::Utf8 => {
                let value = values.as_string::<i32>().value(row);
                within(value, least.and_then(Value::as_str), greatest.and_then(Value::as_str))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let value = values.as_primitive::<TimestampMicrosecondType>().value(row);
                let (least, greatest) = (least.and_then(micros), greatest.and_then(micros));
                within(value, least, greatest.map(|bound| bound.saturating_add(MICROS_PER_MILLI - 1)))
            }
            DataType::Date32 => {
                let value = i64::from(values.as_primitive::<Date32Type>().value(row));
                within(value, least.and_then(days), greatest.and_then(days))
            }
            DataType::Int16 => self.may_hold_number(name, values.as_primitive::<Int16Type>().value(row).into()),
            DataType::Int32 => self.may_hold_number(name, values.as_primitive::<Int32Type>().value(row).into()),
            DataType::Int64 => self.may_hold_number(name, values.as_primitive::<Int64Type>().value(row)),
            _ => true,
        }
    }

    fn may_hold_number(&self, name: &str, value: i64) -> bool {
        let bound = |bounds: &Map<String, Value>| bounds.get(name).and_then(Value::as_i64);
        within(value, bound(&self.least), bound(&self.greatest))
    }
}

fn within<T: PartialOrd>(value: T, least: Option<T>, greatest: Option<T>) -> bool {
    least.is_none_or(|least| least <= value) && greatest.is_none_or(|greatest| value <= greatest)
}

fn micros(bound: &Value) -> Option<i64> {
    DateTime::parse_from_rfc3339(bound.as_str()?).ok().map(|time| time.timestamp_micros())
}

fn days(bound: &Value) -> Option<i64> {
    let date = NaiveDate::parse_from_str(bound.as_str()?, "%Y-%m-%d").ok()?;
    Some(date.signed_duration_since(NaiveDate::default()).num_days())
}

#[cfg(test)]
mod tests {
    use super::*;
    use deltalake::arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn a_file_is_left_alone_only_when_its_bounds_say_so() {
        let bounds = Bounds::of_statistics(Some(
            r#"{"numRecords":3,"minValues":{"id":"b","at":"2026-01-02T00:00:00.000Z","n":5},
                "maxValues":{"id":"dd","at":"2026-01-02T23:59:59.999Z"}}"#,
        ));
        assert_eq!(bounds.rows(), Some(3));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "dd", "e"]));
        let held = |name: &str, values: &ArrayRef| {
            (0..values.len()).map(|row| bounds.may_hold(name, values, row)).collect::<Vec<_>>()
        };
        assert_eq!(held("id", &text), [false, true, true, false]);
        assert_eq!(held("other", &text), [true; 4]);
        let last = DateTime::parse_from_rfc3339("2026-01-02T23:59:59.999999Z").unwrap().timestamp_micros();
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![last, last + 1]).with_timezone("UTC"));
        assert_eq!(held("at", &times), [true, false], "the last microsecond of a bound that was cut");
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![4, 5, 900]));
        assert_eq!(held("n", &numbers), [false, true, true]);
        assert!(Bounds::of_statistics(None).may_hold("id", &text, 0));
        assert!(Bounds::of_statistics(Some("not json")).may_hold("id", &text, 0));
    }
}
