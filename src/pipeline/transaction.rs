//! Where the stream stands: inside which transaction, with what buffered, and up to where it is on its way to the lake.

use crate::base::Lsn;
use crate::buffer::Transaction;
use std::time::{Duration, Instant};

/// The whole transaction whose rows are arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenTransaction {
    /// LSN of its commit record, from BEGIN.
    pub(super) commit_lsn: Lsn,
    /// When it commits, from BEGIN.
    pub(super) commit_time_micros: i64,
    pub(super) xid: u32,
    /// The operator asked to step over it.
    pub(super) skipped: bool,
}

impl OpenTransaction {
    /// What its changes remember of it.
    pub(super) fn origin(&self) -> Transaction {
        Transaction { xid: self.xid, commit_lsn: self.commit_lsn, commit_time_micros: self.commit_time_micros }
    }
}

/// Rows and changes that no flush has taken yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u64,
    /// On the wire.
    pub(super) bytes: u64,
    /// When the first of them arrived.
    pub(super) since: Option<Instant>,
    /// Some of them are changes, and not only new rows.
    pub(super) changes: bool,
    /// Some of them were streamed while their transaction was in progress.
    pub(super) streamed: bool,
}

/// The stage's bookkeeping of positions; it holds no rows.
///
/// Transactions in progress do not appear here: they commit behind everything that was sent, so the server sends them again
/// whatever is acknowledged meanwhile.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) open: Option<OpenTransaction>,
    /// Rows of the open transaction.
    arriving: Tally,
    /// Rows of transactions that have ended.
    pending: Tally,
    /// End LSN of the last transaction in `pending`.
    pub(super) pending_end: Lsn,
    /// Where the last flush that was sent to `land` ends.
    flushed_to: Lsn,
    /// Every transaction that commits before here has been sent by the server.
    pub(super) sent_to: Lsn,
    /// The last position without rows that `land` was asked to acknowledge.
    idle_asked_to: Lsn,
    /// Since when the server has sent more than `land` was told of.
    idle_since: Option<Instant>,
    /// Somebody waits for the acknowledgement of a position behind this one.
    hurried: Option<Lsn>,
}

impl Progress {
    /// One row arrived, of so many bytes on the wire.
    #[inline]
    pub(super) fn row(&mut self, bytes: usize) {
        if self.arriving.since.is_none() {
            self.arriving.since = Some(Instant::now());
        }
        self.arriving.rows += 1;
        self.arriving.bytes += bytes as u64;
    }

    /// One change arrived, of so many bytes on the wire.
    #[inline]
    pub(super) fn change(&mut self, bytes: usize) {
        self.row(bytes);
        self.arriving.changes = true;
    }

    /// The open transaction ended at `end`.
    pub(super) fn transaction_ended(&mut self, end: Lsn) {
        self.open = None;
        let arrived = std::mem::take(&mut self.arriving);
        self.pend(end, arrived);
    }

    /// A transaction that was streamed while it was in progress committed; its age counts from here.
    pub(super) fn streamed_ended(&mut self, end: Lsn, rows: u64, bytes: u64) {
        self.pend(end, Tally { rows, bytes, since: Some(Instant::now()), changes: false, streamed: true });
    }

    fn pend(&mut self, end: Lsn, arrived: Tally) {
        if arrived.rows > 0 {
            self.pending.rows += arrived.rows;
            self.pending.bytes += arrived.bytes;
            self.pending.since = self.pending.since.or(arrived.since);
            self.pending.changes |= arrived.changes;
            self.pending.streamed |= arrived.streamed;
            self.pending_end = end;
        }
    }

    /// Everything that commits before `end` was sent.
    pub(super) fn sent(&mut self, end: Lsn) {
        if end > self.sent_to {
            self.sent_to = end;
            self.idle_since.get_or_insert_with(Instant::now);
        }
    }

    /// Positions without rows are acknowledged at once, until one behind `at` is: somebody waits for it. The server tells of that one later
    /// than of the message at `at`, and may have told of earlier ones just before.
    pub(super) fn hurry(&mut self, at: Lsn) {
        self.hurried = self.hurried.max(Some(at));
    }

    /// Whether rows of whole transactions wait for a flush.
    pub(super) fn has_pending(&self) -> bool {
        self.pending.rows > 0
    }

    /// Whether changes wait for a flush.
    pub(super) fn has_pending_changes(&self) -> bool {
        self.pending.changes
    }

    /// Whether rows wait for a flush that were streamed while their transaction was in progress.
    pub(super) fn has_pending_streamed(&self) -> bool {
        self.pending.streamed
    }

    /// Whether they should wait no longer.
    pub(super) fn flush_is_due(&self, flush_bytes: u64, max_age: Duration, now: Instant) -> bool {
        let old = self.pending.since.is_some_and(|since| now.saturating_duration_since(since) >= max_age);
        self.has_pending() && (old || self.pending.bytes >= flush_bytes)
    }

    /// When the pending rows become too old.
    pub(super) fn flush_deadline(&self, max_age: Duration) -> Option<Instant> {
        self.pending.since.map(|since| since + max_age)
    }

    /// Everything pending was sent to `land`.
    pub(super) fn flushed(&mut self) {
        self.flushed_to = self.pending_end;
        self.pending = Tally::default();
        if self.sent_to <= self.flushed_to {
            self.idle_since = None;
        }
    }

    /// The last position that `land` was asked to make durable.
    pub(super) fn on_its_way(&self) -> Lsn {
        self.flushed_to.max(self.idle_asked_to)
    }

    /// W1: a position without rows may be acknowledged only when nothing is buffered, open or on its way.
    pub(super) fn idle_position(&self, durable: Lsn) -> Option<Lsn> {
        let nothing_in_flight = self.open.is_none() && !self.has_pending() && durable >= self.on_its_way();
        (nothing_in_flight && self.sent_to > durable).then_some(self.sent_to)
    }

    /// When the lake should note that position: each notice costs the store a request or two.
    pub(super) fn idle_deadline(&self, durable: Lsn, interval: Duration) -> Option<Instant> {
        self.idle_position(durable)?;
        self.idle_since.map(|since| if self.hurried.is_some() { since } else { since + interval })
    }

    /// `land` was asked to acknowledge `at`, or could not be; the next one waits its turn.
    pub(super) fn idle_asked(&mut self, at: Option<Lsn>) {
        match at {
            Some(at) => {
                self.idle_asked_to = at;
                self.idle_since = None;
                self.hurried = self.hurried.filter(|wanted| at <= *wanted);
            }
            None => self.idle_since = Some(Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(commit_lsn: u64) -> Option<OpenTransaction> {
        Some(OpenTransaction { commit_lsn: Lsn(commit_lsn), commit_time_micros: 0, xid: 7, skipped: false })
    }

    #[test]
    fn r3_whoever_waits_for_a_marker_waits_for_no_interval() {
        let mut progress = Progress::default();
        let at_once = |progress: &Progress, durable| {
            let deadline = progress.idle_deadline(Lsn(durable), Duration::from_secs(3600));
            deadline.is_some_and(|deadline| deadline <= Instant::now())
        };
        progress.sent(Lsn(5));
        assert!(!at_once(&progress, 0));
        progress.hurry(Lsn(10));
        assert!(at_once(&progress, 0), "what is before it is acknowledged, too");
        progress.idle_asked(Some(Lsn(5)));
        progress.sent(Lsn(12));
        assert!(at_once(&progress, 5), "and that is not what is waited for");
        progress.idle_asked(Some(Lsn(12)));
        progress.sent(Lsn(20));
        assert!(!at_once(&progress, 12));
    }

    #[test]
    fn w1_a_keepalive_is_followed_only_when_nothing_is_in_flight() {
        let mut progress = Progress::default();
        progress.sent(Lsn(5));
        assert_eq!(progress.idle_position(Lsn::ZERO), Some(Lsn(5)));
        progress.open = open(10);
        assert_eq!(progress.idle_position(Lsn::ZERO), None, "a transaction is open");
        progress.row(100);
        progress.transaction_ended(Lsn(20));
        progress.sent(Lsn(25));
        assert_eq!(progress.idle_position(Lsn(20)), None, "rows are buffered");
        progress.flushed();
        assert_eq!(progress.idle_position(Lsn(19)), None, "a flush is on its way");
        assert_eq!(progress.idle_position(Lsn(20)), Some(Lsn(25)));
        progress.idle_asked(Some(Lsn(25)));
        assert_eq!(progress.idle_position(Lsn(20)), None, "it was asked for already");
        assert_eq!(progress.idle_position(Lsn(25)), None, "nothing more was sent");
        assert_eq!(progress.on_its_way(), Lsn(25));
    }

    #[test]
    fn an_idle_position_waits_its_turn() {
        let mut progress = Progress::default();
        assert!(progress.idle_deadline(Lsn::ZERO, Duration::ZERO).is_none(), "nothing was sent");
        progress.sent(Lsn(5));
        assert!(progress.idle_deadline(Lsn::ZERO, Duration::ZERO).is_some());
        progress.open = open(7);
        assert!(progress.idle_deadline(Lsn::ZERO, Duration::ZERO).is_none(), "a timer would fire for nothing");
    }

    #[test]
    fn b1_a_flush_takes_whole_transactions_and_leaves_the_open_one() {
        let mut progress = Progress::default();
        progress.row(1);
        progress.transaction_ended(Lsn(1));
        progress.open = open(2);
        progress.row(7);
        assert!(
            progress.flush_deadline(Duration::ZERO).is_some(),
            "what is pending does not wait for a long transaction"
        );
        progress.flushed();
        assert_eq!((progress.flushed_to, progress.arriving.rows, progress.arriving.bytes), (Lsn(1), 1, 7));
        assert!(progress.flush_deadline(Duration::ZERO).is_none());
    }

    #[test]
    fn a_transaction_without_rows_leaves_nothing_pending() {
        let mut progress = Progress { open: open(1), ..Progress::default() };
        progress.transaction_ended(Lsn(2));
        progress.streamed_ended(Lsn(3), 0, 0);
        assert!(!progress.has_pending());
        assert!(!progress.flush_is_due(0, Duration::ZERO, Instant::now()));
    }

    #[test]
    fn a_flush_knows_what_it_takes() {
        let mut progress = Progress { open: open(1), ..Progress::default() };
        progress.change(5);
        assert!(!progress.has_pending_changes(), "the transaction has not ended");
        progress.transaction_ended(Lsn(2));
        assert!(progress.has_pending() && progress.has_pending_changes() && !progress.has_pending_streamed());
        progress.streamed_ended(Lsn(3), 1, 9);
        assert!(progress.has_pending_changes() && progress.has_pending_streamed());
        progress.flushed();
        assert!(!progress.has_pending_changes() && !progress.has_pending_streamed());
    }
}
