//! Whether days that wait to be copied are being copied at all, for a verb that watches another process do it.
//!
//! That process puts days aside which something stands against, says why in its own log, and tries them again after a while, for ever. Who
//! only watches sees none of this but that nothing changes and nobody reads.

use crate::base::Lsn;
use crate::connect::{self, Settings};
use crate::{snapshot, source};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than whoever follows waits between two looks for marks, or between two attempts at a snapshot.
const PATIENCE: Duration = Duration::from_secs(300);

/// What was left when something happened last.
#[derive(Debug)]
pub(super) struct Standstill {
    left: String,
    /// The end of the WAL when nobody copied any more: what was copied last lands before it, if it lands at all.
    written: Option<Lsn>,
    happened_at: Instant,
}

/// What the server shows of whoever copies.
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_copying: bool,
    written: Lsn,
    confirmed: Lsn,
}

impl Standstill {
    pub(super) fn new() -> Self {
        Self { left: String::new(), written: None, happened_at: Instant::now() }
    }

    /// Whether what is `left` has been the same for five minutes in which nobody copied, and nothing that was copied was still to land. A
    /// server that cannot be asked is asked again.
    pub(super) async fn is_seen(&mut self, settings: &Settings, slot: &str, left: &str) -> bool {
        match look(settings, slot).await {
            Ok(Some(seen)) => self.tick(left, seen, Instant::now()),
            _ => false,
        }
    }

    fn tick(&mut self, left: &str, Seen { is_copying, written, confirmed }: Seen, now: Instant) -> bool {
        if is_copying || self.left != left {
            (self.left, self.written, self.happened_at) = (left.to_owned(), None, now);
        } else if confirmed < *self.written.get_or_insert(written) {
            self.happened_at = now;
        }
        now.duration_since(self.happened_at) >= PATIENCE
    }
}

/// For people.
pub(super) const STANDSTILL: &str = "for five minutes nobody has copied what is left: whoever follows the slot says in its log what stands against these days, and tries them again every ten minutes";

/// None without a slot.
async fn look(settings: &Settings, slot: &str) -> anyhow::Result<Option<Seen>> {
    let control = connect::control(settings).await?;
    let client = control.client();
    source::prepare_session(client).await?;
    let is_copying = source::is_copying(client, &snapshot::temporary_slots_of(slot)).await?;
    let written = source::server(client).await?.wal_position;
    let confirmed = source::slot(client, slot).await?.and_then(|slot| slot.confirmed);
    Ok(confirmed.map(|confirmed| Seen { is_copying, written, confirmed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_neither_changes_nor_is_read_stands_still() {
        let begun = Instant::now();
        let mut watched = Standstill::new();
        let mut tick = |left: &str, is_copying, [written, confirmed]: [u64; 2], minutes: u64| {
            let seen = Seen { is_copying, written: Lsn(written), confirmed: Lsn(confirmed) };
            watched.tick(left, seen, begun + Duration::from_secs(60 * minutes))
        };
        assert!(!tick("2026-01-01", false, [10, 10], 0) && !tick("2026-01-01", false, [10, 10], 4));
        assert!(!tick("2026-01-01", true, [20, 10], 6), "somebody reads");
        assert!(!tick("2026-01-01", false, [30, 20], 12), "it has still to land");
        assert!(!tick("2026-01-01", false, [40, 29], 18));
        assert!(!tick("2026-01-01", false, [50, 30], 22) && tick("2026-01-01", false, [60, 40], 23), "it would have");
        assert!(!tick("2026-01-02", false, [70, 70], 24), "something has landed");
    }
}
