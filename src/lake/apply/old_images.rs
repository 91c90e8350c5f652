//! The rows that a rewrite takes out of the lake, as they were, on their way to the journal.

use super::held::Held;
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

/// The old images of one plan. The journal is opened, or made, for the first of them; afterwards the table keeps it open for the next
/// plan.
pub(super) struct OldImages {
    place: JournalPlace,
    options: WriterOptions,
    patience: Patience,
    journal: Option<Box<Journal>>,
    held: Held,
}

impl OldImages {
    pub(super) fn of(table: &LakeTable, options: WriterOptions, patience: Patience) -> Self {
        let held = Held::ahead_of(table.recorded());
        Self { place: JournalPlace::beside(table), options, patience, journal: None, held }
    }

    /// Rows of one partition that go by one operation of one transaction; the partitions come one after the other. What the journal holds
    /// already is there since an attempt whose table commit did not follow.
    pub(super) async fn keep(
        &mut self,
        partition: Partition,
        old: &RecordBatch,
        operation: Operation,
        transaction: &Transaction,
    ) -> Result<(), LakeError> {
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => none.insert(self.place.take_or_open(self.options, &self.patience).await?),
        };
        let Transaction { commit_lsn, commit_time_micros, xid, .. } = *transaction;
        let entry = JournalEntry { operation, commit_lsn, commit_time_micros, xid };
        let mut rows = journal.rows(old, &vec![entry; old.num_rows()])?;
        if journal.may_hold(commit_lsn) {
            rows = self.held.without(journal, partition, rows).await?;
        }
        if rows.num_rows() == 0 {
            return Ok(());
        }
        journal.write(PartitionBatch { partition, rows, xids: None, eras: None }).await
    }

    /// Before the table's own commit, so that no row goes without its entry.
    pub(super) async fn land(&mut self, at: Lsn, patience: &Patience) -> Result<(), LakeError> {
        match &mut self.journal {
            Some(journal) => journal.land(at, patience).await,
            None => Ok(()),
        }
    }

    /// The plan will not be committed.
    pub(super) async fn forget(self) {
        if let Some(journal) = self.journal
            && let Err(error) = journal.discard().await
        {
            tracing::debug!(%error, "what a rewrite left behind is removed later");
        }
    }

    /// The plan was committed.
    pub(super) fn close(self) {
        if let Some(journal) = self.journal {
            self.place.put_back(journal);
        }
    }
}
