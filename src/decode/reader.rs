//! A cursor over one frame: every read checks its length.

use super::DecodeError;
use crate::base::Lsn;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's clock starts.
const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;

/// What is left of a frame, and the name of its message for errors.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8], message: &'static str) -> Self {
        Self { rest, message }
    }

    pub(super) fn message(&self) -> &'static str {
        self.message
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let truncated = DecodeError::Truncated { message: self.message, field };
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated { message: self.message, field };
        let (head, rest) = self.rest.split_at_checked(count).ok_or(truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn unsigned(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn signed(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(u64::from_be_bytes).map(Lsn)
    }

    /// A TimestampTz, as microseconds since 1970.
    pub(super) fn micros(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let since_2000 = self.array(field).map(i64::from_be_bytes)?;
        let out_of_range = DecodeError::TimeOutOfRange { message: self.message };
        since_2000.checked_add(MICROS_1970_TO_2000).ok_or(out_of_range)
    }

    /// An Int16 that counts something.
    #[inline]
    pub(super) fn short_count(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        let count = self.array(field).map(i16::from_be_bytes)?;
        u16::try_from(count).map_err(|_| DecodeError::NegativeCount { message: self.message, field })
    }

    /// An Int32 that counts something.
    #[inline]
    pub(super) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.array(field).map(i32::from_be_bytes)?;
        usize::try_from(count).map_err(|_| DecodeError::NegativeCount { message: self.message, field })
    }

    /// An Int32 that counts something, or is -1.
    #[inline]
    pub(super) fn count_or_null(&mut self, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let count = self.array(field).map(i32::from_be_bytes)?;
        if count == -1 {
            return Ok(None);
        }
        usize::try_from(count).map(Some).map_err(|_| DecodeError::NegativeCount { message: self.message, field })
    }

    /// A String: UTF-8 up to a zero byte.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let truncated = DecodeError::Truncated { message: self.message, field };
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(truncated)?;
        let bytes = self.bytes(end, field)?;
        self.byte(field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { message: self.message, field })
    }

    /// A byte of flags, none of them outside `known`.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, DecodeError> {
        let flags = self.byte("flags")?;
        if flags & !known == 0 { Ok(flags) } else { Err(DecodeError::UnknownFlags { message: self.message, flags }) }
    }

    pub(super) fn unknown_tag(&self, field: &'static str, tag: u8) -> DecodeError {
        DecodeError::UnknownTag { message: self.message, field, tag }
    }

    /// The frame must end here.
    #[inline]
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { message: self.message, count }),
        }
    }
}
