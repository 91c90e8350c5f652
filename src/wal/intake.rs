//! The receive buffer: large reads in, runs of whole CopyData messages out, without a copy of each.

use super::frame::{COPY_DATA, FrameError, HEADER_BYTES, WalFrame, message_length, parse_copy_data};
use bytes::{Bytes, BytesMut};

/// A run of whole CopyData messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The messages, headers included, in one piece.
    pub(super) bytes: Bytes,
    /// One of them is a keepalive that wants an answer.
    pub(super) reply_requested: bool,
}

/// What lies at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Only the beginning of a message.
    Incomplete,
    /// CopyData.
    Run(Run),
    /// Any other message: its tag and body.
    Message { tag: u8, body: Bytes },
}

/// Bytes that have arrived and are not cut yet. Never holds more than `chunk_bytes` besides the message at its front.
#[derive(Debug)]
pub(super) struct Intake {
    buffer: BytesMut,
    chunk_bytes: usize,
}

impl Intake {
    pub(super) fn new(received: BytesMut, chunk_bytes: usize) -> Self {
        Self { buffer: received, chunk_bytes }
    }

    /// The buffer with room for one large read.
    ///
    /// Room grows with what has arrived, at most twofold, not with what a length word claims: a broken peer cannot make it
    /// allocate a gigabyte.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        let room = self.buffer.capacity() - self.buffer.len();
        if room < self.chunk_bytes / 4 {
            self.buffer.reserve(self.chunk_bytes.max(self.buffer.len()));
        }
        &mut self.buffer
    }

    /// Takes what is whole at the front, every CopyData up to the first other message.
    pub(super) fn cut(&mut self) -> Result<Cut, FrameError> {
        let mut end = 0;
        let mut reply_requested = false;
        while let Some((tag, length)) = message_length(self.buffer.get(end..).unwrap_or_default())? {
            let Some(message) = self.buffer.get(end..end + length) else { break };
            let body = message.get(HEADER_BYTES..).unwrap_or_default();
            if tag == COPY_DATA {
                let frame = parse_copy_data(body)?;
                reply_requested |= matches!(frame, WalFrame::Keepalive { reply_requested: true, .. });
                end += length;
            } else if end == 0 {
                let mut message = self.buffer.split_to(length).freeze();
                return Ok(Cut::Message { tag, body: message.split_off(HEADER_BYTES) });
            } else {
                break;
            }
        }
        if end == 0 {
            return Ok(Cut::Incomplete);
        }
        Ok(Cut::Run(Run { bytes: self.buffer.split_to(end).freeze(), reply_requested }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::build;
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in pieces and returns what comes out: the concatenated runs, and the other messages.
    fn feed(bytes: &[u8], pieces: &[usize]) -> Result<(Vec<u8>, Vec<u8>), FrameError> {
        let mut intake = Intake::new(BytesMut::new(), 64);
        let (mut runs, mut tags) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        let mut sizes = pieces.iter().copied().cycle();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            intake.space().extend_from_slice(&rest[..size]);
            rest = &rest[size..];
            loop {
                match intake.cut()? {
                    Cut::Incomplete => break,
                    Cut::Run(run) => runs.extend_from_slice(&run.bytes),
                    Cut::Message { tag, .. } => tags.push(tag),
                }
            }
        }
        Ok((runs, tags))
    }

    #[test]
    fn a_run_stops_at_another_message() {
        let mut intake = Intake::new(BytesMut::new(), 64);
        let run = [build::data(1, b"x"), build::keepalive(2, true)].concat();
        intake.space().extend_from_slice(&[&run[..], b"c\0\0\0\x04", b"d\0\0"].concat());
        assert_eq!(intake.cut(), Ok(Cut::Run(Run { bytes: Bytes::from(run), reply_requested: true })));
        assert_eq!(intake.cut(), Ok(Cut::Message { tag: b'c', body: Bytes::new() }));
        assert_eq!(intake.cut(), Ok(Cut::Incomplete));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut intake = Intake::new(BytesMut::new(), 1024);
        intake.space().extend_from_slice(b"d\x3f\xff\xff\xff");
        assert_eq!(intake.cut(), Ok(Cut::Incomplete));
        assert!(intake.space().capacity() <= 4096);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
            pieces in proptest::collection::vec(1_usize..200, 1..10),
        ) {
            let frames: Vec<Vec<u8>> = payloads.iter().map(|payload| build::data(1, payload)).collect();
            let bytes = frames.concat();
            prop_assert_eq!(feed(&bytes, &pieces), Ok((bytes, Vec::new())));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            pieces in proptest::collection::vec(1_usize..50, 1..5),
        ) {
            let _ = feed(&bytes, &pieces);
        }
    }
}
