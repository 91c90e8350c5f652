//! Whether days that wait to be copied are being copied at all, for a verb that watches another process do it.
//!
//! That process puts days aside which something stands against, says why in its own log, and tries them again after a while, for ever. Who
//! only watches sees none of this but that nothing changes and nobody reads.

use crate::connect::{self, Settings};
use crate::{snapshot, source};
use std::time::Duration;
use tokio::time::Instant;

/// A batch may wait for the stream so long, between its last row and its commit.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was left when it changed last.
#[derive(Debug)]
pub(super) struct Standstill {
    left: String,
    moved_at: Instant,
}

impl Standstill {
    pub(super) fn new() -> Self {
        Self { left: String::new(), moved_at: Instant::now() }
    }

    /// Whether what is `left` has been the same for five minutes in which nobody copied. A server that cannot be asked counts as one that is
    /// being read.
    pub(super) async fn is_seen(&mut self, settings: &Settings, slot: &str, left: &str) -> bool {
        let is_copying = is_copying(settings, slot).await.unwrap_or(true);
        self.tick(left, is_copying, Instant::now())
    }

    fn tick(&mut self, left: &str, is_copying: bool, now: Instant) -> bool {
        if is_copying || self.left != left {
            (self.left, self.moved_at) = (left.to_owned(), now);
        }
        now.duration_since(self.moved_at) >= PATIENCE
    }
}

/// For people.
pub(super) const STANDSTILL: &str = "for five minutes nobody has copied what is left: whoever follows the slot says in its log what stands against these days, and tries them again every ten minutes";

async fn is_copying(settings: &Settings, slot: &str) -> anyhow::Result<bool> {
    let control = connect::control(settings).await?;
    source::prepare_session(control.client()).await?;
    Ok(source::is_copying(control.client(), &snapshot::temporary_slots_of(slot)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_neither_changes_nor_is_read_stands_still() {
        let begun = Instant::now();
        let mut watched = Standstill::new();
        let mut tick = |left: &str, is_copying, minutes: u64| {
            watched.tick(left, is_copying, begun + Duration::from_secs(60 * minutes))
        };
        assert!(!tick("2026-01-01", false, 0) && !tick("2026-01-01", false, 4));
        assert!(!tick("2026-01-01", true, 6), "somebody reads");
        assert!(!tick("2026-01-01", false, 10) && tick("2026-01-01", false, 11));
        assert!(!tick("2026-01-02", false, 12), "something has landed");
    }
}
