//! The landing stage: a lake table's columns follow those of its source.

use super::PipelineError;
use super::inflow::Inflow;
use super::landing::Landing;
use crate::base::{Lsn, TableShape};
use crate::buffer::{ChangeBatch, change_batch};
use crate::lake::{FindingKind, LakeError, LakeLocation, SourceRelation};
use deltalake::arrow::array::{Array, AsArray, BinaryArray};
use deltalake::arrow::datatypes::{FieldRef, Schema};
use deltalake::arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;

/// How our own columns of a batch of changes are named.
const OWN_COLUMNS: &str = "lakebed_";
/// Columns of a batch of patches before the table's.
const PATCH_COLUMNS: usize = 3;

impl Landing {
    /// The lake has the columns of `shape` from here on; returns those that it did not have. What a transaction in progress, by its xid
    /// and the subtransaction's, asks for in vain is told when it commits.
    pub(super) async fn evolve(
        &mut self,
        by: Option<[u32; 2]>,
        shape: &TableShape,
    ) -> Result<Vec<String>, PipelineError> {
        if self.takes_no_rows() {
            return Ok(Vec::new());
        }
        let patience = self.patience.clone();
        let evolved = match (self.table.evolve(shape, &patience).await, by) {
            (Err(error @ LakeError::SchemaDiffers { .. }), Some([xid, subxid])) => {
                self.unfit.entry(xid).or_default().push((subxid, error));
                return Ok(Vec::new());
            }
            (evolved, _) => evolved,
        };
        let Some(added) = self.or_at_the_commit(evolved)? else { return Ok(Vec::new()) };
        self.retarget().await?;
        Ok(added)
    }

    /// Whether rows or changes of a transaction in progress came with columns that it asked for in vain. The change of columns and
    /// everything that came with them are rolled back together, or the transaction is refused.
    pub(super) fn is_unfit(&self, xid: Option<u32>, columns: &Schema) -> bool {
        let known = self.table.columns();
        let fits = |field: &FieldRef| {
            let of_the_lake = known.iter().find(|known| known.name() == field.name());
            of_the_lake.is_some_and(|known| known.data_type() == field.data_type())
        };
        let mut own = columns.fields().iter().filter(|field| !field.name().starts_with(OWN_COLUMNS));
        xid.is_some_and(|xid| self.unfit.contains_key(&xid)) && !own.all(fits)
    }

    async fn retarget(&mut self) -> Result<(), PipelineError> {
        let Self { whole, in_progress, table, .. } = self;
        let mut outcome = Ok(());
        for Inflow { writer, .. } in std::iter::once(whole).chain(in_progress.values_mut()) {
            outcome = outcome.and(writer.retarget(table).await);
        }
        self.or_at_the_commit(outcome).map(|_| ())
    }

    /// Rows with NULL where the lake had none: DROP NOT NULL is not told in the stream.
    pub(super) async fn make_room_for_null(&mut self, rows: &RecordBatch) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let columns = self.table.columns_with_new_null(rows, |_| 0);
        self.take_null(&columns).await
    }

    /// The same for new versions of rows, in which NULL may also stand for what was not sent.
    pub(super) async fn make_room_for_null_in(&mut self, batch: &ChangeBatch) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let unsent = batch.patches.column_by_name(change_batch::UNCHANGED).and_then(|column| column.as_binary_opt());
        let schema = batch.patches.schema();
        let not_sent = |name: &str| {
            let place = schema.index_of(name).ok().and_then(|index| index.checked_sub(PATCH_COLUMNS));
            place.zip(unsent).map_or(0, |(place, unsent)| count_of(unsent, place))
        };
        let columns = self.table.columns_with_new_null(&batch.patches, not_sent);
        self.take_null(&columns).await
    }

    /// Columns that were NOT NULL take NULL from here on.
    pub(super) async fn take_null(&mut self, columns: &BTreeSet<String>) -> Result<(), PipelineError> {
        if columns.is_empty() {
            return Ok(());
        }
        let patience = self.patience.clone();
        let taken = self.table.take_null(columns, &patience).await;
        if self.or_at_the_commit(taken)?.is_some() {
            self.retarget().await?;
        }
        Ok(())
    }

    /// The table of the server that this one was fed from.
    pub(super) fn source_relation(&self) -> Option<SourceRelation> {
        self.table.source_relation()
    }

    /// Notes which table of the server feeds this one.
    pub(super) async fn note_source(&mut self, relation: SourceRelation) -> Result<(), PipelineError> {
        if self.takes_no_rows() {
            return Ok(());
        }
        let patience = self.patience.clone();
        let noted = self.table.note_source(relation, &patience).await;
        self.or_at_the_commit(noted).map(|_| ())
    }

    /// Refuses a start where the catalog has another table of the name than the one that fed this one: its rows are gone from the
    /// database, perhaps without any that follow.
    pub(super) async fn refuse_another_source(
        &mut self,
        oid: u32,
        location: &LakeLocation,
        slot: &str,
    ) -> Result<(), PipelineError> {
        let known = self.source_relation().filter(|known| known.since_xid.is_none() && known.oid != oid);
        if known.is_none() || self.is_parked() {
            return Ok(());
        }
        let (table, at) = (self.table_name().clone(), self.recorded());
        let error = PipelineError::Recreated { table, at };
        if !self.may_park() {
            return Err(error);
        }
        let patience = self.patience.clone();
        self.park(at, error.to_string(), location, slot, &patience).await
    }

    /// Rows that were there before some columns were added have a default in the database, and nothing in the lake.
    pub(super) async fn note_defaults(
        &mut self,
        columns: &[String],
        at: Lsn,
        location: &LakeLocation,
        slot: &str,
    ) -> Result<(), PipelineError> {
        if columns.is_empty() {
            return Ok(());
        }
        let (table, columns) = (self.name(), columns.join(", "));
        let reason = format!(
            "{columns} was added with a default, which the stream does not tell for rows that were there before: in the lake, those \
             from before {at} have NULL there; copy their days again where that matters"
        );
        tracing::warn!(table, lsn = %at, reason, "rows of the lake lack a default");
        let patience = self.patience.clone();
        self.note((FindingKind::Default, at), reason, (location, slot), &patience).await
    }
}

/// In how many patches a column was not sent.
fn count_of(unsent: &BinaryArray, column: usize) -> usize {
    let is_unsent = |bits: &[u8]| bits.get(column / 8).is_some_and(|byte| byte & (1 << (column % 8)) != 0);
    (0..unsent.len()).filter(|row| is_unsent(unsent.value(*row))).count()
}
