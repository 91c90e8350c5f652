//! What flows into one table and is not committed yet: rows on their way into files, and changes of rows.

use crate::lake::{ChangeSpool, LakeError, StagedFile, TableWriter};
use std::time::Duration;

/// How long removing the files of a transaction may take; what is left is found at a later start.
const DISCARD_PATIENCE: Duration = Duration::from_secs(10);

/// Rows and changes of whole transactions, or of one transaction in progress.
pub(super) struct Inflow {
    pub(super) writer: TableWriter,
    pub(super) changes: ChangeSpool,
    /// Changes beyond this go to the store.
    changes_bytes_max: usize,
}

impl Inflow {
    /// Nothing yet, for the table of the writer.
    pub(super) fn new(writer: TableWriter, changes_bytes_max: usize) -> Self {
        let changes = ChangeSpool::new(&writer, changes_bytes_max);
        Self { writer, changes, changes_bytes_max }
    }

    /// Another one for the same table.
    pub(super) fn another(&self) -> Self {
        Self::new(self.writer.another(), self.changes_bytes_max)
    }

    /// Hands the changes over.
    pub(super) fn take_changes(&mut self) -> ChangeSpool {
        let empty = ChangeSpool::new(&self.writer, self.changes_bytes_max);
        std::mem::replace(&mut self.changes, empty)
    }

    /// Memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.writer.memory_bytes() + self.changes.memory_bytes()
    }

    /// Moves a part of what is held to the store; false when there is nothing to move.
    pub(super) async fn relieve(&mut self) -> Result<bool, LakeError> {
        if self.changes.memory_bytes() > self.writer.memory_bytes() {
            self.changes.relieve().await?;
            return Ok(true);
        }
        self.writer.relieve().await
    }

    /// Removes what no commit names.
    pub(super) async fn discard(self) {
        discard(self.writer).await;
        let removed = tokio::time::timeout(DISCARD_PATIENCE, self.changes.discard()).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::info!("changes that no commit names are left to the next start");
        }
    }
}

/// A writer that goes without a commit since its last one.
pub(super) async fn discard(writer: TableWriter) {
    removed(writer.discard()).await;
}

/// A writer none of whose files will be committed, neither those that it has handed out.
pub(super) async fn abandon(writer: TableWriter, handed_out: Vec<StagedFile>) {
    removed(writer.abandon(handed_out)).await;
}

/// An attempt: what it cannot remove is a file that no commit names, and no reason to fail.
async fn removed(removing: impl Future<Output = Result<(), LakeError>>) {
    match tokio::time::timeout(DISCARD_PATIENCE, removing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "files that no commit names are left to the next start"),
        Err(_) => tracing::info!("files that no commit names are left to the next start: removing them took too long"),
    }
}
