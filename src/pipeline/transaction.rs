//! Where the stream stands: inside which transaction, with what buffered, and up to where it is on its way to the lake.

use crate::base::Lsn;
use std::time::{Duration, Instant};

/// The transaction whose rows are arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTransaction {
    /// LSN of its commit record, from BEGIN.
    pub(super) commit_lsn: Lsn,
}

/// Rows of whole transactions that no flush has taken yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// When the first of them arrived.
    pub(super) since: Instant,
    /// End LSN of the last of them.
    pub(super) end: Lsn,
}

/// The stage's bookkeeping of positions; it holds no rows.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) open: Option<OpenTransaction>,
    pub(super) pending: Option<Pending>,
    /// Rows since the last flush, those of an open transaction included.
    pub(super) rows: u64,
    /// Tuple bytes since the last flush.
    pub(super) bytes: u64,
    /// Where the last flush that was sent to `land` ends.
    pub(super) flushed_to: Lsn,
    /// Every transaction that commits before here has been sent by the server.
    pub(super) sent_to: Lsn,
    /// When the first row since the last flush arrived.
    pub(super) first_row: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            open: None,
            pending: None,
            rows: 0,
            bytes: 0,
            flushed_to: Lsn::ZERO,
            sent_to: Lsn::ZERO,
            first_row: None,
        }
    }

    /// One row arrived, of so many bytes on the wire.
    #[inline]
    pub(super) fn row(&mut self, bytes: usize) {
        if self.first_row.is_none() {
            self.first_row = Some(Instant::now());
        }
        self.rows += 1;
        self.bytes += bytes as u64;
    }

    /// The open transaction ended at `end`.
    pub(super) fn transaction_ended(&mut self, end: Lsn) {
        self.open = None;
        if let Some(since) = self.first_row {
            self.pending = Some(Pending { since, end });
        }
    }

    /// Whether the rows so far should be flushed now that a transaction has ended.
    pub(super) fn flush_is_due(&self, flush_bytes: u64, max_age: Duration) -> bool {
        self.pending.is_some_and(|pending| self.bytes >= flush_bytes || pending.since.elapsed() >= max_age)
    }

    /// Everything pending was sent to `land`.
    pub(super) fn flushed(&mut self, end: Lsn) {
        *self = Self { open: self.open, sent_to: self.sent_to, flushed_to: end, ..Self::new() };
    }

    /// W1: a position without rows may be acknowledged only when nothing is buffered, open or on its way.
    pub(super) fn nothing_in_flight(&self, durable: Lsn) -> bool {
        self.open.is_none() && self.pending.is_none() && self.rows == 0 && durable >= self.flushed_to
    }

    /// When the pending rows become too old.
    pub(super) fn deadline(&self, max_age: Duration) -> Option<Instant> {
        if self.open.is_some() { None } else { self.pending.map(|pending| pending.since + max_age) }
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
        progress.flushed(Lsn(20));
        assert!(!progress.nothing_in_flight(Lsn(19)), "a flush is on its way");
        assert!(progress.nothing_in_flight(Lsn(20)));
    }

    #[test]
    fn b1_no_deadline_while_a_transaction_is_open() {
        let mut progress = Progress::new();
        progress.row(1);
        progress.transaction_ended(Lsn(1));
        assert!(progress.deadline(Duration::ZERO).is_some());
        progress.open = Some(OpenTransaction { commit_lsn: Lsn(2) });
        assert!(progress.deadline(Duration::ZERO).is_none());
    }

    #[test]
    fn a_transaction_without_rows_leaves_nothing_pending() {
        let mut progress = Progress::new();
        progress.open = Some(OpenTransaction { commit_lsn: Lsn(1) });
        progress.transaction_ended(Lsn(2));
        assert!(progress.pending.is_none());
        assert!(!progress.flush_is_due(0, Duration::ZERO));
    }
}
