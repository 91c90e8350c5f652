//! Settings of the server that the connection has to know, in the form in which SHOW prints them.

use std::time::Duration;

/// A time as SHOW prints it: a whole number and its unit (`1min`, `90s`, `1500ms`), or a bare `0`.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "us" => return Some(Duration::from_micros(number)),
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_show_prints_them() {
        for (text, milliseconds) in
            [("1min", 60_000), ("90s", 90_000), ("1500ms", 1_500), ("0", 0), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_time(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "min", "1 fortnight", "-1", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
    }
}
