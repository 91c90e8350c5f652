//! COPY's binary format (PostgreSQL manual, COPY, "Binary Format"): a header, rows of fields, and a trailer.
//!
//! Bytes come in pieces that need not end where a row ends, so both functions say when there is not enough yet.

use super::reader::Reader;
use super::{DecodeError, Tuple};

const SIGNATURE: &[u8] = b"PGCOPY\n\xFF\r\n\0";
const FLAGS_BYTES: usize = 4;
const COUNT_BYTES: usize = 2;
/// Stands where a row's count of fields would.
const TRAILER: [u8; COUNT_BYTES] = (-1_i16).to_be_bytes();
/// For errors.
const MESSAGE: &str = "CopyData";

/// What stands at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRow<'a> {
    /// A row, and what follows it.
    Row(Tuple<'a>, &'a [u8]),
    /// The trailer, after which nothing may come.
    End,
    /// Part of a row, or nothing.
    Incomplete,
}

/// What follows the header; None while it is not complete.
///
/// # Errors
/// [`DecodeError`] for anything else than a header, and for flags that are not known: they could change what the rows mean.
pub fn copy_header(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    if let Some((_, found)) = SIGNATURE.iter().zip(bytes).find(|(expected, found)| expected != found) {
        return Err(DecodeError::UnknownTag { message: MESSAGE, field: "signature", tag: *found });
    }
    let Some(rest) = bytes.get(SIGNATURE.len()..) else { return Ok(None) };
    let Some(flags) = rest.first_chunk::<FLAGS_BYTES>() else { return Ok(None) };
    if let Some(flags) = flags.iter().copied().find(|flags| *flags != 0) {
        return Err(DecodeError::UnknownFlags { message: MESSAGE, flags });
    }
    let rest = rest.get(FLAGS_BYTES..).unwrap_or_default();
    if rest.len() < size_of::<i32>() {
        return Ok(None);
    }
    let mut reader = Reader::new(rest, MESSAGE);
    let extension = reader.count("header extension length")?;
    Ok(reader.rest().get(extension..))
}

/// The row at the beginning of `bytes`, whose columns are in binary form, but for those where `texts` has true: they are the type's output
/// text.
///
/// # Errors
/// [`DecodeError`] for a negative count or length, and for bytes behind the trailer.
#[inline]
pub fn copy_row<'a>(bytes: &'a [u8], texts: &'a [bool]) -> Result<CopyRow<'a>, DecodeError> {
    let Some((count, fields)) = bytes.split_first_chunk::<COUNT_BYTES>() else { return Ok(CopyRow::Incomplete) };
    if *count == TRAILER {
        return Reader::new(fields, MESSAGE).finish().map(|()| CopyRow::End);
    }
    let negative = |field| DecodeError::NegativeCount { message: MESSAGE, field };
    let count = u16::try_from(i16::from_be_bytes(*count)).map_err(|_| negative("field count"))?;
    let mut rest = fields;
    for _ in 0..count {
        let Some((length, after)) = rest.split_first_chunk::<{ size_of::<i32>() }>() else {
            return Ok(CopyRow::Incomplete);
        };
        let length = match i32::from_be_bytes(*length) {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| negative("field length"))?,
        };
        let Some(after) = after.get(length..) else { return Ok(CopyRow::Incomplete) };
        rest = after;
    }
    let own = fields.get(..fields.len() - rest.len()).unwrap_or_default();
    Ok(CopyRow::Row(Tuple::copied(count, own, MESSAGE, texts), rest))
}
