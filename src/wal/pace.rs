//! How patiently to read. Measured on two cores, a consumer that is woken for every row spends four CPU-seconds per 500,000
//! rows on being woken; reads of a quarter of a megabyte spend 0.3.
//!
//! While a backlog flows, a TCP socket sleeps until [`LOW_WATER_BYTES`] are there, and a Unix socket, where every send of the
//! server is its own read, is left alone after a small read while the consumer has something to take: until it has taken all
//! of it, for [`UNIX_PAUSE`] at most. A consumer that waits is never made to wait longer. When [`PATIENCE`] passes without a wake-up, the
//! low-water mark falls to 1, so the last rows wait that long at most.

use std::time::Duration;
use tokio::time::Instant;

/// SO_RCVLOWAT while a backlog flows.
pub(super) const LOW_WATER_BYTES: u32 = 256 << 10;
/// The longest that bytes below the mark lie in the socket.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);
/// At most between reads of a Unix socket while a backlog flows; the finest that tokio's timer does.
pub(super) const UNIX_PAUSE: Duration = Duration::from_millis(1);
/// As much within `PATIENCE` is a backlog: 3.2 MB/s.
const BACKLOG_BYTES: usize = 32 << 10;
/// A read that brought so much needs no pause: the server is faster than we are.
const LARGE_READ_BYTES: usize = 64 << 10;

/// Whether a backlog flows, judged by what arrives.
#[derive(Debug)]
pub(super) struct Pace {
    backlog: bool,
    window_start: Instant,
    window_bytes: usize,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { backlog: false, window_start: now, window_bytes: 0 }
    }

    /// Counts a read; true when it makes the stream a backlog.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) -> bool {
        if now.duration_since(self.window_start) > PATIENCE {
            self.window_start = now;
            self.window_bytes = 0;
        }
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        let begins = !self.backlog && self.window_bytes >= BACKLOG_BYTES;
        self.backlog |= begins;
        begins
    }

    /// `PATIENCE` passed without a read.
    pub(super) fn silence(&mut self) {
        self.backlog = false;
    }

    pub(super) fn is_backlog(&self) -> bool {
        self.backlog
    }

    /// The pause after a read of `bytes` from a Unix socket, `consumer_is_fed` if batches wait for the consumer.
    pub(super) fn unix_pause(&self, bytes: usize, consumer_is_fed: bool) -> Option<Duration> {
        (self.backlog && consumer_is_fed && bytes < LARGE_READ_BYTES).then_some(UNIX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_stream_is_a_backlog_until_it_falls_silent() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.read(start, BACKLOG_BYTES - 1));
        assert!(pace.read(start + PATIENCE, 1));
        assert!(!pace.read(start + PATIENCE, 1), "it begins once");
        assert_eq!(pace.unix_pause(100, true), Some(UNIX_PAUSE));
        assert_eq!(pace.unix_pause(100, false), None, "the consumer is hungry");
        assert_eq!(pace.unix_pause(LARGE_READ_BYTES, true), None);
        pace.silence();
        assert!(!pace.is_backlog());
    }

    #[test]
    fn a_trickle_is_no_backlog() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for tick in 1..100 {
            assert!(!pace.read(start + PATIENCE * 2 * tick, 10_000));
        }
    }
}
