//! Giving way: whoever waits for a table that is being copied gets it at once, and the range is read again behind him.
//!
//! partman's DETACH waits for a leaf while it holds the root's lock, and every insert waits behind it.

use super::SnapshotError;
use crate::source;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, Notify};
use tokio_postgres::Client;

/// One session that copies, as the one who watches sees it.
#[derive(Debug)]
pub(super) struct Seat {
    process: i32,
    /// Whether a COPY is running. Held while the server is told to end it, so that no later statement can be hit.
    reading: Mutex<bool>,
    asked: AtomicBool,
    wake: Notify,
}

impl Seat {
    pub(super) fn new(process: i32) -> Self {
        Self { process, reading: Mutex::new(false), asked: AtomicBool::new(false), wake: Notify::new() }
    }

    /// A COPY begins.
    pub(super) async fn begin(&self) {
        let mut reading = self.reading.lock().await;
        self.asked.store(false, Ordering::Release);
        *reading = true;
    }

    /// It has ended.
    pub(super) async fn end(&self) {
        *self.reading.lock().await = false;
    }

    /// Whether somebody waits.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Comes back when somebody waits. Cancel-safe.
    pub(super) async fn asked(&self) {
        while !self.is_asked() {
            self.wake.notified().await;
        }
    }

    /// Asks the session to stop reading, and the server to stop sending, if there is a COPY.
    pub(super) async fn ask(&self, control: &Client) -> Result<(), SnapshotError> {
        let reading = self.reading.lock().await;
        if *reading {
            self.asked.store(true, Ordering::Release);
            self.wake.notify_one();
            source::cancel(control, self.process).await?;
        }
        drop(reading);
        Ok(())
    }
}

/// Looks once whether anybody waits for what one of the sessions holds.
pub(super) async fn give_way(control: &Client, seats: &[Arc<Seat>]) -> Result<(), SnapshotError> {
    let processes: Vec<i32> = seats.iter().map(|seat| seat.process).collect();
    for holder in source::waited_for(control, &processes).await? {
        if let Some(seat) = seats.iter().find(|seat| seat.process == holder) {
            tracing::debug!(process = holder, "a copy gives way to somebody who waits for its table");
            seat.ask(control).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_from_before_the_copy_does_not_count() {
        let seat = Seat::new(1);
        seat.asked.store(true, Ordering::Release);
        seat.wake.notify_one();
        seat.begin().await;
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), seat.asked()).await;
        assert!(waited.is_err(), "nobody waits for this one");
        seat.asked.store(true, Ordering::Release);
        seat.wake.notify_one();
        seat.asked().await;
        seat.end().await;
    }
}
