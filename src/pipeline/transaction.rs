//! Where the stream stands: inside which transaction, with what buffered, and up to where it is on its way to the lake.

use crate::base::Lsn;
use std::time::{Duration, Instant};

/// The transaction whose rows are arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTransaction {
    /// LSN of its commit record, from BEGIN.
    pub(super) commit_lsn: Lsn,
}

/// Rows that no flush has taken yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    /// On the wire.
    pub(super) bytes: u64,
    /// When the first of them arrived.
    pub(super) since: Option<Instant>,
}

/// The stage's bookkeeping of positions; it holds no rows.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) open: Option<OpenTransaction>,
    /// Rows of the open transaction.
    pub(super) arriving: Tally,
    /// Rows of transactions that have ended.
    pub(super) pending: Tally,
    /// End LSN of the last transaction in `pending`.
    pub(super) pending_end: Lsn,
    /// Where the last flush that was sent to `land` ends.
    pub(super) flushed_to: Lsn,
    /// Every transaction that commits before here has been sent by the server.
    pub(super) sent_to: Lsn,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            open: None,
            arriving: Tally::default(),
            pending: Tally::default(),
            pending_end: Lsn::ZERO,
            flushed_to: Lsn::ZERO,
            sent_to: Lsn::ZERO,
        }
    }

    /// One row arrived, of so many bytes on the wire.
    #[inline]
    pub(super) fn row(&mut self, bytes: usize) {
        if self.arriving.since.is_none() {
            self.arriving.since = Some(Instant::now());
        }
        self.arriving.rows += 1;
        self.arriving.bytes += bytes as u64;
    }

    /// The open transaction ended at `end`.
    pub(super) fn transaction_ended(&mut self, end: Lsn) {
        self.open = None;
        let arrived = std::mem::take(&mut self.arriving);
        if arrived.rows > 0 {
            self.pending.rows += arrived.rows;
            self.pending.bytes += arrived.bytes;
            self.pending.since = self.pending.since.or(arrived.since);
            self.pending_end = end;
        }
    }

    /// Whether rows of whole transactions wait for a flush.
    pub(super) fn has_pending(&self) -> bool {
        self.pending.rows > 0
    }

    /// Whether they should wait no longer.
    pub(super) fn flush_is_due(&self, flush_bytes: u64, max_age: Duration) -> bool {
        let old = self.pending.since.is_some_and(|since| since.elapsed() >= max_age);
        self.has_pending() && (old || self.pending.bytes >= flush_bytes)
    }

    /// Everything pending was sent to `land`.
    pub(super) fn flushed(&mut self) {
        self.flushed_to = self.pending_end;
        self.pending = Tally::default();
    }

    /// W1: a position without rows may be acknowledged only when nothing is buffered, open or on its way.
    pub(super) fn nothing_in_flight(&self, durable: Lsn) -> bool {
        self.open.is_none() && !self.has_pending() && durable >= self.flushed_to
    }

    /// When the pending rows become too old.
    pub(super) fn deadline(&self, max_age: Duration) -> Option<Instant> {
        self.pending.since.map(|since| since + max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w1_a_keepalive_is_followed_only_when_nothing_is_in_flight() {
        let mut progress = Progress::new();
        assert!(progress.nothing_in_flight(Lsn::ZERO));
        progress.open = Some(OpenTransaction { commit_lsn: Lsn(10) });
        assert!(!progress.nothing_in_flight(Lsn::ZERO), "a transaction is open");
        progress.row(100);
        progress.transaction_ended(Lsn(20));
        assert!(!progress.nothing_in_flight(Lsn(20)), "rows are buffered");
        progress.flushed();
        assert!(!progress.nothing_in_flight(Lsn(19)), "a flush is on its way");
        assert!(progress.nothing_in_flight(Lsn(20)));
    }

    #[test]
    fn b1_a_flush_takes_whole_transactions_and_leaves_the_open_one() {
        let mut progress = Progress::new();
        progress.row(1);
        progress.transaction_ended(Lsn(1));
        progress.open = Some(OpenTransaction { commit_lsn: Lsn(2) });
        progress.row(7);
        assert!(progress.deadline(Duration::ZERO).is_some(), "what is pending does not wait for a long transaction");
        progress.flushed();
        assert_eq!((progress.flushed_to, progress.arriving.rows, progress.arriving.bytes), (Lsn(1), 1, 7));
        assert!(progress.deadline(Duration::ZERO).is_none());
    }

    #[test]
    fn a_transaction_without_rows_leaves_nothing_pending() {
        let mut progress = Progress::new();
        progress.open = Some(OpenTransaction { commit_lsn: Lsn(1) });
        progress.transaction_ended(Lsn(2));
        assert!(!progress.has_pending());
        assert!(!progress.flush_is_due(0, Duration::ZERO));
    }
}
