//! The way back: what is durable, told to the server.

use crate::base::Lsn;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;

/// PostgreSQL counts from 2000-01-01.
const POSTGRESQL_EPOCH_UNIX_SECONDS: u128 = 946_684_800;

/// A handle to acknowledge with; clones share one position.
#[derive(Clone, Debug, Default)]
pub struct Feedback {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    acknowledged: AtomicU64,
    moved: Notify,
}

impl Feedback {
    /// Everything before `lsn` is durable, and the server may forget it. Never goes backwards; a status update leaves at once,
    /// several calls in a row share one.
    pub fn acknowledge(&self, lsn: Lsn) {
        if self.shared.acknowledged.fetch_max(lsn.0, Ordering::AcqRel) < lsn.0 {
            self.shared.moved.notify_one();
        }
    }

    /// The position last acknowledged on this stream; zero before the first, which the server reads as "no news".
    pub fn acknowledged(&self) -> Lsn {
        Lsn(self.shared.acknowledged.load(Ordering::Acquire))
    }

    /// Waits for a move since the last wait; cancel-safe.
    pub(super) async fn moved(&self) {
        self.shared.moved.notified().await;
    }
}

/// Standby status update (section 55.4 of PostgreSQL's manual) in its CopyData frame. All three positions are the durable one,
/// so that nothing is ever claimed that a crash could take back.
pub(super) fn put_status_update(durable: Lsn, reply_requested: bool, out: &mut BytesMut) {
    out.put_u8(b'd');
    out.put_u32(4 + 1 + 4 * 8 + 1);
    out.put_u8(b'r');
    for _ in ["written", "flushed", "applied"] {
        out.put_u64(durable.0);
    }
    out.put_i64(clock_micros());
    out.put_u8(u8::from(reply_requested));
}

/// Only shown in pg_stat_replication; nothing is decided by it.
fn clock_micros() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    i64::try_from(since_1970.saturating_sub(POSTGRESQL_EPOCH_UNIX_SECONDS * 1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn acknowledging_never_goes_backwards_and_coalesces() {
        let feedback = Feedback::default();
        assert!(feedback.moved().now_or_never().is_none());
        feedback.clone().acknowledge(Lsn(9));
        feedback.acknowledge(Lsn(5));
        feedback.acknowledge(Lsn(11));
        assert_eq!(feedback.acknowledged(), Lsn(11));
        assert!(feedback.moved().now_or_never().is_some());
        assert!(feedback.moved().now_or_never().is_none());
        feedback.acknowledge(Lsn(11));
        assert!(feedback.moved().now_or_never().is_none());
    }

    #[test]
    fn a_status_update_claims_only_what_is_durable() {
        let mut out = BytesMut::new();
        put_status_update(Lsn(0x0102), true, &mut out);
        assert_eq!(out.len(), 39);
        assert_eq!(out.get(..6), Some(&b"d\0\0\0\x26r"[..]));
        let position = [0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(out.get(6..30), Some(&[position, position, position].concat()[..]));
        assert_eq!(out.last(), Some(&1));
    }
}
