//! From a session's rows to files: one batch is encoded while the next is being read.

use crate::base::XidSet;
use crate::buffer::PartitionBatch;
use crate::lake::{LakeError, StagedFile, TableWriter};
use crate::ops::fail_points;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::time::timeout;

/// How long the store may take to remove what will not be committed; the next process finds the rest.
const ABANDON_WITHIN: Duration = Duration::from_secs(30);

type Writing = BoxFuture<'static, (TableWriter, Result<(), LakeError>)>;

/// A writer that belongs to one session and one table.
pub(super) struct Outlet {
    /// None while it writes.
    writer: Option<TableWriter>,
    writing: Option<Writing>,
    /// Finished ones.
    files: Vec<StagedFile>,
    /// Whether there are rows that are in no finished file.
    open: bool,
}

impl Outlet {
    pub(super) fn new(writer: TableWriter) -> Self {
        Self { writer: Some(writer), writing: None, files: Vec::new(), open: false }
    }

    /// Whether [`Self::settle`] has something to wait for.
    #[inline]
    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Waits until what was begun is written. Cancel-safe.
    pub(super) async fn settle(&mut self) -> Result<(), LakeError> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let (writer, written) = writing.await;
        (self.writer, self.writing) = (Some(writer), None);
        written
    }

    /// Begins to write; the work goes on beside the caller, who has to come back to [`Self::settle`]. Cancel-safe until what was begun
    /// before is written.
    pub(super) async fn begin(&mut self, batches: impl FnOnce() -> Vec<PartitionBatch>) -> Result<(), LakeError> {
        self.settle().await?;
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let batches = batches();
        self.open |= !batches.is_empty();
        let mut writing: Writing = Box::pin(async move {
            let written = write(&mut writer, batches).await;
            (writer, written)
        });
        // From its first step on, the encoder is at work on a thread of its own.
        match (&mut writing).now_or_never() {
            None => {
                self.writing = Some(writing);
                Ok(())
            }
            Some((writer, written)) => {
                self.writer = Some(writer);
                written
            }
        }
    }

    /// Closes the files, without the rows of aborted attempts.
    pub(super) async fn close(&mut self, aborted: &XidSet) -> Result<(), LakeError> {
        self.settle().await?;
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        fail_points::reach("copy.before_finish");
        self.files.append(&mut writer.finish_without(aborted).await?);
        fail_points::reach("copy.after_finish");
        Ok(())
    }

    /// The writer, and what it closed; None where a write is under way.
    pub(super) fn into_parts(self) -> Option<(TableWriter, Vec<StagedFile>)> {
        self.writer.map(|writer| (writer, self.files))
    }

    /// Nothing of it will be committed: every file is removed, within limits.
    pub(super) async fn abandon(mut self) {
        let removing = async {
            // Its error is why it is abandoned, or comes of it.
            let _ = self.settle().await;
            match self.writer {
                Some(writer) => writer.abandon(self.files).await,
                None => Ok(()),
            }
        };
        match timeout(ABANDON_WITHIN, removing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "files of a copy that was given up stay for the next process"),
            Err(_) => tracing::debug!("files of a copy that was given up stay for the next process"),
        }
    }
}

async fn write(writer: &mut TableWriter, batches: Vec<PartitionBatch>) -> Result<(), LakeError> {
    for batch in batches {
        writer.write(batch).await?;
    }
    Ok(())
}
