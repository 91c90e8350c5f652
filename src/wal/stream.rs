//! The consumer's end of the stream.

use super::budget::{WalBatch, channel};
use super::error::WalError;
use super::feedback::Feedback;
use super::stream_task::StreamTask;
use crate::base::Lsn;
use crate::connect::Socket;
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// What to stream and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// The slot, which exists.
    pub slot: String,
    /// Where to start; the server starts at the slot's confirmed position if that is later.
    pub start: Lsn,
    /// The publication.
    pub publication: String,
    /// pgoutput's `proto_version`: 1 to 4.
    pub protocol_version: u32,
    /// Transactions in progress as well, once they outgrow the server's `logical_decoding_work_mem`; from protocol 2 on (server
    /// 14 and later).
    pub streaming: bool,
    /// Values in send form (server 14 and later).
    pub binary: bool,
    /// Logical messages as well (server 14 and later).
    pub messages: bool,
    /// Between status updates when nothing else asks for one; well below the server's `wal_sender_timeout`.
    pub feedback_interval: Duration,
    /// Silence of the server after which the connection is given up; after half of it an answer is asked for. Zero means never.
    pub receive_timeout: Duration,
    /// The most that batches hold before the socket is no longer read; one message may be larger and passes alone. Up to one
    /// read of at most 1 MiB lies in front of it.
    pub buffer_bytes: usize,
}

/// Protocol 1 in text form without transactions in progress, feedback every second, 60 s of silence, 16 MiB.
impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            slot: "lakebed".to_owned(),
            start: Lsn::ZERO,
            publication: "lakebed".to_owned(),
            protocol_version: 1,
            streaming: false,
            binary: false,
            messages: false,
            feedback_interval: Duration::from_secs(1),
            receive_timeout: Duration::from_secs(60),
            buffer_bytes: 16 << 20,
        }
    }
}

/// WAL as it arrives. Dropping it closes the socket at once; [`Self::finish`] ends it in order.
#[derive(Debug)]
pub struct ReplicationStream {
    batches: mpsc::Receiver<WalBatch>,
    feedback: Feedback,
    stop: Arc<Notify>,
    // One task; aborted when the set is dropped.
    task: JoinSet<Result<(), WalError>>,
    ended_cleanly: bool,
}

impl ReplicationStream {
    pub(super) fn new(socket: Socket, received: BytesMut, options: StreamOptions, endpoint: String) -> Self {
        let (outlet, batches) = channel(options.buffer_bytes);
        let feedback = Feedback::default();
        let stop = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        task.spawn(
            StreamTask::new(socket, received, options, endpoint, outlet, feedback.clone(), Arc::clone(&stop)).run(),
        );
        Self { batches, feedback, stop, task, ended_cleanly: false }
    }

    /// The next batch; `None` after the server ended the stream in order (it shuts down). Cancel-safe. An error comes once,
    /// behind every batch that arrived before it, then [`WalError::Ended`].
    pub async fn next(&mut self) -> Result<Option<WalBatch>, WalError> {
        match self.batches.recv().await {
            Some(batch) => Ok(Some(batch)),
            None => self.outcome().await.map(|()| None),
        }
    }

    /// A handle to acknowledge with.
    pub fn feedback(&self) -> Feedback {
        self.feedback.clone()
    }

    /// Sends the last acknowledged position and ends the stream in order, within five seconds. Batches that were not taken
    /// are dropped; the server sends them again.
    pub async fn finish(self) -> Result<(), WalError> {
        let Self { batches, stop, mut task, feedback: _, ended_cleanly: _ } = self;
        stop.notify_one();
        drop(batches);
        match task.join_next().await {
            Some(outcome) => joined(outcome),
            None => Ok(()),
        }
    }

    async fn outcome(&mut self) -> Result<(), WalError> {
        match self.task.join_next().await {
            Some(outcome) => {
                let outcome = joined(outcome);
                self.ended_cleanly = outcome.is_ok();
                outcome
            }
            None if self.ended_cleanly => Ok(()),
            None => Err(WalError::Ended),
        }
    }
}

fn joined(outcome: Result<Result<(), WalError>, tokio::task::JoinError>) -> Result<(), WalError> {
    outcome.unwrap_or_else(|error| Err(WalError::io(io::Error::other(error), "PostgreSQL")))
}
