//! `numeric`: exact as a scaled 128-bit integer, or as PostgreSQL's own text.

use super::{Encoded, ValueError};

const MALFORMED: ValueError = ValueError::Malformed { kind: "numeric" };
/// Digits of one group of the send form (NBASE 10000 in PostgreSQL's numeric.c).
const GROUP_DIGITS: i32 = 4;
const GROUP_MAX: u16 = 9_999;
/// Sign words of the send form.
const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// NUMERIC_DSCALE_MASK: digits after the point that a numeric can print.
const DISPLAY_SCALE_MAX: u16 = 0x3FFF;
/// Digits that a decimal of the lake can have.
const DECIMAL_DIGITS_MAX: u32 = 38;

/// The send form: numeric_send in PostgreSQL's numeric.c.
enum Sent<'a> {
    Finite(Groups<'a>),
    NotFinite(&'static str),
}

/// `digits[0] × 10000^weight + digits[1] × 10000^(weight-1) + …`, printed with `display_scale` digits after the point.
struct Groups<'a> {
    negative: bool,
    weight: i32,
    display_scale: u16,
    digits: &'a [[u8; 2]],
}

impl<'a> Sent<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ValueError> {
        let (words, odd) = bytes.as_chunks::<2>();
        let [count, weight, sign, display_scale, digits @ ..] = words else { return Err(MALFORMED) };
        let sound = odd.is_empty() && usize::from(u16::from_be_bytes(*count)) == digits.len();
        let display_scale = u16::from_be_bytes(*display_scale);
        let all_groups = digits.iter().all(|group| u16::from_be_bytes(*group) <= GROUP_MAX);
        if !sound || !all_groups || display_scale > DISPLAY_SCALE_MAX {
            return Err(MALFORMED);
        }
        let negative = match u16::from_be_bytes(*sign) {
            POSITIVE => false,
            NEGATIVE => true,
            NAN => return Ok(Self::NotFinite("NaN")),
            POSITIVE_INFINITY => return Ok(Self::NotFinite("Infinity")),
            NEGATIVE_INFINITY => return Ok(Self::NotFinite("-Infinity")),
            _ => return Err(MALFORMED),
        };
        // The server strips leading zero groups and the sign of a zero (make_result); so that nothing depends on it, so do we.
        let leading = digits.iter().take_while(|group| **group == [0, 0]).count();
        let (_, digits) = digits.split_at_checked(leading).ok_or(MALFORMED)?;
        let weight = i32::from(i16::from_be_bytes(*weight)) - i32::try_from(leading).map_err(|_| MALFORMED)?;
        let weight = if digits.is_empty() { -1 } else { weight };
        Ok(Self::Finite(Groups { negative: negative && !digits.is_empty(), weight, display_scale, digits }))
    }
}

impl Groups<'_> {
    /// The group that stands for 10000^(weight - index); zero outside of what was sent.
    fn group(&self, index: i32) -> u16 {
        let sent = usize::try_from(index).ok().and_then(|index| self.digits.get(index));
        sent.map_or(0, |group| u16::from_be_bytes(*group))
    }

    /// As get_str_from_var prints it.
    fn print(&self, out: &mut String) -> Result<(), ValueError> {
        if self.negative {
            out.push('-');
        }
        if self.weight < 0 {
            out.push('0');
        }
        for index in 0..=self.weight {
            let digits = group_digits(self.group(index));
            let padding = if index == 0 { digits.iter().take_while(|digit| **digit == '0').count() } else { 0 };
            out.extend(digits.iter().skip(padding));
        }
        self.print_fraction(out)
    }

    fn print_fraction(&self, out: &mut String) -> Result<(), ValueError> {
        let mut left = usize::from(self.display_scale);
        if left > 0 {
            out.push('.');
        }
        let mut index = self.weight + 1;
        while left > 0 {
            let digits = group_digits(self.group(index));
            let shown = left.min(digits.len());
            out.extend(digits.iter().take(shown));
            if digits.iter().skip(shown).any(|digit| *digit != '0') {
                return Err(MALFORMED);
            }
            left -= shown;
            index += 1;
        }
        // Digits behind the display scale would be lost by printing; the server's arithmetic never leaves any.
        let printed = usize::try_from(index).unwrap_or(0);
        if self.digits.iter().skip(printed).any(|group| *group != [0, 0]) { Err(MALFORMED) } else { Ok(()) }
    }

    /// The value times 10^scale.
    fn scaled(&self, scale: i32) -> Option<i128> {
        let mut exponent = self.weight.checked_mul(GROUP_DIGITS)?.checked_add(scale)?;
        let mut value = 0_i128;
        for group in self.digits {
            let group = i128::from(u16::from_be_bytes(*group));
            if group != 0 {
                value = value.checked_add(shifted(group, exponent)?)?;
            }
            exponent -= GROUP_DIGITS;
        }
        Some(if self.negative { -value } else { value })
    }
}

/// `group × 10^exponent`, if that is an integer that fits.
fn shifted(group: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        group.checked_mul(power)
    } else if group % power == 0 {
        Some(group / power)
    } else {
        None
    }
}

fn group_digits(group: u16) -> [char; 4] {
    let digit = |power: u16| char::from_digit(u32::from(group / power % 10), 10).unwrap_or('0');
    [digit(1000), digit(100), digit(10), digit(1)]
}

/// The parts of a finite numeric's output text: sign, digits before the point, digits after it.
fn text_parts(text: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        None => (digits, &[][..]),
        Some(point) => match digits.split_at_checked(point)? {
            (whole, [b'.', fraction @ ..]) if !fraction.is_empty() => (whole, fraction),
            _ => return None,
        },
    };
    let numeric = !whole.is_empty() && whole.iter().chain(fraction).all(u8::is_ascii_digit);
    numeric.then_some((negative, whole, fraction))
}

/// `numeric(precision, scale)`: the value times 10^scale.
///
/// # Errors
/// [`ValueError::DecimalNotFinite`], [`ValueError::DecimalTooLong`] where precision or scale would not hold every digit, zeros
/// after the point included, [`ValueError::Malformed`].
#[inline]
pub fn decimal(encoded: Encoded<'_>, precision: u8, scale: i8) -> Result<i128, ValueError> {
    let too_long = ValueError::DecimalTooLong { precision, scale };
    let value = match encoded {
        Encoded::Text(b"NaN" | b"Infinity" | b"-Infinity") => return Err(ValueError::DecimalNotFinite),
        Encoded::Text(text) => {
            let (negative, whole, fraction) = text_parts(text).ok_or(MALFORMED)?;
            scaled_text(negative, whole, fraction, scale).ok_or(too_long)?
        }
        Encoded::Binary(bytes) => match Sent::read(bytes)? {
            Sent::NotFinite(_) => return Err(ValueError::DecimalNotFinite),
            Sent::Finite(groups) if i32::from(groups.display_scale) > i32::from(scale) => return Err(too_long),
            Sent::Finite(groups) => groups.scaled(i32::from(scale)).ok_or(too_long)?,
        },
    };
    let limit = 10_u128.checked_pow(u32::from(precision).min(DECIMAL_DIGITS_MAX)).ok_or(too_long)?;
    if value.unsigned_abs() < limit { Ok(value) } else { Err(too_long) }
}

fn scaled_text(negative: bool, whole: &[u8], fraction: &[u8], scale: i8) -> Option<i128> {
    let missing = usize::try_from(scale).ok()?.checked_sub(fraction.len())?;
    let mut value = 0_i128;
    for digit in whole.iter().chain(fraction) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let value = value.checked_mul(10_i128.checked_pow(u32::try_from(missing).ok()?)?)?;
    Some(if negative { -value } else { value })
}

/// `numeric` without a precision that fits the lake: PostgreSQL's output text, appended to `out`; display scale, NaN and the
/// infinities included.
///
/// # Errors
/// [`ValueError::Malformed`]
pub fn numeric(encoded: Encoded<'_>, out: &mut String) -> Result<(), ValueError> {
    match encoded {
        Encoded::Text(text) => {
            let special = matches!(text, b"NaN" | b"Infinity" | b"-Infinity");
            if !special && text_parts(text).is_none() {
                return Err(MALFORMED);
            }
            out.push_str(std::str::from_utf8(text).map_err(|_| MALFORMED)?);
            Ok(())
        }
        Encoded::Binary(bytes) => match Sent::read(bytes)? {
            Sent::NotFinite(name) => {
                out.push_str(name);
                Ok(())
            }
            Sent::Finite(groups) => groups.print(out),
        },
    }
}
