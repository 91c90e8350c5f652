//! Frames: the cut of a byte stream into backend messages, and what a CopyData message of replication holds (sections 55.4
//! and 55.7 of PostgreSQL's manual).

use super::error::WalError;
use crate::base::Lsn;

/// Tag of CopyData.
pub(super) const COPY_DATA: u8 = b'd';
/// Tag and length word.
pub(super) const HEADER_BYTES: usize = 5;
/// PostgreSQL builds every message in one allocation of less than 1 GiB (MaxAllocSize).
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// `w`, start, end and clock.
const DATA_HEADER_BYTES: usize = 25;
/// `k`, end, clock and the request for a reply.
const KEEPALIVE_BYTES: usize = 18;

/// One replication message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalFrame<'a> {
    /// XLogData: one message of the output plugin.
    Data {
        /// The WAL position of the change; zero for messages that have none, such as RELATION.
        start: Lsn,
        /// The server's idea of the end of WAL when it sent this; for logical decoding the same as `start`.
        end: Lsn,
        /// The plugin's bytes.
        payload: &'a [u8],
    },
    /// Primary keepalive, in order with the data: everything before it has been delivered.
    Keepalive {
        /// The last position that the server has decoded and sent.
        end: Lsn,
        /// Whether the server wants an answer; it has one already when this is seen.
        reply_requested: bool,
    },
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a message of {length} bytes")]
    Length { length: u32 },
    #[error("a CopyData message of kind {kind:#04x} and {length} bytes")]
    CopyData { kind: u8, length: usize },
    #[error("a cut message")]
    Cut,
}

/// The first message of `bytes`: its tag and whole length, header included, whether or not it has arrived. `None` until the
/// header is there.
pub(super) fn message_length(bytes: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    // The length word counts itself.
    match usize::try_from(length) {
        Ok(size) if (4..=MESSAGE_BYTES_MAX).contains(&size) => Ok(Some((tag, size + 1))),
        _ => Err(FrameError::Length { length }),
    }
}

/// The inside of one CopyData message.
pub(super) fn parse_copy_data(body: &[u8]) -> Result<WalFrame<'_>, FrameError> {
    let malformed = || FrameError::CopyData { kind: body.first().copied().unwrap_or(0), length: body.len() };
    let position = |at: usize| {
        let bytes = body.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        bytes.map(|bytes| Lsn(u64::from_be_bytes(bytes))).ok_or_else(malformed)
    };
    match body.first() {
        Some(b'w') => {
            let payload = body.get(DATA_HEADER_BYTES..).ok_or_else(malformed)?;
            Ok(WalFrame::Data { start: position(1)?, end: position(9)?, payload })
        }
        Some(b'k') if body.len() == KEEPALIVE_BYTES => {
            let reply_requested = body.last().is_some_and(|byte| *byte != 0);
            Ok(WalFrame::Keepalive { end: position(1)?, reply_requested })
        }
        _ => Err(malformed()),
    }
}

/// The frames of a run of whole CopyData messages.
pub(super) struct Frames<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<WalFrame<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let cut = match message_length(self.rest) {
            Ok(Some((_, length))) => self.rest.split_at_checked(length),
            Ok(None) => None,
            Err(error) => {
                self.rest = &[];
                return Some(Err(error));
            }
        };
        let Some((message, rest)) = cut else {
            self.rest = &[];
            return Some(Err(FrameError::Cut));
        };
        self.rest = rest;
        Some(parse_copy_data(message.get(HEADER_BYTES..).unwrap_or_default()))
    }
}

impl From<FrameError> for WalError {
    fn from(error: FrameError) -> Self {
        WalError::protocol(error.to_string(), "the server")
    }
}

#[cfg(test)]
pub(super) mod build {
    use super::*;

    /// One CopyData message around `body`.
    pub(in super::super) fn copy_data(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[COPY_DATA][..], &length.to_be_bytes(), body].concat()
    }

    pub(in super::super) fn data(start: u64, payload: &[u8]) -> Vec<u8> {
        copy_data(&[&b"w"[..], &start.to_be_bytes(), &start.to_be_bytes(), &[0; 8], payload].concat())
    }

    pub(in super::super) fn keepalive(end: u64, reply: bool) -> Vec<u8> {
        copy_data(&[&b"k"[..], &end.to_be_bytes(), &[0; 8], &[u8::from(reply)]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn data_and_keepalives_are_read() {
        let bytes = [build::data(7, b"abc"), build::keepalive(9, true)].concat();
        let frames: Result<Vec<_>, _> = Frames { rest: &bytes }.collect();
        let expected = vec![
            WalFrame::Data { start: Lsn(7), end: Lsn(7), payload: b"abc" },
            WalFrame::Keepalive { end: Lsn(9), reply_requested: true },
        ];
        assert_eq!(frames, Ok(expected));
    }

    #[test]
    fn lengths_outside_the_protocol_are_refused() {
        for length in [0_u32, 3, (1 << 30) + 1, u32::MAX] {
            let bytes = [&[COPY_DATA][..], &length.to_be_bytes()].concat();
            assert_eq!(message_length(&bytes), Err(FrameError::Length { length }));
        }
        assert_eq!(message_length(b"d\0\0\0"), Ok(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_or_frames(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_copy_data(&bytes);
            let frames = Frames { rest: &bytes }.count();
            prop_assert!(frames <= bytes.len());
        }
    }
}
