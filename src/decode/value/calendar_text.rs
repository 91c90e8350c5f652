//! The ISO texts of dates and times, as DateStyle ISO prints them.

use super::ValueError;
use super::calendar::{MICROS_PER_DAY, MICROS_PER_SECOND};
use std::fmt::Write;

/// `2026-01-02`
const DATE_BYTES: usize = 10;
/// `03:04:05`
const TIME_BYTES: usize = 8;
const FRACTION_DIGITS_MAX: usize = 6;

pub(super) fn date(text: &[u8]) -> Result<i32, ValueError> {
    let kind = "date";
    in_plain_years(text, kind)?;
    plain_date(text).ok_or(ValueError::Malformed { kind })
}

/// `offset` is what follows the time: nothing, or UTC's.
pub(super) fn timestamp(text: &[u8], kind: &'static str, offset: &[u8]) -> Result<i64, ValueError> {
    let malformed = ValueError::Malformed { kind };
    in_plain_years(text, kind)?;
    let (day, rest) = text.split_at_checked(DATE_BYTES).ok_or(malformed)?;
    let days = plain_date(day).ok_or(malformed)?;
    let clock = rest.strip_prefix(b" ").ok_or(malformed)?;
    let clock_bytes = clock.iter().position(|byte| matches!(byte, b'+' | b'-')).unwrap_or(clock.len());
    let (clock, printed_offset) = clock.split_at_checked(clock_bytes).ok_or(malformed)?;
    if printed_offset != offset {
        return Err(if offset.is_empty() || printed_offset.is_empty() { malformed } else { ValueError::NotUtc });
    }
    let micros = time(clock).filter(|micros| *micros < MICROS_PER_DAY).ok_or(malformed)?;
    Ok(i64::from(days) * MICROS_PER_DAY + micros)
}

/// The texts that the lake has no value for: infinities, BC, years of five and more digits.
fn in_plain_years(text: &[u8], kind: &'static str) -> Result<(), ValueError> {
    match text {
        b"infinity" | b"-infinity" => Err(ValueError::Infinite { kind }),
        [b'0'..=b'9', .., b' ', b'B', b'C'] => Err(ValueError::BeforeYearOne { kind }),
        [a, b, c, d, e, ..] if [a, b, c, d, e].iter().all(|byte| byte.is_ascii_digit()) => {
            Err(ValueError::AfterYear9999 { kind })
        }
        _ => Ok(()),
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
fn plain_date(text: &[u8]) -> Option<i32> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two_digits(y1, y2)? * 100 + two_digits(y3, y4)?;
    let month = two_digits(m1, m2)?;
    let day = two_digits(d1, d2)?;
    (year >= 1 && day >= 1 && day <= days_in_month(year, month)?).then(|| days_since_1970(year, month, day))
}

#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<i32> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
}

fn days_in_month(year: i32, month: i32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Gregorian days by counting from March, so that the leap day comes last in its year.
fn days_since_1970(year: i32, month: i32, day: i32) -> i32 {
    const DAYS_0000_03_01_TO_1970: i32 = 719_468;
    const DAYS_PER_ERA: i32 = 146_097;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_0000_03_01_TO_1970
}

/// The way back from [`days_since_1970`], for any day: year (0 is 1 BC), month and day.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const DAYS_0000_03_01_TO_1970: i64 = 719_468;
    const DAYS_PER_ERA: i64 = 146_097;
    let days = days.saturating_add(DAYS_0000_03_01_TO_1970);
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// As date_out and timestamp_out print it: `micros` since midnight with a timestamp, and ` BC` behind everything.
pub(super) fn push_moment(days: i64, micros: Option<i64>, offset: &str, out: &mut String) {
    let (year, month, day) = civil_date(days);
    let shown = if year > 0 { year } else { 1 - year };
    // Writing to a String cannot fail.
    let _ = write!(out, "{shown:04}-{month:02}-{day:02}");
    if let Some(micros) = micros {
        out.push(' ');
        let _ = push_time(micros, out);
    }
    out.push_str(offset);
    if year <= 0 {
        out.push_str(" BC");
    }
}

/// Microseconds since midnight of `HH:MM:SS[.ffffff]`, up to 24:00:00.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (clock, fraction) = text.split_at_checked(TIME_BYTES)?;
    let &[h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hours, minutes, seconds) = (two_digits(h1, h2)?, two_digits(m1, m2)?, two_digits(s1, s2)?);
    let micros = match fraction {
        [] => 0,
        [b'.', digits @ ..] => fraction_micros(digits)?,
        _ => return None,
    };
    let total = i64::from((hours * 60 + minutes) * 60 + seconds) * MICROS_PER_SECOND + micros;
    (minutes < 60 && seconds < 60 && total <= MICROS_PER_DAY).then_some(total)
}

fn fraction_micros(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > FRACTION_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(FRACTION_DIGITS_MAX);
    Some(padded.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0')))
}

/// As time_out prints it: zeros at the end of the fraction are left out. None outside of 0 to 24 hours.
pub(super) fn push_time(micros: i64, out: &mut String) -> Option<()> {
    let micros =
        u64::try_from(micros).ok().filter(|micros| i64::try_from(*micros).is_ok_and(|m| m <= MICROS_PER_DAY))?;
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    for (number, separator) in [(seconds / 3600, None), (seconds / 60 % 60, Some(':')), (seconds % 60, Some(':'))] {
        out.extend(separator);
        push_digit(number / 10, out);
        push_digit(number, out);
    }
    if fraction > 0 {
        out.push('.');
        let (mut rest, mut power) = (fraction, 100_000);
        while rest > 0 {
            push_digit(rest / power, out);
            rest %= power;
            power /= 10;
        }
    }
    Some(())
}

fn push_digit(number: u64, out: &mut String) {
    out.extend(u32::try_from(number % 10).ok().and_then(|digit| char::from_digit(digit, 10)));
}
