//! A channel that counts bytes: batches that wait or are being worked on hold permits until they are dropped.

use super::error::WalError;
use super::frame::{Frames, WalFrame};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Batches in the channel; bytes are the bound that matters, this one only keeps many tiny batches from piling up.
const BATCHES_MAX: usize = 256;

/// Whole frames in one piece of memory. Dropping it lets the socket read on.
#[derive(Debug)]
pub struct WalBatch {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl WalBatch {
    /// The length in bytes, frame headers included.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The frames in the server's order.
    pub fn frames(&self) -> impl Iterator<Item = Result<WalFrame<'_>, WalError>> {
        Frames { rest: &self.bytes }.map(|frame| frame.map_err(WalError::from))
    }
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Outlet {
    sender: mpsc::Sender<WalBatch>,
    permits: Arc<Semaphore>,
    permits_max: u32,
}

/// The consumer is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disconnected;

/// Room for one batch.
pub(super) struct Room<'a> {
    slot: mpsc::Permit<'a, WalBatch>,
    permit: OwnedSemaphorePermit,
}

impl Room<'_> {
    pub(super) fn send(self, bytes: Bytes) {
        self.slot.send(WalBatch { bytes, _permit: self.permit });
    }
}

/// A channel whose batches hold at most `bytes_max` bytes together; a larger single batch passes alone.
pub(super) fn channel(bytes_max: usize) -> (Outlet, mpsc::Receiver<WalBatch>) {
    let (sender, receiver) = mpsc::channel(BATCHES_MAX);
    let permits_max = u32::try_from(bytes_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX).max(1);
    let permits = Arc::new(Semaphore::new(usize::try_from(permits_max).unwrap_or(Semaphore::MAX_PERMITS)));
    (Outlet { sender, permits, permits_max }, receiver)
}

impl Outlet {
    /// Whether batches wait that the consumer has not taken yet.
    pub(super) fn has_waiting(&self) -> bool {
        self.sender.capacity() < self.sender.max_capacity()
    }

    /// Waits until the consumer has taken every batch, or is gone. Cancel-safe: nothing is held when it is dropped.
    pub(super) async fn emptied(&self) {
        // All the places are free at once only when nothing waits; they are given back unused.
        let _ = self.sender.reserve_many(self.sender.max_capacity()).await;
    }

    /// Waits for room. Cancel-safe: nothing is held when it is dropped.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room<'_>, Disconnected> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.permits_max);
        let slot = self.sender.reserve().await.map_err(|_| Disconnected)?;
        let acquiring = Arc::clone(&self.permits).acquire_many_owned(wanted);
        tokio::select! {
            permit = acquiring => Ok(Room { slot, permit: permit.map_err(|_| Disconnected)? }),
            () = self.sender.closed() => Err(Disconnected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::build;
    use super::*;
    use futures::FutureExt;

    fn send(outlet: &Outlet, bytes: &[u8]) -> bool {
        match outlet.room(bytes.len()).now_or_never() {
            Some(room) => room.map(|room| room.send(Bytes::copy_from_slice(bytes))).is_ok(),
            None => false,
        }
    }

    #[test]
    fn bytes_bound_the_channel_until_a_batch_is_dropped() {
        let (outlet, mut receiver) = channel(100);
        assert!(send(&outlet, &[0; 60]));
        assert!(send(&outlet, &[0; 40]));
        assert!(!send(&outlet, &[0; 1]));
        let first = receiver.try_recv().unwrap();
        assert!(!send(&outlet, &[0; 1]), "taking a batch out frees nothing");
        drop(first);
        assert!(send(&outlet, &[0; 60]));
    }

    #[test]
    fn a_message_larger_than_the_budget_passes_alone() {
        let (outlet, mut receiver) = channel(100);
        assert!(send(&outlet, &[0; 500]));
        assert!(!send(&outlet, &[0; 1]));
        assert_eq!(receiver.try_recv().unwrap().len_bytes(), 500);
        assert!(send(&outlet, &[0; 1]));
    }

    #[test]
    fn a_hungry_consumer_is_noticed() {
        let (outlet, mut receiver) = channel(100);
        assert!(!outlet.has_waiting() && outlet.emptied().now_or_never().is_some());
        assert!(send(&outlet, b"a") && send(&outlet, b"b"));
        let first = receiver.try_recv().unwrap();
        assert!(outlet.has_waiting() && outlet.emptied().now_or_never().is_none());
        let second = receiver.try_recv().unwrap();
        assert!(!outlet.has_waiting() && outlet.emptied().now_or_never().is_some(), "what is taken does not wait");
        drop((first, second));
        assert!(send(&outlet, b"c"));
        drop(receiver);
        assert!(outlet.emptied().now_or_never().is_some());
    }

    #[test]
    fn a_gone_consumer_is_noticed() {
        let (outlet, receiver) = channel(10);
        assert!(send(&outlet, &[0; 10]));
        drop(receiver);
        assert_eq!(outlet.room(1).now_or_never().unwrap().err(), Some(Disconnected));
    }

    #[test]
    fn a_batch_gives_its_frames() {
        let (outlet, mut receiver) = channel(1000);
        send(&outlet, &[build::data(3, b"p"), build::keepalive(4, false)].concat());
        let batch = receiver.try_recv().unwrap();
        assert_eq!(batch.frames().filter(Result::is_ok).count(), 2);
    }
}
