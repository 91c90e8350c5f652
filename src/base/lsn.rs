//! A position in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A log sequence number: a byte position in the WAL of one system and timeline.
///
/// Printed and parsed as PostgreSQL does, `high/low` in upper-case hexadecimal (`pg_lsn` type, section 8.20 of its manual).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The invalid position; the server reads it as "from the slot's own confirmed position".
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes of WAL from `earlier` to `self`; zero when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not `high/low` in hexadecimal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a WAL position: expected two hexadecimal numbers such as 16/B374D848")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        let half = |part: &str| {
            let valid = (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if valid { u32::from_str_radix(part, 16).map_err(|_| ParseLsnError) } else { Err(ParseLsnError) }
        };
        Ok(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_as_postgresql_does() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_a_position() {
        for text in ["", "/", "0", "0/", "/0", "g/0", "123456789/0", "+1/0", "0/0/0", " 0/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text:?}");
        }
    }
}
