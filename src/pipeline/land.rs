//! The landing stage: encode, upload, commit, acknowledge. Owns every table's lake side.

use super::{PipelineError, Totals};
use crate::base::Lsn;
use crate::buffer::PartitionBatch;
use crate::lake::{Durable, LakeTable, TableWriter};
use crate::wal::Feedback;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How long an end may take for the files of a transaction that was cut off.
const DISCARD_PATIENCE: Duration = Duration::from_secs(10);

/// What `follow` asks for, in the order of the WAL.
#[derive(Debug)]
pub(super) enum LandCommand {
    /// Rows of a table. They belong to the next commit.
    Rows {
        /// Index of the table.
        table: usize,
        /// The rows.
        batch: PartitionBatch,
    },
    /// A transaction's end: make everything so far durable, then acknowledge it.
    Commit {
        /// End LSN of the last transaction that the rows belong to.
        at: Lsn,
        /// Rows since the last commit.
        rows: u64,
    },
}

/// The lake side of one table.
pub(super) struct Landing {
    pub(super) table: LakeTable,
    pub(super) writer: TableWriter,
    pub(super) dirty: bool,
}

impl Landing {
    async fn land(&mut self, at: Lsn) -> Result<Durable, PipelineError> {
        let files = self.writer.finish().await?;
        let durable = self.table.commit(&files, at).await?;
        self.writer.committed(&self.table).await;
        self.dirty = false;
        Ok(durable)
    }
}

/// The stage and its connections.
pub(super) struct Land {
    pub(super) tables: Vec<Landing>,
    pub(super) commands: mpsc::Receiver<LandCommand>,
    pub(super) feedback: Feedback,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) totals: watch::Sender<Totals>,
    /// For the open files of all tables together.
    pub(super) memory_limit_bytes: usize,
}

impl Land {
    /// Runs until `follow` closes the queue. Rows without a commit at that point belong to a transaction that was cut off:
    /// their files are removed, and the server sends them again.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        let outcome = self.follow_commands().await;
        // `follow` need not wait for the tidying up.
        self.commands.close();
        for landing in self.tables {
            // An attempt: what it cannot remove is a file that no commit names, and no reason to fail.
            match tokio::time::timeout(DISCARD_PATIENCE, landing.writer.discard()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "files that no commit names are left behind"),
                Err(_) => tracing::warn!("files that no commit names are left behind: removing them took too long"),
            }
            landing.table.close().await;
        }
        outcome
    }

    async fn follow_commands(&mut self) -> Result<(), PipelineError> {
        while let Some(command) = self.commands.recv().await {
            match command {
                LandCommand::Rows { table, batch } => {
                    let landing = self.tables.get_mut(table).ok_or(PipelineError::StageGone { stage: "land" })?;
                    landing.dirty = true;
                    landing.writer.write(batch).await?;
                    self.keep_within_memory().await?;
                }
                LandCommand::Commit { at, rows } => self.commit(at, rows).await?,
            }
        }
        Ok(())
    }

    /// One budget for all tables: a quiet table's share is the busy one's.
    async fn keep_within_memory(&mut self) -> Result<(), PipelineError> {
        let total = |tables: &[Landing]| tables.iter().map(|landing| landing.writer.memory_bytes()).sum::<usize>();
        while total(&self.tables) > self.memory_limit_bytes {
            let largest = self.tables.iter_mut().max_by_key(|landing| landing.writer.memory_bytes());
            let Some(landing) = largest else { break };
            if !landing.writer.relieve().await? {
                break;
            }
        }
        Ok(())
    }

    /// One Delta commit for each touched table; the acknowledgement follows the last of them (W1, L1).
    async fn commit(&mut self, at: Lsn, rows: u64) -> Result<(), PipelineError> {
        let started = Instant::now();
        let dirty = self.tables.iter_mut().filter(|landing| landing.dirty);
        // All of them to their end, also when one fails: a commit is never dropped half-way.
        let landed = futures::future::join_all(dirty.map(|landing| landing.land(at))).await;
        let mut durable_at: Option<Lsn> = None;
        for durable in landed {
            let lsn = durable?.lsn();
            durable_at = Some(durable_at.map_or(lsn, |earlier| earlier.min(lsn)));
        }
        if let Some(lsn) = durable_at {
            self.feedback.acknowledge(lsn);
            self.durable.send_replace(lsn);
            self.totals.send_modify(|totals| {
                totals.rows += rows;
                totals.flushes += 1;
            });
            tracing::info!(rows, lsn = %lsn, commit_seconds = started.elapsed().as_secs_f64(), "durable in the lake");
        }
        Ok(())
    }
}
