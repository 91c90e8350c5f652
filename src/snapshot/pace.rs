//! A limit in bytes a second over all who copy.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What may be read at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// Everybody who reads says how much, and is told when to go on.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When everything that was read so far is paid for.
    paid_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes, which were read, are within the limit. Cancel-safe; what was said counts all the same.
    pub(super) async fn read(&self, bytes: u64) {
        sleep_until(self.due(bytes, Instant::now())).await;
    }

    fn due(&self, bytes: u64, now: Instant) -> Instant {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now.checked_sub(BURST).unwrap_or(now);
        #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *paid_at = (*paid_at).max(oldest) + cost;
        *paid_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_read_is_paid_for_in_time_and_a_pause_saves_little() {
        let pace = Pace::new(1_000);
        let now = Instant::now();
        pace.due(1_000, now);
        let due = pace.due(500, now);
        assert!(due >= now + Duration::from_millis(1_200), "{:?}", due - now);
        let later = due + Duration::from_secs(60);
        assert_eq!(pace.due(1_000, later), later - BURST + Duration::from_secs(1));
    }
}
