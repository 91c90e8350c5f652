//! When the rows of the past happened, and in which order they arrived.

use super::rows::Row;
use super::{Generator, micros};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

/// Rows of the past, in the order in which they were inserted.
#[derive(Debug)]
pub struct History<'a> {
    generator: &'a mut Generator,
    start: NaiveDateTime,
    span_micros: u64,
    rows: u64,
    position: u64,
}

impl<'a> History<'a> {
    pub(super) fn new(generator: &'a mut Generator, days: u32, rows: u64, now: NaiveDateTime) -> Self {
        let start = (now.date() - TimeDelta::days(i64::from(days))).and_time(NaiveTime::MIN);
        let span = (now - start).num_microseconds().unwrap_or(0);
        Self { generator, start, span_micros: u64::try_from(span).unwrap_or(0), rows, position: 0 }
    }

    /// The instant of a row if rows came evenly and in order.
    fn even_instant(&self, position: u64) -> NaiveDateTime {
        let offset = u128::from(self.span_micros) * u128::from(position) / u128::from(self.rows.max(1));
        self.start + micros(u64::try_from(offset).unwrap_or(0))
    }

    fn even_day(&self, position: u64) -> NaiveDate {
        self.even_instant(position).date()
    }

    /// The first and last row of each day sit on its edges; the others are up to three minutes out of order, and one in 300
    /// is hours late, so that it belongs to the day before as often as not.
    fn created_at(&mut self, position: u64) -> NaiveDateTime {
        let even = self.even_instant(position);
        if position == 0 || self.even_day(position - 1) != even.date() {
            return even.date().and_time(NaiveTime::MIN);
        }
        let last_of_its_day = position + 1 < self.rows && self.even_day(position + 1) != even.date();
        if let (true, Some(last)) = (last_of_its_day, even.date().and_hms_micro_opt(23, 59, 59, 999_999)) {
            return last;
        }
        let random = &mut self.generator.random;
        let late_micros = if random.one_in(300) {
            random.between(3_600_000_000, 26 * 3_600_000_000)
        } else {
            random.below(180_000_000)
        };
        self.start.max(even - micros(late_micros))
    }
}

impl Iterator for History<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.position == self.rows {
            return None;
        }
        let created_at = self.created_at(self.position);
        self.position += 1;
        Some(self.generator.row_at(created_at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.rows - self.position).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}
