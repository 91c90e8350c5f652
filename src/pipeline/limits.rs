//! How `[buffer]` is divided among the places that hold rows (B2).

use crate::config::BufferSection;
use crate::lake::{Rewriter, WriterOptions};
use crate::source::Pressure;
use std::time::Duration;

const MIB: usize = 1024 * 1024;
/// The process without a row: code pages, the async runtime, the store's client, the allocator's slack.
const PROCESS_BYTES: usize = 96 * MIB;
/// WAL that was read and waits to be decoded; more only adds latency.
const WAL_MAX_BYTES: usize = 16 * MIB;
/// Rows of one partition that are worth an Arrow batch of their own: large enough for Parquet's encoders to run in long
/// loops, small enough that a queue of them stays small.
pub(super) const BATCH_ROWS: usize = 16 * 1024;
/// The same in bytes; a wide row reaches it first.
const BATCH_MAX_BYTES: usize = 8 * MIB;
/// Commands that may wait between `follow` and `land`.
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
    /// A partition of this size becomes a batch; only a single larger row makes a larger one.
    pub(super) batch_bytes: usize,
    /// Arrow builders of all tables together.
    pub(super) builder_bytes: usize,
    /// Open Parquet files of all tables together.
    pub(super) writer_bytes: usize,
    /// Out of `writer_bytes`: half of it for changes of one table that wait in memory for their flush, four times it for those that are
    /// applied together, with all that is known of the rows that they name.
    pub(super) changes_bytes: usize,
}

/// The age of a flush while the slot's headroom is nearly gone; sooner would make a commit of every transaction, and the
/// backlog would shrink more slowly.
const HURRIED_AGE: Duration = Duration::from_secs(1);

/// What each connection of a copy may hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CopyShare {
    /// In open Parquet files.
    pub(super) writer_bytes: usize,
    /// In Arrow builders.
    pub(super) builder_bytes: usize,
}

/// With less, files would be closed too early, and batches be too short for the encoders.
const COPY_WRITER_MIN_BYTES: usize = 6 * MIB;
const COPY_BUILDER_MIN_BYTES: usize = MIB;

impl Limits {
    /// The limits while the slot has so much room left.
    pub(super) fn under(&self, pressure: Pressure) -> Self {
        let max_age = match pressure {
            Pressure::Ample => self.max_age,
            Pressure::Low => self.max_age / 2,
            Pressure::Critical => self.max_age.min(HURRIED_AGE),
        };
        Self { max_age, ..*self }
    }

    /// Makes room for a copy of days beside the stream: half of what rows have is its own. Returns what each of its connections gets.
    pub(super) fn share_with_a_copy(&mut self, connections: usize) -> CopyShare {
        let halves = [&mut self.wal_bytes, &mut self.batch_bytes, &mut self.builder_bytes, &mut self.writer_bytes];
        halves.into_iter().for_each(|bytes| *bytes /= 2);
        self.changes_bytes /= 2;
        // The writers' half is four times a connection's share of it, and the builders' one and a half times.
        let each = self.writer_bytes / connections.max(1);
        CopyShare {
            writer_bytes: each.max(COPY_WRITER_MIN_BYTES),
            builder_bytes: (each / 4).clamp(COPY_BUILDER_MIN_BYTES, BATCH_MAX_BYTES),
        }
    }

    /// What rewriting rows may take.
    pub(super) fn rewriter(&self) -> Rewriter {
        let writer = WriterOptions { memory_limit_bytes: self.writer_bytes / 2, ..WriterOptions::default() };
        Rewriter { writer, round_bytes: 4 * self.changes_bytes }
    }

    /// What the process itself does not take is for rows: a tenth waits as WAL, a quarter is in open Parquet files, a quarter in
    /// Arrow builders and about a third in the five batches that may be on their way. Builders grow by doubling, and a batch keeps
    /// what its builders had, so both are limited to half of what they may hold.
    pub(super) fn new(buffer: &BufferSection) -> Self {
        let memory = usize::try_from(buffer.memory_limit_bytes).unwrap_or(usize::MAX);
        let rows = memory.saturating_sub(PROCESS_BYTES).max(ROWS_MIN_BYTES);
        Self {
            max_age: buffer.max_age,
            flush_bytes: buffer.max_bytes,
            wal_bytes: WAL_MAX_BYTES.min(rows / 10),
            batch_bytes: BATCH_MAX_BYTES.min(rows / 32),
            builder_bytes: rows / 8,
            writer_bytes: rows / 4,
            changes_bytes: rows / 16,
        }
    }
}

/// What rows get under the smallest permitted `memory_limit`.
const ROWS_MIN_BYTES: usize = 32 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_the_parts_stay_within_the_limit() {
        for limit_mib in [128, 256, 1024, 65_536_u64] {
            let memory_limit_bytes = limit_mib << 20;
            let buffer = BufferSection { max_age: Duration::from_secs(10), max_bytes: 1 << 20, memory_limit_bytes };
            let limits = Limits::new(&buffer);
            // Waiting in the queue, being sent, being encoded.
            let on_their_way = (LAND_QUEUE_COMMANDS + 2) * limits.batch_bytes;
            let grown = 2 * (limits.builder_bytes + on_their_way);
            let total = PROCESS_BYTES + limits.wal_bytes + limits.writer_bytes + grown;
            assert!(total as u64 <= memory_limit_bytes, "{limit_mib} MiB: {limits:?}");
        }
    }
}
