//! Types whose value is text or bytes: text, json, jsonb, bytea, uuid, and the text of types that are not read further.

use super::{Encoded, ValueError, exactly};

/// The only version of jsonb's send form (jsonb_send in PostgreSQL's jsonb.c).
const JSONB_VERSION: u8 = 1;
/// Length of a uuid's text.
pub const UUID_TEXT_BYTES: usize = 36;
/// Where each byte's two digits stand in a uuid's text.
const UUID_DIGITS_AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
const UUID_DASHES_AT: [usize; 4] = [8, 13, 18, 23];
/// The two digits of every byte.
static HEX_PAIRS: [[u8; 2]; 256] = hex_pairs();

const fn hex_pairs() -> [[u8; 2]; 256] {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 0xF]];
        byte += 1;
    }
    pairs
}

/// `text`, `varchar`, `char(n)`, `name`, `json` and enums: both forms are the text itself.
///
/// # Errors
/// [`ValueError::NotUtf8`]
#[inline]
pub fn text(encoded: Encoded<'_>) -> Result<&str, ValueError> {
    let (Encoded::Text(bytes) | Encoded::Binary(bytes)) = encoded;
    std::str::from_utf8(bytes).map_err(|_| ValueError::NotUtf8)
}

/// `jsonb`: its text; the send form is a version byte and the text.
///
/// # Errors
/// [`ValueError::NotUtf8`], [`ValueError::JsonbVersion`], [`ValueError::Malformed`]
#[inline]
pub fn jsonb(encoded: Encoded<'_>) -> Result<&str, ValueError> {
    match encoded {
        Encoded::Text(_) => text(encoded),
        Encoded::Binary([JSONB_VERSION, bytes @ ..]) => text(Encoded::Text(bytes)),
        Encoded::Binary([version, ..]) => Err(ValueError::JsonbVersion { version: *version }),
        Encoded::Binary([]) => Err(ValueError::Malformed { kind: "jsonb" }),
    }
}

/// Any other type: its output text; a send form is not understood.
///
/// # Errors
/// [`ValueError::NotUtf8`], [`ValueError::BinaryNotUnderstood`]
#[inline]
pub fn server_text(encoded: Encoded<'_>) -> Result<&str, ValueError> {
    match encoded {
        Encoded::Text(_) => text(encoded),
        Encoded::Binary(_) => Err(ValueError::BinaryNotUnderstood),
    }
}

/// `bytea`: the bytes, from `\x` and hexadecimal digits (written into `scratch`) or as they are.
///
/// # Errors
/// [`ValueError::Malformed`], also for the escape format, which the pinned bytea_output rules out.
#[inline]
pub fn bytea<'a>(encoded: Encoded<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ValueError> {
    match encoded {
        Encoded::Binary(bytes) => Ok(bytes),
        Encoded::Text(text) => {
            unhex(text, scratch).ok_or(ValueError::Malformed { kind: "bytea" })?;
            Ok(scratch)
        }
    }
}

fn unhex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let (pairs, odd) = text.strip_prefix(b"\\x")?.as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    out.reserve(pairs.len());
    for [high, low] in pairs {
        out.push(nibble(*high)? << 4 | nibble(*low)?);
    }
    Some(())
}

#[inline]
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Two lower-case digits a byte.
#[inline]
pub(super) fn hex_pair(byte: u8) -> [u8; 2] {
    HEX_PAIRS[usize::from(byte)]
}

/// `uuid`: 36 characters, lower case, written into `scratch` unless they came as text.
///
/// # Errors
/// [`ValueError::Malformed`]
#[inline]
pub fn uuid<'a>(encoded: Encoded<'a>, scratch: &'a mut [u8; UUID_TEXT_BYTES]) -> Result<&'a str, ValueError> {
    let malformed = ValueError::Malformed { kind: "uuid" };
    let text = match encoded {
        Encoded::Binary(bytes) => {
            let bytes: [u8; 16] = exactly(bytes, "uuid")?;
            for (byte, at) in bytes.into_iter().zip(UUID_DIGITS_AT) {
                let [high, low] = hex_pair(byte);
                scratch[at] = high;
                scratch[at + 1] = low;
            }
            for at in UUID_DASHES_AT {
                scratch[at] = b'-';
            }
            &scratch[..]
        }
        Encoded::Text(text) if is_uuid(text) => text,
        Encoded::Text(_) => return Err(malformed),
    };
    std::str::from_utf8(text).map_err(|_| malformed)
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == UUID_TEXT_BYTES
        && text
            .iter()
            .enumerate()
            .all(|(at, byte)| if UUID_DASHES_AT.contains(&at) { *byte == b'-' } else { nibble(*byte).is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_and_borrowed() {
        assert_eq!(text(Encoded::Binary("パスワード失敗 🔑".as_bytes())), Ok("パスワード失敗 🔑"));
        assert_eq!(text(Encoded::Text(b"")), Ok(""));
        assert_eq!(text(Encoded::Text(b"\xed\xa0\x80")), Err(ValueError::NotUtf8));
    }

    #[test]
    fn jsonb_has_one_version() {
        assert_eq!(jsonb(Encoded::Binary(b"\x01{\"a\": 1}")), Ok("{\"a\": 1}"));
        assert_eq!(jsonb(Encoded::Text(b"{}")), Ok("{}"));
        assert_eq!(jsonb(Encoded::Binary(b"\x02{}")), Err(ValueError::JsonbVersion { version: 2 }));
        assert_eq!(jsonb(Encoded::Binary(b"")), Err(ValueError::Malformed { kind: "jsonb" }));
    }

    #[test]
    fn an_unread_types_binary_form_is_refused() {
        assert_eq!(server_text(Encoded::Text(b"{1,2}")), Ok("{1,2}"));
        assert_eq!(server_text(Encoded::Binary(b"{1,2}")), Err(ValueError::BinaryNotUnderstood));
    }

    #[test]
    fn bytea_is_hexadecimal() {
        let mut scratch = vec![7];
        assert_eq!(bytea(Encoded::Text(b"\\x00ff7f"), &mut scratch), Ok(&[0, 0xFF, 0x7F][..]));
        assert_eq!(bytea(Encoded::Text(b"\\x"), &mut scratch), Ok(&[][..]));
        for wrong in [&b""[..], b"\\x0", b"\\xFF", b"abc", b"\\x0g", b"\\000"] {
            assert!(bytea(Encoded::Text(wrong), &mut scratch).is_err());
        }
    }

    #[test]
    fn a_uuid_is_36_lower_case_characters() {
        let bytes = [0xA0, 0xEE, 0xBC, 0x99, 0x9C, 0x0B, 0x4E, 0xF8, 0xBB, 0x6D, 0x6B, 0xB9, 0xBD, 0x38, 0x0A, 0x11];
        let expected = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let mut scratch = [0; UUID_TEXT_BYTES];
        assert_eq!(uuid(Encoded::Binary(&bytes), &mut scratch), Ok(expected));
        assert_eq!(uuid(Encoded::Text(expected.as_bytes()), &mut scratch), Ok(expected));
        let upper = expected.to_uppercase();
        let braces = format!("{{{}}}", &expected[2..]);
        for wrong in [upper.as_bytes(), braces.as_bytes(), b"", &expected.as_bytes()[1..]] {
            assert!(uuid(Encoded::Text(wrong), &mut scratch).is_err());
        }
        assert!(uuid(Encoded::Binary(&bytes[1..]), &mut scratch).is_err());
    }
}
