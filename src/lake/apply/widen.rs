//! A column becomes wider: every file that has it is written again with its values in the new type, in one commit with the new columns.
//!
//! Readers of the profile (L4) take a column's type from the table alone, so no file may be left behind: the commit stands on the whole
//! table as it was planned, and any other entry means a new plan.

use super::data_file::DataFile;
use crate::buffer::PartitionBatch;
use crate::lake::actions::{self, Metadata};
use crate::lake::active::{ActiveFile, Wanted};
use crate::lake::commit::Entry;
use crate::lake::error::LakeError;
use crate::lake::lock::TableLock;
use crate::lake::patience::Patience;
use crate::lake::rules::Fit;
use crate::lake::schema::LakeSchema;
use crate::lake::staged::StagedFile;
use crate::lake::table::LakeTable;
use crate::lake::writer::{TableWriter, WriterOptions};
use deltalake::logstore::object_store::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// For the encoders of the files that stand for others.
const WRITER_BYTES: usize = 32 << 20;

/// Files of the table, and the ones that are to stand for them.
struct Widened {
    removed: Vec<ActiveFile>,
    added: Vec<StagedFile>,
    writer: TableWriter,
}

impl LakeTable {
    /// Commits `metadata`, in which `columns` are wider than in the table's files.
    ///
    /// # Errors
    /// [`LakeError::FilesMoved`] when somebody else was faster; what the store says; a file that cannot be read.
    pub(in crate::lake) async fn widen(
        &mut self,
        metadata: Metadata,
        columns: &[String],
        patience: &Patience,
    ) -> Result<(), LakeError> {
        let lock = TableLock::acquire(self, "widen", patience).await?;
        let widened = self.widen_alone(metadata, columns, patience).await;
        lock.release().await;
        widened
    }

    async fn widen_alone(
        &mut self,
        metadata: Metadata,
        columns: &[String],
        patience: &Patience,
    ) -> Result<(), LakeError> {
        let (began, known) = (Instant::now(), self.version);
        self.catch_up().await?;
        if self.version != known {
            return Err(LakeError::FilesMoved { location: self.log.location.clone(), version: self.version });
        }
        let Fit { schema, pending } = self.rules.fit(&metadata)?;
        let Widened { removed, added, mut writer } = self.widened_files(&schema, columns, patience).await?;
        let (files, bytes) = (removed.len(), removed.iter().map(|file| file.size_bytes).sum::<u64>());
        let entry = Entry::new(
            |commit, now| actions::widening(&metadata, &removed, &added, commit, now),
            ["lake.before_evolve", "lake.after_evolve"],
        );
        let put = self.put_entry(&entry.alone()).await;
        let outcome = match put {
            Ok(version) => {
                writer.committed(self).await;
                (self.metadata, self.schema, self.pending) = (metadata, schema, pending);
                self.checkpoints.after_commit(version, &self.log_store);
                let (location, seconds) = (&self.log.location, began.elapsed().as_secs_f64());
                tracing::info!(
                    location,
                    ?columns,
                    files,
                    bytes,
                    seconds,
                    "a column became wider: its files were rewritten"
                );
                writer.discard().await
            }
            // Certainly not committed.
            Err(error @ LakeError::FilesMoved { .. }) => {
                let abandoned = writer.abandon(added).await;
                abandoned.and(Err(error))
            }
            // Whether these files are in the log is for the next process to learn: they and the sign that there are some stay.
            Err(error) => writer.discard().await.and(Err(error)),
        };
        if let (Err(error), true) = (&outcome, self.pending.is_none()) {
            tracing::debug!(%error, "what a rewrite left behind is removed later");
            return Ok(());
        }
        outcome
    }

    /// Reads and writes on a thread beside the reactor.
    async fn widened_files(
        &self,
        schema: &Arc<LakeSchema>,
        columns: &[String],
        patience: &Patience,
    ) -> Result<Widened, LakeError> {
        let files = self.log.active_files(self.version, schema.partition_by, &Wanted::All).await?;
        let app_id = self.rules.progress.app_id();
        let options = WriterOptions { memory_limit_bytes: WRITER_BYTES, ..WriterOptions::default() };
        let writer = TableWriter::of_columns(app_id, self, schema, options, patience.clone())?;
        let (columns, reactor) = (columns.to_vec(), Handle::current());
        let work = async move {
            let mut widened = Widened { removed: Vec::new(), added: Vec::new(), writer };
            match widened.rewrite(files, &columns).await {
                Ok(()) => Ok(widened),
                Err(error) => {
                    let Widened { added, writer, .. } = widened;
                    if let Err(error) = writer.abandon(added).await {
                        tracing::debug!(%error, "what a rewrite left behind is removed later");
                    }
                    Err(error)
                }
            }
        };
        let joined = tokio::task::spawn_blocking(move || reactor.block_on(Box::pin(work))).await;
        joined.map_err(|error| LakeError::Encode {
            location: self.log.location.clone(),
            reason: format!("rewriting files stopped ({error})"),
        })?
    }
}

impl Widened {
    /// Writes those files again that have one of the columns.
    async fn rewrite(&mut self, files: Vec<ActiveFile>, columns: &[String]) -> Result<(), LakeError> {
        let target = Arc::clone(self.writer.target());
        let schema = target.encoding.schema.arrow.clone();
        for file in files {
            let path = Path::parse(file.object_path()).unwrap_or_else(|_| Path::from(file.object_path()));
            let data = DataFile { target: Arc::clone(&target), path, size_bytes: file.size_bytes };
            if !data.has_any(columns).await? {
                continue;
            }
            let mut rows = data.rows(None, None).await?;
            while let Some(batch) = rows.next().await? {
                let (partition, rows) = (file.partition, data.adapt(&batch, &schema)?);
                self.writer.write(PartitionBatch { partition, rows, xids: None, eras: None }).await?;
            }
            self.removed.push(file);
        }
        self.added = self.writer.finish().await?;
        Ok(())
    }
}
