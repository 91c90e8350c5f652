//! Bytes that only grow, in pieces that are never copied: a single buffer that grows by doubling holds up to twice what is in it.

use bytes::Bytes;
use deltalake::logstore::object_store::PutPayload;
use std::io::{self, Write};

/// Bytes of a piece.
const CHUNK_BYTES: usize = 128 << 10;

/// What was written so far.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    full: Vec<Bytes>,
    full_bytes: usize,
    open: Vec<u8>,
}

impl Chunks {
    /// Memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.full_bytes + self.open.capacity() + self.full.capacity() * size_of::<Bytes>()
    }

    /// Gives back what the last piece does not fill.
    pub(super) fn trim(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            open.shrink_to_fit();
            self.full_bytes += open.len();
            self.full.push(open.into());
        }
    }

    /// Everything, for an upload that can be repeated without a copy.
    pub(super) fn into_payload(mut self) -> PutPayload {
        self.trim();
        self.full.into_iter().collect()
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.capacity() == 0 {
            self.open.reserve_exact(CHUNK_BYTES);
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.open.len());
        self.open.extend_from_slice(&bytes[..taken]);
        if self.open.len() == CHUNK_BYTES {
            self.trim();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_out_and_no_more_is_held() {
        let mut chunks = Chunks::default();
        let mut expected = Vec::new();
        for piece in [0, 1, CHUNK_BYTES - 1, 3 * CHUNK_BYTES + 5, 7] {
            let bytes: Vec<u8> = (0..piece).map(|index| u8::try_from(index % 251).unwrap()).collect();
            chunks.write_all(&bytes).unwrap();
            expected.extend_from_slice(&bytes);
            assert!(chunks.memory_bytes() <= expected.len() + CHUNK_BYTES + 1_024);
            if piece == 1 {
                chunks.trim();
                assert!(chunks.memory_bytes() < 1_024);
            }
        }
        let payload = chunks.into_payload();
        assert_eq!(payload.content_length(), expected.len());
        assert_eq!(payload.iter().flatten().copied().collect::<Vec<u8>>(), expected);
    }
}
