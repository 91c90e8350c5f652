//! The landing stage: encode, upload, commit, acknowledge. Owns every table's lake side.

use super::{PipelineError, Totals};
use crate::base::Lsn;
use crate::buffer::PartitionBatch;
use crate::lake::{LakeTable, TableWriter};
use crate::wal::Feedback;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

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

/// The stage and its connections.
pub(super) struct Land {
    pub(super) tables: Vec<Landing>,
    pub(super) commands: mpsc::Receiver<LandCommand>,
    pub(super) feedback: Feedback,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) totals: watch::Sender<Totals>,
}

impl Land {
    /// Runs until `follow` closes the queue. Rows without a commit at that point belong to a transaction that was cut off:
    /// their files are removed, and the server sends them again.
    pub(super) async fn run(mut self) -> Result<(), PipelineError> {
        while let Some(command) = self.commands.recv().await {
            match command {
                LandCommand::Rows { table, batch } => {
                    let landing = self.tables.get_mut(table).ok_or(PipelineError::StageGone { stage: "land" })?;
                    landing.dirty = true;
                    landing.writer.write(batch).await?;
                }
                LandCommand::Commit { at, rows } => self.commit(at, rows).await?,
            }
        }
        for landing in self.tables {
            if landing.dirty {
                landing.writer.discard().await?;
            }
            landing.table.close().await;
        }
        Ok(())
    }

    /// One Delta commit for each touched table; the acknowledgement follows the last of them (W1, L1).
    async fn commit(&mut self, at: Lsn, rows: u64) -> Result<(), PipelineError> {
        let started = Instant::now();
        let mut durable_at = None;
        for landing in self.tables.iter_mut().filter(|landing| landing.dirty) {
            let files = landing.writer.finish().await?;
            let durable = landing.table.commit(files, at).await?;
            landing.dirty = false;
            durable_at = Some(durable_at.map_or(durable.lsn(), |earlier: Lsn| earlier.min(durable.lsn())));
        }
        if let Some(lsn) = durable_at {
            self.feedback.acknowledge(lsn);
            self.durable.send_replace(lsn);
            self.totals.send_modify(|totals| {
                totals.rows += rows;
                totals.flushes += 1;
            });
            tracing::info!(rows, lsn = %lsn, commit_ms = started.elapsed().as_millis(), "durable in the lake");
        }
        Ok(())
    }
}
