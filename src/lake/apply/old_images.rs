//! Rows of the lake that went, on their way to the journal.

use super::steps::Transaction;
use crate::base::{Lsn, Partition};
use crate::buffer::{Operation, PartitionBatch};
use crate::lake::error::LakeError;
use crate::lake::journal::{Journal, JournalPlace};
use crate::lake::journal_rows::JournalEntry;
use crate::lake::patience::Patience;
use crate::lake::table::LakeTable;
use crate::lake::writer::WriterOptions;
use deltalake::arrow::array::RecordBatch;

/// The old images of one plan. The journal is opened, or made, when the first one comes.
pub(super) struct OldImages {
    place: JournalPlace,
    options: WriterOptions,
    patience: Patience,
    journal: Option<Journal>,
}

impl OldImages {
    pub(super) fn of(table: &LakeTable, options: WriterOptions, patience: Patience) -> Self {
        Self { place: JournalPlace::beside(table), options, patience, journal: None }
    }

    /// Takes rows that one transaction changed or removed, unless the journal has them already: it lands before the table, so that
    /// after a crash between the two it is ahead.
    pub(super) async fn keep(
        &mut self,
        partition: Partition,
        old: &RecordBatch,
        operation: Operation,
        transaction: &Transaction,
    ) -> Result<(), LakeError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => none.insert(Journal::at(&self.place, self.options, self.patience.clone()).await?),
        };
        let Transaction { commit_lsn, commit_time_micros, xid, .. } = *transaction;
        if journal.holds(commit_lsn) {
            return Ok(());
        }
        let entry = JournalEntry { operation, commit_lsn, commit_time_micros, xid };
        let rows = journal.rows(old, &vec![entry; old.num_rows()])?;
        journal.write(PartitionBatch { partition, rows, xids: None, eras: None }).await
    }

    /// Commits them, up to `at`; once is enough.
    pub(super) async fn land(&mut self, at: Lsn, patience: &Patience) -> Result<(), LakeError> {
        match &mut self.journal {
            Some(journal) => journal.land(at, patience).await,
            None => Ok(()),
        }
    }

    /// What was not committed is removed.
    pub(super) async fn close(self) {
        if let Some(journal) = self.journal
            && let Err(error) = journal.discard().await
        {
            tracing::debug!(%error, "what the journal's writer left behind is removed later");
        }
    }
}
