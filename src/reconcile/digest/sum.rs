//! Rows counted and summed: what a ledger adds and subtracts.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// Hexadecimal digits of the two lanes.
const DIGITS: usize = 32;

/// How many rows a set has, and its digest. A difference of two sets may have a negative number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum {
    /// Rows.
    pub rows: i64,
    /// Each the sum of 8 bytes of every row's hash, modulo 2^64.
    pub lanes: [u64; 2],
}

impl RowSum {
    /// Takes a row in, by the hash of its message.
    pub fn add_row(&mut self, hash: &[u8; 32]) {
        let lane = |from: usize| hash[from..].first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.rows += 1;
        self.lanes = [self.lanes[0].wrapping_add(lane(0)), self.lanes[1].wrapping_add(lane(8))];
    }

    /// From the number of rows and the exact sums of the lanes as signed numbers, as SQL has them.
    pub fn from_signed(rows: i64, lanes: [i128; 2]) -> Self {
        let modulo = |sum: i128| u64::try_from(sum.rem_euclid(1 << u64::BITS)).unwrap_or(0);
        Self { rows, lanes: lanes.map(modulo) }
    }

    /// The digest as receipts have it: 32 hexadecimal digits.
    pub fn digest(&self) -> String {
        format!("{:016x}{:016x}", self.lanes[0], self.lanes[1])
    }

    /// From a number of rows and [`Self::digest`].
    ///
    /// # Errors
    /// Anything but 32 hexadecimal digits.
    pub fn new(rows: i64, digest: &str) -> Result<Self, ParseRowSumError> {
        let lane = |digits: Option<&str>| {
            let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
            digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(ParseRowSumError)
        };
        let (first, second) = digest.split_at_checked(DIGITS / 2).ok_or(ParseRowSumError)?;
        if digest.len() != DIGITS {
            return Err(ParseRowSumError);
        }
        Ok(Self { rows, lanes: [lane(Some(first))?, lane(Some(second))?] })
    }
}

/// Not a digest of this rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected 32 hexadecimal digits")]
pub struct ParseRowSumError;

impl Add for RowSum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let lane = |index: usize| self.lanes[index].wrapping_add(other.lanes[index]);
        Self { rows: self.rows + other.rows, lanes: [lane(0), lane(1)] }
    }
}

impl Sub for RowSum {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        let lane = |index: usize| self.lanes[index].wrapping_sub(other.lanes[index]);
        Self { rows: self.rows - other.rows, lanes: [lane(0), lane(1)] }
    }
}

impl Sum for RowSum {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(Self::default(), Add::add)
    }
}

/// `12 rows, digest 0123…`
impl fmt::Display for RowSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, digest {}", self.rows, self.digest())
    }
}

/// `<rows>:<digest>`
impl FromStr for RowSum {
    type Err = ParseRowSumError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rows, digest) = text.split_once(':').ok_or(ParseRowSumError)?;
        Self::new(rows.parse().map_err(|_| ParseRowSumError)?, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hashes: &[u8]) -> RowSum {
        let mut sum = RowSum::default();
        for byte in hashes {
            sum.add_row(&[*byte; 32]);
        }
        sum
    }

    #[test]
    fn order_does_not_count_and_sets_add_up() {
        assert_eq!(of(&[1, 255, 7]), of(&[7, 1, 255]));
        assert_eq!(of(&[255, 255]) + of(&[3]), of(&[3, 255, 255]));
        assert_eq!(of(&[9, 8, 7]) - of(&[8, 7]), of(&[9]));
        assert_ne!(of(&[1, 1]), of(&[1]));
        assert_eq!([of(&[1]), of(&[2])].into_iter().sum::<RowSum>(), of(&[2, 1]));
    }

    #[test]
    fn signed_sums_are_the_same_numbers_modulo_2_to_the_64th() {
        let sum = of(&[255, 255, 128]);
        let signed = |byte: u8| i128::from(i64::from_be_bytes([byte; 8]));
        let lane = signed(255) * 2 + signed(128);
        assert_eq!(RowSum::from_signed(3, [lane, lane]), sum);
    }

    #[test]
    fn a_digest_is_32_digits_and_nothing_else() {
        let sum = of(&[200, 100]);
        assert_eq!(RowSum::new(2, &sum.digest()), Ok(sum));
        assert_eq!(format!("2:{}", sum.digest()).parse(), Ok(sum));
        for text in ["", "12", &"+".repeat(32), &"é".repeat(16), &"0".repeat(33)] {
            assert_eq!(RowSum::new(0, text), Err(ParseRowSumError), "{text}");
        }
    }
}
