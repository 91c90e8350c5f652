//! How `[buffer]` is divided among the places that hold rows (B2).

use crate::config::BufferSection;
use std::time::Duration;

const MIB: usize = 1024 * 1024;
/// WAL that was read and waits to be decoded. Two seconds of a busy server; more only adds latency.
const WAL_SHARE_MAX_BYTES: usize = 16 * MIB;
/// Rows of one partition that are worth an Arrow batch of their own: large enough for Parquet's encoders to run in long
/// loops, small enough that a queue of them stays small.
pub(super) const BATCH_ROWS: usize = 16 * 1024;
/// The same in bytes; a wide row reaches it first.
pub(super) const BATCH_BYTES: usize = 8 * MIB;
/// Commands that may wait between `follow` and `land`. Batches are at most [`BATCH_BYTES`] but for a single larger row.
pub(super) const LAND_QUEUE_COMMANDS: usize = 3;

/// The limits of one run, derived once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A flush starts when the oldest buffered transaction is this old.
    pub(super) max_age: Duration,
    /// A flush starts when this much was buffered since the last.
    pub(super) flush_bytes: u64,
    /// Bytes read from the socket and not yet decoded.
    pub(super) wal_bytes: usize,
    /// Arrow builders of all tables together.
    pub(super) builder_bytes: usize,
    /// Open Parquet files of all tables together.
    pub(super) writer_bytes: usize,
}

impl Limits {
    /// An eighth of the memory for Arrow builders and a fifth for open Parquet files; the WAL queue and the batches on their
    /// way take their fixed parts, and the rest is the process itself and the allocator's slack.
    pub(super) fn new(buffer: &BufferSection) -> Self {
        let memory = usize::try_from(buffer.memory_limit_bytes).unwrap_or(usize::MAX);
        Self {
            max_age: buffer.max_age,
            flush_bytes: buffer.max_bytes,
            wal_bytes: WAL_SHARE_MAX_BYTES.min(memory / 16),
            builder_bytes: memory / 8,
            writer_bytes: memory / 5,
        }
    }
}
